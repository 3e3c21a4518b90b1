/** The one test suite, run by one runtime. */
import { parseJUnit, type TestCase } from "./junit.ts";
import { ROOT, run } from "./process.ts";
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
  /** Only tests whose name matches. */
  filter?: string;
  /** Print all that the runtime prints. */
  verbose: boolean;
}

/** A runtime that takes longer is killed; the whole suite takes a few minutes. */
const DEADLINE = 15 * 60_000;
/** Of one test. Bun's default is 5 seconds and the others have none. */
const BUN_TEST_TIMEOUT = 120_000;
const HEARTBEAT = 30_000;
const REPORTS = new URL(".cache/test/", ROOT);

/** Run the suite on one runtime. */
export async function runSuite(runtime: Runtime, options: SuiteOptions): Promise<Report> {
  await Deno.mkdir(REPORTS, { recursive: true });
  const report = new URL(`${runtime.name}.xml`, REPORTS);
  await removeIfThere(report);

  const started = performance.now();
  const elapsed = () => Math.round((performance.now() - started) / 100) / 10;
  const heartbeat = setInterval(() => {
    console.log(`  ${runtime.name}: still running after ${Math.round(elapsed())} s`);
  }, HEARTBEAT);
  const result = await run(runtime.path, testArguments(runtime.engine, report.pathname, options), {
    deadline: DEADLINE,
    env: { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
    onOutput: options.verbose ? printPrefixed(runtime.name) : undefined,
  }).finally(() => clearInterval(heartbeat));
  await Deno.writeTextFile(new URL(`${runtime.name}.log`, REPORTS), result.output);

  const tests = await readReport(report, runtime.engine);
  const problem = runnerProblem(result, tests);
  if (problem) tests.push({ name: problem, outcome: "failed", detail: tail(result.output) });
  return { title: `${runtime.name} (${runtime.version})`, tests, seconds: elapsed() };
}

function testArguments(engine: Engine, report: string, options: SuiteOptions): string[] {
  const { files, filter } = options;
  const matching = (flag: string) => filter === undefined ? [] : [`${flag}=${filter}`];
  switch (engine) {
    case "deno":
      return [
        "test",
        "-A",
        "--no-check",
        `--junit-path=${report}`,
        ...matching("--filter"),
        ...files,
      ];
    case "bun":
      return [
        "test",
        "--no-install",
        `--timeout=${BUN_TEST_TIMEOUT}`,
        "--reporter=junit",
        `--reporter-outfile=${report}`,
        ...matching("--test-name-pattern"),
        // Without the dot a path is a filter on names.
        ...files.map((file) => `./${file}`),
      ];
    case "node":
      return [
        "--test",
        "--test-force-exit",
        "--test-reporter=spec",
        "--test-reporter-destination=stdout",
        "--test-reporter=junit",
        `--test-reporter-destination=${report}`,
        ...matching("--test-name-pattern"),
        ...files,
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
  result: { code: number; timedOut: boolean },
  tests: TestCase[],
): string | undefined {
  if (result.timedOut) return `the runner did not end within ${DEADLINE / 60_000} minutes`;
  if (tests.length === 0) return `the runner ran no test (exit code ${result.code})`;
  if (result.code !== 0 && !tests.some(({ outcome }) => outcome === "failed")) {
    return `the runner ended with exit code ${result.code} though no test failed`;
  }
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
