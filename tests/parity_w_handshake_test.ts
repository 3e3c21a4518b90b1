/** Rows W12 to W30, and W53 to W55: the opening handshake, and its errors. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  acceptExtensions,
  acceptToken,
  Endpoint,
  type EndpointEvent,
  finalizeExtensions,
  HandshakeError,
  LocalProtocolError,
  offerExtensions,
  type OutgoingEndpointEvent,
  RemoteProtocolError,
  serializeExtensions,
} from "../lib/core/mod.ts";
import { concat, latin1, single, utf8 } from "./bytes.ts";
import { asked, failureOf, open, read, REQUEST, waiting } from "./endpoints.ts";
import { field, upgradeRequest, upgradeResponse } from "./support.ts";
import { Toy } from "./toy_extension.ts";

const KEY = "dGhlIHNhbXBsZSBub25jZQ==";

const text = (bytes: Uint8Array) => String.fromCharCode(...bytes);

/** A server that has received this request. */
function receiving(fields?: Record<string, string | null>, line?: string): Endpoint {
  const server = new Endpoint("server");
  server.receive(latin1(upgradeRequest(fields, line)));
  return server;
}

/** The events of a client that has sent a request, and receives this answer. */
function answered(bytes: Uint8Array | string): EndpointEvent[] {
  const [client] = waiting();
  return read(client, bytes);
}

describe("wsproto: the handshake", () => {
  it("W12 W16 W17 a handshake usable by itself: bytes and their end in, bytes out", () => {
    const client = new Endpoint("client");
    const server = new Endpoint("server");
    const request = client.send({ type: "request", host: "a", target: "/b", protocols: ["c"] });
    assert.equal(read(server, ...single(request)).length, 1);
    assert.deepEqual(server.offer!.protocols, ["c"]);
    assert.equal(
      read(client, ...single(server.send({ type: "accept", protocol: "c" }))).length,
      1,
    );
    assert.deepEqual(client.agreement, { protocol: "c", extensions: [] });
    for (const end of [waiting()[0], new Endpoint("server")]) {
      end.receive(null);
      assert.equal((failureOf(end).cause as HandshakeError).code, "connection-lost");
    }
    const misplaced: [end: Endpoint, event: OutgoingEndpointEvent][] = [
      [new Endpoint("client"), { type: "accept" }],
      [new Endpoint("server"), REQUEST],
      [waiting()[0], REQUEST],
      [open().server, { type: "accept" }],
    ];
    for (const [end, event] of misplaced) assert.throws(() => end.send(event), LocalProtocolError);
  });

  it("W13 it gives the connection, and a local error before there is one", () => {
    const { client, server } = asked();
    for (const end of [client, server]) assert.throws(() => end.protocol, LocalProtocolError);
    const early = new Endpoint("server");
    assert.throws(() => early.send({ type: "accept" }), LocalProtocolError);
    read(client, server.send({ type: "accept" }));
    for (const end of [client, server]) assert.equal(end.protocol.state, "open");
  });

  it("W14 W18 its events, and its state", () => {
    const { client, server, event } = asked();
    assert.equal(event.type, "request");
    assert.deepEqual([client.state, server.state], ["connecting", "connecting"]);
    const [accept] = read(client, server.send({ type: "accept" }));
    assert.equal(accept.type, "accept");
    assert.deepEqual([client.state, server.state], ["open", "open"]);
  });

  it("W15 it begins with a request that was parsed elsewhere", () => {
    const server = new Endpoint("server");
    const fields = { Host: "a", "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13" };
    const headers = Object.entries({ ...fields, Upgrade: "websocket", Connection: "Upgrade" });
    server.takeHead({ method: "GET", target: "/path", version: "1.1", headers });
    const [event] = [...server.events()];
    assert.ok(event.type === "request");
    assert.deepEqual([event.host, event.target], ["a", "/path"]);
    const response = text(server.send({ type: "accept" }));
    assert.equal(field(response, "Sec-WebSocket-Accept"), acceptToken(KEY));
  });

  it("W19 a client reads what the server accepted; what it did not offer is the server's error", () => {
    const supported = [new Toy("a", 1), new Toy("b", 1)];
    const agreed = finalizeExtensions([{ name: "b", parameters: [] }], supported);
    assert.deepEqual(agreed.map(({ name }) => name), ["b"]);
    const [client, request] = waiting({ extensions: supported });
    client.receive(latin1(upgradeResponse(request, { "Sec-WebSocket-Extensions": "c" })));
    const error = failureOf(client);
    assert.equal((error.cause as HandshakeError).code, "extension");
    // A client cannot refuse the answer of a server, so there is no event to send.
    assert.equal(error.event, undefined);
  });

  it("W20 a server answers the offers with the value of a header, or with none", () => {
    const offers = [
      { name: "a", parameters: [["level", "9"]] as const },
      { name: "a", parameters: [["level", "1"]] as const },
      { name: "b", parameters: [] },
    ];
    const answer = (...supported: Toy[]) =>
      serializeExtensions(acceptExtensions(offers, supported).headers);
    assert.equal(answer(new Toy("a", 1, { level: "1" })), "a; level=1");
    assert.equal(answer(new Toy("b", 1), new Toy("a", 1)), "b, a; level=9");
    assert.equal(answer(new Toy("c", 1)), "");
    const server = receiving({ "Sec-WebSocket-Extensions": "a; level=9" });
    server.next();
    assert.equal(
      field(text(server.send({ type: "accept" })), "Sec-WebSocket-Extensions"),
      undefined,
    );
  });

  it("W21 what a server checks, and the status that it refuses with", () => {
    const version = "Sec-WebSocket-Version";
    const checks: [status: number, fields: Record<string, string | null>, line?: string][] = [
      [405, {}, "POST / HTTP/1.1"],
      [426, { Connection: "keep-alive" }],
      [426, { Upgrade: null }],
      [400, { [version]: null }],
      [426, { [version]: "8" }],
      [400, { "Sec-WebSocket-Key": null }],
      [400, { "Sec-WebSocket-Key": "c2hvcnQ=" }],
      [400, { Host: null }],
    ];
    for (const [status, fields, line] of checks) {
      const { event } = failureOf(receiving(fields, line));
      assert.ok(event?.type === "reject");
      assert.equal(event.status, status);
      const offered = event.headers.find(([name]) => name === version)?.[1];
      assert.equal(offered, status === 426 ? "13" : undefined);
    }
    assert.equal(receiving({ Connection: "keep-alive, upgrade" }).next()?.type, "request");
  });

  it("W22 what a client checks", () => {
    const checks: [code: string, fields: Record<string, string | null>][] = [
      ["upgrade", { Connection: null }],
      ["upgrade", { Upgrade: "h2c" }],
      ["accept", { "Sec-WebSocket-Accept": acceptToken(KEY) }],
      ["subprotocol", { "Sec-WebSocket-Protocol": "b" }],
      ["extension", { "Sec-WebSocket-Extensions": "b" }],
    ];
    for (const [code, fields] of checks) {
      const [client, request] = waiting();
      client.receive(latin1(upgradeResponse(request, fields)));
      assert.equal((failureOf(client).cause as HandshakeError).code, code);
      assert.equal(client.state, "closed");
    }
    const [client, request] = waiting();
    assert.equal(read(client, upgradeResponse(request))[0].type, "accept");
  });

  it("W23 accepting a subprotocol that was not offered is a local error, which changes nothing", () => {
    const { client, server } = asked({ protocols: ["a"] } as Partial<OutgoingEndpointEvent>);
    assert.throws(() => server.send({ type: "accept", protocol: "b" }), LocalProtocolError);
    assert.equal(server.state, "connecting");
    const [accept] = read(client, server.send({ type: "accept", protocol: "a" }));
    assert.equal(accept.type === "accept" && accept.protocol, "a");
  });
});

describe("wsproto: the events of the handshake", () => {
  it("W25 a request: host, target, subprotocols, extensions, extra headers", () => {
    const extensions = [new Toy("x", 1, { offers: [[["level", "1"]], []] })];
    const client = new Endpoint("client", { extensions });
    const request = {
      type: "request",
      host: "example.com:8080",
      target: "/chat?room=1",
      protocols: ["a", "b"],
      headers: [["Cookie", "c=d"], ["Origin", "https://example.com"]],
    } as const;
    const [event] = read(new Endpoint("server"), client.send(request));
    assert.deepEqual(event, { ...request, extensions: offerExtensions(extensions) });
  });

  it("W26 an acceptance: subprotocol, extensions, extra headers", () => {
    const extensions = [new Toy("x", 1)];
    const request = { protocols: ["a"] } as Partial<OutgoingEndpointEvent>;
    const { client, server } = asked(request, { extensions });
    const accept = { type: "accept", protocol: "a", headers: [["Set-Cookie", "c=d"]] } as const;
    const [event] = read(client, server.send({ ...accept, extensions }));
    assert.deepEqual(event, { ...accept, extensions: [{ name: "x", parameters: [] }] });
  });

  it("W27 W29 W30 a refusal without body: status 400 by itself, headers, Content-Length: 0", () => {
    const bytes = asked().server.send({ type: "reject" });
    assert.match(text(bytes), /^HTTP\/1\.1 400 \r\n/);
    assert.equal(field(text(bytes), "Content-Length"), "0");
    const reject = {
      type: "reject",
      status: 403,
      statusText: "No",
      headers: [["X-A", "1"]],
    } as const;
    const [event, ...more] = answered(asked().server.send(reject));
    assert.ok(event.type === "reject");
    assert.deepEqual([event.status, event.statusText, event.hasBody], [403, "No", false]);
    assert.deepEqual([event.headers[0], more], [["X-A", "1"], []]);
  });

  it("W28 W29 W30 a refusal with a body, in pieces, framed as its headers say", () => {
    for (
      const headers of [[["Content-Length", "6"]], [["Transfer-Encoding", "chunked"]]] as const
    ) {
      const { client, server } = asked();
      const reject = { type: "reject", status: 503, headers, hasBody: true } as const;
      const sent = [server.send(reject)];
      assert.equal(field(text(sent[0]), headers[0][0]), headers[0][1]);
      assert.deepEqual(read(client, sent[0]).map(({ type }) => type), ["reject"]);
      const body: Uint8Array[] = [];
      let finished = false;
      for (const [data, bodyFinished] of [["abc", false], ["def", true]] as const) {
        assert.deepEqual([client.state, server.state], ["rejecting", "rejecting"]);
        for (
          const event of read(
            client,
            server.send({ type: "rejectData", data: utf8(data), bodyFinished }),
          )
        ) {
          assert.ok(event.type === "rejectData" && !finished);
          body.push(event.data);
          finished = event.bodyFinished;
        }
      }
      assert.equal(text(concat(body)), "abcdef");
      assert.deepEqual([finished, client.state, server.state], [true, "closed", "closed"]);
    }
  });
});

describe("wsproto: errors", () => {
  it("W54 LocalProtocolError: the caller did wrong, and nothing changed", () => {
    const { client } = open();
    client.send({ type: "text", data: "a", messageFinished: false });
    assert.throws(() => client.send({ type: "binary", data: utf8("b") }), (error: Error) => {
      assert.ok(error instanceof LocalProtocolError && !(error instanceof RemoteProtocolError));
      return error.name === "LocalProtocolError";
    });
    assert.equal(client.state, "open");
    assert.equal(client.send({ type: "text", data: "b" })[0], 0x80, "the message goes on");
  });

  it("W55 RemoteProtocolError: the peer did wrong; the event to send, or none", () => {
    const server = receiving({ "Sec-WebSocket-Version": "8" });
    const { event, cause } = failureOf(server);
    assert.ok(event?.type === "reject" && cause instanceof HandshakeError);
    assert.equal(cause.code, "version");
    const [reject] = answered(server.send(event));
    assert.equal(reject.type === "reject" && reject.status, 426);
    const { server: bad } = open();
    bad.receive(utf8("no frame"));
    assert.equal(failureOf(bad).event?.type, "close");
    const [client] = waiting();
    client.receive(utf8("no response"));
    client.receive(null);
    assert.equal(failureOf(client).event, undefined);
  });
});
