import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  accept,
  type HandshakeError,
  reconnect,
  type ReconnectOptions,
  type RetryInfo,
  type ServeOptions,
  type WebSocketConnection,
} from "../../mod.ts";
import { parseHttpDate } from "../../lib/client/reconnect.ts";
import { transportPair } from "../../lib/testing.ts";
import type { TransportProvider } from "../../lib/transport.ts";
import { readSource, withPrograms } from "../programs.ts";
import { watchedSignal } from "../resources.ts";
import { closeFrame, RawPeer, rejection, until } from "../support.ts";
import { inVirtualTime, settle } from "../virtual_time.ts";

const URL = "ws://localhost/";

/** Connects to a server in memory. */
function providerOf(
  serve: (ws: WebSocketConnection) => unknown,
  options: ServeOptions = {},
): TransportProvider {
  return {
    connect: () => {
      const [near, far] = transportPair();
      accept(far, { pingInterval: 0, ...options }).then(serve, () => {});
      return Promise.resolve(near);
    },
    listen: () => Promise.reject(new Error("Expected no call")),
  };
}

/** Connects to a server that refuses the handshake with these header fields. */
function refusing(headers: Record<string, string>): TransportProvider {
  return providerOf(() => {}, { onRequest: () => new Response("busy", { status: 503, headers }) });
}

const DEAD: TransportProvider = {
  connect: () => Promise.reject(new Error("refused")),
  listen: () => Promise.reject(new Error("Expected no call")),
};

/** A server that never answers. */
const MUTE: TransportProvider = {
  connect: () => Promise.resolve(transportPair()[0]),
  listen: () => Promise.reject(new Error("Expected no call")),
};

/** A server that opens the connection, and sends nothing more. */
const SILENT: TransportProvider = {
  connect: () => {
    const [near, far] = transportPair();
    new RawPeer(far, "server");
    return Promise.resolve(near);
  },
  listen: () => Promise.reject(new Error("Expected no call")),
};

/** A client without time limits. */
const PATIENT: ReconnectOptions = { openTimeout: 0, closeTimeout: 0, pingInterval: 0 };

const never = () => new Promise<never>(() => {});

/** The first delays of an iteration that never connects, in virtual time. */
async function delaysOf(options: ReconnectOptions, count = 1): Promise<number[]> {
  const delays: number[] = [];
  await inVirtualTime(async (time) => {
    const aborter = new AbortController();
    const onRetry = ({ delay }: RetryInfo) => {
      delays.push(delay);
      if (delays.length === count) aborter.abort(new Error("enough"));
    };
    const connections = reconnect(URL, { ...options, onRetry, signal: aborter.signal });
    const ended = rejection(connections.next());
    while (delays.length < count) await time.advance(delays.at(-1) ?? 0);
    assert.equal((await ended).message, "enough");
  });
  return delays;
}

/** The most values that lie within one span of this length. */
function densest(values: number[], span: number): number {
  return Math.max(
    ...values.map((from) => values.filter((value) => value >= from && value < from + span).length),
  );
}

describe("H1 Retry-After with jitter", () => {
  const rows: [value: string, options: ReconnectOptions, least: number, most: number][] = [
    ["2", {}, 2000, 3000],
    ["2", { minDelay: 1 }, 2000, 3000],
    ["30", {}, 30_000, 45_000],
    ["50", {}, 50_000, 72_000],
    ["50", { maxDelay: 60_000 }, 50_000, 60_000],
    ["60", {}, 60_000, 72_000],
    ["3600", {}, 30_000, 60_000],
    ["9".repeat(400), {}, 30_000, 60_000],
    ["9".repeat(400), { maxDelay: Infinity }, 2 ** 30 - 1, 2 ** 31 - 1],
    ["0", { minDelay: 100 }, 0, 100],
  ];
  for (const [value, options, least, most] of rows) {
    it(`H1 Retry-After: ${value.slice(0, 9)} ${JSON.stringify(options)}`, async () => {
      const provider = refusing({ "Retry-After": value });
      const delays: number[] = [];
      for (let i = 0; i < 40; i++) delays.push(...await delaysOf({ provider, ...options }));
      assert.ok(delays.every((delay) => delay >= least && delay <= most), `${delays}`);
      const width = most - least;
      assert.ok(Math.max(...delays) - Math.min(...delays) > width / 2, "they are spread");
      assert.ok(densest(delays, width / 4) <= 26, "they do not come together");
    });
  }
});

/** The states in which an iteration waits: starts the iteration, and returns the pending call of `next()`. */
const WAITS: Record<
  string,
  (options: ReconnectOptions) => Promise<{
    connections: AsyncIterableIterator<WebSocketConnection>;
    next: Promise<unknown>;
  }>
> = {
  "url()": async (options) => {
    const connections = reconnect(never, options);
    return await waiting(connections);
  },
  "retry()": async (options) => {
    const connections = reconnect(URL, { ...options, provider: DEAD, retry: never });
    return await waiting(connections);
  },
  "a delay": async (options) => {
    const connections = reconnect(URL, { ...options, provider: DEAD, minDelay: 60_000 });
    return await waiting(connections);
  },
  "a handshake": async (options) => {
    return await waiting(reconnect(URL, { ...options, provider: MUTE }));
  },
  "dialling": async (options) => {
    const provider = { ...MUTE, connect: never };
    return await waiting(reconnect(URL, { ...options, provider }));
  },
  "the end of a mute peer": async (options) => {
    const connections = reconnect(URL, { ...options, provider: SILENT });
    assert.equal((await connections.next()).done, false);
    return await waiting(connections);
  },
};

async function waiting(
  connections: AsyncIterableIterator<WebSocketConnection>,
): Promise<Awaited<ReturnType<typeof WAITS[string]>>> {
  const next = connections.next();
  next.catch(() => {});
  await settle();
  await settle();
  return { connections, next };
}

for (const [name, begin] of Object.entries(WAITS)) {
  it(`H2 the signal ends the iteration at once while it waits for ${name}`, async () => {
    await inVirtualTime(async (time) => {
      const { signal, abort } = watchedSignal();
      const { next } = await begin({ ...PATIENT, signal });
      abort(new Error("stop"));
      assert.equal((await rejection(next)).message, "stop");
      assert.equal(time.now, 0);
      assert.equal(time.waiting, 0);
    });
  });

  it(`H4 return() ends the iteration at once while it waits for ${name}`, async () => {
    await inVirtualTime(async (time) => {
      const { signal, listeners } = watchedSignal();
      const { connections, next } = await begin({ ...PATIENT, signal });
      assert.deepEqual(await connections.return!(), { done: true, value: undefined });
      assert.deepEqual(await next, { done: true, value: undefined });
      assert.deepEqual(await connections.next(), { done: true, value: undefined });
      assert.equal(listeners(), 0);
      assert.equal(time.now, 0);
      assert.equal(time.waiting, 0);
    });
  });
}

for (const [name, begin] of Object.entries(WAITS)) {
  it(`H4 throw() ends the iteration at once while it waits for ${name}`, async () => {
    await inVirtualTime(async (time) => {
      const { connections, next } = await begin(PATIENT);
      assert.equal((await rejection(connections.throw!(new Error("enough")))).message, "enough");
      assert.deepEqual(await next, { done: true, value: undefined });
      assert.equal(time.waiting, 0);
    });
  });
}

it("H2 an onRetry that rejects ends the iteration with its error, as one that throws", async () => {
  const fail = () => {
    throw new Error("enough");
  };
  for (const onRetry of [fail, async () => await fail()]) {
    await inVirtualTime(async (time) => {
      const connections = reconnect(URL, { ...PATIENT, provider: DEAD, onRetry });
      assert.equal((await rejection(connections.next())).message, "enough");
      assert.equal(time.now, 0);
      assert.equal(time.waiting, 0);
    });
  }
});

it("H2 a signal that is aborted while the loop runs ends the iteration at the next step", async () => {
  const { signal, abort } = watchedSignal();
  const connections = reconnect(URL, { ...PATIENT, provider: SILENT, signal });
  const { value: ws } = await connections.next();
  abort(new Error("stop"));
  await settle();
  assert.equal(ws.state, "open");
  assert.equal((await rejection(connections.next())).message, "stop");
  ws.terminate();
});

it("H4 return() while the loop runs leaves the connection open", async () => {
  const connections = reconnect(URL, { ...PATIENT, provider: SILENT });
  const { value: ws } = await connections.next();
  assert.deepEqual(await connections.return!(), { done: true, value: undefined });
  await settle();
  assert.equal(ws.state, "open");
  ws.terminate();
});

it("H4 return() before the first step connects to nothing", async () => {
  const connections = reconnect(() => assert.fail("Expected no call"), PATIENT);
  assert.deepEqual(await connections.return!(), { done: true, value: undefined });
  assert.deepEqual(await connections.next(), { done: true, value: undefined });
});

describe("H3 A url() that fails", () => {
  const failures: [name: string, fail: () => Promise<string>][] = [
    ["rejects with an Error", () => Promise.reject(new Error("no token"))],
    ["rejects with a TypeError, as fetch() does", () => Promise.reject(new TypeError("failed"))],
    ["rejects with no error", () => Promise.reject("no token")],
    ["rejects with nothing", () => Promise.reject()],
    ["throws", () => {
      throw new Error("no token");
    }],
  ];
  for (const [name, fail] of failures) {
    it(`H3 ${name}: that counts as a failed attempt`, async () => {
      await inVirtualTime(async (time) => {
        const retries: RetryInfo[] = [];
        let asked = 0;
        const url = () => ++asked < 3 ? fail() : Promise.resolve(URL);
        const onRetry = (info: RetryInfo) => void retries.push(info);
        const connections = reconnect(url, { ...PATIENT, provider: SILENT, onRetry });
        const next = connections.next();
        await time.advance(10_000);
        const { value: ws } = await next;
        assert.equal(ws.state, "open");
        assert.deepEqual(retries.map(({ attempt }) => attempt), [1, 2]);
        const expected = await Promise.resolve().then(fail).catch((error) => error);
        assert.deepEqual(retries[0].error, expected);
        ws.terminate();
      });
    });
  }

  it("H3 maxAttempts and retry apply to it", async () => {
    const error = new Error("no token");
    const url = () => Promise.reject(error);
    assert.equal(await rejection(reconnect(url, { maxAttempts: 1 }).next()), error);
    const asked: unknown[] = [];
    const retry = (...args: unknown[]) => (asked.push(args), false);
    assert.equal(await rejection(reconnect(url, { retry }).next()), error);
    assert.deepEqual(asked, [[error, 1]]);
  });

  it("H3 an error that is marked as fatal ends the iteration", async () => {
    const error = Object.assign(new Error("logged out"), { fatal: true });
    const retry = () => assert.fail("Expected no call");
    for (const options of [{}, { retry }]) {
      const connections = reconnect(() => Promise.reject(error), options);
      assert.equal(await rejection(connections.next()), error);
      assert.equal((await connections.next()).done, true);
    }
    const other = Object.assign(new Error("a detail"), { fatal: false });
    const connections = reconnect(() => Promise.reject(other), { maxAttempts: 2, minDelay: 1 });
    assert.equal(await rejection(connections.next()), other);
  });

  for (const wrong of [undefined, null, 5, {}, [URL], true]) {
    it(`H3 a url() that gives ${JSON.stringify(wrong)} is an error of the caller's`, async () => {
      const url = () => wrong as unknown as string;
      await assert.rejects(reconnect(url).next(), { name: "TypeError", message: /string or URL/ });
    });
  }

  for (const wrong of [undefined, null, 1, 0, "yes", NaN]) {
    it(`H3 a retry() that gives ${wrong} is an error of the caller's`, async () => {
      const retry = () => wrong as unknown as boolean;
      const connections = reconnect(URL, { provider: DEAD, retry });
      const error = await rejection(connections.next());
      assert.ok(error instanceof TypeError);
      assert.match(error.message, /retry.*boolean/);
      assert.equal((error.cause as HandshakeError).code, "connect-failed");
    });
  }
});

describe("H5 Uptime is the connection's", () => {
  const rows: [lives: number, works: number, attempts: number[]][] = [
    [0, 600, [1, 2, 3, 4]],
    [0, 60_000, [1, 2, 3, 4]],
    [400, 600, [1, 2, 3, 4]],
    [600, 0, [1, 1, 1, 1]],
    [600, 600, [1, 1, 1, 1]],
  ];
  for (const [lives, works, expected] of rows) {
    it(`H5 a connection of ${lives} ms, and ${works} ms of work after it`, async () => {
      await inVirtualTime(async (time) => {
        const attempts: number[] = [];
        const provider = providerOf((ws) => {
          if (lives === 0) ws.close();
          else setTimeout(() => ws.close(), lives);
        });
        const onRetry = ({ attempt }: RetryInfo) => void attempts.push(attempt);
        const options = { provider, onRetry, minUptime: 500, pingInterval: 0 };
        const connections = reconnect(URL, options);
        for (let i = 0; i < 5; i++) {
          const next = connections.next();
          // Longer than the longest delay.
          await time.advance(60_000);
          const { value: ws } = await next;
          await time.advance(lives + works);
          assert.equal(ws.state, "closed");
        }
        assert.deepEqual(attempts, expected);
        await connections.return!();
      });
    });
  }

  it("H5 a connection is not up while the server has closed it and keeps the transport", async () => {
    await inVirtualTime(async (time) => {
      const attempts: number[] = [];
      const provider: TransportProvider = {
        ...SILENT,
        connect: () => {
          const [near, far] = transportPair();
          const peer = new RawPeer(far, "server", (accept) => {
            setTimeout(() => peer.send(closeFrame(1013)), 0);
            return accept();
          });
          peer.polite = false;
          return Promise.resolve(near);
        },
      };
      const onRetry = ({ attempt }: RetryInfo) => void attempts.push(attempt);
      const connections = reconnect(URL, { provider, onRetry, pingInterval: 0 });
      for (let i = 0; i < 4; i++) {
        const next = connections.next();
        // Longer than closeTimeout and the longest delay.
        await time.advance(80_000);
        const { value: ws } = await next;
        await time.advance(0);
        assert.notEqual(ws.state, "open");
      }
      assert.deepEqual(attempts, [1, 2, 3]);
      const ended = connections.return!();
      await time.advance(80_000);
      await ended;
    });
  });
});

describe("H6 Delays are numbers", () => {
  const rows: [options: ReconnectOptions, most: number, failures?: number][] = [
    [{ minDelay: 0 }, 0, 1500],
    [{ minDelay: 0, backoffFactor: Infinity }, 0],
    [{ minDelay: 0, maxDelay: Infinity }, 0],
    [{ backoffFactor: Infinity }, 60_000],
    [{ backoffFactor: 0 }, 1000],
    [{ minDelay: Infinity }, 60_000],
    [{ minDelay: Infinity, backoffFactor: 0 }, 60_000],
    [{ maxDelay: 0 }, 0],
    [{}, 60_000, 1500],
    [{ maxDelay: Infinity }, 2 ** 31 - 1],
    [{ minDelay: Infinity, maxDelay: Infinity, backoffFactor: Infinity }, 2 ** 31 - 1],
    [{ minDelay: 1e308, maxDelay: 100, backoffFactor: 1e308 }, 100],
  ];
  for (const [options, most, failures = 60] of rows) {
    it(`H6 ${failures} failures with ${JSON.stringify(options, numbers)}: at most ${most}`, async () => {
      const delays = await delaysOf({ ...options, provider: DEAD }, failures);
      const wrong = delays.filter((delay) => !(delay >= 0 && delay <= most));
      assert.deepEqual(wrong, []);
      assert.equal(delays.length, failures);
    });
  }
});

function numbers(_: string, value: unknown): unknown {
  return value === Infinity ? "Infinity" : value;
}

describe("H7 Retry-After as a date", () => {
  const server = (offset: number) => new Date(Date.now() + offset);
  const DATE = new Date("2031-11-06T08:49:37Z").getTime();
  const NEAR = Date.parse("2031-01-01T00:00:00Z");
  const dates: [text: string, time: number | undefined][] = [
    ["Thu, 06 Nov 2031 08:49:37 GMT", DATE],
    ["Thursday, 06-Nov-31 08:49:37 GMT", DATE],
    ["Thu Nov  6 08:49:37 2031", DATE],
    ["Sun, 06 Nov 1994 08:49:37 GMT", Date.UTC(1994, 10, 6, 8, 49, 37)],
    ["Sunday, 06-Nov-94 08:49:37 GMT", Date.UTC(1994, 10, 6, 8, 49, 37)],
    ["Sun Nov 16 08:49:37 1994", Date.UTC(1994, 10, 16, 8, 49, 37)],
    ["Tue, 30 Jun 2015 23:59:60 GMT", Date.UTC(2015, 6, 1)],
    ["Tue, 29 Feb 2028 00:00:00 GMT", Date.UTC(2028, 1, 29)],
    ["in 2031", undefined],
    ["2031", undefined],
    ["1", undefined],
    ["soon", undefined],
    ["", undefined],
    ["2031-11-06T08:49:37Z", undefined],
    ["2031-11-06", undefined],
    ["06 Nov 2031 08:49:37 GMT", undefined],
    ["Thu, 6 Nov 2031 08:49:37 GMT", undefined],
    ["thu, 06 nov 2031 08:49:37 gmt", undefined],
    ["Thu, 06 Nov 2031 08:49:37", undefined],
    ["Thu, 06 Nov 2031 08:49:37 +0100", undefined],
    ["Thu, 06 Nov 2031 24:00:00 GMT", undefined],
    ["Thu, 06 Nov 2031 08:60:00 GMT", undefined],
    ["Thu, 31 Nov 2031 08:49:37 GMT", undefined],
    ["Sun, 29 Feb 2029 00:00:00 GMT", undefined],
    ["Thu, 00 Nov 2031 08:49:37 GMT", undefined],
    ["Thu, 06 Nov 2031 08:49:37 GMT ", undefined],
  ];
  for (const [text, time] of dates) {
    it(`H7 ${JSON.stringify(text)} is ${time === undefined ? "no date" : "a date"}`, () => {
      assert.equal(parseHttpDate(text, NEAR), time);
    });
  }

  const rows: [name: string, headers: () => Record<string, string>, least: number, most: number][] =
    [
      [
        "a server that is an hour behind",
        () => ({
          "Date": server(-3_600_000).toUTCString(),
          "Retry-After": server(-3_600_000 + 10_000).toUTCString(),
        }),
        10_000,
        15_000,
      ],
      [
        "a server that is an hour ahead",
        () => ({
          "Date": server(3_600_000).toUTCString(),
          "Retry-After": server(3_600_000 + 10_000).toUTCString(),
        }),
        10_000,
        15_000,
      ],
      [
        "a server that does not tell its time",
        () => ({
          "Retry-After": server(10_000).toUTCString(),
        }),
        9000,
        15_000,
      ],
      [
        "a server whose Date is none",
        () => ({
          "Date": "today",
          "Retry-After": server(10_000).toUTCString(),
        }),
        9000,
        15_000,
      ],
      [
        "a date in the past",
        () => ({
          "Date": server(0).toUTCString(),
          "Retry-After": server(-10_000).toUTCString(),
        }),
        0,
        1000,
      ],
      ["in 2031", () => ({ "Retry-After": "in 2031" }), 0, 1000],
      ["2031-11-06", () => ({ "Retry-After": "2031-11-06" }), 0, 1000],
      ["1.5", () => ({ "Retry-After": "1.5" }), 0, 1000],
      ["-1", () => ({ "Retry-After": "-1" }), 0, 1000],
      ["two of them", () => ({ "Retry-After": "20, 30" }), 0, 1000],
    ];
  for (const [name, headers, least, most] of rows) {
    it(`H7 ${name}: a delay from ${least} to ${most}`, async () => {
      for (let i = 0; i < 10; i++) {
        const [delay] = await delaysOf({ provider: refusing(headers()) });
        assert.ok(delay >= least && delay <= most, `${delay}`);
      }
    });
  }
});

describe("H9 The example of reconnect()", () => {
  const HANDLER = '(ws) => ws.send("news")';

  it("H9 survives connections that are cut", async () => {
    const source = await readSource("lib/client/reconnect.ts");
    const [, block] = /@example\n \* ```ts\n([^]*?)\n \* ```/.exec(source)!;
    const program = block.replaceAll(/^ \* ?/gm, "");
    assert.ok(program.includes(HANDLER));
    // The message has arrived once the ping is answered.
    const cutting = program.replace(
      HANDLER,
      "async (ws) => { await ws.send('news'); await ws.ping(); ws.terminate(); }",
    );
    await withPrograms(async (start) => {
      const child = await start("example.mts", cutting);
      let code: number | null | undefined;
      child.exited.then((exitCode) => code = exitCode);
      await until(() => code !== undefined);
      assert.equal(code, 0, child.stderr);
      assert.equal(child.stdout.trim(), "news,news");
    });
  });
});
