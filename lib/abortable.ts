/**
 * Waiting: that an AbortSignal ends, and whose rejection nobody need see.
 *
 * @module
 */
import { timer } from "./timers.ts";

/**
 * Calls back once when a signal is aborted, or at once if it is aborted already.
 *
 * @param signal the signal; without one, the callback is never called
 * @param callback the function to call with the reason of the signal
 * @returns a function that removes the listener
 */
export function onAbort(
  signal: AbortSignal | undefined,
  callback: (reason: unknown) => void,
): () => void {
  if (signal === undefined) return () => {};
  const abort = () => callback(signal.reason);
  if (signal.aborted) {
    abort();
    return () => {};
  }
  signal.addEventListener("abort", abort, { once: true });
  return () => signal.removeEventListener("abort", abort);
}

/**
 * Waits for a promise until a signal is aborted.
 *
 * @param promise the promise; its rejection counts as handled
 * @param signal the signal that ends the waiting
 * @returns a promise that settles like the given one, or rejects with the reason of the signal
 */
export function abortable<T>(promise: PromiseLike<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = onAbort(signal, reject);
    promise.then((value) => (stop(), resolve(value)), (error) => (stop(), reject(error)));
  });
}

/**
 * Waits for a number of milliseconds, or until a signal is aborted.
 *
 * @param delay the time to wait, in milliseconds
 * @param signal the signal that ends the waiting
 * @returns a promise that rejects with the reason of the signal
 */
export async function sleep(delay: number, signal: AbortSignal): Promise<void> {
  let cancel!: () => void;
  const over = new Promise<void>((resolve) => cancel = timer(resolve, delay));
  try {
    await abortable(over, signal);
  } finally {
    cancel();
  }
}

const ignore = () => {};

/** Marks a promise as handled: whoever wants its rejection still gets it. */
export function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(ignore);
  return promise;
}
