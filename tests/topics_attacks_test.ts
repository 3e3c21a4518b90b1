/** Races, errors of the application's own functions, and clients of topics that do not play fair. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { resumable, type ResumableConnection, Topics } from "../lib/topics.ts";
import {
  type Backplane,
  type BackplaneReceiver,
  formatPosition,
  type HistoryRead,
} from "../lib/topics/backplane.ts";
import { sealEnvelope } from "../lib/topics/envelope.ts";
import { invalidState } from "../lib/core/error.ts";
import { MemoryEngine } from "../lib/topics/memory.ts";
import { withoutTimers } from "./resources.ts";
import { natsBackplane } from "../lib/topics/nats.ts";
import { rejection, rest, Tap, turn, until } from "./support.ts";
import { Client, Errors, FlakyEngine, withTopics } from "./topics/audience.ts";
import { inVirtualTime, type VirtualTime } from "./virtual_time.ts";

const hooked: { topics?: Topics } = {};

/** A backplane in memory, some of whose methods are replaced. */
function backplaneWith(replaced: (inner: Backplane) => Partial<Backplane>): Backplane {
  const inner = new MemoryEngine().attach();
  const backplane: Backplane = {
    keepsHistory: false,
    subscribe: (...args) => inner.subscribe(...args),
    unsubscribe: (topic) => inner.unsubscribe(topic),
    publish: (...args) => inner.publish(...args),
    close: () => inner.close(),
  };
  return Object.assign(backplane, replaced(inner));
}

describe("Topics under attack", () => {
  it("keep a subscription when a call for an earlier one of the name fails late", async () => {
    const first = Promise.withResolvers<void>();
    let calls = 0;
    const backplane = backplaneWith((inner) => ({
      subscribe: (...args) => ++calls === 1 ? first.promise : inner.subscribe(...args),
    }));
    await withTopics({ backplane }, async (topics) => {
      const client = await Client.open();
      topics.subscribe(client.ws, "x").unsubscribe();
      await topics.subscribe(client.ws, "x").ready;
      first.reject(new Error("late"));
      await rejection(first.promise);
      for (let i = 0; i < 10; i++) await Promise.resolve();
      await topics.publish("x", "there");
      assert.deepEqual(await client.close(), ["there"]);
    });
  });

  for (const history of [undefined, {}]) {
    const shown = history === undefined ? "without" : "with";
    it(`go on after an outage ${shown} history when onMissed throws or rejects`, async () => {
      const errors = new Errors();
      const backplane = new FlakyEngine(history && { size: 1 }).connect();
      const topics = new Topics({ backplane, onError: errors.onError });
      const client = await Client.open();
      let told = 0;
      const onMissed = [
        () => {
          throw new Error("thrown");
        },
        () => Promise.reject(new Error("rejected")),
        () => void told++,
      ];
      const others = await Promise.all(onMissed.map(() => Client.open()));
      const ready = others.map(({ ws }, i) =>
        topics.subscribe(ws, "x", { onMissed: onMissed[i] as () => void }).ready
      );
      await topics.subscribe(client.ws, "x").ready;
      await Promise.all(ready);
      await topics.publish("x", "one");
      backplane.cut();
      backplane.isDown = false;
      for (const missed of ["two", "three"]) await topics.publish("x", missed);
      backplane.mend();
      await until(() => told === 1);
      await topics.publish("x", "four");
      await until(() => client.got.includes("four"));
      await until(() => errors.all.some(({ error }) => (error as Error).message === "rejected"));
      assert.ok(errors.all.some(({ error }) => (error as Error).message === "thrown"));
      await topics.close();
    });
  }

  it("onMissed may end subscriptions, and subscribe again", async () => {
    const backplane = new FlakyEngine().connect();
    const topics = new Topics({ backplane, onError: new Errors().onError });
    const client = await Client.open();
    const told: string[] = [];
    const ended = () => void told.push("ended");
    const again = () => {
      told.push("again");
      // Without this limit, a failure would be an endless loop.
      if (told.length < 10) topics.subscribe(client.ws, "x", { onMissed: again });
      ending.unsubscribe();
    };
    const first = topics.subscribe(client.ws, "x", { onMissed: again });
    const ending = topics.subscribe(client.ws, "x", { onMissed: ended });
    await Promise.all([first.ready, ending.ready]);
    backplane.cut();
    backplane.isDown = false;
    backplane.mend();
    await until(() => told.length > 0);
    await rest();
    assert.deepEqual(told, ["again"]);
    assert.equal(topics.count("x"), 2);
    await topics.close();
    await client.close();
  });

  for (const [shown, maxPendingBytes] of [["wait", Infinity], ["are refused", 1]] as const) {
    it(`a message comes back to no excluded connection, however many later ones ${shown}`, async () => {
      const waiting: (() => void)[] = [];
      const backplane = backplaneWith((inner) => ({
        publish: (...args) =>
          new Promise((resolve) => void waiting.push(() => resolve(inner.publish(...args)))),
      }));
      const topics = new Topics({ backplane, maxPendingBytes });
      const client = await Client.open();
      await topics.subscribe(client.ws, "x").ready;
      const calls = Array.from({ length: 10_002 }, (_, i) => {
        return topics.publish("x", `${i}`, { except: client.ws });
      });
      await turn();
      for (const confirm of waiting) confirm();
      await Promise.allSettled(calls);
      assert.deepEqual(await client.close(), []);
      await topics.close();
    });
  }

  it("report the errors of async hooks, and of a codec that is async", async () => {
    const errors = new Errors();
    const fail = (why: string) => () => Promise.reject(new Error(why)) as never;
    const topics = new Topics({
      onError: errors.onError,
      onFirstSubscriber: fail("first"),
      onLastSubscriber: fail("last"),
      codec: { encode: fail("codec"), decode: (message) => message },
    });
    const client = await Client.open();
    topics.subscribe(client.ws, "x").unsubscribe();
    assert.equal((await rejection(topics.publish("x", "y"))).name, "TypeError");
    await until(() => errors.all.length === 2);
    assert.deepEqual(errors.all.map(({ error }) => (error as Error).message), ["first", "last"]);
    await topics.close();
    await client.close();
  });

  it("leave nothing when messages() throws, or a value is no subscriber", () =>
    withTopics({ history: {}, presence: true }, async (topics) => {
      assert.throws(() => topics.messages("room/*", { since: "e:1" }), { code: "wrong-value" });
      const recipient = { state: "open", send: () => Promise.resolve() };
      assert.throws(() => topics.subscribe(recipient as never, "x"), { code: "wrong-type" });
      const client = await Client.open();
      const circular: unknown[] = [];
      circular.push(circular);
      const presence = circular;
      for (const wrong of [presence, () => {}, 1n]) {
        assert.throws(() => topics.subscribe(client.ws, "x", { presence: wrong }), {
          name: "TypeError",
        });
      }
      assert.deepEqual(topics.names, []);
      await client.close();
    }));

  it("a stream that is too slow for what onFirstSubscriber publishes ends", () =>
    withTopics({
      onFirstSubscriber: (name) => {
        for (const text of ["one", "two"]) void hooked.topics?.publish(name, text);
      },
    }, async (topics) => {
      hooked.topics = topics;
      const reader = topics.messages("x", { maxBufferedAmount: 1 }).getReader();
      assert.equal(
        (await rejection<Error & { code: string }>(reader.read())).code,
        "messages-missed",
      );
      assert.deepEqual(topics.names, []);
    }));

  it("topics that onFirstSubscriber closes leave no timer and report nothing", async () => {
    await withoutTimers(async () => {
      const errors = new Errors();
      const topics: Topics = new Topics({
        presence: true,
        onError: errors.onError,
        onFirstSubscriber: () => void topics.close(),
      });
      const client = await Client.open();
      const subscription = topics.subscribe(client.ws, "x", { presence: "me" });
      assert.equal((await rejection(subscription.ready)).name, "InvalidStateError");
      subscription.unsubscribe();
      await client.close();
      assert.deepEqual(errors.all, []);
    });
  });

  it("a message that expires while the history is read harms no later one", async () => {
    const engine = new MemoryEngine({ ttl: 10 });
    const times = [0, 0, 9, 11];
    const original = performance.now;
    performance.now = () => times.shift() ?? 12;
    try {
      engine.publish("a", new Uint8Array());
      await engine.attach().read!("a", undefined, { signal: new AbortController().signal });
      engine.publish("b", new Uint8Array());
    } finally {
      performance.now = original;
    }
  });

  it("close() reports no calls that are given up because of it", async () => {
    const errors = new Errors();
    const backplane = backplaneWith(() => ({ unsubscribe: () => new Promise(() => {}) }));
    const topics = new Topics({ backplane, onError: errors.onError });
    const client = await Client.open();
    await topics.subscribe(client.ws, "x").ready;
    await topics.close();
    for (let i = 0; i < 10; i++) await Promise.resolve();
    assert.deepEqual(errors.all, []);
    await client.close();
  });

  it("a request that is refused does not end the subscription that it would replace", () =>
    withTopics({ history: {} }, async (topics) => {
      const client = await Client.open();
      const serving = topics.serve(client.ws, { maySubscribe: () => true });
      await client.far.send('{"subscribe":"x"}');
      await until(() => client.got.length === 1);
      await client.far.send('{"subscribe":"x","since":"?"}');
      await until(() => client.got.length === 2);
      assert.equal(JSON.parse(client.got[1] as string).refused, "wrong-value");
      await topics.publish("x", "still there");
      await until(() => client.got.length === 3);
      await client.close();
      await serving;
    }));

  it("a client that repeats requests and reads nothing makes nothing pile up", () =>
    withTopics({ history: {} }, async (topics) => {
      const { position } = await topics.publish("x", "first");
      for (let i = 0; i < 20; i++) await topics.publish("x", "m".repeat(100_000));
      const client = await Client.open({}, false);
      const serving = topics.serve(client.ws, { maySubscribe: () => true });
      const request = JSON.stringify({ subscribe: "x", since: formatPosition(position!) });
      for (let sent = 0; sent < 100; sent++) {
        void client.far.send(request);
        for (let i = 0; i < 3; i++) await new Promise((resolve) => setTimeout(resolve, 0));
      }
      assert.ok(client.ws.bufferedAmount < 4_000_000, `${client.ws.bufferedAmount}`);
      client.ws.terminate();
      await serving.catch(() => {});
    }));

  it("a client that reads nothing while the engine fails again and again gets few lines", async () => {
    const backplane = new FlakyEngine().connect();
    const topics = new Topics({ backplane, onError: new Errors().onError });
    const client = await Client.open({}, false);
    const serving = topics.serve(client.ws, { maySubscribe: () => true });
    const name = "x".repeat(255);
    await client.far.send(JSON.stringify({ subscribe: name }));
    await until(() => topics.count(name) === 1);
    await rest();
    await topics.publish(name, "m".repeat(1_000_000));
    await rest();
    const before = client.ws.bufferedAmount;
    const outage = () => {
      backplane.cut();
      backplane.isDown = false;
      backplane.mend();
    };
    for (let i = 0; i < 1000; i++) outage();
    await rest();
    assert.ok(client.ws.bufferedAmount < before + 2000, `${client.ws.bufferedAmount}`);
    client.wake();
    const missed = JSON.stringify({ missed: name });
    const count = () => client.got.filter((message) => message === missed).length;
    await until(() => count() === 2);
    await rest();
    outage();
    await until(() => count() === 3);
    await topics.close();
    await client.close();
    await serving;
  });

  it("a client that reads slowly learns of each outage before later messages", async () => {
    const backplane = new FlakyEngine().connect();
    const topics = new Topics({ backplane, onError: new Errors().onError });
    const client = await Client.open({}, false);
    const serving = topics.serve(client.ws, { maySubscribe: () => true });
    await client.far.send('{"subscribe":"x"}');
    await until(() => topics.count("x") === 1);
    await rest();
    await topics.publish("x", "m".repeat(1_000_000));
    for (const text of ["1", "2", "3"]) {
      backplane.cut();
      backplane.isDown = false;
      backplane.mend();
      await topics.publish("x", text);
    }
    client.wake();
    await until(() => client.got.length >= 8);
    const got = client.got.slice(2).map((message) => String(message).split("\n").at(-1));
    const missed = '{"missed":"x"}';
    assert.deepEqual(got, [missed, "1", missed, "2", missed, "3"]);
    await topics.close();
    await client.close();
    await serving;
  });

  it("a client that subscribes and unsubscribes in an outage waits each time", async () => {
    let calls = 0;
    const backplane = backplaneWith(() => ({
      subscribe: () => {
        calls++;
        return new Promise(() => {});
      },
    }));
    await inVirtualTime(async (time) => {
      const topics = new Topics({ backplane });
      const client = await Client.open();
      const serving = topics.serve(client.ws, { maySubscribe: () => true });
      for (let i = 0; i < 20; i++) {
        await client.far.send('{"subscribe":"x"}');
        await client.far.send('{"unsubscribe":"x"}');
      }
      for (let round = 1; round <= 20; round++) {
        await time.advance(0);
        assert.equal(calls, round);
        assert.equal(client.got.length, round - 1);
        await time.advance(50);
      }
      assert.equal(client.got.length, 20);
      await topics.close();
      await client.close();
      await serving;
    });
  });

  it("NATS keeps no subscription that has ended while there was no connection", async () => {
    let live = 0;
    const up = Promise.withResolvers<void>();
    const never = new Promise<never>(() => {});
    const backplane = natsBackplane({
      publish() {},
      subscribe() {
        live++;
        return { unsubscribe: () => void live-- };
      },
      flush: () => up.promise,
      status: () => ({ [Symbol.asyncIterator]: () => ({ next: () => never }) }),
      closed: () => never,
    });
    const { signal } = new AbortController();
    const receiver = { message() {}, interrupted() {}, restored() {}, error() {} };
    const all: Promise<void>[] = [];
    for (let i = 0; i < 3; i++) {
      all.push(backplane.subscribe("x", { ...receiver }, { signal }));
      await backplane.unsubscribe("x");
    }
    up.resolve();
    const settled = await Promise.allSettled(all);
    assert.ok(settled.every(({ status }) => status === "rejected"));
    assert.equal(live, 0);
    await backplane.close();
  });

  it("resumable() checks its topics and positions", () => {
    const connections = [] as unknown as AsyncIterable<ResumableConnection>;
    const none = Object.assign(connections, {
      [Symbol.asyncIterator]: () => ({
        next: () => Promise.resolve({ done: true as const, value: undefined }),
      }),
    });
    const wrong: [options: object, name: string][] = [
      [{ topics: "news" }, "TypeError"],
      [{ topics: 5 }, "TypeError"],
      [{ topics: [5] }, "TypeError"],
      [{ topics: [""] }, "RangeError"],
      [{ topics: ["a*b"] }, "RangeError"],
      [{ positions: 5 }, "TypeError"],
      [{ positions: { x: 5 } }, "TypeError"],
      [{ positions: { x: "?" } }, "RangeError"],
    ];
    for (const [options, name] of wrong) assert.throws(() => resumable(none, options), { name });
    assert.throws(() => resumable(none).subscribe("a\n"), { name: "RangeError" });
  });

  const wrongMessages: [topic: unknown, message: unknown, name: string][] = [
    ["x", 5, "TypeError"],
    ["x", undefined, "TypeError"],
    ["x", { a: 1 }, "TypeError"],
    ["x", new Uint16Array(2), "TypeError"],
    [5, "text", "TypeError"],
    ["", "text", "RangeError"],
    ["room/*", "text", "RangeError"],
  ];
  for (const [topic, message, name] of wrongMessages) {
    const shown = `${JSON.stringify(topic)}, ${JSON.stringify(message)}`;
    it(`publish() of resumable() rejects with a ${name} for ${shown}`, () =>
      withTopics({}, async (topics) => {
        const { ws, far } = await Client.open({}, false);
        const serving = topics.serve(ws, { mayPublish: () => true });
        const connections = (async function* () {
          yield await Promise.resolve(far);
        })();
        const client = resumable(connections);
        const done = (async () => {
          for await (const event of client) assert.fail(event.type);
        })();
        await rest();
        const error = await rejection(client.publish(topic as string, message as string));
        assert.equal(error.name, name);
        await client.publish("x", "good");
        await ws.close();
        await Promise.all([done, serving]);
      }));
  }

  it("a client may subscribe to a topic again at any time", () =>
    withTopics({}, async (topics) => {
      const { ws, far } = await Client.open({}, false);
      const serving = topics.serve(ws, { maySubscribe: (name) => name !== "secret" });
      const connections = (async function* () {
        yield await Promise.resolve(far);
      })();
      const client = resumable(connections, { topics: ["x", "secret"] });
      const got: string[] = [];
      const done = (async () => {
        for await (const event of client) got.push(`${event.type} ${event.topic}`);
      })();
      for (let round = 1; round <= 2; round++) {
        for (const topic of ["x", "x", "secret"]) client.subscribe(topic);
        await until(() => got.length === 2 * round);
      }
      await ws.close();
      await Promise.all([done, serving]);
      const expected = ["refused secret", "refused secret", "subscribed x", "subscribed x"];
      assert.deepEqual(got.sort(), expected);
    }));

  it("A backplane belongs to one instance of Topics", async () => {
    const backplane = new MemoryEngine().attach();
    const topics = new Topics({ backplane });
    assert.throws(() => new Topics({ backplane }), { name: "InvalidStateError" });
    await topics.close();
  });

  it("A prefix that the client of the engine does not support is refused once", async () => {
    let calls = 0;
    const backplane = backplaneWith((inner) => ({
      subscribe: (topic, ...rest) => {
        if (!topic.endsWith("*")) return inner.subscribe(topic, ...rest);
        calls++;
        return Promise.reject(invalidState("no patterns", "unsupported"));
      },
    }));
    const errors = new Errors();
    const topics = new Topics({ backplane, onError: errors.onError });
    const { ws, far } = await Client.open({}, false);
    assert.match((await rejection(topics.subscribe(ws, "room/*").ready)).message, /not subscribe/);
    const reader = topics.messages("room/*").getReader();
    assert.match((await rejection(reader.read())).message, /not subscribe/);
    const serving = topics.serve(ws, { maySubscribe: () => true });
    await far.send(JSON.stringify({ subscribe: "room/*" }));
    const { refused, subscribe } = JSON.parse(String(await far.receive()));
    assert.deepEqual([refused, subscribe, calls], ["backplane-failed", "room/*", 1]);
    assert.deepEqual(errors.codes, ["backplane-failed"]);
    await far.close();
    await serving;
    await topics.close();
  });

  it("A subscription to NATS does not begin in an outage", async () => {
    const status = new Tap<{ type: string }>();
    let flushes = 0;
    const backplane = natsBackplane({
      publish() {},
      subscribe: () => ({ unsubscribe() {} }),
      async flush() {
        if (++flushes !== 2) return;
        status.give({ type: "disconnect" });
        await rest();
      },
      status: () => status.items,
      closed: () => new Promise(() => {}),
    });
    const receiver = { message() {}, interrupted() {}, restored() {}, error() {} };
    const { signal } = new AbortController();
    const error = await rejection(backplane.subscribe("x", receiver, { signal }));
    assert.match(error.message, /outage/);
    status.give({ type: "reconnect" });
    await backplane.subscribe("x", receiver, { signal });
    status.end();
    await backplane.close();
  });

  /** Publishes again at once until it succeeds. A loop that keeps the event loop busy would not end. */
  const insist = async (publish: () => Promise<unknown>): Promise<number> => {
    for (let attempts = 1; attempts < 1_000_000; attempts++) {
      if (await publish().then(() => true, () => false)) return attempts;
    }
    assert.fail("Other events had no turn");
  };

  it("a client that publishes again without a pause gets its next connection", () =>
    withTopics({}, async (topics) => {
      const { ws, far } = await Client.open({}, false);
      const serving = topics.serve(ws, { mayPublish: () => true });
      const connections = (async function* () {
        await turn();
        yield far;
      })();
      const client = resumable(connections);
      const done = (async () => {
        for await (const event of client) assert.fail(event.type);
      })();
      assert.ok(await insist(() => client.publish("x", "text")) > 1);
      await ws.close();
      await Promise.all([done, serving]);
    }));

  it("a caller that publishes again without a pause gets the confirmations", async () => {
    const flaky = new FlakyEngine().connect();
    const publish = flaky.publish.bind(flaky);
    flaky.publish = async (...call) => {
      await turn();
      return publish(...call);
    };
    await withTopics({ backplane: flaky, maxPendingBytes: 1 }, async (topics) => {
      const first = topics.publish("x", "first");
      assert.ok(await insist(() => topics.publish("x", "second")) > 1);
      await first;
    });
  });

  it("a client with overlapping topics gets what it has missed once, and in order", () =>
    withTopics({ history: {} }, async (topics) => {
      const connections = [await Client.open({}, false), await Client.open({}, false)];
      let round = 0;
      const serving = connections.map(({ ws }) =>
        topics.serve(ws, {
          async maySubscribe(name) {
            if (round === 1 && name === "room/1") await topics.publish("room/1", "two");
            return true;
          },
        })
      );
      const client = resumable(
        (async function* () {
          for (const { far } of connections) yield await Promise.resolve(far);
        })(),
        { topics: ["room/*", "room/1"] },
      );
      const got: unknown[] = [];
      let subscribed = 0;
      const done = (async () => {
        for await (const event of client) {
          if (event.type === "message") got.push(event.message);
          else if (event.type === "subscribed") subscribed++;
        }
      })();
      await until(() => subscribed === 2);
      round = 1;
      await connections[0].ws.close();
      await topics.publish("room/1", "one");
      await until(() => subscribed === 4);
      await topics.publish("room/1", "three");
      await until(() => got.includes("three"));
      await connections[1].ws.close();
      await done;
      await Promise.allSettled(serving);
      assert.deepEqual(got, ["one", "two", "three"]);
    }));

  /** A backplane with a history whose messages and answers a test gives by hand. */
  function byHand(): {
    backplane: Backplane;
    receivers: Map<string, BackplaneReceiver>;
    reads: HistoryRead[];
    give(name: string, text: string, offset: number): void;
  } {
    const receivers = new Map<string, BackplaneReceiver>();
    const reads: HistoryRead[] = [];
    const start = { recovered: true, messages: [], position: { epoch: "e", offset: 0 } };
    const inner = backplaneWith(() => ({
      keepsHistory: true,
      async subscribe(topic, receiver) {
        await turn();
        receivers.set(topic, receiver);
      },
      async read() {
        await turn();
        return reads.shift() ?? start;
      },
    }));
    const give = (name: string, text: string, offset: number) => {
      const data = sealEnvelope(text, "publisher---", offset);
      receivers.get(name)!.message("x", { data, position: { epoch: "e", offset } });
    };
    return { backplane: inner, receivers, reads, give };
  }

  it("A stream that fails while a message is given takes it from nobody", async () => {
    const { backplane, give } = byHand();
    await withTopics({ backplane }, async (topics) => {
      const client = await Client.open();
      await topics.subscribe(client.ws, "*").ready;
      await topics.subscribe(client.ws, "x*").ready;
      const reader = topics.messages("x", { maxBufferedAmount: 1 }).getReader();
      await until(() => topics.count("x") === 1);
      await rest();
      // The third message waits for the others, because the prefix has brought it earlier.
      give("*", "three", 3);
      give("x", "one", 1);
      give("x", "two", 2);
      await rejection(reader.read());
      assert.deepEqual(topics.names, ["*", "x*"]);
      assert.deepEqual(await client.close(), ["one", "two", "three"]);
    });
  });

  it("An engine that has lost its last messages may use their offsets again", async () => {
    const { backplane, receivers, reads, give } = byHand();
    const errors = new Errors();
    const topics = new Topics({ backplane, onError: errors.onError });
    const client = await Client.open();
    const at = (offset: number) => ({ epoch: "e", offset });
    await topics.subscribe(client.ws, "other").ready;
    reads.push({ recovered: true, messages: [], position: at(100) });
    reads.push({ recovered: true, messages: [], position: at(100) });
    const { ready } = topics.subscribe(client.ws, "x", { since: at(100) });
    assert.equal((await ready).recovered, true);
    const receiver = receivers.get("x")!;
    reads.push({ recovered: false, messages: [], position: at(90) });
    receiver.interrupted(new Error("outage"));
    receiver.restored();
    await until(() => errors.codes.includes("messages-missed"));
    for (let i = 91; i < 93; i++) give("x", `${i}`, i);
    assert.deepEqual(await client.close(), ["91", "92"]);
    await topics.close();
  });

  it("a second outage is reported, also if an engine gives the same error", async () => {
    const { backplane, receivers, reads } = byHand();
    const errors = new Errors();
    const topics = new Topics({ backplane, onError: errors.onError });
    const client = await Client.open();
    await Promise.all(["x", "y"].map((name) => topics.subscribe(client.ws, name).ready));
    const outage = new Error("outage");
    for (const count of [1, 2]) {
      for (const name of ["x", "y"]) receivers.get(name)!.interrupted(outage);
      assert.equal(errors.all.filter(({ error }) => error === outage).length, count);
      const position = { epoch: "e", offset: 0 };
      reads.push({ recovered: true, messages: [], position });
      reads.push({ recovered: true, messages: [], position });
      for (const name of ["x", "y"]) receivers.get(name)!.restored();
      await rest();
    }
    await client.close();
    await topics.close();
  });

  it("a history that is read says so if messages are missing meanwhile", async () => {
    const { backplane, receivers, reads, give } = byHand();
    const errors = new Errors();
    const topics = new Topics({ backplane, onError: errors.onError });
    const client = await Client.open({}, false);
    const at = (offset: number) => ({ epoch: "e", offset });
    const messages = [1, 2, 3].map((offset) => ({
      data: sealEnvelope("m".repeat(1_000_000), "publisher---", offset),
      position: at(offset),
    }));
    const start = { recovered: true, messages: [], position: at(3) };
    reads.push(start, { ...start, messages });
    const { ready } = topics.subscribe(client.ws, "x", { since: at(0) });
    await until(() => receivers.has("x"));
    await rest();
    give("x", "held", 4);
    reads.push({ recovered: false, messages: [], position: at(0) });
    receivers.get("x")!.interrupted(new Error("outage"));
    receivers.get("x")!.restored();
    await until(() => errors.codes.includes("messages-missed"));
    give("x", "again", 1);
    client.wake();
    assert.equal((await ready).recovered, false);
    give("x", "later", 2);
    const got = await client.close();
    assert.deepEqual(got.slice(3), ["again", "later"]);
    await topics.close();
  });

  it("presence is that of the moment of the subscription, as other processes see it", () =>
    withTopics({ presence: true }, async (topics) => {
      const client = await Client.open();
      const presence = { since: new Date(0), names: ["ada"] };
      topics.subscribe(client.ws, "x", { presence });
      presence.names.push("eve");
      const list = [{ since: "1970-01-01T00:00:00.000Z", names: ["ada"] }];
      assert.deepEqual(await topics.members("x"), list);
      await client.close();
    }));

  it("Messages that a prefix brings while its topic is recovered for long come once, in order", () =>
    inVirtualTime(async (time) => {
      const { backplane, receivers, give } = byHand();
      const reading = Promise.withResolvers<HistoryRead>();
      const errors = new Errors();
      const topics = new Topics({ backplane, onError: errors.onError });
      const [room, rooms] = [await Client.open(), await Client.open()];
      const ready = [topics.subscribe(rooms.ws, "*").ready, topics.subscribe(room.ws, "x").ready];
      await time.advance(10);
      await Promise.all(ready);
      const receiver = receivers.get("x")!;
      receiver.interrupted(new Error("outage"));
      backplane.read = () => reading.promise;
      receiver.restored();
      give("*", "one", 1);
      give("*", "two", 2);
      give("x", "two", 2);
      await time.advance(5000);
      assert.deepEqual(rooms.got, []);
      const messages = [1, 2, 3].map((offset) => ({
        data: sealEnvelope(["", "one", "two", "three"][offset], "publisher---", offset),
        position: { epoch: "e", offset },
      }));
      reading.resolve({ recovered: true, messages, position: messages[2].position });
      await time.advance(10);
      for (const client of [room, rooms]) {
        assert.deepEqual(await client.close(), ["one", "two", "three"]);
      }
      await topics.close();
    }));

  /** Topics with a subscriber of the topic `x`, another one of the prefix `*`, and an outage of the topic. */
  async function withOutage(
    run: (
      outage: {
        topics: Topics;
        room: Client;
        rooms: Client;
        /** Lines about missed messages, and the clients to which they were told. */
        missed: string[];
        give(name: string, text: string, offset: number): void;
        /** Begins an outage of the topic, and ends it. */
        begin(): void;
        /** Answers the read of the history. */
        answer(texts: string[], offset: number, recovered?: boolean): Promise<void>;
        time: VirtualTime;
      },
    ) => Promise<void>,
  ): Promise<void> {
    await inVirtualTime(async (time) => {
      const { backplane, receivers, give } = byHand();
      const errors = new Errors();
      const topics = new Topics({ backplane, onError: errors.onError, maxWaiting: 2 });
      const [room, rooms] = [await Client.open(), await Client.open()];
      const missed: string[] = [];
      const subscriptions = [
        topics.subscribe(rooms.ws, "*", { onMissed: () => void missed.push("*") }),
        topics.subscribe(room.ws, "x", { onMissed: () => void missed.push("x") }),
      ];
      await time.advance(10);
      await Promise.all(subscriptions.map(({ ready }) => ready));
      let resolve!: (read: HistoryRead) => void;
      backplane.read = () => new Promise((settle) => resolve = settle);
      const begin = () => {
        receivers.get("x")!.interrupted(new Error("outage"));
        receivers.get("x")!.restored();
      };
      begin();
      const answer = async (texts: string[], offset: number, recovered = true) => {
        const messages = texts.map((text, i) => ({
          data: sealEnvelope(text, "publisher---", i + 1),
          position: { epoch: "e", offset: i + 1 },
        }));
        resolve({ recovered, messages, position: { epoch: "e", offset } });
        await time.advance(10);
      };
      await run({ topics, room, rooms, missed, begin, give, answer, time });
      for (const { ws } of [room, rooms]) ws.terminate();
      await time.advance(10);
      await topics.close();
      assert.equal(time.waiting, 0);
    });
  }

  it("A message that comes twice while its topic is recovered for long reaches the topic", () =>
    withOutage(async ({ room, rooms, give, answer, time }) => {
      give("*", "one", 1);
      give("x", "one", 1);
      await time.advance(6000);
      // The answer is older than the message.
      await answer([], 0);
      assert.deepEqual([room.got, rooms.got], [["one"], ["one"]]);
    }));

  it("More messages of a prefix than maxWaiting come after those that their topic has missed", () =>
    withOutage(async ({ room, rooms, missed, give, answer }) => {
      const texts = ["1", "2", "3", "4", "5"];
      for (const [i, text] of texts.entries()) if (i > 0) give("*", text, i + 1);
      await answer(texts, 5);
      assert.deepEqual([room.got, rooms.got, missed], [texts, texts, []]);
    }));

  it("A prefix is told if messages that had to wait are gone", () =>
    withOutage(async ({ room, rooms, missed, give, answer }) => {
      for (let i = 1; i <= 3; i++) give("*", `${i}`, i);
      give("*", "4", 4);
      await answer([], 4, false);
      assert.deepEqual([room.got, rooms.got], [[], ["4"]]);
      // For a connection that has both, messages are missing before the fourth and after it.
      assert.deepEqual(missed.sort(), ["*", "x", "x"]);
    }));

  it("A prefix is told if the topic ends that was to bring messages", () =>
    withOutage(async ({ room, rooms, missed, give, time }) => {
      for (let i = 1; i <= 4; i++) give("*", `${i}`, i);
      room.ws.terminate();
      await time.advance(10);
      assert.deepEqual([rooms.got, missed], [["4"], ["*"]]);
    }));

  it("A late message of a prefix is given if its topic has not brought it", () =>
    withOutage(async ({ room, rooms, begin, give, answer, time }) => {
      await answer([], 0);
      give("x", "1", 1);
      begin();
      await answer([], 3, false);
      for (let i = 1; i <= 3; i++) give("*", `${i}`, i);
      await time.advance(10);
      assert.deepEqual([room.got, rooms.got], [["1"], ["1", "2", "3"]]);
    }));

  it("An engine that begins anew before the first message is reported", async () => {
    const { backplane, receivers } = byHand();
    const errors = new Errors();
    const topics = new Topics({ backplane, onError: errors.onError });
    const client = await Client.open();
    await topics.subscribe(client.ws, "x").ready;
    const data = sealEnvelope("one", "publisher---", 1);
    receivers.get("x")!.message("x", { data, position: { epoch: "f", offset: 1 } });
    assert.deepEqual(errors.codes, ["messages-missed"]);
    assert.deepEqual(await client.close(), ["one"]);
    await topics.close();
  });

  it("An excluded connection gets no message that a prefix has brought before", () =>
    inVirtualTime(async (time) => {
      const { backplane, receivers } = byHand();
      const published: (string | Uint8Array)[] = [];
      // deno-lint-ignore require-await
      backplane.publish = async (_, data) => void published.push(data);
      const topics = new Topics({ backplane, onError: new Errors().onError });
      const [room, rooms] = [await Client.open(), await Client.open()];
      const ready = [topics.subscribe(rooms.ws, "*").ready, topics.subscribe(room.ws, "x").ready];
      await time.advance(10);
      await Promise.all(ready);
      void topics.publish("x", "one", { except: room.ws });
      await time.advance(10);
      const message = { data: published[0], position: { epoch: "e", offset: 1 } };
      const reading = Promise.withResolvers<HistoryRead>();
      backplane.read = () => reading.promise;
      const receiver = receivers.get("x")!;
      receiver.interrupted(new Error("outage"));
      receiver.restored();
      receivers.get("*")!.message("x", message);
      await time.advance(5000);
      reading.resolve({ recovered: true, messages: [message], position: message.position });
      await time.advance(10);
      assert.deepEqual([await rooms.close(), await room.close()], [["one"], []]);
      await topics.close();
    }));

  it("hooks may subscribe, unsubscribe and end connections", async () => {
    const errors = new Errors();
    const calls: string[] = [];
    const client = await Client.open();
    const doomed = await Client.open();
    const topics: Topics = new Topics({
      onError: errors.onError,
      onFirstSubscriber(name) {
        calls.push(`first ${name}`);
        if (name === "a") topics.subscribe(client.ws, "b");
        if (name === "doomed") doomed.ws.terminate();
        return rest() as never;
      },
      onLastSubscriber(name) {
        calls.push(`last ${name}`);
        if (name === "a" && calls.length < 5) topics.subscribe(client.ws, "a");
      },
    });
    const first = topics.subscribe(client.ws, "a");
    first.unsubscribe();
    await topics.publish("a", "a");
    await topics.publish("b", "b");
    const ending = topics.subscribe(doomed.ws, "doomed");
    await rejection(ending.ready.then(() => doomed.ws.closed));
    await until(() => topics.count("doomed") === 0);
    assert.deepEqual(topics.names, ["b", "a"]);
    assert.deepEqual(await client.close(), ["a", "b"]);
    await until(() => topics.names.length === 0);
    const expected = ["first a", "first b", "last a", "first a", "first doomed", "last doomed"];
    assert.deepEqual(calls.slice(0, 6), expected);
    assert.deepEqual(errors.all, []);
    await topics.close();
  });

  it("a subscription that is disposed twice ends once", () =>
    withTopics({}, async (topics) => {
      const client = await Client.open();
      // Node 22 has no `using`, which calls the method.
      const subscription = topics.subscribe(client.ws, "x");
      const again = topics.subscribe(client.ws, "x");
      subscription[Symbol.dispose]();
      subscription[Symbol.dispose]();
      subscription.unsubscribe();
      await topics.publish("x", "one");
      assert.deepEqual([topics.count("x"), again.sent], [1, 1]);
      assert.deepEqual(await client.close(), ["one"]);
    }));

  it("a process announces at most maxMembers", async () => {
    const engine = new MemoryEngine();
    const presence = { maxMembers: 3 };
    const [near, far] = [1, 2].map(() => new Topics({ backplane: engine.attach(), presence }));
    const client = await Client.open();
    for (let i = 0; i < 5; i++) near.subscribe(client.ws, "x", { presence: i });
    assert.deepEqual(await near.members("x"), [0, 1, 2, 3, 4]);
    while ((await far.members("x")).length === 0) await turn();
    assert.deepEqual(await far.members("x"), [0, 1, 2]);
    await Promise.all([near.close(), far.close(), client.close()]);
  });

  it("a stream that is cancelled while it waits for room ends", () =>
    withTopics({ history: {} }, async (topics) => {
      const { position } = await topics.publish("x", "0");
      for (let i = 1; i < 5; i++) await topics.publish("x", `${i}`);
      const stream = topics.messages("x", { since: position, maxBufferedAmount: 1 });
      await rest();
      await stream.cancel();
      await rest();
      assert.deepEqual(topics.names, []);
    }));

  it("A subscription that ends while it reads the history takes no message with it", () =>
    withTopics({ history: {} }, async (topics) => {
      const { position } = await topics.publish("x", "start");
      for (let i = 0; i < 3; i++) await topics.publish("x", "m".repeat(1_000_000));
      const client = await Client.open({}, false);
      const options = { maxBufferedAmount: 1e9 };
      topics.subscribe(client.ws, "x*", options);
      topics.subscribe(client.ws, "other*", options);
      const reading = topics.subscribe(client.ws, "x", { ...options, since: position });
      await rest();
      for (const text of ["one", "two"]) await topics.publish("x", text);
      reading.unsubscribe();
      await topics.publish("x", "three");
      const got = await client.close();
      assert.deepEqual(got.filter((text) => text.length < 10), ["one", "two", "three"]);
    }));
});
