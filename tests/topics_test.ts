import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Topics } from "../lib/topics.ts";
import { serve } from "../lib/server/server.ts";
import { connect } from "../lib/client/client.ts";
import { collect, rejection, until } from "./support.ts";
import { withoutLeak, withoutTimers } from "./resources.ts";
import { Client, Errors, FlakyEngine, withTopics } from "./topics/audience.ts";
import type { Message } from "../lib/core/message.ts";

describe("Topics in one process", () => {
  it("give a message to all connections that have subscribed, as text or bytes", () =>
    withTopics({}, async (topics) => {
      const clients = await Promise.all([Client.open(), Client.open(), Client.open()]);
      for (const { ws } of clients.slice(0, 2)) topics.subscribe(ws, "room/42");
      topics.subscribe(clients[2].ws, "room/43");
      const bytes = new Uint8Array([1, 2, 255]);
      for (const message of ["Grüße 😀", bytes, ""]) await topics.publish("room/42", message);
      const got = await Promise.all(clients.map((client) => client.close()));
      assert.deepEqual(got, [["Grüße 😀", bytes, ""], ["Grüße 😀", bytes, ""], []]);
    }));

  it("work as the example of the issue says, over sockets, and leak nothing", () =>
    withoutLeak(async () => {
      const topics = new Topics();
      const server = await serve({ port: 0 }, async (ws) => {
        // Node 22 cannot read `using`.
        const subscription = topics.subscribe(ws, "room/42");
        for await (const message of ws) await topics.publish("room/42", message, { except: ws });
        subscription[Symbol.dispose]();
      });
      const [a, b] = [await connect(server.url!), await connect(server.url!)];
      await until(() => topics.count("room/42") === 2);
      await a.send("from a");
      assert.equal(await b.receive(), "from a");
      await b.send("from b");
      assert.equal(await a.receive(), "from b");
      await a.close();
      await until(() => topics.count("room/42") === 1);
      b.terminate();
      await until(() => topics.count("room/42") === 0);
      assert.deepEqual(topics.names, []);
      await server.shutdown();
      await topics.close();
    }));

  it("give a connection each message once, however many of its subscriptions match", () =>
    withTopics({}, async (topics) => {
      const client = await Client.open();
      const names = ["room/*", "room/42", "*", "room/4*", "room/42"];
      const all = names.map((name) => topics.subscribe(client.ws, name));
      await topics.publish("room/42", "one");
      await topics.publish("room/7", "two");
      await topics.publish("other", "three");
      assert.deepEqual(await client.close(), ["one", "two", "three"]);
      assert.equal(all.reduce((sum, { sent }) => sum + sent, 0), 3);
      // The most specific subscription delivers, the oldest one among equals.
      assert.deepEqual(all.map(({ sent }) => sent), [1, 1, 1, 0, 0]);
    }));

  it("end a subscription with unsubscribe(), with using, and with the connection", () =>
    withTopics({}, async (topics) => {
      const client = await Client.open();
      const disposed = topics.subscribe(client.ws, "a");
      assert.equal(topics.count("a"), 1);
      disposed[Symbol.dispose]();
      assert.equal(topics.count("a"), 0);
      const subscription = topics.subscribe(client.ws, "a");
      subscription.unsubscribe();
      subscription.unsubscribe();
      await topics.publish("a", "nobody");
      topics.subscribe(client.ws, "b");
      topics.subscribe(client.ws, "c*");
      client.ws.terminate();
      await until(() => topics.names.length === 0);
      const late = topics.subscribe(client.ws, "a");
      assert.equal((await rejection<DOMException>(late.ready)).name, "InvalidStateError");
      assert.deepEqual(topics.names, []);
      assert.deepEqual(client.got, []);
    }));

  it("leave out the connections of except, once", () =>
    withTopics({}, async (topics) => {
      const [a, b, c] = await Promise.all([Client.open(), Client.open(), Client.open()]);
      for (const { ws } of [a, b, c]) topics.subscribe(ws, "x");
      await topics.publish("x", "1", { except: a.ws });
      await topics.publish("x", "2", { except: [a.ws, b.ws] });
      await topics.publish("x", "3", { except: [] });
      assert.deepEqual(await a.close(), ["3"]);
      assert.deepEqual(await b.close(), ["1", "3"]);
      assert.deepEqual(await c.close(), ["1", "2", "3"]);
    }));

  it("know subscribers and names, and call the hooks", async () => {
    const calls: string[] = [];
    const hooks = {
      onFirstSubscriber: (name: string) => void calls.push(`first ${name}`),
      onLastSubscriber: (name: string) => void calls.push(`last ${name}`),
    };
    await withTopics(hooks, async (topics) => {
      const [a, b] = await Promise.all([Client.open(), Client.open()]);
      const one = topics.subscribe(a.ws, "x");
      const again = topics.subscribe(a.ws, "x");
      const two = topics.subscribe(b.ws, "x");
      const stream = topics.messages("x");
      assert.deepEqual(topics.subscribers("x"), [a.ws, b.ws]);
      assert.deepEqual([topics.count("x"), topics.names], [4, ["x"]]);
      for (const each of [one, again, two]) each.unsubscribe();
      assert.deepEqual([topics.subscribers("x"), topics.count("x")], [[], 1]);
      assert.deepEqual(calls, ["first x"]);
      await stream.cancel();
      assert.deepEqual(calls, ["first x", "last x"]);
      await Promise.all([a.close(), b.close()]);
    });
  });

  it("tell onError of hooks that throw, and go on", async () => {
    const errors = new Errors();
    const fail = () => {
      throw new Error("hook");
    };
    const topics = new Topics({
      onError: errors.onError,
      onFirstSubscriber: fail,
      onLastSubscriber: fail,
    });
    const client = await Client.open();
    topics.subscribe(client.ws, "x").unsubscribe();
    assert.equal(errors.all.length, 2);
    await client.close();
    await topics.close();
  });

  it("keep one order for all subscribers", () =>
    withTopics({}, async (topics) => {
      const clients = await Promise.all(Array.from({ length: 5 }, () => Client.open()));
      for (const { ws } of clients) topics.subscribe(ws, "x");
      const texts = Array.from({ length: 100 }, (_, i) => `${i}`);
      await Promise.all(texts.map((text) => topics.publish("x", text)));
      for (const client of clients) assert.deepEqual(await client.close(), texts);
    }));

  it("give all the same text if it has half of a surrogate pair", () =>
    withTopics({ history: {} }, async (topics) => {
      const client = await Client.open();
      topics.subscribe(client.ws, "x");
      const reader = topics.messages("x").getReader();
      await topics.publish("x", "a\ud800b");
      assert.equal((await reader.read()).value?.message, "a\ufffdb");
      assert.deepEqual(await client.close(), ["a\ufffdb"]);
      await reader.cancel();
    }));

  it("take a copy of bytes when they are published", () =>
    withTopics({}, async (topics) => {
      const client = await Client.open();
      topics.subscribe(client.ws, "x");
      const bytes = new Uint8Array(20_000).fill(7);
      void topics.publish("x", bytes);
      bytes.fill(0);
      const [got] = await client.close();
      assert.deepEqual(got, new Uint8Array(20_000).fill(7));
    }));
});

/** A message that fills the buffer of the transport in memory. */
const LARGE = new Uint8Array(100_000);

const firsts = (messages: readonly Message[]) => messages.map((message) => message[0]);

describe("Slow subscribers of topics", () => {
  const cases = [
    { slow: "close", counts: [4, 0, 1], state: "closing", gets: [0, 1, 2, 3] },
    { slow: "terminate", counts: [4, 0, 1], state: "closed", gets: [0, 1] },
    { slow: "drop-newest", counts: [4, 6, 0], state: "open", gets: [0, 1, 2, 3] },
    { slow: "drop-oldest", counts: [10, 0, 0], state: "open", gets: [0, 1, 9] },
  ] as const;
  for (const { slow, state, counts, gets } of cases) {
    it(`${slow}: sent, missed and closed are ${counts}, and the others get everything`, () =>
      withTopics({ maxBufferedAmount: 250_000 }, async (topics) => {
        const good = await Client.open();
        const bad = await Client.open({}, false);
        topics.subscribe(good.ws, "x");
        const subscription = topics.subscribe(bad.ws, "x", { slow });
        for (let i = 0; i < 10; i++) {
          await topics.publish("x", LARGE.slice().fill(i, 0, 1));
          await until(() => good.got.length === i + 1);
        }
        const { sent, missed, closed } = subscription;
        assert.deepEqual([sent, missed, closed], counts);
        assert.equal(bad.ws.state, state);
        assert.deepEqual(firsts(good.got), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        bad.wake();
        await until(() => bad.got.length >= gets.length);
        const got = firsts(await bad.close());
        // How many of the messages that wait fit into the limit depends on the transport.
        assert.deepEqual([...got.slice(0, gets.length - 1), got.at(-1)], gets);
        assert.deepEqual(got, got.toSorted());
        await good.close();
      }));
  }
});

describe("Names of topics", () => {
  const long = "x".repeat(255);
  const cases: [name: unknown, error: string | undefined, asPattern?: string | undefined][] = [
    ["a", undefined, undefined],
    [long, undefined, undefined],
    ["ü".repeat(127), undefined, undefined],
    ["a b/😀.>#+?[", undefined, undefined],
    ["", "RangeError", "RangeError"],
    [`${long}x`, "RangeError", "RangeError"],
    ["ü".repeat(128), "RangeError", "RangeError"],
    ["a\nb", "RangeError", "RangeError"],
    ["a\u0000", "RangeError", "RangeError"],
    ["\u007f", "RangeError", "RangeError"],
    ["\u0085", "RangeError", "RangeError"],
    ["\ud800", "RangeError", "RangeError"],
    ["a\udc00b", "RangeError", "RangeError"],
    ["*", "RangeError", undefined],
    ["room/*", "RangeError", undefined],
    ["room/*/x", "RangeError", "RangeError"],
    ["**", "RangeError", "RangeError"],
    [undefined, "TypeError", "TypeError"],
    [42, "TypeError", "TypeError"],
    [null, "TypeError", "TypeError"],
    [["a"], "TypeError", "TypeError"],
  ];
  for (const [name, error, asPattern] of cases) {
    const shown = typeof name === "string" && name.length > 40
      ? `${name.slice(0, 2)}… (${name.length})`
      : JSON.stringify(name);
    it(`${shown}: publish ${error ?? "takes it"}, subscribe ${asPattern ?? "takes it"}`, () =>
      withTopics({}, async (topics) => {
        const client = await Client.open();
        const publishing = topics.publish(name as string, "x");
        if (error === undefined) await publishing;
        else assert.equal((await rejection(publishing)).name, error);
        for (
          const use of [
            () => void topics.subscribe(client.ws, name as string),
            () => void topics.messages(name as string),
          ]
        ) {
          if (asPattern === undefined) use();
          else assert.throws(use, { name: asPattern });
        }
        assert.equal(topics.names.length, asPattern === undefined ? 1 : 0);
        await client.close();
      }));
  }
});

describe("Bad input of topics", () => {
  const options: [options: object, name: string][] = [
    [{ unknown: 1 }, "TypeError"],
    [{ backplane: {} }, "TypeError"],
    [{ backplane: new FlakyEngine().connect(), history: {} }, "TypeError"],
    [{ history: { size: 0 } }, "RangeError"],
    [{ history: { size: 1.5 } }, "RangeError"],
    [{ history: { length: 5 } }, "TypeError"],
    [{ codec: { encode: String } }, "TypeError"],
    [{ schema: {} }, "TypeError"],
    [{ codec: { encode: String, decode: String }, schema: { "~standard": {} } }, "TypeError"],
    [{ presence: "yes" }, "TypeError"],
    [{ presence: { ttl: -1 } }, "RangeError"],
    [{ presence: { ttl: 0 } }, "RangeError"],
    [{ presence: { ttl: Infinity } }, "RangeError"],
    [{ presence: { ttl: 100.5 } }, "RangeError"],
    [{ publishTimeout: "5s" }, "TypeError"],
    [{ maxTopicsPerConnection: 0 }, "RangeError"],
    [{ slow: "wait" }, "RangeError"],
    [{ onError: 1 }, "TypeError"],
  ];
  for (const [i, [each, name]] of options.entries()) {
    it(`new Topics() throws a ${name} for ${Object.keys(each)} (${i})`, () => {
      assert.throws(() => new Topics(each as never), { name });
    });
  }

  const since: [value: unknown, name: string][] = [
    ["", "RangeError"],
    ["epoch", "RangeError"],
    ["epoch:", "RangeError"],
    [":1", "RangeError"],
    ["e:-1", "RangeError"],
    ["e:1.5", "RangeError"],
    ["e:01", "RangeError"],
    ["e:9007199254740993", "RangeError"],
    ["e e:1", "RangeError"],
    [`${"e".repeat(65)}:1`, "RangeError"],
    [{ epoch: "e", offset: -1 }, "RangeError"],
    [{ epoch: "", offset: 1 }, "RangeError"],
    [{ epoch: "e", offset: "1" }, "TypeError"],
    [{}, "TypeError"],
    [5, "TypeError"],
    [null, "TypeError"],
  ];
  for (const [value, name] of since) {
    it(`since: ${JSON.stringify(value)} throws a ${name} and leaves no subscription`, () =>
      withTopics({ history: {} }, async (topics) => {
        const client = await Client.open();
        assert.throws(() => topics.subscribe(client.ws, "x", { since: value as never }), { name });
        assert.throws(() => topics.messages("x", { since: value as never }), { name });
        assert.deepEqual(topics.names, []);
        await client.close();
      }));
  }

  const messages: [value: unknown, message: string][] = [
    [undefined, "undefined"],
    [() => {}, "a function"],
    [Symbol("x"), "a symbol"],
    [1n, "BigInt"],
    [Promise.resolve("forgotten await"), "Promise"],
    [new ArrayBuffer(2), "ArrayBuffer"],
    [new Uint16Array(2), "Uint16Array"],
    [new Blob(["x"]), "Blob"],
    [new Map([[1, 2]]), "Map"],
    [new Error("why"), "Error"],
  ];
  for (const [value, shown] of messages) {
    it(`publish() rejects with a TypeError for ${shown}`, () =>
      withTopics({}, async (topics) => {
        const client = await Client.open();
        topics.subscribe(client.ws, "x");
        const error = await rejection(topics.publish("x", value as never));
        assert.equal(error.name, "TypeError");
        assert.ok(error.message.includes(shown), error.message);
        await topics.publish("x", "still there");
        assert.deepEqual(await client.close(), ["still there"]);
      }));
  }

  it("what is not a connection is refused", () =>
    withTopics({}, async (topics) => {
      for (const value of [undefined, null, {}, "ws", new Map()]) {
        assert.throws(() => topics.subscribe(value as never, "x"), TypeError);
      }
      const serving = topics.serve(undefined as never, {});
      assert.equal((await rejection<Error & { code: string }>(serving)).code, "wrong-type");
      const publishing = topics.publish("x", "y", { except: {} as never });
      assert.equal((await rejection(publishing)).name, "TypeError");
    }));

  it("a connection has at most maxTopicsPerConnection subscriptions", () =>
    withTopics({ maxTopicsPerConnection: 2 }, async (topics) => {
      const client = await Client.open();
      const first = topics.subscribe(client.ws, "a");
      topics.subscribe(client.ws, "b");
      const code = { name: "InvalidStateError", errorCode: "too-many-topics" };
      assert.throws(() => topics.subscribe(client.ws, "c"), code);
      assert.deepEqual(topics.names, ["a", "b"]);
      first.unsubscribe();
      topics.subscribe(client.ws, "c");
      await client.close();
    }));

  it("after close() everything is refused, and nothing is left", async () => {
    await withoutTimers(async () => {
      const topics = new Topics({ presence: true });
      const client = await Client.open();
      const subscription = topics.subscribe(client.ws, "x", { presence: "me" });
      const pending = collect(topics.messages("x"));
      await subscription.ready;
      await topics.publish("x", "y");
      await topics.close();
      await topics.close();
      assert.equal((await pending).length, 1);
      assert.throws(() => topics.subscribe(client.ws, "x"), { name: "InvalidStateError" });
      assert.throws(() => topics.messages("x"), { name: "InvalidStateError" });
      assert.equal((await rejection(topics.publish("x", "y"))).name, "InvalidStateError");
      assert.equal((await rejection(topics.members("x"))).name, "InvalidStateError");
      assert.equal(client.ws.state, "open");
      assert.deepEqual(await client.close(), ["y"]);
    });
  });
});
