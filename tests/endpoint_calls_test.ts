import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Endpoint, LocalProtocolError, type OutgoingEndpointEvent } from "../lib/core/mod.ts";
import { hex, latin1, utf8 } from "./bytes.ts";
import { asked, open, read, REQUEST, waiting } from "./endpoints.ts";

describe("Endpoint: what its caller does wrong changes nothing", () => {
  type Make = () => Endpoint;
  const client: Make = () => new Endpoint("client");
  const sent: Make = () => waiting()[0];
  const server: Make = () => new Endpoint("server");
  const received: Make = () => asked({ protocols: ["a"] }).server;
  const rejecting: Make = () => {
    const { server } = asked();
    server.send({ type: "reject", hasBody: true, headers: [["Content-Length", "3"]] });
    return server;
  };
  const opened: Make = () => open().client;
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
      it(`Endpoint refuses ${name} ${JSON.stringify(event)}`, () => {
        const endpoint = make();
        const { state } = endpoint;
        assert.throws(() => endpoint.send(event as OutgoingEndpointEvent), error);
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
