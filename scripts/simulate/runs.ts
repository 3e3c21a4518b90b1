/** Runs simulations one after another. */
import { pair } from "../../lib/testing.ts";
import { live } from "./life.ts";
import { mix } from "./world.ts";

/** How many simulations to run. */
export interface SimulateOptions {
  /** Seed of the first simulation. The following simulations have the next numbers. */
  seed: number;
  runs: number;
  /** Maximum time, in seconds. Default: Infinity */
  seconds?: number;
  /** Prints all events. Default: false */
  trace?: boolean;
}

/** The result of the simulations. */
export interface Summary {
  runs: number;
  /** The number of connections that were opened. */
  connections: number;
  /** The simulated time that has passed, in milliseconds. */
  duration: number;
  /** The real time, in seconds. */
  seconds: number;
  /** How connections and attempts have ended, with the number of times. */
  ends: Map<string, number>;
  /** A hash of all events. */
  hash: string;
  /** A hash of the events of runs without compression, which is the same on every runtime. */
  plainHash: string;
  failures: number;
}

/** Maximum number of failures to print. */
const MOST_FAILURES = 10;
/** Maximum number of trace lines to print for a failure. */
const MOST_LINES = 60;

/** Runs simulations, and prints those that break an invariant. */
export async function simulate(options: SimulateOptions): Promise<Summary> {
  const { seed, runs, seconds = Infinity, trace = false } = options;
  const started = performance.now();
  const elapsed = () => (performance.now() - started) / 1000;
  const summary = { runs: 0, connections: 0, duration: 0, failures: 0 };
  const ends = new Map<string, number>();
  let hash = 0;
  let plainHash = 0;
  await warmUp();
  for (; summary.runs < runs && elapsed() < seconds; summary.runs++) {
    const one = await live(seed + summary.runs, trace);
    summary.connections += one.connections;
    summary.duration += one.duration;
    for (const [end, count] of one.ends) ends.set(end, (ends.get(end) ?? 0) + count);
    hash = mix(hash, one.hash);
    if (!one.isCompressed) plainHash = mix(plainHash, one.hash);
    if (trace) console.log(one.trace.join("\n"));
    if (one.broken.length === 0) continue;
    if (++summary.failures <= MOST_FAILURES) {
      console.log(`✗ deno task simulate --seed ${seed + summary.runs} --runs 1 --trace`);
      for (const line of one.broken) console.log(`    ${line}`);
      if (!trace && summary.failures === 1) {
        const again = await live(seed + summary.runs, true);
        console.log(again.trace.slice(-MOST_LINES).join("\n"));
      }
    }
  }
  return {
    ...summary,
    ends,
    seconds: elapsed(),
    hash: hexadecimal(hash),
    plainHash: hexadecimal(plainHash),
  };
}

function hexadecimal(hash: number): string {
  return (hash >>> 0).toString(16).padStart(8, "0");
}

let warm: Promise<void> | undefined;

/** Loads modules of the library that are loaded on first use, because loading takes real time. */
function warmUp(): Promise<void> {
  return warm ??= (async () => {
    const [client, server] = await pair({
      client: { compression: { threshold: 0 } },
      server: { compression: { threshold: 0 } },
    });
    await client.send("warm");
    await server.receive();
    await client.close();
    await server.closed;
    // Both transports end some turns later.
    await new Promise((resolve) => setTimeout(resolve, 20));
  })();
}
