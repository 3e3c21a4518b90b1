import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  fromWebSocket,
  type FromWebSocketOptions,
  HandshakeError,
  type WebSocketError,
  type WebSocketLike,
} from "../mod.ts";
import { pattern } from "./bytes.ts";
import { CLIENT, FakeSocket } from "./native_sockets.ts";
import { isPending, rejection, requestOf, until, withRawServer } from "./support.ts";

/** Opens a fake WebSocket, and closes it cleanly unless it is already closed. */
async function withFake(
  run: (ws: Awaited<ReturnType<typeof fromWebSocket>>, fake: FakeSocket) => unknown,
  options?: FromWebSocketOptions,
): Promise<void> {
  const fake = new FakeSocket();
  const ws = await fromWebSocket(fake, options);
  // An open native socket keeps the process running; a fake one does not.
  const hold = setInterval(() => {}, 1000);
  try {
    await run(ws, fake);
    ws.terminate();
    await ws.closed.catch(() => {});
  } finally {
    clearInterval(hold);
  }
  // An empty "error" listener stays, so that a late error is not thrown.
  assert.deepEqual(fake.listeners, { open: 0, error: 1, message: 0, close: 0 });
}

describe("fromWebSocket: opening", () => {
  for (const value of [null, undefined, 5, "ws://localhost/", {}, new EventTarget()]) {
    it(`fromWebSocket refuses ${Object.prototype.toString.call(value)} ${value}`, async () => {
      await assert.rejects(fromWebSocket(value as never), TypeError);
    });
  }

  const WRONG: [options: object | null, error: typeof TypeError | typeof RangeError][] = [
    [null, TypeError],
    [{ maxQueuedBytes: "1" }, TypeError],
    [{ maxQueuedBytes: -1 }, RangeError],
    [{ maxMessageSize: NaN }, RangeError],
    [{ request: "http://localhost/" }, TypeError],
    [{ signal: 5 }, TypeError],
  ];
  for (const [options, error] of WRONG) {
    it(`fromWebSocket refuses the options ${JSON.stringify(options)}`, async () => {
      const fake = new FakeSocket();
      await assert.rejects(fromWebSocket(fake, options as never), error);
      assert.deepEqual([fake.listeners, fake.closes], [{}, []]);
    });
  }

  for (const readyState of [2, 3]) {
    it(`fromWebSocket refuses a socket in state ${readyState}`, async () => {
      const fake = new FakeSocket();
      fake.readyState = readyState;
      assert.equal((await rejection(fromWebSocket(fake))).name, "InvalidStateError");
    });
  }

  it("fromWebSocket refuses a socket that has a connection", async () => {
    await withFake(async (_ws, fake) => {
      assert.equal((await rejection(fromWebSocket(fake))).name, "InvalidStateError");
    });
  });

  it("fromWebSocket rejects when nobody listens", async () => {
    let port = "";
    await withRawServer(() => {}, (url) => Promise.resolve(port = new URL(url).port));
    const error = await rejection(fromWebSocket(new WebSocket(`ws://127.0.0.1:${port}/`)));
    assert.ok(error instanceof HandshakeError);
    assert.equal(error.code, "connect-failed");
  });

  it("fromWebSocket rejects when the server refuses", async () => {
    await withRawServer(async (raw) => {
      await requestOf(raw);
      raw.socket.end("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    }, async (url) => {
      const error = await rejection(fromWebSocket(new WebSocket(url)));
      assert.ok(error instanceof HandshakeError);
      assert.equal(error.code, "connect-failed");
    });
  });

  it("fromWebSocket rejects when the server does not answer in time", async () => {
    await withRawServer(() => {}, async (url) => {
      const error = await rejection<HandshakeError>(
        fromWebSocket(new WebSocket(url), { openTimeout: 50 }),
      );
      assert.equal(error.code, "timeout");
    });
  });

  it("fromWebSocket rejects when it is aborted, before and meanwhile", async () => {
    await withRawServer(() => {}, async (url) => {
      const reason = new Error("no more");
      const before = fromWebSocket(new WebSocket(url), { signal: AbortSignal.abort(reason) });
      assert.equal(await rejection(before), reason);
      const controller = new AbortController();
      const opening = fromWebSocket(new WebSocket(url), { signal: controller.signal });
      controller.abort(reason);
      assert.equal(await rejection(opening), reason);
    });
  });

  it("fromWebSocket says the URL of a client", async () => {
    const { ours, stop } = await CLIENT.open();
    assert.match(ours.request.url, /^http:\/\/127\.0\.0\.1:\d+\/chat\?room=1$/);
    await stop();
  });
});

describe("fromWebSocket: a socket by hand", () => {
  it("fromWebSocket fits WebSocket by its type, and sets binaryType", async () => {
    const check: (socket: WebSocket) => WebSocketLike = (socket) => socket;
    assert.equal(typeof check, "function");
    await withFake((_ws, fake) => assert.equal(fake.binaryType, "arraybuffer"));
  });

  it("A socket without bufferedAmount never holds a send back", async () => {
    await withFake(async (ws, fake) => {
      for (let i = 0; i < 10; i++) await ws.send(pattern(100_000));
      assert.equal(fake.sent.length, 10);
      await until(() => ws.bufferedAmount === 0);
    });
  });

  it("Bytes that are not lent are copied: `ws` would keep them", async () => {
    await withFake((ws, fake) => {
      const bytes = pattern(100);
      ws.send(bytes);
      bytes.fill(0);
      assert.deepEqual(fake.sent, [pattern(100)]);
    });
  });

  it("A send waits as long as bufferedAmount is not 0", async () => {
    await withFake(async (ws, fake) => {
      fake.bufferedAmount = 70_000;
      const sent = ws.send("*".repeat(70_000));
      assert.ok(await isPending(sent));
      fake.bufferedAmount = 10;
      assert.ok(await isPending(sent));
      fake.bufferedAmount = 0;
      await sent;
    });
  });

  it("Each message that waits counts 768 bytes more for maxBufferedAmount", async () => {
    await withFake((ws, fake) => {
      fake.bufferedAmount = 0;
      let sent = 0;
      while (sent < 100 && ws.state === "open") {
        ws.send("x").catch(() => {});
        fake.bufferedAmount = ++sent;
      }
      // The last send finds the limit exceeded and closes the connection.
      assert.equal(sent, 11);
      fake.bufferedAmount = 0;
    }, { maxBufferedAmount: 10 * 769, slow: "terminate" });
  });

  it("A send that waits is rejected when the socket closes", async () => {
    for (const wasClean of [true, false]) {
      await withFake(async (ws, fake) => {
        fake.bufferedAmount = 70_000;
        const sent = ws.send("*".repeat(70_000));
        fake.emit("close", { code: 1000, reason: "", wasClean });
        await rejection(sent);
        await rejection(ws.closed);
      });
    }
  });

  it("A message that is neither text nor bytes fails the connection", async () => {
    await withFake(async (ws, fake) => {
      fake.emit("message", { data: new Blob(["x"]) });
      assert.equal((await rejection<WebSocketError>(ws.receive())).closeCode, 1003);
      await until(() => fake.closes.length > 0);
      assert.equal(fake.closes[0][0], 4003);
    });
  });

  it("A socket that throws at a send fails the connection", async () => {
    await withFake(async (ws, fake) => {
      const cause = new TypeError("no");
      fake.send = () => {
        throw cause;
      };
      await ws.send("x").catch(() => {});
      const error = await rejection<WebSocketError>(ws.closed);
      assert.deepEqual([error.closeCode, error.cause], [1011, cause]);
    });
  });

  it("What the event error says is the cause of an unclean close", async () => {
    await withFake(async (ws, fake) => {
      const cause = new Error("cut");
      fake.emit("error", { error: cause });
      fake.emit("close", { code: 0, reason: "", wasClean: false });
      const error = await rejection<WebSocketError>(ws.closed);
      assert.deepEqual([error.closeCode, error.cause], [1006, cause]);
    });
  });

  it("A Close is answered, as Workers need it", async () => {
    await withFake(async (ws, fake) => {
      fake.emit("close", { code: 4001, reason: "bye", wasClean: true });
      assert.deepEqual(await ws.closed, { closeCode: 4001, reason: "bye" });
      assert.deepEqual(fake.closes, [[4001, "bye"]]);
    });
  });

  it("A socket that does not close is let go at closeTimeout", async () => {
    await withFake(async (ws, fake) => {
      assert.equal((await ws.close({ closeCode: 1000 })).closeCode, 1006);
      assert.equal((await rejection<WebSocketError>(ws.closed)).closeCode, 1006);
      assert.deepEqual(fake.closes[0], [1000, ""]);
    }, { closeTimeout: 10 });
  });

  it("A Close that arrives before anybody reads is given after the messages", async () => {
    await withFake(async (ws, fake) => {
      for (let i = 0; i < 5; i++) fake.emit("message", { data: pattern(50_000 + i).buffer });
      fake.emit("close", { code: 1000, reason: "", wasClean: true });
      assert.ok(await isPending(ws.closed));
      for (let i = 0; i < 5; i++) assert.equal((await ws.receive()).length, 50_000 + i);
      assert.equal((await rejection<WebSocketError>(ws.receive())).closeCode, 1000);
      await ws.closed;
    });
  });
});
