/** The clients of Redis and NATS that applications have, as the tests of the backplanes use them. */
import process from "node:process";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";
import { Redis } from "ioredis";
import { createClient } from "redis";
import type { RedisClient } from "../../lib/topics/redis_client.ts";
import { HOST } from "../ports.ts";

/** A client, and how to end it. */
export interface OpenClient {
  client: RedisClient;
  end(): void;
}

interface BunClient extends RedisClient {
  close(): void;
}

const { Bun } = globalThis as {
  Bun?: { RedisClient: new (url: string) => BunClient };
};

export const IS_BUN = process.versions.bun !== undefined;

/** Makes the client of a library. It connects when the backplane asks for it, or not at all. */
export const REDIS_CLIENTS: Record<"redis" | "ioredis" | "Bun", (port: number) => OpenClient> = {
  redis(port) {
    const client = createClient({ url: `redis://${HOST}:${port}` });
    return { client, end: () => {} };
  },
  ioredis(port) {
    const client = new Redis(port, HOST, { lazyConnect: true });
    return { client, end: () => client.disconnect() };
  },
  Bun(port) {
    const client = new Bun!.RedisClient(`redis://${HOST}:${port}`);
    return { client, end: () => client.close() };
  },
};

/** Connects to NATS. The client reconnects for ever. */
export async function connectNats(port: number): Promise<NatsConnection> {
  return await connect({
    servers: `${HOST}:${port}`,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 50,
    reconnectJitter: 0,
  });
}

export { jetstream };
