/** HTTP and WebSocket on one port, with Hono and @hono/node-server. */
import type { Server } from "node:http";
import process from "node:process";
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { attach } from "sluice/node";

const app = new Hono();
app.get("/", (context) => context.text("Hello from Hono"));

const options = { fetch: app.fetch, port: 8080, hostname: "127.0.0.1" };
// A server of node:http, unless the option `createServer` says otherwise.
const server = serve(options, ({ port }) => console.log("port:", port)) as Server;

const attached = attach(server, { path: "/echo" }, (ws) => ws.readable.pipeTo(ws.writable));

process.once("SIGTERM", async () => {
  server.close(() => console.log("closed"));
  await attached.shutdown();
});
