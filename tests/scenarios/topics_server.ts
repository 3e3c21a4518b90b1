/** A server of topics over Redis, for tests with several processes. The environment says where. */
import process from "node:process";
import { serve } from "../../mod.ts";
import { Topics } from "../../lib/topics.ts";
import { redisBackplane, redisStreamsBackplane } from "../../lib/topics/redis.ts";
import { REDIS_CLIENTS } from "../topics/clients.ts";

const { PORT, REDIS, CLIENT, HISTORY, PRESENCE_TTL } = process.env;
const { client } = REDIS_CLIENTS[CLIENT as "redis"](Number(REDIS));
const backplane = HISTORY === "true"
  ? redisStreamsBackplane(client, { size: 10_000 })
  : redisBackplane(client);
const presence = PRESENCE_TTL !== undefined && { ttl: Number(PRESENCE_TTL) };
const topics = new Topics({ backplane, presence, onError: () => {} });
const server = await serve(
  { port: Number(PORT), pingInterval: 0, maxConnections: 1000 },
  (ws) => {
    const presence = PRESENCE_TTL && new URL(ws.request.url).searchParams.get("name");
    return topics.serve(ws, { maySubscribe: () => true, presence: presence || undefined });
  },
);
console.log("port", server.port);
