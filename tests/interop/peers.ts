/**
 * Peers: other implementations, which the tests run as separate programs. A test whose peer is missing is
 * skipped. If the environment has `PEERS=required`, the test fails instead.
 *
 * To add a peer, add a row here. A library also needs a program in the folder peers/.
 * `deno run -A scripts/peers.ts` prints the packages that are missing.
 */
import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, mkdirSync, renameSync, statSync } from "node:fs";
import { basename, delimiter, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { Role } from "../../lib/core/mod.ts";
import { peerMissing } from "../it.ts";

/** What some peers cannot do. */
export type Ability =
  /** Plays the role. */
  | "play"
  | "compress"
  /** Sends a message in frames of the test's choice. */
  | "sendFragments"
  /** Sends text as any bytes, also if they are not UTF-8. */
  | "sendRaw"
  /** Sends pings and reports the pongs. */
  | "ping"
  | "pong"
  /** Reports the pings received, and the pongs that nobody asked for. */
  | "tellPings"
  /** Reports the number of frames of a message. */
  | "tellFrames"
  /** Ends the transport without a closing handshake. */
  | "abort"
  /** Reports the end of a connection that it has aborted. */
  | "tellAbort"
  /** Sends a Close frame without a code. */
  | "closeEmpty"
  /** Sends the close codes that are reserved for endpoints and protocols, such as 1001 and 1011. */
  | "closeAny"
  /** Reports the code and the reason of a Close frame received. */
  | "tellReason"
  /** Adds header fields to its request or its response, also several of the same name. */
  | "sendFields"
  | "tellFields"
  /** Accepts the lack of a subprotocol when it has offered one. */
  | "doWithoutProtocol"
  /** As a server: refuses with a status, header fields and a body. */
  | "refuse"
  | "refuseEmpty"
  /** As a client: reports the status of a refusal. */
  | "tellRefusal"
  | "tellRefusalFields"
  | "tellRefusalBody"
  | "sendUser"
  | "askUser"
  /** Limits the size of a message (`maxSize`). */
  | "limitSize"
  /** Accepts a ping between the fragments of a compressed message. */
  | "interruptCompressed";

/** Something that a peer cannot do, and the reason. */
export interface Lack {
  abilities: readonly Ability[];
  /** The role of the peer. Default: both */
  as?: Role;
  why: string;
}

/** The program that plays both roles with a library, as described in `agent.py`. */
export interface Agent {
  /** What runs the program: Debian's Python, a runtime of the suite, or the machine itself after compiling. */
  on: "python" | "deno" | "bun" | "node24" | "c";
  /** The file in the folder peers/. */
  file: string;
  args?: readonly string[];
  /** Flags of the runtime. */
  flags?: readonly string[];
}

/** An implementation that does not belong to this project. */
export interface Peer {
  name: string;
  /** The Debian package of the peer, if it comes from Debian. */
  package?: string;
  /** The program that must be installed, or else a module of Debian's Python, or else a file. */
  program?: string;
  module?: string;
  header?: string;
  agent?: Agent;
  lacks?: readonly Lack[];
}

export type PeerName = keyof typeof PEERS;

const TABLE = {
  ws: {
    agent: { on: "node24", file: "ws_peer.ts" },
    lacks: [
      { abilities: ["tellFrames"], why: "It reports whole messages only." },
      {
        abilities: ["doWithoutProtocol"],
        as: "client",
        why: "It fails the handshake, as the browsers do.",
      },
      { abilities: ["askUser"], why: "It leaves authentication to the application." },
      { abilities: ["refuseEmpty"], why: "It puts the status text into a refusal without a body." },
    ],
  },
  wsproto: {
    package: "python3-wsproto",
    module: "wsproto",
    agent: { on: "python", file: "wsproto_peer.py" },
    lacks: [
      { abilities: ["limitSize"], why: "It has no limit." },
      { abilities: ["sendUser", "askUser"], why: "It leaves authentication to the application." },
      {
        abilities: ["interruptCompressed"],
        why: "It forgets during a ping between two fragments that the message is compressed.",
      },
    ],
  },
  websockets: {
    package: "python3-websockets",
    module: "websockets",
    agent: { on: "python", file: "websockets_peer.py" },
    lacks: [{
      abilities: ["tellFrames", "tellPings"],
      why: "It reports whole messages only and answers pings by itself.",
    }],
  },
  haproxy: { package: "haproxy", program: "haproxy" },
  nginx: { package: "nginx-light", program: "nginx" },
  chromium: { package: "chromium", program: "chromium" },
  tinyproxy: { package: "tinyproxy", program: "tinyproxy" },
  microsocks: { package: "microsocks", program: "microsocks" },
  redis: { package: "redis-server", program: "redis-server" },
  nats: { package: "nats-server", program: "nats-server" },
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
const FOLDER = fileURLToPath(new URL("peers/", import.meta.url));

/** Whether the peer cannot do something in a role, and the reason. */
export function lackOf(peer: Peer, ability: Ability, as: Role): Lack | undefined {
  return peer.lacks?.find((lack) =>
    (lack.as ?? as) === as &&
    (lack.abilities.includes(ability) || lack.abilities.includes("play"))
  );
}

/** The path of the runtime that runs the peer's program. The test runner passes it. */
function runtimePath({ on }: Agent): string | undefined {
  return process.env[`RUNTIME_${on.toUpperCase()}`];
}

/** The Debian package of the peer, if it is missing. */
export function missingPackage(peer: Peer): string | undefined {
  const { package: name, program, module, header } = peer;
  const isThere = (program === undefined || findProgram(program) !== undefined) &&
    (module === undefined || hasModule(module)) && (header === undefined || existsSync(header));
  return isThere ? undefined : name;
}

function hasModule(name: string): boolean {
  const find = `import sys, importlib.util as u; sys.exit(u.find_spec("${name}") is None)`;
  return spawnSync(PYTHON, ["-c", find]).status === 0;
}

/** What must be installed for the peer, if it is missing. */
export function missingFor(peer: Peer): string | undefined {
  const name = missingPackage(peer);
  if (name !== undefined) return `the Debian package ${name}`;
  const { agent } = peer;
  if (agent === undefined || agent.on === "python" || agent.on === "c") return;
  if (runtimePath(agent) === undefined) {
    return `${agent.on}, which the runner gives by RUNTIME_${agent.on.toUpperCase()}`;
  }
}

/** The options of a test: the reason to skip it if the peer is missing. */
export function unlessThere(peer: Peer): { skip?: string } {
  if (process.env.PEERS === "required") return {};
  const missing = missingFor(peer);
  return missing === undefined ? {} : { skip: peerMissing(missing) };
}

/**
 * The command that runs the program of a peer, without arguments.
 *
 * @throws {Error} If the peer is not installed.
 */
export function commandOf(peer: Peer): [command: string, ...args: string[]] {
  mustBeThere(peer);
  return [findProgram(peer.program!)!];
}

function mustBeThere(peer: Peer): void {
  const missing = missingFor(peer);
  if (missing !== undefined) throw new Error(`Expected ${missing}; it is missing`);
}

/**
 * The command that runs the agent of a peer.
 *
 * @throws {Error} If the peer is not installed.
 */
export function agentCommand(peer: Peer): [command: string, ...args: string[]] {
  mustBeThere(peer);
  const { on, file, args = [], flags = [] } = peer.agent!;
  const path = join(FOLDER, file);
  // -B: Python writes no bytecode into the folder.
  if (on === "python") return [PYTHON, "-B", path, ...args];
  if (on === "c") return [compiled(path), ...args];
  const run = on === "deno" ? ["run", "-A", "--no-check"] : [];
  return [runtimePath(peer.agent!)!, ...run, ...flags, path, ...args];
}

/** Compiles a program in C if it has changed, and returns its path. */
function compiled(source: string): string {
  const folder = fileURLToPath(new URL("../../.cache/interop/", import.meta.url));
  const program = join(folder, basename(source, ".c"));
  if (existsSync(program) && statSync(program).mtimeMs > statSync(source).mtimeMs) return program;
  mkdirSync(folder, { recursive: true });
  // Test files that run at the same time may all compile it.
  const own = `${program}.${process.pid}`;
  const { status, stderr } = spawnSync("cc", ["-O1", "-o", own, source, "-lwebsockets"]);
  if (status !== 0) throw new Error(`cc failed: ${stderr}`);
  renameSync(own, program);
  return program;
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
