/** HTTP and WebSocket on one port, with node:http: on Node, Bun and Deno. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { attach } from "sluice/node";

const server = createServer((_request, response) => {
  response.end("Hello from node:http");
});

const attached = attach(server, { path: "/echo" }, (ws) => ws.readable.pipeTo(ws.writable));

server.listen(8080, "127.0.0.1", () => {
  console.log("port:", (server.address() as AddressInfo).port);
});

process.once("SIGTERM", async () => {
  server.close(() => console.log("closed"));
  await attached.shutdown();
});
