/** Ranges of sequence numbers that are read at a time. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Ranges } from "../lib/topics/ranges.ts";
import { fc } from "./property.ts";

const OVERHEAD = 768;

const stored = fc.record({
  gap: fc.integer({ min: 1, max: 60 }),
  size: fc.constantFrom(0, 100, 5000),
  turns: fc.nat(3),
});

describe("Ranges of sequence numbers", () => {
  it("The first messages are found that have room, and at least one", () =>
    fc.assert(fc.asyncProperty(
      fc.array(stored, { maxLength: 100 }),
      fc.nat(100),
      fc.integer({ min: 1, max: 60_000 }),
      async (gaps, rest, maxBytes) => {
        let last = 0;
        const all = gaps.map(({ gap, size, turns }) => ({
          seq: last += gap,
          data: new Uint8Array(size),
          turns,
        }));
        const ranges = new Ranges<typeof all[number]>(1, last + rest, maxBytes);
        await ranges.read(async (seq) => {
          const found = all.find((message) => message.seq >= seq) ?? null;
          for (let i = 0; i < (found?.turns ?? 0); i++) await undefined;
          return found;
        });
        const { found, bytes, isFull } = ranges;
        assert.deepEqual(found, all.slice(0, found.length));
        assert.equal(bytes, found.reduce((sum, { data }) => sum + data.length + OVERHEAD, 0));
        assert.ok(bytes <= maxBytes || found.length === 1);
        assert.ok(found.length > 0 || all.length === 0);
        assert.ok(isFull || found.length === all.length);
      },
    )));
});
