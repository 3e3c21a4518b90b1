/** What the tables of this folder are made of. */
import type { WebSocketConnection } from "../../mod.ts";
import type { Role } from "../../lib/core/mod.ts";
import type { Opening, PairOptions } from "./pair.ts";
import type { PeerEnd } from "./peer_process.ts";
import type { Peer } from "./peers.ts";

interface Row {
  title: string;
  /** The roles of this library. Default: both */
  roles?: readonly Role[];
  /** What the peer must be able to do. Default: nothing special */
  needs?: keyof NonNullable<Peer["can"]>;
  /** The same, where messages are compressed. */
  needsCompressed?: keyof NonNullable<Peer["can"]>;
  /** How the ends are opened. Default: without options */
  options?: (role: Role) => PairOptions;
}

/** What happens on an open connection. */
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
  /** What their end told when it was open. */
  told: Awaited<ReturnType<typeof PeerEnd.prototype.opened>>;
}
