/** The backplanes over NATS pass the contract, and topics and prefixes get along with each other. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import type { NatsConnection } from "@nats-io/transport-node";
import { PEERS, unlessThere } from "./interop/peers.ts";
import { natsBackplane } from "../lib/topics/nats.ts";
import { Topics } from "../lib/topics/topics.ts";
import { it } from "./it.ts";
import { rejection, rest, turn, until } from "./support.ts";
import { Client, Errors } from "./topics/audience.ts";
import { connectNats, jetstream } from "./topics/clients.ts";
import { bytesOf, CALL, contract, type Engine } from "./topics/contract.ts";
import { startNats } from "./topics/engines.ts";

for (const history of [false, true]) {
  const start = async (): Promise<Engine> => {
    const nats = await startNats();
    const connections: NatsConnection[] = [];
    return {
      async connect() {
        const connection = await connectNats(nats.port);
        connections.push(connection);
        return natsBackplane(connection, history ? { jetstream: jetstream(connection) } : {});
      },
      async stop() {
        for (const connection of connections) await connection.close();
        await nats.stop();
      },
    };
  };
  const title = history ? "natsBackplane() with JetStream" : "natsBackplane()";
  contract(
    title,
    start,
    { history, presence: history, order: history },
    unlessThere(PEERS.nats).skip,
  );
}

describe("A topic and a matching prefix over JetStream", () => {
  it(
    "Both get all messages of two publishers, and the topic in the order of the stream",
    unlessThere(PEERS.nats),
    async () => {
      const nats = await startNats();
      const errors = new Errors();
      const connections = await Promise.all([1, 2, 3].map(() => connectNats(nats.port)));
      const [near, ...publishers] = connections.map((connection) => {
        const backplane = natsBackplane(connection, { jetstream: jetstream(connection) });
        return new Topics({ backplane, onError: errors.onError });
      });
      try {
        const [room, rooms] = [await Client.open(), await Client.open()];
        await near.subscribe(rooms.ws, "room/*").ready;
        await near.subscribe(room.ws, "room/1").ready;
        const offsets = new Map<string, number>();
        await Promise.all(publishers.map(async (topics, nth) => {
          for (let i = 0; i < 20; i++) {
            await Promise.all(Array.from({ length: 20 }, async (_, j) => {
              const text = `${nth} ${i} ${j}`;
              const { position } = await topics.publish("room/1", text);
              offsets.set(text, position!.offset);
            }));
          }
        }));
        await until(() => room.got.length >= 800 && rooms.got.length >= 800);
        const texts = [...offsets.keys()].sort((a, b) => offsets.get(a)! - offsets.get(b)!);
        assert.deepEqual(await room.close(), texts);
        assert.deepEqual(await rooms.close(), texts);
        assert.deepEqual(errors.all, []);
      } finally {
        for (const topics of [near, ...publishers]) await topics.close();
        for (const connection of connections) await connection.close();
        await nats.stop();
      }
    },
  );
});

describe("A long history of JetStream", () => {
  it(
    "It is read in ranges, whole and in order",
    unlessThere(PEERS.nats),
    async () => {
      const nats = await startNats();
      const connection = await connectNats(nats.port);
      const stream = jetstream(connection);
      assert.throws(() => natsBackplane(connection, { jetstream: stream, size: 10_001 }), {
        name: "RangeError",
      });
      const backplane = natsBackplane(connection, { jetstream: stream, size: 1000 });
      try {
        const topics = ["x", "y", "x", "x"];
        const positions = await Promise.all(
          Array.from({ length: 1200 }, async (_, i) => {
            const topic = topics[i % topics.length];
            const text = `${topic} ${i}`;
            return { topic, text, position: (await backplane.publish(topic, text, CALL))! };
          }),
        );
        for (const topic of ["x", "y"]) {
          for (const from of [0, 1, 63, 64, 65, 700, 1199]) {
            const since = positions[from].position;
            const later = positions.slice(from + 1).filter((each) => each.topic === topic);
            const { recovered, messages } = await backplane.read!(topic, since, CALL);
            assert.equal(recovered, true);
            const found = messages.map(({ data, position }) => ({
              topic,
              text: new TextDecoder().decode(data as Uint8Array),
              position,
            }));
            assert.deepEqual(found, later, `${topic} after ${from}`);
          }
        }
      } finally {
        await backplane.close();
        await connection.close();
        await nats.stop();
      }
    },
  );
});

describe("Presence over JetStream", () => {
  it(
    "It is that of the server's clock, when the clock of the process is wrong",
    unlessThere(PEERS.nats),
    async () => {
      const nats = await startNats();
      const connection = await connectNats(nats.port);
      const backplane = natsBackplane(connection, { jetstream: jetstream(connection) });
      const topics = new Topics({ backplane, presence: true });
      const client = await Client.open();
      const dateNow = Date.now;
      Date.now = () => dateNow() + 3_600_000;
      try {
        await backplane.announce!("x", "other", bytesOf('{"members":["ada"]}'), 60_000, CALL);
        assert.deepEqual(await topics.members("x"), ["ada"]);
        Date.now = () => dateNow() - 3_600_000;
        await backplane.announce!("x", "other", bytesOf('{"members":["ada"]}'), 100, CALL);
        while ((await topics.members("x")).length > 0);
      } finally {
        Date.now = dateNow;
        await topics.close();
        await client.close();
        await connection.close();
        await nats.stop();
      }
    },
  );
});

describe("A NATS that does not answer", () => {
  it("It gets nothing more after a call was given up, and then all in order", async () => {
    const sent: string[] = [];
    const answers: (() => void)[] = [];
    let isStalled = false;
    const never = new Promise<never>(() => {});
    const backplane = natsBackplane({
      publish: (_, data) => void sent.push(new TextDecoder().decode(data)),
      subscribe: () => ({ unsubscribe() {} }),
      flush: () => isStalled ? new Promise((resolve) => answers.push(resolve)) : Promise.resolve(),
      status: () => ({ [Symbol.asyncIterator]: () => ({ next: () => never }) }),
      closed: () => never,
    });
    const publish = (text: string, signal = CALL.signal) =>
      backplane.publish("x", bytesOf(text), { signal });
    await publish("0");
    isStalled = true;
    const call = new AbortController();
    const late = rejection(publish("1", call.signal));
    while (sent.length < 2) await turn();
    call.abort(new Error("late"));
    assert.equal((await late).message, "late");
    const waiting = ["2", "3"].map((text) => publish(text));
    await rest();
    assert.deepEqual(sent, ["0", "1"]);
    isStalled = false;
    for (const answer of answers) answer();
    await Promise.all([...waiting, publish("4")]);
    assert.deepEqual(sent, ["0", "1", "2", "3", "4"]);
    await backplane.close();
  });
});

/** A JetStream and its connection, which a test loses. It stores messages until it is stalled. */
class FakeJetStream {
  readonly stored: string[] = [];
  /** Whether messages get lost from now on. */
  isStalled = false;
  /** Texts that the server refuses once, because there is no stream at that moment. */
  readonly refused = new Set<string>();
  /** Rejects the calls whose messages got lost, as the client does after a while. */
  readonly timeouts: (() => void)[] = [];
  readonly #statuses: string[] = [];
  readonly #flushes: ((error: Error) => void)[] = [];
  #wake = () => {};

  readonly connection = {
    publish() {},
    subscribe: () => ({ unsubscribe() {} }),
    flush: () =>
      this.isStalled
        ? new Promise<void>((_, reject) => this.#flushes.push(reject))
        : Promise.resolve(),
    status: () => this.#follow(),
    closed: () => new Promise<void>(() => {}),
  };

  readonly jetstream = {
    publish: (_: string, data: Uint8Array) => {
      if (this.refused.delete(textOf(data))) {
        const gone = Object.assign(new Error("no responders"), { name: "NoRespondersError" });
        return Promise.reject(gone);
      }
      if (!this.isStalled) return Promise.resolve({ seq: this.stored.push(textOf(data)) });
      const late = Object.assign(new Error("timeout"), { name: "TimeoutError" });
      return new Promise<never>((_, reject) => this.timeouts.push(() => reject(late)));
    },
    jetstreamManager: () => {
      const created = "2026-01-01T00:00:00Z";
      return Promise.resolve({ streams: { info: () => Promise.resolve({ created }) } });
    },
  };

  lose(): void {
    this.#tell("disconnect");
  }

  restore(): void {
    this.isStalled = false;
    for (const reject of this.#flushes) reject(new Error("disconnected"));
    this.#tell("reconnect");
  }

  #tell(type: string): void {
    this.#statuses.push(type);
    this.#wake();
  }

  async *#follow() {
    for (;;) {
      while (this.#statuses.length > 0) yield { type: this.#statuses.shift()! };
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

describe("A connection to JetStream that is lost", () => {
  for (const isLate of [false, true]) {
    const which = isLate ? ", of which the first has timed out" : "";
    it(`No later message overtakes those that wait for an answer${which}`, async () => {
      const fake = new FakeJetStream();
      const { connection, jetstream } = fake;
      const backplane = natsBackplane(connection, { jetstream });
      const publish = (...texts: string[]) =>
        texts.map((text) => backplane.publish("x", bytesOf(text), CALL));
      try {
        await Promise.all(publish("0"));
        fake.isStalled = true;
        const waiting = publish("1", "2");
        while (fake.timeouts.length < 2) await turn();
        if (isLate) fake.timeouts[0]();
        await rest();
        waiting.push(...publish("3"));
        fake.lose();
        waiting.push(...publish("4"));
        await rest();
        waiting.push(...publish("5"));
        fake.restore();
        await until(() => fake.stored.length > 1);
        waiting.push(...publish("6"));
        await until(() => fake.stored.includes("6"));
        for (const timeout of fake.timeouts) timeout();
        await Promise.all(waiting);
        assert.deepEqual(fake.stored, ["0", "1", "2", "3", "4", "5", "6"]);
      } finally {
        await backplane.close();
      }
    });
  }
});

describe("A message that JetStream does not answer", () => {
  for (const isStored of [false, true]) {
    const what = isStored ? "is confirmed if it is stored" : "is given up if it was lost";
    it(`${what}, after a later one is stored`, unlessThere(PEERS.nats), async () => {
      const nats = await startNats();
      const connection = await connectNats(nats.port);
      const js = jetstream(connection);
      let isFirst = true;
      const backplane = natsBackplane(connection, {
        jetstream: {
          jetstreamManager: () => js.jetstreamManager(),
          async publish(...args) {
            if (!isFirst) return await js.publish(...args);
            isFirst = false;
            if (isStored) await js.publish(...args);
            throw Object.assign(new Error("timeout"), { name: "TimeoutError" });
          },
        },
      });
      try {
        const since = (await backplane.read!("x", undefined, CALL)).position;
        const published = ["1", "2"].map((text) => backplane.publish("x", bytesOf(text), CALL));
        const [first] = await Promise.allSettled(published);
        assert.equal(first.status, isStored ? "fulfilled" : "rejected");
        await backplane.publish("x", bytesOf("3"), CALL);
        const { messages } = await backplane.read!("x", since, CALL);
        const stored = messages.map(({ data }) => textOf(data as Uint8Array));
        assert.deepEqual(stored, isStored ? ["1", "2", "3"] : ["2", "3"]);
      } finally {
        await backplane.close();
        await connection.close();
        await nats.stop();
      }
    });
  }
});

describe("A JetStream that has no stream for a moment", () => {
  for (const refused of [["1", "2", "3"], ["1"]]) {
    const isTaken = refused.length < 3;
    const which = isTaken ? "is given up if the next one was taken" : "is sent again in its order";
    it(`A message that it refuses ${which}`, async () => {
      const fake = new FakeJetStream();
      for (const text of refused) fake.refused.add(text);
      const backplane = natsBackplane(fake.connection, { jetstream: fake.jetstream });
      try {
        const published = ["1", "2", "3"].map((text) =>
          backplane.publish("x", bytesOf(text), CALL)
        );
        const outcomes = await Promise.allSettled(published);
        const isStored = outcomes.map(({ status }) => status === "fulfilled");
        assert.deepEqual(isStored, [!isTaken, true, true]);
        assert.deepEqual(fake.stored, isTaken ? ["2", "3"] : ["1", "2", "3"]);
      } finally {
        await backplane.close();
      }
    });
  }
});
