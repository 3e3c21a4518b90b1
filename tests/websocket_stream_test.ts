import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  type CloseInfo,
  type ConnectOptions,
  HandshakeError,
  serve,
  type ServeOptions,
  type Server,
  type WebSocketConnection,
  WebSocketError,
  type WebSocketOpenInfo,
  WebSocketStream,
} from "../mod.ts";
import { transportPair } from "../lib/testing.ts";
import { pattern } from "./bytes.ts";
import {
  closeFrame,
  frames,
  isPending,
  RawPeer,
  rejection,
  rest,
  until,
  urlOf,
  withRawServer,
} from "./support.ts";

type WithCode = DOMException & { closeCode: number; reason: string };

/** Runs a test with a server whose connections are handed to it. */
async function withServer(
  run: (server: Server, accepted: WebSocketConnection[]) => unknown,
  options: ServeOptions = {},
): Promise<void> {
  const accepted: WebSocketConnection[] = [];
  const server = await serve(options, async (ws) => {
    accepted.push(ws);
    await ws.closed;
  });
  try {
    await run(server, accepted);
  } finally {
    for (const ws of accepted) ws.terminate();
    await server.shutdown();
  }
}

/** Runs a test with a stream and its peer by hand, in memory. */
async function withPeer(
  run: (stream: WebSocketStream, info: WebSocketOpenInfo, peer: RawPeer) => unknown,
  capacity?: number,
): Promise<void> {
  const [near, far] = transportPair({ capacity });
  const peer = new RawPeer(far, "server");
  const stream = new WebSocketStream("ws://localhost/", { duplex: near, closeTimeout: 300 });
  try {
    await run(stream, await stream.opened, peer);
  } finally {
    near.destroy();
    far.destroy();
  }
}

describe("new WebSocketStream", () => {
  const urls: [url: string, serialised: string][] = [
    ["ws://127.0.0.1:1/a b?c", "ws://127.0.0.1:1/a%20b?c"],
    ["http://127.0.0.1:1", "ws://127.0.0.1:1/"],
    ["https://127.0.0.1:1", "wss://127.0.0.1:1/"],
    ["WS://LOCALHOST:80/", "ws://localhost/"],
  ];
  for (const [url, serialised] of urls) {
    it(`new WebSocketStream(${JSON.stringify(url)}) has the URL ${serialised}`, () => {
      const signal = AbortSignal.abort();
      assert.equal(new WebSocketStream(url, { signal }).url, serialised);
    });
  }

  for (const url of ["", "a", "/a", "ftp://a/", "data:,", "ws://a/#", "ws://a/#b", "ws://"]) {
    it(`new WebSocketStream(${JSON.stringify(url)}) throws a SyntaxError`, () => {
      assert.throws(() => new WebSocketStream(url), { name: "SyntaxError" });
    });
  }

  const wrong: [name: string, args: unknown[]][] = [
    ["no URL", []],
    ["options that are a number", ["ws://localhost/", 1]],
    ["options that are a string", ["ws://localhost/", "a"]],
    ["protocols that are a number", ["ws://localhost/", { protocols: 1 }]],
    ["protocols that are null", ["ws://localhost/", { protocols: null }]],
    ["protocols that are a string", ["ws://localhost/", { protocols: "a" }]],
    ["a signal that is none", ["ws://localhost/", { signal: {} }]],
  ];
  for (const [name, args] of wrong) {
    it(`new WebSocketStream() with ${name} throws a TypeError`, () => {
      assert.throws(() => Reflect.construct(WebSocketStream, args), TypeError);
    });
  }

  for (const protocols of [["a", "a"], ["a", "A"], [""], ["a b"], ["a,b"]]) {
    it(`new WebSocketStream() with the protocols ${JSON.stringify(protocols)} throws`, () => {
      const make = () => new WebSocketStream("ws://localhost/", { protocols });
      assert.throws(make, { name: "SyntaxError" });
    });
  }

  it("new WebSocketStream() takes options that are null", async () => {
    const stream = new WebSocketStream("ws://127.0.0.1:1/", null as unknown as ConnectOptions);
    await rejection(stream.opened);
  });

  it("opened tells the protocol and the extensions", async () => {
    await withServer(async (server) => {
      const stream = new WebSocketStream(urlOf(server), { protocols: ["a", "b"] });
      const { protocol, extensions, readable, writable, connection } = await stream.opened;
      assert.equal(protocol, "b");
      assert.equal(extensions, "");
      assert.ok(readable instanceof ReadableStream);
      assert.ok(writable instanceof WritableStream);
      assert.equal(connection.readable, readable);
      assert.equal(stream.opened, stream.opened);
      assert.equal(stream.closed, stream.closed);
      stream.close();
      await stream.closed;
    }, { protocols: ["b"] });
  });
});

describe("WebSocketStream.close", () => {
  const wrong: [name: string, info: unknown, expected: typeof TypeError | { name: string }][] = [
    ["a number", 1, TypeError],
    ["a string", "a", TypeError],
    ["a boolean", true, TypeError],
    ["a code out of range", { closeCode: 65536 }, TypeError],
    ["a code that is no number", { closeCode: "a" }, TypeError],
    ...[0, 999, 1001, 1005, 1006, 1011, 2999, 5000].map((
      closeCode,
    ): [string, unknown, { name: string }] => [
      `code ${closeCode}`,
      { closeCode },
      { name: "InvalidAccessError" },
    ]),
    ["a reason of 124 bytes", { closeCode: 1000, reason: "x".repeat(124) }, {
      name: "SyntaxError",
    }],
    ["a reason of 126 bytes alone", { reason: "\u20ac".repeat(42) }, { name: "SyntaxError" }],
  ];
  it("close() refuses what the standard refuses, and stays open", async () => {
    await withPeer(async (stream, { writable }, peer) => {
      for (const [name, info, expected] of wrong) {
        assert.throws(() => stream.close(info as CloseInfo), expected, name);
      }
      await writable.getWriter().write("a");
      assert.deepEqual(await frames(peer, 1), [["text", "a", true]]);
    });
  });

  it("close() refuses them during the handshake too", async () => {
    await withRawServer(() => {}, async (url) => {
      const stream = new WebSocketStream(url);
      for (const [name, info, expected] of wrong) {
        assert.throws(() => stream.close(info as CloseInfo), expected, name);
      }
      assert.equal(await isPending(stream.opened), true);
      stream.close();
      await rejection(stream.closed);
    });
  });

  const right: [info: CloseInfo | undefined, sent: Required<CloseInfo>][] = [
    [undefined, { closeCode: 1005, reason: "" }],
    [{}, { closeCode: 1005, reason: "" }],
    [{ reason: "" }, { closeCode: 1005, reason: "" }],
    [{ closeCode: 1000 }, { closeCode: 1000, reason: "" }],
    [{ closeCode: 3000, reason: "a" }, { closeCode: 3000, reason: "a" }],
    [{ closeCode: 4999, reason: "x".repeat(123) }, { closeCode: 4999, reason: "x".repeat(123) }],
    [{ reason: "a" }, { closeCode: 1000, reason: "a" }],
    [{ reason: "\ud800" }, { closeCode: 1000, reason: "\ufffd" }],
    [{ closeCode: 1000.9 }, { closeCode: 1000, reason: "" }],
  ];
  for (const [info, sent] of right) {
    it(`close(${JSON.stringify(info)}) sends ${sent.closeCode} ${JSON.stringify(sent.reason)}`, async () => {
      await withPeer(async (stream, _, peer) => {
        assert.equal(stream.close(info), undefined);
        stream.close({ closeCode: 3999 });
        assert.deepEqual(await peer.nextClose(), sent);
        peer.send(closeFrame(sent.closeCode === 1005 ? undefined : sent.closeCode, sent.reason));
        assert.deepEqual(await stream.closed, sent);
      });
    });
  }

  it("close() during the handshake fails it; code and reason are not used", async () => {
    await withRawServer(() => {}, async (url) => {
      const stream = new WebSocketStream(url);
      stream.close({ closeCode: 4000, reason: "unused" });
      const error = await rejection<WithCode>(stream.opened);
      assert.ok(error instanceof WebSocketError);
      assert.notEqual(error.closeCode, 4000);
      assert.equal(error.reason, "");
      assert.equal(await rejection(stream.closed), error);
    });
  });
});

describe("A failed handshake of a WebSocketStream", () => {
  it("opened and closed reject with a WebSocketError whose cause says why", async () => {
    await withServer(async (server) => {
      const stream = new WebSocketStream(urlOf(server));
      const error = await rejection<WithCode>(stream.opened);
      assert.ok(error instanceof WebSocketError);
      assert.equal(await rejection(stream.closed), error);
      assert.ok(error.cause instanceof HandshakeError);
      assert.equal(error.cause.code, "status");
      assert.equal(error.cause.response!.status, 403);
    }, { origins: [] });
  });

  it("A server that chooses none of the protocols fails it", async () => {
    await withServer(async (server) => {
      const stream = new WebSocketStream(urlOf(server), { protocols: ["a"] });
      const error = await rejection<WithCode>(stream.opened);
      assert.ok(error.cause instanceof HandshakeError);
      assert.equal(error.cause.code, "subprotocol");
    });
  });

  it("A signal aborted before: the reason, and no connection", async () => {
    let dialled = 0;
    await withRawServer(() => void dialled++, async (url) => {
      const reason = new Error("enough");
      const stream = new WebSocketStream(url, { signal: AbortSignal.abort(reason) });
      assert.equal(await rejection(stream.opened), reason);
      assert.equal(await rejection(stream.closed), reason);
      await rest();
    });
    assert.equal(dialled, 0);
  });

  it("A signal aborted during the handshake: the reason, and the connection is failed", async () => {
    const ended: (() => boolean)[] = [];
    await withRawServer((raw) => void ended.push(() => raw.ended || raw.closed), async (url) => {
      const controller = new AbortController();
      const stream = new WebSocketStream(url, { signal: controller.signal });
      await until(() => ended.length === 1);
      const reason = { not: "even an error" };
      controller.abort(reason);
      assert.equal(await rejection(stream.opened), reason);
      assert.equal(await rejection(stream.closed), reason);
      await until(ended[0]);
    });
  });

  it("A signal aborted after opening has no effect", async () => {
    await withServer(async (server, accepted) => {
      const controller = new AbortController();
      const stream = new WebSocketStream(urlOf(server), { signal: controller.signal });
      const { writable } = await stream.opened;
      controller.abort();
      await rest();
      await writable.getWriter().write("a");
      await until(() => accepted.length === 1);
      assert.equal(await accepted[0].receive(), "a");
      stream.close();
      await stream.closed;
    });
  });
});

describe("The streams of a WebSocketStream", () => {
  it("readable gives text as strings and binary as bytes", async () => {
    await withServer(async (server, accepted) => {
      const stream = new WebSocketStream(urlOf(server));
      const { readable } = await stream.opened;
      await until(() => accepted.length === 1);
      await accepted[0].send("a");
      await accepted[0].send(pattern(3));
      const reader = readable.getReader();
      assert.equal((await reader.read()).value, "a");
      const { value } = await reader.read();
      assert.ok(value instanceof Uint8Array);
      assert.deepEqual(new Uint8Array(value), pattern(3));
    });
  });

  it("readable takes messages of any size, and no pings are sent", async () => {
    await withServer(async (server, accepted) => {
      const stream = new WebSocketStream(urlOf(server));
      const { readable } = await stream.opened;
      await until(() => accepted.length === 1);
      const large = pattern(3_000_000);
      const sent = accepted[0].send(large);
      const { value } = await readable.getReader().read();
      assert.deepEqual(value, large);
      await sent;
    });
  });

  const chunks: [name: string, chunk: () => unknown, frame: [string, string]][] = [
    ["a string", () => "a\u20ac", ["text", "a\u20ac"]],
    ["bytes", () => pattern(2), ["binary", "\0\x07"]],
    ["an ArrayBuffer", () => pattern(2).buffer, ["binary", "\0\x07"]],
    ["a DataView", () => new DataView(pattern(4).buffer, 0, 2), ["binary", "\0\x07"]],
    ["a number", () => 1.5, ["text", "1.5"]],
    ["null", () => null, ["text", "null"]],
    ["undefined", () => undefined, ["text", "undefined"]],
    ["an object", () => ({}), ["text", "[object Object]"]],
    ["an array", () => [1, 2], ["text", "1,2"]],
    ["a Date", () => ({ [Symbol.toPrimitive]: () => "own" }), ["text", "own"]],
    ["a lone surrogate", () => "\ud800", ["text", "\ufffd"]],
  ];
  it("writable converts chunks as the standard says", async () => {
    await withPeer(async (_, { writable }, peer) => {
      const writer = writable.getWriter();
      for (const [name, chunk, frame] of chunks) {
        await writer.write(chunk() as string);
        assert.deepEqual(await frames(peer, 1), [[...frame, true]], name);
      }
    });
  });

  const refused: [name: string, chunk: () => unknown][] = [
    ["a symbol", () => Symbol("a")],
    ["a shared buffer", () => new SharedArrayBuffer(1)],
    ["a view of one", () => new Uint8Array(new SharedArrayBuffer(1))],
    ["a resizable buffer", () => new ArrayBuffer(1, { maxByteLength: 2 })],
    ["a view of that", () => new Uint8Array(new ArrayBuffer(1, { maxByteLength: 2 }))],
  ];
  for (const [name, chunk] of refused) {
    it(`writable rejects the write of ${name} with a TypeError`, async () => {
      await withPeer(async (_, { writable }) => {
        await assert.rejects(writable.getWriter().write(chunk() as string), TypeError);
      });
    });
  }

  it("writable copies at the write", async () => {
    for (const length of [4, 100_000]) {
      await withPeer(async (_, { writable }, peer) => {
        const bytes = pattern(length);
        const written = writable.getWriter().write(bytes);
        bytes.fill(0);
        await written;
        assert.deepEqual((await peer.next()).payload, pattern(length));
      });
    }
  });

  it("writable stops resolving writes when the peer does not read", async () => {
    await withPeer(async (_, { writable }, peer) => {
      peer.transport.pause();
      const writer = writable.getWriter();
      let written = 0;
      const writing = (async () => {
        for (; written < 100; written++) await writer.write(pattern(50_000));
      })();
      assert.equal(await isPending(writing), true);
      assert.ok(written < 10, `${written} were written`);
      peer.transport.resume();
      await writing;
    });
  });

  it("writable that is closed sends an empty Close, and waits for the closing handshake", async () => {
    await withPeer(async (stream, { writable }, peer) => {
      const closing = writable.close();
      assert.deepEqual(await peer.nextClose(), { closeCode: 1005, reason: "" });
      assert.equal(await isPending(closing), true);
      peer.polite = false;
      peer.send(closeFrame());
      assert.equal(await isPending(closing), true);
      peer.transport.end();
      await closing;
      assert.deepEqual(await stream.closed, { closeCode: 1005, reason: "" });
    });
  });

  const reasons: [name: string, reason: unknown, sent: Required<CloseInfo>][] = [
    [
      "a WebSocketError",
      new WebSocketError("", { closeCode: 3333, reason: "r" }),
      { closeCode: 3333, reason: "r" },
    ],
    ["one with a reason alone", new WebSocketError("", { reason: "r" }), {
      closeCode: 1000,
      reason: "r",
    }],
    ["one without either", new WebSocketError("a"), { closeCode: 1005, reason: "" }],
    ["nothing", undefined, { closeCode: 1005, reason: "" }],
    ["a string", "a", { closeCode: 1005, reason: "" }],
    ["a plain object", { closeCode: 3333, reason: "r" }, { closeCode: 1005, reason: "" }],
    ["a DOMException", new DOMException("a", "DataCloneError"), { closeCode: 1005, reason: "" }],
  ];
  const leaving: Record<string, (info: WebSocketOpenInfo, reason: unknown) => Promise<void>> = {
    "readable.cancel": ({ readable }, reason) => readable.cancel(reason),
    "reader.cancel": ({ readable }, reason) => readable.getReader().cancel(reason),
    "writable.abort": ({ writable }, reason) => writable.abort(reason),
    "writer.abort": ({ writable }, reason) => writable.getWriter().abort(reason),
  };
  for (const [how, leave] of Object.entries(leaving)) {
    it(`${how}() sends the code and reason of a WebSocketError, else an empty Close`, async () => {
      for (const [name, reason, sent] of reasons) {
        await withPeer(async (stream, info, peer) => {
          const left = leave(info, reason);
          assert.deepEqual(await peer.nextClose(), sent, name);
          peer.send(closeFrame(sent.closeCode === 1005 ? undefined : sent.closeCode, sent.reason));
          await left;
          assert.deepEqual(await stream.closed, sent);
        });
      }
    });
  }

  it("readable.cancel() with a code that an endpoint may not send sends an empty Close", async () => {
    await withPeer(async (lost) => {
      // The error of an end without a Close frame carries 1006.
      const info = await lost.opened;
      info.connection.terminate();
      const abnormal = await rejection<WithCode>(lost.closed);
      assert.equal(abnormal.closeCode, 1006);
      await withPeer(async (stream, { readable }, peer) => {
        const cancelled = readable.cancel(abnormal);
        assert.deepEqual(await peer.nextClose(), { closeCode: 1005, reason: "" });
        peer.send(closeFrame());
        await cancelled;
        await stream.closed;
      });
    });
  });
});

describe("The end of a WebSocketStream", () => {
  for (const closeCode of [undefined, 1000, 1001, 1008, 3000, 4999]) {
    it(`A close by the peer with ${closeCode ?? "no code"} is clean`, async () => {
      await withServer(async (server, accepted) => {
        const stream = new WebSocketStream(urlOf(server));
        const { readable, writable } = await stream.opened;
        await until(() => accepted.length === 1);
        const order: string[] = [];
        const note = (name: string) => () => void order.push(name);
        const reader = readable.getReader();
        const writer = writable.getWriter();
        reader.closed.then(note("readable closes"), note("readable errors"));
        writer.closed.then(note("writable closes"), note("writable errors"));
        stream.closed.then(note("closed resolves"), note("closed rejects"));
        const reason = closeCode === undefined ? "" : "r";
        accepted[0].close({ closeCode, reason });
        assert.deepEqual(await stream.closed, { closeCode: closeCode ?? 1005, reason });
        await until(() => order.length === 3);
        assert.deepEqual(order, ["readable closes", "writable errors", "closed resolves"]);
        assert.equal((await reader.read()).done, true);
        assert.equal((await rejection(writer.closed)).name, "InvalidStateError");
      });
    });
  }

  it("A clean close settles although messages are unread, which can still be read", async () => {
    await withServer(async (server, accepted) => {
      const stream = new WebSocketStream(urlOf(server));
      const { readable } = await stream.opened;
      await until(() => accepted.length === 1);
      for (let i = 0; i < 10; i++) accepted[0].send(`${i}`);
      accepted[0].close({ closeCode: 1000 });
      assert.equal((await stream.closed).closeCode, 1000);
      const reader = readable.getReader();
      for (let i = 0; i < 10; i++) assert.equal((await reader.read()).value, `${i}`);
      assert.equal((await reader.read()).done, true);
    });
  });

  it("An end without a Close gives readable, writable and closed the same error", async () => {
    await withServer(async (server, accepted) => {
      const stream = new WebSocketStream(urlOf(server));
      const { readable, writable } = await stream.opened;
      await until(() => accepted.length === 1);
      accepted[0].terminate();
      const error = await rejection<WithCode>(stream.closed);
      assert.ok(error instanceof WebSocketError);
      assert.equal(error.closeCode, 1006);
      assert.equal(await rejection(readable.getReader().read()), error);
      const writer = writable.getWriter();
      assert.equal(await rejection(writer.write("a")), error);
      assert.equal(await rejection(writer.closed), error);
    });
  });

  it("An end without a Close after ours was sent is unclean, 1006", async () => {
    await withPeer(async (stream, _, peer) => {
      peer.polite = false;
      stream.close({ closeCode: 1000 });
      await peer.nextClose();
      peer.transport.end();
      const error = await rejection<WithCode>(stream.closed);
      assert.equal(error.closeCode, 1006);
    });
  });

  it("A close by the peer while writes are pending is not clean", async () => {
    await withPeer(async (stream, { readable, writable }, peer) => {
      peer.transport.pause();
      const writer = writable.getWriter();
      const written = writer.write(pattern(500_000));
      await rest();
      peer.send(closeFrame(4000, "r"));
      const refused = await rejection<WithCode>(written);
      assert.equal(refused.name, "InvalidStateError");
      assert.equal(await rejection(writer.write("a")), refused);
      peer.transport.resume();
      const error = await rejection<WithCode>(stream.closed);
      assert.ok(error instanceof WebSocketError);
      assert.deepEqual([error.closeCode, error.reason], [4000, "r"]);
      assert.equal(await rejection(readable.getReader().closed), error);
    }, 0);
  });

  it("A pipe of its streams resolves when the peer closes", async () => {
    await withServer(async (server, accepted) => {
      const stream = new WebSocketStream(urlOf(server));
      const { readable, writable } = await stream.opened;
      const piped = readable.pipeTo(writable);
      await until(() => accepted.length === 1);
      await accepted[0].send("a");
      assert.equal(await accepted[0].receive(), "a");
      accepted[0].close({ closeCode: 1000 });
      await piped;
      assert.equal((await stream.closed).closeCode, 1000);
    });
  });
});
