/** Ends by itself when client and server are closed: nothing keeps the process running. */
import { connect, serve, WebSocketStream } from "../../mod.ts";

const server = await serve({}, (ws) => ws.readable.pipeTo(ws.writable));
if (server.address.transport !== "tcp") throw new Error("not TCP");
const url = `ws://127.0.0.1:${server.address.port}`;

const ws = await connect(url);
await ws.send("a");
await ws.receive();
await ws.ping();
await ws.close();

const stream = new WebSocketStream(url);
await stream.opened;
stream.close();
await stream.closed;

await connect(`${url.replace(/\d+$/, "1")}`).catch(() => {});
await server.shutdown();
console.log("done");
