/** The entry point for browsers, on the WebSocket of the running runtime and as a bundle. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import * as browser from "../lib/browser.ts";
import { PAGE, PAGE_LIMIT, weigh } from "../scripts/bench/bundle.ts";
import { bundle } from "./interop/browser.ts";
import { rejection, urlOf, withServer } from "./support.ts";

/** Options that a browser cannot honour, and values of them that need no action. */
const OPTIONS: [name: string, refused: unknown, honoured?: unknown][] = [
  ["headers", { a: "b" }],
  ["extensions", []],
  ["maxFrameSize", 10, Infinity],
  ["maxControlFramesPerSecond", 10, Infinity],
  ["pingInterval", 10, 0],
  ["pingTimeout", 10, 0],
  ["onFrame", () => {}],
  ["provider", { connect() {}, listen() {} }],
  ["origin", "http://localhost"],
  ["unix", "/tmp/a"],
  ["tls", {}],
  ["transport", {}],
  ["userAgent", "a"],
  ["maxRedirects", 1, 0],
  ["crossOriginHeaders", []],
  ["proxy", "http://127.0.0.1:1"],
  ["readableStrategy", {}],
];
const CONNECT_ONLY: [name: string, refused: unknown, honoured?: unknown][] = [
  ["maxMessageSize", 10, Infinity],
  ["openTimeout", 10],
  ["closeTimeout", 10],
  ["maxBufferedAmount", 10, Infinity],
  ["slow", "close", "wait"],
];
const NOT_SUPPORTED = { name: "NotSupportedError" };
const URL = "ws://127.0.0.1:1/";
const signal = AbortSignal.abort();

describe("The entry point for browsers", () => {
  it("The browser entry exports clients and no servers", () => {
    const names = [
      "CloseCode",
      "HandshakeError",
      "WebSocketError",
      "WebSocketStream",
      "broadcast",
      "connect",
      "errorCodeOf",
      "fromWebSocket",
      "isTransient",
      "reconnect",
      "relay",
    ];
    assert.deepEqual(Object.keys(browser).sort(), names);
  });

  for (const [name, refused, honoured] of [...OPTIONS, ...CONNECT_ONLY]) {
    it(`WebSocketStream refuses ${name} with a NotSupportedError`, () => {
      const make = (value: unknown) =>
        Reflect.construct(browser.WebSocketStream, [URL, { signal, [name]: value }]);
      assert.throws(() => make(refused), NOT_SUPPORTED);
      make(undefined);
      if (honoured !== undefined) make(honoured);
    });
  }

  for (const [name, refused, honoured] of OPTIONS) {
    it(`connect() refuses ${name} with a NotSupportedError`, async () => {
      const make = (value: unknown) => browser.connect(URL, { signal, [name]: value });
      await assert.rejects(make(refused), NOT_SUPPORTED);
      await assert.rejects(make(undefined), { name: "AbortError" });
      if (honoured !== undefined) await assert.rejects(make(honoured), { name: "AbortError" });
    });
  }

  it("connect() gives a connection over the platform's WebSocket", async () => {
    await withServer({ protocols: ["a"] }, async (server) => {
      const ws = await browser.connect(urlOf(server), { protocols: ["a"], maxMessageSize: 10 });
      assert.equal(ws.protocol, "a");
      await ws.send("Hello");
      assert.equal(await ws.receive(), "Hello");
      await ws.send("longer than that");
      const error = await rejection<browser.WebSocketError>(ws.receive());
      assert.ok(error instanceof browser.WebSocketError);
      assert.equal(error.closeCode, 1009);
    });
  });

  it("connect() rejects with a HandshakeError when the server refuses", async () => {
    await withServer({ origins: [] }, async (server) => {
      const error = await rejection(browser.connect(urlOf(server)));
      assert.ok(error instanceof browser.HandshakeError);
      assert.equal(error.code, "connect-failed");
    });
  });

  it("It bundles without a module of a runtime, and without what only a runtime can do", async () => {
    const { text, inputs } = await bundle("lib/browser.ts");
    assert.equal(/\bfrom\s*"|\bimport\s*\(|\brequire\s*\(|node:/.exec(withoutComments(text)), null);
    // The bundle may use the types of the other entry points, but contains no code of them.
    const { files } = await weigh({
      code: 'export * from "./lib/browser.ts"',
      platform: "browser",
    });
    const outside =
      /(server|runtime|streams)\/|lib\/(platform|opening|node|http2)\.ts|client\/client/;
    assert.deepEqual(files.filter((file) => outside.test(file)), []);
    assert.ok(inputs.some((input) => input.endsWith("lib/standard/browser_connection.ts")));
  });
});

describe("The bundle of { connect, reconnect }", () => {
  it("It has at most 8 KiB, compressed, and no part of the protocol", async () => {
    const { gzipped, files } = await weigh(PAGE);
    assert.ok(gzipped <= PAGE_LIMIT, `${gzipped} bytes`);
    const protocol =
      /core\/(decoder|encoder|mask|.*deflate|protocol|endpoint|handshake|http1|header|extension)\.ts$/;
    assert.deepEqual(files.filter((file) => protocol.test(file)), []);
    assert.ok(files.length > 10);
  });
});

function withoutComments(text: string): string {
  return text.replace(/\/\*[^]*?\*\/|^\s*\/\/.*$/gm, "");
}
