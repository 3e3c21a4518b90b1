/** The clock and the timers of the library. All modules use them, so that tests can replace the time. */

type Schedule = (callback: () => void) => unknown;

const { setImmediate } = globalThis as { setImmediate?: Schedule };

/** Calls back in a later macrotask, after all pending microtasks. */
export const nextTurn: Schedule = setImmediate ?? ((callback) => setTimeout(callback, 0));

/** Maximum delay of the platforms' timers, in milliseconds. A longer delay fires at once. */
const LONGEST_DELAY = 2 ** 31 - 1;

/** Lateness of a timer, in milliseconds, that shows that the process stood still or was busy. */
const STANDSTILL = 50;

const SLICES = 4;

/**
 * Number of turns of the event loop after which the platform has read its sockets, and a reader that
 * pauses the transport after each chunk has taken several chunks.
 */
const TURNS = 4;

/** Returns the time of a clock that never goes back, in milliseconds. */
export function now(): number {
  return performance.now();
}

/** Returns the milliseconds since 1970. The clock of the machine may be wrong. */
export function wallClock(): number {
  return Date.now();
}

/**
 * Calls back after a delay of any length, in milliseconds. Returns a function that cancels the timer.
 * @param background Whether the timer does not keep the process running.
 */
export function timer(callback: () => void, delay: number, background = false): () => void {
  if (delay === Infinity) return doNothing;
  if (delay > LONGEST_DELAY) return longTimer(callback, delay, background);
  // Browsers return a number, which has no `unref()`.
  const started = setTimeout(callback, delay) as { unref?: () => void } | number;
  if (background && typeof started === "object") started.unref?.();
  return () => clearTimeout(started as number);
}

function longTimer(callback: () => void, delay: number, background: boolean): () => void {
  let cancel = timer(
    () => cancel = timer(callback, delay - LONGEST_DELAY, background),
    LONGEST_DELAY,
    background,
  );
  return () => cancel();
}

/** Calls back after a delay, in milliseconds. Does not keep the process running. */
export function backgroundTimer(callback: () => void, delay: number): () => void {
  return timer(callback, delay, true);
}

/**
 * Calls back when the peer has used up its time. The clock alone does not decide: if the event loop or
 * the process stood still, the answer may wait unread in the socket. So the time is counted in slices,
 * and a slice that ends late does not count, unless the slice before it was late too. At the end, the
 * callback runs only after some turns in which an answer could have been read. A deadline does not keep
 * the process running.
 */
export class Countdown {
  readonly #callback: () => void;
  readonly #hasProgressed: (() => boolean) | undefined;
  readonly #slice: number;
  #slicesLeft = SLICES;
  #isLate = false;
  #due = 0;
  #cancelTimer: () => void = doNothing;
  #isCancelled = false;
  readonly #onSlice = () => this.#endSlice();

  /**
   * @param timeout The time that the peer has, in milliseconds. Infinity means no limit.
   * @param hasProgressed Called after each slice. If it returns true, the time starts again.
   * @param elapsed The part of the first slice that is over already, in milliseconds.
   */
  constructor(
    callback: () => void,
    timeout: number,
    hasProgressed?: () => boolean,
    elapsed = 0,
  ) {
    this.#callback = callback;
    this.#hasProgressed = hasProgressed;
    this.#slice = Math.ceil(timeout / SLICES);
    this.#wait(this.#slice - Math.floor(elapsed));
  }

  cancel(): void {
    this.#isCancelled = true;
    this.#cancelTimer();
  }

  #wait(delay = this.#slice): void {
    this.#due = now() + delay;
    this.#cancelTimer = timer(this.#onSlice, delay, true);
  }

  #endSlice(): void {
    const isLate = now() - this.#due > Math.max(this.#slice / 4, STANDSTILL);
    this.#isLate = !this.#isLate && isLate;
    if (this.#hasProgressed?.()) this.#slicesLeft = SLICES;
    else if (!this.#isLate) this.#slicesLeft--;
    if (this.#slicesLeft > 0) this.#wait();
    else afterTurns(TURNS, () => this.#end());
  }

  #end(): void {
    if (this.#isCancelled) return;
    if (!this.#hasProgressed?.()) return this.#callback();
    this.#slicesLeft = SLICES;
    this.#wait();
  }
}

function doNothing(): void {}

function afterTurns(turns: number, callback: () => void): void {
  if (turns === 0) callback();
  else nextTurn(() => afterTurns(turns - 1, callback));
}

/** Maximum number of bytes that one connection sends in a turn of the event loop. */
const MOST_WORK = 4_194_304;

const LONG = 10;

/** The number of turns in which work was counted, and whether the current turn is one of them. */
let turns = 0;
let isTurnKnown = false;
/** The promise of the next turn, shared by all senders that wait for it. */
let next: Promise<void> | undefined;
let arrive: (() => void) | undefined;

function knowTurn(): void {
  if (isTurnKnown) return;
  isTurnKnown = true;
  nextTurn(() => {
    isTurnKnown = false;
    turns++;
    arrive?.();
    next = arrive = undefined;
  });
}

/**
 * Counts the work of a sender in a turn of the event loop. A sender that continues in microtasks would
 * keep timers and sockets from running.
 */
export class TurnClock {
  #turn = -1;
  #began = 0;
  #work = 0;

  /** Counts work, in bytes. Returns a promise of the next turn if the current turn has been long. */
  count(work: number): Promise<void> | undefined {
    knowTurn();
    if (this.#turn !== turns) {
      this.#turn = turns;
      this.#began = now();
      this.#work = work;
      return undefined;
    }
    this.#work += work;
    if (this.#work < MOST_WORK && now() - this.#began < LONG) return undefined;
    return next ??= new Promise((resolve) => arrive = resolve);
  }
}
