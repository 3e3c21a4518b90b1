import { describe, it } from "node:test";
import type { Role } from "../lib/core/mod.ts";
import {
  assembleLevel,
  check,
  type Level,
  memoryLevel,
  protocolLevel,
  socketLevel,
  transformsLevel,
} from "./conformance/levels.ts";
import { ROWS } from "./conformance/rows.ts";

const ROLES: readonly Role[] = ["server", "client"];

/** What each row is run at; where there are two echoes, by a pipe and by a loop. */
const LEVELS: readonly [name: string, levels: readonly Level[]][] = [
  ["protocol", [protocolLevel]],
  ["transforms", [transformsLevel]],
  ["assemble", [assembleLevel]],
  ["memory", [memoryLevel("pipe"), memoryLevel("loop")]],
  ["socket", [socketLevel("pipe"), socketLevel("loop")]],
];

for (const [name, levels] of LEVELS) {
  describe(`conformance, ${name}`, () => {
    for (const row of ROWS) {
      for (const role of ROLES) {
        it(`${row.id} ${row.title} (${role}, ${name})`, async () => {
          for (const level of levels) check(row, await level(row, role));
        });
      }
    }
  });
}
