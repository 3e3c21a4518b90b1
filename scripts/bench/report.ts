/** Runs the suite on several runtimes and writes bench/results/. */
import { parseArgs } from "node:util";
import { positiveNumber, readArguments, wholeNumber } from "../arguments.ts";
import type { Runtime } from "../runtimes.ts";
import { bundleSizes } from "./bundle.ts";
import { contest } from "./contest.ts";
import { separateCores } from "./cores.ts";
import { memoryOf } from "./idle.ts";
import { machine, pythonWebsockets, versions } from "./machine.ts";
import { candidatesOf, findRuntimeByName, USAGE } from "./options.ts";
import { render } from "./render.ts";
import { type Measurement, type Results, writeResults } from "./results.ts";
import { median, valuesOf } from "./statistics.ts";
import { FIRST, IDLE, type Item, RUNTIMES, SUITE } from "./suite.ts";
import { measureTopics } from "./topics.ts";
import { contestantOf, firstTry, nameOf, spreadOf, unitOf, type Workload } from "./workload.ts";

interface Settings {
  rounds: number;
  seconds: number;
}

async function settingsFrom(args: string[]): Promise<Settings & { runtimes: Runtime[] }> {
  const { values, positionals } = parseArgs({
    args,
    options: {
      rounds: { type: "string", default: "3" },
      seconds: { type: "string", default: "0.6" },
    },
    allowPositionals: true,
  });
  const names = positionals.length > 0 ? positionals : RUNTIMES;
  return {
    rounds: wholeNumber("--rounds", values.rounds, 1)!,
    seconds: positiveNumber("--seconds", values.seconds)!,
    runtimes: await Promise.all(names.map(findRuntimeByName)),
  };
}

/** `deno task bench report [RUNTIME...] [--rounds 3] [--seconds 0.6]`. */
export async function report(args: string[]) {
  const { runtimes, ...settings } = await readArguments(USAGE, () => settingsFrom(args));
  const start = performance.now();
  const separate = await separateCores();
  if (await pythonWebsockets() === undefined) {
    console.log("python3-websockets is not installed, so it is not measured");
  }
  for (const runtime of runtimes) {
    const results = await measure(runtime, settings, separate);
    await writeResults(runtime.name, results);
  }
  await attempt(() => measureTopics(separate));
  await writeResults("bundle", await bundleSizes());
  await render();
  console.log(`took ${((performance.now() - start) / 60_000).toFixed(1)} minutes`);
}

async function measure(runtime: Runtime, settings: Settings, separate: boolean): Promise<Results> {
  const measurements: Measurement[] = [];
  for (const item of SUITE) {
    await attempt(async () => measurements.push(...await compare(runtime, item, settings)));
  }
  await attempt(async () => measurements.push(...await idle(runtime)));
  return {
    runtime: runtime.name,
    versions: await versions(runtime),
    machine: machine(),
    date: new Date().toISOString().slice(0, 10),
    ...settings,
    separateCores: separate,
    measurements,
  };
}

/** Runs one comparison. If it fails, only its results are missing. */
async function attempt(work: () => Promise<unknown>) {
  try {
    await work();
  } catch (error) {
    console.error("FAILED", error);
    Deno.exitCode = 1;
  }
}

async function compare(
  runtime: Runtime,
  { workload, peers }: Item,
  { rounds, seconds }: Settings,
): Promise<Measurement[]> {
  const first = firstTry(workload);
  const withPython = runtime.name === FIRST && await pythonWebsockets() !== undefined;
  const contestants = candidatesOf(peers(runtime.engine, withPython)).map((candidate) =>
    contestantOf(workload, runtime, candidate)
  );
  const results = await contest(contestants, { rounds, seconds, first });
  const { kind, type, size } = workload;
  const base = { kind, type, size, ...spreadOf(workload) };
  const measurements = [{ ...base, figure: unitOf(workload), peers: valuesOf(results, "rate") }];
  if (kind === "latency") {
    for (const figure of ["p50", "p99"] as const) {
      const peers = valuesOf(results, figure);
      measurements.push({ ...base, figure: `microseconds, ${figure}`, peers });
    }
  }
  return measurements.map((measurement) => said(runtime, workload, rounded(measurement)));
}

/** Measures the memory of idle connections. */
async function idle(runtime: Runtime): Promise<Measurement[]> {
  const { connections } = IDLE;
  const [resident, engine]: Record<string, number[]>[] = [{}, {}];
  for (const candidate of candidatesOf(IDLE.peers(runtime.engine))) {
    const { rss, heap } = await memoryOf(runtime, candidate, connections);
    resident[candidate.name] = [rss / 1024];
    engine[candidate.name] = [heap / 1024];
  }
  const workload = { kind: "idle" } as const;
  return [
    { ...workload, connections, figure: "KiB of resident memory", peers: resident },
    { ...workload, connections, figure: "KiB of the engine's heap", peers: engine },
  ].map((measurement) => said(runtime, workload, rounded(measurement)));
}

/** Rounds the values to four digits. They are not more precise. */
function rounded(measurement: Measurement): Measurement {
  const peers = Object.entries(measurement.peers).map(([name, values]) => [
    name,
    values.map((value) => Number(value.toPrecision(5))),
  ]);
  return { ...measurement, peers: Object.fromEntries(peers) };
}

function said(
  { name }: Runtime,
  { kind, size }: Partial<Workload> | { kind: "idle"; size?: undefined },
  measurement: Measurement,
): Measurement {
  const peers = Object.entries(measurement.peers)
    .map(([peer, values]) => `${peer} ${median(values).toPrecision(4)}`);
  const what = size === undefined ? kind : `${kind} ${nameOf(size)}`;
  console.log(`${name}, ${what}, ${measurement.figure}: ${peers.join(", ")}`);
  return measurement;
}
