/**
 * Three server processes, one Redis and 300 subscribers. A server is killed, and Redis is killed, and both
 * are started again. The sums say what became of each message at each subscriber.
 */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { reconnect } from "../mod.ts";
import { redisBackplane, redisStreamsBackplane } from "../lib/topics/redis.ts";
import { resumable, Topics } from "../lib/topics.ts";
import { PEERS, unlessThere } from "./interop/peers.ts";
import { it } from "./it.ts";
import { freePort, HOST } from "./ports.ts";
import { Child } from "./programs.ts";
import { held, turn, until as untilTrue } from "./support.ts";
import { IS_BUN, REDIS_CLIENTS } from "./topics/clients.ts";
import { type EngineProcess, startRedis } from "./topics/engines.ts";

const PROGRAM = fileURLToPath(new URL("scenarios/topics_server.ts", import.meta.url));
const SERVERS = 3;
const EACH = 100;
const TOPIC = "news";
/** The clients of the three processes. */
const CLIENTS = ["redis", "ioredis", IS_BUN ? "Bun" : "redis"] as const;

/** A client that counts what it gets. */
class Reader {
  readonly numbers: number[] = [];
  subscribed = 0;
  lost = 0;
  missed = 0;
  readonly done: Promise<void>;

  constructor(url: string, signal: AbortSignal) {
    this.done = this.#run(url, signal).catch((error) => assert.ok(signal.aborted, error));
  }

  async #run(url: string, signal: AbortSignal): Promise<void> {
    const options = { pingInterval: 0, minDelay: 10, maxDelay: 100, signal };
    for await (const event of resumable(reconnect(url, options), { topics: [TOPIC] })) {
      if (event.type === "message") this.numbers.push(Number(event.message));
      else if (event.type === "missed") this.missed++;
      else if (event.type === "subscribed") {
        if (this.subscribed++ > 0 && !event.recovered) this.lost++;
      }
    }
  }
}

interface World {
  /** Waits until the condition is true. A slow machine has time as long as anything comes to a reader. */
  until(condition: () => unknown): Promise<void>;
  redis: EngineProcess;
  topics: Topics;
  readers: Reader[];
  readersOf(server: number): Reader[];
  killServer(server: number): Promise<void>;
  startServer(server: number): Promise<void>;
}

async function withWorld(history: boolean, run: (world: World) => Promise<void>): Promise<void> {
  const redis = await startRedis(true);
  const ports = [await freePort(), await freePort(), await freePort()];
  const servers: Child[] = [];
  const end = new AbortController();
  const { client, end: endClient } = REDIS_CLIENTS.redis(redis.port);
  const backplane = history
    ? redisStreamsBackplane(client, { size: 10_000 })
    : redisBackplane(client);
  const topics = new Topics({ backplane, publishTimeout: 120_000, onError: () => {} });
  const readers: Reader[] = [];
  const until = (condition: () => unknown) =>
    untilTrue(
      condition,
      () => readers.reduce((sum, each) => sum + each.numbers.length + each.subscribed, 0),
    );
  const startServer = async (i: number) => {
    const env = {
      PORT: `${ports[i]}`,
      REDIS: `${redis.port}`,
      CLIENT: CLIENTS[i],
      HISTORY: `${history}`,
    };
    servers[i] = new Child(PROGRAM, { env });
    await servers[i].printed(/port \d+/);
  };
  const killServer = async (i: number) => {
    servers[i].stop("SIGKILL");
    await servers[i].exited;
  };
  try {
    for (let i = 0; i < SERVERS; i++) await startServer(i);
    for (let i = 0; i < SERVERS * EACH; i++) {
      readers.push(new Reader(`ws://${HOST}:${ports[i % SERVERS]}`, end.signal));
    }
    await until(() => readers.every(({ subscribed }) => subscribed === 1));
    const readersOf = (server: number) => readers.filter((_, i) => i % SERVERS === server);
    await run({ until, redis, topics, readers, readersOf, killServer, startServer });
  } catch (error) {
    const states = readers.map(({ numbers, subscribed, lost, missed }) =>
      `${numbers.length}, last ${numbers.at(-1)}, ${subscribed}/${lost}/${missed}`
    );
    throw new Error(`The readers: ${[...new Set(states)].join("; ")}`, { cause: error });
  } finally {
    end.abort();
    for (let i = 0; i < servers.length; i++) await killServer(i);
    await Promise.all(readers.map(({ done }) => done));
    await topics.close();
    endClient();
    await redis.stop();
  }
}

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

describe("Topics over three processes and Redis", () => {
  it(
    "With streams, 300 subscribers get every message once, in order",
    unlessThere(PEERS.redis),
    async () => {
      await withWorld(
        true,
        async ({ until, redis, topics, readers, readersOf, killServer, startServer }) => {
          let published = 0;
          let isEnough = false;
          const witness = readersOf(1)[0];
          const publishing = (async () => {
            while (!isEnough) {
              await topics.publish(TOPIC, `${published++}`);
              // Otherwise a fast publisher would be done before the first server is killed.
              await until(() => witness.numbers.length > published - 10);
            }
          })();
          const after = (count: number) => {
            const goal = published + count;
            return until(() => published >= goal);
          };
          await after(30);
          await killServer(0);
          await after(30);
          await startServer(0);
          await until(() => readersOf(0).every(({ subscribed }) => subscribed >= 2));
          await after(30);
          await redis.kill();
          const atKill = published;
          await redis.start();
          await until(() => published > atKill + 30);
          isEnough = true;
          await publishing;
          await until(() => readers.every((reader) => reader.numbers.length >= published));
          for (const reader of readers) {
            assert.deepEqual(reader.numbers, numbers(0, published));
            assert.deepEqual([reader.lost, reader.missed], [0, 0]);
          }
        },
      );
    },
  );

  it(
    "Without streams, exactly the messages of the outages are lost",
    unlessThere(PEERS.redis),
    async () => {
      await withWorld(
        false,
        async ({ until, redis, topics, readers, readersOf, killServer, startServer }) => {
          let next = 0;
          let refused = 0;
          const publish = async (count: number) => {
            const texts = numbers(next, next += count).map(String);
            const results = await Promise.allSettled(
              texts.map((text) => topics.publish(TOPIC, text)),
            );
            refused += results.filter(({ status }) => status === "rejected").length;
          };
          // A process that is killed takes the messages with it that it has not sent yet.
          const delivered = () =>
            until(() => readers.every(({ numbers }) => numbers.at(-1) === next - 1));
          await publish(20);
          await delivered();
          await killServer(0);
          // 100 subscribers have no server for the messages 20 to 39.
          await publish(20);
          await startServer(0);
          await until(() => readersOf(0).every(({ subscribed }) => subscribed === 2));
          await publish(20);
          await delivered();
          await redis.kill();
          // The messages 60 to 79 are refused by publish(), because there is no Redis.
          await publish(20);
          await redis.start();
          await until(() => readers.every(({ missed }) => missed === 1));
          let isUp = false;
          while (!isUp) isUp = await topics.publish("other", "x").then(() => true, () => false);
          await publish(20);
          await delivered();
          assert.equal(refused, 20);
          const taken = [...numbers(0, 60), ...numbers(80, 100)];
          const inOutage = (number: number) => number >= 20 && number < 40;
          const expected = readers.map((_, i) =>
            i % SERVERS === 0 ? taken.filter((number) => !inOutage(number)) : taken
          );
          assert.deepEqual(readers.map((reader) => reader.numbers), expected);
          const received = readers.reduce((sum, reader) => sum + reader.numbers.length, 0);
          assert.equal(received, 300 * 80 - 100 * 20);
          assert.ok(readersOf(0).every(({ lost }) => lost === 1));
        },
      );
    },
  );
});

describe("Presence over processes and Redis", () => {
  it(
    "A process that is killed is forgotten, and members return after an outage of Redis",
    unlessThere(PEERS.redis),
    async () => {
      const redis = await startRedis();
      const port = await freePort();
      const { client, end: endClient } = REDIS_CLIENTS.redis(redis.port);
      const options = { presence: { ttl: 600 }, onError: () => {} };
      const topics = new Topics({ backplane: redisBackplane(client), ...options });
      const end = new AbortController();
      const start = async () => {
        const env = { PORT: `${port}`, REDIS: `${redis.port}`, CLIENT: "redis", HISTORY: "false" };
        const server = new Child(PROGRAM, { env: { ...env, PRESENCE_TTL: "600" } });
        await server.printed(/port \d+/);
        return server;
      };
      const members = async () => (await topics.members(TOPIC).catch(() => ["?"])).sort();
      /** Waits until the members are these. Each name is there once. */
      const untilMembers = async (...names: string[]) => {
        while ((await members()).join() !== names.join()) await turn();
      };
      let server = await start();
      const names = Array.from({ length: 20 }, (_, i) => `m${10 + i}`);
      const guests = names.map((name) => {
        return new Reader(`ws://${HOST}:${port}/?name=${name}`, end.signal);
      });
      try {
        await held((async () => {
          await untilMembers(...names);
          server.stop("SIGKILL");
          await server.exited;
          await untilMembers();
          server = await start();
          await untilMembers(...names);
          await redis.kill();
          await untilMembers("?");
          await redis.start();
          await untilMembers(...names);
        })());
      } finally {
        end.abort();
        server.stop("SIGKILL");
        await server.exited;
        await Promise.all(guests.map(({ done }) => done));
        await topics.close();
        endClient();
        await redis.stop();
      }
    },
  );
});
