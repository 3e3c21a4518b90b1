/**
 * Sockets of `node:net` that read into shared memory, and those that do not because something that this
 * needs is missing. On other runtimes no socket does.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectSocket, createServer, type Socket } from "node:net";
import process from "node:process";
import { Duplex } from "node:stream";
import { describe } from "node:test";
import { connect as connectTls, TLSSocket } from "node:tls";
import { inspect } from "node:util";
import { accept, connect, type WebSocketConnection } from "../mod.ts";
import { NodeTransport } from "../lib/runtime/node.ts";
import { assertSameBytes, pattern } from "./bytes.ts";
import { certificates } from "./certificates.ts";
import { it, notApplicable } from "./it.ts";
import { still, until } from "./support.ts";

const { bun, deno } = process.versions as Record<string, string | undefined>;
const isNode = bun === undefined && deno === undefined;

/** A connected pair of sockets. */
async function sockets(): Promise<[near: Socket, far: Socket]> {
  const server = createServer({ allowHalfOpen: true });
  const accepting = new Promise<Socket>((resolve) => server.once("connection", resolve));
  await new Promise<void>((resolve) => server.listen({ port: 0, host: "127.0.0.1" }, resolve));
  const { port } = server.address() as { port: number };
  const near = connectSocket({ port, host: "127.0.0.1", allowHalfOpen: true });
  const pair: [Socket, Socket] = [near, await accepting];
  server.close();
  return pair;
}

type Members = Record<string | symbol, unknown>;

function member(socket: Socket, name: string): symbol | undefined {
  return Object.getOwnPropertySymbols(socket).find(({ description }) => description === name);
}

/** Whether a socket reads into memory of ours. */
function isShared(socket: Socket): boolean {
  const symbol = member(socket, "kBuffer");
  return symbol !== undefined && (socket as unknown as Members)[symbol] instanceof Uint8Array;
}

/** Two connected sockets of a connection. */
type Pair = [near: Socket, far: Socket];

/** Makes the sockets of a connection from two that are connected. */
type Way = (near: Socket, far: Socket) => Pair | Promise<Pair>;

/** Makes something that sharing needs unavailable, or carries the bytes in another way. */
const WAYS: Record<string, Way> = {
  "with everything": plain,
  "without useUserBuffer()": (...pair) => {
    for (const socket of pair) {
      const { _handle: handle } = socket as unknown as { _handle: object };
      Object.defineProperty(handle, "useUserBuffer", { value: undefined });
    }
    return pair;
  },
  "with another listener": (...pair) => {
    for (const socket of pair) socket.on("data", () => {});
    return pair;
  },
  "over TLS": secured,
  "over TLS inside TLS": async (...pair) => await secured(...await secured(...pair)),
};

/** The ways in which sockets share memory on Node. */
const SHARING = ["with everything", "over TLS", "over TLS inside TLS"];

function plain(...pair: Pair): Pair {
  return pair;
}

/** Makes the TLS handshake over two sockets. */
async function secured(near: Duplex, far: Duplex): Promise<Pair> {
  const { leaf } = await certificates();
  const server = new TLSSocket(far, { isServer: true, ...leaf });
  const client = connectTls({ socket: near, rejectUnauthorized: false });
  await Promise.all([once(client, "secureConnect"), once(server, "secure")]);
  // The sides of a transport end independently.
  client.allowHalfOpen = server.allowHalfOpen = true;
  return [client, server];
}

interface Ends {
  client: WebSocketConnection;
  server: WebSocketConnection;
  /** The sockets of the connection. */
  near: Socket;
  far: Socket;
  /** Resets the TCP connection. */
  reset(): void;
}

/** Opens a connection over two sockets, and waits until they would share their memory. */
async function open(way: Way): Promise<Ends> {
  const pair = await sockets();
  const [near, far] = await way(...pair);
  const [client, server] = await Promise.all([
    connect("ws://test/", { transport: new NodeTransport(near) }),
    accept(new NodeTransport(far)),
  ]);
  const sent = [client.send("first"), server.send("first")];
  assert.deepEqual([await server.receive(), await client.receive()], ["first", "first"]);
  await Promise.all(sent);
  return { client, server, near, far, reset: () => void pair[0].resetAndDestroy() };
}

for (const [name, way] of Object.entries(WAYS)) {
  const shares = isNode && SHARING.includes(name) && process.platform !== "win32";

  /** Runs a test over a connection, which it may end. */
  const test = (title: string, run: (ends: Ends) => Promise<void>) =>
    it(`Sockets of node:net ${name}: ${title}`, async () => {
      const ends = await open(way);
      try {
        await run(ends);
      } finally {
        ends.client.terminate();
        ends.server.terminate();
        await Promise.allSettled([ends.client.closed, ends.server.closed]);
      }
    });

  describe(`Sockets of node:net ${name}`, () => {
    test("share memory, or do not", async ({ near, far }) => {
      assert.deepEqual([isShared(near), isShared(far)], [shares, shares]);
      await Promise.resolve();
    });

    test("several connections do not see each other's bytes", async (first) => {
      const others = await Promise.all([open(way), open(way)]);
      const all = [first, ...others];
      const kept: { bytes: Uint8Array; length: number }[] = [];
      await Promise.all(all.flatMap(({ client, server }, at) => {
        const lengths = Array.from({ length: 60 }, (_, i) => (i * 977 * (at + 1)) % 70_000);
        const write = async (from: WebSocketConnection) => {
          for (const length of lengths) await from.send(pattern(length));
        };
        const read = async (to: WebSocketConnection) => {
          for (const length of lengths) {
            kept.push({ bytes: await to.receive() as Uint8Array, length });
          }
        };
        return [write(client), write(server), read(client), read(server)];
      }));
      for (const { bytes, length } of kept) {
        assertSameBytes(bytes, pattern(length));
        assert.equal(bytes.buffer.byteLength, length);
      }
      for (const { client, server } of others) {
        await Promise.all([client.close(), server.close()]);
      }
    });

    test("a reader that stops holds the peer back, and then gets everything", async (ends) => {
      const { client, server } = ends;
      const texts = Array.from({ length: 3000 }, (_, i) => `${i} `.padEnd(1 + i, "x"));
      const sending = (async () => {
        for (const text of texts) await client.send(text);
      })();
      await until(() => server.stats.paused);
      const received = await still(() => server.stats.bytesReceived);
      assert.ok(received < 1_000_000, `${received} bytes were received`);
      assert.ok(server.stats.queued < 70_000, `${server.stats.queued} bytes wait`);
      for (const text of texts) assert.equal(await server.receive(), text);
      await sending;
    });

    test("the end of one side ends the connection", async ({ client, server, near }) => {
      await client.send("last");
      assert.equal(await server.receive(), "last");
      near.end();
      await assert.rejects(server.receive(), { closeCode: 1006 });
    });

    test("a reset ends the connection", async ({ server, reset }) => {
      reset();
      await assert.rejects(server.receive(), { closeCode: 1006 });
      await assert.rejects(server.closed, { closeCode: 1006 });
    });

    test("a handler may cut the connection while it reads", async ({ client, server, far }) => {
      const reading = (async () => {
        for await (const _ of server) far.destroy();
      })();
      for (let i = 0; i < 10; i++) client.send(pattern(10_000)).catch(() => {});
      await assert.rejects(reading, { closeCode: 1006 });
    });

    test("a handler may terminate the connection in a message", async ({ client, server }) => {
      for (let i = 0; i < 10; i++) client.send("a").catch(() => {});
      await server.receive();
      server.terminate();
      await assert.rejects(server.closed, { closeCode: 1006 });
    });
  });
}

it("A socket of node:net gives handlers that do not borrow memory of their own", async () => {
  const [near, far] = await sockets();
  const transport = new NodeTransport(far);
  const others = { drain() {}, end() {}, close() {} };
  let borrowed = 0;
  const borrow = (chunk: Uint8Array) => void (borrowed += chunk.length);
  let size = 0;
  transport.handle({ ...others, borrow, data: (chunk) => void (size += chunk.length) });
  near.write("a");
  await until(() => size === 1);
  near.write("b");
  await until(() => size + borrowed === 2);
  assert.equal(borrowed, isShared(far) ? 1 : 0);
  const kept: Uint8Array[] = [];
  transport.handle({ ...others, data: (chunk) => void kept.push(chunk) });
  for (const text of ["c", "d"]) {
    near.write(text);
    await until(() => kept.length === (text === "c" ? 1 : 2));
  }
  assert.deepEqual(kept.map(([byte]) => byte), [99, 100]);
  near.destroy();
  transport.destroy();
});

it("A socket of node:net does not print what other connections have received", async () => {
  const ends = await open(plain);
  const others = await open(plain);
  const message = "The message of another connection";
  await others.client.send(message);
  assert.equal(await others.server.receive(), message);
  const printed = inspect({ request: { socket: ends.far } }, { depth: 9, maxArrayLength: 1000 });
  assert.equal(printed.includes("[shared memory]"), isShared(ends.far));
  const bytes = Array.from(new TextEncoder().encode("another"));
  assert.ok(!printed.replace(/\s+/g, "").includes(`${bytes}`), printed);
  for (const { client, server } of [ends, others]) {
    client.terminate();
    await Promise.allSettled([client.closed, server.closed]);
  }
});

/** One end of a stream in memory, which gives its bytes to the other end at once. */
class Side extends Duplex {
  other!: Side;

  override _read(): void {}

  override _write(chunk: Uint8Array, _encoding: string, done: () => void): void {
    this.other.push(chunk);
    done();
  }

  override _final(done: () => void): void {
    this.other.push(null);
    done();
  }
}

/** A connection over TLS over a stream in memory. */
async function openInMemory(): Promise<Pick<Ends, "client" | "server">> {
  const [near, far] = [new Side(), new Side()];
  [near.other, far.other] = [far, near];
  const [client, server] = await secured(near, far);
  const ends = await Promise.all([
    connect("ws://test/", { transport: new NodeTransport(client) }),
    accept(new NodeTransport(server)),
  ]);
  return { client: ends[0], server: ends[1] };
}

// A write to such a socket can make the other end read before the write returns.
it(
  "Sockets over streams in memory do not read into memory that is being read",
  { skip: !isNode && notApplicable("sockets of other runtimes share no memory") },
  async () => {
    const [first, second] = [await openInMemory(), await openInMemory()];
    const piping = first.server.readable.pipeTo(second.client.writable);
    // The sockets share memory after their first messages.
    await first.client.send("first");
    assert.equal(await second.server.receive(), "first");
    await until(() => first.client.bufferedAmount + second.client.bufferedAmount === 0);
    // The pipe writes as soon as 64 KiB wait: with these bytes, in the middle of a chunk.
    const messages = [10_000, ...Array<number>(200).fill(1500)].map((length) => pattern(length));
    void second.client.send(messages[0]);
    for (const message of messages.slice(1)) void first.client.send(message);
    for (const message of messages) assert.deepEqual(await second.server.receive(), message);
    await Promise.all([first.client.close(), piping]);
    await second.client.closed;
  },
);

it("A socket of node:net that is paused when it could share memory shares it later", async () => {
  const [near, far] = await sockets();
  const transport = new NodeTransport(far);
  let size = 0;
  const take = (chunk: Uint8Array) => {
    size += chunk.length;
    transport.pause();
  };
  transport.handle({ drain() {}, end() {}, close() {}, borrow: take, data: take });
  near.write("a");
  await until(() => size === 1);
  assert.equal(isShared(far), false);
  near.write(pattern(500_000));
  assert.ok(await still(() => size) < 400_000, `${size} bytes came while paused`);
  await until(() => {
    transport.resume();
    return size === 500_001;
  });
  near.destroy();
  transport.destroy();
});
