import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { accept, connect, type ConnectOptions, serve } from "../mod.ts";
import { encodeFrame } from "../lib/core/mod.ts";
import { toStreams } from "../lib/transport.ts";
import { VERSION } from "../lib/client/client.ts";
import { transportPair } from "../lib/testing.ts";
import { concat, latin1, utf8 } from "./bytes.ts";
import {
  collect,
  failure,
  field,
  isPending,
  type RawSocket,
  rejection,
  requestOf,
  rest,
  turn,
  until,
  upgradeResponse,
  urlOf,
  withRawServer,
} from "./support.ts";

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
      const options = { headers: given, transport: near };
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

  it("connect() reads its options before it returns", async () => {
    const heads: string[] = [];
    await withRawServer(async (raw) => {
      const head = await requestOf(raw);
      heads.push(head);
      raw.write(upgradeResponse(head));
    }, async (url) => {
      const options: ConnectOptions = { origin: "https://first.test" };
      const opening = connect(url, options);
      options.origin = "https://second.test";
      (await opening).terminate();
      assert.equal(field(heads[0], "origin"), "https://first.test");
    });
  });

  it("connect() sends a new key each time, and no Origin by default", async () => {
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
    const server = await serve({}, (ws) => ws.send(ws.request.headers.get("authorization")!));
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

  const agents: [name: string, options: ConnectOptions, expected: string | undefined][] = [
    ["its own", {}, `sluice/${VERSION}`],
    ["the one given", { userAgent: "a/1 (b)" }, "a/1 (b)"],
    ["none", { userAgent: false }, undefined],
    ["that of the header fields", { headers: { "user-agent": "c" }, userAgent: "a" }, "c"],
  ];
  for (const [name, options, expected] of agents) {
    it(`connect() sends ${name} as User-Agent`, async () => {
      let head = "";
      await failure(async (raw) => {
        head = await requestOf(raw);
        raw.socket.end();
      }, options);
      assert.equal(field(head, "User-Agent"), expected);
      assert.equal(head.match(/^user-agent:/gim)?.length ?? 0, expected === undefined ? 0 : 1);
    });
  }

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
    const provider = { connect: () => new Promise<never>(() => {}), listen: () => assert.fail() };
    const controller = new AbortController();
    const opening = connect("ws://localhost/", { provider, signal: controller.signal });
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

  it("connect() rejects or gives an open connection, whenever the signal is aborted", async () => {
    const results = new Set<string>();
    for (let microtasks = 0; microtasks < 20; microtasks++) {
      const [transport, other] = transportPair();
      const controller = new AbortController();
      const handle = transport.handle.bind(transport);
      transport.handle = (handlers) => {
        const data = handlers.data.bind(handlers);
        handlers.data = (chunk) => {
          data(chunk);
          void abortLater();
        };
        handle(handlers);
      };
      const abortLater = async () => {
        for (let i = 0; i < microtasks; i++) await undefined;
        controller.abort();
      };
      const accepted = accept(other);
      const { signal } = controller;
      const ws = await connect("ws://localhost/", { transport, signal }).catch(() => undefined);
      results.add(ws === undefined ? "rejects" : "opens");
      await rest();
      assert.notEqual(ws?.state, "closed", `aborted after ${microtasks} microtasks`);
      ws?.terminate();
      await accepted.then((ws) => ws.closed).catch(() => {});
    }
    assert.deepEqual([...results], ["rejects", "opens"]);
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
  it("connect() keeps messages that arrive together with the 101 response", async () => {
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

  it("connect() gives the request, the response, the addresses and the agreement", async () => {
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
    const { localAddress } = ws;
    assert.deepEqual(peer.remoteAddress, localAddress);
    await ws.close();
    await ws.closed;
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.deepEqual([ws.localAddress, ws.remoteAddress], [localAddress, server.address]);
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
      // Some machines have no IPv6.
      if (server === undefined && hostname === "::1") continue;
      assert.ok(server);
      const ws = await connect(urlOf(server).replace("127.0.0.1", "localhost"));
      assert.equal(await ws.receive(), "a");
      await ws.close();
      await server.shutdown();
    }
  });

  it("connect() runs over a given transport or pair of byte streams", async () => {
    for (const wrap of [toStreams, (transport: ReturnType<typeof transportPair>[0]) => transport]) {
      const [near, far] = transportPair();
      const accepting = accept(wrap(far));
      const client = await connect("ws://localhost/path", { transport: wrap(near) });
      const server = await accepting;
      assert.equal(new URL(server.request.url).pathname, "/path");
      await client.send("a");
      assert.equal(await server.receive(), "a");
      const closing = client.close({ closeCode: 1000 });
      assert.equal((await closing).closeCode, 1000);
      await server.closed;
    }
  });

  it("connect() with a wss URL adds no TLS to a given transport", async () => {
    const [near, far] = transportPair();
    const accepting = accept(far);
    const client = await connect("wss://localhost/", { transport: near });
    assert.equal(new URL(client.request.url).protocol, "https:");
    client.terminate();
    await rejection((await accepting).closed);
  });
});
