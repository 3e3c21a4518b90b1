/**
 * The client on this runtime, against a server on each runtime in another process. The suite on all runtimes
 * covers every pair once.
 */
import { after, before, describe } from "node:test";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { it } from "./it.ts";
import {
  type CloseDetails,
  connect,
  type ConnectOptions,
  HandshakeError,
  type Message,
  type OutgoingMessage,
  type WebSocketConnection,
} from "../mod.ts";
import { assertSameBytes, concat, pattern, utf8 } from "./bytes.ts";
import { certificates } from "./certificates.ts";
import { Child } from "./programs.ts";
import { RUNTIMES } from "./runtimes.ts";
import { rejection, turn } from "./support.ts";

const MIB = 1 << 20;
const PROGRAM = fileURLToPath(new URL("scenarios/matrix_server.ts", import.meta.url));

/** The header fields of a frame that the test checks. */
type Brief = [opcode: number, fin: boolean, length: number];

/** The messages to send, and the frames that they are sent in. */
const MESSAGES: [name: string, message: () => OutgoingMessage, frames: Brief[]][] = [
  ["text", () => "gr\u00fc\u00df \u{1f600}", [[1, true, 11]]],
  ["no text", () => "", [[1, true, 0]]],
  ["bytes", () => pattern(300), [[2, true, 300]]],
  ["text in fragments", () => ["gr\u00fc", "\u00df", " dich"], [
    [1, false, 4],
    [0, false, 2],
    [0, true, 5],
  ]],
  ["bytes in fragments", () => [pattern(70_000), pattern(3)], [
    [2, false, 70_000],
    [0, true, 3],
  ]],
  ["a MiB of text", () => "\u00fc\u00df".repeat(MIB / 4), [[1, true, MIB]]],
  ["a MiB of bytes", () => pattern(MIB), [[2, true, MIB]]],
  ["a MiB in fragments that take their time", () => quarters(pattern(MIB)), [
    [2, false, MIB / 4],
    [0, false, MIB / 4],
    [0, false, MIB / 4],
    [0, false, MIB / 4],
    [0, true, 0],
  ]],
];

/** Yields four quarters. The sender only learns after the last one that there are no more. */
async function* quarters(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < 4; i++) {
    yield bytes.subarray(i * bytes.length / 4, (i + 1) * bytes.length / 4);
    await turn();
  }
}

/** The message in one piece. */
async function whole(message: OutgoingMessage): Promise<Message> {
  if (typeof message === "string" || message instanceof Uint8Array) return message;
  const parts: Message[] = [];
  for await (const part of message as AsyncIterable<Message>) parts.push(part);
  return typeof parts[0] === "string" ? parts.join("") : concat(parts as Uint8Array[]);
}

for (const { name, path, skip } of RUNTIMES) {
  describe(`A server on ${name}`, () => {
    let child: Child | undefined;
    let ports: string[];
    let ca: string;
    let count = 0;

    before(async () => {
      if (skip) return;
      if (path === undefined) throw new Error(`Expected the path of ${name}, received none`);
      const made = await certificates();
      ca = made.ca;
      const env = { LEAF: JSON.stringify(made.leaf) };
      child = new Child(PROGRAM, { runtime: { name, path }, env });
      const [, runtime, ...both] = await child.printed(/^(\w+) has ports (\d+) (\d+)$/m);
      assert.equal(runtime, name);
      ports = both;
    });

    after(async () => {
      child?.stop();
      await child?.exited;
    });

    for (const [index, scheme] of ["ws", "wss"].entries()) {
      /** Runs a test with a connection. `ended` tells how the connection ended at the server. */
      const withConnection = async (
        handler: string,
        run: (ws: WebSocketConnection, ended: () => Promise<unknown>) => Promise<unknown>,
        options: ConnectOptions = {},
      ): Promise<void> => {
        const target = `/${handler}/${scheme}/${count++}`;
        const url = `${scheme}://localhost:${ports[index]}${target}`;
        const ws = await connect(url, { tls: { ca }, pingInterval: 0, ...options });
        try {
          await run(ws, async () => {
            const [, json] = await child!.printed(new RegExp(`^${target} (.*)$`, "m"));
            return JSON.parse(json);
          });
        } finally {
          ws.terminate();
        }
      };

      for (const [kind, message, expected] of MESSAGES) {
        it(`A server on ${name} echoes ${kind} over ${scheme}`, { skip }, async () => {
          const came: Brief[] = [];
          await withConnection("echo", async (ws) => {
            await ws.send(message());
            assert.deepEqual(JSON.parse(await ws.receive() as string), expected);
            const sent = await whole(message());
            const echo = await ws.receive();
            assert.equal(typeof echo, typeof sent);
            assertSameBytes(bytesOf(echo), bytesOf(sent));
            // The first frame is the previous answer.
            assert.deepEqual(came.slice(1).map(([opcode, fin]) => [opcode, fin]), [
              [expected[0][0], false],
              [0, true],
            ]);
          }, {
            onFrame: (direction, { opcode, fin = true, payload }) => {
              if (direction === "in") came.push([opcode, fin, payload.length]);
            },
          });
        });
      }

      it(`A server on ${name} answers a ping and sends one over ${scheme}`, { skip }, async () => {
        const pings: string[] = [];
        await withConnection("ping", async (ws, ended) => {
          assert.equal(typeof await ws.ping("from the client"), "number");
          assert.equal(await ws.receive(), "number");
          assert.deepEqual(pings, ["from the server"]);
          await ws.close({ closeCode: 1000 });
          await ended();
        }, {
          onFrame: (direction, { opcode, payload }) => {
            if (direction === "in" && opcode === 9) pings.push(new TextDecoder().decode(payload));
          },
        });
      });

      it(
        `A server on ${name} is told code and reason of a close over ${scheme}`,
        { skip },
        async () => {
          const info = { closeCode: 4001, reason: "gr\u00fc\u00df from the client" };
          await withConnection("echo", async (ws, ended) => {
            const answer = await ws.close(info);
            const [closed, { received, sent, first }] = await ended() as [unknown, CloseDetails];
            assert.deepEqual([closed, received, first], [info, info, "received"]);
            assert.deepEqual(answer, sent);
            assert.equal(answer.closeCode, 4001);
            assert.deepEqual(ws.closeInfo, { sent: info, received: sent, first: "sent" });
          });
        },
      );

      it(
        `A server on ${name} tells code and reason of a close over ${scheme}`,
        { skip },
        async () => {
          const info = { closeCode: 4002, reason: "gr\u00fc\u00df from the server" };
          await withConnection("close", async (ws, ended) => {
            assert.deepEqual(await ws.closed, info);
            const [, { received, sent, first }] = await ended() as [unknown, CloseDetails];
            assert.deepEqual([sent, first], [info, "sent"]);
            assert.equal(received?.closeCode, 4002);
            assert.deepEqual(ws.closeInfo, { sent: received, received: info, first: "received" });
          });
        },
      );
    }

    it(
      `A server on ${name} is trusted only with the authority of its certificate`,
      { skip },
      async () => {
        const { otherCa } = await certificates();
        const url = `wss://localhost:${ports[1]}/`;
        const error = await rejection<HandshakeError>(connect(url, { tls: { ca: otherCa } }));
        assert.ok(error instanceof HandshakeError);
        assert.equal(error.code, "certificate", error.message);
      },
    );
  });
}

function bytesOf(message: Message): Uint8Array {
  return typeof message === "string" ? utf8(message) : message;
}
