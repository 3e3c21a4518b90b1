/**
 * Handshakes that a server refuses: the answer, the hooks that are called, and the valid results of hooks.
 */
import { after, describe } from "node:test";
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { connect as connectSocket, type Socket } from "node:net";
import process from "node:process";
import { it } from "../it.ts";
import {
  accept,
  basicAuth,
  connect,
  HandshakeError,
  serve,
  type ServeOptions,
  type WebSocketConnection,
  type WebSocketError,
} from "../../mod.ts";
import { attach, upgrade } from "../../lib/node.ts";
import { encodeFrame } from "../../lib/core/mod.ts";
import { transportPair } from "../../lib/testing.ts";
import { concat, latin1 } from "../bytes.ts";
import { certificates } from "../certificates.ts";
import { MESSAGE, portOf as httpPortOf, withHttp } from "../http_servers.ts";
import { answerTo as http2AnswerTo, CONNECT, noServer, withHttp2 } from "../http2_servers.ts";
import {
  echo,
  inBothRoles,
  portOf,
  RawSocket,
  rejection,
  rest,
  still,
  textFrame,
  until,
  upgradeRequest,
  withRawServer,
  withServer,
} from "../support.ts";

type Options = Omit<ServeOptions, "transport" | "hostname" | "port" | "path" | "limits">;
type Handler = (ws: WebSocketConnection) => unknown;

/** The arguments of a hook that was told of a refusal. */
interface Told {
  error: HandshakeError;
  request: Request | undefined;
}

/** A server, and the refusals that its hooks were told of. */
interface Watched {
  port: number;
  told: Told[];
  errors: unknown[];
}

/** Both kinds of server, with hooks that record their arguments. */
const SERVERS: [
  name: string,
  run: (options: Options, test: (at: Watched) => unknown, handler?: Handler) => Promise<void>,
][] = [
  ["serve()", async (options, test, handler = echo) => {
    const watched = noting();
    await withServer({ ...watched.hooks, ...options }, (server) => {
      return test({ ...watched, port: portOf(server) });
    }, handler);
  }],
  ["attach()", async (options, test, handler = echo) => {
    const watched = noting();
    await withHttp(async (server) => {
      const attached = attach(server, { ...watched.hooks, ...options }, handler);
      await test({ ...watched, port: httpPortOf(server) });
      await attached.shutdown();
    });
  }],
];

function noting() {
  const told: Told[] = [];
  const errors: unknown[] = [];
  const hooks = {
    onRefused: (error: HandshakeError, request?: Request) => void told.push({ error, request }),
    onError: (error: unknown) => void errors.push(error),
  };
  return { told, errors, hooks };
}

/** Everything that a server answers to these bytes. */
async function answerTo(port: number, request: string): Promise<string> {
  const raw = await RawSocket.connect(port);
  raw.write(request);
  await raw.close();
  return raw.text;
}

const statusOf = (answer: string) => Number(/^HTTP\/1\.1 (\d+) /.exec(answer)?.[1]);
const bodyOf = (answer: string) => answer.slice(answer.indexOf("\r\n\r\n") + 4);
const fail = () => {
  throw new Error("secret");
};
const post = (fields: Record<string, string>, body = "") => {
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  return `POST /form HTTP/1.1\r\nHost: localhost\r\n${lines.join("")}\r\n${body}`;
};

/** The unhandled rejections. There must be none, although several hooks reject. */
const unhandled: unknown[] = [];
const note = (reason: unknown) => void unhandled.push(reason);
process.on("unhandledRejection", note);
after(() => {
  process.off("unhandledRejection", note);
  assert.deepEqual(unhandled, []);
});

describe("C13 onRefused", () => {
  const notUpgrade = upgradeRequest({ Upgrade: null }, "GET /a HTTP/1.1");
  const noVersion = upgradeRequest({ "Sec-WebSocket-Version": "8" }, "GET /a HTTP/1.1");
  const withOrigin = upgradeRequest({ Origin: "https://b" }, "GET /a HTTP/1.1");
  const good = upgradeRequest({}, "GET /a HTTP/1.1");
  const cases: [
    name: string,
    options: Options,
    request: string,
    code: string,
    status: number | undefined,
    url: string | undefined,
    only?: "serve()",
  ][] = [
    ["a head that is none", {}, "HELO x\r\n\r\n", "malformed-head", 400, undefined, "serve()"],
    ["a plain request", {}, notUpgrade, "not-upgrade", 426, "/a", "serve()"],
    ["a body", {}, post({ "Content-Length": "1" }, "a"), "body", 413, "/form", "serve()"],
    ["one too many", { maxConnections: 0 }, good, "too-many-connections", 503, undefined],
    [
      "one too many of an address",
      { maxConnectionsPerAddress: 0 },
      good,
      "too-many-connections",
      503,
      undefined,
    ],
    ["another version", {}, noVersion, "version", 426, "/a"],
    ["another origin", { origins: ["https://a"] }, withOrigin, "origin", 403, "/a"],
    ["a hook that throws", { onRequest: fail }, good, "hook-failed", 500, "/a"],
    [
      "a hook that answers",
      { onRequest: () => new Response("no", { status: 401 }) },
      good,
      "rejected",
      401,
      "/a",
    ],
    [
      "a hook that takes too long",
      { openTimeout: 500, onRequest: () => new Promise(() => {}) },
      good,
      "timeout",
      408,
      "/a",
    ],
  ];
  for (const [server, withWatched] of SERVERS) {
    for (const [name, options, request, code, status, url, only = server] of cases) {
      if (only !== server) continue;
      it(`C13 onRefused of ${server} is called for ${name}`, async () => {
        await withWatched(options, async ({ port, told }) => {
          assert.equal(statusOf(await answerTo(port, request)), status);
          assert.equal(told.length, 1);
          const [{ error, request: seen }] = told;
          assert.ok(error instanceof HandshakeError);
          assert.deepEqual([error.code, error.status], [code, status]);
          // attach() gets the head from the HTTP server.
          const path = url ?? (server === "attach()" ? "/a" : undefined);
          assert.equal(seen?.url, path && `http://localhost${path}`);
        });
      });
    }

    it(`C13 onRefused of ${server} is called for handshakes that shutdown() ends`, async () => {
      let isAsked = false;
      const onRequest = () => {
        isAsked = true;
        return new Promise<undefined>(() => {});
      };
      let all: Told[] = [];
      await withWatched({ onRequest }, async ({ port, told }) => {
        const raw = await RawSocket.connect(port);
        raw.write(upgradeRequest());
        await until(() => isAsked);
        raw.socket.end();
        all = told;
      });
      assert.deepEqual(all.map(({ error }) => [error.code, error.status]), [["shutdown", 503]]);
    });

    it(`C13 an error of onRefused of ${server} is reported to onError`, async () => {
      for (const onRefused of [fail, () => Promise.reject(new Error("secret"))]) {
        await withWatched({ maxConnections: 0, onRefused }, async ({ port, errors }) => {
          assert.equal(statusOf(await answerTo(port, upgradeRequest())), 503);
          await until(() => errors.length > 0);
          assert.match(String(errors), /^Error: secret$/);
        });
      }
    });

    it(`C13 onRefused of ${server} is not called for a connection that opens`, async () => {
      await withWatched({}, async ({ port, told }) => {
        await (await connect(`ws://127.0.0.1:${port}/`)).close();
        assert.deepEqual(told, []);
      });
    });
  }

  it("C13 onRefused of attachHttp2() is called", { skip: noServer }, async () => {
    const { told, hooks } = noting();
    await withHttp2({ ...hooks, path: "/ws", origins: ["https://a"] }, async ({ session }) => {
      const origin = { origin: "https://b" };
      await http2AnswerTo(session, { ...CONNECT, ":path": "/ws", ...origin });
      await http2AnswerTo(session, { ...CONNECT, ":path": "/other" });
    });
    const seen = told.map(({ error, request }) => [error.code, error.status, request?.url]);
    assert.deepEqual(seen.map(([code, status]) => [code, status]), [
      ["origin", 403],
      ["not-found", 404],
    ]);
    for (const [, , url] of seen) assert.match(String(url), /^http:.*\/(ws|other)$/);
  });

  it("C13 onRefused of accept() and upgrade() is told, and they reject", async () => {
    const { told, hooks } = noting();
    const [near, far] = transportPair();
    const accepted = rejection<HandshakeError>(accept(far, hooks));
    near.handle({ data() {}, drain() {}, end: () => near.end(), close() {} });
    near.write([latin1("x\r\n\r\n")]);
    const error = await accepted;
    await withHttp(async (server) => {
      const refused = new Promise<HandshakeError>((resolve) => {
        server.on("upgrade", (request, socket, head) => {
          resolve(rejection(upgrade(request, socket, head, { ...hooks, origins: [] })));
        });
      });
      assert.equal(statusOf(await answerTo(httpPortOf(server), upgradeRequest())), 403);
      assert.deepEqual(told.map((one) => one.error), [error, await refused]);
    });
  });

  it("C13 onRefused of accept() is told that its signal was aborted", async () => {
    const { told, hooks } = noting();
    const controller = new AbortController();
    const [, far] = transportPair();
    const accepted = rejection(accept(far, { ...hooks, signal: controller.signal }));
    await rest();
    const reason = new Error("enough");
    controller.abort(reason);
    assert.equal(await accepted, reason);
    assert.deepEqual(told.map(({ error }) => [error.code, error.cause]), [["shutdown", reason]]);
  });

  it("C13 onRefused must be a function", async () => {
    const options = { onRefused: "no" } as never;
    assert.ok(await rejection(serve(options, echo)) instanceof TypeError);
    assert.throws(() => attach(createServer(), options, echo), TypeError);
  });

  it("C13 an onError that rejects does no harm", async () => {
    const { error } = console;
    const printed: unknown[] = [];
    console.error = (...given) => void printed.push(...given);
    try {
      const onError = () => Promise.reject(new Error("again"));
      await withServer({ onRequest: fail, onError }, async (server) => {
        assert.equal(statusOf(await answerTo(portOf(server), upgradeRequest())), 500);
        await until(() => printed.length > 0);
      });
    } finally {
      console.error = error;
    }
    assert.match(String(printed), /^Error: again$/);
  });
});

describe("C13 a client that leaves while a hook waits", () => {
  const HOOKS = ["onRequest", "selectProtocol", "onResponse"] as const;
  for (const [server, withWatched] of SERVERS) {
    for (const name of HOOKS) {
      it(`C13 the handler of ${server} is not called for one that resets during ${name}`, async () => {
        let waiting: (() => void) | undefined;
        let handled = 0;
        const later: string[] = [];
        const hooks: Options = Object.fromEntries(
          HOOKS.map((one) => [one, () => {
            if (waiting !== undefined) later.push(one);
            if (one === name) return new Promise<void>((resolve) => waiting = resolve);
          }]),
        );
        await withWatched(hooks, async ({ port, told, errors }) => {
          const raw = await RawSocket.connect(port);
          raw.write(upgradeRequest());
          await until(() => waiting !== undefined);
          raw.socket.resetAndDestroy();
          await until(() => told.length > 0);
          assert.equal(told[0].error.code, "connection-lost");
          assert.equal(told[0].request?.method, "GET");
          waiting!();
          await rest();
          assert.deepEqual([handled, later, errors], [0, [], []]);
        }, () => handled++);
      });
    }

    it(`C13 ${server} opens for a client that has ended its side only`, async () => {
      let waiting: (() => void) | undefined;
      const onRequest = () =>
        new Promise<undefined>((resolve) => waiting = () => resolve(undefined));
      let handled = 0;
      await withWatched({ onRequest }, async ({ port }) => {
        const raw = await RawSocket.connect(port);
        raw.socket.end(concat([latin1(upgradeRequest()), MESSAGE]));
        await until(() => waiting !== undefined);
        await rest();
        waiting!();
        await raw.close();
        assert.equal(statusOf(raw.text), 101);
        await until(() => handled > 0);
      }, async (ws) => {
        assert.equal(await ws.receive(), "Hello");
        handled++;
      });
    });

    it(`C13 ${server} reads little of one that sends while a hook waits, and loses nothing`, async () => {
      let waiting: (() => void) | undefined;
      const onRequest = () =>
        new Promise<undefined>((resolve) => waiting = () => resolve(undefined));
      const frame = encodeFrame({ opcode: 2, payload: new Uint8Array(65_536) }, {
        mask: new Uint8Array(4),
      });
      const count = 400;
      let received = 0;
      await withWatched({ onRequest }, async ({ port }) => {
        const raw = await RawSocket.connect(port);
        raw.write(upgradeRequest());
        await until(() => waiting !== undefined);
        for (let i = 0; i < count; i++) raw.socket.write(frame);
        const left = await still(() => raw.socket.writableLength);
        assert.ok(left > 0, "All of it was read");
        waiting!();
        await until(() => received === count);
        raw.socket.destroy();
      }, async (ws) => {
        for await (const message of ws) {
          if (message.length === 65_536) received++;
        }
      });
    });
  }

  it("C13 onRefused is called for a TLS client that resets", async () => {
    const { leaf, ca } = await certificates();
    let waiting = false;
    let handled = 0;
    const { told, hooks } = noting();
    const onRequest = () => {
      waiting = true;
      return new Promise<undefined>(() => {});
    };
    await withServer({ ...hooks, tls: leaf, onRequest }, async (server) => {
      let upstream: Socket | undefined;
      await withRawServer((client) => {
        upstream = connectSocket(portOf(server), "127.0.0.1");
        upstream.on("error", () => {});
        client.socket.pipe(upstream).pipe(client.socket);
      }, async (url) => {
        const opening = rejection(connect(url.replace("ws:", "wss:"), { tls: { ca } }));
        await until(() => waiting);
        upstream!.resetAndDestroy();
        await until(() => told.length > 0);
        assert.equal(told[0].error.code, "connection-lost");
        return { opening };
      });
    }, () => handled++);
    assert.equal(handled, 0);
  });
});

describe("C10 a HEAD that is refused", () => {
  const request = (fields: Record<string, string | null> = {}) =>
    upgradeRequest(fields, "HEAD /a HTTP/1.1");
  const cases: [name: string, options: Options, request: string, status: number][] = [
    ["by its method", {}, request(), 405],
    ["by a hook that throws", { onRequest: fail }, request(), 500],
    ["by a Host that is none", {}, request({ Host: "a b" }), 400],
    [
      "by a hook that answers",
      { onRequest: () => new Response("no", { status: 403 }) },
      request(),
      403,
    ],
    [
      "by a hook that takes too long",
      { openTimeout: 500, onRequest: () => new Promise(() => {}) },
      request(),
      408,
    ],
  ];
  for (const [server, withWatched] of SERVERS) {
    for (const [name, options, request, status] of cases) {
      it(`C10 ${server} sends no body to one that is refused ${name}`, async () => {
        await withWatched(options, async ({ port }) => {
          const answer = await answerTo(port, request);
          assert.equal(statusOf(answer), status);
          assert.match(answer, /\r\n(content-length: [1-9]|transfer-encoding: chunked)/i);
          assert.equal(bodyOf(answer), "");
        });
      });
    }
  }

  const unread: [what: string, request: string, status: number][] = [
    ["HTTP/2.0", "HEAD / HTTP/2.0\r\nHost: a\r\n\r\n", 505],
    ["a field that is none", "HEAD / HTTP/1.1\r\nHost : a\r\n\r\n", 400],
    ["a target that is too long", `HEAD /${"a".repeat(9000)}`, 414],
    ["a field that is too long", `HEAD / HTTP/1.1\r\nA: ${"a".repeat(9000)}`, 431],
    ["no end", "HEAD / HTTP/1.1\r\nHost: a\r\n", 408],
  ];
  for (const [what, request, status] of unread) {
    it(`C10 serve() sends no body to a HEAD with ${what}`, async () => {
      await withServer({ openTimeout: 500 }, async (server) => {
        const answer = await answerTo(portOf(server), request);
        assert.equal(statusOf(answer), status);
        assert.match(answer, /\r\ncontent-length: [1-9]/i);
        assert.equal(bodyOf(answer), "");
      });
    });
  }

  it("C10 serve() sends a body in answer to a malformed GET", async () => {
    await withServer({}, async (server) => {
      const answer = await answerTo(portOf(server), "GET / HTTP/1.1\r\nHost : a\r\n\r\n");
      assert.equal(statusOf(answer), 400);
      assert.notEqual(bodyOf(answer), "");
    });
  });

  it("C10 serve() sends no body to a plain HEAD", async () => {
    await withServer({}, async (server) => {
      const answer = await answerTo(portOf(server), "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
      assert.equal(statusOf(answer), 405);
      assert.equal(bodyOf(answer), "");
    });
  });
});

/** A body that gives these chunks, and then fails with the error if there is one. */
function bodyOfChunks(chunks: unknown[], error?: unknown): ReadableStream<never> {
  return new ReadableStream({
    async pull(controller) {
      await rest();
      if (chunks.length > 0) controller.enqueue(chunks.shift() as never);
      else if (error === undefined) controller.close();
      else controller.error(error);
    },
  });
}

describe("C15 what onRequest returns", () => {
  const used = new Response("used");
  const locked = new Response("locked");
  locked.body!.getReader();
  const odd = new Response("odd");
  odd.headers.set("X-Odd", "a\x7fb");
  const wrong: [name: string, answer: unknown][] = [
    ["5", 5],
    ["null", null],
    ["true", true],
    ["an empty string", ""],
    ["an object like a Response", { status: 403, headers: {}, body: null }],
    ["a Request", new Request("http://localhost/")],
    ["a promise of 5", Promise.resolve(5)],
    ["Response.error()", Response.error()],
    ["a Response whose body was read", used],
    ["a Response whose body is locked", locked],
    ["a Response with a field that cannot be sent", odd],
    ["a Response that lacks its body", new Response(null, { headers: { "Content-Length": "5" } })],
    ["a Response of an odd length", new Response("a", { headers: { "Content-Length": "one" } })],
  ];
  for (const [server, withWatched] of SERVERS) {
    for (const [name, answer] of wrong) {
      it(`C15 ${server} answers 500 for ${name}, and reports it`, async () => {
        if (answer === used && !used.bodyUsed) await used.text();
        await withWatched({ onRequest: () => answer as never }, async ({ port, told, errors }) => {
          const text = await answerTo(port, upgradeRequest());
          assert.equal(statusOf(text), 500);
          assert.equal(bodyOf(text), "Internal Server Error\n");
          await until(() => errors.length > 0);
          assert.ok(errors[0] instanceof TypeError, String(errors[0]));
          assert.deepEqual(told.map(({ error }) => error.code), ["hook-failed"]);
          assert.equal(errors.length, 1);
        });
      });
    }

    it(`C15 ${server} takes a Response once, and one of a class of its own`, async () => {
      class Mine extends Response {}
      const answer = new Mine("mine", { status: 403 });
      await withWatched({ onRequest: () => answer }, async ({ port, errors }) => {
        assert.equal(statusOf(await answerTo(port, upgradeRequest())), 403);
        assert.equal(statusOf(await answerTo(port, upgradeRequest())), 500);
        await until(() => errors.length > 0);
        assert.match(String(errors), /new Response for each request/);
      });
    });

    const fault = new Error("the disk");
    const five = () => new TextEncoder().encode("five!");
    const long = { headers: { "Content-Length": "9" } };
    const short = { headers: { "Content-Length": "1" } };
    const bodies: [name: string, make: () => Response, error: RegExp][] = [
      ["errors", () => new Response(bodyOfChunks([five()], fault)), /the disk/],
      ["errors at once", () => new Response(bodyOfChunks([], fault)), /the disk/],
      ["errors with a length", () => new Response(bodyOfChunks([five()], fault), long), /the disk/],
      ["gives text", () => new Response(bodyOfChunks([five(), "text"])), /bytes/],
      ["gives numbers", () => new Response(bodyOfChunks([5])), /bytes/],
      ["is shorter than it says", () => new Response(bodyOfChunks([five()]), long), /9 bytes/],
      ["is longer than it says", () => new Response(bodyOfChunks([five()]), short), /1 bytes/],
    ];
    for (const [name, make, error] of bodies) {
      it(`C15 ${server} cuts a body that ${name}, and reports it`, async () => {
        await withWatched({ onRequest: make }, async ({ port, errors }) => {
          const answer = await answerTo(port, upgradeRequest());
          assert.equal(statusOf(answer), 200);
          assert.ok(!answer.endsWith("0\r\n\r\n") && !answer.endsWith("!!!!"), answer);
          await until(() => errors.length > 0);
          assert.match(String(errors), error);
          assert.equal(errors.length, 1);
        });
      });
    }

    it(`C15 ${server} reports nothing when the client leaves within a body`, async () => {
      let cancelled = false;
      const body = () =>
        new ReadableStream<Uint8Array<ArrayBuffer>>({
          pull: (controller) => rest().then(() => controller.enqueue(new Uint8Array(9))),
          cancel: () => {
            cancelled = true;
          },
        });
      for (const init of [{}, { headers: { "Content-Length": "999999" } }]) {
        cancelled = false;
        const options: Options = { onRequest: () => new Response(body(), init), closeTimeout: 100 };
        await withWatched(options, async ({ port, errors }) => {
          const raw = await RawSocket.connect(port);
          raw.write(upgradeRequest());
          await until(() => bodyOf(raw.text).length > 9);
          raw.socket.resetAndDestroy();
          await until(() => cancelled);
          await rest();
          assert.deepEqual(errors, []);
        });
      }
    });
  }
});

describe("C15 what the other hooks return", () => {
  const authorization = `Basic ${btoa("ada:lovelace")}`;
  for (const verified of [undefined, null, "no", 1, { password: "another" }]) {
    it(`C15 basicAuth() refuses a client if verify returns ${JSON.stringify(verified)}`, async () => {
      const { told, errors, hooks } = noting();
      const onRequest = basicAuth({ verify: () => verified as never });
      await withServer({ ...hooks, onRequest }, async (server) => {
        const request = upgradeRequest({ Authorization: authorization });
        assert.equal(statusOf(await answerTo(portOf(server), request)), 500);
        await until(() => errors.length > 0);
        assert.ok(errors[0] instanceof TypeError, String(errors[0]));
        assert.deepEqual(told.map(({ error }) => error.code), ["hook-failed"]);
      });
    });
  }

  it("C15 an onFrame that rejects fails only its connection, with 1011", async () => {
    const fault = new Error("fault");
    for (const seen of ["in", "out"]) {
      const onFrame = (direction: string) => direction === seen ? Promise.reject(fault) : undefined;
      await inBothRoles(async (ws, peer) => {
        ws.send("a").catch(() => {});
        peer.send(textFrame("b"));
        const error = await rejection<WebSocketError>(ws.closed);
        assert.deepEqual([error.closeCode, error.cause], [1011, fault]);
      }, { onFrame: onFrame as never });
    }
  });

  for (const chosen of [5, "invented", {}]) {
    it(`C15 a subprotocol of ${JSON.stringify(chosen)} is answered with 500, and reported`, async () => {
      const { told, errors, hooks } = noting();
      const selectProtocol = () => chosen as never;
      await withServer({ ...hooks, selectProtocol }, async (server) => {
        assert.equal(statusOf(await answerTo(portOf(server), upgradeRequest())), 500);
        await until(() => errors.length > 0);
        assert.deepEqual(told.map(({ error }) => error.code), ["hook-failed"]);
      });
    });
  }
});

describe("C18 a plain HTTP request with a body", () => {
  const long = "x".repeat(1_000_000);
  const cases: [name: string, request: string][] = [
    ["a short body", post({ "Content-Length": "5" }, "hello")],
    ["a long body", post({ "Content-Length": `${long.length}` }, long)],
    ["a body that never comes", post({ "Content-Length": "5", Expect: "100-continue" })],
    ["a chunked body", post({ "Transfer-Encoding": "chunked" }, "5\r\nhello\r\n0\r\n\r\n")],
    ["a GET with one", post({ "Content-Length": "5" }, "hello").replace("POST", "GET")],
    [
      "another upgrade",
      post({ "Content-Length": "5", Connection: "upgrade", Upgrade: "h2c" }, "hello"),
    ],
  ];
  for (const [name, request] of cases) {
    it(`C18 serve() answers 413 to ${name}, and asks no hook`, async () => {
      let asked = 0;
      await withServer({ onRequest: () => void asked++ }, async (server) => {
        const answer = await answerTo(portOf(server), request);
        assert.equal(statusOf(answer), 413);
        assert.match(answer, /\r\nconnection: close\r\n/i);
        assert.equal(asked, 0);
      });
    });
  }

  it("C18 onRequest sees a plain request without one", async () => {
    const onRequest = (request: Request) => new Response(request.method);
    await withServer({ onRequest }, async (server) => {
      for (const length of ["0", undefined]) {
        const answer = await answerTo(
          portOf(server),
          post(length === undefined ? {} : { "Content-Length": length }),
        );
        assert.match(answer, /^HTTP\/1\.1 200 [^]*POST/);
      }
    });
  });

  it("C18 a WebSocket request with a body gets 400", async () => {
    await withServer({}, async (server) => {
      const request = upgradeRequest({ "Content-Length": "1" });
      assert.equal(statusOf(await answerTo(portOf(server), request)), 400);
    });
  });

  it("C18 attachHttp2() answers 413 too", { skip: noServer }, async () => {
    let asked = 0;
    await withHttp2({ onRequest: () => void asked++ }, async ({ session }) => {
      const { status } = await http2AnswerTo(session, { ":method": "POST", ":path": "/form" });
      assert.equal(status, 413);
      assert.equal(asked, 0);
    });
  });
});
