/**
 * The handle beneath the streams of `node:zlib`. The handle is private, and on some platforms a wrong
 * call crashes the process. Therefore a handle is only called in the ways that the platform itself was
 * seen to use.
 */
import { failure } from "../core/error.ts";
import { constants, createDeflateRaw, type DeflateRaw } from "node:zlib";

const { Z_SYNC_FLUSH } = constants;

export interface HandleOptions {
  kind: "deflate" | "inflate";
  windowBits: number;
  level?: number;
  memLevel?: number;
  strategy?: number;
}

type Write = (...args: unknown[]) => void;

interface RawHandle {
  init(...args: unknown[]): unknown;
  write: Write;
  writeSync: Write;
  reset(): void;
  close(): void;
  onerror: ((message: string) => void) | undefined;
}

interface Shape {
  make: new (mode: number) => RawHandle;
  /** The arguments of `init()` after the four settings. */
  rest: unknown[];
  /** Whether the array for the counts is passed to `init()` or to every call. */
  stateAtInit: boolean;
}

/** Null if handles do not look or behave as expected. */
let shape: Shape | null | undefined;

/** Whether handles look and behave as expected on this platform. */
export function hasHandles(): boolean {
  if (shape !== undefined) return shape !== null;
  try {
    shape = observeCalls();
    if (shape !== null && !roundTrips()) shape = null;
  } catch {
    shape = null;
  }
  return shape !== null;
}

interface StreamWithHandle extends DeflateRaw {
  _handle: RawHandle;
}

/** Observes how the platform calls `init()` and `write()`. Returns null if the calls are unexpected. */
function observeCalls(): Shape | null {
  const { _handle } = createDeflateRaw() as StreamWithHandle;
  const prototype = Object.getPrototypeOf(_handle) as RawHandle;
  const { stream, args } = observeInit(prototype);
  stream.on("error", () => {});
  const rest = args.slice(4);
  const stateAtInit = rest.some(isState);
  // If the array is passed to every call, a wrong call throws and does no harm.
  const fits = initFits(args) && (!stateAtInit || writeFits(observeWrite(stream)));
  stream.destroy();
  return fits ? { make: prototype.constructor as Shape["make"], rest, stateAtInit } : null;
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

/** Records a write without carrying it out. The stream keeps waiting for its result. */
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
  // An absent dictionary, and flags that are off.
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

/** Whether a message can refer to the message before it, and an error is reported. */
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

export class Handle {
  readonly options: HandleOptions;
  error: Error | undefined;
  readonly #raw: RawHandle;
  readonly #state = new Uint32Array(2);
  readonly #rest: readonly unknown[];
  #done: (() => void) | undefined;
  isPending = false;
  #isClosed = false;

  constructor(options: HandleOptions) {
    const { make: Raw, rest, stateAtInit } = shape!;
    const { kind, windowBits, level = 6, memLevel = 8, strategy = 0 } = options;
    const { DEFLATERAW, INFLATERAW } = constants as unknown as Record<string, number>;
    this.options = options;
    this.#rest = stateAtInit ? [] : [this.#state];
    this.#raw = new Raw(kind === "deflate" ? DEFLATERAW : INFLATERAW);
    this.#raw.onerror = (message) => {
      this.error = failure(message, "platform-failed");
      this.#settle();
    };
    const settle = () => this.#settle();
    const own = rest.map((value) =>
      isState(value) ? this.#state : typeof value === "function" ? settle : value
    );
    this.#raw.init(windowBits, level, memLevel, strategy, ...own);
  }

  /** Number of output bytes that the last step has not written. */
  get room(): number {
    return this.#state[0];
  }

  /** Number of input bytes that the last step has not read. */
  get left(): number {
    return this.#state[1];
  }

  /** Reads input and fills the output until one is used up. Throws if the input is invalid. */
  step(input: Uint8Array, at: number, output: Uint8Array): void {
    this.#write("writeSync", input, at, output);
    if (this.error !== undefined) throw this.error;
  }

  /** Like `step()`, but in the thread pool or a later turn. `error` holds the error, if any. */
  stepLater(input: Uint8Array, at: number, output: Uint8Array, done: () => void): void {
    this.#done = done;
    const isThreaded = this.#rest.length === 0;
    this.isPending = isThreaded;
    this.#write(isThreaded ? "write" : "writeSync", input, at, output);
    if (isThreaded) return;
    this.isPending = true;
    setImmediate(() => this.#settle());
  }

  #write(method: "write" | "writeSync", input: Uint8Array, at: number, output: Uint8Array): void {
    this.error = undefined;
    const [length, room] = [input.length - at, output.length];
    this.#raw[method](Z_SYNC_FLUSH, input, at, length, output, 0, room, ...this.#rest);
  }

  #settle(): void {
    if (!this.isPending) return;
    this.isPending = false;
    const done = this.#done;
    this.#done = undefined;
    if (this.#isClosed) this.#raw.close();
    else done?.();
  }

  reset(): void {
    this.#raw.reset();
  }

  /** Frees the handle after the current step. The end of that step is not reported. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // The thread still writes into its buffers.
    if (!this.isPending) this.#raw.close();
  }
}
