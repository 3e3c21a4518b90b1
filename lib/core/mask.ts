/**
 * Masking (RFC 6455 §5.3).
 *
 * A masking key is held as a number whose lowest byte is the first byte of the key, so that on the
 * little-endian platforms that JavaScript runs on four bytes can be masked at a time.
 *
 * @module
 */
import { WIDE_FROM, wideMask, wideMaskedCopy, WINDOW } from "./wide_mask.ts";

/** Below this many bytes a view of 32-bit words costs more than it saves. */
const WORDS_FROM = 64;

/**
 * Masks or unmasks bytes in place.
 *
 * @param bytes where they lie
 * @param start the first of them
 * @param end offset after the last of them
 * @param key the masking key
 * @param phase how many bytes of the payload came before: the first byte meets key byte `phase % 4`
 */
export function applyMask(
  bytes: Uint8Array,
  start: number,
  end: number,
  key: number,
  phase: number,
): void {
  let at = start;
  let turned = rotate(key, phase);
  if (end - start >= WIDE_FROM && wideMask(bytes, start, end, bytes, start, turned)) return;
  if (end - start >= WORDS_FROM) {
    const aligned = start + ((4 - ((bytes.byteOffset + start) & 3)) & 3);
    turned = maskBytes(bytes, at, aligned, turned);
    const count = (end - aligned) >> 2;
    maskWords(new Int32Array(bytes.buffer, bytes.byteOffset + aligned, count), turned);
    at = aligned + count * 4;
  }
  maskBytes(bytes, at, end, turned);
}

/**
 * Copies bytes to another place, masked or unmasked.
 *
 * @param source the bytes
 * @param target where they go to
 * @param at the place of the first of them there
 * @param key the masking key
 * @param phase how many bytes of the payload came before
 */
export function copyMasked(
  source: Uint8Array,
  target: Uint8Array,
  at: number,
  key: number,
  phase: number,
): void {
  const { length } = source;
  if (length >= WIDE_FROM && wideMask(source, 0, length, target, at, rotate(key, phase))) return;
  target.set(source, at);
  applyMask(target, at, at + length, key, phase);
}

/**
 * Copies bytes into a buffer of their own, unmasked. The bytes themselves may be unmasked on the way.
 *
 * @param bytes the array that holds them, which must be no subclass of Uint8Array
 * @param start the first of them
 * @param end offset after the last of them
 * @param key the masking key, whose first byte is for the first of them
 */
export function unmaskedCopy(
  bytes: Uint8Array,
  start: number,
  end: number,
  key: number,
): Uint8Array {
  const length = end - start;
  if (length >= WIDE_FROM && length <= WINDOW) {
    const copy = wideMaskedCopy(bytes, start, end, key);
    if (copy !== undefined) return copy;
  }
  applyMask(bytes, start, end, key, 0);
  return bytes.slice(start, end);
}

function maskWords(words: Int32Array, key: number): void {
  const { length } = words;
  for (let i = 0; i < length; i++) words[i] ^= key;
}

/** Masks byte by byte and gives the key turned on for the byte that follows. */
function maskBytes(bytes: Uint8Array, start: number, end: number, key: number): number {
  let at = start;
  for (; at + 4 <= end; at += 4) {
    bytes[at] ^= key;
    bytes[at + 1] ^= key >>> 8;
    bytes[at + 2] ^= key >>> 16;
    bytes[at + 3] ^= key >>> 24;
  }
  for (let i = 0; at < end; i += 8, at++) bytes[at] ^= key >>> i;
  return rotate(key, (end - start) & 3);
}

function rotate(key: number, phase: number): number {
  const bits = (phase & 3) << 3;
  return bits === 0 ? key : (key >>> bits) | (key << (32 - bits));
}

// RFC 6455 §5.3: each frame has a fresh key that cannot be predicted. One call to the source of
// randomness costs far more than the bytes it gives, so they are drawn in advance.
const pool = new Int32Array(1024);
let used = pool.length;

/** A fresh masking key from the cryptographic source. */
export function maskingKey(): number {
  if (used === pool.length) {
    crypto.getRandomValues(pool);
    used = 0;
  }
  const key = pool[used];
  pool[used++] = 0;
  return key;
}

/** Four bytes from the cryptographic source, as the payload of a ping. */
export function randomPayload(): Uint8Array {
  return new Uint8Array(Int32Array.of(maskingKey()).buffer);
}
