import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect, type ConnectionStats, type ConnectOptions, serve } from "../mod.ts";
import { driverOf } from "../lib/connection/connection.ts";
import {
  Driver,
  type DriverInit,
  type Machine,
  protocolOptions,
} from "../lib/connection/driver.ts";
import { encodeFrame, type Frame, Opcode, Protocol, type ProtocolEvent } from "../lib/core/mod.ts";
import type { Transport } from "../lib/transport.ts";
import { pair, transportPair } from "../lib/testing.ts";
import { concat, pattern, utf8 } from "./bytes.ts";
import {
  binaryFrame,
  inBothRoles,
  pingFrame,
  RawPeer,
  rejection,
  rest,
  textFrame,
  until,
  withPeer,
} from "./support.ts";
import { Toy } from "./toy_extension.ts";
import { inVirtualTime } from "./virtual_time.ts";

type Counts = Partial<ConnectionStats>;

/** The counts of frames and of compressed bytes, without those that are 0. */
function countsOf(stats: object): Counts {
  const counted = /^(?:frames|pings|pongs|compressed|uncompressed)/;
  const found = Object.entries(stats).filter(([name, count]) => counted.test(name) && count !== 0);
  return Object.fromEntries(found);
}

describe("stats", () => {
  it("Frames, pings and pongs are counted in both directions", async () => {
    const quiet = { pingInterval: 0, compression: false };
    const [client, server] = await pair({ client: quiet, server: quiet });
    await client.send("Hello");
    await client.send(["a", "b", "c"]);
    await client.ping();
    await server.pong("unasked");
    await server.receive();
    await server.receive();
    await until(() => client.stats.pongsReceived === 2);
    const sent = { framesSent: 5, pingsSent: 1, framesReceived: 2, pongsReceived: 2 };
    assert.deepEqual(countsOf(client.stats), sent);
    const received = { framesReceived: 5, pingsReceived: 1, framesSent: 2, pongsSent: 2 };
    assert.deepEqual(countsOf(server.stats), received);
    await client.close();
    assert.equal(client.stats.framesSent, 6);
    assert.equal(client.stats.framesReceived, 3);
  });

  it("Bytes of compressed messages are counted before and after", async () => {
    const compression = { threshold: 100 };
    const [client, server] = await pair({ client: { compression }, server: { compression } });
    await client.send("short");
    const text = "long ".repeat(1000);
    await client.send(text);
    // A long message is compressed on another thread, and each of its pieces is a frame.
    await client.send([text, text]);
    for (const expected of ["short", text, text + text]) {
      assert.equal(await server.receive(), expected);
    }
    const { uncompressedBytesSent, compressedBytesSent, bytesSent } = client.stats;
    assert.equal(uncompressedBytesSent, 3 * text.length);
    assert.ok(compressedBytesSent > 0 && compressedBytesSent < bytesSent);
    const { uncompressedBytesReceived, compressedBytesReceived } = server.stats;
    assert.equal(uncompressedBytesReceived, uncompressedBytesSent);
    assert.equal(compressedBytesReceived, compressedBytesSent);
    await client.close();
  });

  it("A server adds up the counts of all connections, including ended ones", async () => {
    const options = { port: 0, pingInterval: 0, compression: true };
    const server = await serve(options, async (ws) => {
      for await (const message of ws) await ws.send(message);
    });
    const text = "long ".repeat(1000);
    for (let i = 0; i < 2; i++) {
      const ws = await connect(server.url!, { pingInterval: 0 });
      await ws.send(text);
      await ws.receive();
      await ws.ping();
      if (i === 0) await ws.close();
    }
    await until(() => server.stats.ended === 1);
    const { framesReceived, framesSent, pingsReceived, pongsSent, ...others } = server.stats;
    assert.deepEqual([framesReceived, framesSent, pingsReceived, pongsSent], [5, 5, 2, 2]);
    assert.equal(others.uncompressedBytesReceived, 2 * text.length);
    assert.equal(others.uncompressedBytesSent, 2 * text.length);
    assert.ok(others.compressedBytesReceived < text.length);
    await server.shutdown();
  });
});

describe("Driver", () => {
  it("Driver reads the frames that came with the handshake, and counts their bytes", async () => {
    const [near, far] = transportPair();
    const frame = encodeFrame({ opcode: Opcode.Text, payload: utf8("early") });
    new RawPeer(far, "server", (accept) => concat([accept(), frame]));
    const ws = await connect("ws://localhost/", { transport: near });
    assert.equal(ws.stats.messagesReceived, 1);
    assert.equal(ws.stats.bytesReceived, frame.length);
    assert.equal(await ws.receive(), "early");
    ws.terminate();
  });

  it("Driver reads a chunk that comes while it takes over the transport", () => {
    for (const bufferedAmount of [0, 5]) {
      const events: ProtocolEvent[] = [
        { type: "text", data: "Hello", frameFinished: true, messageFinished: true },
      ];
      const { driver } = driverOver(
        { bufferedAmount, next: () => events.shift() },
        {},
        (handlers) => {
          assert.equal(handlers.data(new Uint8Array(1)), bufferedAmount === 0);
          assert.equal(events.length, bufferedAmount === 0 ? 0 : 1, "earlier bytes come first");
        },
      );
      assert.equal(driver.receiver.messagesReceived, 1);
      assert.equal(driver.stats.bytesReceived, bufferedAmount + 1);
    }
  });

  it("Driver pings after 20 s, and gives a pong 20 s and a Close 10 s, by default", async () => {
    for (const role of ["client", "server"] as const) {
      await inVirtualTime(async (time) => {
        const [ws] = await withPeer(role, { pingInterval: undefined });
        const failed = rejection<Error & { closeCode: number }>(ws.closed);
        await time.advance(19_999);
        assert.equal(ws.stats.pingsSent, 0);
        await time.advance(1);
        assert.equal(ws.stats.pingsSent, 1);
        await time.advance(19_999);
        assert.equal(ws.state, "open");
        await time.advance(1);
        assert.equal((await failed).closeCode, 1011);
      });
      await inVirtualTime(async (time) => {
        const [ws, peer] = await withPeer(role);
        peer.polite = false;
        void ws.close();
        await time.advance(9_999);
        assert.equal(ws.state, "closing");
        await time.advance(1);
        assert.equal(ws.state, "closed");
      });
    }
  });

  it("Driver tells whether a chunk may be used again, and whether the reader keeps up", async () => {
    await inBothRoles(async (ws, peer) => {
      const driver = driverOf(ws);
      const chunk = (...texts: string[]) =>
        concat(texts.map((text) => peer.encode(textFrame(text))));
      assert.equal(driver.keepsUp, true);
      assert.equal(driver.data(chunk("a", "b")), true);
      assert.equal(ws.stats.bytesReceived, chunk("a", "b").length);
      assert.equal(driver.keepsUp, false, "nothing was taken since the chunk");
      assert.equal(await ws.receive(), "a");
      assert.equal(driver.keepsUp, true, "something was taken");
      driver.data(chunk("c").subarray(0, 1));
      assert.equal(driver.keepsUp, false);
      assert.equal(driver.data(chunk("c").subarray(1)), true);
      for (const text of ["b", "c"]) assert.equal(await ws.receive(), text);
      assert.equal(driver.keepsUp, true, "nothing waits");
    });
  });

  it("Driver keeps the order when a callback leads to another chunk", async () => {
    let onFrame: () => void = () => {};
    await inBothRoles(async (ws, peer) => {
      const driver = driverOf(ws);
      const chunk = (text: string) => peer.encode(textFrame(text));
      const released: unknown[] = [];
      onFrame = () => {
        onFrame = () => {};
        released.push(driver.data(chunk("c")));
      };
      released.push(driver.data(concat([chunk("a"), chunk("b")])));
      for (const text of ["a", "b", "c"]) assert.equal(await ws.receive(), text);
      assert.deepEqual(released, [false, false]);
      assert.equal(ws.stats.messagesReceived, 3);
    }, { onFrame: () => onFrame() });
  });

  it("Driver reads no more while as much as allowed waits, also of a message in parts", async () => {
    const messages: [name: string, frame: Frame, pings: number][] = [
      ["a whole message", binaryFrame(pattern(70_000)), 0],
      // A part is no event, so that the one after it is taken too.
      ["a part of a message", binaryFrame(pattern(70_000), false), 1],
    ];
    for (const [name, frame, pings] of messages) {
      await inBothRoles(async (ws, peer) => {
        peer.send(frame, pingFrame("a"), pingFrame("b"));
        await until(() => ws.stats.paused);
        assert.equal(ws.stats.pongsSent, pings);
        const { bytesReceived } = ws.stats;
        peer.send(pingFrame("later"));
        await rest();
        assert.deepEqual([ws.stats.bytesReceived, ws.stats.pauses], [bytesReceived, 1], name);
        const reader = ws.messages().getReader();
        const piece = (await reader.read()).value!.readable.getReader();
        assert.equal((await piece.read()).value!.length, 70_000);
        await until(() => ws.stats.pongsSent === 3);
        assert.equal(ws.stats.paused, false);
      });
    }
  });

  it("Driver fails the connection if the measure or onFrame of the caller fails", async () => {
    const fault = new Error("fault");
    const options: Pick<ConnectOptions, "readableStrategy" | "onFrame">[] = [
      {
        readableStrategy: {
          size: () => {
            throw fault;
          },
        },
      },
      { onFrame: (() => Promise.reject(fault)) as () => void },
    ];
    for (const option of options) {
      await inBothRoles(async (ws, peer) => {
        peer.send(textFrame("a"));
        const error = await rejection<Error & { closeCode: number }>(ws.closed);
        assert.deepEqual([error.closeCode, error.cause], [1011, fault]);
      }, option);
    }
  });

  it("Driver limits the pings and the pongs that nobody has asked for", async () => {
    for (const opcode of [Opcode.Ping, Opcode.Pong]) {
      for (const [count, open] of [[3, true], [4, false]] as const) {
        await inBothRoles(async (ws, peer) => {
          const frames = Array.from({ length: count }, () => ({ opcode, payload: utf8("a") }));
          peer.send(...frames);
          if (!open) return await assert.rejects(ws.closed, { closeCode: 1008 });
          await rest();
          assert.equal(ws.state, "open");
        }, { maxControlFramesPerSecond: 3 });
      }
    }
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 5; i++) {
        const latency = ws.ping();
        peer.send({ opcode: Opcode.Pong, payload: (await peer.next()).payload });
        await latency;
      }
      assert.equal(ws.state, "open");
    }, { maxControlFramesPerSecond: 3 });
  });

  it("Driver sends no ping when the Close frame waits for messages", async () => {
    const extensions = [new Toy("toy", 0, { slow: true })];
    const [client, server] = await pair({ client: { extensions }, server: { extensions } });
    void client.send(pattern(20_000));
    void client.close();
    await assert.rejects(client.ping(), { name: "InvalidStateError" });
    await server.closed;
    assert.equal(server.stats.pingsReceived, 0);
  });

  it("Driver pauses while more than 64 KiB of input wait for an extension", () => {
    const rows: [Partial<Machine>, paused: boolean][] = [
      [{ bufferedMemory: 65_536 }, false],
      [{ bufferedMemory: 65_537 }, true],
      [{ bufferedMemory: 65_537, pending: false }, false],
      [{ bufferedMemory: 65_537, extended: false }, false],
    ];
    for (const [state, paused] of rows) {
      const { driver, machine, calls } = driverOver({ extended: true, pending: true, ...state });
      driver.data(new Uint8Array(1));
      assert.deepEqual([driver.isPaused, calls], [
        paused,
        paused ? ["resume", "pause"] : ["resume"],
      ]);
      Object.assign(machine, { bufferedMemory: 0 });
      driver.pump();
      assert.equal(driver.isPaused, false);
      assert.deepEqual(calls.slice(2), paused ? ["resume true"] : []);
    }
  });

  it("Driver takes events while there is room", () => {
    const FULL = 65_536;
    type Room = { held?: number; used?: number; mode?: "receive" | "discard" };
    const rows: [Room, act: "close" | "lose" | undefined, takes: boolean][] = [
      [{}, undefined, true],
      [{ held: FULL - 1 }, undefined, true],
      [{ held: FULL }, undefined, false],
      // A part of a message only counts until the way of reading is known.
      [{ held: FULL, mode: "receive" }, undefined, true],
      [{ used: FULL }, undefined, false],
      [{ used: FULL, mode: "receive" }, undefined, false],
      [{ used: FULL - 1, mode: "receive" }, undefined, true],
      // The peer's Close frame may follow the messages, and after the end only the rest of a chunk is left.
      [{ used: FULL }, "close", true],
      [{ used: FULL, mode: "receive" }, "close", true],
      [{ used: FULL }, "lose", true],
      [{ held: FULL }, "close", true],
    ];
    for (const [{ held = 0, used = 0, mode }, act, takes] of rows) {
      let taken = 0;
      const { driver } = driverOver({
        held,
        pending: true,
        next: () => {
          taken++;
          return undefined;
        },
      });
      driver.receiver.mode = mode;
      driver.receiver.budget.add(used);
      if (act === "close") driver.closing.startClose({});
      if (act === "lose") driver.closing.transport = "closed";
      taken = 0;
      driver.pump();
      const name = JSON.stringify([held, used, mode, act]);
      assert.deepEqual([taken, driver.isPaused], [takes ? 1 : 0, !takes], name);
      assert.equal(driver.stats.pauses, takes ? 0 : 1);
    }
  });

  it("Driver takes its options", async () => {
    const ping = { type: "ping", payload: new Uint8Array(0) } as const;
    for (const [maxControlFramesPerSecond, open] of [[1, false], [2, true]] as const) {
      const events = [ping, ping];
      const { driver } = driverOver({ next: () => events.shift() }, { maxControlFramesPerSecond });
      driver.pump();
      await rest();
      assert.equal(driver.closing.phase === "open", open);
    }
    for (const pingInterval of [0, 1]) {
      const { driver } = driverOver({}, { pingInterval });
      assert.equal(driver.keepalive !== undefined, pingInterval > 0);
      driver.closing.terminate();
    }
    const pumps: string[] = [];
    const host = { listener: undefined, pump: () => void pumps.push("pump"), failThrown: () => {} };
    for (const isExtended of [false, true]) {
      const { onReady } = protocolOptions({}, { textCodec: undefined, isExtended }, {
        driver: host,
      });
      onReady?.();
      assert.deepEqual(pumps, isExtended ? ["pump"] : []);
    }
  });

  it("Driver releases its input only to the last chunk, and never within a chunk", () => {
    let inner: boolean | undefined;
    const { driver, machine } = driverOver();
    machine.next = () => {
      machine.next = () => undefined;
      inner = driver.data(new Uint8Array(1));
      return undefined;
    };
    const outer = driver.data(new Uint8Array(1));
    assert.deepEqual([inner, outer], [false, false]);
    assert.equal(driver.data(new Uint8Array(1)), true);
    assert.equal(driver.stats.bytesReceived, 3);
  });

  it("Driver copies borrowed chunks only if something may keep them", () => {
    const chunk = new Uint8Array(1);
    let log: string[] = [];
    const logging: Partial<Machine> = {
      receive: (given) => void log.push(given === chunk ? "borrowed" : "copied"),
      release: (isBorrowed) => log.push(`release(${isBorrowed})`) > 0,
    };
    const cases: [state: Partial<Machine>, isPaused: boolean, calls: string[]][] = [
      [{}, false, ["borrowed", "release(true)"]],
      [{ extended: true }, false, ["copied"]],
      [{ held: 65536 }, true, ["copied"]],
    ];
    for (const [state, isPaused, calls] of cases) {
      const { driver } = driverOver({ ...logging, ...state });
      driver.pump();
      assert.equal(driver.isPaused, isPaused);
      log = [];
      driver.borrow(chunk);
      assert.deepEqual(log, calls);
      driver.closing.terminate();
      log = [];
      driver.borrow(chunk);
      assert.deepEqual(log, [], "the input is over");
    }
    log = [];
    const { driver, machine } = driverOver(logging);
    machine.next = () => {
      machine.next = () => undefined;
      driver.borrow(chunk);
      return undefined;
    };
    driver.borrow(chunk);
    assert.deepEqual(log, ["borrowed", "copied", "release(true)"]);
    assert.equal(driver.stats.bytesReceived, 2);
  });

  it("Driver pings while a pong may come", () => {
    const { driver } = driverOver({ pending: true });
    assert.equal(driver.isAlive, true);
    driver.close(undefined);
    assert.equal(driver.closing.phase, "open", "the input that waits comes first");
    assert.equal(driver.isAlive, false);
    const { driver: other } = driverOver();
    other.closing.startClose({});
    assert.deepEqual([other.closing.transport, other.isAlive], ["open", false]);
  });
});

/** A driver over a protocol that the test controls, and the calls of its transport. */
function driverOver(
  state: Partial<Machine> = {},
  options: DriverInit["options"] = {},
  handOver: NonNullable<DriverInit["source"]>["handOver"] = () => {},
) {
  const calls: string[] = [];
  const real = new Protocol("server");
  const machine = {
    ...{ role: "server", encoder: real.encoder, whole: true, held: 0, counts: real.counts },
    ...{ pending: false, extended: false, bufferedAmount: 0, bufferedMemory: 0 },
    next: () => undefined as ReturnType<Machine["next"]>,
    receive: () => {},
    release: () => true,
    takeHeld: () => undefined,
    dispose: () => {},
    write: () => {},
    writePiece: () => true,
    ...state,
  };
  const transport = {
    bufferedAmount: 0,
    pause: () => void calls.push("pause"),
    resume: (released?: boolean) => void calls.push(["resume", released].join(" ").trim()),
    write: () => {},
    end: () => {},
    destroy: () => {},
  };
  const driver = new Driver({
    transport: transport as unknown as Transport,
    source: { handOver },
    options: { pingInterval: 0, closeTimeout: 0, ...options },
    machine: machine as Machine,
  });
  return { driver, machine, calls };
}
