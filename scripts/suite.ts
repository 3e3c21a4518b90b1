/**
 * The one test suite, run by one runtime. Each file has a process of its own: one that crashes or
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
  seconds: number;
}

/** What to run. */
export interface SuiteOptions {
  /** Test files, relative to the repository. */
  files: string[];
  /** Only tests whose name matches; on Deno that is the name of the outermost group. */
  filter?: string;
  /** Print all that the runtime prints. */
  verbose: boolean;
  /** Environment variables for the tests. */
  env?: Record<string, string>;
  /** How many files run at the same time. Default: one for each core */
  jobs?: number;
}

const MINUTE = 60_000;
/** How long one file may take; on a quiet machine each takes a fraction of it. */
const FILE_DEADLINE = 10 * MINUTE;
/** Of one test: Bun's own is 5 seconds, Node has none, and Deno has no such option. */
const TEST_TIMEOUT = 2 * MINUTE;
const HEARTBEAT = MINUTE / 2;
const REPORTS = new URL(".cache/test/", ROOT);

/** Run the suite on one runtime. */
export async function runSuite(runtime: Runtime, options: SuiteOptions): Promise<Report> {
  const { files, jobs = navigator.hardwareConcurrency } = options;
  const started = performance.now();
  const results: TestCase[][] = [];
  let next = 0;
  const work = async () => {
    while (next < files.length) {
      const at = next++;
      const tests = await runFile(runtime, files[at], options);
      results[at] = tests.map((test) => ({ ...test, name: `${files[at]}: ${test.name}` }));
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, jobs) }, work));
  const tests = results.flat();
  if (tests.length === 0) tests.push(failure("the suite", "the runner ran no test"));
  const seconds = Math.round((performance.now() - started) / 100) / 10;
  return { title: `${runtime.name} (${runtime.version})`, tests, seconds };
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
  const report = new URL(`${file.replaceAll("/", ".")}.xml`, folder);
  await removeIfThere(report);

  const heartbeat = setInterval(
    () => console.log(`  ${runtime.name}: ${file} is still running`),
    HEARTBEAT,
  );
  const args = testArguments(runtime.engine, file, report.pathname, options.filter);
  const result = await run(runtime.path, args, {
    deadline: FILE_DEADLINE,
    env: { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", ...options.env },
    onOutput: options.verbose ? printPrefixed(runtime.name) : undefined,
  }).finally(() => clearInterval(heartbeat));

  let tests = await readReport(report, runtime.engine);
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
  try {
    return parseJUnit(await Deno.readTextFile(report), { groupsAreTests: engine === "deno" });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** What went wrong besides the tests that the report has as failed, if anything. */
function runnerProblem(
  result: RunResult,
  tests: TestCase[],
): string | undefined {
  if (result.timedOut) return `the runner did not end within ${FILE_DEADLINE / 1000} s`;
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

async function removeIfThere(file: URL) {
  try {
    await Deno.remove(file);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
