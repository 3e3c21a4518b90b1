/** A server of topics over Redis, for tests with several processes. The environment says where. */
import process from "node:process";
import { serve } from "../../mod.ts";
import { Topics } from "../../lib/topics.ts";
import { redisBackplane, redisStreamsBackplane } from "../../lib/topics/redis.ts";
import { REDIS_CLIENTS } from "../topics/clients.ts";

const { PORT, REDIS, CLIENT, HISTORY } = process.env;
const { client } = REDIS_CLIENTS[CLIENT as "redis"](Number(REDIS));
const backplane = HISTORY === "true"
  ? redisStreamsBackplane(client, { size: 10_000 })
  : redisBackplane(client);
const topics = new Topics({ backplane, onError: () => {} });
const server = await serve(
  { port: Number(PORT), pingInterval: 0, maxConnections: 1000 },
  (ws) => topics.serve(ws, { maySubscribe: () => true }),
);
console.log("port", server.port);
