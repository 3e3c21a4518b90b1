/**
 * A server under load: many idle connections, many that send, one that does not read, and a flood of bad
 * handshakes. Then the server shuts down. The suite uses some connections, `deno task soak` many.
 */
import assert from "node:assert/strict";
import { connect as connectSocket } from "node:net";
import process from "node:process";
import { connect, serve, type WebSocketConnection } from "../mod.ts";
import { portOf, rejection, turn, until } from "./support.ts";

/** The server's report on itself. */
export interface LoadStatus {
  /** The number of open connections. */
  connections: number;
  /** The most bytes that waited for the connection that does not read. */
  waited: number;
  /** Resident memory, in bytes. */
  rss: number;
}

/** The server under load, in this process or in another one. */
export interface LoadServer {
  readonly port: number;
  status(): Promise<LoadStatus>;
  /** Shuts the server down. Rejects if an error was reported to the server, or if a connection is left. */
  shutdown(): Promise<void>;
}

/** The amount of load. */
export interface LoadOptions {
  /** The number of connections that do nothing. */
  idle: number;
  /** The number of connections that send all the time. */
  active: number;
  /** The duration, in seconds. */
  seconds: number;
  /** Called before memory is measured. Default: does nothing */
  collect?: () => void;
}

/** The results of the load. */
export interface LoadReport {
  /** The number of connections that were open at once. */
  connections: number;
  /** The number of messages sent. Each was echoed in order. */
  messages: number;
  /** The number of refused handshakes, and of successful ones between them. */
  bad: number;
  good: number;
  /** The most bytes that waited at the server for the connection that does not read. */
  waited: number;
  /** Resident memory of the server and of the clients, in bytes. */
  rss: Record<"server" | "clients", Growth>;
}

/** A number at the start of the load, after a third of it when the number is stable, and at the end. */
export interface Growth {
  before: number;
  settled: number;
  after: number;
}

const OPTIONS = { openTimeout: 60_000, closeTimeout: 60_000, pingInterval: 0 };
/** The number of messages of a connection that are in flight. */
const WINDOW = 4;
/** The number of connections that are opened at once. */
const OPENING = 50;
/** The most bytes a server may hold for a connection: 64 KiB and the messages that exceed it. */
const MOST_WAITING = 65536 + 2 * 4096;

const BAD = [
  "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
  "\x16\x03\x01\x02\x00\x01\x00",
  "GET / HTTP/1.1\nHost: a\n\n",
  `GET /${"a".repeat(20_000)}`,
  "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nHost: a\r\n\r\n",
];

/** A client that sends numbered messages, and expects them back in order. */
class Numbered {
  readonly ws: WebSocketConnection;
  sent = 0;
  received = 0;
  #stopped = false;

  constructor(ws: WebSocketConnection) {
    this.ws = ws;
  }

  /** Sends until it is stopped or the connection ends. Checks each message that comes back. */
  async run(): Promise<void> {
    for await (const message of this.ws) {
      assert.equal(message, this.#message(this.received), "A message is lost, or changed");
      this.received++;
      await this.#send();
      if (this.#stopped && this.received === this.sent) return;
    }
  }

  /** Sends the first messages. Each echo is then followed by the next message. */
  async begin(): Promise<void> {
    for (let i = 0; i < WINDOW; i++) await this.#send();
  }

  stop(): void {
    this.#stopped = true;
  }

  async #send(): Promise<void> {
    if (this.#stopped || this.ws.state !== "open") return;
    await this.ws.send(this.#message(this.sent++)).catch(() => {});
  }

  #message(index: number): string {
    return `${index} ${"x".repeat((index * 37) % 500)}`;
  }
}

/**
 * Starts the server in this process.
 *
 * @param collect Called before memory is measured
 */
export async function startLoadServer(collect: () => void = () => {}): Promise<LoadServer> {
  const errors: unknown[] = [];
  let waited = 0;
  const server = await serve({ ...OPTIONS, onError: (error) => errors.push(error) }, async (ws) => {
    if (!ws.request.url.endsWith("/flood")) return await ws.readable.pipeTo(ws.writable);
    // Sends to the connection that does not read, until it is closed.
    for (;;) {
      const sending = ws.send("x".repeat(4096));
      waited = Math.max(waited, ws.bufferedAmount);
      await sending;
    }
  });
  const status = () => {
    collect();
    return { connections: server.connections.size, waited, rss: process.memoryUsage().rss };
  };
  return {
    port: portOf(server),
    status: () => Promise.resolve(status()),
    async shutdown() {
      await server.shutdown();
      assert.equal(server.connections.size, 0);
      assert.deepEqual(errors, []);
    },
  };
}

async function open(url: string, count: number): Promise<WebSocketConnection[]> {
  const opened: WebSocketConnection[] = [];
  while (opened.length < count) {
    const some = Math.min(OPENING, count - opened.length);
    opened.push(
      ...await Promise.all(Array.from({ length: some }, () => connect(url, OPTIONS))),
    );
  }
  return opened;
}

/** Puts a server under load, and returns the results. */
export async function underLoad(
  { idle, active, seconds, collect = () => {} }: LoadOptions,
  server: LoadServer,
): Promise<LoadReport> {
  const url = `ws://127.0.0.1:${server.port}/`;
  const idlers = await open(url, idle);
  const clients = (await open(url, active)).map((ws) => new Numbered(ws));
  const sleeper = await connect(`${url}flood`, OPTIONS);
  assert.equal((await server.status()).connections, idle + active + 1);
  const running = clients.map((client) => client.run());
  for (const run of running) run.catch(() => {});
  await Promise.all(clients.map((client) => client.begin()));
  const flood = new Flood(server.port);
  const sample = async () => {
    collect();
    return [(await server.status()).rss, process.memoryUsage().rss];
  };
  const before = await sample();
  await flood.last(seconds / 3);
  const settled = await sample();
  await flood.last(seconds * 2 / 3);
  const after = await sample();
  const rss = { server: growth(0), clients: growth(1) };
  function growth(which: number): Growth {
    return { before: before[which], settled: settled[which], after: after[which] };
  }

  // All clients have made progress, in spite of the sleeper and the flood.
  const counts = clients.map(({ received }) => received);
  await until(() => clients.every(({ received }, i) => received > counts[i]));
  const { waited } = await server.status();
  assert.ok(waited > 0 && waited <= MOST_WAITING, `${waited} bytes waited`);
  const half = clients.slice(0, active / 2);
  for (const client of half) client.stop();
  await Promise.all(running.slice(0, active / 2));
  for (const { sent, received } of half) assert.equal(received, sent, "Messages are lost");
  await Promise.all(idlers.map(async (ws) => {
    await ws.send("still there");
    assert.equal(await ws.receive(), "still there");
  }));

  // The other half continues to send while the server shuts down.
  const cut = rejection(sleeper.closed);
  const shutdown = server.shutdown();
  sleeper.terminate();
  const all = [...idlers, ...clients.map(({ ws }) => ws)];
  const closed = await Promise.all(all.map((ws) => ws.closed));
  assert.ok(closed.every(({ closeCode }) => closeCode === 1001), "Each was told why");
  await Promise.all([shutdown, cut, ...running]);
  return {
    connections: idle + active + 1,
    messages: clients.reduce((sum, { received }) => sum + received, 0),
    bad: flood.bad,
    good: flood.good,
    waited,
    rss,
  };
}

/** Sends bad handshakes, and a good one now and then. */
class Flood {
  bad = 0;
  good = 0;
  readonly #port: number;

  constructor(port: number) {
    this.#port = port;
  }

  /** Runs for this many seconds. */
  async last(seconds: number): Promise<void> {
    const ends = Date.now() + seconds * 1000;
    while (Date.now() < ends) await this.#next();
  }

  async #next(): Promise<void> {
    const knocking = Array.from({ length: 20 }, (_, i) => this.#knock(BAD[i % BAD.length]));
    const ws = await connect(`ws://127.0.0.1:${this.#port}/`, OPTIONS);
    await ws.send("good");
    assert.equal(await ws.receive(), "good");
    await ws.close();
    this.good++;
    await Promise.all(knocking);
    await turn();
  }

  #knock(request: string): Promise<void> {
    const socket = connectSocket({ host: "127.0.0.1", port: this.#port });
    socket.on("error", () => {});
    socket.on("data", () => {});
    socket.write(request, "latin1");
    return new Promise((resolve) =>
      socket.on("close", () => {
        this.bad++;
        resolve();
      })
    );
  }
}
