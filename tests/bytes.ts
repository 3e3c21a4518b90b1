/** Makes, cuts and compares bytes for the tests. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";

/** The bytes of hexadecimal digits. Blanks are ignored. */
export function hex(digits: string): Uint8Array {
  const pairs = digits.replaceAll(" ", "").match(/../g) ?? [];
  return Uint8Array.from(pairs, (pair) => parseInt(pair, 16));
}

/** The characters of the text, as one byte each. */
export function latin1(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** The text as UTF-8. */
export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** The pieces in one array. */
export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Bytes that depend on their position, so that a test notices if two are swapped. */
export function pattern(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  // Uint8Array.from() takes twenty times as long.
  for (let i = 0; i < length; i++) bytes[i] = i * 7 + (i >> 8);
  return bytes;
}

/** Copies of the bytes between the given offsets, which may be in any order. */
export function cut(bytes: Uint8Array, ...offsets: number[]): Uint8Array[] {
  const ends = [...offsets.map((at) => Math.min(at, bytes.length)), bytes.length];
  ends.sort((a, b) => a - b);
  return ends.map((end, i) => bytes.slice(ends[i - 1] ?? 0, end));
}

/** A copy of each byte, in an array by itself. */
export function single(bytes: Uint8Array): Uint8Array[] {
  return Array.from(bytes, (byte) => Uint8Array.of(byte));
}

/** All ways to cut the bytes in two, and the cut into single bytes. */
export function cuts(bytes: Uint8Array): Uint8Array[][] {
  const inTwo = Array.from({ length: bytes.length + 1 }, (_, at) => cut(bytes, at));
  return [...inTwo, single(bytes)];
}

/** Reports where two long payloads differ. deepEqual would take minutes for them. */
export function assertSameBytes(actual: Uint8Array, expected: Uint8Array): void {
  if (Buffer.compare(actual, expected) === 0) return;
  assert.equal(actual.length, expected.length);
  const at = expected.findIndex((byte, i) => byte !== actual[i]);
  assert.equal(at, -1, `byte ${at} is ${actual[at]}, not ${expected[at]}`);
}

/** Detaches the buffer of the bytes, which then look empty. */
export function detached(from: number | Uint8Array): Uint8Array {
  const bytes = typeof from === "number" ? new Uint8Array(from) : from;
  structuredClone(undefined, { transfer: [bytes.buffer as ArrayBuffer] });
  return bytes;
}

/** Bytes of a class whose members return something else. */
export class OddBytes extends Uint8Array {
  static get [Symbol.species](): Uint8ArrayConstructor {
    return class extends Uint8Array {
      constructor() {
        super(500);
      }
    } as Uint8ArrayConstructor;
  }

  override get length(): number {
    return 300;
  }

  override get byteLength(): number {
    return 300;
  }

  override get byteOffset(): number {
    return 1;
  }

  override slice(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(500);
  }

  override subarray(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(500);
  }
}
