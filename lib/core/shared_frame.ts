/** Frames that are written once for several encoders. */

const EMPTY = new Uint8Array(0);

/** Bytes that several encoders may hold. Nobody changes them. */
export class SharedBytes {
  /** All bytes, also those that have not been written yet. */
  readonly all: Uint8Array;
  /** The last range that was asked for: most encoders take the same one. */
  #range: Uint8Array = EMPTY;
  #start = 0;

  /** @param all Bytes that only the caller writes, and only where no range was taken. */
  constructor(all: Uint8Array) {
    this.all = all;
  }

  /** Returns a view of the bytes from `start` to `end`. Other callers may get the same view. */
  range(start: number, end: number): Uint8Array {
    if (start !== this.#start || end - start !== this.#range.length) {
      this.#start = start;
      this.#range = this.all.subarray(start, end);
    }
    return this.#range;
  }
}

/** A frame in bytes that several encoders may hold. */
export interface SharedFrame {
  readonly bytes: SharedBytes;
  /** The offset of the header. */
  readonly start: number;
  /** The offset after the payload. */
  readonly end: number;
  /** The frames for encoders with an extension. See `Extension.sharedBy()`. */
  changed?: Map<object, SharedFrame>;
}

/** Returns bytes that nobody changes as a frame that encoders can share. */
export function sharedFrame(frame: Uint8Array): SharedFrame {
  return { bytes: new SharedBytes(frame), start: 0, end: frame.length };
}
