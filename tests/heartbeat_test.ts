import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  ControlRate,
  Keepalive,
  type KeepaliveHost,
  type Ping,
  Pings,
  type PingWaiter,
  type Traffic,
} from "../lib/connection/heartbeat.ts";
import { inVirtualTime, type VirtualTime } from "./virtual_time.ts";

describe("ControlRate", () => {
  const refused = { name: "RemoteProtocolError", closeCode: 1008 };

  /** Counts `count` frames, and returns how many were allowed. */
  function allowed(rate: ControlRate, messages: number, count = 100): number {
    for (let i = 0; i < count; i++) {
      try {
        rate.count(messages);
      } catch (error) {
        assert.deepEqual([(error as Error).name, (error as { closeCode: number }).closeCode], [
          refused.name,
          refused.closeCode,
        ]);
        return i;
      }
    }
    return count;
  }

  it("allows as many at once as in a second, and then those that the time and messages earn", () => {
    let time = 5000;
    const clock = () => time;
    assert.equal(allowed(new ControlRate(10, clock), 0), 10);

    const later = new ControlRate(10, clock);
    assert.equal(allowed(later, 0, 10), 10);
    time += 250;
    // 2.5 are earned, of which two are whole.
    assert.equal(allowed(later, 0), 2);

    const full = new ControlRate(10, clock);
    assert.equal(allowed(full, 0, 10), 10);
    time += 1000;
    assert.equal(allowed(full, 0), 10);

    const idle = new ControlRate(10, clock);
    time += 60_000;
    assert.equal(allowed(idle, 0), 10);

    const busy = new ControlRate(10, clock);
    assert.equal(allowed(busy, 0, 10), 10);
    assert.equal(allowed(busy, 3), 3);
    const steady = new ControlRate(2, clock);
    for (let messages = 1; messages <= 50; messages++) steady.count(messages);
  });

  it("allows 10,000 unless told otherwise, and any number without a limit", () => {
    const clock = () => 0;
    assert.equal(allowed(new ControlRate(undefined, clock), 0, 20_000), 10_000);
    assert.equal(allowed(new ControlRate(Infinity, clock), 0, 20_000), 20_000);
  });
});

describe("Pings", () => {
  const of = (text: string) => new TextEncoder().encode(text);

  it("one pong answers the pings up to its own, with the time that each took", async () => {
    await inVirtualTime(async (time) => {
      const pings = new Pings();
      const settled: unknown[] = [];
      const add = (text: string) =>
        pings.add(of(text), {
          sentAt: 0,
          resolve: (latency) => settled.push(`${text} ${latency}`),
          reject: (error) => settled.push(`${text} ${(error as Error).message}`),
        });
      assert.equal(add("a"), true);
      await time.advance(10);
      assert.deepEqual([add("b"), add("c"), add("b")], [true, true, false]);
      await time.advance(5);
      assert.equal(pings.pong(of("x")), false);
      assert.equal(pings.latency, undefined);
      assert.equal(pings.pong(of("b")), true);
      assert.deepEqual(settled, ["a 15", "b 5"]);
      assert.equal(pings.latency, 5);
      assert.equal(pings.pong(of("b")), false);
      pings.fail(() => new Error("lost"));
      assert.deepEqual(settled, ["a 15", "b 5", "c lost"]);
      assert.equal(pings.pong(of("c")), false);
    });
  });

  it("tells payloads apart by each byte", () => {
    const pings = new Pings();
    const waiter = { sentAt: 0, resolve: () => {}, reject: () => {} };
    const bits = Array.from({ length: 32 }, (_, bit) => {
      const payload = [0, 0, 0, 0];
      payload[bit >> 3] = 1 << (bit & 7);
      return payload;
    });
    const others = [[], [0], [0, 0], [1, 2], [2, 1], [255, 254], [0, 0, 0, 0], [0, 0, 0, 0, 0]];
    for (const payload of [...bits, ...others, [0, 0, 0, 0, 1]]) {
      assert.equal(pings.add(Uint8Array.from(payload), waiter), true, `${payload}`);
    }
  });
});

/** A connection whose traffic and pause the test decides. */
class Host implements KeepaliveHost {
  isAlive = true;
  isPaused = false;
  now: Traffic = { received: 0, sent: 0, waiting: 0 };
  readonly events: string[] = [];
  readonly #time: VirtualTime;
  answer: () => void = () => {};

  constructor(time: VirtualTime) {
    this.#time = time;
  }

  sendPing(_: Ping, waiter: PingWaiter): void {
    this.events.push(`ping at ${this.#time.now}`);
    this.answer = () => waiter.resolve(0);
  }

  traffic(): Traffic {
    return { ...this.now };
  }

  lost(timeout: number): void {
    this.events.push(`lost at ${this.#time.now} with ${timeout}`);
  }
}

describe("Keepalive", () => {
  /** Runs a host with an interval of 1000 and a timeout of 100 milliseconds. */
  function withHost(
    test: (host: Host, time: VirtualTime, keepalive: Keepalive) => Promise<void>,
    timeout = 100,
  ): Promise<void> {
    return inVirtualTime((time) => {
      const host = new Host(time);
      return test(host, time, new Keepalive(host, 1000, timeout));
    });
  }

  it("pings after the interval, and again after each pong", async () => {
    await withHost(async (host, time) => {
      await time.advance(1000);
      host.answer();
      await time.advance(1000);
      assert.equal(host.events.length, 2);
      assert.equal(host.events[0], "ping at 1000");
    }, 0);
  });

  it("pings at moments that connections share, spread over a quarter of the interval", async () => {
    await inVirtualTime(async (time) => {
      const pings: number[][] = [];
      const keepalives: Keepalive[] = [];
      for (let i = 0; i < 64; i++) {
        const own: number[] = [];
        pings.push(own);
        const host = new Host(time);
        host.sendPing = (_, waiter) => {
          own.push(time.now);
          queueMicrotask(() => waiter.resolve(0));
        };
        keepalives.push(new Keepalive(host, 1600, 0));
        await time.advance(3);
      }
      await time.advance(8000 - time.now);
      for (const keepalive of keepalives) keepalive.cancel();
      for (const [i, own] of pings.entries()) {
        assert.equal(own[0], 1600 + 3 * i, "The first ping comes after the interval");
        const intervals = own.slice(1).map((at, j) => at - own[j]);
        assert.ok(intervals[0] > 1200 && intervals[0] <= 1600, `${intervals[0]}`);
        for (const interval of intervals.slice(1)) assert.equal(interval, 1600);
      }
      const moments = new Set(pings.flatMap((own) => own.slice(1)).map((at) => at % 1600));
      assert.equal(new Set([...moments].map((at) => at % 100)).size, 1);
      assert.ok(moments.size >= 4 && moments.size <= 6, `${moments.size} moments`);
      assert.equal(time.waiting, 0);
    });
  });

  /** Makes hosts whose first ping is answered, and calls back before their second ping. */
  async function withBeat(
    count: number,
    [interval, timeout]: [interval: number, timeout: number],
    test: (hosts: Host[], keepalives: Keepalive[], time: VirtualTime) => Promise<void>,
  ): Promise<void> {
    await inVirtualTime(async (time) => {
      const hosts = Array.from({ length: count }, () => new Host(time));
      const keepalives = hosts.map((host) => new Keepalive(host, interval, timeout));
      time.standStill(interval);
      // All of them join the same beat.
      const { random } = Math;
      Math.random = () => 0;
      for (const host of hosts) {
        host.answer();
        host.events.length = 0;
      }
      Math.random = random;
      await test(hosts, keepalives, time);
      for (const keepalive of keepalives) keepalive.cancel();
      assert.equal(time.waiting, 0);
    });
  }

  it("sends at most 100 pings in a turn, and the connections share one", async () => {
    await withBeat(250, [1600, 100], async (hosts, keepalives, time) => {
      let turn = 0;
      let isOver = false;
      const count = () => {
        turn++;
        if (!isOver) setImmediate(count);
      };
      const turns = new Map<number, number>();
      const frames = new Set<unknown>();
      for (const [i, host] of hosts.entries()) {
        host.sendPing = (ping, waiter) => {
          turns.set(turn, (turns.get(turn) ?? 0) + 1);
          frames.add(ping.frame).add(ping.payload.length);
          assert.deepEqual(ping.frame!.bytes, Uint8Array.of(0x89, 4, ...ping.payload));
          // These connections end before their ping is due.
          if (i === 0) { for (const late of [100, 150, 249]) keepalives[late].cancel(); }
          waiter.resolve(0);
        };
      }
      count();
      while (turns.size === 0) await time.advance(1);
      isOver = true;
      assert.deepEqual([...turns.values()], [100, 98, 49]);
      assert.equal(frames.size, 2);
      assert.equal(time.waiting, 2, "the next pings, and the look after these ones");
      await time.advance(7);
      assert.equal(time.waiting, 1);
    });
  });

  it("leaves no timer when all connections end while they are pinged", async () => {
    await withBeat(3, [1600, 100], async (hosts, keepalives, time) => {
      let pings = 0;
      for (const host of hosts) {
        host.sendPing = () => {
          pings++;
          for (const keepalive of keepalives) keepalive.cancel();
        };
      }
      while (pings === 0) await time.advance(1);
      assert.deepEqual([pings, time.waiting], [1, 0]);
    });
  });

  it("begins a moment again that all connections have left", async () => {
    await inVirtualTime(async (time) => {
      const hosts = [new Host(time), new Host(time)];
      const [first, second] = hosts.map((host) => new Keepalive(host, 1600, 0));
      time.standStill(1600);
      hosts[0].answer();
      first.cancel();
      hosts[1].answer();
      await time.advance(1600);
      assert.deepEqual(hosts.map(({ events }) => events.length), [1, 2]);
      second.cancel();
      assert.equal(time.waiting, 0);
    });
  });

  it("sends no other ping while it waits for a pong", async () => {
    await withBeat(1, [1600, 0], async ([host], [keepalive], time) => {
      keepalive.ping({ payload: new Uint8Array(4) });
      keepalive.ping({ payload: new Uint8Array(4) });
      assert.equal(host.events.length, 1);
      await time.advance(1600);
      assert.equal(host.events.length, 1);
      host.answer();
      keepalive.ping({ payload: new Uint8Array(4) });
      assert.equal(host.events.length, 2);
    });
  });

  const PONGS: readonly [timeout: number, pongAfter: number, nextAfter: number][] = [
    [20_000, 999, 16_000],
    [20_000, 1001, 17_000],
    [0, 999, 16_000],
    [0, 1001, 17_000],
    [8000, 499, 16_000],
    [8000, 1001, 17_000],
  ];
  for (const [timeout, pongAfter, nextAfter] of PONGS) {
    const what = `a timeout of ${timeout} and a pong after ${pongAfter}`;
    it(`pings again after ${nextAfter} ms with an interval of 16,000, ${what}`, async () => {
      await withBeat(1, [16_000, timeout], async ([host], _, time) => {
        await time.advance(16_000);
        const at = () => host.events.map((event) => Number(event.split(" ")[2]));
        await time.advance(at()[0] + pongAfter - time.now);
        host.answer();
        await time.advance(nextAfter + 10);
        const [first, second] = at();
        assert.equal(second - first, nextAfter);
      });
    });
  }

  const receive = (host: Host) => host.now.received = 1;
  const LATER: readonly [
    what: string,
    changeAfter: number,
    change: (host: Host) => void,
    lostAfter: number,
  ][] = [
    ["nothing", 99, () => {}, 1600],
    ["bytes received before the pong is late", 99, receive, 1700],
    ["bytes received after that", 799, receive, 2400],
    ["reading that is paused", 99, (host) => host.isPaused = true, 3200],
  ];
  for (const [what, changeAfter, change, lostAfter] of LATER) {
    it(`loses a connection ${lostAfter} ms after a later ping and ${what}`, async () => {
      await withBeat(1, [16_000, 1600], async ([host], _, time) => {
        await time.advance(14_950);
        while (host.events.length === 0) await time.advance(50);
        const ping = Number(host.events[0].split(" ")[2]);
        await time.advance(ping + changeAfter - time.now);
        change(host);
        await time.advance(3500);
        assert.deepEqual(host.events.slice(1), [`lost at ${ping + lostAfter} with 1600`]);
      });
    });
  }

  it("shares the timer of a moment, and leaves no timer", async () => {
    await inVirtualTime(async (time) => {
      const hosts = Array.from({ length: 40 }, () => new Host(time));
      const keepalives = hosts.map((host) => new Keepalive(host, 1600, 0));
      await time.advance(1600);
      for (const host of hosts) host.answer();
      assert.ok(time.waiting <= 8, `${time.waiting} timers`);
      for (const keepalive of keepalives.slice(1)) keepalive.cancel();
      assert.equal(time.waiting, 1);
      await time.advance(1600);
      assert.deepEqual(hosts.map((host) => host.events.length), [
        2,
        ...hosts.slice(1).map(() => 1),
      ]);
      hosts[0].answer();
      await time.advance(101);
      assert.equal(time.waiting, 1);
      keepalives[0].cancel();
      assert.equal(time.waiting, 0);
      keepalives[0].cancel();
      await time.advance(5000);
      assert.equal(hosts[0].events.length, 2);
    });
  });

  it("is lost when no pong comes within the timeout", async () => {
    await withHost(async (host, time) => {
      await time.advance(5000);
      assert.deepEqual(host.events, ["ping at 1000", "lost at 1100 with 100"]);
    });
  });

  it("is lost after a timeout of a millisecond too", async () => {
    await withHost(async (host, time) => {
      await time.advance(5000);
      assert.match(host.events[1], /^lost at 100\d/);
    }, 1);
  });

  it("waits for ever without a timeout", async () => {
    await withHost(async (host, time) => {
      await time.advance(100_000);
      assert.deepEqual(host.events, ["ping at 1000"]);
    }, 0);
  });

  it("is silent after cancel(), before a ping and after it", async () => {
    await withHost(async (host, time, keepalive) => {
      keepalive.cancel();
      await time.advance(5000);
      assert.deepEqual(host.events, []);
    });
    await withHost(async (host, time, keepalive) => {
      await time.advance(1000);
      keepalive.cancel();
      await time.advance(5000);
      assert.deepEqual(host.events, ["ping at 1000"]);
    });
  });

  it("is silent after a pong of a connection that has ended", async () => {
    await withHost(async (host, time) => {
      await time.advance(1000);
      host.isAlive = false;
      host.answer();
      await time.advance(5000);
      assert.deepEqual(host.events, ["ping at 1000"]);
    });
    await withHost(async (host, time) => {
      host.isAlive = false;
      await time.advance(5000);
      assert.deepEqual(host.events, ["ping at 1000"]);
    });
  });

  type Change = (host: Host) => void;
  const nothing: Change = () => {};
  /** The time at which a connection is lost after a ping at 1000 with a timeout of 100. */
  const cases: readonly [
    what: string,
    prepare: Change,
    change: Change,
    lostAt: number,
    changedAt?: number,
  ][] = [
    ["received bytes", nothing, (host) => host.now.received = 5, 1150],
    ["bytes given to a platform with room", nothing, (host) => host.now.sent = 5, 1100],
    [
      "waiting bytes that leave",
      (host) => host.now = { received: 0, sent: 50, waiting: 20 },
      (host) => host.now.waiting = 10,
      1150,
    ],
    [
      "bytes that join those that wait",
      (host) => host.now = { received: 0, sent: 50, waiting: 20 },
      (host) => host.now = { received: 0, sent: 60, waiting: 30 },
      1100,
    ],
    ["reading that is paused", (host) => host.isPaused = true, nothing, 1200],
    [
      "reading that is paused, and bytes sent",
      (host) => host.isPaused = true,
      (host) => host.now.sent = 5,
      1250,
    ],
    ["reading that goes on", (host) => host.isPaused = true, (host) => host.isPaused = false, 1150],
    ["reading that is paused after the ping", nothing, (host) => host.isPaused = true, 1200],
    [
      "a last waiting byte that leaves",
      (host) => host.now = { received: 0, sent: 50, waiting: 1 },
      (host) => host.now.waiting = 0,
      1150,
    ],
    [
      "reading that goes on at once",
      (host) => host.isPaused = true,
      (host) => host.isPaused = false,
      1125,
      1010,
    ],
    [
      "reading that is paused, and bytes sent after a deadline",
      (host) => host.isPaused = true,
      (host) => host.now.sent = 5,
      1350,
      1140,
    ],
    ["65,536 bytes before the ping", (host) => host.now.sent = 65_536, nothing, 1100],
    ["65,537 bytes before the ping", (host) => host.now.sent = 65_537, nothing, 1300],
  ];
  for (const [what, prepare, change, lostAt, changedAt = 1049] of cases) {
    it(`is lost after ${lostAt - 1000} ms with ${what}`, async () => {
      await withHost(async (host, time) => {
        prepare(host);
        await time.advance(changedAt);
        change(host);
        await time.advance(1000);
        const [ping, lost] = host.events;
        assert.equal(ping, "ping at 1000");
        const [, at] = /^lost at (\d+) with 100$/.exec(lost) ?? [];
        // A deadline is counted in four slices, and movement is noticed at the end of one.
        assert.ok(Math.abs(Number(at) - lostAt) < 25, `${lost} instead of ${lostAt}`);
      });
    });
  }

  it("counts only the bytes since the last answered ping", async () => {
    await withHost(async (host, time) => {
      host.now.sent = 100_000;
      await time.advance(1000);
      host.answer();
      await time.advance(1100);
      const [, ping, lost] = host.events.map((event) => Number(event.split(" ")[2]));
      assert.equal(host.events.length, 3);
      // Each slice of the deadline is rounded up.
      assert.ok(lost - ping >= 100 && lost - ping < 105, `${lost - ping}`);
    });
  });
});
