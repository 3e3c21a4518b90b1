/** The measurements of a report, with the peers of each runtime. */
import type { Engine } from "../runtimes.ts";
import type { Workload } from "./workload.ts";

/** The runtimes of a report. */
export const RUNTIMES: readonly string[] = ["node24", "node26", "deno", "bun"];

/** The runtime for measurements of peers that belong to no runtime. */
export const FIRST: string = RUNTIMES[0];

/** One comparison. */
export interface Item {
  workload: Workload;
  peers: (engine: Engine, first: boolean) => string[];
}

const SMALL = ["chain", "batch"];

function servers(ours: string[]) {
  return (engine: Engine, first: boolean) => [
    ...ours,
    ...first ? ["python"] : [],
    "tcp",
    ...engine === "node" ? ["bufferutil", "ws"] : ["ws", "native"],
  ];
}

function clients(engine: Engine): string[] {
  return [
    "loop",
    "streams",
    ...engine === "node" ? ["undici", "bufferutil", "ws"] : ["ws", "native"],
  ];
}

function others(engine: Engine): string[] {
  return engine === "node" ? ["ws"] : ["ws", "native"];
}

/** The comparisons in the order in which they run. */
export const SUITE: readonly Item[] = [
  {
    workload: { kind: "echo", type: "text", size: 16 },
    peers: servers(["loop", "pipe", ...SMALL]),
  },
  {
    workload: { kind: "echo", type: "text", size: 1024 },
    peers: servers(["loop", "pipe", ...SMALL]),
  },
  { workload: { kind: "echo", type: "binary", size: 65536 }, peers: servers(["loop", "pipe"]) },
  { workload: { kind: "echo", type: "binary", size: 2 ** 20 }, peers: servers(["loop", "pipe"]) },
  {
    workload: { kind: "echo", type: "text", size: 16, inFlight: 1 },
    peers: (engine) => ["loop", "pipe", "tcp", ...others(engine)],
  },
  {
    workload: { kind: "latency", type: "text", size: 16 },
    peers: (engine) => ["loop", "pipe", "tcp", ...others(engine)],
  },
  { workload: { kind: "client", type: "text", size: 16 }, peers: clients },
  { workload: { kind: "client", type: "text", size: 1024 }, peers: clients },
  { workload: { kind: "client", type: "binary", size: 65536 }, peers: clients },
  { workload: { kind: "deflate", type: "text", size: 1024 }, peers: () => ["loop", "ws"] },
  { workload: { kind: "deflate", type: "text", size: 65536 }, peers: () => ["loop", "ws"] },
  {
    workload: { kind: "open", type: "text", size: 16 },
    peers: (engine) => ["loop", ...others(engine)],
  },
];

/** The peers whose idle connections are measured, and the number of connections. */
export const IDLE = {
  connections: 5000,
  peers: (engine: Engine): string[] => ["loop", "pipe", ...others(engine)],
};
