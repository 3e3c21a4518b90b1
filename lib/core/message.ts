/** Converts frames to messages and messages to frames (RFC 6455 §5.4, §5.6). */
import { CloseCode } from "./close.ts";
import type { DataPiece, FramePiece } from "./decoder.ts";
import { RemoteProtocolError, wrongType, wrongValue } from "./error.ts";
import { type Frame, Opcode } from "./frame.ts";
import { type TextCodec, Utf8Decoder, webTextCodec } from "./utf8.ts";

/** Default for the maximum size of a message, in bytes: 1 MiB. */
export const MAX_MESSAGE_SIZE = 1048576;

/** A message. A string is a text message; bytes are a binary message. */
export type Message = string | Uint8Array;

/** A piece of a message. */
export type Fragment =
  & ({
    /** A piece of a text message. */
    type: "text";
    /** Complete characters. A character that is cut off is in the next piece. */
    data: string;
  } | {
    /** A piece of a binary message. */
    type: "binary";
    /** The bytes. In a received event, they may be a view of the input. */
    data: Uint8Array;
  })
  & {
    /** Whether the frame ends with this piece. */
    frameFinished: boolean;
    /** Whether the message ends with this piece. */
    messageFinished: boolean;
    /** When sending: whether to compress the message, if agreed. By default, its size decides. */
    compress?: boolean;
  };

/** Options for reading messages. */
export interface MessageOptions {
  /**
   * Maximum size of a message, in bytes. A longer message fails with 1009.
   * @default {Infinity}
   */
  maxMessageSize?: number | undefined;
  /** The codec for text. By default, TextDecoder and TextEncoder are used. */
  textCodec?: TextCodec | undefined;
}

const EMPTY = /* @__PURE__ */ new Uint8Array(0);

interface Assembly {
  /** Whether `read()` returns whole messages. A piece may be a view of the input. */
  readonly whole: boolean;
  readonly allocate?: Allocate | undefined;
}

const PIECES: Assembly = { whole: false };

/**
 * Reads pieces of data frames as messages, or as pieces of messages. It checks the order of the
 * fragments, the size of the message and the UTF-8 of text. The size includes the declared length
 * of an incomplete frame. Inflated frames have no declared length.
 */
export class MessageReader {
  maxMessageSize!: number;
  #codec!: TextCodec;
  /** The opcode of the message that has begun, or 0 between messages. */
  opcode = 0;
  #withinFrame = false;
  /** The size of the current message, including the declared length of its frames. */
  #size = 0;
  /** The declared bytes of the current frame that have not been received. */
  #declared = 0;
  #utf8: Utf8Decoder | undefined;
  #withinText = false;
  #parts: MessageParts | undefined;

  constructor(options: MessageOptions = {}) {
    this.begin(options);
  }

  /** Begins with the next message of a connection. The reader is new, or between messages. */
  begin(options: MessageOptions): void {
    this.maxMessageSize = options.maxMessageSize ?? Infinity;
    this.#codec = options.textCodec ?? webTextCodec;
  }

  /** Drops what it has from its connection, so that another one can begin. */
  leave(): void {
    this.#utf8 = undefined;
    this.#parts = undefined;
  }

  /** Amount held of an incomplete message: bytes, or code units of text. */
  get held(): number {
    return this.#parts === undefined ? 0 : this.#parts.size;
  }

  /** Reads one piece of a data frame. Returns undefined while the message is incomplete. */
  read(piece: DataPiece, assembly: Assembly = PIECES): Fragment | undefined {
    if (!this.#withinFrame) this.#beginFrame(piece.opcode, piece.length);
    this.#withinFrame = !piece.last;
    this.#declared -= piece.size;
    if (this.#declared < 0) {
      this.#size -= this.#declared;
      this.#declared = 0;
    }
    if (this.#size > this.maxMessageSize) throw this.#tooBig();
    const finished = piece.last && piece.fin;
    const isText = this.opcode === Opcode.Text;
    if (finished) this.opcode = 0;
    return isText
      ? this.#readText(piece, finished, assembly)
      : this.#readBinary(piece, finished, assembly);
  }

  /** Returns the held part of an incomplete message as one piece, and forgets it. */
  takeHeld(): Fragment | undefined {
    return this.#parts?.takePartial(this.opcode === Opcode.Text);
  }

  end(): void {
    if (this.opcode === 0) return;
    throw new RemoteProtocolError("The input ended within a message", 1006);
  }

  #beginFrame(opcode: number, length: number): void {
    if (opcode === Opcode.Continuation) {
      // RFC 6455 §5.4: a continuation needs a message to continue.
      if (this.opcode === 0) throw misplaced("A continuation frame has no message to continue");
    } else {
      // RFC 6455 §5.4: the fragments of two messages are not interleaved.
      if (this.opcode !== 0) {
        const type = opcode === Opcode.Text ? "text" : "binary";
        throw misplaced(`A ${type} message began before the last one was finished`);
      }
      this.opcode = opcode;
      this.#size = 0;
    }
    this.#size += length;
    this.#declared = length;
  }

  #tooBig(): RemoteProtocolError {
    return new RemoteProtocolError(
      `Message of at least ${this.#size} bytes exceeds maxMessageSize (${this.maxMessageSize})`,
      CloseCode.MessageTooBig,
    );
  }

  #readText(piece: DataPiece, finished: boolean, assembly: Assembly): Fragment | undefined {
    let data: string | undefined;
    // Text in a single piece needs no state.
    if (finished && !this.#withinText && piece.size > 0) {
      try {
        data = piece.text(this.#codec);
      } catch {
        // The incremental decoder finds the position of the error.
      }
    }
    data ??= this.#decodeNext(piece, finished);
    if (!assembly.whole) {
      return { type: "text", data, frameFinished: piece.last, messageFinished: finished };
    }
    if (finished && (this.#parts === undefined || this.#parts.size === 0)) {
      return { type: "text", data, frameFinished: true, messageFinished: true };
    }
    const parts = this.#parts ??= new MessageParts(assembly.allocate);
    parts.addText(data);
    return finished ? fragment(parts.take(true), true, true) : undefined;
  }

  #decodeNext(piece: DataPiece, finished: boolean): string {
    this.#withinText = !finished;
    this.#utf8 ??= new Utf8Decoder("a text message", this.#codec);
    return this.#utf8.pushPiece(piece, finished);
  }

  #readBinary(piece: DataPiece, finished: boolean, assembly: Assembly): Fragment | undefined {
    if (!assembly.whole) {
      const data = piece.bytes();
      return { type: "binary", data, frameFinished: piece.last, messageFinished: finished };
    }
    if (finished && (this.#parts === undefined || this.#parts.size === 0)) {
      return { type: "binary", data: piece.copy(), frameFinished: true, messageFinished: true };
    }
    const parts = this.#parts ??= new MessageParts(assembly.allocate);
    parts.addBytes(piece, this.#declared);
    return finished ? fragment(parts.take(false), true, true) : undefined;
  }
}

export function fragment(
  data: Message,
  frameFinished: boolean,
  messageFinished: boolean,
): Fragment {
  return typeof data === "string"
    ? { type: "text", data, frameFinished, messageFinished }
    : { type: "binary", data, frameFinished, messageFinished };
}

function misplaced(message: string): RemoteProtocolError {
  return new RemoteProtocolError(message, 1002);
}

/**
 * Joins the pieces of messages. It holds one message at a time, and its memory is proportional to
 * the size of the message, even if the pieces are small.
 */
export class MessageAssembler {
  readonly #parts = new MessageParts();
  #isText = false;

  /** Adds a piece. Returns the message when it is complete. A binary message has its own buffer. */
  push({ type, data, messageFinished }: Fragment): Message | undefined {
    this.#isText = type === "text";
    if (type === "text") {
      if (messageFinished && this.size === 0) return data;
      this.#parts.addText(data);
    } else {
      if (messageFinished && this.size === 0) return ownBytes(data);
      const copyTo = (target: Uint8Array, at: number) => target.set(data, at);
      this.#parts.addBytes({ size: data.length, copyTo }, 0);
    }
    return messageFinished ? this.#parts.take(this.#isText) : undefined;
  }

  /** Amount held: bytes of a binary message, or code units of a text message. */
  get size(): number {
    return this.#parts.size;
  }

  /** Returns the held part of an incomplete message as one piece, and forgets it. */
  takePartial(): Fragment | undefined {
    return this.#parts.takePartial(this.#isText);
  }
}

/** A piece from an extension or another decoder. */
export class DecodedPiece implements DataPiece {
  fin = true;
  opcode = 0;
  length = 0;
  size = 0;
  last = true;
  #payload: Uint8Array = EMPTY;

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

  get endsInAscii(): boolean {
    return this.#payload[this.size - 1] < 0x80;
  }

  copyTo(target: Uint8Array, at: number): void {
    target.set(this.#payload, at);
  }
}

/**
 * Returns a view without the members of a subclass. A subclass may report a wrong length, and may return
 * other bytes from `subarray()`.
 * @throws {TypeError} If the bytes were detached.
 */
export function plainView(bytes: Uint8Array): Uint8Array {
  // The members of all typed arrays, whatever a subclass has in their place.
  const members: object = Object.getPrototypeOf(Uint8Array.prototype);
  const [buffer, byteOffset, length] = ["buffer", "byteOffset", "length"].map((name) =>
    Reflect.get(members, name, bytes)
  );
  return new Uint8Array(buffer, byteOffset, length);
}

/** Returns bytes that fill their own buffer. They are copied if necessary. */
export function ownBytes(bytes: Uint8Array): Uint8Array {
  const { length } = bytes;
  // An empty array may be shared, and its buffer may have been transferred.
  if (length === 0) return new Uint8Array(0);
  return length === bytes.buffer.byteLength ? bytes : new Uint8Array(bytes);
}

type Allocate = (length: number) => Uint8Array;

/** Memory is reserved for a declared length of at most this many times the received size. */
const PLAUSIBLE = 16;
const JOINED = 1024;

/** After a first frame of at most this length, there is room for three more. */
const SHORT = 4096;

class MessageParts {
  /** Amount held: bytes, or code units of text. */
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

  /** Adds bytes. The frame has declared `declared` more bytes. */
  addBytes(piece: Pick<DataPiece, "size" | "copyTo">, declared: number): void {
    const end = this.size + piece.size;
    if (end > this.#bytes.length) this.#grow(end, end + declared);
    if (piece.size > 0) piece.copyTo(this.#bytes, this.size);
    this.size = end;
  }

  /** Makes room for the declared length, if it is plausible, or at least doubles the capacity. */
  #grow(needed: number, expected: number): void {
    const { size } = this;
    const isFirstFrame = size === 0 && expected === needed;
    const plausible = expected <= needed * PLAUSIBLE;
    const longer = this.#allocate(
      isFirstFrame && needed <= SHORT
        ? 4 * needed
        : plausible
        ? Math.max(expected, 2 * size)
        : 2 * needed,
    );
    if (size > 0) longer.set(this.#bytes.subarray(0, size));
    this.#bytes = longer;
  }

  takePartial(text: boolean): Fragment | undefined {
    return this.size === 0 ? undefined : fragment(this.take(text), false, false);
  }

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
    // Memory from `allocate` may be part of a larger buffer.
    return ownBytes(bytes.length === size ? bytes : bytes.subarray(0, size));
  }
}

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

/** Options of {@linkcode fragments}. */
export interface FragmentsOptions {
  /**
   * Maximum payload of a frame, in bytes. By default, a message is one frame.
   * @default {Infinity}
   */
  maxFrameSize?: number | undefined;
}

const encoder = /* @__PURE__ */ new TextEncoder();

/**
 * Splits a message into frames. The payloads are views of the bytes of the message.
 * @throws {RangeError} If `maxFrameSize` is not an integer of at least 1.
 * @throws {TypeError} If the bytes of the message were detached or resized before the last frame.
 */
export function* fragments(message: Message, options: FragmentsOptions = {}): Generator<Frame> {
  const { maxFrameSize = Infinity } = options;
  if (!(maxFrameSize >= 1) || (maxFrameSize !== Infinity && !Number.isInteger(maxFrameSize))) {
    throw wrongValue(
      `Expected maxFrameSize to be a positive integer or Infinity, received ${maxFrameSize}`,
    );
  }
  const text = typeof message === "string";
  const bytes = text ? encoder.encode(message) : message;
  const { length } = bytes;
  let opcode: Opcode = text ? Opcode.Text : Opcode.Binary;
  let at = 0;
  do {
    if (bytes.length !== length) {
      throw wrongType("The bytes were detached or resized before all frames were made");
    }
    const end = Math.min(length, at + maxFrameSize);
    yield { fin: end === length, rsv: 0, opcode, payload: bytes.subarray(at, end) };
    // RFC 6455 §5.4: all fragments after the first are continuations.
    opcode = Opcode.Continuation;
    at = end;
  } while (at < length);
}
