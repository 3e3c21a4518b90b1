/** Rows W01 to W11 and W40 to W47: one connection from its first byte to its last byte. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { pair } from "../lib/testing.ts";
import {
  acceptExtensions,
  Endpoint,
  type EndpointEvent,
  finalizeExtensions,
  LocalProtocolError,
  offerExtensions,
  type OutgoingEndpointEvent,
  Protocol,
  RemoteProtocolError,
  response,
} from "../lib/core/mod.ts";
import {
  checkHttp2Request,
  checkResponse,
  http2Request,
  http2Response,
  http2ResponseHead,
} from "../lib/core/handshake.ts";
import { concat, cut, hex, latin1 } from "./bytes.ts";
import { asked, failureOf, open, read, waiting } from "./endpoints.ts";
import {
  isPending,
  portOf,
  RawSocket,
  ROLES,
  until,
  upgradeRequest,
  upgradeResponse,
  withServer,
} from "./support.ts";
import { Toy } from "./toy_extension.ts";

const TEXT: OutgoingEndpointEvent = { type: "text", data: "Hello" };
const PING: OutgoingEndpointEvent = { type: "ping", payload: hex("01 02") };
const CLOSE: OutgoingEndpointEvent = { type: "close", closeCode: 1000, reason: "done" };

/** Endpoints in each of the states. */
const STATES: Record<Endpoint["state"], () => Endpoint[]> = {
  connecting: () => [new Endpoint("client"), new Endpoint("server"), asked().server, waiting()[0]],
  rejecting: () => {
    const { client, server } = asked();
    read(client, server.send({ type: "reject", hasBody: true }));
    return [client, server];
  },
  open: () => Object.values(open()),
  "local-closing": () =>
    Object.values(open()).map((end) => {
      end.send(CLOSE);
      return end;
    }),
  "remote-closing": () => {
    const { client, server } = open();
    read(server, client.send(CLOSE));
    return [server];
  },
  closed: () => {
    const { client, server } = open();
    read(client, null);
    server.send(CLOSE);
    read(server, null);
    const refused = asked();
    read(refused.client, refused.server.send({ type: "reject" }));
    return [client, server, refused.client, refused.server];
  },
};

describe("wsproto: connections", () => {
  it("W01 W07 one object for the handshake and the data, in either role", () => {
    const { client, server } = asked();
    assert.deepEqual([client.role, server.role], ["client", "server"]);
    assert.deepEqual(read(client, server.send({ type: "accept" })).map(({ type }) => type), [
      "accept",
    ]);
    for (const [from, to] of [[client, server], [server, client]]) {
      const [text] = read(to, from.send(TEXT));
      assert.deepEqual(text, { ...TEXT, frameFinished: true, messageFinished: true });
    }
  });

  it("W02 the end of the transport is fed too: an abnormal one is a close 1006, then it is closed", () => {
    for (const end of Object.values(open())) {
      assert.deepEqual(read(end, null), [{ type: "close", closeCode: 1006, reason: "" }]);
      assert.equal(end.state, "closed");
    }
    const { client, server } = open();
    read(client, server.send(CLOSE));
    assert.deepEqual(read(client, null), [], "nor is one behind a Close abnormal");
    const [early] = waiting();
    early.receive(null);
    assert.equal(failureOf(early).closeCode, 1006);
  });

  it("W03 input after the end is a local error", () => {
    for (const end of STATES.closed()) {
      assert.throws(() => end.receive(hex("81 00")), LocalProtocolError);
    }
  });

  it("W04 events() gives the available events, and continues with the next input", () => {
    const { client, server } = open();
    const bytes = concat([server.send(PING), server.send(TEXT), server.send(TEXT)]);
    const [first, second] = cut(bytes, bytes.length - 3);
    client.receive(first);
    const types = () => [...client.events()].map(({ type }) => type);
    assert.deepEqual([types(), types()], [["ping", "text", "text"], []]);
    client.receive(second);
    assert.deepEqual([types(), types()], [["text"], []]);
  });

  it("W05 W45 events become bytes; there is no I/O, thread or timer", () => {
    const sent = open().server.send(TEXT);
    assert.deepEqual(sent, hex("81 05 48 65 6c 6c 6f"));
    const folder = new URL("../lib/core/", import.meta.url);
    const names = readdirSync(folder);
    assert.ok(names.includes("endpoint.ts"));
    for (const name of names) {
      const text = readFileSync(new URL(name, folder), "utf8");
      const code = text.replace(/\/\*[^]*?\*\/|\/\/[^\n]*/g, "");
      for (const [, from] of code.matchAll(/\bfrom\s+"([^"]+)"/g)) {
        assert.match(from, /^\.\/\w+\.ts$/, `${name} imports ${from}`);
      }
      // Quoted text and names of members are not calls.
      const withoutTexts = code.replace(/"(?:[^"\\]|\\.)*"/g, '""').replace(/\b\w+: /g, "");
      const forbidden =
        /\b(async|await|Promise|setTimeout|setInterval|setImmediate|queueMicrotask|Worker|fetch)\b|\bimport\(/;
      assert.doesNotMatch(withoutTexts, forbidden, name);
    }
  });

  it("W06 W08 each state and the events that lead to it", () => {
    for (const [state, make] of Object.entries(STATES)) {
      for (const end of make()) assert.equal(end.state, state);
    }
  });

  it("W09 a connection after a handshake of another library: extensions and trailing bytes", () => {
    const toy = () => new Toy("toy", 3);
    const [client, server] = ROLES.map((role) =>
      new Protocol(role, { extensions: [toy().finalize()] })
    );
    const trailing = client.send(TEXT as { type: "text"; data: string });
    server.receive(trailing);
    assert.deepEqual([...server.events()].map((event) => "data" in event && event.data), ["Hello"]);
    assert.notDeepEqual(trailing.length, 0);
    client.receive(server.send({ type: "close", closeCode: 1000 }));
    assert.equal(client.next()?.type, "close");
    assert.deepEqual([client.state, server.state], ["remote-closing", "local-closing"]);
  });

  it("W10 the same over one stream of HTTP/2, the extensions agreed outside", () => {
    const [ours, theirs] = [[new Toy("a", 1)], [new Toy("b", 1), new Toy("a", 1)]];
    const offer = { protocols: ["p"], extensions: offerExtensions(theirs) };
    const place = { scheme: "https", authority: "example.com", path: "/" } as const;
    const asked = checkHttp2Request(http2Request({ ...place, ...offer }));
    const { headers, extensions } = acceptExtensions(asked.extensions, ours);
    const response = http2Response({ protocol: asked.protocols[0], extensions: headers });
    const agreement = checkResponse(http2ResponseHead(response), "", offer);
    assert.deepEqual(agreement, { protocol: "p", extensions: headers });
    const server = new Protocol("server", { extensions });
    const agreed = finalizeExtensions(agreement.extensions, theirs);
    const client = new Protocol("client", { extensions: agreed });
    // As the payload of DATA frames of different sizes.
    for (const data of cut(client.send({ type: "text", data: "Hello" }), 1, 2, 7)) {
      server.receive(data);
    }
    const text = [...server.events()].map((event) => event.type === "text" ? event.data : "").join(
      "",
    );
    assert.equal(text, "Hello");
  });

  it("W11 what follows the handshake in the same read is kept, and read on", () => {
    const { client } = open();
    const server = new Endpoint("server");
    server.receive(concat([latin1(upgradeRequest()), client.send(TEXT)]));
    assert.deepEqual([...server.events()].map(({ type }) => type), ["request"]);
    server.send({ type: "accept" });
    assert.deepEqual([...server.events()].map(({ type }) => type), ["text"]);
    const [end, request] = waiting();
    const both = concat([latin1(upgradeResponse(request)), hex("89 00 88 00")]);
    assert.deepEqual(read(end, both).map(({ type }) => type), ["accept", "ping", "close"]);
  });
});

describe("wsproto: semantics", () => {
  it("W40 W41 neither pings nor Closes are answered by themselves", () => {
    for (const event of [PING, CLOSE]) {
      const { client, server } = open();
      read(server, client.send(event));
      // The server only sends what send() returns: here one pong, whose payload is not the ping's.
      assert.deepEqual(server.send({ type: "pong" }), hex("8a 00"));
      assert.notEqual(server.state, "closed");
    }
  });

  it("W42 the states of the closing handshake; the reply is an event too", () => {
    for (const [first, second] of [["client", "server"], ["server", "client"]] as const) {
      const ends = open();
      const [near, far] = [ends[first], ends[second]];
      const [close] = read(far, near.send(CLOSE));
      assert.deepEqual(close, CLOSE);
      assert.deepEqual([near.state, far.state], ["local-closing", "remote-closing"]);
      const [reply] = read(near, far.send(response(close)!));
      assert.deepEqual(reply, CLOSE);
      assert.deepEqual([near.state, far.state], ["closed", "closed"]);
    }
  });

  it("W43 the server ends TCP, when the Close frames went and all data was sent", async () => {
    const { client, server } = open();
    read(client, server.send(CLOSE));
    read(server, client.send(CLOSE));
    assert.deepEqual([client.endsTransport, server.endsTransport], [false, true]);
    const payload = new Uint8Array(1_000_000).fill(1);
    await withServer({}, async (server) => {
      const raw = await RawSocket.connect(portOf(server));
      raw.write(upgradeRequest());
      await until(() => raw.received.length > payload.length && raw.received.at(-1) === 0xe8);
      assert.equal(raw.ended, false, "not before the client has answered");
      raw.write(hex("88 82 00 00 00 00 03 e8"));
      await until(() => raw.ended);
      const head = new TextDecoder("latin1").decode(raw.received.subarray(0, 1000));
      const frames = raw.received.subarray(head.indexOf("\r\n\r\n") + 4);
      assert.deepEqual(frames.slice(0, 10), hex("82 7f 00 00 00 00 00 0f 42 40"));
      assert.equal(frames.length, 10 + payload.length + 4);
      await raw.close();
    }, (ws) => {
      ws.send(payload).catch(() => {});
      ws.close({ closeCode: 1000 });
    });
  });

  it("W44 backpressure: a sender waits for the reader, and memory is bounded", async () => {
    const [near, far] = await pair(
      { client: { pingInterval: 0 }, server: { pingInterval: 0 } },
    );
    const message = new Uint8Array(16384);
    let sent = 0;
    for (;;) {
      const sending = near.send(message);
      sent++;
      if (await isPending(sending)) break;
      assert.ok(sent < 200, "the sender never waits");
    }
    assert.ok(near.bufferedAmount <= 65536 + message.length);
    for (let i = 0; i < sent; i++) assert.equal((await far.receive()).length, message.length);
    near.terminate();
    far.terminate();
  });

  it("W46 a Close may be sent when open or remote-closing only, and changes nothing elsewhere", () => {
    for (const [state, make] of Object.entries(STATES)) {
      for (const end of make()) {
        if (state === "open" || state === "remote-closing") {
          assert.ok(end.send(CLOSE).length > 0);
          continue;
        }
        assert.throws(() => end.send(CLOSE), LocalProtocolError);
        assert.equal(end.state, state);
      }
    }
  });

  it("W47 what breaks the protocol comes with the close code to send", () => {
    const faults: [bytes: string, closeCode: number][] = [
      ["83 00", 1002],
      ["c1 00", 1002],
      ["81 81 00 00 00 00 61", 1002],
      ["80 00", 1002],
      ["81 01 ff", 1007],
      ["82 7f 00 00 00 00 00 10 00 01", 1009],
      ["88 02 03 ee", 1002],
    ];
    for (const [bytes, closeCode] of faults) {
      const { client, server } = open({ maxMessageSize: 1048576 });
      client.receive(hex(bytes));
      const error = failureOf(client);
      assert.ok(error instanceof RemoteProtocolError && error.event?.type === "close");
      assert.equal(error.event.closeCode, closeCode);
      const [close] = read(server, client.send(error.event));
      assert.deepEqual(close, { ...error.event } as EndpointEvent);
    }
  });
});
