/**
 * The {@linkcode DeflateEngine} over `node:zlib`.
 *
 * The handles beneath the streams of `node:zlib` compress synchronously and keep the context. They are
 * private, so the public functions are used if the handles do not behave as expected.
 */
import { failure, wrongValue } from "../core/error.ts";
import { constants, deflateRaw, deflateRawSync, inflateRawSync, type ZlibOptions } from "node:zlib";
import type {
  DeflateEngine,
  Deflater,
  DeflaterOptions,
  Inflater,
  InflaterOptions,
} from "../core/deflate.ts";
import { concat } from "../core/message.ts";
import { Handle, type HandleOptions, hasHandles } from "./zlib_handle.ts";

type Done = (error: Error | undefined, output: Uint8Array) => void;

const { Z_DEFAULT_STRATEGY, Z_RLE, Z_SYNC_FLUSH } = constants;
const EMPTY = new Uint8Array(0);

const PIECE = 65536;

/**
 * Maximum number of final blocks in a message, because each one causes extra work. A handle allows one
 * more per `FINAL_BLOCK_EVERY` bytes.
 */
const FINAL_BLOCKS = 16;
const FINAL_BLOCK_EVERY = 256;

/** zlib has no raw deflate with a window of 256 bytes, but matches at distance 1 fit into any window. */
function windowOptions(windowBits: number): { windowBits: number; strategy: number } {
  if (windowBits === 8) return { windowBits: 9, strategy: Z_RLE };
  return { windowBits, strategy: Z_DEFAULT_STRATEGY };
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return parts.length === 1 ? parts[0] : concat(parts as Uint8Array[]);
}

const HEAD_LENGTH = 5;

/** The window of an inflater. zlib forgets it at a final block, but RFC 7692 §7.2.3.4 keeps it. */
class Window {
  readonly #size: number;
  /** Room for a header, the window and half its size, so that the window seldom has to be moved. */
  #bytes: Uint8Array = EMPTY;
  #start = HEAD_LENGTH;
  #end = HEAD_LENGTH;

  constructor(windowBits: number) {
    this.#size = 1 << windowBits;
  }

  get length(): number {
    return this.#end - this.#start;
  }

  add(bytes: Uint8Array): void {
    const size = this.#size;
    if (bytes.length === 0) return;
    if (this.#bytes === EMPTY) this.#bytes = new Uint8Array(HEAD_LENGTH + size + size / 2);
    const last = bytes.length > size ? bytes.subarray(bytes.length - size) : bytes;
    if (this.#end + last.length > this.#bytes.length) {
      this.#start = Math.max(this.#start, this.#end - (size - last.length));
      this.#bytes.copyWithin(HEAD_LENGTH, this.#start, this.#end);
      this.#end = HEAD_LENGTH + this.length;
      this.#start = HEAD_LENGTH;
    }
    this.#bytes.set(last, this.#end);
    this.#end += last.length;
    this.#start = Math.max(this.#start, this.#end - size);
  }

  clear(): void {
    this.#start = this.#end = HEAD_LENGTH;
  }

  /** Returns the window as an uncompressed block, which is valid until the next `add()`. */
  block(): Uint8Array {
    const { length } = this;
    if (length === 0) return EMPTY;
    const at = this.#start - HEAD_LENGTH;
    this.#bytes.set([0, length, length >> 8, ~length, ~length >> 8], at);
    return this.#bytes.subarray(at, this.#end);
  }
}

// With handles

/** Free handles, because creating a handle takes longer than compressing a short message. */
const freeHandles: Handle[] = [];
const MOST_FREE = 16;

function takeHandle(options: HandleOptions): Handle {
  const at = freeHandles.findLastIndex(({ options: other }) =>
    other.kind === options.kind && other.windowBits === options.windowBits &&
    other.level === options.level && other.memLevel === options.memLevel &&
    other.strategy === options.strategy
  );
  return at < 0 ? new Handle(options) : freeHandles.splice(at, 1)[0];
}

function freeHandle(handle: Handle): void {
  if (handle.isPending || handle.error !== undefined) return handle.close();
  handle.reset();
  freeHandles.push(handle);
  if (freeHandles.length > MOST_FREE) freeHandles.shift()!.close();
}

/** The output of synchronous steps. The caller copies bytes out of it. */
const scratch = new Uint8Array(PIECE);

function copyOutput({ room }: Handle): Uint8Array {
  return room === PIECE ? EMPTY : scratch.slice(0, PIECE - room);
}

class HandleUser {
  #handle: Handle | undefined;

  constructor(options: HandleOptions) {
    this.#handle = takeHandle(options);
  }

  protected get handle(): Handle {
    if (this.#handle === undefined) {
      throw failure("The compressor or decompressor has been closed", "platform-failed");
    }
    return this.#handle;
  }

  close(): void {
    if (this.#handle !== undefined) freeHandle(this.#handle);
    this.#handle = undefined;
  }
}

class HandleDeflater extends HandleUser implements Deflater {
  constructor({ windowBits, level, memLevel }: DeflaterOptions) {
    super({ kind: "deflate", level, memLevel, ...windowOptions(windowBits) });
  }

  deflate(input: Uint8Array): Uint8Array {
    const { handle } = this;
    const parts: Uint8Array[] = [];
    let at = 0;
    do {
      handle.step(input, at, scratch);
      parts.push(copyOutput(handle));
      at = input.length - handle.left;
    } while (handle.room === 0);
    return joined(parts);
  }

  deflateLater(input: Uint8Array, done: Done): void {
    const { handle } = this;
    const parts: Uint8Array[] = [];
    const step = (at: number) => {
      const output = new Uint8Array(PIECE);
      handle.stepLater(input, at, output, () => {
        if (handle.error !== undefined) return done(handle.error, EMPTY);
        parts.push(output.subarray(0, PIECE - handle.room));
        if (handle.room === 0) step(input.length - handle.left);
        else done(undefined, joined(parts));
      });
    };
    step(0);
  }

  reset(): void {
    this.handle.reset();
  }
}

// RFC 7692 §7.2.2: the four bytes that end a message, then an empty block. If the data was truncated,
// zlib takes the tail for data, and either returns output or reports an error.
const TAIL = new Uint8Array([0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0xff, 0xff]);

class HandleInflater extends HandleUser implements Inflater {
  readonly #window: Window | undefined;
  #input: Uint8Array = EMPTY;
  #at = 0;
  /** Whether the last step has filled its output, so that more output may follow. */
  #isFull = false;
  #isStopped = false;
  #isFinishing = false;
  /** Number of final blocks that are still allowed in the current message. */
  #finalBlocks = FINAL_BLOCKS;

  constructor({ windowBits, contextTakeover }: InflaterOptions) {
    super({ kind: "inflate", windowBits });
    if (contextTakeover) this.#window = new Window(windowBits);
  }

  get idle(): boolean {
    return this.#at === this.#input.length && !this.#isFull;
  }

  push(input: Uint8Array): void {
    this.#input = input;
    this.#at = 0;
    this.#finalBlocks += input.length / FINAL_BLOCK_EVERY;
  }

  finish(): void {
    this.#input = TAIL;
    this.#at = 0;
    this.#isFinishing = true;
  }

  next(): Uint8Array {
    if (this.idle) return EMPTY;
    const handle = this.#readyHandle();
    handle.step(this.#input, this.#at, scratch);
    const output = copyOutput(handle);
    this.#advance(output);
    return output;
  }

  nextLater(done: Done): void {
    const room = new Uint8Array(PIECE);
    const handle = this.#readyHandle();
    handle.stepLater(this.#input, this.#at, room, () => {
      if (handle.error !== undefined) return done(handle.error, EMPTY);
      const output = handle.room === 0 ? room : room.slice(0, PIECE - handle.room);
      try {
        this.#advance(output);
      } catch (error) {
        return done(error as Error, EMPTY);
      }
      done(undefined, output);
    });
  }

  /** RFC 7692 §7.2.3.4: data may follow a final block, where zlib stops and forgets its window. */
  #readyHandle(): Handle {
    const { handle } = this;
    if (!this.#isStopped) return handle;
    this.#isStopped = false;
    handle.reset();
    const block = this.#window?.block() ?? EMPTY;
    if (block.length > 0) handle.step(block, 0, scratch);
    return handle;
  }

  #advance(output: Uint8Array): void {
    const { left, room } = this.handle;
    this.#at = this.#input.length - left;
    this.#isFull = room === 0;
    this.#isStopped = !this.#isFull && left > 0;
    this.#window?.add(output);
    if (this.#isStopped && --this.#finalBlocks < 0) {
      throw failure("too many final blocks", "platform-failed");
    }
    if (this.#isFinishing) this.#checkEnd(output);
  }

  /**
   * A complete message ends with the header of an empty block, which the tail completes, or with a final
   * block, after which zlib reads nothing of the tail.
   */
  #checkEnd(output: Uint8Array): void {
    if (output.length > 0 || (this.#isStopped && this.#at > 0)) {
      throw failure("unexpected end of data", "platform-failed");
    }
    if (this.#isStopped) this.#at = this.#input.length;
    if (!this.idle) return;
    this.#isFinishing = false;
    this.#finalBlocks = FINAL_BLOCKS;
  }

  reset(): void {
    this.handle.reset();
    this.#isStopped = false;
    this.#window?.clear();
  }
}

// With the public functions

/** Compresses each input separately. A peer that keeps the context can read the result too. */
class PublicDeflater implements Deflater {
  readonly #options: ZlibOptions;
  #isClosed = false;

  constructor({ windowBits, level, memLevel }: DeflaterOptions) {
    this.#options = { level, memLevel, finishFlush: Z_SYNC_FLUSH, ...windowOptions(windowBits) };
  }

  deflate(input: Uint8Array): Uint8Array {
    return new Uint8Array(deflateRawSync(input, this.#options));
  }

  deflateLater(input: Uint8Array, done: Done): void {
    deflateRaw(input, this.#options, (error, output) => {
      if (!this.#isClosed) done(error ?? undefined, error ? EMPTY : new Uint8Array(output));
    });
  }

  reset(): void {}

  close(): void {
    this.#isClosed = true;
  }
}

/** RFC 7692 §7.2.1: the bytes that are omitted at the end of a message. */
const HELD_BACK = [0x00, 0x00, 0xff, 0xff];
/** `HELD_BACK` and an empty final block. Without a final block, zlib reports truncated data. */
const FINAL_TAIL = new Uint8Array([...HELD_BACK, 0x01, 0x00, 0x00, 0xff, 0xff]);
/** Maximum size of a message for the public functions, in bytes, whatever limit is set. */
const MOST = 2 ** 30;

interface Inflated {
  buffer: Uint8Array;
  engine: { bytesWritten: number };
}

class PublicInflater implements Inflater {
  readonly #windowBits: number;
  readonly #most: number;
  readonly #window: Window;
  #parts: Uint8Array[] = [];
  #size = 0;
  #isWhole = false;
  #output: Uint8Array = EMPTY;
  #isClosed = false;

  constructor({ windowBits, maxMessageSize }: InflaterOptions) {
    this.#windowBits = windowBits;
    this.#window = new Window(windowBits);
    this.#most = Math.min(MOST, maxMessageSize);
  }

  get idle(): boolean {
    return !this.#isWhole && this.#output.length === 0;
  }

  push(input: Uint8Array): void {
    this.#size += input.length;
    // No compressor adds this many bytes to a message within the limit.
    if (this.#size > 2 * this.#most + 1024) throw this.#tooLong();
    this.#parts.push(input.slice());
  }

  finish(): void {
    this.#isWhole = true;
  }

  next(): Uint8Array {
    if (this.#isWhole) {
      this.#output = this.#inflate(concat([...this.#parts, FINAL_TAIL]));
      this.#parts = [];
      this.#size = 0;
      this.#isWhole = false;
    }
    const piece = this.#output.slice(0, PIECE);
    this.#output = this.#output.length > PIECE ? this.#output.subarray(PIECE) : EMPTY;
    return piece;
  }

  nextLater(done: Done): void {
    setImmediate(() => {
      if (this.#isClosed) return;
      let piece: Uint8Array;
      try {
        piece = this.next();
      } catch (error) {
        return done(error as Error, EMPTY);
      }
      done(undefined, piece);
    });
  }

  #inflate(input: Uint8Array): Uint8Array {
    const end = input.length - FINAL_TAIL.length;
    const outputs: Uint8Array[] = [];
    let left = this.#most;
    let at = 0;
    // RFC 7692 §7.2.3.4: data may follow a final block, where zlib stops.
    do {
      if (outputs.length > FINAL_BLOCKS) throw failure("too many final blocks", "platform-failed");
      const { output, read } = this.#inflateBlocks(input.subarray(at), left);
      // A complete message ends with a final block, or with the header of an empty block.
      const isWhole = at + read <= end ||
        (at + read === input.length && !this.#hasTail(output, input.subarray(at, end)));
      if (!isWhole) throw failure("unexpected end of data", "platform-failed");
      outputs.push(output);
      left -= output.length;
      at += read;
      this.#window.add(output);
    } while (at < end);
    return joined(outputs);
  }

  /** Inflates until the end of the input or of a final block. */
  #inflateBlocks(input: Uint8Array, most: number): { output: Uint8Array; read: number } {
    const { length: known } = this.#window;
    // The window is passed as a leading block, because not all platforms support dictionaries.
    const block = this.#window.block();
    let inflated: Inflated;
    try {
      inflated = inflateRawSync(concat([block, input]), {
        windowBits: this.#windowBits,
        maxOutputLength: known + most + 1,
        info: true,
      }) as unknown as Inflated;
    } catch (error) {
      if ((error as { code?: string }).code === "ERR_BUFFER_TOO_LARGE") throw this.#tooLong();
      throw error;
    }
    const output = new Uint8Array(inflated.buffer).slice(known);
    if (output.length > most) throw this.#tooLong();
    return { output, read: inflated.engine.bytesWritten - block.length };
  }

  /** Whether zlib took the tail for the last bytes of a truncated stored block. */
  #hasTail(output: Uint8Array, data: Uint8Array): boolean {
    if (!HELD_BACK.every((byte, i) => byte === output.at(i - HELD_BACK.length))) return false;
    const without = inflateRawSync(concat([this.#window.block(), data]), {
      windowBits: this.#windowBits,
      finishFlush: Z_SYNC_FLUSH,
    });
    return without.length < this.#window.length + output.length;
  }

  #tooLong(): RangeError {
    return wrongValue(`Message of more than ${this.#most} bytes exceeds maxMessageSize`);
  }

  reset(): void {
    this.#window.clear();
  }

  close(): void {
    this.#isClosed = true;
  }
}

const handleEngine: DeflateEngine = {
  deflater: (options) => new HandleDeflater(options),
  inflater: (options) => new HandleInflater(options),
};

/** Compresses complete messages, without a context. */
export const publicEngine: DeflateEngine = {
  deflater: (options) => new PublicDeflater(options),
  inflater: (options) => new PublicInflater(options),
};

/** Returns the supported engines, the best one first. */
export function deflateEngines(): DeflateEngine[] {
  return hasHandles() ? [handleEngine, publicEngine] : [publicEngine];
}

/** The best engine that this platform supports. */
export const deflateEngine: DeflateEngine = {
  deflater: (options) => deflateEngines()[0].deflater(options),
  inflater: (options) => deflateEngines()[0].inflater(options),
};
