import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  connect,
  type ExtensionFactory,
  type HandshakeError,
  serve,
  type ServeOptions,
  type Server,
} from "../mod.ts";
import { echo, portOf, RawSocket, rejection, turn, until, urlOf, withServer } from "./support.ts";

type Hook = ServeOptions["onRequest"];

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

describe("The subprotocol of serve", () => {
  // The server chooses the subprotocol with the lowest sum of its positions in both lists.
  const choices: [ours: string[], theirs: string[], chosen: string][] = [
    [[], [], ""],
    [["a"], [], ""],
    [[], ["a"], ""],
    [["a"], ["b"], ""],
    [["a", "b"], ["b"], "b"],
    [["a", "b"], ["a", "b"], "a"],
    [["a", "b"], ["b", "a"], "a"],
    [["a", "b", "c"], ["c", "x", "a"], "a"],
    [["a", "b", "c"], ["b", "c", "a"], "b"],
    [["x", "y", "c"], ["c"], "c"],
    [["A"], ["a"], ""],
  ];
  for (const [ours, theirs, chosen] of choices) {
    it(`serve() with [${ours}] chooses ${chosen || "none"} of [${theirs}]`, async () => {
      await withServer({ protocols: ours }, async (server) => {
        const ws = await connect(urlOf(server), { protocols: theirs });
        assert.equal(ws.protocol, chosen);
        assert.equal([...server.connections][0].protocol, chosen);
        await ws.close();
      });
    });
  }

  it("selectProtocol chooses instead of the server's order", async () => {
    let seen: unknown;
    const selectProtocol: ServeOptions["selectProtocol"] = (offered, request) => {
      seen = [offered, new URL(request.url).pathname];
      return offered.at(-1);
    };
    await withServer({ protocols: ["a"], selectProtocol }, async (server) => {
      const ws = await connect(urlOf(server, "/x"), { protocols: ["a", "b"] });
      assert.equal(ws.protocol, "b");
      assert.deepEqual(seen, [["a", "b"], "/x"]);
      await ws.close();
      const none = await connect(urlOf(server));
      assert.equal(none.protocol, "");
      await none.close();
    });
  });

  it("selectProtocol that throws or invents one is answered with 500 and reported", async () => {
    const fault = new Error("fault");
    const hooks: NonNullable<ServeOptions["selectProtocol"]>[] = [
      () => {
        throw fault;
      },
      () => "invented",
    ];
    for (const selectProtocol of hooks) {
      const errors: unknown[] = [];
      const options = { selectProtocol, onError: (error: unknown) => void errors.push(error) };
      await withServer(options, async (server) => {
        assert.equal(await statusOf(server, { protocols: ["a"] }), 500);
      });
      assert.equal(errors.length, 1);
    }
  });
});

describe("The hooks of serve", () => {
  it("headers are sent in the 101 response, also repeated ones", async () => {
    const headers: [string, string][] = [["Set-Cookie", "a=1"], ["Set-Cookie", "b=2"], [
      "X-A",
      "c",
    ]];
    await withServer({ headers }, async (server) => {
      const ws = await connect(urlOf(server));
      assert.deepEqual(ws.response.headers.getSetCookie(), ["a=1", "b=2"]);
      assert.equal(ws.response.headers.get("x-a"), "c");
      await ws.close();
    });
  });

  it("headers that cannot be sent are refused before it listens", async () => {
    for (const headers of [{ "X A": "b" }, { "X-A": "b\r\nc" }, { Upgrade: "b" }]) {
      await assert.rejects(serve({ headers: headers as never }, echo), TypeError);
    }
  });

  it("headers of an iterator stand in each response", async () => {
    const headers = new Map([["X-A", "1"]]).entries();
    await withServer({ headers }, async (server) => {
      for (let i = 0; i < 2; i++) {
        const ws = await connect(urlOf(server));
        assert.equal(ws.response.headers.get("x-a"), "1");
        await ws.close();
      }
    });
  });

  it("An extension that fails, which only a client brings out, is reported", async () => {
    const errors: unknown[] = [];
    const onError = (error: unknown) => void errors.push(error);
    const broken = {
      name: "permessage-deflate",
      offer: () => [],
      accept: () => {
        throw new TypeError("broken");
      },
      finalize: () => undefined,
    } as unknown as ExtensionFactory;
    await withServer({ extensions: [broken], onError }, async (server) => {
      await rejection(connect(urlOf(server)));
      await until(() => errors.length > 0);
      assert.ok(errors[0] instanceof TypeError, `${errors[0]}`);
    });
  });

  it("onRequest sees the request; nothing lets it pass", async () => {
    const seen: Request[] = [];
    const hooks: Hook[] = [
      (request) => void seen.push(request),
      async (request) => {
        await turn();
        seen.push(request);
      },
    ];
    for (const onRequest of hooks) {
      await withServer({ onRequest }, async (server) => {
        const url = urlOf(server, "/a?b=c");
        const ws = await connect(url, { headers: { "X-A": "1" } });
        const request = seen.pop()!;
        assert.equal(request.url, url.replace("ws:", "http:"));
        assert.equal(request.method, "GET");
        assert.equal(request.headers.get("x-a"), "1");
        await ws.close();
      });
    }
  });

  it("onRequest that returns a Response refuses with it", async () => {
    const body = () =>
      new ReadableStream<Uint8Array>({
        async pull(controller) {
          await turn();
          controller.enqueue(new TextEncoder().encode("piece "));
          if (++pulled === 3) controller.close();
        },
      });
    let pulled = 0;
    const init = {
      status: 401,
      headers: { "WWW-Authenticate": "Basic", Connection: "keep-alive" },
    };
    const hooks: [hook: Hook, text: string][] = [
      [() => new Response("no", init), "no"],
      [() => Promise.resolve(new Response(null, init)), ""],
      [() => new Response(body(), init), "piece piece piece "],
    ];
    for (const [onRequest, text] of hooks) {
      await withServer({ onRequest }, async (server) => {
        const error = await rejection<HandshakeError>(connect(urlOf(server)));
        assert.equal(error.code, "status");
        const { status, headers, body } = error.response!;
        assert.equal(status, 401);
        assert.equal(headers.get("www-authenticate"), "Basic");
        assert.equal(headers.get("connection"), "close");
        assert.equal(
          await new Response(body as ReadableStream<Uint8Array<ArrayBuffer>>).text(),
          text,
        );
        assert.equal(server.connections.size, 0);
      });
    }
  });

  it("onRequest answers plain HTTP", async () => {
    await withServer({ onRequest: () => new Response("<h1>Hello</h1>") }, async (server) => {
      const response = await fetch(urlOf(server).replace("ws:", "http:"));
      assert.equal(response.status, 200);
      assert.equal(await response.text(), "<h1>Hello</h1>");
    });
  });

  it("onRequest gives a body without end, which is cancelled when the client has left", async () => {
    const kinds: [
      name: string,
      pull: (controller: ReadableStreamDefaultController) => Promise<void>,
    ][] = [
      ["goes on", (controller) => turn().then(() => controller.enqueue(new Uint8Array(9)))],
      ["waits", () => new Promise(() => {})],
    ];
    for (const [name, pull] of kinds) {
      let cancelled = false;
      const cancel = () => {
        cancelled = true;
      };
      const onRequest = () => new Response(new ReadableStream({ pull, cancel }));
      await withServer({ onRequest, closeTimeout: 100 }, async (server) => {
        const client = await RawSocket.connect(portOf(server));
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        await until(() => client.received.length > 0);
        client.socket.destroy();
        await until(() => cancelled).catch(() => assert.fail(`A body that ${name} still does`));
      });
    }
  });

  it("onRequest that throws is answered with 500 and reported", async () => {
    const fault = new Error("secret");
    const hooks: Hook[] = [
      () => {
        throw fault;
      },
      () => Promise.reject(fault),
    ];
    for (const onRequest of hooks) {
      const errors: unknown[] = [];
      await withServer({ onRequest, onError: (error) => errors.push(error) }, async (server) => {
        const error = await rejection<HandshakeError>(connect(urlOf(server)));
        assert.equal(error.response!.status, 500);
        assert.doesNotMatch(await new Response(error.response!.body as never).text(), /secret/);
      });
      assert.deepEqual(errors, [fault]);
    }
  });

  it("onResponse adds fields to the 101 response, also asynchronously", async () => {
    const hooks: ServeOptions["onResponse"][] = [
      (headers, request) => headers.set("x-a", new URL(request.url).pathname),
      async (headers) => {
        await turn();
        headers.append("x-a", "/p");
      },
    ];
    for (const onResponse of hooks) {
      await withServer({ onResponse }, async (server) => {
        const ws = await connect(urlOf(server, "/p"));
        assert.equal(ws.response.headers.get("x-a"), "/p");
        await ws.close();
      });
    }
  });

  it("onResponse that throws or breaks the handshake is answered with 500", async () => {
    const hooks: NonNullable<ServeOptions["onResponse"]>[] = [
      () => Promise.reject(new Error("fault")),
      (headers) => headers.set("sec-websocket-accept", "mine"),
    ];
    for (const onResponse of hooks) {
      const errors: unknown[] = [];
      await withServer({ onResponse, onError: (error) => errors.push(error) }, async (server) => {
        assert.equal(await statusOf(server), 500);
      });
      assert.equal(errors.length, 1);
    }
  });

  const page = "https://example.com";
  const origins: [allowed: ServeOptions["origins"], origin: string | undefined, status: number][] =
    [
      [undefined, undefined, 101],
      [undefined, page, 101],
      [[page], page, 101],
      [[page], "https://example.com.evil.net", 403],
      [[page], "http://example.com", 403],
      [[page], undefined, 403],
      [[page, null], undefined, 101],
      [[null], page, 403],
      [[], undefined, 403],
      [[/^https:\/\/[a-z]+\.example\.com$/], "https://a.example.com", 101],
      [[/^https:\/\/[a-z]+\.example\.com$/], "https://a.example.com.evil.net", 403],
      [[/example/], undefined, 403],
      ["same-origin", undefined, 101],
      ["same-origin", page, 403],
      ["same-origin", "null", 403],
      ["same-origin", "http://127.0.0.1:1", 403],
    ];
  for (const [allowed, origin, status] of origins) {
    const list = Array.isArray(allowed) ? `[${allowed}]` : allowed;
    it(`origins ${list} answer ${status} to ${origin ?? "no origin"}`, async () => {
      await withServer({ origins: allowed }, async (server) => {
        assert.equal(await statusOf(server, { origin }), status);
      });
    });
  }

  it("origins same-origin lets pages of the host itself in", async () => {
    await withServer({ origins: "same-origin" }, async (server) => {
      const origin = urlOf(server, "").replace("ws:", "http:");
      assert.equal(await statusOf(server, { origin }), 101);
    });
  });

  it("origins of a pattern with a memory answer the same each time", async () => {
    await withServer({ origins: [/https:.*example.*/g] }, async (server) => {
      for (let i = 0; i < 3; i++) assert.equal(await statusOf(server, { origin: page }), 101);
    });
  });
});
