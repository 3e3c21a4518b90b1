import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Address,
  connect,
  serve,
  type TlsConnectOptions,
  type TlsServeOptions,
  type Transport,
  type TransportProvider,
} from "../mod.ts";
import { fromStreams, toStreams } from "../lib/transport.ts";
import { defaultProvider } from "../lib/platform.ts";
import { nodeProvider } from "../lib/runtime/node.ts";
import { transportPair } from "../lib/testing.ts";
import { certificates } from "./certificates.ts";
import { assertSameBytes, concat, pattern, utf8 } from "./bytes.ts";
import {
  isPending,
  portOf,
  RawSocket,
  rejection,
  rest,
  still,
  turn,
  until,
  urlOf,
} from "./support.ts";

type Pair = [Transport, Transport];

/** The sockets of the platform. They may be those of node:net. */
const platform = await defaultProvider();

const SMALL = pattern(10_000);
const LARGE = pattern(100_000);

/** Two connected sockets. The listener closes as soon as they are connected. */
async function socketPair(
  provider: TransportProvider,
  tls?: { dial: TlsConnectOptions; listen: TlsServeOptions },
): Promise<Pair> {
  let accepted!: (transport: Transport) => void;
  const accepting = new Promise<Transport>((resolve) => accepted = resolve);
  const place = { hostname: "127.0.0.1", port: 0, tls: tls?.listen };
  const listener = await provider.listen(place, accepted);
  const { address } = listener;
  assert.equal(address.transport, "tcp");
  const { hostname, port } = address as Extract<Address, { transport: "tcp" }>;
  const dialled = await provider.connect({ hostname, port, tls: tls?.dial });
  const pair: Pair = [dialled, await accepting];
  // The promise of close() also waits for these sockets.
  listener.close();
  return pair;
}

/** Two connected Unix sockets. Their folder is removed afterwards. */
async function unixPair(): Promise<Pair> {
  const folder = await mkdtemp(join(tmpdir(), "sluice-"));
  const path = join(folder, "socket");
  let accepted!: (transport: Transport) => void;
  const accepting = new Promise<Transport>((resolve) => accepted = resolve);
  const listener = await platform.listen({ hostname: "", port: 0, unix: path }, accepted);
  const dialled = await platform.connect({ hostname: "", port: 0, unix: path });
  const pair: Pair = [dialled, await accepting];
  listener.close();
  await rm(folder, { recursive: true });
  return pair;
}

/** Two connected sockets with the platform's TLS. */
async function tlsPair(): Promise<Pair> {
  const { ca, leaf } = await certificates();
  return await socketPair(platform, {
    dial: { ca, servername: "localhost" },
    listen: leaf,
  });
}

function streamPair(): Pair {
  const up = new TransformStream<Uint8Array, Uint8Array>();
  const down = new TransformStream<Uint8Array, Uint8Array>();
  return [
    fromStreams({ readable: down.readable, writable: up.writable }),
    fromStreams({ readable: up.readable, writable: down.writable }),
  ];
}

function throughStreams([near, far]: Pair): Pair {
  return [fromStreams(toStreams(near)), fromStreams(toStreams(far))];
}

/** The same pair for handlers that borrow chunks. They check that they get what `data()` would get. */
function borrowing(pair: Pair): Pair {
  for (const transport of pair) {
    const handle = transport.handle.bind(transport);
    transport.handle = (handlers) =>
      handle({
        data: (chunk) => handlers.data(chunk),
        borrow(chunk) {
          assert.ok(chunk.length < chunk.buffer.byteLength);
          handlers.data(chunk.slice());
        },
        drain: () => handlers.drain(),
        end: () => handlers.end(),
        close: (error) => handlers.close(error),
      });
  }
  return pair;
}

const PAIRS: Record<string, () => Pair | Promise<Pair>> = {
  "node:net, dialled": () => socketPair(nodeProvider),
  "TLS, dialled": tlsPair,
  "TLS, accepted": async () => (await tlsPair()).reverse() as Pair,
  "node:net, accepted": async () => (await socketPair(nodeProvider)).reverse() as Pair,
  "node:net, dialled, which borrows": async () => borrowing(await socketPair(nodeProvider)),
  "node:net, accepted, which borrows": async () =>
    borrowing(await socketPair(nodeProvider)).reverse() as Pair,
  "TLS, dialled, which borrows": async () => borrowing(await tlsPair()),
  "TLS, accepted, which borrows": async () => borrowing(await tlsPair()).reverse() as Pair,
  "TCP, dialled": () => socketPair(platform),
  "TCP, accepted": async () => (await socketPair(platform)).reverse() as Pair,
  "a Unix socket, dialled": unixPair,
  "a Unix socket, accepted": async () => (await unixPair()).reverse() as Pair,
  "memory": () => transportPair(),
  "memory, with a delay and small chunks": () => transportPair({ delay: 1, chunkSize: 10_000 }),
  "TransformStreams": streamPair,
  "memory through streams and back": () => throughStreams(transportPair()),
  "node:net through streams and back": async () => throughStreams(await socketPair(nodeProvider)),
};

/** Records all calls of a transport. */
class Log {
  readonly events: string[] = [];
  readonly transport: Transport;
  bytes: Uint8Array = new Uint8Array(0);
  size = 0;
  drains = 0;
  error: Error | undefined;

  constructor(transport: Transport) {
    this.transport = transport;
    transport.handle({
      data: (chunk) => {
        this.#note("data");
        if (this.size < 1_000_000) this.bytes = concat([this.bytes, chunk]);
        this.size += chunk.length;
        // The handler owns the chunk.
        chunk.fill(0);
      },
      drain: () => this.drains++,
      end: () => this.#note("end"),
      close: (error) => {
        this.#note("close");
        this.error = error;
      },
    });
  }

  /** Repeated data counts once. */
  #note(event: string): void {
    if (event !== "data" || this.events.at(-1) !== "data") this.events.push(event);
  }

  has(event: string): boolean {
    return this.events.includes(event);
  }
}

/** A connection that was accepted and has received a byte. */
async function acceptedAfterByte(provider: TransportProvider) {
  let log: Log | undefined;
  const listener = await provider.listen(
    { hostname: "127.0.0.1", port: 0 },
    (transport) => log = new Log(transport),
  );
  const raw = await RawSocket.connect(portOf(listener));
  raw.write("a");
  await until(() => log?.size === 1);
  return { log: log!, listener, raw };
}

function writeInParts(transport: Transport, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += 100_000) {
    transport.write([bytes.subarray(at, at + 100_000)]);
  }
}

for (const [name, make] of Object.entries(PAIRS)) {
  describe(`Transport over ${name}`, () => {
    /** Runs a test with both ends, and destroys them afterwards. */
    async function withPair(run: (near: Log, far: Log) => unknown): Promise<void> {
      const pair = await make();
      const [near, far] = pair.map((transport) => new Log(transport));
      try {
        await run(near, far);
      } finally {
        for (const transport of pair) transport.destroy();
        await until(() => near.has("close") && far.has("close"));
        for (const { events } of [near, far]) {
          assert.equal(events.filter((event) => event === "close").length, 1);
          assert.equal(events.at(-1), "close");
          assert.ok(events.filter((event) => event === "end").length <= 1);
        }
      }
    }

    it(`Transport over ${name} carries bytes both ways, in order`, async () => {
      await withPair(async (near, far) => {
        near.transport.write([utf8("a"), utf8("bc"), pattern(5000)]);
        far.transport.write([utf8("x")]);
        near.transport.write([utf8("d")]);
        await until(() => far.size === 5004 && near.size === 1);
        assert.deepEqual(far.bytes, concat([utf8("abc"), pattern(5000), utf8("d")]));
        assert.deepEqual(near.bytes, utf8("x"));
      });
    });

    it(`Transport over ${name} does not change written bytes`, async () => {
      await withPair(async (near, far) => {
        const parts = [pattern(10), pattern(20_000)];
        near.transport.write(parts);
        await until(() => far.size === 20_010);
        assert.deepEqual(parts, [pattern(10), pattern(20_000)]);
        await until(() => near.transport.bufferedAmount === 0);
      });
    });

    it(`Transport over ${name} lets a handler keep chunks, and give others back`, async () => {
      await withPair(async (near, far) => {
        const sent = pattern(2_000_000);
        const kept: [at: number, chunk: Uint8Array][] = [];
        let at = 0;
        let odd = false;
        far.transport.handle({
          data(chunk) {
            odd = !odd;
            assertSameBytes(chunk, sent.subarray(at, at + chunk.length));
            if (odd) kept.push([at, chunk]);
            at += chunk.length;
            if (odd) return false;
            // resume(true) refers to the last chunk, not to one that was kept before.
            far.transport.pause();
            queueMicrotask(() => far.transport.resume(true));
            return true;
          },
          drain() {},
          end() {},
          close: () => far.events.push("close"),
        });
        writeInParts(near.transport, sent);
        await until(() => at === sent.length);
        for (const [at, chunk] of kept) {
          assertSameBytes(chunk, sent.subarray(at, at + chunk.length));
        }
      });
    });

    it(`Transport over ${name} reads nothing before it is handled`, async () => {
      const [near, far] = await make();
      new Log(near);
      near.write([utf8("a")]);
      await rest();
      const log = new Log(far);
      await until(() => log.size === 1);
      near.destroy();
      far.destroy();
      await until(() => log.has("close"));
    });

    it(`Transport over ${name} calls the handlers that were set last`, async () => {
      await withPair(async (near, far) => {
        near.transport.write([utf8("a")]);
        await until(() => far.size === 1);
        const second = new Log(far.transport);
        far.events.push("close");
        near.transport.write([utf8("b")]);
        await until(() => second.size === 1);
        assert.equal(far.size, 1);
        near.transport.destroy();
        far.transport.destroy();
        await until(() => second.has("close"));
      });
    });

    it(`Transport over ${name} stops reading when paused, and reads on`, async () => {
      await withPair(async (near, far) => {
        far.transport.pause();
        const parts = Array.from({ length: 100 }, () => SMALL);
        for (const part of parts) near.transport.write([part]);
        const early = await still(() => far.size);
        // The bytes that were in flight at the pause, and the queue of a stream.
        assert.ok(early <= 200_000, `${early} bytes came`);
        far.transport.resume();
        await until(() => far.size === 1_000_000);
        assert.deepEqual(far.bytes.subarray(0, 990_000), concat(parts).subarray(0, 990_000));
      });
    });

    it(`Transport over ${name} can be paused while bytes arrive`, async () => {
      const [near, far] = await make();
      const log = new Log(near);
      let size = 0;
      let closed = false;
      far.handle({
        data: (chunk) => {
          size += chunk.length;
          far.pause();
        },
        drain: () => {},
        end: () => {},
        close: () => closed = true,
      });
      for (let i = 0; i < 100; i++) near.write([SMALL]);
      const early = await still(() => size);
      assert.ok(early < 900_000, `${early} bytes came`);
      while (size < 1_000_000) {
        far.resume();
        await turn();
      }
      near.destroy();
      far.destroy();
      await until(() => closed && log.has("close"));
    });

    it(`Transport over ${name} reads on when it is resumed at once`, async () => {
      const [near, far] = await make();
      const log = new Log(near);
      let size = 0;
      let closed = false;
      far.handle({
        data: (chunk) => {
          size += chunk.length;
          far.pause();
          queueMicrotask(() => far.resume());
        },
        drain: () => {},
        end: () => {},
        close: () => closed = true,
      });
      for (let i = 1; i <= 10; i++) {
        near.write([SMALL]);
        await until(() => size === i * SMALL.length);
      }
      near.destroy();
      far.destroy();
      await until(() => closed && log.has("close"));
    });

    it(`Transport over ${name} writes on as soon as all has left`, async () => {
      const [near, far] = await make();
      const log = new Log(far);
      let closed = false;
      let drains = 0;
      near.handle({
        data: () => {},
        drain: () => {
          if (drains++ > 0) return;
          queueMicrotask(() => {
            near.write([SMALL]);
            near.end();
          });
        },
        end: () => {},
        close: () => closed = true,
      });
      far.pause();
      for (let i = 0; i < 200; i++) near.write([LARGE]);
      assert.ok(near.bufferedAmount > 0);
      far.resume();
      await until(() => log.has("end"));
      assert.equal(log.size, 20_010_000);
      near.destroy();
      far.destroy();
      await until(() => closed && log.has("close"));
    });

    it(`Transport over ${name} counts waiting bytes, and reports when they have left`, async () => {
      await withPair(async (near, far) => {
        far.transport.pause();
        for (let i = 0; i < 300; i++) near.transport.write([LARGE]);
        const waiting = await still(() => near.transport.bufferedAmount);
        assert.ok(waiting > 1_000_000, `${waiting} bytes wait`);
        const drains = near.drains;
        far.transport.resume();
        await until(() => far.size === 30_000_000);
        await until(() => near.transport.bufferedAmount === 0 && near.drains > drains);
      });
    });

    it(`Transport over ${name} ends one side after all written bytes`, async () => {
      await withPair(async (near, far) => {
        near.transport.write([pattern(300_000)]);
        near.transport.end();
        near.transport.end();
        near.transport.write([utf8("ignored")]);
        await until(() => far.has("end"));
        assert.equal(far.size, 300_000);
        assert.equal(far.has("close"), false);
        far.transport.write([utf8("still open")]);
        await until(() => near.size === 10);
        assert.equal(near.has("end"), false);
        far.transport.end();
        await until(() => near.has("close") && far.has("close"));
        assert.deepEqual(near.events, ["data", "end", "close"]);
        assert.deepEqual(far.events, ["data", "end", "close"]);
        assert.deepEqual([near.error, far.error], [undefined, undefined]);
      });
    });

    it(`Transport over ${name} ends one side only after the waiting bytes have left`, async () => {
      await withPair(async (near, far) => {
        far.transport.pause();
        for (let i = 0; i < 300; i++) near.transport.write([LARGE]);
        near.transport.end();
        assert.ok(near.transport.bufferedAmount > 1_000_000);
        await rest();
        assert.equal(far.has("end"), false);
        far.transport.resume();
        await until(() => far.has("end"));
        assert.equal(far.size, 30_000_000);
      });
    });

    it(`Transport over ${name} that is paused loses nothing when both sides have ended`, async () => {
      await withPair(async (near, far) => {
        // Deno's node:net treats the end of a peer that it never read from as the end of both sides.
        far.transport.write([utf8("a")]);
        await until(() => near.size === 1);
        far.transport.pause();
        far.transport.end();
        near.transport.write([pattern(300_000)]);
        near.transport.end();
        await until(() => near.has("end"));
        await rest();
        far.transport.resume();
        await until(() => near.has("close") && far.has("close"));
        assert.equal(far.size, 300_000);
        assert.deepEqual(far.events, ["data", "end", "close"]);
        assert.deepEqual([near.error, far.error], [undefined, undefined]);
      });
    });

    it(`Transport over ${name} writes much at once, in parts of any size`, async () => {
      await withPair(async (near, far) => {
        const parts = [1, 100_000, 0, 7, 500_000, 3, 300_000].map(pattern);
        near.transport.write(parts);
        near.transport.write([utf8("a"), utf8("b")]);
        await until(() => far.size === 900_013);
        assert.deepEqual(far.bytes, concat([...parts, utf8("ab")]));
        await until(() => near.transport.bufferedAmount === 0);
      });
    });

    it(`Transport over ${name} keeps the order of writes while others are under way`, async () => {
      await withPair(async (near, far) => {
        const sizes = [3, 40_000, 7, 5, 70_000, 200_000, 33_000, 1, 300_000, 600];
        const parts = sizes.map((size, i) => pattern(size + i));
        far.transport.pause();
        for (const [i, part] of parts.entries()) {
          near.transport.write(i % 3 === 0 ? [part] : [part.subarray(0, 2), part.subarray(2)]);
          if (i % 4 === 3) await turn();
        }
        far.transport.resume();
        const sent = concat(parts);
        await until(() => far.size === sent.length);
        assertSameBytes(far.bytes, sent);
      });
    });

    it(`Transport over ${name} writes many bytes after a few that wait`, async () => {
      for (const few of [5, 32_767, 32_768, 65_536]) {
        await withPair(async (near, far) => {
          // The first part is in flight, the second part waits.
          const parts = [2, few, 200_000, 131_072, 9].map(pattern);
          near.transport.write([parts[0]]);
          near.transport.write([parts[1].subarray(0, 1), parts[1].subarray(1)]);
          for (const part of parts.slice(2)) near.transport.write([part]);
          const sent = concat(parts);
          await until(() => far.size === sent.length);
          assertSameBytes(far.bytes, sent);
        });
      }
    });

    it(`Transport over ${name} gives a few bytes at once, whatever their number`, async () => {
      await withPair(async (near, far) => {
        let sum = 0;
        // The sizes of the buffers that are read into, and sizes around them.
        for (const size of [1, 511, 512, 513, 1024, 32_768, 33_280, 512, 512]) {
          near.transport.write([pattern(size)]);
          sum += size;
          await until(() => far.size === sum);
        }
      });
    });

    it(`Transport over ${name} keeps received bytes unchanged until it is resumed`, async () => {
      await withPair(async (near, far) => {
        const sent = pattern(3_000_000);
        let at = 0;
        let held: Uint8Array | undefined;
        far.transport.handle({
          data(chunk) {
            // One more chunk may be in flight at a pause.
            if (held !== undefined) assertSameBytes(held, sent.subarray(at - held.length, at));
            held = chunk;
            at += chunk.length;
            far.transport.pause();
            return false;
          },
          drain() {},
          end() {},
          close: () => far.events.push("close"),
        });
        writeInParts(near.transport, sent);
        while (at < sent.length) {
          await until(() => held !== undefined);
          await turn();
          assertSameBytes(held!, sent.subarray(at - held!.length, at));
          held = undefined;
          far.transport.resume(true);
        }
      });
    });

    it(`Transport over ${name} can be destroyed, which the peer sees`, async () => {
      await withPair(async (near, far) => {
        near.transport.destroy();
        near.transport.destroy();
        near.transport.end();
        near.transport.write([utf8("ignored")]);
        await until(() => near.has("close"));
        assert.equal(near.error, undefined);
        await until(() => far.has("end") || far.has("close"));
        assert.equal(far.size, 0);
      });
    });

    it(`Transport over ${name} counts bytes that are written too late as waiting`, async () => {
      for (const end of ["end", "destroy"] as const) {
        await withPair(async (near) => {
          await until(() => near.transport.bufferedAmount === 0);
          near.transport[end]();
          near.transport.write([LARGE, utf8("!")]);
          assert.equal(near.transport.bufferedAmount, LARGE.length + 1);
          near.transport.destroy();
          await until(() => near.has("close"));
        });
      }
    });

    it(`Transport over ${name} that is gone does not starve its end of turns`, async () => {
      await withPair(async (near, far) => {
        far.transport.destroy();
        // A connection whose handler awaits each send writes like this: without a turn while there is room.
        while (!near.has("close") && !near.has("end")) {
          near.transport.write([utf8("on and on")]);
          if (near.transport.bufferedAmount > 65536) await rest();
          else await Promise.resolve();
        }
        near.transport.destroy();
        while (!near.has("close")) {
          near.transport.write([utf8("on and on")]);
          if (near.transport.bufferedAmount > 65536) await rest();
          else await Promise.resolve();
        }
      });
    });

    it(`Transport over ${name} can be destroyed while it writes to a peer that is paused`, async () => {
      await withPair(async (near, far) => {
        far.transport.pause();
        for (let i = 0; i < 100; i++) near.transport.write([LARGE]);
        await rest();
        const drains = near.drains;
        near.transport.destroy();
        await until(() => near.has("close"));
        assert.equal(near.drains, drains, "What was lost has not left");
        far.transport.resume();
        await until(() => far.has("end") || far.has("close"));
      });
    });

    it(`Transport over ${name} reports its end also to handlers that are set later`, async () => {
      const [near, far] = await make();
      const log = new Log(far);
      near.destroy();
      await until(() => log.has("end") || log.has("close"));
      far.destroy();
      await until(() => log.has("close"));
      await rest();
      const late = new Log(near);
      await until(() => late.has("close"));
    });
  });
}

for (const [name, provider] of Object.entries({ nodeProvider, platform })) {
  describe(`${name}`, () => {
    it(`${name} tells the addresses of both ends`, async () => {
      const [near, far] = await socketPair(provider);
      assert.equal(near.localAddress?.transport, "tcp");
      assert.deepEqual(near.localAddress, far.remoteAddress);
      assert.deepEqual(near.remoteAddress, far.localAddress);
      assert.deepEqual([near.secure, far.secure], [false, false]);
      const logs = [new Log(near), new Log(far)];
      near.destroy();
      far.destroy();
      await until(() => logs.every((log) => log.has("close")));
    });

    it(`${name} reads from others while connections keep their bytes, or are destroyed`, async () => {
      const sent = pattern(900_000);
      const pairs = await Promise.all(Array.from({ length: 6 }, () => socketPair(provider)));
      const logs = pairs.flat().map((transport) => new Log(transport));
      const accepted = logs.filter((_, i) => i % 2 === 1);
      for (const log of accepted.slice(0, 4)) {
        const { transport } = log;
        transport.handle({
          data() {
            if (log.size++ % 2 === 0) transport.pause();
            else transport.destroy();
            return false;
          },
          drain() {},
          end() {},
          close: () => log.events.push("close"),
        });
      }
      for (const [near] of pairs) writeInParts(near, sent);
      const reading = accepted.slice(4);
      await until(() => reading.every((log) => log.size === sent.length));
      for (const log of reading) assertSameBytes(log.bytes, sent);
      for (const log of accepted.slice(0, 2)) log.transport.resume(true);
      await until(() => accepted.slice(0, 2).every((log) => log.has("close")));
      for (const transport of pairs.flat()) transport.destroy();
      await until(() => logs.every((log) => log.has("close")));
    });

    it(`${name} closes its listener, and the port is free`, async () => {
      const listener = await provider.listen({ hostname: "127.0.0.1", port: 0 }, () => {});
      const port = portOf(listener);
      await listener.close();
      await assert.rejects(provider.connect({ hostname: "127.0.0.1", port }), {
        code: "ECONNREFUSED",
      });
      const again = await provider.listen({ hostname: "127.0.0.1", port }, () => {});
      await again.close();
    });

    it(`${name} accepts nothing once its listener was closed`, async () => {
      const logs: Log[] = [];
      let closing: Promise<void> | undefined;
      let late = 0;
      const listener = await provider.listen(
        { hostname: "127.0.0.1", port: 0 },
        (transport) => {
          if (closing !== undefined) late++;
          const log = new Log(transport);
          logs.push(log);
          transport.handle({
            data() {
              closing ??= listener.close();
            },
            drain() {},
            end() {},
            close: () => log.events.push("close"),
          });
        },
      );
      const first = await RawSocket.connect(portOf(listener));
      await until(() => logs.length === 1);
      // Both events are ready in the next turn: the byte that closes the listener, and a connection to
      // accept.
      first.write("a");
      const second = RawSocket.connect(portOf(listener)).catch(() => undefined);
      await until(() => closing !== undefined);
      first.socket.destroy();
      (await second)?.socket.destroy();
      for (const { transport } of logs) transport.destroy();
      await until(() => logs.every((log) => log.has("close")));
      await closing;
      assert.equal(late, 0);
    });

    it(`${name} says of a port that is taken that it is`, async () => {
      const listener = await provider.listen({ hostname: "127.0.0.1", port: 0 }, () => {});
      const place = { hostname: "127.0.0.1", port: portOf(listener) };
      await assert.rejects(provider.listen(place, () => {}), { code: "EADDRINUSE" });
      await listener.close();
    });

    it(`${name} tells of a reset, on the side that accepted`, async () => {
      const { log, listener, raw } = await acceptedAfterByte(provider);
      raw.socket.resetAndDestroy();
      await until(() => log.has("close"));
      assert.deepEqual(log.events, ["data", "close"]);
      assert.equal((log.error as NodeJS.ErrnoException).code, "ECONNRESET");
      await listener.close();
    });

    it(`${name} reports a reset to a writer that has paused reading`, async () => {
      const { log, listener, raw } = await acceptedAfterByte(provider);
      log.transport.pause();
      raw.socket.resetAndDestroy();
      await until(() => {
        if (!log.has("close")) log.transport.write([utf8("b")]);
        return log.has("close") || log.has("end");
      });
      log.transport.destroy();
      await until(() => log.has("close"));
      await listener.close();
    });

    it(`${name} gives up dialling with its signal`, async () => {
      const reason = new Error("enough");
      const signal = AbortSignal.abort(reason);
      const dialling = provider.connect({ hostname: "127.0.0.1", port: 1, signal });
      assert.equal(await rejection(dialling), reason);
    });
  });
}

/** Ways to write 30 MB. */
const WRITES: Record<string, (transport: Transport) => void> = {
  "one part": (transport) => transport.write([new Uint8Array(30_000_000)]),
  "many parts": (transport) => {
    for (let i = 0; i < 300; i++) transport.write([LARGE]);
  },
  "many parts of one write": (transport) => {
    transport.write(Array.from({ length: 300 }, () => LARGE));
  },
};

for (const [name, make] of Object.entries(PAIRS)) {
  // The transport in memory delivers each write in one chunk.
  if (name.includes("memory")) continue;
  for (const [form, write] of Object.entries(WRITES)) {
    it(`B9 bufferedAmount shrinks while ${form} leaves over ${name}`, async () => {
      const [near, far] = await make();
      near.handle({ data() {}, drain() {}, end() {}, close() {} });
      let received = 0;
      let closed = false;
      const amounts: number[] = [];
      far.handle({
        data: (chunk) => {
          received += chunk.length;
          amounts.push(near.bufferedAmount);
        },
        drain() {},
        end() {},
        close: () => closed = true,
      });
      far.pause();
      write(near);
      const waiting = await still(() => near.bufferedAmount);
      assert.ok(waiting > 10_000_000, `${waiting} bytes wait`);
      far.resume();
      await until(() => received === 30_000_000);
      const steps = new Set(amounts.filter((amount) => amount > 0 && amount < waiting));
      assert.ok(steps.size >= 2, `of ${waiting} bytes ${[...steps]} wait`);
      near.destroy();
      far.destroy();
      await until(() => closed);
    });
  }
}

describe("The option transport", () => {
  it("A given provider carries a client and a server", async () => {
    let accept!: (transport: Transport) => void;
    let closed!: () => void;
    const provider: TransportProvider = {
      connect: () => {
        const [near, far] = transportPair();
        accept(far);
        return Promise.resolve(near);
      },
      listen: (_, onTransport) => {
        accept = onTransport;
        const address = { transport: "tcp", hostname: "memory", port: 1 } as const;
        return Promise.resolve({ address, close: () => Promise.resolve(closed()) });
      },
    };
    const closing = new Promise<void>((resolve) => closed = resolve);
    const server = await serve({ provider }, (ws) => ws.readable.pipeTo(ws.writable));
    const ws = await connect(urlOf(server), { provider });
    await ws.send("gr\u00fc\u00df");
    assert.equal(await ws.receive(), "gr\u00fc\u00df");
    assert.equal(await isPending(closing), true);
    await ws.close();
    await server.shutdown();
    await closing;
  });
});
