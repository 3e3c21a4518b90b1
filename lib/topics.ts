/**
 * Topics: publish and subscribe, in one process or across machines.
 *
 * @module
 */
export {
  type Backplane,
  type BackplaneCall,
  type BackplaneMessage,
  type BackplaneReceiver,
  formatPosition,
  type HistoryRead,
  parsePosition,
  type Position,
} from "./topics/backplane.ts";
export type { HistoryOptions } from "./topics/memory.ts";
export {
  redisBackplane,
  type RedisBackplaneOptions,
  redisStreamsBackplane,
  type RedisStreamsBackplaneOptions,
} from "./topics/redis.ts";
export type { RedisClient } from "./topics/redis_client.ts";
