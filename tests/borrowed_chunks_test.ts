/** Connections over transports that lend their memory to `borrow()` and use it again at once. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { accept, connect, type WebSocketConnection } from "../mod.ts";
import type { ConnectOptions, Transport, TransportHandlers } from "../mod.ts";
import { encodeFrame } from "../lib/core/mod.ts";
import { readingMemory } from "../lib/core/mask.ts";
import { transportPair } from "../lib/testing.ts";
import { assertSameBytes, concat, pattern, utf8 } from "./bytes.ts";
import { textFrame, until, upgradeRequest } from "./support.ts";

/** One memory for all transports, as on Node. */
const memory = readingMemory()!;

/** Gives chunks in shared memory, which is overwritten when the handler has returned. */
function lending(transport: Transport): Transport {
  const handle = transport.handle.bind(transport);
  transport.handle = (handlers) =>
    handle({
      data(chunk) {
        if (handlers.borrow === undefined) return handlers.data(chunk);
        memory.set(chunk);
        handlers.borrow(memory.subarray(0, chunk.length));
        memory.fill(0xff);
      },
      drain: () => handlers.drain(),
      end: () => handlers.end(),
      close: (error) => handlers.close(error),
    });
  return transport;
}

interface Options {
  client?: ConnectOptions;
  server?: Parameters<typeof accept>[1];
}

/** Runs a test with two ends whose chunks have different sizes. */
async function eachWay(
  run: (client: WebSocketConnection, server: WebSocketConnection) => Promise<void>,
  { client: forClient, server: forServer }: Options = {},
): Promise<void> {
  for (const chunkSize of [1, 7, 1000, 30_000]) {
    const [near, far] = transportPair({ chunkSize }).map(lending);
    const [client, server] = await Promise.all([
      connect("ws://test/", { ...forClient, transport: near }),
      accept(far, forServer),
    ]);
    await run(client, server);
    await run(server, client);
    await Promise.all([client.close(), server.close()]);
  }
}

const TEXTS = ["", "a", "\u00e9\u20ac\u{1f600}", "x".repeat(300), "\u00e9".repeat(2000)];
const BINARIES = [0, 1, 100, 300, 5000].map(pattern);
const MESSAGES = [...TEXTS, ...BINARIES];

describe("Borrowed chunks", () => {
  it("Borrowed chunks leave messages that are kept as they were", async () => {
    await eachWay(async (from, to) => {
      const sent = MESSAGES.map((message) => from.send(message));
      const kept = [];
      for (const _ of MESSAGES) kept.push(await to.receive());
      await Promise.all(sent);
      assert.deepEqual(kept, MESSAGES);
      for (const message of kept) {
        if (typeof message !== "string") assert.equal(message.buffer.byteLength, message.length);
      }
    });
  });

  it("Borrowed chunks are copied while messages wait", async () => {
    const readableStrategy = { highWaterMark: 1 };
    const options = { client: { readableStrategy }, server: { readableStrategy } };
    await eachWay(async (from, to) => {
      const sent = MESSAGES.map((message) => from.send(message));
      await until(() => to.stats.paused);
      for (const message of MESSAGES) assert.deepEqual(await to.receive(), message);
      await Promise.all(sent);
    }, options);
  });

  it("Borrowed chunks leave the pieces of messages() as they were", async () => {
    for (const chunkSize of [1, 7, 1000, 30_000]) {
      const [near, far] = transportPair({ chunkSize }).map(lending);
      const [client, server] = await Promise.all([
        connect("ws://test/", { transport: near }),
        accept(far),
      ]);
      const messages = server.messages()[Symbol.asyncIterator]();
      for (const message of MESSAGES) {
        const sent = client.send(message);
        const { value } = await messages.next();
        const pieces = await Array.fromAsync<string | Uint8Array>(value!.readable);
        await sent;
        if (typeof message === "string") assert.equal(pieces.join(""), message);
        else assertSameBytes(concat(pieces as Uint8Array[]), message);
      }
      await Promise.all([client.close(), messages.next()]);
    }
  });

  it("Borrowed chunks leave fragments as they were", async () => {
    await eachWay(async (from, to) => {
      const text = new ReadableStream<string>({
        async start(controller) {
          for (const part of ["\u00e9".repeat(400), "b", "", "\u{1f600}"]) {
            controller.enqueue(part);
            await new Promise((resolve) => setTimeout(resolve, 1));
          }
          controller.close();
        },
      });
      const sent = from.send(text);
      assert.equal(await to.receive(), "\u00e9".repeat(400) + "b\u{1f600}");
      await sent;
    });
  });

  it("Borrowed chunks leave the payloads of onFrame as they were", async () => {
    const frames: Uint8Array[] = [];
    const onFrame: ConnectOptions["onFrame"] = (direction, { payload, opcode }) => {
      if (direction === "in" && opcode < 8) frames.push(payload);
    };
    await eachWay(async (from, to) => {
      frames.length = 0;
      for (const message of MESSAGES) {
        const sent = from.send(message);
        assert.deepEqual(await to.receive(), message);
        await sent;
      }
      const expected = MESSAGES.map((message) =>
        typeof message === "string" ? utf8(message) : message
      );
      assert.deepEqual(frames, expected);
    }, { client: { onFrame }, server: { onFrame } });
  });

  it("Borrowed chunks are copied for extensions", async () => {
    const compression = { threshold: 0 };
    await eachWay(async (from, to) => {
      const sent = MESSAGES.map((message) => from.send(message));
      for (const message of MESSAGES) assert.deepEqual(await to.receive(), message);
      await Promise.all(sent);
    }, { client: { compression }, server: { compression } });
  });

  it("Borrowed chunks that come while another chunk is read are copied", async () => {
    const [near, far] = transportPair();
    let handlers: TransportHandlers | undefined;
    const handle = near.handle.bind(near);
    near.handle = (given) => handle(handlers = given);
    let isFirst = true;
    const onFrame = () => {
      if (!isFirst) return;
      isFirst = false;
      const chunk = new Uint8Array([0x81, 1, 0x62, 0]);
      handlers!.borrow!(chunk.subarray(0, 3));
      chunk.fill(0xff);
    };
    const [client, server] = await Promise.all([
      connect("ws://test/", { transport: near, onFrame }),
      accept(far),
    ]);
    const sent = ["a", "c"].map((text) => server.send(text));
    assert.deepEqual([await client.receive(), await client.receive()], ["a", "c"]);
    assert.equal(await client.receive(), "b");
    await Promise.all(sent);
    await Promise.all([client.close(), server.close()]);
  });

  it("Borrowed chunks that come while the transport is handed over are copied", async () => {
    const [last, ...words] = ["d", "a", "b", "c"].map((text) =>
      encodeFrame(textFrame(text), { mask: true })
    );
    const [near, far] = transportPair();
    const handle = far.handle.bind(far);
    far.handle = (handlers) => {
      handle(handlers);
      if (handlers.borrow === undefined) return;
      const chunk = new Uint8Array([...last, 0]);
      handlers.borrow(chunk.subarray(0, last.length));
      chunk.fill(0xff);
    };
    near.write([concat([utf8(upgradeRequest()), ...words])]);
    const server = await accept(far, { readableStrategy: { highWaterMark: 1 } });
    for (const word of ["a", "b", "c", "d"]) assert.equal(await server.receive(), word);
    server.terminate();
  });

  it("Borrowed chunks leave the payloads of pings as they were", async () => {
    await eachWay(async (from) => {
      await Promise.all([1, 2, 125].map((length) => from.ping(pattern(length))));
    });
  });
});
