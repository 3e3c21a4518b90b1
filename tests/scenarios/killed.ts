/**
 * One end of a connection that sends and receives an endless message until it is killed. A server prints its
 * port. A client gets the URL in the variable URL.
 */
import process from "node:process";
import { connect, serve, type WebSocketConnection } from "../../mod.ts";

const { URL: url, LEAF, CA } = process.env;
const options = { pingInterval: 0, maxMessageSize: Infinity };

async function* endless(): AsyncGenerator<string> {
  for (;;) {
    yield "x".repeat(1000);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function talk(ws: WebSocketConnection): Promise<void> {
  await ws.send("whole");
  ws.send(endless()).catch(() => {});
  for await (const { readable } of ws.messages()) for await (const _ of readable);
}

if (url === undefined) {
  const server = await serve({ ...options, tls: LEAF && JSON.parse(LEAF) }, talk);
  console.log("port", server.address.transport === "tcp" && server.address.port);
} else {
  const ws = await connect(url, { ...options, tls: { ca: CA } });
  console.log("connected");
  await talk(ws);
}
