/** HTTP and WebSocket over HTTP/2, with node:http2: on Node and Bun. The client runs on Deno too. */
import { connect, createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { attachHttp2, connectHttp2 } from "sluice/http2";

// Browsers need TLS: createSecureServer({ cert, key, settings }, ...).
const settings = { enableConnectProtocol: true };
const server = createServer({ settings }, (_request, response) => {
  response.end("Hello from node:http2");
});

const attached = attachHttp2(server, { path: "/echo" }, (ws) => ws.readable.pipeTo(ws.writable));

server.listen(8080, "127.0.0.1", async () => {
  const { port } = server.address() as AddressInfo;
  const session = connect(`http://127.0.0.1:${port}`);
  const clients = await Promise.all(
    [1, 2, 3].map(() => connectHttp2(session, `ws://127.0.0.1:${port}/echo`)),
  );
  for (const [i, ws] of clients.entries()) {
    await ws.send(`Hello from stream ${i + 1}`);
    console.log(await ws.receive());
    await ws.close();
  }
  session.close();
  console.log("port:", port);
});

process.once("SIGTERM", async () => {
  server.close(() => console.log("closed"));
  await attached.shutdown();
});
