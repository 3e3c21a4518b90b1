/** Describes what is measured: the work, the candidates, and the size of the first try. */
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
 * `echo`: a server echoes messages; `deflate`: the same with compression; `latency`: one message in
 * flight; `open`: opening handshakes; `client`: a raw server answers the messages of clients; `fanout`:
 * all connections get the messages of one connection.
 */
export const KINDS = ["echo", "deflate", "latency", "open", "client", "fanout"] as const;

/** The name of a kind of work. */
export type Kind = typeof KINDS[number];

/**
 * `stream`: this process sends as many messages as have come back. `burst`: a separate process sends all
 * messages that may be in flight in one write.
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

/** The number of connections, and the number of messages in flight on each. */
export function spreadOf(
  { kind, size, connections, inFlight }: Workload,
): { connections: number; inFlight: number } {
  if (kind === "latency") return { connections: 1, inFlight: 1 };
  if (kind === "fanout") return { connections: connections ?? 1000, inFlight: inFlight ?? 1 };
  const large = size >= 2 ** 20;
  return { connections: connections ?? (large ? 4 : 32), inFlight: inFlight ?? (large ? 2 : 16) };
}

/** The unit that is counted per second of CPU time. */
export function unitOf({ kind }: Workload): string {
  return `${kind === "open" ? "connections" : "messages"} per CPU second`;
}

/** The number of messages that takes the slowest peer about a tenth of a second. */
export function firstTry({ kind, size }: Workload): number {
  if (kind === "open") return 500;
  if (kind === "latency") return 3000;
  return Math.ceil((kind === "deflate" ? 1e6 : 2e7) / (size + 1000));
}

/** Formats a size. */
export function nameOf(size: number): string {
  if (size < 1024) return `${size} B`;
  return size < 2 ** 20 ? `${size / 1024} KiB` : `${size / 2 ** 20} MiB`;
}

/** Makes the contestant of a candidate. */
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
    echo: (port: number) =>
      load === "burst" ? BurstLoad.connect([port], options) : EchoLoad.connect(port, options),
    deflate: (port: number) => DeflateLoad.connect(port, options),
    latency: (port: number) => LatencyLoad.connect(port, options),
    open: (port: number) => Promise.resolve(new OpenLoad(port)),
    fanout: (port: number) => BurstLoad.connect([port], options, "plain"),
  };
  return new ServerPeer(name, program, connect[kind]);
}
