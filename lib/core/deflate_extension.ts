/**
 * Compresses and decompresses the messages of one connection (RFC 7692 §6, §7.2).
 *
 * A file of its own because what travels has nothing to do with how it was agreed on.
 *
 * @module
 */
import type {
  DeflateEngine,
  Deflater,
  DeflaterOptions,
  Inflater,
  InflaterOptions,
} from "./deflate.ts";
import { RemoteProtocolError } from "./error.ts";
import { type EncodedFrame, type Extension, type OutgoingFrame, PENDING } from "./extension.ts";
import { type FrameHeader, Opcode, Rsv } from "./frame.ts";
import type { FramePiece } from "./decoder.ts";

/**
 * From this many bytes on compression goes elsewhere: here it would hold up the event loop for a third of
 * a millisecond, and to go elsewhere costs a tenth of that.
 */
const DEFLATE_LATER_FROM = 32768;
/** The same for what came and came out of a message so far: inflating is ten times as fast. */
const INFLATE_LATER_FROM = 131072;
/** A piece below this many bytes is inflated here at first, because to go elsewhere would cost more. */
const SHORT = 1024;
const TAIL_LENGTH = 4;
const EMPTY = new Uint8Array(0);

/** What was agreed on. */
export interface DeflateExtensionOptions {
  name: string;
  engine: DeflateEngine;
  /** Messages below this many bytes are not compressed. */
  threshold: number;
  deflater: DeflaterOptions;
  inflater: InflaterOptions;
  /** Whether our messages refer to the ones before. */
  contextTakeover: boolean;
}

/** permessage-deflate in use. */
export class DeflateExtension implements Extension {
  readonly name: string;
  readonly rsv: number = Rsv.Rsv1;
  readonly #incoming: Incoming;
  readonly #outgoing: Outgoing;

  constructor(options: DeflateExtensionOptions) {
    this.name = options.name;
    this.#incoming = new Incoming(options);
    this.#outgoing = new Outgoing(options);
  }

  push(piece: FramePiece): void {
    this.#incoming.push(piece);
  }

  next(ready?: () => void): FramePiece | typeof PENDING | undefined {
    return this.#incoming.next(ready);
  }

  encode(frame: OutgoingFrame, later?: EncodedFrame): OutgoingFrame | undefined {
    return this.#outgoing.encode(frame, later);
  }

  close(): void {
    this.#incoming.close();
    this.#outgoing.close();
  }
}

/** Decompresses. */
class Incoming {
  readonly #engine: DeflateEngine;
  readonly #options: InflaterOptions;
  #inflater: Inflater | undefined;
  /** Whether a message is under way, and whether it is compressed. */
  #begun = false;
  #compressed = false;
  #inFrame = false;
  /** The header of the present frame as it goes on. */
  #plain: FrameHeader | undefined;
  /** The piece that is being worked on. */
  #piece: FramePiece | undefined;
  /** Whether the inflater was told that the message ends. */
  #finished = false;
  /** What came out, but cannot go on before it is known whether more does. */
  #held: Uint8Array = EMPTY;
  #came: { error: Error | undefined; output: Uint8Array } | undefined;
  #pending = false;
  #closed = false;
  /** The bytes of the message that came, and that came out. */
  #received = 0;
  #produced = 0;
  /** How often the inflater was asked for what comes out of the present piece. */
  #steps = 0;

  constructor({ engine, inflater }: DeflateExtensionOptions) {
    this.#engine = engine;
    this.#options = inflater;
  }

  push(piece: FramePiece): void {
    if (this.#closed) return;
    if (!this.#inFrame) this.#begin(piece.header);
    this.#inFrame = !piece.last;
    this.#piece = piece;
    if (!this.#compressed) return;
    this.#inflater ??= this.#engine.inflater(this.#options);
    this.#received += piece.payload.length;
    this.#steps = 0;
    this.#try(() => this.#inflater!.push(piece.payload));
  }

  #begin(header: FrameHeader): void {
    const { opcode, rsv, fin } = header;
    const continues = opcode === Opcode.Continuation;
    // RFC 7692 §6.2: the bit stands on the first frame of a message only.
    if (continues && (rsv & Rsv.Rsv1) !== 0) {
      throw new RemoteProtocolError("Expected a continuation frame without RSV1", 1002);
    }
    // A frame out of turn is refused by whoever puts the fragments together.
    if (continues !== this.#begun) this.#compressed = false;
    else if (!continues) this.#compressed = (rsv & Rsv.Rsv1) !== 0;
    this.#begun = !fin;
    const length = this.#compressed ? 0 : header.length;
    this.#plain = { ...header, rsv: rsv & ~Rsv.Rsv1, length };
  }

  next(ready: (() => void) | undefined): FramePiece | typeof PENDING | undefined {
    const piece = this.#piece;
    if (this.#closed) return undefined;
    if (this.#pending) return PENDING;
    if (piece === undefined) return undefined;
    if (this.#compressed) return this.#try(() => this.#inflate(piece, ready));
    this.#piece = undefined;
    return { header: this.#plain!, payload: piece.payload, last: piece.last };
  }

  #inflate(
    piece: FramePiece,
    ready: (() => void) | undefined,
  ): FramePiece | typeof PENDING | undefined {
    const inflater = this.#inflater!;
    for (;;) {
      const came = this.#came;
      if (came === undefined && inflater.idle) {
        // An empty message should be one byte (RFC 7692 §7.2.3.6); some peers send none.
        const ends = piece.last && piece.header.fin && this.#received > 0;
        if (!ends || this.#finished) return this.#used(piece.last);
        inflater.finish();
        this.#finished = true;
        continue;
      }
      // Within the message more is to come. Behind it there should not be, and what is held is the last.
      if (came === undefined && this.#held.length > 0 && !this.#finished) return this.#give(EMPTY);
      if (came === undefined && ready !== undefined && this.#takesLong(piece)) {
        this.#inflateLater(inflater, ready);
        return PENDING;
      }
      this.#steps++;
      const output = came === undefined ? inflater.next() : this.#take();
      this.#produced += output.length;
      if (this.#held.length > 0 && output.length > 0) return this.#give(output);
      if (output.length > 0) this.#held = output;
    }
  }

  /** Gives what is held, and holds something else in its place. */
  #give(held: Uint8Array, last = false): FramePiece {
    const payload = this.#held;
    this.#held = held;
    return { header: this.#plain!, payload, last };
  }

  /** The piece is used up. */
  #used(last: boolean): FramePiece | undefined {
    this.#piece = undefined;
    if (last && this.#finished) this.#endMessage();
    return last || this.#held.length > 0 ? this.#give(EMPTY, last) : undefined;
  }

  #endMessage(): void {
    this.#finished = false;
    this.#received = this.#produced = 0;
    if (this.#options.contextTakeover) return;
    this.#inflater!.close();
    this.#inflater = undefined;
  }

  /** What follows the end is nothing, unless the engine inflates the message as a whole. */
  #takesLong({ payload }: FramePiece): boolean {
    if (this.#finished && this.#produced > 0) return false;
    if (!this.#finished && this.#steps === 0 && payload.length < SHORT) return false;
    return this.#received + this.#produced >= INFLATE_LATER_FROM;
  }

  #inflateLater(inflater: Inflater, ready: () => void): void {
    this.#pending = true;
    inflater.nextLater((error, output) => {
      this.#pending = false;
      this.#came = { error, output };
      ready();
    });
  }

  #take(): Uint8Array {
    const { error, output } = this.#came!;
    this.#came = undefined;
    if (error !== undefined) throw error;
    return output;
  }

  /** RFC 7692 names no code for data that cannot be inflated; 1007 is for data that is inconsistent. */
  #try<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      this.close();
      const { message } = error as Error;
      if (error instanceof RangeError) throw new RemoteProtocolError(message, 1009);
      throw new RemoteProtocolError(
        `Expected compressed data, received what is not: ${message}`,
        1007,
      );
    }
  }

  close(): void {
    this.#closed = true;
    this.#inflater?.close();
    this.#inflater = undefined;
    this.#piece = undefined;
    this.#held = EMPTY;
  }
}

/** Compresses. */
class Outgoing {
  readonly #options: DeflateExtensionOptions;
  #deflater: Deflater | undefined;
  /** Whether the message under way is compressed. */
  #compressing = false;

  constructor(options: DeflateExtensionOptions) {
    this.#options = options;
  }

  encode(frame: OutgoingFrame, later: EncodedFrame | undefined): OutgoingFrame | undefined {
    if (frame.opcode !== Opcode.Continuation) this.#compressing = this.#wants(frame);
    if (!this.#compressing) return frame;
    const { engine, deflater: options } = this.#options;
    const deflater = this.#deflater ??= engine.deflater(options);
    const { payload } = frame;
    if (later === undefined || payload.length < DEFLATE_LATER_FROM) {
      return this.#compressed(frame, deflater.deflate(payload));
    }
    deflater.deflateLater(payload, (error, output) => {
      later(error, error === undefined ? this.#compressed(frame, output) : frame);
    });
    return undefined;
  }

  #wants({ compress, fin, payload }: OutgoingFrame): boolean {
    return compress ?? (!fin || payload.length >= this.#options.threshold);
  }

  #compressed(frame: OutgoingFrame, output: Uint8Array): OutgoingFrame {
    const { opcode, fin } = frame;
    if (fin) this.#endMessage();
    const rsv = opcode === Opcode.Continuation ? frame.rsv : frame.rsv | Rsv.Rsv1;
    return { ...frame, rsv, payload: fin ? withoutTail(output) : output };
  }

  #endMessage(): void {
    if (this.#options.contextTakeover) return;
    this.#deflater?.close();
    this.#deflater = undefined;
  }

  close(): void {
    this.#deflater?.close();
    this.#deflater = undefined;
  }
}

/** RFC 7692 §7.2.1: the last four bytes of a message are left out. */
function withoutTail(output: Uint8Array): Uint8Array {
  // RFC 7692 §7.2.3.6: the head of an empty block stands for nothing at all.
  return output.length === 0 ? new Uint8Array(1) : output.subarray(0, -TAIL_LENGTH);
}
