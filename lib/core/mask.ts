/**
 * Masking (RFC 6455 §5.3) by bytes, by 32-bit words, and by vector instructions of WebAssembly. The
 * lowest byte of a masking key is the first byte of the key.
 */
/** Payloads shorter than this are masked by bytes. */
export const WORDS_FROM = 128;

/** Payloads shorter than this are not masked in place by WebAssembly. */
const WIDE_FROM = 1024;

/** Payloads shorter than this are not read from the memory of WebAssembly. */
const WINDOW_FROM = 256;

/** Size of the memory to mask in: one page. Longer payloads are masked in several steps. */
const WINDOW = 65536;

/**
 * Masks bytes in place; `phase` is the number of payload bytes before `start`. Returns whether the
 * masked bytes are ASCII, or undefined if that was not found out.
 */
export function applyMask(
  bytes: Uint8Array,
  start: number,
  end: number,
  key: number,
  phase: number,
): boolean | undefined {
  let at = start;
  let turned = rotate(key, phase);
  if (end - start >= WORDS_FROM) {
    if (isInMemory(bytes)) return maskMemory(bytes, start, end, turned);
    if (end - start >= WIDE_FROM && wideMask(bytes, start, end, bytes, start, turned)) {
      return undefined;
    }
    const aligned = start + ((4 - ((bytes.byteOffset + start) & 3)) & 3);
    turned = maskBytes(bytes, at, aligned, turned);
    const count = (end - aligned) >> 2;
    maskWords(new Int32Array(bytes.buffer, bytes.byteOffset + aligned, count), turned);
    at = aligned + count * 4;
  }
  maskBytes(bytes, at, end, turned);
}

/** Copies bytes, masked or unmasked; `phase` is the number of payload bytes before `start`. */
export function copyMasked(
  source: Uint8Array,
  start: number,
  end: number,
  target: Uint8Array,
  at: number,
  key: number,
  phase: number,
): void {
  const length = end - start;
  const turned = rotate(key, phase);
  // For detached bytes, whose length is 0, set() throws.
  if (length > 0 && length < WORDS_FROM) {
    return copyMaskedBytes(source, start, end, target, at, turned);
  }
  if (length >= WIDE_FROM && wideMask(source, start, end, target, at, turned)) return;
  target.set(view(source, start, length), at);
  applyMask(target, at, at + length, turned, 0);
}

/** Copies bytes, masked, in one loop. `target` may be `source`, at the same place. */
function copyMaskedBytes(
  source: Uint8Array,
  start: number,
  end: number,
  target: Uint8Array,
  offset: number,
  key: number,
): void {
  let at = offset;
  let from = start;
  for (; from + 4 <= end; from += 4, at += 4) {
    target[at] = source[from] ^ key;
    target[at + 1] = source[from + 1] ^ (key >>> 8);
    target[at + 2] = source[from + 2] ^ (key >>> 16);
    target[at + 3] = source[from + 3] ^ (key >>> 24);
  }
  for (let i = 0; from < end; i += 8) target[at++] = source[from++] ^ (key >>> i);
}

/**
 * Copies bytes, unmasked. The original bytes may be unmasked too.
 * @param bytes An array that is not an instance of a subclass, such as Buffer.
 * @param key The masking key, rotated so that its lowest byte is for the byte at `start`.
 */
export function unmaskedCopy(
  bytes: Uint8Array,
  start: number,
  end: number,
  key: number,
): Uint8Array {
  const length = end - start;
  if (length < WORDS_FROM) {
    const copy = new Uint8Array(length);
    copyMaskedBytes(bytes, start, end, copy, 0, key);
    return copy;
  }
  if (length > WINDOW) {
    // Unmasking the original first would move its bytes to the window and back.
    const copy = new Uint8Array(length);
    copyMasked(bytes, start, end, copy, 0, key, 0);
    return copy;
  }
  const window = maskedWindow(bytes, start, end, key, 0);
  if (window !== undefined) return window.bytes.slice(0, length);
  applyMask(bytes, start, end, key, 0);
  return bytes.slice(start, end);
}

function maskWords(words: Int32Array, key: number): void {
  const { length } = words;
  for (let i = 0; i < length; i++) words[i] ^= key;
}

/** Masks by bytes. Returns the key rotated for the byte at `end`. */
function maskBytes(bytes: Uint8Array, start: number, end: number, key: number): number {
  copyMaskedBytes(bytes, start, end, bytes, start, key);
  return rotate(key, (end - start) & 3);
}

function rotate(key: number, phase: number): number {
  const bits = (phase & 3) << 3;
  return (key >>> bits) | (key << (32 - bits));
}

// RFC 6455 §5.3: each frame has a new key that cannot be predicted. Random numbers are drawn in
// blocks, because each call to the random source is slow.
const pool = /* @__PURE__ */ new Int32Array(1024);
let used = pool.length;

export function maskingKey(): number {
  if (used === pool.length) {
    crypto.getRandomValues(pool);
    used = 0;
  }
  const key = pool[used];
  pool[used++] = 0;
  return key;
}

/** Returns 4 bytes from the cryptographic random source, as the payload of a ping. */
export function randomPayload(): Uint8Array {
  const key = maskingKey();
  return Uint8Array.of(key, key >>> 8, key >>> 16, key >>> 24);
}

// WebAssembly. It may be missing, lack vector instructions, or be forbidden by a page's policy.

interface Machine {
  /** Masks the bytes of the memory from `start` to `end`. Returns 0 if they are ASCII then. */
  mask(start: number, end: number, key: number): number;
  readonly window: Uint8Array;
  readonly reading: Uint8Array;
}

interface Exports extends Pick<Machine, "mask"> {
  memory: { buffer: ArrayBuffer };
}

/** The types of WebAssembly that are used, because TypeScript has them only in its DOM library. */
interface Platform {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object) => { exports: unknown };
}

/** Created when first needed. Null if that failed. */
let machine: Machine | null | undefined;

function vectors(): Machine | null {
  // Try only once, because a page's security policy reports each attempt.
  return machine === undefined ? machine = makeMachine() : machine;
}

/**
 * Returns the memory to read frames into. Frames are unmasked in place there, without a copy. All
 * callers get the same memory. Returns undefined if WebAssembly is not available.
 */
export function readingMemory(): Uint8Array | undefined {
  return vectors()?.reading;
}

/** The last array that was found in the memory. V8 reads `buffer` by a slow call. */
let known: Uint8Array | undefined;

/** Whether bytes are in the memory of WebAssembly, where they are masked without a copy. */
export function isInMemory(bytes: Uint8Array): boolean {
  if (bytes === known) return true;
  if (bytes.buffer !== machine?.window.buffer) return false;
  known = bytes;
  return true;
}

function maskMemory({ byteOffset }: Uint8Array, start: number, end: number, key: number): boolean {
  return machine!.mask(byteOffset + start, byteOffset + end, key) === 0;
}

/**
 * Copies bytes, masked, to `target`, which may be their own place. Returns false, and copies
 * nothing, if WebAssembly is not available.
 * @param key The masking key, rotated so that its lowest byte is for the byte at `start`.
 */
export function wideMask(
  source: Uint8Array,
  start: number,
  end: number,
  target: Uint8Array,
  offset: number,
  key: number,
): boolean {
  const machine = vectors();
  if (machine === null) return false;
  const { window } = machine;
  for (let at = start; at < end; at += WINDOW) {
    const length = Math.min(WINDOW, end - at);
    window.set(view(source, at, length));
    machine.mask(0, length, key);
    target.set(length === WINDOW ? window : view(window, 0, length), offset + at - start);
  }
  return true;
}

/** Masked bytes at the beginning of the memory of WebAssembly. */
interface Masked {
  readonly bytes: Uint8Array;
  readonly isAscii: boolean;
}

/**
 * Copies bytes, masked, to the beginning of the memory of WebAssembly. They stay there until other bytes
 * are masked. Returns undefined if their number is unsuitable or WebAssembly is not available.
 */
export function maskedWindow(
  bytes: Uint8Array,
  start: number,
  end: number,
  key: number,
  phase: number,
): Masked | undefined {
  const length = end - start;
  if (length < WINDOW_FROM || length > WINDOW || isInMemory(bytes)) return undefined;
  const machine = vectors();
  if (machine === null) return undefined;
  const { window } = machine;
  window.set(view(bytes, start, length));
  const isAscii = machine.mask(0, length, rotate(key, phase)) === 0;
  return { bytes: window, isAscii };
}

/** Returns a view that is a plain Uint8Array. Views of a subclass, such as Buffer, are slower. */
function view(bytes: Uint8Array, start: number, length: number): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset + start, length);
}

function makeMachine(): Machine | null {
  const { WebAssembly: platform } = globalThis as unknown as { WebAssembly?: Platform };
  if (platform === undefined) return null;
  try {
    const { exports } = new platform.Instance(new platform.Module(moduleBytes()));
    const { mask, memory: { buffer } } = exports as Exports;
    const window = new Uint8Array(buffer, 0, WINDOW);
    return { mask, window, reading: new Uint8Array(buffer, WINDOW) };
  } catch {
    // WebAssembly is forbidden, has no vector instructions, or has no memory left.
    return null;
  }
}

const NEXT_KEY = [0x20, 2, 0x41, 8, 0x78, 0x21, 2]; // $key = i32.rotr($key, 8)

/** Masks 16 bytes at `offset` after `$at`. */
function maskVector(offset: number): number[] {
  return [
    ...[0x20, 0, 0x20, 0, 0xfd, 0x00, 4, offset], // local.get $at, local.get $at, v128.load
    ...[0x20, 3, 0xfd, 0x51, 0x22, 4], // local.get $keys, v128.xor, local.tee $vector
    ...[0xfd, 0x0b, 4, offset, 0x20, 4], // v128.store, local.get $vector
    ...[0x20, 5, 0xfd, 0x50, 0x21, 5], // local.get $vectors, v128.or, local.set $vectors
  ];
}

/** Masks one byte at `$at`. */
const MASK_BYTE = [
  ...[0x20, 0, 0x20, 0, 0x2d, 0, 0], // local.get $at, local.get $at, i32.load8_u
  ...[0x20, 2, 0x73, 0x22, 6, 0x3a, 0, 0], // local.get $key, i32.xor, local.tee $byte, i32.store8
  ...[0x20, 6, 0x20, 7, 0x72, 0x21, 7], // local.get $byte, local.get $bytes, i32.or, local.set $bytes
];

/** Repeats `body` and adds `step`, at most 63, to `$at`, while `step` bytes are left. */
function loop(step: number, body: number[]): number[] {
  const next = [0x20, 0, 0x41, step, 0x6a]; // local.get $at, i32.const, i32.add
  return [
    ...[0x02, 0x40, 0x03, 0x40], // block, loop
    ...[...next, 0x20, 1, 0x4b, 0x0d, 1], // local.get $end, i32.gt_u, br_if the block
    ...body,
    ...[...next, 0x21, 0, 0x0c, 0], // local.set $at, br the loop
    ...[0x0b, 0x0b], // end, end
  ];
}

/**
 * The function is `(func (param $at i32) (param $end i32) (param $key i32) (result i32) (local $keys v128)
 * (local $vector v128) (local $vectors v128) (local $byte i32) (local $bytes i32))`.
 */
function moduleBytes(): Uint8Array {
  const body = [
    ...[2, 3, 0x7b, 2, 0x7f], // locals: 3 of v128, 2 of i32
    ...[0x20, 2, 0xfd, 0x11, 0x21, 3], // local.get $key, i32x4.splat, local.set $keys
    ...loop(48, [0, 16, 32].flatMap(maskVector)),
    ...loop(16, maskVector(0)),
    ...loop(1, [...MASK_BYTE, ...NEXT_KEY]),
    ...[0x20, 5, 0xfd, 0x64], // local.get $vectors, i8x16.bitmask
    ...[0x20, 7, 0x41, 0x80, 1, 0x71], // local.get $bytes, i32.const 128, i32.and
    ...[0x72, 0x0b], // i32.or, end of the function
  ];
  const size = (length: number) => [length & 0x7f | 0x80, length >> 7]; // LEB128
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // "\0asm", version 1
    ...[1, 8, 1, 0x60, 3, 0x7f, 0x7f, 0x7f, 1, 0x7f], // a type: (i32, i32, i32) -> i32
    ...[3, 2, 1, 0], // a function of that type
    ...[5, 3, 1, 0, 2], // a memory of two pages: the window, and the page to read into
    ...[7, 17, 2, 4, 0x6d, 0x61, 0x73, 0x6b, 0, 0], // exports: the function as "mask"
    ...[6, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 2, 0], // the memory as "memory"
    ...[10, ...size(body.length + 3), 1, ...size(body.length), ...body], // the code
  ]);
}
