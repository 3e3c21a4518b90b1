/**
 * Peers: other implementations, which the tests run as separate programs. A test whose peer is missing is
 * skipped. If the environment has `PEERS=required`, the test fails instead.
 *
 * To add a peer, add a row here. A library also needs a program in this folder, like the ones in Python.
 * `deno run -A scripts/peers.ts` prints the packages that are missing.
 */
import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { peerMissing } from "../it.ts";

/** An implementation that does not belong to this project. */
export interface Peer {
  name: string;
  /** The Debian package of the peer. */
  package: string;
  /** The program that must be installed, or else a module of Debian's Python. */
  program?: string;
  module?: string;
  /** The program in this folder that plays both roles with the peer, as described in `agent.py`. */
  script?: string;
  /** Abilities that some peers do not have. */
  can?: {
    /** Limits the size of a message (`maxSize`). */
    limitSize?: boolean;
    /** Reports frames: each ping and pong, and the number of frames of a message. */
    tellFrames?: boolean;
    /** Supports Basic authentication: asks for it (`credentials`), and sends the user of the URL. */
    authenticate?: boolean;
    /** Remembers during a ping between two fragments that the message is compressed. wsproto 1.2 does not. */
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
  redis: { package: "redis-server", program: "redis-server" },
  nats: { package: "nats-server", program: "nats-server" },
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

// The modules are packages of Debian, which another Python on PATH does not have.
const PYTHON = "/usr/bin/python3";
/** Folders where servers are installed, although they may be missing in PATH. */
const SYSTEM_FOLDERS = ["/usr/sbin", "/usr/local/sbin"];
const SCRIPTS = fileURLToPath(new URL(".", import.meta.url));

/** Whether the peer is installed on this machine. */
export function isThere(peer: Peer): boolean {
  if (peer.program !== undefined) return findProgram(peer.program) !== undefined;
  const find = `import sys, importlib.util as u; sys.exit(u.find_spec("${peer.module}") is None)`;
  return spawnSync(PYTHON, ["-c", find]).status === 0;
}

/** The options of a test: the reason to skip it if the peer is missing. */
export function unlessThere(peer: Peer): { skip?: string } {
  if (process.env.PEERS === "required" || isThere(peer)) return {};
  return { skip: peerMissing(`the Debian package ${peer.package}`) };
}

/**
 * The command that runs a peer, without arguments for the peer.
 *
 * @throws {Error} If the peer is not installed.
 */
export function commandOf(peer: Peer): [command: string, ...args: string[]] {
  if (!isThere(peer)) throw new Error(`Expected the Debian package ${peer.package}; it is missing`);
  // -B: Python writes no bytecode into this folder.
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
