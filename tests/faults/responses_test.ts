/** How a client handles the answers of servers and proxies, and what it sends to other origins. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import type { ServerHttp2Stream } from "node:http2";
import { it } from "../it.ts";
import { connect, type ConnectOptions, HandshakeError, WebSocketStream } from "../../mod.ts";
import { Endpoint, RemoteProtocolError } from "../../lib/core/mod.ts";
import { connectHttp2 } from "../../lib/http2.ts";
import { latin1 } from "../bytes.ts";
import { certificates } from "../certificates.ts";
import { dial, endSession, http2Server, noServer } from "../http2_servers.ts";
import type { TlsConnectOptions, TransportProvider } from "../../lib/transport.ts";
import { transportPair } from "../../lib/testing.ts";
import {
  type Answer,
  failure,
  field,
  portOf,
  RawPeer,
  type RawSocket,
  rejection,
  requestOf,
  until,
  upgradeResponse,
  withRawServer,
  withServer,
} from "../support.ts";

/** Answers the path /away with a redirect, and upgrades all other requests. */
function redirecting(
  location: () => string,
  heads: string[],
  fields: Record<string, string> = {},
): (raw: RawSocket) => Promise<void> {
  return async (raw) => {
    const head = await requestOf(raw);
    heads.push(head);
    if (!head.startsWith("GET /away")) return raw.write(upgradeResponse(head, fields));
    raw.write(`HTTP/1.1 307 Away\r\nLocation: ${location()}\r\nContent-Length: 0\r\n\r\n`);
  };
}

/** The names of all fields of a request, without those of the handshake itself. */
function fieldNames(head: string): string[] {
  const names = Array.from(head.matchAll(/^([^:\r\n]+): /gm), ([, name]) => name.toLowerCase());
  const own = ["host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version"];
  return names.filter((name) => ![...own, "sec-websocket-extensions"].includes(name)).sort();
}

/** The request that another origin receives after a redirect. */
async function redirected(
  options: ConnectOptions,
  user = "ada:lovelace@",
): Promise<{ head: string; protocol: string }> {
  const heads: string[] = [];
  let protocol = "";
  let place = "";
  const chosen = options.protocols?.[0];
  const other = async (raw: RawSocket) => {
    const head = await requestOf(raw);
    heads.push(head);
    const asked = field(head, "Sec-WebSocket-Protocol") !== undefined;
    raw.write(upgradeResponse(head, { "Sec-WebSocket-Protocol": asked ? chosen! : null }));
  };
  await withRawServer(other, async (url) => {
    place = url;
    await withRawServer(redirecting(() => place, []), async (url) => {
      const asked = url.replace("//", `//${user}`) + "away";
      const ws = await connect(asked, { maxRedirects: 1, compression: false, ...options });
      ({ protocol } = ws);
      ws.terminate();
    });
  });
  return { head: heads[0], protocol };
}

describe("C5 a redirect takes nothing of the caller's to another origin", () => {
  const SECRETS = {
    headers: {
      "X-Jwt": "a",
      "X-Bearer": "b",
      "X-Pin": "c",
      "X-Room": "d",
      "Cookie": "e=f",
      "Proxy-Authorization": "g",
    },
    protocols: ["bearer.TOKEN", "chat"],
    origin: "https://page.example",
    userAgent: "agent/1 secret",
  };

  it("C5 no header fields, protocols, credentials, Origin or User-Agent", async () => {
    const { head, protocol } = await redirected(SECRETS);
    assert.deepEqual(fieldNames(head), ["user-agent"]);
    assert.match(field(head, "User-Agent")!, /^sluice\//);
    assert.doesNotMatch(head, /TOKEN|secret|lovelace|YWRh/);
    assert.equal(protocol, "");
  });

  const allowed: [names: string[], sent: string[]][] = [
    [["X-Room"], ["user-agent", "x-room"]],
    [["x-room", "X-JWT"], ["user-agent", "x-jwt", "x-room"]],
    [["Sec-WebSocket-Protocol"], ["sec-websocket-protocol", "user-agent"]],
    [["origin"], ["origin", "user-agent"]],
    [["authorization"], ["authorization", "user-agent"]],
    [["X-Roo", "X", "*"], ["user-agent"]],
  ];
  for (const [names, sent] of allowed) {
    it(`C5 crossOriginHeaders lets go ${names.join(", ")}`, async () => {
      const { head, protocol } = await redirected({ ...SECRETS, crossOriginHeaders: names });
      assert.deepEqual(fieldNames(head), sent);
      const offered = sent.includes("sec-websocket-protocol");
      assert.equal(protocol, offered ? "bearer.TOKEN" : "");
    });
  }

  it("C5 crossOriginHeaders lets go User-Agent, and none is sent where the caller wants none", async () => {
    const named = await redirected({ ...SECRETS, crossOriginHeaders: ["User-Agent"] });
    assert.equal(field(named.head, "User-Agent"), SECRETS.userAgent);
    const none = await redirected({ ...SECRETS, userAgent: false });
    assert.deepEqual(fieldNames(none.head), []);
  });

  it("C5 a redirect to the same origin gets all header fields", async () => {
    const heads: string[] = [];
    const fields = { "Sec-WebSocket-Protocol": "chat" };
    await withRawServer(redirecting(() => "/b", heads, fields), async (url) => {
      const ws = await connect(`${url.replace("//", "//ada:b@")}away`, {
        maxRedirects: 1,
        ...SECRETS,
      });
      assert.equal(ws.protocol, "chat");
      ws.terminate();
    });
    assert.deepEqual(fieldNames(heads[1]), fieldNames(heads[0]));
    assert.equal(fieldNames(heads[1]).length, 10);
  });

  it("C5 header fields that were omitted stay omitted on the way back", async () => {
    const heads: string[] = [];
    const places = ["", ""];
    await withRawServer(redirecting(() => `${places[0]}back`, []), async (other) => {
      places[1] = `${other}away`;
      await withRawServer(redirecting(() => places[1], heads), async (url) => {
        places[0] = url;
        const ws = await connect(`${url}away`, { maxRedirects: 2, ...SECRETS });
        ws.terminate();
      });
    });
    assert.match(heads[1], /^GET \/back /);
    assert.deepEqual(fieldNames(heads[1]), ["user-agent"]);
  });

  it("C5 another port, another host and another scheme are other origins", async () => {
    const { ca, leaf } = await certificates();
    const asked: string[] = [];
    const onRequest = ({ headers }: Request) => void asked.push([...headers.keys()].join(" "));
    await withServer({ tls: leaf, onRequest }, async (server) => {
      const place = `https://localhost:${portOf(server)}/`;
      await withRawServer(redirecting(() => place, []), async (url) => {
        const options = { ...SECRETS, tls: { ca }, maxRedirects: 1 };
        (await connect(`${url}away`, options)).terminate();
      });
    });
    assert.doesNotMatch(asked[0], /x-|cookie|protocol|origin|authorization/);
  });

  it("C5 the client's certificate is for the first origin", async () => {
    const shown: (TlsConnectOptions | undefined)[] = [];
    const answer: Answer = (accept, { target }) => {
      const location = { "/away": "/again", "/again": "wss://other.test/" }[target];
      if (location !== undefined) {
        return latin1(`HTTP/1.1 302 a\r\nContent-Length: 0\r\nLocation: ${location}\r\n\r\n`);
      }
      return accept();
    };
    const provider: TransportProvider = {
      connect({ tls }) {
        shown.push(tls);
        const [near, far] = transportPair();
        new RawPeer(far, "server", answer);
        return Promise.resolve(near);
      },
      listen: () => assert.fail("Nobody listens"),
    };
    const [cert, key, ca] = ["A", "B", "C"].map((name) => `-----BEGIN ${name}-----`);
    const tls = { cert, key, ca, servername: "first.test" };
    const options = { provider, tls, maxRedirects: 2, crossOriginHeaders: ["cert"] };
    (await connect("wss://localhost/away", options)).terminate();
    const none = { cert: undefined, key: undefined, servername: "other.test" };
    assert.deepEqual(shown, [tls, tls, { ...tls, ...none }]);
  });

  it("C5 a WebSocketStream that must have a protocol fails instead", async () => {
    let connections = 0;
    await withRawServer(() => connections++, async (place) => {
      await withRawServer(redirecting(() => place, []), async (url) => {
        const stream = new WebSocketStream(`${url}away`, { protocols: ["a"], maxRedirects: 1 });
        stream.closed.catch(() => {});
        await assert.rejects(stream.opened);
      });
    });
    assert.equal(connections, 0);
  });

  for (const names of ["X-Room", [1], ["a b"], [""], {}] as unknown[]) {
    it(`C5 crossOriginHeaders: ${JSON.stringify(names)} is a TypeError`, async () => {
      const options = { crossOriginHeaders: names } as ConnectOptions;
      assert.ok(await rejection(connect("ws://127.0.0.1:1/", options)) instanceof TypeError);
    });
  }
});

describe("C6 a Location in UTF-8 is a URL of these bytes", () => {
  const locations: [bytes: string, target: string][] = [
    ["/\xc3\xbc", "/%C3%BC"],
    ["/\xc3\xbc/%C3%BC?\xe2\x82\xac=\xf0\x9f\x98\x80", "/%C3%BC/%C3%BC?%E2%82%AC=%F0%9F%98%80"],
    ["b\xc3\xbc", "/b%C3%BC"],
    // Not UTF-8.
    ["/\xfc", "/%FC"],
  ];
  for (const [bytes, target] of locations) {
    it(`C6 ${JSON.stringify(bytes)}`, async () => {
      const asked: string[] = [];
      await withRawServer(async (raw) => {
        const head = await requestOf(raw);
        asked.push(head.split(" ")[1]);
        if (asked.length > 1) return raw.write(upgradeResponse(head));
        raw.write(`HTTP/1.1 302 a\r\nLocation: ${bytes}\r\nContent-Length: 0\r\n\r\n`);
      }, async (url) => {
        (await connect(url, { maxRedirects: 1 })).terminate();
      });
      assert.equal(asked[1], target);
    });
  }
});

describe("C7 a client fails at the first byte that is not HTTP", () => {
  const banners = [
    "SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
    "220 mail.example.com ESMTP\r\n",
    "-ERR wrong number of arguments\r\n",
    "+OK\r\n",
    "HTTQ",
    "HTTP/1.1 x",
    "\0",
  ];
  for (const banner of banners) {
    it(`C7 ${JSON.stringify(banner)}`, async () => {
      const error = await failure((raw) => raw.write(banner), { openTimeout: 20_000 });
      assert.equal(error.code, "malformed-head");
    });
  }
});

const INTERIM = [
  "HTTP/1.1 100 Continue\r\n\r\n",
  "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",
  "HTTP/1.1 102 Processing\r\nX: a\r\n\r\n",
  "HTTP/1.1 199 a\r\nContent-Length: 5\r\n\r\n",
];

/** The bytes of this many interim responses. */
function interim(count: number): string {
  return Array.from({ length: count }, (_, i) => INTERIM[i % INTERIM.length]).join("");
}

describe("C8 interim responses are skipped", () => {
  for (const count of [1, 2, 16]) {
    for (const chopped of [false, true]) {
      it(`C8 ${count} of them before 101${chopped ? ", byte by byte" : ""}`, async () => {
        await withRawServer(async (raw) => {
          const answer = interim(count) + upgradeResponse(await requestOf(raw)) + "\x81\x01a";
          for (const part of chopped ? answer : [answer]) raw.write(part);
        }, async (url) => {
          const ws = await connect(url);
          assert.equal(await ws.receive(), "a");
          assert.equal(ws.response.status, 101);
          ws.terminate();
        });
      });
    }
  }

  it("C8 before a refusal", async () => {
    const error = await failure(async (raw) => {
      await requestOf(raw);
      raw.write(`${interim(3)}HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno`);
    });
    assert.equal(error.code, "status");
    assert.equal(error.response!.status, 403);
    assert.equal(await new Response(error.response!.body).text(), "no");
  });

  it("C8 more than 16 fail", async () => {
    for (const count of [17, 10_000]) {
      const error = await failure(async (raw) => {
        await requestOf(raw);
        raw.write(interim(count));
      }, { openTimeout: 20_000 });
      assert.equal(error.code, "head-too-large");
    }
  });

  it("C8 an end after interim responses is an early end", async () => {
    const error = await failure(async (raw) => {
      await requestOf(raw);
      raw.write(interim(2));
      raw.socket.end();
    });
    assert.equal(error.code, "connection-lost");
  });

  it("C8 Endpoint skips them too", () => {
    const client = new Endpoint("client");
    client.send({ type: "request", host: "x", target: "/" });
    client.receive(latin1(`${interim(16)}HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n`));
    const event = client.next();
    assert.equal(event?.type === "reject" && event.status, 403);

    const waiting = new Endpoint("client");
    waiting.send({ type: "request", host: "x", target: "/" });
    waiting.receive(latin1(interim(16)));
    assert.equal(waiting.next(), undefined);
    waiting.receive(latin1(INTERIM[0]));
    assert.throws(() => waiting.next(), ({ cause }) => cause.code === "head-too-large");
  });

  it("C8 over HTTP/2 too", { skip: noServer }, async () => {
    for (
      const [count, code] of [[3, undefined], [16, undefined], [17, "head-too-large"]] as const
    ) {
      const server = http2Server();
      server.on("stream", (stream: ServerHttp2Stream) => {
        stream.on("error", () => {});
        for (let i = 0; i < count; i++) stream.additionalHeaders({ ":status": 103 });
        stream.respond({ ":status": 200 });
      });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      const { port } = server.address() as { port: number };
      const session = dial(`http://127.0.0.1:${port}`);
      try {
        const connecting = connectHttp2(session, `ws://127.0.0.1:${port}/`, { compression: false });
        if (code === undefined) (await connecting).terminate();
        else assert.equal((await rejection<HandshakeError>(connecting)).code, code);
      } finally {
        await endSession(session);
        await new Promise((resolve) => server.close(resolve));
      }
    }
  });
});

describe("B7 an HTTP proxy may answer with 16 interim responses", () => {
  /** The error of connect() through a proxy that gives this answer. */
  async function behind(answer: string): Promise<HandshakeError | undefined> {
    let error: HandshakeError | undefined;
    await withRawServer(async (raw) => {
      const asked = await requestOf(raw);
      raw.write(answer);
      if (!/ 200 OK\r\n\r\n$/.test(answer)) return;
      await until(() => raw.text.length > asked.length && raw.text.endsWith("\r\n\r\n"));
      raw.write(upgradeResponse(raw.text.slice(asked.length)));
    }, async (url) => {
      const options = { proxy: url.replace("ws:", "http:"), openTimeout: 20_000 };
      await connect("ws://server.test/", options).then((ws) => ws.terminate(), (thrown) => {
        error = thrown;
      });
    });
    return error;
  }

  it("B7 and no more", async () => {
    const ok = "HTTP/1.1 200 OK\r\n\r\n";
    assert.equal(await behind(ok), undefined);
    assert.equal(await behind(interim(16) + ok), undefined);
    for (const count of [17, 50_000]) {
      const error = await behind(interim(count) + ok.slice(0, -2));
      assert.ok(error instanceof HandshakeError);
      assert.equal(error.code, "proxy");
    }
  });

  it("B7 a banner instead of a response fails at once", async () => {
    const error = await behind("SSH-2.0-OpenSSH_9.2p1\r\n");
    assert.equal(error?.code, "proxy");
  });
});

describe("C16 the length of a refusal's body does not hide its status", () => {
  const body = "a".repeat(100_000);
  const valid: [name: string, fields: string, body: string][] = [
    ["1234567890123456789", "Content-Length: 1234567890123456789", body],
    ["2^64", "Content-Length: 18446744073709551616", body],
    ["400 digits", `Content-Length: ${"9".repeat(400)}`, body],
    ["leading zeros", "Content-Length: 000000000000000000100000", body],
    ["a chunk of 2^64 - 1", "Transfer-Encoding: chunked", `ffffffffffffffff\r\n${body}`],
    [
      "a chunk with leading zeros",
      "Transfer-Encoding: chunked",
      `00000000000000000186a0\r\n${body}`,
    ],
  ];
  for (const [name, fields, sent] of valid) {
    it(`C16 ${name}: the status, and the body up to its limit`, async () => {
      const { code, response } = await failure(async (raw) => {
        await requestOf(raw);
        raw.write(`HTTP/1.1 403 No\r\n${fields}\r\n\r\n${sent}`);
      });
      assert.deepEqual([code, response?.status], ["status", 403]);
      assert.equal((await new Response(response!.body).text()).length, 65536);
    });
  }

  const invalid: [name: string, fields: string][] = [
    ["no number", "Content-Length: a"],
    ["negative", "Content-Length: -1"],
    ["empty", "Content-Length:"],
    ["two", "Content-Length: 1\r\nContent-Length: 2"],
  ];
  for (const [name, fields] of invalid) {
    it(`C16 ${name}: the status, and a body that errors`, async () => {
      const { code, response } = await failure(async (raw) => {
        await requestOf(raw);
        raw.write(`HTTP/1.1 403 No\r\n${fields}\r\n\r\nbody`);
      });
      assert.deepEqual([code, response?.status], ["status", 403]);
      const error = await rejection<HandshakeError>(new Response(response!.body).text());
      assert.equal(
        (error.cause as HandshakeError ?? error).code ?? "malformed-header",
        "malformed-header",
      );
    });

    it(`C16 ${name}: Endpoint gives the status before it fails`, () => {
      const client = new Endpoint("client");
      client.send({ type: "request", host: "x", target: "/" });
      client.receive(latin1(`HTTP/1.1 403 No\r\n${fields}\r\n\r\nbody`));
      const event = client.next();
      assert.ok(event?.type === "reject");
      assert.deepEqual([event.status, event.hasBody], [403, true]);
      assert.throws(
        () => client.next(),
        (error) =>
          error instanceof RemoteProtocolError &&
          (error.cause as HandshakeError).code === "malformed-header",
      );
      assert.equal(client.state, "closed");
    });
  }
});
