/** Runs the suite on several runtimes and writes bench/results/. */
import { parseArgs } from "node:util";
import { buildNpm } from "../build_npm.ts";
import { knownNames, positiveNumber, readArguments, wholeNumber } from "../arguments.ts";
import type { Runtime } from "../runtimes.ts";
import { bundleSizes } from "./bundle.ts";
import { separateCores } from "./cores.ts";
import { machine, versions } from "./machine.ts";
import { measure } from "./measure.ts";
import { candidatesOf, findRuntimeByName, USAGE } from "./options.ts";
import { render } from "./render.ts";
import {
  isSame,
  type Measurement,
  readResults,
  readTopics,
  type Results,
  writeResults,
} from "./results.ts";
import { figureOf, type Run } from "./statistics.ts";
import { measureTopics } from "./topics.ts";
import { GROUPS, type Item, RUNTIMES, SUITE, TOPICS } from "./suite.ts";
import { titleOf, unitOf } from "./workload.ts";

interface Settings {
  runtimes: Runtime[];
  /** Number of times that each comparison is run with fresh processes. */
  runs: number;
  rounds: number;
  /** Seconds of CPU time per round. */
  seconds: number;
  /** After this time no comparison is begun. */
  minutes: number;
  items: Item[];
  /** Whether runs that are already in bench/results/ are kept. */
  isContinued: boolean;
  /** Whether `topics` is measured too. It has results of its own. */
  hasTopics: boolean;
}

async function settingsFrom(args: string[]): Promise<Settings> {
  const { values, positionals } = parseArgs({
    args,
    options: {
      runs: { type: "string", default: "3" },
      rounds: { type: "string", default: "2" },
      seconds: { type: "string", default: "0.2" },
      minutes: { type: "string" },
      only: { type: "string" },
      continue: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  const names = positionals.length > 0 ? positionals : RUNTIMES;
  const groups = knownNames("group", values.only?.split(",") ?? [], GROUPS);
  const hasTopics = groups.includes(TOPICS) &&
    !(values.continue && await readTopics() !== undefined);
  return {
    runs: wholeNumber("--runs", values.runs, 1)!,
    rounds: wholeNumber("--rounds", values.rounds, 1)!,
    seconds: positiveNumber("--seconds", values.seconds)!,
    minutes: positiveNumber("--minutes", values.minutes) ?? Infinity,
    items: SUITE.filter(({ group }) => groups.includes(group)),
    isContinued: values.continue,
    hasTopics,
    runtimes: await Promise.all(names.map(findRuntimeByName)),
  };
}

/** `deno task bench report`. */
export async function report(args: string[]) {
  const settings = await readArguments(USAGE, () => settingsFrom(args));
  const { runtimes, runs, items, minutes } = settings;
  await buildNpm();
  const start = performance.now();
  const elapsed = () => (performance.now() - start) / 60_000;
  const separate = await separateCores();
  const all = await Promise.all(runtimes.map((runtime) => startOf(runtime, settings, separate)));
  const failures: string[] = [];
  const attempt = async (what: string, work: () => Promise<unknown>) => {
    try {
      await work();
    } catch (error) {
      failures.push(`${what}: ${error}`);
      console.error(`FAILED ${failures.at(-1)}`);
    }
  };
  // All comparisons of a run come before the next run, so that a slow minute does not affect all runs.
  for (let run = 1; run <= runs; run++) {
    for (const [i, runtime] of runtimes.entries()) {
      for (const item of items) {
        if (elapsed() > minutes) continue;
        const what = `run ${run}, ${runtime.name}, ${titleOf(item.workload)}`;
        await attempt(what, () => runOnce(runtime, item, all[i], run, settings));
      }
    }
  }
  if (elapsed() > minutes) console.log(`stopped after ${minutes} minutes: see --continue`);
  if (settings.hasTopics && elapsed() < minutes) {
    await attempt("topics", () => measureTopics(separate));
  }
  await attempt("bundle", async () => await writeResults("bundle", await bundleSizes()));
  await render();
  for (const failure of failures) console.error(`FAILED ${failure}`);
  if (failures.length > 0) Deno.exitCode = 1;
  console.log(`took ${elapsed().toFixed(1)} minutes`);
}

/** The results to begin with: without those that are measured anew. */
async function startOf(
  runtime: Runtime,
  { rounds, seconds, items, isContinued }: Settings,
  separateCores: boolean,
): Promise<Results> {
  const before = await readResults(runtime.name);
  const isKept = ({ workload }: Measurement) =>
    isContinued || !items.some((item) => isSame(item.workload, workload));
  return {
    runtime: runtime.name,
    versions: versions(runtime),
    machine: machine(),
    date: new Date().toISOString().slice(0, 10),
    rounds,
    seconds,
    separateCores,
    // Also drops what the suite no longer contains.
    measurements: SUITE.flatMap(({ workload }) =>
      before?.measurements.filter((one) => isSame(one.workload, workload)).filter(isKept) ?? []
    ),
  };
}

/** Makes the run of a comparison, unless it is there already. */
async function runOnce(
  runtime: Runtime,
  { workload, peers }: Item,
  results: Results,
  number: number,
  { rounds, seconds }: Settings,
) {
  const names = peers(runtime.engine);
  const { measurements } = results;
  let measurement = measurements.find((one) => isSame(one.workload, workload));
  if (names.length === 0 || (measurement?.runs.length ?? 0) >= number) return;
  const start = performance.now();
  const run = await measure(runtime, workload, candidatesOf(names), { rounds, seconds });
  if (measurement === undefined) {
    measurements.push(measurement = { workload, runs: [] });
    const place = (one: Measurement) => SUITE.findIndex((i) => isSame(i.workload, one.workload));
    measurements.sort((a, b) => place(a) - place(b));
  }
  measurement.runs.push(rounded(run));
  await writeResults(runtime.name, results);
  const took = (performance.now() - start) / 1000;
  const said = names.map((name) => `${name} ${summary(run, name)}`).join(", ");
  console.log(`${runtime.name}, ${titleOf(workload)}: ${said} (${took.toFixed(1)} s)`);

  function summary(run: Run, name: string): string {
    return Object.keys(run[name]).map((figure) => {
      const value = figureOf([run], name, figure)!.median.toPrecision(4);
      return figure === "rate" ? value : `${value} ${unitOf(workload, figure)}`;
    }).join(" ");
  }
}

/** Rounds the values to five digits. They are not more precise. */
function rounded(run: Run): Run {
  const round = (values: number[]) => values.map((value) => Number(value.toPrecision(5)));
  return Object.fromEntries(
    Object.entries(run).map(([peer, figures]) => [
      peer,
      Object.fromEntries(Object.entries(figures).map(([name, values]) => [name, round(values)])),
    ]),
  );
}
