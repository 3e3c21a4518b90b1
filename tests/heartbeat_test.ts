import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  ControlRate,
  Keepalive,
  type KeepaliveHost,
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
    const waiter = { resolve: () => {}, reject: () => {} };
    for (const payload of [[], [0], [0, 0], [1, 2], [2, 1], [255, 254]]) {
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

  sendPing(waiter: PingWaiter): void {
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

  it("pings at moments that connections share, spread over half of the interval", async () => {
    await inVirtualTime(async (time) => {
      const pings: number[][] = [];
      for (let i = 0; i < 64; i++) {
        const own: number[] = [];
        pings.push(own);
        const host = new Host(time);
        host.sendPing = (waiter) => {
          own.push(time.now);
          queueMicrotask(() => waiter.resolve(0));
        };
        new Keepalive(host, 1600, 0);
        await time.advance(3);
      }
      await time.advance(8000 - time.now);
      for (const [i, own] of pings.entries()) {
        assert.equal(own[0], 1600 + 3 * i, "The first ping comes after the interval");
        const intervals = own.slice(1).map((at, j) => at - own[j]);
        assert.ok(intervals[0] > 750 && intervals[0] <= 1600, `${intervals[0]}`);
        for (const interval of intervals.slice(1)) assert.equal(interval, 1600);
      }
      const perMoment = new Map<number, number>();
      for (const at of pings.flatMap((own) => own.slice(1))) {
        perMoment.set(at % 1600, (perMoment.get(at % 1600) ?? 0) + 1);
      }
      assert.equal(new Set([...perMoment.keys()].map((at) => at % 100)).size, 1);
      assert.ok(perMoment.size >= 8 && perMoment.size <= 11, `${perMoment.size} moments`);
    });
  });

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
      assert.equal(lost - ping, 100);
    });
  });
});
