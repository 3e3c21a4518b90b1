/** The measurements of a report, with the peers of each runtime. */
import type { Engine } from "../runtimes.ts";
import { LOADS, type Workload } from "./workload.ts";

/** The runtimes of a report, and the one that is measured only when it is named. */
export const RUNTIMES: readonly string[] = ["node24", "deno", "bun"];
export const OTHER_RUNTIMES: readonly string[] = ["node26"];

/** One comparison. */
export interface Item {
  /** What `--only` selects it by. */
  group: string;
  workload: Workload;
  /** The peers. The last one is what others are compared with. None: not measured on this engine. */
  peers: (engine: Engine) => string[];
}

const ECHO = { kind: "echo", type: "binary" } as const;
const TEXT = { kind: "echo", type: "text" } as const;

/** The works of the echo with ordinary messages, which the README shows. */
export const ECHOES: readonly Workload[] = [
  { ...TEXT, size: 16 },
  { ...TEXT, size: 1024 },
  { ...ECHO, size: 16384 },
  { ...ECHO, size: 65536 },
  { ...ECHO, size: 2 ** 20 },
];

/** The sizes of the chart that are not in `ECHOES`. */
const OTHER_SIZES: readonly Workload[] = [
  { ...TEXT, size: 1 },
  { ...TEXT, size: 125 },
  { ...ECHO, size: 4096 },
  { ...ECHO, size: 2 ** 18 },
  { ...ECHO, size: 2 ** 22 },
  { ...ECHO, size: 2 ** 24 },
];

/** The works of the chart of sizes. */
export const SIZES: readonly Workload[] = [...ECHOES, ...OTHER_SIZES]
  .map((workload): Workload => ({ ...workload, load: "burst" }))
  .sort((a, b) => a.size - b.size);

/** The works of the chart of connections. A process may open 20,000 files where this was written. */
export const CONNECTIONS: readonly Workload[] = [10, 100, 1000, 10_000, 19_900].map(
  (connections) => ({ ...TEXT, size: 16, load: "burst", connections, inFlight: 1 }),
);

/** The works of the compressed echo. */
export const DEFLATES: readonly Workload[] = [
  ...[true, false].flatMap((takeover) =>
    [6, 1, 9].map((level): Workload => ({
      kind: "deflate",
      type: "text",
      size: 1024,
      level,
      takeover,
    }))
  ),
  { kind: "deflate", type: "text", size: 65536, level: 6, takeover: true },
];

function eachLoad(group: string, workloads: readonly Workload[], peers: Item["peers"]): Item[] {
  return workloads.flatMap((workload) =>
    LOADS.map((load) => ({ group, workload: { ...workload, load }, peers }))
  );
}

function each(group: string, workloads: readonly Workload[], peers: Item["peers"]): Item[] {
  return workloads.map((workload) => ({ group, workload, peers }));
}

/** What a runtime offers itself, or else ws. */
function other(engine: Engine): string {
  return engine === "node" ? "ws" : "native";
}

function servers(engine: Engine): string[] {
  return ["loop", "pipe", "tcp", ...engine === "node" ? ["bufferutil", "ws"] : ["native"]];
}

function ours(engine: Engine): string[] {
  return ["loop", "pipe", other(engine)];
}

function direct(engine: Engine): string[] {
  return ["loop", other(engine)];
}

function besideWs(): string[] {
  return ["loop", "ws"];
}

function clients(engine: Engine): string[] {
  const others = engine === "node" ? ["undici", "bufferutil", "ws"] : ["native"];
  return ["loop", "streams", ...others];
}

/** The comparisons in the order in which a run makes them, the most important ones first. */
export const SUITE: readonly Item[] = [
  ...eachLoad("echo", ECHOES, servers),
  ...each("open", [{ kind: "open", type: "text", size: 16 }], direct),
  ...each("memory", [{ kind: "memory", type: "text", size: 16 }], ours),
  ...each(
    "fanout",
    [1, 10].map((inFlight) => ({ kind: "fanout", type: "text", size: 64, inFlight })),
    (engine) => ["loop", "tcp", other(engine)],
  ),
  ...eachLoad("tls", [16, 16384].map((size) => ({ ...ECHO, size, tls: true })), direct),
  ...each("deflate", DEFLATES, besideWs),
  ...each("keepalive", [{ kind: "keepalive", type: "text", size: 16 }], besideWs),
  ...each("ping", [{ kind: "echo", type: "ping", size: 16, load: "burst" }], direct),
  ...eachLoad("single", [{ ...TEXT, size: 16, inFlight: 1 }], (engine) => [
    "loop",
    "pipe",
    "tcp",
    other(engine),
  ]),
  ...each("latency", [{ kind: "latency", type: "text", size: 16 }], direct),
  ...each("paced", [{ kind: "paced", type: "text", size: 16 }], ours),
  ...eachLoad("fragments", [{ ...TEXT, size: 1024, fragments: 4 }], direct),
  ...each(
    "http2",
    [16, 1024].map((size) => ({ ...ECHO, size })),
    (engine) => engine === "deno" ? [] : ["http2", "loop"],
  ),
  ...each(
    "client",
    [{ size: 16 }, { size: 1024 }, { size: 65536, type: "binary" } as const].map((one) => ({
      kind: "client",
      type: "text",
      ...one,
    })),
    clients,
  ),
  ...each(
    "huge",
    [{ kind: "huge", type: "binary", size: 2 ** 30 }],
    () => ["loop"],
  ),
  ...each("sizes", OTHER_SIZES.map((one) => ({ ...one, load: "burst" })), ours),
  ...each("connections", CONNECTIONS, ours),
];

/** The group of the fan-out over several processes, which has results of its own. */
export const TOPICS = "topics";

/** The names of the groups. */
export const GROUPS: readonly string[] = [...new Set(SUITE.map(({ group }) => group)), TOPICS];
