/**
 * Frames to messages and back (RFC 6455 §5.4, §5.6).
 *
 * @module
 */
import { RemoteProtocolError } from "./error.ts";
import { type Frame, type FrameHeader, Opcode } from "./frame.ts";
import type { FramePiece } from "./frame_decoder.ts";
import { type TextCodec, Utf8Decoder, webTextCodec } from "./utf8.ts";

/** The longest message that is put together where nobody says otherwise, in bytes: 1 MiB. */
export const MAX_MESSAGE_SIZE = 1048576;

/** A message: a string is a text message, bytes are a binary one. */
export type Message = string | Uint8Array;

/** A piece of a text message. */
export interface TextEvent {
  /** Tells the events apart. */
  type: "text";
  /** Whole characters; what a piece cuts off comes with the next one. */
  data: string;
  /** Whether the frame ends with this piece. */
  frameFinished: boolean;
  /** Whether the message ends with this piece. */
  messageFinished: boolean;
  /** When sent: whether to compress the message, where that was agreed on. Default: by its size */
  compress?: boolean;
}

/** A piece of a binary message. */
export interface BinaryEvent {
  /** Tells the events apart. */
  type: "binary";
  /** The bytes. In an event that was received they may be a view of the input. */
  data: Uint8Array;
  /** Whether the frame ends with this piece. */
  frameFinished: boolean;
  /** Whether the message ends with this piece. */
  messageFinished: boolean;
  /** When sent: whether to compress the message, where that was agreed on. Default: by its size */
  compress?: boolean;
}

/** A piece of a message. */
export type Fragment = TextEvent | BinaryEvent;

/** How messages are read. */
export interface MessageOptions {
  /** The longest message, in bytes; a longer one fails with 1009. Default: Infinity */
  maxMessageSize?: number;
  /** How text is decoded. Default: TextDecoder and TextEncoder */
  textCodec?: TextCodec;
}

/** What is known of the message that comes in pieces. */
class Pieces {
  /** The opcode of the message under way, or 0 between messages. */
  opcode = 0;
  /** The length of the message so far, with what its frames declare and has not come. */
  size = 0;
  declared = 0;
  withinFrame = false;
  withinText = false;
  /** For text that does not lie whole in one piece. */
  utf8: Utf8Decoder | undefined;
}

/**
 * Reads the pieces of data frames as pieces of messages: checks the order of fragments, the length
 * of the message, on what its frames declare already, and text, at each piece. A frame that an
 * extension has inflated declares nothing: what comes of it counts.
 */
export class FragmentReader {
  readonly #maxMessageSize: number;
  readonly #codec: TextCodec;
  /** Made for the first frame that is not read whole. */
  #pieces: Pieces | undefined;

  /**
   * Makes a reader for one connection.
   *
   * @param options the limit and the codec
   */
  constructor(options: MessageOptions = {}) {
    this.#maxMessageSize = options.maxMessageSize ?? Infinity;
    this.#codec = options.textCodec ?? webTextCodec;
  }

  /**
   * Reads one piece of a data frame.
   *
   * @throws {RemoteProtocolError} 1002, 1007 or 1009
   */
  read(piece: FramePiece): Fragment {
    const { header, payload, last } = piece;
    const pieces = this.#pieces ??= new Pieces();
    if (!pieces.withinFrame) this.#beginFrame(header, pieces);
    this.#count(payload.length, pieces);
    const messageFinished = last && header.fin;
    const { opcode } = pieces;
    pieces.withinFrame = !last;
    if (messageFinished) pieces.opcode = 0;
    return opcode === Opcode.Text
      ? {
        type: "text",
        data: this.#text(payload, messageFinished, pieces),
        frameFinished: last,
        messageFinished,
      }
      : { type: "binary", data: payload, frameFinished: last, messageFinished };
  }

  /** Whether a frame of this many bytes may be a message of its own now; if not, `read()` says why. */
  takesWhole(length: number): boolean {
    return !this.#underway && length <= this.#maxMessageSize;
  }

  /** Decodes the text of such a frame; undefined if it is not UTF-8, which `read()` refuses. */
  decodeWhole(bytes: Uint8Array, start: number, end: number): string | undefined {
    try {
      return this.#codec.decode(bytes, start, end);
    } catch {
      return undefined;
    }
  }

  /** Whether a message has begun and is not whole. */
  get #underway(): boolean {
    return this.#pieces !== undefined && this.#pieces.opcode !== 0;
  }

  /**
   * Says that no more pieces come.
   *
   * @throws {RemoteProtocolError} 1006 when the input ends within a message
   */
  end(): void {
    if (!this.#underway) return;
    throw new RemoteProtocolError("Expected the message to go on, the input ended within it", 1006);
  }

  #beginFrame(header: FrameHeader, pieces: Pieces): void {
    const { opcode, length } = header;
    if (opcode === Opcode.Continuation) {
      // RFC 6455 §5.4: a continuation needs a message to continue.
      if (pieces.opcode === 0) throw misplaced("a frame that begins a message", "a continuation");
    } else {
      // RFC 6455 §5.4: the fragments of two messages are not interleaved.
      if (pieces.opcode !== 0) throw misplaced("a continuation", "a frame that begins a message");
      pieces.opcode = opcode;
      pieces.size = 0;
    }
    pieces.declared = length;
    this.#grow(length, pieces);
  }

  /** Counts what came, as far as it was not declared. */
  #count(length: number, pieces: Pieces): void {
    pieces.declared -= length;
    if (pieces.declared >= 0) return;
    const more = -pieces.declared;
    pieces.declared = 0;
    this.#grow(more, pieces);
  }

  #grow(length: number, pieces: Pieces): void {
    pieces.size += length;
    if (pieces.size <= this.#maxMessageSize) return;
    throw new RemoteProtocolError(
      `Expected a message of at most ${this.#maxMessageSize} bytes, received at least ${pieces.size}`,
      1009,
    );
  }

  #text(payload: Uint8Array, last: boolean, pieces: Pieces): string {
    // A message that lies whole in one piece needs no state.
    if (last && !pieces.withinText && payload.length > 0) {
      try {
        return this.#codec.decode(payload, 0, payload.length);
      } catch {
        // The incremental decoder finds the place and says it.
      }
    }
    pieces.withinText = !last;
    pieces.utf8 ??= new Utf8Decoder("a text message", this.#codec);
    return pieces.utf8.push(payload, last);
  }
}

function misplaced(expected: string, received: string): RemoteProtocolError {
  return new RemoteProtocolError(`Expected ${expected}, received ${received}`, 1002);
}

/** Pieces below this size are gathered, so that each does not cost an object of its own. */
const SMALL = 1024;
/** They are gathered up to this many bytes. */
const GATHERED = 16384;
/** The room that is taken for the first of them, in bytes. */
const FIRST_ROOM = 64;
const EMPTY = new Uint8Array(0);

/**
 * Puts the pieces of messages together. It holds one message at a time, in memory that is
 * proportional to its size, however small its pieces are. Bytes are copied into a buffer of the
 * message's own, unless they are a single piece that fills its buffer.
 */
export class MessageAssembler {
  #text: TextRope | undefined;
  #binary: ByteRope | undefined;

  /** Adds a piece; gives the message when it is whole. */
  push(fragment: Fragment): Message | undefined {
    if (fragment.messageFinished && this.#text === undefined && this.#binary === undefined) {
      return wholeMessage(fragment);
    }
    // The length alone, which its reader has checked.
    if (!fragment.messageFinished && fragment.data.length === 0) return undefined;
    if (fragment.type === "text") {
      this.#text ??= new TextRope();
      this.#text.add(fragment.data);
    } else {
      this.#binary ??= new ByteRope();
      this.#binary.add(fragment.data);
    }
    return fragment.messageFinished ? this.#whole() : undefined;
  }

  /** What is held: bytes of a binary message, code units of a text message. */
  get size(): number {
    return (this.#text?.size ?? 0) + (this.#binary?.size ?? 0);
  }

  /** Gives out what is held of an unfinished message, as one piece, and forgets it. */
  takePartial(): Fragment | undefined {
    if (this.#text === undefined && this.#binary === undefined) return undefined;
    const unfinished = { frameFinished: false, messageFinished: false };
    const data = this.#whole();
    return typeof data === "string"
      ? { type: "text", data, ...unfinished }
      : { type: "binary", data, ...unfinished };
  }

  #whole(): Message {
    const message = this.#text === undefined ? this.#binary!.join() : this.#text.join();
    this.#text = this.#binary = undefined;
    return message;
  }
}

/** The message that a piece is the whole of. */
export function wholeMessage(fragment: Fragment): Message {
  return fragment.type === "text" ? fragment.data : ownBytes(fragment.data);
}

/** A growing text, as a list of pieces in two levels: small ones are joined a thousand at a time. */
class TextRope {
  #large: string[] = [];
  #small: string[] = [];
  #smallSize = 0;
  size = 0;

  add(part: string): void {
    this.size += part.length;
    if (part.length >= SMALL) {
      this.#gather();
      this.#large.push(part);
    } else if (part.length > 0) {
      this.#small.push(part);
      this.#smallSize += part.length;
      if (this.#small.length >= SMALL || this.#smallSize >= GATHERED) this.#gather();
    }
  }

  join(): string {
    this.#gather();
    return this.#large.join("");
  }

  #gather(): void {
    if (this.#small.length === 0) return;
    this.#large.push(this.#small.join(""));
    this.#small = [];
    this.#smallSize = 0;
  }
}

/** A growing list of bytes; small pieces are copied one behind the other. */
class ByteRope {
  #large: Uint8Array[] = [];
  #small: Uint8Array = EMPTY;
  #smallSize = 0;
  size = 0;

  add(part: Uint8Array): void {
    this.size += part.length;
    if (part.length >= SMALL) {
      this.#gather();
      this.#large.push(ownBytes(part));
      return;
    }
    const end = this.#smallSize + part.length;
    if (end > this.#small.length) this.#grow(end);
    this.#small.set(part, this.#smallSize);
    this.#smallSize = end;
    if (end >= GATHERED) this.#gather();
  }

  join(): Uint8Array {
    this.#gather();
    return this.#large.length === 1 ? this.#large[0] : concat(this.#large);
  }

  #grow(least: number): void {
    const larger = new Uint8Array(Math.max(2 * least, FIRST_ROOM));
    larger.set(this.#small.subarray(0, this.#smallSize));
    this.#small = larger;
  }

  #gather(): void {
    if (this.#smallSize === 0) return;
    this.#large.push(this.#small.slice(0, this.#smallSize));
    this.#smallSize = 0;
  }
}

/** One array with the bytes of all. */
export function concat(parts: readonly Uint8Array[]): Uint8Array {
  let size = 0;
  for (const part of parts) size += part.length;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** The bytes in a buffer of their own: a copy, unless they fill the one that they are in. */
export function ownBytes(bytes: Uint8Array): Uint8Array {
  const { length } = bytes;
  // Empty arrays are shared.
  return length > 0 && length === bytes.buffer.byteLength ? bytes : new Uint8Array(bytes);
}

/** How {@linkcode fragments} cuts. */
export interface FragmentsOptions {
  /** The longest payload of a frame, in bytes. Default: Infinity, one frame a message */
  maxFrameSize?: number;
}

const encoder = new TextEncoder();

/**
 * Cuts a message into frames, whose payloads are parts of it.
 *
 * @throws {RangeError} If `maxFrameSize` is no whole number from 1 on.
 * @throws {TypeError} If the bytes of the message were detached or resized before the last frame.
 */
export function* fragments(message: Message, options: FragmentsOptions = {}): Generator<Frame> {
  const { maxFrameSize = Infinity } = options;
  if (!(maxFrameSize >= 1) || (maxFrameSize !== Infinity && !Number.isInteger(maxFrameSize))) {
    throw new RangeError(
      `Expected maxFrameSize as a whole number from 1 on, received ${maxFrameSize}`,
    );
  }
  const text = typeof message === "string";
  const bytes = text ? encoder.encode(message) : message;
  const { length } = bytes;
  let opcode: Opcode = text ? Opcode.Text : Opcode.Binary;
  let at = 0;
  do {
    if (bytes.length !== length) {
      throw new TypeError(
        "Expected the bytes to stay until all frames were made, they were detached",
      );
    }
    const end = Math.min(length, at + maxFrameSize);
    yield { fin: end === length, rsv: 0, opcode, payload: bytes.subarray(at, end) };
    // RFC 6455 §5.4: all fragments but the first are continuations.
    opcode = Opcode.Continuation;
    at = end;
  } while (at < length);
}
