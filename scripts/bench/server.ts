/**
 * The measured process: an echo server that runs on each runtime.
 *
 * `server.ts PEER MODE` prints its port on a line; MODE is JSON. It answers an empty line of input with the
 * used CPU time (user and system) in microseconds. It answers "rss" with the resident memory, the engine's
 * memory and the largest resident memory so far, in bytes, and "memory" with the same without garbage.
 * Before it answers "age", V8 moves all objects in use out of the young generation. It ends when its standard
 * input ends.
 */
import process from "node:process";
import { createInterface } from "node:readline";
import type { ServeOptions, TlsServeOptions, TransportProvider } from "../../mod.ts";
import { loadHttp2, loadLibrary, loadNode, loadTopics } from "./library.ts";
import type { ServerMode } from "./workload.ts";

const HOST = { hostname: "127.0.0.1", port: 0 };
const [, , peer, modeText] = process.argv;
const mode: ServerMode = JSON.parse(modeText ?? "{}");
const { work } = mode;
const isFanOut = work === "fanout";

/** Milliseconds between the pings of a connection. */
const PING_INTERVAL = 2000;

/** The load does not answer pings, and would count them as echoes. ws sends no pings by default either. */
const OPTIONS = {
  ...HOST,
  pingInterval: work === "keepalive" ? PING_INTERVAL : 0,
  maxMessageSize: work === "huge" ? Infinity : 2 ** 27,
  maxControlFramesPerSecond: Infinity,
  compression: compression(),
};

/** The ways to echo. Only the measured library is loaded. */
const PEERS: Record<string, () => Promise<number>> = {
  loop: serveLoop,
  batches: serveBatches,
  topics: serveTopics,
  pipe: servePipe,
  http2: serveHttp2,
  ws: serveWs,
  bufferutil: serveBufferutil,
  native: serveNative,
  tcp: async () => await (await import("./raw_tcp.ts")).serveTcp(isFanOut, tls),
};

/** The sockets of our peers. */
const TRANSPORTS: Record<string, () => Promise<TransportProvider | undefined>> = {
  default: () => Promise.resolve(undefined),
  node: async () => (await loadNode()).nodeProvider,
};

type Compression = Exclude<ServeOptions["compression"], true | undefined>;

function compression(): Compression {
  if (mode.deflate === undefined) return false;
  const { level, takeover } = mode.deflate;
  const without = { clientNoContextTakeover: !takeover, serverNoContextTakeover: !takeover };
  return { memory: "high", threshold: 0, level, ...without };
}

function deflateOfWs() {
  const { compression } = OPTIONS;
  if (compression === false) return false;
  const { level, threshold, clientNoContextTakeover, serverNoContextTakeover } = compression;
  const zlibDeflateOptions = { level, memLevel: 8 };
  return { zlibDeflateOptions, threshold, clientNoContextTakeover, serverNoContextTakeover };
}

async function serveLoop(): Promise<number> {
  if (isFanOut) return await serveBroadcast();
  if (work === "huge") return await serveHuge();
  const { serve } = await loadLibrary();
  const server = await serve({ ...OPTIONS, tls, provider: transport }, async (ws) => {
    for await (const message of ws) await ws.send(message);
  });
  return portOf(server.address);
}

async function serveBatches(): Promise<number> {
  const { serve } = await loadLibrary();
  const server = await serve({ ...OPTIONS, tls, provider: transport }, async (ws) => {
    for await (const messages of ws.batches()) await ws.sendAll(messages);
  });
  return portOf(server.address);
}

async function serveBroadcast(): Promise<number> {
  const { broadcast, serve } = await loadLibrary();
  const server = await serve({ ...OPTIONS, provider: transport }, async (ws) => {
    for await (const message of ws) broadcast(server.connections, message);
  });
  return portOf(server.address);
}

/** Reads each message in pieces, and answers with its size. */
async function serveHuge(): Promise<number> {
  const { serve } = await loadLibrary();
  const server = await serve({ ...OPTIONS, provider: transport }, async (ws) => {
    for await (const message of ws.messages()) {
      let size = 0;
      for await (const piece of message.readable) size += piece.length;
      await ws.send(String(size));
    }
  });
  return portOf(server.address);
}

async function serveTopics(): Promise<number> {
  const { serve } = await loadLibrary();
  const { Topics } = await loadTopics();
  const topics = new Topics();
  const server = await serve({ ...OPTIONS, provider: transport }, async (ws) => {
    topics.subscribe(ws, "all");
    for await (const message of ws) void topics.publish("all", message);
  });
  return portOf(server.address);
}

async function servePipe(): Promise<number> {
  const { serve } = await loadLibrary();
  const server = await serve(
    { ...OPTIONS, tls, provider: transport },
    (ws) => ws.readable.pipeTo(ws.writable),
  );
  return portOf(server.address);
}

async function serveHttp2(): Promise<number> {
  const { createServer } = await import("node:http2");
  const { attachHttp2 } = await loadHttp2();
  const server = createServer({ settings: { enableConnectProtocol: true } });
  const { compression, maxMessageSize, pingInterval } = OPTIONS;
  attachHttp2(server, { compression, maxMessageSize, pingInterval }, async (ws) => {
    for await (const message of ws) await ws.send(message);
  });
  await new Promise<void>((resolve) => server.listen({ host: HOST.hostname, port: 0 }, resolve));
  return portOf(server.address());
}

async function serveWs(): Promise<number> {
  const { WebSocketServer } = await import("ws");
  const http = tls
    ? (await import("node:https")).createServer(tls)
    : (await import("node:http")).createServer();
  const maxPayload = OPTIONS.maxMessageSize === Infinity ? 0 : OPTIONS.maxMessageSize;
  const options = { server: http, perMessageDeflate: deflateOfWs(), maxPayload };
  const server = new WebSocketServer(options);
  server.on("connection", (ws) => {
    ws.on("message", (data, binary) => {
      if (work === "huge") return ws.send(String((data as Uint8Array).length));
      if (!isFanOut) return ws.send(data, { binary });
      for (const client of server.clients) client.send(data, { binary });
    });
  });
  if (work === "keepalive") pingAll(server.clients);
  await new Promise<void>((resolve) => http.listen({ host: HOST.hostname, port: 0 }, resolve));
  return portOf(http.address());
}

const MOST_UNANSWERED = 5;

interface Pinged {
  ping(): void;
  terminate(): void;
  on(event: "pong", listener: () => void): unknown;
}

/** The heartbeat that the documentation of ws recommends, but patient enough for a busy machine. */
function pingAll(clients: Set<Pinged>) {
  const unanswered = new WeakMap<Pinged, number>();
  setInterval(() => {
    for (const ws of clients) {
      const pings = unanswered.get(ws);
      if (pings === undefined) ws.on("pong", () => unanswered.set(ws, 0));
      if (pings === MOST_UNANSWERED) ws.terminate();
      unanswered.set(ws, (pings ?? 0) + 1);
      ws.ping();
    }
  }, PING_INTERVAL);
}

/** ws uses its native addon unless an environment variable disables it. */
async function serveBufferutil(): Promise<number> {
  const { mask } = (await import("bufferutil")).default;
  if (!String(mask).includes("[native code]")) {
    throw new Error("bufferutil has no native addon here");
  }
  return await serveWs();
}

interface BunSocket {
  send(data: string | Uint8Array): number;
  subscribe(topic: string): void;
}

interface BunServer {
  port: number;
  upgrade(request: Request): boolean;
  publish(topic: string, data: string | Uint8Array): number;
}

interface BunGlobal {
  serve(options: {
    hostname: string;
    port: number;
    tls?: TlsServeOptions;
    fetch(request: Request, server: BunServer): Response | undefined;
    websocket: Record<string, unknown> & {
      message(ws: BunSocket, data: string | Uint8Array): void;
    };
  }): BunServer;
}

/** The server of the runtime. */
function serveNative(): Promise<number> {
  const { Bun } = globalThis as { Bun?: BunGlobal };
  if (Bun !== undefined) return Promise.resolve(serveBun(Bun));
  const { promise, resolve } = Promise.withResolvers<number>();
  const all = new Set<WebSocket>();
  Deno.serve({ ...HOST, ...tls, onListen: ({ port }) => resolve(port) }, (request) => {
    const { socket, response } = Deno.upgradeWebSocket(request, { idleTimeout: 0 });
    socket.binaryType = "arraybuffer";
    socket.onopen = () => all.add(socket);
    socket.onclose = () => all.delete(socket);
    socket.onmessage = ({ data }) => {
      if (!isFanOut) return socket.send(data);
      for (const other of all) other.send(data);
    };
    return response;
  });
  return promise;
}

function serveBun(bun: BunGlobal): number {
  const server = bun.serve({
    ...HOST,
    tls,
    fetch: (request, server) => server.upgrade(request) ? undefined : new Response(null),
    websocket: {
      idleTimeout: 0,
      sendPings: false,
      maxPayloadLength: 2 ** 27,
      backpressureLimit: 2 ** 27,
      open: (ws: BunSocket) => ws.subscribe("all"),
      message: isFanOut
        ? (_, data) => void server.publish("all", data)
        : (ws, data) => void ws.send(data),
    },
  });
  return server.port;
}

async function certificate(): Promise<TlsServeOptions> {
  return (await (await import("../../tests/certificates.ts")).certificates()).leaf;
}

function portOf(address: object | string | null): number {
  if (typeof address === "object" && address && "port" in address) return Number(address.port);
  throw new TypeError("Expected an address with a port");
}

function cpuTime(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

function collectGarbage() {
  const { gc, Bun } = globalThis as { gc?: () => void; Bun?: { gc(force: boolean): void } };
  for (let again = 0; again < 4; again++) Bun === undefined ? gc?.() : Bun.gc(true);
}

/** Collects the young generation twice: V8 then moves all objects in use to the old one. */
function age() {
  const { gc } = globalThis as { gc?(options: { type: "minor" }): void };
  for (let i = 0; i < 2; i++) gc?.({ type: "minor" });
}

/** The answer to a line of input. */
function answer(line: string): string {
  if (line === "") return `${cpuTime()}`;
  if (line === "memory") collectGarbage();
  if (line === "age") age();
  const { rss, heapUsed, external } = process.memoryUsage();
  return `${rss} ${heapUsed + external} ${process.resourceUsage().maxRSS * 1024}`;
}

const start = PEERS[peer];
if (start === undefined) throw new RangeError(`Expected a peer, received ${peer}`);
const transport = await TRANSPORTS[mode.transport ?? "default"]();
const tls = mode.tls ? await certificate() : undefined;
console.log(await start());
const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => console.log(answer(line)));
lines.on("close", () => process.exit());
