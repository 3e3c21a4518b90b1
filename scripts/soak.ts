/**
 * Runs tests that take too long for the suite: `deno task soak [NAME...] [--size 1GiB] [--seconds 120]
 * [--runtime deno,bun]`. Without a name, all of them run.
 *
 * Each soak is a program in the folder soak/. Every runtime runs it with the size in bytes and the time
 * in seconds as arguments. It prints the rows of a table, one JSON object per line, and reports a failure
 * with its exit code.
 */
import { parseArgs } from "node:util";
import {
  knownNames,
  positiveNumber,
  readArguments,
  RUNTIME_NAMES,
  UsageError,
  withoutSeparator,
} from "./arguments.ts";
import { ROOT, run } from "./process.ts";
import { findRuntimes, type Runtime, SUITE_RUNTIMES } from "./runtimes.ts";

const USAGE = "deno task soak [NAME...] [--size 1GiB] [--seconds 120] [--runtime deno,bun]";

type Row = Record<string, string>;

/** The soaks, with what each of them shows. */
const SOAKS: Record<string, string> = {
  deflate: "conformance groups 12 and 13, compressed, with 1,000 messages per case",
  tls: "the memory of a sender to a sleeping TLS reader is limited, and all data arrives later",
  load: "10,000 idle and 1,000 active connections, a flood of bad handshakes, and a shutdown",
};

const UNITS: Record<string, number> = { "": 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };
const DEADLINE = 30 * 60_000;

interface Plan {
  soaks: readonly string[];
  runtimes: readonly string[];
  size: number;
  seconds: number;
}

function planFrom(args: string[]): Plan {
  const { values, positionals } = parseArgs({
    args: withoutSeparator(args),
    options: {
      size: { type: "string", default: "1GiB" },
      seconds: { type: "string", default: "120" },
      runtime: { type: "string", default: RUNTIME_NAMES.join() },
    },
    allowPositionals: true,
  });
  return {
    soaks: knownNames("soak", positionals, Object.keys(SOAKS)),
    runtimes: knownNames("runtime", values.runtime.split(","), RUNTIME_NAMES),
    size: bytes(values.size),
    seconds: positiveNumber("--seconds", values.seconds)!,
  };
}

function bytes(text: string): number {
  const [, digits, unit] = /^(\d+)\s*([KMG]iB|)$/.exec(text) ?? [];
  const size = Number(digits) * UNITS[unit];
  if (size > 0) return size;
  throw new UsageError(`Expected --size in bytes, KiB, MiB or GiB, such as 64MiB; got ${text}`);
}

/** Runs one soak on one runtime. If it fails, an additional row says why. */
async function soak(
  name: string,
  runtime: Runtime,
  { size, seconds }: Plan,
): Promise<[Row[], boolean]> {
  const program = new URL(`scripts/soak/${name}.ts`, ROOT).pathname;
  const flags = runtime.engine === "deno" ? ["run", "-A", "--no-check"] : [];
  const started = performance.now();
  const { code, timedOut, output } = await run(runtime.path, [
    ...flags,
    program,
    `${size}`,
    `${seconds}`,
  ], {
    deadline: DEADLINE,
    env: { NO_COLOR: "1" },
  });
  const rows: Row[] = output.split("\n").filter((line) => line.startsWith("{")).map((line) =>
    JSON.parse(line)
  );
  const passed = code === 0 && !timedOut && rows.length > 0;
  const took = ((performance.now() - started) / 1000).toFixed(0);
  console.log(`  ${name} on ${runtime.name}: ${passed ? "passed" : "FAILED"} in ${took} s`);
  if (!passed) console.log(timedOut ? `It did not finish within ${DEADLINE / 1000} s` : output);
  return [rows.map((row) => ({ runtime: runtime.name, ...row })), passed];
}

function printTable(rows: Row[]) {
  const names = Object.keys(rows[0] ?? {});
  const width = (name: string) => Math.max(...[name, ...rows.map((row) => row[name])].map(length));
  const line = (row: Row) => names.map((name) => row[name].padEnd(width(name))).join("  ");
  console.log(`\n  ${line(Object.fromEntries(names.map((name) => [name, name])))}`);
  for (const row of rows) console.log(`  ${line(row)}`);
  console.log();
}

const length = (text: string) => text.length;

const plan = await readArguments(USAGE, () => planFrom(Deno.args));
const specs = SUITE_RUNTIMES.filter(({ name }) => plan.runtimes.includes(name));
const runtimes = await findRuntimes(specs, false);
let failed = runtimes.length === 0;
for (const name of plan.soaks) {
  console.log(`${name}: ${SOAKS[name]} (${plan.size / UNITS.MiB} MiB, ${plan.seconds} s)`);
  const rows: Row[] = [];
  for (const runtime of runtimes) {
    const [more, passed] = await soak(name, runtime, plan);
    rows.push(...more);
    failed ||= !passed;
  }
  printTable(rows);
}
console.log(failed ? "failed" : "passed");
if (failed) Deno.exitCode = 1;
