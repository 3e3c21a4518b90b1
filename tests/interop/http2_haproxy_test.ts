/** Our client over HTTP/2 through haproxy, which connects to a server of "ws" over HTTP/1.1. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import type { ClientHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import type * as Ws from "ws";
import { it } from "../it.ts";
import type { HandshakeError, Message } from "../../mod.ts";
import { connectHttp2, type ConnectHttp2Options } from "../../lib/http2.ts";
import { pattern } from "../bytes.ts";
import { dial, endSession } from "../http2_servers.ts";
import { rejection, until } from "../support.ts";
import { PEERS, unlessThere } from "./peers.ts";
import { HOST } from "../ports.ts";
import { HAPROXY_H2, withProxy } from "./proxy.ts";

// Imported by its path, because Bun has a built-in "ws".
const path = new URL("../../node_modules/ws/wrapper.mjs", import.meta.url).href;
const { WebSocketServer }: typeof Ws = await import(path);

type Answer = Parameters<Ws.VerifyClientCallbackAsync>[1];

interface Through {
  session: ClientHttp2Session;
  theirs: Ws.WebSocketServer;
  open(path?: string, options?: ConnectHttp2Options): ReturnType<typeof connectHttp2>;
}

/** Runs a test with haproxy in front of a server of "ws" that echoes. */
async function withHaproxy(run: (through: Through) => Promise<void>): Promise<void> {
  const theirs = new WebSocketServer({
    host: HOST,
    port: 0,
    verifyClient: ({ req }: { req: IncomingMessage }, answer: Answer) =>
      req.url === "/refused" ? answer(false, 403, "no", { "X-Why": "because" }) : answer(true),
  });
  await once(theirs, "listening");
  theirs.on("connection", (socket, request) => {
    socket.on("error", () => {});
    socket.on("message", (data: Uint8Array, isBinary: boolean) => {
      socket.send(data, { binary: isBinary });
    });
    if (request.url === "/closes") socket.close(4001, "bye");
    if (request.url === "/cut") socket.terminate();
  });
  try {
    await withProxy(
      HAPROXY_H2,
      (theirs.address() as AddressInfo).port,
      async (port) => {
        const session = dial(`http://${HOST}:${port}`);
        const open = (path = "/", options: ConnectHttp2Options = {}) =>
          connectHttp2(session, `ws://${HOST}:${port}${path}`, options);
        try {
          await run({ session, theirs, open });
        } finally {
          await endSession(session);
        }
      },
    );
  } finally {
    for (const client of theirs.clients) client.terminate();
    await new Promise((resolve) => theirs.close(resolve));
  }
}

describe("haproxy as peer over HTTP/2", () => {
  const { skip } = unlessThere(PEERS.haproxy);

  it("haproxy as peer over HTTP/2: messages of each size, and our Close", { skip }, async () => {
    await withHaproxy(async ({ open, theirs }) => {
      const ws = await open("/", { protocols: ["chat"], maxMessageSize: Infinity });
      assert.equal(ws.protocol, "chat");
      assert.equal(ws.response.status, 200);
      for (const size of [0, 1, 125, 126, 65535, 65536, 1048576]) {
        for (const message of ["é".repeat(size >> 1), pattern(size)] as Message[]) {
          await ws.send(message);
          const got = await ws.receive();
          assert.equal(got.length, message.length);
          // assert.ok does not print a difference of a mebibyte.
          assert.ok(
            typeof got === "string" ? got === message : got.every((b, i) => b === message[i]),
          );
        }
      }
      await ws.ping();
      const [client] = theirs.clients;
      const closed = once(client, "close");
      assert.deepEqual(await ws.close({ closeCode: 3000, reason: "r" }), {
        closeCode: 3000,
        reason: "r",
      });
      assert.equal((await closed)[0], 3000);
    });
  });

  it("haproxy as peer over HTTP/2: their Close, and a cut", { skip }, async () => {
    await withHaproxy(async ({ open }) => {
      assert.deepEqual(await (await open("/closes")).closed, { closeCode: 4001, reason: "bye" });
      const error = await rejection<Error & { closeCode: number }>((await open("/cut")).closed);
      assert.equal(error.closeCode, 1006);
    });
  });

  it("haproxy as peer over HTTP/2: our cut", { skip }, async () => {
    await withHaproxy(async ({ open, theirs }) => {
      const ws = await open();
      await until(() => theirs.clients.size === 1);
      ws.terminate();
      await until(() => theirs.clients.size === 0);
      await rejection(ws.closed);
    });
  });

  it("haproxy as peer over HTTP/2: a refusal, and the session continues", { skip }, async () => {
    await withHaproxy(async ({ open, session }) => {
      const error = await rejection<HandshakeError>(open("/refused"));
      assert.equal(error.code, "status");
      assert.equal(error.response!.status, 403);
      assert.equal(error.response!.headers.get("x-why"), "because");
      assert.equal(await new Response(error.response!.body).text(), "no");
      const several = await Promise.all(Array.from({ length: 8 }, () => open()));
      await Promise.all(several.map((ws, i) => ws.send(`${i}`)));
      for (const [i, ws] of several.entries()) assert.equal(await ws.receive(), `${i}`);
      await Promise.all(several.map((ws) => ws.close()));
      assert.equal(session.closed, false);
    });
  });
});
