/** The backplanes over NATS pass the contract. */
import type { NatsConnection } from "@nats-io/transport-node";
import { PEERS, unlessThere } from "./interop/peers.ts";
import { natsBackplane } from "../lib/topics/nats.ts";
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
