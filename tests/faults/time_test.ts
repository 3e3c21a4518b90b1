import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { accept, connect, type ConnectionOptions, type WebSocketConnection } from "../../mod.ts";
import type { Role } from "../../lib/core/mod.ts";
import { assemble } from "../../lib/streams.ts";
import { toStreams } from "../../lib/transport.ts";
import { transportPair } from "../../lib/testing.ts";
import { backgroundTimer, Countdown, timer } from "../../lib/timers.ts";
import {
  binaryFrame,
  closeFrame,
  pongFrame,
  RawPeer,
  rejection,
  ROLES,
  upgradeRequest,
  withPeer,
} from "../support.ts";
import { latin1, pattern } from "../bytes.ts";
import { inVirtualTime, settle, type VirtualTime } from "../virtual_time.ts";

const DAY = 86_400_000;
const TIMEOUT = 1000;

/** A wait that a peer has limited time to answer. */
interface Wait {
  /** Writes the answer. The answer has not been read when this function returns. */
  answer(): void;
  /** The result of the wait. */
  outcome: Promise<unknown>;
  /** Whether the outcome is the one that the answer should lead to. */
  isAnswered(outcome: unknown): boolean;
}

const isOpen = (ws: unknown) => (ws as WebSocketConnection).state === "open";
const isClean = (info: unknown) => (info as { closeCode: number }).closeCode === 1000;

/** All waits for an answer of the peer. */
const WAITS: Record<string, () => Promise<Wait>> = {
  "openTimeout of a client": async () => {
    const [near, far] = transportPair();
    let answer: Uint8Array | undefined;
    const peer = new RawPeer(far, "server", (accept) => {
      answer = accept();
      return undefined;
    });
    const outcome = connect("ws://localhost/", { transport: near, openTimeout: TIMEOUT });
    outcome.catch(() => {});
    // The platform's transports have to be loaded first.
    while (answer === undefined) await settle();
    return { answer: () => peer.write(answer!), outcome, isAnswered: isOpen };
  },
  "openTimeout of a server": async () => {
    const [near, far] = transportPair();
    far.handle({ data() {}, drain() {}, end: () => far.end(), close() {} });
    const outcome = accept(near, { openTimeout: TIMEOUT });
    outcome.catch(() => {});
    await settle();
    const request = latin1(upgradeRequest());
    return { answer: () => far.write([request]), outcome, isAnswered: isOpen };
  },
  "closeTimeout of a client": () => waitForClose("client"),
  "closeTimeout of a server": () => waitForClose("server"),
  "closeTimeout of assemble()": async () => {
    const [near, far] = transportPair();
    const { writable, closed } = assemble(toStreams(near), {
      role: "client",
      closeTimeout: TIMEOUT,
    });
    far.handle({ data() {}, drain() {}, end: () => far.end(), close() {} });
    writable.getWriter().close().catch(() => {});
    await settle();
    const answer = () => {
      far.write([Uint8Array.of(0x88, 2, 0x03, 0xe8)]);
      far.end();
    };
    return { answer, outcome: closed, isAnswered: isClean };
  },
};

async function waitForClose(role: Role): Promise<Wait> {
  const [ws, peer] = await withPeer(role, { closeTimeout: TIMEOUT });
  ws.close({ closeCode: 1000 });
  await settle();
  return {
    answer: () => {
      peer.send(closeFrame(1000));
      peer.transport.end();
    },
    outcome: ws.closed,
    isAnswered: isClean,
  };
}

/** The delay of the answer, and the duration of the standstill after it, in milliseconds. */
const STANDSTILLS: [before: number, standstill: number][] = [
  [1, TIMEOUT],
  [1, 60 * TIMEOUT],
  [TIMEOUT / 2, TIMEOUT],
  [TIMEOUT - 1, 1],
  [TIMEOUT - 1, 20],
  [TIMEOUT - 1, 60 * TIMEOUT],
];

describe("H8 What has arrived during a standstill is read first", () => {
  for (const [name, begin] of Object.entries(WAITS)) {
    for (const [before, standstill] of STANDSTILLS) {
      it(`H8 ${name}: an answer after ${before} ms, then ${standstill} ms of standstill`, async () => {
        await inVirtualTime(async (time) => {
          const { answer, outcome, isAnswered } = await begin();
          await time.advance(before);
          answer();
          time.standStill(standstill);
          await time.advance(0);
          assert.ok(isAnswered(await outcome));
        });
      });
    }

    it(`H8 ${name}: a peer that does not answer is given up, standstill or not`, async () => {
      for (const standstill of [0, TIMEOUT, 60 * TIMEOUT]) {
        await inVirtualTime(async (time) => {
          const { outcome } = await begin();
          const failed = rejection(outcome);
          await time.advance(TIMEOUT - 1);
          time.standStill(standstill);
          await time.advance(2 * TIMEOUT);
          await failed;
        });
      }
    });
  }

  it("H8 a process that stands still again and again gives up in the end", async () => {
    await inVirtualTime(async (time) => {
      const { outcome } = await WAITS["openTimeout of a client"]();
      const failed = rejection(outcome);
      for (let i = 0; i < 8; i++) {
        time.standStill(10 * TIMEOUT);
        await settle();
      }
      assert.match((await failed).message, /1000 ms/);
    });
  });
});

describe("H8 Delays beyond those of the platform", () => {
  const countdown = (callback: () => void, delay: number) => {
    const started = new Countdown(callback, delay);
    return () => started.cancel();
  };
  const kinds = { timer, backgroundTimer, countdown };
  for (const [name, start] of Object.entries(kinds)) {
    for (const days of [1, 24, 25, 60, 365]) {
      it(`H8 ${name}() of ${days} days fires after exactly that time`, async () => {
        await inVirtualTime(async (time) => {
          let fired = 0;
          start(() => fired++, days * DAY);
          await time.advance(days * DAY - 1000);
          assert.equal(fired, 0);
          await time.advance(2000);
          assert.equal(fired, 1);
          assert.equal(time.waiting, 0);
        });
      });
    }

    it(`H8 ${name}() can be cancelled at any time, and may take for ever`, async () => {
      await inVirtualTime(async (time) => {
        let fired = 0;
        for (const days of [0, 10, 30, 50]) {
          const cancel = start(() => fired++, 60 * DAY);
          await time.advance(days * DAY);
          cancel();
        }
        start(() => fired++, Infinity);
        await time.advance(1000 * DAY);
        assert.equal(fired, 0);
        assert.equal(time.waiting, 0);
      });
    });
  }

  it("H8 a deadline that is cancelled while it reads what has arrived does not call back", async () => {
    await inVirtualTime(async (time) => {
      const countdown = new Countdown(() => assert.fail("Expected no call"), 100);
      time.standStill(25);
      for (let i = 0; i < 3; i++) time.standStill(25);
      countdown.cancel();
      await settle();
    });
  });
});

const KEEPALIVE: ConnectionOptions = { pingInterval: TIMEOUT, pingTimeout: TIMEOUT };
const CAPACITY = 65536;
const LONG = pattern(1_000_000);

/** A peer that takes only as many bytes as it is told to, and answers nothing. */
class SlowPeer {
  readonly #peer: RawPeer;
  #budget = 0;

  constructor(peer: RawPeer) {
    this.#peer = peer;
    const { transport } = peer;
    transport.handle({
      data: (chunk) => {
        this.#budget -= chunk.length;
        if (this.#budget <= 0) transport.pause();
      },
      drain() {},
      end() {},
      close() {},
    });
    transport.pause();
  }

  /** Takes about this many bytes. */
  async take(bytes: number): Promise<void> {
    this.#budget = bytes;
    this.#peer.transport.resume();
    await settle();
  }
}

/** Runs a test with a connection in each role and a slow peer. */
async function withSlowPeer(
  run: (ws: WebSocketConnection, peer: SlowPeer, time: VirtualTime, raw: RawPeer) => Promise<void>,
): Promise<void> {
  for (const role of ROLES) {
    await inVirtualTime(async (time) => {
      const line = { chunkSize: 1024, capacity: CAPACITY };
      const [ws, raw] = await withPeer(role, KEEPALIVE, line);
      await run(ws, new SlowPeer(raw), time, raw);
      ws.terminate();
      raw.transport.destroy();
      await settle();
    });
  }
}

/** Advances the time until the connection fails, and returns how long that took. */
async function timeToFail(ws: WebSocketConnection, time: VirtualTime): Promise<number> {
  const start = time.now;
  while (ws.state === "open" && time.now - start < 100 * TIMEOUT) await time.advance(TIMEOUT / 20);
  assert.equal(ws.closeInfo?.sent?.closeCode, 1011);
  assert.match(ws.closeInfo?.sent?.reason ?? "", /pong/);
  return time.now - start;
}

const WRITES: Record<string, (ws: WebSocketConnection) => void> = {
  "one long message": (ws) => void ws.send(LONG).catch(() => {}),
  "many short messages": (ws) => {
    for (let i = 0; i < 1000; i++) ws.send("x".repeat(1000)).catch(() => {});
  },
  "a message of many pieces": (ws) => {
    const pieces = Array.from({ length: 1000 }, () => "x".repeat(1000));
    ws.send(pieces).catch(() => {});
  },
  "a stream": (ws) => {
    const piece = "x".repeat(1000);
    const source = new ReadableStream<string>({ pull: (controller) => controller.enqueue(piece) });
    source.pipeTo(ws.writable).catch(() => {});
  },
};

describe("B9 Bytes that leave keep a connection alive", () => {
  for (const [name, write] of Object.entries(WRITES)) {
    it(`B9 ${name}: a peer that reads slowly is kept for as long as it reads`, async () => {
      await withSlowPeer(async (ws, peer, time) => {
        write(ws);
        for (let i = 0; i < 20; i++) {
          await time.advance(0.9 * TIMEOUT);
          await peer.take(20_000);
          assert.equal(ws.state, "open", `in round ${i}`);
        }
      });
    });

    it(`B9 ${name}: a peer that dies is found after three deadlines`, async () => {
      await withSlowPeer(async (ws, peer, time) => {
        write(ws);
        for (let i = 0; i < 5; i++) {
          await time.advance(0.9 * TIMEOUT);
          await peer.take(20_000);
        }
        const duration = await timeToFail(ws, time);
        assert.ok(duration <= 3.5 * TIMEOUT, `${duration} ms`);
      });
    });
  }

  it("B9 bytes that are merely queued do not count", async () => {
    await withSlowPeer(async (ws, _, time) => {
      ws.send(LONG).catch(() => {});
      const start = time.now;
      while (ws.state === "open" && time.now - start < 100 * TIMEOUT) {
        ws.send("more").catch(() => {});
        await time.advance(TIMEOUT / 10);
      }
      // The first ping is sent after one interval.
      assert.ok(time.now - start <= 4.5 * TIMEOUT, `${time.now - start} ms`);
    });
  });

  it("B9 bytes that the platform takes for a dead peer do not count", async () => {
    await withSlowPeer(async (ws, _, time) => {
      const start = time.now;
      while (ws.state === "open" && time.now - start < 100 * TIMEOUT) {
        await ws.send("a little");
        await time.advance(TIMEOUT / 10);
      }
      assert.ok(ws.bufferedAmount < CAPACITY);
      assert.ok(time.now - start <= 2.5 * TIMEOUT, `${time.now - start} ms`);
    });
  });

  it("B9 a ping that much lies before has time to reach the peer", async () => {
    for (const role of ROLES) {
      await inVirtualTime(async (time) => {
        const [ws, peer] = await withPeer(role, KEEPALIVE, { capacity: 2 * LONG.length });
        peer.transport.pause();
        await ws.send(LONG);
        await time.advance(3.5 * TIMEOUT);
        assert.equal(ws.state, "open");
        peer.transport.resume();
        await settle();
        peer.send(pongFrame(peer.frames.at(-1)!.payload));
        // Everything is confirmed: few bytes are sent before the next ping.
        await time.advance(TIMEOUT);
        assert.equal(ws.state, "open");
        assert.ok(await timeToFail(ws, time) <= 1.5 * TIMEOUT);
        peer.transport.destroy();
      });
    }
  });

  it("B9 an idle peer that is dead is found after one deadline", async () => {
    await withSlowPeer(async (ws, _, time) => {
      const duration = await timeToFail(ws, time);
      assert.ok(duration >= 2 * TIMEOUT && duration <= 2.5 * TIMEOUT, `${duration} ms`);
    });
  });
});

describe("B10 Bytes that come keep a connection alive", () => {
  it("B10 a peer may send one long frame for as long as it likes, and answer no ping", async () => {
    await withSlowPeer(async (ws, _, time, raw) => {
      const received = ws.receive();
      received.catch(() => {});
      const frame = raw.encode(binaryFrame(pattern(2000)));
      for (const byte of frame.subarray(0, 40)) {
        raw.write(Uint8Array.of(byte));
        await time.advance(0.9 * TIMEOUT);
        assert.equal(ws.state, "open");
      }
      raw.write(frame.subarray(40));
      assert.deepEqual(await received, pattern(2000));
    });
  });

  it("B10 a peer that stops in the middle of a frame is found after one deadline", async () => {
    await withSlowPeer(async (ws, _, time, raw) => {
      ws.receive().catch(() => {});
      raw.write(raw.encode(binaryFrame(pattern(2000))).subarray(0, 1000));
      await time.advance(1.5 * TIMEOUT);
      assert.ok(await timeToFail(ws, time) <= 1.5 * TIMEOUT);
    });
  });

  it("B10 after a standstill the pong that has arrived is read first", async () => {
    for (const role of ROLES) {
      for (const standstill of [TIMEOUT / 2, TIMEOUT, 60 * TIMEOUT]) {
        await inVirtualTime(async (time) => {
          const [ws, peer] = await withPeer(role, KEEPALIVE);
          await time.advance(1.9 * TIMEOUT);
          peer.send(pongFrame(peer.frames.at(-1)!.payload));
          time.standStill(standstill);
          await settle();
          assert.equal(ws.state, "open");
          assert.notEqual(ws.latency, undefined);
          ws.terminate();
          await settle();
        });
      }
    }
  });
});
