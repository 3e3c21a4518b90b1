/** Frames that are written once for several encoders. */

/** A frame in bytes that several encoders may hold. Nobody changes them. */
export interface SharedFrame {
  /** The bytes of this frame, and of others. */
  readonly bytes: Uint8Array;
  /** The offset of the header. */
  readonly start: number;
  /** The offset after the payload. */
  readonly end: number;
  /** This frame alone, for the encoders that hold it. */
  range?: SharedRange;
  /** The frames for encoders with an extension. See `Extension.sharedBy()`. */
  changed?: Map<object, SharedFrame>;
}

/** Consecutive frames. All encoders that hold the same frames hold the same object. */
export class SharedRange {
  readonly #bytes: Uint8Array;
  readonly #start: number;
  #end: number;
  #parts: readonly Uint8Array[] | undefined;
  #next: SharedRange | undefined;
  /** Number of frames. */
  frames: number;
  /** Number of encoders that hold the range, and could hold any frame after it. */
  holders = 0;

  constructor({ bytes, start, end }: SharedFrame, frames = 1) {
    this.#bytes = bytes;
    this.#start = start;
    this.#end = end;
    this.frames = frames;
  }

  /** Returns the range that has only this frame. */
  static of(frame: SharedFrame): SharedRange {
    return frame.range ??= new SharedRange(frame);
  }

  get length(): number {
    return this.#end - this.#start;
  }

  /** The bytes, as one part. All holders get the same view. */
  get parts(): readonly Uint8Array[] {
    return this.#parts ??= [this.#bytes.subarray(this.#start, this.#end)];
  }

  /** Whether nothing comes between this range and the frame. */
  precedes(frame: SharedFrame): boolean {
    return this.#bytes === frame.bytes && this.#end === frame.start;
  }

  /** Returns the range with the next frame too. It is the same for all that ask. */
  followedBy({ bytes, end }: SharedFrame): SharedRange {
    return this.#next ??= new SharedRange({ bytes, start: this.#start, end }, this.frames + 1);
  }

  /** Adds the next frame for all holders. */
  grow({ end }: SharedFrame): void {
    this.#end = end;
    this.frames++;
    this.#parts = this.#next = undefined;
  }
}

/** Returns bytes that nobody changes as a frame that encoders can share. */
export function sharedFrame(bytes: Uint8Array): SharedFrame {
  return { bytes, start: 0, end: bytes.length };
}
