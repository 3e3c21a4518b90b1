import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  Endpoint,
  type EndpointEvent,
  HandshakeError,
  LocalProtocolError,
  type OutgoingEndpointEvent,
  RemoteProtocolError,
  response,
} from "../lib/core/mod.ts";
import type { OutgoingOf } from "../lib/core/event.ts";
import { upgradeResponseTo } from "../lib/core/handshake.ts";
import { requestOf, responseText } from "../lib/core/http1.ts";
import { webTextCodec } from "../lib/core/utf8.ts";
import { concat, cut, cuts, hex, latin1, utf8 } from "./bytes.ts";
import { asked, failureOf, feed, merged, open, read, REQUEST, waiting } from "./endpoints.ts";
import { fc, offsets } from "./property.ts";
import { field, ROLES, until, upgradeRequest, upgradeResponse } from "./support.ts";
import { Toy } from "./toy_extension.ts";

const TEXT = { type: "text", data: "Hello", frameFinished: true, messageFinished: true };

describe("Endpoint: the opening handshake", () => {
  it("Endpoint gives request and accept as they were sent, and opens", () => {
    const { client, server, event } = asked({
      protocols: ["a", "b"],
      headers: [["X-A", "1"], ["x-a", "2"]],
    });
    const expected = {
      type: "request",
      host: "example.com",
      target: "/chat?a=b",
      protocols: ["a", "b"],
      extensions: [],
      headers: [["X-A", "1"], ["x-a", "2"]],
    };
    assert.deepEqual(event, expected);
    assert.deepEqual([client.state, server.state], ["connecting", "connecting"]);
    const bytes = server.send({ type: "accept", protocol: "b", headers: [["Set-Cookie", "c"]] });
    assert.deepEqual(server.opened.texts.response, [["Set-Cookie", "c"]]);
    assert.equal(server.state, "open");
    const answer = {
      type: "accept",
      protocol: "b",
      extensions: [],
      headers: [["Set-Cookie", "c"]],
    };
    assert.deepEqual(read(client, bytes), [answer]);
    assert.equal(client.state, "open");
    assert.deepEqual(client.request, server.request);
    assert.deepEqual(client.response, server.response);
    // An event that was received can be sent.
    const proxy = new Endpoint("client");
    assert.deepEqual(read(new Endpoint("server"), proxy.send(event)), [expected]);
  });

  it("heads are kept as the text that was sent or received", () => {
    const head = upgradeRequest({ Host: null }).replace("\r\n", "\r\nHost:a \r\n");
    const rebuilt = head.replace("Host:a ", "Host: a");
    const rows: [Uint8Array[], string][] = [
      [[latin1(head)], head],
      [[latin1(head.slice(0, 9)), latin1(head.slice(9))], head],
      [[latin1(head.slice(0, 16)), latin1(head.slice(16))], rebuilt],
      [[latin1(`${head}\x81`)], rebuilt],
      // As many bytes follow as came before the last call.
      [[latin1(head.slice(0, 16)), latin1(head.slice(16) + "\x81".repeat(16))], rebuilt],
    ];
    for (const [chunks, text] of rows) {
      const server = new Endpoint("server");
      for (const chunk of chunks) server.receive(chunk);
      assert.equal(server.next()?.type, "request");
      const sent = String.fromCharCode(...server.send({ type: "accept" }));
      assert.deepEqual(server.opened.texts, { request: text, response: [] });
      assert.equal(responseText(upgradeResponseTo(requestOf(text), {})), sent);
    }
    for (const rest of ["", "\x81"]) {
      const [client, sent] = waiting();
      const plain = upgradeResponse(sent);
      const answer = plain.replace("Upgrade: ", "Upgrade:");
      assert.equal(read(client, latin1(answer + rest))[0].type, "accept");
      assert.deepEqual(client.opened.texts, {
        request: sent,
        response: rest === "" ? answer : plain,
      });
    }
  });

  it("heads are encoded by the codec of the platform, if it can", () => {
    const encodeLatin1 = (text: string) => latin1(text.toUpperCase());
    const options = { textCodec: { ...webTextCodec, encodeLatin1 } };
    const client = new Endpoint("client", options);
    const sent = String.fromCharCode(...client.send({ type: "request", host: "a", target: "/" }));
    assert.match(sent, /^GET \/ HTTP\/1.1\r\nHOST: A\r\n/);
    const server = new Endpoint("server", options);
    server.receive(latin1(upgradeRequest()));
    assert.equal(server.next()?.type, "request");
    const answer = String.fromCharCode(...server.send({ type: "accept" }));
    assert.match(answer, /^HTTP\/1.1 101 SWITCHING PROTOCOLS\r\n/);
  });

  it("Endpoint keeps what follows the handshake, wherever the bytes are cut", () => {
    const { client } = open();
    const hello = client.send({ type: "text", data: "Hello" });
    const request = concat([latin1(upgradeRequest()), hello]);
    for (const chunks of cuts(request)) {
      const server = new Endpoint("server");
      const events: EndpointEvent[] = [];
      for (const chunk of chunks) {
        server.receive(chunk);
        for (const event of server.events()) {
          events.push(event);
          if (event.type === "request") server.send({ type: "accept" });
        }
      }
      assert.deepEqual(merged(events).slice(1), [TEXT]);
    }
    const [, sent] = waiting();
    const length = upgradeResponse(sent).length + 7;
    for (let at = 0; at <= length; at++) {
      const [client, sent] = waiting();
      const bytes = concat([latin1(upgradeResponse(sent)), hex("81 05 48 65 6c 6c 6f")]);
      const events = read(client, bytes.subarray(0, at), bytes.subarray(at));
      assert.deepEqual(merged(events).map(({ type }) => type), ["accept", "text"]);
      assert.deepEqual(merged(events)[1], TEXT);
    }
  });

  it("Endpoint on a server keeps input, and its end, that arrives before the answer", () => {
    const { client } = open();
    const { server } = asked();
    for (const data of ["a", "b"]) read(server, client.send({ type: "text", data }));
    assert.ok(server.bufferedAmount > 0);
    assert.deepEqual(read(server, null), []);
    server.send({ type: "accept" });
    assert.deepEqual([...server.events()].map((event) => ("data" in event ? event.data : event)), [
      ...["a", "b"],
      { type: "close", closeCode: 1006, reason: "" },
    ]);
    assert.equal(server.state, "closed");
  });

  it("Endpoint continues from a request that another parser has read", () => {
    const { client, server: first } = asked({ protocols: ["a"] });
    const server = new Endpoint("server");
    const hello = open().client.send({ type: "text", data: "Hello" });
    server.takeHead(first.request!, hello);
    assert.equal([...server.events()][0].type, "request");
    assert.throws(() => server.takeHead(first.request!), LocalProtocolError);
    read(client, server.send({ type: "accept", protocol: "a" }));
    assert.deepEqual([...server.events()], [TEXT]);
    assert.throws(() => client.takeHead(first.request!), LocalProtocolError);
    const late = new Endpoint("server");
    late.receive(latin1("GET"));
    assert.throws(() => late.takeHead(first.request!), LocalProtocolError);
  });

  it("Endpoint offers and accepts the extensions that it supports, or those of them that it is told", () => {
    const toys = (...names: string[]) => names.map((name) => new Toy(name, 1));
    const run = (chosen?: { name: string }[], accepted?: { name: string }[]) => {
      const client = new Endpoint("client", { extensions: toys("a", "b", "c") });
      const server = new Endpoint("server", { extensions: toys("b", "c") });
      const [request] = read(server, client.send({ ...REQUEST, extensions: chosen } as never));
      const bytes = server.send({ type: "accept", extensions: accepted });
      const [accept] = read(client, bytes);
      const text = read(server, client.send({ type: "text", data: "Hello" }));
      assert.deepEqual(text, [TEXT]);
      const names = (event: EndpointEvent) =>
        "extensions" in event ? event.extensions.map(({ name }) => name).join("") : "";
      return [names(request), names(accept)];
    };
    assert.deepEqual(run(), ["abc", "bc"]);
    assert.deepEqual(run([{ name: "c" }, { name: "a" }]), ["ac", "c"]);
    assert.deepEqual(run(undefined, toys("b")), ["abc", "b"]);
    assert.deepEqual(run(undefined, []), ["abc", ""]);
    assert.deepEqual(run([]), ["", ""]);
  });

  it("Endpoint closes extensions that came to nothing", () => {
    const toys = [new Toy("a", 1), new Toy("b", 1)];
    const closed = () => toys.map(({ made }) => made.map((codec) => codec.closed).join());
    const { server } = asked({}, { extensions: toys });
    assert.throws(() => server.send({ type: "accept", protocol: "x" }), LocalProtocolError);
    assert.deepEqual(closed(), ["", ""]);
    const headers = [["Upgrade", "x"]] as const;
    assert.throws(() => server.send({ type: "accept", headers }), TypeError);
    assert.deepEqual(closed(), ["1", "1"]);
    const [client, sent] = waiting({ extensions: toys });
    feed(client, upgradeResponse(sent, { "Sec-WebSocket-Extensions": "a, a" }));
    failureOf(client);
    assert.deepEqual(closed(), ["1,1", "1"]);
  });

  it("Endpoint drops the input after a refused request", () => {
    const { server } = asked();
    read(server, utf8("more"));
    assert.equal(server.bufferedAmount, 4);
    server.send({ type: "reject", hasBody: true });
    assert.equal(server.bufferedAmount, 0);
  });

  it("Endpoint.protocol takes over once it is open", () => {
    const { client } = asked();
    assert.throws(() => client.protocol, LocalProtocolError);
    const ends = open();
    assert.equal(ends.client.protocol.state, "open");
    assert.equal(ends.client.protocol.role, "client");
  });
});

describe("Endpoint: what the peer does wrong", () => {
  const requests: [name: string, code: string, bytes: string, status: number, header?: string[]][] =
    [
      ["a POST", "method", upgradeRequest({}, "POST / HTTP/1.1"), 405, ["Allow", "GET"]],
      ["no Upgrade", "not-upgrade", upgradeRequest({ Upgrade: null }), 426, [
        "Upgrade",
        "websocket",
      ]],
      ["no Connection", "not-upgrade", upgradeRequest({ Connection: "close" }), 426],
      ["HTTP/1.0", "http-version", upgradeRequest({}, "GET / HTTP/1.0"), 400],
      ["HTTP/2.0", "http-version", upgradeRequest({}, "GET / HTTP/2.0"), 505],
      ["no Host", "host", upgradeRequest({ Host: null }), 400],
      ["a body", "body", upgradeRequest({ "Content-Length": "5" }), 400],
      ["no version", "version", upgradeRequest({ "Sec-WebSocket-Version": null }), 400],
      [
        ...["version 8", "version"] as const,
        ...[upgradeRequest({ "Sec-WebSocket-Version": "8" }), 426] as const,
        ["Sec-WebSocket-Version", "13"],
      ],
      ["no key", "key", upgradeRequest({ "Sec-WebSocket-Key": null }), 400],
      ["a short key", "key", upgradeRequest({ "Sec-WebSocket-Key": "AAAA" }), 400],
      [
        "bad extensions",
        "malformed-header",
        upgradeRequest({ "Sec-WebSocket-Extensions": ";" }),
        400,
      ],
      ["garbage", "malformed-head", "\x16\x03\x01", 400],
      ["a long target", "target-too-long", "GET /".padEnd(9000, "a"), 414],
      ["a long header", "head-too-large", "GET / HTTP/1.1\r\na: ".padEnd(9000, "a"), 431],
    ];
  for (const [name, code, bytes, status, header] of requests) {
    it(`Endpoint says ${status} to a request with ${name}`, () => {
      const server = new Endpoint("server");
      server.receive(latin1(bytes));
      const error = failureOf(server);
      assert.ok(error.cause instanceof HandshakeError);
      assert.deepEqual([error.cause.code, error.closeCode], [code, 1006]);
      assert.equal(failureOf(server), error);
      assert.equal(server.state, "connecting");
      assert.throws(() => server.send({ type: "accept" }), LocalProtocolError);
      assert.ok(error.event?.type === "reject");
      const [client] = waiting();
      const [reject, ...more] = read(client, server.send(error.event));
      assert.ok(reject.type === "reject");
      assert.deepEqual([reject.status, reject.hasBody, more.length], [status, false, 0]);
      if (header) assert.ok(reject.headers.some((pair) => `${pair}` === `${header}`));
      assert.ok(reject.headers.some((pair) => `${pair}` === "Content-Length,0"));
      assert.deepEqual([server.state, client.state], ["closed", "closed"]);
      assert.deepEqual([server.endsTransport, client.endsTransport], [true, true]);
      assert.equal(server.next(), undefined);
      assert.throws(() => server.receive(latin1("GET")), LocalProtocolError);
      server.receive(null);
    });
  }

  const extensions = [new Toy("toy", 1)];
  const responses: [name: string, code: string, bytes: (sent: string) => string | null][] = [
    ["no Upgrade", "upgrade", (sent) => upgradeResponse(sent, { Upgrade: null })],
    ["no Connection", "upgrade", (sent) => upgradeResponse(sent, { Connection: null })],
    ["a wrong token", "accept", (sent) => upgradeResponse(sent, { "Sec-WebSocket-Accept": "a" })],
    [
      "a subprotocol not offered",
      "subprotocol",
      (sent) => upgradeResponse(sent, { "Sec-WebSocket-Protocol": "b" }),
    ],
    [
      "an extension not offered",
      "extension",
      (sent) => upgradeResponse(sent, { "Sec-WebSocket-Extensions": "x" }),
    ],
    [
      "an extension twice",
      "extension",
      (sent) => upgradeResponse(sent, { "Sec-WebSocket-Extensions": "toy, toy" }),
    ],
    ["garbage", "malformed-head", () => "SSH-2.0\r\n\r\n"],
    ["HTTP/2", "http-version", () => "HTTP/2.0 101 a\r\n\r\n"],
    ["an end", "connection-lost", () => null],
  ];
  for (const [name, code, bytes] of responses) {
    it(`Endpoint fails with "${code}" for a response with ${name}`, () => {
      const [client, sent] = waiting({ extensions });
      const answer = bytes(sent);
      feed(client, answer);
      const error = failureOf(client);
      assert.ok(error.cause instanceof HandshakeError);
      assert.deepEqual([error.cause.code, error.event, client.state], [code, undefined, "closed"]);
      assert.deepEqual([error.cause.status, client.agreement], [
        client.response?.status,
        undefined,
      ]);
      assert.equal(client.endsTransport, true);
      assert.equal(failureOf(client), error);
      if (answer !== null) assert.throws(() => client.receive(latin1("a")), LocalProtocolError);
      for (const event of [REQUEST, { type: "close" as const }]) {
        assert.throws(() => client.send(event), LocalProtocolError);
      }
    });
  }

  it("Endpoint on a server fails when the input ends within the request, and has no answer", () => {
    const server = new Endpoint("server");
    read(server, "GET / HT");
    server.receive(null);
    const error = failureOf(server);
    assert.equal((error.cause as HandshakeError).code, "connection-lost");
    assert.deepEqual([error.event, server.state], [undefined, "closed"]);
    assert.throws(() => server.send({ type: "reject" }), LocalProtocolError);
  });

  it("Endpoint throws nothing but a RemoteProtocolError, whatever comes", () => {
    const damages = fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 4 });
    fc.assert(fc.property(fc.constantFrom(...ROLES), damages, offsets(400), (role, changes, at) => {
      const [client, sent] = waiting();
      const end = role === "client" ? client : new Endpoint("server");
      const head = latin1(role === "client" ? upgradeResponse(sent) : sent);
      const other = open()[role === "client" ? "server" : "client"];
      const bytes = concat([head, other.send({ type: "text", data: "Hello" })]);
      for (const [place, value] of changes) if (place < bytes.length) bytes[place] = value;
      try {
        for (const chunk of [...cut(bytes, ...at), null]) {
          for (const { type } of end.state === "closed" ? [] : read(end, chunk)) {
            if (type === "request") end.send({ type: "accept" });
          }
        }
      } catch (error) {
        assert.ok(error instanceof RemoteProtocolError, `${error}`);
        if (error.event !== undefined) end.send(error.event);
      }
    }));
  });

  it("Endpoint gives a bad frame's Close, and takes what needs no answer as it is", () => {
    const { client, server } = open();
    server.receive(hex("83 00"));
    assert.deepEqual(failureOf(server).event?.type, "close");
    const [close] = read(client, server.send(failureOf(server).event!));
    assert.equal(close.type === "close" && close.closeCode, 1002);
    assert.deepEqual(response(close), { ...close });
    assert.equal(response({ type: "rejectData", data: hex(""), bodyFinished: true }), undefined);
  });
});

describe("Endpoint: refusals", () => {
  const text = "0123456789".repeat(100);
  const bodies: [name: string, fields: [string, string][], version?: string][] = [
    ["by Content-Length", [["Content-Length", "1000"]]],
    ["by chunks", [["Transfer-Encoding", "Chunked"]]],
    ["by chunks where nothing is said", []],
    ["until the end for HTTP/1.0", [["X-A", "1"]], "HTTP/1.0"],
  ];
  for (const [name, headers, version] of bodies) {
    it(`Endpoint streams the body of a refusal ${name}`, () => {
      const server = new Endpoint("server");
      server.receive(latin1(upgradeRequest({}, `GET / ${version ?? "HTTP/1.1"}`)));
      if (version !== undefined) failureOf(server);
      else server.next();
      const sent = [server.send({ type: "reject", status: 403, headers, hasBody: true })];
      assert.equal(server.state, "rejecting");
      for (let at = 0; at < 1000; at += 250) {
        const data = utf8(text.slice(at, at + 250));
        sent.push(server.send({ type: "rejectData", data, bodyFinished: false }));
        // The server ignores what the client sends after that.
        server.receive(utf8("more"));
        assert.deepEqual([server.next(), server.bufferedAmount], [undefined, 0]);
      }
      assert.equal(server.state, "rejecting");
      sent.push(server.send({ type: "rejectData", data: hex("") }));
      assert.equal(server.state, "closed");
      const whole = concat(sent);
      for (const chunks of [[whole], ...cuts(whole).filter((_, at) => at % 37 === 0)]) {
        const [client] = waiting();
        const events = read(client, ...chunks);
        if (version !== undefined) events.push(...read(client, null));
        const [reject, body, ...more] = merged(events);
        assert.ok(reject.type === "reject" && body.type === "rejectData");
        assert.deepEqual([reject.status, reject.hasBody, more.length], [403, true, 0]);
        assert.deepEqual([body.bodyFinished, client.state], [true, "closed"]);
        assert.equal(new TextDecoder().decode(body.data), text);
      }
    });
  }

  it("Endpoint holds nothing of a body, however long it is", () => {
    const [client] = waiting();
    const size = 2 ** 40;
    read(client, `HTTP/1.1 403 a\r\nContent-Length: ${size}\r\n\r\n`);
    assert.equal(client.state, "rejecting");
    const chunk = new Uint8Array(65536);
    for (let i = 0; i < 1000; i++) {
      const [event] = read(client, chunk);
      assert.ok(event.type === "rejectData" && event.data.length === 65536 && !event.bodyFinished);
      assert.equal(client.bufferedAmount, 0);
    }
    const [chunked] = waiting();
    read(chunked, "HTTP/1.1 403 a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffff\r\n");
    for (let i = 0; i < 1000; i++) assert.equal(read(chunked, chunk).length, 1);
  });

  const broken: [name: string, code: string, head: string, chunks: (string | null)[]][] = [
    ["too few bytes", "connection-lost", "Content-Length: 5", ["abc", null]],
    ["no last chunk", "connection-lost", "Transfer-Encoding: chunked", ["3\r\nabc\r\n", null]],
    ["a size that is none", "malformed-body", "Transfer-Encoding: chunked", ["3\r\nabc\r\nx\r\n"]],
    ["a chunk without end", "malformed-body", "Transfer-Encoding: chunked", ["3\r\nabcd\r\n"]],
    [
      ...["a line without end", "malformed-body", "Transfer-Encoding: chunked"] as const,
      ["3\r\nabc\r\n", ..."a".repeat(1100)],
    ],
  ];
  for (const [name, code, head, chunks] of broken) {
    it(`Endpoint gives the received part of a body with ${name}, then fails`, () => {
      const [client] = waiting();
      client.receive(latin1(`HTTP/1.1 403 a\r\n${head}\r\n\r\n`));
      for (const chunk of chunks) feed(client, chunk);
      assert.equal(client.next()?.type, "reject");
      const event = client.next();
      assert.ok(event?.type === "rejectData");
      assert.deepEqual([event.data, event.bodyFinished], [utf8("abc"), false]);
      const { cause } = failureOf(client);
      assert.equal((cause as HandshakeError).code, code);
      assert.equal(client.state, "closed");
    });
  }

  it("Endpoint takes any other status than 101 for a refusal", () => {
    for (
      const [status, hasBody] of [[204, false], [200, true], [302, true]] as const
    ) {
      const [client] = waiting();
      const [event] = read(client, `HTTP/1.1 ${status} Why\r\nLocation: /b\r\n\r\n`);
      const headers = [["Location", "/b"]];
      assert.deepEqual(event, { type: "reject", status, statusText: "Why", headers, hasBody });
      assert.equal(client.state, hasBody ? "rejecting" : "closed");
    }
  });

  it('Endpoint sends "Connection: close" with a refusal, unless the caller gives the field', () => {
    const head = (headers: [string, string][], status?: number) => {
      const bytes = asked().server.send({ type: "reject", headers, status });
      return String.fromCharCode(...bytes);
    };
    assert.equal(field(head([]), "Connection"), "close");
    assert.equal(field(head([["Upgrade", "websocket"]]), "Connection"), "Upgrade, close");
    assert.equal(field(head([["connection", "x"]]), "Connection"), "x");
    assert.equal(field(head([], 204), "Content-Length"), undefined);
  });
});

describe("Endpoint: extensions that work elsewhere", () => {
  it("Endpoint is pending while an extension works, but not before the handshake is complete", async () => {
    let ready = 0;
    const extensions = [new Toy("a", 1, { slow: true })];
    const options = { extensions, onReady: () => void ready++ };
    assert.equal(new Endpoint("server", options).pending, false);
    const { client, server, event } = asked({ extensions: [{ name: "a" }] }, options);
    assert.equal(event.type, "request");
    read(client, server.send({ type: "accept" }));
    assert.equal(server.pending, false);
    assert.deepEqual(read(server, client.send(TEXT as OutgoingEndpointEvent)), []);
    assert.equal(server.pending, true);
    await until(() => ready > 0);
    assert.equal(server.pending, false);
    assert.deepEqual([...server.events()], [TEXT]);
  });
});

describe("Endpoint over HTTP/2", () => {
  const CONNECT: OutgoingEndpointEvent = { ...REQUEST as OutgoingOf<"request">, scheme: "https" };

  /** A client and a server. The server has received the client's request with some fields changed. */
  function connecting(
    changes: Record<string, string> = {},
  ): { client: Endpoint; server: Endpoint } {
    const client = new Endpoint("client");
    const server = new Endpoint("server");
    assert.equal(client.send({ ...CONNECT, protocols: ["a", "b"] } as never).length, 0);
    server.takeFields(client.fields!.map(([name, value]) => [name, changes[name] ?? value]));
    return { client, server };
  }

  it("Endpoint opens with header fields and continues with bytes", () => {
    const { client, server } = connecting();
    assert.deepEqual(client.fields!.slice(0, 5), [
      [":method", "CONNECT"],
      [":protocol", "websocket"],
      [":scheme", "https"],
      [":authority", "example.com"],
      [":path", "/chat?a=b"],
    ]);
    const [event] = [...server.events()];
    assert.ok(event.type === "request");
    assert.deepEqual([event.host, event.protocols], ["example.com", ["a", "b"]]);
    assert.deepEqual(server.offer, { protocols: ["a", "b"], extensions: [], origin: undefined });
    assert.equal(server.send({ type: "accept", protocol: "b", headers: [["X-A", "1"]] }).length, 0);
    assert.deepEqual(server.fields, [
      [":status", "200"],
      ["sec-websocket-protocol", "b"],
      ["x-a", "1"],
    ]);
    client.takeFields(server.fields!);
    assert.deepEqual([...client.events()].map(({ type }) => type), ["accept"]);
    assert.deepEqual(client.agreement, { protocol: "b", extensions: [] });
    assert.deepEqual(client.agreement, server.agreement);
    assert.equal(client.request?.version, "2.0");
    assert.deepEqual(read(client, server.send({ type: "text", data: "Hello" })), [TEXT]);
  });

  it("Endpoint refuses by header fields, whose body is the stream's", () => {
    const { client, server } = connecting({ ":method": "GET" });
    const error = failureOf(server);
    assert.ok(error.event?.type === "reject");
    assert.deepEqual([error.event.status, error.event.headers], [405, [["allow", "CONNECT"]]]);
    const headers: [string, string][] = [["Connection", "close"], ["Transfer-Encoding", "chunked"]];
    assert.equal(server.send({ ...error.event, headers, hasBody: true }).length, 0);
    assert.deepEqual(server.fields, [[":status", "405"]]);
    client.takeFields(server.fields!);
    const bytes = server.send({ type: "rejectData", data: utf8("no") });
    assert.deepEqual(bytes, utf8("no"));
    assert.deepEqual(read(client, bytes, null), [
      { type: "reject", status: 405, statusText: "", headers: [], hasBody: true },
      { type: "rejectData", data: utf8("no"), bodyFinished: false },
      { type: "rejectData", data: hex(""), bodyFinished: true },
    ]);
    assert.equal(client.state, "closed");
  });

  it("Endpoint fails for an answer that does not fit, with its status", () => {
    const { client } = connecting();
    client.takeFields([[":status", "200"], ["sec-websocket-protocol", "c"]]);
    const { code, status } = failureOf(client).cause as HandshakeError;
    assert.deepEqual([code, status], ["subprotocol", 200]);
  });

  it("Endpoint accepts header fields once, when it waits for a head", () => {
    const { client, server } = connecting();
    const fields = client.fields!;
    assert.throws(() => new Endpoint("client").takeFields(fields), LocalProtocolError);
    assert.throws(() => server.takeFields(fields), LocalProtocolError);
    client.takeFields([[":status", "200"]]);
    assert.throws(() => client.takeFields([[":status", "200"]]), LocalProtocolError);
    assert.equal(new Endpoint("server").fields, undefined);
  });
});

describe("Endpoint: statuses and HEAD", () => {
  it("Endpoint on a client gives its errors the status of the response, if one came", () => {
    const statuses = ["HTTP/1.1 101 a\r\nUpgrade: x\r\n\r\n", "HTTP/1.1 x"].map((bytes) => {
      const [client] = waiting();
      feed(client, bytes);
      const { code, status } = failureOf(client).cause as HandshakeError;
      return [code, status];
    });
    assert.deepEqual(statuses, [["upgrade", 101], ["malformed-head", undefined]]);
  });

  it("Endpoint lets the refusal of a HEAD announce a body without one", () => {
    const server = new Endpoint("server");
    feed(server, upgradeRequest({}, "HEAD / HTTP/1.1"));
    assert.equal((failureOf(server).cause as HandshakeError).code, "method");
    assert.equal(server.isHead, true);
    server.send({ type: "reject", status: 405, headers: [["Content-Length", "5"]] });
    assert.equal(server.state, "closed");
    const early = new Endpoint("server");
    read(early, "HEAD / HT");
    assert.equal(early.isHead, true);
    assert.equal(waiting()[0].isHead, false);
  });

  it("Endpoint answers a plain request with a body by 413", () => {
    const server = new Endpoint("server");
    feed(server, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nHello");
    const { code, status } = failureOf(server).cause as HandshakeError;
    assert.deepEqual([code, status], ["body", 413]);
  });
});
