/** Sets up the connection of a run: its options, its line, and the opening handshake. */
import {
  accept,
  connect,
  type ConnectionOptions,
  serve,
  type TransportProvider,
  WebSocketStream,
} from "../../../mod.ts";
import type { Transport } from "../../../lib/transport.ts";
import type { Random } from "../random.ts";
import { memoryLine, TcpLine } from "./line.ts";
import { describe, User, type World } from "./world.ts";

/** The way in which a connection is made. */
export interface Setup {
  /** In memory, over TCP, or over TCP through a proxy. */
  carrier: "memory" | "tcp" | "proxy";
  /** The function or class of the client. */
  client: "connect" | "stream";
  chop: number;
  join: boolean;
  delay: number;
  capacity: number;
  /** The options of each end, by name. */
  options: [Partial<ConnectionOptions>, Partial<ConnectionOptions>];
  /** Number of turns after which a signal aborts the opening, if any. */
  abortAfter: number | undefined;
}

/** The plainest setup, to which a failing setup is reduced. */
export const PLAIN: Setup = {
  carrier: "memory",
  client: "connect",
  chop: 0,
  join: false,
  delay: 0,
  capacity: 65536,
  options: [{}, {}],
  abortAfter: undefined,
};

/** One option: it is set once in this many runs, to one of these values. */
type Choice = [name: string, once: number, values: readonly unknown[]];

const thrower = () => {
  throw new TypeError("A callback of the user's");
};
const observer = () => {};

const COMPRESSIONS: readonly unknown[] = [
  true,
  { threshold: 0 },
  { threshold: 0, memory: "low" },
  { threshold: 1, memory: "high", level: 1 },
  { threshold: 100, clientNoContextTakeover: true },
  { threshold: 0, serverNoContextTakeover: true, serverMaxWindowBits: 9 },
];

/** The options to choose from. */
const CHOICES: readonly Choice[] = [
  ["compression", 3, COMPRESSIONS],
  ["compression", 6, [false]],
  ["maxMessageSize", 8, [0, 1, 1000, 70_000, Infinity]],
  ["maxFrameSize", 16, [0, 1, 125, 5000]],
  ["maxControlFramesPerSecond", 20, [0, 1, 5]],
  ["slow", 4, ["close", "terminate"]],
  ["maxBufferedAmount", 5, [0, 1, 1000, 100_000]],
  ["openTimeout", 20, [0, 1, 50]],
  ["pingInterval", 4, [0, 0, 7, 40, 1000]],
  ["pingTimeout", 8, [0, 1, 40]],
  ["closeTimeout", 4, [0, 1, 40, 1000]],
  ["readableStrategy", 4, [
    { highWaterMark: 0 },
    { highWaterMark: 1 },
    { highWaterMark: 500 },
    { highWaterMark: Infinity },
    { highWaterMark: 3, size: () => 1 },
    { size: () => 0 },
  ]],
  ["onFrame", 10, [observer]],
  ["onFrame", 120, [thrower]],
  ["readableStrategy", 120, [{ size: thrower }, { size: () => NaN }, { size: () => -1 }]],
];

function chooseOptions(random: Random, calm: boolean): Partial<ConnectionOptions> {
  const options: Record<string, unknown> = {};
  if (random.once(3)) return options;
  for (const [name, once, values] of CHOICES) {
    if (!random.once(once)) continue;
    const value = random.pick(values);
    if (!calm || !isTroublesome(name, value)) options[name] = value;
  }
  return options;
}

/**
 * Chooses how a connection is made.
 *
 * @param calm Whether no option may end the connection other than cleanly.
 */
export function chooseSetup(random: Random, calm: boolean): Setup {
  const chop = random.once(4) ? random.pick([1, 1, 2, 7, 100, 5000]) : 0;
  const carrier = random.once(8) ? random.pick(["tcp", "proxy"] as const) : "memory";
  return {
    carrier,
    client: random.once(6) ? "stream" : "connect",
    chop,
    join: random.once(4),
    // Delayed single bytes would take too long.
    delay: !calm && (chop === 0 || chop >= 100) && random.once(8) ? random.pick([1, 3, 30]) : 0,
    capacity: random.pick([65536, 65536, 65536, 1000, 0, 1_000_000]),
    options: [chooseOptions(random, calm), chooseOptions(random, calm)],
    abortAfter: !calm && random.once(40) ? random.below(12) : undefined,
  };
}

/** Options that may end a connection other than cleanly. */
const TROUBLESOME = [
  "maxMessageSize",
  "maxFrameSize",
  "maxControlFramesPerSecond",
  "slow",
  "pingTimeout",
  "openTimeout",
];

function isTroublesome(name: string, value: unknown): boolean {
  if (TROUBLESOME.includes(name) || value === thrower) return true;
  // A Close frame may wait for a message that takes many turns.
  if (name === "closeTimeout") return (value as number) > 0 && (value as number) < 1000;
  const { size } = Object(value) as { size?: () => number };
  return size !== undefined && !isSize(size);
}

function isSize(size: () => number): boolean {
  try {
    return size() >= 0;
  } catch {
    return false;
  }
}

function noteTrouble({ options, delay }: Setup, world: World): void {
  for (const [name, value] of options.flatMap((own) => Object.entries(own))) {
    if (isTroublesome(name, value)) world.trouble.add(name);
  }
  // A long message is cut into many pieces, each of which is delayed.
  if (delay > 0) world.trouble.add("delay");
}

/** Opens the connection, and returns whether it is open. Tracks the errors otherwise. */
export async function openPair(setup: Setup, world: World): Promise<boolean> {
  noteTrouble(setup, world);
  const watched = world.signal();
  if (setup.abortAfter !== undefined) {
    world.trouble.add("opening aborted");
    void world.clock.turns(setup.abortAfter).then(() => {
      const reason = world.fault("the opening is given up");
      watched.controller.abort(reason);
    });
  }
  const open = setup.carrier === "memory" ? openInMemory : openOverTcp;
  const ends = await open(setup, world, watched.signal);
  const openings = ends.map((end, i) => world.track(`opening of the ${NAMES[i]}`, end, OPENING));
  // If one end has given up, the other end may wait forever, depending on its options.
  await world.clock.settle(() => openings.every(({ state }) => state !== "pending"), true);
  const mayFail = world.trouble.has("openTimeout") || world.trouble.has("opening aborted");
  const isOpen = openings.every(({ state }) => state === "resolved");
  for (const { what, state, error } of openings) {
    if (state === "resolved" || mayFail) continue;
    world.broken.push(`${what}: ${state === "pending" ? state : describe(error)}`);
  }
  for (const end of ends) {
    // An end that opens too late is closed.
    end.then((user) => {
      if (isOpen) world.users.push(user);
      else user.ws.terminate();
    }, () => {});
  }
  world.line ??= world.proxy?.line;
  if (!isOpen) world.line?.close();
  await world.clock.turns(1);
  return isOpen;
}

const NAMES = ["client", "server"] as const;
/** The errors with which an opening may fail. */
const OPENING = ["HandshakeError"];

type Opened = [Promise<User>, Promise<User>];

function openClient(
  { client, options: [options] }: Setup,
  world: World,
  url: string,
  signal: AbortSignal,
  provider?: TransportProvider,
): Promise<User> {
  const all = { ...options, signal, ...(provider === undefined ? {} : { provider }) };
  if (client === "connect") {
    return connect(url, all).then((ws) => new User("client", ws, world));
  }
  const stream = new WebSocketStream(url, all);
  world.track("closed of the stream", stream.closed);
  return stream.opened.then(({ connection }) => {
    const user = new User("client", connection, world);
    user.closeStream = (info) => stream.close(info);
    return user;
  });
}

/** Makes a provider that returns an existing transport. */
function providerOf(transport: Transport): TransportProvider {
  return {
    connect: () => Promise.resolve(transport),
    listen: () => Promise.reject(new Error("Nothing listens here")),
  };
}

function openInMemory(setup: Setup, world: World, signal: AbortSignal): Promise<Opened> {
  const { line, ends: [near, far] } = memoryLine(setup, setup.capacity, world.clock);
  world.line = line;
  const server = accept(far, setup.options[1]).then((ws) => new User("server", ws, world));
  const client = openClient(setup, world, "ws://localhost/", signal, providerOf(near));
  return Promise.resolve([client, server]);
}

async function openOverTcp(setup: Setup, world: World, signal: AbortSignal): Promise<Opened> {
  let onConnection!: (user: User) => void;
  const accepted = new Promise<User>((resolve) => onConnection = resolve);
  const server = await serve(
    { ...setup.options[1], onError: (error) => void world.reported.push(error) },
    (ws) => {
      const user = new User("server", ws, world);
      const handled = new Promise<void>((resolve, reject) => {
        user.endHandler = (error) => error === undefined ? resolve() : reject(error);
        world.endHandlers.push(resolve);
      });
      onConnection(user);
      return handled;
    },
  );
  world.server = server;
  let { port } = server.address as { port: number };
  if (setup.carrier === "proxy") {
    world.proxy = await TcpLine.to(port, setup, world.clock);
    port = world.proxy.port;
  }
  const client = openClient(setup, world, `ws://127.0.0.1:${port}/`, signal);
  // Without a client, the server has no connection either.
  return [client, client.then(() => accepted)];
}

/** Closes the listeners. */
export async function closeServer(world: World): Promise<void> {
  for (const end of world.endHandlers) end();
  await world.server?.shutdown();
  await world.proxy?.close();
}

/** Describes the differences to the plainest setup in a few words. */
export function describeSetup(setup: Setup): string {
  const parts: string[] = [setup.carrier, setup.client];
  for (const name of ["chop", "join", "delay", "capacity", "abortAfter"] as const) {
    if (setup[name] !== PLAIN[name]) parts.push(`${name} ${setup[name]}`);
  }
  for (const [i, options] of setup.options.entries()) {
    if (Object.keys(options).length === 0) continue;
    parts.push(`${i === 0 ? "client" : "server"} ${JSON.stringify(options, replacer)}`);
  }
  return parts.join(", ");
}

function replacer(_: string, value: unknown): unknown {
  return typeof value === "function" ? `${value}` : value === Infinity ? "Infinity" : value;
}
