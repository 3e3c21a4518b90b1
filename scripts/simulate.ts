/**
 * Simulates servers, clients and the network between them: `deno task simulate [--seed N] [--runs N]
 * [--seconds N] [--runtime deno,bun] [--trace]`. Each run has its own seed and is always the same. A
 * failure prints the command that repeats it. `--trace` prints all events.
 *
 * Without `--runtime` it runs without Deno too: `bun scripts/simulate.ts` and `node scripts/simulate.ts`
 * do the same there.
 */
import "./simulate/time.ts";
import process from "node:process";
import { parseArgs } from "node:util";
import {
  knownNames,
  positiveNumber,
  readArguments,
  RUNTIME_NAMES,
  UsageError,
  wholeNumber,
  withoutSeparator,
} from "./arguments.ts";
import { simulate } from "./simulate/runs.ts";

const USAGE =
  "deno task simulate [--seed N] [--runs N] [--seconds N] [--runtime deno,bun,node24] [--trace]";
const RUNS = 1000;

interface Plan {
  seed: number;
  runs: number;
  seconds: number;
  runtimes: readonly string[] | undefined;
  trace: boolean;
}

function planFrom(args: readonly string[]): Plan {
  const { values } = parseArgs({
    args: withoutSeparator(args),
    options: {
      seed: { type: "string", default: "1" },
      runs: { type: "string" },
      seconds: { type: "string" },
      runtime: { type: "string" },
      trace: { type: "boolean", default: false },
    },
  });
  const runtimes = values.runtime === undefined
    ? undefined
    : knownNames("runtime", values.runtime.split(","), RUNTIME_NAMES);
  if (runtimes !== undefined && values.trace) {
    throw new UsageError("--trace cannot be combined with --runtime");
  }
  return {
    seed: wholeNumber("--seed", values.seed, 0)!,
    runs: wholeNumber("--runs", values.runs, 1) ?? (values.seconds === undefined ? RUNS : Infinity),
    seconds: positiveNumber("--seconds", values.seconds) ?? Infinity,
    runtimes,
    trace: values.trace,
  };
}

const plan = await readArguments(USAGE, () => planFrom(process.argv.slice(2)));
if (plan.runtimes === undefined) {
  const { runs, connections, duration, seconds, ends, hash, plainHash, failures } = await simulate(
    plan,
  );
  const counts = [...ends].sort(([, a], [, b]) => b - a).map(([end, count]) => `${end} ${count}`);
  console.log(`ends: ${counts.join(", ")}`);
  const hours = (duration / 3_600_000).toFixed(1);
  console.log(
    `${runs} runs, ${connections} connections, ${hours} simulated hours in ${
      seconds.toFixed(1)
    } s, ` +
      `${failures} failures, hash ${hash}, ${plainHash} without compression`,
  );
  if (runs === 0) console.log("No simulation ran");
  process.exitCode = runs === 0 || failures > 0 ? 1 : 0;
} else {
  const { runOnRuntimes } = await import("./on_runtimes.ts");
  const args = ["--seed", `${plan.seed}`, ...limits(plan)];
  if (!await runOnRuntimes("scripts/simulate.ts", plan.runtimes, args)) process.exitCode = 1;
}

function limits({ runs, seconds }: Plan): string[] {
  return [
    ...(runs < Infinity ? ["--runs", `${runs}`] : []),
    ...(seconds < Infinity ? ["--seconds", `${seconds}`] : []),
  ];
}
