/**
 * HTTP and WebSocket on one port with `Deno.serve`. If you can, use `node:http` instead (see http.ts):
 * here a client that sends too fast cannot be slowed down. Its messages wait in memory, up to
 * `maxQueuedBytes`.
 */
import { fromWebSocket } from "sluice";

async function echo(socket: WebSocket): Promise<void> {
  const ws = await fromWebSocket(socket, { maxQueuedBytes: 1048576 });
  await ws.readable.pipeTo(ws.writable);
}

const server = Deno.serve({
  hostname: "127.0.0.1",
  port: 8080,
  onListen: ({ port }) => console.log("port:", port),
}, (request) => {
  if (new URL(request.url).pathname !== "/echo") return new Response("Hello from Deno.serve");
  if (request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
    return new Response("Expected a WebSocket", { status: 426, headers: { Upgrade: "websocket" } });
  }
  const { socket, response } = Deno.upgradeWebSocket(request);
  echo(socket).catch((error) => console.error(error.message));
  return response;
});

Deno.addSignalListener("SIGTERM", async () => {
  // Closes the WebSockets too, with 1001.
  await server.shutdown();
  console.log("closed");
  Deno.exit();
});
