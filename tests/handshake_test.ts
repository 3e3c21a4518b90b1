import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  acceptToken,
  Endpoint,
  type EndpointOptions,
  type ExtensionFactory,
  type ExtensionHeader,
  type HandshakeError,
  headerValue,
  parseRequestHead,
  type RawHeaders,
  type RequestHead,
} from "../lib/core/mod.ts";
import type { OutgoingOf } from "../lib/core/event.ts";
import {
  accepts,
  checkRequest,
  checkResponse,
  extraFields,
  refusalHeaders,
  refusalResponse,
} from "../lib/core/handshake.ts";
import { concat, cut, cuts, hex, latin1 } from "./bytes.ts";
import { failureOf, feed, merged, read } from "./endpoints.ts";
import { fc, offsets } from "./property.ts";
import { Toy } from "./toy_extension.ts";

/** The example of RFC 6455 §1.3. */
const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

type Fields = Record<string, string | string[] | undefined>;

/** The fields with some of them changed. undefined removes a field, an array repeats it. */
function headers(base: Fields, change: Fields): [string, string][] {
  return Object.entries({ ...base, ...change }).flatMap(([name, value]) =>
    [value ?? []].flat().map((one): [string, string] => [name, one])
  );
}

const REQUEST: Fields = {
  "Host": "example.com",
  "Upgrade": "websocket",
  "Connection": "Upgrade",
  "Sec-WebSocket-Key": KEY,
  "Sec-WebSocket-Version": "13",
};

function request(change: Fields, line: Partial<RequestHead> = {}): RequestHead {
  return { method: "GET", target: "/", version: "1.1", headers: headers(REQUEST, change), ...line };
}

describe("acceptToken", () => {
  it("acceptToken answers the key of RFC 6455 §1.3", () => {
    assert.equal(acceptToken(KEY), ACCEPT);
  });

  it("acceptToken is the SHA-1 of the key and the GUID, in base64", async () => {
    for (const length of [0, 1, 18, 19, 20, 24, 27, 28, 60, 83, 84, 200]) {
      const key = "k".repeat(length);
      const input = latin1(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11") as Uint8Array<ArrayBuffer>;
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-1", input));
      assert.equal(acceptToken(key), btoa(String.fromCharCode(...digest)), `${length} characters`);
    }
  });
});

describe("checkRequest", () => {
  it("checkRequest reads what the client asks for", () => {
    const head = request({
      "Sec-WebSocket-Protocol": ["a, b", "c"],
      "Sec-WebSocket-Extensions": ["foo; x=1", "bar"],
      "Origin": "https://example.com",
    });
    assert.deepEqual(checkRequest(head), {
      key: KEY,
      protocols: ["a", "b", "c"],
      extensions: [{ name: "foo", parameters: [["x", "1"]] }, { name: "bar", parameters: [] }],
      origin: "https://example.com",
    });
  });

  const taken: readonly [title: string, change: Fields][] = [
    ["nothing more", {}],
    ["Upgrade in other case", { "Upgrade": "WebSocket" }],
    ["Upgrade as one of several", { "Upgrade": ["h2c", "foo/1, websocket"] }],
    ["Connection in other case", { "Connection": "keep-alive, upgrade" }],
    ["Connection in several fields", { "Connection": ["keep-alive", "Upgrade"] }],
    ["Connection twice", { "Connection": ["Upgrade", "Upgrade"] }],
    ["Connection, then another", { "Connection": ["Upgrade", "keep-alive"] }],
    ["Content-Length 0", { "Content-Length": "0" }],
    ["the name of a field in other case", { "Host": undefined, "HOST": "a" }],
  ];
  for (const [title, change] of taken) {
    it(`checkRequest takes a request with ${title}`, () => {
      const empty = { key: KEY, protocols: [], extensions: [], origin: undefined };
      assert.deepEqual(checkRequest(request(change)), empty);
    });
  }

  /** Requests with one error each. */
  const wrong: readonly [title: string, RequestHead, code: string, status: number][] = [
    ["the method POST", request({}, { method: "POST" }), "method", 405],
    ["the method get", request({}, { method: "get" }), "method", 405],
    ["HTTP/1.0", request({}, { version: "1.0" }), "http-version", 400],
    ["no Host", request({ "Host": undefined }), "host", 400],
    ["two Hosts", request({ "Host": ["a", "a"] }), "host", 400],
    ["no Upgrade", request({ "Upgrade": undefined }), "not-upgrade", 426],
    ["another Upgrade", request({ "Upgrade": "h2c" }), "not-upgrade", 426],
    ["a version in Upgrade", request({ "Upgrade": "websocket/13" }), "not-upgrade", 426],
    ["a malformed Upgrade", request({ "Upgrade": "web socket" }), "malformed-header", 400],
    ["no Connection", request({ "Connection": undefined }), "not-upgrade", 426],
    ["another Connection", request({ "Connection": "keep-alive" }), "not-upgrade", 426],
    ["a malformed Connection", request({ "Connection": '"Upgrade"' }), "malformed-header", 400],
    ["an empty Connection", request({ "Connection": "" }), "malformed-header", 400],
    ["a Transfer-Encoding", request({ "Transfer-Encoding": "chunked" }), "body", 400],
    ["a Transfer-Encoding of nothing", request({ "Transfer-Encoding": "" }), "body", 400],
    ["a Content-Length", request({ "Content-Length": "5" }), "body", 400],
    ["a malformed Content-Length", request({ "Content-Length": "0, 5" }), "body", 400],
    ["a second Content-Length", request({ "Content-Length": ["0", "5"] }), "body", 400],
    ["a name that is no token", request({ "a b": "c" }), "malformed-head", 400],
    ["a line break in a value", request({ "X": "a\r\nb" }), "malformed-head", 400],
    ["no version", request({ "Sec-WebSocket-Version": undefined }), "version", 400],
    ["version 8", request({ "Sec-WebSocket-Version": "8" }), "version", 426],
    ["a list of versions", request({ "Sec-WebSocket-Version": "13, 8" }), "version", 426],
    ["version 013", request({ "Sec-WebSocket-Version": "013" }), "version", 426],
    ["two versions", request({ "Sec-WebSocket-Version": ["13", "13"] }), "malformed-header", 400],
    ["no key", request({ "Sec-WebSocket-Key": undefined }), "key", 400],
    ["an empty key", request({ "Sec-WebSocket-Key": "" }), "key", 400],
    ["a key of 15 bytes", request({ "Sec-WebSocket-Key": btoa("x".repeat(15)) }), "key", 400],
    ["a key of 17 bytes", request({ "Sec-WebSocket-Key": btoa("x".repeat(17)) }), "key", 400],
    ["a key without padding", request({ "Sec-WebSocket-Key": KEY.slice(0, 22) }), "key", 400],
    ["a key in base64url", request({ "Sec-WebSocket-Key": KEY.replace("I", "-") }), "key", 400],
    ["two keys", request({ "Sec-WebSocket-Key": [KEY, KEY] }), "malformed-header", 400],
    ["two Origins", request({ "Origin": ["a", "a"] }), "malformed-header", 400],
    ["a protocol twice", request({ "Sec-WebSocket-Protocol": "a, b, a" }), "malformed-header", 400],
    [
      "a protocol twice in two fields",
      request({ "Sec-WebSocket-Protocol": ["a", "a"] }),
      "malformed-header",
      400,
    ],
    ["a malformed protocol", request({ "Sec-WebSocket-Protocol": "a b" }), "malformed-header", 400],
    ["no protocol", request({ "Sec-WebSocket-Protocol": "" }), "malformed-header", 400],
    [
      "a malformed extension",
      request({ "Sec-WebSocket-Extensions": "a;" }),
      "malformed-header",
      400,
    ],
  ];
  for (const [title, head, code, status] of wrong) {
    it(`checkRequest refuses a request with ${title}`, () => {
      assert.throws(() => checkRequest(head), { name: "HandshakeError", code, status });
    });
  }

  it("checkRequest does not repeat the checks of the parser", () => {
    const head = request({ "X": "a\r\nb" });
    assert.equal(checkRequest(head, true).key, KEY);
  });

  it("checkRequest tells a missing key from a wrong one", () => {
    const missing = request({ "Sec-WebSocket-Key": undefined });
    assert.throws(() => checkRequest(missing), { message: "The request has no Sec-WebSocket-Key" });
    const wrong = { message: "Sec-WebSocket-Key is not 16 bytes in base64" };
    assert.throws(() => checkRequest(request({ "Sec-WebSocket-Key": "a" })), wrong);
  });

  it("refusalHeaders tells the client what would have been taken", () => {
    assert.deepEqual(refusalHeaders({ status: 405, code: "method" }), [["Allow", "GET"]]);
    assert.deepEqual(refusalHeaders({ status: 426, code: "version" }), [
      ["Upgrade", "websocket"],
      ["Sec-WebSocket-Version", "13"],
    ]);
    assert.deepEqual(refusalHeaders({ status: 400, code: "key" }), []);
  });
});

describe("refusalResponse", () => {
  type Refusal = Partial<OutgoingOf<"reject">>;
  const refuse = (refusal: Refusal, version: string, isHead = false, isConnect = false) =>
    refusalResponse({ type: "reject", ...refusal }, { version, isHead, isConnect });
  const chunked: [string, string] = ["Transfer-Encoding", "chunked"];

  const made: readonly [Refusal, version: string, fields: string[], framing: unknown][] = [
    [{}, "1.1", ["Content-Length: 0", "Connection: close"], { length: 0 }],
    [{ hasBody: true }, "1.1", ["Transfer-Encoding: chunked", "Connection: close"], "chunked"],
    [{ hasBody: true }, "1.0", ["Connection: close"], "until-close"],
    [{ hasBody: true }, "2.0", [], "until-close"],
    [{ status: 200 }, "1.1", ["Content-Length: 0", "Connection: close"], { length: 0 }],
    [{ status: 599 }, "1.1", ["Content-Length: 0", "Connection: close"], { length: 0 }],
    [{ status: 204 }, "1.1", ["Connection: close"], { length: 0 }],
    [{ status: 304 }, "1.1", ["Connection: close"], { length: 0 }],
    [
      { headers: [["Upgrade", "websocket"]] },
      "1.1",
      ["Upgrade: websocket", "Content-Length: 0", "Connection: Upgrade, close"],
      { length: 0 },
    ],
    [
      { headers: [["Connection", "close, a"]] },
      "1.1",
      ["Connection: close, a", "Content-Length: 0"],
      { length: 0 },
    ],
    [{ headers: [["Connection", "a"], ["b", "c"]] }, "2.0", ["b: c", "Content-Length: 0"], {
      length: 0,
    }],
    [
      { headers: [["Content-Length", "5"]], hasBody: true },
      "1.1",
      ["Content-Length: 5", "Connection: close"],
      { length: 5 },
    ],
    [
      { headers: [chunked], hasBody: true },
      "1.1",
      ["Transfer-Encoding: chunked", "Connection: close"],
      "chunked",
    ],
  ];
  for (const [refusal, version, fields, framing] of made) {
    it(`refusalResponse of ${JSON.stringify(refusal)} over HTTP/${version}`, () => {
      const { response, framing: found } = refuse(refusal, version);
      assert.deepEqual(response.headers.map((field) => field.join(": ")), fields);
      assert.deepEqual(found, framing);
    });
  }

  const refused: readonly [Refusal, name: string][] = [
    [{ status: 199 }, "RangeError"],
    [{ status: 600 }, "RangeError"],
    [{ status: 400.5 }, "RangeError"],
    [{ status: 204, hasBody: true }, "TypeError"],
    [{ status: 304, hasBody: true }, "TypeError"],
    [{ headers: [["Content-Length", "1"]] }, "TypeError"],
    [{ headers: [["Content-Length", "x"]] }, "TypeError"],
    [{ headers: [chunked] }, "TypeError"],
    [{ headers: [["Transfer-Encoding", "gzip"]], hasBody: true }, "TypeError"],
    [{ headers: [chunked, ["Content-Length", "1"]], hasBody: true }, "TypeError"],
  ];
  for (const [refusal, name] of refused) {
    it(`refusalResponse refuses ${JSON.stringify(refusal)}`, () => {
      assert.throws(() => refuse(refusal, "1.1"), { name });
    });
  }

  it("refusalResponse lets the response to HEAD announce a body", () => {
    const { response } = refuse({ headers: [["Content-Length", "5"]] }, "1.1", true);
    assert.deepEqual(response.headers[0], ["Content-Length", "5"]);
  });

  it("refusalResponse refuses no CONNECT with 2xx", () => {
    for (const status of [200, 204, 299]) {
      const message = `Expected status to be an integer from 300 to 599, received ${status}`;
      const refusal = () => refuse({ status }, "2.0", false, true);
      assert.throws(refusal, { name: "RangeError", message });
    }
    assert.equal(refuse({ status: 300 }, "2.0", false, true).response.status, 300);
  });

  it("refusalResponse has the status 400 unless another is given", () => {
    assert.equal(refuse({}, "1.1").response.status, 400);
    assert.equal(refuse({ status: 403 }, "1.1").response.status, 403);
  });

  it("checkResponse takes no other status than 101", () => {
    const answer = { ...HEAD, status: 200, statusText: "OK" };
    assert.throws(() => checkResponse(answer, KEY, {}), {
      code: "status",
      message: "The server answered 200 OK instead of 101",
    });
  });

  it("extraFields leaves out what the handshake writes", () => {
    const fields: RawHeaders = [["X-Upgrade", "a"], ["Upgrade", "b"], ["sec-websocket-key", "c"]];
    assert.deepEqual(extraFields(fields), [["X-Upgrade", "a"]]);
  });

  it("accepts takes 101 over HTTP/1.1, and any success over HTTP/2", () => {
    const statuses = [101, 199, 200, 299, 300];
    const of = (version: string) =>
      statuses.filter((status) => accepts({ ...HEAD, version, status }));
    assert.deepEqual(of("1.1"), [101]);
    assert.deepEqual(of("2.0"), [200, 299]);
  });
});

const HEAD = { version: "1.1", status: 101, statusText: "", headers: [] };

/** A server that has received the request. */
function asked(change: Fields = {}, options: EndpointOptions = {}): Endpoint {
  const server = new Endpoint("server", options);
  server.receive(bytesOf(request(change)));
  assert.equal(server.next()?.type, "request");
  return server;
}

/** The error in what the peer sent. */
function causeOf(endpoint: Endpoint): HandshakeError {
  return failureOf(endpoint).cause as HandshakeError;
}

describe("Endpoint of a server, opening", () => {
  it("it answers the request of RFC 6455 §1.3", () => {
    const server = asked();
    const text = `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n` +
      `Connection: Upgrade\r\nSec-WebSocket-Accept: ${ACCEPT}\r\n\r\n`;
    assert.equal(String.fromCharCode(...server.send({ type: "accept" })), text);
    assert.equal(server.response!.status, 101);
  });

  it("it answers with protocol, extensions and fields of the caller", () => {
    const offer = { "Sec-WebSocket-Protocol": "a, b", "Sec-WebSocket-Extensions": "foo; x=1" };
    const server = asked(offer, { extensions: [new Toy("foo", 1)] });
    const headers: RawHeaders = [["Set-Cookie", "a=b"], ["Set-Cookie", "c=d"]];
    server.send({ type: "accept", protocol: "b", headers });
    assert.deepEqual(server.response!.headers.slice(3), [
      ["Sec-WebSocket-Protocol", "b"],
      ["Sec-WebSocket-Extensions", "foo; x=1"],
      ...headers,
    ]);
  });

  it("it chooses no protocol that was not offered", () => {
    // The offer of the client is not shown: a subprotocol may contain a token.
    const expected = {
      name: "LocalProtocolError",
      message: "Cannot choose the subprotocol c: the client did not offer it",
    };
    const accept = { type: "accept", protocol: "c" } as const;
    const offered = asked({ "Sec-WebSocket-Protocol": "a, b" });
    assert.throws(() => offered.send(accept), expected);
    assert.throws(() => asked().send(accept), expected);
  });

  const refused: readonly [name: string, value: string][] = [
    ["sec-websocket-accept", "x"],
    ["Upgrade", "websocket"],
    ["Content-Length", "0"],
    ["Transfer-Encoding", "chunked"],
    ["X", "a\r\nB: c"],
    ["X\r\nY", "a"],
  ];
  for (const field of refused) {
    it(`it does not answer with the field ${JSON.stringify(field)}`, () => {
      const accept = { type: "accept", headers: [field] } as const;
      assert.throws(() => asked().send(accept), { name: "TypeError" });
    });
  }

  it("it keeps the bytes after the head, wherever the input is cut", () => {
    const frames = hex("81 85 37 fa 21 3d 7f 9f 4d 51 58");
    const input = concat([bytesOf(request({})), frames]);
    for (const chunks of cuts(input)) {
      const server = new Endpoint("server");
      const events = [];
      while (events.length === 0) events.push(...read(server, chunks.shift()!));
      assert.deepEqual(server.request, request({}));
      server.send({ type: "accept" });
      const [text] = merged([...server.events(), ...read(server, ...chunks)]);
      assert.equal(text.type === "text" && text.data, "Hello");
    }
  });

  it("it keeps the bytes after the head, also if their buffer is reused", () => {
    const server = new Endpoint("server");
    const chunk = concat([bytesOf(request({})), hex("81 80 00 00 00 00")]);
    server.receive(chunk);
    assert.equal(server.next()?.type, "request");
    chunk.fill(9);
    server.send({ type: "accept" });
    assert.equal(server.next()?.type, "text");
  });

  it("it accepts a head that another parser has read, once", () => {
    const read = asked();
    const head = read.request!;
    const taking = new Endpoint("server");
    taking.takeHead(head, hex("81 80"));
    assert.equal(taking.next()?.type, "request");
    for (const server of [read, taking]) {
      assert.throws(() => server.takeHead(head), { name: "LocalProtocolError" });
    }
    assert.deepEqual(taking.send({ type: "accept" }), read.send({ type: "accept" }));
    taking.receive(hex("00 00 00 00"));
    assert.equal(taking.next()?.type, "text");
  });

  it("it reports a connection that ends early as lost", () => {
    for (const before of ["", "GET / HT"]) {
      const server = new Endpoint("server");
      assert.deepEqual(read(server, before), []);
      server.receive(null);
      const { code, message } = causeOf(server);
      assert.equal(code, "connection-lost");
      assert.equal(
        message,
        "The connection ended before the head of the request was complete",
      );
    }
  });

  it("it has limits for the head", () => {
    const server = new Endpoint("server", { limits: { maxHeaderCount: 4 } });
    server.receive(bytesOf(request({})));
    assert.equal(causeOf(server).code, "head-too-large");
  });
});

interface Asked extends Pick<OutgoingOf<"request">, "protocols" | "headers"> {
  requireProtocol?: boolean;
  extensions?: ExtensionFactory[];
}

/** A client that has sent a request, and its bytes. */
function asking(
  { requireProtocol, extensions, ...change }: Asked & Partial<OutgoingOf<"request">> = {},
  limits?: EndpointOptions["limits"],
): { client: Endpoint; bytes: Uint8Array } {
  const client = new Endpoint("client", { requireProtocol, extensions, limits });
  const place = { host: "example.com:8080", target: "/chat?a=1" };
  return { client, bytes: client.send({ type: "request", ...place, ...change }) };
}

describe("Endpoint of a client, opening", () => {
  const foo: ExtensionHeader = { name: "foo", parameters: [["x", undefined]] };
  const toy = () => new Toy("foo", 1, { offers: [foo.parameters] });

  it("it sends a request that checkRequest takes", () => {
    const protocols = ["a", "b"];
    const { client, bytes } = asking({
      protocols,
      extensions: [toy()],
      headers: [["Origin", "https://example.com"], ["Cookie", "a=b"]],
    });
    assert.deepEqual(parseRequestHead(bytes), { head: client.request, length: bytes.length });
    const { method, target, version, headers } = client.request!;
    assert.deepEqual([method, target, version], ["GET", "/chat?a=1", "1.1"]);
    assert.equal(headerValue(headers, "Host"), "example.com:8080");
    assert.equal(headerValue(headers, "Cookie"), "a=b");
    const { key, ...offer } = checkRequest(client.request!);
    assert.equal(atob(key).length, 16);
    assert.deepEqual(offer, { protocols, extensions: [foo], origin: "https://example.com" });
  });

  it("it takes a fresh key each time", () => {
    const keys = Array.from({ length: 100 }, () => keyOf(asking().client));
    assert.equal(new Set(keys).size, 100);
  });

  const refused: readonly [title: string, Partial<Asked & OutgoingOf<"request">>][] = [
    ["a field that it writes by itself", { headers: [["sec-websocket-key", KEY]] }],
    ["another Host", { headers: [["HOST", "a"]] }],
    ["a Content-Length", { headers: [["Content-Length", "1"]] }],
    ["a protocol that is no token", { protocols: ["a b"] }],
    ["an empty protocol", { protocols: [""] }],
    ["a line break in a protocol", { protocols: ["a\r\nb"] }],
    ["an extension that is no token", { extensions: [new Toy("a,b", 1)] }],
    ["a line break in the host", { host: "a\r\nB: c" }],
    ["a line break in the target", { target: "/\r\nB: c" }],
    ["a blank in the target", { target: "/ HTTP/1.1" }],
    ["a line break in a value", { headers: [["A", "b\r\nC: d"]] }],
    ["a line break in a name", { headers: [["A: b\r\nC", "d"]] }],
  ];
  for (const [title, change] of refused) {
    it(`it does not send ${title}`, () => {
      assert.throws(() => asking(change), { name: "TypeError" });
    });
  }

  it("it does not show the value that it does not send", () => {
    const secret = { headers: [["Authorization", "Bearer SECRET\n"]] as [string, string][] };
    const send = () => asking(secret);
    assert.throws(send, ({ message }) => /Authorization/.test(message) && !/SECRET/.test(message));
  });

  const RESPONSE: Fields = { "Upgrade": "websocket", "Connection": "Upgrade" };
  const ASKED = { protocols: ["a", "b"], extensions: [toy()] };

  /** A client that has received a response. The correct accept token is added unless the response has one. */
  function answered(
    change: Fields,
    asked: Asked = ASKED,
    line = "HTTP/1.1 101 Switching Protocols",
  ): Endpoint {
    const { client } = asking(asked);
    const accept = acceptToken(keyOf(client));
    const fields = headers({ ...RESPONSE, "Sec-WebSocket-Accept": accept }, change);
    feed(client, `${line}\r\n${fields.map(([n, v]) => `${n}: ${v}\r\n`).join("")}\r\n`);
    return client;
  }

  const agreed: readonly [title: string, Fields, protocol: string, ExtensionHeader[]][] = [
    ["nothing", {}, "", []],
    [
      "Upgrade and Connection in other case",
      { Upgrade: "WebSocket", Connection: "upgrade" },
      "",
      [],
    ],
    ["a protocol", { "Sec-WebSocket-Protocol": "b" }, "b", []],
    ["an extension", { "Sec-WebSocket-Extensions": "foo; y=2" }, "", [
      { name: "foo", parameters: [["y", "2"]] },
    ]],
  ];
  for (const [title, change, protocol, extensions] of agreed) {
    it(`it takes a response with ${title}`, () => {
      const client = answered(change);
      assert.equal(client.next()?.type, "accept");
      assert.deepEqual(client.agreement, { protocol, extensions });
    });
  }

  const wrong: readonly [title: string, Fields, code: string][] = [
    ["no Upgrade", { "Upgrade": undefined }, "upgrade"],
    ["another Upgrade", { "Upgrade": "h2c" }, "upgrade"],
    ["two protocols in Upgrade", { "Upgrade": "websocket, h2c" }, "upgrade"],
    ["two fields Upgrade", { "Upgrade": ["h2c", "websocket"] }, "upgrade"],
    ["a malformed Upgrade", { "Upgrade": "web socket" }, "malformed-header"],
    ["no Connection", { "Connection": undefined }, "upgrade"],
    ["another Connection", { "Connection": "close" }, "upgrade"],
    ["no accept token", { "Sec-WebSocket-Accept": undefined }, "accept"],
    ["an empty accept token", { "Sec-WebSocket-Accept": "" }, "accept"],
    ["the token of another key", { "Sec-WebSocket-Accept": ACCEPT }, "accept"],
    ["two accept tokens", { "Sec-WebSocket-Accept": [ACCEPT, ACCEPT] }, "malformed-header"],
    ["a protocol that was not offered", { "Sec-WebSocket-Protocol": "c" }, "subprotocol"],
    ["a protocol in other case", { "Sec-WebSocket-Protocol": "A" }, "subprotocol"],
    ["two protocols in one field", { "Sec-WebSocket-Protocol": "a, b" }, "subprotocol"],
    ["an empty protocol", { "Sec-WebSocket-Protocol": "" }, "subprotocol"],
    ["two protocols", { "Sec-WebSocket-Protocol": ["a", "b"] }, "malformed-header"],
    ["an extension not offered", { "Sec-WebSocket-Extensions": "bar" }, "extension"],
    ["one extension too many", { "Sec-WebSocket-Extensions": ["foo", "bar"] }, "extension"],
    ["an extension in other case", { "Sec-WebSocket-Extensions": "FOO" }, "extension"],
    ["a malformed extension", { "Sec-WebSocket-Extensions": "foo;" }, "malformed-header"],
  ];
  for (const [title, change, code] of wrong) {
    it(`it refuses a response with ${title}`, () => {
      const error = causeOf(answered(change));
      if (code === "accept") {
        const isMissing = change["Sec-WebSocket-Accept"] === undefined;
        assert.equal(error.message === "The response has no Sec-WebSocket-Accept", isMissing);
      }
      assert.deepEqual([error.name, error.code, error.status], ["HandshakeError", code, 101]);
    });
  }

  for (const line of ["HTTP/1.1 200 OK", "HTTP/1.1 302 Found", "HTTP/1.1 401 Unauthorized"]) {
    it(`it takes ${line} for a refusal`, () => {
      const event = answered({}, {}, line).next();
      assert.equal(
        event?.type === "reject" && `HTTP/1.1 ${event.status} ${event.statusText}`,
        line,
      );
    });
  }

  it("it refuses any subprotocol and extension if none was offered", () => {
    const codeOf = (change: Fields) => causeOf(answered(change, {})).code;
    assert.equal(codeOf({ "Sec-WebSocket-Protocol": "a" }), "subprotocol");
    for (const name of ["foo", "__proto__", "constructor"]) {
      assert.equal(codeOf({ "Sec-WebSocket-Extensions": name }), "extension");
    }
  });

  it("it refuses a server that chose no protocol where one is required", () => {
    const asked = { protocols: ["a"], requireProtocol: true };
    const { code, message } = causeOf(answered({}, asked));
    assert.equal(code, "subprotocol");
    assert.equal(message, "The server chose none of the subprotocols offered");
    assert.equal(answered({ "Sec-WebSocket-Protocol": "a" }, asked).next()?.type, "accept");
    assert.equal(answered({}, { requireProtocol: true }).next()?.type, "accept");
  });

  it("it reports a connection that ends early as lost", () => {
    const { client } = asking();
    assert.deepEqual(read(client, "HTTP/1.1 101"), []);
    client.receive(null);
    const { code, message } = causeOf(client);
    assert.equal(code, "connection-lost");
    assert.equal(
      message,
      "The connection ended before the head of the response was complete",
    );
  });

  it("it has limits for the head", () => {
    const { client } = asking({}, { maxHeadSize: 20 });
    feed(client, "HTTP/1.1 101 Switching");
    const { code, status } = causeOf(client);
    assert.deepEqual([code, status], ["head-too-large", undefined]);
  });

  it("it refuses an upgrade by HTTP/1.0", () => {
    const { client } = asking();
    feed(client, "HTTP/1.0 101 Switching Protocols\r\n\r\n");
    assert.equal(causeOf(client).code, "http-version");
  });

  it("Endpoints agree, however their bytes are split", () => {
    fc.assert(fc.property(offsets(600), offsets(600), (requestCuts, responseCuts) => {
      const { client, bytes } = asking(ASKED);
      const server = new Endpoint("server", { extensions: [toy()] });
      assert.equal(read(server, ...cut(bytes, ...requestCuts)).length, 1);
      const answer = server.send({ type: "accept", protocol: "a" });
      const text = server.send({ type: "text", data: "Hello" });
      const events = read(client, ...cut(concat([answer, text]), ...responseCuts));
      assert.deepEqual(client.response, server.response);
      assert.deepEqual(client.agreement, { protocol: "a", extensions: [foo] });
      const [, received] = merged(events);
      assert.equal(received.type === "text" && received.data, "Hello");
    }));
  });
});

function keyOf(client: Endpoint): string {
  return headerValue(client.request!.headers, "Sec-WebSocket-Key")!;
}

function bytesOf({ method, target, version, headers }: RequestHead): Uint8Array {
  const fields = headers.map(([name, value]) => `${name}: ${value}\r\n`);
  return latin1(`${method} ${target} HTTP/${version}\r\n${fields.join("")}\r\n`);
}
