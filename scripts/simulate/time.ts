/**
 * The time of a simulation. It stands still while the program computes and then jumps to the next timer
 * or the next event of the network, so that a minute takes milliseconds and each run is the same.
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

/** The simulation that runs, if one does. */
let current: SimulatedTime | undefined;

platform.setImmediate = (callback, ...args) =>
  current === undefined
    ? realImmediate(callback, ...args)
    : current.nextTurn(() => callback(...args));

/** Lets all microtasks run. */
function drainMicrotasks(): Promise<void> {
  return new Promise((resolve) => void realImmediate(() => resolve()));
}

/** A timer, or an event of the network. */
interface Event {
  due: number;
  /** Events of one time happen in the order in which they were made. */
  order: number;
  callback: Callback | undefined;
  /** Whether the library has set it. */
  isOfLibrary?: boolean;
}

/** Events, of which the first one is at hand. */
class Agenda {
  readonly #heap: Event[] = [];

  /** The event that is due first. Those that were cancelled are removed. */
  get first(): Event | undefined {
    while (this.#heap.length > 0 && this.#heap[0].callback === undefined) this.#removeFirst();
    return this.#heap[0];
  }

  /** How many events the library waits for. */
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

/** The program waits, and nothing is left that could happen. */
export class NothingLeft extends Error {}

/** In real milliseconds, and how often: threads and imports of the platform may take so long. */
const PATIENCE = 5;
const MOST_PATIENCE = 200;

/** The clock, the timers and the random numbers of one simulation. */
export class SimulatedTime {
  /** The time since the beginning, in milliseconds. */
  now = 0;
  /** How long the process has stood still so far, in milliseconds. */
  standstills = 0;
  readonly #numbers: Random;
  /** Has no part in what happens: how many mask keys are drawn at a time depends on earlier runs. */
  readonly #bytes = new Random(0);
  readonly #timers = new Agenda();
  readonly #network = new Agenda();
  #turns: Callback[] = [];
  #order = 0;
  #wallClock = Date.UTC(2030, 0, 1);

  /** @param seed the seed of what the platform's random numbers are in this simulation */
  constructor(seed: number) {
    this.#numbers = new Random(seed);
  }

  /** How many timers of the library wait. */
  get timers(): number {
    return this.#timers.ofLibrary;
  }

  /** Calls back in the next turn of the event loop. */
  nextTurn(callback: Callback): void {
    this.#turns.push(callback);
  }

  /** Has something happen on the network. */
  schedule(due: number, callback: Callback): void {
    this.#network.add({ due, order: this.#order++, callback });
  }

  /** Waits for a time. It is no timer of the library's. */
  sleep(duration: number): Promise<void> {
    return new Promise((resolve) => void this.#setTimer(resolve, duration, false));
  }

  /**
   * Has the process stand still: time passes and nothing happens. Then the timers that are due fire before
   * anything that has arrived is read, as the event loops of the platforms do it.
   */
  standStill(duration: number): void {
    this.now += duration;
    this.standstills += duration;
  }

  /** Sets the clock of the machine forward or back. The time that has passed is not affected. */
  setWallClock(difference: number): void {
    this.#wallClock += difference;
  }

  /**
   * Runs a program in this time, to its end and until nothing more happens on the network.
   *
   * @throws {NothingLeft} if the program waits for what cannot happen
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

  /** Does what comes next; false if there is nothing. After the program, timers that are left do not count. */
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
    // As on the platforms: no delay is shorter than a millisecond, and one that is too long is one.
    const wait = delay >= 1 && delay < 2 ** 31 ? delay : 1;
    const timer = { due: this.now + wait, order: this.#order++, callback, isOfLibrary };
    this.#timers.add(timer);
    return timer;
  }

  #replacePlatform(): void {
    if (current !== undefined) throw new Error("Expected one simulation at a time");
    current = this;
    const set = (callback: (...args: unknown[]) => void, delay = 0, ...args: unknown[]) => {
      const timer = this.#setTimer(() => callback(...args), delay, true);
      return Object.assign(timer, { unref() {}, ref() {} });
    };
    globalThis.setTimeout = set as unknown as typeof setTimeout;
    globalThis.clearTimeout = ((timer?: Event) => {
      if (timer === undefined) return;
      if (Object.hasOwn(Object(timer), "isOfLibrary")) timer.callback = undefined;
      // One that was set before the simulation began.
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

/** On some platforms the original is a member of the prototype. */
function restoreMember(owner: object, name: string, own: PropertyDescriptor | undefined): void {
  if (own === undefined) Reflect.deleteProperty(owner, name);
  else Object.defineProperty(owner, name, own);
}
