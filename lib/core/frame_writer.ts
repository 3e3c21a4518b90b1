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
import { Queue } from "./queue.ts";
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
const NONE_LENT: Part[] = [];
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

/** A piece of what was written. */
interface Part {
  bytes: Uint8Array;
  /** The length that it was written with. The owner of bytes that are borrowed may detach them. */
  length: number;
  /** Of bytes that are borrowed: how long the header is, at the end of the part before it. */
  header: number;
  /** The buffer that is full, and is free once this part has left. */
  full: Uint8Array | undefined;
}

function isIntact({ bytes, length }: Part): boolean {
  return bytes.length === length;
}

/** The bytes of the part's buffer, if it is full, that no frame has fitted into. */
function unusedOf({ bytes, length, full }: Part): number {
  return full === undefined ? 0 : full.length - (bytes.byteOffset - full.byteOffset) - length;
}

/** What was written and has not left. */
class Batch {
  buffer: Uint8Array = EMPTY;
  start = 0;
  end = 0;
  /** Finished pieces, before the one at hand. */
  readonly parts: Queue<Part> = new Queue();
  partsSize = 0;
  /** Buffers that were full and taken, and whose bytes may not have left yet. */
  taken: Uint8Array[] = NONE;
  /** What was borrowed and taken, and may not have left yet. */
  lent: Part[] = NONE_LENT;
  /** The bytes of full buffers that no frame has fitted into. */
  unused = 0;

  /** The bytes written and not yet taken. */
  get size(): number {
    return this.partsSize + this.end - this.start;
  }

  /** Ends the piece at hand. */
  cut(full?: Uint8Array): void {
    const length = this.end - this.start;
    if (length === 0 && full === undefined) return;
    const part = { bytes: this.buffer.subarray(this.start, this.end), length, header: 0, full };
    this.parts.push(part);
    this.unused += unusedOf(part);
    this.partsSize += length;
    this.start = this.end;
  }

  /** Drops what was not taken, and the header at the end of what was. */
  drop(header: number, taken: Uint8Array[]): void {
    this.parts.clear();
    this.partsSize = this.unused = 0;
    this.start = this.end;
    const last = taken.pop()!;
    if (last.length > header) taken.push(last.subarray(0, last.length - header));
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
  #hasVanished = false;

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

  /** The bytes of memory that are held beside those written. */
  get unused(): number {
    return this.#batch === undefined ? 0 : this.#batch.unused;
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

  /**
   * Hands over what was written. The bytes must not change until {@linkcode recycle}. If borrowed bytes
   * have not the length that they were written with, their frame is dropped, and all that was written
   * after it; see {@linkcode hasVanished}.
   *
   * @param most from so many bytes on no more is taken
   * @param copy whether to copy what is borrowed
   */
  take(most: number = Infinity, copy: boolean = false): Uint8Array[] {
    const batch = this.#batch;
    const taken: Uint8Array[] = [];
    this.#hasVanished = false;
    if (batch === undefined) return taken;
    if (batch.parts.length === 0) {
      if (batch.size > 0) taken.push(batch.buffer.subarray(batch.start, batch.end));
      batch.start = batch.end;
      return taken;
    }
    batch.cut();
    let size = 0;
    for (let next = batch.parts.first; next !== undefined; next = batch.parts.first) {
      const { bytes, length, header, full } = next;
      // A header goes with its payload.
      if (size >= most && header === 0 && length > 0) break;
      if (!isIntact(next)) {
        batch.drop(header, taken);
        this.#hasVanished = true;
        break;
      }
      batch.parts.shift();
      batch.partsSize -= length;
      batch.unused -= unusedOf(next);
      size += length;
      if (length > 0) taken.push(copy && header > 0 ? new Uint8Array(bytes) : bytes);
      if (header > 0 && !copy) batch.lent = added(batch.lent, next, NONE_LENT);
      if (full !== undefined) batch.taken = added(batch.taken, full, NONE);
    }
    return taken;
  }

  /** Whether the last `take()` has dropped a frame. */
  get hasVanished(): boolean {
    return this.#hasVanished;
  }

  /** Whether all that is lent, taken and not recycled, has the length that it had. */
  get isLentIntact(): boolean {
    const lent = this.#batch?.lent ?? NONE_LENT;
    return lent === NONE_LENT || lent.every(isIntact);
  }

  /** Says that nothing handed over is in use any more: the buffers are free for other batches. */
  recycle(): void {
    const batch = this.#batch;
    if (batch === undefined) return;
    const much = batch.taken !== NONE || batch.end > FIRST_SIZE;
    for (const buffer of batch.taken) release(buffer);
    batch.taken = NONE;
    batch.lent = NONE_LENT;
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
    const start = batch.end;
    let at = writeHeader(batch.buffer, start, first, this.#masked, length);
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
    batch.cut();
    const header = ownership === "borrow" ? at - start : 0;
    batch.parts.push({ bytes: payload, length, header, full: undefined });
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
      const held = batch.end - batch.start;
      batch.end = batch.start;
      batch.cut(full);
      batch.end = held;
    } else {
      batch.cut(full.length > 0 ? full : undefined);
      batch.end = 0;
    }
    batch.buffer = buffer;
    batch.start = 0;
  }
}

/** Adds to a list of its own, for which the empty one that all share makes way. */
function added<T>(list: T[], item: T, none: T[]): T[] {
  if (list === none) return [item];
  list.push(item);
  return list;
}

function release(buffer: Uint8Array): void {
  if (buffer.length === BUFFER_SIZE && pool.length < POOL_SIZE) pool.push(buffer);
  if (buffer.length === FIRST_SIZE && firstPool.length < FIRST_POOL_SIZE) firstPool.push(buffer);
}
