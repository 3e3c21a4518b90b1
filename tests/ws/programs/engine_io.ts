/** Engine.IO: a client that upgrades from polling, messages in both directions, and the end. */
import { Buffer } from "node:buffer";
import { createRequire } from "node:module";
import { attach } from "engine.io";
import { countdown, deferred, listen, type Program, range } from "./program.ts";

// The client is a dependency of socket.io-client.
const require = createRequire(createRequire(import.meta.url).resolve("socket.io-client"));
const { Socket } = require("engine.io-client");

export const run: Program = async ({ WebSocketServer }, { load, measure }) => {
  const { server, port } = await listen();
  const engine = attach(server, { wsEngine: WebSocketServer } as never);
  const closed = deferred<string>();
  engine.on("connection", (socket) => {
    socket.on("message", (data: unknown) => socket.send(data as string));
    socket.on("close", (reason: string) => closed.resolve(reason));
  });
  const client = new Socket(`ws://127.0.0.1:${port}`);
  const upgraded = deferred<{ name: string }>();
  client.on("upgrade", upgraded.resolve);
  const { name } = await upgraded.promise;
  const count = 500 * load;
  const echoed = countdown(count);
  let bytes = 0;
  client.on("message", (data: string | Buffer) => {
    bytes += data.length;
    echoed.done();
  });
  await measure(count, async () => {
    for (const i of range(count)) client.send(i % 2 ? `text ${i}` : Buffer.alloc(i, 1));
    await echoed.promise;
  });
  client.close();
  const reason = await closed.promise;
  engine.close();
  server.close();
  return { name, bytes, reason };
};
