/** The receiving half of a connection: takes events from the protocol and calls its owner. */
import { Buffer, isUtf8 } from "node:buffer";
import { CloseCode } from "../core/close.ts";
import { RemoteProtocolError } from "../core/error.ts";
import type { EventOf, ProtocolEvent } from "../core/event.ts";
import { concat } from "../core/message.ts";
import type { Protocol, ProtocolOptions } from "../core/protocol.ts";
import type { TextCodec } from "../core/utf8.ts";
import { nodeTextCodec } from "../runtime/node.ts";
import { nextTurn } from "../timers.ts";
import type { RawData } from "./event_target.ts";

/** The type of binary messages. */
export type BinaryType = "nodebuffer" | "arraybuffer" | "fragments" | "blob";

export const BINARY_TYPES: readonly string[] = ["nodebuffer", "arraybuffer", "fragments", "blob"];

/** No bytes. Events without data share it. */
export const EMPTY: Buffer = Buffer.alloc(0);

/** Number of bytes from which on the peer is held back while received events wait. */
const READ_MARK = 65536;

/** Maximum number of inflated messages that a connection emits in one turn. */
const MOST_INFLATED = 64;

/** Texts up to this length are checked in a loop. */
const SHORT_TEXT = 32;

/** Options of an {@linkcode Inlet}. */
export interface InletOptions {
  /** Whether several events may be emitted in the same turn. */
  allowSynchronousEvents?: boolean | undefined;
  /** Maximum size of a message, in bytes. 0 disables the limit. */
  maxPayload?: number | undefined;
  /** Maximum number of frames of a message. 0, or no value, disables the limit. */
  maxFragments?: number | undefined;
  /** Whether text that is not UTF-8 is accepted. */
  skipUTF8Validation?: boolean | undefined;
}

/** What an {@linkcode Inlet} calls. All connections share one object; `owner` tells them apart. */
export interface InletHandlers<T> {
  message(owner: T, data: RawData, isBinary: boolean): void;
  ping(owner: T, data: Buffer): void;
  pong(owner: T, data: Buffer): void;
  /** The peer's Close frame was received. Nothing is read after it. */
  close(owner: T, code: number, reason: string): void;
  /** The peer has violated the protocol. Nothing more is read. */
  violation(owner: T, error: RemoteProtocolError): void;
  /** Received events wait, and the peer must be held back (true), or no longer (false). */
  behind(owner: T, isBehind: boolean): void;
  /** The transport has ended, and everything that was received has been read. */
  over(owner: T): void;
}

function asBuffer(bytes: Uint8Array): Buffer {
  const { length } = bytes;
  return length === 0 ? EMPTY : Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset, length);
}

/**
 * Copies bytes into a Buffer with memory of its own. `Buffer.from()` may use a pool, in which a listener
 * would see the messages of other connections.
 */
export function ownBuffer(bytes: Uint8Array): Buffer {
  const buffer = Buffer.allocUnsafeSlow(bytes.length);
  buffer.set(bytes);
  return buffer;
}

/**
 * Reads a connection. It is the text codec of its own protocol: a text stays bytes, which only need to be
 * checked, because listeners are given a Buffer.
 */
export class Inlet<T = unknown> implements TextCodec {
  binaryType: BinaryType = "nodebuffer";
  /** Whether a Close frame or a violation has ended the input. */
  isDone = false;
  isBehind = false;
  /** Whether a text need not be UTF-8. */
  readonly takesAnything: boolean;
  #protocol!: Protocol;
  #owner!: T;
  #handlers!: InletHandlers<T>;
  readonly #defers: boolean;
  readonly #mark: number;
  #maxPayload: number;
  readonly #maxFragments: number;
  /** The text that is being read. The buffer may be longer than the text. */
  #text: Buffer = EMPTY;
  #textLength = 0;
  /** The frames of a binary message, and the pieces of its last frame, if messages are not read whole. */
  #frames: Buffer[] = [];
  #pieces: Buffer[] = [];
  #frameCount = 0;
  #isPumping = false;
  /** Whether the next event waits for a turn of the event loop. */
  #isDeferred = false;
  /** Number of bytes that were received while events wait. */
  #received = 0;
  /**
   * Number of inflated messages that are emitted in one turn of the event loop, and how many are left. It
   * grows with each turn that needs more, so that a short burst does not hold up other connections.
   */
  #burst = 0;
  #burstLeft = 0;
  /** Number of payload bytes of compressed messages. */
  #compressedBytes = 0;
  #isClosed = false;
  #isOver = false;

  constructor(options: InletOptions, mark: number = READ_MARK) {
    this.#mark = mark;
    this.#defers = options.allowSynchronousEvents === false;
    this.takesAnything = options.skipUTF8Validation === true;
    this.#maxPayload = options.maxPayload ?? 0;
    this.#maxFragments = options.maxFragments ?? 0;
  }

  /** Maximum size of a message, in bytes. 0 disables the limit. */
  get maxPayload(): number {
    return this.#maxPayload;
  }

  set maxPayload(size: number) {
    this.#maxPayload = size;
    this.#protocol.maxMessageSize = size > 0 ? size : Infinity;
  }

  /** Whether received events wait for a turn of the event loop, or for another thread. */
  get isWaiting(): boolean {
    return !this.isDone && (this.#isDeferred || this.#protocol.pending);
  }

  /** 5 while a message is inflated or waits for its turn, 6 while another event does, or 0. */
  get state(): number {
    if (!this.isWaiting) return 0;
    return this.#defers ? 6 : 5;
  }

  /** The options of the protocol that this inlet reads. */
  get protocolOptions(): ProtocolOptions {
    return {
      maxMessageSize: this.#maxPayload > 0 ? this.#maxPayload : Infinity,
      textCodec: this,
      ownsInput: true,
      allocate: (length) => new Uint8Array(Buffer.allocUnsafeSlow(length).buffer),
      onReady: () => this.pump(),
    };
  }

  /** Begins to read. */
  start(protocol: Protocol, owner: T, handlers: InletHandlers<T>): void {
    this.#protocol = protocol;
    this.setBinaryType(this.binaryType);
    this.#owner = owner;
    this.#handlers = handlers;
  }

  /** Keeps the bytes of a text, and returns no text. */
  decode(bytes: Uint8Array, start: number, end: number): string {
    const text = Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset + start, end - start);
    if (!this.takesAnything && !isValid(text)) throw new TypeError("The text is not UTF-8");
    const length = this.#textLength;
    const needed = this.#textLength += text.length;
    if (length === 0) {
      // The memory of the bytes is used again.
      this.#text = ownBuffer(text);
      return "";
    }
    if (needed > this.#text.length) {
      const longer = Buffer.allocUnsafeSlow(Math.max(needed, 2 * length));
      longer.set(this.#text.subarray(0, length));
      this.#text = longer;
    }
    this.#text.set(text, length);
    return "";
  }

  encodeInto(text: string, target: Uint8Array, offset: number): number {
    return nodeTextCodec.encodeInto(text, target, offset);
  }

  encode(text: string): Uint8Array {
    return nodeTextCodec.encode!(text);
  }

  /** Adds received bytes and reads them. */
  receive(chunk: Uint8Array): void {
    if (this.isDone) return;
    this.#received += chunk.length;
    this.#protocol.receive(chunk);
    this.pump();
  }

  /** Reports that the transport has ended. `over` is called when everything has been read. */
  end(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (!this.isDone) this.#protocol.receive(null);
    this.pump();
  }

  pump(): void {
    if (this.#isPumping || this.#isDeferred) return;
    this.#isPumping = true;
    try {
      while (!this.isDone && this.#readNext());
    } finally {
      // A listener may have thrown.
      this.#isPumping = false;
    }
    const { isWaiting } = this;
    if (this.#isClosed) {
      if (!isWaiting && !this.#isOver) {
        this.#isOver = true;
        this.#handlers.over(this.#owner);
      }
      return;
    }
    if (!isWaiting) {
      this.#received = 0;
      this.#protocol.release();
    }
    const isBehind = isWaiting && this.#received >= this.#mark;
    if (isBehind === this.isBehind) return;
    this.isBehind = isBehind;
    this.#handlers.behind(this.#owner, isBehind);
  }

  /** Reads one event. Returns whether to continue. */
  #readNext(): boolean {
    let event: ProtocolEvent | undefined;
    try {
      event = this.#protocol.next();
      if (this.#maxFragments > 0 && event !== undefined) this.#countFrames(event);
    } catch (error) {
      if (!(error instanceof RemoteProtocolError)) throw error;
      this.isDone = true;
      this.#handlers.violation(this.#owner, error);
      return false;
    }
    if (event === undefined) return false;
    // The protocol reports the end of the transport as a Close without a frame.
    if (event.type === "close" && this.#isClosed && event.closeCode === 1006) return false;
    if (event.type === "close" || !(this.#defers || this.#mustWait(event))) {
      this.#emit(event);
      return true;
    }
    this.#isDeferred = true;
    nextTurn(() => {
      this.#isDeferred = false;
      this.#burst = Math.min(this.#burst + 1, MOST_INFLATED);
      this.#burstLeft = this.#burst - 1;
      try {
        this.#emit(event);
      } finally {
        // A listener may have thrown.
        this.pump();
      }
    });
    return false;
  }

  /** Whether an inflated message is emitted in a later turn. */
  #mustWait(event: ProtocolEvent): boolean {
    if (!this.#protocol.extended || !(event as Partial<EventOf<"text">>).messageFinished) {
      return false;
    }
    const { compressedBytesReceived } = this.#protocol.counts;
    if (compressedBytesReceived === this.#compressedBytes) return false;
    this.#compressedBytes = compressedBytesReceived;
    if (this.#burstLeft === 0) return true;
    this.#burstLeft--;
    return false;
  }

  #emit(event: ProtocolEvent): void {
    const handlers = this.#handlers;
    const owner = this.#owner;
    switch (event.type) {
      case "text":
        if (event.messageFinished) handlers.message(owner, this.#takeText(), false);
        break;
      case "binary":
        if (this.#protocol.whole) handlers.message(owner, this.#convert(event.data), true);
        else if (this.#addPiece(event)) handlers.message(owner, this.#takeFrames(), true);
        break;
      case "ping":
        handlers.ping(owner, asBuffer(event.payload));
        break;
      case "pong":
        handlers.pong(owner, asBuffer(event.payload));
        break;
      case "close":
        this.isDone = true;
        handlers.close(owner, event.closeCode, event.reason);
    }
  }

  #takeText(): Buffer {
    const length = this.#textLength;
    // The rest of a longer buffer may have bytes of anybody.
    const isFull = this.#text.length === length;
    const text = isFull ? this.#text : ownBuffer(this.#text.subarray(0, length));
    this.#text = EMPTY;
    this.#textLength = 0;
    return text;
  }

  #convert(data: Uint8Array): RawData {
    switch (this.binaryType) {
      case "arraybuffer":
        return data.buffer as ArrayBuffer;
      case "blob":
        return new Blob([data.buffer as ArrayBuffer]) as unknown as RawData;
      default:
        return asBuffer(data);
    }
  }

  /** Adds a piece of a message that is not read whole. Returns whether the message is complete. */
  #addPiece({ data, frameFinished, messageFinished }: EventOf<"binary">): boolean {
    if (data.length > 0) this.#pieces.push(asBuffer(data));
    if (frameFinished && this.#pieces.length > 0) {
      this.#frames.push(asBuffer(concat(this.#pieces)));
      this.#pieces = [];
    }
    return messageFinished;
  }

  #takeFrames(): RawData {
    const frames = this.#frames;
    this.#frames = [];
    this.setBinaryType(this.binaryType);
    return this.binaryType === "fragments" ? frames : this.#convert(concat(frames));
  }

  /** Sets the type of binary messages. A message is read in pieces only if necessary. */
  setBinaryType(type: BinaryType): void {
    this.binaryType = type;
    if (this.#protocol === undefined) return;
    const isPartial = this.#frames.length > 0 || this.#pieces.length > 0;
    this.#protocol.whole = type !== "fragments" && this.#maxFragments === 0 && !isPartial;
    const partial = this.#protocol.whole ? undefined : this.#protocol.takeHeld();
    if (partial?.type === "binary") this.#addPiece(partial);
  }

  #countFrames(event: ProtocolEvent): void {
    if (event.type !== "text" && event.type !== "binary") return;
    if (event.frameFinished) this.#frameCount++;
    if (this.#frameCount > this.#maxFragments) {
      throw new RemoteProtocolError("Too many message fragments", CloseCode.PolicyViolation);
    }
    if (event.messageFinished) this.#frameCount = 0;
  }
}

/** Whether bytes are UTF-8. A loop is faster for a short text. */
function isValid(text: Buffer): boolean {
  const { length } = text;
  if (length > SHORT_TEXT) return isUtf8(text);
  for (let i = 0; i < length; i++) {
    if (text[i] >= 0x80) return isUtf8(text);
  }
  return true;
}
