/**
 * The measured process: an echo server that runs on each of the runtimes.
 *
 * `server.ts PEER TRANSPORT [tls]` prints its port on a line. Each line that it reads is answered with the CPU time
 * used so far, user and system, in microseconds. It ends with its standard input.
 */
import process from "node:process";
import { createInterface } from "node:readline";
import type { TlsServeOptions, TransportProvider } from "../../mod.ts";

const HOST = { hostname: "127.0.0.1", port: 0 };

/** The load answers no pings, which would count as echoes; ws sends none by itself either. */
const OPTIONS = { ...HOST, pingInterval: 0 };

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
  const server = new WebSocketServer({ server: http });
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

const [, , peer, transportName = "default", encrypted] = process.argv;
const start = PEERS[peer];
if (start === undefined) throw new RangeError(`Expected a peer, received ${peer}`);
const transport = await TRANSPORTS[transportName]();
const tls = encrypted === "tls" ? await certificate() : undefined;
console.log(await start());
const lines = createInterface({ input: process.stdin });
lines.on("line", () => console.log(cpuTime()));
lines.on("close", () => process.exit());
