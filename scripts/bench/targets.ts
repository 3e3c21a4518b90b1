/** The speed goals, and what was measured. */
import { find, medianOf, type Query, ratioOf, type Results } from "./results.ts";
import { nameOf } from "./workload.ts";

/** A goal for a measurement. */
interface Goal extends Query {
  title: string;
  runtimes: string[];
  peer: string;
  /** The peer to compare with; undefined: the figure itself is compared, and must be small. */
  baseline?: string;
  land: number;
  aim: number;
}

/** The result for a goal on one runtime. */
export interface Outcome {
  runtime: string;
  title: string;
  unit: string;
  land: number;
  aim: number;
  measured: number;
  verdict: "reached" | "landed" | "missed";
}

const NODE = ["node24", "node26"];

type Pairs = [land: number, aim: number][];

function bySize(
  title: string,
  runtimes: string[],
  peer: string,
  baselines: string[],
  pairs: Pairs,
): Goal[] {
  return [16, 1024, 65536, 2 ** 20].map((size, i) => ({
    title: `${title}, ${nameOf(size)}`,
    runtimes,
    kind: "echo",
    size,
    inFlight: size < 2 ** 20 ? 16 : 2,
    peer,
    baseline: baselines[i],
    land: pairs[i][0],
    aim: pairs[i][1],
  }));
}

function client(runtimes: string[], baseline: string, land: number, aim: number): Goal[] {
  return [16, 1024, 65536].map((size) => ({
    title: `client, ${nameOf(size)}`,
    runtimes,
    kind: "client",
    size,
    peer: "loop",
    baseline,
    land,
    aim,
  }));
}

function single(runtimes: string[], baseline: string, land: number, aim: number): Goal {
  const title = "one in flight, 16 B";
  return { title, runtimes, kind: "echo", inFlight: 1, peer: "loop", baseline, land, aim };
}

function idle(runtimes: string[], land: number, aim: number): Goal {
  const title = "idle memory";
  return { title, runtimes, kind: "idle", figure: "resident", peer: "loop", land, aim };
}

const WITH_ADDON = ["ws", "ws", "bufferutil", "bufferutil"];
const WS = ["ws", "ws", "ws", "ws"];
const NATIVE = ["native", "native", "native", "native"];

const GOALS: Goal[] = [
  ...bySize("direct", NODE, "loop", WITH_ADDON, [[4, 6], [2.5, 4], [0.8, 1], [0.75, 1]]),
  ...bySize("pipeTo", NODE, "pipe", WS, [[3, 4.5], [2, 3], [1, 1.5], [1, 1.2]]),
  ...bySize("direct", ["deno"], "loop", NATIVE, [[4.5, 6.5], [2.7, 4], [1, 1.6], [0.9, 1.3]]),
  ...bySize("direct", ["bun"], "loop", NATIVE, [[0.6, 1], [0.55, 1], [0.5, 1], [0.5, 1]]),
  single(NODE, "ws", 0.9, 1),
  single(["deno", "bun"], "native", 0.8, 1),
  ...client(NODE, "ws", 1.5, 3),
  ...client(["deno", "bun"], "native", 0.8, 1.2),
  ...[16, 1024].map((size): Goal => ({
    title: `transforms by hand, in batches, ${nameOf(size)}`,
    runtimes: NODE,
    kind: "echo",
    size,
    peer: "batch",
    baseline: "ws",
    land: 1,
    aim: 1.5,
  })),
  {
    title: "compressed, 1 KiB",
    runtimes: NODE,
    kind: "deflate",
    size: 1024,
    peer: "loop",
    baseline: "ws",
    land: 1.5,
    aim: 2.5,
  },
  idle(NODE, 10, 6),
  idle(["deno"], 18, 12),
  idle(["bun"], 4, 3),
];

/** The results for each goal on each measured runtime. */
export function outcomesOf(all: Results[]): Outcome[] {
  return all.flatMap((results) =>
    GOALS.filter(({ runtimes }) => runtimes.includes(results.runtime)).flatMap((goal) => {
      const { title, peer, baseline, land, aim } = goal;
      const measurement = find(results, goal);
      const measured = baseline === undefined
        ? medianOf(measurement, peer)
        : ratioOf(measurement, peer, baseline);
      if (measured === undefined) return [];
      const unit = baseline === undefined ? "KiB" : `ratio to ${labelOf(baseline, goal)}`;
      const reached = (goal: number) =>
        baseline === undefined ? measured <= goal : measured >= goal;
      const verdict = reached(aim) ? "reached" : reached(land) ? "landed" : "missed";
      return [{ runtime: results.runtime, title, unit, land, aim, measured, verdict }];
    })
  );
}

function labelOf(baseline: string, { kind }: Goal): string {
  const labels: Record<string, string> = {
    bufferutil: "ws with bufferutil",
    native: `its own ${kind === "client" ? "client" : "server"}`,
  };
  return labels[baseline] ?? baseline;
}
