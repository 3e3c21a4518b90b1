/** Reads the options of the command line. */
import { parseArgs } from "node:util";
import { positiveNumber, UsageError, wholeNumber } from "../arguments.ts";
import { findRuntime, type Runtime, SUITE_RUNTIMES } from "../runtimes.ts";
import type { MessageType } from "./frames.ts";
import { type Candidate, type Kind, KINDS, type LoadName, LOADS } from "./workload.ts";

/** `idle` is not a contest. It measures memory. */
const BENCHMARKS = [...KINDS, "idle"] as const;

const WS = "ws";
const BY_HAND = ["chain", "batch"];
/** Peers that do not run over our transports. */
const OTHERS = ["tcp", "python", "native", "bufferutil", WS];
const SERVERS = ["loop", "pipe", ...BY_HAND, ...OTHERS];
const FAN_OUT = ["loop", "topics", "tcp", "native", "bufferutil", WS];
const CLIENTS = ["loop", "streams", "undici", "native", "bufferutil", WS];
const TRANSPORTS = ["default", "node"];

/** The usage, for `--help` and for wrong arguments. */
export const USAGE = `deno task bench [${BENCHMARKS.join(" | ")}]
    --runtime node24        or deno, bun, node22, node26
    --peers loop,pipe,ws    from ${SERVERS.join(", ")};
                            for client: ${CLIENTS.join(", ")}; the others are compared with the last
    --size 16,1024          size of a message in bytes
    --type text,binary
    --connections 32        --in-flight 16 on each; for fanout: 1000, with 1 in flight in total
    --rounds 5              --seconds 1 of CPU time each, or --messages N
    --load stream           from ${LOADS.join(", ")}: how echo sends its messages
    --transport default     from ${TRANSPORTS.join(", ")}
    --tls                   --profile (Node)
deno task bench report [RUNTIME...] [--rounds 3] [--seconds 0.6]
deno task bench render [--check]
deno task bench programs [NAME...] [--rounds 5] [--load 10]
deno task bench topics
deno task bench guard`;

/** A benchmark of one kind on one runtime. */
export interface Plan {
  kind: Kind | "idle";
  runtime: Runtime;
  /** The others are compared with the last one. */
  candidates: Candidate[];
  tls: boolean;
  load: LoadName;
  /** Undefined: the default number of the benchmark. */
  connections: number | undefined;
  inFlight: number | undefined;
  types: MessageType[];
  sizes: number[];
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
      load: { type: "string", default: "stream" },
      tls: { type: "boolean", default: false },
      type: { type: "string", default: "text" },
      size: { type: "string" },
      connections: { type: "string" },
      "in-flight": { type: "string" },
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "1" },
      messages: { type: "string" },
      profile: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  const [kind = "echo"] = positionals.map((name) => oneOf("benchmark", name, BENCHMARKS));
  const runtime = await findRuntimeByName(values.runtime);
  const known = kind === "client" ? CLIENTS : kind === "fanout" ? FAN_OUT : SERVERS;
  const names = values.peers ?? defaultPeers(kind, runtime);
  const peers = names.split(",").map((name) => oneOf("peer", name, known));
  const transports = values.transport.split(",").map((name) =>
    oneOf("transport", name, TRANSPORTS)
  );
  const { size = kind === "deflate" ? "1024,65536" : "16", tls, profile } = values;
  const count = (option: "connections" | "in-flight" | "messages") =>
    wholeNumber(`--${option}`, values[option], 1);
  const plan: Plan = {
    kind,
    runtime,
    candidates: candidatesOf(profile ? peers.filter((name) => name !== WS) : peers, transports),
    tls,
    load: oneOf("load", values.load, LOADS),
    connections: count("connections"),
    inFlight: count("in-flight"),
    types: values.type.split(",").map((name) => oneOf("type", name, ["text", "binary"] as const)),
    sizes: size.split(",").map((text) => wholeNumber("--size", text, 1)!),
    rounds: wholeNumber("--rounds", values.rounds, 1)!,
    seconds: positiveNumber("--seconds", values.seconds)!,
    messages: count("messages"),
    profile,
  };
  check(plan, transports);
  return plan;
}

function defaultPeers(kind: Plan["kind"], { engine }: Runtime): string {
  if (kind === "fanout") return engine === "node" ? "loop,topics,tcp,ws" : "loop,topics,tcp,native";
  if (kind !== "client") return kind === "deflate" ? "loop,ws" : "loop,pipe,ws";
  return engine === "node" ? "loop,streams,undici,ws" : "loop,streams,native";
}

function check({ kind, runtime, candidates, tls, load, profile }: Plan, transports: string[]) {
  const refuse = (refused: boolean, message: string) => {
    if (refused) throw new UsageError(message);
  };
  const custom = transports.join() !== "default";
  const byHand = candidates.some(({ peer }) => BY_HAND.includes(peer));
  refuse(
    byHand && (tls || custom),
    `The peers ${BY_HAND.join(" and ")} cannot be combined with --transport or --tls`,
  );
  refuse(kind === "deflate" && byHand, `${BY_HAND.join(" and ")} do not compress`);
  refuse(
    tls && !["echo", "latency"].includes(kind),
    `The benchmark ${kind} does not support --tls`,
  );
  refuse(
    load === "burst" && (kind !== "echo" || tls),
    "--load burst works only for echo without --tls",
  );
  refuse(
    kind === "fanout" && candidates.some(({ peer }) => !FAN_OUT.includes(peer)),
    `The benchmark fanout supports only the peers ${FAN_OUT.join(", ")}`,
  );
  refuse(kind === "client" && custom, "The benchmark client does not support --transport");
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
