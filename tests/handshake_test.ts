import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  acceptToken,
  ClientHandshake,
  type ClientHandshakeOptions,
  type ExtensionHeader,
  headerValue,
  parseRequestHead,
  type RawHeaders,
  type RequestHead,
  ServerHandshake,
} from "../lib/core/mod.ts";
import { checkRequest, refusalHeaders } from "../lib/core/handshake.ts";
import { concat, cut, cuts, hex, latin1, pattern } from "./bytes.ts";
import { fc, offsets } from "./property.ts";

/** The example of RFC 6455 §1.3. */
const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

type Fields = Record<string, string | string[] | undefined>;

/** Fields with some of them changed; undefined leaves one out, an array repeats it. */
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
    ["Content-Length 0", { "Content-Length": "0" }],
    ["the name of a field in other case", { "Host": undefined, "HOST": "a" }],
  ];
  for (const [title, change] of taken) {
    it(`checkRequest takes a request with ${title}`, () => {
      const empty = { key: KEY, protocols: [], extensions: [], origin: undefined };
      assert.deepEqual(checkRequest(request(change)), empty);
    });
  }

  /** One thing wrong each. */
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

  it("refusalHeaders tells the client what would have been taken", () => {
    assert.deepEqual(refusalHeaders({ status: 405, code: "method" }), [["Allow", "GET"]]);
    assert.deepEqual(refusalHeaders({ status: 426, code: "version" }), [
      ["Upgrade", "websocket"],
      ["Sec-WebSocket-Version", "13"],
    ]);
    assert.deepEqual(refusalHeaders({ status: 400, code: "key" }), []);
  });
});

describe("ServerHandshake", () => {
  /** A server that has read and checked the request. */
  function checked(change: Fields = {}): ServerHandshake {
    const server = new ServerHandshake();
    server.receive(bytesOf(request(change)));
    server.check();
    return server;
  }

  it("ServerHandshake answers the request of RFC 6455 §1.3", () => {
    const { bytes, response } = checked().accept();
    const text = `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n` +
      `Connection: Upgrade\r\nSec-WebSocket-Accept: ${ACCEPT}\r\n\r\n`;
    assert.equal(String.fromCharCode(...bytes), text);
    assert.equal(response.status, 101);
  });

  it("ServerHandshake answers with protocol, extensions and fields of the caller", () => {
    const server = checked({ "Sec-WebSocket-Protocol": "a, b" });
    const extensions = [{ name: "foo", parameters: [["x", "1"]] as [string, string][] }];
    const headers: RawHeaders = [["Set-Cookie", "a=b"], ["Set-Cookie", "c=d"]];
    const { response } = server.accept({ protocol: "b", extensions, headers });
    assert.deepEqual(response.headers.slice(3), [
      ["Sec-WebSocket-Protocol", "b"],
      ["Sec-WebSocket-Extensions", "foo; x=1"],
      ...headers,
    ]);
  });

  it("ServerHandshake.accept refuses a protocol that was not offered", () => {
    const expected = (received: string) => ({
      name: "LocalProtocolError",
      message: `Expected one of the subprotocols offered (${received}), received c`,
    });
    const offered = checked({ "Sec-WebSocket-Protocol": "a, b" });
    assert.throws(() => offered.accept({ protocol: "c" }), expected("a, b"));
    assert.throws(() => checked().accept({ protocol: "c" }), expected("none"));
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
    it(`ServerHandshake.accept refuses the field ${JSON.stringify(field)}`, () => {
      assert.throws(() => checked().accept({ headers: [field] }), { name: "TypeError" });
    });
  }

  it("ServerHandshake keeps what comes behind the head, wherever the input is cut", () => {
    const frames = hex("81 85 37 fa 21 3d 7f 9f 4d 51 58");
    const input = concat([bytesOf(request({})), frames]);
    for (const chunks of cuts(input)) {
      const server = new ServerHandshake();
      const reads = [];
      while (reads.at(-1) === undefined) reads.push(server.receive(chunks.shift()!));
      assert.deepEqual(reads.at(-1), request({}));
      assert.deepEqual(concat([server.trailing, ...chunks]), frames);
    }
  });

  it("ServerHandshake takes a head that was read elsewhere, once", () => {
    const read = new ServerHandshake();
    const head = read.receive(bytesOf(request({})))!;
    read.check();
    const taking = new ServerHandshake();
    taking.takeHead(head, latin1("early"));
    taking.check();
    assert.deepEqual(taking.accept(), read.accept());
    assert.equal(taking.receive(latin1(" bird")), undefined);
    assert.deepEqual(taking.trailing, latin1("early bird"));
    for (const handshake of [read, taking]) {
      assert.throws(() => handshake.takeHead(head), { name: "LocalProtocolError" });
    }
  });

  it("ServerHandshake says that the connection was lost where it ends early", () => {
    for (const before of [hex(""), latin1("GET / HT")]) {
      const server = new ServerHandshake();
      server.receive(before);
      const message = "Expected the head of the request, the connection ended before it was whole";
      assert.throws(() => server.receive(null), { code: "connection-lost", message });
    }
  });

  it("ServerHandshake passes its limits on", () => {
    const server = new ServerHandshake({ maxHeaderCount: 4 });
    assert.throws(() => server.receive(bytesOf(request({}))), { code: "head-too-large" });
  });
});

describe("ClientHandshake", () => {
  const OPTIONS: ClientHandshakeOptions = { host: "example.com:8080", target: "/chat?a=1" };
  const foo: ExtensionHeader = { name: "foo", parameters: [["x", undefined]] };

  it("ClientHandshake sends a request that checkRequest takes", () => {
    const protocols = ["a", "b"];
    const client = new ClientHandshake({
      ...OPTIONS,
      protocols,
      extensions: [foo],
      headers: [["Origin", "https://example.com"], ["Cookie", "a=b"]],
    });
    const bytes = client.send();
    const parsed = parseRequestHead(bytes);
    assert.deepEqual(parsed, { head: client.request, length: bytes.length });
    const { method, target, version, headers } = client.request;
    assert.deepEqual([method, target, version], ["GET", "/chat?a=1", "1.1"]);
    assert.equal(headerValue(headers, "Host"), "example.com:8080");
    assert.equal(headerValue(headers, "Cookie"), "a=b");
    const { key, ...asked } = checkRequest(client.request);
    assert.equal(atob(key).length, 16);
    assert.deepEqual(asked, { protocols, extensions: [foo], origin: "https://example.com" });
  });

  it("ClientHandshake takes a fresh key each time", () => {
    const keys = Array.from({ length: 100 }, () => keyOf(new ClientHandshake(OPTIONS)));
    assert.equal(new Set(keys).size, 100);
  });

  const refused: readonly [title: string, Partial<ClientHandshakeOptions>][] = [
    ["a field that it writes by itself", { headers: [["sec-websocket-key", KEY]] }],
    ["another Host", { headers: [["HOST", "a"]] }],
    ["a Content-Length", { headers: [["Content-Length", "1"]] }],
    ["a protocol that is no token", { protocols: ["a b"] }],
    ["an empty protocol", { protocols: [""] }],
    ["a line break in a protocol", { protocols: ["a\r\nb"] }],
    ["an extension that is no token", { extensions: [{ name: "a,b", parameters: [] }] }],
    ["a line break in the host", { host: "a\r\nB: c" }],
    ["a line break in the target", { target: "/\r\nB: c" }],
    ["a blank in the target", { target: "/ HTTP/1.1" }],
    ["a line break in a value", { headers: [["A", "b\r\nC: d"]] }],
    ["a line break in a name", { headers: [["A: b\r\nC", "d"]] }],
  ];
  for (const [title, change] of refused) {
    it(`ClientHandshake refuses ${title}`, () => {
      const send = () => new ClientHandshake({ ...OPTIONS, ...change }).send();
      assert.throws(send, { name: "TypeError" });
    });
  }

  it("ClientHandshake does not show the value that it refuses", () => {
    const secret = { headers: [["Authorization", "Bearer SECRET\n"]] as [string, string][] };
    const send = () => new ClientHandshake({ ...OPTIONS, ...secret }).send();
    assert.throws(send, ({ message }) => /Authorization/.test(message) && !/SECRET/.test(message));
  });

  const RESPONSE: Fields = { "Upgrade": "websocket", "Connection": "Upgrade" };
  const ASKED = { protocols: ["a", "b"], extensions: [foo] };

  /** What the client makes of a response, whose right accept token is added unless it has one. */
  function check(
    change: Fields,
    asked: Partial<ClientHandshakeOptions> = ASKED,
    line = "HTTP/1.1 101 Switching Protocols",
  ) {
    const client = new ClientHandshake({ ...OPTIONS, ...asked });
    const accept = acceptToken(keyOf(client));
    const fields = headers({ ...RESPONSE, "Sec-WebSocket-Accept": accept }, change);
    client.receive(latin1(`${line}\r\n${fields.map(([n, v]) => `${n}: ${v}\r\n`).join("")}\r\n`));
    return client.check();
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
    it(`ClientHandshake.check takes a response with ${title}`, () => {
      assert.deepEqual(check(change), { protocol, extensions });
    });
  }

  const wrong: readonly [title: string, Fields, code: string][] = [
    ["no Upgrade", { "Upgrade": undefined }, "upgrade"],
    ["another Upgrade", { "Upgrade": "h2c" }, "upgrade"],
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
    it(`ClientHandshake.check refuses a response with ${title}`, () => {
      assert.throws(() => check(change), { name: "HandshakeError", code });
    });
  }

  for (const line of ["HTTP/1.1 200 OK", "HTTP/1.1 302 Found", "HTTP/1.1 401 Unauthorized"]) {
    it(`ClientHandshake.check refuses ${line}`, () => {
      const message = `Expected status 101, received ${line.slice(9)}`;
      assert.throws(() => check({}, {}, line), { code: "status", message });
    });
  }

  it("ClientHandshake.check refuses any protocol and extension where none was offered", () => {
    const code = (code: string) => ({ name: "HandshakeError", code });
    assert.throws(() => check({ "Sec-WebSocket-Protocol": "a" }, {}), code("subprotocol"));
    assert.throws(() => check({ "Sec-WebSocket-Extensions": "foo" }, {}), code("extension"));
    for (const name of ["__proto__", "constructor"]) {
      assert.throws(() => check({ "Sec-WebSocket-Extensions": name }, {}), code("extension"));
    }
  });

  it("ClientHandshake.check refuses a server that chose no protocol where one is required", () => {
    const asked = { protocols: ["a"], requireProtocol: true };
    const message = "Expected one of the subprotocols offered (a), received none";
    assert.throws(() => check({}, asked), { code: "subprotocol", message });
    assert.equal(check({ "Sec-WebSocket-Protocol": "a" }, asked).protocol, "a");
    assert.equal(check({}, { requireProtocol: true }).protocol, "");
  });

  it("ClientHandshake says that the connection was lost where it ends early", () => {
    const client = new ClientHandshake(OPTIONS);
    client.receive(latin1("HTTP/1.1 101"));
    const message = "Expected the head of the response, the connection ended before it was whole";
    assert.throws(() => client.receive(null), { code: "connection-lost", message });
  });

  it("ClientHandshake passes its limits on", () => {
    const client = new ClientHandshake({ ...OPTIONS, limits: { maxHeadSize: 20 } });
    assert.throws(() => client.receive(latin1("HTTP/1.1 101 Switching")), {
      code: "head-too-large",
    });
  });

  it("ClientHandshake and ServerHandshake keep what is given behind the head", () => {
    const client = new ClientHandshake(OPTIONS);
    const server = new ServerHandshake();
    server.receive(client.send());
    assert.equal(server.receive(pattern(5)), undefined);
    assert.deepEqual(server.trailing, pattern(5));
    server.check();
    client.receive(server.accept().bytes);
    const chunk = pattern(7);
    assert.equal(client.receive(chunk), undefined);
    assert.deepEqual(client.trailing, pattern(7));
    // A buffer that is used again.
    chunk.fill(9);
    client.receive(chunk);
    client.receive(null);
    assert.deepEqual(client.trailing, concat([pattern(7), chunk]));
  });

  it("ClientHandshake and ServerHandshake check and accept nothing before the head is there", () => {
    assert.throws(() => new ClientHandshake(OPTIONS).check(), { name: "LocalProtocolError" });
    assert.throws(() => new ServerHandshake().check(), { name: "LocalProtocolError" });
    assert.throws(() => new ServerHandshake().accept(), { name: "LocalProtocolError" });
  });

  it("ClientHandshake.check() refuses an upgrade by HTTP/1.0", () => {
    const client = new ClientHandshake(OPTIONS);
    client.receive(latin1("HTTP/1.0 101 Switching Protocols\r\n\r\n"));
    assert.throws(() => client.check(), { code: "http-version" });
  });

  it("ClientHandshake and ServerHandshake agree, wherever their bytes are cut", () => {
    fc.assert(fc.property(offsets(600), offsets(600), (requestCuts, responseCuts) => {
      const client = new ClientHandshake({ ...OPTIONS, ...ASKED });
      const server = new ServerHandshake();
      for (const chunk of cut(client.send(), ...requestCuts)) server.receive(chunk);
      const { protocols: [protocol], extensions } = server.check();
      const { bytes, response } = server.accept({ protocol, extensions });
      const chunks = cut(concat([bytes, pattern(9)]), ...responseCuts);
      let read;
      while (read === undefined) read = client.receive(chunks.shift()!);
      assert.deepEqual(read, response);
      assert.deepEqual(client.check(), { protocol: "a", extensions: [foo] });
      assert.deepEqual(concat([client.trailing, ...chunks]), pattern(9));
    }));
  });
});

function keyOf(client: ClientHandshake): string {
  return headerValue(client.request.headers, "Sec-WebSocket-Key")!;
}

function bytesOf({ method, target, version, headers }: RequestHead): Uint8Array {
  const fields = headers.map(([name, value]) => `${name}: ${value}\r\n`);
  return latin1(`${method} ${target} HTTP/${version}\r\n${fields.join("")}\r\n`);
}
