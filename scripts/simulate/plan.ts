/** Draws the plan of one simulation from its seed. */
import type {
  BroadcastOptions,
  ConnectionOptions,
  ConnectOptions,
  ServeOptions,
  ShutdownOptions,
} from "../../mod.ts";
import type { Random } from "../fuzz/random.ts";
import { type Break, BREAKS, type LineOptions } from "./network.ts";
import type { ProxyKind } from "./proxy.ts";

/** The ways in which a server handles a connection. */
export const SERVICES = ["echo by pipe", "echo by loop", "sink", "source", "room"] as const;
export type Service = typeof SERVICES[number];

/** The ways in which a client reads. */
export const READINGS = ["iterate", "receive", "reader", "messages"] as const;

/** The ways in which a client ends. */
export const ENDINGS = [
  "close when all has come",
  "close at once",
  "terminate",
  "wait for the server",
] as const;

/** The actions of one client. */
export interface ClientPlan {
  service: Service;
  proxy: ProxyKind | undefined;
  /** The number of connections that it makes, one after another, if it reconnects. */
  connections: number;
  startsAt: number;
  /** The lengths of the messages to send on each connection. */
  sizes: number[];
  /** Pause after each message sent and after each message read, in milliseconds. */
  sendPause: number;
  readPause: number;
  reading: typeof READINGS[number];
  ending: typeof ENDINGS[number];
  options: ConnectOptions;
}

/** An event that neither the server nor a client causes. */
export type Incident =
  | { at: number; what: "break"; how: Break; way: 0 | 1; line: number }
  | { at: number; what: "stall"; duration: number; line: number }
  | { at: number; what: "zero window"; duration: number; way: 0 | 1; line: number }
  | { at: number; what: "standstill"; duration: number }
  | { at: number; what: "wall clock"; difference: number };

/** The plan of a simulation. */
export interface Plan {
  /** Whether nothing may go wrong: there are no incidents, and the limits are high. */
  calm: boolean;
  line: LineOptions;
  server: Omit<ServeOptions, "port" | "hostname">;
  /** Pause of the server after each message read, in milliseconds. */
  readPause: number;
  /** Duration of the hook `onRequest`, if there is one, in milliseconds. */
  openPause: number | undefined;
  broadcast: BroadcastOptions;
  clients: ClientPlan[];
  incidents: Incident[];
  /** When the server shuts down, unless all clients have left before. */
  shutdownAt: number;
  shutdown: ShutdownOptions;
}

/** The periods in which incidents happen and clients start, in milliseconds. */
const MOST_TIMES = [20, 500, 10_000, 60_000];
/** Timeouts that may expire, in milliseconds. */
const TIMEOUTS = [1, 100, 3000];
/** Longer than any operation takes, in milliseconds. */
export const PATIENT = 3_600_000;
const SHORT = [0, 1, 20, 125, 126, 1000, 4000];
/** Some of these are so long that threads compress them. */
const LONG = [20_000, 65_535, 65_536, 150_000];

/** The option `maxAttempts` of clients that reconnect. */
export const MOST_ATTEMPTS = 5;

/** A number of long messages that exceeds every buffer. */
const FLOOD = 24;

/** The clients of a crowd have short lives, so that many of them fit into one simulation. */
const CROWD = { least: 20, most: 80, messages: 3, incidents: 40 };

function planLine(random: Random, calm: boolean, crowded: boolean): LineOptions {
  return {
    latency: random.pick(calm ? [0, 1, 20, 80] : [0, 1, 20, 80, 300, 2000]),
    jitter: random.pick([0, 0, 5, 50]),
    bandwidth: random.pick([Infinity, Infinity, 12_500, 1000, 100, 10]),
    // The bytes of a crowd would be too many one by one.
    segment: random.pick([Infinity, Infinity, 1460, 50, crowded ? 200 : 1]),
    sendBuffer: random.pick([65_536, 65_536, 4096, 0]),
    receiveBuffer: random.pick([65_536, 65_536, 4096, 500]),
  };
}

function planOptions(random: Random, calm: boolean): ConnectionOptions {
  const options: ConnectionOptions = {};
  if (random.once(3)) options.pingInterval = random.pick([0, 50, 1000, 5000]);
  // In a calm run, a line may be so slow that the defaults would be too short.
  if (calm || random.once(3)) options.pingTimeout = random.pick(calm ? [0, PATIENT] : TIMEOUTS);
  // Pings that overtake nothing: a pong may come later than the timeout, after much data.
  if (!calm && random.once(4)) {
    options.pingInterval = random.pick([50, 1000]);
    options.pingTimeout = random.pick([100, 3000]);
  }
  if (calm || random.once(3)) options.closeTimeout = random.pick(calm ? [0, PATIENT] : TIMEOUTS);
  if (calm || random.once(3)) options.openTimeout = random.pick(calm ? [0, PATIENT] : TIMEOUTS);
  if (random.once(4)) options.readableStrategy = { highWaterMark: random.pick([0, 1, 1000]) };
  if (random.once(6)) options.maxBufferedAmount = random.pick([0, 1000, 100_000]);
  if (!calm && random.once(6)) options.slow = random.pick(["close", "terminate"] as const);
  return options;
}

const COMPRESSIONS = [
  true,
  { threshold: 0 },
  { threshold: 0, serverNoContextTakeover: true },
  { threshold: 100, memory: "low" },
] as const;

function planSizes(random: Random): number[] {
  if (random.once(10)) return Array(FLOOD).fill(20_000);
  const sizes = random.list(8, () => random.pick(SHORT));
  for (const size of random.list(random.once(2) ? 2 : 0, () => random.pick(LONG))) {
    sizes.splice(random.below(sizes.length + 1), 0, size);
  }
  return sizes;
}

/** The settings that the clients of a simulation have in common. */
interface Common {
  calm: boolean;
  compressed: boolean;
  crowded: boolean;
  /** The period in which the clients start, in milliseconds. */
  most: number;
}

function planClient(random: Random, common: Common, index: number): ClientPlan {
  const { calm, compressed, crowded, most } = common;
  // Each member of a room gets the messages of all.
  const services = crowded && index > 4
    ? SERVICES.filter((service) => service !== "room")
    : SERVICES;
  const service = random.pick(services);
  const reconnects = random.once(3);
  const endings = calm ? ENDINGS.filter((ending) => ending !== "terminate") : ENDINGS;
  return {
    service,
    proxy: random.pick([undefined, undefined, undefined, "http", "socks5"] as const),
    connections: reconnects ? 1 + random.below(4) : 0,
    startsAt: random.below(most),
    sizes: crowded ? random.list(CROWD.messages, () => random.pick(SHORT)) : planSizes(random),
    sendPause: random.pick([0, 0, 0, 1, 50, 500]),
    readPause: random.pick([0, 0, 0, 1, 50, 500]),
    reading: random.pick(READINGS),
    ending: random.pick(endings),
    options: {
      ...planOptions(random, calm),
      ...(compressed ? { compression: random.pick(COMPRESSIONS) } : {}),
    },
  };
}

function planIncident(random: Random, most: number, lines: number): Incident {
  const at = random.below(2 * most);
  const line = random.below(lines);
  switch (random.below(7)) {
    case 0:
      return { at, what: "standstill", duration: random.pick([10, 200, 3000, 60_000]) };
    case 1:
      return { at, what: "wall clock", difference: random.pick([-1e9, -5000, 5000, 1e9]) };
    case 2:
      return {
        at,
        what: "stall",
        duration: random.pick([10, 300, 5000, 120_000]),
        line,
      };
    case 3:
      return {
        at,
        what: "zero window",
        duration: random.pick([300, 5000, 120_000]),
        way: random.pick([0, 1] as const),
        line,
      };
    default:
      return {
        at,
        what: "break",
        how: random.pick(BREAKS),
        way: random.pick([0, 1] as const),
        line,
      };
  }
}

/** Draws a plan. */
export function makePlan(random: Random): Plan {
  const calm = random.once(3);
  const most = random.pick(MOST_TIMES);
  const compressed = random.once(3);
  const crowded = random.once(2);
  const count = crowded
    ? CROWD.least + random.below(CROWD.most - CROWD.least)
    : 1 + random.below(4);
  const incidents = crowded ? CROWD.incidents : 5;
  const server: Plan["server"] = planOptions(random, calm);
  if (compressed) server.compression = random.pick(COMPRESSIONS);
  if (!calm && random.once(6)) server.maxConnections = random.below(count);
  if (!calm && random.once(6)) server.maxLifetime = random.pick([1, 100, 5000]);
  return {
    calm,
    line: planLine(random, calm, crowded),
    server,
    readPause: random.pick([0, 0, 0, 1, 50, 500]),
    openPause: random.pick([undefined, undefined, undefined, 0, 50, 2000]),
    broadcast: {
      maxBufferedAmount: random.pick([0, 1000, 1_048_576]),
      slow: random.pick(["close", "terminate", "drop-newest", "drop-oldest"] as const),
    },
    clients: Array.from(
      { length: count },
      (_, index) => planClient(random, { calm, compressed, crowded, most }, index),
    ),
    incidents: calm ? [] : random.list(incidents, () => planIncident(random, most, 2 * count)),
    shutdownAt: most + random.pick([0, 100, 30_000, 300_000]),
    shutdown: calm ? { timeout: Infinity } : random.pick([{}, { timeout: 100 }, { timeout: 5000 }]),
  };
}
