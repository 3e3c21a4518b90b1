/** A page in Chromium as the other end. With the argument "stream" the page uses WebSocketStream. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { WebSocketServer } from "ws";
import { bundle } from "../browser.ts";
import { withBrowser } from "../chromium.ts";
import { HOST } from "./agent.ts";
import { commands, write } from "./stdio.ts";

const { text } = await bundle("tests/interop/peers/chromium_page.ts");
const server = createServer((request, response) => {
  const isScript = request.url === "/page.js";
  response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html; charset=utf-8");
  response.end(isScript ? text : '<!doctype html><script type="module" src="/page.js"></script>');
});
await new Promise<void>((resolve) => server.listen(0, HOST, resolve));

const ended = new Promise<void>((resolve) => {
  new WebSocketServer({ server, maxPayload: 2 ** 28 }).on("connection", async (socket) => {
    socket.on("message", (line) => write(String(line)));
    for await (const line of commands()) socket.send(line);
    resolve();
  });
  process.on("SIGTERM", () => resolve());
});
const { port } = server.address() as AddressInfo;
await withBrowser(`http://${HOST}:${port}/?class=${process.argv[2] ?? ""}`, ended);
process.exit();
