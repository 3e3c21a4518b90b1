/** The cells of the interop matrix: each row of the tables, with each peer in both roles, in each setting. */
import type { Role } from "../../lib/core/mod.ts";
import { freePort } from "../ports.ts";
import { ROLES } from "../support.ts";
import { type Credentials, writeCredentials } from "./credentials.ts";
import { AGREEMENTS, FAILURES } from "./handshakes.ts";
import { open, type Opening, type PairOptions } from "./pair.ts";
import { PeerProcess } from "./peer_process.ts";
import { type Ability, type Lack, lackOf, type Peer } from "./peers.ts";
import { FRONTS, type Proxy, startProxy } from "./proxy.ts";
import type { Failure, Kind, Scenario } from "./row.ts";
import { SCENARIOS } from "./scenarios.ts";

export type Row = Scenario | Failure;

export const ROWS: readonly Row[] = [...SCENARIOS, ...AGREEMENTS, ...FAILURES];

export type Setting = "plain" | "compressed" | "tls";
const SETTINGS: readonly Setting[] = ["plain", "compressed", "tls"];

/** The columns of the matrix: the kinds of rows in the setting "plain", and all rows in the other settings. */
export type Case = Kind | Exclude<Setting, "plain">;
export const CASES: readonly Case[] = [
  "messages",
  "tls",
  "compressed",
  "fragmented",
  "large",
  "pings",
  "closing",
  "cut",
  "opening",
];

/** A row with a peer in a setting. */
export interface Cell {
  peer: Peer;
  row: Row;
  /** The role of this library. */
  role: Role;
  setting: Setting;
  case: Case;
  /** What the peer lacks to run the row. */
  lack?: Lack;
  /** What the peer lacks for a part of the row. */
  partial: readonly Lack[];
}

/** The role of the other end. */
export function otherRole(role: Role): Role {
  return role === "client" ? "server" : "client";
}

/** All cells of a peer. */
export function cellsOf(peer: Peer): Cell[] {
  return SETTINGS.flatMap((setting) =>
    ROLES.flatMap((role) =>
      ROWS.filter(({ roles, unless }) =>
        (roles ?? ROLES).includes(role) &&
        (unless === undefined ||
          lackOf(peer, unless, otherRole(role)) !== undefined)
      ).map((row): Cell => ({
        peer,
        row,
        role,
        setting,
        case: setting === "plain" ? row.kind : setting,
        lack: lackIn(peer, row, role, setting),
        partial: (row.partly ?? []).map((ability) => lackOf(peer, ability, otherRole(role)))
          .filter((lack) => lack !== undefined),
      }))
    )
  );
}

function lackIn(
  peer: Peer,
  row: Row,
  role: Role,
  setting: Setting,
): Lack | undefined {
  const { needs = [], needsCompressed = [] } = row;
  const abilities: Ability[] = [
    "play",
    ...(setting === "compressed" ? ["compress" as const, ...needsCompressed] : []),
    ...(typeof needs === "function" ? needs(role) : needs),
  ];
  const lacks = abilities.map((ability) => lackOf(peer, ability, otherRole(role)));
  return lacks.find((lack) => lack !== undefined);
}

/** The title of a cell. */
export function titleOf({ peer, row, role, setting }: Cell): string {
  const how = setting === "plain" ? "" : setting === "tls" ? ", TLS" : ", compressed";
  return `${peer.name} as ${otherRole(role)}: ${row.title}${how}`;
}

/** Longer than any wait within a row, in milliseconds. */
const DEADLINE = 180_000;

/** Runs the cells of a peer, and ends the programs that they need. */
export class Session {
  readonly #peer: Peer;
  #process: PeerProcess | undefined;
  #credentials: Promise<Credentials & { remove(): Promise<void> }> | undefined;

  constructor(peer: Peer) {
    this.#peer = peer;
  }

  /** The version of the peer, as its program tells it. */
  async version(): Promise<string> {
    const version = await (await this.#running()).version;
    const front = FRONTS[this.#peer.name];
    return front === undefined ? version : `${front.version()}; ${version}`;
  }

  /** Runs a cell. Throws what differed. */
  async run(cell: Cell): Promise<void> {
    for (let tries = 1;; tries++) {
      try {
        return await this.#run(cell);
      } catch (error) {
        // Another process has taken the port that was free.
        if (tries === 5 || !String(error).includes("EADDRINUSE")) throw error;
      }
    }
  }

  async #run({ peer, row, role, setting }: Cell): Promise<void> {
    const running = await this.#running();
    const proxy = await this.#proxy(setting === "tls");
    try {
      const opening = await open(
        role,
        running,
        merge(setting, row.options?.(role)),
        {
          credentials: setting === "tls" ? await this.#certified() : undefined,
          proxy,
        },
      );
      try {
        await within(DEADLINE, this.#check(opening, peer, row, role));
      } finally {
        await opening.stop();
      }
    } finally {
      await proxy?.stop();
    }
  }

  async #check(
    opening: Opening,
    peer: Peer,
    row: Row,
    role: Role,
  ): Promise<void> {
    const { theirs } = opening;
    const can = (ability: Ability) => lackOf(peer, ability, otherRole(role)) === undefined;
    if ("fails" in row) await row.run({ ...opening, can }, role);
    else {
      const [told, ours] = await Promise.all([theirs.opened(), opening.ours]);
      await row.run({ ours, theirs, can, role, told });
    }
    const failed = theirs.told.find(({ event }) => event === "failed");
    if (failed && !row.mayReport) {
      throw new Error(
        `Expected no error of the peer, received ${JSON.stringify(failed)}`,
      );
    }
  }

  async #running(): Promise<PeerProcess> {
    const { caFile } = await this.#certified();
    // The program of a runtime's own WebSocket ends to cut a connection.
    if (this.#process?.exited) this.#process = undefined;
    // Programs on Node, Bun and Deno trust these certificates.
    return this.#process ??= new PeerProcess(this.#peer, {
      NODE_EXTRA_CA_CERTS: caFile,
      DENO_CERT: caFile,
    });
  }

  #certified() {
    return this.#credentials ??= writeCredentials();
  }

  /**
   * Starts the proxy between the two ends, if the peer is one. Each cell has its own, because a server cannot
   * listen again at once on the port of another.
   */
  async #proxy(
    secure: boolean,
  ): Promise<Proxy & { backend: number } | undefined> {
    const front = FRONTS[this.#peer.name];
    if (front === undefined) return;
    const backend = await freePort();
    const { leafFiles } = await this.#certified();
    return {
      ...await startProxy(front, backend, secure ? leafFiles : undefined),
      backend,
    };
  }

  /** Ends the programs, and removes their files. */
  async stop(): Promise<void> {
    await this.#process?.stop();
    await (await this.#credentials)?.remove();
  }
}

/** Fails a row that hangs, because some runtimes have no deadline for a test. */
async function within(
  milliseconds: number,
  running: Promise<void>,
): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`Expected an end within ${milliseconds} ms`)),
      milliseconds,
    );
  });
  await Promise.race([running, late]).finally(() => clearTimeout(timer));
}

/** The options of the setting and of the row. Those of the row come first. */
function merge(setting: Setting, row: PairOptions = {}): PairOptions {
  const compression = setting === "compressed";
  return {
    ...row,
    // Compresses short messages too. Otherwise few messages would be compressed.
    ours: { compression: compression && { threshold: 0 }, ...row.ours },
    theirs: { compression, ...row.theirs },
  };
}
