/** The bodies of plain HTTP requests that are passed to onRequest. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { ServeOptions } from "../mod.ts";
import { portOf, RawSocket, withServer } from "./support.ts";

/** A POST request with these fields and this body. */
function post(fields: Record<string, string>, body = "", method = "POST"): string {
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} /form HTTP/1.1\r\nHost: localhost\r\n${lines.join("")}\r\n${body}`;
}

/** The answers of a server that echoes bodies, to parts that are sent one after the other. */
async function answersTo(parts: string[], options: ServeOptions = {}): Promise<[string, number]> {
  let asked = 0;
  let answer = "";
  const onRequest = async (request: Request) => {
    asked++;
    return new Response(`${request.method} <${await request.text()}>`);
  };
  await withServer({ maxRequestBody: 100, onRequest, ...options }, async (server) => {
    const raw = await RawSocket.connect(portOf(server));
    for (const part of parts) {
      raw.write(part);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await raw.close();
    answer = raw.text;
  });
  return [answer, asked];
}

describe("A plain request with a body", () => {
  const hundred = "x".repeat(100);
  const given: [name: string, parts: string[], body: string][] = [
    ["a Content-Length", [post({ "Content-Length": "5" }, "hello")], "hello"],
    ["a body in parts", [post({ "Content-Length": "5" }), "he", "llo"], "hello"],
    [
      "chunks",
      [post({ "Transfer-Encoding": "chunked" }, "2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\n\r\n")],
      "hello",
    ],
    [
      "chunks in parts, with trailers",
      [
        post({ "Transfer-Encoding": "Chunked" }),
        "2\r",
        "\nhe\r\n3\r\nl",
        "lo\r\n0\r\nA: b\r\n\r\n",
      ],
      "hello",
    ],
    ["a body of exactly the limit", [post({ "Content-Length": "100" }, hundred)], hundred],
    ["chunks of no bytes", [post({ "Transfer-Encoding": "chunked" }, "0\r\n\r\n")], ""],
    [
      "a second request behind it, which is dropped",
      [post({ "Content-Length": "5" }, `hello${post({ "Content-Length": "4" }, "evil")}`)],
      "hello",
    ],
    [
      "more bytes than it says, which are dropped",
      [post({ "Content-Length": "5" }, "hello, world")],
      "hello",
    ],
  ];
  for (const [name, parts, body] of given) {
    it(`onRequest gets ${name}`, async () => {
      const [answer, asked] = await answersTo(parts);
      assert.match(answer, /^HTTP\/1\.1 200 /);
      assert.ok(answer.includes(`POST <${body}>`), answer);
      assert.equal(asked, 1);
    });
  }

  it("onRequest gets the body with the Content-Type of the request", async () => {
    let form: unknown;
    const onRequest = async (request: Request) => {
      form = Object.fromEntries(await request.formData());
      return new Response("ok");
    };
    const type = "application/x-www-form-urlencoded";
    const request = post({ "Content-Type": type, "Content-Length": "13" }, "name=ada&a=%3");
    await answersTo([request], { onRequest });
    assert.deepEqual(form, { name: "ada", a: "%3" });
  });

  it("A client that expects 100 gets it, then the answer", async () => {
    const head = post({ "Content-Length": "5", Expect: "100-continue" });
    const [answer] = await answersTo([head, "hello"]);
    assert.match(answer, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 [^]*POST <hello>/);
    const [tooLong, asked] = await answersTo([
      post({ "Content-Length": "101", Expect: "100-continue" }),
    ]);
    assert.match(tooLong, /^HTTP\/1\.1 413 /);
    assert.equal(asked, 0);
  });

  const chunked = { "Transfer-Encoding": "chunked" };
  const refused: [status: number, name: string, request: string, options?: ServeOptions][] = [
    [413, "a Content-Length beyond the limit", post({ "Content-Length": "101" })],
    [413, "a Content-Length beyond all numbers", post({ "Content-Length": "9".repeat(400) })],
    [413, "chunks beyond the limit", post(chunked, `65\r\n${"x".repeat(101)}`)],
    [413, "many chunks beyond the limit", post(chunked, "1\r\nx\r\n".repeat(101))],
    [413, "a GET with a body", post({ "Content-Length": "5" }, "hello", "GET")],
    [413, "a body, by default", post({ "Content-Length": "5" }, "hello"), { maxRequestBody: 0 }],
    [501, "another transfer coding", post({ "Transfer-Encoding": "gzip" }, "hello")],
    [501, "two transfer codings", post({ "Transfer-Encoding": "gzip, chunked" }, "0\r\n\r\n")],
    [501, "chunks in chunks", post({ "Transfer-Encoding": "chunked, chunked" }, "0\r\n\r\n")],
    [400, "a length and chunks", post({ ...chunked, "Content-Length": "5" }, "0\r\n\r\n")],
    [400, "a length that is no number", post({ "Content-Length": "+5" }, "hello")],
    [400, "a negative length", post({ "Content-Length": "-5" }, "hello")],
    [400, "two lengths in one field", post({ "Content-Length": "5, 5" }, "hello")],
    [400, "two lengths", post({ "Content-Length": "5", "content-length": "6" }, "hello")],
    [400, "a chunk whose size is no number", post(chunked, "x\r\nhello\r\n0\r\n\r\n")],
    [400, "a chunk with a negative size", post(chunked, "-5\r\nhello\r\n0\r\n\r\n")],
    [400, "a chunk that is longer than it says", post(chunked, "3\r\nhello\r\n0\r\n\r\n")],
    [400, "a chunk line without end", post(chunked, `5;${"x".repeat(2000)}`)],
    [400, "chunks over HTTP/1.0", post(chunked, "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0")],
    [408, "a body that does not come", post({ "Content-Length": "5" }, "he"), { openTimeout: 100 }],
    [408, "a chunk that does not come", post(chunked, "5\r\nhe"), { openTimeout: 100 }],
  ];
  for (const [status, name, request, options] of refused) {
    it(`${status} answers ${name}, and no hook is asked`, async () => {
      const errors: string[] = [];
      const onRefused = ({ status }: { status?: number }) => void errors.push(`${status}`);
      const [answer, asked] = await answersTo([request], { ...options, onRefused });
      assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `));
      assert.equal(asked, 0);
      assert.deepEqual(errors, [`${status}`]);
    });
  }

  const lengths: [says: RegExp, fields: Record<string, string>, version?: string][] = [
    [/The Content-Length is not a number of bytes: "-1"/, { "Content-Length": "-1" }],
    [/both Content-Length and Transfer-Encoding/, { ...chunked, "Content-Length": "5" }],
    [/HTTP\/1\.0 must not have Transfer-Encoding/, chunked, "HTTP/1.0"],
  ];
  for (const [says, fields, version = "HTTP/1.1"] of lengths) {
    it(`400 names the header field: ${says.source}`, async () => {
      const request = post(fields, "0\r\n\r\n").replace("HTTP/1.1", version);
      const [answer] = await answersTo([request], {});
      assert.match(answer, says);
    });
  }

  it("A hook that does not answer leaves 405", async () => {
    const [answer] = await answersTo([post({ "Content-Length": "5" }, "hello")], {
      onRequest: () => {},
    });
    assert.match(answer, /^HTTP\/1\.1 405 /);
  });

  it("A client that leaves within its body is forgotten", async () => {
    await withServer(
      { maxRequestBody: 100, onRequest: () => assert.fail("asked") },
      async (server) => {
        const raw = await RawSocket.connect(portOf(server));
        raw.write(post({ "Content-Length": "5" }, "he"));
        await new Promise((resolve) => setTimeout(resolve, 20));
        raw.socket.end();
        await raw.close();
        assert.match(raw.text, /^HTTP\/1\.1 400 /);
        await server.shutdown();
        assert.equal(server.stats.opened, 0);
      },
    );
  });

  it("Without onRequest, a body is not read", async () => {
    await withServer({ maxRequestBody: 100 }, async (server) => {
      const raw = await RawSocket.connect(portOf(server));
      raw.write(post({ "Content-Length": "5" }));
      await raw.close();
      assert.match(raw.text, /^HTTP\/1\.1 413 /);
    });
  });
});
