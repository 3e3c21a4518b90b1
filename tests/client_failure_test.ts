import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect, type ConnectOptions, HandshakeError } from "../mod.ts";
import { transportPair } from "../lib/testing.ts";
import { concat, latin1 } from "./bytes.ts";
import { freePort } from "./ports.ts";
import {
  collect,
  failure,
  type RawSocket,
  rejection,
  requestOf,
  turn,
  until,
  upgradeResponse,
  withRawServer,
} from "./support.ts";

/** Answers each request with this text, and ends the connection. */
function answering(text: string, end = true): (raw: RawSocket) => Promise<void> {
  return async (raw) => {
    await requestOf(raw);
    raw.write(text);
    if (end) raw.socket.end();
  };
}

describe("How connect fails", () => {
  const html = "<h1>no</h1>";
  const cases: [
    name: string,
    code: string,
    onSocket: (raw: RawSocket) => unknown,
    options?: ConnectOptions,
  ][] = [
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

  it('connect() rejects with "connect-failed" if nobody listens', async () => {
    const url = `ws://127.0.0.1:${await freePort()}/`;
    const error = await rejection<HandshakeError>(connect(url));
    assert.ok(error instanceof HandshakeError);
    assert.equal(error.code, "connect-failed");
    assert.ok(error.cause instanceof Error);
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

  const stalled: [name: string, head: string, body: string][] = [
    ["until the end", "", "body"],
    ["by Content-Length", "Content-Length: 5\r\n", "body"],
    ["by chunks", "Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n"],
  ];
  for (const [name, head, text] of stalled) {
    it(`connect() says "status" of a refusal whose body ${name} stalls`, async () => {
      const [near, far] = transportPair();
      // Bytes that arrive before the clock starts are in time, however slow the machine is.
      far.write([latin1(`HTTP/1.1 403 a\r\n${head}\r\n${text}`)]);
      let gone = false;
      far.handle({ data() {}, drain() {}, end: () => gone = true, close() {} });
      const failed = rejection<HandshakeError>(
        connect("ws://a/", { transport: near, openTimeout: 100 }),
      );
      await until(() => gone);
      const { code, response } = await failed;
      assert.equal(code, "status");
      assert.equal(response?.status, 403);
      const body = response!.body.getReader();
      assert.equal(new TextDecoder().decode((await body.read()).value), "body");
      assert.equal((await rejection<HandshakeError>(body.read())).code, "timeout");
    });
  }

  it("connect() rejects with the signal's reason where that is aborted in such a body", async () => {
    const controller = new AbortController();
    await withRawServer(async (raw) => {
      await requestOf(raw);
      raw.write("HTTP/1.1 403 a\r\n\r\nbody");
      setTimeout(() => controller.abort("enough"), 20);
      await until(() => raw.ended || raw.closed);
    }, async (url) => {
      assert.equal(await rejection<unknown>(connect(url, { signal: controller.signal })), "enough");
    });
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
      assert.deepEqual([status, error.status], [403, 403]);
      assert.equal(statusText, "Forbidden");
      assert.deepEqual(headers.getSetCookie(), ["a=1", "b=2"]);
      assert.deepEqual(rawHeaders[1], ["Set-Cookie", "b=2"]);
      const bytes = concat(await collect(stream));
      assert.equal(new TextDecoder().decode(bytes), expected);
    });
  }

  const cut: [name: string, head: string, body: string][] = [
    ["less than its Content-Length", "Content-Length: 20\r\n", html],
    ["a chunk that is cut short", "Transfer-Encoding: chunked\r\n", "20\r\n<h1>"],
  ];
  for (const [name, head, body] of cut) {
    it(`connect() gives the status of a response whose body fails: ${name}`, async () => {
      const error = await failure(answering(`HTTP/1.1 403 No\r\n${head}\r\n${body}`, true));
      assert.equal(error.code, "status");
      assert.equal(error.response!.status, 403);
      await assert.rejects(collect(error.response!.body), { code: "connection-lost" });
    });
  }

  it("connect() refuses an endless line at the beginning of a chunk", async () => {
    const head = "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n";
    const error = await failure(answering(head + "a".repeat(2000), false));
    assert.equal(error.code, "status");
    await assert.rejects(collect(error.response!.body), { code: "malformed-body" });
  });
});
