import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { connect, type HandshakeError, type ServeOptions } from "../mod.ts";
import { collect, portOf, RawSocket, rejection, until, urlOf, withServer } from "./support.ts";

/** A body of some pieces, with a delay before each. */
function slowBody(pieces: number, end: (controller: ReadableStreamDefaultController) => void) {
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      await new Promise((resolve) => setTimeout(resolve, 30));
      if (pieces-- > 0) controller.enqueue(new TextEncoder().encode("piece "));
      else end(controller);
    },
  });
}

/** The server's answer to the bytes of a request, until the connection ends. */
async function answerTo(onRequest: ServeOptions["onRequest"], request: string): Promise<string> {
  let answer = "";
  await withServer({ onRequest }, async (server) => {
    const client = await RawSocket.connect(portOf(server));
    client.write(request);
    await until(() => client.ended);
    answer = new TextDecoder().decode(client.received);
    await client.close();
  });
  return answer.toLowerCase();
}

describe("A response of onRequest", () => {
  it("takes longer than closeTimeout and is whole", async () => {
    const onRequest = () => new Response(slowBody(4, (controller) => controller.close()));
    await withServer({ onRequest, closeTimeout: 20 }, async (server) => {
      const response = await fetch(urlOf(server).replace("ws:", "http:"));
      assert.equal(await response.text(), "piece ".repeat(4));
    });
  });

  it("has a Date, unless the hook sets another", async () => {
    const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const before = Math.floor(Date.now() / 1000) * 1000;
    // The server's own refusal has a Date, too.
    for (const onRequest of [() => new Response("a"), undefined]) {
      const answer = await answerTo(onRequest, request);
      const [, date] = /\r\ndate: (\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d gmt)\r\n/.exec(answer)!;
      assert.ok(Date.parse(date) >= before && Date.parse(date) <= Date.now());
    }
    const headers = { Date: "Thu, 01 Jan 1970 00:00:00 GMT" };
    const answer = await answerTo(() => new Response("a", { headers }), request);
    assert.deepEqual(answer.match(/date: .*/g), ["date: thu, 01 jan 1970 00:00:00 gmt"]);
  });

  it("whose body fails is not taken for whole", async () => {
    const fail = (controller: ReadableStreamDefaultController) => controller.error(new Error("x"));
    await withServer({ onRequest: () => new Response(slowBody(1, fail)) }, async (server) => {
      const { code, response } = await rejection<HandshakeError>(connect(urlOf(server)));
      assert.equal(code, "status");
      await assert.rejects(collect(response!.body));
    });
  });

  it("does not keep a server that shuts down", async () => {
    const onRequest = () => new Response(slowBody(Infinity, () => {}));
    await withServer({ onRequest, closeTimeout: 50 }, async (server) => {
      const client = await RawSocket.connect(portOf(server));
      client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
      await until(() => client.received.length > 0);
      await server.shutdown();
      await client.close();
    });
  });

  const forms: [name: string, request: string, make: () => Response, expected: RegExp][] = [
    [
      "chunked to HTTP/1.1",
      "GET / HTTP/1.1",
      () => new Response("hello"),
      /\r\ntransfer-encoding: chunked\r\n[^]*\r\n\r\n5\r\nhello\r\n0\r\n\r\n$/,
    ],
    ["as it is to HTTP/1.0", "GET / HTTP/1.0", () => new Response("hello"), /\r\n\r\nhello$/],
    ["as a head to HEAD", "HEAD / HTTP/1.1", () => new Response("hello"), /\r\n\r\n$/],
    [
      "with its Content-Length",
      "GET / HTTP/1.1",
      () => new Response("hello", { headers: { "Content-Length": "5" } }),
      /\r\ncontent-length: 5\r\n[^]*\r\n\r\nhello$/,
    ],
    [
      "without a body",
      "GET / HTTP/1.1",
      () => new Response(null),
      /\r\ncontent-length: 0\r\n[^]*\r\n\r\n$/,
    ],
  ];
  for (const [name, line, make, expected] of forms) {
    it(`is sent ${name}`, async () => {
      assert.match(await answerTo(make, `${line}\r\nHost: a\r\n\r\n`), expected);
    });
  }

  it("of status 204 has no Content-Length", async () => {
    const answer = await answerTo(
      () => new Response(null, { status: 204 }),
      "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert.doesNotMatch(answer, /content-length/);
  });
});
