/** Faults that the random user of `deno task fuzz api` has found. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { Message, WebSocketConnection } from "../../mod.ts";
import { pair } from "../../lib/testing.ts";
import { concat, pattern } from "../bytes.ts";
import { rejection, rest } from "../support.ts";

describe("send() of a stream whose signal is aborted already", () => {
  const REASON = new Error("no longer wanted");

  for (const state of ["open", "closed"] as const) {
    it(`send() cancels the stream with the reason, on a connection that is ${state}`, async () => {
      const [client] = await pair();
      if (state === "closed") await client.close();
      const reasons: unknown[] = [];
      const stream = new ReadableStream<string>({
        cancel: (reason) => void reasons.push(reason),
      });
      const sending = client.send(stream, { signal: AbortSignal.abort(REASON) });
      assert.equal(await rejection(sending), REASON);
      assert.deepEqual(reasons, [REASON]);
      client.terminate();
    });
  }
});

/** The messages of a connection, each joined from its pieces. */
async function readMessages(ws: WebSocketConnection): Promise<Message[]> {
  const messages: Message[] = [];
  for await (const { type, readable } of ws.messages()) {
    const pieces: Message[] = [];
    for await (const piece of readable) pieces.push(piece);
    messages.push(type === "text" ? pieces.join("") : concat(pieces as Uint8Array[]));
  }
  return messages;
}

describe("messages() while a long message arrives", () => {
  /** Two short messages, followed by one that does not fit in the queue. */
  const MESSAGES: Readonly<Record<string, Message[]>> = {
    text: ["a", "b", Array.from({ length: 30_000 }, (_, i) => `${i} `).join("")],
    binary: [pattern(10), pattern(20), pattern(200_000)],
  };

  for (const [type, messages] of Object.entries(MESSAGES)) {
    for (const compression of [false, true]) {
      for (const highWaterMark of [1, 1000, 65536]) {
        const how = `${compression ? "compressed" : "plain"}, with a queue of ${highWaterMark}`;
        it(`messages() gives waiting messages before new ones: ${type}, ${how}`, async () => {
          const readableStrategy = { highWaterMark };
          const [client, server] = await pair({ server: { compression, readableStrategy } });
          const sending = Promise.all(messages.map((message) => client.send(message)));
          // The queue is full, and a part of the last message may have arrived.
          await rest();
          const reading = readMessages(server);
          await sending;
          await client.close();
          assert.deepEqual((await reading).map(String), messages.map(String));
        });
      }
    }
  }
});
