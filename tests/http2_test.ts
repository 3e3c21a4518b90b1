import { describe } from "node:test";
import assert from "node:assert/strict";
import {
  createServer,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { it, notApplicable } from "./it.ts";
import { HandshakeError, type WebSocketConnection } from "../mod.ts";
import type { Extension, ExtensionFactory, FramePiece } from "../lib/core/mod.ts";
import { attachHttp2, type AttachHttp2Options, connectHttp2, upgradeHttp2 } from "../lib/http2.ts";
import { assertSameBytes, pattern } from "./bytes.ts";
import {
  answerTo,
  CONNECT,
  dial,
  echo,
  endSession,
  http2Server,
  listeners,
  noServer,
  withHttp2,
} from "./http2_servers.ts";
import { rejection, rest, until } from "./support.ts";

const skip = noServer;

/** An error code of HTTP/2 (RFC 9113 §7). */
const INTERNAL_ERROR = 2;

/** An extension that changes nothing. */
function idleExtension(): Extension {
  const waiting: FramePiece[] = [];
  return {
    name: "toy",
    rsv: 0,
    push: (piece) => void waiting.push(piece),
    next: () => waiting.shift(),
    encode: (frame) => frame,
    close: () => {},
  };
}

describe("A connection over HTTP/2", () => {
  it("attachHttp2() and connectHttp2() exchange messages and close", { skip }, async () => {
    let seen: unknown;
    await withHttp2({
      protocols: ["chat"],
      headers: { "X-B": "2" },
      maxMessageSize: Infinity,
      handler: async (ws) => {
        const url = new URL(ws.request.url);
        const { headers, method } = ws.request;
        const { remoteAddress, protocol } = ws;
        const address = remoteAddress?.transport === "tcp" ? remoteAddress.hostname : undefined;
        const path = url.pathname + url.search;
        seen = [method, path, headers.get("origin"), headers.get("x-a"), protocol, address];
        for await (const message of ws) await ws.send(message);
      },
    }, async ({ open, attached }) => {
      const ws = await open("/a?b=c", {
        protocols: ["chat"],
        origin: "https://a",
        headers: { "X-A": "1" },
        maxMessageSize: Infinity,
      });
      assert.deepEqual([ws.protocol, ws.extensions, ws.state], ["chat", "", "open"]);
      assert.equal(ws.response.status, 200);
      assert.equal(ws.response.headers.get("x-b"), "2");
      assert.deepEqual(seen, ["GET", "/a?b=c", "https://a", "1", "chat", "127.0.0.1"]);
      const [theirs] = attached.connections;
      assert.deepEqual(ws.remoteAddress, theirs.localAddress);
      for (const size of [0, 1, 126, 65536, 1048576]) {
        await ws.send("é".repeat(size));
        assert.equal((await ws.receive() as string).length, size);
        await ws.send(pattern(size));
        assertSameBytes(await ws.receive() as Uint8Array, pattern(size));
      }
      assert.equal(typeof await ws.ping(), "number");
      assert.deepEqual(await ws.close({ closeCode: 3000, reason: "r" }), {
        closeCode: 3000,
        reason: "r",
      });
      assert.deepEqual(theirs.closeInfo?.first, "received");
    });
  });

  it("Both ends agree on an extension", { skip }, async () => {
    const made: string[] = [];
    const extensions: ExtensionFactory[] = [{
      name: "toy",
      offer: () => [[]],
      finalize: () => {
        made.push("client");
        return idleExtension();
      },
      accept: (parameters) => {
        made.push("server");
        return { parameters, extension: idleExtension() };
      },
    }];
    await withHttp2({ extensions }, async ({ open }) => {
      const ws = await open("/", { extensions });
      assert.equal(ws.extensions, "toy");
      assert.deepEqual(made, ["server", "client"]);
      await ws.send("Hello");
      assert.equal(await ws.receive(), "Hello");
      await ws.close();
      const none = await open();
      assert.equal(none.extensions, "");
      await none.close();
    });
  });

  it("Each message of the client is masked", { skip }, async () => {
    const frames: unknown[] = [];
    const onFrame: AttachHttp2Options["onFrame"] = (direction, { opcode }) =>
      frames.push([direction, opcode]);
    const raw: Uint8Array[] = [];
    await withHttp2({ onFrame }, async ({ open, server }) => {
      server.on("stream", (stream: ServerHttp2Stream) => {
        stream.on("data", (chunk: Uint8Array) => raw.push(chunk.slice(0, 2)));
      });
      const ws = await open();
      await ws.send("Hello");
      await ws.receive();
      await ws.close();
      assert.deepEqual(frames, [["in", 1], ["out", 1], ["in", 8], ["out", 8]]);
      assert.ok(raw.length > 0);
      for (const [, second] of raw) assert.equal(second & 0x80, 0x80);
    });
  });

  it("Several connections on one session do not disturb one another", { skip }, async () => {
    await withHttp2({}, async ({ open, session, streams, attached }) => {
      const before = listeners(session);
      const all = await Promise.all(Array.from({ length: 30 }, (_, i) => open(`/${i}`)));
      assert.equal(streams.size, 30);
      assert.equal(attached.connections.size, 30);
      await Promise.all(all.map((ws, i) => ws.send(`${i}`)));
      for (const [i, ws] of all.entries()) assert.equal(await ws.receive(), `${i}`);
      await Promise.all(all.map((ws, i) => i % 3 === 0 ? ws.terminate() : ws.close()));
      await Promise.allSettled(all.map(({ closed }) => closed));
      await until(() => streams.size === 0 && attached.connections.size === 0);
      assert.equal(session.closed, false);
      assert.deepEqual(listeners(session), before);
      assert.equal((await (await open()).close()).closeCode, 1005);
    });
  });

  it("attachHttp2() shuts down with the code it is given", { skip }, async () => {
    await withHttp2({}, async ({ open, attached, session }) => {
      const ws = await open();
      await attached.shutdown({ closeCode: 1012 });
      assert.equal((await ws.closed).closeCode, 1012);
      // Nothing takes the stream any more.
      assert.equal(attached.connections.size, 0);
      const stream = session.request(CONNECT, { endStream: false });
      await rest();
      stream.close(8);
    });
  });

  it(
    "attachHttp2() closes with 1011 for a handler that throws, and reports the error",
    { skip },
    async () => {
      const told: unknown[] = [];
      await withHttp2({
        onError: (error) => told.push(error),
        handler: () => {
          throw "fault";
        },
      }, async ({ open }) => {
        assert.equal((await (await open()).closed).closeCode, 1011);
        assert.deepEqual(told, ["fault"]);
      });
    },
  );
});

describe("What upgradeHttp2() and attachHttp2() are called with", () => {
  it("upgradeHttp2() gives the connection in another listener, once", { skip }, async () => {
    const errors: string[] = [];
    const server = http2Server();
    server.on("stream", async (stream: ServerHttp2Stream, headers) => {
      if (headers[":path"] === "/attached") return;
      const ws = upgradeHttp2(stream, headers, { protocols: ["own"] });
      errors.push((await rejection(upgradeHttp2(stream, headers))).name);
      await echo(await ws);
    });
    const path = (path: string) => path === "/attached";
    await withHttp2({ path, protocols: ["attached"], server }, async ({ open }) => {
      for (const name of ["own", "attached"]) {
        const ws = await open(`/${name}`, { protocols: [name] });
        assert.equal(ws.protocol, name);
        await ws.close();
      }
      assert.deepEqual(errors, ["InvalidStateError"]);
    });
  });

  it("attachHttp2() leaves other requests to the server's handler", { skip }, async () => {
    const server = createServer(
      { settings: { enableConnectProtocol: true } },
      (request, response) => void response.end(`plain ${request.url}`),
    );
    await withHttp2({ path: "/echo", server }, async ({ open, session, attached }) => {
      const first = attachHttp2(server, { path: "/other", protocols: ["other"] }, echo);
      const { body } = await answerTo(session, { ":path": "/echo" });
      assert.equal(body, "plain /echo");
      for (const path of ["/echo?a", "/other"]) {
        const ws = await open(path, { protocols: ["other"] });
        await ws.send("a");
        assert.equal(await ws.receive(), "a");
        await ws.close();
      }
      for (const path of ["/", "/nobody"]) {
        const error = await rejection<HandshakeError>(open(path));
        assert.deepEqual([error.code, error.response?.status], ["status", 404]);
      }
      // The answer that node:http2 gives to a CONNECT which no listener takes.
      const plain = { ":method": "CONNECT", ":authority": "a:1" };
      assert.equal((await answerTo(session, plain)).status, 405);
      await first.shutdown();
      attached.detach();
      assert.equal((await rejection<HandshakeError>(open("/echo"))).response?.status, 405);
      assert.equal(server.listenerCount("connect"), 0);
    });
  });

  it(
    "A server that attachHttp2() has left answers 503, and survives resets",
    { skip },
    async () => {
      let leave!: () => void;
      const left = new Promise<void>((resolve) => leave = resolve);
      const server = http2Server();
      const attached = attachHttp2(server, {}, () => left);
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      const { port } = server.address() as AddressInfo;
      const session = dial(`http://127.0.0.1:${port}`);
      const open = () => connectHttp2(session, `ws://127.0.0.1:${port}/`);
      const status = async () => (await rejection<HandshakeError>(open())).status;
      const ws = await open();
      const shutdown = attached.shutdown();
      for (const headers of [CONNECT, { ":path": "/" }]) {
        assert.equal((await answerTo(session, headers)).status, 503);
      }
      for (let i = 0; i < 10; i++) {
        const stream = session.request(CONNECT, { endStream: false });
        stream.on("error", () => {});
        stream._final = (done) => done();
        // An error of the server's stream ends the process if nobody listens.
        await Promise.race([
          i % 2 === 0 || rest(),
          new Promise((resolve) => stream.once("ready", resolve)),
        ]);
        stream.close(INTERNAL_ERROR);
        await until(() => stream.destroyed);
      }
      leave();
      await shutdown;
      await ws.closed;
      assert.equal(await status(), 503);
      const again = attachHttp2(server, {}, echo);
      await (await open()).close();
      await again.shutdown();
      assert.equal(await status(), 503);
      await endSession(session);
      await new Promise((resolve) => server.close(resolve));
    },
  );

  it("attachHttp2() leaves a plain CONNECT to the 'connect' listeners", { skip }, async () => {
    const server = createServer(
      { settings: { enableConnectProtocol: true } },
      (_request, response) => void response.end(),
    );
    server.on("connect", (request, response) => {
      if (request.headers[":protocol"] === undefined) response.writeHead(502).end();
    });
    await withHttp2({ server }, async ({ open, session }) => {
      const plain = { ":method": "CONNECT", ":authority": "a:1" };
      assert.equal((await answerTo(session, plain)).status, 502);
      await (await open()).close();
    });
  });

  it("attachHttp2() checks its arguments", { skip }, () => {
    const server = createServer();
    const wrong: [options: unknown, handler: unknown, error: new () => Error][] = [
      [undefined, echo, TypeError],
      [null, echo, TypeError],
      [{}, undefined, TypeError],
      [{ path: 1 }, echo, TypeError],
      [{ path: "chat" }, echo, RangeError],
      [{ openTimeout: -1 }, echo, RangeError],
      [{ headers: { "X A": "b" } }, echo, TypeError],
    ];
    for (const [options, handler, error] of wrong) {
      assert.throws(() => attachHttp2(server, options as never, handler as never), error);
    }
    assert.equal(server.listenerCount("stream"), 0);
    assert.equal(server.listenerCount("connect"), 0);
  });

  it("On Deno attachHttp2() is unsupported", {
    skip: skip ? undefined : notApplicable("attachHttp2() is there"),
  }, () => {
    const error = (() => {
      try {
        attachHttp2(createServer(), {}, echo);
      } catch (error) {
        return error as HandshakeError;
      }
    })();
    assert.ok(error instanceof HandshakeError, process.version);
    assert.equal(error.code, "unsupported");
  });
});

describe("What attachHttp2() refuses", () => {
  const cases: [what: string, headers: OutgoingHttpHeaders, status: number][] = [
    ["no version", {}, 400],
    ["version 8", { "sec-websocket-version": "8" }, 400],
    ["a subprotocol twice", { "sec-websocket-protocol": "a, a" }, 400],
    ["malformed extensions", { "sec-websocket-extensions": "=" }, 400],
    ["another origin", { origin: "https://b" }, 403],
  ];
  for (const [what, headers, status] of cases) {
    it(`attachHttp2() answers ${what} with ${status}`, { skip }, async () => {
      await withHttp2({ origins: ["https://a", null] }, async ({ session, attached }) => {
        const { "sec-websocket-version": version, ...rest } = CONNECT;
        const sent = what === "no version" ? rest : { ...rest, "sec-websocket-version": version };
        const answer = await answerTo(session, { ...sent, ...headers });
        assert.equal(answer.status, status);
        assert.match(answer.body, /^[A-Z:][^\n]+\n$/);
        assert.equal(answer.headers["content-length"], `${answer.body.length}`);
        assert.equal(answer.headers["connection"], undefined);
        const ours = what.includes("version") ? "13" : undefined;
        assert.equal(answer.headers["sec-websocket-version"], ours);
        assert.equal(attached.connections.size, 0);
      });
    });
  }

  const others: [what: string, headers: OutgoingHttpHeaders, status: number][] = [
    ["GET", { ":path": "/" }, 405],
    ["a plain CONNECT", { ":method": "CONNECT", ":authority": "a:1" }, 501],
    ["another :protocol", { ...CONNECT, ":protocol": "connect-udp" }, 501],
  ];
  for (const [what, headers, status] of others) {
    it(`upgradeHttp2() answers ${what} with ${status}`, { skip }, async () => {
      const server = http2Server();
      const refused = new Promise<HandshakeError>((resolve) => {
        server.on("stream", (stream: ServerHttp2Stream, headers) => {
          resolve(rejection<HandshakeError>(upgradeHttp2(stream, headers)));
        });
      });
      await withHttp2({ path: () => false, server }, async ({ session }) => {
        const answer = await answerTo(session, headers);
        assert.equal(answer.status, status);
        assert.equal(answer.headers.allow, status === 405 ? "CONNECT" : undefined);
        assert.equal((await refused).status, status);
      });
    });
  }

  it(
    "attachHttp2() answers with the Response of onRequest, as slow as its body likes",
    { skip },
    async () => {
      const onRequest = async (request: Request) => {
        await Promise.resolve();
        const { pathname } = new URL(request.url);
        if (pathname === "/") return;
        async function* body() {
          for (const part of ["no ", "", pathname]) {
            await rest();
            yield new TextEncoder().encode(part);
          }
        }
        const stream = pathname === "/empty" ? null : ReadableStream.from(body());
        const headers = { "X-A": "1", "Connection": "close", "Keep-Alive": "a" };
        return new Response(stream, { status: 401, headers });
      };
      await withHttp2({ onRequest }, async ({ open }) => {
        for (const [path, expected] of [["/a", "no /a"], ["/empty", ""]]) {
          const { code, response } = await rejection<HandshakeError>(open(path));
          assert.deepEqual([code, response?.status], ["status", 401]);
          assert.equal(response?.headers.get("x-a"), "1");
          assert.equal(response.headers.get("keep-alive"), null);
          const body = response.body as ReadableStream<Uint8Array<ArrayBuffer>>;
          assert.equal(await new Response(body).text(), expected);
        }
        await (await open("/")).close();
      });
    },
  );

  it("attachHttp2() does not send a 2xx of onRequest, which would accept the WebSocket", {
    skip,
  }, async () => {
    const onRequest = () => new Response("Sorry", { status: 200 });
    await withHttp2({ onRequest }, async ({ open, session }) => {
      const { code, response } = await rejection<HandshakeError>(open());
      assert.deepEqual([code, response?.status], ["status", 500]);
      // In answer to another method, it has its usual meaning.
      assert.equal((await answerTo(session, { ":path": "/" })).status, 200);
    });
  });

  it("A body that fails resets the stream, and a body that nobody reads is cancelled", {
    skip,
  }, async () => {
    let cancelled = false;
    const bodies: Record<string, UnderlyingDefaultSource> = {
      "/fails": {
        start(controller) {
          controller.enqueue(new Uint8Array(10));
          setTimeout(() => controller.error(new Error("fault")), 20);
        },
      },
      "/endless": {
        pull: (controller) => controller.enqueue(new Uint8Array(65536)),
        cancel: () => void (cancelled = true),
      },
    };
    const onRequest = (request: Request) =>
      new Response(new ReadableStream(bodies[new URL(request.url).pathname]), { status: 403 });
    await withHttp2({ onRequest }, async ({ open }) => {
      const { response } = await rejection<HandshakeError>(open("/fails"));
      const fails = response!.body as ReadableStream<Uint8Array<ArrayBuffer>>;
      await rejection(new Response(fails).bytes());
      const endless = (await rejection<HandshakeError>(open("/endless"))).response!.body;
      const body = await new Response(endless as ReadableStream<Uint8Array<ArrayBuffer>>).bytes();
      assert.equal(body.length, 65536);
      await until(() => cancelled);
    });
  });

  for (const hook of ["onRequest", "selectProtocol", "onResponse", "path"] as const) {
    it(
      `attachHttp2() answers 500 when ${hook} throws, and reports the error`,
      { skip },
      async () => {
        const told: unknown[] = [];
        const options: AttachHttp2Options = {
          onError: (error) => told.push(error),
          [hook]: () => {
            throw "secret";
          },
        };
        await withHttp2(options, async ({ open }) => {
          const { response } = await rejection<HandshakeError>(open());
          assert.equal(response?.status, 500);
          const body = response.body as ReadableStream<Uint8Array<ArrayBuffer>>;
          assert.equal(await new Response(body).text(), "Internal Server Error\n");
          await until(() => told.length > 0);
          assert.deepEqual(told, ["secret"]);
        });
      },
    );
  }

  it(
    "attachHttp2() answers 500 for header fields that HTTP/2 does not have",
    { skip },
    async () => {
      const told: unknown[] = [];
      const onResponse = (headers: Headers) => headers.set("Keep-Alive", "a");
      await withHttp2({ onResponse, onError: (error) => told.push(error) }, async ({ open }) => {
        assert.equal((await rejection<HandshakeError>(open())).response?.status, 500);
        await until(() => told.length > 0);
        assert.match(String(told), /keep-alive/);
      });
    },
  );

  it("attachHttp2() answers 503 when it shuts down", { skip }, async () => {
    let asked!: () => void;
    const waiting = new Promise<void>((resolve) => asked = resolve);
    const onRequest = () => {
      asked();
      return new Promise<void>(() => {});
    };
    await withHttp2({ onRequest }, async ({ open, attached }) => {
      const refused = rejection<HandshakeError>(open());
      await waiting;
      await attached.shutdown();
      assert.equal((await refused).response?.status, 503);
    });
  });

  it("attachHttp2() answers 408 when openTimeout has gone by", { skip }, async () => {
    const onRequest = () => new Promise<void>(() => {});
    await withHttp2({ onRequest, openTimeout: 50 }, async ({ open }) => {
      assert.equal((await rejection<HandshakeError>(open())).response?.status, 408);
    });
  });
});

describe("The setting of HTTP/2", () => {
  it("connectHttp2() without it is no-extended-connect, sooner or later", { skip }, async () => {
    await withHttp2({ server: createServer() }, async ({ session, url }) => {
      const before = listeners(session);
      // Several at once while the session is connecting, and others once the settings are known.
      const early = Array.from({ length: 15 }, () => connectHttp2(session, url()));
      for (const attempt of early) {
        assert.equal((await rejection<HandshakeError>(attempt)).code, "no-extended-connect");
      }
      const late = await rejection<HandshakeError>(connectHttp2(session, url()));
      assert.equal(late.code, "no-extended-connect");
      assert.deepEqual(listeners(session), before);
    });
  });

  it("upgradeHttp2() without it is no-extended-connect, and 501", { skip }, async () => {
    const server = createServer();
    let theirs: ServerHttp2Session | undefined;
    server.on("session", (session) => theirs = session);
    const refused = new Promise<HandshakeError>((resolve) => {
      server.on("stream", (stream: ServerHttp2Stream, headers) => {
        resolve(rejection<HandshakeError>(upgradeHttp2(stream, headers)));
      });
    });
    await withHttp2({ path: () => false, server }, async ({ session }) => {
      // The client has acknowledged the settings.
      await until(() => theirs?.pendingSettingsAck === false);
      const plain = { ":method": "CONNECT", ":authority": "a:1" };
      assert.equal((await answerTo(session, plain)).status, 501);
      assert.equal((await refused).code, "no-extended-connect");
    });
  });
});

describe("What connectHttp2() is called with", () => {
  it("connectHttp2() checks it", async () => {
    const session = dial("http://127.0.0.1:1");
    const url = "ws://localhost/";
    const wrong: [url: string, options: unknown, name: string][] = [
      ["ftp://localhost/", {}, "SyntaxError"],
      ["ws://localhost/#a", {}, "SyntaxError"],
      [url, { protocols: ["a", "A"] }, "SyntaxError"],
      [url, { protocols: "a" }, "TypeError"],
      [url, null, "TypeError"],
      [url, { openTimeout: -1 }, "RangeError"],
      [url, { headers: { "Transfer-Encoding": "a" } }, "TypeError"],
      [url, { headers: { "Sec-WebSocket-Key": "a" } }, "TypeError"],
    ];
    for (const [url, options, name] of wrong) {
      const error = await rejection(connectHttp2(session, url, options as never));
      assert.equal(error.name, name, `${url} ${JSON.stringify(options)}`);
    }
    await endSession(session);
  });

  it("connectHttp2() sends the credentials of the URL", { skip }, async () => {
    const seen: (string | null)[] = [];
    const onRequest = (request: Request) => void seen.push(request.headers.get("authorization"));
    await withHttp2({ onRequest }, async ({ session, url }) => {
      const ws: WebSocketConnection = await connectHttp2(session, url().replace("//", "//a:b@"));
      await ws.close();
      assert.deepEqual(seen, ["Basic YTpi"]);
    });
  });
});
