/** A queue of received items with one reader, and the limit of what may wait in all of them. */
import { Readable } from "../abortable.ts";
import { wrongValue } from "../core/error.ts";
import type { Message } from "../core/message.ts";
import { NO_QUEUE, type OpenStream, ReadableMessages, Source, type StreamReader } from "./pipe.ts";

// Approximate memory that a waiting message takes in addition to its length, in bytes.
const TEXT_OVERHEAD = 64;
const BYTES_OVERHEAD = 256;
/** The size of a message or a piece, unless the caller measures messages. */
export function sizeOf(message: Message): number {
  return message.length + (typeof message === "string" ? TEXT_OVERHEAD : BYTES_OVERHEAD);
}

/** Returns the caller's measure with its results checked, like those of a stream's strategy. */
export function checked(measure: (message: Message) => unknown): (message: Message) => number {
  return (message) => {
    const size = +(measure(message) as number);
    if (size >= 0 && size < Infinity) return size;
    throw wrongValue(
      `Expected readableStrategy.size to return a finite number of at least 0, received ${size}`,
    );
  };
}

interface BudgetHost {
  /** Called when there may be room for more. */
  onRoom(): void;
}

/** Limits what may wait to be read, over all queues of a connection. */
export class Budget {
  /** Whether the limit is reached. One item is allowed in any case. */
  isFull = false;
  /** The size of the waiting items now, and its maximum so far. */
  used = 0;
  peak = 0;
  taken = 0;
  #items = 0;
  readonly #limit: number;
  readonly #host: BudgetHost | undefined;

  /** @param limit Size at which the budget is full. */
  constructor(limit: number, host?: BudgetHost) {
    this.#limit = limit;
    this.#host = host;
  }

  wouldFill(size: number): boolean {
    const sum = this.used + size;
    return sum > 0 && sum >= this.#limit;
  }

  add(size: number): void {
    this.#items++;
    this.used += size;
    if (this.used > this.peak) this.peak = this.used;
    this.isFull = this.wouldFill(0);
  }

  remove(size: number): void {
    // Sums of fractions are not exact.
    this.used = --this.#items === 0 ? 0 : Math.max(0, this.used - size);
    this.isFull = this.wouldFill(0);
    this.taken++;
    this.#host?.onRoom();
  }

  /** Removes all items. Only for a budget that no other queue uses. */
  empty(): void {
    this.#items = this.used = 0;
    this.isFull = this.wouldFill(0);
    this.taken++;
    this.#host?.onRoom();
  }
}

export interface End {
  /** Whether a stream closes at this end. Otherwise the stream errors. */
  readonly clean: boolean;
  readonly closeCode?: number;
  /** The error for a reader that asks for another item. */
  readonly error: unknown;
}

/** The end of a message that has arrived completely, and of a stream that was cancelled. */
export const CLEAN: End = { clean: true, error: undefined };

export interface Waiter<T> {
  give(item: T): void;
  /** Called if there is no further item. */
  end(end: End): void;
}

export function unchanged(message: Message): Message {
  return message;
}

/** Shared by all empty queues. */
const NONE: never[] = [];

export class Inbox<T> {
  /** The budget that the items count towards. */
  readonly budget: Budget;
  readonly #sizeOf: (item: T) => number;
  #items: T[] = NONE;
  /** The size of each item, measured when it was added. */
  #sizes: number[] = NONE;
  #head = 0;
  waiter: Waiter<T> | undefined;
  ended: End | undefined;
  /** Set while the stream is open. */
  #stream: OpenStream | undefined;

  constructor(budget: Budget, sizeOf: (item: T) => number) {
    this.budget = budget;
    this.#sizeOf = sizeOf;
  }

  get length(): number {
    return this.#items.length - this.#head;
  }

  /** Adds an item, or gives it to the waiting reader. If the measure throws, the item is not added. */
  push(item: T): void {
    const waiter = this.waiter;
    if (waiter === undefined) {
      const sizeOf = this.#sizeOf;
      const size = sizeOf(item);
      if (this.#items === NONE) {
        // An array that grows by push() reserves room for many items, but most queues of pieces hold one.
        this.#items = [item];
        this.#sizes = [size];
      } else {
        this.#items.push(item);
        this.#sizes.push(size);
      }
      this.budget.add(size);
    } else {
      this.waiter = undefined;
      this.budget.taken++;
      waiter.give(item);
    }
  }

  take(): T | undefined {
    if (this.#head === this.#items.length) return undefined;
    const item = this.#items[this.#head];
    const size = this.#sizes[this.#head];
    this.#items[this.#head++] = undefined as T;
    // Remove the taken places when they are half of the array, so that each item is moved only once.
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

  /** Takes all items, and reports the room for them only once. The budget must be of this queue only. */
  takeAll(): T[] {
    if (this.length === 0) return [];
    const items = this.#head === 0 ? this.#items : this.#items.slice(this.#head);
    this.#items = this.#sizes = NONE;
    this.#head = 0;
    this.budget.empty();
    return items;
  }

  wait(waiter: Waiter<T>): void {
    if (this.ended !== undefined) waiter.end(this.ended);
    else this.waiter = waiter;
  }

  /** Cancels a `wait()`. */
  unwait(waiter: Waiter<T>): void {
    if (this.waiter === waiter) this.waiter = undefined;
  }

  clear(): void {
    while (this.take() !== undefined);
  }

  /** Marks the end. The waiting items can still be taken. */
  end(end: End): void {
    if (this.ended !== undefined) return;
    this.ended = end;
    const waiter = this.waiter;
    this.waiter = undefined;
    if (waiter !== undefined) waiter.end(end);
    else this.finish();
  }

  /** Returns a stream over the items. The stream's own queue stays empty. `present` converts an item. */
  stream<U>(reader: StreamReader, present: (item: T) => U): ReadableStream<U> {
    return new Readable(new Source(this, reader, present), NO_QUEUE);
  }

  /** Returns a stream over messages, which can be piped without the stream's own means. */
  messages(this: Inbox<Message>, reader: StreamReader): ReadableStream<Message> {
    return new ReadableMessages(this, new Source(this, reader, unchanged));
  }

  /** Called when the stream is made. */
  open(stream: OpenStream): void {
    this.#stream = stream;
    if (this.ended !== undefined) this.finish();
  }

  pull<U>(stream: OpenStream, present: (item: T) => U): void | Promise<void> {
    // Taking an item makes room, so that the end may arrive at once. The end must wait for this item.
    stream.isTaking = true;
    const item = this.take();
    stream.isTaking = false;
    if (item === undefined) return this.#pullLater(stream, present);
    stream.controller.enqueue(present(item));
    if (this.ended?.clean) this.finish();
  }

  /** Called when the stream was cancelled. */
  shut(): void {
    this.#stream = this.waiter = undefined;
    this.ended ??= CLEAN;
  }

  /** Whether the stream is open and has nothing in its own queue, and no read waits. */
  get isIdle(): boolean {
    return this.waiter === undefined && this.#stream?.controller.desiredSize === 0;
  }

  #pullLater<U>({ controller }: OpenStream, present: (item: T) => U): Promise<void> {
    return new Promise((resolve, reject) => {
      this.wait({
        give: (item) => {
          controller.enqueue(present(item));
          resolve();
        },
        end: (end) => {
          if (end.clean) this.finish();
          else reject(end.error);
        },
      });
    });
  }

  /** The end, if no item is left before it. */
  get over(): End | undefined {
    return this.length > 0 ? undefined : this.ended;
  }

  /** Closes or errors the stream after the last item. */
  finish(): void {
    const stream = this.#stream;
    // Leave the waiting items to later pulls. In the stream's own queue they would not count towards the
    // budget, and an error would drop them.
    if (stream === undefined || this.length > 0 || stream.isTaking) return;
    const end = this.ended!;
    // The stream has an item if a read was given up before the item came. A later pull errors the stream.
    if (!end.clean && stream.controller.desiredSize! < 0) return;
    this.#stream = undefined;
    if (end.clean) stream.controller.close();
    else stream.controller.error(end.error);
  }
}
