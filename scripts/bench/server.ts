/**
 * The measured process: an echo server that runs on each of the runtimes.
 *
 * `server.ts PEER` prints its port on a line. Each line that it reads is answered with the CPU time
 * used so far, user and system, in microseconds. It ends with its standard input.
 */
import process from "node:process";
import { createInterface } from "node:readline";

/** The load answers no pings, which would count as echoes; ws sends none by itself either. */
const OPTIONS = { hostname: "127.0.0.1", port: 0, pingInterval: 0 };

/** The ways to echo. Only the library that is measured is loaded. */
const PEERS: Record<string, () => Promise<number>> = {
  loop: serveLoop,
  pipe: servePipe,
  ws: serveWs,
};

async function serveLoop(): Promise<number> {
  const { serve } = await import("../../mod.ts");
  const server = await serve(OPTIONS, async (ws) => {
    for await (const message of ws) await ws.send(message);
  });
  return portOf(server.address);
}

async function servePipe(): Promise<number> {
  const { serve } = await import("../../mod.ts");
  const server = await serve(OPTIONS, (ws) => ws.readable.pipeTo(ws.writable));
  return portOf(server.address);
}

async function serveWs(): Promise<number> {
  const { WebSocketServer } = await import("ws");
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  server.on("connection", (ws) => {
    ws.on("message", (data, binary) => ws.send(data, { binary }));
  });
  await new Promise((resolve) => server.once("listening", resolve));
  return portOf(server.address());
}

function portOf(address: object | string | null): number {
  if (typeof address === "object" && address && "port" in address) return Number(address.port);
  throw new TypeError("Expected an address with a port");
}

function cpuTime(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

const start = PEERS[process.argv[2]];
if (start === undefined) throw new RangeError(`Expected a peer, received ${process.argv[2]}`);
console.log(await start());
const lines = createInterface({ input: process.stdin });
lines.on("line", () => console.log(cpuTime()));
lines.on("close", () => process.exit());
