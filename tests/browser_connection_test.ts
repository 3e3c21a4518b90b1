/**
 * The connections of the entry point for browsers: over the platform's WebSocket, and over the package's own
 * WebSocketStream instead of the browser's. tests/interop/browser_entry_test.ts tests them in Chromium.
 */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import * as browser from "../lib/browser.ts";
import { serve, type WebSocketConnection, type WebSocketError, WebSocketStream } from "../mod.ts";
import { pattern } from "./bytes.ts";
import { FakeSocket, FakeStream, withGlobals } from "./native_sockets.ts";
import { collect, isPending, rejection, still, until } from "./support.ts";

type Ours = browser.WebSocketConnection;

interface Pair {
  ours: Ours;
  peer: WebSocketConnection;
  url: string;
}

const LINES: [name: string, globals: Record<string, unknown>][] = [
  ["WebSocket", { WebSocketStream: undefined }],
  ["WebSocketStream", { WebSocketStream }],
];

/** Connects a page to a server over one kind of line. */
async function withPair(
  globals: Record<string, unknown>,
  options: browser.ConnectOptions,
  run: (pair: Pair) => unknown,
): Promise<void> {
  await withGlobals(globals, async () => {
    let arrived!: (peer: WebSocketConnection) => void;
    const arrival = new Promise<WebSocketConnection>((resolve) => arrived = resolve);
    const server = await serve({ port: 0, maxMessageSize: Infinity }, async (ws) => {
      arrived(ws);
      await ws.closed.catch(() => {});
    });
    const url = server.url!;
    const ours = await browser.connect(url, options);
    const peer = await arrival;
    try {
      await run({ ours, peer, url });
    } finally {
      ours.terminate();
      peer.terminate();
      await server.shutdown();
    }
  });
}

/** Runs a test over each kind of line. */
function overEach(
  title: string,
  run: (pair: Pair, line: string) => unknown,
  options: browser.ConnectOptions = {},
): void {
  for (const [line, globals] of LINES) {
    it(`connect() in a browser over ${line}: ${title}`, async () => {
      await withPair(globals, options, (pair) => run(pair, line));
    });
  }
}

describe("connect() in a browser: messages", () => {
  overEach("messages of both types and each size come back", async ({ ours, peer }) => {
    const echo = peer.readable.pipeTo(peer.writable);
    for (const size of [0, 1, 125, 126, 65536, 300_000]) {
      for (const message of [pattern(size), "é".repeat(size >> 1)]) {
        const sent = ours.send(message);
        assert.deepEqual(await ours.receive(), message);
        await sent;
      }
    }
    assert.equal(ours.stats.messagesReceived, 12);
    assert.equal(ours.stats.messagesSent, 12);
    await ours.close({ closeCode: 1000 });
    await echo;
  });

  overEach("a pipe echoes, and ends with the peer's Close", async ({ ours, peer }) => {
    const echo = ours.readable.pipeTo(ours.writable);
    for (let i = 0; i < 100; i++) {
      await peer.send(i % 2 ? `text ${i}` : pattern(i));
      await peer.receive();
    }
    await peer.close({ closeCode: 1000 });
    await echo;
    assert.deepEqual(await ours.closed, { closeCode: 1000, reason: "" });
  });

  overEach("every message before the Close is read", async ({ ours, peer }) => {
    for (const message of ["one", new Uint8Array([2]), "three"]) await peer.send(message);
    void peer.close({ closeCode: 1001 });
    assert.deepEqual(await collect(ours), ["one", new Uint8Array([2]), "three"]);
  });

  overEach("receive() can be cancelled without the loss of a message", async ({ ours, peer }) => {
    const controller = new AbortController();
    const first = ours.receive({ signal: controller.signal });
    controller.abort(new Error("no more"));
    assert.equal((await rejection(first)).message, "no more");
    await peer.send("kept");
    assert.equal(await ours.receive(), "kept");
  });

  overEach("one reader at a time, and one way of reading", async ({ ours, peer }) => {
    const first = ours.receive();
    assert.equal(browser.errorCodeOf(await rejection(ours.receive())), "busy");
    assert.throws(() => ours.readable, { name: "InvalidStateError" });
    await peer.send("first");
    assert.equal(await first, "first");
    const reader = ours.readable.getReader();
    await peer.send("second");
    assert.equal((await reader.read()).value, "second");
    assert.equal(browser.errorCodeOf(await rejection(ours.receive())), "reading-mode");
  });

  overEach("batches() gives each message, and its loop ends like others", async (pair) => {
    const { ours, peer } = pair;
    for (const message of ["one", new Uint8Array([2]), "three"]) await peer.send(message);
    for await (const messages of ours.batches()) {
      assert.deepEqual(messages, ["one"]);
      assert.throws(() => ours.readable, { name: "InvalidStateError" });
      break;
    }
    void peer.close({ closeCode: 1001 });
    const rest = await collect(ours.batches());
    assert.deepEqual(rest.flat(), [new Uint8Array([2]), "three"]);
  });

  overEach("batches() throws after another close code", async ({ ours, peer }) => {
    void peer.close({ closeCode: 4000 });
    const error = await rejection<WebSocketError>(collect(ours.batches()));
    assert.equal(error.closeCode, 4000);
    assert.equal(ours.isOwnError(error), true);
  });

  overEach("sendAll() sends each item before what follows", async ({ ours, peer }) => {
    const bytes = pattern(30_000);
    const sent = ours.sendAll(["a", bytes, "", new Uint8Array([1])]);
    bytes.fill(0);
    void ours.send("after");
    for (const message of ["a", pattern(30_000), "", new Uint8Array([1]), "after"]) {
      assert.deepEqual(await peer.receive(), message);
    }
    await sent;
    assert.equal(ours.stats.messagesSent, 5);
    assert.equal(ours.bufferedAmount, 0);
    await ours.sendAll(new Set([new TextEncoder().encode("é")]), { text: true });
    assert.equal(await peer.receive(), "é");
    void ours.sendAll(["x", "y"]);
    void ours.close({ closeCode: 1000 });
    assert.deepEqual(await collect(peer), ["x", "y"]);
    await assert.rejects(ours.sendAll(["late"]), { name: "InvalidStateError" });
  });

  overEach("sendAll() stops at what cannot be sent", async ({ ours, peer }) => {
    await assert.rejects(ours.sendAll("text"), /received a string: send each message$/);
    const items = (async function* () {})();
    await assert.rejects(ours.sendAll(items as never), /received an object/);
    await assert.rejects(
      ours.sendAll(["a"], { binary: true } as never),
      /sendAll\(\) has no option/,
    );
    await assert.rejects(ours.sendAll(["a", 5 as never, "b"]), TypeError);
    const aborted = ours.sendAll(["c"], { signal: AbortSignal.abort(new Error("mine")) });
    assert.equal((await rejection(aborted)).message, "mine");
    await ours.send("d");
    assert.equal(await peer.receive(), "a");
    assert.equal(await peer.receive(), "d");
  });

  overEach("sendAll() takes no item after the end of the connection", async ({ ours, peer }) => {
    let taken = 0;
    const items = (function* () {
      for (; taken < 100; taken++) {
        if (taken === 3) void ours.close({ closeCode: 1000 });
        yield `${taken}`;
      }
    })();
    await assert.rejects(ours.sendAll(items), { name: "InvalidStateError" });
    assert.equal(taken, 3);
    assert.deepEqual(await collect(peer), ["0", "1", "2"]);
  });

  overEach("discard() drops what comes", async ({ ours, peer }) => {
    ours.discard();
    await peer.send("dropped");
    await peer.close({ closeCode: 1000 });
    assert.equal((await ours.closed).closeCode, 1000);
  });

  overEach("bytes are copied, and text is converted", async ({ ours, peer }) => {
    const bytes = pattern(10_000);
    const sends = [ours.send(bytes), ours.send(new TextEncoder().encode("é"), { text: true })];
    bytes.fill(0);
    await Promise.all(sends);
    assert.deepEqual(await peer.receive(), pattern(10_000));
    assert.equal(await peer.receive(), "é");
    const invalid = ours.send(new Uint8Array([0xff]), { text: true });
    assert.ok(await rejection(invalid) instanceof RangeError);
    await assert.rejects(ours.send(5 as never), TypeError);
    await assert.rejects(ours.send("a", { binary: true } as never), /use text$/);
    assert.equal(ours.state, "open");
  });

  overEach("a message too long fails the connection, after those before", async (pair) => {
    const { ours, peer } = pair;
    await peer.send("short");
    await peer.send("é".repeat(600));
    assert.equal(await ours.receive(), "short");
    const error = await rejection<WebSocketError>(ours.receive());
    assert.equal(error.closeCode, 1009);
    assert.ok(ours.isOwnError(error));
    assert.equal(await rejection(ours.closed), error);
    assert.equal((await peer.closed).closeCode, 4009);
  }, { maxMessageSize: 1000 });
});

describe("connect() in a browser: backpressure", () => {
  overEach("a send waits for a peer that does not read", async ({ ours, peer }) => {
    const payload = pattern(65536);
    let sent = 0;
    let isStopped = false;
    const sending = (async () => {
      for (; !isStopped; sent += payload.length) await ours.send(payload);
    })();
    await until(() => sent > 0);
    const stalled = await still(() => sent);
    assert.ok(stalled < 64 * 1024 * 1024, `${stalled} bytes were taken`);
    assert.ok(ours.bufferedAmount > 0);
    isStopped = true;
    peer.discard();
    await sending;
    await until(() => ours.bufferedAmount === 0);
  });

  overEach("a peer's sends wait for a page that does not read", async ({ ours, peer }, line) => {
    const payload = pattern(65536);
    let sent = 0;
    let isStopped = false;
    const sending = (async () => {
      for (; !isStopped; sent += payload.length) await peer.send(payload);
    })().catch(() => {});
    if (line === "WebSocket") {
      // A WebSocket cannot be paused, so that the amount which waits is limited.
      const error = await rejection<WebSocketError>(ours.closed);
      assert.equal(error.closeCode, 1013);
      assert.match(error.message, /maxQueuedBytes \(1000000\)/);
      assert.deepEqual(await ours.receive(), payload);
    } else {
      await until(() => sent > 0);
      const stalled = await still(() => sent);
      assert.equal(ours.state, "open");
      assert.ok(stalled < 64 * 1024 * 1024, `${stalled} bytes were taken`);
      isStopped = true;
      ours.discard();
    }
    await sending;
  }, { maxQueuedBytes: 1_000_000 });

  overEach("a peer that is too slow is closed, if `slow` says so", async ({ ours, peer }) => {
    while (ours.state === "open") {
      ours.send(pattern(100_000)).catch(() => {});
      await Promise.resolve();
    }
    assert.equal(ours.closeInfo?.sent?.closeCode, 1008);
    assert.equal((await rejection(ours.send("late"))).name, "InvalidStateError");
    peer.discard();
    assert.equal((await peer.closed).closeCode, 4008);
  }, { maxBufferedAmount: 500_000, slow: "close" });

  overEach("broadcast() and relay() take its connections", async ({ ours, peer, url }) => {
    const other = await browser.connect(url);
    const result = browser.broadcast([ours, other], "news", { except: other });
    assert.deepEqual(result, { sent: 1, missed: 0, closed: 0 });
    assert.equal(await peer.receive(), "news");
    const relayed = browser.relay(ours, other);
    // A close code that a browser cannot send becomes a code for private use.
    await peer.close({ closeCode: 1001, reason: "away" });
    assert.deepEqual(await relayed, [
      { closeCode: 1001, reason: "away" },
      { closeCode: 4001, reason: "away" },
    ]);
  });
});

describe("connect() in a browser: the end", () => {
  const OURS: [info: browser.CloseInfo, closeCode: number, reason: string][] = [
    [{}, 1005, ""],
    [{ closeCode: 1005 }, 1005, ""],
    [{ closeCode: 1000 }, 1000, ""],
    [{ reason: "done" }, 1000, "done"],
    [{ closeCode: 4999, reason: "é" }, 4999, "é"],
  ];
  for (const [info, closeCode, reason] of OURS) {
    overEach(`it closes with ${JSON.stringify(info)}`, async ({ ours, peer }) => {
      void ours.send("before");
      const closing = ours.close(info);
      assert.equal(ours.state, "closing");
      assert.equal((await rejection(ours.send("late"))).name, "InvalidStateError");
      assert.equal(await peer.receive(), "before");
      assert.deepEqual(await peer.closed, { closeCode, reason });
      assert.equal((await closing).closeCode, closeCode);
      assert.equal(ours.state, "closed");
      assert.equal(ours.closeInfo?.first, "sent");
      assert.ok(ours.signal.aborted);
    });
  }

  for (const closeCode of [undefined, 1000, 1001, 1011, 4000]) {
    overEach(`the peer closes with ${closeCode}`, async ({ ours, peer }) => {
      const read = collect(ours).catch((error: WebSocketError) => error);
      await peer.close({ closeCode, reason: closeCode === undefined ? "" : "bye" });
      const info = {
        closeCode: closeCode ?? 1005,
        reason: closeCode === undefined ? "" : "bye",
      };
      assert.deepEqual(await ours.closed, info);
      if (info.closeCode < 1011) assert.deepEqual(await read, []);
      else {
        const error = await read as WebSocketError;
        assert.equal(error.closeCode, closeCode);
        assert.equal(browser.errorCodeOf(error), "closed");
        assert.match(error.message, new RegExp(`^The connection was closed.* ?${closeCode} .*bye`));
        assert.ok(ours.isOwnError(error));
      }
      assert.deepEqual(ours.closeInfo, { received: info, sent: info, first: "received" });
      assert.equal((await ours.close()).closeCode, info.closeCode);
    });
  }

  overEach("codes that a browser does not send are refused", ({ ours }) => {
    for (const closeCode of [999, 1001, 1006, 5000]) {
      assert.throws(() => ours.close({ closeCode }), { name: "InvalidAccessError" });
    }
    const long = { closeCode: 3000, reason: "*".repeat(124) };
    assert.throws(() => ours.close(long), { name: "SyntaxError" });
    assert.throws(() => ours.close({ code: 1000 } as never), /use closeCode$/);
    assert.equal(ours.state, "open");
  });

  overEach("a peer that vanishes is an error, after its messages", async ({ ours, peer }) => {
    await peer.send("before");
    assert.equal(await ours.receive(), "before");
    peer.terminate();
    const error = await rejection<WebSocketError>(ours.receive());
    assert.equal(error.closeCode, 1006);
    assert.equal(await rejection(ours.closed), error);
    assert.equal(ours.signal.reason, error);
  });

  overEach("terminate() lets go at once", async ({ ours, peer }) => {
    const reading = rejection<WebSocketError>(ours.receive());
    ours.terminate();
    assert.equal(ours.state, "closed");
    assert.equal((await rejection<WebSocketError>(ours.closed)).closeCode, 1006);
    assert.equal((await reading).closeCode, 1006);
    await peer.closed.catch(() => {});
  });

  overEach("cancel and abort close with the code of the reason", async ({ ours, peer }) => {
    await ours.readable.cancel(new browser.WebSocketError("", { closeCode: 4001, reason: "a" }));
    assert.deepEqual(await peer.closed, { closeCode: 4001, reason: "a" });
  });

  overEach("an error that aborts `writable` is told as 4011", async ({ ours, peer }) => {
    ours.writable.abort(new Error("mine")).catch(() => {});
    assert.equal((await peer.closed).closeCode, 4011);
  });

  overEach("`writable` closes the connection when it is closed", async ({ ours, peer }) => {
    const writer = ours.writable.getWriter();
    await writer.write("last");
    const closed = writer.close();
    assert.equal(await peer.receive(), "last");
    assert.equal((await peer.closed).closeCode, 1005);
    await closed;
  });

  overEach("`await using` closes with 1000", async ({ ours, peer }) => {
    await ours[Symbol.asyncDispose]();
    assert.equal((await peer.closed).closeCode, 1000);
  });

  it("A socket that does not close is let go at closeTimeout", async () => {
    const socket = new FakeSocket();
    const ws = await browser.fromWebSocket(socket, { closeTimeout: 10 });
    const hold = setInterval(() => {}, 1000);
    assert.equal((await ws.close({ closeCode: 1000 })).closeCode, 1006);
    clearInterval(hold);
    assert.equal((await rejection<WebSocketError>(ws.closed)).closeCode, 1006);
    assert.deepEqual(socket.listeners, { open: 0, error: 1, message: 0, close: 0 });
  });

  it("What was not sent at the peer's Close rejects", async () => {
    const socket = new FakeSocket();
    const ws = await browser.fromWebSocket(socket);
    socket.bufferedAmount = 70_000;
    const sent = ws.send("*".repeat(70_000));
    assert.ok(await isPending(sent));
    socket.emit("close", { code: 1000, reason: "", wasClean: true });
    await rejection(sent);
    assert.equal((await rejection<WebSocketError>(ws.closed)).closeCode, 1000);
  });
});

describe("connect() in a browser: a WebSocketStream that does not settle", () => {
  const withStream = (
    options: browser.ConnectOptions,
    run: (ws: Ours, stream: FakeStream) => unknown,
  ) =>
    withGlobals({ WebSocketStream: FakeStream }, async () => {
      const opening = browser.connect("ws://localhost/", options);
      FakeStream.last.open();
      await run(await opening, FakeStream.last);
    });

  it("terminate() ends a read, a send, a stream and close()", async () => {
    await withStream({}, async (ws) => {
      const waiting = [ws.receive(), ws.send("never taken"), ws.writable.close()];
      for (const promise of waiting) promise.catch(() => {});
      assert.ok(await isPending(waiting[1]));
      ws.terminate();
      for (const promise of waiting) assert.ok(ws.isOwnError(await rejection(promise)));
      assert.equal((await ws.close()).closeCode, 1006);
      assert.equal(ws.bufferedAmount, 0);
    });
    await withStream({}, async (ws, stream) => {
      const reading = rejection(ws.readable.getReader().read());
      ws.terminate();
      assert.equal(await reading, await rejection(ws.closed));
      assert.deepEqual(stream.closes, [undefined]);
    });
  });

  it("What comes after a message that is too long is dropped", async () => {
    await withStream({ maxMessageSize: 4 }, async (ws, { input, closes }) => {
      input.enqueue("too long");
      const error = await rejection<WebSocketError>(ws.receive());
      assert.equal(error.closeCode, 1009);
      assert.deepEqual(closes, [{ closeCode: 4009, reason: error.message }]);
      for (let i = 0; i < 5; i++) input.enqueue("more");
      await until(() => input.desiredSize === 1);
      assert.equal(await rejection(ws.receive()), error);
    });
  });

  it("The stream is closed if the signal is aborted in the turn in which it opens", async () => {
    const results = new Set<string>();
    for (let microtasks = 0; microtasks < 20; microtasks++) {
      await withGlobals({ WebSocketStream: FakeStream }, async () => {
        const controller = new AbortController();
        const opening = browser.connect("ws://localhost/", { signal: controller.signal });
        const { open, closes } = FakeStream.last;
        open();
        for (let i = 0; i < microtasks; i++) await undefined;
        controller.abort();
        const ws = await opening.catch(() => undefined);
        results.add(ws === undefined ? "rejects" : "opens");
        assert.equal(closes.length, ws === undefined ? 1 : 0, `${microtasks} microtasks`);
      });
    }
    assert.deepEqual([...results], ["rejects", "opens"]);
  });
});

describe("fromWebSocket() in a browser", () => {
  it("It and connect() copy their options", async () => {
    const limit = { maxMessageSize: 4 };
    const socket = new FakeSocket();
    const [overSocket, overStream] = await withGlobals(
      { WebSocketStream: FakeStream },
      async () => {
        const opening = [browser.fromWebSocket(socket, limit), browser.connect("ws://a/", limit)];
        FakeStream.last.open();
        limit.maxMessageSize = Infinity;
        return await Promise.all(opening);
      },
    );
    socket.emit("message", { data: "too long" });
    FakeStream.last.input.enqueue("too long");
    for (const ws of [overSocket, overStream]) {
      assert.equal((await rejection<WebSocketError>(ws.receive())).closeCode, 1009);
    }
  });

  it("It takes a socket once, and refuses other values", async () => {
    const socket = new FakeSocket();
    const ws = await browser.fromWebSocket(socket);
    const again = await rejection(browser.fromWebSocket(socket));
    assert.equal(browser.errorCodeOf(again), "already-used");
    await assert.rejects(browser.fromWebSocket({} as never), TypeError);
    await assert.rejects(
      browser.fromWebSocket(new FakeSocket(), { request: 1 } as never),
      TypeError,
    );
    socket.emit("message", { data: "text" });
    socket.emit("message", { data: pattern(3).buffer });
    assert.equal(await ws.receive(), "text");
    assert.deepEqual(await ws.receive(), pattern(3));
    ws.terminate();
  });

  it("terminate() in the turn of the close has no effect on the messages before", async () => {
    const socket = new FakeSocket();
    const ws = await browser.fromWebSocket(socket);
    socket.emit("message", { data: "last" });
    socket.emit("close", { code: 1000, reason: "", wasClean: true });
    ws.terminate();
    ws.terminate();
    assert.equal(await ws.receive(), "last");
    await rejection(ws.receive());
    assert.equal(ws.state, "closed");
  });

  for (const size of [1, 100_000]) {
    it(`A send of ${size} after the close event, and in its turn, rejects`, async () => {
      const socket = new FakeSocket();
      socket.bufferedAmount = 0;
      const ws = await browser.fromWebSocket(socket);
      socket.emit("close", { code: 1000, reason: "", wasClean: true });
      assert.equal(ws.state, "open");
      const error = await rejection(ws.send("*".repeat(size)));
      assert.equal(error.name, "InvalidStateError");
      assert.ok(ws.isOwnError(error));
      assert.ok(!ws.isOwnError(undefined));
      assert.equal(ws.bufferedAmount, 0);
      assert.deepEqual(socket.sent, []);
    });
  }

  it("A send rejects while the socket is closing, when the socket has closed", async () => {
    const socket = new FakeSocket();
    const ws = await browser.fromWebSocket(socket);
    socket.readyState = 2;
    const sent = ws.send("dropped by a browser");
    assert.ok(await isPending(sent));
    socket.emit("close", { code: 1001, reason: "", wasClean: true });
    assert.ok(ws.isOwnError(await rejection(sent)));
    assert.equal((await ws.closed).closeCode, 1001);
    assert.deepEqual(socket.sent, []);
  });

  it("A socket that throws at a send fails the connection", async () => {
    const socket = new FakeSocket();
    const ws = await browser.fromWebSocket(socket);
    socket.send = () => {
      throw new TypeError("no");
    };
    await ws.send("x").catch(() => {});
    const error = await rejection<WebSocketError>(ws.closed);
    assert.equal(error.closeCode, 1011);
    assert.equal((error.cause as Error).message, "no");
  });

  for (
    const [title, options, code] of [
      ["openTimeout", { openTimeout: 10 }, "timeout"],
      ["a signal", { signal: AbortSignal.timeout(10) }, undefined],
    ] as const
  ) {
    it(`${title} ends the wait for the socket, and closes it`, async () => {
      const socket = new FakeSocket();
      socket.readyState = 0;
      const hold = setInterval(() => {}, 1000);
      const error = await rejection(browser.fromWebSocket(socket, options));
      clearInterval(hold);
      assert.equal(browser.errorCodeOf(error), code);
      if (code === undefined) assert.equal(error.name, "TimeoutError");
      assert.equal(socket.closes.length, 1);
    });
  }
});

describe("reconnect() in a browser", () => {
  for (const [line, globals] of LINES) {
    it(`reconnect() over ${line} gives the next connection after a loss`, async () => {
      await withGlobals(globals, async () => {
        const server = await serve({ port: 0 }, async (ws) => {
          await ws.send("news");
          await ws.receive();
          ws.terminate();
        });
        const retries: browser.RetryInfo[] = [];
        const onRetry = (info: browser.RetryInfo) => void retries.push(info);
        const news: unknown[] = [];
        for await (const ws of browser.reconnect(server.url!, { minDelay: 1, onRetry })) {
          try {
            for await (const message of ws) {
              news.push(message);
              await ws.send("got it");
            }
          } catch (error) {
            assert.ok(ws.isOwnError(error), String(error));
          }
          if (news.length === 3) break;
        }
        assert.deepEqual(news, ["news", "news", "news"]);
        assert.deepEqual(retries.map(({ attempt }) => attempt), [1, 2]);
        await server.shutdown();
      });
    });

    it(`reconnect() over ${line} tries again if nobody listens`, async () => {
      await withGlobals(globals, async () => {
        const options = { minDelay: 1, maxAttempts: 3 };
        const [first] = [browser.reconnect("ws://127.0.0.1:1/", options)];
        const error = await rejection<browser.HandshakeError>(first.next());
        assert.equal(error.code, "connect-failed");
        assert.ok(browser.isTransient(error));
      });
    });
  }

  it("reconnect() refuses what a browser cannot do, and options that do not exist", () => {
    const reconnect = browser.reconnect as (url: string, options: object) => unknown;
    const call = (options: object) => () => reconnect("ws://127.0.0.1/", options);
    assert.throws(call({ headers: {} }), { name: "NotSupportedError" });
    assert.throws(
      call({ maxRetries: 1 }),
      /^TypeError: reconnect\(\) has no option maxRetries: use maxAttempts$/,
    );
    assert.throws(call({ minDelay: -1 }), RangeError);
    assert.throws(() => reconnect("ftp://127.0.0.1/", {}), { name: "SyntaxError" });
  });
});
