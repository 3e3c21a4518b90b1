/** Rows K86 to K110: the parts of the library, used separately. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  encodeFrame,
  Endpoint,
  FrameDecoder,
  headerValue,
  headerValues,
  Opcode,
  parseClose,
  parseExtensions,
  parseProtocols,
  parseRequestHead,
  parseResponseHead,
  parseTokenList,
  parseUpgrade,
  parseWebSocketUrl,
  serializeClose,
  serializeExtensions,
  serializeProtocols,
} from "../lib/core/mod.ts";
import { ExtensionReader } from "../lib/core/extension.ts";
import { toMessage } from "../lib/connection/outgoing.ts";
import { concat, hex, latin1, utf8 } from "./bytes.ts";
import { field, upgradeRequest, upgradeResponse } from "./support.ts";

const text = (bytes: Uint8Array) => String.fromCharCode(...bytes);

describe("Parity of the handshake's parts", () => {
  it("K86 K89 builds a request, and checks the response to its key", () => {
    const asked = { type: "request", host: "a.test", target: "/b" } as const;
    const client = new Endpoint("client");
    const request = text(client.send(asked));
    assert.match(request, /^GET \/b HTTP\/1.1\r\nHost: a.test\r\n/);
    assert.equal(atob(field(request, "Sec-WebSocket-Key")!).length, 16);
    client.receive(latin1(upgradeResponse(request)));
    assert.equal(client.next()?.type, "accept");
    const other = new Endpoint("client");
    other.send(asked);
    other.receive(latin1(upgradeResponse(request)));
    assert.throws(() => other.next(), ({ cause }) => cause.code === "accept");
  });

  it("K87 K88 K90 checks a request, and builds the response; origin and path are the caller's", () => {
    const server = new Endpoint("server");
    server.receive(latin1(upgradeRequest({ Origin: "http://a.test" })));
    assert.equal(server.next()?.type, "request");
    assert.equal(server.request!.target, "/");
    assert.equal(server.offer!.origin, "http://a.test");
    const bytes = server.send({ type: "accept" });
    assert.equal(
      headerValue(server.response!.headers, "Sec-WebSocket-Accept"),
      "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    );
    assert.match(text(bytes), /^HTTP\/1.1 101 /);
  });
});

describe("Parity of the frames", () => {
  it("K91 K92 has frames with all their bits, and checks them", () => {
    const decoder = new FrameDecoder({ role: "client" });
    decoder.push(encodeFrame({ fin: false, opcode: Opcode.Text, payload: utf8("a") }));
    const { header, payload, last } = decoder.next()!;
    const { fin, rsv, opcode } = header;
    assert.deepEqual([fin, rsv, opcode, payload, last], [false, 0, 1, utf8("a"), true]);
    for (const first of ["c1", "83"]) {
      const strict = new FrameDecoder({ role: "client" });
      strict.push(hex(`${first} 00`));
      assert.throws(() => strict.next(), { closeCode: 1002 });
    }
  });

  it("K93 K94 reads and writes frames: masks, the largest size", () => {
    const bytes = encodeFrame({ opcode: Opcode.Text, payload: utf8("Hello") }, {
      mask: hex("37 fa 21 3d"),
    });
    assert.deepEqual(bytes, hex("81 85 37 fa 21 3d 7f 9f 4d 51 58"));
    const decoder = new FrameDecoder({ role: "server" });
    decoder.push(bytes);
    assert.equal(text(decoder.next()!.payload), "Hello");
    const narrow = new FrameDecoder({ role: "client", maxFrameSize: 4 });
    narrow.push(encodeFrame({ opcode: Opcode.Text, payload: utf8("Hello") }));
    assert.throws(() => narrow.next(), { closeCode: 1009 });
    assert.equal(typeof ExtensionReader, "function");
  });

  it("K95 converts messages to text or bytes", () => {
    assert.equal(toMessage("a"), "a");
    assert.deepEqual(toMessage(new Uint16Array([1])), Uint8Array.of(1, 0));
    assert.deepEqual(toMessage(Uint8Array.of(1).buffer), Uint8Array.of(1));
  });

  it("K96 K97 reads and writes the payload of a Close", () => {
    assert.deepEqual(parseClose(hex("03 e8 61")), { closeCode: 1000, reason: "a" });
    assert.deepEqual(parseClose(hex("")), { closeCode: 1005, reason: "" });
    assert.deepEqual(serializeClose({ closeCode: 1000, reason: "a" }), hex("03 e8 61"));
    assert.throws(() => parseClose(hex("03")), { closeCode: 1002 });
    assert.throws(() => serializeClose({ closeCode: 1006 }), RangeError);
  });
});

describe("Parity of the URL and the header fields", () => {
  it("K98 K112 parses a URL: the host in lower case, a port, the user", () => {
    const { secure, hostname, port, resourceName, username, password } = parseWebSocketUrl(
      "wss://a%40:b%3A@EXAMPLE.com/c?d",
    );
    assert.deepEqual([secure, hostname, port], [true, "example.com", 443]);
    assert.deepEqual([resourceName, username, password], ["/c?d", "a@", "b:"]);
    assert.equal(parseWebSocketUrl("ws://a").port, 80);
    for (const url of ["ws://a/#b", "http:", "a"]) {
      assert.throws(() => parseWebSocketUrl(url), { name: "SyntaxError" });
    }
  });

  it("K99 K100 reads Connection and Upgrade", () => {
    assert.deepEqual(parseTokenList("Connection", "keep-alive, Upgrade"), [
      "keep-alive",
      "Upgrade",
    ]);
    assert.deepEqual(parseUpgrade("websocket, h2c"), ["websocket", "h2c"]);
    assert.throws(() => parseUpgrade("a b"), { code: "malformed-header" });
  });

  it("K101 K102 reads and writes a list of extensions", () => {
    const list = [
      { name: "a", parameters: [["b", undefined], ["c", "1"]] as const },
      { name: "d", parameters: [] },
    ];
    assert.deepEqual(parseExtensions('a; b; c="1", d'), list);
    assert.equal(serializeExtensions(list), "a; b; c=1, d");
  });

  it("K103 K104 reads and writes a list of subprotocols", () => {
    assert.deepEqual(parseProtocols("a, b"), ["a", "b"]);
    assert.equal(serializeProtocols(["a", "b"]), "a, b");
    assert.throws(() => serializeProtocols(["a b"]), TypeError);
  });

  it("K105 K106 finds header fields in order and in any case, and refuses one value of several", () => {
    const headers = [["A", "1"], ["b", "2"], ["a", "3"]] as const;
    assert.deepEqual(headerValues(headers, "a"), ["1", "3"]);
    assert.equal(headerValue(headers, "B"), "2");
    assert.equal(headerValue(headers, "c"), undefined);
    assert.throws(() => headerValue(headers, "A"), { code: "malformed-header" });
  });
});

describe("Parity of the heads", () => {
  const behind = utf8("behind");
  const heads: [
    row: string,
    parse: typeof parseRequestHead | typeof parseResponseHead,
    start: string,
  ][] = [
    ["K107", parseRequestHead, "GET / HTTP/1.1"],
    ["K108", parseResponseHead, "HTTP/1.1 101 Switching Protocols"],
  ];
  for (const [row, parse, start] of heads) {
    it(`${row} K109 reads a head from bytes, and leaves what follows`, () => {
      const bytes = latin1(`${start}\r\nA: b\r\nA: c\r\n\r\n`);
      const { head, length } = parse(concat([bytes, behind]))!;
      assert.deepEqual(head.headers, [["A", "b"], ["A", "c"]]);
      assert.equal(length, bytes.length);
      assert.equal(parse(bytes.subarray(0, length - 1)), undefined);
    });

    const large: [what: string, fields: string][] = [
      ["129 fields", "A: b\r\n".repeat(129)],
      ["a line of more than 8 KiB", `A: ${"b".repeat(8200)}\r\n`],
      ["more than 16 KiB", `A: ${"b".repeat(8000)}\r\n`.repeat(3)],
    ];
    for (const [what, fields] of large) {
      it(`K110 refuses a head of ${what} (${row})`, () => {
        const bytes = latin1(`${start}\r\n${fields}\r\n`);
        assert.throws(() => parse(bytes), { code: "head-too-large" });
      });
    }
  }
});
