/** Reads the files in bench/results/, which a report has written. */
import { ROOT, run } from "../process.ts";
import type { Size } from "./bundle.ts";
import { median, ratio } from "./statistics.ts";
import type { TopicsResults } from "./topics_tables.ts";
import type { Kind } from "./workload.ts";

const FOLDER = new URL("bench/results/", ROOT);

/** The result of a comparison. */
export interface Measurement {
  kind: Kind | "idle";
  type?: "text" | "binary";
  /** Size of a message, in bytes. */
  size?: number;
  connections: number;
  inFlight?: number;
  /** The measured quantity. */
  figure: string;
  /** The values of each peer, one for each round. */
  peers: Record<string, number[]>;
}

/** The results of one runtime. */
export interface Results {
  runtime: string;
  /** The versions of the runtime, the library and the peers. */
  versions: Record<string, string>;
  machine: Record<string, string | number>;
  date: string;
  rounds: number;
  /** Seconds of CPU time per round. */
  seconds: number;
  /** Whether the measured process had a separate core. */
  separateCores: boolean;
  measurements: Measurement[];
}

/** Selects a measurement. */
export interface Query {
  kind: Measurement["kind"];
  size?: number;
  inFlight?: number;
  /** A part of the figure's name. */
  figure?: string;
}

export async function writeResults(
  name: string,
  results: Results | Record<string, Size> | TopicsResults,
) {
  await Deno.mkdir(FOLDER, { recursive: true });
  const file = new URL(`${name}.json`, FOLDER);
  await Deno.writeTextFile(file, JSON.stringify(results));
  await run(Deno.execPath(), ["fmt", "-q", file.pathname]);
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

/** The first measurement that matches. */
export function find(results: Results | undefined, query: Query): Measurement | undefined {
  const { kind, size, inFlight, figure = "" } = query;
  return results?.measurements.find((one) =>
    one.kind === kind && (size === undefined || one.size === size) &&
    (inFlight === undefined || one.inFlight === inFlight) && one.figure.includes(figure)
  );
}

/** The median of a peer; undefined if the peer was not measured. */
export function medianOf(measurement: Measurement | undefined, peer: string): number | undefined {
  const values = measurement?.peers[peer];
  return values && median(values);
}

/** The ratio of a peer to another peer. */
export function ratioOf(
  measurement: Measurement | undefined,
  peer: string,
  baseline: string,
): number | undefined {
  const [values, others] = [measurement?.peers[peer], measurement?.peers[baseline]];
  return values && others && ratio(values, others);
}
