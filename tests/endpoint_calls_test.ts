import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  acceptToken,
  Endpoint,
  type HandshakeError,
  LocalProtocolError,
  type OutgoingEndpointEvent,
} from "../lib/core/mod.ts";
import { hex, latin1, utf8 } from "./bytes.ts";
import { asked, failureOf, feed, open, read, REQUEST, waiting } from "./endpoints.ts";
import { ROLES } from "./support.ts";
import { Toy } from "./toy_extension.ts";

type Make = () => Endpoint;
const client: Make = () => new Endpoint("client");

describe("Endpoint: what its caller does wrong changes nothing", () => {
  const sent: Make = () => waiting()[0];
  const server: Make = () => new Endpoint("server");
  const received: Make = () => asked({ protocols: ["a"] }).server;
  const rejecting: Make = () => {
    const { server } = asked();
    server.send({ type: "reject", hasBody: true, headers: [["Content-Length", "3"]] });
    return server;
  };
  const opened: Make = () => open().client;
  const served: Make = () => open().server;
  const begun: Make = () => {
    const { client } = open();
    client.send({ type: "text", data: "a", messageFinished: false });
    return client;
  };
  const closing: Make = () => {
    const { client } = open();
    client.send({ type: "close" });
    return client;
  };
  const data = utf8("abcd");
  const reject = (more: object) => ({ type: "reject", ...more });
  const headers = (...fields: [string, string][]) => ({ headers: fields });
  const refused: [name: string, make: Make, events: object[], error?: typeof TypeError][] = [
    ["on a client", client, [{ type: "accept" }, reject({}), { type: "close" }, { type: "ping" }]],
    ["on a client", client, [{ ...REQUEST, extensions: [{ name: "x" }] }]],
    ["on a client", client, [{ ...REQUEST, ...headers(["Host", "a"]) }], TypeError],
    ["on a client", client, [{ ...REQUEST, target: "/a b" }], TypeError],
    ["on a client", client, [{ ...REQUEST, protocols: ["a b"] }], TypeError],
    ["after the request", sent, [REQUEST, { type: "text", data: "" }, { type: "accept" }]],
    ["before a request", server, [{ type: "accept" }, REQUEST, { type: "close" }]],
    ["before an answer", received, [{ type: "accept", protocol: "b" }, {
      type: "rejectData",
      data,
    }]],
    ["before an answer", received, [{ type: "accept", extensions: [{ name: "x" }] }, REQUEST]],
    ["before an answer", received, [{ type: "accept", ...headers(["a", "b\r\n"]) }], TypeError],
    ["before an answer", received, [reject({ status: 101 }), reject({ status: 1.5 })], RangeError],
    [
      "before an answer",
      received,
      [
        reject(headers(["a", "b\r\n"])),
        reject({ statusText: "\n" }),
        reject(headers(["Content-Length", "3"])),
        reject(headers(["Transfer-Encoding", "chunked"])),
        reject({ hasBody: true, ...headers(["Transfer-Encoding", "gzip"]) }),
        reject({ hasBody: true, ...headers(["Content-Length", "a"]) }),
        reject({ hasBody: true, ...headers(["Content-Length", "1"], ["content-length", "2"]) }),
        reject({
          hasBody: true,
          ...headers(["Content-Length", "1"], ["Transfer-Encoding", "chunked"]),
        }),
        reject({ hasBody: true, status: 204 }),
      ],
      TypeError,
    ],
    [
      "while it refuses",
      rejecting,
      [
        ...[{ type: "rejectData", data }, { type: "rejectData", data: utf8("ab") }],
        ...[{ type: "accept" }, reject({}), { type: "close" }],
      ],
    ],
    ["while it refuses", rejecting, [{ type: "rejectData", data: "abc" }], TypeError],
    ["on a server, once open", served, [REQUEST, { type: "accept" }, reject({})]],
    ["once open", opened, [REQUEST, { type: "accept" }, reject({}), { type: "rejectData", data }]],
    [
      "once open",
      opened,
      [
        ...[{ type: "text", data }, { type: "text" }, { type: "binary", data: "a" }],
        ...[{ type: "ping", payload: "a" }, { type: "none" }, {}],
        { type: "text", data: 1, messageFinished: false },
      ],
      TypeError,
    ],
    [
      "once open",
      opened,
      [
        ...[{ type: "close", closeCode: 1006 }, { type: "close", closeCode: 999 }],
        ...[{ type: "ping", payload: new Uint8Array(126) }, { type: "close", reason: "a" }],
      ],
      RangeError,
    ],
    ["in a message", begun, [{ type: "binary", data }]],
    ["after its Close", closing, [{ type: "close" }, { type: "text", data: "" }, { type: "ping" }]],
  ];
  const next: [make: Make, event: OutgoingEndpointEvent][] = [
    [client, REQUEST],
    [received, { type: "accept", protocol: "a" }],
    [rejecting, { type: "rejectData", data: utf8("abc") }],
    [opened, { type: "binary", data, messageFinished: false }],
    [begun, { type: "text", data: "" }],
  ];
  for (const [name, make, events, error = LocalProtocolError] of refused) {
    for (const event of events) {
      const says = error === LocalProtocolError
        ? /^Cannot (send|choose)|^The (extension|body)/
        : undefined;
      it(`Endpoint refuses ${name} ${JSON.stringify(event)}`, () => {
        const endpoint = make();
        const { state } = endpoint;
        const thrown = { name: error.name, ...(says === undefined ? {} : { message: says }) };
        assert.throws(() => endpoint.send(event as OutgoingEndpointEvent), thrown);
        assert.equal(endpoint.state, state);
        const then = next.find(([one]) => one === make)?.[1];
        if (then !== undefined) endpoint.send(then);
      });
    }
  }

  it("Endpoint refuses input in states that allow none", () => {
    assert.throws(() => client().receive(latin1("a")), LocalProtocolError);
    const { client: ended } = open();
    assert.deepEqual(read(ended, null), [{ type: "close", closeCode: 1006, reason: "" }]);
    assert.equal(ended.state, "closed");
    for (const input of [hex("81 00"), null]) {
      assert.throws(() => ended.receive(input), LocalProtocolError);
    }
    const [early] = waiting();
    early.receive(null);
    assert.throws(() => early.receive(null), LocalProtocolError);
  });
});

describe("Endpoint: what it has before and after the handshake", () => {
  it("Endpoint checks its role and its options", () => {
    const wrong: [role: string, options: object][] = [
      ["peer", {}],
      ["client", { extension: [] }],
      ["client", { limits: { maxLine: 1 } }],
      ["client", { limits: { maxLineLength: "1" } }],
    ];
    for (const [role, options] of wrong) {
      assert.throws(() => new Endpoint(role as "client", options), { name: "TypeError" });
    }
  });

  it("Endpoint is no HEAD, and its transport goes on, until something came", () => {
    for (const role of ROLES) {
      const { isHead, endsTransport, pending, bufferedAmount } = new Endpoint(role);
      assert.deepEqual([isHead, endsTransport, pending, bufferedAmount], [false, false, false, 0]);
    }
  });

  it("Endpoint on a server ends the transport after both Close frames", () => {
    const { client, server } = open();
    const close = client.send({ type: "close" });
    assert.deepEqual([client.endsTransport, server.endsTransport], [false, false]);
    read(server, close);
    assert.equal(server.endsTransport, false);
    read(client, server.send({ type: "close" }));
    assert.deepEqual([client.state, server.state], ["closed", "closed"]);
    assert.deepEqual([client.endsTransport, server.endsTransport], [false, true]);
  });

  it("Endpoint counts and holds the input that was not read", () => {
    const server = new Endpoint("server");
    for (const chunk of ["GET / HT", "TP", null]) feed(server, chunk);
    assert.equal(server.bufferedAmount, 10);
    const failure = failureOf(server);
    assert.equal(server.bufferedAmount, 0);
    assert.throws(() => server.readRequest(), failure);
    const { client } = open();
    feed(client, hex("81"));
    assert.equal(client.bufferedAmount, 1);
  });

  it("Endpoint drops the input after a head that is wrong, but not a body", () => {
    // The second head can be parsed.
    for (const head of ["G(T / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"]) {
      const wrong = new Endpoint("server");
      for (const chunk of [head, "more"]) feed(wrong, chunk);
      failureOf(wrong);
      assert.deepEqual([wrong.bufferedAmount, wrong.takeInput()], [0, []]);
    }
    const body = new Endpoint("server");
    feed(body, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nHel");
    feed(body, "lo");
    failureOf(body);
    assert.equal(body.bufferedAmount, 5);
    assert.deepEqual(body.takeInput(), [latin1("Hel"), latin1("lo")]);
    assert.deepEqual([body.bufferedAmount, body.takeInput()], [0, []]);
  });

  it("Endpoint gives a body byte by byte", () => {
    const [client] = waiting();
    const head = "HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\n";
    const events = read(client, head, "a", "b", "c").slice(1);
    assert.deepEqual(
      events.map((event) => event.type === "rejectData" && [event.data, event.bodyFinished]),
      [[latin1("a"), false], [latin1("b"), false], [latin1("c"), true]],
    );
  });

  it("Endpoint takes heads and fields only when it waits for them", () => {
    const head = { method: "GET", target: "/", version: "1.1", headers: [["Host", "a"]] } as const;
    const message = "Cannot take a request: this end is a client";
    assert.throws(() => client().takeHead(head), { name: "LocalProtocolError", message });
    const early = { name: "LocalProtocolError", message: /the request has not been sent$/ };
    assert.throws(() => client().takeFields([[":status", "200"]]), early);
    const late = { name: "LocalProtocolError", message: /there is one$/ };
    const [http2] = [client()];
    http2.send({ ...REQUEST, scheme: "https" } as OutgoingEndpointEvent);
    http2.takeFields([[":status", "200"]]);
    assert.throws(() => http2.takeFields([[":status", "200"]]), late);
  });

  it("Endpoint keeps a single byte after a head", () => {
    const [other] = waiting();
    const { target, headers } = other.request!;
    const fields = headers.map(([name, value]) => `${name}: ${value}\r\n`).join("");
    const server = new Endpoint("server");
    read(server, `GET ${target} HTTP/1.1\r\n${fields}\r\n\x89`);
    assert.equal(server.bufferedAmount, 1);
    const accepted = new TextDecoder("latin1").decode(server.send({ type: "accept" }));
    assert.deepEqual(read(server, hex("80 00 00 00 00")), [{ type: "ping", payload: hex("") }]);
    read(other, `${accepted}\x8a`);
    assert.deepEqual(read(other, hex("00")), [{ type: "pong", payload: hex("") }]);
  });

  it("Endpoint keeps a single byte after a head that another parser has read", () => {
    const [other] = waiting();
    const bytes = other.request!;
    const server = new Endpoint("server");
    server.takeHead(bytes, hex("89"));
    assert.equal(server.bufferedAmount, 1);
    server.next();
    read(other, server.send({ type: "accept" }));
    assert.deepEqual(read(server, hex("80 00 00 00 00")), [{ type: "ping", payload: hex("") }]);
  });

  it("Endpoint refuses an extension that it has not offered", () => {
    const supporting = new Endpoint("client", { extensions: [new Toy("x", 1), new Toy("y", 2)] });
    supporting.send({ ...REQUEST, extensions: [{ name: "y" }] } as OutgoingEndpointEvent);
    for (const client of [waiting()[0], supporting]) {
      const headers = { ...upgradeFields(client), "Sec-WebSocket-Extensions": "x" };
      const fields = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
      feed(client, `HTTP/1.1 101 a\r\n${fields.join("")}\r\n`);
      assert.equal((failureOf(client).cause as HandshakeError).code, "extension");
    }
  });

  it("Endpoint.dispose closes the extensions", () => {
    const toys = [new Toy("a", 1), new Toy("a", 1)];
    const server = new Endpoint("server", { extensions: [toys[0]] });
    const other = new Endpoint("client", { extensions: [toys[1]] });
    other.dispose();
    read(server, other.send(REQUEST));
    read(other, server.send({ type: "accept" }));
    server.dispose();
    other.dispose();
    assert.deepEqual(toys.map(({ made }) => made.map(({ closed }) => closed)), [[1], [1]]);
  });
});

/** The fields of the answer to a request. */
function upgradeFields({ request }: Endpoint): Record<string, string> {
  const key = request!.headers.find(([name]) => name === "Sec-WebSocket-Key")![1];
  return { Upgrade: "websocket", Connection: "Upgrade", "Sec-WebSocket-Accept": acceptToken(key) };
}

describe("Endpoint: a head that another parser has read", () => {
  for (const field of [["X-Name", "two\r\nlines"], ["not a name", "x"]] as const) {
    it(`is refused with the field ${JSON.stringify(field)}`, () => {
      const server = new Endpoint("server");
      const headers = [["Host", "localhost"], field] as const;
      server.takeHead({ method: "GET", target: "/", version: "1.1", headers });
      assert.throws(
        () => server.next(),
        (error: Error) => {
          const { code, status } = error.cause as { code?: string; status?: number };
          return code === "malformed-head" && status === 400;
        },
      );
    });
  }
});
