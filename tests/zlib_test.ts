import { Buffer } from "node:buffer";
import { describe } from "node:test";
import assert from "node:assert/strict";
import { createDeflateRaw, deflateRawSync, inflateRawSync } from "node:zlib";
import { it, notApplicable } from "./it.ts";
import type { DeflateEngine, Deflater, Inflater } from "../lib/core/deflate.ts";
import { deflateEngines } from "../lib/runtime/zlib.ts";
import { concat, hex, pattern, utf8 } from "./bytes.ts";
import { withPrograms } from "./programs.ts";
import { fc } from "./property.ts";
import { rest } from "./support.ts";

const WAYS = ["handle", "public"] as const;
type Way = (typeof WAYS)[number];

function engineOf(way: Way): DeflateEngine {
  const engines = deflateEngines();
  return way === "public" ? engines.at(-1)! : engines[0];
}

const DEFLATER = { windowBits: 15, level: 6, memLevel: 8 };
const INFLATER = { windowBits: 15, contextTakeover: true, maxMessageSize: 2 ** 26 };

function drain(inflater: Inflater): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  while (!inflater.idle) pieces.push(inflater.next());
  return pieces;
}

/** The bytes that a message, given in parts, inflates to. */
function inflate(inflater: Inflater, ...parts: Uint8Array[]): Uint8Array {
  const pieces: Uint8Array[] = [];
  for (const part of parts) {
    inflater.push(part);
    pieces.push(...drain(inflater));
  }
  inflater.finish();
  return concat([...pieces, ...drain(inflater)]);
}

async function inflateLater(inflater: Inflater, message: Uint8Array): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  const next = () =>
    new Promise<Uint8Array>((resolve, reject) =>
      inflater.nextLater((error, output) => error === undefined ? resolve(output) : reject(error))
    );
  inflater.push(message);
  while (!inflater.idle) pieces.push(await next());
  inflater.finish();
  while (!inflater.idle) pieces.push(await next());
  return concat(pieces);
}

function deflateLater(deflater: Deflater, input: Uint8Array): Promise<Uint8Array> {
  return new Promise((resolve, reject) =>
    deflater.deflateLater(
      input,
      (error, output) => error === undefined ? resolve(output) : reject(error),
    )
  );
}

const withoutTail = (bytes: Uint8Array): Uint8Array => bytes.subarray(0, -4);

/** Bytes that hardly compress. */
function noise(length: number, seed = 1): Uint8Array {
  let state = seed;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return state >>> 16;
  });
}

const json = (length: number): Uint8Array =>
  utf8(
    Array.from({ length: length / 16 }, (_, i) => `{"id":${i * 7919 % 1009},"n":[${i}]},`).join(""),
  )
    .subarray(0, length);

/** Messages that each inflate to "Hello". */
const EXAMPLES: readonly [section: string, message: string][] = [
  ["§7.2.3.1, one block", "f2 48 cd c9 c9 07 00"],
  ["§7.2.3.3, no compression", "00 05 00 fa ff 48 65 6c 6c 6f 00"],
  ["§7.2.3.4, a final block", "f3 48 cd c9 c9 07 00 00"],
  ["§7.2.3.5, two blocks", "f2 48 05 00 00 00 ff ff ca c9 c9 07 00"],
];
/** §7.2.3.2: "Hello" as a reference to the "Hello" before. */
const AGAIN = "f2 00 11 00 00";

describe("The DEFLATE engine of this platform", () => {
  it("has both ways here", () => {
    assert.equal(deflateEngines().length, 2);
  });
});

for (const way of WAYS) {
  const engine = engineOf(way);

  describe(`DEFLATE by the ${way} way: RFC 7692 §7.2.3`, () => {
    for (const contextTakeover of [true, false]) {
      const mode = contextTakeover ? "with" : "without";
      for (const [section, message] of EXAMPLES) {
        it(`${section}, ${mode} context takeover`, () => {
          const inflater = engine.inflater({ ...INFLATER, contextTakeover });
          for (let again = 0; again < 3; again++) {
            assert.deepEqual(inflate(inflater, hex(message)), utf8("Hello"));
            if (contextTakeover) assert.deepEqual(inflate(inflater, hex(AGAIN)), utf8("Hello"));
            else inflater.reset();
          }
          inflater.close();
        });

        it(`${section}, byte by byte, ${mode} context takeover`, () => {
          const inflater = engine.inflater({ ...INFLATER, contextTakeover });
          const bytes = Array.from(hex(message), (byte) => Uint8Array.of(byte));
          assert.deepEqual(inflate(inflater, ...bytes), utf8("Hello"));
          inflater.close();
        });
      }

      it(`§7.2.3.6, an empty message, ${mode} context takeover`, () => {
        const inflater = engine.inflater({ ...INFLATER, contextTakeover });
        for (let again = 0; again < 3; again++) {
          assert.equal(inflate(inflater, hex("00")).length, 0);
        }
        assert.deepEqual(inflate(inflater, hex(EXAMPLES[0][1])), utf8("Hello"));
        inflater.close();
      });
    }

    it("what a reference cannot reach is refused", () => {
      const inflater = engine.inflater({ ...INFLATER, contextTakeover: false });
      inflate(inflater, hex(EXAMPLES[0][1]));
      inflater.reset();
      assert.throws(() => inflate(inflater, hex(AGAIN)));
      inflater.close();
    });
  });

  describe(`DEFLATE by the ${way} way: final blocks`, () => {
    const final = (bytes: Uint8Array) => new Uint8Array(deflateRawSync(bytes));
    const head = hex("00");

    it("the window reaches over them, as far as it goes", () => {
      for (const size of [1, 100, 32767, 32768, 32769, 100_000]) {
        const inflater = engine.inflater(INFLATER);
        const deflater = deflateEngines()[0].deflater(DEFLATER);
        const bytes = noise(size);
        deflater.deflate(bytes);
        const again = deflater.deflate(bytes);
        assert.deepEqual(inflate(inflater, final(bytes), head), bytes);
        assert.deepEqual(inflate(inflater, withoutTail(again)), bytes);
        inflater.close();
        deflater.close();
      }
    });

    it("many of them in one message", () => {
      const inflater = engine.inflater(INFLATER);
      const parts = Array.from({ length: 15 }, (_, i) => final(json(100 * i)));
      const whole = concat(Array.from({ length: 15 }, (_, i) => json(100 * i)));
      for (let again = 0; again < 3; again++) {
        assert.deepEqual(inflate(inflater, concat([...parts, head])), whole);
      }
      inflater.close();
    });
  });

  describe(`DEFLATE by the ${way} way: round trips`, () => {
    const inputs: readonly [title: string, input: Uint8Array][] = [
      ["one byte", pattern(1)],
      ["a JSON text", json(1000)],
      ["noise", noise(1000)],
      ["a long JSON text", json(300_000)],
      ["long noise", noise(300_000)],
      ["exactly what comes out at once", new Uint8Array(65536)],
      ["a mebibyte of zeros", new Uint8Array(2 ** 20)],
    ];
    for (const [title, input] of inputs) {
      it(`${title}, now and later`, async () => {
        const deflater = engine.deflater(DEFLATER);
        const inflater = engine.inflater(INFLATER);
        for (let again = 0; again < 3; again++) {
          const now = deflater.deflate(input);
          assert.deepEqual(now.subarray(-4), hex("00 00 ff ff"));
          assert.ok(Buffer.compare(inflate(inflater, withoutTail(now)), input) === 0);
          const later = await deflateLater(deflater, input);
          assert.deepEqual(later.subarray(-4), hex("00 00 ff ff"));
          const got = await inflateLater(inflater, withoutTail(later));
          assert.ok(Buffer.compare(got, input) === 0);
        }
        deflater.close();
        inflater.close();
      });
    }

    it("no piece is longer than 64 KiB", () => {
      const inflater = engine.inflater(INFLATER);
      inflater.push(withoutTail(engine.deflater(DEFLATER).deflate(new Uint8Array(2 ** 20))));
      const pieces = drain(inflater);
      inflater.finish();
      pieces.push(...drain(inflater));
      assert.equal(pieces.reduce((sum, { length }) => sum + length, 0), 2 ** 20);
      assert.ok(pieces.every(({ length }) => length <= 65536));
      inflater.close();
    });

    for (const windowBits of [8, 9, 10, 12, 15]) {
      it(`any messages in any parts, with a window of ${windowBits} bits`, () => {
        const words = fc.array(fc.constantFrom("alpha", "beta ", "\n", "é", "0123456789abcdef"));
        fc.assert(fc.property(fc.array(words), fc.nat(), (messages, at) => {
          const deflater = engine.deflater({ ...DEFLATER, windowBits });
          const inflater = engine.inflater({ ...INFLATER, windowBits });
          for (const message of messages) {
            const bytes = utf8(message.join(""));
            const packed = deflater.deflate(bytes);
            const sent = packed.length === 0 ? new Uint8Array(1) : withoutTail(packed);
            const cut = at % (sent.length + 1);
            const got = inflate(inflater, sent.slice(0, cut), sent.slice(cut));
            assert.deepEqual(got, bytes);
          }
          deflater.close();
          inflater.close();
        }));
      });
    }

    it("with a window of 8 bits nothing further back than 256 bytes is referred to", () => {
      const block = noise(300);
      const near = concat([block, block, block, block.subarray(0, 200), block.subarray(0, 200)]);
      for (const level of [0, 1, 3, 6, 9]) {
        const deflater = engine.deflater({ windowBits: 8, level, memLevel: 9 });
        // If the deflater referred back over the noise, the repeated blocks would take no room.
        assert.ok(deflater.deflate(near).length > near.length - 210, `level ${level}`);
        // It may refer to a run of equal bytes, whose distance is 1.
        if (level > 0) assert.ok(deflater.deflate(new Uint8Array(1000)).length < 100);
        deflater.close();
      }
    });

    it("the output buffer is not written to again", () => {
      const deflater = engine.deflater(DEFLATER);
      const outputs = Array.from({ length: 300 }, (_, i) => deflater.deflate(noise(500, i)));
      const copies = outputs.map((output) => output.slice());
      for (let i = 0; i < 300; i++) deflater.deflate(noise(500, i + 1000));
      assert.deepEqual(outputs, copies);
      const inflater = engine.inflater(INFLATER);
      const inflated = copies.map((copy) => inflate(inflater, withoutTail(copy)));
      inflated.forEach((bytes, i) => assert.deepEqual(bytes, noise(500, i)));
    });
  });

  describe(`DEFLATE by the ${way} way: bad data`, () => {
    const stored = hex("00 64 00 9b ff 48 65");
    const good = withoutTail(engineOf("public").deflater(DEFLATER).deflate(json(3000)));
    const bad: readonly [title: string, message: Uint8Array][] = [
      ["a block of no type", hex("06 00")],
      ["a stored block whose lengths differ", hex("00 05 00 00 00 48")],
      ["a stored block cut short", stored],
      ["a reference beyond all that came", hex("f2 00 11 00 00")],
      ["a stream cut short", good.subarray(0, good.length - 100)],
      ["noise", hex("ff ff ff ff ff")],
    ];
    for (const [title, message] of bad) {
      it(title, async () => {
        const now = engine.inflater(INFLATER);
        assert.throws(() => inflate(now, message), Error);
        now.close();
        const later = engine.inflater(INFLATER);
        await assert.rejects(inflateLater(later, message), Error);
        later.close();
        // Another inflater is not affected.
        const other = engine.inflater(INFLATER);
        assert.deepEqual(inflate(other, good), json(3000));
        other.close();
        await rest();
      });
    }
  });

  describe(`DEFLATE by the ${way} way: data that is cut short`, () => {
    const whole: readonly [title: string, data: Uint8Array][] = [
      ["JSON", json(60)],
      ["repetitions", utf8("abcabcabc".repeat(50))],
      ["zeros", new Uint8Array(500)],
      ["a few bytes", utf8("Hello")],
    ];
    for (const [title, data] of whole) {
      it(`${title}: at each of its bytes`, () => {
        const message = withoutTail(engine.deflater(DEFLATER).deflate(data));
        for (let length = 0; length < message.length; length++) {
          const inflater = engine.inflater(INFLATER);
          assert.throws(
            () => inflate(inflater, message.subarray(0, length)),
            Error,
            `${length} of ${message.length} bytes`,
          );
          inflater.close();
        }
        const inflater = engine.inflater(INFLATER);
        for (let again = 0; again < 3; again++) assert.deepEqual(inflate(inflater, message), data);
        inflater.close();
      });
    }
  });

  describe(`DEFLATE by the ${way} way: closing`, () => {
    it("an aborted operation is not reported and does no harm", async () => {
      const input = noise(2 ** 20);
      const packed = withoutTail(engine.deflater(DEFLATER).deflate(input));
      let reported = 0;
      for (let i = 0; i < 20; i++) {
        const deflater = engine.deflater(DEFLATER);
        deflater.deflateLater(input, () => reported++);
        const inflater = engine.inflater(INFLATER);
        inflater.push(packed);
        inflater.nextLater(() => reported++);
        if (i % 2 === 1) await new Promise((resolve) => setImmediate(resolve));
        const before = reported;
        deflater.close();
        inflater.close();
        deflater.close();
        inflater.close();
        // A new deflater may reuse one that was closed.
        const next = engine.deflater(DEFLATER);
        assert.deepEqual(
          new Uint8Array(inflateRawSync(next.deflate(utf8("next")), { finishFlush: 2 })),
          utf8("next"),
        );
        await rest();
        assert.equal(reported, before);
        next.close();
      }
    });

    it("a new compressor has no context of an earlier one", () => {
      for (let i = 0; i < 40; i++) {
        const deflater = engine.deflater(DEFLATER);
        const inflater = engine.inflater(INFLATER);
        const packed = withoutTail(deflater.deflate(json(1000)));
        assert.deepEqual(inflate(inflater, packed), json(1000));
        deflater.close();
        inflater.close();
      }
    });
  });
}

describe("DEFLATE by the handle way", () => {
  it("many final blocks in a short message are refused: each of them costs a window", () => {
    const [engine] = deflateEngines();
    const inflater = engine.inflater(INFLATER);
    inflate(inflater, withoutTail(engine.deflater(DEFLATER).deflate(noise(32768))));
    const empty = new Uint8Array(deflateRawSync(new Uint8Array(0)));
    assert.throws(
      () => inflate(inflater, concat(Array.from({ length: 30 }, () => empty))),
      /too many final blocks/,
    );
  });

  const unlike: readonly [title: string, patch: string][] = [
    ["cannot be made", "proto.constructor = undefined;"],
    [
      "is made in another way",
      `
      const { init } = proto;
      // What the platform calls is given one argument more than what it has.
      let called = function (...args) {
        return init.apply(this, args.filter((value) => value !== "new"));
      };
      Object.defineProperty(proto, "init", {
        get: () => called,
        set: (value) => called = function (...args) { return value.apply(this, [...args, "new"]); },
      });`,
    ],
    ["cannot write", "proto.writeSync = undefined;"],
    ["throws", "proto.writeSync = () => { throw new Error('planted'); };"],
    ["writes nothing", "proto.writeSync = () => {};"],
  ];
  const handle = (createDeflateRaw() as unknown as { _handle: object })._handle;
  const { configurable } = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(handle), "init")!;
  const fixed = configurable
    ? false
    : notApplicable("the methods of a handle cannot become accessors here");
  for (const [title, patch] of unlike) {
    const skip = patch.includes("defineProperty") && fixed;
    it(`gives way to the other where a handle ${title}`, { skip }, async () => {
      const source = new URL("../lib/runtime/zlib.ts", import.meta.url).href;
      const program = `
        import { createDeflateRaw } from "node:zlib";
        const { deflateEngines, deflateEngine } = await import(${JSON.stringify(source)});
        const proto = Object.getPrototypeOf(createDeflateRaw()._handle);
        const before = Object.getOwnPropertyDescriptors(proto);
        ${patch}
        const { length } = deflateEngines();
        // The public functions need it as it was.
        Object.defineProperties(proto, before);
        const deflater = deflateEngine.deflater({ windowBits: 15, level: 6, memLevel: 8 });
        const inflater = deflateEngine.inflater({
          windowBits: 15,
          contextTakeover: true,
          maxMessageSize: 1000,
        });
        inflater.push(deflater.deflate(new TextEncoder().encode("Hello")).subarray(0, -4));
        inflater.finish();
        console.log(length, new TextDecoder().decode(inflater.next()));`;
      await withPrograms(async (start) => {
        const child = await start("program.mts", program);
        assert.equal(await child.exited, 0, child.stderr);
        assert.equal(child.stdout.trim(), "1 Hello");
      });
    });
  }
});
