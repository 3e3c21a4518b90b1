import process from "node:process";
import { describe, it } from "node:test";
import { DEFLATE_ROWS, type DeflateRow, LARGE } from "./conformance/deflate.ts";
import { DEFLATE_LEVELS, type DeflateLevel } from "./conformance/deflate_levels.ts";
import { ROLES } from "./support.ts";

/** A row has three different messages. The last one repeats the first one. */
const MESSAGES = 4;

const { bun, deno, node } = process.versions;
/** The level of the long messages on this runtime. All runtimes together cover all levels. */
const own = deno ? 0 : bun ? 1 : Number.parseInt(node) >= 24 ? 3 : 2;

/** Messages of many fragments do not run over a socket: "ws" takes seconds for them. */
function largeLevel({ fragment }: DeflateRow): DeflateLevel {
  return DEFLATE_LEVELS[fragment > 0 ? Math.min(own, 2) : own][1];
}

for (const [name, level] of DEFLATE_LEVELS) {
  describe(`conformance, compressed, ${name}`, () => {
    for (const row of DEFLATE_ROWS.filter(({ size }) => size <= LARGE)) {
      for (const role of ROLES) {
        it(`${row.id} ${row.title} (${role}, ${name})`, () => level(row, role, MESSAGES));
      }
    }
  });
}

describe("conformance, compressed, long messages", () => {
  for (const row of DEFLATE_ROWS.filter(({ size }) => size > LARGE)) {
    for (const role of ROLES) {
      it(`${row.id} ${row.title} (${role})`, () => largeLevel(row)(row, role, MESSAGES));
    }
  }
});
