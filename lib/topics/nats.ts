/** Backplanes over NATS: core NATS, or JetStream with a history. */
import { wrongType } from "../core/error.ts";
import { checkKnown } from "../core/option_hints.ts";
import { checkInteger, checkOneOf, checkText, type OptionNames } from "../core/options.ts";
import type { Backplane } from "./backplane.ts";
import { JetStreamBackplane, type NatsJetStream } from "./jetstream.ts";
import { NatsBackplane, type NatsConnection } from "./nats_core.ts";

/** Options of {@linkcode natsBackplane}. */
export interface NatsBackplaneOptions {
  /**
   * `jetstream(connection)` of `@nats-io/jetstream`, for a history. Without it, messages that are
   * published while a process is not connected to NATS do not reach its subscribers.
   */
  jetstream?: NatsJetStream | undefined;
  /**
   * First token of the subjects, and name of the stream: letters, digits, `-` and `_`. Applications that
   * share a NATS need different prefixes.
   * @default {"sluice"}
   */
  prefix?: string | undefined;
  /**
   * Maximum number of messages that the history of a topic has, at most 10,000: each of them is read by a
   * call of its own. Used when the stream is created.
   * @default {100}
   */
  size?: number | undefined;
  /**
   * Time for which a message can be read, in milliseconds. Used when the stream is created.
   * @default {300_000}
   */
  ttl?: number | undefined;
  /**
   * Number of servers that have a copy of the stream. Used when the stream is created.
   * @default {1}
   */
  replicas?: number | undefined;
  /**
   * Where the server stores the stream. Used when the stream is created.
   * @default {"file"}
   */
  storage?: "file" | "memory" | undefined;
}

const OPTIONS: OptionNames<NatsBackplaneOptions> = {
  jetstream: (name, value) => {
    const { publish, jetstreamManager } = Object(value) as Partial<NatsJetStream>;
    if (value === undefined || (publish && jetstreamManager)) return;
    throw wrongType(`Expected ${name} to be what jetstream() of @nats-io/jetstream returns`);
  },
  prefix: (name, value) => {
    checkText(name, value);
    if (!/^[\w-]+$/.test(value as string)) throw wrongType(`Expected ${name} to be one word`);
  },
  size: (name, value) => checkInteger(name, value, 1, 10_000),
  ttl: (name, value) => checkInteger(name, value, 100, 1e12),
  replicas: (name, value) => checkInteger(name, value, 1, 5),
  storage: (name, value) => checkOneOf(name, value, ["file", "memory"]),
};

/**
 * Carries messages over NATS. With `jetstream`, a stream keeps the last messages of each topic, and all
 * subscribers of a topic get its messages in the order of the stream. Without it, only the messages of one
 * publisher keep their order, as NATS has it. So do those of a prefix in a process that does not subscribe
 * to the topic itself.
 *
 * @example
 * ```ts no-run
 * import { connect } from "@nats-io/transport-node";
 * import { jetstream } from "@nats-io/jetstream";
 * import { natsBackplane } from "sluice/topics";
 *
 * const connection = await connect({ maxReconnectAttempts: -1 });
 * const backplane = natsBackplane(connection, { jetstream: jetstream(connection) });
 * ```
 *
 * @param connection The connection, which must reconnect for ever: `maxReconnectAttempts: -1`.
 * @throws {TypeError} If the connection is none, or an option has the wrong type.
 * @throws {RangeError} If an option has an invalid value.
 */
export function natsBackplane(
  connection: NatsConnection,
  options: NatsBackplaneOptions = {},
): Backplane {
  const { publish, subscribe, flush, status } = Object(connection) as Partial<NatsConnection>;
  if (!publish || !subscribe || !flush || !status) throw wrongType("Expected a connection to NATS");
  checkKnown("natsBackplane()", options, OPTIONS);
  const { jetstream, prefix = "sluice" } = options;
  if (jetstream === undefined) return new NatsBackplane(connection, prefix);
  return new JetStreamBackplane(connection, prefix, jetstream, options);
}
