/** The compression that a client offers, and how it handles the answer (RFC 7692 §7.1). */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { accept, connect, type PerMessageDeflateOptions } from "../../mod.ts";
import {
  type ExtensionFactory,
  Opcode,
  parseExtensions,
  PerMessageDeflate,
} from "../../lib/core/mod.ts";
import type { DeflateEngine } from "../../lib/core/deflate.ts";
import { deflateEngine } from "../../lib/zlib.ts";
import { pattern } from "../bytes.ts";
import { wsPair } from "../conformance/ws.ts";
import { field, requestOf, upgradeResponse, withRawServer } from "../support.ts";
import { transportPair } from "../../lib/testing.ts";

const BITS = [8, 9, 10, 11, 12, 13, 14, 15];

/** A compressible text, longer than any window of up to 12 bits. */
const LONG = "a message of some words, ".repeat(1000);

/** The window bits for compressing and for inflating, in a client with these options, after this answer. */
function windows(options: PerMessageDeflateOptions, answer: string): [number, number] {
  let own = 0;
  let theirs = 0;
  const engine: DeflateEngine = {
    deflater(options) {
      own = options.windowBits;
      return deflateEngine.deflater(options);
    },
    inflater(options) {
      theirs = options.windowBits;
      return deflateEngine.inflater(options);
    },
  };
  const [{ parameters }] = parseExtensions(`permessage-deflate${answer}`);
  const extension = new PerMessageDeflate({ engine, ...options }).finalize(parameters);
  // The deflater and the inflater are created when they are first used.
  const payload = pattern(2000);
  const frame = extension.encode({ opcode: Opcode.Binary, fin: true, rsv: 0, payload })!;
  const header = { ...frame, masked: false, length: frame.payload.length };
  extension.push({ header, payload: frame.payload, last: true } as never);
  extension.next();
  extension.close();
  return [own, theirs];
}

describe("D1 a client takes any window that a server sets it", () => {
  it("D1 and compresses with the smaller one of the answer and the preset", () => {
    for (const bits of BITS) {
      const answer = `; client_max_window_bits=${bits}`;
      assert.equal(windows({}, answer)[0], Math.min(bits, 12));
      assert.equal(windows({ memory: "low" }, answer)[0], Math.min(bits, 12));
      assert.equal(windows({ memory: "high" }, answer)[0], bits);
      assert.equal(windows({}, `${answer}; server_max_window_bits=${bits}`)[1], bits);
    }
    assert.equal(windows({}, "")[0], 12);
  });

  it("D1 only a value that the caller gave is offered, and is a limit for the answer", () => {
    const offers = (options: PerMessageDeflateOptions) =>
      new PerMessageDeflate({ engine: deflateEngine, ...options }).offer().map((offer) =>
        offer.find(([name]) => name === "client_max_window_bits")
      );
    for (const memory of ["low", "balanced", "high"] as const) {
      for (const offered of offers({ memory })) assert.deepEqual(offered?.[1], undefined);
      for (const offered of offers({ memory, clientMaxWindowBits: 10 })) {
        assert.deepEqual(offered?.[1], "10");
      }
    }
    const given = { clientMaxWindowBits: 10 };
    assert.equal(windows(given, "; client_max_window_bits=10")[0], 10);
    assert.throws(() => windows(given, "; client_max_window_bits=11"), { code: "parameter-value" });
  });

  for (const bits of BITS) {
    it(`D1 connect() with a server that answers client_max_window_bits=${bits}`, async () => {
      const deflate = new PerMessageDeflate({
        engine: deflateEngine,
        memory: "high",
        clientMaxWindowBits: bits,
      });
      // A server that inflates in a window of that size, and sends the parameter for 15 bits too.
      const answering: ExtensionFactory = {
        name: deflate.name,
        offer: () => [],
        finalize: () => assert.fail("It is a server's"),
        accept: (offer) => {
          const accepted = deflate.accept(offer);
          const parameters = [["client_max_window_bits", `${bits}`]] as const;
          return accepted && { ...accepted, parameters };
        },
      };
      const [near, far] = transportPair();
      const [ours, theirs] = await Promise.all([
        connect("ws://localhost/", { transport: near, pingInterval: 0 }),
        accept(far, { extensions: [answering], pingInterval: 0 }),
      ]);
      assert.equal(ours.extensions, `permessage-deflate; client_max_window_bits=${bits}`);
      for (let i = 0; i < 3; i++) {
        await ours.send(LONG);
        assert.equal(await theirs.receive(), LONG);
      }
      // With 8 bits, zlib may store data instead of compressing it.
      assert.ok(bits === 8 || ours.stats.bytesSent < LONG.length / 5);
      ours.terminate();
      theirs.terminate();
    });
  }
});

describe("D2 messages are compressed with any window of ws", () => {
  for (const role of ["client", "server"] as const) {
    for (const bits of [9, 10, 12, 13, 14, 15]) {
      for (const memory of ["low", "balanced", "high"] as const) {
        it(`D2 ${bits} bits, our ${role} with memory ${memory}`, async () => {
          const deflate = { clientMaxWindowBits: bits, serverMaxWindowBits: bits, threshold: 0 };
          const pair = await wsPair(role, {
            ours: { compression: { memory, threshold: 0 } },
            theirServer: { perMessageDeflate: deflate },
            theirDeflate: deflate,
          });
          try {
            const { ours, theirs } = pair;
            assert.match(ours.extensions, /^permessage-deflate/);
            const messages = [LONG, pattern(70_000), "", LONG];
            for (const message of messages) {
              const next = theirs.next();
              await ours.send(message);
              assert.deepEqual(await next, message);
              theirs.socket.send(message);
              assert.deepEqual(await ours.receive(), message);
            }
            assert.ok(ours.stats.bytesSent < 100_000, `${ours.stats.bytesSent} bytes sent`);
            assert.deepEqual(theirs.errors, []);
          } finally {
            await pair.stop();
          }
        });
      }
    }
  }
});

it("D3 a server that refuses a value of client_max_window_bits compresses", async () => {
  await withRawServer(async (raw) => {
    const request = await requestOf(raw);
    const offers = parseExtensions(field(request, "Sec-WebSocket-Extensions")!);
    const fits = offers.find(({ parameters }) =>
      parameters.every(([name, value]) => name !== "client_max_window_bits" || value === undefined)
    );
    const answer = fits === undefined ? null : "permessage-deflate";
    raw.write(upgradeResponse(request, { "Sec-WebSocket-Extensions": answer }));
  }, async (url) => {
    const ws = await connect(url);
    assert.equal(ws.extensions, "permessage-deflate");
    ws.terminate();
  });
});
