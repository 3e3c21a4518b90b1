/**
 * Plants faults in the core and in the connections, one at a time, and runs the quick tests:
 * `deno task mutate [--file lib/core] [--seed N] [--sample N] [--tests tests/close_test.ts]`.
 * A fault survives if no test fails. Each survivor must have a reason in `tests/mutants.json`.
 *
 * The faults are: an operator is replaced (comparisons also by their neighbours), a condition is negated, a
 * number is one too large, a boolean is inverted, a statement or a call is left out, a default or the value
 * before it is ignored. Texts and types get no faults.
 */
import { parseArgs } from "node:util";
import {
  knownNames,
  readArguments,
  UsageError,
  wholeNumber,
  withoutSeparator,
} from "./arguments.ts";
import { findRuntime, SUITE_RUNTIMES } from "./runtimes.ts";
import { ROOT } from "./process.ts";
import { testFiles } from "./suite.ts";
import { Explanations } from "./mutate/explanations.ts";
import type { Mutant } from "./mutate/mutants.ts";
import { type Result, runRound } from "./mutate/round.ts";

const USAGE =
  "deno task mutate [--file lib/core,lib/connection/closing.ts,...] [--seed N] [--sample N] " +
  "[--tests tests/close_test.ts,...] [--verbose]";
/** Milliseconds of the processor for the tests of a fault, until it counts as a survivor. */
const BUDGET = 3000;
/** The same for a fault that is explained, and for a quick look. */
const QUICK_BUDGET = 500;
/** The least percentage of faults that the tests must find. */
const GOAL = 95;
/** The test files that are quick, and about the two folders. */
const QUICK = new RegExp(
  "^tests/(abortable|assemble_end|attach_requests|backpressure|bad_input|batch_streams|batches|body|borrowed_chunks|broadcast|checks|clos\\w*|connection_(end|iterable|members|messages)|" +
    "conformance|crowd|encoder|endpoint\\w*|error\\w*|extension|frame|from_websocket|gather|handshake|header|heartbeat|http1|http2_handshake|inspect|keepalive|" +
    "mask|message|option_hints|options|outgoing|parity_(deflate|errors|parts|w_\\w+)|permessage_deflate|pipe|protocol|queue|" +
    "proxy_environment|reading_mode|receive|refusal|relay|request_body|send|" +
    "server_(handshake|hooks|limits)|sha1|shared_frames|signal|slow_consumer|stats|testing|threats_(deflate|floods|handshake)|turns|url|utf8|" +
    "faults/(compression_offer|deflate|ending|fairness|handler|misunderstood_calls|ownership|random_user|" +
    "refused|requests|responses|sending|time|websocket_stream))_test\\.ts$",
);

const FOLDERS = ["lib/core", "lib/connection"];

interface Plan {
  files: readonly string[];
  tests: readonly string[];
  seed: number;
  sample: number;
  /** Whether every test and every fault takes part. */
  whole: boolean;
  /** Whether only some tests take part. */
  isQuick: boolean;
  verbose: boolean;
}

async function sources(): Promise<string[]> {
  const files: string[] = [];
  for (const folder of FOLDERS) {
    for await (const { name } of Deno.readDir(new URL(folder, ROOT))) {
      files.push(`${folder}/${name}`);
    }
  }
  return files.sort();
}

async function planFrom(args: readonly string[]): Promise<Plan> {
  const { values } = parseArgs({
    args: withoutSeparator(args),
    options: {
      file: { type: "string" },
      tests: { type: "string" },
      seed: { type: "string", default: "1" },
      sample: { type: "string" },
      verbose: { type: "boolean", default: false },
    },
  });
  const all = await sources();
  const chosen = names(values.file).flatMap((name) =>
    FOLDERS.includes(name) ? all.filter((file) => file.startsWith(`${name}/`)) : name
  );
  const quick = (await testFiles("tests")).filter((file) => QUICK.test(file));
  const tests = knownNames("test file", names(values.tests), quick);
  if (tests.length === 0) throw new UsageError("No tests");
  return {
    files: knownNames("file", chosen, all),
    tests,
    seed: wholeNumber("--seed", values.seed, 0)!,
    sample: wholeNumber("--sample", values.sample, 1) ?? Infinity,
    isQuick: values.tests !== undefined,
    whole: values.tests === undefined && values.sample === undefined,
    verbose: values.verbose,
  };
}

function names(list: string | undefined): string[] {
  return list === undefined ? [] : list.split(",");
}

/** Chooses some of the faults, always the same ones for a seed. */
function choose(mutants: Mutant[], { seed, sample }: Plan): Mutant[] {
  if (sample >= mutants.length) return mutants;
  let state = seed;
  const rank = new Map(mutants.map((mutant) => {
    // A linear congruential generator with the constants of Numerical Recipes.
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return [mutant, state];
  }));
  const order = [...mutants].sort((a, b) => rank.get(a)! - rank.get(b)!);
  return order.slice(0, sample).sort((a, b) => a.id - b.id);
}

const percent = (part: number, all: number) => (Math.floor(1000 * part / all) / 10).toFixed(1);

/** The results of a round, shown when the last fault of a file is judged. */
class Report {
  readonly #explanations: Explanations;
  readonly #plan: Plan;
  readonly #start = performance.now();
  readonly #left = new Map<string, number>();
  readonly #results: Result[] = [];

  constructor(plan: Plan, explanations: Explanations) {
    this.#plan = plan;
    this.#explanations = explanations;
  }

  choose(mutants: Mutant[]): Mutant[] {
    const chosen = choose(mutants, this.#plan);
    for (const { file } of chosen) this.#left.set(file, (this.#left.get(file) ?? 0) + 1);
    return [...chosen];
  }

  /** An explained fault need not be tried, unless the explanations are checked. */
  budgetFor(mutant: Mutant): number {
    const { whole, isQuick } = this.#plan;
    const isExplained = this.#explanations.has(mutant);
    if (isExplained && !whole) return 0;
    return isExplained || isQuick ? QUICK_BUDGET : BUDGET;
  }

  surveyed(tests: number, left: readonly { file: string; name: string; failure?: string }[]): void {
    const seconds = ((performance.now() - this.#start) / 1000).toFixed(0);
    console.log(`${tests} tests in ${seconds} s; ${left.length} are too slow or not for this run`);
    if (this.#plan.verbose) {
      for (const { file, name } of left) {
        console.log(`  ${file}: ${name}`);
      }
    }
  }

  judged(result: Result): void {
    this.#results.push(result);
    const { mutant: { file } } = result;
    const left = this.#left.get(file)! - 1;
    this.#left.set(file, left);
    if (this.#plan.verbose) {
      const { mutant: { line, change }, killer, message } = result;
      const end = killer ? `${killer.file}: ${killer.name}: ${message}` : "survived";
      console.log(`  ${file}:${line} ${change}: ${end}`);
    }
    if (left === 0) this.#showFile(file);
  }

  #showFile(file: string): void {
    const results = this.#results.filter(({ mutant }) => mutant.file === file);
    const survivors = results.filter(({ killer }) => killer === undefined);
    const open = survivors.filter(({ mutant }) => !this.#explanations.has(mutant));
    console.log(
      `${file.padEnd(34)}${`${results.length}`.padStart(5)} faults, ` +
        `${percent(results.length - survivors.length, results.length).padStart(5)} % killed, ` +
        `${survivors.length - open.length} explained, ${open.length} open`,
    );
    open.sort((a, b) => a.mutant.id - b.mutant.id);
    for (const { mutant: { line, where, change }, tests } of open) {
      console.log(`  ${file}:${line} (${where}): ${change}${tests ? "" : " [no test reaches it]"}`);
    }
  }

  /** Shows the sum. Returns whether the round passed. */
  show(): boolean {
    const all = this.#results.length;
    const killed = this.#results.filter(({ killer }) => killer !== undefined);
    const explained = this.#results.filter(({ killer, mutant }) =>
      killer === undefined && this.#explanations.has(mutant)
    );
    const stale = this.#plan.whole
      ? this.#explanations.stale(this.#plan.files, explained.map(({ mutant }) => mutant))
      : [];
    for (const line of stale) console.log(`Not a survivor, but in the list: ${line}`);
    const open = all - killed.length - explained.length;
    const minutes = ((performance.now() - this.#start) / 60_000).toFixed(1);
    const share = all > 0 ? percent(killed.length, all) : "0";
    console.log(
      `${all} faults, ${killed.length} killed (${share} %), ${explained.length} explained, ` +
        `${open} open, in ${minutes} min`,
    );
    if (all === 0) console.log("No fault was tried");
    return all > 0 && open === 0 && stale.length === 0 && Number(share) >= GOAL;
  }
}

const plan = await readArguments(USAGE, () => planFrom(Deno.args));
const runtime = await findRuntime(SUITE_RUNTIMES.find(({ name }) => name === "node24")!);
if (runtime === undefined) throw new Error("Node 24 is missing");
const report = new Report(plan, await Explanations.read());
await runRound(
  plan.files,
  plan.tests,
  (all) => report.choose(all),
  (mutant) => report.budgetFor(mutant),
  runtime.path,
  report,
);
if (!report.show()) Deno.exitCode = 1;
