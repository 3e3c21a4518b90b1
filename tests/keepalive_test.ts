import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Opcode } from "../lib/core/mod.ts";
import { Keepalive } from "../lib/connection/heartbeat.ts";
import { transportPair } from "../lib/testing.ts";
import { accept, errorCodeOf } from "../mod.ts";
import { pattern, utf8 } from "./bytes.ts";
import {
  binaryFrame,
  frames,
  inBothRoles,
  isPending,
  pingFrame,
  pongFrame,
  RawPeer,
  rejection,
  rest,
  textFrame,
  turn,
  until,
} from "./support.ts";
import { inVirtualTime, settle } from "./virtual_time.ts";

type WithCode = Error & { closeCode: number };

const INVALID_STATE = { name: "InvalidStateError" };
const SEND_MARK = 65536;

async function nextPing(peer: RawPeer): Promise<Uint8Array> {
  const { opcode, payload } = await peer.next();
  assert.equal(opcode, Opcode.Ping);
  return payload;
}

describe("WebSocketConnection.ping", () => {
  const payloads: [name: string, given: string | Uint8Array | undefined, sent: Uint8Array][] = [
    ["text", "a\u20ac", utf8("a\u20ac")],
    ["bytes", pattern(5), pattern(5)],
    ["an empty payload", "", utf8("")],
    ["125 bytes", pattern(125), pattern(125)],
  ];
  for (const [name, given, sent] of payloads) {
    it(`ping() sends ${name} and resolves with the time until the pong`, async () => {
      await inBothRoles(async (ws, peer) => {
        assert.equal(ws.latency, undefined);
        const ping = ws.ping(given);
        const payload = await nextPing(peer);
        assert.deepEqual(payload, sent);
        assert.equal(await isPending(ping), true);
        peer.send(pongFrame(payload));
        const latency = await ping;
        assert.ok(latency > 0);
        assert.equal(ws.latency, latency);
      });
    });
  }

  it("ping() without a payload sends four bytes, other ones each time", async () => {
    await inBothRoles(async (ws, peer) => {
      const pings = [ws.ping(), ws.ping()];
      const [first, second] = [await nextPing(peer), await nextPing(peer)];
      assert.equal(first.length, 4);
      assert.notDeepEqual(first, second);
      peer.send(pongFrame(first), pongFrame(second));
      await Promise.all(pings);
    });
  });

  it("ping() may have its payload changed at once", async () => {
    await inBothRoles(async (ws, peer) => {
      const payload = utf8("abc");
      const ping = ws.ping(payload);
      payload.fill(0);
      assert.deepEqual(await nextPing(peer), utf8("abc"));
      peer.send(pongFrame(utf8("abc")));
      await ping;
    });
  });

  it("ping() refuses a longer payload, a wrong type, and one that waits already", async () => {
    await inBothRoles(async (ws, peer) => {
      await assert.rejects(ws.ping(pattern(126)), RangeError);
      await assert.rejects(ws.ping("\u20ac".repeat(42)), RangeError);
      for (const wrong of [1, {}, [1], null]) {
        await assert.rejects(ws.ping(wrong as unknown as string), TypeError);
      }
      const first = ws.ping("a");
      await assert.rejects(ws.ping("a"), INVALID_STATE);
      peer.send(pongFrame(utf8("a")));
      await first;
      const again = ws.ping("a");
      peer.send(pongFrame(utf8("a")));
      await again;
      assert.equal(ws.state, "open");
      assert.deepEqual((await frames(peer, 2)).map(([, text]) => text), ["a", "a"]);
    });
  });

  it("ping() with a signal stops waiting", async () => {
    await inBothRoles(async (ws, peer) => {
      const controller = new AbortController();
      const { signal } = controller;
      const ping = ws.ping("a", { signal });
      await nextPing(peer);
      controller.abort(new Error("enough"));
      await assert.rejects(ping, { message: "enough" });
      await assert.rejects(ws.ping("b", { signal }), { message: "enough" });
      peer.send(pongFrame(utf8("a")));
      await rest();
      assert.equal(peer.frames.length, 0);
      assert.equal(ws.state, "open");
    });
  });

  it("waiting and later pings reject when the connection ends", async () => {
    await inBothRoles(async (ws, peer) => {
      const pings = [ws.ping("a"), ws.ping("b")];
      peer.transport.destroy();
      const error = await rejection(ws.closed);
      for (const ping of pings) assert.equal(await rejection(ping), error);
      await assert.rejects(ws.ping(), INVALID_STATE);
    });
    await inBothRoles(async (ws, peer) => {
      const ping = ws.ping("a");
      ws.close({ closeCode: 1000 });
      await assert.rejects(ws.ping(), INVALID_STATE);
      await peer.answerClose();
      await assert.rejects(ping, { name: "WebSocketError", closeCode: 1000 });
    });
  });

  it("ping() is answered during the closing handshake", async () => {
    await inBothRoles(async (ws, peer) => {
      const ping = ws.ping("a");
      ws.close({ closeCode: 1000 });
      await nextPing(peer);
      peer.send(pongFrame(utf8("a")));
      assert.ok(await ping > 0);
    });
  });

  it("ping() is answered by the pong of a later one", async () => {
    await inBothRoles(async (ws, peer) => {
      const pings = [ws.ping("a"), ws.ping("b"), ws.ping("c")];
      peer.send(pongFrame(utf8("b")));
      await Promise.all(pings.slice(0, 2));
      assert.equal(await isPending(pings[2]), true);
      peer.send(pongFrame(utf8("c")));
      await pings[2];
    });
  });

  it("ping() is not answered by an unsolicited pong", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(pongFrame(utf8("x")));
      const ping = ws.ping("a");
      peer.send(pongFrame(utf8("")), pongFrame(utf8("aa")), textFrame("b"));
      assert.equal(await ws.receive(), "b");
      assert.equal(await isPending(ping), true);
      assert.equal(ws.latency, undefined);
    });
  });
});

describe("WebSocketConnection.pong", () => {
  it("pong() sends an unsolicited pong", async () => {
    await inBothRoles(async (ws, peer) => {
      await ws.pong();
      await ws.pong("a");
      await ws.pong(pattern(125));
      const got = [await peer.next(), await peer.next(), await peer.next()];
      assert.deepEqual(got.map(({ opcode }) => opcode), [10, 10, 10]);
      assert.deepEqual(got.map(({ payload }) => payload), [utf8(""), utf8("a"), pattern(125)]);
      await assert.rejects(ws.pong(pattern(126)), RangeError);
      await assert.rejects(ws.pong(1 as unknown as string), TypeError);
      ws.terminate();
      await assert.rejects(ws.pong(), INVALID_STATE);
    });
  });
});

describe("The pong to a ping", () => {
  it("Each ping is answered in order, with its payload", async () => {
    await inBothRoles(async (_, peer) => {
      peer.send(pingFrame("a"), pingFrame(""), pingFrame("x".repeat(125)));
      const got = [await peer.next(), await peer.next(), await peer.next()];
      assert.deepEqual(got.map(({ opcode }) => opcode), [10, 10, 10]);
      assert.deepEqual(got.map(({ payload }) => payload.length), [1, 0, 125]);
    });
  });

  it("A flood of pings by a peer that does not read keeps bufferedAmount bounded", async () => {
    await inBothRoles(
      async (ws, peer) => {
        const amounts: number[] = [];
        peer.transport.pause();
        for (let i = 0; i < 20; i++) {
          const flood = Array.from(
            { length: 500 },
            (_, j) => pingFrame(`${i * 500 + j}`.padEnd(125)),
          );
          peer.send(...flood);
          await rest();
          amounts.push(ws.bufferedAmount);
        }
        assert.ok(Math.max(...amounts) <= SEND_MARK + 256, `${Math.max(...amounts)} bytes wait`);
        peer.transport.resume();
        await until(() => peer.frames.at(-1)?.payload[0] !== undefined && ws.bufferedAmount === 0);
        const last = new TextDecoder().decode(peer.frames.at(-1)!.payload).trim();
        assert.equal(last, "9999");
      },
      { maxControlFramesPerSecond: Infinity },
      { capacity: 0 },
    );
  });
});

describe("Keepalive", () => {
  it("Keepalive pings, and measures the latency by the pong", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 3; i++) {
        peer.send(pongFrame(await nextPing(peer)));
        await until(() => ws.latency !== undefined);
      }
      assert.equal(ws.state, "open");
    }, { pingInterval: 5 });
  });

  it("Keepalive sends a later ping at once, with what was written before", async () => {
    await inVirtualTime(async (time) => {
      const [near, far] = transportPair();
      const accepting = accept(near, { pingInterval: 1600, pingTimeout: 0 });
      const peer = new RawPeer(far, "client");
      const ws = await accepting;
      await time.advance(1600);
      peer.send(pongFrame(await nextPing(peer)));
      await settle();
      assert.equal(ws.latency, 0);
      let writes = 0;
      const write = near.write.bind(near);
      near.write = (parts) => {
        writes++;
        write(parts);
      };
      ws.send("a");
      time.standStill(1600);
      assert.equal(writes, 1);
      await settle();
      assert.equal((await peer.next()).opcode, Opcode.Text);
      peer.send(pongFrame(await nextPing(peer)));
      await settle();
      assert.equal(writes, 1);
      ws.terminate();
      assert.equal((await rejection<WithCode>(ws.closed)).closeCode, 1006);
    });
  });

  it("Keepalive fails the connection with 1011 when no pong comes", async () => {
    await inBothRoles(async (ws, peer) => {
      const ping = await nextPing(peer);
      assert.equal(ping.length, 4);
      const { closeCode, reason } = await peer.nextClose();
      assert.equal(closeCode, 1011);
      assert.match(reason, /pong/);
      const error = await rejection<WithCode>(ws.closed);
      assert.deepEqual([error.closeCode, errorCodeOf(error)], [1011, "pong-timeout"]);
    }, { pingInterval: 5, pingTimeout: 30 });
  });

  it("Keepalive without a timeout waits for as long as it takes", async () => {
    await inBothRoles(async (ws, peer) => {
      const payload = await nextPing(peer);
      for (let i = 0; i < 50; i++) await turn();
      assert.equal(peer.frames.length, 0);
      peer.send(pongFrame(payload));
      await nextPing(peer);
      assert.equal(ws.state, "open");
    }, { pingInterval: 5, pingTimeout: 0 });
  });

  it("Keepalive with an interval of 0 sends no pings", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 50; i++) await turn();
      assert.equal(peer.frames.length, 0);
      assert.equal(ws.state, "open");
    }, { pingInterval: 0, pingTimeout: 1 });
  });

  it("Keepalive stops when the connection closes", async () => {
    await inBothRoles(async (ws, peer) => {
      ws.close({ closeCode: 1000 });
      await peer.nextClose();
      for (let i = 0; i < 50; i++) await turn();
      assert.equal(peer.frames.length, 0);
      peer.send({ opcode: Opcode.Close, payload: utf8("") });
      assert.equal((await ws.closed).closeCode, 1005);
    }, { pingInterval: 10 });
  });

  // The error of a ping that could not be sent would be an uncaught error.
  it("Keepalive stops while a transport that was cut takes its time", async () => {
    await inBothRoles(
      async (ws) => {
        ws.terminate();
        assert.equal((await rejection<WithCode>(ws.closed)).closeCode, 1006);
      },
      { pingInterval: 5 },
      { delay: 50 },
    );
  });

  it("Keepalive stops when the peer has ended its side", async () => {
    const [near, far] = transportPair();
    // A socket behaves like this if its peer does not read.
    near.end = () => {};
    const server = accept(near, { pingInterval: 5, pingTimeout: 0 });
    const peer = new RawPeer(far, "client");
    const ws = await server;
    peer.polite = false;
    far.end();
    await until(() => ws.state === "closed");
    const sent = ws.stats.bytesSent;
    for (let i = 0; i < 50; i++) await turn();
    assert.equal(ws.stats.bytesSent, sent);
    ws.terminate();
    assert.equal((await rejection<WithCode>(ws.closed)).closeCode, 1006);
  });

  /** Fills the inbox, so that the pong after these messages cannot be read. */
  async function fill(peer: RawPeer): Promise<void> {
    const payload = await nextPing(peer);
    for (let i = 0; i < 10; i++) peer.send(binaryFrame(pattern(10_000)));
    peer.send(pongFrame(payload));
  }

  it("Keepalive waits while we do not read, as long as anything moves", async () => {
    await inBothRoles(async (ws, peer) => {
      await fill(peer);
      await until(() => ws.stats.paused);
      const end = performance.now() + 1000;
      while (performance.now() < end) {
        await ws.send("a");
        await turn();
      }
      assert.equal(ws.state, "open");
      for (let i = 0; i < 10; i++) await ws.receive();
      await until(() => ws.latency !== undefined);
    }, { pingInterval: 20, pingTimeout: 200 });
  });

  it("Keepalive waits for the pong again after the process has stood still", async () => {
    let answered = 0;
    let lost = false;
    let isAlive = true;
    const keepalive = new Keepalive(
      {
        get isAlive() {
          return isAlive;
        },
        sendPing: (_, waiter) => {
          setTimeout(() => {
            const end = performance.now() + 300;
            while (performance.now() < end);
            // The deadline has long passed by then.
            setTimeout(() => waiter.resolve(answered++));
          }, 5);
        },
        isPaused: false,
        traffic: () => ({ received: 0, sent: 0, waiting: 0 }),
        lost: () => lost = true,
      },
      1,
      100,
    );
    await until(() => answered === 2 || lost);
    assert.equal(lost, false);
    isAlive = false;
    keepalive.cancel();
  });

  it("Keepalive gives the pong its whole time once we read again", async () => {
    let paused = true;
    let looks = 0;
    let lost = false;
    const keepalive = new Keepalive(
      {
        isAlive: true,
        sendPing: () => {},
        get isPaused() {
          return paused;
        },
        traffic: () => {
          looks++;
          return { received: 0, sent: 0, waiting: 0 };
        },
        lost: () => lost = true,
      },
      1,
      20,
    );
    // The timers of Keepalive do not keep the process running, but this wait does.
    await until(() => looks > 4);
    paused = false;
    const before = looks;
    await until(() => lost);
    assert.ok(looks - before > 4, "one look finds that we read again, and four make a deadline");
    keepalive.cancel();
  });

  it("Keepalive gives up when nothing moves while we do not read", async () => {
    await inBothRoles(async (ws, peer) => {
      await fill(peer);
      // The timers of Keepalive do not keep the process running, but this wait does.
      await until(() => ws.state === "closed");
      const error = await rejection<WithCode>(ws.closed);
      assert.equal(error.closeCode, 1011);
    }, { pingInterval: 20, pingTimeout: 50 });
  });
});
