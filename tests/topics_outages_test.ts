/** Engines that are down, slow, restart, are wiped or send garbage. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { cp, rename, rm } from "node:fs/promises";
import { Redis } from "ioredis";
import type { Backplane } from "../lib/topics/backplane.ts";
import { natsBackplane } from "../lib/topics/nats.ts";
import { redisBackplane, redisStreamsBackplane } from "../lib/topics/redis.ts";
import { type OpenRedis, RedisLine } from "../lib/topics/redis_client.ts";
import { PEERS, unlessThere } from "./interop/peers.ts";
import { it, notApplicable } from "./it.ts";
import { HOST } from "./ports.ts";
import { withoutLeak } from "./resources.ts";
import { held, rejection, turn } from "./support.ts";
import { connectNats, IS_BUN, jetstream, REDIS_CLIENTS } from "./topics/clients.ts";
import { bytesOf, CALL, newTopic, Received } from "./topics/contract.ts";
import { type EngineProcess, startNats, startRedis } from "./topics/engines.ts";

interface Case {
  title: string;
  history: boolean;
  skip?: string;
  start(): Promise<EngineProcess>;
  /** Makes a backplane. Its client is ended by the function that is returned with it. */
  connect(port: number): Promise<[Backplane, () => unknown]>;
  /** Publishes something that is not a message where messages of the topic come. */
  garble?(port: number, topic: string): Promise<unknown>;
}

const redisCases = (["redis", "ioredis", "Bun"] as const).flatMap((name): Case[] => {
  const missing = name === "Bun" && !IS_BUN ? notApplicable("Only Bun has its client") : undefined;
  const shared = {
    skip: missing ?? unlessThere(PEERS.redis).skip,
    start: () => startRedis(true),
    garble: (port: number, topic: string) =>
      withRedis(port, (redis) => redis.publish(`sluice:${topic}`, "?")),
  };
  const connect = (make: typeof redisBackplane) => async (port: number) => {
    const { client, end } = await Promise.resolve(REDIS_CLIENTS[name](port));
    return [make(client), end] as [Backplane, () => unknown];
  };
  return [
    { ...shared, title: `Redis with ${name}`, history: false, connect: connect(redisBackplane) },
    {
      ...shared,
      title: `Redis Streams with ${name}`,
      history: true,
      connect: connect(redisStreamsBackplane),
    },
  ];
});

const natsCases = [false, true].map((history): Case => ({
  title: history ? "JetStream" : "NATS",
  history,
  skip: unlessThere(PEERS.nats).skip,
  start: startNats,
  async connect(port) {
    const connection = await connectNats(port);
    const options = history ? { jetstream: jetstream(connection) } : {};
    return [natsBackplane(connection, options), () => connection.close()];
  },
  garble: !history ? undefined : async (port, topic) => {
    const connection = await connectNats(port);
    connection.publish(`sluice-live.${topic}`, "?");
    await connection.flush();
    await connection.close();
  },
}));

async function withRedis(port: number, use: (redis: Redis) => Promise<unknown>): Promise<void> {
  const redis = new Redis(port, HOST);
  try {
    await use(redis);
  } finally {
    redis.disconnect();
  }
}

/** Runs a test with an engine and two backplanes, and checks that nothing is left. */
async function withEngine(
  { start, connect }: Case,
  run: (engine: EngineProcess, a: Backplane, b: Backplane) => Promise<void>,
): Promise<void> {
  const engine = await start();
  try {
    await withoutLeak(async () => {
      const [a, endA] = await connect(engine.port);
      const [b, endB] = await connect(engine.port);
      try {
        await held(run(engine, a, b));
      } finally {
        await Promise.all([a.close(), b.close()]);
        await Promise.all([endA(), endB()]);
      }
    });
  } finally {
    await engine.stop();
  }
}

/** Publishes until the message has been taken: a publish without history fails with its connection. */
async function insist(backplane: Backplane, topic: string, text: string): Promise<void> {
  for (let isTaken = false; !isTaken;) {
    isTaken = await backplane.publish(topic, bytesOf(text), CALL).then(() => true, () => false);
  }
}

for (const each of [...redisCases, ...natsCases]) {
  const { title, history, skip } = each;
  describe(`An outage of ${title}`, () => {
    it(
      "A killed engine interrupts the subscriptions, which return by themselves",
      { skip },
      async () => {
        await withEngine(each, async (engine, a, b) => {
          const topic = newTopic();
          const received = new Received();
          await a.subscribe(topic, received, CALL);
          const before = await b.publish(topic, bytesOf("before"), CALL);
          await received.count(1);
          await engine.kill();
          await received.until(({ events }) => events.includes("interrupted"));
          await engine.start();
          await received.until(({ events }) => events.includes("restored"));
          await insist(b, topic, "after");
          if (history) {
            const { recovered, messages } = await a.read!(topic, before, CALL);
            assert.deepEqual([recovered, messages.length], [true, 1]);
          }
          await received.count(2);
          assert.deepEqual(received.texts, ["before", "after"]);
          assert.deepEqual(received.events, ["interrupted", "restored"]);
        });
      },
    );

    it("While the engine is down, calls wait and can be given up", { skip }, async () => {
      await withEngine(each, async (engine, a) => {
        const topic = newTopic();
        await a.publish(topic, bytesOf("x"), CALL);
        await engine.kill();
        const controller = new AbortController();
        const call = { signal: controller.signal };
        const calls = [
          a.publish(topic, bytesOf("x"), call),
          a.subscribe(topic, new Received(), call),
          ...history ? [a.read!(topic, undefined, call)] : [],
        ];
        const settled = Promise.allSettled(calls);
        controller.abort(new Error("too late"));
        for (const { status } of await settled) assert.equal(status, "rejected");
        await engine.start();
        await insist(a, topic, "again");
      });
    });

    it("An engine that stands still does not hold a call", { skip }, async () => {
      await withEngine(each, async (engine, a, b) => {
        const topic = newTopic();
        const received = new Received();
        await a.subscribe(topic, received, CALL);
        await b.publish(topic, bytesOf("1"), CALL);
        await engine.pause();
        const signal = AbortSignal.timeout(100);
        const error = await rejection(b.publish(topic, bytesOf("2"), { signal }));
        assert.equal(error.name, "TimeoutError");
        engine.resume();
        await insist(b, topic, "3");
        await received.until(({ texts }) => texts.includes("3"));
        // The engine had the second message already, so that it may have taken it.
        assert.deepEqual(received.texts.filter((text) => text !== "2"), ["1", "3"]);
      });
    });

    const onlyFramed = each.garble === undefined ? notApplicable("All bytes are messages") : skip;
    it(
      "Something that is not a message is reported, and nothing is lost",
      { skip: onlyFramed },
      async () => {
        await withEngine(each, async (engine, a, b) => {
          const topic = newTopic();
          const received = new Received();
          await a.subscribe(topic, received, CALL);
          await each.garble!(engine.port, topic);
          await received.until(({ events }) => events.includes("error"));
          await b.publish(topic, bytesOf("good"), CALL);
          assert.deepEqual(await received.count(1), ["good"]);
          assert.deepEqual(received.events, ["error"]);
        });
      },
    );

    it("A backplane that is closed while the engine is down leaves nothing", { skip }, async () => {
      await withEngine(each, async (engine, a) => {
        const received = new Received();
        await a.subscribe(newTopic(), received, CALL);
        await engine.kill();
        await received.until(({ events }) => events.includes("interrupted"));
        const waiting = rejection(a.publish(newTopic(), bytesOf("x"), CALL));
        await a.close();
        await waiting;
        await rejection(a.publish(newTopic(), bytesOf("x"), CALL));
        await engine.start();
        assert.deepEqual(received.events, ["interrupted"]);
      });
    });
  });
}

describe("A history that is gone", () => {
  const { skip } = unlessThere(PEERS.redis);
  it("A Redis that has lost everything begins a new epoch", { skip }, async () => {
    const volatile = { ...redisCases[1], start: () => startRedis(false) };
    await withEngine(volatile, async (engine, a) => {
      const topic = newTopic();
      const position = await a.publish(topic, bytesOf("1"), CALL);
      await engine.kill();
      await engine.start();
      const later = await a.publish(topic, bytesOf("2"), CALL);
      assert.notEqual(later!.epoch, position!.epoch);
      const read = await a.read!(topic, position, CALL);
      assert.deepEqual(read, { recovered: false, messages: [], position: later });
    });
  });

  it(
    "A Redis that has lost the last messages does not use their offsets again",
    { skip },
    async () => {
      await withEngine(redisCases[1], async (engine, a, b) => {
        const topic = newTopic();
        const received = new Received();
        await a.subscribe(topic, received, CALL);
        const kept = await b.publish(topic, bytesOf("kept"), CALL);
        await cp(engine.folder, `${engine.folder}-copy`, { recursive: true });
        const lost = await b.publish(topic, bytesOf("lost"), CALL);
        await received.count(2);
        await engine.kill();
        await rm(engine.folder, { recursive: true });
        await rename(`${engine.folder}-copy`, engine.folder);
        await engine.start();
        const later = await b.publish(topic, bytesOf("later"), CALL);
        await received.until(({ events }) => events.includes("restored"));
        assert.equal(later!.epoch, lost!.epoch);
        assert.ok(later!.offset > lost!.offset);
        const read = await a.read!(topic, lost, CALL);
        assert.deepEqual(read, { recovered: false, messages: [], position: later });
        const { recovered, messages } = await a.read!(topic, kept, CALL);
        assert.deepEqual([recovered, messages.map(({ position }) => position)], [true, [later]]);
      });
    },
  );

  it("Messages that Redis has left out are read from the history", { skip }, async () => {
    await withEngine(redisCases[1], async (engine, a, b) => {
      const topic = newTopic();
      const received = new Received();
      await a.subscribe(topic, received, CALL);
      const { epoch, offset } = (await b.publish(topic, bytesOf("1"), CALL))!;
      await received.count(1);
      const text = `${epoch}-${offset + 2} ${offset + 1} tlater`;
      await withRedis(engine.port, (redis) => redis.publish(`sluice:${topic}`, text));
      await received.count(2);
      assert.deepEqual(received.events, ["interrupted", "restored"]);
    });
  });

  it("A wiped JetStream begins a new epoch", unlessThere(PEERS.nats), async () => {
    await withEngine(natsCases[1], async (engine, a, b) => {
      const topic = newTopic();
      const received = new Received();
      await a.subscribe(topic, received, CALL);
      const position = await b.publish(topic, bytesOf("1"), CALL);
      const connection = await connectNats(engine.port);
      await (await jetstream(connection).jetstreamManager()).streams.delete("sluice");
      await connection.close();
      const later = await b.publish(topic, bytesOf("2"), CALL);
      assert.notEqual(later!.epoch, position!.epoch);
      const read = await a.read!(topic, position, CALL);
      assert.deepEqual([read.recovered, read.position], [false, later]);
    });
  });

  it("Only the last messages are kept, and a position before them is gone", { skip }, async () => {
    for (const each of [redisCases[1], natsCases[1]]) {
      const small: Case = each.title === "JetStream"
        ? {
          ...each,
          async connect(port) {
            const connection = await connectNats(port);
            const options = { jetstream: jetstream(connection), size: 3 };
            return [natsBackplane(connection, options), () => connection.close()];
          },
        }
        : {
          ...each,
          connect: (port) => {
            const { client, end } = REDIS_CLIENTS.redis(port);
            return Promise.resolve([redisStreamsBackplane(client, { size: 3 }), end]);
          },
        };
      await withEngine(small, async (_, a) => {
        const topic = newTopic();
        const positions = [];
        for (let i = 0; i < 6; i++) positions.push(await a.publish(topic, bytesOf(`${i}`), CALL));
        for (const [i, position] of positions.entries()) {
          const { recovered, messages } = await a.read!(topic, position, CALL);
          // JetStream tells whether messages after a position are gone only if it still has one before.
          const least = each.title === "JetStream" ? 3 : 2;
          assert.equal(recovered, i >= least, `${each.title}, position ${i}`);
          assert.equal(messages.length, recovered ? 5 - i : 0);
        }
      });
    }
  });
});

describe("A connection of Redis that has ended", () => {
  it("Its calls reject, so that no other call waits for them", async () => {
    const never = new Promise<never>(() => {});
    const cuts: (() => void)[] = [];
    const calls: string[] = [];
    const open: OpenRedis = ({ end }) => {
      const nth = cuts.push(() => end(new Error("cut")));
      // The first connection leaves its calls waiting, as clients do with calls after the end.
      const answer = async (call: string) => {
        calls.push(`${call} ${nth}`);
        if (nth === 1 && call !== "command") await never;
      };
      return {
        opened: Promise.resolve(),
        command: () => answer("command"),
        subscribe: () => answer("subscribe"),
        unsubscribe: () => answer("unsubscribe"),
        destroy: () => {},
      };
    };
    const line = new RedisLine(open, { message() {}, up: () => Promise.resolve(), down() {} });
    try {
      const first = await line.ready(CALL.signal);
      const waiting = rejection(first.subscribe("x", false));
      cuts[0]();
      await waiting;
      assert.match((await rejection(first.unsubscribe("x", false))).message, /has ended/);
      const second = await line.ready(CALL.signal);
      await second.subscribe("x", false);
      assert.deepEqual(calls, ["subscribe 1", "unsubscribe 1", "subscribe 2"]);
    } finally {
      line.close();
    }
  });
});

describe("A message that is published again", () => {
  it(
    "It is in the stream once, although the first confirmation was lost",
    unlessThere(PEERS.redis),
    async () => {
      const redis = await startRedis();
      const client = new Redis(redis.port, HOST, { lazyConnect: true });
      let lost = 0;
      const duplicate = client.duplicate.bind(client);
      client.duplicate = (options) => {
        const made = duplicate(options);
        const call = made.call.bind(made) as (...args: string[]) => Promise<unknown>;
        made.call = async (...args: unknown[]) => {
          const result = await call(...args as string[]);
          if (String(args[1]).includes("XADD") && lost++ === 0) {
            throw new Error(
              "Connection is closed.",
            );
          }
          return result;
        };
        return made;
      };
      const backplane = redisStreamsBackplane(client);
      try {
        const topic = newTopic();
        const received = new Received();
        await backplane.subscribe(topic, received, CALL);
        const { position } = await backplane.read!(topic, undefined, CALL);
        const first = await backplane.publish(topic, bytesOf("once"), CALL);
        const second = await backplane.publish(topic, bytesOf("next"), CALL);
        assert.equal(lost, 3);
        assert.deepEqual([first!.offset, second!.offset], [
          position.offset + 1,
          position.offset + 2,
        ]);
        assert.equal((await backplane.read!(topic, position, CALL)).messages.length, 2);
        assert.deepEqual(await received.count(2), ["once", "next"]);
      } finally {
        await backplane.close();
        client.disconnect();
        await redis.stop();
      }
    },
  );
});

/** A client in the manner of ioredis, which answers each command in a later turn. */
function ioRedis(answer: (...args: string[]) => unknown) {
  const client = {
    duplicate: () => client,
    connect: () => Promise.resolve(),
    psubscribe() {},
    on() {},
    disconnect() {},
    async call(...args: string[]) {
      await turn();
      return await answer(...args);
    },
  };
  return client;
}

describe("Messages that are published again", () => {
  it("No later message overtakes them", async () => {
    const answers = [
      "READONLY You can't write against a read only replica.",
      "LOADING Redis is loading.",
    ];
    const taken: string[] = [];
    const backplane = redisStreamsBackplane(ioRedis((...args) => {
      const answer = args[1]?.includes("XADD") ? answers.shift() : undefined;
      if (answer !== undefined) throw new Error(answer);
      // The message is the argument before the size and the time.
      if (args[1]?.includes("XADD")) taken.push(args[9]);
      return `1-${taken.length}`;
    }));
    const first = ["1", "2"].map((text) => backplane.publish("x", bytesOf(text), CALL));
    while (answers.length > 0) await turn();
    const later: Promise<unknown>[] = [];
    for (let i = 3; taken.length < 2; i++) {
      later.push(backplane.publish("x", bytesOf(`${i}`), CALL));
      await turn();
    }
    await Promise.all([...first, ...later]);
    await backplane.close();
    assert.deepEqual(taken, taken.map((_, i) => `t${i + 1}`));
  });

  it("No later message overtakes one whose failure the client reports later", async () => {
    const taken: string[] = [];
    let failures = 0;
    const backplane = redisStreamsBackplane(ioRedis(async (...args) => {
      if (!args[1]?.includes("XADD")) return "";
      if (failures < 2) {
        // As ioredis does, if a connection is lost while the first command waits.
        const isFirst = failures++ === 0;
        for (let i = 0; isFirst && i < 10; i++) await turn();
        throw new Error(isFirst ? "Connection is closed." : "Stream isn't writeable");
      }
      taken.push(args[9]);
      return `1-${taken.length}`;
    }));
    await Promise.all(["1", "2"].map((text) => backplane.publish("x", bytesOf(text), CALL)));
    await backplane.close();
    assert.deepEqual(taken, ["t1", "t2"]);
  });

  it("No later message overtakes one that is published while Redis loads its file", async () => {
    const taken: string[] = [];
    const lookedFor: string[] = [];
    let isLoading = true;
    const backplane = redisStreamsBackplane(ioRedis((...args) => {
      if (args[0] === "INFO") return "run_id:1";
      if (isLoading) {
        // The load ends after the first command that is refused.
        isLoading = false;
        throw new Error("LOADING Redis is loading the dataset in memory");
      }
      if (args[0] === "PING") return "PONG";
      taken.push(args[9]);
      lookedFor.push(args.at(-1)!);
      return `1-${taken.length}`;
    }));
    await Promise.all(["1", "2"].map((text) => backplane.publish("x", bytesOf(text), CALL)));
    await backplane.close();
    assert.deepEqual(taken, ["t1", "t2"]);
    // Neither was sent before, so Redis need not look for them in its history.
    assert.deepEqual(lookedFor, ["0", "0"]);
  });

  it("publish() rejects if Redis refuses a message and takes the next one", async () => {
    const answers: (string | undefined)[] = [
      "NOREPLICAS Not enough good replicas to write.",
      undefined,
      "BUSY Redis is busy running a script.",
    ];
    const taken: string[] = [];
    const backplane = redisStreamsBackplane(ioRedis((...args) => {
      if (!args[1]?.includes("XADD")) return "";
      const answer = answers.shift();
      if (answer !== undefined) throw new Error(answer);
      taken.push(args[9]);
      return `1-${taken.length}`;
    }));
    const [first, ...others] = ["1", "2", "3"].map((text) =>
      backplane.publish("x", bytesOf(text), CALL)
    );
    assert.match((await rejection(first)).message, /taken a later one of the topic/);
    await Promise.all(others);
    await backplane.close();
    assert.deepEqual(taken, ["t2", "t3"]);
  });
});
