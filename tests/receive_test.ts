import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { Message, WebSocketConnection } from "../mod.ts";
import { concat, pattern, utf8 } from "./bytes.ts";
import {
  binaryFrame,
  closeFrame,
  collect,
  continuation,
  inBothRoles,
  isPending,
  pingFrame,
  rejection,
  rest,
  textFrame,
  until,
  withPeer,
} from "./support.ts";

const INVALID_STATE = { name: "InvalidStateError" };

/** Each way to read a connection. Errors at the end are ignored. */
const MODES: Record<string, (ws: WebSocketConnection) => unknown> = {
  receive: (ws) => void ws.receive().catch(() => {}),
  iteration: (ws) => ws[Symbol.asyncIterator](),
  readable: (ws) => ws.readable,
  messages: (ws) => ws.messages(),
  discard: (ws) => ws.discard(),
};

/** Whether the two are the same way to read. */
function sameMode(a: string, b: string): boolean {
  const kind = (mode: string) => mode === "iteration" ? "receive" : mode;
  return kind(a) === kind(b);
}

describe("The reader mode of WebSocketConnection", () => {
  for (const first of Object.keys(MODES)) {
    for (const second of Object.keys(MODES).filter((mode) => !sameMode(first, mode))) {
      it(`WebSocketConnection refuses ${second} after ${first}`, async () => {
        const [ws] = await withPeer("server");
        MODES[first](ws);
        if (second === "receive") await assert.rejects(ws.receive(), INVALID_STATE);
        else assert.throws(() => MODES[second](ws), INVALID_STATE);
        ws.terminate();
      });
    }
  }

  it("WebSocketConnection gives the same stream each time", async () => {
    const [readable] = await withPeer("server");
    assert.equal(readable.readable, readable.readable);
    const [messages] = await withPeer("server");
    assert.equal(messages.messages(), messages.messages());
    readable.terminate();
    messages.terminate();
  });
});

describe("WebSocketConnection.receive", () => {
  it("receive() gives the messages in order: text as strings, binary as bytes", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(
        textFrame("a"),
        binaryFrame(pattern(3)),
        textFrame(""),
        textFrame("gr\u00fc\u00df"),
      );
      assert.equal(await ws.receive(), "a");
      assert.deepEqual(await ws.receive(), pattern(3));
      assert.equal(await ws.receive(), "");
      assert.equal(await ws.receive(), "gr\u00fc\u00df");
    });
  });

  it("receive() puts fragments together, control frames between them", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a", false), pingFrame("1"), continuation("b", false), continuation("c"));
      assert.equal(await ws.receive(), "abc");
      assert.deepEqual((await peer.next()).payload, utf8("1"));
    });
  });

  it("receive() refuses a second call while one waits, which stays good", async () => {
    await inBothRoles(async (ws, peer) => {
      const first = ws.receive();
      await assert.rejects(ws.receive(), INVALID_STATE);
      peer.send(textFrame("a"), textFrame("b"));
      assert.equal(await first, "a");
      assert.equal(await ws.receive(), "b");
    });
  });

  it("receive() with a signal is taken back, and loses nothing", async () => {
    await inBothRoles(async (ws, peer) => {
      const controller = new AbortController();
      const waiting = ws.receive({ signal: controller.signal });
      const reason = new Error("enough");
      controller.abort(reason);
      assert.equal(await rejection(waiting), reason);
      assert.equal(await rejection(ws.receive({ signal: controller.signal })), reason);
      peer.send(textFrame("a"), textFrame("b"));
      assert.equal(await ws.receive(), "a");
      assert.equal(await ws.receive({ signal: new AbortController().signal }), "b");
    });
  });

  it("receive() with a signal that is aborted as the message comes loses nothing", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 20; i++) {
        const controller = new AbortController();
        const waiting = ws.receive({ signal: controller.signal });
        peer.send(textFrame(`${i}`));
        for (let turns = 0; turns < i % 5; turns++) {
          await new Promise((done) => setTimeout(done, 0));
        }
        controller.abort();
        const message = await waiting.catch(() => ws.receive());
        assert.equal(message, `${i}`);
      }
    });
  });

  it("receive() rejects with the end of the connection, again at each call", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("last"), closeFrame(1000, "done"));
      assert.equal(await ws.receive(), "last");
      const expected = { name: "WebSocketError", closeCode: 1000, reason: "done" };
      await assert.rejects(ws.receive(), expected);
      await assert.rejects(ws.receive(), expected);
    });
  });

  it("receive() that waits rejects when the transport ends without a Close", async () => {
    await inBothRoles(async (ws, peer) => {
      const waiting = ws.receive();
      peer.transport.destroy();
      await assert.rejects(waiting, { name: "WebSocketError", closeCode: 1006 });
    });
  });
});

describe("Iteration of WebSocketConnection", () => {
  const cases: [closeCode: number | undefined, ends: boolean][] = [
    [1000, true],
    [1001, true],
    [undefined, true],
    [1002, false],
    [1011, false],
    [1012, false],
    [3000, false],
    [4999, false],
  ];
  for (const [closeCode, ends] of cases) {
    it(`Iteration ${ends ? "ends" : "throws"} on ${closeCode ?? "no code"}`, async () => {
      await inBothRoles(async (ws, peer) => {
        peer.send(textFrame("a"), textFrame("b"), closeFrame(closeCode));
        const gathered: Message[] = [];
        const run = (async () => {
          for await (const message of ws) gathered.push(message);
        })();
        if (ends) await run;
        else await assert.rejects(run, { name: "WebSocketError", closeCode });
        assert.deepEqual(gathered, ["a", "b"]);
      });
    });
  }

  it("Iteration throws when the transport ends without a Close", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"));
      peer.transport.end();
      const gathered: Message[] = [];
      await assert.rejects(
        async () => {
          for await (const message of ws) gathered.push(message);
        },
        { name: "WebSocketError", closeCode: 1006 },
      );
      assert.deepEqual(gathered, ["a"]);
    });
  });

  it("Leaving a loop leaves the connection open, and another loop can continue", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), textFrame("b"), textFrame("c"));
      for await (const message of ws) {
        assert.equal(message, "a");
        break;
      }
      assert.equal(ws.state, "open");
      assert.equal(await ws.receive(), "b");
      for await (const message of ws) {
        assert.equal(message, "c");
        break;
      }
      assert.equal(ws.state, "open");
    });
  });

  it("Iteration gives what had come before it began", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), closeFrame(1000));
      await ws.closed;
      assert.deepEqual(await collect(ws), ["a"]);
    });
  });
});

describe("WebSocketConnection.readable", () => {
  it("readable gives messages that arrived before and after the stream was taken", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), binaryFrame(pattern(2)));
      await until(() => ws.stats.messagesReceived === 2);
      const reader = ws.readable.getReader();
      peer.send(textFrame("c"), closeFrame(4000));
      const got = [await reader.read(), await reader.read(), await reader.read()];
      assert.deepEqual(got.map(({ value }) => value), ["a", pattern(2), "c"]);
      assert.equal((await reader.read()).done, true);
    });
  });

  it("readable closes after any clean close, with messages unread", async () => {
    await inBothRoles(async (ws, peer) => {
      const { readable } = ws;
      peer.send(textFrame("a"), textFrame("b"), closeFrame(4000));
      assert.equal((await ws.closed).closeCode, 4000);
      assert.deepEqual(await collect(readable), ["a", "b"]);
    });
  });

  it("readable after the end gives the waiting messages, then closes or errors", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), closeFrame(1000));
      await ws.closed;
      assert.deepEqual(await collect(ws.readable), ["a"]);
    });
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"));
      peer.transport.end();
      const error = await rejection(ws.closed);
      const reader = ws.readable.getReader();
      assert.equal((await reader.read()).value, "a");
      assert.equal(await rejection(reader.read()), error);
    });
  });

  it("readable gives the messages before an error, then the error of `closed`", async () => {
    await inBothRoles(async (ws, peer) => {
      const reader = ws.readable.getReader();
      peer.write(peer.encode(textFrame("a")), peer.encode(textFrame("b")), peer.badFrame);
      const error = await rejection<DOMException & { closeCode: number }>(ws.closed);
      assert.equal(error.closeCode, 1002);
      assert.equal((await reader.read()).value, "a");
      assert.equal((await reader.read()).value, "b");
      assert.equal(await rejection(reader.read()), error);
      assert.equal(await rejection(reader.closed), error);
    });
  });

  it("readable holds nothing itself: its queue is the connection's", async () => {
    await inBothRoles(async (ws, peer) => {
      const { readable } = ws;
      peer.send(textFrame("a"), textFrame("b"));
      await until(() => ws.stats.queued === 2 * 65);
      await rest();
      assert.equal(ws.stats.queued, 2 * 65);
      const reader = readable.getReader();
      await reader.read();
      assert.equal(ws.stats.queued, 65);
    });
  });
});

describe("WebSocketConnection.discard", () => {
  it("discard() drops all messages, answers pings, and never pauses", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("before"), textFrame("part", false));
      await until(() => ws.stats.messagesReceived === 1);
      ws.discard();
      ws.discard();
      assert.equal(ws.stats.queued, 0);
      peer.send(continuation("rest"), pingFrame("1"));
      assert.deepEqual((await peer.next()).payload, utf8("1"));
      for (let i = 0; i < 10; i++) peer.send(binaryFrame(pattern(50_000)));
      peer.send(pingFrame("2"));
      assert.deepEqual((await peer.next()).payload, utf8("2"));
      const { queued, pauses, messagesReceived } = ws.stats;
      assert.deepEqual({ queued, pauses, messagesReceived }, {
        queued: 0,
        pauses: 0,
        messagesReceived: 12,
      });
    });
  });

  it("discard() resumes a paused connection", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 4; i++) peer.send(binaryFrame(pattern(40_000)));
      await until(() => ws.stats.paused);
      ws.discard();
      assert.equal(ws.stats.paused, false);
      peer.send(closeFrame(1000));
      assert.equal((await ws.closed).closeCode, 1000);
    });
  });

  it("discard() still checks the messages", async () => {
    await inBothRoles(async (ws, peer) => {
      ws.discard();
      peer.send({ opcode: 1, payload: Uint8Array.of(0xff) });
      assert.equal((await peer.nextClose()).closeCode, 1007);
      await assert.rejects(ws.closed, { closeCode: 1007 });
    });
  });

  it("discard() leaves send() and close() as they are", async () => {
    await inBothRoles(async (ws, peer) => {
      ws.discard();
      await ws.send("a");
      assert.deepEqual((await peer.next()).payload, utf8("a"));
      const closing = ws.close({ closeCode: 1000 });
      assert.equal(await isPending(closing), true);
      await peer.answerClose();
      assert.deepEqual(await closing, { closeCode: 1000, reason: "" });
    });
  });

  it("messages() drops messages after our Close frame if there is no room", async () => {
    await inBothRoles(async (ws, peer) => {
      const streams = ws.messages().getReader();
      peer.send(binaryFrame(pattern(70_000)));
      await until(() => ws.stats.paused);
      const closing = ws.close();
      for (const fin of [true, false]) peer.send(binaryFrame(pattern(10), fin));
      peer.send(continuation(pattern(10)));
      await peer.answerClose();
      const { value: message } = await streams.read();
      const pieces = await collect<Message>(message!.readable) as Uint8Array[];
      assert.equal(concat(pieces).length, 70_000);
      assert.equal((await streams.read()).done, true);
      assert.equal((await closing).closeCode, 1000);
      assert.equal(ws.stats.messagesReceived, 3);
    });
  });
});
