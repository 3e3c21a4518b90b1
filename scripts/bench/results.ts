/** Reads and writes the files in bench/results/. */
import { ROOT } from "../process.ts";
import type { Size } from "./bundle.ts";
import { figureOf, ratioOf, type Run, type Spread } from "./statistics.ts";
import type { Workload } from "./workload.ts";

const FOLDER = new URL("bench/results/", ROOT);

/** The runs of one comparison. */
export interface Measurement {
  workload: Workload;
  runs: Run[];
}

/** How results were measured. */
export interface Conditions {
  /** The versions of the runtime, the library and the peers. */
  versions: Record<string, string>;
  machine: Record<string, string | number>;
  date: string;
  rounds: number;
  /** Seconds of CPU time per round. */
  seconds: number;
  /** Whether the measured process had a separate core. */
  separateCores: boolean;
}

/** The results of one runtime. */
export interface Results extends Conditions {
  runtime: string;
  measurements: Measurement[];
}

/** The deliveries in a second of the servers' CPU time. */
export interface TopicsMeasurement {
  runtime: string;
  /** The number of server processes. */
  processes: number;
  subscribers: number;
  /** The number of messages that are published at once. */
  burst: number;
  /** Size of a message, in bytes. */
  size: number;
  /** The values of each peer, one for each round. */
  peers: Record<string, number[]>;
  /** The CPU time of Redis for a message, in microseconds. */
  engine?: Record<string, number>;
}

/** The results of topics. */
export interface TopicsResults extends Conditions {
  measurements: TopicsMeasurement[];
}

export async function writeResults(
  name: string,
  results: Results | Record<string, Size> | TopicsResults,
) {
  await Deno.mkdir(FOLDER, { recursive: true });
  // Each comparison has a line.
  const text = JSON.stringify(results).replaceAll(/(?=\{"workload")|(?=\]\}$)/g, "\n");
  await Deno.writeTextFile(new URL(`${name}.json`, FOLDER), `${text}\n`);
}

/** Reads the results of a runtime, if a report has measured it. */
export async function readResults(name: string): Promise<Results | undefined> {
  return await readJson(name) as Results | undefined;
}

export async function readSizes(): Promise<Record<string, Size> | undefined> {
  return await readJson("bundle") as Record<string, Size> | undefined;
}

/** Reads the results of topics, if they were measured. */
export async function readTopics(): Promise<TopicsResults | undefined> {
  return await readJson("topics") as TopicsResults | undefined;
}

async function readJson(name: string): Promise<unknown> {
  try {
    return JSON.parse(await Deno.readTextFile(new URL(`${name}.json`, FOLDER)));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Whether both are the same work. */
export function isSame(one: Workload, other: Workload): boolean {
  return KEYS.every((key) => one[key] === other[key]);
}

const KEYS = [
  "kind",
  "type",
  "size",
  "tls",
  "load",
  "fragments",
  "level",
  "takeover",
  "connections",
  "inFlight",
] as const satisfies (keyof Workload)[];

/** Whether both are the same work, except for the load. */
export function isSameButLoad(one: Workload, other: Workload): boolean {
  return isSame({ ...one, load: undefined }, { ...other, load: undefined });
}

/** The measurements of the work with each load. Without runs: none. */
export function find({ measurements }: Results, workload: Omit<Workload, "load">): Measurement[] {
  return measurements.filter((one) => isSameButLoad(one.workload, workload));
}

/** What is published of a peer: the lower one of the loads. */
export function published(
  measurements: Measurement[],
  peer: string,
  figure?: string,
): Spread | undefined {
  return lowest(measurements.map(({ runs }) => figureOf(runs, peer, figure)));
}

/** What is published of the ratio to another peer: the lower one of the loads. */
export function publishedRatio(
  measurements: Measurement[],
  peer: string,
  baseline: string,
  figure?: string,
): Spread | undefined {
  return lowest(measurements.map(({ runs }) => ratioOf(runs, peer, baseline, figure)));
}

function lowest(spreads: (Spread | undefined)[]): Spread | undefined {
  return spreads.filter((spread) => spread !== undefined)
    .sort((a, b) => a.median - b.median)[0];
}
