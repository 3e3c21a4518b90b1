/** Classes of failure that other implementations have had with compression. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { it, notApplicable } from "./it.ts";
import { connect, type HandshakeError, WebSocketError } from "../mod.ts";
import { PerMessageDeflate } from "../lib/core/mod.ts";
import { deflateEngines } from "../lib/runtime/zlib.ts";
import { pair } from "../lib/testing.ts";
import { deflateEngine } from "../lib/zlib.ts";
import {
  rejection,
  requestOf,
  until,
  upgradeResponse,
  urlOf,
  withRawServer,
  withServer,
} from "./support.ts";

describe("Threats: compression", () => {
  it("a decompression bomb stops at maxMessageSize, and the server continues", async () => {
    const failures: number[] = [];
    await withServer({ compression: true, maxMessageSize: 65536 }, async (server) => {
      for (let i = 0; i < 3; i++) {
        const ws = await connect(urlOf(server));
        void ws.send(new Uint8Array(32 * 2 ** 20));
        const error = await rejection<Error & { closeCode: number }>(ws.receive());
        assert.equal(error.closeCode, 1009);
        assert.ok(ws.stats.bytesSent < 65536, "so little is enough");
      }
      await until(() => failures.length === 3);
      assert.deepEqual(failures, [1009, 1009, 1009]);
    }, async (ws) => {
      const error = await rejection<Error & { closeCode: number }>(ws.receive());
      failures.push(error.closeCode);
    });
  });

  const values = ["7", "16", "0", "-1", "08", "1e1", "9.5", "99999999999999999999", "\u0663", ""];
  for (const value of values) {
    const text = JSON.stringify(value);

    it(`window bits of ${text} in an offer are declined`, () => {
      const server = new PerMessageDeflate({ engine: deflateEngine });
      for (const name of ["server_max_window_bits", "client_max_window_bits"]) {
        assert.equal(server.accept([[name, value]]), undefined);
      }
    });

    it(`window bits of ${text} in an answer are refused`, () => {
      const client = new PerMessageDeflate({ engine: deflateEngine });
      for (const name of ["server_max_window_bits", "client_max_window_bits"]) {
        assert.throws(() => client.finalize([[name, value]]), { code: "parameter-value" });
      }
    });
  }

  it("window bits out of range from a server take nothing down", async () => {
    const extensions = "permessage-deflate; server_max_window_bits=16";
    await withRawServer(async (raw) => {
      const head = await requestOf(raw);
      raw.write(upgradeResponse(head, { "Sec-WebSocket-Extensions": extensions }));
    }, async (url) => {
      assert.equal((await rejection<HandshakeError>(connect(url))).code, "parameter-value");
    });
  });

  const large = new Uint8Array(40_000);
  const aborted: [title: string, items: Uint8Array[], whole: boolean][] = [
    ["the first item", [large, large], false],
    ["the only item", [large], true],
  ];
  for (const [title, items, whole] of aborted) {
    it(`send() aborted while ${title} is compressed gives the compressor no other work meanwhile`, async () => {
      const aborter = new AbortController();
      let [working, begun] = [0, 0];
      const engine: typeof deflateEngine = {
        ...deflateEngine,
        deflater: (options) => {
          const deflater = deflateEngine.deflater(options);
          const { deflateLater } = deflater;
          deflater.deflateLater = (input, done) => {
            assert.equal(working++, 0);
            if (begun++ === 0) queueMicrotask(() => aborter.abort(new Error("enough")));
            deflateLater.call(deflater, input, (error, output) => {
              working--;
              done(error, output);
            });
          };
          return deflater;
        },
      };
      const extensions = [new PerMessageDeflate({ engine })];
      await withServer({ compression: true }, async (server) => {
        const ws = await connect(urlOf(server), { extensions });
        const sent = ws.send(items, { signal: aborter.signal });
        const next = ws.send(large);
        if (whole) {
          await Promise.all([sent, next]);
          for (let i = 0; i < 2; i++) assert.deepEqual(await ws.receive(), large);
          return await ws.close();
        }
        await assert.rejects(sent, { message: "enough" });
        await assert.rejects(next, { name: "WebSocketError" });
        await assert.rejects(ws.closed, { closeCode: 1011 });
        assert.equal(begun, 1);
      });
    });
  }

  it("what a connection had not read when it was terminated is not decompressed by another's", async () => {
    const words = (about: string) =>
      Array.from({ length: 400 }, (_, i) => about + (i * 7919) % 997).join(" ");
    const server = { compression: true, readableStrategy: { highWaterMark: 3000 } };
    const [client, ended] = await pair({ server });
    for (let i = 0; i < 30; i++) client.send(words(`${i}`)).catch(() => {});
    await until(() => ended.stats.paused);
    ended.terminate();
    await rejection(ended.closed);
    const { messagesReceived } = ended.stats;
    assert.ok(messagesReceived < 30);

    const [sender, receiver] = await pair({ server });
    await sender.send(words("first"));
    assert.equal(await receiver.receive(), words("first"));
    for (let i = 0; i < messagesReceived; i++) assert.equal(await ended.receive(), words(`${i}`));
    assert.ok(await rejection(ended.receive()) instanceof WebSocketError);
    await sender.send(words("second"));
    assert.equal(await receiver.receive(), words("second"));
    await sender.close();
  });

  const skip = deflateEngines().length === 1 &&
    notApplicable("there are no handles of zlib's here");
  it("a closed compressor or decompressor refuses further work", { skip }, () => {
    const [engine] = deflateEngines();
    const deflater = engine.deflater({ windowBits: 15, level: 6, memLevel: 8 });
    const inflater = engine.inflater({
      windowBits: 15,
      contextTakeover: true,
      maxMessageSize: 100,
    });
    inflater.push(deflater.deflate(new Uint8Array(10)));
    deflater.close();
    inflater.close();
    const message = "The compressor or decompressor has been closed";
    const closed = { message, code: "platform-failed" };
    assert.throws(() => deflater.deflate(new Uint8Array(10)), closed);
    assert.throws(() => inflater.next(), closed);
  });
});
