/** HTTP and WebSocket on one port, with Hono. Its middleware decides who may connect to /private. */
import type { Server } from "node:http";
import process from "node:process";
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { bearerAuth } from "hono/bearer-auth";
import { attach } from "sluice/node";

const app = new Hono();
app.get("/", (context) => context.text("Hello from Hono"));
app.use("/private", bearerAuth({ token: "secret" }));
app.get("/private", (context) => context.body(null, 204));

const options = { fetch: app.fetch, port: 8080, hostname: "127.0.0.1" };
// A server of node:http, unless the option `createServer` says otherwise.
const server = serve(options, ({ port }) => console.log("port:", port)) as Server;

const attached = attach(server, {
  path: (path) => path === "/echo" || path === "/private",
  async onRequest(request) {
    if (new URL(request.url).pathname === "/echo") return;
    // Asks the route, with all its middleware.
    const answer = await app.fetch(request);
    if (answer.status !== 204) return answer;
  },
}, (ws) => ws.readable.pipeTo(ws.writable));

process.once("SIGTERM", async () => {
  server.close(() => console.log("closed"));
  await attached.shutdown();
});
