/**
 * What came and was not read yet: the one queue of a connection, and the streams that are views of
 * it.
 *
 * @module
 */
import type { Message } from "../core/message.ts";
import { handled } from "../abortable.ts";
import { nextTurn } from "../timers.ts";

// What the object of a message takes beside its length while it waits, in bytes, about.
const TEXT_OVERHEAD = 64;
const BYTES_OVERHEAD = 256;

/** What a message, or a piece of one, counts unless the caller measures it. */
export function sizeOf(message: Message): number {
  return message.length + (typeof message === "string" ? TEXT_OVERHEAD : BYTES_OVERHEAD);
}

/** What a {@linkcode Budget} tells its owner. */
export interface BudgetHost {
  /** Something was taken, so that there may be room for more. */
  onTaken(): void;
}

/** How much may wait to be read, over all the queues of a connection. */
export class Budget {
  readonly #limit: number;
  readonly #host: BudgetHost | undefined;
  #items = 0;
  #used = 0;
  #peak = 0;
  #taken = 0;

  /**
   * @param limit from which size on it is full
   * @param host told whenever something was taken
   */
  constructor(limit: number, host?: BudgetHost) {
    this.#limit = limit;
    this.#host = host;
  }

  /** Whether no more should come. */
  get full(): boolean {
    return this.fullWith(0);
  }

  /** Whether this much more would make it full. One item is let in, whatever the limit. */
  fullWith(size: number): boolean {
    const sum = this.#used + size;
    return sum > 0 && sum >= this.#limit;
  }

  /** What waits now. */
  get used(): number {
    return this.#used;
  }

  /** The most that ever waited. */
  get peak(): number {
    return this.#peak;
  }

  /** How many items were taken so far. */
  get taken(): number {
    return this.#taken;
  }

  /** Counts what comes into a queue. */
  add(size: number): void {
    this.#items++;
    this.#used += size;
    if (this.#used > this.#peak) this.#peak = this.#used;
  }

  /** Counts what was taken out of one. */
  remove(size: number): void {
    // Sums of fractions are not exact.
    this.#used = --this.#items === 0 ? 0 : Math.max(0, this.#used - size);
    this.#taken++;
    this.#host?.onTaken();
  }

  /** Counts what went to its reader without waiting. */
  pass(): void {
    this.#taken++;
  }

  /**
   * Calls back when a whole turn of the event loop went by in which nothing was taken: whoever reads
   * has read all, or is not reading.
   */
  whenQuiet(callback: () => void): void {
    const taken = this.#taken;
    nextTurn(() => this.#taken === taken ? callback() : this.whenQuiet(callback));
  }
}

/** How a queue ended. */
export interface End {
  /** Whether a stream closes here; otherwise it is errored. */
  readonly clean: boolean;
  /** The close code of the connection. */
  readonly closeCode?: number;
  /** What a reader gets that asks for one more. */
  readonly error: unknown;
}

/** Whoever waits for the next item. */
export interface Waiter<T> {
  /** Gets it. */
  give(item: T): void;
  /** There is none. */
  end(end: End): void;
}

/** Shared by all that are empty. */
const NONE: never[] = [];

/** A queue with one reader. */
export class Inbox<T> {
  /** What its items count towards. */
  readonly budget: Budget;
  readonly #sizeOf: (item: T) => number;
  #items: T[] = NONE;
  /** What each of them counts, as measured when it was added. */
  #sizes: number[] = NONE;
  #head = 0;
  #waiter: Waiter<T> | undefined;
  #end: End | undefined;
  #onEnd: (() => void) | undefined;
  #taking = false;

  /**
   * @param budget what its items count towards
   * @param sizeOf how much one counts
   */
  constructor(budget: Budget, sizeOf: (item: T) => number) {
    this.budget = budget;
    this.#sizeOf = sizeOf;
  }

  /** How many items wait. */
  get length(): number {
    return this.#items.length - this.#head;
  }

  /** Whether somebody waits for an item. */
  get awaited(): boolean {
    return this.#waiter !== undefined;
  }

  /** How it ended, once it has; items may still wait. */
  get ended(): End | undefined {
    return this.#end;
  }

  /**
   * Adds an item, or hands it to the waiting reader.
   *
   * @throws what its measure throws; the item is then not added
   */
  push(item: T): void {
    const waiter = this.#waiter;
    if (waiter === undefined) {
      const sizeOf = this.#sizeOf;
      const size = sizeOf(item);
      if (this.#items === NONE) {
        // An array that grows by push() takes room for many: most pieces of messages are alone in theirs.
        this.#items = [item];
        this.#sizes = [size];
      } else {
        this.#items.push(item);
        this.#sizes.push(size);
      }
      this.budget.add(size);
    } else {
      this.#waiter = undefined;
      this.budget.pass();
      waiter.give(item);
    }
  }

  /** Takes the next item, if there is one. */
  take(): T | undefined {
    if (this.#head === this.#items.length) return undefined;
    const item = this.#items[this.#head];
    const size = this.#sizes[this.#head];
    this.#items[this.#head++] = undefined as T;
    // The places in front are given back when they are half of all, so that each is moved once.
    if (this.#head === this.#items.length) {
      this.#items = this.#sizes = NONE;
      this.#head = 0;
    } else if (this.#head >= 1024 && this.#head * 2 >= this.#items.length) {
      this.#items.splice(0, this.#head);
      this.#sizes.splice(0, this.#head);
      this.#head = 0;
    }
    this.budget.remove(size);
    return item;
  }

  /** Waits for an item when there is none to take. */
  wait(waiter: Waiter<T>): void {
    if (this.#end !== undefined) waiter.end(this.#end);
    else this.#waiter = waiter;
  }

  /** Takes back a `wait()`. */
  unwait(waiter: Waiter<T>): void {
    if (this.#waiter === waiter) this.#waiter = undefined;
  }

  /** Drops what waits to be read. */
  clear(): void {
    while (this.take() !== undefined);
  }

  /** Says that no more items come. What waits can still be taken. */
  end(end: End): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    const waiter = this.#waiter;
    this.#waiter = undefined;
    if (waiter !== undefined) waiter.end(end);
    else this.#onEnd?.();
  }

  /**
   * A stream over the items. Its own queue stays empty: what is not read waits here.
   *
   * @param cancel called when the reader cancels
   * @param present makes what the reader gets of an item
   */
  stream<U>(
    cancel: (reason: unknown) => void,
    present: (item: T) => U,
  ): ReadableStream<U> {
    return new Readable<U>({
      start: (controller) => {
        this.#onEnd = () => this.#finish(controller);
        if (this.#end !== undefined) this.#finish(controller);
      },
      pull: (controller) => {
        // The room that it makes may let the end come at once, and that must wait for the item.
        this.#taking = true;
        const item = this.take();
        this.#taking = false;
        if (item === undefined) return this.#pull(controller, present);
        controller.enqueue(present(item));
        if (this.length === 0 && this.#end?.clean) controller.close();
      },
      cancel: (reason) => {
        this.#onEnd = this.#waiter = undefined;
        this.clear();
        cancel(reason);
      },
    }, { highWaterMark: 0 });
  }

  #pull<U>(
    controller: ReadableStreamDefaultController<U>,
    present: (item: T) => U,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      this.wait({
        give: (item) => {
          controller.enqueue(present(item));
          resolve();
        },
        end: (end) => {
          if (!end.clean) return reject(end.error);
          controller.close();
          resolve();
        },
      });
    });
  }

  /** The end came while nobody was waiting. */
  #finish(controller: ReadableStreamDefaultController): void {
    // What waits is left to later pulls: in the stream's own queue it would count no more, and an
    // error would drop it.
    if (this.length > 0 || this.#taking) return;
    const end = this.#end!;
    if (end.clean) controller.close();
    else controller.error(end.error);
  }
}

/**
 * A stream whose `pipeTo()` may be left to itself, as any other promise of a connection: its rejection is
 * for those who await it, and no unhandled one.
 */
class Readable<T> extends ReadableStream<T> {
  override pipeTo(...args: Parameters<ReadableStream<T>["pipeTo"]>): Promise<void> {
    return handled(super.pipeTo(...args));
  }
}
