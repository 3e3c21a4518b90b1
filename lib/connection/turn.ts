/**
 * How long the present turn of the event loop has lasted.
 *
 * @module
 */
import { nextTurn, now } from "../timers.ts";

/** From so many milliseconds on a turn in which messages are sent is a long one. */
const LONG = 4;

/** When a turn was last seen to begin, and the promise of the next one if somebody waits for it. */
let began = 0;
let next: Promise<void> | undefined;

/**
 * A promise of the next turn, if none has begun for a while as far as is known: whoever goes on and on
 * in microtasks keeps timers and sockets from theirs.
 */
export function longTurn(): Promise<void> | undefined {
  if (next !== undefined || now() - began < LONG) return next;
  return next = new Promise((resolve) =>
    nextTurn(() => {
      next = undefined;
      began = now();
      resolve();
    })
  );
}
