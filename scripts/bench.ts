/**
 * Measures how many messages a process handles in a second of its CPU time, and compares it with other
 * libraries: `deno task bench [echo | deflate | latency | open | client | fanout | idle]`; `--help` lists
 * the options.
 *
 * The servers: `loop` and `pipe` are ours, with `for await (const message of ws) await ws.send(message)`
 * and with `ws.readable.pipeTo(ws.writable)`; `chain` and `batch` are our transforms, piped by hand, with
 * one item or an array in each chunk; `ws` is the npm package (on Bun, Bun's own substitute for it);
 * `bufferutil` is ws with its native addon; `native` is the server of the runtime; `python` is
 * python3-websockets; `tcp` echoes bytes. The clients: `loop` is ours with `send()` and `for await`;
 * `streams` is ours with a reader and a writer; then `undici`, `ws`, `bufferutil` and `native`.
 *
 * Each peer is a separate process, and the other end is the same for all. They take turns of about
 * `--seconds` of CPU time, or of `--messages`, so that anything that slows the machine down affects all
 * of them. The ratios compare neighbouring turns with the last peer.
 *
 * The sockets of our peers: `default` is the platform's default; `node` is `node:net`; `deno` is
 * `Deno.listen()`, which is not the default anywhere. With several, each peer runs over each of them.
 *
 * `deflate` compresses JSON texts of 1 KiB and 64 KiB, with context takeover and the same zlib settings
 * for all, and then measures the memory of a connection. `latency` has one message in flight, `open`
 * counts opening handshakes, `fanout` sends the messages of one connection to all of them
 * (`--connections 1000`), and `idle` measures the memory of `--connections` (5000).
 *
 * `deno task bench report [RUNTIME...] [--rounds 3] [--seconds 0.6]` runs all of them, writes
 * bench/results/ and renders it: the charts, bench/RESULTS.md and the table of the README.
 * `render` renders again, and `render --check` fails if a rendered file is out of date. `guard` fails
 * if our server echoes small messages on Node at less than twice the rate of ws.
 *
 * `programs` runs the programs of tests/ws/programs/ on ws and on `sluice/ws`.
 * `topics` measures publish and subscribe in one process, and in three over Redis, writes
 * bench/results/topics.json and renders it. It takes about five minutes, and is a part of `report`.
 *
 * bench/NOTES.md explains how the benchmarks measure.
 */
import { parseArgs } from "node:util";
import { readArguments } from "./arguments.ts";
import { contest, type Round } from "./bench/contest.ts";
import { separateCores } from "./bench/cores.ts";
import { type Memory, memoryOf } from "./bench/idle.ts";
import { guard } from "./bench/guard.ts";
import { type Plan, planFrom, USAGE } from "./bench/options.ts";
import { topFunctions } from "./bench/profile.ts";
import { checkRendered, render } from "./bench/render.ts";
import { programs } from "./bench/programs.ts";
import { report } from "./bench/report.ts";
import { median, ratio, valuesOf } from "./bench/statistics.ts";
import { measureTopics } from "./bench/topics.ts";
import { contestantOf, firstTry, spreadOf, unitOf, type Workload } from "./bench/workload.ts";
import { ROOT } from "./process.ts";

const PROFILES = new URL(".cache/bench/", ROOT);

/** The rates of each peer, round by round. */
type Rates = Record<string, number[]>;

async function compare(plan: Plan, workload: Workload): Promise<Rates> {
  const contestants = plan.candidates.map((candidate) =>
    contestantOf(
      workload,
      plan.runtime,
      candidate,
      plan.profile ? new URL(`${candidate.name}/`, PROFILES) : undefined,
    )
  );
  const { rounds, seconds, messages } = plan;
  const first = firstTry(workload);
  const options = { rounds, seconds, first, messages, onRound: printRound };
  return valuesOf(await contest(contestants, options), "rate");
}

function printRound(round: number, name: string, result: Round) {
  const percent = (share: number) => `${Math.round(share * 100)} %`.padStart(5);
  const { p50, p99 } = result;
  const latency = p50 === undefined ? "" : `, p50 ${p50.toFixed(0)} µs, p99 ${p99!.toFixed(0)} µs`;
  const busy = `busy ${percent(result.measuredBusy)}, other end ${percent(result.otherBusy)}`;
  const time = `${result.seconds.toFixed(1)} s`;
  console.log(
    `  round ${round}  ${name.padEnd(12)}${count(result.rate)}  (${time}, ${busy}${latency})`,
  );
}

function printRates(rates: Rates, unit: string) {
  const names = Object.keys(rates);
  const last = names.at(-1)!;
  const title = names.length > 1 ? `    to ${last}` : "";
  console.log(`\n  ${unit.padEnd(26)}     median        min        max${title}`);
  for (const name of names) {
    const values = rates[name];
    const columns = [median(values), Math.min(...values), Math.max(...values)].map(count).join("");
    const to = names.length > 1 ? ratio(values, rates[last]).toFixed(2).padStart(9) : "";
    console.log(`  ${name.padEnd(26)}${columns}${to}`);
  }
  console.log();
}

function count(value: number): string {
  return Math.round(value).toLocaleString("en-US").padStart(11);
}

/** Says which peer is ahead, and by what factor. */
function verdict(rates: Rates): string {
  const names = Object.keys(rates);
  const last = names.pop()!;
  return names.map((name) => {
    const factor = ratio(rates[name], rates[last]);
    const [first, second] = factor >= 1 ? [name, last] : [last, name];
    return `${first} is ahead of ${second} by a factor of ${
      Math.max(factor, 1 / factor).toFixed(2)
    }`;
  }).join("; ");
}

/** Prints the memory of a connection that has echoed two messages of 1 KiB. */
async function printMemory({ candidates, runtime }: Plan) {
  console.log("Memory per connection in KiB: not compressed, with and without context takeover");
  for (const candidate of candidates) {
    const columns: string[] = [];
    for (const deflate of [undefined, "deflate", "deflate-each"] as const) {
      const { rss } = await memoryOf(runtime, candidate, 500, { deflate, size: 1024 });
      columns.push(`${Math.round(rss / 1024)}`.padStart(6));
    }
    console.log(`  ${candidate.name.padEnd(26)}${columns.join("")}`);
  }
}

/** Prints the memory of a connection that has echoed two messages of 16 bytes. */
async function printIdle({ candidates, runtime, rounds, connections = 5000 }: Plan) {
  console.log(
    `Memory per connection in KiB, with ${connections} idle connections: ${runtime.name} (${runtime.version})`,
  );
  for (const candidate of candidates) {
    const measured: Memory[] = [];
    for (let round = 1; round <= rounds; round++) {
      measured.push(await memoryOf(runtime, candidate, connections));
    }
    const figures = (["rss", "heap"] as const).map((figure) => {
      const values = measured.map((memory) => memory[figure] / 1024);
      const all = values.map((value) => value.toFixed(1)).join(" ");
      return `${figure} ${median(values).toFixed(1).padStart(5)} (${all})`;
    });
    console.log(`  ${candidate.name.padEnd(12)}${figures.join("  ")}`);
  }
}

async function printProfiles(names: string[]) {
  for (const name of names) {
    for await (const entry of Deno.readDir(new URL(`${name}/`, PROFILES))) {
      const file = new URL(`${name}/${entry.name}`, PROFILES);
      console.log(`\n${name}: .cache/bench/${name}/${entry.name}`);
      console.log(topFunctions(await Deno.readTextFile(file)).join("\n"));
    }
  }
}

async function removeProfiles() {
  await Deno.remove(PROFILES, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
}

async function runPlan(plan: Plan) {
  const { kind, runtime, tls, load } = plan;
  if (kind === "idle") return await printIdle(plan);
  const verdicts: string[] = [];
  for (const size of plan.sizes) {
    for (const type of plan.types) {
      const { connections, inFlight } = plan;
      const workload: Workload = { kind, type, size, tls, load, connections, inFlight };
      const spread = spreadOf(workload);
      const what = `${size} bytes, ${type}${tls ? ", TLS" : ""}${
        load === "burst" ? ", burst" : ""
      }`;
      const title = `${kind}: ${what}, ${runtime.name} (${runtime.version})`;
      console.log(`${title}, ${spread.connections} x ${spread.inFlight} in flight`);
      if (plan.profile) await removeProfiles();
      const rates = await compare(plan, workload);
      printRates(rates, unitOf(workload));
      if (plan.profile) await printProfiles(Object.keys(rates));
      if (plan.candidates.length > 1) verdicts.push(`${title}: ${verdict(rates)}`);
    }
  }
  for (const line of verdicts) console.log(line);
  if (kind === "deflate") await printMemory(plan);
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
    return await guard();
  }
  if (command === "topics") {
    await readArguments(USAGE, () => onlyFlag(rest));
    await measureTopics(await separateCores());
    return await render();
  }
  const plan = await readArguments(USAGE, () => planFrom(Deno.args));
  await separateCores();
  await runPlan(plan);
}

/** Whether the flag was given. No other argument is allowed. */
function onlyFlag(args: string[], flag?: string): boolean {
  const options = flag === undefined ? {} : { [flag]: { type: "boolean" as const } };
  return Object.keys(parseArgs({ args, options }).values).length > 0;
}

await main(Deno.args);
