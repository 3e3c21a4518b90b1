/**
 * The time of one run. In memory the time is virtual: it does not pass while anything moves, and then jumps
 * to the next timer. The work of threads takes a fixed number of turns. A run therefore takes no real time
 * and is always the same. Over TCP the clock is the platform's.
 */
import { replaceThreads } from "../threads.ts";

const { setTimeout: realTimeout, clearTimeout: realClear, performance } = globalThis;
const realNow = performance.now.bind(performance);
const ownNow = Object.getOwnPropertyDescriptor(performance, "now");
// The type of `globalThis.setImmediate` is not available in browsers.
const { setImmediate } = globalThis as unknown as { setImmediate(callback: () => void): unknown };

/** Waits for a later turn of the event loop. */
export function turn(): Promise<void> {
  return new Promise((resolve) => void setImmediate(() => resolve()));
}

/** Waits in real time, in milliseconds. */
export function wait(milliseconds: number): Promise<void> {
  return new Promise((resolve) => void realTimeout(resolve, milliseconds));
}

/** Number of turns without a movement after which the run is at rest. */
const QUIET_TURNS = 8;
/** Maximum number of jumps of the virtual time while `settle()` waits, because pings never end. */
const MOST_JUMPS = 60;
/** Maximum time that `settle()` waits over TCP if the condition must hold, and if it may, in milliseconds. */
const DEADLINE = 30_000;
const PATIENCE = 500;
/** Time without a movement after which `settle()` stops to wait over TCP, in milliseconds. */
const QUIET_TIME = 100;
/** Maximum time of a run over TCP, in milliseconds. */
const LONGEST_RUN = 90_000;
/** Maximum time of a sleep over TCP, in milliseconds. */
const LONGEST_SLEEP = 20;

/** Number of rests with no pending timer or sleep after which the program is stuck. */
const MOST_IDLE = 1000;

interface Timer {
  at: number;
  callback: () => void;
  /** Whether the library has set the timer. */
  library: boolean;
}

/** The operations of time that the program uses. */
export abstract class Clock {
  /** The number of timers of the library that have fired. */
  fired = 0;
  /** Rejects if the program waits for something that cannot happen. */
  readonly stuck: Promise<never>;
  protected reportStuck!: () => void;
  /** Whether threads of the platform may work for a connection, which takes real time. */
  threads = false;
  #moves = 0;

  constructor() {
    this.stuck = new Promise((_, reject) => {
      this.reportStuck = () =>
        reject(new Error("The program waits for an event that cannot happen"));
    });
    this.stuck.catch(() => {});
  }

  /** Records that something has happened. */
  touch(): void {
    this.#moves++;
  }

  protected get moves(): number {
    return this.#moves;
  }

  /** The number of pending timers of the library. */
  abstract get timers(): number;
  /** Waits for a time. */
  abstract sleep(milliseconds: number): Promise<void>;
  /** Waits until nothing moves, without letting time pass. */
  abstract rest(): Promise<void>;
  /**
   * Waits until the condition holds, or until nothing more will happen.
   *
   * @param must Whether the condition must become true.
   * @param within Maximum virtual time to wait, in milliseconds.
   */
  abstract settle(condition: () => boolean, must: boolean, within?: number): Promise<void>;
  /** Restores the platform's timers. */
  abstract stop(): void;

  /** Waits for some turns of the event loop. */
  async turns(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      this.touch();
      await turn();
    }
  }
}

/** Replaces the platform's timers. */
function replaceTimers(set: typeof setTimeout, clear: (timer: never) => void): void {
  globalThis.setTimeout = set;
  globalThis.clearTimeout = clear as typeof clearTimeout;
}

function restoreTimers(): void {
  globalThis.setTimeout = realTimeout;
  globalThis.clearTimeout = realClear;
}

/** A condition that `settle()` waits for in virtual time. */
interface Settling {
  condition: () => boolean;
  resolve: () => void;
  jumps: number;
  /** Timers after this time do not fire. */
  until: number;
}

/** Time that jumps from timer to timer. */
export class VirtualClock extends Clock {
  #now = 1000;
  #waiting: Timer[] = [];
  #resting: (() => void)[] = [];
  #settling: Settling | undefined;
  #stopped = false;
  readonly #restoreThreads: () => void;

  constructor() {
    super();
    this.#restoreThreads = replaceThreads(async (turns) => {
      for (let i = 0; i < turns; i++) await turn();
      this.touch();
    });
    replaceTimers(
      ((callback: (...args: unknown[]) => void, delay = 0, ...args: unknown[]) =>
        this.#set(() => callback(...args), delay, true)) as unknown as typeof setTimeout,
      (timer) => this.#clear(timer),
    );
    performance.now = () => this.#now;
    void this.#drive();
  }

  #set(callback: () => void, delay: number, library: boolean): Timer {
    const timer = { at: this.#now + Math.max(1, delay), callback, library, unref() {}, ref() {} };
    // Timers with the same time fire in the order in which they were set.
    const behind = this.#waiting.findIndex(({ at }) => at > timer.at);
    this.#waiting.splice(behind < 0 ? this.#waiting.length : behind, 0, timer);
    return timer;
  }

  #clear(timer: Timer | undefined): void {
    this.#waiting = this.#waiting.filter((other) => other !== timer);
  }

  get timers(): number {
    return this.#waiting.filter(({ library }) => library).length;
  }

  sleep(milliseconds: number): Promise<void> {
    return new Promise((resolve) => void this.#set(resolve, milliseconds, false));
  }

  rest(): Promise<void> {
    return new Promise((resolve) => void this.#resting.push(resolve));
  }

  settle(condition: () => boolean, _must: boolean, within = Infinity): Promise<void> {
    const until = this.#now + within;
    return new Promise((resolve) => {
      this.#settling = { condition, resolve, jumps: 0, until };
    });
  }

  /** Jumps whenever nothing moves. */
  async #drive(): Promise<void> {
    let idle = 0;
    while (!this.#stopped) {
      await this.#quiet();
      if (this.#resting.length > 0) this.#resolveResting();
      else if (this.#isSettled()) this.#resolveSettling();
      else if (this.#mayJump()) await this.#jump();
      else if (this.#settling !== undefined) this.#resolveSettling();
      else if (idle++ > MOST_IDLE) this.reportStuck();
    }
  }

  async #quiet(): Promise<void> {
    for (let quiet = 0; quiet < QUIET_TURNS && !this.#stopped; quiet++) {
      const before = this.moves;
      await turn();
      if (this.moves !== before) quiet = 0;
    }
  }

  #resolveResting(): void {
    const resting = this.#resting;
    this.#resting = [];
    this.touch();
    for (const resolve of resting) resolve();
  }

  #isSettled(): boolean {
    const settling = this.#settling;
    return settling !== undefined && (settling.condition() || settling.jumps++ >= MOST_JUMPS);
  }

  #resolveSettling(): void {
    const settling = this.#settling;
    this.#settling = undefined;
    settling?.resolve();
  }

  #mayJump(): boolean {
    const next = this.#waiting[0];
    return next !== undefined && next.at <= (this.#settling?.until ?? Infinity);
  }

  async #jump(): Promise<void> {
    this.#now = Math.max(this.#now, this.#waiting[0].at);
    while (this.#waiting.length > 0 && this.#waiting[0].at <= this.#now) {
      const timer = this.#waiting.shift()!;
      if (timer.library) this.fired++;
      this.touch();
      timer.callback();
      await Promise.resolve();
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#restoreThreads();
    restoreTimers();
    // On some platforms the original function is a method of the prototype.
    if (ownNow === undefined) delete (performance as { now?: unknown }).now;
    else Object.defineProperty(performance, "now", ownNow);
  }
}

/** The platform's time. It counts the timers and does not change them. */
export class RealClock extends Clock {
  readonly #waiting = new Set<unknown>();
  readonly #deadline = realTimeout(() => this.reportStuck(), LONGEST_RUN);

  constructor() {
    super();
    const set = (callback: (...args: unknown[]) => void, delay?: number, ...args: unknown[]) => {
      const timer = realTimeout(() => {
        this.#waiting.delete(timer);
        this.fired++;
        callback(...args);
      }, delay);
      this.#waiting.add(timer);
      return timer;
    };
    replaceTimers(set as unknown as typeof setTimeout, (timer) => {
      this.#waiting.delete(timer);
      realClear(timer);
    });
  }

  get timers(): number {
    return this.#waiting.size;
  }

  sleep(milliseconds: number): Promise<void> {
    return wait(Math.min(milliseconds, LONGEST_SLEEP));
  }

  async rest(): Promise<void> {
    const end = realNow() + QUIET_TIME;
    // Pings may go on forever.
    for (let quiet = 0; quiet < 3 && realNow() < end; quiet++) {
      const before = this.moves;
      await wait(1);
      if (this.moves !== before) quiet = 0;
    }
  }

  async settle(condition: () => boolean, must: boolean): Promise<void> {
    const end = realNow() + (must ? DEADLINE : PATIENCE);
    let moves = this.moves;
    let moved = realNow();
    for (let turns = 0; !condition() && realNow() < end; turns++) {
      // Most conditions hold at once.
      if (turns < 50) await turn();
      else await wait(1);
      if (this.moves !== moves) moved = realNow();
      else if (!must && realNow() > moved + QUIET_TIME) return;
      moves = this.moves;
    }
  }

  stop(): void {
    realClear(this.#deadline);
    restoreTimers();
  }
}
