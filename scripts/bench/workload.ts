/** What is measured: the work, who does it, and how much of it is tried first. */
import type { Runtime } from "../runtimes.ts";
import type { Contestant } from "./contest.ts";
import { BurstLoad } from "./burst_load.ts";
import { DeflateLoad } from "./deflate_load.ts";
import type { MessageType } from "./frames.ts";
import { LatencyLoad } from "./latency_load.ts";
import { EchoLoad, type LoadOptions } from "./load.ts";
import { OpenLoad } from "./open_load.ts";
import { ClientPeer, peerProgram, ServerPeer } from "./peer.ts";

/**
 * `echo`: messages echoed by a server; `deflate`: the same, compressed; `latency`: one in flight;
 * `open`: opening handshakes; `client`: messages of clients that a raw server answers; `fanout`:
 * messages of one connection that all connections get.
 */
export const KINDS = ["echo", "deflate", "latency", "open", "client", "fanout"] as const;

/** One of them. */
export type Kind = typeof KINDS[number];

/**
 * `stream`: as many messages are sent as have come back, by this process. `burst`: all that may be in
 * flight are sent in one write, by a process that does nothing else.
 */
export const LOADS = ["stream", "burst"] as const;

/** One of them. */
export type LoadName = typeof LOADS[number];

/** A work to compare peers by. */
export interface Workload {
  kind: Kind;
  type: MessageType;
  /** Bytes of each message. */
  size: number;
  tls?: boolean;
  /** How the messages of `echo` are sent. */
  load?: LoadName;
  /** How many, where it is not as many as usual. */
  connections?: number;
  inFlight?: number;
}

/** Who does it. */
export interface Candidate {
  name: string;
  peer: string;
  /** The sockets under ours. */
  transport: string;
}

/** How many connections, and how many messages on their way on each. */
export function spreadOf(
  { kind, size, connections, inFlight }: Workload,
): { connections: number; inFlight: number } {
  if (kind === "latency") return { connections: 1, inFlight: 1 };
  if (kind === "fanout") return { connections: connections ?? 1000, inFlight: inFlight ?? 1 };
  const large = size >= 2 ** 20;
  return { connections: connections ?? (large ? 4 : 32), inFlight: inFlight ?? (large ? 2 : 16) };
}

/** What is counted in a second of CPU time. */
export function unitOf({ kind }: Workload): string {
  return `${kind === "open" ? "connections" : "messages"} per CPU second`;
}

/** About a tenth of a second of work for the slowest. */
export function firstTry({ kind, size }: Workload): number {
  if (kind === "open") return 500;
  if (kind === "latency") return 3000;
  return Math.ceil((kind === "deflate" ? 1e6 : 2e7) / (size + 1000));
}

/** How a size is written. */
export function nameOf(size: number): string {
  if (size < 1024) return `${size} B`;
  return size < 2 ** 20 ? `${size / 1024} KiB` : `${size / 2 ** 20} MiB`;
}

/** A candidate, ready for the contest. */
export function contestantOf(
  workload: Workload,
  runtime: Runtime,
  { name, peer, transport }: Candidate,
  profileFolder?: URL,
): Contestant {
  const { kind, type, size, tls, load } = workload;
  const spread = spreadOf(workload);
  if (kind === "client") {
    return new ClientPeer(name, peerProgram(runtime, "client.ts", [peer]), {
      type,
      size,
      ...spread,
    });
  }
  const mode = kind === "deflate" || kind === "fanout" ? [kind] : tls ? ["tls"] : [];
  const program = peerProgram(runtime, "server.ts", [peer, transport, ...mode], profileFolder);
  const options: LoadOptions = { type, size, ...spread, tls, raw: peer === "tcp" };
  const connect = {
    echo: (port: number) => (load === "burst" ? BurstLoad : EchoLoad).connect(port, options),
    deflate: (port: number) => DeflateLoad.connect(port, options),
    latency: (port: number) => LatencyLoad.connect(port, options),
    open: (port: number) => Promise.resolve(new OpenLoad(port)),
    fanout: (port: number) => BurstLoad.connect(port, options, true),
  };
  return new ServerPeer(name, program, connect[kind]);
}
