/** Peers that send without end, or never read: their cost stays within the limits, and they are cut. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect, type WebSocketConnection } from "../mod.ts";
import {
  encodeFrame,
  type Frame,
  Opcode,
  parseClose,
  RemoteProtocolError,
} from "../lib/core/mod.ts";
import { ControlRate } from "../lib/connection/heartbeat.ts";
import { assemble } from "../lib/streams.ts";
import { toStreams } from "../lib/transport.ts";
import { transportPair } from "../lib/testing.ts";
import { concat, pattern, utf8 } from "./bytes.ts";
import {
  collect,
  inBothRoles,
  pingFrame,
  pongFrame,
  portOf,
  RawSocket,
  rejection,
  ROLES,
  textFrame,
  turn,
  until,
  upgradeRequest,
  urlOf,
  withServer,
} from "./support.ts";

const MIB = 2 ** 20;

type WithCode = Error & { closeCode: number };

// deno#24292
describe("floods", () => {
  /** Floods a server until it cuts the connection. */
  async function flooded(
    frame: Uint8Array,
    handler: (ws: WebSocketConnection) => unknown,
  ): Promise<number> {
    let sent = 0;
    await withServer({ closeTimeout: 300 }, async (server) => {
      const raw = await RawSocket.connect(portOf(server));
      raw.write(upgradeRequest());
      await until(() => raw.text.includes("\r\n\r\n"));
      const batch = concat(Array(Math.ceil(65536 / frame.length)).fill(frame));
      while (!raw.closed && !raw.ended) {
        if (raw.socket.writableLength < MIB) {
          raw.write(batch);
          sent += batch.length;
        }
        await new Promise((resolve) => setTimeout(resolve));
      }
      raw.socket.destroy();
      const ws = await connect(urlOf(server, "/polite"));
      await ws.close();
    }, handler);
    return sent;
  }

  const frames: Record<string, Uint8Array> = {
    "pings": encodeFrame({ opcode: Opcode.Ping, payload: pattern(125) }, { mask: true }),
    "pongs": encodeFrame({ opcode: Opcode.Pong, payload: pattern(0) }, { mask: true }),
    "messages": encodeFrame({ opcode: Opcode.Text, payload: utf8("a") }, { mask: true }),
    "fragments": encodeFrame({ opcode: Opcode.Binary, fin: false, payload: utf8("a") }, {
      mask: true,
    }),
  };
  for (const [name, frame] of Object.entries(frames)) {
    it(`floods: terminate() cuts a peer that sends ${name} without end`, async () => {
      await flooded(frame, async (ws) => {
        if (ws.request.url.endsWith("/polite")) return await ws.closed;
        await until(() => ws.stats.bytesReceived > MIB || ws.stats.paused || ws.state !== "open");
        ws.terminate();
        await rejection(ws.closed);
      });
    });
  }

  it("floods: pings of a peer that does not read take at most 64 KiB of pongs", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        let most = 0;
        for (let i = 0; i < 30; i++) {
          const pings = Array(1000).fill({ opcode: Opcode.Ping, payload: pattern(125) });
          peer.send(...pings);
          await until(() => peer.transport.bufferedAmount === 0);
          most = Math.max(most, ws.bufferedAmount);
        }
        assert.ok(most > 0 && most < 65536 * 2 + 256, `${most} bytes wait`);
        assert.equal(ws.state, "open");
        const payload = utf8("last");
        peer.send({ opcode: Opcode.Ping, payload });
        peer.transport.resume();
        await until(() => peer.frames.some((frame) => String(frame.payload) === String(payload)));
      },
      { maxControlFramesPerSecond: Infinity },
      { capacity: 0 },
    );
  });

  // Low enough that even a slow machine can exceed it.
  const FEW = { maxControlFramesPerSecond: 1000 };
  const controls: Record<string, Frame> = { pings: pingFrame("a"), pongs: pongFrame(utf8("a")) };
  for (const [name, frame] of Object.entries(controls)) {
    it(`floods: endless ${name} are 1008, and the messages before are read`, async () => {
      await inBothRoles(async (ws, peer) => {
        peer.send(textFrame("before"));
        while (ws.state === "open" && ws.stats.bytesReceived < 32 * MIB) {
          peer.send(...Array(10_000).fill(frame));
          await until(() => peer.transport.bufferedAmount === 0);
        }
        assert.equal(await ws.receive(), "before");
        assert.equal((await rejection<WithCode>(ws.receive())).closeCode, 1008);
        assert.equal((await rejection<WithCode>(ws.closed)).closeCode, 1008);
        await until(() => peer.frames.some(({ opcode }) => opcode === Opcode.Close));
        assert.equal(parseClose(peer.frames.at(-1)!.payload).closeCode, 1008);
      }, FEW);
    });
    it(`floods: ${name} without end are 1008 in assemble()`, async () => {
      for (const role of ROLES) {
        const [near, far] = transportPair();
        const duplex = assemble(toStreams(near), { role, ...FEW });
        let ended = false;
        far.handle({ data() {}, drain() {}, end: () => far.end(), close: () => ended = true });
        const mask = role === "server";
        for (let i = 0; i < 100 && !ended; i++) {
          far.write([concat(Array(10_000).fill(encodeFrame(frame, mask ? { mask } : {})))]);
          await turn();
        }
        assert.equal((await rejection<WithCode>(duplex.closed)).closeCode, 1008);
      }
    });
  }

  it("floods: control frames between messages, in a burst and in answer to ours are allowed", async () => {
    const quiet = { maxControlFramesPerSecond: 10 };
    await inBothRoles(async (ws, peer) => {
      peer.send(...Array(10).fill(pingFrame("at once")));
      for (let i = 0; i < 100; i++) {
        peer.send(textFrame(`${i}`), pingFrame("beside"));
        assert.equal(await ws.receive(), `${i}`);
      }
      await until(() => peer.frames.length === 110);
      for (let i = 0; i < 100; i++) {
        const latency = ws.ping(`${i}`);
        await until(() => peer.frames.length === 111);
        peer.send(pongFrame(peer.frames.pop()!.payload));
        await latency;
      }
      assert.equal(ws.state, "open");
    }, quiet);
  });

  it("floods: none are allowed by 0, and any number by Infinity", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(pingFrame("one"));
      assert.equal((await rejection<WithCode>(ws.closed)).closeCode, 1008);
    }, { maxControlFramesPerSecond: 0 });
    await inBothRoles(async (ws, peer) => {
      peer.send(...Array(20_000).fill(pingFrame("")));
      await until(() => peer.transport.bufferedAmount === 0);
      assert.equal(ws.state, "open");
    }, { maxControlFramesPerSecond: Infinity });
  });

  it("floods: by default 10,000 control frames at once are allowed, and one more is not", () => {
    const rate = new ControlRate(undefined, () => 0);
    for (let i = 0; i < 10_000; i++) rate.count(0);
    assert.throws(() => rate.count(0), { closeCode: 1008 });
  });

  it("floods: one second allows only the control frames of one second", () => {
    let now = 0;
    const rate = new ControlRate(10, () => now);
    const most = (messages: number) => {
      for (let i = 0;; i++) {
        try {
          rate.count(messages);
        } catch (error) {
          assert.ok(error instanceof RemoteProtocolError && error.closeCode === 1008);
          return i;
        }
      }
    };
    assert.equal(most(0), 10);
    now += 600;
    // The frame that failed was counted too.
    assert.equal(most(0), 5);
    now += 3_600_000;
    assert.equal(most(0), 10);
    assert.equal(most(4), 3);
    assert.equal(most(100_000), 10);
  });

  it("floods: a peer that never reads takes only the memory of its waiting messages", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        const sending = collect(async function* () {
          for (let i = 0; i < 100; i++) {
            await ws.send(pattern(5000));
            yield i;
          }
        }());
        sending.catch(() => {});
        await until(() => ws.bufferedAmount > 65536);
        assert.ok(ws.bufferedAmount <= 65536 + 5014, `${ws.bufferedAmount} bytes wait`);
        ws.terminate();
        await rejection(sending);
      },
      {},
      { capacity: 0 },
    );
  });
});
