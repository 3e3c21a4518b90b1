/** The options of topics, and how they are checked. */
import {
  BROADCAST_OPTIONS,
  type BroadcastOptions,
  type Recipient,
} from "../connection/broadcast.ts";
import type { Message } from "../core/message.ts";
import { checkNested } from "../core/option_hints.ts";
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkNumber,
  checkOneOf,
  checkType,
  type OptionNames,
} from "../core/options.ts";
import { type Backplane, checkPosition, type Position } from "./backplane.ts";
import { checkCodec, checkSchema, type Codec, type StandardSchema } from "./codec.ts";
import { HISTORY_OPTIONS, type HistoryOptions } from "./memory.ts";
import { PRESENCE_OPTIONS, type PresenceOptions } from "./presence.ts";

/** Options of {@linkcode Topics}. */
export interface TopicsOptions<T> {
  /**
   * Carries the messages between processes. The topics close it at the end. By default, messages stay in
   * this process.
   */
  backplane?: Backplane | undefined;
  /**
   * Keeps the last messages of each topic in memory, so that subscribers can ask for what they have
   * missed. Not with `backplane`, which has a history of its own or none. By default, there is none.
   */
  history?: HistoryOptions | undefined;
  /**
   * Turns values into messages and back. By default, strings and bytes stay as they are, and other values
   * are sent as JSON.
   */
  codec?: Codec<T> | undefined;
  /**
   * Validates the values that come in. All values are sent as JSON. Any validator of Standard Schema, for
   * example of zod or valibot. Not with `codec`.
   */
  schema?: StandardSchema<T> | undefined;
  /** Whether other processes and clients can ask who is subscribed. By default, they cannot. */
  presence?: boolean | PresenceOptions | undefined;
  /**
   * Maximum time for a call of the backplane, in milliseconds, such as the confirmation of a message. A
   * call may take an eighth longer.
   * @default {5000}
   */
  publishTimeout?: number | undefined;
  /**
   * Maximum number of bytes that wait to be confirmed by the backplane. Text counts its UTF-16 code units,
   * and each message 256 bytes more. `publish()` rejects beyond the limit.
   * @default {16_777_216}
   */
  maxPendingBytes?: number | undefined;
  /**
   * Maximum number of messages that wait for one subscriber, or one topic, while the history is read. If
   * there are more, the history is read again.
   * @default {1000}
   */
  maxWaiting?: number | undefined;
  /**
   * Maximum number of bytes that wait for one subscriber, or one topic, while the history is read. The
   * history is read in parts of this size, each when the subscriber has taken the one before. Text counts
   * its UTF-16 code units, and each message 768 bytes more. One message is always allowed.
   * @default {1_048_576}
   */
  maxWaitingBytes?: number | undefined;
  /**
   * Maximum number of topics of one connection.
   * @default {1000}
   */
  maxTopicsPerConnection?: number | undefined;
  /**
   * What to do with subscribers that are too slow, unless `subscribe()` says so. See `broadcast()`.
   * @default {"close"}
   */
  slow?: BroadcastOptions["slow"];
  /**
   * Maximum number of bytes that may wait for a subscriber, unless `subscribe()` or `messages()` says so.
   * @default {1_048_576}
   */
  maxBufferedAmount?: number | undefined;
  /** Called when a topic, or a prefix, gets its first subscriber in this process. */
  onFirstSubscriber?: ((topic: string) => void) | undefined;
  /** Called when the last subscriber of a topic, or a prefix, in this process has left. */
  onLastSubscriber?: ((topic: string) => void) | undefined;
  /**
   * Told of errors that no call reports: outages of the engine (once for all topics, without a topic),
   * messages that may be missing (the code "messages-missed"), bytes that are no message, errors of hooks.
   * By default, they are printed.
   */
  onError?: ((error: unknown, topic: string | undefined) => void) | undefined;
}

/** What {@linkcode Topics.publish} takes: any value with a codec or a schema, otherwise also objects. */
export type Publishable<T> = [T] extends [Message] ? Message | object : T;

/** Options of {@linkcode Topics.publish}. */
export interface PublishOptions {
  /** Connections that do not get the message, such as its sender. They may read it from the history. */
  except?: Recipient | Iterable<Recipient> | undefined;
}

/** Result of {@linkcode Topics.publish}. */
export interface PublishResult {
  /** The place of the message. Undefined without history. */
  readonly position: Position | undefined;
}

/** Options of {@linkcode Topics.subscribe}. */
export interface SubscribeOptions extends Omit<BroadcastOptions, "except"> {
  /**
   * The position after which to begin, as an object or as `epoch:offset`. The messages after it are read
   * from the history. `ready` tells whether any of them are gone.
   */
  since?: Position | string | undefined;
  /**
   * Whether each message begins with a line of JSON that says its topic and its position, for clients
   * with `resumable()`.
   * @default {false}
   */
  framed?: boolean | undefined;
  /** What `members()` tells of this subscriber: any value with JSON. Needs the option `presence`. */
  presence?: unknown;
  /** Called when messages may be missing, for example after an outage of an engine without history. */
  onMissed?: (() => void) | undefined;
}

/** Options of {@linkcode Topics.messages}. */
export interface MessagesOptions {
  /** The position after which to begin, as in `subscribe()`. */
  since?: Position | string | undefined;
  /**
   * Maximum number of bytes that wait to be read. Text counts its UTF-16 code units, and each message 768
   * bytes more. One message is always allowed.
   * @default {1_048_576}
   */
  maxBufferedAmount?: number | undefined;
  /**
   * What to do beyond `maxBufferedAmount`. "error" errors the stream, "drop-newest" skips this message, and
   * "drop-oldest" drops the oldest messages that wait.
   * @default {"error"}
   */
  slow?: "error" | "drop-newest" | "drop-oldest" | undefined;
}

const checkSince = (_: string, value: unknown) => void checkPosition(value);
const { maxBufferedAmount, slow, compress, except } = BROADCAST_OPTIONS;

export const TOPICS_OPTIONS: OptionNames<TopicsOptions<unknown>> = {
  backplane: (name, value) => {
    const { subscribe, publish } = Object(value) as Partial<Backplane>;
    const isBackplane = typeof subscribe === "function" && typeof publish === "function";
    checkType(name, value, "a backplane", isBackplane);
  },
  history: (name, value) => checkNested(name, value, HISTORY_OPTIONS),
  codec: checkCodec,
  schema: checkSchema,
  presence: (name, value) => {
    if (typeof value !== "boolean") checkNested(name, value, PRESENCE_OPTIONS);
  },
  publishTimeout: checkNumber,
  maxPendingBytes: checkNumber,
  maxWaiting: checkNumber,
  maxWaitingBytes: checkNumber,
  maxTopicsPerConnection: (name, value) => checkInteger(name, value, 1, Infinity),
  maxBufferedAmount,
  slow,
  onFirstSubscriber: checkFunction,
  onLastSubscriber: checkFunction,
  onError: checkFunction,
};

export const SUBSCRIBE_OPTIONS: OptionNames<SubscribeOptions> = {
  since: checkSince,
  framed: checkBoolean,
  presence: true,
  onMissed: checkFunction,
  maxBufferedAmount,
  slow,
  compress,
};

export const MESSAGES_OPTIONS: OptionNames<MessagesOptions> = {
  since: checkSince,
  maxBufferedAmount,
  slow: (name, value) => checkOneOf(name, value, ["error", "drop-newest", "drop-oldest"]),
};

export const PUBLISH_OPTIONS: OptionNames<PublishOptions> = { except };
