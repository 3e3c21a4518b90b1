/** The order of messages that an engine sends in another order. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { Sequence } from "../lib/topics/sequence.ts";
import { it } from "./it.ts";

interface Row {
  title: string;
  /** The messages in the order in which they come, as offset and offset of the one before. */
  come: [offset: number, previous: number][];
  /** The offset after which the sequence begins, and how many messages come before that. */
  begin: [last: number, after: number];
  delivered: number[];
  repeated?: number;
  missing?: number;
}

const ROWS: Row[] = [
  {
    title: "in order",
    come: [[3, 1], [7, 3], [8, 7]],
    begin: [1, 0],
    delivered: [3, 7, 8],
  },
  {
    title: "the other way round",
    come: [[8, 7], [7, 3], [3, 1]],
    begin: [1, 0],
    delivered: [3, 7, 8],
  },
  {
    title: "two publishers, one after the other",
    come: [[6, 5], [7, 6], [8, 7], [3, 0], [4, 3], [5, 4]],
    begin: [0, 0],
    delivered: [3, 4, 5, 6, 7, 8],
  },
  {
    title: "before the sequence begins",
    come: [[8, 7], [3, 1], [7, 3], [9, 8]],
    begin: [3, 3],
    delivered: [7, 8, 9],
  },
  {
    title: "a message that was there at the beginning",
    come: [[3, 1], [7, 3]],
    begin: [3, 0],
    delivered: [7],
    repeated: 1,
  },
  {
    title: "a message twice",
    come: [[3, 1], [3, 1], [7, 3]],
    begin: [1, 0],
    delivered: [3, 7],
    repeated: 1,
  },
  {
    title: "the stream has dropped the messages before",
    come: [[3, 1], [9, 0]],
    begin: [1, 0],
    delivered: [3, 9],
  },
  {
    title: "a message is left out",
    come: Array.from({ length: 1001 }, (_, i) => [i + 5, i + 4]),
    begin: [1, 0],
    delivered: [],
    missing: 1,
  },
];

describe("Sequence", () => {
  for (const { title, come, begin, delivered, repeated = 0, missing = 0 } of ROWS) {
    it(title, () => {
      const found: number[] = [];
      const counts = { repeated: 0, missing: 0 };
      const sequence = new Sequence({
        deliver: ({ position }) => void found.push(position!.offset),
        repeated: () => void counts.repeated++,
        missing: () => void counts.missing++,
      });
      for (let i = 0; i <= come.length; i++) {
        if (i === begin[1]) sequence.begin(begin[0]);
        if (i === come.length) break;
        const [offset, previous] = come[i];
        sequence.take(offset, previous, {
          data: new Uint8Array(),
          position: { epoch: "e", offset },
        });
      }
      sequence.reset();
      assert.deepEqual({ found, ...counts }, { found: delivered, repeated, missing });
    });
  }
});
