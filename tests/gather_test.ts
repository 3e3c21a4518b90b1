import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  encodeFrame,
  FrameDecoder,
  type FramePiece,
  Opcode,
  Protocol,
  type Role,
} from "../lib/core/mod.ts";
import { pair, transportPair } from "../lib/testing.ts";
import type { TransportHandlers } from "../lib/transport.ts";
import { accept, connect, type Message } from "../mod.ts";
import { assertSameBytes, concat, cut, cuts, hex, pattern, utf8 } from "./bytes.ts";
import { binary, fc, offsets } from "./property.ts";
import { urlOf, withServer } from "./support.ts";

const MASK = hex("37 fa 21 3d");

function frameOf(payload: Uint8Array, role: Role, opcode: Opcode = Opcode.Binary, fin = true) {
  const mask = role === "server" ? MASK : undefined;
  return encodeFrame({ fin, rsv: 0, opcode, payload }, { mask });
}

function gathering(role: Role): FrameDecoder {
  const decoder = new FrameDecoder({ role, ownsInput: true });
  decoder.gathers = true;
  return decoder;
}

function piecesOf(decoder: FrameDecoder, chunks: readonly Uint8Array[]): FramePiece[] {
  const pieces: FramePiece[] = [];
  for (const chunk of chunks) {
    decoder.push(chunk);
    for (let piece = decoder.next(); piece; piece = decoder.next()) pieces.push(piece);
  }
  return pieces;
}

const shape = (pieces: FramePiece[]) =>
  pieces.map(({ payload, last }) => [payload.length, last] as const);

describe("FrameDecoder.gathers", () => {
  for (const role of ["client", "server"] as const) {
    it(`a ${role} gets a frame whole wherever it is cut`, () => {
      const payload = pattern(300);
      for (const chunks of cuts(frameOf(payload, role))) {
        const pieces = piecesOf(gathering(role), chunks);
        assert.deepEqual(pieces.at(-1)!.payload, payload);
        assert.ok(pieces.slice(0, -1).every((piece) => piece.payload.length === 0));
        assert.ok(pieces.length <= 2);
      }
    });

    it(`a ${role} gets frames in their order wherever the input is cut`, () => {
      fc.assert(fc.property(fc.array(binary, { maxLength: 8 }), offsets(600), (payloads, at) => {
        const input = concat(payloads.map((payload) => frameOf(payload, role)));
        const pieces = piecesOf(gathering(role), cut(input, ...at));
        const whole = pieces.filter(({ last }) => last).map(({ payload }) => payload);
        assert.deepEqual(whole, payloads);
      }));
    });
  }

  it("it goes through all the chunks that wait", () => {
    for (const role of ["client", "server"] as const) {
      const payload = pattern(3000);
      const frame = frameOf(payload, role);
      const decoder = gathering(role);
      decoder.push(frame.slice(0, 100));
      assert.equal(decoder.next()?.last, false);
      assert.equal(decoder.next(), undefined);
      for (let at = 100; at < frame.length; at += 100) decoder.push(frame.slice(at, at + 100));
      assert.deepEqual(decoder.next()?.payload, payload);
      assert.equal(decoder.release(), true);
    }
  });

  it("the header comes first, before memory is taken for the rest", () => {
    const decoder = gathering("server");
    decoder.push(hex("82 ff 00 00 00 02 80 00 00 00 00 00 00 00 01"));
    assert.equal(decoder.next()?.header.length, 10 * 2 ** 30);
    assert.equal(decoder.next(), undefined);
    decoder.push(new Uint8Array(65536));
    assert.equal(decoder.next(), undefined);
  });

  it("no more memory is taken than 16 times what has come", () => {
    for (const chunkSize of [100, 5000, 65536]) {
      const payload = pattern(1_000_000);
      const frame = frameOf(payload, "server");
      const taken: number[] = [];
      const decoder = gathering("server");
      for (let at = 0; at < frame.length; at += chunkSize) {
        const sizes = allocated(() => {
          decoder.push(frame.slice(at, at + chunkSize));
          decoder.next();
          const piece = decoder.next();
          if (piece?.last) assert.deepEqual(piece.payload, payload);
        });
        for (const size of sizes) assert.ok(size <= 16 * (at + chunkSize), `${size} at ${at}`);
        taken.push(...sizes);
      }
      const sum = taken.reduce((before, size) => before + size, 0);
      assert.ok(sum < 1.3 * payload.length, `${sum} bytes in all`);
    }
  });

  it("what is no binary message of one frame comes in pieces", () => {
    for (
      const [opcode, fin] of [
        [Opcode.Text, true],
        [Opcode.Binary, false],
        [Opcode.Continuation, true],
      ] as const
    ) {
      const frame = frameOf(pattern(300).map((byte) => byte & 0x7f), "server", opcode, fin);
      const pieces = piecesOf(gathering("server"), cut(frame, 108, 208));
      assert.deepEqual(shape(pieces), [[100, false], [100, false], [100, true]]);
    }
  });

  it("a frame that lies whole in a chunk is copied out of it", () => {
    const chunk = frameOf(pattern(300), "server");
    const pieces = piecesOf(gathering("server"), [chunk]);
    assert.deepEqual(shape(pieces), [[300, true]]);
    const [{ payload }] = pieces;
    assert.equal(payload.buffer.byteLength, 300);
    chunk.fill(0);
    assert.deepEqual(payload, pattern(300));
  });

  it("turned off within a frame, the next piece has all that came so far", () => {
    const payload = pattern(300);
    const [first, second, third, fourth] = cut(frameOf(payload, "server"), 58, 108, 208);
    const decoder = gathering("server");
    const pieces = piecesOf(decoder, [first, second]);
    assert.deepEqual(shape(pieces), [[0, false]]);
    decoder.gathers = false;
    pieces.push(...piecesOf(decoder, [third, fourth]));
    assert.deepEqual(shape(pieces), [[0, false], [200, false], [100, true]]);
    assert.deepEqual(concat(pieces.map((piece) => piece.payload)), payload);
  });

  it("turned on within a frame, the rest of it comes in pieces", () => {
    const payload = pattern(300);
    const [first, second, third] = cut(frameOf(payload, "server"), 108, 208);
    const decoder = new FrameDecoder({ role: "server" });
    const pieces = piecesOf(decoder, [first]);
    decoder.gathers = true;
    pieces.push(...piecesOf(decoder, [second, third]));
    assert.deepEqual(shape(pieces), [[100, false], [100, false], [100, true]]);
    assert.deepEqual(concat(pieces.map((piece) => piece.payload)), payload);
  });

  it("a chunk is let go of once it was read and nothing that was given out is a part of it", () => {
    const payload = pattern(300);
    const frame = frameOf(payload, "server");
    const decoder = gathering("server");
    const [first, second] = cut(frame, 108);
    decoder.push(first);
    assert.equal(decoder.release(), false, "not read");
    while (decoder.next());
    assert.equal(decoder.release(), true, "copied");
    const part = frameOf(payload, "server", Opcode.Binary, false);
    decoder.push(concat([second, part]));
    decoder.next();
    assert.equal(decoder.release(), false, "read in part");
    decoder.next();
    assert.equal(decoder.release(), false, "a view of it was given out");
    assert.equal(decoder.release(), false, "and is still out");
    decoder.push(first);
    assert.equal(decoder.release(), false, "not read");
    while (decoder.next());
    assert.equal(decoder.release(), true, "the view was one of another chunk");
  });

  it("memory that was not zeroed is given out with nothing of what it held", () => {
    const taken: number[] = [];
    const allocate = (length: number) => {
      taken.push(length);
      return new Uint8Array(length).fill(0xee);
    };
    const payload = pattern(3000);
    const decoder = new FrameDecoder({ role: "server", ownsInput: true, allocate });
    decoder.gathers = true;
    const [first, second] = cut(frameOf(payload, "server"), 108);
    assert.deepEqual(piecesOf(decoder, [first, second]).at(-1)!.payload, payload);
    assert.deepEqual(piecesOf(decoder, [first]).map(({ payload }) => payload.length), [0]);
    decoder.gathers = false;
    const [piece] = piecesOf(decoder, [second.slice(0, 1)]);
    assert.deepEqual(piece.payload, payload.subarray(0, 101));
    assert.equal(piece.payload.buffer.byteLength, 101);
    assert.equal(taken.length, 3);
  });

  it("what was given out before a failure is not let go of", () => {
    const decoder = gathering("server");
    decoder.push(concat([frameOf(pattern(300), "server"), hex("83 80")]));
    decoder.next();
    assert.throws(() => decoder.next(), { closeCode: 1002 });
    assert.equal(decoder.release(), false);
  });

  it("decoders that take turns have nothing of each other", () => {
    const decoders = (["server", "client", "server"] as const).map((role, i) => {
      const payload = pattern(300 + i);
      const chunks = cut(concat(Array(4).fill(frameOf(payload, role))), 1, 3, 310, 700);
      return { decoder: gathering(role), payload, chunks, received: [] as Uint8Array[] };
    });
    for (let i = 0; i < 5; i++) {
      for (const { decoder, chunks, received } of decoders) {
        received.push(...piecesOf(decoder, [chunks[i]]).map((piece) => piece.payload.slice()));
        decoder.release();
      }
    }
    for (const { decoder, payload, received } of decoders) {
      assertSameBytes(concat(received), concat(Array(4).fill(payload)));
      decoder.push(hex("83 80"));
      const at = 4 * (payload.length + 4 + (decoder === decoders[1].decoder ? 0 : 4));
      assert.throws(() => decoder.next(), { message: new RegExp(`frame at byte ${at}\\)`) });
    }
  });

  it("an end before anything was read is told of at its own place", () => {
    const other = gathering("server");
    piecesOf(other, [frameOf(pattern(300), "server"), frameOf(pattern(300), "server")]);
    other.release();
    const first = gathering("server");
    first.push(hex("82"));
    assert.throws(() => first.end(), { message: /frame at byte 0\)/ });
    const second = gathering("server");
    piecesOf(second, [frameOf(pattern(300), "server")]);
    second.push(hex("82"));
    assert.throws(() => second.end(), { message: /frame at byte 308\)/ });
  });

  it("what becomes of chunks that were let go of does not matter", () => {
    const payload = pattern(300);
    const decoder = gathering("server");
    for (const chunk of cut(frameOf(payload, "server"), 3, 8, 100)) {
      decoder.push(chunk);
      for (let piece = decoder.next(); piece; piece = decoder.next()) {
        if (piece.last) assert.deepEqual(piece.payload, payload);
      }
      assert.equal(decoder.release(), true);
      structuredClone(chunk.buffer, { transfer: [chunk.buffer as ArrayBuffer] });
      assert.equal(decoder.bufferedAmount, 0);
    }
    decoder.push(hex("83 80"));
    assert.throws(() => decoder.next(), { message: /frame at byte 308/ });
  });

  it("an end within the frame is an error", () => {
    const decoder = gathering("server");
    piecesOf(decoder, [frameOf(pattern(300), "server").subarray(0, 200)]);
    assert.throws(() => decoder.end(), { closeCode: 1006 });
  });
});

describe("A connection whose messages are read whole", () => {
  it("lets go of a chunk behind messages: of none it is a part", () => {
    for (const opcode of [Opcode.Text, Opcode.Binary] as const) {
      const payload = new Uint8Array(1000).fill(97);
      const protocol = new Protocol("server", { ownsInput: true });
      protocol.receive(frameOf(payload, "server", opcode));
      const message = protocol.nextMessage();
      assert.deepEqual(message, opcode === Opcode.Text ? "a".repeat(1000) : payload);
      assert.equal(protocol.release(), true);
    }
  });

  it("gets messages over a socket that hold when its chunks are let go of", async () => {
    await withServer({}, async (server) => {
      const ws = await connect(urlOf(server));
      const sizes = Array.from({ length: 200 }, (_, i) => 60 + i * 331);
      const sent = sizes.map((size) => ws.send(pattern(size)));
      const messages: Message[] = [];
      while (messages.length < sizes.length) messages.push(await ws.receive());
      for (const [i, message] of messages.entries()) {
        assertSameBytes(message as Uint8Array, pattern(sizes[i]));
      }
      await Promise.all(sent);
      await ws.close();
    });
  });

  it("keeps a chunk that bytes are a view of when another comes within a callback", async () => {
    const [near, far] = transportPair();
    let handlers!: TransportHandlers;
    const handle = far.handle.bind(far);
    far.handle = (given) => handle(handlers = given);
    let inner: unknown = "not called";
    const size = () => {
      const text = frameOf(utf8("a".repeat(300)), "server", Opcode.Text);
      if (inner === "not called") inner = handlers.data(text);
      return 1;
    };
    const [client, server] = await Promise.all([
      connect("ws://localhost/", { duplex: near }),
      accept(far, { readableStrategy: { highWaterMark: 10, size } }),
    ]);
    assert.equal(handlers.data(frameOf(pattern(300), "server")), false);
    assert.equal(inner, false);
    assert.deepEqual(await server.receive(), pattern(300));
    assert.equal(await server.receive(), "a".repeat(300));
    server.terminate();
    client.terminate();
  });

  it("refuses a message on its declared length", () => {
    const protocol = new Protocol("server", { maxMessageSize: 1000 });
    protocol.gathers = true;
    protocol.receive(frameOf(pattern(2000), "server").subarray(0, 50));
    assert.throws(() => protocol.next(), { closeCode: 1009 });
  });

  it("gets each in a buffer of its own, and tells its observer of it", async () => {
    const seen: number[] = [];
    const onFrame = (direction: "in" | "out", { payload }: { payload: Uint8Array }) => {
      if (direction === "in") seen.push(payload.length);
    };
    const [client, server] = await pair({ server: { onFrame } });
    for (const size of [100_000, 300_000, 65_536]) {
      const received = server.receive();
      await client.send(pattern(size));
      const message = await received as Uint8Array;
      assert.deepEqual(message, pattern(size));
    }
    assert.deepEqual(seen, [100_000, 300_000, 65_536]);
    await client.close();
  });

  it("leaves the messages alone when what came before them is dropped", async () => {
    const [client, server] = await pair();
    const reader = server.readable.getReader();
    const first = reader.read();
    client.send(pattern(100_000));
    client.send(utf8("second"));
    assert.deepEqual((await first).value, pattern(100_000));
    await reader.cancel();
    await client.closed;
  });
});

/** The sizes of the arrays that are made meanwhile. */
function allocated(run: () => void): number[] {
  const real = globalThis.Uint8Array;
  const sizes: number[] = [];
  globalThis.Uint8Array = new Proxy(real, {
    construct(target, args, newTarget) {
      if (typeof args[0] === "number") sizes.push(args[0]);
      return Reflect.construct(
        target,
        args,
        newTarget === globalThis.Uint8Array ? real : newTarget,
      );
    },
  });
  try {
    run();
  } finally {
    globalThis.Uint8Array = real;
  }
  return sizes;
}
