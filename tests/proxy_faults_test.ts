/**
 * The conversation of `faults_test.ts` over TCP and TLS, through a proxy that fails at some of its bytes,
 * and through one that only splits and delays.
 */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  connect,
  type HandshakeError,
  type Message,
  serve,
  type WebSocketConnection,
} from "../mod.ts";
import { type Frame, Opcode } from "../lib/core/mod.ts";
import { concat } from "./bytes.ts";
import { certificates } from "./certificates.ts";
import { CONVERSATION, type EndReport, exchange } from "./exchange.ts";
import { Proxy, type ProxyFault, type ProxyOptions } from "./proxy.ts";
import { withoutLeak } from "./resources.ts";
import { portOf } from "./support.ts";

type Scheme = "ws" | "wss";

const LIMITS = { openTimeout: 5000, pingInterval: 400, pingTimeout: 2000, closeTimeout: 1000 };

/** Joins the frames of messages that arrived whole. */
class Frames {
  readonly messages: Message[] = [];
  #parts: Uint8Array[] = [];
  #opcode = 0;

  readonly note = (direction: "in" | "out", { opcode, fin, payload }: Frame): void => {
    if (direction === "out" || opcode >= Opcode.Close) return;
    if (opcode !== Opcode.Continuation) this.#opcode = opcode;
    this.#parts.push(payload);
    if (!fin) return;
    const bytes = concat(this.#parts);
    this.#parts = [];
    this.messages.push(this.#opcode === Opcode.Text ? new TextDecoder().decode(bytes) : bytes);
  };
}

/** Runs the conversation through a proxy. */
async function converse(scheme: Scheme, options: ProxyOptions): Promise<[EndReport, EndReport]> {
  const { ca, leaf } = await certificates();
  const errors: unknown[] = [];
  const frames = [new Frames(), new Frames()];
  let accepted!: (ws: WebSocketConnection) => void;
  let refused!: (error: HandshakeError) => void;
  const accepting = new Promise<WebSocketConnection>((resolve, reject) => {
    accepted = resolve;
    refused = reject;
  });
  accepting.catch(() => {});
  const server = await serve({
    ...LIMITS,
    tls: scheme === "wss" ? leaf : undefined,
    onFrame: frames[1].note,
    onError: (error) => errors.push(error),
  }, async (ws) => {
    accepted(ws);
    await ws.closed.catch(() => {});
  });
  const proxy = await Proxy.to(portOf(server), options);
  try {
    const opening = connect(`${scheme}://127.0.0.1:${proxy.port}/`, {
      ...LIMITS,
      tls: { ca },
      onFrame: frames[0].note,
    });
    // If the client has gone, the server may never get a connection.
    opening.catch(async (error) => {
      await proxy.close();
      await server.shutdown();
      refused(error);
    });
    const reports = await exchange(opening, accepting, "messages");
    for (const [i, { received }] of reports.entries()) {
      assert.deepEqual(received, frames[i].messages, "What came whole was read");
    }
    assert.deepEqual(errors, []);
    return reports;
  } finally {
    await proxy.close();
    await server.shutdown();
    assert.equal(server.connections.size, 0);
  }
}

/** About as many bytes as each side sends in every run, including the handshake. */
const SAID: Record<Scheme, Record<ProxyFault["from"], number>> = {
  ws: { client: 460, server: 400 },
  wss: { client: 1500, server: 2500 },
};

const ENDS = /^(connection-lost|connect-failed|certificate|timeout|failed 10(06|11)|closed 1000)$/;

/** Cuts spread over all the bytes, and some near the start and the end. */
function cuts(said: number): number[] {
  const spread = Array.from({ length: 10 }, (_, i) => Math.floor((said * i) / 10));
  return [...spread, 1, said - 12, said - 8, said - 7, said - 1];
}

describe("A proxy that fails", () => {
  for (const how of ["cut", "half-close", "reset", "silence"] as const) {
    for (const scheme of ["ws", "wss"] as const) {
      it(`A ${scheme} connection through a proxy with the fault "${how}" settles, and leaves nothing`, async () => {
        const faults = (["client", "server"] as const).flatMap((from) =>
          cuts(SAID[scheme][from]).map((after): ProxyFault => ({ from, after, how }))
        );
        await withoutLeak(async () => {
          await Promise.all(faults.map(async (fault) => {
            const reports = await converse(scheme, { fault });
            for (const { end } of reports) {
              assert.match(end, ENDS, `after ${fault.after} bytes of the ${fault.from}'s`);
            }
          }));
        });
      });
    }
  }

  const harmless: [title: string, options: ProxyOptions][] = [
    ["chops into single bytes", { chunkSize: 1 }],
    ["chops and delays", { chunkSize: 50, delay: 3 }],
    ["delays", { delay: 20 }],
  ];
  for (const [title, options] of harmless) {
    for (const scheme of ["ws", "wss"] as const) {
      it(`A ${scheme} connection through a proxy that ${title} loses nothing`, async () => {
        await withoutLeak(async () => {
          const [client, server] = await converse(scheme, options);
          assert.deepEqual([client.end, server.end], ["closed 1000", "closed 1000"]);
          assert.deepEqual(client.received, CONVERSATION);
          assert.deepEqual(server.received, CONVERSATION.slice(1));
        });
      });
    }
  }
});
