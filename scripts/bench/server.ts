/**
 * The measured process: an echo server that runs on each of the runtimes.
 *
 * `server.ts PEER TRANSPORT [tls | deflate | deflate-each]` prints its port on a line. Each line that it
 * reads is answered with the CPU time used so far, user and system, in microseconds, or, for "memory",
 * with the resident memory in bytes, garbage not counted. It ends with its standard input. "deflate"
 * compresses with context takeover, "deflate-each" without, both with the same settings of zlib for all.
 */
import process from "node:process";
import { createInterface } from "node:readline";
import type { ServeOptions, TlsServeOptions, TransportProvider } from "../../mod.ts";

const HOST = { hostname: "127.0.0.1", port: 0 };

/** The load answers no pings, which would count as echoes; ws sends none by itself either. */
const OPTIONS = { ...HOST, pingInterval: 0, compression: compression() };

/** The ways to echo. Only the library that is measured is loaded. */
const PEERS: Record<string, () => Promise<number>> = {
  loop: serveLoop,
  pipe: servePipe,
  chain: serveChain,
  batch: serveBatch,
  ws: serveWs,
};

/** The sockets of our peers. */
const TRANSPORTS: Record<string, () => Promise<TransportProvider | undefined>> = {
  default: () => Promise.resolve(undefined),
  node: async () => (await import("../../lib/runtime/node.ts")).nodeProvider,
  deno: async () => (await import("./deno_tcp.ts")).denoTcpProvider,
};

type Compression = Exclude<ServeOptions["compression"], true | undefined>;

function compression(): Compression {
  const mode = process.argv[4];
  if (!mode?.startsWith("deflate")) return false;
  const each = mode === "deflate-each";
  const takeover = { clientNoContextTakeover: each, serverNoContextTakeover: each };
  return { memory: "high", threshold: 0, level: 6, ...takeover };
}

function deflateOfWs() {
  const { compression } = OPTIONS;
  if (compression === false) return false;
  const { level, threshold, clientNoContextTakeover, serverNoContextTakeover } = compression;
  const zlibDeflateOptions = { level, memLevel: 8 };
  return { zlibDeflateOptions, threshold, clientNoContextTakeover, serverNoContextTakeover };
}

async function serveLoop(): Promise<number> {
  const { serve } = await import("../../mod.ts");
  const server = await serve({ ...OPTIONS, tls, transport }, async (ws) => {
    for await (const message of ws) await ws.send(message);
  });
  return portOf(server.address);
}

async function servePipe(): Promise<number> {
  const { serve } = await import("../../mod.ts");
  const server = await serve(
    { ...OPTIONS, tls, transport },
    (ws) => ws.readable.pipeTo(ws.writable),
  );
  return portOf(server.address);
}

async function serveChain(): Promise<number> {
  const { echoItems, serveChain } = await import("./chain.ts");
  return await serveChain(echoItems);
}

async function serveBatch(): Promise<number> {
  const { echoBatches, serveChain } = await import("./chain.ts");
  return await serveChain(echoBatches);
}

async function serveWs(): Promise<number> {
  const { WebSocketServer } = await import("ws");
  const http = tls
    ? (await import("node:https")).createServer(tls)
    : (await import("node:http")).createServer();
  const server = new WebSocketServer({ server: http, perMessageDeflate: deflateOfWs() });
  server.on("connection", (ws) => {
    ws.on("message", (data, binary) => ws.send(data, { binary }));
  });
  await new Promise<void>((resolve) => http.listen({ host: HOST.hostname, port: 0 }, resolve));
  return portOf(http.address());
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

function memory(): number {
  const { gc, Bun } = globalThis as { gc?: () => void; Bun?: { gc(force: boolean): void } };
  for (let again = 0; again < 4; again++) Bun === undefined ? gc?.() : Bun.gc(true);
  return process.memoryUsage.rss();
}

const [, , peer, transportName = "default", encrypted] = process.argv;
const start = PEERS[peer];
if (start === undefined) throw new RangeError(`Expected a peer, received ${peer}`);
const transport = await TRANSPORTS[transportName]();
const tls = encrypted === "tls" ? await certificate() : undefined;
console.log(await start());
const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => console.log(line === "memory" ? memory() : cpuTime()));
lines.on("close", () => process.exit());
