/**
 * How long the present turn of the event loop has lasted.
 *
 * @module
 */
import { nextTurn, now } from "../timers.ts";

/** So much work is done before the time is taken: 64 KiB, or 64 short messages, are 1. */
const MUCH = 8;

/** From so many milliseconds on, the turn in which more is done is a long one. */
const LONG = 3;

/** The turns seen so far, and whether the next one is waited for. */
let turns = 0;
let isWatched = false;
/** Given to those who wait for the next turn. */
let next: Promise<void> | undefined;
let arrive: (() => void) | undefined;

function watch(): void {
  if (isWatched) return;
  isWatched = true;
  nextTurn(() => {
    isWatched = false;
    turns++;
    arrive?.();
    next = arrive = undefined;
  });
}

/**
 * How long somebody has worked in the present turn. Whoever goes on and on in microtasks keeps timers and
 * sockets from theirs.
 */
export class TurnClock {
  #work = 0;
  /** The turn in which much was done, and since when. */
  #turn = -1;
  #began = 0;

  /** Counts work. Gives a promise of the next turn if this one is long. */
  look(work: number): Promise<void> | undefined {
    if (this.#turn === turns) {
      if (now() - this.#began < LONG) return undefined;
      return next ??= new Promise((resolve) => arrive = resolve);
    }
    this.#work += work;
    if (this.#work < MUCH) return undefined;
    this.#work = 0;
    this.#turn = turns;
    this.#began = now();
    watch();
    return undefined;
  }
}
