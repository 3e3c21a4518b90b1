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
import { History } from "./zlib_history.ts";
import { publicEngine } from "./zlib_public.ts";

/** The most that comes out of a step, in bytes. */
const PIECE = 65536;
const EMPTY = new Uint8Array(0);
// What RFC 7692 §7.2.2 puts back, and an empty block behind it: to data that was cut short this is no
// empty block but more data, of which something comes out, or an error.
const TAIL = new Uint8Array([0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0xff, 0xff]);
/** zlib: makes matches at distance 1 only. */
const Z_RLE = 3;

// To go on behind a final block costs about 2 microseconds, because zlib gets its window back.
const FINAL_BLOCKS = 16;
const FINAL_BLOCK_EVERY = 256;

/** Where all that is done at once is put out. Nothing of it is handed on. */
const scratch = new Uint8Array(PIECE);

/** What the last step has written there, in a buffer of its own. */
function written(handle: Handle): Uint8Array {
  const length = PIECE - handle.room;
  return length === 0 ? EMPTY : scratch.slice(0, length);
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
    const parts: Uint8Array[] = [];
    let at = 0;
    do {
      handle.step(input, at, scratch, 0);
      throwIfFailed(handle);
      parts.push(written(handle));
      at = input.length - handle.left;
    } while (handle.room === 0);
    return parts.length === 1 ? parts[0] : concat(parts);
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
  /** Whether zlib has stopped behind a final block. */
  #stopped = false;
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
    const handle = this.#ready();
    handle.step(this.#input, this.#at, scratch, 0);
    throwIfFailed(handle);
    const output = written(handle);
    this.#stepped(output);
    return output;
  }

  nextLater(done: (error: Error | undefined, output: Uint8Array) => void): void {
    const room = new Uint8Array(PIECE);
    const handle = this.#ready();
    handle.stepLater(this.#input, this.#at, room, 0, () => {
      const output = handle.room === 0 ? room : room.slice(0, PIECE - handle.room);
      try {
        throwIfFailed(handle);
        this.#stepped(output);
      } catch (error) {
        return done(error as Error, EMPTY);
      }
      done(undefined, output);
    });
  }

  /** RFC 7692 §7.2.3.4: data may follow a final block, at which zlib stops and forgets its window. */
  #ready(): Handle {
    const handle = this.#loan.handle;
    if (!this.#stopped) return handle;
    this.#stopped = false;
    handle.reset();
    const window = this.#history?.block() ?? EMPTY;
    if (window.length > 0) handle.step(window, 0, scratch, 0);
    throwIfFailed(handle);
    return handle;
  }

  #stepped(output: Uint8Array): void {
    const { left, room } = this.#loan.handle;
    this.#at = this.#input.length - left;
    this.#full = room === 0;
    this.#stopped = !this.#full && left > 0;
    this.#history?.add(output);
    if (this.#stopped && --this.#finalBlocks < 0) throw new Error("too many final blocks");
    if (this.#finishing) this.#checkEnd(output);
  }

  /**
   * A message that is whole ends with the head of an empty block, which the tail makes whole, or with a
   * final block, behind which zlib takes nothing of the tail.
   */
  #checkEnd(output: Uint8Array): void {
    if (output.length > 0 || (this.#stopped && this.#at > 0)) {
      throw new Error("unexpected end of data");
    }
    if (this.#stopped) this.#at = this.#input.length;
    if (!this.idle) return;
    this.#finishing = false;
    this.#finalBlocks = FINAL_BLOCKS;
  }

  reset(): void {
    this.#loan.handle.reset();
    this.#stopped = false;
    this.#history?.clear();
  }

  close(): void {
    this.#loan.end();
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
