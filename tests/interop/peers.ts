/**
 * The peers: other implementations that the tests run as programs of their own. A test of one that is
 * missing is skipped, and fails where `PEERS=required` is in the environment.
 *
 * A peer is added by a row here; one that is no more than a library needs a program too, as those of
 * Python have in this folder. `deno run -A scripts/peers.ts` prints the packages that are missing.
 */
import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { peerMissing } from "../it.ts";

/** An implementation that is none of ours. */
export interface Peer {
  name: string;
  /** The Debian package that has it. */
  package: string;
  /** What of it must be there: a program, or a module of Debian's Python. */
  program?: string;
  module?: string;
  /** The program in this folder that plays both roles with it, as `agent.py` says. */
  script?: string;
  /** What not every peer can do or tell. */
  can?: {
    /** Limits the size of a message (`maxSize`). */
    limitSize?: boolean;
    /** Tells of frames: of each ping and pong, and of how many a message was. */
    tellFrames?: boolean;
    /** Has Basic authentication: asks for it (`credentials`), and sends the user of its URL. */
    authenticate?: boolean;
    /** Knows after a ping between two fragments that the message was compressed. wsproto 1.2 does not. */
    interruptCompressed?: boolean;
  };
}

export type PeerName = keyof typeof PEERS;

const TABLE = {
  wsproto: {
    package: "python3-wsproto",
    module: "wsproto",
    script: "wsproto_peer.py",
    can: { tellFrames: true },
  },
  websockets: {
    package: "python3-websockets",
    module: "websockets",
    script: "websockets_peer.py",
    can: { limitSize: true, authenticate: true, interruptCompressed: true },
  },
  haproxy: { package: "haproxy", program: "haproxy" },
  nginx: { package: "nginx-light", program: "nginx" },
  chromium: { package: "chromium", program: "chromium" },
  tinyproxy: { package: "tinyproxy", program: "tinyproxy" },
  microsocks: { package: "microsocks", program: "microsocks" },
} satisfies Record<string, Omit<Peer, "name">>;

/** All peers. */
export const PEERS: { readonly [name in keyof typeof TABLE]: Peer } = named(TABLE);

function named<T extends Record<string, Omit<Peer, "name">>>(
  table: T,
): { [name in keyof T]: Peer } {
  const rows = Object.entries(table).map(([name, peer]) => [name, { name, ...peer }]);
  return Object.fromEntries(rows);
}

// Its modules are Debian's packages; another Python on PATH does not have them.
const PYTHON = "/usr/bin/python3";
/** Where servers are installed, and PATH need not say so. */
const SYSTEM_FOLDERS = ["/usr/sbin", "/usr/local/sbin"];
const SCRIPTS = fileURLToPath(new URL(".", import.meta.url));

/** Whether this machine has the peer. */
export function isThere(peer: Peer): boolean {
  if (peer.program !== undefined) return findProgram(peer.program) !== undefined;
  const find = `import sys, importlib.util as u; sys.exit(u.find_spec("${peer.module}") is None)`;
  return spawnSync(PYTHON, ["-c", find]).status === 0;
}

/** For the options of a test: why it is skipped, if it is. */
export function unlessThere(peer: Peer): { skip?: string } {
  if (process.env.PEERS === "required" || isThere(peer)) return {};
  return { skip: peerMissing(`the Debian package ${peer.package}`) };
}

/**
 * The command that runs a peer, without arguments of its own.
 *
 * @throws {Error} when it is missing
 */
export function commandOf(peer: Peer): [command: string, ...args: string[]] {
  if (!isThere(peer)) throw new Error(`Expected the Debian package ${peer.package}; it is missing`);
  // -B: it leaves no bytecode in this folder.
  if (peer.script !== undefined) return [PYTHON, "-B", join(SCRIPTS, peer.script)];
  return [findProgram(peer.program!)!];
}

function findProgram(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? "").split(delimiter), ...SYSTEM_FOLDERS];
  return folders.map((folder) => join(folder, name)).find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
