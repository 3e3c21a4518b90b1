/**
 * Classes of failure that other implementations have had in the opening handshake, with one or more tests
 * for each. `threats_test.ts` tests the failures after the handshake.
 */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  basicAuth,
  connect,
  type ConnectOptions,
  HandshakeError,
  type ServeOptions,
  type Server,
  type WebSocketConnection,
} from "../mod.ts";
import {
  acceptExtensions,
  type ExtensionFactory,
  parseExtensions,
  parseProtocols,
  parseRequestHead,
  parseResponseHead,
  parseTokenList,
  parseUpgrade,
  serializeResponseHead,
} from "../lib/core/mod.ts";
import { utf8 } from "./bytes.ts";
import {
  portOf,
  RawSocket,
  rejection,
  requestOf,
  until,
  upgradeRequest,
  upgradeResponse,
  urlOf,
  withRawServer,
  withServer,
} from "./support.ts";

const MEGABYTE = 2 ** 20;

/** The server's answer to these bytes, until it ends the connection. */
async function answerTo(server: Server, request: string): Promise<string> {
  const raw = await RawSocket.connect(portOf(server));
  raw.write(request);
  await raw.close();
  return raw.text;
}

/** The status of the server's answer, or "cut". */
async function statusOf(server: Server, request: string): Promise<string> {
  return /^HTTP\/1\.1 (\d+) /.exec(await answerTo(server, request))?.[1] ?? "cut";
}

/** Checks that a correct client is served. */
async function goesOn(server: Server): Promise<void> {
  const ws = await connect(urlOf(server));
  await ws.send("a");
  assert.equal(await ws.receive(), "a");
  await ws.close();
}

/** Runs a test with a server, and checks that it still serves at the end and has reported no error. */
async function withSteadyServer(
  options: ServeOptions,
  run: (server: Server) => Promise<void>,
  handler?: (ws: WebSocketConnection) => unknown,
): Promise<void> {
  const errors: unknown[] = [];
  await withServer({ onError: (error) => errors.push(error), ...options }, async (server) => {
    await run(server);
    if (handler === undefined) await goesOn(server);
  }, handler);
  assert.deepEqual(errors, []);
}

// ws CVE-2021-32640, tungstenite CVE-2023-43669
describe("slow header parsing", () => {
  // A parser that takes quadratic time for a megabyte would not finish.
  const hostile = [
    " ".repeat(MEGABYTE),
    "\t".repeat(MEGABYTE) + "x",
    ",".repeat(MEGABYTE),
    "a,".repeat(MEGABYTE / 2),
    "a;".repeat(MEGABYTE / 2),
    "a; b=".repeat(MEGABYTE / 5),
    'a; b="' + "c".repeat(MEGABYTE),
    'a; b="' + '\\"'.repeat(MEGABYTE / 2),
    "a" + " ".repeat(MEGABYTE) + "b",
    "/".repeat(MEGABYTE),
  ];
  const parsers = {
    parseExtensions,
    parseProtocols,
    parseUpgrade,
    parseTokenList: (value: string) => parseTokenList("Connection", value),
  };
  for (const [name, parse] of Object.entries(parsers)) {
    it(`slow header parsing: ${name}() of a megabyte made to slow it down`, () => {
      for (const value of hostile) {
        try {
          parse(value);
        } catch (error) {
          assert.ok(error instanceof HandshakeError, `${error}`);
        }
      }
    });
  }

  it("slow header parsing: heads of a megabyte made to slow it down", () => {
    const limits = { maxLineLength: 4 * MEGABYTE, maxHeadSize: 8 * MEGABYTE };
    for (const value of hostile) {
      for (const [start, parse] of HEADS) {
        for (const text of [`${start}\r\nA: ${value}x\r\n\r\n`, `${start} ${value}\r\n\r\n`]) {
          try {
            parse(utf8(text), limits);
          } catch (error) {
            assert.ok(error instanceof HandshakeError, `${error}`);
          }
        }
      }
    }
  });
});

const HEADS = [
  ["GET / HTTP/1.1", parseRequestHead],
  ["HTTP/1.1 101 Switching", parseResponseHead],
] as const;

// ws CVE-2024-37890
describe("too many headers", () => {
  const fields = (count: number, value: string) =>
    Array.from({ length: count }, (_, i) => `X-${i}: ${value}\r\n`).join("");
  const bare = upgradeRequest().slice(0, -2);
  const requests: [title: string, request: string, status: string][] = [
    ["129 fields, of which 128 are allowed", bare + fields(124, "a") + "\r\n", "431"],
    ["a line of 8193 bytes", `${bare}X: ${"a".repeat(8190)}\r\n\r\n`, "431"],
    ["a head of more than 16 KiB", bare + fields(20, "a".repeat(1000)) + "\r\n", "431"],
    ["a line that does not end", bare + "a".repeat(100_000), "431"],
    ["a target that does not end", "GET /" + "a".repeat(100_000), "414"],
    ["fields that do not end", bare + fields(5000, ""), "431"],
  ];
  it("too many headers: a server answers 431 or 414, and serves on", async () => {
    await withSteadyServer({}, async (server) => {
      for (const [title, request, status] of requests) {
        assert.equal(await statusOf(server, request), status, title);
      }
      const most = await RawSocket.connect(portOf(server));
      most.write(bare + fields(123, "a") + "\r\n");
      await until(() => most.text.startsWith("HTTP/1.1 101 "));
      most.socket.destroy();
    });
  });

  it("too many headers: a client gives up a server whose head does not end", async () => {
    await withRawServer(async (raw) => {
      await requestOf(raw);
      raw.write("HTTP/1.1 101 Switching Protocols\r\n" + fields(5000, "a"));
    }, async (url) => {
      const error = await rejection<HandshakeError>(connect(url));
      assert.equal(error.code, "head-too-large");
    });
  });
});

// ws 3.3.1
describe("prototype names", () => {
  const NAMES = ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "valueOf"];

  it("prototype names: in extensions and their parameters they are names as any other", () => {
    const value = NAMES.map((name) => `${name}; ${name}; ${name}=1`).join(", ");
    assert.deepEqual(
      parseExtensions(value),
      NAMES.map((name) => ({ name, parameters: [[name, undefined], [name, "1"]] })),
    );
    const factory: ExtensionFactory = {
      name: "known",
      offer: () => [],
      accept: () => assert.fail("Nobody has offered it"),
      finalize: () => assert.fail("Nobody has offered it"),
    };
    const agreed = acceptExtensions(parseExtensions(value), [factory]);
    assert.deepEqual([...agreed.headers], []);
  });

  it("prototype names: a server passes them over in offers, protocols and fields", async () => {
    await withSteadyServer({ protocols: ["chat"] }, async (server) => {
      const raw = await RawSocket.connect(portOf(server));
      const own = Object.fromEntries(NAMES.map((name) => [`X-${name}`, name]));
      raw.write(
        upgradeRequest({
          ...own,
          "Sec-WebSocket-Protocol": NAMES.join(", "),
          "Sec-WebSocket-Extensions": NAMES.map((name) => `${name}; ${name}=${name}`).join(", "),
        }).replace("\r\n\r\n", "\r\n__proto__: polluted\r\nconstructor: polluted\r\n\r\n"),
      );
      await until(() => raw.text.includes("\r\n\r\n"));
      assert.match(raw.text, /^HTTP\/1\.1 101 /);
      assert.doesNotMatch(raw.text, /Sec-WebSocket-(Protocol|Extensions)/i);
      raw.socket.destroy();
    });
    assert.equal(({} as Record<string, unknown>).polluted, undefined);
    assert.equal(Object.keys(Object.prototype).length, 0);
  });
});

// undici CVE-2026-1527
describe("CRLF injection", () => {
  const EVIL = "a\r\nX-Evil: 1";

  it("CRLF injection: a client refuses it in each place", async () => {
    const options: [title: string, options: ConnectOptions][] = [
      ["the name of a header", { headers: [[EVIL, "b"]] }],
      ["the value of a header", { headers: [["a", EVIL]] }],
      ["the value of a header, LF", { headers: [["a", "b\nX-Evil: 1"]] }],
      ["the value of a header, CR", { headers: [["a", "b\rX-Evil: 1"]] }],
      ["the value of a header, NUL", { headers: [["a", "b\0"]] }],
      ["origin", { origin: EVIL }],
      ["a protocol", { protocols: [EVIL] }],
    ];
    let connections = 0;
    await withRawServer(() => connections++, async (url) => {
      for (const [title, option] of options) {
        const error = await rejection(connect(url, option));
        assert.ok(error instanceof TypeError || error.name === "SyntaxError", `${title}: ${error}`);
      }
    });
    assert.equal(connections, 0, "None of them should have been dialled");
  });

  it("CRLF injection: the parts of a URL are encoded", async () => {
    const urls = [
      "a\r\nX-Evil: 1",
      "a%0d%0aX-Evil:%201",
      "?a\r\nX-Evil: 1",
      "?a=\u560a\u560dX-Evil:1",
    ];
    for (const part of urls) {
      let request = "";
      await withRawServer(async (raw) => {
        request = await requestOf(raw);
        raw.write(upgradeResponse(request));
      }, async (url) => {
        const target = `${url}${part}`.replace("//", "//u\r\nX-Evil:1:p%0d%0aX-Evil%3a%201@");
        const ws = await connect(target);
        ws.terminate();
      });
      assert.doesNotMatch(request, /^X-Evil/im, part);
      assert.equal(request.match(/^Host:/gm)?.length, 1);
    }
  });

  it("CRLF injection: a server answers 500 if a hook returns it, and sends none of it", async () => {
    const hooks: [title: string, options: ServeOptions][] = [
      ["onResponse", { onResponse: (headers) => headers.append("a", EVIL) }],
      ["selectProtocol", { selectProtocol: () => EVIL }],
    ];
    for (const [title, options] of hooks) {
      const errors: unknown[] = [];
      await withServer({ ...options, onError: (error) => errors.push(error) }, async (server) => {
        const answer = await answerTo(server, upgradeRequest({ "Sec-WebSocket-Protocol": "a" }));
        assert.match(answer, /^HTTP\/1\.1 500 /, title);
        assert.doesNotMatch(answer, /X-Evil/, title);
      });
      assert.match(`${errors[0]}`, /^(TypeError|LocalProtocolError): /, title);
    }
    assert.throws(
      () => serializeResponseHead({ version: "1.1", status: 200, statusText: EVIL, headers: [] }),
      TypeError,
    );
  });

  it("CRLF injection: what a client sends does not come back as a header", async () => {
    await withSteadyServer({}, async (server) => {
      const target = "GET /?a=%0d%0aX-Evil:1 HTTP/1.1";
      const answer = await answerTo(server, upgradeRequest({ Upgrade: "%0d%0aX-Evil" }, target));
      assert.match(answer, /^HTTP\/1\.1 426 /);
      assert.doesNotMatch(answer, /^X-Evil/im);
    });
  });
});

// websockets CVE-2021-33880
describe("timing of Basic authentication", () => {
  it("timing of Basic authentication: as many digests of all, whatever is wrong", async () => {
    const subtle = crypto.subtle as { digest: SubtleCrypto["digest"] };
    const original = subtle.digest;
    let digests = 0;
    subtle.digest = (algorithm, data) => {
      digests++;
      return original.call(crypto.subtle, algorithm, data);
    };
    try {
      const credentials = [
        { username: "ada", password: "lovelace" },
        { username: "bob", password: "a" },
      ];
      const auth = basicAuth({ credentials });
      const counts: number[] = [];
      for (const given of ["ada:lovelace", "bob:a", "ada:x", "eve:lovelace", "eve:", "bob:lov"]) {
        digests = 0;
        const headers = { authorization: `Basic ${btoa(given)}` };
        const answer = await auth(new Request("http://localhost/", { headers }));
        assert.equal(answer === undefined, given === "ada:lovelace" || given === "bob:a", given);
        counts.push(digests);
      }
      assert.deepEqual(counts, Array(6).fill(8));
    } finally {
      delete (subtle as Partial<typeof subtle>).digest;
    }
    assert.equal(subtle.digest, original);
  });
});

describe("request smuggling", () => {
  const smuggled = "GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const request = upgradeRequest();
  const withField = (field: string) => request.replace("\r\n\r\n", `\r\n${field}\r\n\r\n`);
  const requests: [title: string, request: string, status: string][] = [
    ["a second Host", withField("Host: other"), "400"],
    ["the same Host twice", withField("host: localhost"), "400"],
    ["no Host", upgradeRequest({ Host: null }), "400"],
    ["Content-Length", withField("Content-Length: 5"), "400"],
    ["Content-Length of 0 and of 5", withField("Content-Length: 0\r\nContent-Length: 5"), "400"],
    ["Content-Length +0", withField("Content-Length: +0"), "400"],
    ["Content-Length 0, 5", withField("Content-Length: 0, 5"), "400"],
    ["Transfer-Encoding: chunked", withField("Transfer-Encoding: chunked"), "400"],
    ["Transfer-Encoding: identity", withField("transfer-encoding: identity"), "400"],
    ["Transfer-Encoding that is empty", withField("Transfer-Encoding:"), "400"],
    ["Transfer-Encoding with a tab", withField("Transfer-Encoding:\tchunked"), "400"],
    ["a blank before the colon", withField("Transfer-Encoding : chunked"), "400"],
    ["a folded line", withField("X: a\r\n Transfer-Encoding: chunked"), "400"],
    ["a line that begins with a blank", withField(" X: a"), "400"],
    ["LF alone", request.replaceAll("\r\n", "\n"), "400"],
    ["LF alone within", withField("X: a\nTransfer-Encoding: chunked"), "400"],
    ["CR alone within", withField("X: a\rTransfer-Encoding: chunked"), "400"],
    ["NUL", withField("X: a\0b"), "400"],
    ["an empty line in front", `\r\n${request}`, "400"],
    ["a blank in the target", upgradeRequest({}, "GET / a HTTP/1.1"), "400"],
    ["two blanks in the request line", upgradeRequest({}, "GET  / HTTP/1.1"), "400"],
    ["HTTP/1.0", upgradeRequest({}, "GET / HTTP/1.0"), "400"],
    ["HTTP/0.9", `GET /\r\n\r\n`, "400"],
    ["two versions", withField("Sec-WebSocket-Version: 8"), "400"],
    ["two keys", withField("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), "400"],
  ];
  it("request smuggling: the request is refused, and nothing after it is read as a request", async () => {
    const asked: string[] = [];
    const onRequest = ({ url }: Request) => void asked.push(new URL(url).pathname);
    await withSteadyServer({ onRequest }, async (server) => {
      for (const [title, request, status] of requests) {
        const answer = await answerTo(server, request + smuggled);
        assert.equal(/^HTTP\/1\.1 (\d+) /.exec(answer)?.[1], status, title);
        assert.equal(answer.match(/HTTP\/1\.1 /g)?.length, 1, `${title}: ${answer}`);
        assert.match(answer, /^connection: (Upgrade, )?close\r$/im, title);
      }
    });
    assert.ok(!asked.includes("/second"), "The request behind another one was taken for one");
  });

  it("request smuggling: what follows a good request is frames, not a request", async () => {
    await withSteadyServer({}, async (server) => {
      const answer = await answerTo(server, request + smuggled);
      assert.equal(answer.match(/HTTP\/1\.1 /g)?.length, 1);
      assert.match(answer, /^HTTP\/1\.1 101 /);
    });
  });

  it("request smuggling: a client refuses an ambiguous response", async () => {
    const responses: [title: string, change: (response: string) => string, code: string][] = [
      ["two accepts", (it) => it.replace(/(Sec-.*\r\n)/, "$1$1"), "malformed-header"],
      ["LF alone", (it) => it.replaceAll("\r\n", "\n"), "malformed-head"],
      ["a folded line", (it) => it.replace("\r\n\r\n", "\r\n a\r\n\r\n"), "malformed-head"],
      ["HTTP/1.0", (it) => it.replace("HTTP/1.1", "HTTP/1.0"), "http-version"],
    ];
    for (const [title, change, code] of responses) {
      await withRawServer(async (raw) => {
        raw.write(change(upgradeResponse(await requestOf(raw))));
      }, async (url) => {
        assert.equal((await rejection<HandshakeError>(connect(url))).code, code, title);
      });
    }
  });
});

describe("cross-site hijacking", () => {
  const host = { Host: "example.com:8080" };
  const cases: [policy: ServeOptions["origins"], origin: string | null, status: string][] = [
    ["same-origin", "http://example.com:8080", "101"],
    ["same-origin", null, "101"],
    ["same-origin", "http://example.com", "403"],
    ["same-origin", "http://evil.example", "403"],
    ["same-origin", "http://example.com:8080.evil.example", "403"],
    ["same-origin", "http://evil.example/example.com:8080", "403"],
    ["same-origin", "http://example.com:8080@evil.example", "403"],
    ["same-origin", "null", "403"],
    ["same-origin", "", "403"],
    [["https://app.example"], "https://app.example", "101"],
    [["https://app.example"], "https://app.example.evil", "403"],
    [["https://app.example"], "http://app.example", "403"],
    [["https://app.example"], "https://APP.example.evil", "403"],
    [["https://app.example"], "null", "403"],
    [["https://app.example"], null, "403"],
    [[null], null, "101"],
    [[null], "null", "403"],
    [[/^https:\/\/[a-z]+\.app\.example$/g], "https://a.app.example", "101"],
    [[/^https:\/\/[a-z]+\.app\.example$/g], "https://a.app.example.evil", "403"],
    [[], "https://app.example", "403"],
  ];
  it("cross-site hijacking: pages of other origins get 403", async () => {
    for (const [origins, origin, status] of cases) {
      await withServer({ origins }, async (server) => {
        // Twice, because a pattern with the flag g would remember where it stopped.
        for (let again = 0; again < 2; again++) {
          const raw = await RawSocket.connect(portOf(server));
          raw.write(upgradeRequest({ ...host, Origin: origin }));
          await until(() => raw.text.includes("\r\n\r\n"));
          assert.match(raw.text, new RegExp(`^HTTP/1.1 ${status} `), `${origins}, ${origin}`);
          raw.socket.destroy();
        }
      });
    }
  });

  it("cross-site hijacking: two Origins are refused", async () => {
    await withServer({ origins: "same-origin" }, async (server) => {
      const request = upgradeRequest({ Origin: "http://localhost", origin: "http://evil.example" });
      assert.equal(await statusOf(server, request), "400");
    });
  });
});

// hyper#3756
describe("slow handshake", () => {
  it("slow handshake: a client that sends a byte now and then is cut by openTimeout", async () => {
    await withSteadyServer({ openTimeout: 300, closeTimeout: 300 }, async (server) => {
      const raw = await RawSocket.connect(portOf(server));
      const timer = setInterval(() => raw.socket.writable && raw.write("a"), 20);
      raw.write("GET / HTTP/1.1\r\nX: ");
      await until(() => raw.ended || raw.closed);
      clearInterval(timer);
      assert.match(raw.text, /^HTTP\/1\.1 408 /);
      raw.socket.destroy();
    });
  });

  it("slow handshake: a hundred silent clients do not delay others", async () => {
    await withSteadyServer({ openTimeout: 1000, closeTimeout: 300 }, async (server) => {
      const port = portOf(server);
      const silent = await Promise.all(Array.from({ length: 100 }, () => RawSocket.connect(port)));
      await goesOn(server);
      await until(() => silent.every(({ ended, closed }) => ended || closed));
      for (const { socket } of silent) socket.destroy();
    });
  });

  it("slow handshake: a client cuts a server that answers a byte now and then", async () => {
    await withRawServer((raw) => {
      const timer = setInterval(() => raw.socket.writable && raw.write("H"), 20);
      raw.socket.on("close", () => clearInterval(timer));
      raw.write("HTTP/1.1 101 S\r\nX: ");
    }, async (url) => {
      const error = await rejection<HandshakeError>(connect(url, { openTimeout: 300 }));
      assert.equal(error.code, "timeout");
    });
  });
});
