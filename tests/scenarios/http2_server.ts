/** An HTTP/2 server whose paths select what happens to a connection. It prints its ports. */
import { createServer, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { attachHttp2 } from "../../lib/http2.ts";
import type { WebSocketConnection } from "../../mod.ts";
import { encodeFrame } from "../../lib/core/mod.ts";

type Handler = (ws: WebSocketConnection) => unknown;

const echo: Handler = (ws) => ws.readable.pipeTo(ws.writable);

const handlers: Record<string, Handler> = {
  "/sleep": async (ws) => {
    await Promise.race([wake.promise, ws.closed.catch(() => {})]);
    await echo(ws);
  },
  "/wake": async () => {
    wake.resolve();
    await wake.promise;
  },
  "/source": async (ws) => {
    for (let sent = 0;; sent += 65536) {
      console.log("sent", sent);
      await ws.send(new Uint8Array(65536));
    }
  },
  "/closes": (ws) => ws.close({ closeCode: 4001, reason: "bye" }),
  "/terminates": (ws) => ws.terminate(),
};

const wake = Promise.withResolvers<void>();

const raw: Record<string, (stream: ServerHttp2Stream) => void> = {
  "/raw/ends": (stream) => {
    stream.respond({ ":status": 200 });
    stream.write(encodeFrame({ opcode: 1, payload: new TextEncoder().encode("last") }));
    stream.end();
  },
  "/raw/resets": (stream) => {
    stream.respond({ ":status": 200 });
    setTimeout(() => stream.close(2), 20);
  },
  "/raw/resets-early": (stream) => stream.close(2),
  "/raw/refuses": (stream) => stream.close(7),
  "/raw/silent": (stream) => stream.resume(),
  "/raw/201": (stream) => stream.respond({ ":status": 201 }),
  "/raw/long": (stream) => {
    stream.respond({ ":status": 404, "x-reason": "none" });
    stream.end(new Uint8Array(200_000));
  },
  "/raw/protocol": (stream) =>
    stream.respond({ ":status": 200, "sec-websocket-protocol": "other" }),
  "/raw/extension": (stream) =>
    stream.respond({ ":status": 200, "sec-websocket-extensions": "x-unknown" }),
  "/raw/goaway": (stream) => {
    stream.respond({ ":status": 200 });
    setTimeout(() => stream.session!.destroy(), 20);
  },
};

const server = createServer({ settings: { enableConnectProtocol: true } });
server.on("stream", (stream: ServerHttp2Stream, headers) => {
  stream.on("error", () => {});
  const path = headers[":path"]!;
  if (path in raw) raw[path](stream);
});
attachHttp2(
  server,
  {
    path: (path) => !path.startsWith("/raw/"),
    protocols: ["chat"],
    pingInterval: 0,
    onRequest: (request) => {
      if (new URL(request.url).pathname === "/refused") {
        return new Response("no\n", { status: 403, headers: { "X-Why": "because" } });
      }
    },
    onError: () => {},
  },
  (ws) => (handlers[new URL(ws.request.url).pathname] ?? echo)(ws),
);

const plain = createServer();

for (const one of [server, plain]) {
  one.on("sessionError", () => {});
  one.on("session", (session) => {
    session.on("error", () => {});
    session.on("close", () => console.log("session closed"));
  });
  await new Promise<void>((resolve) => one.listen(0, "127.0.0.1", resolve));
}
const ports = [server, plain].map((one) => (one.address() as AddressInfo).port);
console.log("ports:", ...ports);
process.on("SIGTERM", () => process.exit(0));
