/**
 * Gives inputs that are nearly valid to what reads what peers send, and random calls to the public API:
 * `deno task fuzz [TARGET...] [--seed N] [--inputs N] [--seconds N] [--runtime deno,bun]`. The number of
 * inputs and the seconds hold for each target. Without a target, all of them; `--list` names them. Each
 * input has a seed of its own, which a failure prints, and with which it comes again.
 *
 * Without `--runtime` it needs nothing of Deno: `bun scripts/fuzz.ts` and `node scripts/fuzz.ts` do the
 * same there.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { TARGETS } from "./fuzz/targets.ts";
import { type RunResult, runTarget } from "./fuzz/target.ts";

const { values, positionals } = parseArgs({
  args: process.argv.slice(2).filter((arg) => arg !== "--"),
  options: {
    seed: { type: "string", default: "1" },
    inputs: { type: "string" },
    seconds: { type: "string" },
    runtime: { type: "string" },
    list: { type: "boolean", default: false },
  },
  allowPositionals: true,
});

function number(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isFinite(value) && value >= 0) return value;
  throw new RangeError(`Expected --${name} as a number; got ${text}`);
}

/** What nobody has awaited is a failure of the target under way. */
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

const options = {
  seed: number("seed", values.seed)!,
  inputs: number("inputs", values.inputs),
  seconds: number("seconds", values.seconds),
};
const names = positionals.length > 0 ? positionals : Object.keys(TARGETS);
const unknown = names.filter((name) => !(name in TARGETS));
if (unknown.length > 0) {
  throw new RangeError(`Expected targets of ${Object.keys(TARGETS)}; got ${unknown}`);
}

async function fuzz(): Promise<void> {
  console.log(`  seed ${options.seed}${"inputs".padStart(19 - `${options.seed}`.length)}`);
  let sum = 0;
  for (const name of names) {
    const result = await runTarget(name, TARGETS[name], options);
    if (unhandled.length > 0) {
      throw new Error(`Nobody has handled a rejection of ${name}`, { cause: unhandled[0] });
    }
    sum += result.inputs;
    show(name, result);
  }
  console.log(`${sum.toLocaleString("en-US")} inputs, 0 failures, 0 unhandled rejections`);
}

/** Runs this program on other runtimes, one after the other. */
async function fuzzOn(runtimes: string): Promise<void> {
  const { fuzzOnRuntimes } = await import("./fuzz/runtimes.ts");
  const args = process.argv.slice(2).filter((arg, i, all) =>
    arg !== "--" && !arg.startsWith("--runtime") && all[i - 1] !== "--runtime"
  );
  if (!await fuzzOnRuntimes(runtimes.split(","), args)) process.exitCode = 1;
}

if (values.runtime !== undefined) {
  await fuzzOn(values.runtime);
} else if (values.list) {
  for (const name of names) console.log(`  ${name.padEnd(17)}${TARGETS[name].what}`);
} else {
  await fuzz().catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
}
