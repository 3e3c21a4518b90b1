/** Reads the options of the command line. */
import { parseArgs } from "node:util";
import { positiveNumber, UsageError, wholeNumber } from "../arguments.ts";
import { findRuntime, type Runtime, SUITE_RUNTIMES } from "../runtimes.ts";
import { GROUPS } from "./suite.ts";
import { type Candidate, type Kind, KINDS, LOADS, type Workload } from "./workload.ts";

const WS = "ws";
/** Peers that do not run over our transports. */
const OTHERS = ["tcp", "native", "bufferutil", WS];
const SERVERS = ["loop", "pipe", "batches", "http2", "topics", ...OTHERS];
const FAN_OUT = ["loop", "topics", ...OTHERS];
const CLIENTS = ["loop", "streams", "undici", "native", "bufferutil", WS];
const YES_NO = ["yes", "no"] as const;
const TRANSPORTS = ["default", "node"];

/** The usage, for `--help` and for wrong arguments. */
export const USAGE = `deno task bench [${KINDS.join(" | ")}]
    --runtime node24        or deno, bun, node22, node26
    --peers loop,pipe,ws    from ${SERVERS.join(", ")};
                            for client: ${CLIENTS.join(", ")}; the others are compared with the last
    --size 16,1024          size of a message in bytes
    --type text,binary      or ping (echo with --load burst)
    --connections 32        --in-flight 16 on each; for fanout: 1000, with 1 in flight in total
    --runs 1                --rounds 5 --seconds 1 of CPU time each, or --messages N
    --load stream           from ${LOADS.join(", ")}: how echo sends its messages
    --fragments 1           --level 6 --takeover yes of deflate
    --transport default     from ${TRANSPORTS.join(", ")}
    --tls                   --profile (Node)
deno task bench report [RUNTIME...] [--runs 3] [--rounds 2] [--seconds 0.2] [--minutes N]
    [--only GROUP,...]      from ${GROUPS.join(", ")}
    [--continue]            keep the runs in bench/results/ and add those that are missing
deno task bench render [--check]
deno task bench programs [NAME...] [--rounds 5] [--load 10]
deno task bench topics
deno task bench guard`;

/** Benchmarks of one kind on one runtime. */
export interface Plan {
  runtime: Runtime;
  workloads: Workload[];
  /** The others are compared with the last one. */
  candidates: Candidate[];
  runs: number;
  rounds: number;
  /** Seconds of CPU time per round. */
  seconds: number;
  /** Number of messages per round, regardless of the time. */
  messages: number | undefined;
  profile: boolean;
}

/** Reads the arguments. Throws UsageError if an argument is not valid. */
export async function planFrom(args: string[]): Promise<Plan> {
  const { values, positionals } = parseArgs({
    args: args.filter((arg) => arg !== "--"),
    options: {
      runtime: { type: "string", default: "node24" },
      peers: { type: "string" },
      transport: { type: "string", default: "default" },
      load: { type: "string" },
      tls: { type: "boolean" },
      fragments: { type: "string" },
      level: { type: "string" },
      takeover: { type: "string" },
      type: { type: "string", default: "text" },
      size: { type: "string" },
      connections: { type: "string" },
      "in-flight": { type: "string" },
      runs: { type: "string", default: "1" },
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "1" },
      messages: { type: "string" },
      profile: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  const [kind = "echo"] = positionals.map((name) => oneOf("benchmark", name, KINDS));
  const runtime = await findRuntimeByName(values.runtime);
  const known = kind === "client" ? CLIENTS : kind === "fanout" ? FAN_OUT : SERVERS;
  const names = values.peers ?? defaultPeers(kind, runtime);
  const peers = names.split(",").map((name) => oneOf("peer", name, known));
  const transports = values.transport.split(",").map((name) =>
    oneOf("transport", name, TRANSPORTS)
  );
  const count = (
    option: "connections" | "in-flight" | "messages" | "fragments" | "level" | "runs" | "rounds",
  ) => wholeNumber(`--${option}`, values[option], 1);
  const { tls, profile, takeover } = values;
  const common = {
    kind,
    tls,
    load: values.load === undefined ? undefined : oneOf("load", values.load, LOADS),
    fragments: count("fragments"),
    level: count("level"),
    takeover: takeover === undefined ? undefined : oneOf("choice", takeover, YES_NO) === "yes",
    connections: count("connections"),
    inFlight: count("in-flight"),
  };
  const types = values.type.split(",")
    .map((name) => oneOf("type", name, ["text", "binary", "ping"] as const));
  const sizes = (values.size ?? defaultSizes(kind)).split(",")
    .map((text) => wholeNumber("--size", text, 1)!);
  const plan: Plan = {
    runtime,
    candidates: candidatesOf(profile ? peers.filter((name) => name !== WS) : peers, transports),
    workloads: sizes.flatMap((size) => types.map((type) => ({ ...common, type, size }))),
    runs: count("runs")!,
    rounds: count("rounds")!,
    seconds: positiveNumber("--seconds", values.seconds)!,
    messages: count("messages"),
    profile,
  };
  const isCustom = transports.join() !== "default";
  for (const workload of plan.workloads) check(workload, plan, isCustom);
  return plan;
}

function defaultPeers(kind: Kind, { engine }: Runtime): string {
  const other = engine === "node" ? WS : "native";
  if (kind === "fanout") return `loop,topics,tcp,${other}`;
  if (kind === "client") {
    return engine === "node" ? "loop,streams,undici,ws" : "loop,streams,native";
  }
  if (kind === "huge") return "loop";
  return kind === "deflate" || kind === "keepalive" ? "loop,ws" : `loop,pipe,${other}`;
}

function defaultSizes(kind: Kind): string {
  return { deflate: "1024,65536", huge: String(2 ** 30) }[kind as string] ?? "16";
}

function check(
  { kind, type, tls, load }: Workload,
  { runtime, profile }: Plan,
  isCustom: boolean,
) {
  const refuse = (refused: boolean | undefined, message: string) => {
    if (refused) throw new UsageError(message);
  };
  refuse(tls && kind !== "echo", `The benchmark ${kind} does not support --tls`);
  refuse(load !== undefined && kind !== "echo", "--load works only for echo");
  refuse(type === "ping" && load !== "burst", "--type ping needs --load burst");
  refuse(kind === "client" && isCustom, "The benchmark client does not support --transport");
  refuse(profile && runtime.engine !== "node", "--profile needs Node");
}

/** Combines each peer with each transport, if the peer has one. */
export function candidatesOf(peers: string[], transports: string[] = ["default"]): Candidate[] {
  return peers.flatMap((peer) => {
    if (OTHERS.includes(peer)) return [{ name: peer, peer, transport: "default" }];
    return transports.map((transport) => ({
      name: transports.length === 1 ? peer : `${peer}-${transport}`,
      peer,
      transport,
    }));
  });
}

function oneOf<T extends string>(what: string, name: string, known: readonly T[]): T {
  const found = known.find((other) => other === name);
  if (found === undefined) {
    throw new UsageError(`Expected a ${what} of ${known.join(", ")}; got ${name}`);
  }
  return found;
}

/** Finds a runtime of the suite. */
export async function findRuntimeByName(name: string): Promise<Runtime> {
  oneOf("runtime", name, SUITE_RUNTIMES.map((spec) => spec.name));
  const runtime = await findRuntime(SUITE_RUNTIMES.find((spec) => spec.name === name)!);
  if (runtime === undefined) {
    throw new Error(`${name} is missing: no pinned binary for this platform, and not on PATH`);
  }
  return runtime;
}
