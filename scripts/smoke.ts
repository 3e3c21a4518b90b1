/** Runs the smoke test of the packed npm package on several runtimes, installed as a user does it. */
import type { TestCase } from "./junit.ts";
import { run } from "./process.ts";
import type { Runtime } from "./runtimes.ts";
import type { Report } from "./suite.ts";
import { copyProgram, installTarball } from "./tarball.ts";

const DEADLINE = 180_000;

/** Runs the smoke test on each of the runtimes. Each run counts as one test. */
export async function runSmoke(runtimes: Runtime[]): Promise<Report> {
  const started = performance.now();
  const tests = await installAndRun(runtimes).catch((error): TestCase[] => [{
    name: "the npm package can be built, packed and installed",
    outcome: "failed",
    detail: String(error instanceof Error ? error.message : error),
  }]);
  const seconds = Math.round((performance.now() - started) / 100) / 10;
  return { title: "npm package", tests, seconds };
}

async function installAndRun(runtimes: Runtime[]): Promise<TestCase[]> {
  await using consumer = await installTarball();
  const program = await copyProgram("smoke.mjs", consumer);
  const tests: TestCase[] = [];
  for (const runtime of runtimes) {
    const { code, timedOut, output } = await run(runtime.path, [program], {
      cwd: consumer.folder,
      deadline: DEADLINE,
    });
    const ending = timedOut ? `did not end within ${DEADLINE / 1000} s` : `exit code ${code}`;
    const passed = code === 0 && !timedOut && output.includes("smoke: ");
    tests.push({
      name: `smoke test on ${runtime.name} (${runtime.version})`,
      outcome: passed ? "passed" : "failed",
      detail: `${ending}\n${output}`,
    });
  }
  return tests;
}
