/**
 * Measures how many messages a process handles in a second of its CPU time, and compares it with other
 * libraries: `deno task bench [KIND]`; `--help` lists the options, and `bench/workload.ts` has the kinds.
 *
 * The servers: `loop` and `pipe` are ours, with `for await (const message of ws) await ws.send(message)`
 * and with `ws.readable.pipeTo(ws.writable)`; `http2` is `loop` over HTTP/2; `ws` is the npm package (on
 * Bun, Bun's own substitute for it); `bufferutil` is ws with its native addon; `native` is the server of
 * the runtime; `tcp` echoes bytes. The clients: `loop` is ours with `send()` and `for await`; `streams` is
 * ours with a reader and a writer; then `undici`, `ws`, `bufferutil` and `native`.
 *
 * Our peers are the npm package, which is built first, as in a program that installs it.
 *
 * Each peer is a separate process, and the other end is the same for all. They take turns of about
 * `--seconds` of CPU time, or of `--messages`, so that anything that slows the machine down affects all
 * of them. The ratios compare neighbouring turns with the last peer. With several `--runs`, each run has
 * new processes, and the figures are medians of the runs.
 *
 * The sockets of our peers: `default` is the platform's default; `node` is `node:net`. With several, each
 * peer runs over each of them.
 *
 * `deno task bench report [RUNTIME...]` runs the comparisons of `bench/suite.ts`, writes bench/results/
 * after each of them, and renders it: the charts, bench/RESULTS.md and the table of the README. `--only`
 * chooses groups of comparisons, `--minutes` limits the time, and `--continue` adds the runs that are
 * missing. `render` renders again, and `render --check` fails if a rendered file is out of date.
 * `guard` fails if a ratio is far below the published one.
 *
 * `programs` runs the programs of tests/ws/programs/ on ws and on `sluice/ws`.
 * `topics` measures publish and subscribe in one process, and in three over Redis, writes
 * bench/results/topics.json and renders it. It takes about five minutes, and is a part of `report`.
 *
 * bench/NOTES.md explains how the benchmarks measure.
 */
import { parseArgs } from "node:util";
import { readArguments } from "./arguments.ts";
import { buildNpm } from "./build_npm.ts";
import type { Round } from "./bench/contest.ts";
import { separateCores } from "./bench/cores.ts";
import { guard } from "./bench/guard.ts";
import { measure } from "./bench/measure.ts";
import { type Plan, planFrom, USAGE } from "./bench/options.ts";
import { topFunctions } from "./bench/profile.ts";
import { checkRendered, render } from "./bench/render.ts";
import { programs } from "./bench/programs.ts";
import { report } from "./bench/report.ts";
import { figureOf, ratioOf, type Run } from "./bench/statistics.ts";
import { measureTopics } from "./bench/topics.ts";
import { titleOf, unitOf, type Workload } from "./bench/workload.ts";
import { ROOT } from "./process.ts";

const PROFILES = new URL(".cache/bench/profiles/", ROOT);

function printRound(round: number, name: string, result: Round) {
  const percent = (share: number) => `${Math.round(share * 100)} %`.padStart(5);
  const { figures, measuredBusy, otherBusy, seconds } = result;
  const busy = `busy ${percent(measuredBusy)}, other end ${percent(otherBusy)}`;
  const time = `${seconds.toFixed(1)} s`;
  console.log(`  round ${round}  ${name.padEnd(12)}${count(figures.rate)}  (${time}, ${busy})`);
}

/** Prints the figures of each peer: the medians of the runs, or of the rounds if there is one run. */
function printRuns(runs: Run[], workload: Workload) {
  const names = Object.keys(runs[0]);
  const last = names.at(-1)!;
  const single = runs.length === 1 ? roundsOf(runs[0]) : runs;
  for (const figure of Object.keys(runs[0][last])) {
    const title = names.length > 1 ? `    to ${last}` : "";
    const unit = unitOf(workload, figure);
    console.log(`\n  ${unit.padEnd(32)}     median        min        max${title}`);
    for (const name of names) {
      const { median, least, most } = figureOf(single, name, figure)!;
      const columns = [median, least, most].map(count).join("");
      const ratio = ratioOf(single, name, last, figure)!.median.toFixed(2).padStart(9);
      console.log(`  ${name.padEnd(32)}${columns}${names.length > 1 ? ratio : ""}`);
    }
  }
  console.log();
}

/** Each round as a run of its own. */
function roundsOf(run: Run): Run[] {
  const [figures] = Object.values(run);
  const rounds = Object.values(figures)[0].length;
  return Array.from({ length: rounds }, (_, round) => {
    const only = (figures: Run[string]) =>
      Object.fromEntries(
        Object.entries(figures).map(([name, values]) => [name, [values[round] ?? values[0]]]),
      );
    return Object.fromEntries(Object.entries(run).map(([peer, all]) => [peer, only(all)]));
  });
}

function count(value: number): string {
  const digits = value < 1000 ? 1 : 0;
  return value.toLocaleString("en-US", { maximumFractionDigits: digits }).padStart(11);
}

async function printProfiles(names: string[]) {
  for (const name of names) {
    for await (const entry of Deno.readDir(new URL(`${name}/`, PROFILES))) {
      const file = new URL(`${name}/${entry.name}`, PROFILES);
      console.log(`\n${name}: ${file.pathname.slice(ROOT.pathname.length)}`);
      console.log(topFunctions(await Deno.readTextFile(file)).join("\n"));
    }
  }
}

async function removeProfiles() {
  await Deno.remove(PROFILES, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
}

async function runPlan({ runtime, workloads, candidates, runs, profile, ...options }: Plan) {
  for (const workload of workloads) {
    console.log(`${titleOf(workload)}, ${runtime.name} (${runtime.version})`);
    if (profile) await removeProfiles();
    const profiles = profile ? PROFILES : undefined;
    const all: Run[] = [];
    while (all.length < runs) {
      const more = { ...options, profiles, onRound: printRound };
      all.push(await measure(runtime, workload, candidates, more));
    }
    printRuns(all, workload);
    if (profile) await printProfiles(candidates.map(({ name }) => name));
  }
}

async function main([command, ...rest]: string[]) {
  if (command === "report") return await report(rest);
  if (command === "render") {
    const check = await readArguments(USAGE, () => onlyFlag(rest, "check"));
    return await (check ? checkRendered() : render());
  }
  if (command === "programs") return await programs(rest);
  if (command === "guard") {
    await readArguments(USAGE, () => onlyFlag(rest));
    await buildNpm();
    return await guard();
  }
  if (command === "topics") {
    await readArguments(USAGE, () => onlyFlag(rest));
    await buildNpm();
    await measureTopics(await separateCores());
    return await render();
  }
  const plan = await readArguments(USAGE, () => planFrom(Deno.args));
  await buildNpm();
  await separateCores();
  await runPlan(plan);
}

/** Whether the flag was given. No other argument is allowed. */
function onlyFlag(args: string[], flag?: string): boolean {
  const options = flag === undefined ? {} : { [flag]: { type: "boolean" as const } };
  return Object.keys(parseArgs({ args, options }).values).length > 0;
}

await main(Deno.args);
