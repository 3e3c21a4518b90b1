/**
 * What a decoder of frames has in hand.
 *
 * A file of its own because an idle connection has nothing of it: the decoder takes one when bytes come,
 * and gives it back when they were read.
 *
 * @module
 */
import type { FrameHeader } from "./frame.ts";

const EMPTY = new Uint8Array(0);
/** Shared by all where nothing waits. */
const NONE: Uint8Array[] = [];

/** What came and was not read yet, and how far the frame in it was read. */
export class Input {
  chunk: Uint8Array = EMPTY;
  offset = 0;
  waiting: Uint8Array[] = NONE;

  /** A header, or the payload of a control frame, that came in several chunks. */
  scratch: Uint8Array | undefined;
  scratchLength = 0;

  header: FrameHeader | undefined;
  key = 0;
  /** Bytes of the present frame's payload that were given out. */
  given = 0;
  started = false;
  /** The first bytes of the payload, with room for more. Undefined: the frame is not put together. */
  gathered: Uint8Array | undefined;
  /** Whether a piece was given out that is a view of the chunk at hand, or of the last one. */
  lent = false;
  /** Where the present frame begins in the whole input. */
  framePosition = 0;

  /** Adds a chunk behind the one at hand. */
  wait(chunk: Uint8Array): void {
    if (this.waiting === NONE) this.waiting = [];
    this.waiting.push(chunk);
  }

  /** How many bytes wait to be read. */
  get length(): number {
    let sum = this.chunk.length - this.offset;
    for (const chunk of this.waiting) sum += chunk.length;
    return sum;
  }

  /** Whether bytes wait to be read. */
  get unread(): boolean {
    return this.offset < this.chunk.length || this.waiting.length > 0;
  }

  /** Whether a frame has begun and is not whole. */
  get withinFrame(): boolean {
    return this.header !== undefined || this.scratchLength > 0;
  }
}

/** One that nobody has: most chunks are read to their end in the turn in which they come. */
let spare: Input | undefined;

/** One for a decoder that has received something. */
export function takeInput(): Input {
  const input = spare ?? new Input();
  spare = undefined;
  return input;
}

/** Takes back one whose chunks were let go, and that is within no frame: any decoder may have it next. */
export function giveInput(input: Input): void {
  spare = input;
}
