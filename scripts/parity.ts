/**
 * Runs the parity tests and lists the rows that they have shown, from the reports of the run:
 * `deno task parity [W] [K] [RUNTIME...] [FILE...]`. The default is both tables, all runtimes, and all
 * files whose tests name rows. It fails if a test fails or if a row is not shown on every
 * runtime.
 */
import { parseArgs } from "node:util";
import {
  knownNames,
  readArguments,
  RUNTIME_NAMES,
  UsageError,
  withoutSeparator,
} from "./arguments.ts";
import { coverage, ROWS, rowsShown, type Table, TABLES, unknownRows } from "./parity_rows.ts";
import { findRuntimes, type RuntimeSpec, SUITE_RUNTIMES } from "./runtimes.ts";
import { type Report, runSuite } from "./suite.ts";
import { appliesTo } from "./test_plan.ts";

const USAGE = "deno task parity [W] [K] [RUNTIME...] [FILE...]";

/** The files with tests whose titles begin with a row. */
function parityFiles(): string[] {
  const names = Array.from(Deno.readDirSync("tests"), ({ name }) => name);
  return names.filter((name) => name.endsWith("_test.ts")).map((name) => `tests/${name}`)
    .filter((path) => /\bit\(\s*["`][WK]\d{2,3}\b/.test(Deno.readTextFileSync(path))).sort();
}

interface Plan {
  tables: readonly Table[];
  runtimes: readonly RuntimeSpec[];
  /** Whether runtimes were named on the command line. A missing runtime is then an error. */
  named: boolean;
  files: string[];
}

function planFrom(args: readonly string[]): Plan {
  const { positionals } = parseArgs({ args: withoutSeparator(args), allowPositionals: true });
  const files = positionals.filter((arg) => arg.endsWith(".ts"));
  const names = positionals.filter((arg) => !arg.endsWith(".ts"));
  knownNames("table or runtime", names, [...TABLES, ...RUNTIME_NAMES]);
  const tables = TABLES.filter((table) => names.includes(table));
  const runtimes = SUITE_RUNTIMES.filter(({ name }) => names.includes(name));
  const missing = files.filter((file) => !parityFiles().includes(file));
  if (missing.length > 0) throw new UsageError(`No parity tests in ${missing.join(", ")}`);
  return {
    tables: tables.length > 0 ? tables : TABLES,
    runtimes: runtimes.length > 0 ? runtimes : SUITE_RUNTIMES,
    named: runtimes.length > 0,
    files: files.length > 0 ? files : parityFiles(),
  };
}

async function runAll({ runtimes, named, files }: Plan): Promise<Report[]> {
  const found = await findRuntimes(runtimes, named);
  const shares = found.map((runtime) => ({
    runtime,
    files: files.filter((file) => appliesTo(file, runtime.engine)),
  }));
  return await runSuite(shares, {
    onReport: ({ title, tests }) =>
      console.log(`${title}: ${tests.length} tests, ${rowsShown(tests).size} rows`),
  });
}

/** Prints the rows of a table, and returns whether all were shown on every runtime. */
function printTable(table: Table, reports: readonly Report[]): boolean {
  const { everywhere, somewhere, nowhere } = coverage(ROWS[table], reports);
  const print = (title: string, rows: readonly string[]) =>
    console.log(
      `${table}, ${title}: ${rows.length}${rows.length > 0 ? ": " : ""}${rows.join(" ")}`,
    );
  console.log();
  print("shown on every runtime", everywhere);
  for (const [row, titles] of somewhere) console.log(`${row} is not shown on ${titles.join(", ")}`);
  print("missing", nowhere);
  return everywhere.length === ROWS[table].length;
}

const plan = await readArguments(USAGE, () => planFrom(Deno.args));
const reports = await runAll(plan);
const tests = reports.flatMap((report) => report.tests);
const failed = reports.flatMap(({ title, tests }) =>
  tests.filter(({ outcome }) => outcome === "failed").map(({ name }) => `${title}: ${name}`)
);
const unknown = unknownRows(tests);
const whole = plan.tables.map((table) => printTable(table, reports)).every((all) => all);
for (const name of failed) console.log(`✗ ${name}`);
if (unknown.length > 0) console.log(`Unknown rows in test titles: ${unknown.join(" ")}`);
if (!whole || failed.length > 0 || unknown.length > 0) Deno.exitCode = 1;
