/** Like types_consumer.ts, for the entry points whose declarations need `node:http`. */
import { createServer } from "node:http";
import {
  connect as connectSession,
  createServer as createHttp2Server,
  type ServerHttp2Stream,
} from "node:http2";
import { createServer as createSecureServer } from "node:https";
import { type CloseInfo, HandshakeError, type WebSocketConnection } from "sluice";
import { attachHttp2, connectHttp2, type ConnectHttp2Options, upgradeHttp2 } from "sluice/http2";
import { attach, type Attachment, type AttachOptions, upgrade } from "sluice/node";

/** Attaches to HTTP and HTTPS servers. */
export async function attachTo(info: CloseInfo): Promise<number> {
  const options: AttachOptions = {
    path: (path, request) => path === "/chat" && request.headers["x-room"] !== undefined,
    origins: "same-origin",
    onRequest: (request) => request.url === "" ? new Response(null, { status: 404 }) : undefined,
  };
  const attached: Attachment = attach(createServer(), options, async (ws) => {
    await ws.send(ws.request.url);
  });
  attach(createSecureServer(), { path: "/chat" }, () => {}).detach();
  const open: ReadonlySet<WebSocketConnection> = attached.connections;
  await attached.shutdown(info);
  return open.size;
}

/** A user's own listener. */
export function listen(): void {
  createServer().on("upgrade", async (request, socket, head) => {
    try {
      const ws = await upgrade(request, socket, head, { protocols: ["chat"] });
      await ws.close();
    } catch (error) {
      if (error instanceof HandshakeError) console.log(error.code, error.status);
    }
  });
}

/** The same over HTTP/2, with a client. */
export async function overHttp2(options: ConnectHttp2Options): Promise<string> {
  const server = createHttp2Server({ settings: { enableConnectProtocol: true } });
  const attached: Attachment = attachHttp2(
    server,
    { path: (path, headers) => path === "/chat" && headers["x-room"] !== undefined },
    (ws) => ws.send("Hello"),
  );
  server.on("stream", async (stream: ServerHttp2Stream, headers) => {
    const ws: WebSocketConnection = await upgradeHttp2(stream, headers, { protocols: ["chat"] });
    await ws.close();
  });
  const ws = await connectHttp2(connectSession("http://localhost"), "ws://localhost/", options);
  await attached.shutdown();
  return ws.protocol;
}
