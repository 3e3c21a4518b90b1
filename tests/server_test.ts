import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  accept,
  connect,
  errorCodeOf,
  HandshakeError,
  serve,
  type ServeOptions,
  type Server,
  type Transport,
  type TransportProvider,
  type WebSocketConnection,
} from "../mod.ts";
import { transportPair } from "../lib/testing.ts";
import { freePort } from "./ports.ts";
import {
  collect,
  echo,
  isPending,
  portOf,
  RawSocket,
  rejection,
  rest,
  turn,
  until,
  upgradeRequest,
  urlOf,
  withServer,
} from "./support.ts";
import { inVirtualTime } from "./virtual_time.ts";

/** Connects, and returns the status of the refusal, or 101. */
async function statusOf(server: Server, options: Parameters<typeof connect>[1] = {}) {
  try {
    const ws = await connect(urlOf(server), options);
    await ws.close();
    return 101;
  } catch (error) {
    return (error as HandshakeError).response!.status;
  }
}

describe("The handler of serve", () => {
  it("A handler gets the connection, which has its request", async () => {
    let asked: Request | undefined;
    const onRequest = (request: Request) => void (asked = request);
    await withServer({ onRequest }, async (server) => {
      const ws = await connect(urlOf(server, "/a?b"));
      assert.equal(await ws.receive(), "/a?b true");
      await ws.close();
    }, (ws) => {
      const { pathname, search } = new URL(ws.request.url);
      return ws.send(`${pathname}${search} ${ws.request === asked}`);
    });
  });

  it("A handler whose promise resolves closes with 1000", async () => {
    for (const handler of [async () => {}, async () => await turn(), () => Promise.resolve("a")]) {
      await withServer({ onError: (error) => assert.fail(`${error}`) }, async (server) => {
        const ws = await connect(urlOf(server));
        assert.equal((await ws.closed).closeCode, 1000);
      }, handler);
    }
  });

  it("A handler that throws closes with 1011, and onError is told", async () => {
    const fault = new Error("fault");
    const handlers = [
      () => {
        throw fault;
      },
      () => Promise.reject(fault),
      async (ws: WebSocketConnection) => {
        await ws.send("a");
        throw fault;
      },
    ];
    for (const handler of handlers) {
      const errors: unknown[] = [];
      await withServer({ onError: (error) => errors.push(error) }, async (server) => {
        const ws = await connect(urlOf(server));
        assert.equal((await ws.closed).closeCode, 1011);
      }, handler);
      assert.deepEqual(errors, [fault]);
    }
  });

  it("A handler that rejects with undefined is reported too", async () => {
    const errors: unknown[] = [];
    await withServer({ onError: (error) => errors.push(error) }, async (server) => {
      const ws = await connect(urlOf(server));
      assert.equal((await ws.closed).closeCode, 1011);
    }, () => Promise.reject(undefined));
    assert.deepEqual(errors, [undefined]);
  });

  it("A handler that forgets an await is reported", async () => {
    const errors: unknown[] = [];
    await withServer({ onError: (error) => errors.push(error) }, async (server) => {
      const ws = await connect(urlOf(server));
      assert.equal((await ws.closed).closeCode, 1000);
      await until(() => errors.length > 0);
    }, async (ws) => {
      await turn();
      ws.receive().catch(() => {});
    });
    assert.deepEqual(errors.map(errorCodeOf), ["forgotten-await"]);
  });

  const leaving: Record<string, (ws: WebSocketConnection) => Promise<unknown>> = {
    "receive()": async (ws) => {
      for (;;) await ws.receive();
    },
    "an iteration": async (ws) => {
      for await (const message of ws) await ws.send(message);
    },
    "a pipe": echo,
    "closed": (ws) => ws.closed,
    "a reader": async (ws) => {
      const reader = ws.readable.getReader();
      while (!(await reader.read()).done);
    },
    "ping()": async (ws) => {
      await rest();
      for (;;) await ws.ping();
    },
    "a send()": async (ws) => {
      for (;;) {
        await ws.send("a");
        await turn();
      }
    },
  };
  for (const [name, handler] of Object.entries(leaving)) {
    it(`A handler that rejects with what ${name} gives at the peer's end is not reported`, async () => {
      const errors: unknown[] = [];
      await withServer({ onError: (error) => errors.push(error) }, async (server) => {
        const lost = await connect(urlOf(server));
        lost.discard();
        await until(() => server.connections.size === 1);
        lost.terminate();
        await until(() => server.connections.size === 0);
        const closed = await connect(urlOf(server));
        closed.discard();
        await closed.close({ closeCode: 4000 });
        await until(() => server.connections.size === 0);
      }, handler);
      assert.deepEqual(errors, []);
    });
  }

  it("A handler that rejects with another connection's error is reported", async () => {
    const errors: unknown[] = [];
    const other = await serve({}, (ws) => ws.terminate());
    await withServer({ onError: (error) => errors.push(error) }, async (server) => {
      const ws = await connect(urlOf(server));
      assert.equal((await ws.closed).closeCode, 1011);
    }, async () => {
      await (await connect(urlOf(other))).receive();
    });
    assert.equal(errors.length, 1);
    await other.shutdown();
  });

  it("A handler whose onError throws does not take the server down", async (t) => {
    t.mock.method(console, "error", () => {});
    const onError = () => {
      throw new Error("second");
    };
    await withServer({ onError }, async (server) => {
      for (let i = 0; i < 2; i++) {
        const ws = await connect(urlOf(server));
        assert.equal((await ws.closed).closeCode, 1011);
      }
    }, () => Promise.reject(new Error("first")));
  });
});

describe("Server", () => {
  it("connections has the connections that are open or closing", async () => {
    await withServer({}, async (server) => {
      assert.equal(server.connections.size, 0);
      const clients = await Promise.all([1, 2, 3].map(() => connect(urlOf(server))));
      await until(() => server.connections.size === 3);
      await clients[0].close();
      await until(() => server.connections.size === 2);
      clients[1].terminate();
      await until(() => server.connections.size === 1);
      await clients[2].close();
      await until(() => server.connections.size === 0);
    });
  });

  it("connections no longer has an ended connection whose handler still runs", async () => {
    let leave!: () => void;
    const left = new Promise<void>((resolve) => leave = resolve);
    await withServer({}, async (server) => {
      const ws = await connect(urlOf(server));
      await until(() => server.connections.size === 1);
      await ws.close();
      await until(() => server.connections.size === 0);
      leave();
    }, () => left);
  });

  it("shutdown() closes with 1001, waits, and frees the port", async () => {
    let returned = false;
    const port = await freePort();
    const server = await serve({ port }, async (ws) => {
      await echo(ws);
      await rest();
      returned = true;
    });
    const clients = await Promise.all([connect(urlOf(server)), connect(urlOf(server))]);
    const closed = clients.map((ws) => ws.closed);
    await server.shutdown();
    assert.equal(returned, true);
    assert.equal(server.connections.size, 0);
    for (const info of await Promise.all(closed)) assert.equal(info.closeCode, 1001);
    const next = await serve({ port }, echo);
    assert.equal(portOf(next), port);
    await next.shutdown();
  });

  it("shutdown() closes with the code and reason given", async () => {
    const server = await serve({}, echo);
    const ws = await connect(urlOf(server));
    await server.shutdown({ closeCode: 1012, reason: "update" });
    assert.deepEqual(await ws.closed, { closeCode: 1012, reason: "update" });
  });

  it("shutdown() refuses a code that cannot be sent, and the server continues", async () => {
    await withServer({}, async (server) => {
      const ws = await connect(urlOf(server));
      await assert.rejects(server.shutdown({ closeCode: 1006 }), RangeError);
      await ws.send("a");
      assert.equal(await ws.receive(), "a");
      assert.equal(await statusOf(server), 101);
      await ws.close();
    });
  });

  it("shutdown() is idempotent, and finished resolves with it", async () => {
    const server = await serve({}, echo);
    assert.equal(await isPending(server.finished), true);
    const ws = await connect(urlOf(server));
    await Promise.all([server.shutdown(), server.shutdown(), server.finished]);
    await server.shutdown();
    await server.finished;
    await ws.closed;
  });

  it("shutdown() is what Symbol.asyncDispose does", async () => {
    const server = await serve({}, echo);
    const ws = await connect(urlOf(server));
    await server[Symbol.asyncDispose]();
    assert.equal((await ws.closed).closeCode, 1001);
    await server.finished;
  });

  it("shutdown() ends handshakes under way", async () => {
    const server = await serve({}, echo);
    const idle = await RawSocket.connect(portOf(server));
    const halfway = await RawSocket.connect(portOf(server));
    halfway.write("GET / HTTP/1.1\r\nHost: a\r\n");
    await rest();
    const down = server.shutdown();
    await Promise.all([idle.close(), halfway.close()]);
    await down;
    assert.match(halfway.text, /^HTTP\/1\.1 503 /);
  });

  it("shutdown() ends a handshake whose hook takes its time", async () => {
    let asked = false;
    const server = await serve({
      onRequest: () => {
        asked = true;
        return new Promise<undefined>(() => {});
      },
    }, echo);
    const opening = rejection<HandshakeError>(connect(urlOf(server)));
    await until(() => asked);
    await server.shutdown();
    assert.equal((await opening).response?.status, 503);
  });

  it("shutdown() cuts a client that does not answer", async () => {
    const server = await serve({ closeTimeout: 50 }, async (ws) => {
      for await (const _ of ws);
    });
    const raw = await RawSocket.connect(portOf(server));
    raw.write(
      "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    await until(() => server.connections.size === 1);
    let over = false;
    const down = server.shutdown().then(() => over = true);
    await until(() => over);
    await down;
    raw.socket.destroy();
  });

  it("shutdown() cuts the remaining connections after its timeout, and finished resolves", async () => {
    const errors: unknown[] = [];
    let handled = 0;
    const options: ServeOptions = { closeTimeout: 0, onError: (error) => errors.push(error) };
    const server = await serve(options, async (ws) => {
      await ws.closed.catch(() => {});
      handled++;
      await new Promise(() => {});
    });
    const raw = await RawSocket.connect(portOf(server));
    raw.write(upgradeRequest());
    await until(() => server.connections.size === 1);
    const long = server.shutdown();
    await rest();
    assert.equal(await isPending(server.finished), true);
    // A second call may set a shorter timeout.
    await server.shutdown({ timeout: 20 });
    await Promise.all([long, server.finished]);
    assert.deepEqual([server.connections.size, handled, errors], [0, 1, []]);
    raw.socket.destroy();
    await (await serve({ port: portOf(server) }, echo)).shutdown();
  });

  it("shutdown() waits for no handler that is stuck", async () => {
    const server = await serve({}, () => new Promise(() => {}));
    const ws = await connect(urlOf(server));
    const { closed } = ws;
    await server.shutdown({ timeout: 20, closeCode: 1012 });
    assert.deepEqual(await closed, { closeCode: 1012, reason: "" });
  });

  it("shutdown() with a timeout of 0 cuts at once", async () => {
    const server = await serve({}, () => new Promise(() => {}));
    const { closed } = await connect(urlOf(server));
    await server.shutdown({ timeout: 0 });
    await closed.catch(({ closeCode }) => assert.equal(closeCode, 1006));
  });

  it("shutdown() waits 30 seconds by default, and for ever with Infinity", async () => {
    for (
      const [options, isPatient] of [[undefined, false], [{ timeout: Infinity }, true]] as const
    ) {
      await inVirtualTime(async (time) => {
        const listening = { address: { transport: "tcp", hostname: "a", port: 1 } } as const;
        let accept!: (transport: Transport) => void;
        const provider: TransportProvider = {
          connect: () => assert.fail(),
          listen: (_, accepting) => {
            accept = accepting;
            return Promise.resolve({ ...listening, close: () => Promise.resolve() });
          },
        };
        const server = await serve({ provider }, () => new Promise(() => {}));
        const [near, far] = transportPair();
        accept(far);
        const ws = await connect("ws://a/", { transport: near });
        let isDown = false;
        const down = server.shutdown(options).then(() => isDown = true);
        await ws.closed;
        await time.advance(29_000);
        assert.equal(isDown, false);
        await time.advance(1_000);
        assert.equal(isDown, !isPatient);
        void server.shutdown({ timeout: 1 });
        await time.advance(1);
        await down;
      });
    }
  });

  it("shutdown() refuses a wrong timeout", async () => {
    await withServer({}, async (server) => {
      await assert.rejects(server.shutdown({ timeout: "1" as never }), TypeError);
      await assert.rejects(server.shutdown({ timeout: -1 }), RangeError);
    });
  });

  it("A plain request that onRequest answers is not counted as a refused handshake", async () => {
    const onRequest = () => new Response("up\n");
    await withServer({ onRequest, maxRequestBody: 10 }, async (server) => {
      const url = urlOf(server).replace("ws:", "http:");
      const headers = { Connection: "close" };
      assert.equal(await (await fetch(url, { headers })).text(), "up\n");
      const post = { method: "POST", body: "Hello", headers };
      assert.equal(await (await fetch(url, post)).text(), "up\n");
      await until(() => server.stats.answered === 2);
      assert.deepEqual([server.stats.refused, server.stats.refusedByStatus], [{}, {}]);
      assert.equal(await statusOf(server), 200);
      await until(() => server.stats.refused.rejected === 1);
      const { answered, refused, refusedByStatus } = server.stats;
      assert.deepEqual([answered, refused, refusedByStatus], [2, { rejected: 1 }, { 200: 1 }]);
    });
  });

  it("A server counts connections, refusals, messages and bytes", async () => {
    const options = { origins: ["https://a"], maxConnections: 2 };
    await withServer(options, async (server) => {
      assert.equal(await statusOf(server, { origin: "https://b" }), 403);
      const clients = [];
      for (let i = 0; i < 2; i++) {
        clients.push(await connect(urlOf(server), { origin: "https://a", compression: false }));
      }
      assert.equal(await statusOf(server, { origin: "https://a" }), 503);
      for (const ws of clients) {
        await ws.send("Hello");
        assert.equal(await ws.receive(), "Hello");
      }
      const refused = { origin: 1, "too-many-connections": 1 };
      const refusedByStatus = { 403: 1, 503: 1 };
      const totals = {
        ...{ messagesReceived: 2, messagesSent: 2, bytesReceived: 22, bytesSent: 14 },
        ...{ framesReceived: 2, framesSent: 2 },
        ...{ pingsReceived: 0, pingsSent: 0, pongsReceived: 0, pongsSent: 0 },
        ...{ compressedBytesReceived: 0, compressedBytesSent: 0 },
        ...{ uncompressedBytesReceived: 0, uncompressedBytesSent: 0 },
      };
      const counts = { answered: 0, refused, refusedByStatus, ...totals };
      assert.deepEqual(server.stats, { opened: 2, ended: 0, ...counts });
      await clients[0].close();
      await until(() => server.stats.ended === 1);
      const closes = {
        ...{ bytesReceived: 22 + 6, bytesSent: 14 + 2 },
        ...{ framesReceived: 3, framesSent: 3 },
      };
      assert.deepEqual(server.stats, { opened: 2, ended: 1, ...counts, ...closes });
      await clients[1].close();
    });
  });

  it("A server knows its URL, host name and port", async () => {
    const cases = [["127.0.0.1", "127.0.0.1"], ["0.0.0.0", "localhost"]];
    for (const [hostname, host] of cases) {
      await withServer({ hostname }, async (server) => {
        assert.equal(server.hostname, hostname);
        assert.equal(server.port, portOf(server));
        assert.equal(server.url, `ws://${host}:${server.port}`);
        await (await connect(server.url)).close();
      });
    }
  });

  it("serve() rejects where it cannot listen", async () => {
    await withServer({}, async (server) => {
      const port = portOf(server);
      await assert.rejects(serve({ port }, echo), { code: "EADDRINUSE" });
      const error = await rejection<Error>(serve({ port }, echo));
      assert.equal(errorCodeOf(error), "listen-failed");
      assert.equal(
        error.message,
        `Cannot listen on 127.0.0.1 port ${port}: the address is in use (EADDRINUSE)`,
      );
      assert.ok(error.cause instanceof Error);
    });
    const unknown = await rejection<Error>(serve({ hostname: "nowhere.invalid" }, echo));
    assert.equal(errorCodeOf(unknown), "listen-failed");
    assert.match(unknown.message, /^Cannot listen on nowhere\.invalid port 0: ./);
  });
});

describe("accept", () => {
  it("accept() gives a connection over a transport alone", async () => {
    const [near, far] = transportPair();
    const accepting = accept(far, { protocols: ["a"] });
    const client = await connect("ws://localhost/", { transport: near, protocols: ["a"] });
    const server = await accepting;
    assert.equal(server.protocol, "a");
    await server.send("a");
    server.close({ closeCode: 1000 });
    assert.deepEqual(await collect(client), ["a"]);
    assert.equal((await server.closed).closeCode, 1000);
  });

  it("accept() answers a refusal, and rejects with it", async () => {
    const [near, far] = transportPair();
    const accepting = rejection<HandshakeError>(accept(far, { origins: ["https://a"] }));
    const client = await rejection<HandshakeError>(connect("ws://localhost/", { transport: near }));
    assert.equal(client.response!.status, 403);
    const error = await accepting;
    assert.ok(error instanceof HandshakeError);
    assert.equal(error.code, "origin");
    assert.equal(error.status, 403);
  });

  it("accept() gives up when its signal is aborted, before and during", async () => {
    const reason = new Error("enough");
    for (const early of [true, false]) {
      const [near, far] = transportPair();
      let closed = false;
      near.handle({ data() {}, drain() {}, end: () => near.end(), close: () => closed = true });
      const controller = new AbortController();
      if (early) controller.abort(reason);
      const accepting = rejection(accept(far, { signal: controller.signal }));
      await rest();
      controller.abort(reason);
      assert.equal(await accepting, reason);
      await until(() => closed);
    }
  });
});
