/**
 * The time of a simulation. It does not pass while the program computes, and then jumps to the next timer
 * or network event. A simulated minute takes milliseconds, and every run is the same.
 *
 * Import this module before the library: the library looks up `setImmediate` when it is loaded.
 */
import { Random } from "../fuzz/random.ts";

type Callback = () => void;
type Later = (callback: (...args: unknown[]) => void, ...args: unknown[]) => unknown;

const platform = globalThis as unknown as { setImmediate: Later };
const realImmediate = platform.setImmediate;
const { setTimeout: realTimeout, clearTimeout: realClear } = globalThis;
const { now: dateNow } = Date;
const { random: mathRandom } = Math;
const ownNow = Object.getOwnPropertyDescriptor(performance, "now");
const ownRandomValues = Object.getOwnPropertyDescriptor(crypto, "getRandomValues");

/** The current simulation, if any. */
let current: SimulatedTime | undefined;

platform.setImmediate = (callback, ...args) =>
  current === undefined
    ? realImmediate(callback, ...args)
    : current.nextTurn(() => callback(...args));

/** Waits until all microtasks have run. */
export function drainMicrotasks(): Promise<void> {
  return new Promise((resolve) => void realImmediate(() => resolve()));
}

/** A timer, or an event of the network. */
interface Event {
  due: number;
  /** Events with the same time happen in the order of their creation. */
  order: number;
  callback: Callback | undefined;
  /** Whether the library has set the timer. */
  isOfLibrary?: boolean;
}

/** A queue of events, ordered by their time. */
class Agenda {
  readonly #heap: Event[] = [];

  /** The event that is due first. Removes cancelled events. */
  get first(): Event | undefined {
    while (this.#heap.length > 0 && this.#heap[0].callback === undefined) this.#removeFirst();
    return this.#heap[0];
  }

  /** The number of events that the library waits for. */
  get ofLibrary(): number {
    return this.#heap.filter((event) => event.isOfLibrary && event.callback !== undefined).length;
  }

  add(event: Event): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent])) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = event;
  }

  takeFirst(): Event {
    const first = this.first!;
    this.#removeFirst();
    return first;
  }

  #removeFirst(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
      if (!isBefore(heap[child], last)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.due < b.due || (a.due === b.due && a.order < b.order);
}

/** The program waits, but no event is left. */
export class NothingLeft extends Error {}

/** Real milliseconds to wait for threads and imports of the platform, and how often to wait. */
const PATIENCE = 5;
const MOST_PATIENCE = 200;

/** The clock, the timers and the random numbers of one simulation. */
export class SimulatedTime {
  /** The time since the beginning, in milliseconds. */
  now = 0;
  /** Time for which the process has been suspended so far, in milliseconds. */
  standstills = 0;
  readonly #numbers: Random;
  /** Does not affect the events: the number of mask keys drawn at a time depends on earlier runs. */
  readonly #bytes = new Random(0);
  readonly #timers = new Agenda();
  readonly #network = new Agenda();
  #turns: Callback[] = [];
  #order = 0;
  #wallClock = Date.UTC(2030, 0, 1);

  /** @param seed Seed of the platform's random numbers in this simulation. */
  constructor(seed: number) {
    this.#numbers = new Random(seed);
  }

  /** The number of pending timers of the library. */
  get timers(): number {
    return this.#timers.ofLibrary;
  }

  /** Calls back in the next turn of the event loop. */
  nextTurn(callback: Callback): void {
    this.#turns.push(callback);
  }

  /** Schedules a network event. */
  schedule(due: number, callback: Callback): void {
    this.#network.add({ due, order: this.#order++, callback });
  }

  /** Waits for a time. Does not count as a timer of the library. */
  sleep(duration: number): Promise<void> {
    return new Promise((resolve) => void this.#setTimer(resolve, duration, false));
  }

  /**
   * Suspends the process: time passes, but nothing happens. Afterwards the due timers fire before received
   * data is read, as in the event loops of the platforms.
   */
  standStill(duration: number): void {
    this.now += duration;
    this.standstills += duration;
  }

  /** Sets the machine's clock forward or back. Does not affect the time that has passed. */
  setWallClock(difference: number): void {
    this.#wallClock += difference;
  }

  /**
   * Runs a program in this time until it has ended and no network event is left.
   *
   * @throws {NothingLeft} If the program waits and no event is left.
   */
  async run<T>(program: () => Promise<T>): Promise<T> {
    this.#replacePlatform();
    try {
      let isRunning = true;
      const result = program();
      const ended = () => {
        isRunning = false;
      };
      result.then(ended, ended);
      for (let patience = 0; patience < MOST_PATIENCE;) {
        await drainMicrotasks();
        if (this.#step(isRunning)) patience = 0;
        else if (!isRunning) return await result;
        else {
          patience++;
          await new Promise((resolve) => void realTimeout(resolve, PATIENCE));
        }
      }
      throw new NothingLeft("The program waits for what cannot happen");
    } finally {
      restorePlatform();
    }
  }

  /** Handles the next event; false if there is none. After the program, timers do not count. */
  #step(isRunning: boolean): boolean {
    const turn = this.#turns.shift();
    if (turn !== undefined) {
      turn();
      return true;
    }
    const timer = this.#timers.first;
    const event = this.#network.first;
    if (event === undefined && (timer === undefined || !isRunning)) return false;
    const agenda = event === undefined || (timer !== undefined && this.#isFirst(timer, event))
      ? this.#timers
      : this.#network;
    const { due, callback } = agenda.takeFirst();
    this.now = Math.max(this.now, due);
    callback!();
    return true;
  }

  #isFirst(timer: Event, event: Event): boolean {
    return timer.due <= this.now || timer.due <= event.due;
  }

  #setTimer(callback: Callback, delay: number, isOfLibrary: boolean): Event {
    // Like the platforms: delays below one millisecond and delays that are too long become one millisecond.
    const wait = delay >= 1 && delay < 2 ** 31 ? delay : 1;
    const timer = { due: this.now + wait, order: this.#order++, callback, isOfLibrary };
    this.#timers.add(timer);
    return timer;
  }

  #replacePlatform(): void {
    if (current !== undefined) throw new Error("Another simulation is running");
    current = this;
    const set = (callback: (...args: unknown[]) => void, delay = 0, ...args: unknown[]) => {
      const timer = this.#setTimer(() => callback(...args), delay, true);
      return Object.assign(timer, { unref() {}, ref() {} });
    };
    globalThis.setTimeout = set as unknown as typeof setTimeout;
    globalThis.clearTimeout = ((timer?: Event) => {
      if (timer === undefined) return;
      if (Object.hasOwn(Object(timer), "isOfLibrary")) timer.callback = undefined;
      // The timer was set before the simulation began.
      else realClear(timer as never);
    }) as unknown as typeof clearTimeout;
    performance.now = () => 1e6 + this.now;
    Date.now = () => this.#wallClock + this.now;
    Math.random = () => this.#numbers.below(2 ** 31) / 2 ** 31;
    crypto.getRandomValues = (<T extends ArrayBufferView>(view: T) => {
      const { buffer, byteOffset, byteLength } = view;
      new Uint8Array(buffer, byteOffset, byteLength).set(this.#bytes.bytes(byteLength));
      return view;
    }) as typeof crypto.getRandomValues;
  }
}

function restorePlatform(): void {
  current = undefined;
  globalThis.setTimeout = realTimeout;
  globalThis.clearTimeout = realClear;
  Date.now = dateNow;
  Math.random = mathRandom;
  restoreMember(performance, "now", ownNow);
  restoreMember(crypto, "getRandomValues", ownRandomValues);
}

/** On some platforms the original function is a member of the prototype. */
function restoreMember(owner: object, name: string, own: PropertyDescriptor | undefined): void {
  if (own === undefined) Reflect.deleteProperty(owner, name);
  else Object.defineProperty(owner, name, own);
}
