import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  connect,
  type HandshakeError,
  serve,
  type WebSocketConnection,
  type WebSocketError,
} from "../mod.ts";
import {
  acceptExtensions,
  type Extension,
  type ExtensionHeader,
  finalizeExtensions,
  type Frame,
  LocalProtocolError,
  offerExtensions,
  Opcode,
  PENDING,
  Protocol,
  type ProtocolEvent,
  RemoteProtocolError,
} from "../lib/core/mod.ts";
import { assemble } from "../lib/streams.ts";
import { driverOf } from "../lib/connection/connection.ts";
import { type MemoryTransport, pair, transportPair } from "../lib/testing.ts";
import { toStreams } from "../lib/transport.ts";
import { collect, rejection, rest, turn, until, urlOf, withServer } from "./support.ts";
import { Toy, ToyCodec } from "./toy_extension.ts";
import { inVirtualTime } from "./virtual_time.ts";

const header = (name: string, ...parameters: [string, string | undefined][]): ExtensionHeader => ({
  name,
  parameters,
});

describe("Extensions: what both ends agree on", () => {
  it("W19 W20 W53 a client offers in its order, with what it could fall back to", () => {
    const a = new Toy("a", 1, { offers: [[["level", "9"]], []] });
    assert.deepEqual(offerExtensions([a, new Toy("b", 1)]), [
      header("a", ["level", "9"]),
      header("a"),
      header("b"),
    ]);
  });

  const offers = [header("b"), header("a", ["level", "9"]), header("a", ["level", "1"])];
  const accepted: [title: string, supported: Toy[], chosen: ExtensionHeader[]][] = [
    ["nothing where it supports nothing", [], []],
    ["nothing that was not offered", [new Toy("c", 1)], []],
    ["in its own order of preference", [new Toy("a", 1), new Toy("b", 1)], [offers[1], offers[0]]],
    ["the first offer that it can take", [new Toy("a", 1, { level: "1" })], [offers[2]]],
    ["none where it can take none of them", [new Toy("a", 1, { level: "5" })], []],
    [
      "none whose reserved bits are in use",
      [new Toy("a", 1, { rsv: 4 }), new Toy("b", 1, { rsv: 6 })],
      [offers[1]],
    ],
  ];
  for (const [title, supported, chosen] of accepted) {
    it(`W20 a server accepts ${title}`, () => {
      const { headers, extensions } = acceptExtensions(offers, supported);
      assert.deepEqual(headers, chosen);
      assert.deepEqual(extensions.map(({ name }) => name), chosen.map(({ name }) => name));
    });
  }

  const supported = () => [new Toy("a", 1, { rsv: 4 }), new Toy("b", 1, { rsv: 4 })];
  const refused: [title: string, chosen: ExtensionHeader[]][] = [
    ["one that it did not offer", [header("c")]],
    ["one twice", [header("a"), header("a")]],
    ["two that use the same reserved bit", [header("a"), header("b")]],
  ];
  for (const [title, chosen] of refused) {
    it(`W22 a client refuses ${title}`, () => {
      assert.throws(
        () => finalizeExtensions(chosen, supported()),
        ({ code }: HandshakeError) => code === "extension",
      );
    });
  }

  it("what uses a reserved bit of another is closed at once, the other is not", () => {
    const toys = supported();
    const { extensions } = acceptExtensions([header("a"), header("b")], toys);
    assert.deepEqual(toys.map(({ made }) => made[0].closed), [0, 1]);
    assert.deepEqual(extensions, toys[0].made);
    const others = supported();
    assert.throws(() => finalizeExtensions([header("a"), header("b")], others));
    assert.deepEqual(others.map(({ made }) => made.map(({ closed }) => closed)), [[1], [1]]);
  });

  it("a client takes what it offered, in the server's order", () => {
    const agreed = finalizeExtensions([header("b")], supported());
    assert.deepEqual(agreed.map(({ name }) => name), ["b"]);
  });
});

const bytes = (...values: number[]): Uint8Array => new Uint8Array(values);

/** An extension whose order relative to others matters. The order of those that only add does not. */
class Reverse extends Toy {
  override finalize(): Extension {
    const codec = super.finalize() as ToyCodec;
    const { encode, next } = codec;
    codec.encode = (frame) => {
      const changed = encode.call(codec, frame)!;
      changed.payload[0] = 0;
      return { ...changed, payload: new Uint8Array([...changed.payload, 99]) };
    };
    codec.next = () => {
      const piece = next.call(codec);
      if (piece === undefined || piece === PENDING) return piece;
      assert.equal(piece.payload.at(-1), 99 - 0, "the other extension was undone first");
      return { ...piece, payload: piece.payload.slice(0, -1) };
    };
    return codec;
  }
}

describe("Extensions: what they change", () => {
  const protocols = (...toys: Toy[]) => {
    const frames: Frame[] = [];
    const onFrame = (_: "in" | "out", frame: Frame) => void frames.push(frame);
    const make = () => toys.map((toy) => toy.finalize());
    const client = new Protocol("client", { extensions: make(), onFrame });
    return { client, server: new Protocol("server", { extensions: make() }), frames };
  };
  const binary = (data: Uint8Array, messageFinished = true): ProtocolEvent => ({
    type: "binary",
    data,
    frameFinished: true,
    messageFinished,
  });

  it("transforms each fragment; control frames in between are not changed", () => {
    const { client, server, frames } = protocols(new Toy("a", 1, { rsv: 4 }));
    server.receive(client.send(binary(bytes(1, 2), false)));
    server.receive(client.send({ type: "ping", payload: bytes(7) }));
    server.receive(client.send(binary(bytes(3))));
    server.receive(
      client.send({ type: "text", data: "é", frameFinished: true, messageFinished: true }),
    );
    assert.deepEqual([...server.events()], [
      binary(bytes(1, 2), false),
      { type: "ping", payload: bytes(7) },
      binary(bytes(3)),
      { type: "text", data: "é", frameFinished: true, messageFinished: true },
    ]);
    // `onFrame` sees the frames as they are sent.
    assert.deepEqual(frames.map(({ rsv, payload }) => [rsv, [...payload]]), [
      [4, [2, 3]],
      [0, [7]],
      [0, [4]],
      [4, [0xc4, 0xaa]],
    ]);
  });

  it("the one named first is applied first, and undone last", () => {
    const { client, server, frames } = protocols(
      new Reverse("a", 0, { rsv: 4 }),
      new Toy("b", 1, { rsv: 2 }),
    );
    server.receive(client.send(binary(bytes(0, 5))));
    assert.deepEqual([...server.events()], [binary(bytes(0, 5))]);
    assert.deepEqual(frames.map(({ rsv, payload }) => [rsv, [...payload]]), [[6, [1, 6, 100]]]);
  });

  it("a reserved bit that no extension uses fails with 1002", () => {
    const { server } = protocols(new Toy("a", 1, { rsv: 4 }));
    server.receive(bytes(0xa1, 0x80, 0, 0, 0, 0));
    assert.throws(() => server.next(), ({ closeCode }: RemoteProtocolError) => closeCode === 1002);
  });

  it("an extension that fails is a failure of the peer's, and stays one", () => {
    const { server } = protocols(new Toy("a", 1, { rsv: 4 }));
    server.receive(bytes(0x82, 0x80, 0, 0, 0, 0));
    for (let again = 0; again < 2; again++) {
      assert.throws(() => server.next(), /Expected the bits of a/);
    }
  });

  it("the bytes of changed messages are counted before and after all extensions", () => {
    const toys = [new Toy("a", 1, { rsv: 4, grow: 2 }), new Toy("b", 1, { grow: 3 })];
    const { client, server } = protocols(...toys);
    const counts = ({ counts }: Protocol) => [
      counts.compressedBytesSent,
      counts.uncompressedBytesSent,
      counts.compressedBytesReceived,
      counts.uncompressedBytesReceived,
    ];
    const none = [0, 0, 0, 0];
    assert.deepEqual([counts(client), counts(server)], [none, none]);
    server.receive(client.send(binary(bytes(1, 2), false)));
    server.receive(client.send({ type: "ping", payload: bytes(7, 8, 9) }));
    server.receive(client.send(binary(bytes(3))));
    assert.equal([...server.events()].length, 3);
    assert.deepEqual([counts(client), counts(server)], [[3, 3, 0, 0], [0, 0, 3, 18]]);
    const plain = protocols(new Toy("c", 1));
    plain.server.receive(plain.client.send(binary(bytes(1, 2))));
    assert.equal([...plain.server.events()].length, 1);
    assert.deepEqual([counts(plain.client), counts(plain.server)], [none, none]);
  });

  it("an extension must return bytes", () => {
    const codec = new Toy("a", 1).finalize() as ToyCodec;
    const client = new Protocol("client", { extensions: [codec] });
    for (const payload of ["text", undefined]) {
      codec.encode = (frame) => ({ ...frame, payload }) as never;
      const message = `An extension must return bytes, received ${typeof payload}`;
      assert.throws(() => client.send(binary(bytes(1))), { name: "TypeError", message });
    }
  });

  it("maxMessageSize counts the bytes after the transformation", () => {
    const toy = new Toy("a", 0, { rsv: 4, grow: 100 });
    const server = new Protocol("server", { extensions: [toy.finalize()], maxMessageSize: 200 });
    const client = new Protocol("client", { extensions: [toy.finalize()] });
    server.receive(client.send(binary(bytes(1, 2))));
    assert.equal([...server.events()].length, 1);
    server.receive(client.send(binary(bytes(1, 2, 3))));
    assert.throws(() => server.next(), ({ closeCode }: RemoteProtocolError) => closeCode === 1009);
  });

  it("a frame that an extension refuses has not been sent, and begins no message", () => {
    const toy = new Toy("a", 1, { rsv: 4 });
    const codec = toy.finalize() as ToyCodec;
    const client = new Protocol("client", { extensions: [codec] });
    const server = new Protocol("server", { extensions: [toy.finalize()] });
    const { encode } = codec;
    codec.encode = () => {
      throw new RangeError("not this one");
    };
    assert.throws(() => client.send(binary(bytes(1), false)), RangeError);
    codec.encode = encode;
    server.receive(client.send({ type: "text", data: "a" }));
    const whole = { frameFinished: true, messageFinished: true };
    assert.deepEqual([...server.events()], [{ type: "text", data: "a", ...whole }]);
  });

  it("the payload given to send() is left as it was", () => {
    const { client } = protocols(new Toy("a", 1));
    const data = bytes(1, 2, 3);
    client.send(binary(data));
    assert.deepEqual(data, bytes(1, 2, 3));
  });

  it("what works elsewhere does not without onReady", () => {
    const { client, server } = protocols(new Toy("a", 1, { slow: true }));
    server.receive(client.send(binary(bytes(1))));
    assert.deepEqual([...server.events()], [binary(bytes(1))]);
  });

  it("while one is pending nothing is read, and onReady tells when it may be", async () => {
    let ready = 0;
    const toy = new Toy("a", 1, { slow: true });
    const client = new Protocol("client", { extensions: [toy.finalize()] });
    const server = new Protocol("server", {
      extensions: [toy.finalize()],
      onReady: () => void ready++,
    });
    server.receive(client.send(binary(bytes(1))));
    server.receive(client.send({ type: "ping", payload: bytes() }));
    server.receive(null);
    for (let again = 0; again < 3; again++) assert.equal(server.next(), undefined);
    assert.equal(server.pending, true);
    await until(() => ready === 1);
    assert.equal(server.pending, false);
    assert.deepEqual([...server.events()].map(({ type }) => type), ["binary", "ping", "close"]);
  });
});

async function echoEach(ws: WebSocketConnection): Promise<void> {
  for await (const message of ws) await ws.send(message);
}

describe("Extensions: on a connection", () => {
  const LONG = "x".repeat(20_000);

  for (const slow of [false, true]) {
    const how = slow ? "that works elsewhere" : "that works at once";
    const toy = () => new Toy("toy", 3, { rsv: 4, slow });

    it(`connect() and serve() agree on one ${how}`, async () => {
      const extensions = [toy()];
      await withServer({ extensions }, async (server) => {
        const ws = await connect(urlOf(server), { extensions });
        assert.equal(ws.extensions, "toy");
        const sent = ["", "short", LONG, bytes(), bytes(1, 2, 255), new Uint8Array(70_000)];
        for (const message of sent) ws.send(message);
        for (const message of sent) assert.deepEqual(await ws.receive(), message);
        await ws.close({ closeCode: 1000 });
        assert.equal(extensions[0].made.length, 2);
        await until(() => extensions[0].made.every(({ closed }) => closed === 1));
        if (slow) assert.ok(extensions[0].made.every(({ pending }) => pending > 0));
      }, echoEach);
    });

    it(`messages, pings and the Close keep their order with one ${how}`, async () => {
      const seen: Opcode[] = [];
      const extensions = [toy()];
      const [client, server] = await pair({
        client: {
          extensions,
          onFrame: (direction, { opcode }) => void (direction === "out" && seen.push(opcode)),
        },
        server: { extensions },
      });
      const sends = [
        client.send(LONG),
        client.send("b"),
        client.send([LONG, "c"]),
        client.send("d"),
      ];
      // An iterable may wait for ever, so the sends that wait for it are rejected.
      const settled = Promise.allSettled(sends);
      const received = collect(server);
      const closing = client.close({ closeCode: 1000 });
      assert.equal(client.state, "closing");
      await rejection(client.send("late"));
      await closing;
      const statuses = (await settled).map(({ status }) => status);
      assert.deepEqual(statuses.slice(0, 2), ["fulfilled", "fulfilled"]);
      const got = await received;
      assert.deepEqual(got.slice(0, 2), [LONG, "b"]);
      assert.equal(got.length, statuses.filter((status) => status === "fulfilled").length);
      assert.equal(seen.at(-1), Opcode.Close);
    });

    it(`a copy is made of what writable is given with one ${how}`, async () => {
      const extensions = [toy()];
      const [client, server] = await pair({ client: { extensions }, server: { extensions } });
      const data = new Uint8Array(20_000).fill(7);
      const writer = client.writable.getWriter();
      const written = writer.write(data);
      await turn();
      data.fill(9);
      await written;
      assert.deepEqual(await server.receive(), new Uint8Array(20_000).fill(7));
      await writer.close();
    });

    it(`assemble() with one ${how}`, async () => {
      const [near, far] = transportPair();
      const toys = [toy(), toy()];
      const [a, b] = [near, far].map((transport, i) =>
        assemble(toStreams(transport), {
          role: (["client", "server"] as const)[i],
          extensions: [toys[i].finalize()],
        })
      );
      b.readable.pipeTo(b.writable);
      const writer = a.writable.getWriter();
      const reader = a.readable.getReader();
      for (const message of ["short", LONG, bytes(1, 2)]) {
        writer.write(message);
        assert.deepEqual((await reader.read()).value, message);
      }
      await writer.close();
      await Promise.all([a.closed, b.closed]);
      assert.deepEqual(toys.map(({ made }) => made[0].closed), [1, 1]);
    });
  }

  it("terminate() while one is pending settles all, and nothing is called back", async () => {
    const extensions = [new Toy("toy", 3, { slow: true })];
    const [client, server] = await pair({ client: { extensions }, server: { extensions } });
    const sends = [client.send(LONG), client.send("behind")];
    const receiving = server.receive();
    client.terminate();
    await Promise.all([rejection(client.closed), rejection(server.closed), rejection(receiving)]);
    for (const send of sends) await rejection(send);
    await rest();
    assert.deepEqual(extensions[0].made.map(({ closed }) => closed), [1, 1]);
  });

  it("while one is pending, no ping is due any more if the transport is lost", async () => {
    await inVirtualTime(async (time) => {
      const toy = new Toy("toy", 0, { slow: true });
      const extensions = [toy];
      const [client, server] = await pair({ client: { extensions }, server: { extensions } });
      toy.made[0].next = () => PENDING;
      void client.send("a");
      await time.advance(10);
      (driverOf(client).transport as MemoryTransport).fail(new Error("reset"));
      await time.advance(10);
      assert.deepEqual([client.state, server.state, time.waiting], ["closed", "open", 0]);
      server.terminate();
      await rejection(server.closed);
    });
  });

  it("a slow extension pauses the transport", async () => {
    const extensions = [new Toy("toy", 0, { slow: true })];
    const [client, server] = await pair({ client: { extensions }, server: { extensions } });
    const before = server.stats.pauses;
    for (let i = 0; i < 40; i++) client.send(new Uint8Array(10_000));
    for (let i = 0; i < 40; i++) {
      assert.equal((await server.receive() as Uint8Array).length, 10_000);
    }
    assert.ok(server.stats.pauses > before);
    await client.close();
  });

  it("one that fails to encode fails the connection with 1011", async () => {
    const toy = new Toy("toy", 0);
    const broken = new Toy("toy", 0);
    broken.finalize = () => {
      const codec = new ToyCodec("toy", 0, {});
      codec.encode = (frame, later) => {
        setImmediate(() => later?.(new Error("out of memory"), frame));
        return undefined;
      };
      return codec;
    };
    const [client, server] = await pair({
      client: { extensions: [broken] },
      server: { extensions: [toy] },
    });
    const error = await rejection(client.send(LONG));
    assert.equal((error.cause as Error).message, "out of memory");
    assert.equal(
      (await rejection<{ closeCode: number } & Error>(server.receive())).closeCode,
      1011,
    );
    await rejection(client.closed);
  });

  it("one that fails with a message beyond ASCII fails the connection with as much as fits", async () => {
    const broken = new Toy("toy", 0);
    const message = "\u20ac".repeat(100);
    broken.accept = (parameters) => {
      const codec = new ToyCodec("toy", 0, {});
      codec.push = () => {
        throw new RemoteProtocolError(message, 1007);
      };
      return { parameters, extension: codec };
    };
    const [client, server] = await pair({
      client: { extensions: [new Toy("toy", 0)] },
      server: { extensions: [broken] },
    });
    client.send("a");
    const { closeCode, reason } = await rejection<WebSocketError>(client.receive());
    assert.deepEqual([closeCode, reason], [1007, message.slice(0, 41)]);
    await rejection(server.closed);
  });

  it("the option must be a list of factories", async () => {
    for (const extensions of [{}, [{}], ["permessage-deflate"], [{ name: "x", offer() {} }]]) {
      assert.ok(
        await rejection(connect("ws://127.0.0.1:1/", { extensions } as never)) instanceof TypeError,
      );
      assert.ok(await rejection(serve({ extensions } as never, () => {})) instanceof TypeError);
    }
  });

  it("an error of the next one is reported when another has finished", () => {
    let finish!: () => void;
    const [slow, broken] = [new ToyCodec("slow", 0, {}), new ToyCodec("broken", 0, {})];
    slow.encode = (frame, later) => {
      finish = () => later!(undefined, frame);
      return undefined;
    };
    broken.encode = () => {
      throw new Error("out of memory");
    };
    const client = new Protocol("client", { extensions: [slow, broken] });
    let failure: Error | undefined;
    const later = (error?: Error) => failure = error;
    assert.equal(client.writePiece(bytes(1), true, false, undefined, later), false);
    finish();
    assert.equal(failure?.message, "out of memory");
    assert.equal(client.encoder.size, 0);
  });

  it("a pending message does not leave after a Close frame", () => {
    let finish: (() => void) | undefined;
    const codec = new ToyCodec("toy", 0, {});
    codec.encode = (frame, later) => {
      finish = () => later!(undefined, frame);
      return undefined;
    };
    const client = new Protocol("client", { extensions: [codec] });
    const server = new Protocol("server");
    let refused: Error | undefined;
    const later = (error?: Error) => refused = error;
    assert.equal(client.writePiece(bytes(1), true, false, undefined, later), false);
    server.receive(client.send({ type: "close", closeCode: 1000, reason: "" }));
    finish!();
    assert.ok(refused instanceof LocalProtocolError);
    assert.equal(client.encoder.size, 0);
  });
});
