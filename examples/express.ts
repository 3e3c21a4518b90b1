/** HTTP and WebSocket on one port, with Express 5. */
import type { AddressInfo } from "node:net";
import process from "node:process";
import express from "express";
import { attach } from "sluice/node";

const app = express();
app.get("/", (_request, response) => {
  response.send("Hello from Express");
});

const server = app.listen(8080, "127.0.0.1", () => {
  console.log("port:", (server.address() as AddressInfo).port);
});

const attached = attach(server, { path: "/echo" }, (ws) => ws.readable.pipeTo(ws.writable));

process.once("SIGTERM", async () => {
  server.close(() => console.log("closed"));
  await attached.shutdown();
});
