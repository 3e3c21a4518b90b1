/** As types_consumer.ts, for the entry point whose declarations need those of `node:http`. */
import { createServer } from "node:http";
import { createServer as createSecureServer } from "node:https";
import { type CloseInfo, HandshakeError, type WebSocketConnection } from "sluice";
import { attach, type Attachment, type AttachOptions, upgrade } from "sluice/node";

/** Attaches to servers of both kinds. */
export async function attachTo(info: CloseInfo): Promise<number> {
  const options: AttachOptions = {
    path: (path, request) => path === "/chat" && request.headers["x-room"] !== undefined,
    origins: "same-origin",
    onRequest: (request) => request.url === "" ? new Response(null, { status: 404 }) : undefined,
  };
  const attached: Attachment = attach(createServer(), options, async (ws, request) => {
    await ws.send(request.url);
  });
  const detach: () => void = attach(createSecureServer(), { path: "/chat" }, () => {});
  detach();
  const open: ReadonlySet<WebSocketConnection> = attached.connections;
  await attached.shutdown(info);
  return open.size;
}

/** A listener of one's own. */
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
