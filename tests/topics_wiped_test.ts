/** Engines whose history is deleted, in whole or in part, while topics use them. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import type { JetStreamManager } from "@nats-io/jetstream";
import { Redis } from "ioredis";
import { type Backplane, parsePosition } from "../lib/topics/backplane.ts";
import { natsBackplane } from "../lib/topics/nats.ts";
import { redisStreamsBackplane } from "../lib/topics/redis.ts";
import { Topics } from "../lib/topics/topics.ts";
import { PEERS, unlessThere } from "./interop/peers.ts";
import { it } from "./it.ts";
import { HOST } from "./ports.ts";
import { held, rejection, until } from "./support.ts";
import { Client, Errors } from "./topics/audience.ts";
import { connectNats, jetstream, REDIS_CLIENTS } from "./topics/clients.ts";
import { type EngineProcess, startNats, startRedis } from "./topics/engines.ts";

type Wipe<T> = [title: string, isNewEpoch: boolean, wipe: (admin: T) => Promise<unknown>];

interface Kind<T> {
  title: string;
  skip: string | undefined;
  start(): Promise<EngineProcess>;
  connect(port: number): Promise<[Backplane, () => unknown]>;
  asAdmin(engine: EngineProcess, run: (admin: T) => Promise<unknown>): Promise<void>;
  wipes: Wipe<T>[];
}

const keys = (...kinds: string[]) => kinds.map((kind) => `sluice:{t:room/1}:${kind}`);

const overRedis: Kind<Redis> = {
  title: "Redis Streams",
  skip: unlessThere(PEERS.redis).skip,
  start: () => startRedis(),
  connect(port) {
    const { client, end } = REDIS_CLIENTS.redis(port);
    return Promise.resolve([redisStreamsBackplane(client), end]);
  },
  async asAdmin({ port }, run) {
    const redis = new Redis(port, HOST);
    try {
      await run(redis);
    } finally {
      redis.disconnect();
    }
  },
  wipes: [
    ["whose stream is deleted", false, (redis) => redis.del(keys("stream"))],
    ["whose position is deleted", true, (redis) => redis.del(keys("position"))],
    ["whose stream and position are deleted", true, (redis) => {
      return redis.del(keys("stream", "position"));
    }],
    ["whose position is no position", true, (redis) => redis.set(keys("position")[0], "?")],
    ["whose position is too large", true, (redis) => {
      return redis.set(keys("position")[0], `1-${Number.MAX_SAFE_INTEGER} `);
    }],
    ["that is flushed", true, (redis) => redis.flushall()],
    ["whose stream is trimmed", false, (redis) => redis.xtrim(keys("stream")[0], "MAXLEN", 0)],
  ],
};

const overJetStream: Kind<JetStreamManager> = {
  title: "JetStream",
  skip: unlessThere(PEERS.nats).skip,
  start: startNats,
  async connect(port) {
    const connection = await connectNats(port);
    const backplane = natsBackplane(connection, { jetstream: jetstream(connection) });
    return [backplane, () => connection.close()];
  },
  async asAdmin({ port }, run) {
    const connection = await connectNats(port);
    try {
      await run(await jetstream(connection).jetstreamManager());
    } finally {
      await connection.close();
    }
  },
  wipes: [
    ["whose stream is deleted", true, ({ streams }) => streams.delete("sluice")],
    ["whose stream is deleted and made again", true, async ({ streams }) => {
      const { config } = await streams.info("sluice");
      await streams.delete("sluice");
      await streams.add(config);
    }],
    ["whose stream is purged", false, ({ streams }) => streams.purge("sluice")],
  ],
};

interface World<T> {
  near: Topics;
  far: Topics;
  engine: EngineProcess;
  errors: Errors;
  asAdmin(run: (admin: T) => Promise<unknown>): Promise<void>;
}

async function withWorld<T>(kind: Kind<T>, run: (world: World<T>) => Promise<void>): Promise<void> {
  const engine = await kind.start();
  const ends: (() => unknown)[] = [];
  const errors = new Errors();
  const connect = async () => {
    const [backplane, end] = await kind.connect(engine.port);
    ends.push(end);
    return new Topics({ backplane, presence: true, onError: errors.onError });
  };
  const [near, far] = [await connect(), await connect()];
  const asAdmin = (work: (admin: T) => Promise<unknown>) => kind.asAdmin(engine, work);
  try {
    await held(run({ near, far, engine, errors, asAdmin }));
  } finally {
    await Promise.all([near.close(), far.close()]);
    for (const end of ends) await end();
    await engine.stop();
  }
}

/** The texts and positions of the messages that a client with `framed` has got. */
function framesOf({ got }: Client): { text: string; epoch: string }[] {
  return got.map((message) => {
    const [line, text] = String(message).split("\n");
    return { text, epoch: parsePosition(JSON.parse(line).position).epoch };
  });
}

const textsOf = (client: Client) => framesOf(client).map(({ text }) => text);

/** Publishes numbers until all clients have got one of them. */
async function publishUntilSeen(topics: Topics, clients: Client[], prefix: string): Promise<void> {
  const isSeen = (client: Client) => textsOf(client).some((text) => text.startsWith(prefix));
  for (let i = 0; !clients.every(isSeen); i++) {
    await topics.publish("room/1", `${prefix}${i}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function tests<T>(kind: Kind<T>): void {
  const { skip } = kind;
  for (const [title, isNewEpoch, wipe] of kind.wipes) {
    for (const hasTopic of [true, false]) {
      const shown = hasTopic ? "a topic and a prefix" : "a prefix only";
      it(`An engine ${title}, with subscriptions to ${shown}`, { skip }, async () => {
        await withWorld(kind, async ({ near, far, asAdmin }) => {
          const rooms = await Client.open();
          const clients = [rooms];
          await near.subscribe(rooms.ws, "room/*", { framed: true }).ready;
          if (hasTopic) {
            const room = await Client.open();
            clients.push(room);
            await near.subscribe(room.ws, "room/1", { framed: true }).ready;
          }
          const first = await far.publish("room/1", "first");
          await far.publish("room/1", "second");
          await until(() => clients.every(({ got }) => got.length === 2));
          await asAdmin(wipe);

          await publishUntilSeen(far, clients, "far");
          await publishUntilSeen(near, clients, "near");
          const last = await far.publish("room/1", "last");
          await until(() => clients.every((client) => textsOf(client).includes("last")));

          for (const client of clients) {
            const texts = textsOf(client);
            assert.equal(new Set(texts).size, texts.length, `twice: ${texts}`);
            assert.equal(framesOf(client).at(-1)!.epoch, last.position!.epoch);
          }
          assert.equal(last.position!.epoch !== first.position!.epoch, isNewEpoch);
          for (const topics of [near, far]) {
            const client = await Client.open();
            const late = topics.subscribe(client.ws, "room/1", { since: first.position });
            assert.equal((await late.ready).recovered, false);
            const now = topics.subscribe(client.ws, "room/1", { since: last.position });
            assert.deepEqual(await now.ready, { recovered: true, position: last.position });
            await client.close();
          }
          for (const client of clients) await client.close();
        });
      });
    }

    it(`An engine ${title}, where nobody publishes`, { skip }, async () => {
      await withWorld(kind, async ({ near, far, asAdmin }) => {
        const client = await Client.open();
        await near.subscribe(client.ws, "room/1").ready;
        const { position } = await far.publish("room/1", "first");
        await until(() => client.got.length === 1);
        await asAdmin(wipe);
        const other = await Client.open();
        // A position whose message is gone may be the last one all the same.
        const { recovered } = await near.subscribe(other.ws, "room/1", { since: position }).ready;
        assert.ok(!isNewEpoch || !recovered);
        await publishUntil(far, client);
        await Promise.all([client.close(), other.close()]);
      });
    });
  }
}

/** Publishes until a client has got one more message. */
async function publishUntil(topics: Topics, client: Client): Promise<void> {
  const before = client.got.length;
  for (let i = 0; client.got.length === before; i++) {
    await topics.publish("room/1", `more ${i}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe("A wiped Redis", () => {
  const { skip } = overRedis;
  tests(overRedis);

  it("A Redis that comes back empty begins anew", { skip }, async () => {
    await withWorld(overRedis, async ({ near, far, engine }) => {
      const [room, rooms] = [await Client.open(), await Client.open()];
      await near.subscribe(room.ws, "room/1", { framed: true }).ready;
      await near.subscribe(rooms.ws, "room/*", { framed: true }).ready;
      const first = await far.publish("room/1", "first");
      await until(() => room.got.length === 1 && rooms.got.length === 1);
      await engine.kill();
      await engine.start();
      await publishUntilSeen(far, [room, rooms], "far");
      for (const client of [room, rooms]) {
        const texts = textsOf(client);
        assert.equal(new Set(texts).size, texts.length, `twice: ${texts}`);
      }
      const late = near.subscribe((await Client.open()).ws, "room/1", { since: first.position });
      assert.equal((await late.ready).recovered, false);
    });
  });

  it("A key of the wrong type rejects publish(), and nothing is lost later", { skip }, async () => {
    for (const kind of ["stream", "position"]) {
      await withWorld(overRedis, async ({ near, far, asAdmin, errors }) => {
        const client = await Client.open();
        await near.subscribe(client.ws, "room/1", { framed: true }).ready;
        const { position } = await far.publish("room/1", "first");
        const [key] = keys(kind);
        await asAdmin(async (redis) => {
          await redis.del(key);
          await redis.hset(key, "a", "b");
        });
        const error = await rejection<Error & { code: string; cause: Error }>(
          far.publish("room/1", "rejected"),
        );
        assert.equal(error.code, "backplane-failed");
        assert.match(error.cause.message, /WRONGTYPE/);
        const other = await Client.open();
        const { ready } = near.subscribe(other.ws, "room/1", {
          since: { ...position!, offset: 0 },
        });
        await until(() => errors.all.length > 0);
        await asAdmin((redis) => redis.del(key));
        assert.equal((await ready).recovered, false);
        await publishUntilSeen(far, [client], "far");
        assert.deepEqual(textsOf(client).slice(0, 1), ["first"]);
        await Promise.all([client.close(), other.close()]);
      });
    }
  });
});

describe("A wiped JetStream", () => {
  const { skip } = overJetStream;
  tests(overJetStream);

  it("The members are announced again when their stream is deleted", { skip }, async () => {
    await withWorld(overJetStream, async ({ near, far, asAdmin }) => {
      const [ada, ben] = [await Client.open(), await Client.open()];
      near.subscribe(ada.ws, "room/1", { presence: "ada" });
      while ((await far.members("room/1")).length < 1);
      await asAdmin(({ streams }) => streams.delete("sluice-members"));
      near.subscribe(ben.ws, "room/1", { presence: "ben" });
      while ((await far.members("room/1")).length < 2);
      assert.deepEqual(await far.members("room/1"), ["ada", "ben"]);
      await Promise.all([ada.close(), ben.close()]);
      while ((await far.members("room/1")).length > 0);
    });
  });
});
