import process from "node:process";
import { describe, it } from "node:test";
import { DEFLATE_ROWS, LARGE } from "./conformance/deflate.ts";
import { DEFLATE_LEVELS } from "./conformance/deflate_levels.ts";
import { ROLES } from "./support.ts";

const MESSAGES = 10;

const { bun, deno, node } = process.versions;
/** Long messages go through one level on each runtime, all of them together through all. */
const large = DEFLATE_LEVELS[deno ? 0 : bun ? 1 : Number.parseInt(node) >= 24 ? 3 : 2][1];

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
      it(`${row.id} ${row.title} (${role})`, () => large(row, role, MESSAGES));
    }
  }
});
