/**
 * Shows which lines of the library the tests reach: `deno task coverage`. The tests run on Node 24, which
 * collects the coverage. c8 reads it, and fails if it is too low.
 *
 * Comment lines count as reached, so the second number is higher than the share of code lines.
 */
import { takeNoArguments } from "./arguments.ts";
import { ROOT, run } from "./process.ts";
import { findRuntime, runtimeVariables, SUITE_RUNTIMES } from "./runtimes.ts";
import { runSuite, testFiles } from "./suite.ts";
import { appliesTo } from "./test_plan.ts";

interface Goal {
  what: string;
  include: string;
  exclude: string[];
  /** The minimum percentage of lines. */
  lines: number;
}

const GOALS: readonly Goal[] = [
  { what: "the core", include: "lib/core/**", exclude: [], lines: 100 },
  {
    what: "all of it but the adapters, which their own runtimes test",
    include: "lib/**",
    // transport.ts contains only types.
    exclude: ["lib/runtime/**", "lib/transport.ts"],
    lines: 98,
  },
];

/** The lines that no test on Node can reach, as an explanation of the table. */
const UNREACHED = `Lines in the second table that these tests cannot reach:
  browser.ts          the browser's native WebSocketStream (tests/interop/chromium_test.ts)
  platform.ts         a platform without node:zlib
  from_websocket.ts   extensions, which a native WebSocket cannot have
  cli.ts, http2.ts, attachment.ts    failures between two steps of the platform`;

/** Tests that take long, especially with coverage, and reach no line that other tests do not reach. */
const MORE_OF_THE_SAME =
  /\/interop\/|\/(conformance_differential|deflate_process|fuzz|load|matrix|proxy_faults)_test\.ts$/;

const DATA = new URL(".cache/coverage/", ROOT);

async function runTests(): Promise<boolean> {
  const spec = SUITE_RUNTIMES.find(({ name }) => name === "node24")!;
  const runtime = await findRuntime(spec);
  if (runtime === undefined) {
    throw new Error(`${spec.name} is missing: no pinned binary for this platform, and not on PATH`);
  }
  await Deno.remove(DATA, { recursive: true }).catch(() => {});
  const files = (await testFiles("tests")).filter((file) =>
    appliesTo(file, runtime.engine) && !MORE_OF_THE_SAME.test(file)
  );
  console.log(`${runtime.name} (${runtime.version}): ${files.length} files ...`);
  // Node does not count all functions of a program that it has compiled before.
  const uncached = { NODE_DISABLE_COMPILE_CACHE: "1" };
  const env = { ...await runtimeVariables(), ...uncached, NODE_V8_COVERAGE: DATA.pathname };
  const [{ tests }] = await runSuite([{ runtime, files }], { env });
  const failed = tests.filter(({ outcome }) => outcome === "failed");
  for (const { name, detail } of failed) console.log(`✗ ${name}\n${detail}`);
  return failed.length === 0;
}

async function check({ what, include, exclude, lines }: Goal): Promise<boolean> {
  const c8 = new URL("node_modules/.bin/c8", ROOT).pathname;
  const { code, output } = await run(Deno.execPath(), [
    ...["run", "-A", "--config", new URL("deno.json", ROOT).pathname, c8, "report"],
    // `--all` includes files that no test imports.
    ...[`--temp-directory=${DATA.pathname}`, "--reporter=text", "--all", "--src=lib"],
    ...[`--include=${include}`, ...exclude.map((path) => `--exclude=${path}`)],
    ...["--check-coverage", `--lines=${lines}`],
  ], { env: { NO_COLOR: "1" } });
  console.log(`\n${what}: at least ${lines} % of the lines\n${partly(output)}`);
  return code === 0;
}

/** The table without the files that are fully covered. */
function partly(output: string): string {
  return output.split("\n").filter((line) => !/^ .*\|\s*100 \|\s*$/.test(line)).join("\n").trim();
}

await takeNoArguments("coverage", Deno.args);
const passed = await runTests();
const reached = [];
for (const goal of GOALS) reached.push(await check(goal));
console.log(`\n${UNREACHED}`);
if (!passed || reached.includes(false)) Deno.exitCode = 1;
