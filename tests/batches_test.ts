/** Messages as arrays: `batches()` and `sendAll()`. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  errorCodeOf,
  fromWebSocket,
  type Message,
  serve,
  type WebSocketConnection,
} from "../mod.ts";
import { Budget, Inbox } from "../lib/connection/inbox.ts";
import { pair } from "../lib/testing.ts";
import { concat, pattern, utf8 } from "./bytes.ts";
import {
  brief,
  closeFrame,
  collect,
  continuation,
  frames,
  inBothRoles,
  isPending,
  pingFrame,
  type RawPeer,
  rejection,
  rest,
  still,
  textFrame,
  until,
  withServer,
} from "./support.ts";

const INVALID_STATE = { name: "InvalidStateError" };
const DONE = { done: true, value: undefined };

/** Sends messages in one chunk. */
function sendChunk(peer: RawPeer, texts: string[]): void {
  peer.send(...texts.map((text) => textFrame(text)));
}

async function next(batches: AsyncIterator<Message[]>): Promise<Message[]> {
  const { done, value } = await batches.next();
  assert.equal(done, false);
  return value;
}

/** Reads a connection to its end, and notes the arrays and the error. */
async function gather(ws: WebSocketConnection): Promise<{ arrays: Message[][]; error: unknown }> {
  const arrays: Message[][] = [];
  try {
    for await (const messages of ws.batches()) arrays.push(messages);
  } catch (error) {
    return { arrays, error };
  }
  return { arrays, error: undefined };
}

describe("batches()", () => {
  it("A call that waits gets all messages of a chunk", async () => {
    await inBothRoles(async (ws, peer) => {
      const batches = ws.batches();
      for (const texts of [["a", "b", "c"], ["d"], ["", "e"]]) {
        const waiting = next(batches);
        await rest();
        sendChunk(peer, texts);
        assert.deepEqual(await waiting, texts);
        assert.equal(ws.stats.queued, 0);
      }
    });
  });

  it("A call gets the messages that wait", async () => {
    await inBothRoles(async (ws, peer) => {
      sendChunk(peer, ["a", "b"]);
      peer.send(textFrame("c"), textFrame("d", false), pingFrame("1"));
      await until(() => ws.stats.messagesReceived === 3);
      const batches = ws.batches();
      assert.deepEqual(await next(batches), ["a", "b", "c"]);
      const waiting = next(batches);
      assert.equal(await isPending(waiting), true);
      peer.send(continuation("e"), textFrame("f"));
      assert.equal((await waiting)[0], "de");
    });
  });

  it("The messages of an array can be mixed with those of receive() and of a loop", async () => {
    await inBothRoles(async (ws, peer) => {
      sendChunk(peer, ["a", "b", "c", "d", "e"]);
      assert.equal(await ws.receive(), "a");
      const waiting = ws.stats.queued;
      assert.equal(waiting, 4 * 65);
      for await (const messages of ws.batches()) {
        assert.deepEqual(messages, ["b", "c", "d", "e"]);
        assert.equal(ws.stats.queued, 0);
        break;
      }
      sendChunk(peer, ["f", "g"]);
      for await (const message of ws) {
        assert.equal(message, "f");
        break;
      }
      assert.equal(await ws.receive(), "g");
      assert.equal(ws.state, "open");
      sendChunk(peer, ["h"]);
      assert.equal((await ws.readable.getReader().read()).value, "h");
    });
  });

  it("An array has no more than the queue holds, and one", async () => {
    await inBothRoles(async (ws, peer) => {
      const texts = Array.from({ length: 40 }, (_, i) => `${i}`);
      sendChunk(peer, texts);
      const gathered = gather(ws);
      await rest();
      peer.send(closeFrame(1000));
      const { arrays } = await gathered;
      assert.deepEqual(arrays.flat(), texts);
      assert.ok(arrays.every(({ length }) => length > 0 && length <= 6), JSON.stringify(arrays));
      assert.ok(arrays.length < 20, JSON.stringify(arrays));
    }, { readableStrategy: { highWaterMark: 5, size: () => 1 } });
  });

  it("A slow loop makes the peer wait", async () => {
    await inBothRoles(
      async (ws, peer) => {
        const batches = ws.batches();
        let sent = 0;
        const message = peer.encode(textFrame("*".repeat(1000)));
        const first = next(batches);
        for (let i = 0; i < 1000; i++) peer.write(message);
        sent += (await first).length;
        await still(() => ws.stats.messagesReceived);
        assert.equal(ws.stats.paused, true);
        assert.ok(ws.stats.messagesReceived < 200, `${ws.stats.messagesReceived}`);
        assert.ok(ws.stats.queued < 70_000);
        while (sent < 1000) sent += (await next(batches)).length;
        assert.equal(sent, 1000);
        assert.ok(ws.stats.peakQueued < 70_000);
      },
    );
  });

  it("A mark of 0 still lets each message through", async () => {
    await inBothRoles(async (ws, peer) => {
      sendChunk(peer, ["a", "b", "c", "d"]);
      const batches = ws.batches();
      const got: Message[] = [];
      while (got.length < 4) got.push(...await next(batches));
      assert.deepEqual(got, ["a", "b", "c", "d"]);
    }, { readableStrategy: { highWaterMark: 0 } });
  });

  for (const closeCode of [1000, 1001, undefined, 1011, 4000]) {
    it(`The end with ${closeCode ?? "no code"} comes after the messages of its chunk`, async () => {
      for (const isWaiting of [true, false]) {
        await inBothRoles(async (ws, peer) => {
          const write = () => peer.send(textFrame("a"), textFrame("b"), closeFrame(closeCode));
          if (!isWaiting) write();
          if (!isWaiting) await ws.closed;
          const gathered = gather(ws);
          if (isWaiting) await rest();
          if (isWaiting) write();
          const { arrays, error } = await gathered;
          assert.deepEqual(arrays, [["a", "b"]]);
          if (closeCode === undefined || closeCode < 1002) assert.equal(error, undefined);
          else {
            assert.equal((error as { closeCode?: number }).closeCode, closeCode);
            assert.equal(ws.isOwnError(error), true);
          }
        });
      }
    });
  }

  it("The error of a broken frame comes after the messages before it", async () => {
    for (const isWaiting of [true, false]) {
      await inBothRoles(async (ws, peer) => {
        const gathered = isWaiting ? gather(ws) : undefined;
        await rest();
        peer.write(peer.encode(textFrame("a")), peer.encode(textFrame("b")), peer.badFrame);
        const error = await rejection(ws.closed);
        const { arrays, error: thrown } = await (gathered ?? gather(ws));
        assert.deepEqual(arrays.flat(), ["a", "b"]);
        assert.equal(thrown, error);
      });
    }
  });

  it("A call that waits rejects when the connection is lost, and each call after it", async () => {
    await inBothRoles(async (ws, peer) => {
      const batches = ws.batches();
      const waiting = batches.next();
      peer.transport.destroy();
      await assert.rejects(waiting, { name: "WebSocketError", closeCode: 1006 });
      await assert.rejects(batches.next(), { name: "WebSocketError", closeCode: 1006 });
      void batches.next();
      await rest();
    });
  });

  it("A second call while one waits is refused, and the first stays good", async () => {
    await inBothRoles(async (ws, peer) => {
      const batches = ws.batches();
      const waiting = batches.next();
      assert.equal(errorCodeOf(await rejection(batches.next())), "busy");
      assert.equal(errorCodeOf(await rejection(ws.receive())), "busy");
      assert.throws(() => ws.readable, INVALID_STATE);
      void batches.next();
      sendChunk(peer, ["a", "b"]);
      assert.deepEqual(await waiting, { done: false, value: ["a", "b"] });
      const receiving = ws.receive();
      assert.equal(errorCodeOf(await rejection(batches.next())), "busy");
      sendChunk(peer, ["c", "d"]);
      assert.equal(await receiving, "c");
      assert.deepEqual(await next(batches), ["d"]);
      assert.throws(() => ws.readable, INVALID_STATE);
      assert.deepEqual(await batches.return!(), DONE);
      assert.deepEqual(await batches.return!(), DONE);
      assert.deepEqual(await batches.next(), DONE);
      sendChunk(peer, ["e"]);
      assert.equal((await ws.readable.getReader().read()).value, "e");
    });
  });

  it("An iterator that was left while it waits takes one message", async () => {
    await inBothRoles(async (ws, peer) => {
      const batches = ws.batches();
      const waiting = batches.next();
      await batches.return!();
      sendChunk(peer, ["a", "b"]);
      assert.deepEqual(await waiting, { done: false, value: ["a"] });
      assert.equal(await ws.receive(), "b");
    });
  });

  it("An iterator gives itself, and leaves nothing unhandled", async () => {
    const [client, server] = await pair();
    const batches = server.batches();
    assert.equal(batches[Symbol.asyncIterator](), batches);
    void batches.next();
    client.terminate();
    await rest();
    void batches.next();
    await rest();
  });

  it("A loop counts as a reader: close() does not drop the messages", async () => {
    const [client, server] = await pair();
    const gathered = gather(server);
    for (let i = 0; i < 100; i++) void client.send(`${i}`);
    void client.close({ closeCode: 1000 });
    const { arrays, error } = await gathered;
    assert.equal(arrays.flat().length, 100);
    assert.equal(error, undefined);
  });

  it("Compressed messages come in arrays too", async () => {
    const [client, server] = await pair({
      client: { compression: { threshold: 0 } },
      server: { compression: { threshold: 0 } },
    });
    const texts = Array.from({ length: 50 }, (_, i) => "again ".repeat(i));
    const echo = (async () => {
      for await (const messages of server.batches()) await server.sendAll(messages);
    })();
    await client.sendAll(texts);
    const got: Message[] = [];
    for await (const messages of client.batches()) {
      got.push(...messages);
      if (got.length === texts.length) break;
    }
    assert.deepEqual(got, texts);
    await client.close({ closeCode: 1000 });
    await echo;
  });

  it("Each message of an array has a buffer of its own", async () => {
    await inBothRoles(async (ws, peer) => {
      const frame = peer.encode({ opcode: 2, payload: pattern(9) });
      peer.write(concat([frame, frame, frame]));
      const messages = await next(ws.batches()) as Uint8Array[];
      assert.deepEqual(messages, [pattern(9), pattern(9), pattern(9)]);
      assert.equal(new Set(messages.map(({ buffer }) => buffer)).size, 3);
      assert.ok(messages.every(({ buffer }) => buffer.byteLength === 9));
    });
  });

  it("An echo over sockets, and over a native WebSocket, in arrays", async () => {
    await withServer(
      {},
      async (server) => {
        const ws = await fromWebSocket(new WebSocket(server.url!));
        const texts = Array.from({ length: 3000 }, (_, i) => `${i}`);
        const got: Message[] = [];
        const reading = (async () => {
          for await (const messages of ws.batches()) {
            got.push(...messages);
            if (got.length === texts.length) break;
          }
        })();
        await ws.sendAll(texts);
        await reading;
        assert.deepEqual(got, texts);
        await ws.close({ closeCode: 1000 });
      },
      async (ws) => {
        for await (const messages of ws.batches()) await ws.sendAll(messages);
      },
    );
  });
});

describe("Inbox.takeAll", () => {
  it("takeAll() takes what waits, and reports the room once", () => {
    let rooms = 0;
    const budget = new Budget(3, { onRoom: () => rooms++ });
    const inbox = new Inbox<string>(budget, ({ length }) => length);
    assert.deepEqual(inbox.takeAll(), []);
    assert.deepEqual([rooms, budget.taken], [0, 0]);
    for (const item of ["a", "bb", "ccc"]) inbox.push(item);
    assert.equal(inbox.take(), "a");
    assert.equal(budget.isFull, true);
    assert.deepEqual(inbox.takeAll(), ["bb", "ccc"]);
    assert.deepEqual([rooms, budget.taken, budget.used, budget.isFull], [2, 2, 0, false]);
    assert.equal(inbox.length, 0);
    inbox.push("d");
    assert.deepEqual([budget.used, inbox.length], [1, 1]);
    assert.deepEqual(inbox.takeAll(), ["d"]);
    assert.equal(inbox.take(), undefined);
  });

  it("takeAll() leaves what comes into the room that it has made", () => {
    const budget = new Budget(2, { onRoom: () => inbox.push("late") });
    const inbox = new Inbox<string>(budget, () => 1);
    inbox.push("a");
    inbox.push("b");
    assert.deepEqual(inbox.takeAll(), ["a", "b"]);
    assert.equal(inbox.length, 1);
    assert.equal(budget.used, 1);
  });
});

describe("sendAll()", () => {
  it("Each item is a message of its own, in order", async () => {
    await inBothRoles(async (ws, peer) => {
      const items = [
        "a",
        utf8("b"),
        "",
        new Uint16Array([0x6161]),
        utf8("c").buffer as ArrayBuffer,
        "z".repeat(200_000),
        pattern(100_000),
      ];
      const sent = ws.sendAll(items);
      void ws.send("after");
      await sent;
      const got = await frames(peer, 8);
      assert.deepEqual(
        got.map(([type, , fin]) => [type, fin]),
        [
          ...["text", "binary", "text", "binary", "binary", "text", "binary", "text"],
        ].map((type) => [type, true]),
      );
      assert.deepEqual(got.slice(0, 5).map(([, text]) => text), ["a", "b", "", "aa", "c"]);
      assert.equal(got[7][1], "after");
      assert.equal(ws.stats.messagesSent, 8);
    });
  });

  it("Any synchronous iterable will do, and nothing is fine", async () => {
    await inBothRoles(async (ws, peer) => {
      const bytes = new Uint8Array(1);
      const items = function* () {
        for (bytes[0] = 97; bytes[0] < 100; bytes[0]++) yield bytes;
      };
      await ws.sendAll(items());
      await ws.sendAll(new Set(["d"]));
      await ws.sendAll([]);
      await ws.sendAll(["e"], null as never);
      await ws.sendAll([utf8("f"), utf8("g")], { text: true });
      assert.deepEqual((await frames(peer, 7)).map(([, text]) => text).join(""), "abcdefg");
      assert.equal(ws.stats.messagesSent, 7);
    });
  });

  it("Messages with room share a promise", async () => {
    const [client, server] = await pair();
    const sent = client.sendAll([]);
    assert.ok(sent instanceof Promise);
    assert.equal(client.sendAll(["a"]), sent);
    assert.equal(client.sendAll(["b", "c"]), sent);
    server.terminate();
    client.terminate();
  });

  it("The bytes are copied, whatever their length", async () => {
    await inBothRoles(async (ws, peer) => {
      const items = [pattern(10), pattern(20_000), pattern(300_000)];
      const sent = ws.sendAll(items);
      for (const item of items) item.fill(0);
      for (const length of [10, 20_000, 300_000]) {
        assert.deepEqual((await peer.next()).payload, pattern(length));
      }
      await sent;
    });
  });

  it("The promise waits until the messages have room", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        const sent = ws.sendAll(Array.from({ length: 100 }, () => pattern(10_000)));
        assert.equal(ws.stats.messagesSent, 100);
        assert.equal(await isPending(sent), true);
        peer.transport.resume();
        await sent;
      },
      {},
      { capacity: 0 },
    );
  });

  it("Messages wait for a message whose items are still to come", async () => {
    await inBothRoles(async (ws, peer) => {
      let go!: () => void;
      const gate = new Promise<void>((resolve) => go = resolve);
      const first = ws.send((async function* () {
        yield "a";
        await gate;
        yield "b";
      })());
      await rest();
      const sent = ws.sendAll(["c", "d"]);
      assert.equal(await isPending(sent), true);
      go();
      await Promise.all([first, sent]);
      assert.deepEqual((await frames(peer, 5)).map(([, text]) => text), ["a", "b", "", "c", "d"]);
    });
  });

  it("Messages that wait for their turn can be taken back", async () => {
    await inBothRoles(async (ws, peer) => {
      const never = new Promise<void>(() => {});
      void ws.send((async function* () {
        yield "a";
        await never;
      })());
      await rest();
      const controller = new AbortController();
      const sent = ws.sendAll(["b", "c"], { signal: controller.signal });
      const reason = new Error("enough");
      controller.abort(reason);
      assert.equal(await rejection(sent), reason);
      assert.equal(await rejection(ws.sendAll(["d"], { signal: controller.signal })), reason);
      assert.deepEqual(brief(await peer.next()), ["text", "a", false]);
    });
  });

  it("What is no iterable of messages is refused, and says what to write", async () => {
    await inBothRoles(async (ws, peer) => {
      const asynchronous = (async function* () {
        yield "a";
      })();
      const rows: [unknown, RegExp][] = [
        ["text", /^Expected an iterable, received a string: send each message$/],
        [asynchronous, /^Expected an iterable, received an object: send each message$/],
        [undefined, /received undefined/],
        [null, /received null/],
        [7, /received a number/],
        [new ArrayBuffer(3), /received an object/],
      ];
      for (const [messages, message] of rows) {
        await assert.rejects(ws.sendAll(messages as never), { name: "TypeError", message });
      }
      await assert.rejects(
        ws.sendAll(["a"], { binary: true } as never),
        /sendAll\(\) has no option/,
      );
      const reason = new Error("enough");
      const aborted = ws.sendAll(["a"], { signal: AbortSignal.abort(reason) });
      assert.equal(await rejection(aborted), reason);
      assert.equal(ws.stats.messagesSent, 0);
      await ws.send("end");
      assert.deepEqual(brief(await peer.next()), ["text", "end", true]);
    });
  });

  it("After a message that cannot be sent, the others are not sent", async () => {
    await inBothRoles(async (ws, peer) => {
      for (const bad of [5, null, undefined, ["b"], Symbol("b"), {}]) {
        const sent = ws.sendAll(["a", bad as never, "c"]);
        await assert.rejects(sent, { name: "TypeError", message: /a string or a buffer source/ });
        assert.deepEqual(brief(await peer.next()), ["text", "a", true]);
      }
      const invalid = ws.sendAll([utf8("a"), Uint8Array.of(0xff), utf8("c")], { text: true });
      await assert.rejects(invalid, RangeError);
      assert.deepEqual(brief(await peer.next()), ["text", "a", true]);
      const fault = new Error("mine");
      let returned = false;
      const failing = (function* () {
        yield "a";
        throw fault;
      })();
      assert.equal(await rejection(ws.sendAll(failing)), fault);
      const left = (function* () {
        try {
          yield "b";
          yield 5 as never;
        } finally {
          returned = true;
        }
      })();
      await assert.rejects(ws.sendAll(left), TypeError);
      assert.equal(returned, true);
      assert.deepEqual((await frames(peer, 2)).map(([, text]) => text), ["a", "b"]);
      assert.equal(ws.state, "open");
    });
  });

  it("An iterable that closes the connection stops the messages", async () => {
    await inBothRoles(async (ws, peer) => {
      const items = function* () {
        yield "a";
        void ws.close({ closeCode: 1000 });
        yield "b";
        assert.fail("the iterable goes on");
      };
      await assert.rejects(ws.sendAll(items()), INVALID_STATE);
      assert.deepEqual(brief(await peer.next()), ["text", "a", true]);
      assert.equal((await peer.nextClose()).closeCode, 1000);
      await assert.rejects(ws.sendAll(["c"]), INVALID_STATE);
      void ws.sendAll(["c"]);
      await rest();
    });
  });

  it("A loss rejects what waits, with nothing unhandled", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        const big = [pattern(70_000), pattern(70_000), pattern(70_000)];
        const sent = ws.sendAll(big);
        void ws.sendAll(big);
        void ws.sendAll([pattern(70_000), 5 as never]);
        await assert.rejects(ws.sendAll([pattern(70_000), 5 as never]), TypeError);
        await rest();
        peer.transport.destroy();
        await assert.rejects(sent, { name: "WebSocketError", closeCode: 1006 });
      },
      {},
      { capacity: 0 },
    );
  });

  it("The policy for a slow peer counts each message", async () => {
    for (const slow of ["close", "terminate"] as const) {
      await inBothRoles(
        async (ws, peer) => {
          peer.transport.pause();
          const sent = ws.sendAll(Array.from({ length: 10 }, () => pattern(10_000)));
          await assert.rejects(sent, INVALID_STATE);
          assert.ok(ws.stats.messagesSent < 6, `${ws.stats.messagesSent}`);
          if (slow === "close") assert.equal(ws.closeInfo?.sent?.closeCode, 1008);
          else assert.equal(ws.closeInfo, undefined);
        },
        { slow, maxBufferedAmount: 50_000 },
        { capacity: 0 },
      );
    }
  });

  it("Messages that wait keep their order with close()", async () => {
    const server = await serve({ hostname: "127.0.0.1", port: 0 }, async (ws) => {
      await ws.sendAll(["a", "b"]);
      void ws.sendAll(["c", "d"]);
    });
    const ws = await fromWebSocket(new WebSocket(server.url!));
    assert.deepEqual(await collect(ws), ["a", "b", "c", "d"]);
    await server.shutdown();
  });
});
