import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { formatPosition, parsePosition, resumable, Topics } from "../lib/topics.ts";
import type { TopicEvent } from "../lib/topics.ts";
import { reconnect } from "../lib/client/reconnect.ts";
import { serve } from "../lib/server/server.ts";
import { isPending, rejection, rest, turn, until } from "./support.ts";
import { withoutLeak, withoutTimers } from "./resources.ts";
import type { Backplane } from "../lib/topics/backplane.ts";
import { MemoryEngine } from "../lib/topics/memory.ts";
import { Client, Errors, FlakyEngine, withTopics } from "./topics/audience.ts";

const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => `${from + i}`);

async function publishAll(topics: Topics, topic: string, texts: readonly string[]) {
  const results = await Promise.all(texts.map((text) => topics.publish(topic, text)));
  return results.map(({ position }) => position!);
}

/** A backplane that tells which pages were read, and waits before it answers. */
interface Paged extends Backplane {
  pages: unknown[][];
  answer(): Promise<void>;
}

/** Topics with a small maxWaitingBytes, over an engine in memory, and the pages that were read. */
async function withPages(
  run: (topics: Topics, backplane: Paged) => Promise<void>,
  maxWaitingBytes = 205_000,
): Promise<void> {
  const inner = new MemoryEngine({ size: 1000 }).attach();
  const pages: unknown[][] = [];
  const backplane: Paged = {
    pages,
    answer: turn,
    keepsHistory: true,
    subscribe: (...args) => inner.subscribe(...args),
    unsubscribe: (topic) => inner.unsubscribe(topic),
    publish: (...args) => inner.publish(...args),
    async read(topic, since, call) {
      const read = await inner.read!(topic, since, call);
      if (since === undefined) return read;
      pages.push([...read.messages]);
      await backplane.answer();
      return read;
    },
    close: () => inner.close(),
  };
  await withTopics({ backplane, maxWaitingBytes }, (topics) => run(topics, backplane));
}

describe("The history of topics", () => {
  it("gives each message a position, which is written as epoch:offset", () =>
    withTopics({ history: {} }, async (topics) => {
      const positions = await publishAll(topics, "x", numbers(3));
      assert.deepEqual(positions.map(({ offset }) => offset), [1, 2, 3]);
      assert.equal(new Set(positions.map(({ epoch }) => epoch)).size, 1);
      const [first] = positions;
      assert.equal(formatPosition(first), `${first.epoch}:1`);
      assert.deepEqual(parsePosition(formatPosition(first)), first);
    }));

  for (const from of [0, 1, 5, 9, 10]) {
    it(`delivers what came after message ${from} of 10, then goes on`, () =>
      withTopics({ history: {} }, async (topics) => {
        const client = await Client.open();
        const positions = await publishAll(topics, "x", numbers(10));
        const since = positions[from - 1] ?? { ...positions[0], offset: 0 };
        const subscription = topics.subscribe(client.ws, "x", {
          since: from % 2 === 0 ? since : formatPosition(since),
        });
        // These come while the history is read.
        const later = await publishAll(topics, "x", numbers(5, 10));
        const { recovered, position } = await subscription.ready;
        assert.equal(recovered, true);
        assert.deepEqual(position, later.at(-1));
        await publishAll(topics, "x", numbers(5, 15));
        assert.deepEqual(await client.close(), numbers(20 - from, from));
        assert.equal(subscription.sent, 20 - from);
      }));
  }

  it("says so when the position is gone, and goes on", () =>
    withTopics({ history: { size: 5 } }, async (topics) => {
      const [first] = await publishAll(topics, "x", numbers(10));
      for (const since of [first, { ...first, epoch: "other" }, { ...first, offset: 1000 }]) {
        const client = await Client.open();
        const subscription = topics.subscribe(client.ws, "x", { since });
        assert.equal((await subscription.ready).recovered, false);
        await topics.publish("x", "new");
        assert.deepEqual(await client.close(), ["new"]);
      }
    }));

  it("without a history nothing is recovered", () =>
    withTopics({}, async (topics) => {
      const client = await Client.open();
      const { ready } = topics.subscribe(client.ws, "x", { since: "e:1" });
      assert.deepEqual(await ready, { recovered: false, position: undefined });
      assert.deepEqual(await topics.publish("x", "new"), { position: undefined });
      assert.deepEqual(await client.close(), ["new"]);
      assert.throws(() => topics.subscribe(client.ws, "x*", { since: "e:1" }), RangeError);
    }));

  it("ready tells the position from which messages come", () =>
    withTopics({ history: {} }, async (topics) => {
      const client = await Client.open();
      const [, second] = await publishAll(topics, "x", numbers(2));
      const { recovered, position } = await topics.subscribe(client.ws, "x").ready;
      assert.deepEqual([recovered, position], [true, second]);
      assert.deepEqual(await topics.subscribe(client.ws, "x*").ready, {
        recovered: true,
        position: undefined,
      });
      await client.close();
    }));

  it("a long history waits for a client that reads slowly, whatever `slow` says", () =>
    withTopics({ history: { size: 50 }, maxBufferedAmount: 100_000 }, async (topics) => {
      const client = await Client.open({}, false);
      const message = new Uint8Array(90_000);
      const { position: start } = await topics.publish("x", "start");
      for (let i = 0; i < 30; i++) await topics.publish("x", message.fill(i));
      const subscription = topics.subscribe(client.ws, "x", { since: start, slow: "terminate" });
      assert.ok(await isPending(subscription.ready));
      for (let i = 30; i < 35; i++) await topics.publish("x", message.fill(i));
      client.wake();
      assert.equal((await subscription.ready).recovered, true);
      assert.deepEqual((await client.close()).map((bytes) => bytes[0]), numbers(35).map(Number));
    }));

  it("more messages than maxWaiting during the history are read from the history", () =>
    withTopics({ history: { size: 1000 }, maxWaiting: 10 }, async (topics) => {
      const client = await Client.open({}, false);
      const { position: since } = await topics.publish("x", "start");
      await topics.publish("x", "A".repeat(300_000));
      const subscription = topics.subscribe(client.ws, "x", { since });
      await rest();
      await publishAll(topics, "x", numbers(100));
      client.wake();
      await until(() => client.got.length >= 1);
      await publishAll(topics, "x", numbers(100, 100));
      await subscription.ready;
      assert.deepEqual((await client.close()).slice(1), numbers(200));
    }));

  it("a client that does not read holds maxWaitingBytes of the history, and as much of now", () =>
    withPages(async (topics, backplane) => {
      const client = await Client.open({}, false);
      const message = new Uint8Array(90_000);
      const { position: since } = await topics.publish("x", "start");
      for (let i = 0; i < 30; i++) await topics.publish("x", message.fill(i));
      const subscription = topics.subscribe(client.ws, "x", { since });
      assert.ok(await isPending(subscription.ready));
      // Those that do not fit are read from the history later.
      for (let i = 30; i < 60; i++) await topics.publish("x", message.fill(i));
      await rest();
      const pages = backplane.pages.map((page) => page.length);
      assert.ok(pages.length < 10 && pages.every((length) => length === 2), `${pages}`);
      client.wake();
      assert.equal((await subscription.ready).recovered, true);
      assert.deepEqual((await client.close()).map((bytes) => bytes[0]), numbers(60).map(Number));
      assert.equal(backplane.pages.filter(({ length }) => length > 0).length, 30);
    }));

  it("clients that come back together read the pages of the history together", () =>
    withPages(async (topics, backplane) => {
      const clients = await Promise.all(numbers(10).map(() => Client.open()));
      const { position: since } = await topics.publish("x", "start");
      await publishAll(topics, "x", numbers(800));
      // A client that is late would find the answer gone, and read the page again.
      backplane.answer = async () => {
        const before = backplane.pages.slice(0, -1).flat().length;
        await until(() => clients.every(({ got }) => got.length >= before));
        await rest();
      };
      await Promise.all(clients.map(({ ws }) => topics.subscribe(ws, "x", { since }).ready));
      for (const client of clients) assert.deepEqual(await client.close(), numbers(800));
      // With their envelopes, 258 messages are a page.
      assert.deepEqual(backplane.pages.map((page) => page.length), [258, 258, 258, 26]);
    }));

  it("a page that was read for another client may be too old", () =>
    withPages(async (topics, backplane) => {
      // Two messages are a page, and two may wait.
      const [first, second] = [await Client.open(), await Client.open()];
      const answers: (() => void)[] = [];
      backplane.answer = () => new Promise((resolve) => answers.push(resolve));
      const [since] = await publishAll(topics, "x", numbers(4));
      const { ready } = topics.subscribe(first.ws, "x", { since });
      await until(() => answers.length === 1);
      const [, , later] = await publishAll(topics, "x", numbers(4, 4));
      const other = topics.subscribe(second.ws, "x", { since: later });
      await until(() => answers.length === 2);
      await publishAll(topics, "x", numbers(3, 8));
      // The first client must read again, and comes to the position of the second one.
      answers[0]();
      for (let next = 2; next < 4; next++) {
        await until(() => answers.length > next);
        answers[next]();
      }
      await rest();
      answers[1]();
      for (let next = 4; await isPending(Promise.all([ready, other.ready])); await rest()) {
        for (; next < answers.length; next++) answers[next]();
      }
      assert.deepEqual(await first.close(), numbers(10, 1));
      assert.deepEqual(await second.close(), numbers(4, 7));
    }, 1600));

  it("a client learns that messages are missing before it gets later ones", () =>
    withPages(async (topics, backplane) => {
      const client = await Client.open();
      let answer = () => {};
      backplane.answer = () => new Promise((resolve) => answer = resolve);
      const [last] = await publishAll(topics, "x", numbers(1));
      const serving = topics.serve(client.ws, { maySubscribe: () => true });
      await client.far.send(JSON.stringify({ subscribe: "x", since: "other:1" }));
      await until(() => backplane.pages.length === 1);
      // Two messages may wait, and the third one is left out.
      const [next] = await publishAll(topics, "x", numbers(3, 1));
      answer();
      await until(() => client.got.length >= 4);
      await publishAll(topics, "x", numbers(1, 4));
      const got = (await client.close()).map((message) => String(message).split("\n"));
      await serving;
      assert.deepEqual(JSON.parse(got[0][0]), {
        subscribed: "x",
        recovered: false,
        position: formatPosition(last),
      });
      assert.deepEqual(JSON.parse(got[1][0]), { topic: "x", position: formatPosition(next) });
      assert.deepEqual(JSON.parse(got[3][0]), { missed: "x" });
      assert.deepEqual(got.map(([, text]) => text), [undefined, "1", "2", undefined, "4"]);
    }, 1600));

  it("what is read for a subscription that has ended is not taken for a new one", () =>
    withPages(async (topics, backplane) => {
      const client = await Client.open();
      const answers: (() => void)[] = [];
      backplane.answer = () => new Promise((resolve) => answers.push(resolve));
      const [since] = await publishAll(topics, "x", numbers(2));
      const subscription = topics.subscribe(client.ws, "x", { since });
      await until(() => answers.length === 1);
      subscription.unsubscribe();
      await publishAll(topics, "x", numbers(1, 2));
      const { ready } = topics.subscribe(client.ws, "x", { since });
      await rest();
      for (const answer of answers) answer();
      assert.equal((await ready).recovered, true);
      assert.deepEqual(await client.close(), numbers(2, 1));
    }));

  it("a subscription that ends while it waits rejects ready, once", () =>
    withTopics({ history: {} }, async (topics) => {
      const client = await Client.open({}, false);
      const { position: since } = await topics.publish("x", "start");
      for (let i = 0; i < 30; i++) await topics.publish("x", new Uint8Array(90_000));
      const one = topics.subscribe(client.ws, "x", { since });
      const two = topics.subscribe(client.ws, "x", { since });
      await rest();
      one.unsubscribe();
      assert.equal((await rejection(one.ready)).name, "InvalidStateError");
      client.ws.terminate();
      assert.equal((await rejection(two.ready)).name, "InvalidStateError");
      await until(() => topics.names.length === 0);
    }));

  it("subscriptions that end at once leave nothing and reject nothing", () =>
    withTopics({ history: {}, presence: true }, async (topics) => {
      const client = await Client.open();
      for (let i = 0; i < 3; i++) {
        topics.subscribe(client.ws, "x", { presence: i }).unsubscribe();
        topics.subscribe(client.ws, "x*").unsubscribe();
        topics.subscribe(client.ws, "x", { since: "e:1" }).unsubscribe();
        void topics.messages("x").cancel();
      }
      assert.deepEqual(topics.names, []);
      assert.deepEqual(await topics.members("x"), []);
      topics.subscribe(client.ws, "x");
      topics.subscribe(client.ws, "y", { since: "e:1" });
      void topics.publish("x", 1n as never);
      await topics.close();
      await rest();
      await client.close();
    }));

  it("messages() has the positions, begins after since, and gives bytes of its own", () =>
    withTopics({ history: {} }, async (topics) => {
      const positions = await publishAll(topics, "x", numbers(3));
      const reader = topics.messages("x", { since: positions[0] }).getReader();
      const bytes = new Uint8Array([1, 2]);
      await topics.publish("x", bytes);
      const got = [];
      for (let i = 0; i < 3; i++) got.push((await reader.read()).value!);
      assert.deepEqual(got.map(({ message }) => message), ["1", "2", bytes]);
      assert.deepEqual(got.map(({ position }) => position!.offset), [2, 3, 4]);
      const last = got[2].message as Uint8Array;
      assert.equal(last.byteLength, last.buffer.byteLength);
      await reader.cancel();
      assert.deepEqual(topics.names, []);
    }));
});

describe("The stream of messages()", () => {
  const LIMIT = { maxBufferedAmount: 3 * (768 + 1) };

  it("errors when its reader is too slow, by default", () =>
    withTopics({}, async (topics) => {
      const reader = topics.messages("x", LIMIT).getReader();
      await publishAll(topics, "x", numbers(3));
      assert.equal(topics.count("x"), 1);
      await topics.publish("x", "3");
      assert.equal(topics.count("x"), 0);
      const error = await rejection<Error & { code: string }>(reader.read());
      assert.equal(error.code, "messages-missed");
    }));

  const cases = [["drop-newest", numbers(3)], ["drop-oldest", numbers(3, 7)]] as const;
  for (const [slow, expected] of cases) {
    it(`holds at most maxBufferedAmount with ${slow}`, () =>
      withTopics({}, async (topics) => {
        const reader = topics.messages("x*", { ...LIMIT, slow }).getReader();
        await publishAll(topics, "x1", numbers(10));
        for (const message of expected) {
          assert.deepEqual((await reader.read()).value, {
            topic: "x1",
            message,
            position: undefined,
          });
        }
        assert.ok(await isPending(reader.read()));
        await reader.cancel();
      }));
  }
});

/** Topics of several processes over an engine that may fail. */
async function withFlaky(
  history: boolean,
  run: (
    near: Topics,
    far: Topics,
    flaky: ReturnType<FlakyEngine["connect"]>,
    errors: Errors,
  ) => Promise<void>,
): Promise<void> {
  await withoutTimers(async () => {
    const engine = new FlakyEngine(history ? { size: 1000 } : undefined);
    const errors = new Errors();
    const flaky = engine.connect();
    const near = new Topics({ backplane: flaky, onError: errors.onError, publishTimeout: 100 });
    const far = new Topics({ backplane: engine.connect(), onError: errors.onError });
    try {
      await run(near, far, flaky, errors);
    } finally {
      await near.close();
      await far.close();
    }
  });
}

describe("Topics over an engine that fails", () => {
  it("several processes share topics, and each subscribes once", () =>
    withFlaky(false, async (near, far, flaky) => {
      const clients = await Promise.all([Client.open(), Client.open(), Client.open()]);
      for (const { ws } of clients) await near.subscribe(ws, "x").ready;
      await far.publish("x", "from afar");
      await near.publish("x", "from here", { except: clients[0].ws });
      const got = await Promise.all(clients.map((client) => client.close()));
      assert.deepEqual(got[0], ["from afar"]);
      assert.deepEqual(got[1], ["from afar", "from here"]);
      assert.deepEqual(got[2], got[1]);
      await until(() => flaky.calls.includes("unsubscribe x"));
      assert.deepEqual(flaky.calls, ["subscribe x", "publish", "unsubscribe x"]);
    }));

  it("with a history, an outage loses nothing and repeats nothing", () =>
    withFlaky(true, async (near, far, flaky, errors) => {
      const client = await Client.open();
      const prefix = await Client.open();
      await near.subscribe(client.ws, "x").ready;
      await near.subscribe(prefix.ws, "x*").ready;
      await publishAll(far, "x", numbers(3));
      for (let from = 3; from < 30; from += 9) {
        flaky.cut();
        await publishAll(far, "x", numbers(3, from));
        flaky.beforeRead = async () => {
          flaky.beforeRead = undefined;
          await publishAll(far, "x", numbers(3, from + 3));
        };
        flaky.mend();
        await until(() => client.got.length >= from + 6);
        await publishAll(far, "x", numbers(3, from + 6));
      }
      assert.deepEqual(await client.close(), numbers(30));
      // The prefix gets what the subscription to the name has recovered.
      assert.deepEqual(await prefix.close(), numbers(30));
      // A prefix by itself cannot be recovered.
      const missed = errors.all.filter(({ topic }) => topic === "x*").length;
      assert.equal(missed, 3);
    }));

  it("what was missed in an outage is read page by page", () =>
    withFlaky(true, async (near, far, flaky) => {
      const client = await Client.open({}, true);
      await near.subscribe(client.ws, "x", { maxBufferedAmount: 10_000_000 }).ready;
      flaky.cut();
      const texts = numbers(100).map((text) => text.padEnd(50_000));
      await publishAll(far, "x", texts);
      flaky.calls.length = 0;
      flaky.mend();
      await until(() => client.got.length >= 100);
      await publishAll(far, "x", ["end"]);
      assert.deepEqual(await client.close(), [...texts, "end"]);
      // 20 of them are a page.
      assert.equal(flaky.calls.filter((call) => call === "read x").length, 5);
    }));

  it("without a history, onError and onMissed are told that messages may be missing", () =>
    withFlaky(false, async (near, far, flaky, errors) => {
      const client = await Client.open();
      let missed = 0;
      await near.subscribe(client.ws, "x", { onMissed: () => missed++ }).ready;
      flaky.cut();
      await far.publish("x", "lost");
      flaky.mend();
      await far.publish("x", "found");
      assert.deepEqual(await client.close(), ["found"]);
      assert.equal(missed, 1);
      assert.deepEqual(errors.codes, [undefined, "messages-missed"]);
      assert.deepEqual(errors.all.map(({ topic }) => topic), [undefined, "x"]);
    }));

  it("onError is told once of an outage, however many topics it interrupts", () =>
    withFlaky(true, async (near, _far, flaky, errors) => {
      const client = await Client.open();
      await Promise.all(numbers(3).map((topic) => near.subscribe(client.ws, topic).ready));
      for (const outages of [1, 2]) {
        flaky.cut();
        flaky.mend();
        assert.deepEqual(errors.all.map(({ topic }) => topic), Array(outages).fill(undefined));
        assert.match(String(errors.all.at(-1)!.error), /cut/);
      }
      assert.deepEqual(await client.close(), []);
    }));

  it("says that messages may be missing when the history is gone too", () =>
    withFlaky(true, async (near, far, flaky, errors) => {
      const client = await Client.open();
      let missed = 0;
      await near.subscribe(client.ws, "x", { onMissed: () => missed++ }).ready;
      await publishAll(far, "x", numbers(1));
      flaky.cut();
      await publishAll(far, "x", numbers(1001));
      flaky.mend();
      await until(() => missed === 1);
      await far.publish("x", "found");
      assert.deepEqual(await client.close(), ["0", "found"]);
      assert.ok(errors.codes.includes("messages-missed"));
    }));

  it("a second outage during the recovery is recovered too", () =>
    withFlaky(true, async (near, far, flaky) => {
      const client = await Client.open();
      await near.subscribe(client.ws, "x").ready;
      flaky.cut();
      await publishAll(far, "x", numbers(3));
      flaky.beforeRead = async () => {
        flaky.beforeRead = undefined;
        flaky.cut();
        await publishAll(far, "x", numbers(3, 3));
        flaky.mend();
      };
      flaky.mend();
      await until(() => client.got.length >= 6);
      await publishAll(far, "x", numbers(3, 6));
      assert.deepEqual(await client.close(), numbers(9));
    }));

  it("ready has no position from before a subscription that has failed", async () => {
    const engine = new FlakyEngine({});
    const [near, far] = [engine.connect(), engine.connect()];
    const errors = new Errors();
    const topics = new Topics({ backplane: near, onError: errors.onError });
    const other = new Topics({ backplane: far });
    const subscribe = near.subscribe.bind(near);
    near.subscribe = async () => {
      near.subscribe = subscribe;
      await publishAll(other, "x", numbers(3));
      throw new Error("The engine is down");
    };
    const client = await Client.open();
    const { position } = await topics.subscribe(client.ws, "x").ready;
    assert.equal(position?.offset, 3);
    await publishAll(other, "x", ["3"]);
    assert.deepEqual(await client.close(), ["3"]);
    assert.deepEqual(errors.codes, ["backplane-failed"]);
    await Promise.all([topics.close(), other.close()]);
  });

  it("subscribes by itself when the engine comes back", () =>
    withFlaky(true, async (near, far, flaky, errors) => {
      flaky.isDown = true;
      const client = await Client.open();
      const { ready } = near.subscribe(client.ws, "x");
      const { position: since } = await far.publish("x", "0");
      const other = await Client.open();
      const resumed = near.subscribe(other.ws, "x", { since: { ...since!, offset: 0 } });
      await until(() => errors.all.length >= 2);
      assert.ok(errors.codes.every((code) => code === "backplane-failed"));
      assert.ok(await isPending(ready));
      flaky.isDown = false;
      assert.deepEqual(await ready, { recovered: true, position: since });
      assert.equal((await resumed.ready).recovered, true);
      await far.publish("x", "1");
      assert.deepEqual(await client.close(), ["1"]);
      assert.deepEqual(await other.close(), ["0", "1"]);
    }));

  for (const isSilent of [false, true]) {
    it(`publish() rejects while the engine ${isSilent ? "is silent" : "is down"}`, () =>
      withFlaky(true, async (near, _, flaky) => {
        Object.assign(flaky, { isDown: true, isSilent });
        const error = await rejection<Error & { code: string; cause: Error }>(
          near.publish("x", "y"),
        );
        assert.equal(error.code, "backplane-failed");
        assert.match(error.cause.message, isSilent ? /publishTimeout \(100 ms\)/ : /down/);
      }));
  }

  it("messages that wait for a silent engine are limited, and close() rejects them", async () => {
    const flaky = new FlakyEngine().connect();
    Object.assign(flaky, { isDown: true, isSilent: true });
    const topics = new Topics({ backplane: flaky, maxPendingBytes: 1000 });
    const all = numbers(5).map((text) =>
      rejection<Error & { errorCode?: string }>(
        topics.publish("x", text),
      )
    );
    assert.deepEqual((await all[3]).errorCode, "busy");
    await topics.close();
    const codes = await Promise.all(all);
    assert.deepEqual(codes.map((error) => error.name), [
      "Error",
      "Error",
      "Error",
      "InvalidStateError",
      "InvalidStateError",
    ]);
  });

  const garbage: [what: string, bytes: Uint8Array][] = [
    ["nothing", new Uint8Array(0)],
    ["a text", new TextEncoder().encode("hello, this is another client of the engine")],
    ["a text that is not UTF-8", new Uint8Array([...header("t"), 0xff])],
    ["an unknown type", header("x")],
    ["a part of a header", header("t").slice(0, 20)],
  ];
  for (const [what, bytes] of garbage) {
    it(`${what} is no message: onError is told, and the subscription goes on`, () =>
      withFlaky(true, async (near, far, flaky, errors) => {
        const client = await Client.open();
        await near.subscribe(client.ws, "x").ready;
        await flaky.publish("x", bytes, { signal: new AbortController().signal });
        await far.publish("x", "good");
        await until(() => client.got.length > 0);
        assert.deepEqual(errors.codes, ["malformed-message"]);
        assert.deepEqual(await client.close(), ["good"]);
      }));
  }
});

function header(type: string): Uint8Array {
  return new TextEncoder().encode(`${type}ABCDEFGHIJKL00000001`);
}

describe("resumable() and serve()", () => {
  it("an outage of client or server process loses nothing while the history lasts", () =>
    withoutLeak(async () => {
      const errors = new Errors();
      const topics = new Topics({ history: {}, onError: errors.onError });
      const start = () =>
        serve(
          { port: 0, onError: () => {} },
          (ws) => topics.serve(ws, { maySubscribe: (name) => name !== "secret" }),
        );
      let server = await start();
      const events: TopicEvent[] = [];
      const client = resumable(reconnect(() => server.url!, { minDelay: 1, minUptime: 0 }), {
        topics: ["news", "secret"],
      });
      const reading = (async () => {
        for await (const event of client) {
          events.push(event);
          if (event.type === "message" && event.message === "end") break;
        }
      })();
      const count = (type: string) => events.filter((event) => event.type === type).length;
      await until(() => count("subscribed") === 1);
      let sent = 0;
      for (let round = 0; round < 4; round++) {
        await publishAll(topics, "news", numbers(5, sent));
        for (const ws of server.connections) ws.terminate();
        await publishAll(topics, "news", numbers(5, sent + 5));
        if (round === 2) {
          await server.shutdown({ timeout: 0 });
          await publishAll(topics, "news", numbers(5, sent + 10));
          server = await start();
        } else await publishAll(topics, "news", numbers(5, sent + 10));
        sent += 15;
        await until(() => count("message") >= sent);
      }
      await topics.publish("news", "end");
      await reading;
      const messages = events.flatMap((event) => event.type === "message" ? [event.message] : []);
      assert.deepEqual(messages, [...numbers(60), "end"]);
      assert.ok(events.every((event) => event.type !== "subscribed" || event.recovered));
      const refused = events.find((event) => event.type === "refused");
      assert.deepEqual([refused?.topic, refused?.code], ["secret", "forbidden"]);
      assert.deepEqual(Object.keys(client.positions), ["news"]);
      await server.shutdown({ timeout: 0 });
      await topics.close();
      assert.deepEqual(errors.all, []);
    }));

  it("a client whose position is gone is told, and goes on", () =>
    withTopics({ history: { size: 2 } }, async (topics) => {
      const [first] = await publishAll(topics, "x", numbers(5));
      const { near, events, done } = await session(topics, {
        topics: ["x"],
        positions: { x: formatPosition(first) },
      });
      await until(() => events.length === 1);
      await topics.publish("x", "new");
      await until(() => events.length === 2);
      assert.deepEqual(events.map((event) => ({ ...event, position: undefined })), [
        { type: "subscribed", topic: "x", recovered: false, position: undefined },
        { type: "message", topic: "x", message: "new", position: undefined },
      ]);
      await near.close();
      await done;
    }));

  it("without a position, a client is told after each reconnect that messages may be missing", () =>
    withTopics({}, async (topics) => {
      const connections = [await Client.open({}, false), await Client.open({}, false)];
      const serving = connections.map(({ ws }) => topics.serve(ws, { maySubscribe: () => true }));
      const client = resumable(
        (async function* () {
          for (const { far } of connections) yield await Promise.resolve(far);
        })(),
        { topics: ["x", "y*"] },
      );
      const events: TopicEvent[] = [];
      const done = (async () => {
        for await (const event of client) events.push(event);
      })();
      for (const [i, { ws }] of connections.entries()) {
        await until(() => events.length === 2 * i + 2);
        await ws.close();
      }
      await done;
      await Promise.all(serving);
      const recovered = events.map((event) => event.type === "subscribed" && event.recovered);
      assert.deepEqual(recovered, [true, true, false, false]);
    }));

  it("clients publish text and bytes, and learn the position or the refusal", () =>
    withTopics({ history: {} }, async (topics) => {
      const { client, near, events, done } = await session(topics, { topics: ["x"] });
      await until(() => events.length === 1);
      const bytes = new Uint8Array([0, 10, 255]);
      const positions = [
        await client.publish("x", "a\nb"),
        await client.publish("x", bytes),
        await client.publish("x", ""),
      ];
      const error = await rejection<Error & { code: string }>(client.publish("secret", "x"));
      assert.equal(error.code, "refused");
      const got = events.flatMap((event) => event.type === "message" ? [event] : []);
      assert.deepEqual(got.map(({ message }) => message), ["a\nb", bytes, ""]);
      assert.deepEqual(got.map(({ position }) => position), positions);
      client.unsubscribe("x");
      client.subscribe("y");
      await until(() => topics.names.join() === "y");
      await near.close();
      await done;
      assert.equal((await rejection(client.publish("x", "y"))).name, "InvalidStateError");
    }));

  const wrong: [message: string | Uint8Array, code: string][] = [
    ["", "malformed-message"],
    ["hello", "malformed-message"],
    ["[]", "malformed-message"],
    ["null", "malformed-message"],
    ["{}", "malformed-message"],
    [new Uint8Array([255, 10]), "malformed-message"],
    ['{"publish":"x","id":1}', "malformed-message"],
    [`{"subscribe":"${"x".repeat(5000)}"}`, "malformed-message"],
    ['{"subscribe":5}', "malformed-message"],
    ['{"subscribe":""}', "wrong-value"],
    ['{"subscribe":"a*b"}', "wrong-value"],
    ['{"subscribe":"x","since":"?"}', "wrong-value"],
    ['{"subscribe":"x","since":5}', "wrong-type"],
    ['{"subscribe":"x*","since":"e:1"}', "wrong-value"],
    ['{"subscribe":"secret"}', "forbidden"],
    ['{"publish":"secret","id":1}\ntext', "forbidden"],
    ['{"publish":"a*","id":1}\ntext', "wrong-value"],
    ['{"publish":"x\\u0000","id":1}\ntext', "wrong-value"],
  ];
  for (const [message, code] of wrong) {
    const shown = typeof message === "string" ? message.slice(0, 40) : "bytes";
    it(`answers ${JSON.stringify(shown)} with ${code}, and the connection goes on`, () =>
      withTopics({ history: {} }, async (topics) => {
        const client = await Client.open();
        const serving = topics.serve(client.ws, {
          maySubscribe: (name) => name !== "secret",
          mayPublish: (name) => name !== "secret",
        });
        await client.far.send('{"subscribe":"good"}');
        await until(() => client.got.length === 1);
        await client.far.send(message);
        await until(() => client.got.length === 2);
        await topics.publish("good", "text");
        await until(() => client.got.length === 3);
        const answer = JSON.parse(client.got[1] as string);
        assert.equal(answer.refused, code);
        assert.equal(typeof answer.reason, "string");
        assert.match(client.got[2] as string, /^\{"topic":"good","position":"[^"]+"\}\ntext$/);
        await client.close();
        await serving;
      }));
  }
});

async function session(topics: Topics, options: Parameters<typeof resumable>[1]) {
  const { ws, far: near } = await Client.open({}, false);
  const serving = topics.serve(ws, {
    maySubscribe: (name) => name !== "secret",
    mayPublish: (name) => name !== "secret",
  });
  const client = resumable(
    (async function* () {
      yield await Promise.resolve(near);
    })(),
    options,
  );
  const events: TopicEvent[] = [];
  const done = (async () => {
    for await (const event of client) events.push(event);
    await serving;
  })();
  return { client, near, events, done };
}

describe("Presence", () => {
  it("lists the members of all processes, until they leave or their process dies", async () => {
    const { MemoryEngine } = await import("../lib/topics/memory.ts");
    const engine = new MemoryEngine();
    const options = () => ({ backplane: engine.attach(), presence: { ttl: 60_000 } });
    const [a, b] = [new Topics(options()), new Topics(options())];
    const clients = await Promise.all([Client.open(), Client.open(), Client.open()]);
    a.subscribe(clients[0].ws, "x", { presence: { name: "ada" } });
    const ben = b.subscribe(clients[1].ws, "x", { presence: "ben" });
    b.subscribe(clients[2].ws, "x");
    const names = async (topics: Topics) =>
      (await topics.members("x")).map((value) => JSON.stringify(value)).sort();
    const list = ['"ben"', '{"name":"ada"}'];
    assert.deepEqual(await names(b).then((all) => all.includes('"ben"')), true, "at once here");
    while ((await names(a)).length < 2) await rest();
    assert.deepEqual(
      [await names(a), await names(b)],
      [list, list].map((all) => all.slice().sort()),
    );
    ben.unsubscribe();
    while ((await names(a)).length > 1) await rest();
    await a.close();
    assert.deepEqual(await names(b), []);
    // What a process that has died has announced is forgotten after its time.
    const bytes = new TextEncoder().encode('{"owner":"dead","members":["eve"]}');
    engine.announce("x", "dead", bytes, 1);
    while ((await names(b)).length > 0) await rest();
    await b.close();
    await Promise.all(clients.map((client) => client.close()));
  });

  it("must be asked for", () =>
    withTopics({}, async (topics) => {
      const client = await Client.open();
      assert.throws(() => topics.subscribe(client.ws, "x", { presence: "me" }), TypeError);
      assert.equal((await rejection(topics.members("x"))).name, "InvalidStateError");
      const backplane = new FlakyEngine().connect();
      assert.throws(() => new Topics({ backplane, presence: true }), { name: "InvalidStateError" });
      await client.close();
    }));
});

describe("Codecs and schemas of topics", () => {
  const schema = {
    "~standard": {
      version: 1 as const,
      vendor: "test",
      validate: (value: unknown) =>
        typeof (value as { price?: unknown })?.price === "number"
          ? { value: value as { price: number } }
          : { issues: [{ message: "Expected a price" }] },
    },
  };

  it("objects are sent as JSON by default, strings and bytes as they are", () =>
    withTopics({}, async (topics) => {
      const client = await Client.open();
      topics.subscribe(client.ws, "x");
      for (const value of [{ a: 1 }, ["b"], "c"]) await topics.publish("x", value);
      assert.deepEqual(await client.close(), ['{"a":1}', '["b"]', "c"]);
    }));

  it("a schema validates what comes in", () =>
    withTopics({ schema }, async (topics) => {
      const reader = topics.messages("x").getReader();
      await topics.publish("x", { price: 42 });
      assert.deepEqual((await reader.read()).value?.message, { price: 42 });
      assert.deepEqual(await topics.parse('{"price":1}'), { price: 1 });
      for (const wrong of ['{"price":"1"}', "{", "", new Uint8Array([255])]) {
        const error = await rejection<Error & { code: string }>(topics.parse(wrong));
        assert.deepEqual([error.name, error.code], ["TypeError", "malformed-message"]);
      }
      await reader.cancel();
    }));

  it("a codec that throws rejects publish(), and messages() leaves the message out", async () => {
    const errors = new Errors();
    const topics = new Topics<number>({
      onError: errors.onError,
      codec: {
        encode: (value) => {
          if (value < 0) throw new Error("negative");
          return value > 100 ? (value as never) : `${value}`;
        },
        decode: (message) => {
          if (message === "13") throw new Error("unlucky");
          return Number(message);
        },
      },
    });
    const reader = topics.messages("x").getReader();
    for (const wrong of [-1, 101]) {
      assert.equal((await rejection(topics.publish("x", wrong))).name, "TypeError");
    }
    for (const value of [12, 13, 14]) await topics.publish("x", value);
    assert.equal((await reader.read()).value?.message, 12);
    assert.equal((await reader.read()).value?.message, 14);
    assert.deepEqual(errors.codes, ["malformed-message"]);
    await topics.close();
  });
});
