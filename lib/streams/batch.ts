/**
 * Machines of one item at a time as machines of arrays.
 *
 * A file of its own because it goes with any machine, whatever the items are.
 *
 * @module
 */
import { PENDING } from "../core/extension.ts";
import type { Machine } from "./pull_stream.ts";

/** A batch that has so many items, or so many bytes of payload, is full. */
const MAX_ITEMS = 1024;
/** See {@linkcode MAX_ITEMS}; what is written as one chunk goes no further beyond it than a frame. */
export const MAX_BATCH_SIZE = 65536;

/** Gives an array of items to a machine, one by one as it has room. */
export class Spread<I, O> implements Machine<readonly I[], O> {
  readonly #machine: Machine<I, O>;
  #items: readonly I[] = [];
  #at = 0;

  /** @param machine takes the items */
  constructor(machine: Machine<I, O>) {
    this.#machine = machine;
  }

  push(items: readonly I[]): void {
    this.#items = items;
    this.#at = 0;
  }

  next(ready: () => void): O | typeof PENDING | undefined {
    for (;;) {
      const item = this.#machine.next(ready);
      if (item !== undefined || this.#at === this.#items.length) return item;
      this.#machine.push(this.#items[this.#at++]);
    }
  }

  end(): void {
    this.#machine.end();
  }
}

/** How a {@linkcode Batch} gathers. */
export interface BatchOptions<O> {
  /** What an item counts, in bytes. */
  size: (item: O) => number;
  /**
   * Says what to do with an item that goes elsewhere; it is done when all that came before the item
   * was read. Default: all go into batches
   */
  divert?: (item: O) => (() => void) | undefined;
}

/**
 * Gathers what a machine has at hand. A batch ends where the machine has no more, where it waits, or
 * where it fails: then the error comes in place of the next batch.
 */
export class Batch<I, O> implements Machine<I, O[]> {
  readonly #machine: Machine<I, O>;
  readonly #options: BatchOptions<O>;
  /** What the machine has thrown behind the batch that was given out. */
  #failure: { error: unknown } | undefined;
  /** An item that is diverted once the batch before it was read. */
  #held: O | undefined;
  #pending = false;
  #gathering = false;
  #wake: () => void = () => {};
  readonly #ready = () => {
    this.#pending = false;
    // Ready at once: the loop goes on by itself.
    if (!this.#gathering) this.#wake();
  };

  /**
   * @param machine what makes the items
   * @param options how they are gathered
   */
  constructor(machine: Machine<I, O>, options: BatchOptions<O>) {
    this.#machine = machine;
    this.#options = options;
  }

  push(input: I): void {
    this.#machine.push(input);
  }

  next(ready: () => void): O[] | typeof PENDING | undefined {
    this.#wake = ready;
    const batch: O[] = [];
    this.#gathering = true;
    try {
      if (this.#failure === undefined) this.#gather(batch);
    } catch (error) {
      this.#failure = { error };
    } finally {
      this.#gathering = false;
    }
    if (batch.length > 0) return batch;
    if (this.#failure !== undefined) throw this.#failure.error;
    return this.#pending ? PENDING : undefined;
  }

  end(): void {
    this.#machine.end();
  }

  #gather(batch: O[]): void {
    const { size } = this.#options;
    for (let room = MAX_BATCH_SIZE; room > 0 && batch.length < MAX_ITEMS;) {
      const item = this.#next(batch.length > 0);
      if (item === undefined) return;
      room -= size(item);
      batch.push(item);
    }
  }

  /** The next item for the batch, where there is one and nothing has to happen before. */
  #next(begun: boolean): O | undefined {
    for (;;) {
      const item = this.#held ?? this.#take();
      const act = item === undefined ? undefined : this.#options.divert?.(item);
      if (act === undefined) return item;
      this.#held = begun ? item : undefined;
      if (begun) return undefined;
      act();
    }
  }

  #take(): O | undefined {
    while (!this.#pending) {
      // Set before: what is ready at once would otherwise be taken for pending for ever.
      this.#pending = true;
      const item = this.#machine.next(this.#ready);
      if (item === PENDING) continue;
      this.#pending = false;
      return item;
    }
    return undefined;
  }
}
