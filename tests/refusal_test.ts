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
