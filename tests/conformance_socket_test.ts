/** The conformance rows over the sockets of the platform. */
import { describe, it } from "node:test";
import { check, socketLevel } from "./conformance/levels.ts";
import { ROWS } from "./conformance/rows.ts";
import { ROLES } from "./support.ts";

const LEVELS = [socketLevel("pipe"), socketLevel("loop")];

describe("conformance, socket", () => {
  for (const row of ROWS) {
    for (const role of ROLES) {
      it(`${row.id} ${row.title} (${role}, socket)`, async () => {
        for (const level of LEVELS) check(row, await level(row, role));
      });
    }
  }
});
