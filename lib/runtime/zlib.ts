/**
 * `node:zlib`, which all the runtimes have, as the {@linkcode DeflateEngine}.
 *
 * @module
 */
import type {
  DeflateEngine,
  Deflater,
  DeflaterOptions,
  Inflater,
  InflaterOptions,
} from "../core/deflate.ts";
import { concat } from "../core/message.ts";
import { Handle, type HandleOptions, hasHandles } from "./zlib_handle.ts";
import { publicEngine, storedBlock } from "./zlib_public.ts";

/** The most that comes out of a step, in bytes. */
const PIECE = 65536;
/** The least room that is worth a step. */
const LEAST_ROOM = 1024;
const EMPTY = new Uint8Array(0);
// What RFC 7692 §7.2.2 puts back, and an empty block behind it: to data that was cut short this is no
// empty block but more data, of which something comes out, or an error.
const TAIL = new Uint8Array([0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0xff, 0xff]);
/** zlib: makes matches at distance 1 only. */
const Z_RLE = 3;

// To go on behind a final block costs as much as 32 KiB of data do, and it may be of two bytes.
const FINAL_BLOCKS = 16;
const FINAL_BLOCK_EVERY = 256;

// What comes out is carved from this; bytes that were given out are not used again.
let slab: Uint8Array = EMPTY;
let carved = 0;

/** Sees to it that there is room behind `carved`. */
function reserve(room: number): void {
  if (slab.length - carved >= room) return;
  slab = new Uint8Array(PIECE);
  carved = 0;
}

/** Carves what was written behind `carved`. */
function carve(room: number): Uint8Array {
  const end = slab.length - room;
  const bytes = slab.subarray(carved, end);
  carved = end;
  return bytes;
}

// Handles that are free: to make one costs more than to compress a short message with it.
const IDLE_MOST = 16;
const idle: Handle[] = [];

function acquire(options: HandleOptions): Handle {
  const at = idle.findLastIndex(({ options: other }) =>
    other.kind === options.kind && other.windowBits === options.windowBits &&
    other.level === options.level && other.memLevel === options.memLevel &&
    other.strategy === options.strategy
  );
  return at < 0 ? new Handle(options) : idle.splice(at, 1)[0];
}

function release(handle: Handle): void {
  if (handle.pending || handle.error !== undefined) return handle.close();
  handle.reset();
  idle.push(handle);
  if (idle.length > IDLE_MOST) idle.shift()!.close();
}

/** A handle until it is given back: from then on it is somebody else's. */
class Loan {
  #handle: Handle | undefined;

  constructor(options: HandleOptions) {
    this.#handle = acquire(options);
  }

  get handle(): Handle {
    if (this.#handle === undefined) throw new Error("Expected an engine that is not closed");
    return this.#handle;
  }

  end(): void {
    if (this.#handle !== undefined) release(this.#handle);
    this.#handle = undefined;
  }
}

class HandleDeflater implements Deflater {
  readonly #loan: Loan;

  constructor({ windowBits, level, memLevel }: DeflaterOptions) {
    // zlib has no raw deflate with a window of 256 bytes. Matches at distance 1 fit into any.
    const small = windowBits === 8 ? { windowBits: 9, strategy: Z_RLE } : { windowBits };
    this.#loan = new Loan({ kind: "deflate", level, memLevel, ...small });
  }

  deflate(input: Uint8Array): Uint8Array {
    const handle = this.#loan.handle;
    // Most of what is short and does not get shorter fits into this.
    reserve(Math.min(input.length + 64, PIECE / 4));
    handle.step(input, 0, slab, carved);
    throwIfFailed(handle);
    const output = carve(handle.room);
    return handle.room === 0 ? this.#rest(output, input) : output;
  }

  #rest(first: Uint8Array, input: Uint8Array): Uint8Array {
    const handle = this.#loan.handle;
    const parts = [first];
    while (handle.room === 0) {
      reserve(PIECE / 4);
      handle.step(input, input.length - handle.left, slab, carved);
      throwIfFailed(handle);
      parts.push(carve(handle.room));
    }
    return concat(parts);
  }

  deflateLater(
    input: Uint8Array,
    done: (error: Error | undefined, output: Uint8Array) => void,
  ): void {
    const parts: Uint8Array[] = [];
    const handle = this.#loan.handle;
    const step = (at: number) => {
      const output = new Uint8Array(PIECE);
      handle.stepLater(input, at, output, 0, () => {
        if (handle.error !== undefined) return done(handle.error, EMPTY);
        parts.push(output.subarray(0, PIECE - handle.room));
        if (handle.room === 0) step(input.length - handle.left);
        else done(undefined, parts.length === 1 ? parts[0] : concat(parts));
      });
    };
    step(0);
  }

  reset(): void {
    this.#loan.handle.reset();
  }

  close(): void {
    this.#loan.end();
  }
}

function throwIfFailed(handle: Handle): void {
  if (handle.error !== undefined) throw handle.error;
}

class HandleInflater implements Inflater {
  readonly #loan: Loan;
  readonly #history: History | undefined;
  #input: Uint8Array = EMPTY;
  #at = 0;
  /** Whether the last step has filled its output, and may have more. */
  #full = false;
  #finishing = false;
  /** How many final blocks may still come in the present message. */
  #finalBlocks = FINAL_BLOCKS;

  constructor({ windowBits, contextTakeover }: InflaterOptions) {
    this.#loan = new Loan({ kind: "inflate", windowBits });
    if (contextTakeover) this.#history = new History(windowBits);
  }

  get idle(): boolean {
    return this.#at === this.#input.length && !this.#full;
  }

  push(input: Uint8Array): void {
    this.#input = input;
    this.#at = 0;
    this.#finalBlocks += input.length / FINAL_BLOCK_EVERY;
  }

  finish(): void {
    this.#input = TAIL;
    this.#at = 0;
    this.#finishing = true;
  }

  next(): Uint8Array {
    if (this.idle) return EMPTY;
    const expected = 4 * (this.#input.length - this.#at);
    reserve(Math.max(LEAST_ROOM, Math.min(expected, PIECE)));
    this.#loan.handle.step(this.#input, this.#at, slab, carved);
    const output = carve(this.#loan.handle.room);
    this.#stepped(output);
    return output;
  }

  nextLater(done: (error: Error | undefined, output: Uint8Array) => void): void {
    const output = new Uint8Array(PIECE);
    const handle = this.#loan.handle;
    handle.stepLater(this.#input, this.#at, output, 0, () => {
      const written = output.subarray(0, PIECE - handle.room);
      try {
        this.#stepped(written);
      } catch (error) {
        return done(error as Error, EMPTY);
      }
      done(undefined, written);
    });
  }

  #stepped(output: Uint8Array): void {
    const handle = this.#loan.handle;
    throwIfFailed(handle);
    this.#at = this.#input.length - handle.left;
    this.#full = handle.room === 0;
    this.#history?.add(output);
    if (!this.#full && handle.left > 0) this.#goOn();
    if (this.#finishing) this.#checkEnd(output);
  }

  /** RFC 7692 §7.2.3.4: bytes may follow a final block, before which zlib stops and forgets. */
  #goOn(): void {
    if (--this.#finalBlocks < 0) throw new Error("too many final blocks");
    this.#loan.handle.reset();
    this.#history?.replay(this.#loan.handle);
  }

  /** A message that is whole ends with the head of an empty block, which the tail makes whole. */
  #checkEnd(output: Uint8Array): void {
    if (output.length > 0) throw new Error("unexpected end of data");
    if (!this.idle) return;
    this.#finishing = false;
    this.#finalBlocks = FINAL_BLOCKS;
  }

  reset(): void {
    this.#loan.handle.reset();
    this.#history?.clear();
  }

  close(): void {
    this.#loan.end();
  }
}

/** The last bytes that came out: as many as the window holds. */
class History {
  readonly #size: number;
  #ring: Uint8Array = EMPTY;
  #at = 0;
  #length = 0;

  constructor(windowBits: number) {
    this.#size = 1 << windowBits;
  }

  add(bytes: Uint8Array): void {
    const size = this.#size;
    if (this.#ring.length === 0) this.#ring = new Uint8Array(size);
    const kept = bytes.length > size ? bytes.subarray(bytes.length - size) : bytes;
    const before = Math.min(kept.length, size - this.#at);
    if (before === kept.length) {
      this.#ring.set(kept, this.#at);
    } else {
      this.#ring.set(kept.subarray(0, before), this.#at);
      this.#ring.set(kept.subarray(before), 0);
    }
    this.#at = (this.#at + kept.length) % size;
    this.#length = Math.min(size, this.#length + kept.length);
  }

  clear(): void {
    this.#at = this.#length = 0;
  }

  /** Gives them to a handle that was reset, as if they had come again. */
  replay(handle: Handle): void {
    const length = this.#length;
    if (length === 0) return;
    const old = length < this.#size ? EMPTY : this.#ring.subarray(this.#at);
    const block = storedBlock(concat([old, this.#ring.subarray(0, this.#at)]));
    handle.step(block, 0, new Uint8Array(length + 1), 0);
    throwIfFailed(handle);
  }
}

const handleEngine: DeflateEngine = {
  deflater: (options) => new HandleDeflater(options),
  inflater: (options) => new HandleInflater(options),
};

/** Each way to compress that this platform has, the best one first. */
export function deflateEngines(): DeflateEngine[] {
  return hasHandles() ? [handleEngine, publicEngine] : [publicEngine];
}

/** The best way to compress that this platform has. */
export const deflateEngine: DeflateEngine = {
  deflater: (options) => deflateEngines()[0].deflater(options),
  inflater: (options) => deflateEngines()[0].inflater(options),
};
