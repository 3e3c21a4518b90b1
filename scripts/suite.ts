/**
 * Runs the test suite on several runtimes. Each file runs in a separate process: a file that crashes or
 * hangs does not affect the others, and `node --test-force-exit` works reliably. With several files it
 * loses results that its child processes have not reported yet.
 */
import { parseJUnit, type TestCase } from "./junit.ts";
import { ROOT, run, type RunResult } from "./process.ts";
import type { Engine, Runtime } from "./runtimes.ts";

/** The result of the tests on one runtime. */
export interface Report {
  /** Name and version of the runtime. */
  title: string;
  tests: TestCase[];
  /** Time from the start of the first file to the end of the last one. */
  seconds: number;
  /** CPU time of the files and of the programs that they waited for, on Linux. */
  cpuSeconds?: number;
}

/** The test files that one runtime runs. */
export interface Share {
  runtime: Runtime;
  /** Paths relative to the repository. */
  files: string[];
}

/** The options to run the tests. */
export interface SuiteOptions {
  /** Run only tests whose name matches. On Deno that is the name of the outermost group. */
  filter?: string;
  /** Print all output of the runtimes. Default: false */
  verbose?: boolean;
  /** Environment variables for the tests. */
  env?: Record<string, string>;
  /** Number of files that run at the same time. Default: the number of cores, plus two */
  jobs?: number;
  /** Called with the tests of a file when it has ended. */
  onFile?: (runtime: Runtime, tests: TestCase[]) => void;
  /** Called with each complete report. */
  onReport?: (report: Report) => void;
}

interface Job {
  runtime: Runtime;
  file: string;
}

const MINUTE = 60_000;
/** Maximum time in which no test of a file ends. A file on a busy machine is only slower. */
const PATIENCE = 5 * MINUTE;
/** Maximum time of one test, so that the report names a test that hangs. Deno has no such option. */
const TEST_TIMEOUT = 4 * MINUTE;
const HEARTBEAT = MINUTE;
const REPORTS = new URL(".cache/test/", ROOT);
/** What Node keeps of the sources that it has compiled. */
const COMPILED = new URL("compiled/", REPORTS);
/** The time of each file. A run writes it, and the next run starts the longest files first. */
const TIMES = new URL("times.json", REPORTS);

/** The seconds that a file took, and its CPU seconds. */
type Times = Record<string, [elapsed: number, cpu: number]>;

/** Runs the files of all shares, several at a time, starting with the longest. */
export async function runSuite(shares: Share[], options: SuiteOptions = {}): Promise<Report[]> {
  const { jobs = navigator.hardwareConcurrency + 2 } = options;
  await Deno.mkdir(REPORTS, { recursive: true });
  const times = await readTimes();
  const queue = longestFirst(shares, times);
  const left = new Map(shares.map(({ runtime, files }) => [runtime, files.length]));
  const results = new Map<Runtime, Map<string, TestCase[]>>();
  const cpuSeconds = new Map<Runtime, number>();
  let counted = childSeconds();
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
      cpuSeconds: cpuSeconds.get(runtime),
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
      const total = childSeconds();
      const cpu = total - counted;
      counted = total;
      cpuSeconds.set(runtime, (cpuSeconds.get(runtime) ?? 0) + cpu);
      if (options.filter === undefined) {
        times[keyOf(job)] = [secondsSince(start), Math.round(cpu * 100) / 100];
      }
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

/** CPU time of the programs that have ended, in seconds. */
function childSeconds(): number {
  if (Deno.build.os !== "linux") return 0;
  // proc(5): after the name, fields 16 and 17 are the times of the children in ticks of 10 ms.
  const [, fields] = Deno.readTextFileSync("/proc/self/stat").split(") ");
  const [user, system] = fields.split(" ").slice(13, 15).map(Number);
  return (user + system) / 100;
}

async function readTimes(): Promise<Times> {
  try {
    return JSON.parse(await Deno.readTextFile(TIMES));
  } catch {
    return {};
  }
}

/** Estimated time of a file without a known time, by its size. Such files run after `SLOW`. */
const SECONDS_PER_BYTE = 1e-4;
/** The files that take longest, for a machine that has not run them yet. */
const SLOW = /\/(conformance\w*|deflate_\w+|faults\/random_user|load|matrix|fuzz)_test\.ts$/;

function longestFirst(shares: Share[], times: Times): Job[] {
  const guess = ({ file }: Job) =>
    SLOW.test(file) ? 30 : Deno.statSync(new URL(file, ROOT)).size * SECONDS_PER_BYTE;
  const jobs = shares.flatMap(({ runtime, files }) =>
    files.map((file): Job => ({ runtime, file }))
  );
  const expected = new Map(jobs.map((job) => [job, times[keyOf(job)]?.[0] ?? guess(job)]));
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

/** The files named *_test.ts in a folder and its subfolders, in alphabetical order. */
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
    // Deno repeats that a test takes long.
    isProgress: (text) => !text.includes("has been running for over"),
    env: {
      NO_COLOR: "1",
      DENO_NO_UPDATE_CHECK: "1",
      SKIPS: skips.pathname,
      ...cacheVariables(runtime),
      ...options.env,
    },
    onOutput: options.verbose ? printPrefixed(runtime.name) : undefined,
  });

  let tests = await readReport(report, runtime.engine);
  addReasons(tests, await readIfThere(skips));
  if (options.filter !== undefined) {
    // A test that does not match is reported as skipped or not at all. Some files have no match.
    tests = tests.filter(({ outcome }) => outcome !== "skipped");
    if (tests.length === 0 && !result.timedOut) return [];
  }
  const problem = runnerProblem(result, tests);
  if (problem) tests.push(failure("the runner", `${problem}\n${tail(result.output)}`));
  return tests;
}

/**
 * Lets Node, also in the programs that tests start, keep what it has compiled. Without it, each start takes
 * 0.35 s of CPU time to remove the types from the library.
 */
function cacheVariables({ engine, version }: Runtime): Record<string, string> {
  const variables = { NODE_COMPILE_CACHE: COMPILED.pathname };
  if (engine !== "node" || Number.parseInt(version) > 22) return variables;
  return {
    ...variables,
    STRIPPED_SOURCES: new URL("stripped", COMPILED).pathname,
    NODE_OPTIONS: `--import=${new URL("strip_types.mjs", import.meta.url)}`,
  };
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
        // Deno takes a path without the dot as a filter on names.
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

/** Adds the reasons of skipped tests: lines of a title and a reason, written by `tests/it.ts`. */
function addReasons(tests: TestCase[], skips: string): void {
  const reasons = new Map(
    skips.split("\n").filter(Boolean).map((line) => JSON.parse(line) as [string, string]),
  );
  for (const test of tests) {
    if (test.outcome !== "skipped") continue;
    test.reason = [...reasons].find(([title]) => test.name.endsWith(title))?.[1];
  }
}

/** Returns what went wrong besides the failed tests of the report, if anything. */
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
