/**
 * Runs the tests: `deno task test [RUNTIME...] [FILE...] [--filter PATTERN] [--verbose]`. Without
 * a runtime: the suite on all of them, then the smoke test of the npm package ("npm").
 */
import { parseArgs } from "node:util";
import type { TestCase } from "./junit.ts";
import {
  findRuntimes,
  NODE20,
  type RuntimeSpec,
  runtimeVariables,
  SUITE_RUNTIMES,
} from "./runtimes.ts";
import { runSmoke } from "./smoke.ts";
import { type Report, runSuite, type SuiteOptions, testFiles } from "./suite.ts";
import { isThere, PEERS } from "../tests/interop/peers.ts";

const SMOKE = "npm";
const SMOKE_RUNTIMES = [
  NODE20,
  ...SUITE_RUNTIMES.filter(({ name }) => /^(bun|node26)$/.test(name)),
];

interface Plan extends SuiteOptions {
  suite: readonly RuntimeSpec[];
  smoke: boolean;
  /** True when runtimes were named: one that is missing is then an error. */
  named: boolean;
}

async function planFrom(args: string[]): Promise<Plan> {
  const { values, positionals } = parseArgs({
    args: args.filter((arg) => arg !== "--"),
    options: { filter: { type: "string" }, verbose: { type: "boolean", default: false } },
    allowPositionals: true,
  });
  const files = positionals.filter((arg) => arg.endsWith(".ts"));
  const names = positionals.filter((arg) => !arg.endsWith(".ts"));
  const known = [...SUITE_RUNTIMES.map(({ name }) => name), SMOKE];
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    throw new RangeError(`Expected runtimes of ${known.join(", ")}; got ${unknown.join(", ")}`);
  }
  const partial = files.length > 0 || values.filter !== undefined;
  return {
    files: files.length > 0 ? files : await testFiles("tests"),
    filter: values.filter,
    verbose: values.verbose,
    suite: SUITE_RUNTIMES.filter(({ name }) => names.length === 0 || names.includes(name)),
    smoke: names.length === 0 ? !partial : names.includes(SMOKE),
    named: names.length > 0,
  };
}

/** Say which peers are missing: a runtime's report does not say why a test was skipped. */
function notePeers({ files }: Plan) {
  if (!files.some((file) => file.includes("/interop/"))) return;
  for (const peer of Object.values(PEERS).filter((peer) => !isThere(peer))) {
    console.log(`peer ${peer.name}: missing, install the Debian package ${peer.package}`);
  }
}

async function runAll(plan: Plan): Promise<Report[]> {
  const reports: Report[] = [];
  const runtimes = await findRuntimes(plan.suite, plan.named);
  const env = runtimes.length > 0 ? await runtimeVariables() : {};
  for (const runtime of runtimes) {
    console.log(`${runtime.name} (${runtime.version}): ${plan.files.length} files ...`);
    reports.push(print(await runSuite(runtime, { ...plan, env })));
  }
  if (plan.smoke) {
    console.log("npm package: build, pack, install, smoke test ...");
    reports.push(print(await runSmoke(await findRuntimes(SMOKE_RUNTIMES, false))));
  }
  return reports;
}

function print(report: Report): Report {
  for (const test of report.tests.filter(({ outcome }) => outcome === "failed")) {
    console.log(`\n✗ ${report.title}: ${test.name}\n${indent(test.detail)}\n`);
  }
  console.log(`${report.title}: ${summary(report.tests)} in ${report.seconds} s`);
  return report;
}

function indent(text: string): string {
  return text.replace(/^/gm, "    ");
}

function count(tests: TestCase[], outcome: TestCase["outcome"]): number {
  return tests.filter((test) => test.outcome === outcome).length;
}

function summary(tests: TestCase[]): string {
  const counts = (["passed", "failed", "skipped"] as const).map((outcome) =>
    `${count(tests, outcome)} ${outcome}`
  );
  return counts.join(", ");
}

/** Say which tests one runtime did not report and another did: one suite has one list of tests. */
function compare(reports: Report[]) {
  const everyTest = new Map<string, TestCase>();
  for (const { tests } of reports) for (const test of tests) everyTest.set(key(test), test);
  for (const { tests, title } of reports) {
    const reported = new Set(tests.map(key));
    const missing = [...everyTest].filter(([key]) => !reported.has(key));
    for (const [, { name }] of missing.slice(0, 5)) {
      console.log(`note: ${title} did not report "${name}", another runtime did`);
    }
    if (missing.length > 5) console.log(`note: nor did it report ${missing.length - 5} more`);
  }
}

/** The runtimes differ in how they write control characters in a name. */
function key({ name }: TestCase): string {
  return name.replace(/\\x..|\\.|[^ -~]/g, "");
}

const plan = await planFrom(Deno.args);
notePeers(plan);
const reports = await runAll(plan);
if (plan.filter === undefined) compare(reports.filter(({ title }) => title !== "npm package"));
const tests = reports.flatMap((report) => report.tests);
console.log(summary(tests));
if (tests.length === 0 || count(tests, "failed") > 0) Deno.exitCode = 1;
