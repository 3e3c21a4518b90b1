/**
 * The handle beneath the stream objects of `node:zlib`: the only way to compress synchronously and
 * keep the context. It is private to the platform.
 *
 * A file of its own so that what depends on a private thing stands in one place. A wrong call would
 * end the process on some platforms, so that nothing is called before the platform has been seen to
 * call it in the same way.
 *
 * @module
 */
import { constants, createDeflateRaw, type DeflateRaw } from "node:zlib";

const { Z_SYNC_FLUSH } = constants;

/** How a handle is made. */
export interface HandleOptions {
  kind: "deflate" | "inflate";
  windowBits: number;
  level?: number;
  memLevel?: number;
  strategy?: number;
}

type Write = (...args: unknown[]) => void;

/** What is called on it. */
interface RawHandle {
  init(...args: unknown[]): unknown;
  write: Write;
  writeSync: Write;
  reset(): void;
  close(): void;
  onerror: ((message: string) => void) | undefined;
}

/** How this platform's handles are made and called, as seen. */
interface Shape {
  make: new (mode: number) => RawHandle;
  /** What `init()` is given behind the four settings. */
  rest: unknown[];
  /** Whether the counts are written to an array given to `init()`, or to every call. */
  stateAtInit: boolean;
}

let shape: Shape | undefined;
let looked = false;

/** Whether handles can be used here: they look and act as expected. */
export function hasHandles(): boolean {
  if (!looked) {
    looked = true;
    try {
      shape = lookAtCalls();
      if (shape !== undefined && !roundTrips()) shape = undefined;
    } catch {
      shape = undefined;
    }
  }
  return shape !== undefined;
}

interface StreamWithHandle extends DeflateRaw {
  _handle: RawHandle;
}

/** Watches how the platform itself calls `init()` and `write()`. */
function lookAtCalls(): Shape | undefined {
  const { _handle } = createDeflateRaw() as StreamWithHandle;
  const prototype = Object.getPrototypeOf(_handle) as RawHandle;
  const { stream, args } = watchInit(prototype);
  stream.on("error", () => {});
  const rest = args.slice(4);
  const stateAtInit = rest.some(isState);
  // Where it is not, a wrong call throws and does no harm.
  const fits = initFits(args) && (!stateAtInit || writeFits(watchWrite(stream)));
  stream.destroy();
  if (!fits) return undefined;
  return { make: prototype.constructor as Shape["make"], rest, stateAtInit };
}

function watchInit(prototype: RawHandle): { stream: StreamWithHandle; args: unknown[] } {
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

/** Nothing is compressed: the stream goes on waiting for it. */
function watchWrite(stream: StreamWithHandle): unknown[] {
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
  // A dictionary, which there is none of, and flags that are off.
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

/** Whether two messages, the second of which refers to the first, survive. */
function roundTrips(): boolean {
  const text = "Sluice, sluice, and sluice again";
  const input = new TextEncoder().encode(text);
  const deflate = new Handle({ kind: "deflate", windowBits: 15, level: 6, memLevel: 8 });
  const inflate = new Handle({ kind: "inflate", windowBits: 15 });
  const lengths: number[] = [];
  for (let i = 0; i < 2; i++) {
    const packed = new Uint8Array(128);
    const unpacked = new Uint8Array(128);
    deflate.step(input, 0, packed, 0);
    lengths.push(packed.length - deflate.room);
    inflate.step(packed.subarray(0, lengths[i]), 0, unpacked, 0);
    const length = unpacked.length - inflate.room;
    if (new TextDecoder().decode(unpacked.subarray(0, length)) !== text) return false;
  }
  deflate.close();
  inflate.step(new Uint8Array([0xff]), 0, new Uint8Array(8), 0);
  const failed = inflate.error !== undefined;
  inflate.close();
  return failed && lengths[1] < lengths[0] && lengths[1] > 4;
}

/** One stream of zlib's. */
export class Handle {
  /** What it was made with. */
  readonly options: HandleOptions;
  /** What went wrong in the last step. */
  error: Error | undefined;
  readonly #raw: RawHandle;
  readonly #state = new Uint32Array(2);
  readonly #stateAtInit: boolean;
  #done: (() => void) | undefined;
  #pending = false;
  #closed = false;

  constructor(options: HandleOptions) {
    const { make: Raw, rest, stateAtInit } = shape!;
    const { kind, windowBits, level = 6, memLevel = 8, strategy = 0 } = options;
    const { DEFLATERAW, INFLATERAW } = constants as unknown as Record<string, number>;
    this.options = options;
    this.#stateAtInit = stateAtInit;
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

  /** Bytes of the output that the last step has not written. */
  get room(): number {
    return this.#state[0];
  }

  /** Bytes of the input that the last step has not read. */
  get left(): number {
    return this.#state[1];
  }

  /** Reads the input from the offset on, and writes from the offset on, as far as both go. */
  step(input: Uint8Array, at: number, output: Uint8Array, start: number): void {
    this.error = undefined;
    const [length, room] = [input.length - at, output.length - start];
    if (this.#stateAtInit) {
      this.#raw.writeSync(Z_SYNC_FLUSH, input, at, length, output, start, room);
    } else {
      this.#raw.writeSync(Z_SYNC_FLUSH, input, at, length, output, start, room, this.#state);
    }
  }

  /** The same in the platform's thread pool where it has one, or else a turn of the event loop later. */
  stepLater(
    input: Uint8Array,
    at: number,
    output: Uint8Array,
    start: number,
    done: () => void,
  ): void {
    this.#done = done;
    if (!this.#stateAtInit) {
      this.step(input, at, output, start);
      this.#pending = true;
      setImmediate(() => this.#settle());
      return;
    }
    this.#pending = true;
    this.error = undefined;
    const [length, room] = [input.length - at, output.length - start];
    this.#raw.write(Z_SYNC_FLUSH, input, at, length, output, start, room);
  }

  #settle(): void {
    if (!this.#pending) return;
    this.#pending = false;
    const done = this.#done;
    this.#done = undefined;
    if (this.#closed) this.#raw.close();
    else done?.();
  }

  /** Whether a step is under way. */
  get pending(): boolean {
    return this.#pending;
  }

  /** Forgets what came before. */
  reset(): void {
    this.#raw.reset();
  }

  /** Frees it, once a step that is under way has ended; that is not reported any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // The thread still writes where it was told to.
    if (!this.#pending) this.#raw.close();
  }
}
