/**
 * Frames to bytes, many to a buffer.
 *
 * @module
 */
import {
  firstByte,
  headerLength,
  MAX_HEADER_LENGTH,
  type Role,
  writeHeader,
  writeKey,
} from "./frame.ts";
import { applyMask, copyMasked, maskingKey } from "./mask.ts";
import { type TextCodec, webTextCodec } from "./utf8.ts";

/** The size of a batch buffer, in bytes. */
const BUFFER_SIZE = 65536;

/** The size of the first one: where all connections write at once, most write little. */
const FIRST_SIZE = 2048;

/** From this many bytes on a payload is written beside the batch, and may be borrowed. */
export const BORROW_FROM = 8192;

const EMPTY = new Uint8Array(0);
/** Shared by all who write nothing at the moment. */
const NONE: Uint8Array[] = [];
const encoder = new TextEncoder();

// A fresh zeroed buffer for every batch would cost more than the batch. Connections share these, so
// that an idle one holds none; as many are kept as connections are likely to write in one turn.
const pool: Uint8Array[] = [];
const POOL_SIZE = 64;
const firstPool: Uint8Array[] = [];
const FIRST_POOL_SIZE = 512;

/** What becomes of a payload that is too long to be copied into the batch. */
export type Ownership =
  /** It is the caller's, who may change it at once: it is copied. */
  | "copy"
  /** It is the caller's, who leaves it alone until the transport has taken it. */
  | "borrow"
  /** It was made for this frame: it may be changed. */
  | "own";

/**
 * Writes frames one behind the other into a batch, which `take()` hands over as few pieces of
 * bytes, for one gathered write.
 */
export class FrameWriter {
  readonly #masked: boolean;
  readonly #codec: TextCodec;
  #buffer: Uint8Array = EMPTY;
  #start = 0;
  #end = 0;
  /** Finished pieces of the batch, before the one at hand. */
  #parts: Uint8Array[] = NONE;
  #partsSize = 0;
  /** Whether the batch before has filled more than a first buffer. */
  #wroteMuch = false;
  /** Buffers that were filled up and hold bytes that were not all taken yet. */
  #filled: Uint8Array[] = NONE;
  /** Buffers that were filled up and taken, and whose bytes may not have left yet. */
  #taken: Uint8Array[] = NONE;

  /**
   * Makes a writer for one connection.
   *
   * @param role which end writes: a client masks
   * @param codec how text is encoded
   */
  constructor(role: Role, codec: TextCodec = webTextCodec) {
    this.#masked = role === "client";
    this.#codec = codec;
  }

  /** The bytes written and not yet taken. */
  get size(): number {
    return this.#partsSize + this.#end - this.#start;
  }

  /** Writes a frame with text as its payload, and gives the length of the payload in bytes. */
  text(opcode: number, text: string, fin: boolean, rsv: number = 0): number {
    const most = 3 * text.length;
    if (most > BUFFER_SIZE / 2) {
      const payload = encoder.encode(text);
      this.bytes(opcode, payload, fin, rsv, "own");
      return payload.length;
    }
    this.#reserve(MAX_HEADER_LENGTH + most);
    const buffer = this.#buffer;
    // One byte a code unit is the most likely; should the header prove longer, the text moves.
    const likely = this.#end + headerLength(text.length, this.#masked);
    const length = this.#codec.encodeInto(text, buffer, likely);
    const start = this.#end + headerLength(length, this.#masked);
    if (start !== likely) buffer.copyWithin(start, likely, likely + length);
    this.#header(firstByte(fin, rsv, opcode), length, start, start + length);
    this.#end = start + length;
    return length;
  }

  /** Writes a frame with bytes as its payload. */
  bytes(
    opcode: number,
    payload: Uint8Array,
    fin: boolean,
    rsv: number = 0,
    ownership: Ownership = "copy",
  ): void {
    const { length } = payload;
    if (length >= BORROW_FROM) return this.#beside(firstByte(fin, rsv, opcode), payload, ownership);
    this.#reserve(MAX_HEADER_LENGTH + length);
    const start = this.#end + headerLength(length, this.#masked);
    this.#buffer.set(payload, start);
    this.#header(firstByte(fin, rsv, opcode), length, start, start + length);
    this.#end = start + length;
  }

  /** Hands over what was written. The bytes must not change until {@linkcode recycle}. */
  take(): Uint8Array[] {
    this.#cut();
    const parts = this.#parts;
    this.#parts = NONE;
    this.#partsSize = 0;
    if (this.#taken === NONE) this.#taken = this.#filled;
    else this.#taken.push(...this.#filled);
    this.#filled = NONE;
    return parts;
  }

  /** Says that nothing handed over is in use any more: the buffers are free for other batches. */
  recycle(): void {
    const much = this.#taken !== NONE || this.#end > FIRST_SIZE;
    for (const buffer of this.#taken) release(buffer);
    this.#taken = NONE;
    if (this.size > 0 || this.#buffer === EMPTY) return;
    // The next batch is likely to be as large as this one.
    this.#wroteMuch = much;
    release(this.#buffer);
    this.#buffer = EMPTY;
    this.#start = this.#end = 0;
  }

  /** Writes the header, and masks the payload that already lies behind it in the batch. */
  #header(first: number, length: number, start: number, end: number): void {
    const at = writeHeader(this.#buffer, this.#end, first, this.#masked, length);
    if (!this.#masked) return;
    const key = maskingKey();
    writeKey(this.#buffer, at, key);
    applyMask(this.#buffer, start, end, key, 0);
  }

  /** Writes a frame whose payload is a piece of its own. */
  #beside(first: number, payload: Uint8Array, ownership: Ownership): void {
    this.#reserve(MAX_HEADER_LENGTH);
    const { length } = payload;
    let at = writeHeader(this.#buffer, this.#end, first, this.#masked, length);
    // Masking changes the payload, so that what is not our own is copied even if it could be borrowed.
    const copied = ownership === "copy" || (this.#masked && ownership === "borrow");
    let key = 0;
    if (this.#masked) {
      key = maskingKey();
      writeKey(this.#buffer, at, key);
      at += 4;
    }
    this.#end = at;
    if (copied) return this.#copy(payload, key);
    if (this.#masked) applyMask(payload, 0, length, key, 0);
    this.#cut();
    this.#parts = added(this.#parts, payload);
    this.#partsSize += length;
  }

  /** Copies a payload into as many buffers as it takes, which are used again and again, and masks it there. */
  #copy(payload: Uint8Array, key: number): void {
    const { length } = payload;
    for (let at = 0; at < length;) {
      if (this.#end === this.#buffer.length) this.#reserve(1);
      const start = this.#end;
      const size = Math.min(length - at, this.#buffer.length - start);
      const part = payload.subarray(at, at + size);
      if (this.#masked) copyMasked(part, this.#buffer, start, key, at);
      else this.#buffer.set(part, start);
      this.#end += size;
      at += size;
    }
  }

  /** Ends the piece at hand. */
  #cut(): void {
    if (this.#end === this.#start) return;
    this.#parts = added(this.#parts, this.#buffer.subarray(this.#start, this.#end));
    this.#partsSize += this.#end - this.#start;
    this.#start = this.#end;
  }

  #reserve(size: number): void {
    if (this.#buffer.length - this.#end >= size) return;
    if (this.#buffer.length === 0 && size <= FIRST_SIZE && !this.#wroteMuch) {
      this.#buffer = firstPool.pop() ?? new Uint8Array(FIRST_SIZE);
      return;
    }
    const full = this.#buffer;
    const buffer = pool.pop() ?? new Uint8Array(BUFFER_SIZE);
    this.#wroteMuch = true;
    if (full.length === FIRST_SIZE) {
      // The little that it holds moves along, lest the batch be of one piece more.
      buffer.set(full.subarray(this.#start, this.#end));
      this.#end -= this.#start;
    } else {
      this.#cut();
      this.#end = 0;
    }
    if (full.length > 0) this.#filled = added(this.#filled, full);
    this.#buffer = buffer;
    this.#start = 0;
  }
}

function added(list: Uint8Array[], item: Uint8Array): Uint8Array[] {
  if (list === NONE) return [item];
  list.push(item);
  return list;
}

function release(buffer: Uint8Array): void {
  if (buffer.length === BUFFER_SIZE && pool.length < POOL_SIZE) pool.push(buffer);
  if (buffer.length === FIRST_SIZE && firstPool.length < FIRST_POOL_SIZE) firstPool.push(buffer);
}
