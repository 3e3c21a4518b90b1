/** Error messages and answers contain no password, no token and no value of a query. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { connect, type HandshakeError } from "../mod.ts";
import { Endpoint } from "../lib/core/mod.ts";
import { checkField } from "../lib/core/header.ts";
import { serializeRequestHead } from "../lib/core/http1.ts";
import { toRequest } from "../lib/http.ts";
import { failureOf } from "./endpoints.ts";
import { it } from "./it.ts";
import {
  RawSocket,
  rejection,
  requestOf,
  upgradeRequest,
  upgradeResponse,
  withRawServer,
  withServer,
} from "./support.ts";

/** The texts of an error and of its causes, as a log would print them. */
function textsOf(error: unknown): string {
  const texts: string[] = [];
  for (let one = error as Error | undefined; one !== undefined; one = one.cause as Error) {
    texts.push(one.message, String(one.stack), JSON.stringify(Object.entries(one)));
    if (texts.length > 30) break;
  }
  return texts.join("\n");
}

function thrown(run: () => unknown): Error {
  try {
    run();
  } catch (error) {
    return error as Error;
  }
  throw new Error("Expected an error");
}

describe("Secrets", () => {
  for (
    const [location, shown] of [
      ["ftp://u:hush@x/a?token=hush", '"ftp://x/a"'],
      ["ftp://u:hush@x?token=a@hush", '"ftp://"'],
      ["http://u:hush@x:99999/?token=hush#hush", '"http://x:99999/"'],
      ["http://u:hu?hush@x", '"http://"'],
      ["//u:hush@[x?hush", '"[x"'],
    ]
  ) {
    it(`The error of a redirect to ${location} shows ${shown}`, async () => {
      const answer = async (raw: RawSocket) => {
        await requestOf(raw);
        raw.write(`HTTP/1.1 302 a\r\nContent-Length: 0\r\nLocation: ${location}\r\n\r\n`);
      };
      await withRawServer(answer, async (url) => {
        const target = `${url.replace("://", "://u:hush@")}?token=hush`;
        const error = await rejection<HandshakeError>(connect(target, { maxRedirects: 3 }));
        assert.equal(error.code, "redirect");
        assert.ok(error.message.includes(`redirects to ${shown}, which`), error.message);
        const texts = [textsOf(error.cause), error.message, String(error.stack)];
        assert.doesNotMatch(texts.join("\n"), /hush/);
      });
    });
  }

  for (
    const head of [
      "TRACE /?token=hush HTTP/1.1\r\nHost: x",
      "GET http://u:hush@x/?q=hush HTTP/1.1\r\nHost: x",
      "GET ?token=hush HTTP/1.1\r\nHost: x",
      "GET u:hush@x?hush@x HTTP/1.1\r\nHost: x",
      "GET / HTTP/1.1\r\nHost: u:hush@x?hush",
      "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: hush",
      "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" +
      "Sec-WebSocket-Protocol: bearer hush",
    ]
  ) {
    it(`The answer and the error of ${JSON.stringify(head)} show no secret`, async () => {
      const errors: Error[] = [];
      const options = {
        onRequest: () => {},
        onRefused: (error: Error) => void errors.push(error),
      };
      await withServer(options, async ({ port }) => {
        const raw = await RawSocket.connect(port!);
        raw.write(`${head}\r\n\r\n`);
        await raw.close();
        const answer = raw.text;
        assert.match(answer, /^HTTP\/1\.1 4\d\d /);
        assert.doesNotMatch(answer, /hush/);
      });
      assert.equal(errors.length, 1);
      assert.doesNotMatch(textsOf(errors[0]), /hush/);
    });
  }

  it("The answer to an origin that is not allowed shows its scheme and host", async () => {
    await withServer({ origins: [] }, async (server) => {
      const { port } = server;
      const raw = await RawSocket.connect(port!);
      raw.write(upgradeRequest({ Origin: "https://u:hush@evil.example?hush" }));
      await raw.close();
      assert.match(
        raw.text,
        /^HTTP\/1\.1 403 [^]*The origin "https:\/\/evil\.example" is not allowed/,
      );
      assert.doesNotMatch(raw.text, /hush/);
    });
  });

  it("The error of a Request that cannot be made names the method, the host and the path", () => {
    const head = { method: "GET", target: "/a?token=hush", version: "1.1" } as const;
    // No class Headers accepts this name. Bun's Request accepts every method.
    const run = () => toRequest({ ...head, headers: [["Host", "x"], ["a b", ""]] }, false);
    const { message } = thrown(run);
    assert.equal(message, "The class Request does not support the request GET http://x/a");
  });

  it("The errors of subprotocols show none of them", async () => {
    for (const protocols of [["bearer hush"], ["hush", "hush"]]) {
      const error = await rejection(connect("ws://localhost", { protocols }));
      assert.equal(error.name, "SyntaxError");
      assert.doesNotMatch(textsOf(error), /hush/);
    }
    const client = new Endpoint("client", { requireProtocol: true });
    const request = client.send({
      type: "request",
      host: "x",
      target: "/",
      protocols: ["bearer.hush"],
    });
    client.receive(new TextEncoder().encode(upgradeResponse(new TextDecoder().decode(request))));
    const failure = failureOf(client);
    assert.match(textsOf(failure), /none of the subprotocols/);
    assert.doesNotMatch(textsOf(failure), /hush/);
  });

  it("The errors of heads that are to be sent show no credentials", () => {
    const head = { method: "GET", target: "/?hush hush", version: "1.1", headers: [] } as const;
    for (
      const run of [
        () => serializeRequestHead(head),
        () => checkField("Authorization: Bearer hush", ""),
        () => checkField("X-Token", "hush\0"),
      ]
    ) assert.doesNotMatch(textsOf(thrown(run)), /hush/);
    assert.match(thrown(() => checkField("Cookie: hush", "")).message, /received "Cookie…"$/);
  });
});
