import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { accept, connect, type ConnectOptions, serve, type ServeOptions } from "../mod.ts";
import { CONNECT_OPTIONS } from "../lib/client/client.ts";
import {
  Endpoint,
  FrameDecoder,
  parseRequestHead,
  parseResponseHead,
  Protocol,
} from "../lib/core/mod.ts";
import { SEND_OPTIONS } from "../lib/options.ts";
import { SERVE_OPTIONS } from "../lib/server/server.ts";
import { FrameDecoderStream, MessageAssemblerStream } from "../lib/streams.ts";
import { pair, transportPair } from "../lib/testing.ts";
import { echo, rejection, withServer } from "./support.ts";

type Wrong = [option: string, value: unknown, error: typeof TypeError | typeof RangeError];

const COMMON: Wrong[] = [
  ["maxMessageSize", "1", TypeError],
  ["maxMessageSize", NaN, RangeError],
  ["maxFrameSize", -1, RangeError],
  ["maxControlFramesPerSecond", -1, RangeError],
  ["maxControlFramesPerSecond", "1", TypeError],
  ["maxBufferedAmount", -1, RangeError],
  ["slow", "drop-oldest", RangeError],
  ["slow", 1, RangeError],
  ["openTimeout", "1", TypeError],
  ["pingInterval", -1, RangeError],
  ["pingTimeout", null, TypeError],
  ["closeTimeout", -1, RangeError],
  ["signal", 5, TypeError],
  ["onFrame", 5, TypeError],
  ["protocols", "chat", TypeError],
  ["protocols", [1], TypeError],
  ["readableStrategy", 5, TypeError],
  ["readableStrategy", { highWaterMark: "1" }, TypeError],
  ["readableStrategy", { highWaterMark: -1 }, RangeError],
  ["readableStrategy", { size: 5 }, TypeError],
];
const SERVER: Wrong[] = [
  ["limits", 5, TypeError],
  ["limits", { maxHeadSize: "x" }, TypeError],
  ["limits", { maxHeaderCount: -1 }, RangeError],
  ["onRequest", 5, TypeError],
  ["onResponse", 5, TypeError],
  ["selectProtocol", 1, TypeError],
  ["onError", 5, TypeError],
  ["port", "x", TypeError],
  ["port", 65536, RangeError],
  ["port", -1, RangeError],
  ["port", 80.5, RangeError],
  ["port", NaN, RangeError],
  ["hostname", 1, TypeError],
  ["hostname", "", RangeError],
];

/** What is made with options, and options that it refuses. */
const MADE: [name: string, make: (options: object) => unknown, wrong: Wrong[]][] = [
  ["Endpoint", (options) => new Endpoint("server", options), [
    ["maxMessageSize", "64KiB", TypeError],
    ["maxFrameSize", NaN, RangeError],
    ["requireProtocol", 1, TypeError],
  ]],
  ["Protocol", (options) => new Protocol("server", options), [
    ["maxMessageSize", NaN, RangeError],
    ["maxFrameSize", -1, RangeError],
    ["ownsInput", 1, TypeError],
    ["allocate", 1, TypeError],
    ["onReady", {}, TypeError],
    ["onFrame", 1, TypeError],
  ]],
  ["FrameDecoder", (options) => new FrameDecoder({ role: "server", ...options }), [
    ["maxPayload", 1, TypeError],
    ["maxFrameSize", NaN, RangeError],
    ["ownsInput", "no", TypeError],
    ["rsvInUse", 8, RangeError],
    ["rsvInUse", -1, RangeError],
  ]],
  ["parseRequestHead", (options) => parseRequestHead(new Uint8Array(0), options), [
    ["maxHeadSize", NaN, RangeError],
    ["maxLineLength", "1k", TypeError],
  ]],
  ["parseResponseHead", (options) => parseResponseHead(new Uint8Array(0), options), [
    ["maxHeaderCount", -1, RangeError],
  ]],
  ["FrameDecoderStream", (options) => new FrameDecoderStream({ role: "server", ...options }), [
    ["maxFrameSize", "1k", TypeError],
  ]],
  ["MessageAssemblerStream", (options) => new MessageAssemblerStream(options), [
    ["maxMessageSize", NaN, RangeError],
    ["onControl", 1, TypeError],
  ]],
  ["transportPair", (options) => transportPair(options), [
    ["delay", NaN, RangeError],
    ["chunkSize", 0, RangeError],
    ["chunkSize", "1", TypeError],
    ["capacity", -1, RangeError],
    ["fault", 5, TypeError],
    ["fault", { from: "peer" }, RangeError],
    ["fault", { after: NaN }, RangeError],
    ["fault", { how: "half" }, RangeError],
  ]],
];

function show(value: unknown): string {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

describe("Options", () => {
  it("an option that is undefined counts as missing", async () => {
    const unset = (names: object) =>
      Object.fromEntries(Object.keys(names).map((name) => [name, undefined]));
    const server = await serve({ ...unset(SERVE_OPTIONS), port: 0 }, echo);
    try {
      const ws = await connect(server.url!, unset(CONNECT_OPTIONS));
      await ws.send("Hello", unset(SEND_OPTIONS));
      assert.equal(await ws.receive({ signal: undefined }), "Hello");
      await ws.ping(undefined, { signal: undefined });
      await ws.close({ closeCode: undefined, reason: undefined });
    } finally {
      await server.shutdown();
    }
  });

  for (const [option, value, error] of [...COMMON, ...SERVER]) {
    it(`serve() and accept() refuse ${option}: ${show(value)}`, async () => {
      const options = { [option]: value } as ServeOptions;
      await assert.rejects(serve(options, echo), error);
      // accept() does not listen, and does not have this option.
      const expected = option === "port" || option === "hostname" ? TypeError : error;
      await assert.rejects(accept(transportPair()[0], options), expected);
    });
  }
  for (const [option, value, error] of COMMON) {
    it(`connect() refuses ${option}: ${show(value)}`, async () => {
      const options = { [option]: value, transport: transportPair()[0] } as ConnectOptions;
      await assert.rejects(connect("ws://localhost/", options), error);
    });
  }
  for (const [name, make, wrong] of MADE) {
    for (const [option, value, error] of wrong) {
      it(`${name} refuses ${option}: ${show(value)}`, () => {
        assert.throws(() => make({ [option]: value }), error);
      });
    }
  }
  it("FrameDecoder takes each combination of reserved bits", () => {
    for (const rsvInUse of [0, 7]) new FrameDecoder({ role: "server", rsvInUse });
  });
  for (const duplex of [null, 5, {}, { readable: new ReadableStream() }]) {
    it(`connect() and accept() refuse the duplex ${show(duplex)}`, async () => {
      await assert.rejects(connect("ws://localhost/", { transport: duplex as never }), TypeError);
      await assert.rejects(accept(duplex as never), TypeError);
    });
  }

  it("connect() reports a transport whose readable gives no bytes", async () => {
    const readable = ReadableStream.from(["text"]) as unknown as ReadableStream<Uint8Array>;
    const duplex = { readable, writable: new WritableStream<Uint8Array>() };
    const error = await rejection(connect("ws://localhost/", { transport: duplex }));
    assert.ok(error.cause instanceof TypeError);
  });

  it("Server.shutdown() checks its information as close() does", async () => {
    await withServer({}, async (server) => {
      for (const closeCode of [1004, 1006, 0]) {
        await assert.rejects(server.shutdown({ closeCode }), RangeError);
      }
      await server.shutdown({ reason: "a reason alone goes with 1000" });
    });
  });

  it("receive() and ping() reject what they are given, and do not throw", async () => {
    const [client, server] = await pair();
    await client.send("a");
    assert.equal(await server.receive(null as never), "a");
    await server.ping("x", null as never);
    await client.close();
  });
});
