/**
 * Waiting that a signal ends.
 *
 * @module
 */
import { timer } from "./timers.ts";

/**
 * Waits for a promise until a signal is aborted.
 *
 * @param promise what to wait for; its rejection counts as handled
 * @param signal ends the waiting
 * @returns a promise that settles like the given one, or rejects with the reason of the signal
 */
export function abortable<T>(promise: PromiseLike<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    const settle = () => signal.removeEventListener("abort", abort);
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) abort();
    promise.then((value) => (settle(), resolve(value)), (error) => (settle(), reject(error)));
  });
}

/**
 * Waits for a number of milliseconds, or until a signal is aborted.
 *
 * @param delay the time to wait, in milliseconds
 * @param signal ends the waiting
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
