import { describe } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { it, knownLimit, notApplicable } from "./it.ts";
import {
  connect,
  type ConnectOptions,
  HandshakeError,
  isTransient,
  type ProxyOption,
  reconnect,
  type Server,
} from "../mod.ts";
import { defaultProvider } from "../lib/platform.ts";
import { transportPair } from "../lib/testing.ts";
import { certificates } from "./certificates.ts";
import { withProxy } from "./proxies.ts";
import { withoutLeak } from "./resources.ts";
import {
  field,
  portOf,
  type RawSocket,
  rejection,
  requestOf,
  until,
  urlOf,
  withRawServer,
  withServer,
} from "./support.ts";

const onDeno = "Deno" in globalThis;
const NO_TLS_IN_TLS = onDeno ? knownLimit("Deno's sockets have no TLS inside of TLS") : false;

/** Connects, sends and receives through a proxy. */
async function check(url: string, options: ConnectOptions): Promise<void> {
  const ws = await connect(url, options);
  const message = "gr\u00fc\u00df".repeat(50_000);
  await ws.send(message);
  assert.ok(await ws.receive() === message);
  assert.equal((await ws.close({ closeCode: 3000 })).closeCode, 3000);
}

async function failureOf(url: string, options: ConnectOptions): Promise<HandshakeError> {
  const error = await rejection<HandshakeError>(connect(url, options));
  assert.ok(error instanceof HandshakeError, String(error));
  return error;
}

/** The error of connect() through a proxy that is a raw socket. */
async function failureBehind(
  scheme: string,
  onSocket: (raw: RawSocket) => unknown,
  options: ConnectOptions = {},
): Promise<HandshakeError> {
  let error!: HandshakeError;
  const sockets: RawSocket[] = [];
  await withRawServer((raw) => {
    sockets.push(raw);
    return onSocket(raw);
  }, async (url) => {
    const proxy = url.replace("ws://", `${scheme}://ada:secret@`);
    error = await failureOf("ws://server.test:81/", { proxy, ...options });
    // Checks that nothing is left open.
    await until(() => sockets.every(({ ended, closed }) => ended || closed));
  });
  assert.ok(!`${error.message} ${error.cause}`.includes("secret"));
  return error;
}

describe("Proxies", () => {
  const ways: [proxy: "http" | "https" | "socks5" | "socks5h", server: "ws" | "wss"][] = [
    ["http", "ws"],
    ["http", "wss"],
    ["https", "ws"],
    ["https", "wss"],
    ["socks5", "ws"],
    ["socks5", "wss"],
    ["socks5h", "wss"],
  ];
  for (const [scheme, server] of ways) {
    const skip = scheme === "https" && server === "wss" ? NO_TLS_IN_TLS : false;
    it(`connect() goes to ${server} through ${scheme}`, { skip }, async () => {
      const { ca, leaf } = await certificates();
      const tls = server === "wss" ? leaf : undefined;
      const certificate = scheme === "https" ? leaf : undefined;
      await withServer({ tls }, async (running: Server) => {
        await withProxy(scheme.startsWith("socks") ? "socks5" : "http", async ({ port, asked }) => {
          const url = `${server}://localhost:${portOf(running)}/`;
          const proxy = { url: `${scheme}://localhost:${port}`, tls: { ca } };
          await check(url, { proxy, tls: { ca } });
          assert.equal(asked.length, 1);
          const target = `localhost:${portOf(running)}`;
          if (scheme.startsWith("socks")) assert.equal(asked[0], `name ${target}`);
          else assert.ok(asked[0].startsWith(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n`));
          const ws = await connect(url, { proxy, tls: { ca } });
          assert.equal((ws.remoteAddress as { port: number }).port, port);
          ws.terminate();
        }, certificate);
      });
    });
  }

  it("connect() refuses TLS inside TLS on platforms without it", {
    skip: !onDeno && notApplicable("there is TLS inside of TLS here"),
  }, async () => {
    const options = { proxy: "https://127.0.0.1:1" };
    assert.equal((await failureOf("wss://127.0.0.1:1", options)).code, "unsupported");
  });

  it("connect() sends an HTTP proxy its credentials and headers, and the server others", async () => {
    await withServer({ onRequest: ({ headers }) => void seen.push(headers) }, async (server) => {
      await withProxy("http", async ({ port, asked }) => {
        const url = `http://ada:love%3Alace@127.0.0.1:${port}/`;
        await check(urlOf(server), {
          proxy: { url, headers: { "X-A": "b" } },
          headers: { C: "d" },
        });
        const given = { "Proxy-Authorization": "Bearer e" };
        await check(urlOf(server), { proxy: { url: new URL(url), headers: given } });
        assert.equal(field(asked[0], "Proxy-Authorization"), `Basic ${btoa("ada:love:lace")}`);
        assert.equal(field(asked[0], "X-A"), "b");
        assert.equal(field(asked[0], "C"), undefined);
        assert.equal(field(asked[0], "Sec-WebSocket-Key"), undefined);
        assert.equal(field(asked[1], "Proxy-Authorization"), "Bearer e");
      });
    });
    for (const headers of seen) {
      assert.equal(headers.get("proxy-authorization"), null);
      assert.equal(headers.get("x-a"), null);
    }
    assert.equal(seen[0].get("c"), "d");
  });
  const seen: Headers[] = [];

  const addresses: [host: string, asked: string][] = [
    ["127.0.0.1", "ada:lovelace@127.0.0.1"],
    ["localhost", "ada:lovelace@name localhost"],
    ["[::1]", `ada:lovelace@[${"0".repeat(31)}1]`],
  ];
  for (const [host, expected] of addresses) {
    it(`connect() names ${host} and the user to a SOCKS proxy`, async () => {
      await withServer({}, async (server) => {
        await withProxy("socks5", async ({ port, asked }) => {
          const proxy = `socks5://ada:lovelace@127.0.0.1:${port}`;
          const url = `ws://${host}:${portOf(server)}/`;
          // No server listens on ::1.
          if (host === "[::1]") {
            assert.equal((await failureOf(url, { proxy })).code, "connection-lost");
          } else await check(url, { proxy });
          assert.deepEqual(asked, [`${expected}:${portOf(server)}`]);
        });
      });
    });
  }

  it("connect() names an IPv6 address to an HTTP proxy in brackets", async () => {
    let head = "";
    const error = await failureBehind("http", async (raw) => {
      head = await requestOf(raw);
      raw.socket.end("HTTP/1.1 502 Bad Gateway\r\n\r\n");
    });
    assert.match(head, /^CONNECT server\.test:81 /);
    assert.equal(error.code, "proxy");
    await withRawServer(async (raw) => {
      head = await requestOf(raw);
      raw.socket.end();
    }, async (url) => {
      const proxy = url.replace("ws:", "http:");
      assert.equal((await failureOf("ws://[::1]:81/", { proxy })).code, "connection-lost");
    });
    assert.match(head, /^CONNECT \[::1\]:81 HTTP\/1.1\r\nHost: \[::1\]:81\r\n/);
  });

  const answers: [name: string, code: string, answer: string, end?: boolean][] = [
    ["a refusal", "proxy", "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"],
    ["a redirect", "proxy", "HTTP/1.1 302 a\r\nLocation: /\r\nContent-Length: 2\r\n\r\nno"],
    ["101", "proxy", "HTTP/1.1 101 a\r\n\r\n"],
    ["no HTTP", "proxy", "SSH-2.0-x\r\n\r\n"],
    ["HTTP/2.0", "proxy", "HTTP/2.0 200 OK\r\n\r\n"],
    ["a line that never ends", "proxy", "HTTP/1.1 200 ".padEnd(9000, "a")],
    ["a head without end", "proxy", `HTTP/1.1 200 a\r\n${`a: ${"b".repeat(4000)}\r\n`.repeat(20)}`],
    ["too many fields", "proxy", `HTTP/1.1 200 a\r\n${"a: b\r\n".repeat(200)}\r\n`],
    ["bytes behind it", "proxy", "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101"],
    ["an end in its head", "connection-lost", "HTTP/1.1 20", true],
    ["nothing", "connection-lost", "", true],
    ["an end behind it", "connection-lost", "HTTP/1.1 200 OK\r\n\r\n", true],
    ["half a head and silence", "timeout", "HTTP/1.1 20"],
    ["interim responses only", "timeout", "HTTP/1.1 100 a\r\n\r\n".repeat(16)],
    ["too many interim responses", "proxy", "HTTP/1.1 100 a\r\n\r\n".repeat(17)],
  ];
  for (const [name, code, answer, end = false] of answers) {
    it(`connect() says "${code}" of an HTTP proxy that answers ${name}`, async () => {
      const error = await failureBehind("http", async (raw) => {
        await requestOf(raw);
        raw.write(answer);
        if (end) raw.socket.end();
      }, { openTimeout: code === "timeout" ? 50 : 30_000 });
      assert.equal(error.code, code, error.message);
    });
  }

  it("connect() gives the response of an HTTP proxy, and isTransient() reads its status", async () => {
    for (const [status, transient] of [[407, false], [503, true]] as const) {
      const error = await failureBehind("http", async (raw) => {
        await requestOf(raw);
        raw.write(
          `HTTP/1.1 ${status} No\r\nProxy-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nno`,
        );
      });
      assert.equal(error.response!.status, status);
      assert.equal(error.response!.headers.get("proxy-authenticate"), "Basic");
      assert.equal(await new Response(error.response!.body).text(), "no");
      assert.equal(isTransient(error), transient);
    }
  });

  const M = [5, 0];
  const socks: [name: string, code: string, answers: number[][], reply?: number][] = [
    ["no method", "proxy", [[5, 0xff]]],
    ["a method that was not offered", "proxy", [[5, 1]]],
    ["version 4", "proxy", [[4, 0]]],
    ["HTTP", "proxy", [[72, 84, 84, 80]]],
    ["one byte of HTTP", "proxy", [[72]]],
    ["one byte in place of a reply", "proxy", [M, [72]]],
    ["no to the password", "proxy", [[5, 2], [1, 1]]],
    ["half a method", "connection-lost", [[5], []]],
    ["half a reply", "connection-lost", [M, [5, 0, 0, 1, 0], []]],
    ["another version of the reply", "proxy", [M, [4, 0, 0, 1, 0, 0, 0, 0, 0, 0]]],
    ["an unknown type of address", "proxy", [M, [5, 0, 0, 2, 0, 0, 0, 0, 0, 0]]],
    ["bytes behind the reply", "proxy", [M, [5, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]]],
    ...[1, 2, 3, 4, 5, 6, 7, 8, 200].map((reply): [string, string, number[][], number] => [
      `reply ${reply}`,
      "proxy",
      [M, [5, reply, 0, 1, 0, 0, 0, 0, 0, 0]],
      reply,
    ]),
    ["reply 5, cut short", "proxy", [M, [5, 5], []], 5],
    ["silence", "timeout", [M]],
  ];
  for (const [name, code, answers, reply] of socks) {
    it(`connect() says "${code}" of a SOCKS proxy that answers ${name}`, async () => {
      const error = await failureBehind("socks5", async (raw) => {
        await until(() => raw.received.length > 0);
        for (const [i, answer] of answers.entries()) {
          const { length } = raw.received;
          if (answer.length === 0) raw.socket.end();
          // Byte by byte, so that the client never reads a whole answer at once.
          for (const byte of answer) raw.socket.write(Uint8Array.of(byte));
          if (answers[i + 1]?.length > 0) await until(() => raw.received.length > length);
        }
      }, { openTimeout: code === "timeout" ? 50 : 30_000 });
      assert.equal(error.code, code, error.message);
      assert.equal(error.reply, reply);
      assert.equal(isTransient(error), code !== "proxy" || [1, 3, 4, 5, 6].includes(reply ?? 0));
    });
  }

  it("connect() names the proxy that cannot be reached", async () => {
    let port = 0;
    await withProxy("http", (proxy) => Promise.resolve(port = proxy.port));
    const error = await failureOf("ws://server.test/", { proxy: `http://localhost:${port}` });
    assert.equal(error.code, "connect-failed");
    assert.match(error.message, new RegExp(`the proxy localhost port ${port}`));
  });

  it("connect() checks the certificates of the proxy and of the server", async () => {
    const { ca, leaf, elsewhere } = await certificates();
    await withServer({ tls: elsewhere }, async (server) => {
      const url = urlOf(server).replace("ws:", "wss:");
      await withProxy("http", async ({ port, asked }) => {
        const error = await failureOf(url, { proxy: `http://127.0.0.1:${port}`, tls: { ca } });
        assert.equal(error.code, "certificate");
        assert.match(error.message, /127\.0\.0\.1/);
        // The client does not try another address.
        assert.equal(asked.length, 1);
      });
      await withProxy("http", async ({ port, asked }) => {
        const proxy = { url: `https://127.0.0.1:${port}` };
        const error = await failureOf(urlOf(server), { proxy, tls: { ca } });
        assert.equal(error.code, "certificate");
        assert.equal(asked.length, 0);
      }, leaf);
    });
  });

  it("connect() names the server beyond the proxy that does not speak TLS", async () => {
    await withServer({}, async (server) => {
      await withProxy("http", async ({ port, asked }) => {
        const url = urlOf(server).replace("ws:", "wss:");
        const error = await failureOf(url, { proxy: `http://localhost:${port}` });
        assert.equal(error.code, "connect-failed");
        assert.match(error.message, /TLS with 127.0.0.1/);
        assert.equal(asked.length, 1);
      });
    });
  });

  it("connect() can be aborted at each stage, and leaves nothing open", async () => {
    const stages: [scheme: string, onSocket: (raw: RawSocket) => unknown][] = [
      ["http", () => {}],
      ["http", (raw) => raw.write("HTTP/1.1 200")],
      ["http", (raw) => requestOf(raw).then(() => raw.write("HTTP/1.1 200 OK\r\n\r\n"))],
      ["socks5", () => {}],
      ["socks5", (raw) => raw.write(Uint8Array.of(5, 0))],
      ["socks5", (raw) => raw.write(Uint8Array.of(5))],
    ];
    // On Deno, an aborted TLS connection stays open until its peer acts.
    const servers = onDeno ? ["ws"] : ["ws", "wss"];
    await withoutLeak(async () => {
      for (const server of servers) {
        for (const [scheme, onSocket] of stages) {
          const controller = new AbortController();
          const sockets: RawSocket[] = [];
          await withRawServer((raw) => {
            sockets.push(raw);
            onSocket(raw);
          }, async (url) => {
            const { signal } = controller;
            const proxy = url.replace("ws:", `${scheme}:`);
            const connecting = connect(`${server}://server.test/`, { proxy, signal });
            await until(() => sockets[0]?.received.length > 0);
            controller.abort(new Error("enough"));
            assert.equal((await rejection(connecting)).message, "enough");
            await until(() => sockets[0].ended || sockets[0].closed);
          });
        }
      }
    });
  });

  it("connect() uses the proxy of the environment with the option", async () => {
    await withServer({}, async (server) => {
      await withProxy("http", async ({ port, asked }) => {
        const url = urlOf(server);
        const names = [
          "http_proxy",
          "HTTP_PROXY",
          "no_proxy",
          "NO_PROXY",
          "all_proxy",
          "ALL_PROXY",
        ];
        const before = names.map((name) => [name, process.env[name]] as const);
        for (const name of names) delete process.env[name];
        try {
          process.env.HTTP_PROXY = `127.0.0.1:${port}`;
          await check(url, {});
          await check(url, { proxy: false });
          assert.equal(asked.length, 0);
          await check(url, { proxy: "environment" });
          assert.equal(asked.length, 1);
          process.env.NO_PROXY = "127.0.0.0/8";
          await check(url, { proxy: "environment" });
          assert.equal(asked.length, 1);
          process.env.NO_PROXY = "";
          process.env.HTTP_PROXY = "ftp://ada:secret@proxy.test";
          const error = await rejection(connect(url, { proxy: "environment" }));
          assert.ok(error instanceof RangeError);
          assert.match(error.message, /HTTP_PROXY in the environment/);
          assert.ok(!error.message.includes("secret"));
        } finally {
          for (const [name, value] of before) {
            if (value === undefined) delete process.env[name];
            else process.env[name] = value;
          }
        }
      });
    });
  });

  it("connect() needs a transport that knows of tunnels and the environment", async () => {
    const theirs = await defaultProvider();
    await withServer({}, async (server) => {
      const plain = {
        connect: ({ hostname, port }: { hostname: string; port: number }) =>
          theirs.connect({ hostname, port }),
        listen: theirs.listen,
      };
      const proxy = urlOf(server).replace("ws:", "http:");
      for (const option of [proxy, "environment"]) {
        const error = await failureOf(urlOf(server), { proxy: option, provider: plain });
        assert.equal(error.code, "unsupported");
      }
      assert.equal(server.connections.size, 0);
    });
  });

  it("connect() goes through the proxy to each place that it is redirected to", async () => {
    const onRequest = ({ url }: Request) =>
      url.endsWith("/a")
        ? new Response(null, { status: 302, headers: { Location: "/b" } })
        : undefined;
    await withServer({ onRequest }, async (server) => {
      await withProxy("socks5", async ({ port, asked }) => {
        const proxy = `socks5://127.0.0.1:${port}`;
        await check(urlOf(server, "/a"), { proxy, maxRedirects: 1 });
        assert.equal(asked.length, 2);
      });
    });
  });

  it("reconnect() takes the option too", async () => {
    await withServer({}, async (server) => {
      await withProxy("http", async ({ port, asked }) => {
        const proxy = `http://127.0.0.1:${port}`;
        for await (const ws of reconnect(urlOf(server), { proxy })) {
          await ws.close();
          break;
        }
        assert.equal(asked.length, 1);
      });
    });
  });

  const wrong: [option: unknown, error: typeof TypeError | typeof RangeError][] = [
    [5, TypeError],
    [null, TypeError],
    [true, TypeError],
    [{}, TypeError],
    [{ url: 5 }, TypeError],
    [{ url: "http://a", headers: 5 }, TypeError],
    [{ url: "http://a", headers: { Host: "b" } }, TypeError],
    [{ url: "http://a", headers: { "a b": "c" } }, TypeError],
    [{ url: "http://a", tls: 5 }, TypeError],
    ["", RangeError],
    ["proxy.test:80", RangeError],
    ["ftp://a", RangeError],
    ["socks4://a", RangeError],
    ["http://", RangeError],
    ["socks5://a:99999", RangeError],
    [`socks5://${"a".repeat(256)}:b@c`, RangeError],
  ];
  for (const [option, error] of wrong) {
    it(`connect() refuses the proxy ${JSON.stringify(option)?.slice(0, 60)}`, async () => {
      const options = { proxy: option as ProxyOption };
      assert.ok(await rejection(connect("ws://127.0.0.1:1/", options)) instanceof error);
    });
  }

  it("connect() refuses proxy together with unix or transport, and uses none for them", async () => {
    const proxy = "http://127.0.0.1:1";
    const [near] = transportPair();
    for (const place of [{ unix: "/tmp/none" }, { transport: near }]) {
      assert.ok(await rejection(connect("ws://a/", { proxy, ...place })) instanceof TypeError);
    }
    const path = "/tmp/sluice-none.sock";
    const error = await failureOf("ws://a/", { proxy: "environment", unix: path });
    assert.match(error.message, /sluice-none/);
  });
});
