/** The backplanes over NATS pass the contract, and topics and prefixes get along with each other. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import type { NatsConnection } from "@nats-io/transport-node";
import { PEERS, unlessThere } from "./interop/peers.ts";
import { natsBackplane } from "../lib/topics/nats.ts";
import { Topics } from "../lib/topics/topics.ts";
import { it } from "./it.ts";
import { until } from "./support.ts";
import { Client, Errors } from "./topics/audience.ts";
import { connectNats, jetstream } from "./topics/clients.ts";
import { contract, type Engine } from "./topics/contract.ts";
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
        assert.deepEqual((await rooms.close()).toSorted(), texts.toSorted());
        assert.deepEqual(errors.all, []);
      } finally {
        for (const topics of [near, ...publishers]) await topics.close();
        for (const connection of connections) await connection.close();
        await nats.stop();
      }
    },
  );
});
