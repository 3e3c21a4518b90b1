/** A first-in, first-out queue. */

/** From this number of empty places on, the array is compacted. */
const COMPACT_FROM = 1024;

/** Removes and returns the first item of a short list. pop() is faster where both do the same. */
export function takeFirst<T>(items: T[]): T | undefined {
  return items.length > 1 ? items.shift() : items.pop();
}

/** A first-in, first-out queue with operations in constant time, unlike `Array.shift()`. */
export class Queue<T> {
  #items: (T | undefined)[] = [];
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  get first(): T | undefined {
    return this.#items[this.#head];
  }

  /** Returns the item at an index, or undefined. Index 0 is the first item. */
  at(index: number): T | undefined {
    return this.#items[this.#head + index];
  }

  push(item: T): void {
    this.#items.push(item);
  }

  shift(): T | undefined {
    if (this.length === 0) return undefined;
    // The usual case: the queue has one item. The array keeps its memory.
    if (this.#items.length === 1) return this.#items.pop();
    const item = this.#items[this.#head];
    this.#items[this.#head++] = undefined;
    if (this.#head === this.#items.length) {
      this.clear();
    } else if (this.#head >= COMPACT_FROM && this.#head * 2 >= this.#items.length) {
      // Half of the places are empty, so that each item is moved at most once.
      this.#items.splice(0, this.#head);
      this.#head = 0;
    }
    return item;
  }

  clear(): void {
    this.#items = [];
    this.#head = 0;
  }
}
