/** Runs a plan: a server, its clients and the network between them, in simulated time. */
import { drainMicrotasks, SimulatedTime } from "./time.ts";
import process from "node:process";
import {
  type Address,
  broadcast,
  connect,
  type ConnectOptions,
  type HandshakeError,
  type Message,
  reconnect,
  serve,
  type Server,
  type WebSocketConnection,
} from "../../mod.ts";
import { concat } from "../../tests/bytes.ts";
import { watchedSignal } from "../../tests/resources.ts";
import { Random } from "../fuzz/random.ts";
import { replaceThreads } from "../fuzz/threads.ts";
import { findBroken } from "./invariants.ts";
import { messageOf } from "./message.ts";
import { addressText, type End, type Line, Network } from "./network.ts";
import {
  type ClientPlan,
  type Incident,
  makePlan,
  MOST_ATTEMPTS,
  PATIENT,
  type Service,
} from "./plan.ts";
import { type ProxyKind, proxyUrl, runProxy } from "./proxy.ts";
import { type Attempt, describe, Half, mix, World } from "./world.ts";

const PORT = 80;

/** The result of one simulation. */
export interface Life {
  /** The number of connections that were opened. */
  connections: number;
  /** The simulated time that has passed, in milliseconds. */
  duration: number;
  /** How its connections have ended, with the number of times. */
  ends: Map<string, number>;
  /** The broken invariants, one per line. */
  broken: string[];
  /** A hash of all events. */
  hash: number;
  /** Whether connections may be compressed. Then the hash depends on the platform's zlib. */
  isCompressed: boolean;
  /** The plan and the events, if they were recorded. */
  trace: string[];
}

/** Unhandled rejections. */
const unhandled: unknown[] = [];

/**
 * Runs the simulation of a seed.
 *
 * @param traced Whether the events are recorded.
 */
export async function live(seed: number, traced = false): Promise<Life> {
  const random = new Random(seed);
  const plan = makePlan(random);
  const time = new SimulatedTime(seed);
  const world = new World(plan, time, traced);
  const noteBytes = (length: number, to: Address) => {
    world.count(mix(length, to.transport === "tcp" ? to.port : 0));
    if (traced) world.record(`${length} bytes to ${addressText(to)}`);
  };
  world.network = new Network(time, random, () => plan.line, (text) => world.say(text), noteBytes);
  const note = (error: unknown) => void unhandled.push(error);
  process.on("unhandledRejection", note);
  // A thread takes a time that depends on its work only.
  const restoreThreads = replaceThreads((work) => time.sleep(work));
  try {
    await time.run(() => new Program(world).run());
    // The platforms report unhandled rejections after all microtasks have run.
    for (let i = 0; i < 2; i++) await drainMicrotasks();
  } catch (error) {
    world.broken.push(`the run failed: ${(error as Error)?.stack ?? error}`);
  } finally {
    restoreThreads();
    process.off("unhandledRejection", note);
  }
  world.timersLeft ||= time.timers;
  for (const error of unhandled.splice(0)) world.broken.push(`unhandled: ${describe(error)}`);
  return {
    connections: world.halves.filter(({ name }) => name.startsWith("client")).length,
    duration: time.now,
    ends: countEnds(world),
    broken: findBroken(world),
    hash: world.hash,
    isCompressed: plan.server.compression !== undefined,
    trace: [JSON.stringify(plan, replacer), ...world.trace ?? []],
  };
}

function replacer(_: string, value: unknown): unknown {
  return value === Infinity ? "Infinity" : value;
}

function countEnds({ halves, attempts }: World): Map<string, number> {
  const ends = new Map<string, number>();
  const count = (end: string) => ends.set(end, (ends.get(end) ?? 0) + 1);
  for (const { closed, error } of halves) {
    count(closed === "failed" ? `${(error as { closeCode?: number }).closeCode}` : closed);
  }
  for (const { error } of attempts) {
    if (error !== undefined) count((error as HandshakeError).code ?? (error as Error).name);
  }
  return ends;
}

/** The programs of all machines in the simulation. */
class Program {
  readonly #world: World;
  readonly #time: SimulatedTime;
  #server!: Server;
  #lastId = 0;
  /** The names and lines of the connections that clients make, by the id in their URL. */
  readonly #halves = new Map<string, { client?: Half; server?: Half }>();

  constructor(world: World) {
    this.#world = world;
    this.#time = world.time;
  }

  async run(): Promise<void> {
    const { plan, network } = this.#world;
    this.#server = await serve(
      {
        ...plan.server,
        hostname: "server",
        port: PORT,
        provider: network.machine("server"),
        onRequest: plan.openPause === undefined ? undefined : () => this.#pause(plan.openPause!),
        onError: (error) => void this.#world.reported.push(error),
      },
      (ws) => this.#handle(ws),
    );
    const proxies = await Promise.all(
      (["http", "socks5"] as const).map((kind) =>
        runProxy(kind, `${kind}-proxy`, network.machine(`${kind}-proxy`))
      ),
    );
    for (const incident of plan.incidents) void this.#meet(incident);
    const clients = Promise.all(plan.clients.map((client, i) => this.#runClient(client, i)));
    await Promise.race([clients, this.#time.sleep(plan.shutdownAt)]);
    await this.#shutDown();
    await Promise.race([clients, this.#time.sleep(PATIENT)]);
    // A connection on a dead line without pings would wait forever.
    for (const half of this.#world.halves) if (half.closed === "pending") half.terminate();
    await clients;
    for (const proxy of proxies) await proxy.close();
    await this.#time.sleep(1);
    const ends = this.#world.network.lines.flatMap(({ ends }) => ends);
    if (ends.every(({ closed }) => closed)) this.#world.timersLeft = this.#time.timers;
    // Transports may need as long as the longest timeout to end.
    if (this.#time.timers > 0) await this.#time.sleep(PATIENT);
    this.#world.say("the end");
  }

  async #shutDown(): Promise<void> {
    this.#world.say("the server shuts down");
    const shutdown: World["shutdown"] = { at: this.#time.now, finishedAt: undefined };
    this.#world.shutdown = shutdown;
    await this.#world.track("shutdown()", this.#server.shutdown(this.#world.plan.shutdown));
    shutdown.finishedAt = this.#time.now;
    this.#world.say("the server has shut down");
  }

  // The incidents

  async #meet(incident: Incident): Promise<void> {
    await this.#time.sleep(incident.at);
    // An incident on a closed line would test nothing.
    const lines = this.#world.network.lines.filter(({ ends }) =>
      ends.some(({ closed }) => !closed)
    );
    if (incident.what === "standstill") this.#time.standStill(incident.duration);
    else if (incident.what === "wall clock") this.#time.setWallClock(incident.difference);
    else if (lines.length === 0) return;
    else {
      const line = lines[incident.line % lines.length];
      if (incident.what === "stall") line.standStill(incident.duration);
      else if (incident.what === "zero window") line.closeWindow(incident.way, incident.duration);
      else line.break(incident.how, incident.way);
    }
    this.#world.say(`incident: ${JSON.stringify(incident)}`);
  }

  // The clients

  async #runClient(plan: ClientPlan, index: number): Promise<void> {
    const world = this.#world;
    await this.#time.sleep(plan.startsAt);
    const lines: Line[] = [];
    const attempts: Attempt[] = [];
    const begin = () => {
      const id = `${this.#lastId++}`;
      attempts.push({
        name: `client ${index} attempt ${id}`,
        startedAt: this.#time.now,
        endedAt: undefined,
        openTimeout: plan.options.openTimeout ?? 10_000,
        error: undefined,
        lines,
      });
      world.attempts.push(attempts.at(-1)!);
      return `ws://server:${PORT}/${plan.service.replaceAll(" ", "-")}/${id}`;
    };
    const end = (error?: unknown) => {
      Object.assign(attempts.at(-1)!, { endedAt: this.#time.now, error });
    };
    const { signal, listeners } = watchedSignal();
    world.listeners.push(listeners);
    const options: ConnectOptions = {
      ...plan.options,
      signal,
      provider: world.network.machine(`client${index}`, (line) => void lines.push(line)),
      ...(plan.proxy === undefined ? {} : { proxy: proxyOf(plan.proxy) }),
    };
    const use = async (ws: WebSocketConnection) => {
      end();
      const id = ws.request.url.split("/").at(-1)!;
      const half = new Half(`client ${index} (${id})`, world, ws, lines.at(-1)?.ends[0]);
      this.#pair(id, { client: half });
      await this.#use(half, plan);
    };
    try {
      if (plan.connections === 0) {
        const url = begin();
        await use(await world.track(`client ${index}: connect()`, connect(url, options)));
      } else await this.#reconnect(plan, index, options, begin, end, use);
    } catch (error) {
      end(error);
      if (plan.connections > 0) {
        const failed = attempts.length - 1 -
          attempts.findLastIndex(({ error }) => error === undefined);
        world.givenUp.push({ name: `client ${index}`, error, failed });
      }
      world.say(`client ${index} gives up: ${describe(error)}`);
    }
  }

  async #reconnect(
    plan: ClientPlan,
    index: number,
    options: ConnectOptions,
    begin: () => string,
    end: (error: unknown) => void,
    use: (ws: WebSocketConnection) => Promise<void>,
  ): Promise<void> {
    const world = this.#world;
    let left = plan.connections;
    const name = `client ${index}`;
    const url = () => {
      const retry = world.retries.findLast((retry) => retry.name === name);
      if (retry !== undefined) retry.nextAt ??= this.#time.now;
      return begin();
    };
    const connections = reconnect(url, {
      ...options,
      minDelay: 100,
      maxDelay: 5000,
      maxAttempts: MOST_ATTEMPTS,
      onRetry: ({ error, delay }) => {
        if (error !== undefined) end(error);
        world.retries.push({ name, at: this.#time.now, delay, nextAt: undefined });
      },
    });
    for await (const ws of connections) {
      await use(ws);
      if (--left <= 0) break;
    }
  }

  #pair(id: string, half: { client?: Half; server?: Half }): void {
    const both = Object.assign(this.#halves.get(id) ?? {}, half);
    this.#halves.set(id, both);
    if (both.client === undefined || both.server === undefined) return;
    both.client.peer = both.server;
    both.server.peer = both.client;
  }

  async #use(half: Half, plan: ClientPlan): Promise<void> {
    // The peer's half is known when its handler runs, which may be after the response has arrived.
    const reading = this.#read(half, plan.reading, plan.readPause);
    const { service, sizes, ending } = plan;
    if (service !== "source") {
      for (const [index, size] of sizes.entries()) {
        if (!await half.send(messageOf(index, size))) break;
        await this.#pause(plan.sendPause);
      }
    }
    if (ending === "close when all has come" && isEcho(service)) {
      while (half.closed === "pending" && half.received.length < half.sent.length) {
        await this.#time.sleep(10);
      }
    }
    if (ending === "terminate") half.terminate();
    else if (ending !== "wait for the server" || service === "sink") await half.close(1000);
    await Promise.allSettled([reading, half.ws.closed]);
  }

  async #read(half: Half, reading: ClientPlan["reading"], pause: number): Promise<void> {
    const { ws } = half;
    const take = async (message: Message) => {
      half.receive(message);
      await this.#pause(pause);
    };
    try {
      if (reading === "iterate") { for await (const message of ws) await take(message); }
      else if (reading === "reader") {
        const reader = ws.readable.getReader();
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          await take(value);
        }
      } else if (reading === "messages") {
        for await (const { type, readable } of ws.messages()) {
          const parts: Message[] = [];
          for await (const part of readable as AsyncIterable<Message>) parts.push(part);
          await take(type === "text" ? parts.join("") : concat(parts as Uint8Array[]));
        }
      } else for (;;) await take(await ws.receive());
      half.readEnd = "clean";
    } catch (error) {
      // receive() has no other way to say that all messages were read.
      const isEnd = reading === "receive" && half.closed !== "failed" &&
        half.closeInfo?.received !== undefined;
      half.readEnd = isEnd ? "clean" : "error";
      this.#world.say(`${half.name} reads to ${describe(error)}`);
    }
  }

  async #pause(duration: number): Promise<void> {
    if (duration > 0) await this.#time.sleep(duration);
  }

  // The server

  #handle(ws: WebSocketConnection): Promise<void> {
    const [service, id] = ws.request.url.split("/").slice(-2);
    const half = new Half(`server (${id})`, this.#world, ws, this.#endOf(ws));
    this.#pair(id, { server: half });
    return SERVICE_PROGRAMS[service.replaceAll("-", " ") as Service]({
      half,
      world: this.#world,
      pause: () => this.#pause(this.#world.plan.readPause),
    });
  }

  #endOf({ remoteAddress }: WebSocketConnection): End | undefined {
    const port = remoteAddress?.transport === "tcp" ? remoteAddress.port : undefined;
    const line = this.#world.network.lines.find(({ ends: [client] }) =>
      client.localAddress.transport === "tcp" && client.localAddress.port === port
    );
    return line?.ends[1];
  }
}

function proxyOf(kind: ProxyKind): string {
  return proxyUrl(kind, `${kind}-proxy`);
}

function isEcho(service: Service): boolean {
  return service === "echo by pipe" || service === "echo by loop";
}

interface Context {
  half: Half;
  world: World;
  pause: () => Promise<void>;
}

/** The server program for each service. */
const SERVICE_PROGRAMS: Readonly<Record<Service, (context: Context) => Promise<void>>> = {
  "echo by pipe": async ({ half, pause }) => {
    const noted = new TransformStream<Message, Message>({
      transform: async (message, controller) => {
        half.receive(message);
        await pause();
        half.sent.push({ body: message, state: "unknown" });
        controller.enqueue(message);
      },
    });
    try {
      await half.ws.readable.pipeThrough(noted).pipeTo(half.ws.writable);
      half.readEnd = "clean";
    } catch {
      half.readEnd = "error";
    }
  },
  "echo by loop": async ({ half, pause }) => {
    try {
      for await (const message of half.ws) {
        half.receive(message);
        await pause();
        if (!await half.send(message)) return;
      }
      half.readEnd = "clean";
    } catch {
      half.readEnd = "error";
    }
  },
  sink: (context) => readAll(context, () => {}),
  source: async ({ half, world, pause }) => {
    const { sizes } = world.plan.clients[0];
    for (const [index, size] of sizes.entries()) {
      if (!await half.send(messageOf(index, size))) break;
      await pause();
    }
  },
  room: (context) => {
    context.world.room.add(context.half);
    return readAll(context, (message) => {
      const { half, world } = context;
      const others = [...world.room].filter(({ ws }) => ws.state === "open");
      half.world.say(`${half.name} tells ${others.length}`);
      for (const other of others) other.sent.push({ body: message, state: "unknown" });
      broadcast(others.map(({ ws }) => ws), message, world.plan.broadcast);
    });
  },
};

async function readAll({ half, pause }: Context, take: (message: Message) => void): Promise<void> {
  try {
    for await (const message of half.ws) {
      half.receive(message);
      take(message);
      await pause();
    }
    half.readEnd = "clean";
  } catch {
    half.readEnd = "error";
  }
}
