/** The speed goals, and what was measured. */
import { find, published, publishedRatio, type Results } from "./results.ts";
import type { Spread } from "./statistics.ts";
import { ECHOES } from "./suite.ts";
import { nameOf, type Workload } from "./workload.ts";

/** A goal for a measurement. */
interface Goal {
  title: string;
  runtimes: string[];
  workload: Omit<Workload, "load">;
  peer: string;
  /** The peer to compare with. Undefined: the figure itself must be small. */
  baseline?: string;
  figure?: string;
  /** The unit of the figure. Without a baseline, µs are those of a message. */
  unit?: "KiB" | "µs";
  aim: number;
  least: number;
}

/** The result for a goal on one runtime. */
export interface Outcome {
  runtime: string;
  title: string;
  unit: string;
  aim: number;
  least: number;
  measured: Spread;
  verdict: "reached" | "landed" | "missed";
}

const NODE = ["node24", "node26"];

type Bounds = [aim: number, least: number];

/** Goals for the sizes of the echo, from the smallest on. */
function bySize(
  what: string,
  runtimes: string[],
  peer: string,
  baselines: string[],
  bounds: Bounds[],
): Goal[] {
  return bounds.map(([aim, least], i) => ({
    title: `${what}, ${nameOf(ECHOES[i].size)}`,
    runtimes,
    workload: ECHOES[i],
    peer,
    baseline: baselines[i] ?? baselines.at(-1),
    aim,
    least,
  }));
}

const TEXT = { type: "text", size: 16 } as const;

function one(
  title: string,
  runtimes: string[],
  workload: Omit<Workload, "load">,
  [peer, baseline]: [peer: string, baseline: string],
  [aim, least]: Bounds,
): Goal {
  return { title, runtimes, workload, peer, baseline, aim, least };
}

function fanOut(runtimes: string[], inFlight: number, baseline: string, bounds: Bounds): Goal {
  const workload = { kind: "fanout", type: "text", size: 64, inFlight } as const;
  const title = `broadcast to 1,000, ${inFlight} a turn`;
  return one(title, runtimes, workload, ["loop", baseline], bounds);
}

function tls(size: number, bounds: Bounds): Goal {
  const workload = { kind: "echo", type: "binary", size, tls: true } as const;
  return one(`TLS, ${nameOf(size)}`, NODE, workload, ["loop", "ws"], bounds);
}

function memory(
  figure: "idle" | "active",
  runtimes: string[],
  peer: "loop" | "pipe",
  [aim, least]: Bounds,
): Goal {
  const title = `${figure} memory a connection${peer === "pipe" ? ", pipeTo" : ""}`;
  const workload = { kind: "memory", ...TEXT } as const;
  return { title, runtimes, workload, figure, unit: "KiB", peer, aim, least };
}

const GOALS: Goal[] = [
  ...bySize("direct", NODE, "loop", ["ws", "ws", "ws", "bufferutil"], [
    [8, 6],
    [6, 5],
    [1.3, 1.1],
    [1.3, 1.1],
    [1.3, 1],
  ]),
  ...bySize("direct", NODE, "loop", ["tcp"], [[0.6, 0.45], [0.75, 0.6]]),
  ...bySize("direct", ["deno"], "loop", ["native"], [
    [8, 6],
    [5, 4],
    [1.4, 1.2],
    [1.5, 1.2],
    [1.4, 1.1],
  ]),
  ...bySize("direct", ["bun"], "loop", ["native"], [
    [1, 0.9],
    [1, 0.85],
    [1, 0.85],
    [1, 0.85],
    [1, 0.9],
  ]),
  ...bySize("pipeTo", [...NODE, "deno"], "pipe", ["loop"], Array(5).fill([0.9, 0.75])),
  one("openings", NODE, { kind: "open", ...TEXT }, ["loop", "ws"], [1.2, 1]),
  fanOut(NODE, 1, "tcp", [0.95, 0.9]),
  fanOut(NODE, 10, "ws", [8, 6]),
  fanOut(["bun"], 1, "native", [1, 0.9]),
  fanOut(["bun"], 10, "native", [1, 0.9]),
  tls(16, [3, 2]),
  tls(16384, [1.2, 1.05]),
  one(
    "compressed, 1 KiB",
    NODE,
    { kind: "deflate", type: "text", size: 1024, level: 6, takeover: true },
    ["loop", "ws"],
    [4, 3],
  ),
  memory("idle", NODE, "loop", [7, 10]),
  memory("idle", ["deno"], "loop", [12, 16]),
  memory("idle", ["bun"], "loop", [2.5, 4]),
  memory("active", NODE, "loop", [12, 16]),
  memory("active", NODE, "pipe", [16, 24]),
  memory("active", ["bun"], "loop", [6, 10]),
  {
    title: "a ping and its pong",
    runtimes: NODE,
    workload: { kind: "keepalive", ...TEXT },
    unit: "µs",
    peer: "loop",
    aim: 25,
    least: 35,
  },
];

/** The results for each goal on each measured runtime. */
export function outcomesOf(all: Results[]): Outcome[] {
  return all.flatMap((results) =>
    GOALS.filter(({ runtimes }) => runtimes.includes(results.runtime)).flatMap((goal) => {
      const { title, baseline, unit, aim, least } = goal;
      const measured = measuredOf(results, goal);
      if (measured === undefined) return [];
      const reaches = (goal: number) =>
        baseline === undefined ? measured.median <= goal : measured.median >= goal;
      const verdict = reaches(aim) ? "reached" : reaches(least) ? "landed" : "missed";
      const said = unit ?? `ratio to ${LABELS[baseline!] ?? baseline}`;
      return [{ runtime: results.runtime, title, unit: said, aim, least, measured, verdict }];
    })
  );
}

function measuredOf(results: Results, goal: Goal): Spread | undefined {
  const { workload, peer, baseline, figure, unit } = goal;
  const found = find(results, workload);
  if (baseline !== undefined) return publishedRatio(found, peer, baseline);
  const measured = published(found, peer, figure);
  if (unit !== "µs" || measured === undefined) return measured;
  const { median, least, most } = measured;
  return { median: 1e6 / median, least: 1e6 / most, most: 1e6 / least };
}

const LABELS: Record<string, string> = {
  bufferutil: "ws with bufferutil",
  native: "its own server",
  loop: "direct",
  tcp: "raw TCP",
};
