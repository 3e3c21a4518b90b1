/** A gateway: users of an Express application who have logged in reach another WebSocket server. */
import type { AddressInfo } from "node:net";
import process from "node:process";
import express from "express";
import session from "express-session";
import { connect, relay } from "sluice";
import { attach } from "sluice/node";

declare module "express-session" {
  interface SessionData {
    user: string;
  }
}

const backend = process.env.BACKEND ?? "ws://127.0.0.1:9000";
const sessions = session({ secret: "change me", resave: false, saveUninitialized: false });

const app = express();
app.use(sessions);
app.post("/login/:user", ({ session, params }, response) => {
  session.user = params.user;
  response.send("Welcome");
});

const server = app.listen(8080, "127.0.0.1", () => {
  console.log("port:", (server.address() as AddressInfo).port);
});

const users = new WeakMap<Request, string>();

const attached = attach(server, {
  path: "/chat",
  async onRequest(request, incoming) {
    const asked = incoming as express.Request;
    // The session is read from the cookie; nothing is written to the response.
    await new Promise((resolve) => sessions(asked, {} as express.Response, resolve));
    const { user } = asked.session;
    if (user === undefined) return new Response("Log in first\n", { status: 401 });
    users.set(request, user);
  },
}, async (ws) => {
  const headers = { "X-User": users.get(ws.request)! };
  await relay(ws, await connect(backend, { headers, signal: ws.signal }));
});

process.once("SIGTERM", async () => {
  server.close(() => console.log("closed"));
  await attached.shutdown();
});
