/**
 * A receiver owns its bytes: each message, and each piece of a message, has a buffer that nothing else uses.
 */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect, fromWebSocket, type Message, serve } from "../../mod.ts";
import type { WebSocketConnection } from "../../mod.ts";
import { encodeFrame, type Frame, Opcode, Protocol } from "../../lib/core/mod.ts";
import { deflateEngines } from "../../lib/runtime/zlib.ts";
import { assemble } from "../../lib/streams.ts";
import { pair } from "../../lib/testing.ts";
import { assertSameBytes, concat, cut, hex, pattern, utf8 } from "../bytes.ts";
import { CLIENT } from "../native_sockets.ts";
import {
  binaryFrame,
  collect,
  continuation,
  echo,
  inBothRoles,
  portOf,
  ROLES,
  textFrame,
  urlOf,
  withServer,
} from "../support.ts";

const SIZES = [0, 1, 16, 64, 65, 125, 126, 1000, 1023, 1024, 4100, 65535, 65536, 65537, 200_000];

function assertOwned(bytes: unknown, title: string): asserts bytes is Uint8Array<ArrayBuffer> {
  assert.ok(bytes instanceof Uint8Array, title);
  assert.equal(Object.getPrototypeOf(bytes), Uint8Array.prototype, title);
  assert.ok(bytes.buffer instanceof ArrayBuffer, title);
  assert.deepEqual(
    { offset: bytes.byteOffset, buffer: bytes.buffer.byteLength },
    { offset: 0, buffer: bytes.length },
    title,
  );
}

/** Transfers the bytes away, as postMessage() does. */
function transfer(bytes: Uint8Array): void {
  structuredClone(bytes, { transfer: [bytes.buffer as ArrayBuffer] });
}

/** Checks messages that all arrived before the test used any of them. No two may share memory. */
function assertMessages(messages: readonly unknown[], sizes: readonly number[]): void {
  for (const [i, message] of messages.entries()) assertOwned(message, `${sizes[i]} bytes`);
  const all = messages as Uint8Array[];
  assert.deepEqual(all.map(({ length }) => length), sizes);
  assert.equal(new Set(all.map(({ buffer }) => buffer)).size, sizes.length);
  for (const [i, message] of all.entries()) {
    assertSameBytes(message, pattern(sizes[i]));
    if (i % 2 === 0) message.fill(0xee);
    else transfer(message);
  }
}

type Reader = (ws: WebSocketConnection, count: number) => Promise<Message[]>;

const READERS: Record<string, Reader> = {
  async "receive()"(ws, count) {
    const messages: Message[] = [];
    while (messages.length < count) messages.push(await ws.receive());
    return messages;
  },
  async readable(ws, count) {
    const reader = ws.readable.getReader();
    const messages: Message[] = [];
    while (messages.length < count) messages.push((await reader.read()).value!);
    return messages;
  },
  async "for await"(ws, count) {
    const messages: Message[] = [];
    for await (const message of ws) if (messages.push(message) === count) break;
    return messages;
  },
};

const COMPRESSION = { "without compression": false, "with compression": true } as const;

describe("A8 a received message owns its buffer", () => {
  for (const [how, compression] of Object.entries(COMPRESSION)) {
    for (const [way, read] of Object.entries(READERS)) {
      it(`A8 by ${way}, in memory, ${how}`, async () => {
        const options = { compression, readableStrategy: { highWaterMark: Infinity } };
        const [client, server] = await pair({ client: options, server: options });
        for (const [from, to] of [[client, server], [server, client]]) {
          for (const size of SIZES) void from.send(pattern(size), { compress: true });
          const { messagesReceived } = to.stats;
          while (to.stats.messagesReceived < messagesReceived + SIZES.length) {
            await new Promise((resolve) => setTimeout(resolve, 1));
          }
          assertMessages(await read(to, SIZES.length), SIZES);
        }
        await Promise.all([client.close(), server.close()]);
      });
    }

    it(`A8 over a socket, ${how}`, async () => {
      await withServer({ compression }, async (server) => {
        const ws = await connect(urlOf(server), { compression });
        for (const size of SIZES) void ws.send(pattern(size));
        assertMessages(await READERS["receive()"](ws, SIZES.length), SIZES);
        await ws.close();
      }, echo);
    });

    it(`A8 in fragments, ${how}`, async () => {
      const [client, server] = await pair({ client: { compression }, server: { compression } });
      for (const size of [2, 100, 3000, 70_000]) {
        void client.send(cut(pattern(size), size >> 1), { compress: true });
        assertMessages([await server.receive()], [size]);
      }
      await client.close();
    });

    it(`A8 in pieces, by messages(), ${how}`, async () => {
      const [client, server] = await pair({ client: { compression }, server: { compression } });
      const incoming = server.messages().getReader();
      for (const size of SIZES) {
        void client.send(pattern(size), { compress: true });
        const { value } = await incoming.read();
        const pieces = await collect<Message>(value!.readable) as Uint8Array[];
        for (const piece of pieces) assertOwned(piece, `a piece of ${size} bytes`);
        assert.equal(new Set(pieces.map(({ buffer }) => buffer)).size, pieces.length);
        assertSameBytes(concat(pieces), pattern(size));
        for (const piece of pieces) transfer(piece);
      }
      await Promise.all([client.close(), incoming.cancel()]);
    });
  }

  it("A8 however the frames lie in their chunks", async () => {
    await inBothRoles(async (ws, peer) => {
      const frames = [1, 64, 300, 4100].map((size) => peer.encode(binaryFrame(pattern(size))));
      const bytes = concat(frames);
      for (const at of [1, 2, 3, 5, 7, 70, 72, 77, 400, 2000]) {
        peer.write(bytes.subarray(0, at));
        peer.write(bytes.subarray(at));
        assertMessages(await READERS["receive()"](ws, 4), [1, 64, 300, 4100]);
      }
    });
  });

  it("A8 fragments that fill their chunks", async () => {
    await inBothRoles(async (ws, peer) => {
      const frames = [binaryFrame(pattern(3000), false), continuation(pattern(5000))];
      for (const frame of frames) {
        const bytes = peer.encode(frame);
        const header = bytes.length - frame.payload.length;
        peer.write(bytes.subarray(0, header));
        peer.write(bytes.subarray(header));
      }
      const message = await ws.receive();
      assertOwned(message, "two fragments");
      assertSameBytes(message, concat([pattern(3000), pattern(5000)]));
    });
  });

  it("A8 while frames are observed, whose payloads are copies", async () => {
    await inBothRoles(async (ws, peer) => {
      for (const size of SIZES) peer.send(binaryFrame(pattern(size)));
      assertMessages(await READERS["receive()"](ws, SIZES.length), SIZES);
    }, { onFrame: (direction, { payload }) => direction === "in" && payload.fill(1) });
  });

  it("A8 over a native WebSocket", async () => {
    const { ours, peer, stop } = await CLIENT.open();
    try {
      for (const size of SIZES) void peer.send(pattern(size));
      assertMessages(await READERS["receive()"](ours, SIZES.length), SIZES);
    } finally {
      await stop();
    }
  });

  it("A8 over what acts as a WebSocket and gives parts of a larger buffer", async () => {
    const listeners = new Map<string, (event: object) => void>();
    const socket = {
      readyState: 1,
      url: "",
      binaryType: "blob",
      send() {},
      close: () => listeners.get("close")?.({ code: 1000, wasClean: true }),
      addEventListener: (type: string, listener: (event: object) => void) =>
        void listeners.set(type, listener),
      removeEventListener() {},
    };
    const ws = await fromWebSocket(socket as unknown as WebSocket);
    const whole = pattern(300);
    for (const [start, end] of [[0, 0], [10, 20], [100, 300]]) {
      listeners.get("message")!({ data: whole.subarray(start, end) });
      const message = await ws.receive();
      assertOwned(message, `${start} to ${end}`);
      assert.deepEqual(message, whole.subarray(start, end));
    }
    await ws.close();
  });

  for (const role of ROLES) {
    it(`A8 by assemble() as a ${role}, whose chunks belong to somebody else`, async () => {
      const input = new TransformStream<Uint8Array, Uint8Array>(undefined, { highWaterMark: 99 });
      const output = new TransformStream<Uint8Array, Uint8Array>(undefined, { highWaterMark: 99 });
      const { readable } = assemble({ readable: input.readable, writable: output.writable }, {
        role,
      });
      const reader = readable.getReader();
      const writer = input.writable.getWriter();
      const mask = role === "server" ? hex("01 02 03 04") : undefined;
      const frames: Frame[] = [
        { opcode: Opcode.Binary, payload: pattern(300) },
        { opcode: Opcode.Binary, payload: pattern(100_000) },
        { fin: false, opcode: Opcode.Binary, payload: pattern(400) },
        { opcode: Opcode.Continuation, payload: pattern(500) },
      ];
      const sent: Uint8Array[] = [];
      for (const frame of frames) {
        const bytes = encodeFrame(frame, { mask });
        const header = bytes.length - frame.payload.length;
        for (const chunk of [bytes.slice(0, header), bytes.slice(header)]) {
          sent.push(chunk);
          void writer.write(chunk);
        }
      }
      const copies = sent.map((chunk) => chunk.slice());
      const expected = [pattern(300), pattern(100_000), concat([pattern(400), pattern(500)])];
      for (const bytes of expected) {
        const { value } = await reader.read();
        assertOwned(value, `${bytes.length} bytes`);
        assertSameBytes(value, bytes);
        value.fill(0xee);
      }
      assert.deepEqual(sent, copies);
      await writer.abort();
    });
  }

  it("A8 the payload of a ping or pong in the core is a copy", () => {
    for (const opcode of [Opcode.Ping, Opcode.Pong] as const) {
      const protocol = new Protocol("client", { ownsInput: true });
      const chunk = concat([
        encodeFrame({ opcode, payload: utf8("a") }),
        encodeFrame({ opcode, payload: hex("") }),
        encodeFrame(textFrame("b")),
      ]);
      protocol.receive(chunk);
      for (const text of ["a", ""]) {
        const event = protocol.next();
        assert.ok(event !== undefined && "payload" in event);
        assertOwned(event.payload, opcode === Opcode.Ping ? "ping" : "pong");
        assert.deepEqual(event.payload, utf8(text));
      }
      protocol.whole = true;
      assert.deepEqual(protocol.next(), {
        type: "text",
        data: "b",
        frameFinished: true,
        messageFinished: true,
      });
      assert.equal(protocol.release(), true, "no event is a part of the chunk");
    }
  });

  for (const [i, engine] of deflateEngines().entries()) {
    it(`A8 what engine ${i} of DEFLATE gives out is shared with nothing`, async () => {
      const options = { windowBits: 15, contextTakeover: true, maxMessageSize: 2 ** 24 };
      const deflater = engine.deflater({ windowBits: 15, level: 6, memLevel: 8 });
      const inflater = engine.inflater(options);
      for (const size of [1, 100, 5000, 65536, 100_000]) {
        for (const later of [false, true]) {
          const packed = later
            ? await new Promise<Uint8Array>((resolve, reject) =>
              deflater.deflateLater(
                pattern(size),
                (error, out) => error ? reject(error) : resolve(out),
              )
            )
            : deflater.deflate(pattern(size));
          const pieces: Uint8Array[] = [];
          const drain = async () => {
            while (!inflater.idle) {
              const next = later
                ? await new Promise<Uint8Array>((resolve, reject) =>
                  inflater.nextLater((error, out) => error ? reject(error) : resolve(out))
                )
                : inflater.next();
              if (next.length > 0) pieces.push(next);
            }
          };
          inflater.push(packed.subarray(0, -4));
          await drain();
          inflater.finish();
          await drain();
          for (const piece of pieces) assertOwned(piece, `${size} bytes`);
          assertSameBytes(concat(pieces), pattern(size));
          pieces.forEach(transfer);
        }
      }
      deflater.close();
      inflater.close();
    });
  }
});

describe("A7 a received message may be given away", () => {
  for (const [how, compression] of Object.entries(COMPRESSION)) {
    it(`A7 messages of this and other connections stay as they are, ${how}`, async () => {
      const options = { compression };
      const others = await Promise.all(
        [0, 1, 2].map(() => pair({ client: options, server: options })),
      );
      const kept: Uint8Array[] = [];
      for (let round = 0; round < 30; round++) {
        for (const [client, server] of others) {
          void client.send(pattern(5000 + round), { compress: true });
          kept.push(await server.receive() as Uint8Array);
        }
        const [[client, server]] = others;
        void client.send(pattern(4900), { compress: true });
        void client.send("text", { compress: true });
        transfer(await server.receive() as Uint8Array);
        assert.equal(await server.receive(), "text");
      }
      for (const [i, message] of kept.entries()) {
        assertSameBytes(message, pattern(5000 + Math.floor(i / 3)));
      }
      await Promise.all(others.map(([client]) => client.close()));
    });

    it(`A7 an echo under way is not harmed, ${how}`, async () => {
      const given: number[] = [];
      const server = await serve({ port: 0, compression }, async (ws) => {
        for await (const message of ws) {
          const even = given.length % 2 === 0;
          given.push(message.length);
          if (even) void ws.send(message);
          else transfer(message as Uint8Array);
        }
      });
      const ws = await connect(`ws://127.0.0.1:${portOf(server)}`, { compression });
      for (let i = 0; i < 200; i++) void ws.send(pattern(20_000));
      for (let i = 0; i < 100; i++) {
        assertSameBytes(await ws.receive() as Uint8Array, pattern(20_000));
      }
      await ws.close();
      assert.equal(given.length, 200);
      await server.shutdown();
    });
  }

  it("A7 empty messages too, again and again", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 3; i++) {
        peer.send(binaryFrame(hex("")));
        peer.send(binaryFrame(hex(""), false), continuation(""));
        for (let again = 0; again < 2; again++) transfer(await ws.receive() as Uint8Array);
      }
    });
  });
});
