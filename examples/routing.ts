/** Routes by the path of the URL, with URLPattern: on Deno, Bun, and Node from version 24 on. */
import process from "node:process";
import { broadcast, serve, type WebSocketConnection } from "sluice";

const rooms = new Map<string, Set<WebSocketConnection>>();

const routes: [
  pattern: URLPattern,
  handler: (ws: WebSocketConnection, match: URLPatternResult) => unknown,
][] = [
  [new URLPattern({ pathname: "/echo" }), (ws) => ws.readable.pipeTo(ws.writable)],
  [new URLPattern({ pathname: "/rooms/:name" }), async (ws, { pathname }) => {
    const name = pathname.groups.name!;
    const room = rooms.get(name) ?? new Set();
    rooms.set(name, room.add(ws));
    try {
      for await (const message of ws) broadcast(room, message, { except: ws });
    } finally {
      room.delete(ws);
      if (room.size === 0) rooms.delete(name);
    }
  }],
];

const server = await serve({
  port: 8080,
  onRequest(request) {
    const found = routes.some(([pattern]) => pattern.test(request.url));
    return found ? undefined : new Response("Not found\n", { status: 404 });
  },
}, (ws) => {
  for (const [pattern, handler] of routes) {
    const match = pattern.exec(ws.request.url);
    if (match !== null) return handler(ws, match);
  }
});

console.log("port:", server.port);
process.once("SIGTERM", () => server.shutdown());
