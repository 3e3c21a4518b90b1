/**
 * Frames to messages and back (RFC 6455 §5.4, §5.6).
 *
 * @module
 */
import { CloseCode } from "./close.ts";
import type { DataPiece, FramePiece } from "./decoder.ts";
import { RemoteProtocolError } from "./error.ts";
import { type Frame, Opcode } from "./frame.ts";
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

const EMPTY = new Uint8Array(0);

/**
 * Reads the pieces of data frames as messages, or as pieces of messages: checks the order of fragments,
 * the length of the message, which counts what its frames declare, and text, at each piece. A frame that
 * an extension has inflated declares nothing: its bytes count as they come.
 */
export class MessageReader {
  /**
   * Whether `read()` puts messages together. Otherwise it gives each piece; a binary one may be a view of
   * what was received.
   */
  whole: boolean;
  readonly #maxMessageSize: number;
  readonly #codec: TextCodec;
  readonly #allocate: Allocate | undefined;
  /** Opcode of the message under way, or 0 between messages. */
  #opcode = 0;
  #withinFrame = false;
  /** Length of the message so far, with everything that its frames declare. */
  #size = 0;
  /** What the current frame has declared and has not been received. */
  #declared = 0;
  /** Decodes text that does not lie whole in one piece. */
  #utf8: Utf8Decoder | undefined;
  #withinText = false;
  #parts: MessageParts | undefined;

  /**
   * Makes a reader for one connection.
   *
   * @param options the limit and the codec
   * @param whole whether `read()` puts messages together
   * @param allocate takes memory for messages, which need not be zeroed
   */
  constructor(options: MessageOptions = {}, whole: boolean = false, allocate?: Allocate) {
    this.#maxMessageSize = options.maxMessageSize ?? Infinity;
    this.#codec = options.textCodec ?? webTextCodec;
    this.#allocate = allocate;
    this.whole = whole;
  }

  /** What is held of a message that is put together: bytes, or code units of text. */
  get held(): number {
    return this.#parts === undefined ? 0 : this.#parts.size;
  }

  /**
   * Reads one piece of a data frame. Undefined if it is put together with the ones that follow.
   *
   * @throws {RemoteProtocolError} 1002, 1007 or 1009
   */
  read(piece: DataPiece): Fragment | undefined {
    if (!this.#withinFrame) this.#beginFrame(piece.opcode, piece.length);
    this.#withinFrame = !piece.last;
    this.#declared -= piece.size;
    if (this.#declared < 0) {
      this.#size -= this.#declared;
      this.#declared = 0;
    }
    if (this.#size > this.#maxMessageSize) throw this.#tooBig();
    const finished = piece.last && piece.fin;
    const isText = this.#opcode === Opcode.Text;
    if (finished) this.#opcode = 0;
    return isText ? this.#readText(piece, finished) : this.#readBinary(piece, finished);
  }

  /** Gives out what is held of an unfinished message, as one piece, and forgets it. */
  takeHeld(): Fragment | undefined {
    return this.#parts?.takePartial(this.#opcode === Opcode.Text);
  }

  /**
   * Says that no more pieces come.
   *
   * @throws {RemoteProtocolError} 1006 when the input ends within a message
   */
  end(): void {
    if (this.#opcode === 0) return;
    throw new RemoteProtocolError("Expected the message to go on, the input ended within it", 1006);
  }

  #beginFrame(opcode: number, length: number): void {
    if (opcode === Opcode.Continuation) {
      // RFC 6455 §5.4: a continuation needs a message to continue.
      if (this.#opcode === 0) throw misplaced("a frame that begins a message", "a continuation");
    } else {
      // RFC 6455 §5.4: the fragments of two messages are not interleaved.
      if (this.#opcode !== 0) throw misplaced("a continuation", "a frame that begins a message");
      this.#opcode = opcode;
      this.#size = 0;
    }
    this.#size += length;
    this.#declared = length;
  }

  #tooBig(): RemoteProtocolError {
    return new RemoteProtocolError(
      `Expected a message of at most ${this.#maxMessageSize} bytes, received at least ${this.#size}`,
      CloseCode.MessageTooBig,
    );
  }

  #readText(piece: DataPiece, finished: boolean): Fragment | undefined {
    let data: string | undefined;
    // Text that lies whole in one piece needs no state.
    if (finished && !this.#withinText && piece.size > 0) {
      try {
        data = piece.text(this.#codec);
      } catch {
        // The incremental decoder finds the place and says it.
      }
    }
    data ??= this.#decodeNext(piece, finished);
    if (!this.whole) {
      return { type: "text", data, frameFinished: piece.last, messageFinished: finished };
    }
    if (finished && (this.#parts === undefined || this.#parts.size === 0)) {
      return { type: "text", data, frameFinished: true, messageFinished: true };
    }
    const parts = this.#parts ??= new MessageParts(this.#allocate);
    parts.addText(data);
    return finished ? fragment(parts.take(true), true, true) : undefined;
  }

  #decodeNext(piece: DataPiece, finished: boolean): string {
    this.#withinText = !finished;
    this.#utf8 ??= new Utf8Decoder("a text message", this.#codec);
    return this.#utf8.push(piece.bytes(), finished);
  }

  #readBinary(piece: DataPiece, finished: boolean): Fragment | undefined {
    if (!this.whole) {
      const data = piece.bytes();
      return { type: "binary", data, frameFinished: piece.last, messageFinished: finished };
    }
    if (finished && (this.#parts === undefined || this.#parts.size === 0)) {
      return { type: "binary", data: piece.copy(), frameFinished: true, messageFinished: true };
    }
    const parts = this.#parts ??= new MessageParts(this.#allocate);
    parts.addBytes(piece, this.#declared);
    return finished ? fragment(parts.take(false), true, true) : undefined;
  }
}

function fragment(data: Message, frameFinished: boolean, messageFinished: boolean): Fragment {
  return typeof data === "string"
    ? { type: "text", data, frameFinished, messageFinished }
    : { type: "binary", data, frameFinished, messageFinished };
}

function misplaced(expected: string, received: string): RemoteProtocolError {
  return new RemoteProtocolError(`Expected ${expected}, received ${received}`, 1002);
}

/**
 * Puts the pieces of messages together. It holds one message at a time, in memory that is
 * proportional to its size, however small its pieces are. Bytes are copied into a buffer of the
 * message's own, unless they are a single piece that fills its buffer.
 */
export class MessageAssembler {
  readonly #parts = new MessageParts();
  #isText = false;

  /** Adds a piece; gives the message when it is whole. A binary message has a buffer of its own. */
  push({ type, data, messageFinished }: Fragment): Message | undefined {
    this.#isText = type === "text";
    if (type === "text") {
      if (messageFinished && this.size === 0) return data;
      this.#parts.addText(data);
    } else {
      if (messageFinished && this.size === 0) return ownBytes(data);
      this.#parts.addBytes(new Received(data), 0);
    }
    return messageFinished ? this.#parts.take(this.#isText) : undefined;
  }

  /** Amount held: bytes of a binary message, code units of a text message. */
  get size(): number {
    return this.#parts.size;
  }

  /** Gives out what is held of an unfinished message, as one piece, and forgets it. */
  takePartial(): Fragment | undefined {
    return this.#parts.takePartial(this.#isText);
  }
}

/** A piece that an extension has decoded, or that another decoder has given. */
export class DecodedPiece implements DataPiece {
  fin = true;
  opcode = 0;
  length = 0;
  size = 0;
  last = true;
  #payload: Uint8Array = EMPTY;

  /** Describes this piece from now on. */
  set({ header, payload, last }: FramePiece): this {
    this.fin = header.fin;
    this.opcode = header.opcode;
    this.length = header.length;
    this.size = payload.length;
    this.last = last;
    this.#payload = payload;
    return this;
  }

  bytes(): Uint8Array {
    return this.#payload;
  }

  copy(): Uint8Array {
    return ownBytes(this.#payload);
  }

  text(codec: TextCodec): string {
    return codec.decode(this.#payload, 0, this.size);
  }

  copyTo(target: Uint8Array, at: number): void {
    target.set(this.#payload, at);
  }
}

/** The bytes in a buffer of their own: a copy, unless they fill the buffer that they are in. */
export function ownBytes(bytes: Uint8Array): Uint8Array {
  const { length } = bytes;
  // An empty array may be shared, and may have been transferred.
  if (length === 0) return new Uint8Array(0);
  return length === bytes.buffer.byteLength ? bytes : new Uint8Array(bytes);
}

/** Bytes that are no longer masked. */
class Received implements Pick<DataPiece, "size" | "copyTo"> {
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get size(): number {
    return this.#bytes.length;
  }

  copyTo(target: Uint8Array, at: number): void {
    target.set(this.#bytes, at);
  }
}

/** Takes memory that need not be zeroed. */
type Allocate = (length: number) => Uint8Array;

/** Memory is taken for no more than so many times what has been received. */
const PLAUSIBLE = 16;
/** This many strings are joined at a time. */
const JOINED = 1024;

/** The parts of a message that is put together. */
class MessageParts {
  /** What is held: bytes, or code units of text. */
  size = 0;
  readonly #allocate: Allocate;
  #bytes: Uint8Array = EMPTY;
  #strings: string[] = [];
  #joined: string[] = [];

  constructor(allocate: Allocate = (length) => new Uint8Array(length)) {
    this.#allocate = allocate;
  }

  addText(text: string): void {
    this.size += text.length;
    if (text === "" || this.#strings.push(text) < JOINED) return;
    this.#joined.push(this.#strings.join(""));
    this.#strings = [];
  }

  /**
   * Adds bytes.
   *
   * @param declared how many bytes the frame has declared beside these
   */
  addBytes(piece: Pick<DataPiece, "size" | "copyTo">, declared: number): void {
    const end = this.size + piece.size;
    if (end > this.#bytes.length) this.#grow(end, end + declared);
    if (piece.size > 0) piece.copyTo(this.#bytes, this.size);
    this.size = end;
  }

  /** Makes room: for what was declared if that is plausible, and for twice as much as before. */
  #grow(needed: number, expected: number): void {
    const { size } = this;
    const plausible = expected <= needed * PLAUSIBLE;
    const longer = this.#allocate(plausible ? Math.max(expected, 2 * size) : 2 * needed);
    if (size > 0) longer.set(this.#bytes.subarray(0, size));
    this.#bytes = longer;
  }

  /** Gives out what is held as a piece of a message, and forgets it. */
  takePartial(text: boolean): Fragment | undefined {
    return this.size === 0 ? undefined : fragment(this.take(text), false, false);
  }

  /** Gives out everything as one message, in memory of its own, and forgets it. */
  take(text: boolean): Message {
    const { size } = this;
    this.size = 0;
    return text ? this.#takeText() : this.#takeBytes(size);
  }

  #takeText(): string {
    const text = [...this.#joined, ...this.#strings].join("");
    this.#joined = [];
    this.#strings = [];
    return text;
  }

  #takeBytes(size: number): Uint8Array {
    const bytes = this.#bytes;
    this.#bytes = EMPTY;
    // Memory that was allocated elsewhere may be part of a larger buffer.
    return ownBytes(bytes.length === size ? bytes : bytes.subarray(0, size));
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
