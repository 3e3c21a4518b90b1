/** A login page with a session cookie, and a WebSocket for those who have logged in. */
import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import process from "node:process";
import type { WebSocketConnection } from "sluice";
import { attach } from "sluice/node";

interface Session {
  user: string;
  connections: Set<WebSocketConnection>;
}

// A database, in a larger application.
const passwords = new Map([["ada", "lovelace"], ["grace", "hopper"]]);
const sessions = new Map<string, Session>();

function idOf({ headers }: IncomingMessage | Request): string {
  const cookie = headers instanceof Headers ? headers.get("cookie") : headers.cookie;
  return /(?:^|; )session=([^;]*)/.exec(cookie ?? "")?.[1] ?? "";
}

function logIn(form: URLSearchParams): string | undefined {
  const user = form.get("user") ?? "";
  if (!passwords.has(user) || passwords.get(user) !== form.get("password")) return undefined;
  const id = randomUUID();
  sessions.set(id, { user, connections: new Set() });
  return id;
}

function logOut(id: string): void {
  const { connections } = sessions.get(id) ?? {};
  sessions.delete(id);
  // A connection outlives the request that opened it.
  for (const ws of connections ?? []) void ws.close({ closeCode: 4401, reason: "logged out" });
}

const PAGE = `<!doctype html>
<form method="post" action="/login">
  <input name="user"> <input name="password" type="password"> <button>Log in</button>
</form>`;

const server = createServer(async (request, response) => {
  if (request.method !== "POST") return response.setHeader("Content-Type", "text/html").end(PAGE);
  if (request.url === "/logout") {
    logOut(idOf(request));
    return response.end("Goodbye\n");
  }
  let body = "";
  for await (const chunk of request.setEncoding("utf8")) {
    body += chunk;
    if (body.length > 1000) return response.writeHead(413).end();
  }
  const id = logIn(new URLSearchParams(body));
  if (id === undefined) return response.writeHead(403).end("Wrong user or password\n");
  // Add Secure with https. SameSite and `origins` below keep other sites out.
  response.setHeader("Set-Cookie", `session=${id}; HttpOnly; SameSite=Lax; Path=/`);
  response.end("Welcome\n");
});

const attached = attach(server, {
  path: "/chat",
  origins: "same-origin",
  onRequest(request) {
    if (!sessions.has(idOf(request))) return new Response("Log in first\n", { status: 401 });
  },
}, async (ws) => {
  const session = sessions.get(idOf(ws.request));
  // Logged out in the meantime.
  if (session === undefined) return;
  session.connections.add(ws);
  try {
    await ws.send(`Hello ${session.user}`);
    await ws.readable.pipeTo(ws.writable);
  } finally {
    session.connections.delete(ws);
  }
});

server.listen(8080, "127.0.0.1", () => {
  console.log("port:", (server.address() as AddressInfo).port);
});

process.once("SIGTERM", async () => {
  server.close(() => console.log("closed"));
  await attached.shutdown();
});
