/**
 * The sending half of a connection: messages and control frames in, one write for each turn of the event
 * loop out.
 */
import { Buffer } from "node:buffer";
import { nextTick } from "node:process";
import type { Duplex } from "node:stream";
import { complete, type EventOf } from "../core/event.ts";
import { encodeFrame, FIN, firstByte } from "../core/frame_writer.ts";
import { sharedFrame } from "../core/shared_frame.ts";
import { encodeWith, type Extension, type OutgoingFrame } from "../core/extension.ts";
import { Opcode } from "../core/frame.ts";
import type { Protocol } from "../core/protocol.ts";
import { viewOf } from "../connection/outgoing.ts";
import { nextTurn } from "../timers.ts";
import { coded } from "./errors.ts";
import type { Inlet } from "./inlet.ts";

/** Called when the bytes have been written, or with the reason why not. */
export type SendCallback = (error?: Error) => void;

/** The same, as a stream calls it: with null on most versions of Node if nothing is wrong. */
type WriteCallback = (error?: Error | null) => void;

/** With this many bytes in the batch, it is written at once. */
const WRITE_FROM = 65536;

/** Minimum length of a message that is compressed on another thread. */
const LATER_FROM = 32768;

/** Maximum number of batches of a program that awaits each of its messages, in one turn. */
const MOST_AWAITED = 64;

/** How the messages of a connection are compressed. */
export interface Deflation {
  extension: Extension;
  /** Minimum length of a message that is compressed. */
  threshold: number;
}

/** What an open connection begins with. Internal. */
export interface Opened {
  socket: Duplex;
  /** The bytes after the handshake. */
  head: Uint8Array;
  inlet: Inlet;
  protocol: Protocol;
  /** The chosen subprotocol. */
  subprotocol: string;
  deflation: Deflation | undefined;
}

/** How to send a frame. */
export interface FrameOptions {
  opcode: Opcode;
  fin: boolean;
  compress: boolean;
  /** Whether to mask the frame. */
  mask: boolean;
}

export interface OutletOptions {
  /** Whether frames are masked unless a call says otherwise. */
  masks: boolean;
  /** Writes the masking key into its argument. */
  generateMask?: ((mask: Buffer) => void) | undefined;
  deflation: Deflation | undefined;
  /** Called when a message cannot be sent. */
  onError: (error: Error) => void;
}

interface Current {
  callback: SendCallback | undefined;
  isBlob: boolean;
}

/** Set as the current message while the messages of this turn wait to be compressed at its end. */
const COMPRESSING: Current = { callback: undefined, isBlob: false };

/** The outlets that have a batch to write. One callback serves all of them. */
let due: Outlet[] = [];

function writeDue(): void {
  const outlets = due;
  due = [];
  flushAll(outlets, 0);
}

/** Writes all batches, also if the program's `generateMask` or its stream throws for one of them. */
function flushAll(outlets: readonly Outlet[], at: number): void {
  try {
    while (at < outlets.length) outlets[at++].flush();
  } finally {
    if (at < outlets.length) nextTick(flushAll, outlets, at);
  }
}

/** The outlets whose callbacks have just been called. See `#isAnswered`. */
let answered: Outlet[] = [];

/** A tick that a microtask adds comes after all microtasks. */
function waitForMicrotasks(): void {
  nextTick(endAnswers);
}

function endAnswers(): void {
  const outlets = answered;
  answered = [];
  for (const outlet of outlets) outlet.endAnswer();
}

function flushNow(outlet: Outlet): void {
  outlet.flush();
}

/** Returns the bytes of anything that `ws` can send, except a Blob. */
export function toBytes(data: unknown): Uint8Array {
  return (typeof data === "string" ? undefined : viewOf(data)) ?? Buffer.from(data as string);
}

/** Returns the length of data in bytes. */
export function lengthOf(data: unknown): number {
  if (typeof data === "string") return Buffer.byteLength(data);
  return data instanceof Blob ? data.size : toBytes(data).length;
}

/** Calls all callbacks, also if one of them throws. */
function callAll(
  callbacks: readonly (SendCallback | undefined)[],
  error: Error | null | undefined,
  at: number = 0,
): void {
  try {
    while (at < callbacks.length) (callbacks[at++] as WriteCallback | undefined)?.(error);
  } finally {
    if (at < callbacks.length) nextTick(callAll, callbacks, error, at);
  }
}

export class Outlet {
  readonly #socket: Duplex;
  readonly #protocol: Protocol;
  readonly #options: OutletOptions;
  /** Length of the messages in the queue. Text counts its UTF-16 code units. */
  #queued = 0;
  #isDue = false;
  /** Whether frames are in the batch. */
  #isDirty = false;
  #callbacks: SendCallback[] = [];
  /** Whether callbacks have just been called. What they and their promises send is written at once. */
  #isAnswered = false;
  /** Number of batches in this turn that were written at once. */
  #awaited = 0;
  /** What waits for a Blob, or for a message that is compressed on another thread. */
  #queue: (() => void)[] = [];
  #queuedCallbacks: (SendCallback | undefined)[] = [];
  /** The callback of the message that is read or compressed. */
  #current: Current | undefined;
  /** Whether the first messages have waited one more turn, because the peer may end the connection at once. */
  #hasWaited = false;
  #isFirstFrame = true;
  #isCompressing = false;

  constructor(socket: Duplex, protocol: Protocol, options: OutletOptions) {
    this.#socket = socket;
    this.#protocol = protocol;
    this.#options = options;
  }

  /** Length of the messages that have not been given to the socket. What can be written is written first. */
  get bufferedAmount(): number {
    this.writeBatch();
    return this.#queued;
  }

  /** 1 while a message is compressed, 2 while a Blob is read, or 0. */
  get state(): number {
    if (this.#current === undefined) return 0;
    return this.#current.isBlob ? 2 : 1;
  }

  /** Sends bytes as they are, which are a frame. Nobody may change them. */
  sendParts(parts: readonly Uint8Array[], callback: SendCallback | undefined): void {
    const { encoder } = this.#protocol;
    for (const bytes of parts) {
      if (encoder.writeShared(sharedFrame(bytes))) this.#isDirty = true;
      else {
        this.writeBatch();
        this.#socket.write(bytes);
      }
    }
    this.#written(callback);
  }

  /** Sends a text of one frame. Only for a connection that neither compresses nor makes its own masks. */
  sendText(text: string, callback: SendCallback | undefined): void {
    this.#protocol.encoder.writeText(FIN | Opcode.Text, text);
    this.#written(callback);
  }

  /** Whether messages need no other treatment than a header. */
  get isPlain(): boolean {
    const { deflation, generateMask } = this.#options;
    return deflation === undefined && generateMask === undefined && this.#current === undefined &&
      this.#isFirstFrame;
  }

  /** Sends a frame of a message. */
  sendData(data: unknown, options: FrameOptions, callback: SendCallback | undefined): void {
    const { deflation } = this.#options;
    const bytes = typeof data === "string" || data instanceof Blob ? data : toBytes(data);
    if (this.#isFirstFrame) {
      this.#isCompressing = options.compress && deflation !== undefined &&
        lengthOf(bytes) >= deflation.threshold;
    } else options.opcode = Opcode.Continuation;
    this.#isFirstFrame = options.fin;
    options.compress = this.#isCompressing;
    this.#inOrder(bytes, options, callback);
  }

  /** Sends a ping or a pong. */
  sendControl(data: unknown, opcode: Opcode, mask: boolean, callback?: SendCallback): void {
    const bytes = typeof data === "string" || data instanceof Blob ? data : toBytes(data);
    if (lengthOf(bytes) > 125) {
      throw new RangeError("The data size must not be greater than 125 bytes");
    }
    this.#inOrder(bytes, { opcode, fin: true, compress: false, mask }, callback);
  }

  /** Sends the Close frame after everything else, and writes the batch. */
  close(event: Partial<EventOf<"close">>, callback: SendCallback): void {
    const close = complete({ type: "close", ...event });
    this.#enter(0, callback, () => {
      this.#protocol.write(close);
      this.#written(callback);
      this.writeBatch();
    });
  }

  #inOrder(
    data: Uint8Array | string | Blob,
    options: FrameOptions,
    callback: SendCallback | undefined,
  ): void {
    const length = typeof data === "string" ? data.length : lengthOf(data);
    if (options.compress && this.#current === undefined) {
      this.#current = COMPRESSING;
      this.#writeLater();
    }
    this.#enter(length, callback, () => {
      if (data instanceof Blob) this.#readBlob(data, options, callback);
      else if (data.length !== length) this.#vanished(callback);
      else if (options.compress) this.#compress(toBytes(data), options, callback);
      else this.#write(data, options, callback);
    });
  }

  /** Runs a job, after earlier jobs that take time. */
  #enter(length: number, callback: SendCallback | undefined, job: () => void): void {
    if (this.#current === undefined) return job();
    this.#queued += length;
    this.#queuedCallbacks.push(callback);
    this.#queue.push(() => {
      this.#queued -= length;
      job();
    });
  }

  #finish(): void {
    this.#current = undefined;
    while (this.#current === undefined && this.#queue.length > 0) {
      this.#queuedCallbacks.shift();
      this.#queue.shift()!();
    }
  }

  #readBlob(blob: Blob, options: FrameOptions, callback: SendCallback | undefined): void {
    this.#current = { callback, isBlob: true };
    this.#queued += blob.size;
    blob.arrayBuffer().then((buffer) => {
      if (this.#socket.destroyed) return nextTick(() => this.#fail());
      this.#queued -= blob.size;
      const bytes = new Uint8Array(buffer);
      this.#current = undefined;
      if (options.compress) this.#compress(bytes, options, callback);
      else this.#write(bytes, options, callback);
      if (this.#current === undefined) this.#finish();
    }, (error) => {
      // Not in the promise, which would swallow what a listener throws.
      nextTick(() => {
        this.#fail(error);
        this.#options.onError(error);
      });
    });
  }

  #compress(payload: Uint8Array, options: FrameOptions, callback: SendCallback | undefined): void {
    const { opcode, fin } = options;
    const { length } = payload;
    const frame = { opcode, fin, rsv: 0, payload, compress: true };
    const isLater = length >= LATER_FROM;
    if (isLater) {
      this.#current = { callback, isBlob: false };
      this.#queued += length;
    }
    const later = !isLater ? undefined : (error: Error | undefined, changed: OutgoingFrame) => {
      if (this.#current === undefined) return;
      this.#queued -= length;
      if (error !== undefined) return this.#options.onError(error);
      this.#writeFrame(changed, options, callback);
      this.#finish();
    };
    const changed = encodeWith([this.#options.deflation!.extension], frame, later);
    if (changed === undefined) return;
    if (isLater) later!(undefined, changed);
    else this.#writeFrame(changed, options, callback);
  }

  #write(data: Uint8Array | string, options: FrameOptions, callback?: SendCallback): void {
    const { opcode, fin, mask } = options;
    const { masks, generateMask } = this.#options;
    if (typeof data === "string" && mask === masks && (!mask || generateMask === undefined)) {
      this.#protocol.encoder.writeText(firstByte(fin, 0, opcode), data);
      return this.#written(callback);
    }
    const payload = toBytes(data);
    this.#writeFrame({ opcode, fin, rsv: 0, payload }, options, callback);
  }

  #writeFrame(
    frame: OutgoingFrame,
    { mask }: FrameOptions,
    callback?: SendCallback,
  ): void {
    const { masks, generateMask } = this.#options;
    const { opcode, fin, rsv, payload } = frame;
    if (mask === masks && (!mask || generateMask === undefined)) {
      // A program may use its buffer again after the call. Bytes that are written at once need no copy.
      const lend = payload.length >= WRITE_FROM;
      this.#protocol.encoder.writeBytes(firstByte(fin, rsv, opcode), payload, lend, rsv !== 0);
      return this.#written(callback);
    }
    const key = generateMask && Buffer.alloc(4);
    if (key !== undefined) generateMask!(key);
    const bytes = encodeFrame(frame, { mask: mask ? key ?? true : undefined });
    this.writeBatch();
    this.#socket.write(bytes, callback as WriteCallback | undefined);
  }

  #written(callback: SendCallback | undefined): void {
    this.#isDirty = true;
    if (typeof callback === "function") this.#callbacks.push(callback);
    if (this.#protocol.encoder.size >= WRITE_FROM) this.writeBatch();
    else this.#writeLater();
  }

  #writeLater(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    if (this.#isAnswered && this.#awaited++ < MOST_AWAITED) nextTick(flushNow, this);
    else {
      this.#awaited = 0;
      if (due.push(this) === 1) nextTurn(writeDue);
    }
  }

  /** Calls the callbacks of messages that have been written. */
  #answer(callbacks: SendCallback[], error: Error | null | undefined): void {
    this.#isAnswered = true;
    if (answered.push(this) === 1) queueMicrotask(waitForMicrotasks);
    callAll(callbacks, error);
  }

  /** Ends the time in which what is sent is written at once. */
  endAnswer(): void {
    this.#isAnswered = false;
  }

  /** Compresses what waits for it, and writes the batch. */
  flush(): void {
    this.#isDue = false;
    const isOpen = !this.#socket.destroyed && !this.#socket.writableEnded;
    if (this.#current === COMPRESSING && isOpen) {
      if (this.#hasWaited) this.#finish();
      else this.#writeLater();
      this.#hasWaited = true;
    }
    this.writeBatch();
  }

  /** Writes the batch. What waits to be compressed stays. */
  writeBatch(): void {
    if (!this.#isDirty) return;
    this.#isDirty = false;
    const { encoder } = this.#protocol;
    const socket = this.#socket;
    const parts = encoder.take();
    const last = parts.length - 1;
    const callbacks = this.#callbacks;
    if (callbacks.length > 0) this.#callbacks = [];
    const done: WriteCallback = callbacks.length === 0 ? this.#recycle : (error) => {
      this.#recycle();
      this.#answer(callbacks, error);
    };
    if (last < 0) done();
    else {
      if (last > 0) socket.cork();
      for (let i = 0; i < last; i++) socket.write(parts[i]);
      socket.write(parts[last], done);
      if (last > 0) socket.uncork();
    }
    if (encoder.hasVanished) this.#vanished();
    else this.#recycle();
  }

  /** Cuts the connection, because the bytes of a message have been lost. */
  #vanished(callback?: SendCallback): void {
    const message = "The bytes to send were detached or resized before they had left";
    const error = coded(new Error(message), "ERR_INVALID_STATE");
    this.#socket.destroy(error);
    if (typeof callback === "function") nextTick(callback, error);
  }

  readonly #recycle = (): void => {
    if (this.#socket.writableLength === 0 && !this.#isDirty) this.#protocol.encoder.recycle();
  };

  /** Ends the outlet with its connection. A Blob that is being read reports the end later. */
  dispose(): void {
    this.writeBatch();
    this.#protocol.dispose();
    if (this.#current?.isBlob === false) this.#fail();
  }

  /** Calls the callbacks of the messages that will not be sent. */
  #fail(reason?: Error): void {
    const current = this.#current;
    if (current === undefined) return;
    const what = current.isBlob ? "the blob was being read" : "data was being compressed";
    const error = reason ?? new Error(`The socket was closed while ${what}`);
    const callbacks = [current.callback, ...this.#queuedCallbacks];
    this.#queue = [];
    this.#queuedCallbacks = [];
    this.#current = undefined;
    callAll(callbacks, error);
  }
}
