/** The types of the tables in this folder. */
import type { WebSocketConnection } from "../../mod.ts";
import type { Role } from "../../lib/core/mod.ts";
import type { Opening, PairOptions } from "./pair.ts";
import type { PeerEnd } from "./peer_process.ts";
import type { Peer } from "./peers.ts";

interface Row {
  title: string;
  /** The roles that this library plays. Default: both */
  roles?: readonly Role[];
  /** The ability that the peer must have. Default: none */
  needs?: keyof NonNullable<Peer["can"]>;
  /** The ability that the peer must have if messages are compressed. Default: none */
  needsCompressed?: keyof NonNullable<Peer["can"]>;
  /** The options for opening the ends. Default: none */
  options?: (role: Role) => PairOptions;
}

/** A test on an open connection. */
export interface Scenario extends Row {
  run(ends: Ends): Promise<void>;
}

/** An opening handshake that fails. */
export interface Failure extends Row {
  run(opening: Opening, role: Role): Promise<void>;
}

/** Both ends of an open connection. */
export interface Ends {
  ours: WebSocketConnection;
  theirs: PeerEnd;
  peer: Peer;
  role: Role;
  /** What the peer's end reported when it was open. */
  told: Awaited<ReturnType<typeof PeerEnd.prototype.opened>>;
}
