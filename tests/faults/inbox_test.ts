/** Messages that wait to be read: how they are measured, their memory, and what is dropped at the end. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { accept, type Message, WebSocketError } from "../../mod.ts";
import type { WebSocketConnection } from "../../mod.ts";
import {
  encodeFrame,
  Endpoint,
  type ExtensionFactory,
  type Frame,
  FrameDecoder,
  Opcode,
} from "../../lib/core/mod.ts";
import { assemble } from "../../lib/streams.ts";
import type { Transport, TransportHandlers } from "../../lib/transport.ts";
import { concat, hex, pattern } from "../bytes.ts";
import { collectGarbage } from "../garbage.ts";
import { Toy } from "../toy_extension.ts";
import {
  binaryFrame,
  closeFrame,
  inBothRoles,
  rejection,
  rest,
  ROLES,
  textFrame,
  until,
} from "../support.ts";

describe("B4 readableStrategy.size is checked", () => {
  const wrong: readonly [title: string, size: unknown][] = [
    ["NaN", () => NaN],
    ["a negative number", () => -1],
    ["Infinity", () => Infinity],
    ["nothing", () => {}],
    ["an object", () => ({})],
    ["ByteLengthQueuingStrategy", new ByteLengthQueuingStrategy({ highWaterMark: 1 }).size],
  ];
  for (const [title, size] of wrong) {
    it(`B4 ${title} fails the connection with 1011`, async () => {
      await inBothRoles(async (ws, peer) => {
        peer.send(textFrame("a"));
        assert.equal((await peer.nextClose()).closeCode, 1011);
        const error = await rejection<WebSocketError>(ws.receive());
        assert.ok(error instanceof WebSocketError);
        assert.equal(error.closeCode, 1011);
        assert.ok(error.cause instanceof RangeError, String(error.cause));
        assert.match((error.cause as Error).message, /readableStrategy\.size/);
      }, { readableStrategy: { size: size as () => number } });
    });
  }

  it("B4 what throws, or cannot become a number, fails the connection with 1011", async () => {
    const failure = new Error("planted");
    const throwing = () => {
      throw failure;
    };
    for (const size of [throwing, () => 1n, () => Symbol()]) {
      await inBothRoles(async (ws, peer) => {
        peer.send(textFrame("a"));
        assert.equal((await peer.nextClose()).closeCode, 1011);
        const { cause } = await rejection(ws.receive());
        assert.ok(size === throwing ? cause === failure : cause instanceof TypeError);
      }, { readableStrategy: { size: size as unknown as () => number } });
    }
  });

  it("B4 readableStrategy.size is called once for each waiting message, without a this", async () => {
    const measured: Message[] = [];
    let that: unknown = "not called";
    function size(this: unknown, message: Message): number {
      that = this;
      measured.push(message);
      return measured.length;
    }
    await inBothRoles(async (ws, peer) => {
      measured.length = 0;
      peer.send(textFrame("a"), textFrame("b"), textFrame("c"));
      await until(() => ws.stats.messagesReceived === 3);
      assert.equal(ws.stats.queued, 1 + 2 + 3);
      for (const text of ["a", "b", "c"]) assert.equal(await ws.receive(), text);
      assert.equal(ws.stats.queued, 0);
      assert.deepEqual(measured, ["a", "b", "c"]);
      const next = ws.receive();
      peer.send(textFrame("d"));
      assert.equal(await next, "d");
      assert.equal(measured.length, 3);
      assert.equal(that, undefined);
    }, { readableStrategy: { size } });
  });

  it("B4 fractional sizes add up to 0 again", async () => {
    const sizes = [0.1, 0.2, 0.3, 0.7, 0.1];
    await inBothRoles(async (ws, peer) => {
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < sizes.length; i++) peer.send(textFrame(`${i}`));
        for (let i = 0; i < sizes.length; i++) assert.equal(await ws.receive(), `${i}`);
        assert.equal(ws.stats.queued, 0);
      }
    }, { readableStrategy: { highWaterMark: 0, size: (message) => sizes[Number(message)] } });
  });

  for (const role of ROLES) {
    it(`B4 assemble() as a ${role} fails with 1011, too`, async () => {
      const input = new TransformStream<Uint8Array, Uint8Array>();
      const output = new TransformStream<Uint8Array, Uint8Array>(undefined, { highWaterMark: 9 });
      const { readable, closed } = assemble(
        { readable: input.readable, writable: output.writable },
        { role, closeTimeout: 50, readableStrategy: { size: () => NaN } },
      );
      const mask = role === "server" ? hex("01 02 03 04") : undefined;
      const writer = input.writable.getWriter();
      await writer.write(encodeFrame(textFrame("a"), { mask }));
      const { value } = await output.readable.getReader().read();
      assert.equal(value![0], 0x80 | Opcode.Close);
      void writer.close().catch(() => {});
      const error = await rejection<WebSocketError>(readable.getReader().read());
      assert.equal(error.closeCode, 1011);
      assert.ok(error.cause instanceof RangeError);
      assert.equal((await rejection<WebSocketError>(closed)).closeCode, 1011);
    });
  }
});

/** A transport that delivers chunks until it is paused. */
class Feed implements Transport {
  readonly bufferedAmount = 0;
  readonly #next: () => Uint8Array;
  #handlers: TransportHandlers | undefined;
  paused = false;

  constructor(next: () => Uint8Array) {
    this.#next = next;
  }

  handle(handlers: TransportHandlers): void {
    this.#handlers = handlers;
  }

  get handled(): boolean {
    return this.#handlers !== undefined;
  }

  /** Delivers chunks until the transport is paused. */
  run(): void {
    while (!this.paused) this.#handlers!.data(this.#next());
  }

  give(chunk: Uint8Array): void {
    this.#handlers!.data(chunk);
  }

  write(): void {}
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
  end(): void {}
  destroy(): void {
    this.#handlers!.close();
  }
}

const CHUNK = 65536;
const masked = (frame: Frame) => encodeFrame(frame, { mask: hex("01 02 03 04") });

/** Makes streams that repeat the frames, in chunks of 64 KiB. */
function streams(frames: Frame[]): () => () => Uint8Array {
  const bytes = concat(frames.map(masked));
  const repeated = concat(Array(Math.ceil(CHUNK / bytes.length) + 1).fill(bytes));
  return () => {
    let at = 0;
    return () => {
      const chunk = repeated.slice(at, at + CHUNK);
      at = (at + CHUNK) % bytes.length;
      return chunk;
    };
  };
}

const pings = (count: number): Frame[] =>
  Array(count).fill({ opcode: Opcode.Ping, payload: pattern(119) });

type Begin = (ws: WebSocketConnection) => unknown;
const BEGIN: Record<string, Begin> = {
  "nobody": () => {},
  "receive()": (ws) => ws.receive(),
  "readable": (ws) => ws.readable,
  "messages()": (ws) => ws.messages(),
};

describe("B5 what a paused connection holds", () => {
  const LIMIT = 65536;
  const empty = (opcode: Opcode, count: number): Frame[] =>
    Array(count).fill({ opcode, payload: hex("") });
  const fragments: Frame[] = [
    { fin: false, opcode: Opcode.Binary, payload: hex("") },
    ...Array(2000).fill({ fin: false, opcode: Opcode.Continuation, payload: hex("01") }),
    { fin: true, opcode: Opcode.Continuation, payload: hex("") },
  ];
  const rows: readonly [title: string, frames: Frame[]][] = [
    ["4100 bytes between pings", [binaryFrame(pattern(4100)), ...pings(490)]],
    ["4100 bytes", [binaryFrame(pattern(4100))]],
    ["300 bytes between pings", [binaryFrame(pattern(300)), ...pings(30)]],
    ["64 bytes", [binaryFrame(pattern(64))]],
    ["a byte", [binaryFrame(pattern(1))]],
    ["empty bytes", empty(Opcode.Binary, 1)],
    ["empty texts", empty(Opcode.Text, 1)],
    ["texts of 2000 characters", [textFrame("x".repeat(2000))]],
  ];
  for (const [way, begin] of Object.entries(BEGIN)) {
    const all = way === "messages()" || way === "nobody"
      ? [...rows, ["fragments of a byte", fragments] as const]
      : rows;
    for (const [title, frames] of all) {
      it(`B5 ${title}, read by ${way}: at most twice the limit`, async () => {
        const options = { pingInterval: 0, maxControlFramesPerSecond: Infinity };
        const count = 24;
        const open: [WebSocketConnection, Feed][] = [];
        const kept: unknown[] = [];
        const stream = streams(frames);
        for (let i = 0; i < count + 5; i++) {
          const feed = new Feed(stream());
          const accepted = accept(feed, options);
          await until(() => feed.handled);
          feed.give(requestBytes());
          open.push([await accepted, feed]);
        }
        // The first connections use up what all connections share.
        for (const [ws, feed] of open.splice(0, 5)) {
          kept.push(ws, begin(ws));
          feed.run();
        }
        const before = await memory();
        for (const [ws, feed] of open) {
          kept.push(begin(ws));
          feed.run();
          assert.ok(ws.stats.paused);
        }
        const each = (await memory() - before) / count;
        // One message more than the limit is accepted, and the streams themselves use some KiB.
        assert.ok(each < 2 * LIMIT + 4100 + 6144, `${Math.round(each)} bytes`);
        for (const [ws] of open) ws.terminate();
        assert.ok(kept.length > 0);
      });
    }
  }
});

describe("B5 chunks that wait to be decoded", () => {
  it("B5 they are counted with their objects", () => {
    const decoder = new FrameDecoder({ role: "client" });
    const frame = encodeFrame({ opcode: Opcode.Binary, payload: pattern(1000) });
    for (const byte of frame) decoder.push(Uint8Array.of(byte));
    assert.equal(decoder.bufferedAmount, frame.length);
    assert.ok(decoder.bufferedMemory > 200 * frame.length);
    const pieces: Uint8Array[] = [];
    for (let piece = decoder.next(); piece; piece = decoder.next()) pieces.push(piece.payload);
    assert.deepEqual(concat(pieces), pattern(1000));
    assert.equal(decoder.bufferedMemory, 0);
  });

  it("B5 a small one does not hold the large buffer that it is a part of", () => {
    const decoder = new FrameDecoder({ role: "client" });
    const frame = encodeFrame({ opcode: Opcode.Binary, payload: pattern(10) });
    decoder.push(frame);
    const large = new Uint8Array(65536);
    large.set(frame, 1000);
    decoder.push(large.subarray(1000, 1000 + frame.length));
    large.fill(0);
    for (let i = 0; i < 2; i++) assert.deepEqual(decoder.next()?.payload, pattern(10));
  });

  it("B5 the transport is paused in time while an extension works", async () => {
    const feed = new Feed(() => Uint8Array.of(0));
    const accepted = accept(feed, {
      pingInterval: 0,
      extensions: [new Toy("slow", 0, { slow: true })],
    });
    await until(() => feed.handled);
    feed.give(requestBytes([new Toy("slow", 0)]));
    const ws = await accepted;
    assert.equal(ws.extensions, "slow");
    const frame = masked(binaryFrame(pattern(10)));
    let count = 0;
    // Both frames arrive in one turn, while the extension processes the first one.
    feed.give(frame);
    while (!feed.paused && count < 65536) feed.give(frame.subarray(count % 16, count++ % 16 + 1));
    assert.ok(count < 300, `${count} chunks`);
    ws.terminate();
  });
});

/** The request of a client that offers these extensions. */
function requestBytes(extensions: ExtensionFactory[] = []): Uint8Array {
  const client = new Endpoint("client", { extensions });
  return client.send({ type: "request", host: "localhost", target: "/" });
}

/** The memory in use, without garbage. */
async function memory(): Promise<number> {
  await rest();
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  // Bun includes external memory in its heap.
  return process.versions.bun === undefined ? heapUsed + external : heapUsed;
}

describe("E10 messages that come after our Close have no gap", () => {
  const readers: Record<string, (ws: WebSocketConnection) => () => Promise<string | undefined>> = {
    "receive()": (ws) => () => ws.receive().then(String, () => undefined),
    readable: (ws) => {
      const reader = ws.readable.getReader();
      return async () => (await reader.read()).value as string | undefined;
    },
    "for await": (ws) => {
      const iterator = ws[Symbol.asyncIterator]();
      return async () => (await iterator.next()).value as string | undefined;
    },
    "messages()": (ws) => {
      const reader = ws.messages().getReader();
      return async () => {
        const { value } = await reader.read();
        if (value === undefined) return undefined;
        let text = "";
        try {
          for await (const piece of value.readable) text += piece;
        } catch {
          return "cut";
        }
        return text;
      };
    },
  };
  for (const [way, begin] of Object.entries(readers)) {
    it(`E10 once one is dropped all later ones are, read by ${way}`, async () => {
      const options = { readableStrategy: { highWaterMark: 1500 } };
      await inBothRoles(async (ws, peer) => {
        const read = begin(ws);
        const send = (from: number, to: number) => {
          for (let i = from; i < to; i++) peer.send(textFrame(`${i}`.padEnd(200)));
        };
        send(0, 5);
        await until(() => ws.stats.messagesReceived >= 1);
        void ws.close({ closeCode: 1000 });
        await peer.nextClose();
        send(5, 20);
        await until(() => ws.stats.messagesReceived === 20);
        const got: (string | undefined)[] = [];
        for (let i = 0; i < 2; i++) got.push((await read())?.trim());
        // There is room again, but these messages are not delivered.
        send(20, 30);
        await until(() => ws.stats.messagesReceived === 30);
        peer.send(closeFrame(1000));
        for (;;) {
          const text = (await read())?.trim();
          if (text === undefined) break;
          if (text !== "cut") got.push(text);
        }
        assert.ok(got.length >= 2 && got.length < 20, `${got.length} messages`);
        assert.deepEqual(got, got.map((_, i) => `${i}`));
        assert.deepEqual(await ws.closed, { closeCode: 1000, reason: "" });
      }, options);
    });
  }

  it("E10 a message that had begun is dropped whole", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("first"), textFrame("begun, ", false));
      await until(() => ws.stats.messagesReceived === 1);
      void ws.close();
      await peer.nextClose();
      const goOn = (text: string, fin: boolean): Frame => ({
        ...textFrame(text, fin),
        opcode: Opcode.Continuation,
      });
      peer.send(goOn("and on, ", false), goOn("and over", true), textFrame("last"));
      await until(() => ws.stats.messagesReceived === 3);
      assert.equal(await ws.receive(), "first");
      peer.send(textFrame("later"), closeFrame(1000));
      assert.equal((await rejection<WebSocketError>(ws.receive())).closeCode, 1000);
    }, { readableStrategy: { highWaterMark: 1 } });
  });
});
