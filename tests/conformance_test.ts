/** The conformance rows at the levels without sockets. `conformance_socket_test.ts` tests the sockets. */
import { describe, it } from "node:test";
import {
  assembleLevel,
  check,
  type Level,
  memoryLevel,
  protocolLevel,
  transformsLevel,
} from "./conformance/levels.ts";
import { ROWS } from "./conformance/rows.ts";
import { ROLES } from "./support.ts";

/** The levels of each row. Two levels are an echo by a pipe and an echo by a loop. */
const LEVELS: readonly [name: string, levels: readonly Level[]][] = [
  ["protocol", [protocolLevel]],
  ["transforms", [transformsLevel]],
  ["assemble", [assembleLevel]],
  ["memory", [memoryLevel("pipe"), memoryLevel("loop")]],
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
