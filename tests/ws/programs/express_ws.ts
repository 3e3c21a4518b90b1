/** Routes and middleware of express-ws, and an HTTP route beside them. */
import express, { type Express, type Request } from "express";
import expressWs from "express-ws";
import type { WebSocket as Socket } from "../../../lib/ws.ts";
import { countdown, deferred, listen, type Program, range } from "./program.ts";

/** The application of express-ws, which has no types. */
interface Application extends Express {
  ws(path: string, handler: (ws: Socket, request: Request) => void): void;
}

export const run: Program = async ({ WebSocket }, { load, measure }) => {
  const plain = express();
  const { server, port } = await listen(plain);
  const { app, getWss } = expressWs(plain, server) as {
    app: Application;
    getWss(): { clients: Set<Socket> };
  };
  app.get("/", (_, response) => void response.send("plain"));
  app.ws("/rooms/:room", (ws, request) => {
    const { room } = request.params;
    ws.on("message", (data) => {
      for (const client of getWss().clients) client.send(`${room}: ${data}`);
    });
  });
  const connect = async (room: string) => {
    const ws = new WebSocket(`ws://127.0.0.1:${port}/rooms/${room}?token=1`);
    const opened = deferred();
    ws.on("open", opened.resolve);
    await opened.promise;
    return ws;
  };
  const clients = [await connect("a"), await connect("b")];
  const count = 200 * load;
  const heard = countdown(4 * count);
  const seen = new Set<string>();
  for (const client of clients) {
    client.onmessage = ({ data }) => {
      seen.add((data as string).slice(0, 4));
      heard.done();
    };
  }
  await measure(4 * count, async () => {
    for (const i of range(count)) for (const client of clients) client.send(`${i % 3}`);
    await heard.promise;
  });
  const body = await (await fetch(`http://127.0.0.1:${port}/`)).text();
  const ended = deferred<number>();
  clients[0].on("close", ended.resolve);
  for (const client of getWss().clients) client.close(1012);
  const code = await ended.promise;
  server.close();
  return { seen: [...seen].sort(), body, code };
};
