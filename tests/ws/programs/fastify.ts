/** A route of @fastify/websocket, a refusal by a hook, and the end of the server. */
import websocket from "@fastify/websocket";
import fastify from "fastify";
import type { AddressInfo } from "node:net";
import { countdown, deferred, type Program, range } from "./program.ts";

export const run: Program = async ({ WebSocket }, { load, measure }) => {
  const app = fastify();
  await app.register(websocket, { options: { maxPayload: 100_000 } });
  app.addHook("preValidation", async (request, reply) => {
    if (request.url === "/closed") await reply.code(403).send("closed");
  });
  app.get("/echo/:name", { websocket: true }, (socket, request) => {
    const { name } = request.params as { name: string };
    socket.on("message", (data, isBinary) => {
      socket.send(isBinary ? data : `${name}: ${data}`, { binary: isBinary });
    });
  });
  app.get("/closed", { websocket: true }, (socket) => socket.close());
  await app.listen({ port: 0, host: "127.0.0.1" });
  const { port } = app.server.address() as AddressInfo;
  const client = new WebSocket(`ws://127.0.0.1:${port}/echo/ann`);
  const opened = deferred();
  client.on("open", opened.resolve);
  await opened.promise;
  const count = 500 * load;
  const echoed = countdown(count);
  let last = "";
  client.on("message", (data) => {
    last = data.toString();
    echoed.done();
  });
  await measure(count, async () => {
    for (const i of range(count)) client.send(`hello ${i}`);
    await echoed.promise;
  });
  const refused = deferred<number | undefined>();
  const other = new WebSocket(`ws://127.0.0.1:${port}/closed`);
  other.on("unexpected-response", (request, response) => {
    refused.resolve(response.statusCode);
    request.destroy();
  });
  other.on("error", () => {});
  const status = await refused.promise;
  const ended = deferred<number>();
  client.on("close", ended.resolve);
  client.send(new Uint8Array(100_001));
  const code = await ended.promise;
  await app.close();
  return { last, status, code };
};
