/** The types of the tables in this folder. */
import type { WebSocketConnection } from "../../mod.ts";
import type { Role } from "../../lib/core/mod.ts";
import type { Opening, PairOptions } from "./pair.ts";
import type { PeerEnd } from "./peer_process.ts";
import type { Ability } from "./peers.ts";

/** What a row is about. Each is a column of the matrix. */
export type Kind =
  | "messages"
  | "fragmented"
  | "large"
  | "pings"
  | "closing"
  | "cut"
  | "opening";

interface Row {
  title: string;
  kind: Kind;
  /** Whether the suite runs the row with every peer. Default: false */
  quick?: boolean;
  /** The roles that this library plays. Default: both */
  roles?: readonly Role[];
  /** The abilities that the peer must have if this library plays the role. Default: none */
  needs?: readonly Ability[] | ((role: Role) => readonly Ability[]);
  /** Abilities without which the row checks less. Default: none */
  partly?: readonly Ability[];
  /** The abilities that the peer must have if messages are compressed. Default: none */
  needsCompressed?: readonly Ability[];
  /** The ability that the peer must not have. Default: none */
  unless?: Ability;
  /** Whether the peer may report an error besides what the row expects. Default: false */
  mayReport?: boolean;
  /** The options for opening the ends. Default: none */
  options?: (role: Role) => PairOptions;
}

/** A test on an open connection. */
export interface Scenario extends Row {
  run(ends: Ends): Promise<void>;
}

/** An opening handshake that fails. */
export interface Failure extends Row {
  fails: true;
  run(opening: Opening & Able, role: Role): Promise<void>;
}

interface Able {
  /** Whether the peer has an ability. */
  can(ability: Ability): boolean;
}

/** Both ends of an open connection. */
export interface Ends extends Able {
  ours: WebSocketConnection;
  theirs: PeerEnd;
  role: Role;
  /** What the peer's end reported when it was open. */
  told: Awaited<ReturnType<typeof PeerEnd.prototype.opened>>;
}
