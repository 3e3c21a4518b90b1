/**
 * Topics: publish and subscribe, in one process or across machines. {@linkcode Topics} has the
 * subscriptions of a server. {@linkcode resumable} is a client that gets what it has missed. The backplanes
 * connect processes by Redis or NATS.
 *
 * @module
 */
export type { BroadcastOptions, Recipient } from "./connection/broadcast.ts";
export type { Message } from "./core/message.ts";
export {
  type Backplane,
  type BackplaneCall,
  type BackplaneMessage,
  type BackplaneReceiver,
  formatPosition,
  type HistoryRead,
  parsePosition,
  type Position,
  type ReadCall,
} from "./topics/backplane.ts";
export type { Codec, StandardResult, StandardSchema } from "./topics/codec.ts";
export type { Joined } from "./topics/listener.ts";
export type { HistoryOptions } from "./topics/memory.ts";
export type { NatsJetStream } from "./topics/jetstream.ts";
export { natsBackplane, type NatsBackplaneOptions } from "./topics/nats.ts";
export type { NatsCallback, NatsConnection, NatsMessage } from "./topics/nats_core.ts";
export type {
  MessagesOptions,
  Publishable,
  PublishOptions,
  PublishResult,
  SubscribeOptions,
  TopicsOptions,
} from "./topics/options.ts";
export type { PresenceOptions } from "./topics/presence.ts";
export type { TopicMessage } from "./topics/reader.ts";
export {
  redisBackplane,
  type RedisBackplaneOptions,
  redisStreamsBackplane,
  type RedisStreamsBackplaneOptions,
} from "./topics/redis.ts";
export type { RedisClient } from "./topics/redis_client.ts";
export {
  resumable,
  type ResumableConnection,
  type ResumableOptions,
  type ResumableTopics,
  type TopicEvent,
} from "./topics/resumable.ts";
export type { ServeTopicsOptions, TopicsConnection } from "./topics/serve.ts";
export type { Subscriber, Subscription } from "./topics/subscription.ts";
export { Topics } from "./topics/topics.ts";
