import { describe } from "node:test";
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { connect as connectSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it, knownLimit, notApplicable } from "./it.ts";
import {
  connect,
  type ConnectOptions,
  HandshakeError,
  serve,
  type ServeOptions,
  type Server,
  type TlsConnectOptions,
  type TlsServeOptions,
  WebSocketStream,
} from "../mod.ts";
import { type Certificate, certificates } from "./certificates.ts";
import { withPrograms } from "./programs.ts";
import { withoutLeak } from "./resources.ts";
import { sendToSleeper, withTlsEnds } from "./sleeping_reader.ts";
import { portOf, RawSocket, rejection, until, withRawServer } from "./support.ts";

const onDeno = "Deno" in globalThis;
const NOT_ON_DENO = onDeno ? knownLimit("Deno's sockets have no way for it") : false;

/** On Deno, a socket closed in the middle of its handshake stays open until its peer acts. */
const LINGERS = onDeno ? knownLimit("Deno's sockets wait for the peer before they close") : false;

type Serving = Omit<ServeOptions, "tls"> & { tls?: TlsServeOptions };

/** Runs a test with an echo server over TLS. */
async function withServer(
  run: (server: Server) => Promise<unknown>,
  options: Serving = {},
): Promise<void> {
  const { leaf } = await certificates();
  const server = await serve({ tls: leaf, ...options }, (ws) => ws.readable.pipeTo(ws.writable));
  try {
    await run(server);
  } finally {
    await server.shutdown();
  }
}

function wssOf(server: Server, host = "localhost"): string {
  return `wss://${host}:${portOf(server)}/`;
}

/** Connects, sends and receives. */
async function check(url: string, options: ConnectOptions): Promise<void> {
  const ws = await connect(url, options);
  await ws.send("gr\u00fc\u00df");
  assert.equal(await ws.receive(), "gr\u00fc\u00df");
  assert.equal((await ws.close({ closeCode: 1000 })).closeCode, 1000);
}

async function failureOf(
  url: string,
  code: string,
  options: ConnectOptions = {},
): Promise<HandshakeError> {
  const { ca } = await certificates();
  const error = await rejection<HandshakeError>(connect(url, { tls: { ca }, ...options }));
  assert.ok(error instanceof HandshakeError, String(error));
  assert.equal(error.code, code, error.message);
  return error;
}

describe("TLS", () => {
  it("connect() and serve() speak wss, and say so", async () => {
    const { ca } = await certificates();
    let seen = "";
    await withServer(async (server) => {
      const ws = await connect(`${wssOf(server)}chat`, { tls: { ca } });
      assert.equal(ws.request.url, `https://localhost:${portOf(server)}/chat`);
      assert.equal(seen, ws.request.url);
      assert.equal(server.url, `wss://${server.hostname}:${portOf(server)}`);
      assert.equal([...server.connections][0].request.url, seen);
      assert.deepEqual(ws.remoteAddress, server.address);
      assert.deepEqual([...server.connections][0].remoteAddress, ws.localAddress);
      await ws.close();
    }, { onRequest: ({ url }) => void (seen = url) });
  });

  for (const host of ["localhost", "127.0.0.1"]) {
    it(`connect() checks the certificate for ${host}, and echoes`, async () => {
      const { ca, otherCa } = await certificates();
      await withServer(async (server) => {
        await check(wssOf(server, host), { tls: { ca } });
        await check(wssOf(server, host).replace("wss", "https"), { tls: { ca: [otherCa, ca] } });
      });
    });
  }

  it("connect() reaches a TLS server on ::1, by address and by the name localhost", async () => {
    const { ca, leaf } = await certificates();
    const listening = serve(
      { hostname: "::1", tls: leaf },
      (ws) => ws.readable.pipeTo(ws.writable),
    );
    const server = await listening.catch(() => undefined);
    // Some machines have no IPv6.
    if (server === undefined) return;
    await check(wssOf(server), { tls: { ca } });
    await check(wssOf(server, "[::1]"), { tls: { ca } });
    const elsewhere = { ca, servername: "::2" };
    await failureOf(wssOf(server, "[::1]"), "certificate", { tls: elsewhere });
    await server.shutdown();
  });

  it("wss: messages of 64 KiB, each sent when the one before has left", async () => {
    const { ca, leaf } = await certificates();
    const message = new Uint8Array(65536);
    const server = await serve({ tls: leaf }, async (ws) => {
      for (let i = 0; i < 200; i++) await ws.send(message);
    });
    const ws = await connect(wssOf(server), { tls: { ca } });
    // The kernel's buffers are full after this time.
    await new Promise((resolve) => setTimeout(resolve, 100));
    let count = 0;
    for await (const { length } of ws) count += length;
    assert.equal(count, 200 * 65536);
    await server.shutdown();
  });

  it("WebSocketStream takes the same options", async () => {
    const { ca } = await certificates();
    await withServer(async (server) => {
      const stream = new WebSocketStream(wssOf(server), { tls: { ca } });
      const { readable, writable } = await stream.opened;
      const [reader, writer] = [readable.getReader(), writable.getWriter()];
      writer.write("a");
      assert.equal((await reader.read()).value, "a");
      stream.close();
      await stream.closed;
    });
  });

  it("A message of 8 MiB passes whole, both ways", async () => {
    const { ca } = await certificates();
    const maxMessageSize = Infinity;
    await withServer(async (server) => {
      const ws = await connect(wssOf(server), { tls: { ca }, maxMessageSize });
      const message = new Uint8Array(8 << 20).map((_, i) => i * 31 + (i >> 8));
      ws.send(message);
      assert.deepEqual(await ws.receive(), message);
      await ws.close();
    }, { maxMessageSize });
  });

  it("A client offers protocols by ALPN, of which the server must know one", async () => {
    const { ca, leaf } = await certificates();
    await withServer(async (server) => {
      await check(wssOf(server), { tls: { ca, alpn: ["h9", "http/1.1"] } });
      await check(wssOf(server), { tls: { ca } });
      await failureOf(wssOf(server), "connect-failed", { tls: { ca, alpn: ["h9"] } });
      await check(wssOf(server), { tls: { ca } });
    }, { tls: { ...leaf, alpn: ["http/1.1"] } });
  });
});

describe("A certificate that is not valid", () => {
  /** Checks the error of a client that meets a server with this certificate. */
  async function finding(cert: Certificate, tls: TlsConnectOptions, expected: RegExp) {
    await withServer(async (server) => {
      const error = await failureOf(wssOf(server), "certificate", { tls });
      assert.match(error.message, expected);
      assert.ok(error.cause instanceof Error);
    }, { tls: cert });
  }

  it("of an authority that is not the one named", async () => {
    const { leaf, otherCa } = await certificates();
    await finding(leaf, { ca: otherCa }, /of localhost is from an unknown authority/);
  });

  it("of an authority that the platform does not know", async () => {
    const { leaf } = await certificates();
    await finding(leaf, {}, /an unknown authority/);
  });

  it("that has expired", async () => {
    const { expired, ca } = await certificates();
    await finding(expired, { ca }, /of localhost has expired/);
  });

  it("for another host", async () => {
    const { elsewhere, ca } = await certificates();
    await finding(elsewhere, { ca }, /wrong host name/);
  });

  it("for another host than the option servername, which is the one checked", async () => {
    const { leaf, elsewhere, ca } = await certificates();
    await finding(leaf, { ca, servername: "elsewhere.test" }, /elsewhere\.test.*wrong host name/);
    await withServer(async (server) => {
      await check(wssOf(server), { tls: { ca, servername: "elsewhere.test" } });
      await check(wssOf(server, "127.0.0.1"), { tls: { ca, servername: "elsewhere.test" } });
    }, { tls: elsewhere });
  });

  it("is taken with insecureSkipVerify, where the platform can", async () => {
    const { expired } = await certificates();
    await withServer(async (server) => {
      const tls = { insecureSkipVerify: true };
      if (onDeno) await failureOf(wssOf(server), "unsupported", { tls });
      else await check(wssOf(server), { tls });
    }, { tls: expired });
  });
});

describe("Certificates of clients", () => {
  it(
    "A server with ca accepts clients with a certificate of that authority",
    { skip: NOT_ON_DENO },
    async () => {
      const { ca, leaf } = await certificates();
      await withServer(async (server) => {
        await check(wssOf(server), { tls: { ca, ...leaf } });
        const error = await rejection<HandshakeError>(connect(wssOf(server), { tls: { ca } }));
        assert.ok(error instanceof HandshakeError);
        assert.ok(["connect-failed", "connection-lost"].includes(error.code), error.code);
        await check(wssOf(server), { tls: { ca, ...leaf } });
      }, { tls: { ...leaf, ca } });
    },
  );

  it("A server says where it cannot ask for them", {
    skip: !onDeno && notApplicable("it can"),
  }, async () => {
    const { ca, leaf } = await certificates();
    await assert.rejects(serve({ tls: { ...leaf, ca } }, () => {}), { code: "unsupported" });
  });

  it("A client may have a certificate that the server does not ask for", async () => {
    const { ca, leaf } = await certificates();
    await withServer((server) => check(wssOf(server), { tls: { ca, ...leaf } }));
  });
});

describe("TLS over a Unix socket", () => {
  const skip = NOT_ON_DENO;
  it("does not hold up a shutdown with handshakes under way", { skip }, async () => {
    const { ca, leaf } = await certificates();
    const folder = await mkdtemp(join(tmpdir(), "sluice-"));
    const path = join(folder, "socket");
    const server = await serve(
      { unix: path, tls: leaf, openTimeout: 0 },
      (ws) => ws.readable.pipeTo(ws.writable),
    );
    const raws = [1, 2].map(() => new RawSocket(connectSocket(path)));
    // The server accepts connections in order.
    const ws = await connect("wss://localhost/", { unix: path, tls: { ca } });
    const shutdown = server.shutdown();
    assert.equal((await ws.closed).closeCode, 1001);
    await shutdown;
    for (const raw of raws) raw.socket.destroy();
    await rm(folder, { recursive: true });
  });

  it("works, or is refused in so many words", async () => {
    const { ca, leaf } = await certificates();
    const folder = await mkdtemp(join(tmpdir(), "sluice-"));
    const path = join(folder, "socket");
    if (onDeno) {
      await assert.rejects(serve({ unix: path, tls: leaf }, () => {}), { code: "unsupported" });
      await failureOf("wss://localhost/", "unsupported", { unix: path });
    } else {
      await withServer(async () => {
        await check("wss://localhost/", { unix: path, tls: { ca } });
        await failureOf("wss://elsewhere.test/", "certificate", { unix: path });
      }, { unix: path });
    }
    await rm(folder, { recursive: true });
  });
});

describe("TLS that comes to nothing", () => {
  it("connect() says on one line that a server may not speak TLS", async () => {
    const server = await serve({ port: 0 }, () => {});
    const error = await rejection<Error>(connect(server.url!.replace("ws:", "wss:")));
    assert.match(
      error.message,
      /^Cannot connect to 127\.0\.0\.1 port \d+: [\w ]+\. The server may /,
    );
    assert.match(error.message, /The server may not speak TLS: use ws:\/\/ \(wss:\/\/[^ ]+\)$/);
    assert.doesNotMatch(error.message, /\n|openssl/);
    await server.shutdown();
  });

  it("connect() names the address at which nobody listens", async () => {
    const server = await serve({}, () => {});
    await server.shutdown();
    for (const host of ["localhost", "127.0.0.1"]) {
      const error = await failureOf(wssOf(server, host), "connect-failed");
      assert.match(error.message, new RegExp(`${host} port ${portOf(server)}: .+`));
    }
  });

  it("connect() rejects with the signal's reason during the TLS handshake", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    await withRawServer(async (raw) => {
      await until(() => raw.received.length > 0);
      controller.abort(reason);
    }, async (url) => {
      const opening = connect(url.replace("ws", "wss"), { signal: controller.signal });
      assert.equal(await rejection(opening), reason);
    });
  });

  const skip = LINGERS;
  it("serve() cuts a client that does not begin its TLS handshake", { skip }, async () => {
    await withServer(async (server) => {
      const raw = new RawSocket(connectSocket(portOf(server), "127.0.0.1"));
      await until(() => raw.closed || raw.ended);
      raw.socket.destroy();
    }, { openTimeout: 50 });
  });

  it("serve() ends with a client that leaves during its TLS handshake", async () => {
    await withServer(async (server) => {
      const socket = connectSocket({
        port: portOf(server),
        host: "127.0.0.1",
        allowHalfOpen: true,
      });
      const raw = new RawSocket(socket);
      socket.end();
      await until(() => raw.closed || raw.ended);
      socket.destroy();
    }, { openTimeout: 0 });
  });

  it("shutdown() does not wait for a TLS handshake under way", async () => {
    const { ca } = await certificates();
    let raw!: RawSocket;
    await withServer(async (server) => {
      raw = new RawSocket(connectSocket(portOf(server), "127.0.0.1"));
      await check(wssOf(server), { tls: { ca } });
    }, { openTimeout: 0 });
    if (!LINGERS) await until(() => raw.closed || raw.ended);
    raw.socket.destroy();
  });

  it("The options must have the right types", async () => {
    const { leaf } = await certificates();
    const wrong = [1, null, { ca: 1 }, { ca: [1] }, { alpn: "a" }, { servername: 1 }, {
      cert: leaf.cert,
    }];
    for (const tls of wrong as unknown as TlsConnectOptions[]) {
      await assert.rejects(connect("wss://localhost/", { tls }), TypeError);
    }
    const partial: unknown[] = [{}, { cert: leaf.cert }, { key: leaf.key }];
    for (const tls of partial as TlsServeOptions[]) {
      await assert.rejects(serve({ tls }, () => {}), TypeError);
    }
  });

  it("The options must have values that can be used, in the same words everywhere", async () => {
    const { ca, leaf } = await certificates();
    const path = { cert: "server.pem", key: "server.key" };
    const alpn: TlsServeOptions["alpn"][] = [[""], ["http/1.1", "\u00fc".repeat(128)]];
    const both = [path, { ...leaf, ca: "ca.pem" }, ...alpn.map((alpn) => ({ ...leaf, alpn }))];
    for (const tls of both) {
      await assert.rejects(serve({ tls }, () => {}), RangeError);
      await assert.rejects(connect("wss://localhost/", { tls }), RangeError);
    }
    for (const tls of [{ ca: [ca, "ca.pem"] }, { servername: "" }]) {
      await assert.rejects(connect("wss://localhost/", { tls }), RangeError);
    }
  });

  it("connect() leaves nothing open if tls.ca is not a certificate", async () => {
    const nothing = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    await withServer(async (server) => {
      await withoutLeak(async () => {
        for (const tls of [{ ca: nothing }, { servername: "not a host" }]) {
          const error = await rejection<HandshakeError>(connect(wssOf(server), { tls }));
          assert.ok(error instanceof HandshakeError, String(error));
        }
      });
    });
  });

  it("connect() names the address at which nobody listens, also with a client certificate", async () => {
    const { ca, leaf } = await certificates();
    const server = await serve({}, () => {});
    await server.shutdown();
    await failureOf(wssOf(server), "connect-failed", { tls: { ca, ...leaf } });
  });

  it("Timeouts too long for a timer never fire", async () => {
    const { ca } = await certificates();
    const limits = { openTimeout: Infinity, closeTimeout: 3e9, pingInterval: 2 ** 31 };
    await withServer(async (server) => {
      await check(wssOf(server), { tls: { ca }, ...limits });
    }, limits);
  });

  it("serve() rejects if the certificate is invalid or has another key", async () => {
    const { leaf, elsewhere } = await certificates();
    for (const tls of [{ cert: "x", key: "y" }, { ...leaf, key: elsewhere.key }]) {
      await assert.rejects(serve({ tls }, () => {}), Error);
    }
  });
});

describe("Backpressure through TLS", () => {
  for (const sender of ["client", "server"]) {
    it(`A ${sender} that sends to a sleeping reader stalls, and nothing is changed on its way`, async () => {
      await withTlsEnds(async (client, server) => {
        const [from, to] = sender === "client" ? [client, server] : [server, client];
        await sendToSleeper(from, to, 64 << 20);
      });
    });
  }
});

describe("A process that uses TLS", () => {
  it("ends by itself, with nothing unhandled, whatever became of its connections", async () => {
    const { ca, leaf } = await certificates();
    const program = `
      import { connect, serve } from "sluice";
      const [ca, leaf] = ${JSON.stringify([ca, leaf])};
      const server = await serve({ tls: leaf }, (ws) => ws.readable.pipeTo(ws.writable));
      const { port } = server.address;
      const failed = (url, options) => connect(url, options).then(() => "open", (e) => e.code);
      const codes = [
        await failed("wss://localhost:" + port),
        await failed("wss://localhost:" + port, { tls: { ca, servername: "a.test" } }),
        await failed("ws://localhost:" + port),
      ];
      const ws = await connect("wss://localhost:" + port, { tls: { ca } });
      await ws.send("a");
      codes.push(await ws.receive());
      (await connect("wss://localhost:" + port, { tls: { ca } })).terminate();
      await ws.close();
      await server.shutdown();
      codes.push(await failed("wss://localhost:" + port, { tls: { ca } }));
      console.log(codes.join());`;
    await withPrograms(async (start) => {
      const child = await start("tls.mjs", program);
      assert.equal(await child.exited, 0, child.stderr);
      assert.equal(child.stderr, "");
      assert.equal(child.stdout, "certificate,certificate,connection-lost,a,connect-failed\n");
    });
  });
});
