import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Queue } from "../lib/core/queue.ts";

/** A queue that must behave like an array. */
class Both {
  readonly queue: Queue<number> = new Queue();
  readonly array: number[] = [];
  #last = 0;

  push(count: number): void {
    for (let i = 0; i < count; i++) {
      this.queue.push(++this.#last);
      this.array.push(this.#last);
      this.check();
    }
  }

  shift(count: number): void {
    for (let i = 0; i < count; i++) {
      assert.equal(this.queue.shift(), this.array.shift());
      this.check();
    }
  }

  check(): void {
    assert.equal(this.queue.length, this.array.length);
    assert.equal(this.queue.first, this.array[0]);
    for (const index of [0, 1, this.array.length - 1, this.array.length]) {
      assert.equal(this.queue.at(index), this.array[index]);
    }
  }
}

describe("Queue", () => {
  it("Queue gives items in the order in which they came", () => {
    const both = new Both();
    both.shift(1);
    for (const count of [1, 2, 3, 1]) {
      both.push(count);
      both.shift(count + 1);
    }
    both.push(3);
    both.shift(2);
    both.push(3);
    both.shift(5);
  });

  for (
    const [pushed, shifted] of [[2046, 1022], [2047, 1023], [2048, 1024], [2049, 1024], [
      4000,
      2100,
    ]]
  ) {
    it(`Queue keeps its order with ${shifted} of ${pushed} items taken, and with more`, () => {
      const both = new Both();
      both.push(pushed);
      both.shift(shifted);
      both.push(3);
      both.shift(10);
      both.push(3);
      both.shift(pushed);
    });
  }

  it("Queue is empty after clear()", () => {
    const both = new Both();
    both.push(5);
    both.shift(2);
    both.queue.clear();
    both.array.length = 0;
    both.check();
    both.push(2);
    both.shift(3);
  });
});
