/** Describes what is measured: the work, the candidates, and the size of the first try. */
import type { Runtime } from "../runtimes.ts";
import { BurstLoad, type BurstMode } from "./burst_load.ts";
import type { Contestant } from "./contest.ts";
import { DeflateLoad } from "./deflate_load.ts";
import type { MessageType } from "./frames.ts";
import { Http2Load } from "./http2_load.ts";
import { HugeLoad } from "./huge_load.ts";
import type { Load } from "./lane.ts";
import { EchoLoad, type LoadOptions } from "./load.ts";
import { OpenLoad } from "./open_load.ts";
import { ClientPeer, peerProgram, ServerPeer } from "./peer.ts";

/**
 * `echo`: a server echoes messages; `deflate`: the same with compression; `latency`: one message in
 * flight on one connection; `paced`: messages at half of the rate of the last peer; `open`: opening
 * handshakes, and the ends of the connections; `client`: a raw server answers the messages of clients; `fanout`: all connections get the
 * messages of one connection; `keepalive`: a server sends pings and gets pongs; `huge`: a server reads
 * messages of 1 GiB in pieces; `memory`: the memory of idle and active connections.
 */
export const KINDS = [
  "echo",
  "deflate",
  "latency",
  "paced",
  "open",
  "client",
  "fanout",
  "keepalive",
  "huge",
  "memory",
] as const;

/** The name of a kind of work. */
export type Kind = typeof KINDS[number];

/**
 * `stream`: this process sends as many messages as have come back. `burst`: a separate process sends all
 * messages that may be in flight in one write. With TLS, this process does it.
 */
export const LOADS = ["stream", "burst"] as const;

/** The name of a load. */
export type LoadName = typeof LOADS[number];

/** The work that the peers are compared by. */
export interface Workload {
  kind: Kind;
  type: MessageType;
  /** Size of each message, in bytes. */
  size: number;
  tls?: boolean;
  /** How the messages of `echo` are sent. Default: "stream" */
  load?: LoadName;
  /** Number of frames of each message. Default: 1 */
  fragments?: number;
  /** The level of compression. Default: 6 */
  level?: number;
  /** Whether compressed messages refer to earlier ones. Default: true */
  takeover?: boolean;
  /** Number of connections, if it differs from the default. */
  connections?: number;
  inFlight?: number;
}

/** A peer that does the work. */
export interface Candidate {
  name: string;
  peer: string;
  /** The sockets of our peers. */
  transport: string;
}

/** What a measured server does, as an argument of `server.ts`. */
export interface ServerMode {
  transport?: string;
  tls?: boolean;
  deflate?: { level: number; takeover: boolean };
  work?: "fanout" | "huge" | "keepalive";
}

/** The number of connections, and the number of messages in flight on each. */
export function shapeOf(
  { kind, size, connections, inFlight }: Workload,
): { connections: number; inFlight: number } {
  const [many, each] = defaultShape(kind, size);
  return { connections: connections ?? many, inFlight: inFlight ?? each };
}

function defaultShape(kind: Kind, size: number): [connections: number, inFlight: number] {
  if (kind === "latency" || kind === "huge") return [1, 1];
  if (kind === "paced") return [32, 1];
  if (kind === "fanout") return [1000, 1];
  if (kind === "keepalive") return [2000, 1];
  if (kind === "memory") return [5000, 1];
  if (size >= 2 ** 22) return [2, 1];
  return size >= 2 ** 20 ? [4, 2] : [32, 16];
}

/** The unit of a figure. */
export function unitOf({ kind }: Workload, figure = "rate"): string {
  const units: Record<string, string> = {
    p50: "µs, p50",
    p99: "µs, p99",
    p999: "µs, p99.9",
    idle: "KiB, idle",
    heap: "KiB of the engine's heap, idle",
    active: "KiB, active",
    peak: "MiB more than before, at the highest",
    end: "ends per CPU second",
  };
  const counted: Partial<Record<Kind, string>> = {
    open: "connections",
    fanout: "deliveries",
    keepalive: "pings",
    huge: "GiB",
  };
  return units[figure] ?? `${counted[kind] ?? "messages"} per CPU second`;
}

/** The number of messages that takes the slowest peer about a tenth of a second. */
export function firstTry({ kind, size }: Workload): number {
  if (kind === "open") return 500;
  if (kind === "latency" || kind === "paced") return 3000;
  return Math.ceil((kind === "deflate" ? 1e6 : 2e7) / (size + 1000));
}

/** Formats a size. */
export function nameOf(size: number): string {
  if (size < 1024) return `${size} B`;
  if (size < 2 ** 20) return `${size / 1024} KiB`;
  return size < 2 ** 30 ? `${size / 2 ** 20} MiB` : `${size / 2 ** 30} GiB`;
}

/** Describes the work in a few words. */
export function titleOf(workload: Workload): string {
  const { kind, type, size, tls, load, fragments, level, takeover } = workload;
  const { connections, inFlight } = shapeOf(workload);
  const parts = [
    `${kind} of ${nameOf(size)}, ${type}`,
    tls && "TLS",
    fragments && `${fragments} fragments`,
    level && `level ${level}`,
    takeover !== undefined && `${takeover ? "with" : "without"} takeover`,
    kind !== "open" && `${connections} x ${inFlight} in flight`,
    load,
  ];
  return parts.filter(Boolean).join(", ");
}

/** Makes the contestant of a candidate. */
export function contestantOf(
  workload: Workload,
  runtime: Runtime,
  candidate: Candidate,
  profileFolder?: URL,
): Contestant {
  const { kind, type, size } = workload;
  if (kind === "client") {
    const program = peerProgram(runtime, "client.ts", [candidate.peer], profileFolder);
    return new ClientPeer(candidate.name, program, { type, size, ...shapeOf(workload) });
  }
  const program = serverOf(workload, runtime, candidate, profileFolder);
  return new ServerPeer(candidate.name, program, (port) => loadOf(workload, candidate, port));
}

/** The program of a measured server. */
export function serverOf(
  { kind, tls, level = 6, takeover = true }: Workload,
  runtime: Runtime,
  { peer, transport }: Candidate,
  profileFolder?: URL,
) {
  const mode: ServerMode = { transport, tls };
  if (kind === "deflate") mode.deflate = { level, takeover };
  if (kind === "fanout" || kind === "huge" || kind === "keepalive") mode.work = kind;
  return peerProgram(runtime, "server.ts", [peer, JSON.stringify(mode)], profileFolder);
}

/** Connects the load to a server. */
export async function loadOf(
  workload: Workload,
  { peer }: Candidate,
  port: number,
  rate?: number,
): Promise<Load> {
  const { kind, load, tls, type, size, fragments } = workload;
  const isBurst = load === "burst";
  const shape = { type, size, ...shapeOf(workload), fragments, tls, isBurst };
  const options: LoadOptions = { ...shape, raw: peer === "tcp" };
  const modes: Partial<Record<Kind, BurstMode>> = {
    latency: "echo",
    paced: "paced",
    fanout: "fanout",
    keepalive: "hold",
    memory: "echo",
  };
  const mode = modes[kind] ?? (isBurst && !tls ? "echo" : undefined);
  const isTimed = kind === "latency" || kind === "paced";
  if (mode !== undefined) return await BurstLoad.connect([port], options, { mode, isTimed, rate });
  if (peer === "http2") return await Http2Load.connect(port, options);
  if (kind === "open") return new OpenLoad(port);
  if (kind === "huge") return await HugeLoad.connect(port, size);
  return await (kind === "deflate" ? DeflateLoad : EchoLoad).connect(port, options);
}
