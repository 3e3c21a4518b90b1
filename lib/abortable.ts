/** Waiting that an AbortSignal can end. */
import { nextTurn, timer } from "./timers.ts";

const ignore = () => {};

/**
 * The callbacks of each signal. Thousands of connections may wait for one signal: a listener for each of
 * them would take time that grows with their number, and Node 20 warns of more than ten.
 */
const callbacks = new WeakMap<AbortSignal, Set<() => void>>();

/** The only listener of each signal. */
function tellAborted(this: AbortSignal): void {
  const waiting = callbacks.get(this)!;
  callbacks.delete(this);
  for (const callback of waiting) callUncaught(callback);
}

/** Calls back as an event target does: an error does not keep the other callbacks from being called. */
function callUncaught(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    nextTurn(() => {
      throw error;
    });
  }
}

/** Calls back when a signal is aborted, or already is. Returns a function that stops waiting for it. */
export function onAbort(
  signal: AbortSignal | undefined,
  callback: (reason: unknown) => void,
): () => void {
  if (signal === undefined) return ignore;
  const abort = () => callback(signal.reason);
  if (signal.aborted) {
    abort();
    return ignore;
  }
  let waiting = callbacks.get(signal);
  if (waiting === undefined) {
    callbacks.set(signal, waiting = new Set());
    signal.addEventListener("abort", tellAborted, { once: true });
  }
  waiting.add(abort);
  return () => {
    waiting.delete(abort);
    if (waiting.size > 0 || callbacks.get(signal) !== waiting) return;
    callbacks.delete(signal);
    signal.removeEventListener("abort", tellAborted);
  };
}

/** Waits for a promise, or rejects with the reason of the signal. Marks the promise as handled. */
export function abortable<T>(promise: PromiseLike<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = onAbort(signal, reject);
    promise.then((value) => (stop(), resolve(value)), (error) => (stop(), reject(error)));
  });
}

/** Waits for a number of milliseconds. Rejects with the reason of the signal if it is aborted. */
export async function sleep(delay: number, signal: AbortSignal): Promise<void> {
  let cancel!: () => void;
  const over = new Promise<void>((resolve) => cancel = timer(resolve, delay));
  try {
    await abortable(over, signal);
  } finally {
    cancel();
  }
}

/**
 * Waits for a promise. If it rejects, the error is given to `retrace()` at a moment at which a new
 * stack has the frames of the functions that await the result. Marks the result as handled.
 */
export function traced<T>(promise: Promise<T>, retrace: (error: unknown) => unknown): Promise<T> {
  const result: Promise<T> = new Promise((resolve) => {
    promise.then(resolve, (error) => resolve(rejectTraced(result, () => retrace(error))));
  });
  return result;
}

/** Returns what to resolve `waiting` with, so that it rejects with a traced error. See `traced()`. */
export async function rejectTraced(waiting: Promise<unknown>, make: () => unknown): Promise<never> {
  // V8 finds the frames from the second microtask on, and only while nothing else waits for the promise.
  await undefined;
  await undefined;
  const error = make();
  handled(waiting);
  throw error;
}

/** Marks a promise as handled. Callers that await the promise still get its rejection. */
export function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(ignore);
  return promise;
}

/** A stream whose `pipeTo()` may be ignored: a rejection never counts as unhandled. */
export class Readable<T> extends ReadableStream<T> {
  override pipeTo(...args: Parameters<ReadableStream<T>["pipeTo"]>): Promise<void> {
    return handled(super.pipeTo(...args));
  }
}

/** Lets calls wait while it is closed. They go on in the order in which they came. */
export class Gate {
  #opened: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Waits until the gate is open. Takes as long if it is, so that no call overtakes those that waited. */
  pass(signal: AbortSignal): Promise<unknown> {
    return abortable(this.#opened, signal);
  }

  /** Closes the gate until a promise has settled, unless it is closed already. */
  close(wait: () => Promise<unknown>): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#opened = Promise.allSettled([wait()]).then(() => this.#isClosed = false);
  }
}
