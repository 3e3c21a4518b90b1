/** Rows K67 to K85: errors, each of which has a different class or code. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect, type HandshakeError, WebSocketError } from "../mod.ts";
import {
  Endpoint,
  LocalProtocolError,
  parseExtensions,
  parseRequestHead,
  parseResponseHead,
  Protocol,
  type RemoteProtocolError,
  serializeRequestHead,
} from "../lib/core/mod.ts";
import { hex, latin1 } from "./bytes.ts";
import {
  failure,
  inBothRoles,
  type RawSocket,
  rejection,
  requestOf,
  upgradeRequest,
  upgradeResponse,
  urlOf,
  withPeer,
  withServer,
} from "./support.ts";
import { Toy } from "./toy_extension.ts";

/** The code of a client's error for an answer. */
function codeOf(
  fields: Record<string, string | null>,
  options: Parameters<typeof failure>[1] = {},
): Promise<string> {
  const answer = async (raw: RawSocket) => {
    raw.write(upgradeResponse(await requestOf(raw), fields));
  };
  return failure(answer, options).then(({ code }) => code);
}

/** The error of a server for a request. */
function refusalOf(fields: Record<string, string | null>, line?: string): HandshakeError {
  const endpoint = new Endpoint("server");
  endpoint.receive(latin1(upgradeRequest(fields, line)));
  try {
    endpoint.next();
  } catch (error) {
    return (error as RemoteProtocolError).cause as HandshakeError;
  }
  throw new Error("Expected a refusal");
}

describe("Parity of the errors", () => {
  it("K67 a hook refuses with a status, header fields and a body, and rejects so", async () => {
    const onRequest = () => new Response("no", { status: 418, headers: { "X-A": "b" } });
    await withServer({ onRequest }, async (server) => {
      const error = await rejection<HandshakeError>(connect(urlOf(server)));
      assert.equal(error.response!.status, 418);
      assert.equal(error.response!.headers.get("x-a"), "b");
      assert.equal(await new Response(error.response!.body).text(), "no");
    });
  });

  it("K69 the end of a connection has its code and reason", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.transport.destroy();
      const error = await rejection<WebSocketError>(ws.receive());
      assert.ok(error instanceof WebSocketError);
      assert.deepEqual([error.closeCode, error.reason], [1006, ""]);
    });
  });

  const clients: [row: string, code: string, fields: Record<string, string | null>][] = [
    ["K71 K81 an upgrade to something else", "upgrade", { Upgrade: "h2c" }],
    ["K71 K81 no upgrade", "upgrade", { Upgrade: null }],
    ["K72 a header field that is missing", "upgrade", { Connection: null }],
    ["K74 a header field with the wrong value", "accept", { "Sec-WebSocket-Accept": "a" }],
    ["K83 a subprotocol that was not offered", "subprotocol", { "Sec-WebSocket-Protocol": "b" }],
    ["K83 an extension that was not offered", "extension", { "Sec-WebSocket-Extensions": "b" }],
  ];
  for (const [row, code, fields] of clients) {
    it(`${row} is "${code}"`, async () => {
      assert.equal(await codeOf(fields, { protocols: ["a"] }), code);
    });
  }

  it('K83 an extension twice is "extension"', async () => {
    const extensions = [new Toy("x-a", 1)];
    assert.equal(
      await codeOf({ "Sec-WebSocket-Extensions": "x-a, x-a" }, { extensions }),
      "extension",
    );
  });

  it('K73 a header field that cannot be read is "malformed-header", with its place', () => {
    assert.throws(() => parseExtensions("a; b=;"), {
      code: "malformed-header",
      message: /Sec-WebSocket-Extensions header is malformed: .* at character 5/,
    });
  });

  const servers: [row: string, code: string, fields: Record<string, string | null>][] = [
    ["K72 a header field that stands twice", "malformed-header", {
      "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: a",
    }],
    ["K74 a key that is none", "key", { "Sec-WebSocket-Key": "a" }],
    ["K74 another version", "version", { "Sec-WebSocket-Version": "12" }],
    ["K81 plain HTTP", "not-upgrade", { Upgrade: null, Connection: null }],
  ];
  for (const [row, code, fields] of servers) {
    it(`${row} is "${code}"`, () => assert.equal(refusalOf(fields).code, code));
  }

  for (
    const [name, parse] of [["request", parseRequestHead], ["response", parseResponseHead]] as const
  ) {
    it(`K75 a ${name} that is no HTTP is "malformed-head", with its place`, () => {
      assert.throws(() => parse(latin1("nonsense\r\n\r\n")), {
        code: "malformed-head",
        message: /byte 0 of the head/,
      });
    });
  }

  it("K79 a call in the wrong state is an InvalidStateError, in the core a LocalProtocolError", async () => {
    await inBothRoles(async (ws, peer) => {
      ws.close();
      assert.equal((await rejection(ws.send("a"))).name, "InvalidStateError");
      await peer.answerClose();
    });
    const protocol = new Protocol("server");
    protocol.send({ type: "close", closeCode: 1000 });
    assert.throws(() => protocol.send({ type: "text", data: "a" }), LocalProtocolError);
  });

  it('K80 another status than 101 is "status"', async () => {
    const { code, response } = await failure(async (raw) => {
      await requestOf(raw);
      raw.write("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    });
    assert.deepEqual([code, response!.status], ["status", 404]);
  });

  it("K84 K85 a message that is too long is 1009, a violation 1002, bad text 1007", async () => {
    const cases: [frame: string, code: number, message: RegExp][] = [
      ["82 0b 00 00 00 00 00 00 00 00 00 00 00", 1009, /exceeds maxMessageSize \(10\)/],
      ["83 00", 1002, /unknown opcode 3/],
      ["81 01 ff", 1007, /Invalid UTF-8/],
    ];
    for (const [frame, closeCode, message] of cases) {
      const [ws, peer] = await withPeer("client", { maxMessageSize: 10 });
      peer.write(hex(frame));
      const error = await rejection<WebSocketError>(ws.receive());
      assert.equal(error.closeCode, closeCode);
      assert.match(error.message, message);
      ws.terminate();
      peer.transport.destroy();
    }
  });

  it("K72 a header field that cannot be sent is a TypeError", () => {
    const head = { method: "GET", target: "/", version: "1.1", headers: [["a b", "c"]] as const };
    assert.throws(() => serializeRequestHead(head), TypeError);
  });
});
