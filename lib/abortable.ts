/**
 * Waiting that an AbortSignal can end.
 *
 * @module
 */
import { timer } from "./timers.ts";

/** Calls back when a signal is aborted, or already is. Returns a function that removes the listener. */
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

const ignore = () => {};

/** Marks a promise as handled. Callers that await the promise still get its rejection. */
export function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(ignore);
  return promise;
}
