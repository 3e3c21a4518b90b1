/** Requests to upgrade that no handler takes, or whose client has already left. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { IncomingMessage, Server } from "node:http";
import type { Duplex } from "node:stream";
import { connect, type HandshakeError, type WebSocketError } from "../../mod.ts";
import { attach, type AttachOptions, upgrade } from "../../lib/node.ts";
import { answerTo, echo, portOf, urlOf, withAttached, withHttp } from "../http_servers.ts";
import { insideRepository, readSource, withPrograms } from "../programs.ts";
import { countSockets } from "../resources.ts";
import { held, RawSocket, rejection, rest, until, upgradeRequest } from "../support.ts";

type UpgradeListener = (request: IncomingMessage, socket: Duplex, head: Uint8Array) => unknown;

const OTHER = upgradeRequest({}, "GET /other HTTP/1.1");
const H2C = upgradeRequest({
  Upgrade: "h2c",
  Connection: "Upgrade, HTTP2-Settings",
  "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA",
  "Sec-WebSocket-Key": null,
  "Sec-WebSocket-Version": null,
}, "GET /plain HTTP/1.1");

/** Whether a server can treat a request to upgrade as plain HTTP. */
const canLeave = (server: Server) => "shouldUpgradeCallback" in server;

/** A server that prints its port. It accepts only the path /echo. OTHERS says what other listeners do. */
const PROGRAM = `
import { createServer } from "node:http";
import { attach, upgrade } from "sluice/node";

const server = createServer((_request, response) => void response.end("Hello"));
attach(server, { path: "/echo" }, (ws) => ws.readable.pipeTo(ws.writable));
if (process.env.OTHERS === "ignore") server.on("upgrade", () => {});
if (process.env.OTHERS === "wrong") {
  server.on("upgrade", (request, socket, head) => {
    if (request.url === "/echo") return;
    upgrade(request, socket, head, { openTimeout: -1 }).catch(() => {});
  });
}
server.listen(0, "127.0.0.1", () => console.log("port:", server.address().port));
`;

/** Sends requests and resets their connections, after different delays. */
async function resetAll(port: number): Promise<void> {
  const moments: ((raw: RawSocket) => unknown)[] = [
    () => {},
    () => rest(),
    (raw) => Promise.race([until(() => raw.received.length > 0), rest().then(rest)]),
  ];
  for (const request of [OTHER, H2C]) {
    for (const wait of moments) {
      const raw = await RawSocket.connect(port);
      raw.write(request);
      await wait(raw);
      raw.socket.resetAndDestroy();
      await until(() => raw.closed);
    }
  }
}

async function checkEcho(port: number): Promise<void> {
  const ws = await connect(`ws://127.0.0.1:${port}/echo`);
  await ws.send("Hello");
  assert.equal(await ws.receive(), "Hello");
  await ws.close();
}

describe("A1 a client that resets", () => {
  for (const name of ["http.ts", "express.ts", "fastify.ts", "hono.ts"]) {
    it(`A1 examples/${name} survives requests for another path`, async () => {
      const program = (await readSource(`examples/${name}`)).replaceAll("8080", "0");
      await withPrograms(async (start) => {
        const server = await start(name, program);
        const port = Number((await server.printed(/port: (\d+)/))[1]);
        await resetAll(port);
        await checkEcho(port);
      }, await insideRepository());
    });
  }

  for (const OTHERS of ["ignore", "wrong"]) {
    it(`A1 a server survives whose other listeners ${OTHERS}`, async () => {
      await withPrograms(async (start) => {
        const server = await start("server.mjs", PROGRAM, { env: { OTHERS } });
        const port = Number((await server.printed(/port: (\d+)/))[1]);
        await resetAll(port);
        await checkEcho(port);
      });
    });
  }
});

describe("A2 a request for a path that is not attached", () => {
  const cases: [name: string, paths: AttachOptions["path"][], listener?: UpgradeListener][] = [
    ["by one that is attached", ["/echo"]],
    ["by any that are attached", ["/echo", () => false, "/more"]],
    ["beside a listener that ignores it", ["/echo"], () => {}],
    ["beside a listener that only looks", ["/echo"], (_request, socket) => socket.listeners("end")],
    ["beside a listener that looks at it later", ["/echo"], () => rest()],
  ];
  for (const [name, paths, listener] of cases) {
    it(`A2 ${name} is answered with 404, and ends`, async () => {
      await withHttp(async (server) => {
        const attached = paths.map((path) => attach(server, { path }, echo));
        if (listener !== undefined) server.on("upgrade", listener);
        const answer = await answerTo(server, OTHER);
        assert.match(answer, /^HTTP\/1\.1 404 [^]*\r\nconnection: close\r\n/i);
        // The server still serves requests that a handler takes.
        await checkEcho(portOf(server));
        await Promise.all(attached.map((one) => one.shutdown()));
      });
    });
  }

  it("A2 server.close() and shutdown() end though the client does nothing more", async () => {
    const sockets = countSockets();
    await withHttp(async (server) => {
      const attached = attach(server, { path: "/echo", closeTimeout: 50 }, echo);
      const raws = await Promise.all([1, 2, 3].map(() => RawSocket.connect(portOf(server))));
      for (const raw of raws) raw.write(OTHER);
      await until(() => raws.every((raw) => raw.ended));
      const closed = new Promise((resolve) => server.close(resolve));
      await held(Promise.all([closed, attached.shutdown()]));
      for (const { socket } of raws) socket.destroy();
    });
    await until(() => countSockets() <= sockets);
  });

  it("A2 a client that ends without reading is let go", async () => {
    await withAttached({ path: "/echo", closeTimeout: 50 }, async (server) => {
      const raw = await RawSocket.connect(portOf(server));
      raw.socket.end(OTHER);
      await until(() => raw.closed);
      assert.match(raw.text, /^HTTP\/1\.1 404 /);
      const closed = new Promise((resolve) => server.close(resolve));
      await held(closed);
    });
  });

  it("A2 the refusal is counted and reported to onRefused", async () => {
    const refused: [code: string, status: number | undefined, url: string | undefined][] = [];
    const options: AttachOptions = {
      path: "/echo",
      maxConnections: 1,
      onRefused: (error, request) => refused.push([error.code, error.status, request?.url]),
    };
    await withAttached(options, async (server, attached) => {
      const raw = await RawSocket.connect(portOf(server));
      raw.write(OTHER);
      await until(() => raw.ended);
      const error = await rejection<HandshakeError>(connect(urlOf(server, "/echo")));
      assert.equal(error.response?.status, 503);
      raw.socket.destroy();
      assert.equal(attached.connections.size, 0);
    });
    assert.deepEqual(refused, [
      ["not-found", 404, "http://localhost/other"],
      ["too-many-connections", 503, refused[1][2]],
    ]);
    assert.match(refused[1][2]!, /\/echo$/);
  });

  /** The answer of another listener. */
  const TAKEN = "HTTP/1.1 299 Taken\r\nConnection: close\r\n\r\n";
  const answer = (socket: Duplex) => void socket.end(TAKEN);
  const takers: [name: string, listener: UpgradeListener][] = [
    ["at once", (_request, socket) => answer(socket)],
    ["a microtask later", async (_request, socket) => {
      await undefined;
      await undefined;
      answer(socket);
    }],
    ["later, and listens for errors until then", async (_request, socket) => {
      socket.on("error", () => {});
      await rest();
      answer(socket);
    }],
    ["later, as a proxy that only sets options until it has dialled", async (_request, socket) => {
      (socket as IncomingMessage["socket"]).setKeepAlive(true, 0);
      await rest();
      answer(socket);
    }],
    ["later, and reads until then", async (_request, socket) => {
      socket.resume();
      await rest();
      answer(socket);
    }],
  ];
  for (const [name, listener] of takers) {
    for (const order of ["before", "after"] as const) {
      it(`A2 another listener, added ${order}, accepts it ${name}`, async () => {
        await withHttp(async (server) => {
          if (order === "before") server.on("upgrade", listener);
          const attached = attach(server, { path: "/echo" }, echo);
          if (order === "after") server.on("upgrade", listener);
          assert.equal(await answerTo(server, OTHER), TAKEN);
          await attached.shutdown();
        });
      });
    }
  }

  it("A2 upgrade() in another listener accepts it", async () => {
    await withHttp(async (server) => {
      const attached = attach(server, { path: "/echo" }, echo);
      server.on("upgrade", async (request, socket, head) => {
        if (request.url !== "/other") return;
        const ws = await upgrade(request, socket, head);
        await ws.send("other");
      });
      const ws = await connect(urlOf(server, "/other"));
      assert.equal(await ws.receive(), "other");
      await ws.close();
      assert.match(await answerTo(server, upgradeRequest()), /^HTTP\/1\.1 404 /);
      await attached.shutdown();
    });
  });

  it("A2 a socket that was watched is as it was before", async () => {
    await withHttp(async (server) => {
      const attached = attach(server, { path: "/echo" }, echo);
      const names: string[][] = [];
      server.on("upgrade", async (_request, socket) => {
        socket.on("error", () => {});
        await rest();
        names.push(["write", "end", "setTimeout"].filter((name) => Object.hasOwn(socket, name)));
        answer(socket);
      });
      assert.equal(await answerTo(server, OTHER), TAKEN);
      assert.deepEqual(names, [[]]);
      await attached.shutdown();
    });
  });

  it("A2 a path filter that gives something else than a boolean is reported", async () => {
    const late = () => Promise.reject(new Error("late"));
    for (const path of [() => Promise.resolve(true), late, () => "yes", () => 1, () => []]) {
      const errors: unknown[] = [];
      const options: AttachOptions = {
        path: path as never,
        onError: (error) => errors.push(error),
      };
      await withAttached(options, async (server) => {
        assert.match(await answerTo(server, OTHER), /^HTTP\/1\.1 500 /);
        await until(() => errors.length > 0);
      });
      assert.ok(errors[0] instanceof TypeError, String(errors[0]));
    }
  });
});

describe("A3 a request to upgrade to something else", () => {
  /** Checks the answer to such a request: plain HTTP if the server supports that, otherwise 400. */
  const isPlain = (server: Server, answer: string) =>
    assert.match(
      answer,
      canLeave(server)
        ? /^HTTP\/1\.1 200 OK\r\n[^]*\r\nplain \/plain$/
        : /^HTTP\/1\.1 400 [^]*\r\nconnection: close\r\n/i,
    );

  /** The answer to such a request. Does not wait for the server to end the connection. */
  async function answerOf(server: Server, request: string): Promise<string> {
    const raw = await RawSocket.connect(portOf(server));
    raw.write(request);
    await until(() => raw.ended || raw.text.endsWith("plain /plain"));
    raw.socket.destroy();
    return raw.text;
  }

  const paths: [name: string, path: AttachOptions["path"]][] = [
    ["no path", undefined],
    ["another path", "/echo"],
    ["a filter that lets all through", () => true],
  ];
  for (const [name, path] of paths) {
    for (const upgrade of ["h2c", "HTTP/2.0, h2c", "TLS/1.0", "websockets", "foo bar;"]) {
      it(`A3 ${upgrade} to a server with ${name} gets the plain response`, async () => {
        await withAttached({ path }, async (server) => {
          isPlain(server, await answerOf(server, H2C.replace("h2c", upgrade)));
          await checkEcho(portOf(server));
        });
      });
    }
  }

  it("A3 a request for a WebSocket may name other protocols too", async () => {
    for (const upgrade of ["h2c, websocket", "WebSocket", "websocket, h2c"]) {
      await withAttached({}, async (server) => {
        const raw = await RawSocket.connect(portOf(server));
        raw.write(upgradeRequest({ Upgrade: upgrade }));
        await until(() => raw.text.includes("\r\n\r\n"));
        assert.match(raw.text, /^HTTP\/1\.1 101 /);
        raw.socket.destroy();
      });
    }
  });

  it("A3 another listener may accept it; otherwise the answer is 400", async () => {
    await withHttp(async (server) => {
      const attached = attach(server, {}, echo);
      let takes = true;
      server.on("upgrade", (request, socket) => {
        if (takes && request.headers.upgrade === "h2c") socket.end("taken");
      });
      assert.equal(await answerTo(server, H2C), "taken");
      takes = false;
      const answer = await answerTo(server, H2C);
      assert.match(answer, /^HTTP\/1\.1 400 [^]*\r\nconnection: close\r\n/i);
      await checkEcho(portOf(server));
      await attached.shutdown();
    });
  });

  it("A3 detach() leaves the server as it was before", async () => {
    await withHttp(async (server) => {
      for (let i = 0; i < 2; i++) {
        const attached = attach(server, {}, echo);
        isPlain(server, await answerOf(server, H2C));
        await attached.shutdown();
        isPlain(server, await answerOf(server, H2C));
      }
      server.on("upgrade", (_request, socket) => void socket.end("taken"));
      assert.equal(await answerTo(server, H2C), "taken");
    });
  });

  it("A3 a shouldUpgradeCallback of the server's own is asked too", async () => {
    await withHttp(async (server) => {
      if (!canLeave(server)) return;
      Object.assign(server, {
        shouldUpgradeCallback: ({ url }: IncomingMessage) => url !== "/plain",
      });
      const attached = attach(server, {}, echo);
      isPlain(server, await answerOf(server, H2C));
      isPlain(server, await answerOf(server, upgradeRequest({}, "GET /plain HTTP/1.1")));
      await checkEcho(portOf(server));
      await attached.shutdown();
    });
  });
});

describe("C12 upgrade() after the end of the socket", () => {
  const cases: [name: string, listen: (socket: Duplex, take: () => void) => unknown][] = [
    ["within its 'end' listener", (socket, take) => socket.on("end", take)],
    ["in a later turn", (socket, take) => socket.on("end", () => void rest().then(take))],
  ];
  for (const [name, listen] of cases) {
    it(`C12 ${name} gives a connection that ends at once with 1006`, async () => {
      await withHttp(async (server) => {
        let error: WebSocketError | undefined;
        server.on("upgrade", (request, socket, head) => {
          socket.on("error", () => {});
          listen(socket, async () => {
            const ws = await upgrade(request, socket, head, { pingInterval: 0 });
            error = await rejection<WebSocketError>(ws.closed);
          });
          socket.resume();
        });
        const raw = await RawSocket.connect(portOf(server));
        raw.socket.end(upgradeRequest());
        await until(() => error !== undefined);
        assert.equal(error?.closeCode, 1006);
        await until(() => raw.ended);
        assert.match(raw.text, /^HTTP\/1\.1 101 /);
      });
    });
  }

  it("C12 a socket that was destroyed opens no connection", async () => {
    await withHttp(async (server) => {
      let error: HandshakeError | WebSocketError | undefined;
      server.on("upgrade", async (request, socket, head) => {
        socket.on("error", () => {});
        socket.destroy();
        await rest();
        const onRequest = () => rest();
        error = await rejection(upgrade(request, socket, head, { onRequest }));
      });
      const raw = await RawSocket.connect(portOf(server));
      raw.write(upgradeRequest());
      await until(() => error !== undefined);
      assert.equal(error?.name, "HandshakeError");
      assert.equal(error?.code as string, "connection-lost");
    });
  });
});
