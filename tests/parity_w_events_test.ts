/** Rows W24, W31 to W39, W51 and W56 to W59: events, extensions, frames, and the project itself. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  encodeFrame,
  Endpoint,
  type EndpointEvent,
  FrameDecoder,
  Opcode,
  type OutgoingEndpointEvent,
  parseClose,
  response,
  Rsv,
} from "../lib/core/mod.ts";
import { truncateReason } from "../lib/core/error.ts";
import { concat, hex, utf8 } from "./bytes.ts";
import { check, protocolLevel } from "./conformance/levels.ts";
import { ROWS } from "./conformance/rows.ts";
import { asked, open, read, REQUEST } from "./endpoints.ts";
import { readSource, withPrograms } from "./programs.ts";
import { ROLES } from "./support.ts";
import { Toy } from "./toy_extension.ts";

/** The events that the other end receives. */
function sent(...events: OutgoingEndpointEvent[]): EndpointEvent[] {
  const { client, server } = open();
  return read(server, ...events.map((event) => client.send(event)));
}

const WHOLE = { frameFinished: true, messageFinished: true };

describe("wsproto: events", () => {
  it("W24 the events are one union, told apart by their type", () => {
    const seen: Record<EndpointEvent["type"], boolean> = {
      ...{ request: false, accept: false, reject: false, rejectData: false },
      ...{ text: false, binary: false, ping: false, pong: false, close: false },
    };
    const { client, server, event } = asked();
    const refused = asked();
    const events = [
      event,
      ...read(client, server.send({ type: "accept" })),
      ...read(refused.client, refused.server.send({ type: "reject", hasBody: true })),
      ...read(refused.client, refused.server.send({ type: "rejectData", data: utf8("a") })),
      ...sent({ type: "text", data: "" }, { type: "binary", data: hex("") }),
      ...sent({ type: "ping" }, { type: "pong" }, { type: "close" }),
    ];
    for (const { type } of events) seen[type] = true;
    assert.deepEqual(Object.values(seen), Object.values(seen).map(() => true));
  });

  it("W31 W32 a Close: code and reason, and the response to it", () => {
    const close = { type: "close", closeCode: 4000, reason: "done" } as const;
    const [event] = sent(close);
    assert.deepEqual(event, close);
    assert.deepEqual(response(event), close);
    const [empty] = sent({ type: "close" });
    assert.deepEqual(empty, { type: "close", closeCode: 1005, reason: "" });
    assert.deepEqual(open().server.send(response(empty)!), hex("88 00"));
    const [lost] = read(open().client, null);
    assert.equal(response(lost), undefined);
  });

  it("W33 W34 W35 a message of either type, to send and as received", () => {
    const messages = [
      { type: "text", data: "h\u00e9\ud83d\ude00" },
      { type: "binary", data: hex("00 ff") },
    ] as const;
    for (const message of messages) assert.deepEqual(sent(message), [{ ...message, ...WHOLE }]);
    // An event of any type can be sent as it was received.
    assert.deepEqual(
      sent(...sent(...messages)),
      messages.map((message) => ({ ...message, ...WHOLE })),
    );
  });

  it("W36 a message comes in chunks; frames and messages end where they say", () => {
    const server = open().server;
    const frames: [fin: boolean, opcode: Opcode, payload: string][] = [
      [false, Opcode.Text, "ab"],
      [true, Opcode.Continuation, "cd"],
    ];
    const bytes = concat(
      frames.map(([fin, opcode, payload]) =>
        encodeFrame({ fin, opcode, payload: utf8(payload) }, { mask: true })
      ),
    );
    // Cuts the first frame, which becomes two events.
    const events = read(server, bytes.subarray(0, 7), bytes.subarray(7));
    assert.deepEqual(events, [
      { type: "text", data: "a", frameFinished: false, messageFinished: false },
      { type: "text", data: "b", frameFinished: true, messageFinished: false },
      { type: "text", data: "cd", frameFinished: true, messageFinished: true },
    ]);
    const more = { type: "binary", data: hex("01"), messageFinished: false } as const;
    assert.deepEqual(
      sent(more, { ...more, messageFinished: true }).map((event) =>
        event.type === "binary" && event.messageFinished
      ),
      [false, true],
    );
  });

  it("W37 W38 W39 a ping with its payload, the response to it, and a pong", () => {
    const [ping] = sent({ type: "ping", payload: hex("01 02") });
    assert.deepEqual(ping, { type: "ping", payload: hex("01 02") });
    const pong = response(ping);
    assert.deepEqual(pong, { type: "pong", payload: hex("01 02") });
    assert.deepEqual(sent(pong!), [pong]);
    assert.equal(response(pong!), undefined);
    assert.deepEqual(sent({ type: "ping" }), [{ type: "ping", payload: hex("") }]);
  });
});

describe("wsproto: extensions", () => {
  it("W51 W53 extensions by name: offer, accept, finalize, frames inbound and outbound", () => {
    // The supported extensions are a list. The names in a header are looked up in the list.
    const supported =
      () => [new Toy("a", 1, { rsv: Rsv.Rsv2 }), new Toy("b", 5, { rsv: Rsv.Rsv3 })];
    const client = new Endpoint("client", { extensions: supported() });
    const server = new Endpoint("server", { extensions: supported() });
    const [request] = read(server, client.send(REQUEST));
    assert.ok(request.type === "request");
    assert.deepEqual(request.extensions.map(({ name }) => name), ["a", "b"]);
    const [accept] = read(client, server.send({ type: "accept" }));
    assert.ok(accept.type === "accept");
    assert.deepEqual(accept.extensions.map(({ name }) => name), ["a", "b"]);
    const data = hex("00 0a");
    const bytes = server.send({ type: "binary", data });
    assert.deepEqual(bytes, hex("b2 02 06 10"), "both have changed it, each with its own bit");
    assert.deepEqual(read(client, bytes), [{ type: "binary", data, ...WHOLE }]);
    assert.deepEqual(read(server, client.send({ type: "ping" })), [{
      type: "ping",
      payload: hex(""),
    }]);
    client.dispose();
  });
});

describe("wsproto: frames", () => {
  it("W59 frames by themselves: header, frame, failures with their code, a reason cut between characters", () => {
    const frame = { fin: false, rsv: 0, opcode: Opcode.Binary, payload: hex("01 02") };
    const bytes = encodeFrame(frame, { mask: hex("37 fa 21 3d") });
    assert.deepEqual(bytes, hex("02 82 37 fa 21 3d 36 f8"));
    const decoder = new FrameDecoder({ role: "server" });
    decoder.push(bytes);
    const piece = decoder.next()!;
    assert.deepEqual([piece.payload, piece.last], [frame.payload, true]);
    const header = { fin: false, rsv: 0, opcode: 2, masked: true, length: 2 };
    assert.deepEqual(piece.header, header);
    const failed = { name: "RemoteProtocolError", closeCode: 1002 };
    for (const [role, wrong] of [["server", hex("83 80")], ["client", bytes]] as const) {
      const strict = new FrameDecoder({ role });
      strict.push(wrong);
      assert.throws(() => strict.next(), failed);
    }
    assert.throws(() => parseClose(hex("03")), failed);
    const reason = truncateReason("a".repeat(122) + "\u00e9\u00e9");
    assert.equal(reason, "a".repeat(122));
  });

  it("W56 the whole of RFC 6455: every row of the conformance tables, in both roles", async () => {
    const groups = new Set(ROWS.map(({ id }) => id.split(".")[0]));
    for (const group of ["1", "2", "3", "4", "5", "6", "7", "9", "10"]) {
      assert.ok(groups.has(group));
    }
    for (const row of ROWS) {
      for (const role of ROLES) check(row, await protocolLevel(row, role));
    }
  });
});

describe("wsproto: the project", () => {
  it("W57 semantic versioning, over what the documentation names and nothing else", async () => {
    const { version, exports } = JSON.parse(await readSource("deno.json"));
    assert.match(version, /^\d+\.\d+\.\d+$/);
    assert.match(await readSource("CHANGELOG.md"), /semantic versioning.*documented API/);
    const readme = await readSource("README.md");
    const documented = [...readme.matchAll(/`sluice(\/\w+)?`/g)].map(([, entry = ""]) =>
      `.${entry}`
    );
    assert.deepEqual([...new Set(documented)].sort(), Object.keys(exports).sort());
    for (const path of Object.values<string>(exports)) {
      assert.match(
        await readSource(path),
        /^(\/\/\/.*\n)*\/\*\*[^]*?@module/,
        `${path} is documented`,
      );
    }
  });

  it("W58 a client and a server on the core and a bare socket, which run", async () => {
    await withPrograms(async (start) => {
      const source = await readSource("examples/core_server.ts");
      const server = await start("core_server.ts", source.replaceAll("8080", "0"));
      const [, port] = await server.printed(/port: (\d+)/);
      const program = (await readSource("examples/core_client.ts")).replaceAll("8080", port);
      const client = await start("core_client.ts", program);
      assert.equal(await client.exited, 0, client.stderr);
      assert.equal(client.stdout, "received: Hello, World\nclosed: 1000 done\n");
    });
  });
});
