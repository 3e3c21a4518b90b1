import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { readKey } from "../lib/core/decoder.ts";
import { writeHeader } from "../lib/core/frame_writer.ts";
import {
  applyMask,
  copyMasked,
  maskingKey,
  randomPayload,
  readingMemory,
  unmaskedCopy,
  wideMask,
} from "../lib/core/mask.ts";
import { assertSameBytes, pattern } from "./bytes.ts";
import { fc } from "./property.ts";

/** RFC 6455 §5.3, implemented literally: octet i XOR octet i modulo 4 of the key. */
function masked(bytes: Uint8Array, key: Uint8Array, phase: number): Uint8Array {
  return bytes.map((byte, i) => byte ^ key[(i + phase) % 4]);
}

const KEYS = [
  [0, 0, 0, 0],
  [1, 2, 3, 4],
  [0xff, 0, 0xff, 0],
  [0x80, 0x81, 0xfe, 0xff],
].map((key) => Uint8Array.from(key));

describe("applyMask", () => {
  it("applyMask masks any length at any alignment, key and phase as the RFC defines it", () => {
    for (const key of KEYS) {
      for (const length of [0, 1, 2, 3, 4, 5, 7, 63, 64, 127, 128, 129, 130, 131, 132, 1000]) {
        for (let start = 0; start < 8; start++) check(key, start, length, start % 5);
      }
    }
  });

  it("applyMask does not change the bytes before and after", () => {
    const bytes = pattern(300);
    applyMask(bytes, 101, 203, -1, 0);
    assert.deepEqual(bytes.subarray(0, 101), pattern(300).subarray(0, 101));
    assert.deepEqual(bytes.subarray(203), pattern(300).subarray(203));
    for (const [start, end] of [[3000, 3003], [3000, 5000], [1000, 140_000]]) {
      const long = pattern(150_000);
      applyMask(long, start, end, -1, 0);
      assertSameBytes(long.subarray(0, start), pattern(start));
      assertSameBytes(long.subarray(end), pattern(150_000).subarray(end));
    }
  });

  it("applyMask masks within a view that begins at an odd offset of its buffer", () => {
    for (let offset = 0; offset < 8; offset++) {
      const bytes = pattern(208).subarray(offset);
      const expected = masked(bytes, KEYS[1], 0);
      applyMask(bytes, 0, bytes.length, readKey(KEYS[1], 0), 0);
      assert.deepEqual(bytes, expected, `offset ${offset}`);
    }
  });

  it("applyMask masks long inputs, up to several windows", () => {
    for (const length of [1023, 1024, 1025, 1087, 4099, 65535, 65536, 65537, 131072, 200_001]) {
      for (const [start, phase] of [[0, 0], [1, 1], [6, 2], [64, 3]]) {
        check(KEYS[1], start, length, phase);
      }
    }
  });

  it("applyMask in parts is the same as at once", () => {
    const key = fc.uint8Array({ minLength: 4, maxLength: 4 });
    const bytes = fc.uint8Array({ maxLength: 400 });
    fc.assert(fc.property(key, bytes, fc.nat(400), (key, bytes, at) => {
      const middle = Math.min(at, bytes.length);
      const expected = masked(bytes, key, 0);
      applyMask(bytes, 0, middle, readKey(key, 0), 0);
      applyMask(bytes, middle, bytes.length, readKey(key, 0), middle);
      assert.deepEqual(bytes, expected);
    }));
  });
});

describe("copyMasked", () => {
  it("copyMasked is a copy that is masked, and leaves all else as it is", () => {
    for (const length of [0, 1, 2, 3, 4, 7, 64, 127, 128, 1000, 1024, 1031, 65536, 70_001]) {
      for (const at of [0, 3, 100]) {
        const source = pattern(length + 5);
        const expected = masked(source.slice(3, 3 + length), KEYS[3], at);
        const target = new Uint8Array(length + 200).fill(9);
        copyMasked(source, 3, 3 + length, target, at, readKey(KEYS[3], 0), at);
        assert.deepEqual(source, pattern(length + 5));
        assert.deepEqual(target.subarray(at, at + length), expected);
        assert.ok(target.subarray(0, at).every((byte) => byte === 9));
        assert.ok(target.subarray(at + length).every((byte) => byte === 9));
      }
    }
  });
});

let modules = 0;

/** The module once more, so that it tries WebAssembly again. */
function freshModule(): Promise<typeof import("../lib/core/mask.ts")> {
  return import(`../lib/core/mask.ts?${++modules}`);
}

/** Lengths around the borders of the ways to mask. */
const LENGTHS = [
  0,
  1,
  5,
  127,
  128,
  255,
  256,
  257,
  1000,
  1023,
  1024,
  1025,
  65535,
  65536,
  65537,
  140_000,
];

describe("unmaskedCopy", () => {
  it("unmaskedCopy is a copy by itself, and changes only the bytes between start and end", () => {
    for (const length of LENGTHS) {
      for (const start of [0, 3]) {
        const bytes = pattern(start + length + 5);
        const plain = masked(bytes.slice(start, start + length), KEYS[1], 0);
        const copy = unmaskedCopy(bytes, start, start + length, readKey(KEYS[1], 0));
        assertSameBytes(copy, plain);
        assert.equal(copy.buffer.byteLength, length);
        const [before, after] = [bytes.subarray(0, start), bytes.subarray(start + length)];
        assert.deepEqual(before, pattern(start));
        assert.deepEqual(after, pattern(start + length + 5).subarray(start + length));
      }
    }
  });

  it("unmaskedCopy leaves the original as it is if that is longer than the window", () => {
    const bytes = pattern(65_540);
    unmaskedCopy(bytes, 3, bytes.length, readKey(KEYS[1], 0));
    assertSameBytes(bytes, pattern(65_540));
  });
});

describe("wideMask", () => {
  it("wideMask has vectors on this platform, or all tests of masking see one way only", () => {
    const bytes = new Uint8Array(1);
    assert.equal(wideMask(bytes, 0, 1, bytes, 0, 0x55), true);
    assert.equal(bytes[0], 0x55);
  });

  it("wideMask masks in its own memory, and changes nothing else", async () => {
    const { wideMask } = await freshModule();
    for (const length of [1, 16, 17, 32, 48, 63, 64, 65, 128, 1000, 65535, 65536, 65537]) {
      const bytes = pattern(length);
      const target = new Uint8Array(length + 2);
      assert.equal(wideMask(bytes, 0, length, target, 1, readKey(KEYS[3], 0)), true);
      assertSameBytes(target.subarray(1, -1), masked(pattern(length), KEYS[3], 0));
      assertSameBytes(bytes, pattern(length));
      assert.deepEqual([target[0], target.at(-1)], [0, 0]);
    }
  });

  it("wideMask does nothing where WebAssembly is missing or refused", async () => {
    const { WebAssembly: platform } = globalThis;
    let attempts = 0;
    const refusing = class {
      constructor() {
        attempts++;
        throw new Error("forbidden by a policy");
      }
    };
    for (const [i, other] of [undefined, { ...platform, Module: refusing }].entries()) {
      const fresh = await freshModule();
      Object.defineProperty(globalThis, "WebAssembly", { value: other, configurable: true });
      try {
        const bytes = new Uint8Array(2000);
        assert.equal(fresh.isInMemory(bytes), false);
        assert.equal(fresh.readingMemory(), undefined);
        assert.equal(fresh.wideMask(bytes, 0, 2000, bytes, 0, -1), false);
        assert.equal(fresh.wideMask(bytes, 0, 2000, bytes, 0, -1), false);
        assert.ok(bytes.every((byte) => byte === 0));
        assert.equal(attempts, i, "tried once");
        for (const length of LENGTHS) {
          const plain = masked(pattern(length), KEYS[3], 0);
          const key = readKey(KEYS[3], 0);
          const inPlace = pattern(length);
          fresh.applyMask(inPlace, 0, length, key, 0);
          const copy = new Uint8Array(length);
          fresh.copyMasked(pattern(length), 0, length, copy, 0, key, 0);
          const other = fresh.unmaskedCopy(pattern(length), 0, length, key);
          for (const result of [inPlace, copy, other]) assertSameBytes(result, plain);
        }
      } finally {
        Object.defineProperty(globalThis, "WebAssembly", { value: platform, configurable: true });
      }
    }
  });
});

describe("readingMemory", () => {
  it("readingMemory returns the same memory each time, as a part of a larger buffer", async () => {
    const { isInMemory, readingMemory } = await freshModule();
    const memory = readingMemory()!;
    assert.equal(readingMemory(), memory);
    assert.equal(memory.length, 65_536);
    assert.ok(memory.buffer.byteLength > memory.length);
    assert.equal(isInMemory(memory.subarray(5)), true);
    assert.equal(isInMemory(new Uint8Array(5)), false);
  });

  it("readingMemory is told apart from other memory, however often it is asked for", async () => {
    const { isInMemory, readingMemory } = await freshModule();
    const [one, two] = [readingMemory()!.subarray(5), readingMemory()!];
    const other = new Uint8Array(5);
    const asked = [one, one, other, one, two, other, other, two, one];
    assert.deepEqual(asked.map(isInMemory), asked.map((bytes) => bytes !== other));
  });

  it("readingMemory is masked in place, at any offset and phase, and nothing around it", () => {
    const memory = readingMemory()!;
    for (const length of [...LENGTHS, 47, 48, 49, 64, 65, 79, 80, 81].filter((n) => n < 65_000)) {
      for (const [offset, start, phase] of [[0, 0, 0], [1, 0, 3], [3, 7, 1], [64, 16, 2]]) {
        const bytes = memory.subarray(offset, offset + start + length + 3);
        bytes.set(pattern(bytes.length));
        const expected = pattern(bytes.length);
        expected.set(masked(expected.slice(start, start + length), KEYS[1], phase), start);
        applyMask(bytes, start, start + length, readKey(KEYS[1], 0), phase);
        assertSameBytes(bytes, expected);
      }
    }
  });

  it("readingMemory is known to be ASCII or not when it was masked in place", () => {
    const memory = readingMemory()!;
    const key = readKey(KEYS[3], 0);
    const isAscii = (start: number, end: number, ...others: number[]) => {
      const plain = new Uint8Array(end + 20).fill(0x7f, start, end);
      plain.fill(0xff, 0, start).fill(0xff, end);
      for (const at of others) plain[at] = 0x80;
      memory.set(masked(plain, KEYS[3], 4 - start % 4));
      return applyMask(memory, start, end, key, 0);
    };
    // Vectors of 48 bytes, a vector of 16, and single bytes.
    for (const [start, end] of [[0, 128], [5, 5 + 181], [16, 16 + 1024], [3, 3 + 3001]]) {
      assert.equal(isAscii(start, end), true, `${start} to ${end}`);
      for (let at = start; at < end; at++) assert.equal(isAscii(start, end, at), false, `at ${at}`);
    }
    // Two bytes: of two vectors, of no vector, and of both.
    for (const others of [[5, 21], [184, 185], [12, 185]]) {
      assert.equal(isAscii(5, 186, ...others), false, `at ${others}`);
    }
    assert.equal(isAscii(0, 127), undefined);
    for (const length of [128, 2000]) {
      assert.equal(applyMask(new Uint8Array(length), 0, length, 0, 0), undefined);
    }
  });

  it("readingMemory is copied, and unmasked while it is copied", () => {
    const memory = readingMemory()!;
    for (const length of LENGTHS.filter((n) => n < 65_000)) {
      const key = readKey(KEYS[1], 0);
      const bytes = memory.subarray(9, 9 + length + 2);
      const plain = masked(pattern(length), KEYS[1], 0);
      bytes.set(pattern(length), 1);
      const target = new Uint8Array(length + 1);
      copyMasked(bytes, 1, 1 + length, target, 1, key, 0);
      assertSameBytes(target.subarray(1), plain);
      assertSameBytes(bytes.subarray(1, 1 + length), pattern(length));
      const copy = unmaskedCopy(bytes, 1, 1 + length, key);
      assertSameBytes(copy, plain);
      assert.equal(copy.buffer.byteLength, length);
    }
  });
});

describe("maskingKey", () => {
  it("maskingKey gives a fresh key each time, beyond the keys drawn in advance", () => {
    const keys = Array.from({ length: 5000 }, maskingKey);
    // Two of 5000 keys of 32 bits are equal in about one of 300 runs.
    assert.ok(new Set(keys).size > 4990);
  });

  it("maskingKey returns each random number once, and wipes it", async () => {
    const { maskingKey } = await freshModule();
    const drawn: Int32Array[] = [];
    const draw = (numbers: Int32Array) => numbers.map((_, i) => 1 + i + 1024 * drawn.length);
    const getRandomValues = (numbers: Int32Array) => {
      numbers.set(draw(numbers));
      drawn.push(numbers);
    };
    Object.defineProperty(crypto, "getRandomValues", {
      value: getRandomValues,
      configurable: true,
    });
    try {
      const keys = Array.from({ length: 2500 }, maskingKey);
      assert.deepEqual(keys, Array.from({ length: 2500 }, (_, i) => i + 1));
      assert.equal(drawn.length, 3);
      assert.deepEqual([drawn[2][451], drawn[2][452]], [0, 2501]);
    } finally {
      delete (crypto as { getRandomValues?: unknown }).getRandomValues;
    }
  });

  it("maskingKey uses all 32 bits", () => {
    const keys = Array.from({ length: 200 }, maskingKey);
    assert.equal(keys.reduce((bits, key) => bits | key, 0), -1);
    assert.equal(keys.reduce((bits, key) => bits & key, -1), 0);
  });

  it("randomPayload gives four random bytes in a buffer by themselves", () => {
    const payloads = Array.from({ length: 50 }, randomPayload);
    assert.ok(payloads.every(({ length, buffer }) => length === 4 && buffer.byteLength === 4));
    assert.equal(new Set(payloads.map(String)).size, 50);
  });

  it("randomPayload has the four bytes of a random number", async () => {
    const { randomPayload } = await freshModule();
    Object.defineProperty(crypto, "getRandomValues", {
      value: (numbers: Int32Array) => numbers.fill(0x84030201 | 0),
      configurable: true,
    });
    try {
      assert.deepEqual(randomPayload(), Uint8Array.of(1, 2, 3, 0x84));
    } finally {
      delete (crypto as { getRandomValues?: unknown }).getRandomValues;
    }
  });

  it("maskingKey is written and read as four bytes in their order", () => {
    for (const key of KEYS) {
      const bytes = new Uint8Array(8);
      assert.equal(writeHeader(bytes, 1, 0x82, 0, readKey(key, 0)), 7);
      assert.deepEqual(bytes.subarray(3, 7), key);
    }
  });
});

function check(key: Uint8Array, start: number, length: number, phase: number): void {
  const bytes = pattern(start + length + 3);
  const expected = masked(bytes.slice(start, start + length), key, phase);
  applyMask(bytes, start, start + length, readKey(key, 0), phase);
  const where = `key ${key}, start ${start}, length ${length}, phase ${phase}`;
  assert.deepEqual(bytes.subarray(start, start + length), expected, where);
}
