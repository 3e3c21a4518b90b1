/**
 * A queue: first in, first out.
 *
 * @module
 */

/** From this many empty places on, they are given back. */
const COMPACT_FROM = 1024;

/** A queue of any length, in which each call takes constant time. `Array.shift()` moves all items. */
export class Queue<T> {
  #items: (T | undefined)[] = [];
  #head = 0;

  /** How many items are in it. */
  get length(): number {
    return this.#items.length - this.#head;
  }

  /** The item that is next, which stays. */
  get first(): T | undefined {
    return this.#items[this.#head];
  }

  /** Adds an item at the end. */
  push(item: T): void {
    this.#items.push(item);
  }

  /** Takes the item that is next. */
  shift(): T | undefined {
    if (this.length === 0) return undefined;
    // The usual case: one item comes and goes, and the array keeps its memory.
    if (this.#items.length === 1) return this.#items.pop();
    const item = this.#items[this.#head];
    this.#items[this.#head++] = undefined;
    if (this.#head === this.#items.length) {
      this.clear();
    } else if (this.#head >= COMPACT_FROM && this.#head * 2 >= this.#items.length) {
      // Half of the places are empty, so that each item is moved once.
      this.#items.splice(0, this.#head);
      this.#head = 0;
    }
    return item;
  }

  /** Drops all items. */
  clear(): void {
    this.#items = [];
    this.#head = 0;
  }
}
