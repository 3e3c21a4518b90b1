import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Endpoint, HandshakeError, LocalProtocolError, type RawHeaders } from "../lib/core/mod.ts";
import {
  checkHttp2Request,
  checkResponse,
  type HandshakeOffer,
  http2Request,
  http2RequestHead,
  type Http2RequestOptions,
  http2Response,
  http2ResponseFields,
  http2ResponseHead,
  refusalHeaders,
} from "../lib/core/handshake.ts";

const TARGET: Http2RequestOptions = {
  scheme: "https",
  authority: "example.com",
  path: "/chat?a=b",
};

/** The fields with some of them replaced or removed. */
function change(fields: RawHeaders, changes: Record<string, string | string[] | null>): RawHeaders {
  const kept = fields.filter(([name]) => !(name in changes));
  const added = Object.entries(changes).flatMap(([name, value]) =>
    value === null ? [] : [value].flat().map((one): [string, string] => [name, one])
  );
  return [...kept, ...added];
}

/** The error that a call throws. */
function thrown(call: () => unknown): HandshakeError {
  try {
    call();
  } catch (error) {
    assert.ok(error instanceof HandshakeError, `${error}`);
    return error;
  }
  throw new assert.AssertionError({ message: "Expected an error, received none" });
}

describe("The request over HTTP/2", () => {
  it("http2Request makes an extended CONNECT, in lower case, without a key", () => {
    const fields = http2Request({
      ...TARGET,
      protocols: ["a", "b"],
      extensions: [{ name: "x", parameters: [["y", "1"]] }],
      headers: [["Origin", "https://a"]],
    });
    assert.deepEqual(fields, [
      [":method", "CONNECT"],
      [":protocol", "websocket"],
      [":scheme", "https"],
      [":authority", "example.com"],
      [":path", "/chat?a=b"],
      ["sec-websocket-version", "13"],
      ["sec-websocket-protocol", "a, b"],
      ["sec-websocket-extensions", "x; y=1"],
      ["origin", "https://a"],
    ]);
    assert.deepEqual(checkHttp2Request(fields), {
      protocols: ["a", "b"],
      extensions: [{ name: "x", parameters: [["y", "1"]] }],
      origin: "https://a",
    });
  });

  const wrong: [what: string, options: Partial<Http2RequestOptions>][] = [
    ["a path that is none", { path: "chat" }],
    ["a whole URL", { path: "https://example.com/" }],
    ["an authority with a blank", { authority: "a b" }],
    ["a path with a blank", { path: "/a b" }],
    ["a subprotocol that is no token", { protocols: ["a b"] }],
    ["a field of its own", { headers: [["Sec-WebSocket-Version", "13"]] }],
    ["a pseudo-header field", { headers: [[":path", "/"]] }],
    ["a name that is none", { headers: [["a b", "c"]] }],
    ["a line break in a value", { headers: [["a", "b\r\nc: d"]] }],
    ...["Connection", "Keep-Alive", "Transfer-Encoding", "TE", "Upgrade", "Proxy-Connection"].map((
      name,
    ): [string, Partial<Http2RequestOptions>] => [name, { headers: [[name, "a"]] }]),
  ];
  for (const [what, options] of wrong) {
    it(`http2Request refuses ${what}`, () => {
      assert.throws(() => http2Request({ ...TARGET, ...options }), TypeError);
    });
  }

  const faults: [what: string, changes: Record<string, string | string[] | null>, unknown[]][] = [
    ["GET", { ":method": "GET", ":protocol": null }, [405, "method"]],
    ["POST", { ":method": "POST" }, [405, "method"]],
    ["no method", { ":method": null }, [405, "method"]],
    ["a plain CONNECT", { ":protocol": null }, [501, "not-upgrade"]],
    ["another protocol", { ":protocol": "connect-udp" }, [501, "not-upgrade"]],
    ["another case of it", { ":protocol": "WebSocket" }, [501, "not-upgrade"]],
    ["two protocols", { ":protocol": ["websocket", "websocket"] }, [400, "malformed-header"]],
    ["no scheme", { ":scheme": null }, [400, "malformed-head"]],
    ["no path", { ":path": null }, [400, "malformed-head"]],
    ["another Host", { host: "other" }, [400, "host"]],
    ["one of two Hosts that differs", { host: ["example.com", "other"] }, [400, "host"]],
    ["a Host with no valid port", { host: "example.com:99999" }, [400, "host"]],
    ["a target that is a URL", { ":path": "https://example.com/" }, [400, "malformed-head"]],
    ["a value with a line break", { a: "b\r\nc" }, [400, "malformed-head"]],
    ["no authority", { ":authority": null }, [400, "host"]],
    ["two Hosts alone", { ":authority": null, host: ["a", "b"] }, [400, "host"]],
    ["a body", { "content-length": "1" }, [400, "body"]],
    ["no version", { "sec-websocket-version": null }, [400, "version"]],
    ["version 8", { "sec-websocket-version": "8" }, [400, "version"]],
    ["a subprotocol twice", { "sec-websocket-protocol": "a, a" }, [400, "malformed-header"]],
    ["malformed extensions", { "sec-websocket-extensions": "=" }, [400, "malformed-header"]],
  ];
  for (const [what, changes, expected] of faults) {
    it(`checkHttp2Request refuses ${what}`, () => {
      const { status, code } = thrown(() =>
        checkHttp2Request(change(http2Request(TARGET), changes))
      );
      assert.deepEqual([status, code], expected);
    });
  }

  it("checkHttp2Request takes a Host in the place of :authority", () => {
    const fields = change(http2Request(TARGET), { ":authority": null, host: "a" });
    assert.deepEqual(checkHttp2Request(fields), {
      protocols: [],
      extensions: [],
      origin: undefined,
    });
    assert.deepEqual(http2RequestHead(fields).headers[0], ["host", "a"]);
  });

  it("checkHttp2Request takes a Host that repeats :authority, with the port of the scheme", () => {
    for (const host of ["example.com", "EXAMPLE.com", "example.com:443"]) {
      checkHttp2Request(change(http2Request(TARGET), { host }));
    }
    const plain = http2Request({ ...TARGET, scheme: "http" });
    checkHttp2Request(change(plain, { host: "example.com:80" }));
    const other = change(plain, { host: "example.com:443" });
    assert.equal(thrown(() => checkHttp2Request(other)).code, "host");
    checkHttp2Request(
      change(http2Request({ ...TARGET, authority: "example.com:443" }), { host: "example.com" }),
    );
  });

  it("http2RequestHead is the request as HTTP/1.1 would have it", () => {
    const fields = change(http2Request(TARGET), { host: "other", "x-a": ["1", "2"] });
    assert.deepEqual(http2RequestHead(fields), {
      method: "GET",
      target: "/chat?a=b",
      version: "2.0",
      headers: [
        ["host", "example.com"],
        ["sec-websocket-version", "13"],
        ["x-a", "1"],
        ["x-a", "2"],
      ],
    });
    assert.equal(http2RequestHead([]).method, "");
    const plain: RawHeaders = [[":method", "POST"]];
    assert.deepEqual(http2RequestHead(plain), {
      method: "POST",
      target: "/",
      version: "2.0",
      headers: [],
    });
  });
});

const checkAnswer = (fields: RawHeaders, offer: HandshakeOffer) =>
  checkResponse(http2ResponseHead(fields), "", offer);

describe("The response over HTTP/2", () => {
  const offer = { protocols: ["a"], extensions: [{ name: "x", parameters: [] }] };

  it("http2Response answers the offer, and checkResponse takes the answer", () => {
    const fields = http2Response({
      protocol: "a",
      extensions: offer.extensions,
      headers: [["X-A", "b"]],
    });
    assert.deepEqual(fields, [
      [":status", "200"],
      ["sec-websocket-protocol", "a"],
      ["sec-websocket-extensions", "x"],
      ["x-a", "b"],
    ]);
    assert.deepEqual(checkAnswer(fields, offer), {
      protocol: "a",
      extensions: offer.extensions,
    });
    assert.deepEqual(http2ResponseHead(fields).headers, fields.slice(1));
  });

  it("The server's endpoint refuses subprotocols that were not offered and fields of HTTP/1.1", () => {
    const server = new Endpoint("server");
    server.takeFields(http2Request(TARGET));
    assert.equal(server.next()?.type, "request");
    const accept = { type: "accept" } as const;
    assert.throws(() => server.send({ ...accept, protocol: "b" }), LocalProtocolError);
    assert.throws(() => server.send({ ...accept, headers: [["Connection", "a"]] }), TypeError);
    server.send(accept);
    assert.equal(server.state, "open");
  });

  it("The server's endpoint refuses a CONNECT with 3xx to 5xx, and other requests with 2xx too", () => {
    for (const [method, isAllowed] of [["CONNECT", false], ["GET", true]] as const) {
      const server = new Endpoint("server");
      server.takeFields(change(http2Request(TARGET), { ":method": method }));
      const send = () => server.send({ type: "reject", status: 200 });
      if (isAllowed) send();
      else assert.throws(send, RangeError);
      assert.equal(server.state, isAllowed ? "closed" : "connecting");
    }
  });

  for (const status of [200, 201, 299]) {
    it(`checkResponse over HTTP/2 takes ${status}`, () => {
      const fields: RawHeaders = [[":status", `${status}`]];
      assert.deepEqual(checkAnswer(fields, {}), { protocol: "", extensions: [] });
    });
  }

  const faults: [what: string, fields: RawHeaders, code: string][] = [
    ["no status", [], "status"],
    ["101", [[":status", "101"]], "status"],
    ["302", [[":status", "302"]], "status"],
    ["403", [[":status", "403"]], "status"],
    ["another subprotocol", [[":status", "200"], ["sec-websocket-protocol", "b"]], "subprotocol"],
    ["two subprotocols", [[":status", "200"], ["sec-websocket-protocol", "a, a"]], "subprotocol"],
  ];
  for (const [what, fields, code] of faults) {
    it(`checkResponse over HTTP/2 refuses ${what}`, () => {
      const error = thrown(() => checkAnswer(fields, offer));
      assert.equal(error.code, code);
      if (code === "status") assert.match(error.message, / instead of 200$/);
    });
  }

  it("checkResponse over HTTP/2 misses a subprotocol where one is required", () => {
    const fields: RawHeaders = [[":status", "200"]];
    const required = { ...offer, requireProtocol: true };
    assert.equal(thrown(() => checkAnswer(fields, required)).code, "subprotocol");
  });

  it("http2ResponseFields leaves out what belongs to a connection", () => {
    const headers: RawHeaders = [
      ["Connection", "close"],
      ["Transfer-Encoding", "chunked"],
      ["Keep-Alive", "a"],
      ["Upgrade", "b"],
      ["Set-Cookie", "c"],
      ["Set-Cookie", "d"],
    ];
    const head = { version: "1.1", status: 403, statusText: "Forbidden", headers };
    assert.deepEqual(http2ResponseFields(head), [
      [":status", "403"],
      ["set-cookie", "c"],
      ["set-cookie", "d"],
    ]);
  });

  it("refusalHeaders tells over HTTP/2 what the client may do", () => {
    const headers = (code: "method" | "version" | "body") =>
      refusalHeaders(new HandshakeError("", code), "2.0");
    assert.deepEqual(headers("method"), [["allow", "CONNECT"]]);
    assert.deepEqual(headers("version"), [["sec-websocket-version", "13"]]);
    assert.deepEqual(headers("body"), []);
  });
});
