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

const EMPTY = new Uint8Array(0);

/** The recipients of a broadcast that hold the same range, and nothing else waits for them. */
export interface Crowd {
  readonly range: SharedRange;
  /** The recipients of the broadcast. */
  readonly recipients: readonly unknown[];
  /** Whether the frames are being written. */
  readonly isFlushing: boolean;
  /** Gives the waiting frames to the transports of all members. */
  flush(): void;
  /**
   * Called when an encoder leaves. Returns the frames that are being written, if those of this encoder were
   * not written yet. It sends them itself.
   */
  leave(encoder: object): readonly Uint8Array[] | undefined;
}

/**
 * Consecutive frames. All encoders that hold the same frames hold the same object. The encoders of a crowd
 * keep it when the frames were taken, so that the next frames are added for all of them at once.
 */
export class SharedRange {
  #bytes: Uint8Array;
  #start: number;
  #end: number;
  #parts: readonly Uint8Array[] | undefined;
  #next: SharedRange | undefined;
  /** Number of frames, with those that were taken before these. */
  frames: number;
  /** Numbers of the frames that a crowd has taken, and of their bytes. */
  framesTaken = 0;
  bytesTaken = 0;
  /** Number of encoders that hold the range, and could hold any frame after it. */
  holders = 0;
  /** The crowd that the holders are, until one of them leaves. No other encoder takes the frames. */
  crowd: Crowd | undefined;

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

  /** Whether the crowd has taken the frames. */
  get isTaken(): boolean {
    return this.frames === this.framesTaken;
  }

  /** Takes the frames for the whole crowd. */
  take(): readonly Uint8Array[] {
    const { parts } = this;
    this.bytesTaken += this.length;
    this.framesTaken = this.frames;
    // Do not keep the memory of frames that nobody needs.
    this.#reset(EMPTY, this.#end);
    return parts;
  }

  #reset(bytes: Uint8Array, start: number): void {
    this.#bytes = bytes;
    this.#start = this.#end = start;
    this.#parts = this.#next = undefined;
  }

  /** Whether nothing comes between this range and the frame. */
  precedes(frame: SharedFrame): boolean {
    return this.#bytes === frame.bytes && this.#end === frame.start;
  }

  /** Returns the range with the next frame too. It is the same for all that ask. */
  followedBy({ bytes, end }: SharedFrame): SharedRange {
    const frames = this.frames - this.framesTaken + 1;
    return this.#next ??= new SharedRange({ bytes, start: this.#start, end }, frames);
  }

  /** Adds a frame for the whole crowd. Returns false, and adds nothing, if it does not follow the others. */
  add(frame: SharedFrame): boolean {
    if (this.isTaken) this.#reset(frame.bytes, frame.start);
    else if (!this.precedes(frame)) return false;
    this.#end = frame.end;
    this.frames++;
    this.#parts = this.#next = undefined;
    return true;
  }
}

/** Returns bytes that nobody changes as a frame that encoders can share. */
export function sharedFrame(bytes: Uint8Array): SharedFrame {
  return { bytes, start: 0, end: bytes.length };
}
