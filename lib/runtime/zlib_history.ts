/**
 * The window of a decompressor, which zlib forgets at a final block and RFC 7692 §7.2.3.4 does not.
 *
 * @module
 */

const EMPTY = new Uint8Array(0);
/** The head of a block without compression (RFC 1951 §3.2.4). */
const HEAD_LENGTH = 5;

/** The last bytes that came out: as many as the window holds. */
export class History {
  readonly #window: number;
  /** Room for a head, the window, and half as much again, so that the window seldom has to move. */
  #bytes: Uint8Array = EMPTY;
  #start = HEAD_LENGTH;
  #end = HEAD_LENGTH;

  /** @param windowBits the base-2 logarithm of the window */
  constructor(windowBits: number) {
    this.#window = 1 << windowBits;
  }

  /** How many bytes it holds. */
  get length(): number {
    return this.#end - this.#start;
  }

  /** Adds bytes that came out. */
  add(bytes: Uint8Array): void {
    const window = this.#window;
    if (bytes.length === 0) return;
    if (this.#bytes === EMPTY) this.#bytes = new Uint8Array(HEAD_LENGTH + window + window / 2);
    const last = bytes.length > window ? bytes.subarray(bytes.length - window) : bytes;
    if (this.#end + last.length > this.#bytes.length) {
      this.#start = Math.max(this.#start, this.#end - (window - last.length));
      this.#bytes.copyWithin(HEAD_LENGTH, this.#start, this.#end);
      this.#end = HEAD_LENGTH + this.length;
      this.#start = HEAD_LENGTH;
    }
    this.#bytes.set(last, this.#end);
    this.#end += last.length;
    this.#start = Math.max(this.#start, this.#end - window);
  }

  /** Forgets them. */
  clear(): void {
    this.#start = this.#end = HEAD_LENGTH;
  }

  /** The bytes as a block without compression, until the next call of `add()`; no bytes if it holds none. */
  block(): Uint8Array {
    const { length } = this;
    if (length === 0) return EMPTY;
    const at = this.#start - HEAD_LENGTH;
    this.#bytes.set([0, length, length >> 8, ~length, ~length >> 8], at);
    return this.#bytes.subarray(at, this.#end);
  }
}
