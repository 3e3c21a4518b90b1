/**
 * The buffers and the parts of batches. Connections share the buffers, so that an idle connection holds
 * none.
 */
import { Queue } from "./queue.ts";

/** Size of the largest buffers: a message of 64 KiB and its headers fit. */
export const BUFFER_SIZE: number = 65536 + 448;

/** Small buffers are made so many bytes at a time. */
const SLAB = 8192;

/** Offset of a {@linkcode workBuffer} in its memory. */
const SHIFT = 64;

/**
 * Allocates a buffer to copy frames into. Some processors copy ten times slower if the target is 1 to 15
 * bytes further into its page than the source. Large memory and long messages begin at a page, so that a
 * payload after the header of the first frame would be.
 */
export function workBuffer(size: number): Uint8Array {
  return new Uint8Array(SHIFT + size).subarray(SHIFT);
}

/** The free buffers of one size. */
class Pool {
  readonly size: number;
  readonly #most: number;
  readonly #free: Uint8Array[] = [];

  /** @param most Maximum number of buffers that are kept. */
  constructor(size: number, most: number) {
    this.size = size;
    this.#most = most;
  }

  take(): Uint8Array {
    return this.#free.pop() ?? this.#make();
  }

  /** Small buffers are parts of one: an object for the memory of each would take another 100 bytes. */
  #make(): Uint8Array {
    const { size } = this;
    if (size > SLAB) return workBuffer(size);
    const slab = new Uint8Array(SLAB);
    for (let at = size; at + size <= slab.length; at += size) {
      this.#free.push(slab.subarray(at, at + size));
    }
    return slab.subarray(0, size);
  }

  release(buffer: Uint8Array): void {
    if (this.#free.length < this.#most) this.#free.push(buffer);
  }
}

// Most connections write little.
const small = new Pool(256, 4096);
const middle = new Pool(2048, 512);
const large = new Pool(BUFFER_SIZE, 64);

/** Returns the pool of the smallest buffers with at least `size` bytes, or of the largest. */
function poolOf(size: number): Pool {
  return size <= small.size ? small : size <= middle.size ? middle : large;
}

/** Returns a buffer of at least `size` bytes, or one of the largest. */
export function takeBuffer(size: number): Uint8Array {
  return poolOf(size).take();
}

export function releaseBuffer(buffer: Uint8Array): void {
  poolOf(buffer.length).release(buffer);
}

export interface Part {
  bytes: Uint8Array;
  /** The length of the part when it was written. The owner may detach lent bytes. */
  length: number;
  /** The length of the header of lent bytes. The header is at the end of the previous part. */
  header: number;
  /** The full buffer to free after this part has been sent. */
  full: Uint8Array | undefined;
}

/** The parts of a batch that has more than the bytes in the current buffer. */
export class Parts {
  /** Finished parts, before the bytes in the current buffer. */
  readonly waiting: Queue<Part> = new Queue();
  /** Full buffers that were taken and may not have been sent yet. */
  readonly full: Uint8Array[] = [];
  /** Lent parts that were taken and may not have been sent yet. */
  readonly lent: Part[] = [];
  /** Memory that is held in addition to the bytes, in bytes. */
  unused = 0;
  /** Whether the last `take()` dropped a frame because its lent bytes changed length. */
  hasVanished = false;
}

export function isIntact({ bytes, length }: Part): boolean {
  return bytes.length === length;
}

export function unusedOf({ bytes, length, full }: Part): number {
  return full === undefined ? 0 : full.length - (bytes.byteOffset - full.byteOffset) - length;
}
