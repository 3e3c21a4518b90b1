/**
 * Fuzzes the code that reads a peer's data with nearly valid inputs, and the public API with random calls:
 * `deno task fuzz [TARGET...] [--seed N] [--inputs N] [--seconds N] [--runtime deno,bun]`. The number of
 * inputs and the seconds apply to each target. Without a target, all of them run; `--list` names them.
 * Each input has its own seed. A failure prints the seed, which repeats the input.
 *
 * Without `--runtime` it runs without Deno too: `bun scripts/fuzz.ts` and `node scripts/fuzz.ts` do the
 * same there.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import {
  knownNames,
  positiveNumber,
  readArguments,
  RUNTIME_NAMES,
  wholeNumber,
  withoutSeparator,
} from "./arguments.ts";
import { TARGETS } from "./fuzz/targets.ts";
import { type RunOptions, type RunResult, runTarget } from "./fuzz/target.ts";

const USAGE = "deno task fuzz [TARGET...] [--seed N] [--inputs N] [--seconds N] " +
  "[--runtime deno,bun] [--list]";

interface Plan extends RunOptions {
  names: readonly string[];
  runtimes: readonly string[] | undefined;
  list: boolean;
}

function planFrom(args: string[]): Plan {
  const { values, positionals } = parseArgs({
    args,
    options: {
      seed: { type: "string", default: "1" },
      inputs: { type: "string" },
      seconds: { type: "string" },
      runtime: { type: "string" },
      list: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  return {
    names: knownNames("target", positionals, Object.keys(TARGETS)),
    seed: wholeNumber("--seed", values.seed, 0)!,
    inputs: wholeNumber("--inputs", values.inputs, 1),
    seconds: positiveNumber("--seconds", values.seconds),
    runtimes: values.runtime === undefined
      ? undefined
      : knownNames("runtime", values.runtime.split(","), RUNTIME_NAMES),
    list: values.list,
  };
}

/** Unhandled rejections. They count as failures of the current target. */
const unhandled: unknown[] = [];
process.on("unhandledRejection", (reason) => unhandled.push(reason));

function show(name: string, { inputs, seconds, outcomes }: RunResult): void {
  const rate = Math.round(inputs / seconds).toLocaleString("en-US");
  const count = inputs.toLocaleString("en-US");
  const found = [...outcomes].sort(([, a], [, b]) => b - a)
    .map(([outcome, times]) => `${outcome} ${times.toLocaleString("en-US")}`);
  console.log(
    `  ${name.padEnd(17)}${count.padStart(9)}${rate.padStart(9)}/s  ${found.join(", ")}`,
  );
}

async function fuzz({ names, ...options }: Plan): Promise<void> {
  console.log(`  seed ${options.seed}${"inputs".padStart(19 - `${options.seed}`.length)}`);
  let sum = 0;
  for (const name of names) {
    const result = await runTarget(name, TARGETS[name], options);
    if (unhandled.length > 0) {
      throw new Error(`Unhandled rejection in ${name}`, { cause: unhandled[0] });
    }
    sum += result.inputs;
    show(name, result);
  }
  if (sum === 0) throw new Error("No input ran");
  console.log(`${sum.toLocaleString("en-US")} inputs, 0 failures, 0 unhandled rejections`);
}

const args = withoutSeparator(process.argv.slice(2));
const plan = await readArguments(USAGE, () => planFrom(args));
if (plan.list) {
  for (const name of plan.names) console.log(`  ${name.padEnd(17)}${TARGETS[name].what}`);
} else if (plan.runtimes !== undefined) {
  const { runOnRuntimes } = await import("./on_runtimes.ts");
  const others = args.filter((arg, i) =>
    !arg.startsWith("--runtime") && args[i - 1] !== "--runtime"
  );
  if (!await runOnRuntimes("scripts/fuzz.ts", plan.runtimes, others)) process.exitCode = 1;
} else {
  await fuzz(plan).catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
}
