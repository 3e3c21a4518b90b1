import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  encodeFrame,
  FrameDecoder,
  Opcode,
  Protocol,
  type ProtocolOptions,
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

/** A message as frames whose payloads have these lengths. */
function fragmentsOf(payload: Uint8Array, lengths: readonly number[]): Uint8Array {
  let at = 0;
  return concat(lengths.map((length, i) => {
    const part = payload.subarray(at, at += length);
    const opcode = i === 0 ? Opcode.Binary : Opcode.Continuation;
    return frameOf(part, "server", opcode, i === lengths.length - 1);
  }));
}

/** A protocol that gathers the pieces of messages, as a connection does. */
function gathering(role: Role, options: ProtocolOptions = {}): Protocol {
  const protocol = new Protocol(role, { ...options, ownsInput: true });
  protocol.whole = true;
  return protocol;
}

/** The data of the messages, or of their pieces, in these chunks. */
function dataOf(protocol: Protocol, chunks: readonly Uint8Array[]): Message[] {
  const data: Message[] = [];
  for (const chunk of chunks) {
    protocol.receive(chunk);
    for (const event of protocol.events()) {
      if (event.type === "text" || event.type === "binary") data.push(event.data);
    }
  }
  return data;
}

describe("Messages that are put together", () => {
  for (const role of ["client", "server"] as const) {
    it(`a ${role} gets a message whole wherever it is cut`, () => {
      const payload = pattern(300);
      for (const chunks of cuts(frameOf(payload, role))) {
        assert.deepEqual(dataOf(gathering(role), chunks), [payload]);
      }
    });

    it(`a ${role} gets messages in their order wherever the input is cut`, () => {
      fc.assert(fc.property(fc.array(binary, { maxLength: 8 }), offsets(600), (payloads, at) => {
        const input = concat(payloads.map((payload) => frameOf(payload, role)));
        assert.deepEqual(dataOf(gathering(role), cut(input, ...at)), payloads);
      }));
    });
  }

  it("each has a buffer of its own", () => {
    for (const chunks of cuts(frameOf(pattern(300), "server"))) {
      const [message] = dataOf(gathering("server"), chunks) as Uint8Array[];
      assert.equal(message.buffer.byteLength, 300);
      assert.ok(chunks.every((chunk) => chunk.buffer !== message.buffer));
    }
  });

  it("a message takes all the chunks that wait", () => {
    for (const role of ["client", "server"] as const) {
      const payload = pattern(3000);
      const frame = frameOf(payload, role);
      const protocol = gathering(role);
      for (let at = 0; at < frame.length; at += 100) protocol.receive(frame.slice(at, at + 100));
      assert.deepEqual(dataOf(protocol, []), []);
      const [event] = protocol.events();
      assert.ok(event.type === "binary");
      assert.deepEqual(event.data, payload);
      assert.equal(protocol.release(), true);
    }
  });

  it("a declared length alone takes no memory", () => {
    const sizes = allocated(() => {
      const protocol = gathering("server");
      dataOf(protocol, [hex("82 ff 00 00 00 02 80 00 00 00 00 00 00 00 01")]);
      dataOf(protocol, [new Uint8Array(65536)]);
    });
    assert.ok(sizes.every((size) => size <= 16 * 65536), `${sizes}`);
  });

  it("allocates at most 16 times the received bytes", () => {
    for (const chunkSize of [100, 5000, 65536]) {
      const payload = pattern(1_000_000);
      const frame = frameOf(payload, "server");
      const taken: number[] = [];
      const protocol = gathering("server");
      for (let at = 0; at < frame.length; at += chunkSize) {
        const chunk = frame.slice(at, at + chunkSize);
        const sizes = allocated(() => {
          for (const data of dataOf(protocol, [chunk])) assert.deepEqual(data, payload);
        });
        for (const size of sizes) assert.ok(size <= 16 * (at + chunkSize), `${size} at ${at}`);
        taken.push(...sizes);
      }
      const sum = taken.reduce((before, size) => before + size, 0);
      assert.ok(sum < 1.3 * payload.length, `${sum} bytes in all`);
    }
  });

  it("after a short first frame, there is room for three more", () => {
    const cases = [
      { frames: [256, 256, 256, 256], sizes: [1024] },
      { frames: [100, 1], sizes: [400] },
      { frames: [100, 100, 100, 100, 100], sizes: [400, 800] },
      { frames: [100, 0, 500], sizes: [400, 600] },
      { frames: [4096, 1], sizes: [16384] },
      { frames: [4097, 1], sizes: [4097, 8194] },
    ];
    for (const { frames, sizes } of cases) {
      const taken: number[] = [];
      const allocate = (length: number) => {
        taken.push(length);
        return new Uint8Array(length);
      };
      const payload = pattern(frames.reduce((sum, length) => sum + length));
      const protocol = gathering("server", { allocate });
      const chunks = [fragmentsOf(payload, frames), fragmentsOf(payload.toReversed(), frames)];
      const [message, next] = dataOf(protocol, chunks) as Uint8Array[];
      assertSameBytes(message, payload);
      assertSameBytes(next, payload.toReversed());
      assert.equal(message.buffer.byteLength, payload.length);
      assert.deepEqual(taken, [...sizes, ...sizes]);
    }
  });

  it("the first piece of a frame takes the memory that the frame needs", () => {
    const taken: number[] = [];
    const allocate = (length: number) => {
      taken.push(length);
      return new Uint8Array(length);
    };
    const payload = pattern(300);
    const protocol = gathering("server", { allocate });
    assert.deepEqual(dataOf(protocol, cut(frameOf(payload, "server"), 108)), [payload]);
    assert.deepEqual(taken, [300]);
  });

  it("turning it off within a message gives the part so far, then pieces", () => {
    for (const opcode of [Opcode.Binary, Opcode.Text]) {
      const payload = pattern(300).map((byte) => byte & 0x7f);
      const expected = opcode === Opcode.Text ? new TextDecoder().decode(payload) : payload;
      const [first, second, third, fourth] = cut(frameOf(payload, "server", opcode), 58, 108, 208);
      const protocol = gathering("server");
      assert.deepEqual(dataOf(protocol, [first, second]), []);
      assert.equal(protocol.held, 100);
      protocol.whole = false;
      const held = protocol.takeHeld()!;
      assert.equal(held.messageFinished, false);
      const data = [held.data, ...dataOf(protocol, [third, fourth])];
      assert.deepEqual(data.map(({ length }) => length), [100, 100, 100]);
      assert.deepEqual(joined(data), expected);
      assert.equal(protocol.takeHeld(), undefined);
    }
  });

  it("turning it on within a message gives the rest as one piece", () => {
    const payload = pattern(300);
    const [first, second, third] = cut(frameOf(payload, "server"), 108, 208);
    const protocol = new Protocol("server");
    const data = dataOf(protocol, [first]);
    protocol.whole = true;
    data.push(...dataOf(protocol, [second, third]));
    assert.deepEqual(data.map(({ length }) => length), [100, 200]);
    assert.deepEqual(joined(data), payload);
  });

  it("a chunk is let go of once it has been read", () => {
    const frame = frameOf(pattern(300), "server");
    const protocol = gathering("server");
    const [first, second] = cut(frame, 108);
    protocol.receive(first);
    assert.equal(protocol.release(), false, "not read");
    dataOf(protocol, []);
    for (const _ of protocol.events());
    assert.equal(protocol.release(), true, "read");
    protocol.receive(concat([second, frame]));
    protocol.next();
    assert.equal(protocol.release(), false, "read in part");
    protocol.next();
    protocol.next();
    assert.equal(protocol.release(), true, "read to its end");
  });

  it("memory that was not zeroed never shows its old content", () => {
    const taken: number[] = [];
    const allocate = (length: number) => {
      taken.push(length);
      return new Uint8Array(length).fill(0xee);
    };
    const payload = pattern(3000);
    const protocol = gathering("server", { allocate });
    const [first, second] = cut(frameOf(payload, "server"), 108);
    assert.deepEqual(dataOf(protocol, [first, second]), [payload]);
    assert.deepEqual(dataOf(protocol, [first.slice()]), []);
    protocol.whole = false;
    const { data } = protocol.takeHeld()!;
    assert.equal((data as Uint8Array).buffer.byteLength, 100);
    assert.ok(taken.length > 0);
  });

  it("a decoder that has failed does not release its input", () => {
    const decoder = new FrameDecoder({ role: "server", ownsInput: true });
    decoder.push(concat([frameOf(pattern(300), "server"), hex("83 80")]));
    decoder.next();
    assert.throws(() => decoder.next(), { closeCode: 1002 });
    assert.equal(decoder.release(), false);
  });

  it("connections that take turns have nothing of each other", () => {
    const ends = (["server", "client", "server"] as const).map((role, i) => {
      const payload = pattern(300 + i);
      const chunks = cut(concat(Array(4).fill(frameOf(payload, role))), 1, 3, 310, 700);
      return { role, protocol: gathering(role), payload, chunks, received: [] as Message[] };
    });
    for (let i = 0; i < 5; i++) {
      for (const { protocol, chunks, received } of ends) {
        received.push(...dataOf(protocol, [chunks[i]]));
        protocol.release();
      }
    }
    for (const { role, protocol, payload, received } of ends) {
      assertSameBytes(joined(received) as Uint8Array, concat(Array(4).fill(payload)));
      protocol.receive(hex("83 80"));
      const at = 4 * (payload.length + 4 + (role === "client" ? 0 : 4));
      assert.throws(() => protocol.next(), { message: new RegExp(`frame at byte ${at}\\)`) });
    }
  });

  it("an end within a header is reported at the position of its frame", () => {
    const first = new FrameDecoder({ role: "server" });
    first.push(hex("82"));
    assert.throws(() => first.end(), { message: /frame at byte 0\)/ });
    const second = new FrameDecoder({ role: "server", ownsInput: true });
    second.push(frameOf(pattern(300), "server"));
    assert.equal(second.next()?.last, true);
    second.push(hex("82"));
    assert.throws(() => second.end(), { message: /frame at byte 308\)/ });
  });

  it("what becomes of chunks that were let go of does not matter", () => {
    const payload = pattern(300);
    const protocol = gathering("server");
    const received: Message[] = [];
    for (const chunk of cut(frameOf(payload, "server"), 3, 8, 100)) {
      received.push(...dataOf(protocol, [chunk]));
      assert.equal(protocol.release(), true);
      structuredClone(chunk.buffer, { transfer: [chunk.buffer as ArrayBuffer] });
      assert.equal(protocol.bufferedAmount, 0);
    }
    assert.deepEqual(received, [payload]);
    protocol.receive(hex("83 80"));
    assert.throws(() => protocol.next(), { message: /frame at byte 308/ });
  });
});

describe("A connection whose messages are read whole", () => {
  it("lets go of a chunk after messages", () => {
    for (const opcode of [Opcode.Text, Opcode.Binary]) {
      const payload = new Uint8Array(1000).fill(97);
      const protocol = gathering("server");
      const data = dataOf(protocol, [frameOf(payload, "server", opcode)]);
      assert.deepEqual(data, [opcode === Opcode.Text ? "a".repeat(1000) : payload]);
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
      connect("ws://localhost/", { transport: near }),
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
    const protocol = gathering("server", { maxMessageSize: 1000 });
    protocol.receive(frameOf(pattern(2000), "server").subarray(0, 50));
    assert.throws(() => protocol.next(), { closeCode: 1009 });
  });

  it("each message has a buffer of its own, also for an observer", async () => {
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

  it("cancelling does not change a message that was given out", async () => {
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

/** The pieces of one message, joined. */
function joined(data: readonly Message[]): Message {
  return typeof data[0] === "string" ? data.join("") : concat(data as Uint8Array[]);
}

/** The sizes of the arrays that are allocated during the run. */
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
