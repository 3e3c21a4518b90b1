/** Runs one comparison with fresh processes. */
import type { Runtime } from "../runtimes.ts";
import { contest, type ContestOptions, timed } from "./contest.ts";
import type { Load } from "./lane.ts";
import { LineProcess, Measured } from "./measured.ts";
import type { Run } from "./statistics.ts";
import {
  type Candidate,
  contestantOf,
  firstTry,
  loadOf,
  serverOf,
  shapeOf,
  type Workload,
} from "./workload.ts";

/** The length of a run. */
export interface MeasureOptions
  extends Pick<ContestOptions, "rounds" | "seconds" | "messages" | "onRound"> {
  /** The folder of a CPU profile for each candidate. */
  profiles?: URL;
}

/** Seconds after which a run that has not ended is given up. */
const PATIENCE = 300;

/** Number of connections from which on a run has a single round. */
const MANY = 10_000;

/** How long a run of a kind of work is at least. */
interface Pace extends Pick<ContestOptions, "warmUp" | "most"> {
  /** Minimum of seconds of CPU time per round. */
  least?: number;
}

/**
 * Users notice the speed of code that is compiled. For short messages this takes up to a million of them, for
 * messages of 64 KiB some 20,000, and for openings, which run more code and are rarer, some ten thousand. A
 * process may have 20,000 files where this was written.
 */
function paceOf({ kind }: Workload): Pace {
  if (kind === "open") return { warmUp: 1.2, least: 0.5, most: 12_000 };
  return kind === "echo" ? { warmUp: 1.5 } : {};
}

/** Share of connections that are opened before the memory is measured, so that one-time costs are not counted. */
const SHARE_BEFORE = 0.2;

/** Number of messages on each connection before the memory of active connections is read. */
const ACTIVE_MESSAGES = 20;

/** Measures the candidates. All processes are new, and end with the run. */
export async function measure(
  runtime: Runtime,
  workload: Workload,
  candidates: Candidate[],
  options: MeasureOptions,
): Promise<Run> {
  const timer = setTimeout(() => LineProcess.killAll(), PATIENCE * 1000);
  try {
    const { kind } = workload;
    if (kind === "memory") return await memory(runtime, workload, candidates);
    if (kind === "huge") return await huge(runtime, workload, candidates, options);
    if (kind === "paced") return await paced(runtime, workload, candidates, options);
    if (kind === "keepalive") return await oneByOne(runtime, workload, candidates, options);
    return await compete(runtime, workload, candidates, options);
  } catch (error) {
    LineProcess.killAll();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

async function compete(
  runtime: Runtime,
  workload: Workload,
  candidates: Candidate[],
  { rounds, seconds, messages, onRound, profiles }: MeasureOptions,
): Promise<Run> {
  const contestants = candidates.map((candidate) => {
    const folder = profiles && new URL(`${candidate.name}/`, profiles);
    return contestantOf(workload, runtime, candidate, folder);
  });
  const first = firstTry(workload);
  // A message on each of many connections takes longer than a round.
  const fewer = shapeOf(workload).connections >= MANY ? 1 : rounds;
  const { least = 0, ...pace } = paceOf(workload);
  const longer = Math.max(seconds, least);
  return await contest(contestants, {
    ...{ rounds: fewer, seconds: longer, first, messages, onRound },
    ...pace,
  });
}

/** Measures one round of one candidate after the other, because idle connections must be served during a turn. */
async function oneByOne(
  runtime: Runtime,
  workload: Workload,
  candidates: Candidate[],
  { onRound }: MeasureOptions,
): Promise<Run> {
  const run: Run = {};
  const messages = shapeOf(workload).connections;
  for (const candidate of candidates) {
    const contestant = contestantOf(workload, runtime, candidate);
    try {
      await contestant.open();
      await contestant.round(messages);
      const result = await contestant.round(messages);
      onRound?.(1, candidate.name, result);
      run[candidate.name] = { rate: [result.figures.rate] };
    } finally {
      await contestant.close();
    }
  }
  return run;
}

/** A measured server with its load. */
interface Pair {
  server: Measured;
  load: Load;
}

async function start(
  runtime: Runtime,
  workload: Workload,
  candidate: Candidate,
  rate?: number,
): Promise<Pair> {
  const server = new Measured(serverOf(workload, runtime, candidate));
  const load = await loadOf(workload, candidate, await server.number(), rate);
  return { server, load };
}

async function stop({ server, load }: Pair) {
  await load.close();
  await server.close();
}

/** Measures latencies at half of the rate that the last candidate reaches. */
async function paced(
  runtime: Runtime,
  workload: Workload,
  candidates: Candidate[],
  { rounds, seconds }: MeasureOptions,
): Promise<Run> {
  const first = firstTry(workload);
  const baseline = await start(runtime, workload, candidates.at(-1)!);
  let full = 0;
  for (const part of [1, 3]) {
    const { figures } = await timed(baseline.server, () => baseline.load.run(part * first));
    full = figures.rate;
  }
  await stop(baseline);
  const run: Run = {};
  for (const candidate of candidates) {
    const pair = await start(runtime, workload, candidate, full / 2);
    const figures: Record<string, number[]> = run[candidate.name] = {};
    await pair.load.run(first);
    for (let round = 0; round < rounds; round++) {
      await pair.load.run(Math.ceil(full * seconds));
      for (const [figure, value] of Object.entries(pair.load.figures!())) {
        (figures[figure] ??= []).push(value);
      }
    }
    await stop(pair);
  }
  return run;
}

/** Measures how fast large messages are read, and how much memory a server needs for it, in MiB. */
async function huge(
  runtime: Runtime,
  workload: Workload,
  candidates: Candidate[],
  { rounds, onRound }: MeasureOptions,
): Promise<Run> {
  const run: Run = {};
  for (const candidate of candidates) {
    const { server, load } = await start(runtime, workload, candidate);
    const before = await server.ask("memory");
    const rates: number[] = [];
    for (let round = 1; round <= rounds; round++) {
      const result = await timed(server, () => load.run(1));
      rates.push(result.figures.rate);
      onRound?.(round, candidate.name, result);
    }
    const [, , peak] = await server.ask("memory");
    run[candidate.name] = { rate: rates, peak: [(peak - before[0]) / 2 ** 20] };
    await stop({ server, load });
  }
  return run;
}

/** Measures the memory that a server needs for a connection, in KiB. */
async function memory(
  runtime: Runtime,
  workload: Workload,
  candidates: Candidate[],
): Promise<Run> {
  const run: Run = {};
  const { connections } = shapeOf(workload);
  for (const candidate of candidates) {
    const server = new Measured(serverOf(workload, runtime, candidate));
    const port = await server.number();
    const connect = (count: number) => loadOf({ ...workload, connections: count }, candidate, port);
    const warm = await connect(Math.ceil(connections * SHARE_BEFORE));
    const [rss, heap] = await server.ask("memory");
    const load = await connect(connections);
    const [idleRss, idleHeap] = await server.ask("memory");
    const figures: Record<string, number[]> = run[candidate.name] = {};
    const perConnection = (bytes: number) => [bytes / 1024 / connections];
    figures.idle = perConnection(idleRss - rss);
    figures.heap = perConnection(idleHeap - heap);
    await load.run(connections * ACTIVE_MESSAGES);
    const [activeRss] = await server.ask("rss");
    figures.active = perConnection(activeRss - rss);
    for (const one of [warm, load]) await one.close();
    await server.close();
  }
  return run;
}
