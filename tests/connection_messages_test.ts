import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { IncomingMessage, Message, WebSocketConnection } from "../mod.ts";
import { concat, pattern, utf8 } from "./bytes.ts";
import {
  binaryFrame,
  closeFrame,
  collect,
  continuation,
  inBothRoles,
  pongFrame,
  rejection,
  rest,
  textFrame,
  until,
} from "./support.ts";

const KIB = 1024;
/** The default capacity of the inbox, in bytes. */
const INBOX = 64 * KIB;

async function next(
  reader: ReadableStreamDefaultReader<IncomingMessage>,
): Promise<IncomingMessage> {
  const { done, value } = await reader.read();
  assert.equal(done, false);
  return value!;
}

async function whole({ readable }: IncomingMessage): Promise<Message> {
  const pieces = await collect<Message>(readable);
  return pieces.every((piece) => typeof piece === "string")
    ? pieces.join("")
    : concat(pieces as Uint8Array[]);
}

/** Reads all messages, each one to its end before the next. */
async function readAll(ws: WebSocketConnection): Promise<Message[]> {
  const messages: Message[] = [];
  for await (const message of ws.messages() as unknown as AsyncIterable<IncomingMessage>) {
    messages.push(await whole(message));
  }
  return messages;
}

describe("WebSocketConnection.messages", () => {
  it("messages() gives each message as a stream with its type", async () => {
    await inBothRoles(async (ws, peer) => {
      const reader = ws.messages().getReader();
      peer.send(textFrame("a"), binaryFrame(pattern(3)), textFrame(""));
      const text = await next(reader);
      assert.equal(text.type, "text");
      assert.equal(await whole(text), "a");
      const binary = await next(reader);
      assert.equal(binary.type, "binary");
      assert.deepEqual(await whole(binary), pattern(3));
      assert.equal(await whole(await next(reader)), "");
    });
  });

  it("messages() gives a message while it arrives, piece by piece", async () => {
    await inBothRoles(async (ws, peer) => {
      const messages = ws.messages().getReader();
      peer.send(textFrame("a", false));
      const { type, readable } = await next(messages);
      assert.equal(type, "text");
      const reader = readable.getReader();
      assert.equal((await reader.read()).value, "a");
      peer.send(continuation("b", false));
      assert.equal((await reader.read()).value, "b");
      peer.send(continuation("c"), textFrame("next"));
      assert.equal((await reader.read()).value, "c");
      assert.equal((await reader.read()).done, true);
      assert.equal(await whole(await next(messages)), "next");
    });
  });

  it("messages() gives whole characters, wherever a frame cuts them", async () => {
    await inBothRoles(async (ws, peer) => {
      const bytes = utf8("\u{1f600}\u20ac");
      const messages = ws.messages().getReader();
      peer.send(
        { fin: false, opcode: 1, payload: bytes.subarray(0, 2) },
        continuation(bytes.subarray(2, 5), false),
        continuation(bytes.subarray(5)),
      );
      assert.equal(
        (await collect<Message>((await next(messages)).readable)).join("|"),
        "\u{1f600}|\u20ac",
      );
    });
  });

  it("messages() gives waiting messages before those that arrive later", async () => {
    await inBothRoles(async (ws, peer) => {
      const sent = Array.from({ length: 8 }, (_, i) => `${i}`.repeat(7000));
      peer.send(...sent.map((text) => textFrame(text)));
      await until(() => ws.stats.paused);
      const received = readAll(ws);
      await until(() => ws.stats.messagesReceived === 8);
      peer.send(closeFrame(1000));
      assert.deepEqual(await received, sent);
    }, { readableStrategy: { highWaterMark: 20_000 } });
  });

  it("messages() reads a message far larger than the inbox in bounded memory", async () => {
    const payload = pattern(2048 * KIB);
    await inBothRoles(
      async (ws, peer) => {
        const messages = ws.messages().getReader();
        peer.send(binaryFrame(payload), textFrame("behind"));
        const message = await next(messages);
        await until(() => ws.stats.paused);
        await rest();
        assert.ok(ws.stats.queued <= INBOX + 17 * KIB, `${ws.stats.queued} bytes wait`);
        assert.deepEqual(await whole(message), payload);
        assert.equal(await whole(await next(messages)), "behind");
        assert.ok(ws.stats.peakQueued <= INBOX + 17 * KIB, `${ws.stats.peakQueued} bytes waited`);
        assert.ok(ws.stats.pauses > 1);
      },
      { maxMessageSize: Infinity },
      { chunkSize: 16 * KIB },
    );
  });

  for (const [name, last] of [["", pattern(10_000)], [", the last one empty", utf8("")]] as const) {
    it(`messages() reads a message whose fragments came in one chunk${name}`, async () => {
      await inBothRoles(async (ws, peer) => {
        const messages = ws.messages().getReader();
        const middle = Array.from({ length: 30 }, () => continuation(pattern(10_000), false));
        peer.send(binaryFrame(pattern(10_000), false), ...middle, continuation(last));
        peer.send(textFrame("behind"));
        const message = await whole(await next(messages)) as Uint8Array;
        assert.equal(message.length, 31 * 10_000 + last.length);
        assert.deepEqual(message.subarray(-last.length || message.length), last);
        assert.equal(await whole(await next(messages)), "behind");
      });
    });
  }

  it("messages() counts whole messages that are not read, and stops the peer", async () => {
    await inBothRoles(async (ws, peer) => {
      const messages = ws.messages().getReader();
      for (let i = 0; i < 40; i++) peer.send(binaryFrame(pattern(10_000)));
      await until(() => ws.stats.paused);
      await rest();
      assert.ok(ws.stats.messagesReceived < 10, `${ws.stats.messagesReceived} messages came`);
      for (let i = 0; i < 40; i++) assert.equal((await whole(await next(messages))).length, 10_000);
      assert.equal(ws.stats.queued, 0);
    });
  });

  it("messages() keeps to maxMessageSize", async () => {
    await inBothRoles(async (ws, peer) => {
      const messages = ws.messages().getReader();
      peer.send(binaryFrame(pattern(6), false), continuation(pattern(6)));
      const message = await next(messages);
      assert.equal((await peer.nextClose()).closeCode, 1009);
      const error = await rejection(ws.closed);
      const reader = message.readable.getReader();
      assert.deepEqual((await reader.read()).value, pattern(6));
      assert.equal(await rejection(reader.read()), error);
      assert.equal(await rejection(messages.read()), error);
    }, { maxMessageSize: 10 });
  });

  it("messages() continues after a cancelled message", async () => {
    await inBothRoles(async (ws, peer) => {
      const messages = ws.messages().getReader();
      peer.send(textFrame("a", false));
      await (await next(messages)).readable.cancel();
      peer.send(continuation("b", false), continuation("c"), textFrame("d"));
      assert.equal(await whole(await next(messages)), "d");
      assert.equal(ws.state, "open");
      assert.equal(ws.stats.queued, 0);
    });
  });

  it("messages() continues after a message that was cancelled early", async () => {
    await inBothRoles(
      async (ws, peer) => {
        const messages = ws.messages().getReader();
        peer.send(binaryFrame(pattern(500 * KIB)), textFrame("d"));
        const { readable } = await next(messages);
        await until(() => ws.stats.paused);
        await readable.cancel();
        assert.equal(await whole(await next(messages)), "d");
      },
      {},
      { chunkSize: 16 * KIB },
    );
  });

  it("messages() gives messages and parts that arrived before the call", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), binaryFrame(pattern(2)), textFrame("b", false));
      await until(() => ws.stats.messagesReceived === 2);
      await rest();
      const messages = ws.messages().getReader();
      assert.equal(await whole(await next(messages)), "a");
      assert.deepEqual(await whole(await next(messages)), pattern(2));
      peer.send(continuation("c"));
      assert.equal(await whole(await next(messages)), "bc");
    });
  });

  it("messages() can be called while a message larger than the inbox arrives", async () => {
    await inBothRoles(
      async (ws, peer) => {
        const payload = pattern(300 * KIB);
        peer.send(binaryFrame(payload));
        await until(() => ws.stats.paused);
        await rest();
        const messages = ws.messages().getReader();
        assert.deepEqual(await whole(await next(messages)), payload);
      },
      {},
      { chunkSize: 16 * KIB },
    );
  });

  it("messages() after the end gives the waiting messages, then ends", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), textFrame("b"), closeFrame(4000));
      await ws.closed;
      assert.deepEqual(await readAll(ws), ["a", "b"]);
    });
  });

  it("messages() closes after a clean close and errors after another", async () => {
    await inBothRoles(async (ws, peer) => {
      const reading = readAll(ws);
      peer.send(textFrame("a"), closeFrame(1000));
      assert.deepEqual(await reading, ["a"]);
    });
    await inBothRoles(async (ws, peer) => {
      const reading = readAll(ws);
      peer.transport.end();
      await assert.rejects(reading, { name: "WebSocketError", closeCode: 1006 });
    });
  });

  it("messages() errors a message that the end has cut short", async () => {
    await inBothRoles(async (ws, peer) => {
      const messages = ws.messages().getReader();
      peer.send(textFrame("a", false), closeFrame(1000));
      const reader = (await next(messages)).readable.getReader();
      assert.equal((await reader.read()).value, "a");
      await assert.rejects(reader.read(), { name: "WebSocketError", closeCode: 1000 });
      assert.equal((await messages.read()).done, true);
      assert.equal((await ws.closed).closeCode, 1000);
    });
  });

  it("messages() stops the peer when neither messages nor pieces are taken", async () => {
    await inBothRoles(async (ws, peer) => {
      const messages = ws.messages();
      for (let i = 0; i < 4000; i++) peer.send(textFrame("x"));
      await until(() => ws.stats.paused);
      assert.ok(ws.stats.messagesReceived < 2000, `${ws.stats.messagesReceived} came`);
      peer.send(closeFrame(1000));
      let count = 0;
      for await (const message of messages as unknown as AsyncIterable<IncomingMessage>) {
        assert.equal(await whole(message), "x");
        count++;
      }
      assert.equal(count, 4000);
    });
  });

  it("messages() counts each piece that waits, however small", async () => {
    await inBothRoles(async (ws, peer) => {
      const reader = ws.messages().getReader();
      peer.send(binaryFrame(pattern(1), false));
      const message = await next(reader);
      for (let i = 0; i < 8; i++) {
        peer.send(...Array.from({ length: 500 }, () => continuation(pattern(1), false)));
      }
      await until(() => ws.stats.paused);
      assert.ok(ws.stats.queued < 2 * INBOX, `${ws.stats.queued} wait`);
      peer.send(continuation(pattern(1)));
      assert.equal((await whole(message) as Uint8Array).length, 4002);
    }, { maxMessageSize: Infinity });
  });

  it("messages() lets go of a chunk of which a small piece waits", async () => {
    await inBothRoles(async (ws, peer) => {
      const reader = ws.messages().getReader();
      peer.send(binaryFrame(pattern(1), false));
      const { readable } = await next(reader);
      const pongs = Array.from({ length: 100 }, () => pongFrame(pattern(125)));
      peer.send(continuation(pattern(100), false), ...pongs);
      await until(() => ws.stats.queued > 100);
      const pieces = readable.getReader();
      await pieces.read();
      const { value } = await pieces.read();
      assert.deepEqual(value, pattern(100));
      assert.equal((value as Uint8Array).buffer.byteLength, 100);
    });
  });

  it("messages() cancelled closes the connection", async () => {
    await inBothRoles(async (ws, peer) => {
      const cancelled = ws.messages().cancel();
      assert.equal((await peer.nextClose()).closeCode, 1005);
      peer.send(closeFrame());
      await cancelled;
      assert.equal((await ws.closed).closeCode, 1005);
    });
  });
});
