/** HTTP and WebSocket on one port, with Fastify 5. Its hooks decide who may connect to /private. */
import type { AddressInfo } from "node:net";
import type { IncomingMessage } from "node:http";
import process from "node:process";
import { fastify } from "fastify";
import { attach } from "sluice/node";

const app = fastify();
app.get("/", () => "Hello from Fastify");

app.register((routes, _options, done) => {
  routes.addHook("onRequest", async ({ headers }, reply) => {
    if (headers.authorization !== "Bearer secret") await reply.code(401).send("Who are you?");
  });
  routes.get("/private", (_request, reply) => reply.code(204).send());
  done();
});

const attached = attach(app.server, {
  path: (path) => path === "/echo" || path === "/private",
  async onRequest(_request, incoming) {
    const { url = "/", headers } = incoming as IncomingMessage;
    if (url === "/echo") return;
    // Asks the route, with all its hooks.
    const { statusCode: status, body } = await app.inject({ method: "GET", url, headers });
    if (status !== 204) return new Response(body, { status });
  },
}, (ws) => ws.readable.pipeTo(ws.writable));
// app.close() waits for the WebSockets, so close them first.
app.addHook("preClose", () => attached.shutdown());

await app.listen({ port: 8080, host: "127.0.0.1" });
console.log("port:", (app.server.address() as AddressInfo).port);

process.once("SIGTERM", async () => {
  await app.close();
  console.log("closed");
});
