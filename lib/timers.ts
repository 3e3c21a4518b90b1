/**
 * The clock and the timers of the library: every file that waits, or asks for the time, uses this one.
 *
 * @module
 */

type Schedule = (callback: () => void) => unknown;

const { setImmediate } = globalThis as { setImmediate?: Schedule };

/** Calls back in a later macrotask, when all microtasks of the present one have run. */
export const nextTurn: Schedule = setImmediate ?? ((callback) => setTimeout(callback, 0));

/** The longest delay that the platforms' timers take, in milliseconds. A longer one fires at once. */
const LONGEST_DELAY = 2 ** 31 - 1;

/** A timer that is this late shows that the process stood still or was busy, in milliseconds. */
const STANDSTILL = 50;

/** The number of slices that the time of a deadline is counted in. */
const SLICES = 4;

/**
 * Turns of the event loop after which the platform has read its sockets, and a reader that pauses the
 * transport after each chunk has taken a few of them.
 */
const TURNS = 4;

/** The milliseconds of a clock that never goes back. */
export function now(): number {
  return performance.now();
}

/** The milliseconds since 1970 by the clock of this machine, which may be wrong. */
export function wallClock(): number {
  return Date.now();
}

/**
 * Calls back once, after a delay of any length.
 *
 * @param callback what to call
 * @param delay the delay, in milliseconds; Infinity for never
 * @returns a function that cancels the timer
 */
export function timer(callback: () => void, delay: number): () => void {
  return startTimer(callback, delay, false);
}

/** Like {@linkcode timer}, and does not hold the process open. */
export function backgroundTimer(callback: () => void, delay: number): () => void {
  return startTimer(callback, delay, true);
}

function startTimer(callback: () => void, delay: number, background: boolean): () => void {
  if (delay === Infinity) return () => {};
  if (delay > LONGEST_DELAY) return startLongTimer(callback, delay, background);
  // Browsers hand out numbers, which hold nothing open.
  const started = setTimeout(callback, delay) as { unref?: () => void } | number;
  if (background && typeof started === "object") started.unref?.();
  return () => clearTimeout(started as number);
}

/** A timer that is made of several, one after the other. */
function startLongTimer(callback: () => void, delay: number, background: boolean): () => void {
  let cancel = startTimer(
    () => cancel = startTimer(callback, delay - LONGEST_DELAY, background),
    LONGEST_DELAY,
    background,
  );
  return () => cancel();
}

/**
 * Calls back when the peer has used up its time. The clock alone does not decide: if the event loop or
 * the whole process stood still, the answer may lie unread in the socket. So the time is counted in
 * slices, and a slice that ends late does not count, unless the one before was late too. At the end, the
 * callback runs only after some turns in which an answer could have been read.
 *
 * A deadline does not hold the process open.
 *
 * @param callback what to call, unless the deadline was cancelled
 * @param timeout the time that the peer has, in milliseconds; Infinity for any time
 * @param hasProgressed asked after each slice; if it gives true, the time starts anew. Default: false
 * @returns a function that cancels the deadline
 */
export function deadline(
  callback: () => void,
  timeout: number,
  hasProgressed: () => boolean = () => false,
): () => void {
  const slice = Math.ceil(timeout / SLICES);
  let slicesLeft = SLICES;
  let isLate = false;
  let due: number;
  let cancelTimer: () => void;
  let cancelled = false;

  const wait = () => {
    due = now() + slice;
    cancelTimer = backgroundTimer(endSlice, slice);
  };
  const endSlice = () => {
    isLate = !isLate && now() - due > Math.max(slice / 4, STANDSTILL);
    if (hasProgressed()) slicesLeft = SLICES;
    else if (!isLate) slicesLeft--;
    if (slicesLeft > 0) wait();
    else afterTurns(TURNS, end);
  };
  const end = () => {
    if (cancelled) return;
    if (!hasProgressed()) return callback();
    slicesLeft = SLICES;
    wait();
  };
  wait();
  return () => {
    cancelled = true;
    cancelTimer();
  };
}

function afterTurns(turns: number, callback: () => void): void {
  if (turns === 0) callback();
  else nextTurn(() => afterTurns(turns - 1, callback));
}

/** Maximum work of one connection in a turn of the event loop, in bytes sent. */
const MOST_WORK = 4_194_304;

/** A turn of this many milliseconds is long, however little was sent. */
const LONG = 10;

/** The turns in which work was counted so far, and whether the present one is among them. */
let turns = 0;
let isTurnKnown = false;
/** Given to those who wait for the next turn. */
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
 * Counts what somebody does in a turn of the event loop. Whoever goes on and on in microtasks keeps timers
 * and sockets from theirs.
 */
export class TurnClock {
  #turn = -1;
  #began = 0;
  #work = 0;

  /** Counts work, in bytes. Gives a promise of the next turn if this one is long. */
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
