/**
 * Runs groups 12 and 13 of the conformance rows with 1,000 messages per case, like the Autobahn TestSuite:
 * `deflate.ts BYTES`. The number of messages per case is the number of MiB, at most 1,000, so that `--size`
 * shortens the run. Prints a row of the table for each group of cases.
 */
import process from "node:process";
import { DEFLATE_ROWS, type DeflateRow } from "../../tests/conformance/deflate.ts";
import { DEFLATE_LEVELS } from "../../tests/conformance/deflate_levels.ts";

const MIB = 1 << 20;
const count = Math.max(1, Math.min(1000, Math.floor(Number(process.argv[2]) / MIB)));
/** The other levels differ in how bytes are chunked. Ten messages test that as well as a thousand do. */
const [, protocolLevel] = DEFLATE_LEVELS[0];

const groups = new Map<string, DeflateRow[]>();
for (const row of DEFLATE_ROWS) {
  const group = row.id.replace(/\.\d+$/, "");
  groups.set(group, [...groups.get(group) ?? [], row]);
}
for (const [group, rows] of groups) {
  const before = process.cpuUsage();
  for (const [i, row] of rows.entries()) {
    await protocolLevel(row, i % 2 === 0 ? "server" : "client", count);
  }
  const { user, system } = process.cpuUsage(before);
  const bytes = rows.reduce((sum, { size }) => sum + size, 0) * count;
  console.log(JSON.stringify({
    group,
    cases: String(rows.length),
    messages: String(rows.length * count),
    echoed: `${(bytes / MIB).toFixed(0)} MiB`,
    "CPU time": `${((user + system) / 1e6).toFixed(1)} s`,
  }));
}
