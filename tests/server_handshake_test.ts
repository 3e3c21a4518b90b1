import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect, serve, type ServeOptions, type Server } from "../mod.ts";
import { encodeFrame } from "../lib/core/mod.ts";
import { concat, hex, latin1, utf8 } from "./bytes.ts";
import { field, portOf, RawSocket, turn, until, upgradeRequest, urlOf } from "./support.ts";

const MASK = { mask: hex("37 fa 21 3d") };

async function withEcho(options: ServeOptions, run: (server: Server) => unknown): Promise<void> {
  const server = await serve(options, async (ws) => {
    for await (const message of ws) await ws.send(message);
  });
  try {
    await run(server);
  } finally {
    await server.shutdown();
  }
}

/** Everything that the server answers until it ends the connection. */
async function answerTo(server: Server, ...parts: (string | Uint8Array)[]): Promise<RawSocket> {
  const raw = await RawSocket.connect(portOf(server));
  for (const part of parts) raw.write(part);
  await raw.close();
  return raw;
}

/** Checks the parts that every refusal has: the status, "Connection: close", and a whole body. */
function checkRefusal(answer: string, status: number): void {
  const [head, body] = answer.split("\r\n\r\n");
  assert.match(head, new RegExp(`^HTTP/1\\.1 ${status} `), answer);
  assert.match(field(`${head}\r\n`, "Connection")!, /\bclose$/);
  const length = field(`${head}\r\n`, "Content-Length");
  if (length !== undefined) assert.equal(+length, body.length);
}

describe("What serve refuses", () => {
  const cases: [name: string, request: string, status: number][] = [
    ["garbage", "\0\x01\x02\x03\r\n\r\n", 400],
    ["a TLS greeting", "\x16\x03\x01\x02\x00\x01\x00", 400],
    ["a request line without a target", "GET\r\n\r\n", 400],
    ["a line feed alone", "GET / HTTP/1.1\nHost: a\n\n", 400],
    ["a folded header field", "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400],
    ["a blank before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400],
    ["a target that is no URL", upgradeRequest({}, "GET http://[ HTTP/1.1"), 400],
    ["a host that is none", upgradeRequest({ Host: "a b" }), 400],
    ["no Host", upgradeRequest({ Host: null }), 400],
    ["two Hosts", upgradeRequest({ host: "b" }), 400],
    ["no key", upgradeRequest({ "Sec-WebSocket-Key": null }), 400],
    ["a key of 15 bytes", upgradeRequest({ "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAA" }), 400],
    ["no version", upgradeRequest({ "Sec-WebSocket-Version": null }), 400],
    ["a Content-Length", upgradeRequest({ "Content-Length": "1" }), 400],
    ["a Transfer-Encoding", upgradeRequest({ "Transfer-Encoding": "chunked" }), 400],
    ["a subprotocol twice", upgradeRequest({ "Sec-WebSocket-Protocol": "a, a" }), 400],
    ["malformed extensions", upgradeRequest({ "Sec-WebSocket-Extensions": "=" }), 400],
    ["POST", upgradeRequest({}, "POST / HTTP/1.1"), 405],
    ["plain HTTP", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426],
    ["another Upgrade", upgradeRequest({ Upgrade: "h2c" }), 426],
    ["no Connection: Upgrade", upgradeRequest({ Connection: "keep-alive" }), 426],
    ["version 8", upgradeRequest({ "Sec-WebSocket-Version": "8" }), 426],
    ["a target of 9000 bytes", upgradeRequest({}, `GET /${"a".repeat(9000)} HTTP/1.1`), 414],
    ["a header line of 9000 bytes", upgradeRequest({ "X-A": "a".repeat(9000) }), 431],
    ["a hundred header fields too many", `GET / HTTP/1.1\r\n${"a: b\r\n".repeat(228)}\r\n`, 431],
    ["a head of 20 KB", `GET / HTTP/1.1\r\n${`a: ${"b".repeat(4000)}\r\n`.repeat(5)}\r\n`, 431],
    ["HTTP/2.0", "PRI * HTTP/2.0\r\n\r\n", 505],
  ];
  for (const [name, request, status] of cases) {
    it(`serve() answers ${name} with ${status}`, async () => {
      await withEcho({}, async (server) => {
        const { text } = await answerTo(server, request);
        checkRefusal(text, status);
        if (status === 405) assert.equal(field(text, "Allow"), "GET");
        if (status === 426) {
          assert.equal(field(text, "Upgrade"), "websocket");
          assert.equal(field(text, "Sec-WebSocket-Version"), "13");
          assert.match(field(text, "Connection")!, /^Upgrade, close$/i);
        }
      });
    });
  }

  it("serve() answers an origin that is not allowed with 403", async () => {
    await withEcho({ origins: ["https://a"] }, async (server) => {
      const { text } = await answerTo(server, upgradeRequest({ Origin: "https://b" }));
      checkRefusal(text, 403);
    });
  });

  it("serve() answers a request that is not whole in time with 408", async () => {
    await withEcho({ openTimeout: 30 }, async (server) => {
      checkRefusal((await answerTo(server, "GET / HT")).text, 408);
      checkRefusal((await answerTo(server)).text, 408);
    });
  });

  it("serve() answers a client that sends its head for ever with 408", async () => {
    await withEcho({ openTimeout: 50 }, async (server) => {
      const raw = await RawSocket.connect(portOf(server));
      raw.write("GET / HTTP/1.1\r\n");
      while (!raw.ended && !raw.closed) {
        raw.write("a");
        await turn();
      }
      checkRefusal(raw.text, 408);
      raw.socket.destroy();
    });
  });

  it("serve() keeps to the limits given", async () => {
    const limits = { maxLineLength: 100, maxHeaderCount: 6, maxHeadSize: 400 };
    await withEcho({ limits }, async (server) => {
      const answers: [request: string, status: number][] = [
        [upgradeRequest({}, `GET /${"a".repeat(100)} HTTP/1.1`), 414],
        [upgradeRequest({ A: "1", B: "2" }), 431],
        [upgradeRequest({ A: "a".repeat(110) }), 431],
      ];
      for (const [request, status] of answers) {
        checkRefusal((await answerTo(server, request)).text, status);
      }
    });
  });

  it("serve() ends with a client that says nothing and leaves", async () => {
    await withEcho({}, async (server) => {
      for (const request of ["", "GET / HT"]) {
        const raw = await RawSocket.connect(portOf(server));
        raw.write(request);
        raw.socket.end();
        await until(() => raw.ended || raw.closed);
        assert.equal(raw.text, "");
        raw.socket.destroy();
      }
    });
  });

  it("serve() lives on after clients that send garbage and reset", async () => {
    await withEcho({}, async (server) => {
      const frame = encodeFrame({ opcode: 1, payload: utf8("a") }, MASK);
      const garbage: (string | Uint8Array)[] = [
        "\r\n\r\n\r\n",
        Uint8Array.from({ length: 5000 }, (_, i) => i * 31),
        upgradeRequest() + "\xff\xff\xff\xff",
        concat([latin1(upgradeRequest()), frame, hex("8f 80 00 00 00 00")]),
        concat([latin1(upgradeRequest()), hex("81 01 61")]),
        concat([latin1(upgradeRequest()), hex("82 ff ff ff ff ff ff ff ff ff 00 00 00 00")]),
      ];
      for (const bytes of garbage) {
        const raw = await RawSocket.connect(portOf(server));
        raw.write(bytes);
        await until(() => raw.ended || raw.closed);
        raw.socket.destroy();
        const reset = await RawSocket.connect(portOf(server));
        reset.write(bytes);
        await turn();
        reset.socket.resetAndDestroy();
      }
      const ws = await connect(urlOf(server));
      await ws.send("still there");
      assert.equal(await ws.receive(), "still there");
      await ws.close();
    });
  });
});

describe("What serve takes", () => {
  const close = encodeFrame({ opcode: 8, payload: hex("03 e8") }, MASK);
  const message = encodeFrame({ opcode: 1, payload: utf8("Hello") }, MASK);
  /** The echo of the message, and the answer to the Close frame. */
  const answer = latin1("\x81\x05Hello\x88\x02\x03\xe8");

  function afterHead({ received }: RawSocket): Uint8Array {
    const text = String.fromCharCode(...received);
    assert.match(text, /^HTTP\/1\.1 101 /);
    assert.equal(field(text, "Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    return received.slice(text.indexOf("\r\n\r\n") + 4);
  }

  it("serve() keeps messages that arrive together with the request", async () => {
    await withEcho({}, async (server) => {
      const request = concat([latin1(upgradeRequest()), message, close]);
      assert.deepEqual(afterHead(await answerTo(server, request)), answer);
    });
  });

  it("serve() keeps messages that arrive while a hook runs", async () => {
    const onRequest = async () => {
      for (let i = 0; i < 10; i++) await turn();
    };
    await withEcho({ onRequest }, async (server) => {
      const raw = await RawSocket.connect(portOf(server));
      raw.write(upgradeRequest());
      await turn();
      raw.write(message);
      await turn();
      raw.write(close);
      await raw.close();
      assert.deepEqual(afterHead(raw), answer);
    });
  });

  it("serve() takes a request and messages that come byte by byte", async () => {
    await withEcho({}, async (server) => {
      const raw = await RawSocket.connect(portOf(server));
      raw.socket.setNoDelay(true);
      for (const byte of concat([latin1(upgradeRequest()), message, close])) {
        raw.write(Uint8Array.of(byte));
        await turn();
      }
      await raw.close();
      assert.deepEqual(afterHead(raw), answer);
    });
  });

  const requests: [name: string, request: string][] = [
    [
      "names in any case",
      upgradeRequest().toLowerCase().replace("get / http", "GET / HTTP")
        .replace(/key: .*/, "key: dGhlIHNhbXBsZSBub25jZQ=="),
    ],
    [
      "lists of names",
      upgradeRequest({ Upgrade: "h2c, WebSocket", Connection: "keep-alive, UPGRADE" }),
    ],
    ["a whole URL as the target", upgradeRequest({}, "GET http://localhost/ HTTP/1.1")],
    ["a path that begins with two slashes", upgradeRequest({}, "GET //a HTTP/1.1")],
    ["a Content-Length of 0", upgradeRequest({ "Content-Length": "0" })],
    ["extensions that it does not know", upgradeRequest({ "Sec-WebSocket-Extensions": "x; a=1" })],
  ];
  for (const [name, request] of requests) {
    it(`serve() takes ${name}`, async () => {
      await withEcho({}, async (server) => {
        const raw = await answerTo(server, concat([latin1(request), message, close]));
        assert.deepEqual(afterHead(raw), answer);
        assert.equal(field(raw.text, "Sec-WebSocket-Extensions"), undefined);
      });
    });
  }
});
