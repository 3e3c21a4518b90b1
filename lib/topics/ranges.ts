/** Reads the messages of a subject in several ranges at a time, because each message is a call of its own. */
import { isTooMuch, MESSAGE_OVERHEAD } from "../connection/sending.ts";

/** The smallest range, and the number of ranges. */
const MIN_LENGTH = 16;
const MAX_RANGES = 32;

interface Stored {
  readonly seq: number;
  readonly data: Uint8Array;
}

interface Range<T> {
  readonly first: number;
  readonly last: number;
  readonly found: T[];
  bytes: number;
}

/** Ranges of sequence numbers. If there are too many bytes, the last messages are left out. */
export class Ranges<T extends Stored> {
  readonly #ranges: Range<T>[] = [];
  readonly #maxBytes: number;
  #bytes = 0;
  #isFull = false;

  /** @param maxBytes Maximum number of bytes. One message is always allowed. */
  constructor(first: number, last: number, maxBytes: number) {
    this.#maxBytes = maxBytes;
    const length = Math.max(MIN_LENGTH, Math.ceil((last - first + 1) / MAX_RANGES));
    for (let start = first; start <= last; start += length) {
      const end = Math.min(start + length - 1, last);
      this.#ranges.push({ first: start, last: end, found: [], bytes: 0 });
    }
  }

  get found(): T[] {
    return this.#ranges.flatMap(({ found }) => found);
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Whether messages were left out. */
  get isFull(): boolean {
    return this.#isFull;
  }

  /** @param get Returns the first message from a sequence number on. */
  async read(get: (seq: number) => Promise<T | null>): Promise<void> {
    await Promise.all(Array.from(this.#ranges, async (range) => {
      for (let seq = range.first; seq <= range.last;) {
        const message = await get(seq);
        if (message === null || message.seq > range.last) return;
        if (!this.#add(range, message)) return;
        seq = message.seq + 1;
      }
    }));
  }

  /** Adds a message, instead of later ranges if there is no room. Returns whether it was added. */
  #add(range: Range<T>, message: T): boolean {
    if (!this.#ranges.includes(range)) return false;
    const size = message.data.length + MESSAGE_OVERHEAD;
    while (isTooMuch(this.#bytes, size, this.#maxBytes)) {
      this.#isFull = true;
      if (this.#ranges.at(-1) === range) return false;
      this.#bytes -= this.#ranges.pop()!.bytes;
    }
    range.found.push(message);
    range.bytes += size;
    this.#bytes += size;
    return true;
  }
}
