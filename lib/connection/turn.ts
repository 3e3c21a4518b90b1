/**
 * The event loop's turns.
 *
 * A file of its own because closing, the outbox and the byte stream adapters all need the same
 * macrotask, and the platforms name it differently.
 *
 * @module
 */

type Schedule = (callback: () => void) => unknown;

const { setImmediate } = globalThis as { setImmediate?: Schedule };

/** Calls back in a later macrotask, when all microtasks of the present one have run. */
export const nextTurn: Schedule = setImmediate ?? ((callback) => setTimeout(callback, 0));

/** The platforms' timers count no further, in milliseconds, and fire at once instead. */
export const LONGEST_DELAY: number = 2 ** 31 - 1;

/** A timer that does not hold the process open. One of more than 24 days never fires. */
export function backgroundTimer(callback: () => void, delay: number): () => void {
  if (delay > LONGEST_DELAY) return () => {};
  // Browsers hand out numbers, which hold nothing open.
  const timer = setTimeout(callback, delay) as { unref?: () => void } | number;
  if (typeof timer === "object") timer.unref?.();
  return () => clearTimeout(timer as number);
}
