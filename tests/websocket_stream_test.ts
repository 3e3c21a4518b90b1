import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  type CloseInfo,
  type ConnectOptions,
  HandshakeError,
  WebSocketError,
  WebSocketStream,
} from "../mod.ts";

import {
  closeFrame,
  frames,
  isPending,
  rejection,
  rest,
  until,
  urlOf,
  withRawServer,
} from "./support.ts";
import { withPeer, withServer } from "./websocket_stream_support.ts";

type WithCode = DOMException & { closeCode: number; reason: string };

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
