/** A chat of Socket.IO: rooms, acknowledgements, binary attachments, and clients that vanish. */
import { Buffer } from "node:buffer";
import { Server } from "socket.io";
import { io, type Socket } from "socket.io-client";
import { countdown, deferred, listen, type Program, range } from "./program.ts";

const CLIENTS = 12;

export const run: Program = async ({ WebSocketServer }, { load, measure }) => {
  const { server, port } = await listen();
  const chat = new Server(server, {
    wsEngine: WebSocketServer as never,
    perMessageDeflate: true,
    pingInterval: 200,
  });
  const left = deferred<string>();
  chat.on("connection", (socket) => {
    socket.join("room");
    socket.on("say", (text, acknowledge) => {
      chat.to("room").emit("said", text);
      acknowledge(text.length);
    });
    socket.on("upload", (bytes, acknowledge) => acknowledge(bytes.length, bytes.subarray(0, 2)));
    socket.on("disconnect", (reason) => left.resolve(reason));
  });
  const connect = async () => {
    const socket = io(`http://127.0.0.1:${port}`, { transports: ["websocket"], forceNew: true });
    const connected = deferred();
    socket.once("connect", connected.resolve);
    await connected.promise;
    return socket;
  };
  const clients: Socket[] = [];
  for (const _ of range(CLIENTS)) clients.push(await connect());
  const rounds = 20 * load;
  const heard = countdown(CLIENTS * CLIENTS * rounds);
  const acknowledged: number[] = [];
  for (const client of clients) client.on("said", heard.done);
  await measure(CLIENTS * CLIENTS * rounds, async () => {
    for (const round of range(rounds)) {
      await Promise.all(clients.map(async (client, i) => {
        acknowledged.push(await client.emitWithAck("say", `${"x".repeat(i * 200)} ${round}`));
      }));
    }
    await heard.promise;
  });
  const upload = deferred<unknown[]>();
  clients[0].emit("upload", Buffer.alloc(100_000, 7), (...got: unknown[]) => upload.resolve(got));
  const [length, start] = await upload.promise;
  // The engine of a client is cut off, and the client connects again.
  const again = deferred();
  clients[1].once("connect", again.resolve);
  const engine = clients[1].io.engine.transport as unknown as { ws: { terminate(): void } };
  engine.ws.terminate();
  const reason = await left.promise;
  await again.promise;
  const sum = acknowledged.reduce((total, one) => total + one, 0);
  for (const client of clients) client.close();
  await chat.close();
  return { sum, length, start: [...start as Buffer], isLost: reason.startsWith("transport") };
};
