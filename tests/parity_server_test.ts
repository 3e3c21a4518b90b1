/** Rows K01 to K32 except K16: the server. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  connect,
  type HandshakeError,
  type Message,
  serve,
  type ServeOptions,
  type Server,
  type WebSocketConnection,
  type WebSocketError,
} from "../mod.ts";
import { Endpoint } from "../lib/core/mod.ts";
import { latin1 } from "./bytes.ts";
import { certificates } from "./certificates.ts";
import {
  binaryFrame,
  echo,
  field,
  held,
  portOf,
  RawSocket,
  rejection,
  requestOf,
  still,
  until,
  upgradeRequest,
  urlOf,
  withPeer,
  withServer,
} from "./support.ts";
import { Toy } from "./toy_extension.ts";

/** The answer to a raw request. */
async function answerTo(server: Server, request: string): Promise<string> {
  const raw = await RawSocket.connect(portOf(server));
  raw.write(request);
  await requestOf(raw);
  raw.socket.destroy();
  return raw.text;
}

describe("Parity of the server", () => {
  it("K01 K03 serves with a handler, which gets the connection and the request", async () => {
    const seen: string[] = [];
    const handler = async (ws: WebSocketConnection) => {
      seen.push(new URL(ws.request.url).pathname);
      await ws.send("Hello");
    };
    await withServer({ hostname: "127.0.0.1", port: 0 }, async (server) => {
      const ws = await connect(urlOf(server, "/room"));
      assert.equal(await ws.receive(), "Hello");
      await ws.closed;
    }, handler);
    assert.deepEqual(seen, ["/room"]);
  });

  it("K02 K28 closes at the end of its scope, and waits for the end", async () => {
    const server = await serve({}, echo);
    const ws = await connect(urlOf(server));
    await server[Symbol.asyncDispose]();
    assert.equal((await ws.closed).closeCode, 1001);
    assert.equal(server.connections.size, 0);
    const error = await rejection<HandshakeError>(connect(urlOf(server)));
    assert.equal(error.code, "connect-failed");
  });

  it("K04 closes with 1000 when the promise of the handler resolves", async () => {
    await withServer({}, async (server) => {
      assert.equal((await (await connect(urlOf(server))).closed).closeCode, 1000);
    }, () => Promise.resolve());
  });

  it("K05 reports what a handler throws, and closes with 1011", async () => {
    const told: unknown[] = [];
    const broken = new Error("broken");
    await withServer({ onError: (error) => told.push(error) }, async (server) => {
      assert.equal((await (await connect(urlOf(server))).closed).closeCode, 1011);
    }, () => Promise.reject(broken));
    assert.deepEqual(told, [broken]);
  });

  it("K06 takes the options of TLS and of listening", async () => {
    const { ca, leaf } = await certificates();
    await withServer(
      { tls: { ...leaf, alpn: ["http/1.1"] }, hostname: "localhost" },
      async (server) => {
        const ws = await connect(`wss://localhost:${portOf(server)}`, { tls: { ca } });
        await ws.close();
      },
    );
  });

  it("K07 leaves it to the handler to wrap the connection", async () => {
    class Chat {
      readonly #ws: WebSocketConnection;
      constructor(ws: WebSocketConnection) {
        this.#ws = ws;
      }
      greet(name: string): Promise<void> {
        return this.#ws.send(`Hello ${name}`);
      }
    }
    const wrapped = (handler: (chat: Chat) => unknown) => (ws: WebSocketConnection) =>
      handler(new Chat(ws));
    await withServer({}, async (server) => {
      assert.equal(await (await connect(urlOf(server))).receive(), "Hello you");
    }, wrapped((chat) => chat.greet("you")));
  });

  it("K08 K09 K10 has a ping interval, a ping timeout and a close timeout", async () => {
    const [ws, peer] = await withPeer("server", {
      pingInterval: 20,
      pingTimeout: 20,
      closeTimeout: 20,
    });
    peer.polite = false;
    const error = await rejection<WebSocketError>(held(ws.closed));
    assert.equal(error.closeCode, 1011);
    assert.equal(peer.frames[0].opcode, 9);
  });

  it("K11 accepts messages of 1 MiB by default", async () => {
    await withServer({}, async (server) => {
      const ws = await connect(urlOf(server));
      await ws.send(new Uint8Array(1048576));
      assert.equal((await ws.receive()).length, 1048576);
      ws.send(new Uint8Array(1048577));
      assert.equal((await ws.closed).closeCode, 1009);
    });
  });

  it("K12 K13 K14 holds 64 KiB of unread messages and 64 KiB of unsent ones", async () => {
    const [ws, peer] = await withPeer("server");
    for (let i = 0; i < 300; i++) peer.send(binaryFrame(new Uint8Array(1000)));
    const held = await still(() => ws.stats.queued);
    assert.ok(held >= 65536 && held < 65536 + 2 * 1064, `${held}`);
    assert.equal(ws.stats.paused, true);
    const [narrow] = await withPeer("server", { readableStrategy: { highWaterMark: 10 } });
    assert.equal(narrow.stats.queued, 0);
    for (const one of [ws, narrow]) one.terminate();
    peer.transport.destroy();
  });

  const origins: [allowed: ServeOptions["origins"], origin: string | undefined, ok: boolean][] = [
    [["http://a.test"], "http://a.test", true],
    [["http://a.test"], "http://b.test", false],
    [["http://a.test"], undefined, false],
    [["http://a.test", null], undefined, true],
    [[/http:\/\/\w+\.test/], "http://b.test", true],
  ];
  for (const [allowed, origin, ok] of origins) {
    it(`K17 K76 ${ok ? "lets in" : "refuses"} ${origin ?? "no origin"} of ${String(allowed)}`, async () => {
      await withServer({ origins: allowed }, async (server) => {
        const connecting = connect(urlOf(server), { origin });
        if (ok) await (await connecting).close();
        else assert.equal((await rejection<HandshakeError>(connecting)).response!.status, 403);
      });
    });
  }

  it("K18 takes extensions in the order of its preference", async () => {
    const [a, b] = [new Toy("x-a", 1), new Toy("x-b", 2)];
    await withServer({ extensions: [b] }, async (server) => {
      const ws = await connect(urlOf(server), { extensions: [a, b] });
      assert.equal(ws.extensions, "x-b");
      await ws.send("ab");
      assert.equal(await ws.receive(), "ab");
      await ws.close();
    });
  });

  const protocols: [ours: string[], theirs: string[], chosen: string][] = [
    [["a", "b"], ["a", "b"], "a"],
    [["a", "b", "c"], ["c", "b"], "b"],
    [["a"], ["b"], ""],
    [[], ["a"], ""],
  ];
  for (const [ours, theirs, chosen] of protocols) {
    it(`K19 K24 chooses ${chosen || "none"} of [${ours}] and [${theirs}]`, async () => {
      await withServer({ protocols: ours }, async (server) => {
        const ws = await connect(urlOf(server), { protocols: theirs });
        assert.equal(ws.protocol, chosen);
        await ws.close();
      });
    });
  }

  const forms: [name: string, headers: ServeOptions["headers"]][] = [
    ["a mapping", { "X-A": "b" }],
    ["pairs", [["X-A", "b"]]],
    ["Headers", new Headers({ "X-A": "b" })],
  ];
  for (const [name, headers] of forms) {
    it(`K20 takes header fields as ${name}, and more of them by the request`, async () => {
      const onResponse = (headers: Headers, { url }: Request) =>
        headers.set("X-Path", new URL(url).pathname);
      await withServer({ headers, onResponse }, async (server) => {
        const ws = await connect(urlOf(server, "/c"));
        assert.equal(ws.response.headers.get("x-a"), "b");
        assert.equal(ws.response.headers.get("x-path"), "/c");
        await ws.close();
      });
    });
  }

  it("K21 K22 K68 onRequest continues if it returns nothing, and answers with a Response", async () => {
    const onRequest = async ({ url }: Request) => {
      await Promise.resolve();
      if (!url.endsWith("/health")) return;
      return new Response("OK\n", { status: 200, headers: { "X-A": "b" } });
    };
    await withServer({ onRequest }, async (server) => {
      const response = await fetch(urlOf(server, "/health").replace("ws:", "http:"));
      assert.deepEqual([response.status, await response.text()], [200, "OK\n"]);
      assert.equal(response.headers.get("x-a"), "b");
      const error = await rejection<HandshakeError>(connect(urlOf(server, "/health")));
      assert.equal(error.response!.status, 200);
      await (await connect(urlOf(server))).close();
    });
  });

  it("K23 takes a selector of the subprotocol", async () => {
    const selectProtocol = (offered: readonly string[]) => offered.at(-1);
    await withServer({ selectProtocol }, async (server) => {
      const ws = await connect(urlOf(server), { protocols: ["a", "b"] });
      assert.equal(ws.protocol, "b");
      await ws.close();
    });
  });

  it("K25 serves the same over a Unix socket", async () => {
    const folder = await mkdtemp(join(tmpdir(), "sluice-parity-"));
    const path = join(folder, "s");
    await withServer({ unix: path }, async () => {
      const ws = await connect("ws://localhost/", { unix: path });
      await ws.send("a");
      assert.equal(await ws.receive(), "a");
      await ws.close();
    });
    await rm(folder, { recursive: true });
  });

  it("K26 K27 shutdown() closes with 1001 as often as one likes, and handlers see it", async () => {
    const seen: Message[] = [];
    const server = await serve({}, async (ws) => {
      seen.push(String((await ws.closed).closeCode));
    });
    const ws = await connect(urlOf(server));
    await until(() => server.connections.size === 1);
    await Promise.all([server.shutdown(), server.shutdown()]);
    await server.shutdown();
    assert.equal((await ws.closed).closeCode, 1001);
    assert.deepEqual(seen, ["1001"]);
  });

  it("K29 gives the address at which it listens", async () => {
    await withServer({}, ({ address }) => {
      assert.equal(address.transport, "tcp");
      assert.ok((address as { port: number }).port > 0);
    });
  });

  it("K30 K31 K32 the server's side of one connection is usable by itself", async () => {
    const [ws, peer] = await withPeer("server", { headers: { "X-A": "b" } });
    assert.equal(ws.response.headers.get("x-a"), "b");
    ws.terminate();
    peer.transport.destroy();
    const endpoint = new Endpoint("server");
    const request = upgradeRequest({ "Sec-WebSocket-Protocol": "a", "Origin": "http://a.test" });
    endpoint.receive(latin1(request));
    assert.equal(endpoint.next()?.type, "request");
    const { protocols, extensions, origin } = endpoint.offer!;
    assert.deepEqual([protocols, extensions, origin], [["a"], [], "http://a.test"]);
    endpoint.send({ type: "accept", protocol: "a", headers: [["X-A", "b"]] });
    assert.equal(endpoint.response!.status, 101);
  });

  it("K113 answers plain HTTP with 426", async () => {
    await withServer({}, async (server) => {
      const answer = await answerTo(server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
      assert.match(answer, /^HTTP\/1.1 426 /);
      assert.equal(field(answer, "Upgrade"), "websocket");
    });
  });
});
