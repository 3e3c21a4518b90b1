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
  | "tellPings"
  /** Reports pongs that nobody asked for. */
  | "tellPongs"
  | "tellEmptyPong"
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
  /** Answers a Close frame with its code. */
  | "echoCode"
  /** Answers a Close frame with its code and its reason. */
  | "echoReason"
  | "tellEmptyReason"
  /** Reports the code that it has closed with itself. */
  | "tellOwnClose"
  /** Reports 1006 for a connection that was cut. */
  | "tell1006"
  /** Accepts a Close frame without a code, and reports 1005. */
  | "takeEmpty"
  /** Knows 1013, which came after RFC 6455. */
  | "take1013"
  /** Adds header fields to its request or its response. */
  | "sendFields"
  /** Passes on heads of 20 KB. */
  | "largeHeads"
  /** As a server: reports the target of the request as it is. */
  | "tellTarget"
  /** Sends several fields of the same name one by one, not joined by commas. */
  | "repeatFields"
  | "tellFields"
  /** Accepts the lack of a subprotocol when it has offered one. */
  | "doWithoutProtocol"
  /** Ends the transport when it fails a handshake. */
  | "hangUp"
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
  | "interruptCompressed"
  /** Sends a compressed message in fragments. */
  | "fragmentCompressed"
  /** Limits the size of a compressed message. */
  | "limitCompressed";

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

/** What the standard's WebSocket cannot do. */
const STANDARD: readonly Lack[] = [
  {
    abilities: ["sendFragments", "sendRaw"],
    why: "The API sends whole messages and valid text only.",
  },
  {
    abilities: ["ping", "pong", "tellPings", "tellPongs", "tellFrames"],
    why: "The API has no pings.",
  },
  { abilities: ["tellFields"], as: "client", why: "The API does not show the server's head." },
  {
    abilities: ["tellRefusal", "tellRefusalFields", "tellRefusalBody"],
    as: "client",
    why: "The API does not show a refusal.",
  },
  {
    abilities: ["doWithoutProtocol"],
    as: "client",
    why: "It fails the handshake, as the standard wants.",
  },
  { abilities: ["closeAny"], as: "client", why: "The API takes only 1000 and 3000 to 4999." },
  { abilities: ["limitSize"], why: "The API has no limit." },
  { abilities: ["askUser"], why: "It leaves authentication to the application." },
  { abilities: ["sendUser"], why: "It does not send the user of a URL." },
  { abilities: ["tellAbort"], why: "Only the end of its process cuts a connection." },
];
const CODE_ONLY: Lack = { abilities: ["echoReason"], why: "It answers with the code only." };
const CODE_0: Lack = {
  abilities: ["tell1006"],
  why: "It reports the code 0 for a connection that was cut.",
};
const NO_COMPRESSION: Lack = { abilities: ["compress"], why: "It does not compress." };
const NO_SERVER: Lack = { abilities: ["play"], as: "server", why: "It has no server." };

const NO_CUT: Lack = { abilities: ["abort"], why: "A page cannot cut a connection." };
const NO_FIELDS: Lack = { abilities: ["sendFields"], why: "A page cannot add header fields." };

const WS = {
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
} satisfies Omit<Peer, "name">;

const TABLE = {
  ws: WS,
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
      abilities: ["tellFrames", "tellPings", "tellPongs"],
      why: "It reports whole messages only and answers pings by itself.",
    }],
  },
  undici: {
    agent: { on: "node24", file: "standard_peer.ts", args: ["undici"] },
    lacks: [
      NO_SERVER,
      CODE_ONLY,
      {
        abilities: ["hangUp"],
        why: "It leaves the TCP connection open after it has failed the handshake.",
      },
      { abilities: ["pong", "tellFrames"], why: "The API has no pongs." },
      ...STANDARD.filter(({ abilities }) => !abilities.includes("ping")),
    ],
  },
  "undici WebSocketStream": {
    agent: { on: "node24", file: "standard_peer.ts", args: ["undici-stream"] },
    lacks: [
      NO_SERVER,
      CODE_ONLY,
      {
        abilities: ["hangUp"],
        why: "It leaves the TCP connection open after it has failed the handshake.",
      },
      ...STANDARD,
    ],
  },
  Node: {
    agent: { on: "node24", file: "standard_peer.ts", args: ["node"] },
    lacks: [NO_SERVER, CODE_ONLY, ...STANDARD],
  },
  "faye-websocket": {
    agent: { on: "node24", file: "faye_peer.ts" },
    lacks: [
      {
        abilities: ["sendFragments", "sendRaw"],
        why: "The API sends whole messages and valid text only.",
      },
      { abilities: ["pong"], why: "The API has no pongs." },
      {
        abilities: ["tellPings", "tellPongs", "tellFrames"],
        why: "It reports whole messages only.",
      },
      { abilities: ["closeEmpty"], why: "It sends 1000 if no code is given." },
      { abilities: ["takeEmpty"], why: "It takes a Close frame without a code for 1000." },
      { abilities: ["take1013"], why: "It takes 1013 for a protocol error." },
      { abilities: ["closeAny"], why: "The API takes only 1000 and 3000 to 4999." },
      { abilities: ["repeatFields"], why: "It joins the values of fields of the same name." },
      { abilities: ["refuse"], why: "It leaves refusals to the application." },
      { abilities: ["tellRefusalBody"], why: "It does not show the body of a refusal." },
      { abilities: ["sendUser", "askUser"], why: "It leaves authentication to the application." },
    ],
  },
  websocket: {
    agent: { on: "node24", file: "websocket_peer.ts" },
    lacks: [
      { abilities: ["compress"], why: "It has no extensions." },
      { abilities: ["closeEmpty"], why: "It sends 1000 if no code is given." },
      { abilities: ["takeEmpty"], why: "It takes a Close frame without a code for 1000." },
      { abilities: ["echoCode"], why: "It answers each Close frame with 1000." },
      { abilities: ["tellEmptyReason"], why: "It reports a text of its own for an empty reason." },
      {
        abilities: ["doWithoutProtocol"],
        as: "client",
        why: "It fails the handshake, as the browsers do.",
      },
      { abilities: ["tellRefusalBody"], why: "It may end the socket before the body is read." },
      { abilities: ["tellFrames"], why: "It reports whole messages only." },
      { abilities: ["sendFields"], as: "server", why: "It adds only cookies to its response." },
      { abilities: ["refuse"], as: "server", why: "It sends refusals without a body." },
      { abilities: ["sendUser", "askUser"], why: "It leaves authentication to the application." },
    ],
  },
  Deno: {
    agent: { on: "deno", file: "deno_peer.ts" },
    lacks: [
      ...STANDARD.filter(({ abilities }) => !abilities.includes("doWithoutProtocol")),
      CODE_0,
      NO_COMPRESSION,
    ],
  },
  "Deno WebSocketStream": {
    agent: {
      on: "deno",
      file: "standard_peer.ts",
      args: ["deno-stream"],
      flags: ["--unstable-net"],
    },
    lacks: [
      NO_SERVER,
      {
        abilities: ["tellOwnClose"],
        why: "`closed` may reject after its own close: 393 of 1,500 times with ws as the server.",
      },
      ...STANDARD.filter(({ abilities }) => !abilities.includes("doWithoutProtocol")),
      NO_COMPRESSION,
    ],
  },
  Bun: {
    agent: { on: "bun", file: "bun_peer.ts" },
    lacks: [
      ...STANDARD.filter(({ abilities }) =>
        !abilities.includes("ping") && !abilities.includes("tellAbort")
      ),
      { abilities: ["closeEmpty"], as: "server", why: "It sends 1000 if no code is given." },
      {
        abilities: ["doWithoutProtocol"],
        as: "server",
        why: "It accepts the first subprotocol offered if the program names none.",
      },
      {
        abilities: ["repeatFields"],
        as: "server",
        why: "It joins the values of fields of the same name.",
      },
      { abilities: ["tellFrames"], why: "It reports whole messages only." },
    ],
  },
  aiohttp: {
    package: "python3-aiohttp",
    module: "aiohttp",
    agent: { on: "python", file: "aiohttp_peer.py" },
    lacks: [
      {
        abilities: ["sendFragments", "sendRaw"],
        why: "The API sends whole messages and valid text only.",
      },
      { abilities: ["closeEmpty"], why: "The API closes with a code." },
      { abilities: ["echoCode"], why: "It answers each Close frame with 1000." },
      { abilities: ["limitSize"], why: "It refuses a message of exactly its limit too." },
      {
        abilities: ["interruptCompressed"],
        why: "It forgets during a ping between two fragments that the message is compressed.",
      },
      { abilities: ["tellFrames"], why: "It reports whole messages only." },
      { abilities: ["tellRefusalBody"], why: "It does not show the body of a refusal." },
      { abilities: ["askUser"], why: "It leaves authentication to the application." },
    ],
  },
  tornado: {
    package: "python3-tornado",
    module: "tornado",
    agent: { on: "python", file: "tornado_peer.py" },
    lacks: [
      {
        abilities: ["sendFragments", "sendRaw"],
        why: "The API sends whole messages and valid text only.",
      },
      { abilities: ["pong", "tellFrames"], why: "The API has no pongs and no frames." },
      {
        abilities: ["interruptCompressed"],
        why: "It forgets during a ping between two fragments that the message is compressed.",
      },
      CODE_ONLY,
      {
        abilities: ["takeEmpty", "closeEmpty"],
        why: "It does not tell a Close frame without a code from a lost connection.",
      },
      { abilities: ["sendUser", "askUser"], why: "It leaves authentication to the application." },
    ],
  },
  autobahn: {
    package: "python3-autobahn",
    module: "autobahn",
    agent: { on: "python", file: "autobahn_peer.py" },
    lacks: [
      {
        abilities: ["limitCompressed"],
        why: "It does not close if a compressed message exceeds its limit.",
      },
      { abilities: ["closeAny"], why: "The API takes only 1000 and 3000 to 4999." },
      {
        abilities: ["repeatFields"],
        as: "client",
        why: "The API takes one value for each name.",
      },
      { abilities: ["refuse"], why: "It refuses without header fields and body." },
      {
        abilities: ["tellRefusal", "tellRefusalFields", "tellRefusalBody"],
        why: "It reports a refusal as the end of the connection.",
      },
      { abilities: ["sendUser", "askUser"], why: "It leaves authentication to the application." },
    ],
  },
  libwebsockets: {
    package: "libwebsockets-dev",
    header: "/usr/include/libwebsockets.h",
    agent: { on: "c", file: "libwebsockets_peer.c" },
    lacks: [
      { abilities: ["tellPings", "tellFrames"], why: "It answers pings by itself." },
      {
        abilities: ["tellEmptyPong"],
        as: "server",
        why: "It does not report a pong without data.",
      },
      {
        abilities: ["closeEmpty"],
        why: "It ends the transport without a Close frame if no code is given.",
      },
      {
        abilities: ["fragmentCompressed"],
        why: "A fragment after the first begins a new message if messages are compressed.",
      },
      { abilities: ["take1013"], why: "It answers 1013 with 1002." },
      { abilities: ["compress"], as: "client", why: "The test program does not try it." },
      {
        abilities: ["doWithoutProtocol"],
        as: "server",
        why: "It refuses a client that offers only other subprotocols.",
      },
      { abilities: ["tellTarget"], as: "server", why: "It decodes the target." },
      {
        abilities: ["sendFields", "tellFields", "refuse", "limitSize", "sendUser", "askUser"],
        why: "The test program does not try it.",
      },
      {
        abilities: ["tellRefusal", "tellRefusalFields", "tellRefusalBody"],
        why: "It reports a refusal as a failed connection.",
      },
    ],
  },
  chromium: {
    package: "chromium",
    program: "chromium",
    agent: { on: "node24", file: "chromium_peer.ts" },
    lacks: [NO_SERVER, NO_CUT, NO_FIELDS, ...STANDARD],
  },
  "chromium WebSocketStream": {
    package: "chromium",
    program: "chromium",
    agent: { on: "node24", file: "chromium_peer.ts", args: ["stream"] },
    lacks: [NO_SERVER, NO_CUT, NO_FIELDS, ...STANDARD],
  },
  nginx: {
    package: "nginx-light",
    program: "nginx",
    agent: WS.agent,
    lacks: WS.lacks,
  },
  haproxy: {
    package: "haproxy",
    program: "haproxy",
    agent: WS.agent,
    lacks: [
      { abilities: ["largeHeads"], why: "It refuses heads over 16 KiB by itself." },
      ...WS.lacks,
    ],
  },
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
