/** How a server reads a request: the head, the Host header, the target and the Origin. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { it } from "../it.ts";
import {
  accept,
  connect,
  serve,
  type ServeOptions,
  type Server,
  type WebSocketConnection,
} from "../../mod.ts";
import {
  Endpoint,
  parseRequestHead,
  parseResponseHead,
  type RawHeaders,
  RemoteProtocolError,
} from "../../lib/core/mod.ts";
import { checkHttp2Request, http2Request } from "../../lib/core/handshake.ts";
import { HeadReader } from "../../lib/core/http1.ts";
import { upgrade } from "../../lib/node.ts";
import { attachHttp2 } from "../../lib/http2.ts";
import { transportPair } from "../../lib/testing.ts";
import { requestUrl } from "../../lib/core/url.ts";
import { latin1, single } from "../bytes.ts";
import { fc } from "../property.ts";
import { portOf as portOfHttp, withAttached, withHttp } from "../http_servers.ts";
import { answerTo, CONNECT, http2Server, noServer, withHttp2 } from "../http2_servers.ts";
import { portOf, RawSocket, rejection, until, upgradeRequest, withServer } from "../support.ts";

/** The first line of the answer to bytes that are written one part after the other. */
async function statusOf(port: number, ...parts: string[]): Promise<string> {
  const raw = await RawSocket.connect(port);
  for (const part of parts) raw.write(part);
  await until(() => raw.text.includes("\r\n\r\n") || raw.ended || raw.closed);
  raw.socket.destroy();
  return raw.text.slice(9, 12);
}

/** The result of the core for a request: the code and status of the error, or nothing. */
function verdict(request: string): [code?: string, status?: number] {
  const server = new Endpoint("server");
  server.receive(latin1(request));
  try {
    server.next();
    return [];
  } catch (error) {
    assert.ok(error instanceof RemoteProtocolError, `${error}`);
    const { code, status } = error.cause as { code: string; status: number };
    assert.equal(error.event?.type === "reject" && error.event.status, status);
    return [code, status];
  }
}

/** Valid values of Host (a host and an optional port), and the host of the URL. */
const HOSTS: [value: string, host: string][] = [
  ["x", "x"],
  ["EXAMPLE.com", "example.com"],
  ["example.com:8080", "example.com:8080"],
  ["example.com:80", "example.com"],
  ["example.com:", "example.com"],
  ["a_b.example", "a_b.example"],
  ["127.0.0.1:1", "127.0.0.1:1"],
  ["[::1]", "[::1]"],
  ["[2001:DB8::1]:8080", "[2001:db8::1]:8080"],
  ["[::ffff:1.2.3.4]", "[::ffff:102:304]"],
  ["xn--bcher-kva.example", "xn--bcher-kva.example"],
  ["ex%61mple.com", "example.com"],
];

const BAD_HOSTS = [
  "",
  "x/admin?",
  "x#",
  "x\\admin?",
  "u:p@x",
  "u@x",
  "@x",
  "x?y",
  "x/",
  "/",
  "//x",
  "http://x",
  "x, y",
  "x y",
  "x:y",
  "x:80:80",
  "x:-1",
  "x:65536",
  ":80",
  "::1",
  "[::1",
  "[::1]x",
  "[]",
  "[:::]",
  "[g::1]",
  "[fe80::1%25eth0]",
  "[127.0.0.1]",
  "x%2fadmin",
  "x%",
  "x%zz",
  "x<y",
  "x\u00fc",
  "x\ty",
];

describe("C1 the Host header is a host and an optional port", () => {
  const urls: string[] = [];
  const onRequest = ({ url }: Request) => void urls.push(url);

  it("C1 serve() takes each Host that is one, and answers 400 to all others", async () => {
    await withServer({ onRequest }, async (server) => {
      for (const [value, host] of HOSTS) {
        const request = upgradeRequest({ Host: value }, "GET /pub HTTP/1.1");
        assert.equal(await statusOf(portOf(server), request), "101", value);
        assert.equal(urls.pop(), `http://${host}/pub`, value);
      }
      for (const value of BAD_HOSTS) {
        const request = upgradeRequest({ Host: value }, "GET /pub HTTP/1.1");
        assert.equal(await statusOf(portOf(server), request), "400", value);
        assert.equal(urls.pop(), undefined, value);
      }
    });
  });

  it("C1 Endpoint takes each Host that is one, and refuses all others", () => {
    for (const [value] of HOSTS) {
      assert.deepEqual(verdict(upgradeRequest({ Host: value })), [], value);
    }
    for (const value of BAD_HOSTS) {
      assert.deepEqual(verdict(upgradeRequest({ Host: value })), ["host", 400], value);
    }
  });

  it("C1 no Host reaches into the path, whatever it is", () => {
    const character = fc.constantFrom(..."x.1:8[]/\\?#@%2f,; \t\u00fc-_");
    const host = fc.oneof(fc.string({ unit: character, maxLength: 12 }), fc.webAuthority());
    fc.assert(fc.property(host, (value) => {
      const head = { method: "GET", target: "/pub?a", version: "1.1", headers: [["Host", value]] };
      try {
        const url = requestUrl(head as never, false);
        assert.equal(url.pathname + url.search, "/pub?a");
        assert.equal(url.username + url.password + url.hash, "");
        assert.ok(value.endsWith(url.port), url.href);
      } catch (error) {
        if ((error as { code?: string }).code !== "host") throw error;
      }
    }));
  });

  it("C1 attach() answers 400 to a Host that would change the path", async () => {
    for (const path of [undefined, "/pub", "/admin"]) {
      await withAttached({ path, onRequest }, async (server) => {
        for (const value of ["x/admin?", "x#", "x\\admin?", "u:p@x", "x?y"]) {
          const request = upgradeRequest({ Host: value }, "GET /pub HTTP/1.1");
          // A path that the server leaves to other listeners.
          if (path !== "/admin") {
            assert.equal(await statusOf(portOfHttp(server), request), "400", value);
          }
        }
      });
    }
    assert.deepEqual(urls, []);
  });

  it("C1 checkHttp2Request checks :authority and Host in the same way", () => {
    const target = { scheme: "https", authority: "a", path: "/" } as const;
    const change = (name: string, value: string) =>
      http2Request(target).map(([key, old]): [string, string] => [key, key === name ? value : old]);
    for (const [value] of HOSTS) checkHttp2Request(change(":authority", value));
    for (const value of BAD_HOSTS) {
      for (const fields of [change(":authority", value), withHost(change("", ""), value)]) {
        assert.throws(() => checkHttp2Request(fields), { code: "host", status: 400 }, value);
      }
    }
    const both = [...http2Request(target), ["host", "b"]] as RawHeaders;
    assert.throws(() => checkHttp2Request(both), { code: "host", status: 400 });
    checkHttp2Request([...http2Request(target), ["host", "a:443"]]);
  });

  function withHost(fields: [string, string][], host: string): [string, string][] {
    return [...fields.filter(([name]) => name !== ":authority"), ["host", host]];
  }

  it("C1 attachHttp2() answers 400", { skip: noServer }, async () => {
    await withHttp2({}, async ({ session }) => {
      const answers: [value: string, status: number | undefined][] = [];
      for (const value of ["x/admin?", "x#", "u:p@x", "x?y", "x:y", "x%2fadmin"]) {
        const answer = answerTo(session, { ...CONNECT, ":authority": value });
        // The platform resets the stream for some of these values.
        answers.push([value, await answer.then(({ status }) => status, () => undefined)]);
      }
      assert.ok(answers.every(([, status = 400]) => status === 400), `${answers}`);
      assert.ok(answers.some(([, status]) => status === 400), `${answers}`);
    });
  });

  it("C1 a client refuses to send an invalid Host", async () => {
    for (const url of ["ws://a{b}/", "ws://a`b/", 'ws://a"b/']) {
      assert.equal((await rejection(connect(url))).name, "SyntaxError", url);
    }
    for (const host of BAD_HOSTS.filter((host) => !["x:65536", "[:::]"].includes(host))) {
      // The URL parser decides which addresses and ports are valid.
      if (/^\[[\da-f.:]+\]$/.test(host)) continue;
      if (host === "x%2fadmin") continue;
      const request = { type: "request", host, target: "/" } as const;
      assert.throws(() => new Endpoint("client").send(request), TypeError, host);
      const asked = { scheme: "http", authority: host, path: "/" } as const;
      assert.throws(() => http2Request(asked), TypeError, host);
    }
  });
});

/** Targets and their URLs on the host x; undefined for an invalid target. */
const TARGETS: [target: string, url: string | undefined][] = [
  ["/", "http://x/"],
  ["/pub?a=/b?c", "http://x/pub?a=/b?c"],
  ["//y/pub", "http://x//y/pub"],
  ["/http://y/", "http://x/http://y/"],
  ["/a|b^{}[]?q=a|b\\{}", "http://x/a|b^{}[]?q=a|b\\{}"],
  ["http://y/pub?a", "http://y/pub?a"],
  ["HTTP://Y:80/pub", "http://y/pub"],
  ["http://y", "http://y/"],
  ["http://y?a", "http://y/?a"],
  ["ws://y/pub", "http://y/pub"],
  ["wss://y:8443/pub", "https://y:8443/pub"],
  ["https://[::1]/pub", "https://[::1]/pub"],
  ["pub", undefined],
  ["?pub", undefined],
  ["#pub", undefined],
  ["/pub#a", undefined],
  ["/pub?a#b", undefined],
  ["*", undefined],
  [".", undefined],
  ["x.example:80", undefined],
  ["x.example/pub", undefined],
  ["ftp://x/pub", undefined],
  ["javascript:alert(1)", undefined],
  ["file:///pub", undefined],
  ["http:/pub", undefined],
  ["http:pub", undefined],
  ["http:///pub", undefined],
  ["http://", undefined],
  ["http://u:p@y/pub", undefined],
  ["http://y\\pub", undefined],
  ["http://[/pub", undefined],
  ["http://y:65536/pub", undefined],
  ["\\pub", undefined],
  ["/pub\\..\\admin", undefined],
];

/** Whether two URLs are equal. Some URLs have two spellings. */
function sameUrl(url: string, expected: string): boolean {
  return new URL(url).href === new URL(expected).href;
}

describe("C2 a target is a path or the URL of a WebSocket", () => {
  it("C2 serve() answers 400 to all others", async () => {
    const urls: string[] = [];
    const onRequest = ({ url }: Request) => void urls.push(url);
    await withServer({ onRequest }, async (server) => {
      for (const [target, url] of TARGETS) {
        const request = upgradeRequest({ Host: "x" }, `GET ${target} HTTP/1.1`);
        const expected = url === undefined ? "400" : "101";
        assert.equal(await statusOf(portOf(server), request), expected, target);
        const asked = urls.pop();
        if (url === undefined) assert.equal(asked, undefined, target);
        else assert.ok(sameUrl(asked!, url), `${target}: ${asked}`);
      }
    });
  });

  it("C2 Endpoint refuses all others", () => {
    for (const [target, url] of TARGETS) {
      const expected = url === undefined ? ["malformed-head", 400] : [];
      const request = upgradeRequest({}, `GET ${target} HTTP/1.1`);
      assert.deepEqual(verdict(request), expected, target);
    }
  });

  it("C2 attach() compares the pathname of the URL", async () => {
    const paths: [target: string, path: string][] = [
      ["/pub/../admin?/pub", "/admin"],
      ["http://y/admin", "/admin"],
      ["//pub/admin", "//pub/admin"],
      ["http://y", "/"],
    ];
    for (const [target, path] of paths) {
      await withAttached({ path }, async (server) => {
        const request = upgradeRequest({ Host: "x" }, `GET ${target} HTTP/1.1`);
        assert.equal(await statusOf(portOfHttp(server), request), "101", target);
      });
    }
  });

  it("C2 over HTTP/2 a target is a path", () => {
    const fields = http2Request({ scheme: "http", authority: "x", path: "/" });
    for (const [target, url] of TARGETS) {
      const asked = fields.map(([name, value]): [string, string] => [
        name,
        name === ":path" ? target : value,
      ]);
      if (url !== undefined && target.startsWith("/")) checkHttp2Request(asked);
      else {
        assert.throws(() => checkHttp2Request(asked), { code: "malformed-head", status: 400 });
      }
    }
  });

  it("C2 a client writes no other target", () => {
    for (const [target, url] of TARGETS) {
      // The client has chosen the URL itself. Only a server checks ports and addresses.
      if (url !== undefined || target === "http://y:65536/pub") continue;
      const request = { type: "request", host: "x", target } as const;
      assert.throws(() => new Endpoint("client").send(request), TypeError, target);
      const asked = { scheme: "http", authority: "x", path: target } as const;
      assert.throws(() => http2Request(asked), TypeError, target);
    }
  });

  it("C2 OPTIONS may ask for the server as a whole", async () => {
    await withServer({}, async (server) => {
      const request = upgradeRequest({ Host: "x" }, "OPTIONS * HTTP/1.1");
      assert.equal(await statusOf(portOf(server), request), "405");
    });
  });
});

/** The status of the answer to a request with this Origin. */
async function originStatus(
  origins: ServeOptions["origins"],
  origin: string,
  host = "x",
): Promise<string> {
  let status = "";
  await withServer({ origins }, async (server) => {
    status = await statusOf(portOf(server), upgradeRequest({ Host: host, Origin: origin }));
  });
  return status;
}

it("C3 a pattern matches the whole of an Origin", async () => {
  const cases: [pattern: RegExp, origin: string, status: string][] = [
    [/https:\/\/[a-z]+\.example\.com/, "https://a.example.com", "101"],
    [/https:\/\/[a-z]+\.example\.com/, "https://a.example.com.evil", "403"],
    [/https:\/\/[a-z]+\.example\.com/, "https://evil/https://a.example.com", "403"],
    [/https:\/\/[a-z]+\.example\.com/, "https://a.example.com:8443", "403"],
    [/https:\/\/[a-z]+\.example\.com/y, "https://a.example.com.evil", "403"],
    [/^https:\/\/[a-z]+\.example\.com$/gi, "https://A.example.com", "101"],
    [/https:\/\/a|https:\/\/ab/, "https://ab", "101"],
    [/https:\/\/a|https:\/\/ab/, "https://abc", "403"],
    [/https:\/\/a|b/, "https://evil.b", "403"],
    [/https:\/\/(a)\1/u, "https://aa", "101"],
    [/https:\/\/(a)\1/u, "https://aab", "403"],
    [/example/, "https://example", "403"],
  ];
  for (const [pattern, origin, status] of cases) {
    assert.equal(await originStatus([pattern], origin), status, `${pattern} ${origin}`);
  }
});

it("C4 same-origin takes a default port for no difference", async () => {
  const cases: [host: string, origin: string, status: string][] = [
    ["name:443", "https://name", "101"],
    ["name", "https://name", "101"],
    ["name", "https://name:443", "101"],
    ["name:443", "https://NAME:443", "101"],
    ["name:80", "http://name", "101"],
    ["name", "http://name:80", "101"],
    ["name:8443", "https://name:8443", "101"],
    ["[::1]:443", "https://[::1]", "101"],
    ["name:443", "http://name", "403"],
    ["name:8443", "https://name", "403"],
    ["name", "https://name:8443", "403"],
    ["name:443", "https://evil", "403"],
    ["name:443", "https://name.evil", "403"],
    ["name", "ftp://name", "403"],
    ["name", "chrome-extension://name", "403"],
    ["name:443", "null", "403"],
  ];
  for (const [host, origin, status] of cases) {
    assert.equal(await originStatus("same-origin", origin, host), status, `${host} ${origin}`);
  }
});

/** The number of bytes that are accepted before the line becomes invalid. */
function takenOf(parse: typeof parseRequestHead | typeof parseResponseHead, line: string): number {
  const reader = new HeadReader<unknown>(parse);
  let taken = 0;
  try {
    for (const byte of single(latin1(line))) {
      reader.push(byte);
      taken++;
    }
  } catch (error) {
    assert.equal((error as { code: string }).code, "malformed-head", line);
    // The line is refused in one piece too.
    assert.throws(() => new HeadReader<unknown>(parse).push(latin1(line)), {
      name: "HandshakeError",
    });
  }
  return taken;
}

describe("C7 a first line that cannot be HTTP fails at its first impossible byte", () => {
  const requests: [line: string, taken: number][] = [
    ["HELO x\r\n", 6],
    ["SSH-2.0-OpenSSH_9.2\r\n", 19],
    ["EHLO mail.example.com\r", 21],
    ["* OK IMAP4 ready", 5],
    ["*1\r\n$4\r\nPING\r\n", 2],
    ['{"json": 1}', 0],
    ["\x16\x03\x01", 0],
    ["GET /a HTTP/1.1x", 15],
    ["GET /a HTTP/x", 12],
    ["GET /a HTTPS/1.1", 11],
    ["GET  /a", 4],
    [" GET", 0],
    ["GET /\xfc", 5],
    ["GET /\tHTTP/1.1", 5],
    ["GET / HTTP/1.1 ", 14],
    ["GET / HTTP/1.1\r\n", 16],
    [`GET /${"a".repeat(5000)} HTTQ`, 5009],
  ];
  it("C7 in a request", () => {
    for (const [line, taken] of requests) {
      assert.equal(takenOf(parseRequestHead, line), taken, line);
    }
  });

  const responses: [line: string, taken: number][] = [
    ["SSH-2.0-OpenSSH_9.2\r\n", 0],
    ["220 mail.example.com ESMTP\r\n", 0],
    ["-ERR unknown command\r\n", 0],
    ["HELLO", 1],
    ["HTTP/1.1 abc", 9],
    ["HTTP/1.1 099", 9],
    ["HTTP/1.1  200", 9],
    ["HTTP/1.1 2000", 12],
    ["HTTP/1.1 20 ", 11],
    ["HTTP/11", 6],
    ["HTTP/1.1 101 a b\r\n", 18],
    ["HTTP/1.1 404\r\n", 14],
  ];
  it("C7 in a response", () => {
    for (const [line, taken] of responses) {
      assert.equal(takenOf(parseResponseHead, line), taken, line);
    }
  });

  it("C7 serve() answers 400 to a banner, in one piece and byte by byte", async () => {
    await withServer({ openTimeout: 0 }, async (server) => {
      for (const [line, taken] of requests) {
        if (taken === line.length) continue;
        assert.equal(await statusOf(portOf(server), line), "400", line);
        if (line.length > 100) continue;
        assert.equal(await statusOf(portOf(server), ...line.slice(0, taken + 1)), "400", line);
      }
    });
  });
});

it("C9 two Cookie fields are one list", async () => {
  const asked: (string | null)[] = [];
  const onRequest = ({ headers }: Request) => void asked.push(headers.get("cookie"));
  const handler = ({ request }: WebSocketConnection) =>
    void asked.push(request.headers.get("Cookie"));
  await withServer({ onRequest }, async (server) => {
    const request = upgradeRequest({ Cookie: "a=1", "X-A": "1", COOKIE: "b=2; c=3", "x-a": "2" });
    await statusOf(portOf(server), request);
    await until(() => asked.length === 2);
  }, handler);
  assert.deepEqual(asked, ["a=1; b=2; c=3", "a=1; b=2; c=3"]);
});

it("C11 a key of 16 bytes may have unused bits", async () => {
  const keys: [key: string, status: string][] = [
    ["dGhlIHNhbXBsZSBub25jZQ==", "101"],
    ["dGhlIHNhbXBsZSBub25jZR==", "101"],
    ["/////////////////////w==", "101"],
    ["//////////////////////==", "101"],
    ["/////////////////////w=", "400"],
    ["/////////////////////w", "400"],
    ["////////////////////_w==", "400"],
    ["AAAAAAAAAAAAAAAAAAAA", "400"],
    ["AAAAAAAAAAAAAAAAAAAAAAAA", "400"],
    ["AAAAAAAAAAAAAAAAAAAAAAAA==", "400"],
  ];
  await withServer({}, async (server) => {
    for (const [key, status] of keys) {
      const request = upgradeRequest({ "Sec-WebSocket-Key": key });
      assert.equal(await statusOf(portOf(server), request), status, key);
      assert.deepEqual(verdict(request), status === "101" ? [] : ["key", 400], key);
    }
  });
});

describe("C14 header fields that cannot be sent are refused at once", () => {
  const fields: [name: string, value: string][] = [
    ["x", "\x7f"],
    ["x", "a\nb"],
    ["x", "\0"],
    ["x", "\u20ac"],
    ["x y", "a"],
    ["", "a"],
    ["Content-Length", "1"],
  ];

  it("C14 serve(), accept(), attach() and upgrade() reject with a TypeError", async () => {
    for (const field of fields) {
      const headers = [field];
      const serving: Promise<Server> = serve({ headers }, () => {});
      assert.ok(await rejection(serving) instanceof TypeError, `${field}`);
      const accepting = accept(transportPair()[0], { headers });
      assert.ok(await rejection(accepting) instanceof TypeError, `${field}`);
      await assert.rejects(withAttached({ headers }, () => {}), TypeError);
    }
    await withHttp(async (server) => {
      const errors: unknown[] = [];
      server.on("upgrade", (request, socket, head) => {
        upgrade(request, socket, head, { headers: { x: "\x7f" } }).catch((error) => {
          errors.push(error);
          socket.destroy();
        });
      });
      const raw = await RawSocket.connect(portOfHttp(server));
      raw.write(upgradeRequest());
      await until(() => errors.length === 1);
      assert.ok(errors[0] instanceof TypeError);
      raw.socket.destroy();
    });
  });

  it("C14 attachHttp2() throws a TypeError", { skip: noServer }, () => {
    // HTTP/2 does not have these fields.
    const more: [string, string][] = [["TE", "a"], ["Keep-Alive", "a"], ["proxy-connection", "a"]];
    for (const field of [...fields, ...more]) {
      const attaching = () => attachHttp2(http2Server(), { headers: [field] }, () => {});
      assert.throws(attaching, TypeError, `${field}`);
    }
  });
});
