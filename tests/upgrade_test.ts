import { describe } from "node:test";
import assert from "node:assert/strict";
import type { Server } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { Socket } from "node:net";
import process from "node:process";
import { connect as connectSecure } from "node:tls";
import { it, knownLimit, notApplicable } from "./it.ts";
import { connect, HandshakeError, type WebSocketConnection } from "../mod.ts";
import { attach, upgrade } from "../lib/node.ts";
import { NodeTransport } from "../lib/runtime/node.ts";
import { concat, latin1 } from "./bytes.ts";
import { certificates } from "./certificates.ts";
import {
  ANSWER,
  answerTo,
  checkStall,
  CLOSE,
  echo,
  lateEcho,
  MESSAGE,
  plain,
  portOf,
  statusOf,
  urlOf,
  withHttp,
} from "./http_servers.ts";
import { RawSocket, rejection, upgradeRequest } from "./support.ts";

describe("upgrade", () => {
  it("upgrade() gives the connection in another listener", async () => {
    await withHttp(async (server) => {
      server.on("upgrade", async (request, socket, head) => {
        const ws = await upgrade(request, socket, head, { protocols: ["chat"] });
        await echo(ws);
      });
      const ws = await connect(urlOf(server), { protocols: ["chat"] });
      assert.equal(ws.protocol, "chat");
      await ws.close();
      const answer = await answerTo(server, concat([latin1(upgradeRequest()), MESSAGE, CLOSE]));
      assert.equal(answer.slice(answer.indexOf("\r\n\r\n") + 4), ANSWER);
    });
  });

  it("upgrade() rejects with the refusal that it has answered", async () => {
    await withHttp(async (server) => {
      const refused = new Promise<HandshakeError>((resolve) => {
        server.on("upgrade", (request, socket, head) => {
          resolve(rejection(upgrade(request, socket, head, { origins: ["https://a"] })));
        });
      });
      assert.equal(await statusOf(server, "/", { origin: "https://b" }), 403);
      const error = await refused;
      assert.ok(error instanceof HandshakeError);
      assert.equal(error.code, "origin");
    });
  });

  it("upgrade() refuses a socket that upgrade() or attach() has taken", async () => {
    await withHttp(async (server) => {
      const names: string[] = [];
      const first = attach(server, { path: "/attached" }, echo);
      server.on("upgrade", (request, socket, head) => {
        for (let i = 0; i < 2; i++) {
          upgrade(request, socket, head).then(
            (ws) => echo(ws),
            (error) => names.push(error.name),
          );
        }
      });
      for (const [path, count] of [["/attached", 2], ["/", 3]] as const) {
        const ws = await connect(urlOf(server, path));
        await ws.send("a");
        assert.equal(await ws.receive(), "a");
        await ws.close();
        assert.deepEqual(names, Array(count).fill("InvalidStateError"));
      }
      await first.shutdown();
    });
  });

  it("upgrade() that was called with wrong options leaves the socket alone", async () => {
    await withHttp(async (server) => {
      server.on("upgrade", async (request, socket, head) => {
        const wrong = { openTimeout: -1 };
        assert.ok(await rejection(upgrade(request, socket, head, wrong)) instanceof RangeError);
        const ws = await upgrade(request, socket, head);
        await ws.close();
      });
      assert.equal(await statusOf(server), 101);
    });
  });
});

describe("Servers of node:https", () => {
  const onDeno = process.versions.deno !== undefined;

  async function withHttps(run: (server: Server) => unknown) {
    const { leaf } = await certificates();
    await withHttp(run, createSecureServer(leaf, plain) as unknown as Server);
  }

  async function socketTo(server: Server): Promise<Socket> {
    const { ca } = await certificates();
    const options = { host: "127.0.0.1", port: portOf(server), ca, allowHalfOpen: true };
    return connectSecure(options);
  }

  async function connectOverTls(server: Server, path: string): Promise<WebSocketConnection> {
    const duplex = new NodeTransport(await socketTo(server));
    return await connect(`ws://127.0.0.1${path}`, { transport: duplex });
  }

  const works = {
    skip: onDeno ? knownLimit("node:https on Deno does not hold a peer back") : false,
  };
  it("attach() serves WebSockets over TLS", works, async () => {
    await withHttps(async (server) => {
      let url: string | undefined;
      const attached = attach(server, {}, (ws) => {
        url = ws.request.url;
        return echo(ws);
      });
      const ws = await connectOverTls(server, "/a");
      for (const message of ["Hello", "x".repeat(200_000)]) {
        await ws.send(message);
        assert.equal(await ws.receive(), message);
      }
      assert.equal(url, "https://127.0.0.1/a");
      await attached.shutdown();
      assert.equal((await ws.closed).closeCode, 1001);
    });
  });

  it("attach() answers a peer over TLS that has ended its side", works, async () => {
    await withHttps(async (server) => {
      const attached = attach(server, {}, echo);
      const raw = new RawSocket(await socketTo(server));
      raw.socket.end(concat([latin1(upgradeRequest()), MESSAGE, CLOSE]));
      await raw.close();
      assert.equal(raw.text.slice(raw.text.indexOf("\r\n\r\n") + 4), ANSWER);
      await attached.shutdown();
    });
  });

  it("attach() holds back a peer over TLS whose messages are not read", works, async () => {
    await withHttps(async (server) => {
      const { handler, release } = lateEcho();
      const attached = attach(server, { origins: "same-origin" }, handler);
      await checkStall(await connectOverTls(server, "/"), attached.connections, release);
      await attached.shutdown();
    });
  });

  const fails = { skip: onDeno ? false : notApplicable("node:https holds a peer back here") };
  it("attach() and upgrade() say that they are unsupported", fails, async () => {
    await withHttps(async (server) => {
      const error = { name: "HandshakeError", code: "unsupported" };
      assert.throws(() => attach(server, {}, echo), error);
      const refused = new Promise<HandshakeError>((resolve) => {
        server.on("upgrade", (request, socket, head) => {
          resolve(rejection(upgrade(request, socket, head)));
        });
      });
      const { response } = await rejection<HandshakeError>(connectOverTls(server, "/"));
      assert.equal(response?.status, 501);
      assert.equal((await refused).code, "unsupported");
    });
  });
});
