/**
 * Chat rooms: the path of the URL is the room, `?name=` the member. A member that reads too slowly
 * loses its connection, so that neither the room waits nor the server's memory grows.
 */
import process from "node:process";
import { broadcast, serve, type WebSocketConnection } from "sluice";

type Room = Set<WebSocketConnection>;

const rooms = new Map<string, Room>();

function tell(room: Room, text: string): void {
  // Each member may have this much waiting. A member with more is closed with 1008.
  const { closed } = broadcast(room, text, { maxBufferedAmount: 256 * 1024, slow: "close" });
  if (closed > 0) console.log("too slow:", closed);
}

async function stay(ws: WebSocketConnection, room: Room, name: string): Promise<void> {
  room.add(ws);
  tell(room, `${name} has come, ${room.size} here`);
  try {
    for await (const message of ws) tell(room, `${name}: ${message}`);
  } finally {
    // Also after a lost connection.
    room.delete(ws);
    tell(room, `${name} has left, ${room.size} here`);
  }
}

const server = await serve({
  port: 8080,
  maxMessageSize: 16 * 1024,
  maxConnections: 10_000,
  onRequest({ url }) {
    if (!/^\/rooms\/\w{1,40}$/.test(new URL(url).pathname)) {
      return new Response("Connect to /rooms/NAME\n", { status: 404 });
    }
  },
}, async (ws) => {
  const { pathname, searchParams } = new URL(ws.request.url);
  const room = rooms.get(pathname) ?? new Set();
  rooms.set(pathname, room);
  try {
    await stay(ws, room, searchParams.get("name") ?? "somebody");
  } finally {
    if (room.size === 0) rooms.delete(pathname);
  }
});

console.log("port:", server.port);
process.once("SIGTERM", () => server.shutdown());
