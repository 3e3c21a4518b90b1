/**
 * A server whose clients all get what one of them sends, over Redis if there is a port of it:
 * `topics_server.ts PEER [REDIS_PORT]` prints its port. It answers each line of input with the used CPU time
 * (user and system) in microseconds, and ends when its standard input ends. The peers: `streams` and
 * `pubsub` are our topics, `ws` is a loop over `ws.send()` with ioredis, and `socket.io` has its Redis
 * Streams adapter.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { createInterface } from "node:readline";
import { loadLibrary, loadTopics } from "./library.ts";

const [, , peer, redisPort] = process.argv;
const host = "127.0.0.1";

async function connectRedis() {
  const { Redis } = await import("ioredis");
  return new Redis(Number(redisPort), host);
}

async function serveTopics(): Promise<number> {
  const { serve } = await loadLibrary();
  const { redisBackplane, redisStreamsBackplane, Topics } = await loadTopics();
  const make = peer === "streams" ? redisStreamsBackplane : redisBackplane;
  const topics = new Topics({ backplane: make(await connectRedis(), { prefix: peer }) });
  const options = { port: 0, pingInterval: 0, maxConnectionsPerAddress: Infinity };
  const server = await serve(options, async (ws) => {
    topics.subscribe(ws, "all");
    for await (const message of ws) void topics.publish("all", message);
  });
  return server.port!;
}

async function listen(server: ReturnType<typeof createServer>): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  return (server.address() as AddressInfo).port;
}

async function serveWs(): Promise<number> {
  const { WebSocketServer } = await import("ws");
  const http = createServer();
  const server = new WebSocketServer({ server: http, perMessageDeflate: false });
  const [publisher, subscriber] = [await connectRedis(), await connectRedis()];
  await subscriber.subscribe("all");
  subscriber.on("message", (_, text) => {
    for (const client of server.clients) client.send(text);
  });
  server.on("connection", (ws) => ws.on("message", (data) => publisher.publish("all", `${data}`)));
  return await listen(http);
}

async function serveSocketIo(): Promise<number> {
  const { Server } = await import("socket.io");
  const { createAdapter } = await import("@socket.io/redis-streams-adapter");
  const http = createServer();
  const adapter = redisPort ? { adapter: createAdapter(await connectRedis()) } : {};
  const io = new Server(http, { pingInterval: 1e8, transports: ["websocket"], ...adapter });
  io.on("connection", (socket) => socket.on("p", (text) => io.emit("m", text)));
  return await listen(http);
}

console.log(
  await (peer === "ws" ? serveWs() : peer === "socket.io" ? serveSocketIo() : serveTopics()),
);
const lines = createInterface({ input: process.stdin });
lines.on("line", () => {
  const { user, system } = process.cpuUsage();
  console.log(user + system);
});
lines.on("close", () => process.exit());
