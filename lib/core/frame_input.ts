/**
 * What a decoder of frames has in hand.
 *
 * A file of its own because an idle connection has nothing of it: the decoder takes one when bytes come,
 * and gives it back when they were read.
 *
 * @module
 */
import type { FrameHeader } from "./frame.ts";
import { Queue } from "./queue.ts";

const EMPTY = new Uint8Array(0);
/** Memory that a chunk takes beside its bytes, at the least. */
const CHUNK_OVERHEAD = 256;

/** What came and was not read yet, and how far the frame in it was read. */
export class Input {
  chunk: Uint8Array = EMPTY;
  offset = 0;
  /** The chunks behind the one at hand. Made for the first of them. */
  #waiting: Queue<Uint8Array> | undefined;
  #waitingLength = 0;

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
    this.#waiting ??= new Queue();
    this.#waiting.push(withoutMuchElse(chunk));
    this.#waitingLength += chunk.length;
  }

  /** Takes the first of the chunks that wait. */
  shift(): Uint8Array | undefined {
    const chunk = this.#waiting?.shift();
    if (chunk !== undefined) this.#waitingLength -= chunk.length;
    return chunk;
  }

  /** Whether chunks wait behind the one at hand. */
  get hasMore(): boolean {
    return this.#waitingLength > 0;
  }

  /** How many bytes wait to be read. */
  get length(): number {
    return this.chunk.length - this.offset + this.#waitingLength;
  }

  /** The memory that they take, about. */
  get memory(): number {
    return this.length + CHUNK_OVERHEAD * (this.#waiting?.length ?? 0);
  }

  /** Whether bytes wait to be read. */
  get unread(): boolean {
    return this.offset < this.chunk.length || this.hasMore;
  }

  /** Whether a frame has begun and is not whole. */
  get withinFrame(): boolean {
    return this.header !== undefined || this.scratchLength > 0;
  }
}

/** The bytes; a copy where most of their buffer holds other things, which they would keep. */
function withoutMuchElse(bytes: Uint8Array): Uint8Array {
  return 2 * bytes.length > bytes.buffer.byteLength ? bytes : new Uint8Array(bytes);
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
