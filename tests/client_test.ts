import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { accept, connect, type ConnectOptions, HandshakeError, serve } from "../mod.ts";
import { acceptToken, encodeFrame } from "../lib/core/mod.ts";
import { toStreams } from "../lib/byte_streams.ts";
import { transportPair } from "../lib/testing.ts";
import { concat, latin1, utf8 } from "./bytes.ts";
import {
  collect,
  isPending,
  type RawSocket,
  rejection,
  rest,
  turn,
  until,
  urlOf,
  withRawServer,
} from "./support.ts";

/** Waits for the head of the request, and gives it. */
async function requestOf(raw: RawSocket): Promise<string> {
  await until(() => raw.text.includes("\r\n\r\n"));
  return raw.text;
}

function field(head: string, name: string): string | undefined {
  return new RegExp(`^${name}: (.*)\r$`, "im").exec(head)?.[1];
}

/** The 101 response to a request, with some of its header fields left out or replaced. */
function upgradeResponse(request: string, fields: Record<string, string | null> = {}): string {
  const all: Record<string, string | null> = {
    Upgrade: "websocket",
    Connection: "Upgrade",
    "Sec-WebSocket-Accept": acceptToken(field(request, "Sec-WebSocket-Key")!),
    ...fields,
  };
  const lines = Object.entries(all).filter(([, value]) => value !== null);
  const rest = lines.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  return `HTTP/1.1 101 Switching Protocols\r\n${rest}\r\n`;
}

/** What connect() rejects with when a server by hand answers so. */
async function failure(
  onSocket: (raw: RawSocket) => unknown,
  options?: ConnectOptions,
): Promise<HandshakeError> {
  let error!: HandshakeError;
  const sockets: RawSocket[] = [];
  await withRawServer(async (raw) => {
    sockets.push(raw);
    await onSocket(raw);
  }, async (url) => {
    error = await rejection<HandshakeError>(connect(url, options));
    await until(() => sockets.every(({ ended, closed }) => ended || closed));
  });
  assert.ok(error instanceof HandshakeError, `${error}`);
  return error;
}

/** Answers each request with this text, and ends. */
function answering(text: string, end = true): (raw: RawSocket) => Promise<void> {
  return async (raw) => {
    await requestOf(raw);
    raw.write(text);
    if (end) raw.socket.end();
  };
}

describe("The arguments of connect", () => {
  const urls = [
    "",
    "nothing",
    "/path",
    "ftp://localhost/",
    "ws://localhost/#",
    "ws://localhost/#a",
  ];
  for (const url of urls) {
    it(`connect() refuses the URL ${JSON.stringify(url)} with a SyntaxError`, async () => {
      await assert.rejects(connect(url), { name: "SyntaxError" });
    });
  }

  for (const protocols of [[""], ["a b"], ["a", "a"], ["a", "A"], ["a,b"], ["\u00fc"], ["a\r\n"]]) {
    it(`connect() refuses the protocols ${JSON.stringify(protocols)} with a SyntaxError`, async () => {
      await assert.rejects(connect("ws://localhost/", { protocols }), { name: "SyntaxError" });
    });
  }

  const headers: [name: string, headers: ConnectOptions["headers"]][] = [
    ["a line break in a value", { "X-A": "a\r\nX-B: b" }],
    ["a line feed in a value", { "X-A": "a\nb" }],
    ["a NUL in a value", [["X-A", "a\0b"]]],
    ["a line break in a name", { "X-A: a\r\nX-B": "b" }],
    ["a name that is no token", [["X A", "a"]]],
    ["an empty name", [["", "a"]]],
    ["a field of the handshake", { "sec-websocket-key": "a" }],
    ["another Host", { Host: "elsewhere" }],
    ["a Content-Length", { "Content-Length": "5" }],
    ["a Transfer-Encoding", { "Transfer-Encoding": "chunked" }],
  ];
  for (const [name, given] of headers) {
    it(`connect() refuses ${name} with a TypeError, and does not dial`, async () => {
      const [near, far] = transportPair();
      let heard = 0;
      const note = () => void heard++;
      far.handle({ data: note, drain: note, end: note, close: note });
      const options = { headers: given, duplex: near };
      await assert.rejects(connect("ws://localhost/", options), TypeError);
      await rest();
      assert.equal(heard, 0);
      near.destroy();
    });
  }

  it("connect() refuses a line break in the origin", async () => {
    await assert.rejects(connect("ws://localhost/", { origin: "a\r\nX-B: b" }), TypeError);
  });

  it("connect() cannot be brought to send line breaks by the URL", async () => {
    await withRawServer(async (raw) => {
      const request = await requestOf(raw);
      assert.match(request.split("\r\n")[0], /^GET \/aX-B:%20b\?c[^ ]* HTTP\/1\.1$/);
      raw.socket.end();
    }, async (url) => {
      await rejection(connect(`${url}a\r\nX-B: b?c\r\n\0`));
    });
  });
});

describe("The request of connect", () => {
  it("connect() asks as RFC 6455 says, with the header fields given", async () => {
    let request = "";
    await failure(async (raw) => {
      request = await requestOf(raw);
      raw.socket.end();
    }, { protocols: ["a", "b"], origin: "https://example.com", headers: { "X-A": "1" } });
    assert.match(request, /^GET \/ HTTP\/1\.1\r\nHost: 127\.0\.0\.1:\d+\r\n/);
    assert.equal(field(request, "Upgrade"), "websocket");
    assert.equal(field(request, "Connection"), "Upgrade");
    assert.equal(field(request, "Sec-WebSocket-Version"), "13");
    assert.match(field(request, "Sec-WebSocket-Key")!, /^[A-Za-z0-9+/]{21}[AQgw]==$/);
    assert.equal(field(request, "Sec-WebSocket-Protocol"), "a, b");
    assert.equal(field(request, "Origin"), "https://example.com");
    assert.equal(field(request, "X-A"), "1");
  });

  it("connect() sends a fresh key each time, and no Origin of its own", async () => {
    const keys = new Set<string>();
    for (let i = 0; i < 3; i++) {
      await failure(async (raw) => {
        const request = await requestOf(raw);
        keys.add(field(request, "Sec-WebSocket-Key")!);
        assert.equal(field(request, "Origin"), undefined);
        raw.socket.end();
      });
    }
    assert.equal(keys.size, 3);
  });

  it("connect() sends user name and password as Authorization", async () => {
    const server = await serve({}, (ws, request) => ws.send(request.headers.get("authorization")!));
    const cases: [userinfo: string, sent: string][] = [
      ["user:pass", "user:pass"],
      ["user", "user:"],
      ["us%40er:p%C3%A4ss%3A", "us@er:p\u00e4ss:"],
    ];
    for (const [userinfo, sent] of cases) {
      const url = urlOf(server).replace("//", `//${userinfo}@`);
      const ws = await connect(url);
      const expected = btoa(String.fromCharCode(...utf8(sent)));
      assert.equal(await ws.receive(), `Basic ${expected}`);
      assert.equal(new URL(ws.request.url).username, "");
      await ws.close();
    }
    const url = urlOf(server).replace("//", "//user:pass@");
    const own = await connect(url, { headers: { authorization: "Bearer token" } });
    assert.equal(await own.receive(), "Bearer token");
    await own.close();
    await server.shutdown();
  });

  it("connect() takes header fields in each form, in order", async () => {
    const forms: ConnectOptions["headers"][] = [
      { "X-A": "1", "X-B": "2" },
      [["X-A", "1"], ["X-B", "2"]],
      new Headers([["X-A", "1"], ["X-B", "2"]]),
      new Map([["X-A", "1"], ["X-B", "2"]]),
    ];
    for (const headers of forms) {
      let request = "";
      await failure(async (raw) => {
        request = await requestOf(raw);
        raw.socket.end();
      }, { headers });
      assert.match(request, /\r\nx-a: 1\r\nx-b: 2\r\n\r\n$/i);
    }
  });
});

describe("How connect fails", () => {
  const html = "<h1>no</h1>";
  const cases: [
    name: string,
    code: string,
    onSocket: (raw: RawSocket) => unknown,
    options?: ConnectOptions,
  ][] = [
    ["a server that ends at once", "connection-lost", (raw) => raw.socket.end()],
    ["a server that resets", "connection-lost", async (raw) => {
      await requestOf(raw);
      raw.socket.resetAndDestroy();
    }],
    ["an end in the head", "connection-lost", answering("HTTP/1.1 101 Swi")],
    ["garbage", "malformed-head", answering("\0\x01\x02 garbage\r\n\r\n", false)],
    ["another protocol's greeting", "malformed-head", answering("SSH-2.0-x\r\n\r\n", false)],
    ["HTTP/2.0", "http-version", answering("HTTP/2.0 101 a\r\n\r\n", false)],
    [
      "a line that never ends",
      "head-too-large",
      answering("HTTP/1.1 101 ".padEnd(9000, "a"), false),
    ],
    [
      "too many header fields",
      "head-too-large",
      answering(`HTTP/1.1 101 a\r\n${"a: b\r\n".repeat(200)}\r\n`, false),
    ],
    [
      "a head without end",
      "head-too-large",
      answering(`HTTP/1.1 101 a\r\n${`a: ${"b".repeat(4000)}\r\n`.repeat(20)}`, false),
    ],
    ["a redirect", "status", answering("HTTP/1.1 302 a\r\nLocation: /b\r\n\r\n")],
    ["a 200", "status", answering(`HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n${html}`)],
  ];
  for (const [name, code, onSocket, options] of cases) {
    it(`connect() says "${code}" of ${name}`, async () => {
      assert.equal((await failure(onSocket, options)).code, code);
    });
  }

  const responses: [name: string, code: string, fields: Record<string, string | null>][] = [
    ["no Upgrade", "upgrade", { Upgrade: null }],
    ["another Upgrade", "upgrade", { Upgrade: "h2c" }],
    ["no Connection", "upgrade", { Connection: null }],
    ["another Connection", "upgrade", { Connection: "close" }],
    ["no accept", "accept", { "Sec-WebSocket-Accept": null }],
    ["a wrong accept", "accept", { "Sec-WebSocket-Accept": "AAAAAAAAAAAAAAAAAAAAAAAAAAA=" }],
    ["a subprotocol not offered", "subprotocol", { "Sec-WebSocket-Protocol": "b" }],
    ["a subprotocol of another case", "subprotocol", { "Sec-WebSocket-Protocol": "A" }],
    ["two subprotocols", "subprotocol", { "Sec-WebSocket-Protocol": "a, b" }],
    ["an extension not offered", "extension", { "Sec-WebSocket-Extensions": "x-none" }],
    ["malformed extensions", "malformed-header", { "Sec-WebSocket-Extensions": ";;" }],
  ];
  for (const [name, code, fields] of responses) {
    it(`connect() says "${code}" of a 101 with ${name}`, async () => {
      const error = await failure(async (raw) => {
        raw.write(upgradeResponse(await requestOf(raw), fields));
      }, { protocols: ["a"] });
      assert.equal(error.code, code);
    });
  }

  it('connect() says "connect-failed" of a port where nobody listens', async () => {
    const server = await serve({}, () => {});
    const url = urlOf(server);
    await server.shutdown();
    const error = await rejection<HandshakeError>(connect(url));
    assert.ok(error instanceof HandshakeError);
    assert.equal(error.code, "connect-failed");
    assert.ok(error.cause instanceof Error);
  });

  it('connect() says "timeout" of a server that never answers', async () => {
    const error = await failure(() => {}, { openTimeout: 30 });
    assert.equal(error.code, "timeout");
  });

  it('connect() says "timeout" of a server that sends its head for ever', async () => {
    const error = await failure(async (raw) => {
      await requestOf(raw);
      raw.write("HTTP/1.1 101 a\r\n");
      while (!raw.closed && !raw.ended) {
        raw.write("a");
        await turn();
      }
    }, { openTimeout: 50 });
    assert.equal(error.code, "timeout");
  });

  it('connect() says "timeout" of a refusal whose body never ends', async () => {
    const error = await failure(answering("HTTP/1.1 200 OK\r\n\r\nbody", false), {
      openTimeout: 50,
    });
    assert.equal(error.code, "timeout");
  });

  it('connect() says "unsupported" of wss, for now', async () => {
    for (const url of ["wss://localhost/", "https://localhost/"]) {
      const error = await rejection<HandshakeError>(connect(url));
      assert.ok(error instanceof HandshakeError);
      assert.equal(error.code, "unsupported");
    }
  });

  const large = "x".repeat(200_000);
  const bodies: [name: string, head: string, body: string, end: boolean, expected: string][] = [
    ["Content-Length", "Content-Length: 11\r\n", html, false, html],
    ["Content-Length 0", "Content-Length: 0\r\n", "", false, ""],
    [
      "chunks",
      "Transfer-Encoding: chunked\r\n",
      "4\r\n<h1>\r\n7;a=b\r\nno</h1>\r\n0\r\n\r\n",
      false,
      html,
    ],
    ["its end", "", html, true, html],
    ["less than its Content-Length", "Content-Length: 20\r\n", html, true, html],
    ["more than 64 KiB", "Content-Length: 200000\r\n", large, false, large.slice(0, 65536)],
    ["more than 64 KiB until its end", "", large, false, large.slice(0, 65536)],
  ];
  for (const [name, head, body, end, expected] of bodies) {
    it(`connect() gives the response with a body by ${name}`, async () => {
      const error = await failure(
        answering(
          `HTTP/1.1 403 Forbidden\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n${head}\r\n${body}`,
          end,
        ),
      );
      assert.equal(error.code, "status");
      const { status, statusText, headers, rawHeaders, body: stream } = error.response!;
      assert.equal(status, 403);
      assert.equal(statusText, "Forbidden");
      assert.deepEqual(headers.getSetCookie(), ["a=1", "b=2"]);
      assert.deepEqual(rawHeaders[1], ["Set-Cookie", "b=2"]);
      const bytes = concat(await collect(stream));
      assert.equal(new TextDecoder().decode(bytes), expected);
    });
  }
});

describe("The signal of connect", () => {
  it("connect() with an aborted signal does not dial", async () => {
    let dialled = 0;
    await withRawServer(() => void dialled++, async (url) => {
      const reason = new Error("enough");
      assert.equal(await rejection(connect(url, { signal: AbortSignal.abort(reason) })), reason);
      await rest();
    });
    assert.equal(dialled, 0);
  });

  it("connect() gives up while it dials", async () => {
    await withRawServer(() => {}, async (url) => {
      const controller = new AbortController();
      const opening = connect(url, { signal: controller.signal });
      const reason = new Error("enough");
      controller.abort(reason);
      assert.equal(await rejection(opening), reason);
    });
  });

  it("connect() gives up a provider that never connects", async () => {
    const transport = { connect: () => new Promise<never>(() => {}), listen: () => assert.fail() };
    const controller = new AbortController();
    const opening = connect("ws://localhost/", { transport, signal: controller.signal });
    assert.equal(await isPending(opening), true);
    const reason = new Error("enough");
    controller.abort(reason);
    assert.equal(await rejection(opening), reason);
  });

  it("connect() gives up during the handshake, and lets go of the socket", async () => {
    const sockets: RawSocket[] = [];
    await withRawServer((raw) => void sockets.push(raw), async (url) => {
      const controller = new AbortController();
      const opening = connect(url, { signal: controller.signal });
      await until(() => sockets[0]?.text.includes("\r\n\r\n"));
      const reason = new Error("enough");
      controller.abort(reason);
      assert.equal(await rejection(opening), reason);
      await until(() => sockets[0].closed || sockets[0].ended);
    });
  });

  it("connect() does not care about the signal once it is open", async () => {
    const server = await serve({}, (ws) => ws.readable.pipeTo(ws.writable));
    const controller = new AbortController();
    const ws = await connect(urlOf(server), { signal: controller.signal, openTimeout: 0 });
    controller.abort();
    await rest();
    await ws.send("a");
    assert.equal(await ws.receive(), "a");
    await ws.close();
    await server.shutdown();
  });
});

describe("The connection of connect", () => {
  it("connect() keeps messages that come with the 101, and those right behind", async () => {
    const text = (message: string) => encodeFrame({ opcode: 1, payload: utf8(message) });
    await withRawServer(async (raw) => {
      const head = latin1(upgradeResponse(await requestOf(raw)));
      raw.write(concat([head, text("a"), text("b"), text("c").subarray(0, 1)]));
      await turn();
      raw.write(concat([text("c").subarray(1), encodeFrame({ opcode: 8, payload: utf8("") })]));
      raw.socket.end();
    }, async (url) => {
      const ws = await connect(url);
      assert.deepEqual(await collect(ws), ["a", "b", "c"]);
    });
  });

  it("connect() takes a 101 that comes byte by byte", async () => {
    await withRawServer(async (raw) => {
      raw.socket.setNoDelay(true);
      for (const character of upgradeResponse(await requestOf(raw))) {
        raw.write(character);
        await turn();
      }
    }, async (url) => {
      const ws = await connect(url);
      assert.equal(ws.state, "open");
      ws.terminate();
    });
  });

  it("connect() tells request, response, addresses and what was agreed on", async () => {
    const server = await serve({ protocols: ["b"], headers: { "X-Server": "1" } }, async (ws) => {
      for await (const _ of ws);
    });
    const ws = await connect(urlOf(server, "/a?b=c"), {
      protocols: ["a", "b"],
      headers: [["X-Client", "1"], ["X-Client", "2"]],
    });
    assert.equal(ws.protocol, "b");
    assert.equal(ws.extensions, "");
    assert.equal(ws.request.url, urlOf(server, "/a?b=c").replace("ws:", "http:"));
    assert.equal(ws.request.headers.get("x-client"), "1, 2");
    const own = ws.rawHeaders.request.filter(([name]) => name === "X-Client");
    assert.deepEqual(own.map(([, value]) => value), ["1", "2"]);
    const { status, statusText, headers } = ws.response;
    assert.deepEqual([status, statusText], [101, "Switching Protocols"]);
    assert.equal(headers.get("x-server"), "1");
    assert.deepEqual(ws.remoteAddress, server.address);
    const [peer] = server.connections;
    assert.deepEqual(peer.remoteAddress, ws.localAddress);
    await ws.close();
    await server.shutdown();
  });

  it("connect() takes http URLs, and a URL object", async () => {
    const server = await serve({}, (ws) => ws.send("a"));
    for (const url of [urlOf(server).replace("ws:", "http:"), new URL(urlOf(server))]) {
      const ws = await connect(url);
      assert.equal(await ws.receive(), "a");
      await ws.close();
    }
    await server.shutdown();
  });

  it("connect() reaches a server on the other loopback address by the name localhost", async () => {
    for (const hostname of ["127.0.0.1", "::1"]) {
      const server = await serve({ hostname }, (ws) => ws.send("a")).catch(() => undefined);
      // Not every machine has IPv6.
      if (server === undefined && hostname === "::1") continue;
      assert.ok(server);
      const ws = await connect(urlOf(server).replace("127.0.0.1", "localhost"));
      assert.equal(await ws.receive(), "a");
      await ws.close();
      await server.shutdown();
    }
  });

  it("connect() runs over a transport or a pair of byte streams of one's own", async () => {
    for (const wrap of [toStreams, (transport: ReturnType<typeof transportPair>[0]) => transport]) {
      const [near, far] = transportPair();
      const accepting = accept(wrap(far));
      const client = await connect("ws://localhost/path", { duplex: wrap(near) });
      const server = await accepting;
      assert.equal(new URL(server.request.url).pathname, "/path");
      await client.send("a");
      assert.equal(await server.receive(), "a");
      const closing = client.close({ closeCode: 1000 });
      assert.equal((await closing).closeCode, 1000);
      await server.closed;
    }
  });

  it("connect() over wss uses a duplex of one's own as it is", async () => {
    const [near, far] = transportPair();
    const accepting = accept(far);
    const client = await connect("wss://localhost/", { duplex: near });
    assert.equal(new URL(client.request.url).protocol, "https:");
    client.terminate();
    await rejection((await accepting).closed);
  });
});
