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
import { History } from "./zlib_history.ts";

const { Z_SYNC_FLUSH, Z_RLE, Z_DEFAULT_STRATEGY } = constants;
const EMPTY = new Uint8Array(0);
/** RFC 7692 §7.2.1: what is left out at the end of a message. */
const HELD_BACK = [0x00, 0x00, 0xff, 0xff];
/** The same, followed by an empty final block: without an end zlib reports that the data was cut short. */
const TAIL = new Uint8Array([...HELD_BACK, 0x01, 0x00, 0x00, 0xff, 0xff]);
const PIECE = 65536;
/** How many final blocks may be in a message: all that follows one is copied. */
const FINAL_BLOCKS = 16;
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
    return new Uint8Array(deflateRawSync(input, this.#options));
  }

  deflateLater(
    input: Uint8Array,
    done: (error: Error | undefined, output: Uint8Array) => void,
  ): void {
    deflateRaw(input, this.#options, (error, output) => {
      if (!this.#closed) done(error ?? undefined, error ? EMPTY : new Uint8Array(output));
    });
  }

  reset(): void {}

  close(): void {
    this.#closed = true;
  }
}

interface Inflated {
  buffer: Uint8Array;
  engine: { bytesWritten: number };
}

/** Gathers a message, and inflates it when it is whole. */
class PublicInflater implements Inflater {
  readonly #options: InflaterOptions;
  readonly #most: number;
  readonly #history: History;
  #parts: Uint8Array[] = [];
  #size = 0;
  #whole = false;
  #output: Uint8Array = EMPTY;
  #given = 0;
  #closed = false;

  constructor(options: InflaterOptions) {
    this.#options = options;
    this.#history = new History(options.windowBits);
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
    this.#whole = true;
  }

  next(): Uint8Array {
    if (this.#whole) {
      this.#output = this.#inflate(concat([...this.#parts, TAIL]));
      this.#parts = [];
      this.#size = this.#given = 0;
      this.#whole = false;
    }
    const piece = this.#output.slice(this.#given, this.#given + PIECE);
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

  /** Inflates a message, behind which stands the tail. */
  #inflate(input: Uint8Array): Uint8Array {
    const end = input.length - TAIL.length;
    const outputs: Uint8Array[] = [];
    let left = this.#most;
    let at = 0;
    // RFC 7692 §7.2.3.4: data may follow a final block, where zlib stops.
    do {
      if (outputs.length > FINAL_BLOCKS) throw new Error("too many final blocks");
      const { output, read } = this.#inflateTo(input.subarray(at), left);
      // A message that is whole ends with a final block, or with the head of an empty block.
      const whole = at + read <= end ||
        (at + read === input.length && !this.#hasTail(output, input.subarray(at, end)));
      if (!whole) throw new Error("unexpected end of data");
      outputs.push(output);
      left -= output.length;
      at += read;
      this.#history.add(output);
    } while (at < end);
    return outputs.length === 1 ? outputs[0] : concat(outputs);
  }

  /** Inflates up to the end, or that of a final block. */
  #inflateTo(input: Uint8Array, most: number): { output: Uint8Array; read: number } {
    const window = this.#history.block();
    const known = this.#history.length;
    const options = {
      windowBits: this.#options.windowBits,
      maxOutputLength: known + most + 1,
      info: true,
    };
    let inflated: Inflated;
    try {
      // The platforms differ in whether they have dictionaries.
      inflated = inflateRawSync(concat([window, input]), options) as unknown as Inflated;
    } catch (error) {
      if ((error as { code?: string }).code === "ERR_BUFFER_TOO_LARGE") throw this.#tooLong();
      throw error;
    }
    const output = new Uint8Array(inflated.buffer).slice(known);
    if (output.length > most) throw this.#tooLong();
    return { output, read: inflated.engine.bytesWritten - window.length };
  }

  /** Whether the tail was taken for the last bytes of a stored block that was cut short. */
  #hasTail(output: Uint8Array, data: Uint8Array): boolean {
    if (!HELD_BACK.every((byte, i) => byte === output.at(i - HELD_BACK.length))) return false;
    const { windowBits } = this.#options;
    const input = concat([this.#history.block(), data]);
    const without = inflateRawSync(input, { windowBits, finishFlush: Z_SYNC_FLUSH });
    return without.length < this.#history.length + output.length;
  }

  #tooLong(): RangeError {
    return new RangeError(
      `Expected a message of at most ${this.#most} bytes, received a longer one`,
    );
  }

  reset(): void {
    this.#history.clear();
  }

  close(): void {
    this.#closed = true;
  }
}

/** An engine of the public functions only. */
export const publicEngine: DeflateEngine = {
  deflater: (options) => new PublicDeflater(options),
  inflater: (options) => new PublicInflater(options),
};
