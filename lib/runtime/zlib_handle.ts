/**
 * The handle beneath the stream objects of `node:zlib`. It is private to the platform, and on some
 * platforms a wrong call ends the process. So a handle is called only in the ways in which the platform
 * has been seen to call it.
 *
 * @module
 */
import { constants, createDeflateRaw, type DeflateRaw } from "node:zlib";

const { Z_SYNC_FLUSH } = constants;

/** The settings of a handle. */
export interface HandleOptions {
  kind: "deflate" | "inflate";
  windowBits: number;
  level?: number;
  memLevel?: number;
  strategy?: number;
}

type Write = (...args: unknown[]) => void;

/** The part of the platform's handles that is used here. */
interface RawHandle {
  init(...args: unknown[]): unknown;
  write: Write;
  writeSync: Write;
  reset(): void;
  close(): void;
  onerror: ((message: string) => void) | undefined;
}

/** How this platform makes and calls its handles. */
interface Shape {
  make: new (mode: number) => RawHandle;
  /** The arguments of `init()` after the four settings. */
  rest: unknown[];
  /** Whether the array for the counts is given to `init()`, or to every call. */
  stateAtInit: boolean;
}

let shape: Shape | undefined;
let isKnown = false;

/** Whether handles can be used here: they look and act as expected. */
export function hasHandles(): boolean {
  if (isKnown) return shape !== undefined;
  isKnown = true;
  try {
    shape = observeCalls();
    if (shape !== undefined && !roundTrips()) shape = undefined;
  } catch {
    shape = undefined;
  }
  return shape !== undefined;
}

interface StreamWithHandle extends DeflateRaw {
  _handle: RawHandle;
}

/** Observes how the platform itself calls `init()` and `write()`. Undefined if that is not as expected. */
function observeCalls(): Shape | undefined {
  const { _handle } = createDeflateRaw() as StreamWithHandle;
  const prototype = Object.getPrototypeOf(_handle) as RawHandle;
  const { stream, args } = observeInit(prototype);
  stream.on("error", () => {});
  const rest = args.slice(4);
  const stateAtInit = rest.some(isState);
  // If the array is given to every call, a wrong call throws and does no harm.
  const fits = initFits(args) && (!stateAtInit || writeFits(observeWrite(stream)));
  stream.destroy();
  if (!fits) return undefined;
  return { make: prototype.constructor as Shape["make"], rest, stateAtInit };
}

function observeInit(prototype: RawHandle): { stream: StreamWithHandle; args: unknown[] } {
  const { init } = prototype;
  let seen: unknown[] = [];
  prototype.init = function (...args) {
    seen = args;
    return init.apply(this, args);
  };
  try {
    const stream = createDeflateRaw({ windowBits: 13, level: 3, memLevel: 5 }) as StreamWithHandle;
    return { stream, args: seen };
  } finally {
    prototype.init = init;
  }
}

/** The write is not carried out: the stream keeps waiting for its result. */
function observeWrite(stream: StreamWithHandle): unknown[] {
  let seen: unknown[] = [];
  Object.assign(stream._handle, {
    write: (...args: unknown[]) => {
      seen = args;
    },
  });
  stream.write(new Uint8Array(3));
  return seen;
}

function initFits(args: unknown[]): boolean {
  const [windowBits, level, memLevel, strategy, ...rest] = args;
  if (windowBits !== 13 || level !== 3 || memLevel !== 5 || strategy !== 0) return false;
  // A dictionary, which is absent, and flags that are off.
  const others = rest.filter((value) => !isState(value) && typeof value !== "function");
  return rest.length - others.length <= 2 && rest.some((value) => typeof value === "function") &&
    others.every((value) => value === undefined || value === false);
}

function isState(value: unknown): boolean {
  return value instanceof Uint32Array && value.length === 2;
}

function writeFits(args: unknown[]): boolean {
  if (args.length !== 7) return false;
  const [flush, input, inputAt, inputLength, output, outputAt, room] = args;
  return typeof flush === "number" && input instanceof Uint8Array && inputAt === 0 &&
    inputLength === 3 && output instanceof Uint8Array && outputAt === 0 && room === output.length;
}

/** Whether two messages, the second of which refers to the first, survive, and an error is reported. */
function roundTrips(): boolean {
  const text = "Sluice, sluice, and sluice again";
  const input = new TextEncoder().encode(text);
  const deflate = new Handle({ kind: "deflate", windowBits: 15, level: 6, memLevel: 8 });
  const inflate = new Handle({ kind: "inflate", windowBits: 15 });
  const lengths: number[] = [];
  for (let i = 0; i < 2; i++) {
    const packed = new Uint8Array(128);
    const unpacked = new Uint8Array(128);
    deflate.step(input, 0, packed);
    lengths.push(packed.length - deflate.room);
    inflate.step(packed.subarray(0, lengths[i]), 0, unpacked);
    const length = unpacked.length - inflate.room;
    if (new TextDecoder().decode(unpacked.subarray(0, length)) !== text) return false;
  }
  deflate.close();
  let hasFailed = false;
  try {
    inflate.step(new Uint8Array([0xff]), 0, new Uint8Array(8));
  } catch {
    hasFailed = true;
  }
  inflate.close();
  return hasFailed && lengths[1] < lengths[0] && lengths[1] > 4;
}

/** A stream of zlib. */
export class Handle {
  readonly options: HandleOptions;
  /** The error of the last step. */
  error: Error | undefined;
  readonly #raw: RawHandle;
  readonly #state = new Uint32Array(2);
  /** The arguments of a write after the usual seven. */
  readonly #rest: readonly unknown[];
  #done: (() => void) | undefined;
  #isPending = false;
  #isClosed = false;

  constructor(options: HandleOptions) {
    const { make: Raw, rest, stateAtInit } = shape!;
    const { kind, windowBits, level = 6, memLevel = 8, strategy = 0 } = options;
    const { DEFLATERAW, INFLATERAW } = constants as unknown as Record<string, number>;
    this.options = options;
    this.#rest = stateAtInit ? [] : [this.#state];
    this.#raw = new Raw(kind === "deflate" ? DEFLATERAW : INFLATERAW);
    this.#raw.onerror = (message) => {
      this.error = new Error(message);
      this.#settle();
    };
    const settle = () => this.#settle();
    const own = rest.map((value) =>
      isState(value) ? this.#state : typeof value === "function" ? settle : value
    );
    this.#raw.init(windowBits, level, memLevel, strategy, ...own);
  }

  /** The bytes of the output that the last step has not written. */
  get room(): number {
    return this.#state[0];
  }

  /** The bytes of the input that the last step has not read. */
  get left(): number {
    return this.#state[1];
  }

  /** Whether a step is under way. */
  get pending(): boolean {
    return this.#isPending;
  }

  /**
   * Reads the input from an offset on, and fills the output, until one of them is used up.
   *
   * @throws {Error} If the input is not valid
   */
  step(input: Uint8Array, at: number, output: Uint8Array): void {
    this.#write("writeSync", input, at, output);
    if (this.error !== undefined) throw this.error;
  }

  /**
   * Does the same in the platform's thread pool, or else a turn of the event loop later. An error is
   * found in `error`.
   */
  stepLater(input: Uint8Array, at: number, output: Uint8Array, done: () => void): void {
    this.#done = done;
    const isThreaded = this.#rest.length === 0;
    this.#isPending = isThreaded;
    this.#write(isThreaded ? "write" : "writeSync", input, at, output);
    if (isThreaded) return;
    this.#isPending = true;
    setImmediate(() => this.#settle());
  }

  #write(method: "write" | "writeSync", input: Uint8Array, at: number, output: Uint8Array): void {
    this.error = undefined;
    const [length, room] = [input.length - at, output.length];
    this.#raw[method](Z_SYNC_FLUSH, input, at, length, output, 0, room, ...this.#rest);
  }

  #settle(): void {
    if (!this.#isPending) return;
    this.#isPending = false;
    const done = this.#done;
    this.#done = undefined;
    if (this.#isClosed) this.#raw.close();
    else done?.();
  }

  /** Forgets the bytes that came before. */
  reset(): void {
    this.#raw.reset();
  }

  /** Frees the handle, after a step that is under way. The end of that step is not reported. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // The thread still writes into its buffers.
    if (!this.#isPending) this.#raw.close();
  }
}
