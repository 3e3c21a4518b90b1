/**
 * The one test suite, run by several runtimes. Each file has a process of its own: one that crashes or
 * hangs costs the others nothing, and `node --test-force-exit` is then dependable (with several
 * files it loses results that were still on their way from its child processes).
 */
import { parseJUnit, type TestCase } from "./junit.ts";
import { ROOT, run, type RunResult } from "./process.ts";
import type { Engine, Runtime } from "./runtimes.ts";

/** What one runtime made of the tests. */
export interface Report {
  /** Name and version of the runtime. */
  title: string;
  tests: TestCase[];
  /** Time from the first file to the end of the last one. */
  seconds: number;
}

/** The test files that one runtime runs. */
export interface Share {
  runtime: Runtime;
  /** Paths relative to the repository. */
  files: string[];
}

/** How to run the tests. */
export interface SuiteOptions {
  /** Only tests whose name matches; on Deno that is the name of the outermost group. */
  filter?: string;
  /** Print all that the runtimes print. Default: false */
  verbose?: boolean;
  /** Environment variables for the tests. */
  env?: Record<string, string>;
  /** How many files run at the same time. Default: one for each core, and one more */
  jobs?: number;
  /** Called with what came of a file, when it has ended. */
  onFile?: (runtime: Runtime, tests: TestCase[]) => void;
  /** Called with each report when it is complete. */
  onReport?: (report: Report) => void;
}

interface Job {
  runtime: Runtime;
  file: string;
}

const MINUTE = 60_000;
/** A file in which no test has ended for so long is given up. A busy machine only makes it slower. */
const PATIENCE = 5 * MINUTE;
/** The same for one test, so that the report names the test that hangs. Deno has no such option. */
const TEST_TIMEOUT = 4 * MINUTE;
const HEARTBEAT = MINUTE;
const REPORTS = new URL(".cache/test/", ROOT);
/** How long each file took, written by one run for the order of the next one. */
const TIMES = new URL("times.json", REPORTS);

/** Runs the files of all shares, the longest first, several at a time. */
export async function runSuite(shares: Share[], options: SuiteOptions = {}): Promise<Report[]> {
  const { jobs = navigator.hardwareConcurrency + 1 } = options;
  await Deno.mkdir(REPORTS, { recursive: true });
  const times = await readTimes();
  const queue = longestFirst(shares, times);
  const left = new Map(shares.map(({ runtime, files }) => [runtime, files.length]));
  const results = new Map<Runtime, Map<string, TestCase[]>>();
  const started = performance.now();
  const reports: Report[] = [];
  const running = new Map<Job, number>();
  const heartbeat = setInterval(() => printRunning(running), HEARTBEAT);
  const finish = ({ runtime, files }: Share) => {
    const found = results.get(runtime);
    const report = {
      title: titleOf(runtime),
      tests: files.flatMap((file) => found?.get(file) ?? []),
      seconds: secondsSince(started),
    };
    reports.push(report);
    options.onReport?.(report);
  };
  const work = async () => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
      const { runtime, file } = job;
      const start = performance.now();
      running.set(job, start);
      const tests = await runFile(runtime, file, options);
      running.delete(job);
      if (options.filter === undefined) times[keyOf(job)] = secondsSince(start);
      const named = tests.map((test) => ({ ...test, name: `${file}: ${test.name}` }));
      options.onFile?.(runtime, named);
      if (!results.has(runtime)) results.set(runtime, new Map());
      results.get(runtime)!.set(file, named);
      left.set(runtime, left.get(runtime)! - 1);
      if (left.get(runtime) === 0) finish(shares.find((share) => share.runtime === runtime)!);
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, jobs) }, work)).finally(() =>
    clearInterval(heartbeat)
  );
  await Deno.writeTextFile(TIMES, JSON.stringify(times, null, 1));
  return reports;
}

/** Name and version of a runtime. */
export function titleOf({ name, version }: Runtime): string {
  return `${name} (${version})`;
}

function keyOf({ runtime, file }: Job): string {
  return `${runtime.name} ${file}`;
}

function secondsSince(start: number): number {
  return Math.round((performance.now() - start) / 100) / 10;
}

async function readTimes(): Promise<Record<string, number>> {
  try {
    return JSON.parse(await Deno.readTextFile(TIMES));
  } catch {
    return {};
  }
}

/** Files of which nothing is known take a time that goes with their size: those come after `SLOW`. */
const SECONDS_PER_BYTE = 1e-4;
/** The files that take longest on a machine that has not run them yet. */
const SLOW = /\/(conformance\w*|deflate_\w+|faults\/random_user|load|matrix|fuzz)_test\.ts$/;

function longestFirst(shares: Share[], times: Record<string, number>): Job[] {
  const guess = ({ file }: Job) =>
    SLOW.test(file) ? 30 : Deno.statSync(new URL(file, ROOT)).size * SECONDS_PER_BYTE;
  const jobs = shares.flatMap(({ runtime, files }) =>
    files.map((file): Job => ({ runtime, file }))
  );
  const expected = new Map(jobs.map((job) => [job, times[keyOf(job)] ?? guess(job)]));
  return jobs.sort((a, b) => expected.get(b)! - expected.get(a)!);
}

function printRunning(running: Map<Job, number>): void {
  const now = performance.now();
  const lines = [...running].filter(([, start]) => now - start > HEARTBEAT)
    .map(([{ runtime, file }, start]) =>
      `${file} on ${runtime.name} (${Math.round((now - start) / 1000)} s)`
    );
  if (lines.length > 0) console.log(`  still running: ${lines.join(", ")}`);
}

/** The files named *_test.ts in a folder and the folders in it, in the order of their names. */
export async function testFiles(folder: string): Promise<string[]> {
  const files: string[] = [];
  for await (const entry of Deno.readDir(new URL(folder, ROOT))) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) files.push(...await testFiles(path));
    else if (entry.name.endsWith("_test.ts")) files.push(path);
  }
  return files.sort();
}

async function runFile(
  runtime: Runtime,
  file: string,
  options: SuiteOptions,
): Promise<TestCase[]> {
  const folder = new URL(`${runtime.name}/`, REPORTS);
  await Deno.mkdir(folder, { recursive: true });
  const name = file.replaceAll("/", ".");
  const report = new URL(`${name}.xml`, folder);
  const skips = new URL(`${name}.skips`, folder);
  for (const old of [report, skips]) await removeIfThere(old);

  const args = testArguments(runtime.engine, file, report.pathname, options.filter);
  const result = await run(runtime.path, args, {
    patience: PATIENCE,
    // Deno says of a test that it takes long, again and again.
    isProgress: (text) => !text.includes("has been running for over"),
    env: { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", SKIPS: skips.pathname, ...options.env },
    onOutput: options.verbose ? printPrefixed(runtime.name) : undefined,
  });

  let tests = await readReport(report, runtime.engine);
  addReasons(tests, await readIfThere(skips));
  if (options.filter !== undefined) {
    // What does not match is reported as skipped or not at all, and not every file has a match.
    tests = tests.filter(({ outcome }) => outcome !== "skipped");
    if (tests.length === 0 && !result.timedOut) return [];
  }
  const problem = runnerProblem(result, tests);
  if (problem) tests.push(failure("the runner", `${problem}\n${tail(result.output)}`));
  return tests;
}

function testArguments(engine: Engine, file: string, report: string, filter?: string): string[] {
  const matching = (flag: string) => filter === undefined ? [] : [`${flag}=${filter}`];
  switch (engine) {
    case "deno":
      return ["test", "-A", "--no-check", `--junit-path=${report}`, ...matching("--filter"), file];
    case "bun":
      return [
        "test",
        "--no-install",
        `--timeout=${TEST_TIMEOUT}`,
        "--reporter=junit",
        `--reporter-outfile=${report}`,
        ...matching("--test-name-pattern"),
        // Without the dot a path is a filter on names.
        `./${file}`,
      ];
    case "node":
      return [
        "--test-force-exit",
        `--test-timeout=${TEST_TIMEOUT}`,
        "--test-reporter=spec",
        "--test-reporter-destination=stdout",
        "--test-reporter=junit",
        `--test-reporter-destination=${report}`,
        ...matching("--test-name-pattern"),
        file,
      ];
  }
}

async function readReport(report: URL, engine: Engine): Promise<TestCase[]> {
  return parseJUnit(await readIfThere(report), { groupsAreTests: engine === "deno" });
}

/** Adds why tests were skipped: lines of a title and a reason, which `tests/it.ts` has written. */
function addReasons(tests: TestCase[], skips: string): void {
  const reasons = new Map(
    skips.split("\n").filter(Boolean).map((line) => JSON.parse(line) as [string, string]),
  );
  for (const test of tests) {
    if (test.outcome !== "skipped") continue;
    test.reason = [...reasons].find(([title]) => test.name.endsWith(title))?.[1];
  }
}

/** What went wrong besides the tests that the report has as failed, if anything. */
function runnerProblem(
  result: RunResult,
  tests: TestCase[],
): string | undefined {
  if (result.timedOut) return `no test ended within ${PATIENCE / 1000} s`;
  if (tests.length === 0) return `the runner ran no test (exit code ${result.code})`;
  if (result.code !== 0 && !tests.some(({ outcome }) => outcome === "failed")) {
    return `the runner ended with exit code ${result.code} though no test failed`;
  }
}

function failure(name: string, detail: string): TestCase {
  return { name, outcome: "failed", detail };
}

function tail(text: string, lines = 60): string {
  return text.trimEnd().split("\n").slice(-lines).join("\n");
}

function printPrefixed(name: string): (text: string) => void {
  let rest = "";
  return (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) console.log(`[${name}] ${line}`);
  };
}

async function removeIfThere(file: URL): Promise<void> {
  await ifThere(Deno.remove(file));
}

async function readIfThere(file: URL): Promise<string> {
  return await ifThere(Deno.readTextFile(file)) ?? "";
}

async function ifThere<T>(result: Promise<T>): Promise<T | undefined> {
  try {
    return await result;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
