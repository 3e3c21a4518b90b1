/**
 * Runs the tests: `deno task test [RUNTIME...] [FILE...] [--all] [--filter PATTERN] [--verbose]`.
 *
 * Without a runtime: all tests on Deno, the tests that depend on the runtime on Bun and Node 24, and the
 * smoke test of the npm package ("npm"). With `--all`: all tests on every runtime, but those that are the
 * same on each version of Node on one of them. Named files run on every runtime, or on the runtimes that
 * are named too.
 */
import { parseArgs } from "node:util";
import {
  knownNames,
  readArguments,
  RUNTIME_NAMES,
  UsageError,
  withoutSeparator,
} from "./arguments.ts";
import type { TestCase } from "./junit.ts";
import {
  findRuntimes,
  LOWEST,
  NODE20,
  type RuntimeSpec,
  runtimeVariables,
  SUITE_RUNTIMES,
} from "./runtimes.ts";
import { runSmoke } from "./smoke.ts";
import { type Report, runSuite, type Share, testFiles, titleOf } from "./suite.ts";
import { appliesTo, dependsOnRuntime, isInAll, unknownFiles } from "./test_plan.ts";
import { missingPackage, PEERS } from "../tests/interop/peers.ts";

const USAGE = "deno task test [RUNTIME...] [FILE...] [--all] [--filter PATTERN] [--verbose]";
const SMOKE = "npm";
const SMOKE_RUNTIMES = [
  ...LOWEST,
  NODE20,
  ...SUITE_RUNTIMES.filter(({ name }) => /^(bun|node26)$/.test(name)),
];
/** The runtimes that run all files or a part of them if no runtime is named. */
const QUICK: Record<string, "all files" | "what depends on the runtime"> = {
  deno: "all files",
  bun: "what depends on the runtime",
  node24: "what depends on the runtime",
};

interface Plan {
  filter: string | undefined;
  verbose: boolean;
  suite: readonly RuntimeSpec[];
  /** Returns the files that a runtime runs. */
  filesFor(runtime: RuntimeSpec): string[];
  smoke: boolean;
  /** Whether runtimes were named on the command line. A missing runtime is then an error. */
  named: boolean;
}

async function planFrom(args: readonly string[]): Promise<Plan> {
  const { values, positionals } = parseArgs({
    args: withoutSeparator(args),
    options: {
      all: { type: "boolean", default: false },
      filter: { type: "string" },
      verbose: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  const { all, filter, verbose } = values;
  const existing = await testFiles("tests");
  const renamed = unknownFiles(existing);
  if (renamed.length > 0) {
    throw new Error(`scripts/test_plan.ts names missing files: ${renamed.join(", ")}`);
  }
  const files = positionals.filter((arg) => arg.endsWith(".ts"));
  const missing = files.filter((file) => !existing.includes(file));
  if (missing.length > 0) throw new UsageError(`No such test file: ${missing.join(", ")}`);
  const names = positionals.filter((arg) => !arg.endsWith(".ts"));
  const chosen = knownNames("runtime", names, [...RUNTIME_NAMES, SMOKE]);
  if (all && positionals.length > 0) {
    throw new UsageError("--all cannot be combined with runtimes or files");
  }
  const everything = all || positionals.length > 0;
  return {
    filter,
    verbose,
    suite: SUITE_RUNTIMES.filter(({ name }) => everything ? chosen.includes(name) : name in QUICK),
    filesFor: (runtime) =>
      (files.length > 0 ? files : existing).filter((file) =>
        appliesTo(file, runtime.engine) &&
        (all ? isInAll(file, runtime) : everything || QUICK[runtime.name] === "all files" ||
          dependsOnRuntime(file))
      ),
    smoke: names.length > 0 ? names.includes(SMOKE) : files.length === 0 && filter === undefined,
    named: names.length > 0,
  };
}

async function sharesOf(plan: Plan): Promise<Share[]> {
  const runtimes = await findRuntimes(plan.suite, plan.named);
  return runtimes.map((runtime) => ({ runtime, files: plan.filesFor(runtime) }))
    .filter(({ files }) => files.length > 0);
}

async function runAll(plan: Plan, shares: Share[]): Promise<Report[]> {
  const env = shares.length > 0 ? await runtimeVariables() : {};
  for (const { runtime, files } of shares) {
    console.log(`${titleOf(runtime)}: ${files.length} files ...`);
  }
  const { filter, verbose } = plan;
  const reports = await runSuite(shares, {
    filter,
    verbose,
    env,
    onFile: (runtime, tests) => printFailures(titleOf(runtime), tests),
    onReport: printReport,
  });
  if (plan.smoke) {
    console.log("npm package: build, pack, install, smoke test ...");
    const report = await runSmoke(await findRuntimes(SMOKE_RUNTIMES, false));
    printFailures(report.title, report.tests);
    printReport(report);
    reports.push(report);
  }
  return reports;
}

function printFailures(title: string, tests: readonly TestCase[]): void {
  for (const { name, detail } of tests.filter(({ outcome }) => outcome === "failed")) {
    console.log(`\n✗ ${title}: ${name}\n${indent(detail)}\n`);
  }
}

function printReport({ title, tests, seconds, cpuSeconds }: Report): void {
  const cpu = cpuSeconds ? `, CPU time ${Math.round(cpuSeconds)} s` : "";
  console.log(`${title}: ${summary(tests)} in ${seconds} s${cpu}`);
}

function indent(text: string): string {
  return text.replace(/^/gm, "    ");
}

function count(tests: readonly TestCase[], outcome: TestCase["outcome"]): number {
  return tests.filter((test) => test.outcome === outcome).length;
}

function summary(tests: readonly TestCase[]): string {
  const counts = (["passed", "failed", "skipped"] as const).map((outcome) =>
    `${count(tests, outcome)} ${outcome}`
  );
  return counts.join(", ");
}

/** Prints the tests that one runtime did not report and another did. All runtimes have the same tests. */
function compare(reports: readonly Report[], shares: readonly Share[]): void {
  const everyTest = new Map<string, TestCase>();
  for (const { tests } of reports) for (const test of tests) everyTest.set(key(test), test);
  for (const { runtime, files } of shares) {
    const title = titleOf(runtime);
    const own = new Set(files);
    const reported = new Set(reports.find((report) => report.title === title)?.tests.map(key));
    const missing = [...everyTest].filter(([key, test]) =>
      !reported.has(key) && own.has(fileOf(test))
    );
    for (const [, { name }] of missing.slice(0, 5)) {
      console.log(`note: ${title} did not report "${name}", another runtime did`);
    }
    if (missing.length > 5) {
      console.log(`note: ${title} did not report ${missing.length - 5} more tests`);
    }
  }
}

function fileOf({ name }: TestCase): string {
  return name.slice(0, name.indexOf(": "));
}

/** The name of a test without control characters, which the runtimes escape differently. */
function key({ name }: TestCase): string {
  return name.replace(/\\x..|\\.|[^ -~]/g, "");
}

/** Prints how many tests were skipped, and why. */
function printSkips(reports: readonly Report[]): void {
  const counts = new Map<string, { tests: number; titles: Set<string> }>();
  for (const { title, tests } of reports) {
    for (const { outcome, reason = "no reason given" } of tests) {
      if (outcome !== "skipped") continue;
      if (!counts.has(reason)) counts.set(reason, { tests: 0, titles: new Set() });
      const entry = counts.get(reason)!;
      entry.tests++;
      entry.titles.add(title.split(" ")[0]);
    }
  }
  for (const [reason, { tests, titles }] of [...counts].sort(([a], [b]) => a < b ? -1 : 1)) {
    console.log(`skipped ${`${tests}`.padStart(4)}  ${reason} (${[...titles].join(", ")})`);
  }
}

/** Prints the missing peers. */
function printMissingPeers(shares: readonly Share[]): void {
  if (!shares.some(({ files }) => files.some((file) => file.includes("/interop/")))) return;
  for (const peer of Object.values(PEERS)) {
    const name = missingPackage(peer);
    if (name === undefined) continue;
    console.log(`peer ${peer.name} is missing: install the Debian package ${name}`);
  }
}

const plan = await readArguments(USAGE, () => planFrom(Deno.args));
const shares = await sharesOf(plan);
const reports = await runAll(plan, shares);
if (plan.filter === undefined) compare(reports, shares);
printSkips(reports);
printMissingPeers(shares);
const tests = reports.flatMap((report) => report.tests);
const nothingRan = count(tests, "passed") + count(tests, "failed") === 0;
if (nothingRan) console.log("No test ran");
if (nothingRan || count(tests, "failed") > 0) Deno.exitCode = 1;
console.log(summary(tests));
