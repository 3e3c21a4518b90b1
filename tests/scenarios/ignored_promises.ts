/** Ignores every promise that may be ignored, while everything fails that can fail. */
import { accept, connect, serve, WebSocketStream } from "../../mod.ts";
import { pair, transportPair } from "../../lib/testing.ts";

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const large = new Uint8Array(500_000);

async function* failing(): AsyncGenerator<string> {
  yield "a";
  await wait(1);
  throw new Error("the source failed");
}

const server = await serve({ onError: () => {}, closeTimeout: 100 }, async (ws) => {
  switch (new URL(ws.request.url).pathname) {
    case "/throw":
      throw new Error("the handler failed");
    case "/terminate":
      ws.terminate();
      break;
    case "/silent":
      await wait(50);
      ws.terminate();
      break;
    default:
      await ws.readable.pipeTo(ws.writable);
  }
});
if (server.address.transport !== "tcp") throw new Error("not TCP");
const url = `ws://127.0.0.1:${server.address.port}`;

// Handshakes that fail or are aborted.
new WebSocketStream("ws://127.0.0.1:1/");
new WebSocketStream("wss://127.0.0.1:1/");
new WebSocketStream(url).close();
new WebSocketStream(url, { signal: AbortSignal.abort() });
const controller = new AbortController();
new WebSocketStream(url, { signal: controller.signal });
controller.abort();

// Connections that end in each way, while everything waits that can wait.
for (const path of ["/throw", "/terminate", "/silent", "/echo"]) {
  for (const end of ["close", "terminate", "nothing"]) {
    const ws = await connect(url + path, { closeTimeout: 100 });
    ws.send("a");
    ws.send(large);
    ws.send(["a", new Uint8Array(1)]);
    ws.send(failing());
    ws.send("behind it");
    ws.send(5 as never);
    ws.sendAll(["a", large, large]);
    ws.sendAll(["a", 5 as never]);
    ws.sendAll("a");
    ws.ping();
    ws.ping("a");
    ws.ping("a");
    ws.ping("b", { signal: AbortSignal.timeout(1) });
    ws.pong(new Uint8Array(200));
    if (end === "close") ws.close();
    if (end === "terminate") ws.terminate();
    await ws.closed.catch(() => {});
    ws.send("late");
    ws.send(["late"]);
    ws.sendAll(["late"]);
    ws.batches().next();
    ws.ping();
    ws.pong();
    ws.close();
    ws.closed;
  }
}

// Streams that are left alone, read or locked, when the line breaks.
for (const use of ["readable", "writable", "messages", "reader", "writer", "discard"]) {
  const [near, far] = transportPair();
  const [client, peer] = await Promise.all([connect("ws://a/", { transport: near }), accept(far)]);
  for (const ws of [client, peer]) {
    if (use === "readable") ws.readable;
    if (use === "writable") ws.writable;
    if (use === "messages") ws.messages();
    if (use === "reader") ws.readable.getReader();
    if (use === "writer") ws.writable.getWriter();
    if (use === "discard") ws.discard();
  }
  client.send([...Array(10).keys()].map(String));
  near.fail(new Error("cable cut"));
  await client.closed.catch(() => {});
}

const [client, peer] = await pair();
peer.close({ closeCode: 4000 });
client.close();
await client.closed;
server.shutdown();
await server.finished;
await wait(50);
console.log("done");
