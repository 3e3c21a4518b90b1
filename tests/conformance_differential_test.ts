import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { Role } from "../lib/core/mod.ts";
import {
  assembleLevel,
  assertFrames,
  check,
  memoryLevel,
  withoutOurReason,
} from "./conformance/levels.ts";
import type { Row } from "./conformance/row.ts";
import { ROWS } from "./conformance/rows.ts";

const ROLES: readonly Role[] = ["server", "client"];
const connectionLevel = memoryLevel("pipe");

/** A row with fewer bytes than this is also sent byte by byte. */
const SMALL = 4096;

/**
 * The ways to cut the peer's bytes: each turn in one piece, and into single bytes. `conformance_test.ts`
 * uses the pieces that the row says.
 */
function chops(row: Row): number[] {
  const payloads = row.turns.flatMap(({ send }) => send.map(({ payload }) => payload.length));
  const size = payloads.reduce((sum, length) => sum + length, 0);
  return size < SMALL ? [Infinity, 1] : [Infinity];
}

/** Checks that a chain of transforms and a connection give the same result. */
async function compare(row: Row, role: Role, chop: number): Promise<void> {
  const chain = await assembleLevel(row, role, chop);
  const connection = await connectionLevel(row, role, chop);
  const frames = (of: typeof chain) => of.frames.map((frame) => withoutOurReason(frame, row));
  assertFrames(frames(connection), frames(chain));
  assert.deepEqual(connection.outcome, chain.outcome);
  check(row, chain);
}

describe("conformance of assemble(), compared with a connection", () => {
  // Rows whose echoes may be missing depend on timing.
  for (const row of ROWS.filter(({ mayLose }) => !mayLose)) {
    for (const role of ROLES) {
      it(`${row.id} ${row.title} (${role}, both)`, async () => {
        for (const chop of chops(row)) await compare(row, role, chop);
      });
    }
  }
});
