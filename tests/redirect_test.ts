import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect, type ConnectOptions, HandshakeError } from "../mod.ts";
import { transportPair } from "../lib/testing.ts";
import { certificates } from "./certificates.ts";
import {
  echo,
  field,
  isPending,
  portOf,
  type RawSocket,
  rejection,
  requestOf,
  until,
  upgradeResponse,
  urlOf,
  withRawServer,
  withServer,
} from "./support.ts";

/** Answers requests for these paths with a redirect, and upgrades all other requests. */
function redirecting(
  locations: Record<string, string | string[]>,
  heads: string[] = [],
  status = 302,
): (raw: RawSocket) => Promise<void> {
  return async (raw) => {
    const head = await requestOf(raw);
    heads.push(head);
    const location = locations[head.split(" ")[1]];
    if (location === undefined) return raw.write(upgradeResponse(head));
    const fields = [location].flat().map((value) => `Location: ${value}\r\n`).join("");
    raw.write(`HTTP/1.1 ${status} Elsewhere\r\nContent-Length: 0\r\n${fields}\r\n`);
  };
}

/** Connects, cuts the connection, and returns the URL that was reached. */
async function arrival(url: string, options: ConnectOptions): Promise<string> {
  const ws = await connect(url, options);
  ws.terminate();
  return ws.request.url;
}

async function failureOf(url: string, options: ConnectOptions): Promise<HandshakeError> {
  const error = await rejection<HandshakeError>(connect(url, options));
  assert.ok(error instanceof HandshakeError, String(error));
  return error;
}

describe("Redirects", () => {
  for (const status of [301, 302, 303, 307, 308]) {
    it(`connect() follows a ${status} with maxRedirects`, async () => {
      await withRawServer(redirecting({ "/": "/b" }, [], status), async (url) => {
        assert.match(await arrival(url, { maxRedirects: 1 }), /\/b$/);
        const error = await failureOf(url, {});
        assert.equal(error.code, "status");
        assert.equal(error.response!.headers.get("location"), "/b");
      });
    });
  }

  const kinds: [location: (port: string) => string, to: string][] = [
    [() => "b?c=d", "/x/b?c=d"],
    [() => "../b", "/b"],
    [() => "?q", "/x/a?q"],
    [() => "/b#fragment", "/b"],
    [(port) => `//127.0.0.1:${port}/b`, "/b"],
    [(port) => `ws://127.0.0.1:${port}/b`, "/b"],
    [(port) => `http://127.0.0.1:${port}/b`, "/b"],
    [(port) => `ws://localhost:${port}/b`, "/b"],
  ];
  for (const [location, to] of kinds) {
    it(`connect() follows a redirect to ${location("PORT")}`, async () => {
      const locations: Record<string, string> = {};
      await withRawServer(redirecting(locations), async (url) => {
        locations["/x/a"] = location(new URL(url).port);
        const { pathname, search } = new URL(await arrival(`${url}x/a`, { maxRedirects: 1 }));
        assert.equal(pathname + search, to);
      });
    });
  }

  const refused: [name: string, locations: Record<string, string | string[]>, expected: RegExp][] =
    [
      ["to itself", { "/": "/" }, /in a loop/],
      ["in a circle", { "/": "/b", "/b": "/c", "/c": "/b" }, /in a loop/],
      [
        "too often",
        { "/": "/1", "/1": "/2", "/2": "/3", "/3": "/4" },
        /more than maxRedirects \(3\)/,
      ],
      ["to another scheme", { "/": "ftp://127.0.0.1/" }, /WebSocket URL/],
      ["to nonsense", { "/": "http://[" }, /WebSocket URL/],
      ["to two places", { "/": ["/a", "/b"] }, /several/],
    ];
  for (const [name, locations, expected] of refused) {
    it(`connect() rejects with "redirect" if the server redirects ${name}`, async () => {
      await withRawServer(redirecting(locations), async (url) => {
        const error = await failureOf(url, { maxRedirects: 3 });
        assert.equal(error.code, "redirect");
        assert.match(error.message, expected);
        assert.equal(error.response!.status, 302);
      });
    });
  }

  const refusals: [status: number, location: string[]][] = [[302, []], [300, ["/b"]], [304, [
    "/b",
  ]]];
  for (const [status, location] of refusals) {
    it(`connect() takes a ${status} to ${location[0] ?? "nowhere"} for a refusal`, async () => {
      await withRawServer(redirecting({ "/": location }, [], status), async (url) => {
        assert.equal((await failureOf(url, { maxRedirects: 3 })).code, "status");
      });
    });
  }

  const headers = {
    "Authorization": "Bearer a",
    "Cookie": "a=b",
    "X-Api-Key": "a",
    "X-CSRF-Token": "a",
    "X-Room": "a",
  };

  it("connect() gives credentials to the same origin again", async () => {
    const heads: string[] = [];
    await withRawServer(redirecting({ "/": "/b" }, heads), async (url) => {
      await arrival(url, { maxRedirects: 1, headers });
      await arrival(url.replace("//", "//ada:lovelace@"), { maxRedirects: 1 });
    });
    for (const [name, value] of Object.entries(headers)) {
      assert.equal(field(heads[1], name), value);
    }
    assert.equal(field(heads[3], "Authorization"), `Basic ${btoa("ada:lovelace")}`);
  });

  it("connect() gives nothing to another origin, nor the credentials that a server names", async () => {
    const heads: string[] = [];
    const locations: Record<string, string> = {};
    await withRawServer(redirecting({}, heads), async (other) => {
      const { port } = new URL(other);
      locations["/"] = `http://eve:mallory@127.0.0.1:${port}/`;
      await withRawServer(redirecting(locations), async (url) => {
        const pairs = Object.entries(headers) as [string, string][];
        // An iterator can be read only once.
        await arrival(url, { maxRedirects: 1, headers: pairs.values() });
        await arrival(url.replace("//", "//ada:lovelace@"), {
          maxRedirects: 1,
          origin: "http://a",
        });
      });
    });
    for (const name of Object.keys(headers)) assert.equal(field(heads[0], name), undefined, name);
    assert.equal(field(heads[1], "Authorization"), undefined);
    assert.equal(field(heads[1], "Origin"), undefined);
  });

  it("connect() follows a redirect from ws to wss, but not from wss to ws", async () => {
    const { ca, leaf } = await certificates();
    const locations: Record<string, string> = {};
    const onRequest = (request: Request) => {
      const { pathname } = new URL(request.url);
      if (pathname !== "/back") return;
      return new Response(null, { status: 307, headers: { Location: locations.back } });
    };
    await withServer({ tls: leaf, onRequest }, async (server) => {
      const secure = `https://localhost:${portOf(server)}`;
      locations["/"] = secure;
      await withRawServer(redirecting(locations), async (url) => {
        // The name is only for the first server.
        const tls = { ca, servername: "elsewhere.test" };
        assert.equal(await arrival(url, { maxRedirects: 1, tls }), `${secure}/`);
        for (const back of [url, url.replace("ws:", "http:")]) {
          locations.back = back;
          const error = await failureOf(`${secure}/back`, { maxRedirects: 1, tls: { ca } });
          assert.equal(error.code, "redirect");
          assert.match(error.message, /from wss to ws/);
        }
      });
    });
  });

  it("connect() does not wait for the body of a redirect that it follows", async () => {
    const bodies = ["", "Content-Length: 9\r\n", "Transfer-Encoding: chunked\r\n"];
    for (const field of bodies) {
      const sockets: RawSocket[] = [];
      const onSocket = async (raw: RawSocket) => {
        sockets.push(raw);
        const head = await requestOf(raw);
        if (head.startsWith("GET /b")) return raw.write(upgradeResponse(head));
        raw.write(`HTTP/1.1 302 a\r\nLocation: /b\r\n${field}\r\n`);
      };
      await withRawServer(onSocket, async (url) => {
        assert.match(await arrival(url, { maxRedirects: 1, openTimeout: 0 }), /\/b$/);
        await until(() => sockets[0].ended || sockets[0].closed);
      });
    }
  });

  it("connect() follows no redirect over a transport of the caller's", async () => {
    const [near, far] = transportPair();
    far.handle({
      data: () => {
        far.write([new TextEncoder().encode("HTTP/1.1 302 a\r\nLocation: /b\r\n\r\n")]);
        far.end();
      },
      drain: () => {},
      end: () => {},
      close: () => {},
    });
    const error = await failureOf("ws://localhost/", { transport: near, maxRedirects: 3 });
    assert.equal(error.code, "status");
  });

  it("connect() can be aborted between redirects", async () => {
    const controller = new AbortController();
    const onSocket = async (raw: RawSocket) => {
      const head = await requestOf(raw);
      if (head.startsWith("GET /b")) return controller.abort(new Error("enough"));
      raw.write("HTTP/1.1 302 a\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n");
    };
    await withRawServer(onSocket, async (url) => {
      const { signal } = controller;
      const error = await rejection(connect(url, { maxRedirects: 1, signal }));
      assert.equal(error.message, "enough");
    });
  });

  it("connect() closes the connection that redirected it", async () => {
    const first: RawSocket[] = [];
    const locations: Record<string, string> = {};
    await withServer({}, async (server) => {
      locations["/"] = urlOf(server);
      const onSocket = (raw: RawSocket) => {
        first.push(raw);
        return redirecting(locations)(raw);
      };
      await withRawServer(onSocket, async (url) => {
        const ws = await connect(url, { maxRedirects: 1 });
        assert.ok(await isPending(ws.closed));
        assert.deepEqual(first.map(({ ended, closed }) => ended || closed), [true]);
        await ws.close();
      });
    }, echo);
  });

  const wrong: [value: unknown, error: typeof TypeError | typeof RangeError][] = [
    ["1", TypeError],
    [-1, RangeError],
    [1.5, RangeError],
    [21, RangeError],
    [Infinity, RangeError],
  ];
  for (const [value, error] of wrong) {
    it(`connect() refuses maxRedirects: ${JSON.stringify(value)} (${String(value)})`, async () => {
      const options = { maxRedirects: value } as ConnectOptions;
      assert.ok(await rejection(connect("ws://127.0.0.1:1/", options)) instanceof error);
    });
  }
});
