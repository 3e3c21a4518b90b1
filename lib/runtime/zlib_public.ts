/**
 * What the public functions of `node:zlib` can do: whole messages, and no context to compress with.
 *
 * A file of its own because it stands in for the handles where those are not as expected.
 *
 * @module
 */
import { constants, deflateRaw, deflateRawSync, inflateRawSync, type ZlibOptions } from "node:zlib";
import type {
  DeflateEngine,
  Deflater,
  DeflaterOptions,
  Inflater,
  InflaterOptions,
} from "../core/deflate.ts";
import { concat } from "../core/message.ts";

const { Z_SYNC_FLUSH, Z_RLE, Z_DEFAULT_STRATEGY } = constants;
const EMPTY = new Uint8Array(0);
/** RFC 7692 §7.2.2, and behind it an empty final block: without an end zlib finds the data cut short. */
const TAIL = new Uint8Array([0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff]);
const PIECE = 65536;
/** The most bytes that a message may have, whatever the limit. */
const MOST = 2 ** 30;

/** Every input is compressed by itself, which a peer that keeps the context can read too. */
class PublicDeflater implements Deflater {
  readonly #options: ZlibOptions;
  #closed = false;

  constructor({ windowBits, level, memLevel }: DeflaterOptions) {
    // zlib has no raw deflate with a window of 256 bytes. Matches at distance 1 fit into any.
    const strategy = windowBits === 8 ? Z_RLE : Z_DEFAULT_STRATEGY;
    const bits = Math.max(9, windowBits);
    this.#options = { windowBits: bits, level, memLevel, strategy, finishFlush: Z_SYNC_FLUSH };
  }

  deflate(input: Uint8Array): Uint8Array {
    return own(deflateRawSync(input, this.#options));
  }

  deflateLater(
    input: Uint8Array,
    done: (error: Error | undefined, output: Uint8Array) => void,
  ): void {
    deflateRaw(input, this.#options, (error, output) => {
      if (!this.#closed) done(error ?? undefined, error ? EMPTY : own(output));
    });
  }

  reset(): void {}

  close(): void {
    this.#closed = true;
  }
}

/** A Buffer as what it is beneath: its `slice()` would not copy. */
function own({ buffer, byteOffset, byteLength }: Uint8Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

interface Inflated {
  buffer: Uint8Array;
  engine: { bytesWritten: number };
}

/** Gathers a message, and inflates it when it is whole. */
class PublicInflater implements Inflater {
  readonly #options: InflaterOptions;
  readonly #window: number;
  readonly #most: number;
  #history: Uint8Array = EMPTY;
  #parts: Uint8Array[] = [];
  #size = 0;
  #whole = false;
  #output: Uint8Array = EMPTY;
  #given = 0;
  #closed = false;

  constructor(options: InflaterOptions) {
    this.#options = options;
    this.#window = 1 << options.windowBits;
    this.#most = Math.min(MOST, options.maxMessageSize);
  }

  get idle(): boolean {
    return !this.#whole && this.#given === this.#output.length;
  }

  push(input: Uint8Array): void {
    this.#size += input.length;
    // No compression adds as much: what is longer is no message within the limit.
    if (this.#size > 2 * this.#most + 1024) throw this.#tooLong();
    this.#parts.push(input.slice());
  }

  finish(): void {
    this.#parts.push(TAIL);
    this.#whole = true;
  }

  next(): Uint8Array {
    if (this.#whole) {
      this.#output = this.#inflate(concat(this.#parts));
      this.#parts = [];
      this.#size = this.#given = 0;
      this.#whole = false;
    }
    const piece = this.#output.subarray(this.#given, this.#given + PIECE);
    this.#given += piece.length;
    if (this.#given === this.#output.length) {
      this.#output = EMPTY;
      this.#given = 0;
    }
    return piece;
  }

  nextLater(done: (error: Error | undefined, output: Uint8Array) => void): void {
    setImmediate(() => {
      if (this.#closed) return;
      let piece: Uint8Array = EMPTY;
      let failure: Error | undefined;
      try {
        piece = this.next();
      } catch (error) {
        failure = error as Error;
      }
      done(failure, piece);
    });
  }

  #inflate(input: Uint8Array): Uint8Array {
    const outputs: Uint8Array[] = [];
    let left = this.#most;
    // RFC 7692 §7.2.3.4: bytes may follow a final block, where zlib stops.
    for (let at = 0; at < input.length;) {
      const { output, read } = this.#inflateTo(input.subarray(at), left);
      outputs.push(output);
      left -= output.length;
      at += read;
      this.#remember(output);
    }
    return concat(outputs);
  }

  /** Inflates up to the end, or that of a final block. */
  #inflateTo(input: Uint8Array, most: number): { output: Uint8Array; read: number } {
    const history = this.#history;
    const head = storedBlock(history);
    const options = {
      windowBits: this.#options.windowBits,
      maxOutputLength: history.length + most + 1,
      info: true,
    };
    let inflated: Inflated;
    try {
      // The platforms differ in whether they have dictionaries.
      inflated = inflateRawSync(concat([head, input]), options) as unknown as Inflated;
    } catch (error) {
      if ((error as { code?: string }).code === "ERR_BUFFER_TOO_LARGE") throw this.#tooLong();
      throw error;
    }
    const output = own(inflated.buffer).subarray(history.length);
    if (output.length > most) throw this.#tooLong();
    return { output, read: inflated.engine.bytesWritten - head.length };
  }

  #remember(output: Uint8Array): void {
    this.#history = concat([this.#history, output]).slice(-this.#window);
  }

  #tooLong(): RangeError {
    return new RangeError(
      `Expected a message of at most ${this.#most} bytes, received a longer one`,
    );
  }

  reset(): void {
    this.#history = EMPTY;
  }

  close(): void {
    this.#closed = true;
  }
}

/** The bytes as a block without compression (RFC 1951 §3.2.4), at most 65535 of them. */
export function storedBlock(bytes: Uint8Array): Uint8Array {
  const { length } = bytes;
  if (length === 0) return EMPTY;
  return concat([new Uint8Array([0, length, length >> 8, ~length, ~length >> 8]), bytes]);
}

/** An engine of the public functions only. */
export const publicEngine: DeflateEngine = {
  deflater: (options) => new PublicDeflater(options),
  inflater: (options) => new PublicInflater(options),
};
