/** Random subscribers, publishers, slow readers and outages over topics of several processes. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { type Position, type Subscription, Topics } from "../lib/topics.ts";
import { fc } from "./property.ts";
import { rest, turn, until } from "./support.ts";
import { Client, Errors, FlakyEngine } from "./topics/audience.ts";

const TOPICS = ["a", "a/b", "c"];
const NAMES = [...TOPICS, "a*", "*"];
const PROCESSES = 2;

/** A step of a run. Numbers choose among what there is, modulo its count. */
type Step =
  | { do: "publish"; by: number; topic: number; count: number }
  | { do: "join"; at: number; name: number; isReading: boolean }
  | { do: "leave" | "sleep" | "wake" | "drop" | "resume"; who: number }
  | { do: "outage"; at: number; count: number }
  | { do: "rest" };

const number = fc.nat(1000);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("publish" as const),
      by: number,
      topic: number,
      count: fc.integer({ min: 1, max: 5 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("join" as const),
      at: number,
      name: number,
      isReading: fc.boolean(),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom("leave" as const, "wake" as const, "drop" as const, "resume" as const),
      who: number,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("outage" as const),
      at: number,
      count: fc.integer({ min: 0, max: 5 }),
    }),
  },
  { weight: 3, arbitrary: fc.constant({ do: "rest" as const }) },
);

/** A subscriber that keeps the position of the last message, and what it must have got. */
class Subscriber {
  readonly name: string;
  readonly topics: Topics;
  client: Client;
  subscription: Subscription;
  /** Everything that it has got, over all of its connections. */
  readonly earlier: string[] = [];
  /** The numbers of messages that were published before it came, and before it left. */
  readonly from: number;
  to = Infinity;
  isConnected = true;

  constructor(topics: Topics, name: string, client: Client, from: number) {
    this.topics = topics;
    this.name = name;
    this.client = client;
    this.from = from;
    this.subscription = topics.subscribe(client.ws, name, { framed: true });
  }

  get lines(): string[] {
    return [...this.earlier, ...this.client.got.map(String)].filter((line) =>
      line.startsWith('{"topic"')
    );
  }

  /** The topics and numbers of what it has got, in order. */
  get got(): { topic: string; number: number; position: string }[] {
    return this.lines.map((line) => {
      const [head, text] = line.split("\n");
      return { ...JSON.parse(head), number: Number(text) };
    });
  }

  matches(topic: string): boolean {
    return this.name.endsWith("*") ? topic.startsWith(this.name.slice(0, -1)) : topic === this.name;
  }
}

async function run(steps: readonly Step[], isShuffling: boolean): Promise<void> {
  const engine = new FlakyEngine({ size: 100_000 });
  const errors = new Errors();
  const backplanes = Array.from({ length: PROCESSES }, () => engine.connect(true));
  for (const backplane of backplanes) {
    backplane.isShuffling = isShuffling;
    backplane.afterRead = async () => {
      for (let i = 0; i < reads % 7; i++) await turn();
      reads += 3;
    };
  }
  const processes = backplanes.map((backplane) =>
    new Topics({ backplane, onError: errors.onError, maxWaitingBytes: 2500 })
  );
  const published: { topic: string; number: number; position: Position }[] = [];
  const subscribers: Subscriber[] = [];
  /** Prefixes may lose what is under way in an outage: the processes, and the last numbers. */
  const lost: { at: number; to: number }[] = [];
  const resumed: Promise<{ recovered: boolean }>[] = [];
  let last = 0;
  let reads = 0;

  const publish = async (by: number, topic: string, count: number) => {
    const numbers = Array.from({ length: count }, () => ++last);
    await Promise.all(numbers.map(async (number) => {
      const { position } = await processes[by].publish(topic, `${number}`);
      published.push({ topic, number, position: position! });
    }));
  };

  const actions: { [name in Step["do"]]?: (step: never) => Promise<unknown> | void } = {
    publish: ({ by, topic, count }: Step & { do: "publish" }) =>
      publish(by % PROCESSES, TOPICS[topic % TOPICS.length], count),
    join: async ({ at, name, isReading }: Step & { do: "join" }) => {
      const client = await Client.open({}, isReading);
      const topics = processes[at % PROCESSES];
      const subscriber = new Subscriber(topics, NAMES[name % NAMES.length], client, last);
      await subscriber.subscription.ready;
      subscribers.push(subscriber);
    },
    outage: async ({ at, count }: Step & { do: "outage" }) => {
      const cut = at % PROCESSES;
      backplanes[cut].cut();
      for (let i = 0; i < count; i++) await publish(1 - cut, TOPICS[i % TOPICS.length], 2);
      lost.push({ at: cut, to: last });
      backplanes[cut].mend();
    },
    rest: () => rest(),
  };
  const withSubscriber: { [name: string]: (subscriber: Subscriber) => Promise<void> | void } = {
    wake: ({ client }) => client.wake(),
    leave: (subscriber) => {
      subscriber.subscription.unsubscribe();
      subscriber.to = Math.min(subscriber.to, last);
    },
    // The connection is lost with everything that is under way. A prefix cannot be resumed.
    drop: (subscriber) => {
      if (subscriber.name.endsWith("*") || subscriber.to < Infinity) return;
      subscriber.client.ws.terminate();
      subscriber.isConnected = false;
    },
    resume: async (subscriber) => {
      if (subscriber.isConnected) return;
      subscriber.client.wake();
      await subscriber.client.ended;
      subscriber.earlier.push(...subscriber.client.got.map(String));
      const position = subscriber.got.at(-1)?.position;
      const [first] = published;
      const since = position ?? (first && { ...first.position, offset: 0 });
      subscriber.client = await Client.open();
      subscriber.subscription = subscriber.topics.subscribe(subscriber.client.ws, subscriber.name, {
        framed: true,
        since,
      });
      subscriber.isConnected = true;
      // Without a position, messages come from the time on at which the subscription is ready.
      if (since === undefined) await subscriber.subscription.ready;
      resumed.push(subscriber.subscription.ready);
    },
  };

  try {
    for (const step of steps) {
      if (step.do in actions) await actions[step.do]!(step as never);
      else if (subscribers.length > 0 && "who" in step) {
        await withSubscriber[step.do](subscribers[step.who % subscribers.length]);
      }
    }
    if (published.length === 0) await publish(0, "a", 1);
    for (const subscriber of subscribers) {
      if (subscriber.to === Infinity) await withSubscriber.resume(subscriber);
      subscriber.client.wake();
    }
    // A last message for everybody: what was to come before it has come when it is there.
    const end = last;
    for (const topic of TOPICS) await publish(0, topic, 1);
    published.sort((a, b) => a.position.offset - b.position.offset);
    for (const subscriber of subscribers) {
      const { name, from, to, topics } = subscriber;
      const at = processes.indexOf(topics);
      const mayMiss = (number: number) =>
        name.endsWith("*") &&
        lost.some((outage) => outage.at === at && number <= outage.to);
      const all = published.filter(({ topic, number }) =>
        subscriber.matches(topic) && number <= to
      );
      const due = all.filter(({ number }) => number > from && !mayMiss(number));
      const isOrdered = !isShuffling || !name.endsWith("*");
      if (to === Infinity) {
        const awaited = isOrdered ? all.filter(({ number }) => number > end) : due;
        await until(() =>
          subscriber.got.length > 0 &&
          awaited.every(({ number }) => subscriber.got.some((got) => got.number === number))
        );
      }
      const got = subscriber.got.map(({ topic, number }) => `${topic} ${number}`);
      assert.equal(new Set(got).size, got.length, `twice at ${name}`);
      const gotNumbers = new Set(subscriber.got.map(({ number }) => number));
      const missing = due.filter(({ number }) => !gotNumbers.has(number));
      // Whoever has left has got what was sent before; the reads of its client may have been cut.
      if (to === Infinity) assert.deepEqual(missing, [], `missing at ${name}`);
      // One topic is in order; a resumed subscriber that had got nothing may get earlier ones.
      const order = new Map(published.map(({ number }, i) => [number, i]));
      for (const topic of isOrdered ? TOPICS : []) {
        const indexes = subscriber.got.filter((each) => each.topic === topic)
          .map(({ number }) => order.get(number)!);
        assert.deepEqual(
          indexes,
          indexes.toSorted((a, b) => a - b),
          `order of ${topic} at ${name}`,
        );
      }
      if (subscriber.earlier.length === 0 && to === Infinity) {
        assert.equal(subscriber.subscription.sent, got.length, `count of ${name}`);
      }
    }
    for (const each of await Promise.allSettled(resumed)) {
      // A connection may be lost again while its history is sent.
      assert.ok(each.status === "rejected" || each.value.recovered);
    }
    for (const { client } of subscribers) client.ws.terminate();
    await until(() => processes.every((topics) => topics.names.length === 0));
  } finally {
    for (const topics of processes) await topics.close();
  }
  const unexpected = errors.all.filter(({ error }) => {
    const { code, message, cause } = error as Error & { code?: string };
    // A resumed subscriber may read the history in an outage.
    const isOutage = message === "cut" || (cause as Error)?.message === "The engine is down";
    return code !== "messages-missed" && !isOutage;
  });
  assert.deepEqual(unexpected, []);
}

describe("Topics with random users", () => {
  for (const isShuffling of [false, true]) {
    const engine = isShuffling ? ", from an engine with another order for prefixes" : "";
    it(`deliver everything once and in order, and the counts add up${engine}`, () =>
      fc.assert(
        fc.asyncProperty(
          fc.array(step, { minLength: 5, maxLength: 60 }),
          (steps) => run(steps, isShuffling),
        ),
        { numRuns: isShuffling ? 30 : 60 },
      ));
  }
});
