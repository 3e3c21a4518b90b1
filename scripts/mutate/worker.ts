/**
 * Runs tests with one of the planted faults at a time, on Node 24. Reads a request from each line of standard
 * input, and answers with lines that begin with `MARK`. A line before each test shows the progress.
 */
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import process from "node:process";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { MARK, type Request, type TestCall, type TestReport, type Verdict } from "./messages.ts";

/** Paths of the files with faults, by the URL of the original; the number of faults; the one from the start. */
const [, , mapping, count, active] = process.argv;
const sources = new Map<string, string>(JSON.parse(readFileSync(mapping, "utf8")));

const hits = new Uint8Array(Number(count) + 1);
let current = Number(active);
/** How many faults the current test has passed, and after how many it must be in an endless loop. */
let passed = 0;
let allowed = Infinity;
(globalThis as unknown as { __mutant(id: number): boolean }).__mutant = (id) => {
  if (++passed > allowed) throw new Error("The test is in an endless loop");
  hits[id] = 1;
  return id === current;
};

/** Modules that take the place of others, unless they import these themselves. */
const REPLACED = new Map([
  ["node:test", new URL("./tests.ts", import.meta.url).href],
  ["node:assert/strict", new URL("./assert.ts", import.meta.url).href],
]);

registerHooks({
  resolve: (specifier, context, next) => {
    const url = REPLACED.get(specifier);
    if (url === undefined || url === context.parentURL) return next(specifier, context);
    return { url, shortCircuit: true };
  },
  load: (url, context, next) => {
    // Some tests import a file again, with a query.
    const path = sources.get(url.replace(/\?.*/, ""));
    if (path === undefined) return next(url, context);
    return { format: "module-typescript", source: readFileSync(path), shortCircuit: true };
  },
});
const { attempt, testsOf } = await import("./tests.ts");
type Test = Awaited<ReturnType<typeof testsOf>>[number];

const loaded = new Map<string, Promise<Test[]>>();
function load(file: string): Promise<Test[]> {
  let tests = loaded.get(file);
  if (tests === undefined) loaded.set(file, tests = testsOf(pathToFileURL(file).href));
  return tests;
}

const { stdout } = process;
const write = stdout.write.bind(stdout);
const tell = (message: unknown) => void write(`${MARK}${JSON.stringify(message)}\n`);
/** Milliseconds that are enough for a test that took 300. */
const LIMIT = 3000;
/** Milliseconds that are enough for a test, or to load a file, on a machine that is busy now. */
const PATIENCE = 30_000;

/** A test that passes so many times more faults than without a fault, and so many in addition, never ends. */
const LOOPS = 20;
const LOOPS_FROM = 200_000;

/** Runs all tests of the files without a fault, and reports the faults that each of them reaches. */
async function survey(files: readonly string[]): Promise<void> {
  hits.fill(0);
  for (const url of sources.keys()) await import(url);
  tell({ loading: reached() });
  for (const file of files) {
    for (const test of await load(file)) {
      hits.fill(0);
      passed = 0;
      const start = process.cpuUsage();
      const failure = await attempt(test, LIMIT);
      const { user, system } = process.cpuUsage(start);
      const milliseconds = (user + system) / 1000;
      const report: TestReport = {
        file,
        name: test.name,
        milliseconds,
        passed,
        failure: failure?.message,
        hits: reached(),
      };
      tell(report);
    }
  }
  tell({ done: true });
}

function reached(): number[] {
  const ids: number[] = [];
  hits.forEach((hit, id) => hit && ids.push(id));
  return ids;
}

/** Runs the tests with a fault, until one of them fails. */
async function judge(mutant: number, tests: readonly TestCall[]): Promise<Verdict> {
  for (const [at, { file, name, passed }] of tests.entries()) {
    tell({ at, patience: PATIENCE });
    let test: Test | undefined;
    try {
      test = (await load(file)).find((test) => test.name === name);
    } catch (error) {
      return { state: "killed", at, message: `${error}` };
    }
    if (test === undefined) return { state: "killed", at, message: "The test is gone" };
    tell({ at, patience: PATIENCE });
    const limit = passed * LOOPS + LOOPS_FROM;
    const failure = await withMutant(mutant, test, limit);
    if (failure === undefined) continue;
    if (failure.hung) {
      return { state: failure.slow ? "slow" : "hung", at, message: failure.message };
    }
    // A process that has run other faults may be to blame: the fault must make the difference.
    if (current === 0) {
      const fair = await attempt(test, LIMIT) === undefined &&
        await withMutant(mutant, test, limit);
      if (!fair) return { state: "doubtful", at, message: failure.message };
      if (fair.hung) return { state: "hung", at, message: fair.message };
    }
    return { state: "killed", at, message: failure.message };
  }
  return { state: "survived" };
}

async function withMutant(
  mutant: number,
  test: Test,
  limit: number,
): ReturnType<typeof attempt> {
  const before = current;
  current = mutant;
  passed = 0;
  allowed = limit;
  try {
    return await attempt(test, LIMIT);
  } finally {
    current = before;
    allowed = Infinity;
  }
}

// Keep the output of tests out of the protocol.
stdout.write = ((_text: unknown, ...rest: unknown[]) => {
  const done = rest.at(-1);
  if (typeof done === "function") done();
  return true;
}) as typeof stdout.write;

createInterface({ input: process.stdin }).on("line", (line) => {
  const request = JSON.parse(line) as Request;
  if ("survey" in request) void survey(request.survey);
  else void judge(request.mutant, request.tests).then(tell);
});
