/** A clock that tests control: timers fire when the clock says so, without real waiting. */
interface VirtualTimer {
  due: number;
  callback: () => void;
}

const { setImmediate } = globalThis as unknown as {
  setImmediate: (callback: () => void) => unknown;
};

const DAY = 86_400_000;

/** The time that the tested code sees. */
export class VirtualTime {
  /** The time since the beginning, in milliseconds. */
  now = 0;
  /** When the next virtual time begins, at the earliest: a timer that is left must not be due in it. */
  static #earliest = 0;
  // Whole, so that a difference of two times is exact.
  readonly #start = Math.ceil(Math.max(performance.now(), VirtualTime.#earliest));
  readonly #wallStart = Date.now();
  readonly #timers = new Map<number, VirtualTimer>();
  #lastId = 0;

  /** The number of timers that are set. */
  get waiting(): number {
    return this.#timers.size;
  }

  /** Advances the time. Each timer fires when due, and its effects in memory happen before the next one. */
  async advance(duration: number): Promise<void> {
    await settle();
    const end = this.now + duration;
    for (let next = this.#next(end); next !== undefined; next = this.#next(end)) {
      this.now = Math.max(this.now, next.due);
      next.callback();
      await settle();
    }
    this.now = end;
  }

  /**
   * Simulates a standstill of the process: time passes, and nothing happens. Then the timers that are due
   * fire before any data is read, as in the event loops of the platforms.
   */
  standStill(duration: number): void {
    const end = this.now += duration;
    const due = [...this.#timers].filter(([, timer]) => timer.due <= end);
    for (const [id, { callback }] of due) if (this.#timers.delete(id)) callback();
  }

  /** Removes and returns the timer that is due first. */
  #next(end: number): VirtualTimer | undefined {
    const [first] = [...this.#timers].filter(([, { due }]) => due <= end)
      .sort(([a, { due }], [b, { due: other }]) => due - other || a - b);
    if (first === undefined) return undefined;
    this.#timers.delete(first[0]);
    return first[1];
  }

  /** Runs a test in this time, and returns its result. */
  async run<T>(test: (time: VirtualTime) => Promise<T>): Promise<T> {
    const { setTimeout, clearTimeout } = globalThis;
    const { now } = performance;
    const { now: wallNow } = Date;
    globalThis.setTimeout = ((callback: () => void, delay = 0) => {
      const id = ++this.#lastId;
      // On the platforms, longer timers fire at once.
      this.#timers.set(id, { due: this.now + (delay > 2 ** 31 - 1 ? 1 : delay), callback });
      return id;
    }) as unknown as typeof setTimeout;
    globalThis.clearTimeout = ((id: number) => {
      this.#timers.delete(id);
    }) as typeof clearTimeout;
    performance.now = () => this.#start + this.now;
    Date.now = () => this.#wallStart + this.now;
    try {
      return await test(this);
    } finally {
      VirtualTime.#earliest = this.#start + this.now + DAY;
      Object.assign(globalThis, { setTimeout, clearTimeout });
      performance.now = now;
      Date.now = wallNow;
    }
  }
}

/** Runs a test with a new virtual time. */
export function inVirtualTime<T>(test: (time: VirtualTime) => Promise<T>): Promise<T> {
  return new VirtualTime().run(test);
}

/** Waits until everything in memory has come to rest. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise<void>((resolve) => setImmediate(resolve));
}
