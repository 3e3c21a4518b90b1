import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  HandshakeError,
  isTransient,
  reconnect,
  type ReconnectOptions,
  type RetryInfo,
  serve,
  type WebSocketConnection,
} from "../mod.ts";
import { freePort } from "./ports.ts";
import { rejection, until, urlOf, withServer } from "./support.ts";

const FAST: ReconnectOptions = { minDelay: 1, maxDelay: 20 };

describe("reconnect", () => {
  it("gives one connection after the other, the one before closed", async () => {
    await withServer({}, async (server) => {
      const seen: WebSocketConnection[] = [];
      for await (const ws of reconnect(urlOf(server), FAST)) {
        assert.ok(seen.every(({ state }) => state === "closed"));
        seen.push(ws);
        await ws.send(String(seen.length));
        assert.equal(await ws.receive(), String(seen.length));
        if (seen.length === 3) break;
      }
      assert.equal(seen[2].state, "open", "break leaves it open");
      await seen[2].close();
    });
  });

  it("reconnects when the server is back", async () => {
    const port = await freePort();
    const first = await serve({ port }, () => new Promise(() => {}));
    const retries: RetryInfo[] = [];
    const options = { ...FAST, onRetry: (info: RetryInfo) => void retries.push(info) };
    const connections = reconnect(`ws://127.0.0.1:${port}`, options);
    const { value: ws } = await connections.next();
    void first.shutdown();
    await ws.closed;
    const next = connections.next();
    await until(() => retries.length > 3);
    const second = await serve({ port }, () => new Promise(() => {}));
    const { value: again } = await next;
    assert.equal(again.state, "open");
    assert.deepEqual(retries.map(({ attempt }) => attempt), retries.map((_, i) => i + 1));
    assert.equal(retries[0].error, undefined);
    assert.ok(
      retries.slice(1).every(({ error }) => (error as HandshakeError).code === "connect-failed"),
    );
    again.terminate();
    void second.shutdown();
    assert.deepEqual(await connections.return!(), { done: true, value: undefined });
  });

  it("asks a function for the URL before each attempt", async () => {
    await withServer({}, async (server) => {
      let asked = 0;
      const url = () => Promise.resolve(urlOf(server, `/?token=${asked++}`));
      for await (const ws of reconnect(url, FAST)) {
        assert.ok(ws.request.url.endsWith(`/?token=${asked - 1}`));
        if (asked === 2) {
          await ws.close();
          break;
        }
      }
    });
  });

  it("the delays stay below a growing limit, and a long uptime resets it", async () => {
    await withServer({}, async (server) => {
      const delays: number[] = [];
      const options: ReconnectOptions = {
        minDelay: 2,
        maxDelay: 9,
        backoffFactor: 2,
        onRetry: ({ delay }) => void delays.push(delay),
      };
      let count = 0;
      for await (const ws of reconnect(urlOf(server), options)) {
        if (++count < 6) continue;
        await ws.close();
        break;
      }
      const limits = [2, 4, 8, 9, 9];
      assert.equal(delays.length, limits.length);
      delays.forEach((delay, i) =>
        assert.ok(delay >= 0 && delay <= limits[i], `${delay} of ${limits[i]}`)
      );

      const attempts: number[] = [];
      const calm = {
        ...FAST,
        minUptime: 0,
        onRetry: ({ attempt }: RetryInfo) => void attempts.push(attempt),
      };
      count = 0;
      for await (const ws of reconnect(urlOf(server), calm)) {
        if (++count < 4) continue;
        await ws.close();
        break;
      }
      assert.deepEqual(attempts, [1, 1, 1]);
    });
  });

  it("throws an error that is final, or that retry rejects", async () => {
    const onRequest = () => new Response("no", { status: 403 });
    await withServer({ onRequest }, async (server) => {
      const error = await rejection<HandshakeError>(
        reconnect(urlOf(server), FAST).next(),
      );
      assert.equal(error.response?.status, 403);
      const asked: [unknown, number][] = [];
      const retry = (error: unknown, attempt: number) => {
        asked.push([(error as HandshakeError).code, attempt]);
        return attempt < 3;
      };
      await rejection(reconnect(urlOf(server), { ...FAST, retry }).next());
      assert.deepEqual(asked, [["status", 1], ["status", 2], ["status", 3]]);
    });
  });

  it("gives up after maxAttempts, also after a connection", async () => {
    const asked: number[] = [];
    const retry = (_: unknown, attempt: number) => {
      asked.push(attempt);
      return true;
    };
    const server = await serve({}, () => {});
    const options = { ...FAST, minUptime: 0, maxAttempts: 3, retry };
    const connections = reconnect(urlOf(server), options);
    await connections.next();
    await server.shutdown();
    const error = await rejection<HandshakeError>(connections.next());
    assert.equal(error.code, "connect-failed");
    assert.deepEqual(asked, [1, 2]);
  });

  it("gives up after maxAttempts", async () => {
    let requests = 0;
    const onRequest = () => {
      requests++;
      return new Response("busy", { status: 503 });
    };
    await withServer({ onRequest }, async (server) => {
      const error = await rejection<HandshakeError>(
        reconnect(urlOf(server), { ...FAST, maxAttempts: 3 }).next(),
      );
      assert.equal(error.response?.status, 503);
      assert.equal(requests, 3);
    });
  });

  const inAnHour = new Date(Date.now() + 3_600_000).toUTCString();
  for (const [value, maxDelay, least] of [["2", 2000, 2000], [inAnHour, 20, 10]] as const) {
    it(`obeys Retry-After: ${value === "2" ? value : "a date"}, up to maxDelay`, async () => {
      const onRequest = () =>
        new Response("busy", { status: 503, headers: { "Retry-After": value } });
      await withServer({ onRequest }, async (server) => {
        const aborter = new AbortController();
        let delay = 0;
        const options: ReconnectOptions = {
          minDelay: 1,
          maxDelay,
          signal: aborter.signal,
          onRetry: (info) => {
            delay = info.delay;
            aborter.abort(new Error("enough"));
          },
        };
        assert.equal((await rejection(reconnect(urlOf(server), options).next())).message, "enough");
        assert.ok(delay >= least && delay <= maxDelay, `${delay} from ${least} to ${maxDelay}`);
      });
    });
  }

  it("the signal ends waiting, connecting and the iteration, but not the open connection", async () => {
    await withServer({}, async (server) => {
      const aborter = new AbortController();
      const connections = reconnect(urlOf(server), { ...FAST, signal: aborter.signal });
      const { value: ws } = await connections.next();
      aborter.abort(new Error("stop"));
      await ws.send("still here");
      assert.equal(await ws.receive(), "still here");
      assert.equal((await rejection(connections.next())).message, "stop");
      // The iteration no longer waits for it.
      await ws.closed;
      assert.equal(
        (await rejection(reconnect(urlOf(server), { signal: aborter.signal }).next())).message,
        "stop",
      );
    });
  });

  it("the signal ends a wait that has begun", async () => {
    await withServer({ onRequest: () => new Response("no", { status: 503 }) }, async (server) => {
      const aborter = new AbortController();
      const options: ReconnectOptions = {
        minDelay: 3_600_000,
        maxDelay: 3_600_000,
        signal: aborter.signal,
        onRetry: () => void setTimeout(() => aborter.abort(new Error("enough")), 5),
      };
      assert.equal((await rejection(reconnect(urlOf(server), options).next())).message, "enough");
    });
  });

  const failures: [transient: boolean, error: unknown][] = [
    ...(["connect-failed", "connection-lost", "timeout", "shutdown"] as const).map(
      (code): [boolean, unknown] => [true, new HandshakeError("", code)],
    ),
    ...(["certificate", "accept", "subprotocol", "extension", "status", "upgrade"] as const).map(
      (code): [boolean, unknown] => [false, new HandshakeError("", code)],
    ),
    ...[[500, true], [502, true], [503, true], [504, true], [429, true], [408, true], [425, true]]
      .concat([[401, false], [403, false], [404, false], [426, false], [501, false], [301, false]])
      .map(([status, transient]): [boolean, unknown] => [
        transient as boolean,
        new HandshakeError(`status ${status}`, "status", { response: { status } as never }),
      ]),
    [false, new TypeError("an option")],
    [false, undefined],
  ];
  for (const [transient, error] of failures) {
    const { code, message } = Object(error) as HandshakeError;
    it(`${code ?? error} ${message} is ${transient ? "transient" : "final"}`, () => {
      assert.equal(isTransient(error), transient);
    });
  }

  it("refuses options of the wrong type or value at the call", () => {
    const wrong: [unknown, typeof Error][] = [
      [{ minDelay: "1" }, TypeError],
      [{ maxDelay: -1 }, RangeError],
      [{ retry: 1 }, TypeError],
      [{ onRetry: {} }, TypeError],
      [{ maxAttempts: NaN }, RangeError],
    ];
    for (const [options, error] of wrong) {
      assert.throws(() => reconnect("ws://127.0.0.1:1", options as ReconnectOptions), error);
    }
  });
});
