/** The files of bench/results/: what a report has measured. */
import { ROOT, run } from "../process.ts";
import type { Size } from "./bundle.ts";
import { median, ratio } from "./statistics.ts";
import type { Kind } from "./workload.ts";

const FOLDER = new URL("bench/results/", ROOT);

/** What a comparison has come to. */
export interface Measurement {
  kind: Kind | "idle";
  type?: "text" | "binary";
  /** Bytes of a message. */
  size?: number;
  connections: number;
  inFlight?: number;
  /** What is counted. */
  figure: string;
  /** Of each peer, a value for each round. */
  peers: Record<string, number[]>;
}

/** One runtime. */
export interface Results {
  runtime: string;
  /** Of the runtime, the library and the peers. */
  versions: Record<string, string>;
  machine: Record<string, string | number>;
  date: string;
  rounds: number;
  /** Seconds of CPU time of a round. */
  seconds: number;
  /** Whether what is measured had a core for itself. */
  separateCores: boolean;
  measurements: Measurement[];
}

/** Which of the measurements. */
export interface Query {
  kind: Measurement["kind"];
  size?: number;
  inFlight?: number;
  /** Part of the name of the figure. */
  figure?: string;
}

export async function writeResults(name: string, results: Results | Record<string, Size>) {
  await Deno.mkdir(FOLDER, { recursive: true });
  const file = new URL(`${name}.json`, FOLDER);
  await Deno.writeTextFile(file, JSON.stringify(results));
  await run(Deno.execPath(), ["fmt", "-q", file.pathname]);
}

/** Those of a runtime that a report was made for. */
export async function readResults(name: string): Promise<Results | undefined> {
  return await readJson(name) as Results | undefined;
}

export async function readSizes(): Promise<Record<string, Size> | undefined> {
  return await readJson("bundle") as Record<string, Size> | undefined;
}

async function readJson(name: string): Promise<unknown> {
  try {
    return JSON.parse(await Deno.readTextFile(new URL(`${name}.json`, FOLDER)));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** The first measurement that fits. */
export function find(results: Results | undefined, query: Query): Measurement | undefined {
  const { kind, size, inFlight, figure = "" } = query;
  return results?.measurements.find((one) =>
    one.kind === kind && (size === undefined || one.size === size) &&
    (inFlight === undefined || one.inFlight === inFlight) && one.figure.includes(figure)
  );
}

/** The median of a peer; undefined where it took no part. */
export function medianOf(measurement: Measurement | undefined, peer: string): number | undefined {
  const values = measurement?.peers[peer];
  return values && median(values);
}

/** What a peer is to another one. */
export function ratioOf(
  measurement: Measurement | undefined,
  peer: string,
  baseline: string,
): number | undefined {
  const [values, others] = [measurement?.peers[peer], measurement?.peers[baseline]];
  return values && others && ratio(values, others);
}
