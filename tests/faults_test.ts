/**
 * A conversation whose line breaks at each of its bytes, in memory: everything settles, nothing is left
 * open, and no message that arrived whole is lost. `proxy_faults_test.ts` does the same with sockets.
 */
import { after, describe, it } from "node:test";
import assert from "node:assert/strict";
import { accept, connect } from "../mod.ts";
import { type LineFault, transportPair } from "../lib/testing.ts";
import { type Message, MessageAssembler, Protocol, type Role } from "../lib/core/mod.ts";
import type { Transport } from "../lib/transport.ts";
import { concat, latin1 } from "./bytes.ts";
import { CONVERSATION, type EndReport, exchange, type Way } from "./exchange.ts";
import { watchedSignal, withoutLeak, withoutTimers } from "./resources.ts";
import { until } from "./support.ts";

/** How many lines are tested at once. Silent lines only wait, the others use the CPU. */
const atOnce = (how: LineFault["how"]) => how === "silence" ? 500 : 50;

/** Time limits that only a hang reaches. A silent line uses shorter ones. */
const PATIENT = { openTimeout: 30_000, pingInterval: 0, closeTimeout: 30_000 };
/** Longer than a busy machine takes to deliver data. */
const IMPATIENT = { openTimeout: 5000, pingInterval: 400, pingTimeout: 4000, closeTimeout: 3000 };

/** A transport whose received bytes are recorded, and the number of times it was closed. */
interface Tap {
  transport: Transport;
  arrived: Uint8Array[];
  written: number;
  closes: number;
}

function tap(transport: Transport): Tap {
  const tapped: Tap = { transport, arrived: [], written: 0, closes: 0 };
  const { handle, write } = transport;
  transport.handle = (handlers) =>
    handle.call(transport, {
      data(chunk) {
        tapped.arrived.push(chunk.slice());
        handlers.data(chunk);
      },
      drain: () => handlers.drain(),
      end: () => handlers.end(),
      close(error) {
        tapped.closes++;
        handlers.close(error);
      },
    });
  transport.write = (parts) => {
    for (const part of parts) tapped.written += part.length;
    write.call(transport, parts);
  };
  return tapped;
}

/** The messages that arrived whole, up to the first Close frame. */
function whole(role: Role, arrived: Uint8Array[]): Message[] {
  const bytes = concat(arrived);
  const text = String.fromCharCode(...bytes.subarray(0, 1000));
  const start = text.indexOf("\r\n\r\n");
  if (start < 0) return [];
  const protocol = new Protocol(role);
  const assembler = new MessageAssembler();
  const messages: Message[] = [];
  protocol.receive(bytes.slice(start + latin1("\r\n\r\n").length));
  for (const event of protocol.events()) {
    if (event.type !== "text" && event.type !== "binary") continue;
    const message = assembler.push(event);
    if (message !== undefined) messages.push(message);
  }
  return messages;
}

interface Run {
  reports: [EndReport, EndReport];
  taps: [Tap, Tap];
}

async function run(fault: LineFault | undefined, way: Way, chunkSize?: number): Promise<Run> {
  const [near, far] = transportPair({ fault, chunkSize });
  const taps: [Tap, Tap] = [tap(near), tap(far)];
  const { signal, listeners } = watchedSignal();
  const options = { ...(fault?.how === "silence" ? IMPATIENT : PATIENT), signal };
  const client = connect("ws://localhost/", { ...options, transport: near });
  const reports = await exchange(client, accept(far, options), way);
  assert.equal(listeners(), 0, "Listeners of a signal are left");
  await until(() => taps.every(({ closes }) => closes > 0));
  return { reports, taps };
}

/** The possible ends at both sides of a line that breaks in this way. */
const ENDS: Record<LineFault["how"], RegExp> = {
  "end": /^(connection-lost|failed 1006|closed 1000)$/,
  "half-close": /^(connection-lost|failed 1006|closed 1000)$/,
  "reset": /^(connection-lost|failed 1006|closed 1000)$/,
  // An end that has sent a Close frame waits for closeTimeout, the others wait for a pong.
  "silence": /^(timeout|failed 1011|failed 1006|closed 1000|connection-lost)$/,
};

async function checkCut(fault: LineFault, way: Way, chunkSize?: number): Promise<void> {
  const { reports, taps } = await run(fault, way, chunkSize);
  const title = `${fault.how} after ${fault.after} bytes of the ${fault.from}'s, ${way}`;
  for (const [i, role] of (["client", "server"] as const).entries()) {
    const { end, received } = reports[i];
    assert.match(end, ENDS[fault.how], `${title}: ${role}, ${end}`);
    assert.equal(taps[i].closes, 1, `${title}: the ${role}'s transport was closed`);
    // An end with a connection has read all messages that arrived whole.
    if (/^(failed|closed)/.test(end)) {
      assert.deepEqual(received, whole(role, taps[i].arrived), `${title}: ${role}`);
    }
  }
}

let survived = 0;

describe("A line that breaks", () => {
  it("A line that does not break carries all of the conversation", async () => {
    for (const way of ["messages", "streams"] as const) {
      const { reports, taps } = await run(undefined, way);
      assert.deepEqual(reports.map(({ end }) => end), ["closed 1000", "closed 1000"]);
      // A direct send may overtake a message written to the stream.
      const sorted = (messages: readonly Message[]) => messages.map(String).sort();
      assert.deepEqual(sorted(reports[0].received), sorted(CONVERSATION));
      assert.deepEqual(sorted(reports[1].received), sorted(CONVERSATION.slice(1)));
      assert.deepEqual(whole("client", taps[0].arrived), reports[0].received);
    }
  });

  for (const how of Object.keys(ENDS) as LineFault["how"][]) {
    for (const from of ["client", "server"] as const) {
      it(`A line that breaks by ${how} at each byte from the ${from}`, async () => {
        const { taps } = await run(undefined, "messages");
        const total = taps[from === "client" ? 0 : 1].written;
        assert.ok(total > 350, `${total} bytes`);
        await withoutLeak(() =>
          withoutTimers(async () => {
            const most = atOnce(how);
            for (let start = 0; start <= total; start += most) {
              const cuts = Array.from({ length: Math.min(most, total + 1 - start) }, (_, i) => {
                const after = start + i;
                const way = after % 2 === 0 ? "messages" : "streams";
                return checkCut({ from, after, how }, way, after % 3 === 0 ? 1 : undefined);
              });
              await Promise.all(cuts);
              survived += cuts.length;
            }
          })
        );
      });
    }
  }

  after(() => console.log(`cuts survived: ${survived}`));
});
