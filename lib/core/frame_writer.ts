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

/** The size of a batch buffer, in bytes: 64 KiB of messages, in one piece with their headers. */
const BUFFER_SIZE = 65536 + 512;

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
const batches: Batch[] = [];

/** What becomes of a payload that is too long to be copied into the batch. */
export type Ownership =
  /** It is the caller's, who may change it at once: it is copied. */
  | "copy"
  /** It is the caller's, who leaves it alone until the transport has taken it. */
  | "borrow"
  /** It was made for this frame: it may be changed. */
  | "own";

/** What was written and has not left. */
class Batch {
  buffer: Uint8Array = EMPTY;
  start = 0;
  end = 0;
  /** Finished pieces, before the one at hand. */
  parts: Uint8Array[] = NONE;
  partsSize = 0;
  /** Buffers that were filled up and hold bytes that were not all taken yet. */
  filled: Uint8Array[] = NONE;
  /** Buffers that were filled up and taken, and whose bytes may not have left yet. */
  taken: Uint8Array[] = NONE;

  /** The bytes written and not yet taken. */
  get size(): number {
    return this.partsSize + this.end - this.start;
  }
}

/**
 * Writes frames one behind the other into a batch, which `take()` hands over as few pieces of
 * bytes, for one gathered write.
 */
export class FrameWriter {
  readonly #masked: boolean;
  readonly #codec: TextCodec;
  /** None of who writes nothing at the moment. */
  #batch: Batch | undefined;
  /** Whether the batch before has filled more than a first buffer. */
  #wroteMuch = false;

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
    return this.#batch === undefined ? 0 : this.#batch.size;
  }

  /** Writes a frame with text as its payload, and gives the length of the payload in bytes. */
  text(opcode: number, text: string, fin: boolean, rsv: number = 0): number {
    const most = 3 * text.length;
    if (most > BUFFER_SIZE / 2) {
      const payload = encoder.encode(text);
      this.bytes(opcode, payload, fin, rsv, "own");
      return payload.length;
    }
    const batch = this.#reserve(MAX_HEADER_LENGTH + most);
    const { buffer } = batch;
    // One byte a code unit is the most likely; should the header prove longer, the text moves.
    const likely = batch.end + headerLength(text.length, this.#masked);
    const length = this.#codec.encodeInto(text, buffer, likely);
    const start = batch.end + headerLength(length, this.#masked);
    if (start !== likely) buffer.copyWithin(start, likely, likely + length);
    this.#header(firstByte(fin, rsv, opcode), length, start, start + length, batch);
    batch.end = start + length;
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
    const batch = this.#reserve(MAX_HEADER_LENGTH + length);
    const start = batch.end + headerLength(length, this.#masked);
    batch.buffer.set(payload, start);
    this.#header(firstByte(fin, rsv, opcode), length, start, start + length, batch);
    batch.end = start + length;
  }

  /** Hands over what was written. The bytes must not change until {@linkcode recycle}. */
  take(): Uint8Array[] {
    const batch = this.#batch;
    if (batch === undefined) return [];
    cut(batch);
    const parts = batch.parts;
    batch.parts = NONE;
    batch.partsSize = 0;
    if (batch.taken === NONE) batch.taken = batch.filled;
    else batch.taken.push(...batch.filled);
    batch.filled = NONE;
    // What all share is nobody's to keep.
    return parts === NONE ? [] : parts;
  }

  /** Says that nothing handed over is in use any more: the buffers are free for other batches. */
  recycle(): void {
    const batch = this.#batch;
    if (batch === undefined) return;
    const much = batch.taken !== NONE || batch.end > FIRST_SIZE;
    for (const buffer of batch.taken) release(buffer);
    batch.taken = NONE;
    if (batch.size > 0) return;
    // The next batch is likely to be as large as this one.
    this.#wroteMuch = much;
    release(batch.buffer);
    batch.buffer = EMPTY;
    batch.start = batch.end = 0;
    this.#batch = undefined;
    if (batches.length < FIRST_POOL_SIZE) batches.push(batch);
  }

  /** Writes the header, and masks the payload that already lies behind it in the batch. */
  #header(first: number, length: number, start: number, end: number, batch: Batch): void {
    const at = writeHeader(batch.buffer, batch.end, first, this.#masked, length);
    if (!this.#masked) return;
    const key = maskingKey();
    writeKey(batch.buffer, at, key);
    applyMask(batch.buffer, start, end, key, 0);
  }

  /** Writes a frame whose payload is a piece of its own. */
  #beside(first: number, payload: Uint8Array, ownership: Ownership): void {
    const batch = this.#reserve(MAX_HEADER_LENGTH);
    const { length } = payload;
    let at = writeHeader(batch.buffer, batch.end, first, this.#masked, length);
    // Masking changes the payload, so that what is not our own is copied even if it could be borrowed.
    const copied = ownership === "copy" || (this.#masked && ownership === "borrow");
    let key = 0;
    if (this.#masked) {
      key = maskingKey();
      writeKey(batch.buffer, at, key);
      at += 4;
    }
    batch.end = at;
    if (copied) return this.#copy(payload, key, batch);
    if (this.#masked) applyMask(payload, 0, length, key, 0);
    cut(batch);
    batch.parts = added(batch.parts, payload);
    batch.partsSize += length;
  }

  /** Copies a payload into as many buffers as it takes, which are used again and again, and masks it there. */
  #copy(payload: Uint8Array, key: number, batch: Batch): void {
    const { length } = payload;
    for (let at = 0; at < length;) {
      if (batch.end === batch.buffer.length) this.#reserve(1);
      const start = batch.end;
      const size = Math.min(length - at, batch.buffer.length - start);
      const part = payload.subarray(at, at + size);
      if (this.#masked) copyMasked(part, batch.buffer, start, key, at);
      else batch.buffer.set(part, start);
      batch.end += size;
      at += size;
    }
  }

  /** The batch, with room for so many bytes in one piece. */
  #reserve(size: number): Batch {
    const batch = this.#batch ??= batches.pop() ?? new Batch();
    if (batch.buffer.length - batch.end < size) this.#extend(size, batch);
    return batch;
  }

  #extend(size: number, batch: Batch): void {
    if (batch.buffer.length === 0 && size <= FIRST_SIZE && !this.#wroteMuch) {
      batch.buffer = firstPool.pop() ?? new Uint8Array(FIRST_SIZE);
      return;
    }
    const full = batch.buffer;
    const buffer = pool.pop() ?? new Uint8Array(BUFFER_SIZE);
    this.#wroteMuch = true;
    if (full.length === FIRST_SIZE) {
      // The little that it holds moves along, lest the batch be of one piece more.
      buffer.set(full.subarray(batch.start, batch.end));
      batch.end -= batch.start;
    } else {
      cut(batch);
      batch.end = 0;
    }
    if (full.length > 0) batch.filled = added(batch.filled, full);
    batch.buffer = buffer;
    batch.start = 0;
  }
}

/** Ends the piece at hand. */
function cut(batch: Batch): void {
  if (batch.end === batch.start) return;
  batch.parts = added(batch.parts, batch.buffer.subarray(batch.start, batch.end));
  batch.partsSize += batch.end - batch.start;
  batch.start = batch.end;
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
