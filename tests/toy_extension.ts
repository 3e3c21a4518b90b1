/** A simple extension for the tests. */
import {
  type EncodedFrame,
  type Extension,
  type ExtensionFactory,
  type ExtensionParameters,
  type FramePiece,
  Opcode,
  type OutgoingFrame,
  PENDING,
  RemoteProtocolError,
} from "../lib/core/mod.ts";

export interface ToyOptions {
  rsv?: number;
  /** Whether the extension works asynchronously. */
  slow?: boolean;
  /** How many times each byte is repeated in the output for the receiver. */
  grow?: number;
  /** The parameters to offer, in order of preference. */
  offers?: ExtensionParameters[];
  /** The value of "level" that the server accepts. */
  level?: string;
}

/** Adds a number to each byte, and subtracts it again at the receiver. */
export class Toy implements ExtensionFactory {
  readonly name: string;
  readonly #by: number;
  readonly #options: ToyOptions;
  /** All codecs made, including those that are closed. */
  readonly made: ToyCodec[] = [];

  constructor(name: string, by: number, options: ToyOptions = {}) {
    this.name = name;
    this.#by = by;
    this.#options = options;
  }

  offer(): ExtensionParameters[] {
    return this.#options.offers ?? [[]];
  }

  finalize(): Extension {
    const codec = new ToyCodec(this.name, this.#by, this.#options);
    this.made.push(codec);
    return codec;
  }

  accept(parameters: ExtensionParameters) {
    const { level } = this.#options;
    if (level !== undefined && !parameters.some(([, value]) => value === level)) return undefined;
    return { parameters, extension: this.finalize() };
  }
}

export class ToyCodec implements Extension {
  readonly name: string;
  readonly rsv: number;
  readonly #by: number;
  readonly #options: ToyOptions;
  #pieces: FramePiece[] = [];
  #done: FramePiece[] = [];
  closed = 0;
  /** The number of times the codec has worked asynchronously. */
  pending = 0;

  constructor(name: string, by: number, options: ToyOptions) {
    this.name = name;
    this.rsv = options.rsv ?? 0;
    this.#by = by;
    this.#options = options;
  }

  push(piece: FramePiece): void {
    const { header } = piece;
    if (header.opcode !== Opcode.Continuation && (header.rsv & this.rsv) !== this.rsv) {
      throw new RemoteProtocolError(`Expected the bits of ${this.name}`, 1002);
    }
    this.#pieces.push(piece);
  }

  next(ready?: () => void): FramePiece | typeof PENDING | undefined {
    const done = this.#done.shift();
    if (done !== undefined) return done;
    const piece = this.#pieces.shift();
    if (piece === undefined) return undefined;
    if (!this.#options.slow || ready === undefined) return this.#change(piece);
    this.pending++;
    setImmediate(() => {
      if (this.closed > 0) return;
      this.#done.push(this.#change(piece));
      ready();
    });
    return PENDING;
  }

  #change({ header, payload, last }: FramePiece): FramePiece {
    const { grow = 1 } = this.#options;
    const bytes = new Uint8Array(payload.length * grow);
    for (let i = 0; i < bytes.length; i++) bytes[i] = payload[i % payload.length] - this.#by;
    return { header: { ...header, rsv: header.rsv & ~this.rsv, length: 0 }, payload: bytes, last };
  }

  encode(frame: OutgoingFrame, later?: EncodedFrame): OutgoingFrame | undefined {
    const rsv = frame.opcode === Opcode.Continuation ? frame.rsv : frame.rsv | this.rsv;
    const changed = { ...frame, rsv, payload: frame.payload.map((byte) => byte + this.#by) };
    if (!this.#options.slow || later === undefined) return changed;
    this.pending++;
    setImmediate(() => {
      if (this.closed === 0) later(undefined, changed);
    });
  }

  close(): void {
    this.closed++;
  }
}
