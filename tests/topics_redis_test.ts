/** The backplanes over Redis pass the contract with each client. */
import { notApplicable } from "./it.ts";
import { PEERS, unlessThere } from "./interop/peers.ts";
import { redisBackplane, redisStreamsBackplane } from "../lib/topics/redis.ts";
import { IS_BUN, REDIS_CLIENTS } from "./topics/clients.ts";
import { contract, type Engine } from "./topics/contract.ts";
import { startRedis } from "./topics/engines.ts";

const KINDS = [
  ["redisBackplane()", redisBackplane, false],
  ["redisStreamsBackplane()", redisStreamsBackplane, true],
] as const;

for (const [title, make, history] of KINDS) {
  for (const [name, connect] of Object.entries(REDIS_CLIENTS)) {
    const isMissing = name === "Bun" && !IS_BUN;
    const skip = isMissing
      ? notApplicable("Only Bun has its client")
      : unlessThere(PEERS.redis).skip;
    const start = async (): Promise<Engine> => {
      const redis = await startRedis();
      const clients: { end(): void }[] = [];
      return {
        connect() {
          const client = connect(redis.port);
          clients.push(client);
          return make(client.client);
        },
        async stop() {
          for (const client of clients) client.end();
          await redis.stop();
        },
      };
    };
    const abilities = { history, presence: true, prefixes: name !== "Bun" };
    contract(`${title} with ${name}`, start, abilities, skip);
  }
}
