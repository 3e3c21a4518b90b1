/** Compresses and decompresses the messages of one connection (RFC 7692 §6, §7.2). */
import type { FramePiece } from "./decoder.ts";
import { RemoteProtocolError } from "./error.ts";
import { type EncodedFrame, type Extension, type OutgoingFrame, PENDING } from "./extension.ts";
import { type FrameHeader, Opcode, Rsv } from "./frame.ts";

/** Options of a {@linkcode Deflater}. */
export interface DeflaterOptions {
  /** Base-2 logarithm of the window size, 8 to 15. */
  windowBits: number;
  /** The compression level, 0 to 9, or -1 for the platform's default. */
  level: number;
  /** The memory level of the compressor, 1 to 9. */
  memLevel: number;
}

/** Options of an {@linkcode Inflater}. */
export interface InflaterOptions {
  /** Base-2 logarithm of the window size, 8 to 15. */
  windowBits: number;
  /** Whether messages refer to earlier ones. Otherwise `reset()` is called after each message. */
  contextTakeover: boolean;
  /** Maximum size of a message, in bytes, for an engine that inflates a whole message at once. */
  maxMessageSize: number;
}

/** The platform's implementation of raw DEFLATE (RFC 1951). Connections may share an engine. */
export interface DeflateEngine {
  /** Makes a compressor. */
  deflater(options: DeflaterOptions): Deflater;
  /** Makes a decompressor. */
  inflater(options: InflaterOptions): Inflater;
}

/** Compresses the messages of one connection. */
export interface Deflater {
  /**
   * Compresses all of the input and flushes. The output ends with 00 00 ff ff, or is empty if there
   * was nothing to flush. The caller owns the output.
   */
  deflate(input: Uint8Array): Uint8Array;
  /**
   * Does the same on another thread. Until `done` is called, the input must not change and only
   * `close()` may be called.
   */
  deflateLater(
    input: Uint8Array,
    done: (error: Error | undefined, output: Uint8Array) => void,
  ): void;
  /** Forgets the earlier messages. */
  reset(): void;
  /** Frees the compressor. A pending `done` is not called. */
  close(): void;
}

/** Decompresses the messages of one connection, in pieces. */
export interface Inflater {
  /**
   * Adds the next bytes of a message; `idle` must be true. The bytes must not change until `idle`
   * is true again.
   */
  push(input: Uint8Array): void;
  /** Ends the message; `idle` must be true. `next()` returns the rest of the output. */
  finish(): void;
  /** Whether there is no more output before the next `push()` or `finish()`. */
  readonly idle: boolean;
  /**
   * Returns the next piece of output, at most 64 KiB. The piece may be empty. The caller owns it.
   * @throws {Error} If the data is invalid or incomplete. The inflater cannot be used afterwards.
   * @throws {RangeError} If the message exceeds `maxMessageSize` and the engine checks this limit.
   */
  next(): Uint8Array;
  /** Does the same on another thread. Until `done` is called, only `close()` may be called. */
  nextLater(done: (error: Error | undefined, output: Uint8Array) => void): void;
  /** Forgets the earlier messages. */
  reset(): void;
  /** Frees the inflater. A pending `done` is not called. */
  close(): void;
}

/** Minimum size of a message that is compressed on another thread, in bytes. */
const DEFLATE_LATER_FROM = 32768;
/** The same for inflation, counting the bytes before and after inflation so far. */
const INFLATE_LATER_FROM = 131072;
/** The first output of a piece shorter than this is always inflated synchronously. */
const SHORT = 1024;
const TAIL_LENGTH = 4;
const EMPTY = new Uint8Array(0);

export interface DeflateAgreement {
  name: string;
  engine: DeflateEngine;
  threshold: number;
  /** The same object for all connections that may share a message. */
  deflater: DeflaterOptions;
  inflater: InflaterOptions;
  contextTakeover: boolean;
}

export class DeflateExtension implements Extension {
  readonly name: string;
  readonly rsv: number = Rsv.Rsv1;
  readonly #agreement: DeflateAgreement;
  readonly #incoming: Incoming;
  #deflater: Deflater | undefined;
  #isCompressing = false;

  constructor(agreement: DeflateAgreement) {
    this.name = agreement.name;
    this.#agreement = agreement;
    this.#incoming = new Incoming(agreement);
  }

  push(piece: FramePiece): void {
    this.#incoming.push(piece);
  }

  next(ready?: () => void): FramePiece | typeof PENDING | undefined {
    return this.#incoming.next(ready);
  }

  encode(frame: OutgoingFrame, later?: EncodedFrame): OutgoingFrame | undefined {
    const { opcode, fin, payload, compress } = frame;
    const { engine, threshold, deflater: options } = this.#agreement;
    if (opcode !== Opcode.Continuation) {
      this.#isCompressing = compress ?? (!fin || payload.length >= threshold);
    }
    if (!this.#isCompressing) return frame;
    const deflater = this.#deflater ??= engine.deflater(options);
    if (later === undefined || payload.length < DEFLATE_LATER_FROM) {
      return this.#finishFrame(frame, deflater.deflate(payload));
    }
    deflater.deflateLater(payload, (error, output) => {
      later(error, error === undefined ? this.#finishFrame(frame, output) : frame);
    });
    return undefined;
  }

  sharedBy(length: number, compress: boolean | undefined): object | null | undefined {
    const { threshold, deflater, contextTakeover } = this.#agreement;
    // A message that is not compressed leaves the context as it is.
    if (!(compress ?? length >= threshold)) return null;
    return contextTakeover ? undefined : deflater;
  }

  #finishFrame(frame: OutgoingFrame, output: Uint8Array): OutgoingFrame {
    const { opcode, fin } = frame;
    if (fin && !this.#agreement.contextTakeover) this.#freeDeflater();
    const rsv = opcode === Opcode.Continuation ? frame.rsv : frame.rsv | Rsv.Rsv1;
    return { ...frame, rsv, payload: fin ? withoutTail(output) : output };
  }

  #freeDeflater(): void {
    this.#deflater?.close();
    this.#deflater = undefined;
  }

  close(): void {
    this.#incoming.close();
    this.#freeDeflater();
  }
}

class Incoming {
  readonly #engine: DeflateEngine;
  readonly #options: InflaterOptions;
  #inflater: Inflater | undefined;
  #isInMessage = false;
  #isCompressed = false;
  #isInFrame = false;
  /** The header of the current frame before compression. */
  #plainHeader: FrameHeader | undefined;
  #piece: FramePiece | undefined;
  #isFinished = false;
  /** Output that is kept until it is known whether more output follows. */
  #held: Uint8Array = EMPTY;
  #result: { error: Error | undefined; output: Uint8Array } | undefined;
  #isPending = false;
  #isClosed = false;
  /** Bytes of the current message, before and after inflation. */
  #received = 0;
  #produced = 0;
  /** Number of outputs of the current piece that were requested. */
  #steps = 0;

  constructor({ engine, inflater }: DeflateAgreement) {
    this.#engine = engine;
    this.#options = inflater;
  }

  push(piece: FramePiece): void {
    if (this.#isClosed) return;
    if (!this.#isInFrame) this.#begin(piece.header);
    this.#isInFrame = !piece.last;
    this.#piece = piece;
    if (!this.#isCompressed) return;
    this.#inflater ??= this.#engine.inflater(this.#options);
    this.#received += piece.payload.length;
    this.#steps = 0;
    this.#inflating(() => this.#inflater!.push(piece.payload));
  }

  #begin(header: FrameHeader): void {
    const { opcode, rsv, fin } = header;
    const continues = opcode === Opcode.Continuation;
    // RFC 7692 §6.2: only the first frame of a message has the bit.
    if (continues && (rsv & Rsv.Rsv1) !== 0) {
      throw new RemoteProtocolError("A continuation frame has the bit RSV1 set", 1002);
    }
    // A frame out of order passes unchanged, so that the message reader rejects it.
    if (continues !== this.#isInMessage) this.#isCompressed = false;
    else if (!continues) this.#isCompressed = (rsv & Rsv.Rsv1) !== 0;
    this.#isInMessage = !fin;
    const length = this.#isCompressed ? 0 : header.length;
    this.#plainHeader = { ...header, rsv: rsv & ~Rsv.Rsv1, length };
  }

  next(ready: (() => void) | undefined): FramePiece | typeof PENDING | undefined {
    const piece = this.#piece;
    if (this.#isClosed) return undefined;
    if (this.#isPending) return PENDING;
    if (piece === undefined) return undefined;
    if (this.#isCompressed) return this.#inflating(() => this.#inflate(piece, ready));
    this.#piece = undefined;
    return { header: this.#plainHeader!, payload: piece.payload, last: piece.last };
  }

  #inflate(
    piece: FramePiece,
    ready: (() => void) | undefined,
  ): FramePiece | typeof PENDING | undefined {
    const inflater = this.#inflater!;
    for (;;) {
      const result = this.#result;
      if (result === undefined && inflater.idle) {
        // An empty message should be one byte (RFC 7692 §7.2.3.6); some peers send none.
        const ends = piece.last && piece.header.fin && this.#received > 0;
        if (!ends || this.#isFinished) return this.#finishPiece(piece.last);
        inflater.finish();
        this.#isFinished = true;
        continue;
      }
      // After finish() there may be no more output. Then the held output is the last.
      if (result === undefined && this.#held.length > 0 && !this.#isFinished) {
        return this.#give(EMPTY);
      }
      if (result === undefined && ready !== undefined && this.#takesLong(piece)) {
        this.#inflateLater(inflater, ready);
        return PENDING;
      }
      this.#steps++;
      const output = result === undefined ? inflater.next() : this.#takeResult();
      this.#produced += output.length;
      if (this.#held.length > 0 && output.length > 0) return this.#give(output);
      if (output.length > 0) this.#held = output;
    }
  }

  /** Returns the held output, and holds `held` instead. */
  #give(held: Uint8Array, last = false): FramePiece {
    const payload = this.#held;
    this.#held = held;
    return { header: this.#plainHeader!, payload, last };
  }

  #finishPiece(last: boolean): FramePiece | undefined {
    this.#piece = undefined;
    if (last && this.#isFinished) this.#endMessage();
    return last || this.#held.length > 0 ? this.#give(EMPTY, last) : undefined;
  }

  #endMessage(): void {
    this.#isFinished = false;
    this.#received = this.#produced = 0;
    if (this.#options.contextTakeover) return;
    this.#inflater!.close();
    this.#inflater = undefined;
  }

  /** After finish() there is no more output, unless the engine inflates whole messages. */
  #takesLong({ payload }: FramePiece): boolean {
    if (this.#isFinished && this.#produced > 0) return false;
    if (!this.#isFinished && this.#steps === 0 && payload.length < SHORT) return false;
    return this.#received + this.#produced >= INFLATE_LATER_FROM;
  }

  #inflateLater(inflater: Inflater, ready: () => void): void {
    this.#isPending = true;
    inflater.nextLater((error, output) => {
      this.#isPending = false;
      this.#result = { error, output };
      ready();
    });
  }

  #takeResult(): Uint8Array {
    const { error, output } = this.#result!;
    this.#result = undefined;
    if (error !== undefined) throw error;
    return output;
  }

  /** RFC 7692 names no close code for invalid data. RFC 6455 §7.4.1: 1007 is for inconsistent data. */
  #inflating<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      this.close();
      const { message } = error as Error;
      if (error instanceof RangeError) throw new RemoteProtocolError(message, 1009);
      throw new RemoteProtocolError(`A compressed message cannot be inflated: ${message}`, 1007);
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#inflater?.close();
    this.#inflater = undefined;
    this.#piece = undefined;
    this.#held = EMPTY;
  }
}

/** RFC 7692 §7.2.1: the last four bytes of a message are not sent. */
function withoutTail(output: Uint8Array): Uint8Array {
  // RFC 7692 §7.2.3.6: an empty message is the header of an empty block.
  return output.length === 0 ? new Uint8Array(1) : output.subarray(0, -TAIL_LENGTH);
}
