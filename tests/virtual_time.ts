/** A clock that tests set: timers fire when it says so, and nobody waits. */
interface VirtualTimer {
  due: number;
  callback: () => void;
}

const { setImmediate } = globalThis as unknown as {
  setImmediate: (callback: () => void) => unknown;
};

/** Time as the tested code sees it. */
export class VirtualTime {
  /** The time since the beginning, in milliseconds. */
  now = 0;
  readonly #start = performance.now();
  readonly #wallStart = Date.now();
  readonly #timers = new Map<number, VirtualTimer>();
  #lastId = 0;

  /** How many timers wait. */
  get waiting(): number {
    return this.#timers.size;
  }

  /** Lets time pass: each timer fires when it is due, and what it causes in memory happens before the next. */
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
   * Has the process stand still: time passes, and nothing happens. Then the timers that have become due
   * fire, before anything that has arrived is read, as the event loops of the platforms do it.
   */
  standStill(duration: number): void {
    const end = this.now += duration;
    const due = [...this.#timers].filter(([, timer]) => timer.due <= end);
    for (const [id, { callback }] of due) if (this.#timers.delete(id)) callback();
  }

  /** Takes the timer that is due first. */
  #next(end: number): VirtualTimer | undefined {
    const [first] = [...this.#timers].filter(([, { due }]) => due <= end)
      .sort(([a, { due }], [b, { due: other }]) => due - other || a - b);
    if (first === undefined) return undefined;
    this.#timers.delete(first[0]);
    return first[1];
  }

  /** Runs a test in this time; gives what it gives. */
  async run<T>(test: (time: VirtualTime) => Promise<T>): Promise<T> {
    const { setTimeout, clearTimeout } = globalThis;
    const { now } = performance;
    const { now: wallNow } = Date;
    globalThis.setTimeout = ((callback: () => void, delay = 0) => {
      const id = ++this.#lastId;
      // Longer ones fire at once on the platforms.
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
      Object.assign(globalThis, { setTimeout, clearTimeout });
      performance.now = now;
      Date.now = wallNow;
    }
  }
}

/** Runs a test in a time of its own. */
export function inVirtualTime<T>(test: (time: VirtualTime) => Promise<T>): Promise<T> {
  return new VirtualTime().run(test);
}

/** Waits until all in memory has come to rest. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise<void>((resolve) => setImmediate(resolve));
}
