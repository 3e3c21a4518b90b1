/** HTTP and WebSocket on one port, with Fastify 5. */
import type { AddressInfo } from "node:net";
import process from "node:process";
import { fastify } from "fastify";
import { attach } from "sluice/node";

const app = fastify();
app.get("/", () => "Hello from Fastify");

const attached = attach(app.server, { path: "/echo" }, (ws) => ws.readable.pipeTo(ws.writable));
// app.close() waits for the WebSockets, so close them first.
app.addHook("preClose", () => attached.shutdown());

await app.listen({ port: 8080, host: "127.0.0.1" });
console.log("port:", (app.server.address() as AddressInfo).port);

process.once("SIGTERM", async () => {
  await app.close();
  console.log("closed");
});
