/**
 * Backplanes over NATS: core NATS, or JetStream with a history.
 *
 * @module
 */
import { abortable, handled, sleep } from "../abortable.ts";
import { failure, invalidState, wrongType } from "../core/error.ts";
import { checkKnown } from "../core/option_hints.ts";
import { checkInteger, checkOneOf, checkText, type OptionNames } from "../core/options.ts";
import { now } from "../timers.ts";
import type {
  Backplane,
  BackplaneCall,
  BackplaneMessage,
  BackplaneReceiver,
  HistoryRead,
  Position,
} from "./backplane.ts";
import { Gate } from "./gate.ts";
import { Sequence } from "./sequence.ts";

/** A connection of `@nats-io/transport-node` or another client of NATS, version 3. */
export interface NatsConnection {
  /** Sends a message. */
  publish(subject: string, data: Uint8Array): void;
  /** Subscribes to a subject, which may have wildcards. */
  subscribe(subject: string, options: { callback: NatsCallback }): { unsubscribe(): void };
  /** Waits until the server has taken what was sent. */
  flush(): Promise<void>;
  /** Tells of changes of the connection. */
  status(): AsyncIterable<{ readonly type: string }>;
  /** Resolves when the connection has ended for good. */
  closed(): Promise<void | Error>;
}

/** Takes a message of NATS, or the error that ended a subscription. */
export type NatsCallback = (error: Error | null, message: NatsMessage) => void;

/** A message of NATS. */
export interface NatsMessage {
  /** The subject. */
  readonly subject: string;
  /** The bytes of the message. */
  readonly data: Uint8Array;
  /** The headers, if there are any. */
  readonly headers?: { get(name: string): string };
}

/** What `jetstream(connection)` of `@nats-io/jetstream` returns. */
export interface NatsJetStream {
  /** Stores a message. */
  publish(
    subject: string,
    data: Uint8Array,
    options: { msgID: string; timeout: number },
  ): Promise<{ readonly seq: number; readonly duplicate?: boolean }>;
  /** Returns a `JetStreamManager`. */
  jetstreamManager(): Promise<unknown>;
}

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
   * Maximum number of messages that the history of a topic has. Used when the stream is created.
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
  size: (name, value) => checkInteger(name, value, 1, 1_000_000),
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

interface Subscription {
  readonly topic: string;
  readonly receiver: BackplaneReceiver;
  /** The order of the messages, if the stream has one that the server may not keep. */
  readonly sequence: Sequence | undefined;
  unsubscribe(): void;
  isConfirmed: boolean;
  isInterrupted: boolean;
}

class NatsBackplane implements Backplane {
  readonly prefix: string;
  readonly connection: NatsConnection;
  readonly #end = new AbortController();
  readonly #statuses: AsyncIterable<{ readonly type: string }> & { stop?(): void };
  readonly #subscriptions = new Map<string, Subscription>();
  /** The last receiver of each topic: a subscription may end while the connection is not ready. */
  readonly #wanted = new Map<string, BackplaneReceiver>();
  /** Settles when the connection can be used, or an attempt to use it has failed. */
  #ready!: Promise<void>;
  #settle!: { resolve(): void; reject(error: unknown): void };
  #isUp = false;
  #outages = 0;
  readonly #gate = new Gate();
  #flushed: Promise<void> | undefined;

  constructor(connection: NatsConnection, prefix: string) {
    this.connection = connection;
    this.prefix = prefix;
    this.#statuses = connection.status();
    this.#attempt();
    void this.#watch();
    void this.#restore();
  }

  get keepsHistory(): boolean {
    return false;
  }

  /** Prepares the server before the backplane is used, and after each outage. */
  async prepare(): Promise<void> {}

  /** The subject of a topic's live messages, without the prefix. */
  get live(): string {
    return this.prefix;
  }

  /** Parses a live message. Returns undefined if it is none. */
  parse({ data }: NatsMessage): BackplaneMessage | undefined {
    return { data, position: undefined };
  }

  /** Makes the sequence of a subscription. Undefined if messages are delivered as they come. */
  sequenceOf(_topic: string, _deliver: (message: BackplaneMessage) => void): Sequence | undefined {
    return undefined;
  }

  /** Lets a subscription begin that the server has confirmed. */
  async begin(_subscription: Subscription): Promise<void> {}

  /** Gives a message to the sequence of its topic. */
  enqueue(_sequence: Sequence, _source: NatsMessage, _message: BackplaneMessage): void {}

  /** Waits for the connection, or until the call is given up. */
  async ready(signal: AbortSignal): Promise<void> {
    this.#end.signal.throwIfAborted();
    await abortable(abortable(this.#ready, this.#end.signal), signal);
    await abortable(this.#gate.pass(this.#end.signal), signal);
  }

  /**
   * Lets all later calls wait until the server has answered, and for a pause. Otherwise the client would
   * keep the bytes of any number of calls that were given up, and a message that is sent again would come
   * after later ones.
   */
  hold(): void {
    this.#gate.close(() =>
      Promise.allSettled([this.connection.flush(), sleep(RETRY_PAUSE, this.#end.signal)])
    );
  }

  async subscribe(
    topic: string,
    receiver: BackplaneReceiver,
    { signal }: BackplaneCall,
  ): Promise<void> {
    this.#wanted.set(topic, receiver);
    await this.ready(signal);
    if (this.#wanted.get(topic) !== receiver) {
      throw failure("The subscription has ended", "backplane-failed");
    }
    const prefix = topic.endsWith("*") ? topic.slice(0, -1) : undefined;
    // NATS has wildcards only for whole tokens, so a part of the last token is compared here.
    const subject = prefix === undefined
      ? subjectOf(this.live, topic)
      : subjectOf(this.live, prefix.slice(0, prefix.lastIndexOf("/") + 1), true);
    const callback: NatsCallback = (error, message) => {
      if (this.#subscriptions.get(topic) !== subscription) return;
      if (error !== null) return interrupt(error, subscription);
      const name = topicOf(message.subject.slice(this.live.length + 1));
      if (prefix !== undefined && name !== undefined && !name.startsWith(prefix)) return;
      this.#deliver(subscription, name, message);
    };
    const made = this.connection.subscribe(subject, { callback });
    const sequence = this.sequenceOf(topic, (message) => receiver.message(topic, message));
    const unsubscribe = () => {
      sequence?.reset();
      made.unsubscribe();
    };
    const subscription = {
      topic,
      receiver,
      sequence,
      unsubscribe,
      isConfirmed: false,
      isInterrupted: false,
    };
    this.#subscriptions.set(topic, subscription);
    const outages = this.#outages;
    try {
      await abortable(this.flush(), signal);
      await abortable(this.begin(subscription), signal);
      // The receiver of a subscription that is not confirmed was not told.
      if (outages !== this.#outages) throw failure("There was an outage", "backplane-failed");
      subscription.isConfirmed = true;
    } catch (error) {
      if (this.#subscriptions.get(topic) === subscription) this.#subscriptions.delete(topic);
      unsubscribe();
      throw error;
    }
  }

  async unsubscribe(topic: string): Promise<void> {
    this.#wanted.delete(topic);
    const subscription = this.#subscriptions.get(topic);
    if (subscription === undefined) return;
    this.#subscriptions.delete(topic);
    subscription.unsubscribe();
    await this.flush().catch(() => {});
  }

  async publish(
    topic: string,
    data: Uint8Array,
    { signal }: BackplaneCall,
  ): Promise<Position | undefined> {
    await this.ready(signal);
    this.connection.publish(subjectOf(this.prefix, topic), data);
    try {
      await abortable(this.flush(), signal);
    } catch (error) {
      this.hold();
      throw error;
    }
    return undefined;
  }

  /** Waits until the server has taken all that was sent. One answer does for the calls of one turn. */
  flush(): Promise<void> {
    return this.#flushed ??= handled(
      Promise.resolve().then(() => {
        this.#flushed = undefined;
        return this.connection.flush();
      }),
    );
  }

  // deno-lint-ignore require-await
  async close(): Promise<void> {
    this.#end.abort(invalidState("The backplane is closed", "not-open"));
    this.#statuses.stop?.();
    for (const { unsubscribe } of this.#subscriptions.values()) unsubscribe();
    this.#subscriptions.clear();
    this.#wanted.clear();
  }

  get isClosed(): boolean {
    return this.#end.signal.aborted;
  }

  /** Whether messages come and can be sent. */
  get isUp(): boolean {
    return this.#isUp;
  }

  /** Says that messages may be missing, and prepares the server again. */
  restart(error: unknown): void {
    this.#fail(error);
    void this.#restore();
  }

  #fail(error: unknown): void {
    if (this.isClosed) return;
    this.#outages++;
    if (this.#isUp) this.#attempt();
    this.#isUp = false;
    for (const subscription of this.#subscriptions.values()) {
      subscription.sequence?.reset();
      interrupt(error, subscription);
    }
  }

  #attempt(): void {
    const ready = new Promise<void>((resolve, reject) => this.#settle = { resolve, reject });
    this.#ready = handled(ready);
  }

  async #restore(): Promise<void> {
    const outages = this.#outages;
    for (let isPrepared = false; !isPrepared;) {
      try {
        await abortable(this.connection.flush(), this.#end.signal);
        await abortable(this.prepare(), this.#end.signal);
        const begun = Array.from(this.#subscriptions.values(), (each) => this.begin(each));
        await abortable(Promise.all(begun), this.#end.signal);
        isPrepared = true;
      } catch (error) {
        this.#settle.reject(error);
        this.#attempt();
        await sleep(RETRY_PAUSE, this.#end.signal).catch(() => {});
      }
      // The next outage has an attempt of its own.
      if (this.isClosed || outages !== this.#outages) return;
    }
    this.#isUp = true;
    this.#settle.resolve();
    for (const subscription of this.#subscriptions.values()) {
      if (!subscription.isInterrupted) continue;
      subscription.isInterrupted = false;
      subscription.receiver.restored();
    }
  }

  #deliver(subscription: Subscription, topic: string | undefined, message: NatsMessage): void {
    const { receiver, sequence } = subscription;
    // What comes during an outage is read from the history later.
    if (this.keepsHistory && !this.#isUp && sequence === undefined) return;
    const parsed = topic === undefined ? undefined : this.parse(message);
    if (parsed !== undefined) {
      if (sequence !== undefined) return this.enqueue(sequence, message, parsed);
      return receiver.message(topic!, parsed);
    }
    const error = `NATS sent something that is not a message on the subject ${message.subject}`;
    receiver.error(failure(error, "malformed-message"));
  }

  /** Follows the state of the connection, which subscribes again by itself. */
  async #watch(): Promise<void> {
    void handled(this.connection.closed()).then((cause) => {
      const error = failure("The connection to NATS is closed", "backplane-failed", cause);
      this.#fail(error);
      this.#end.abort(error);
    });
    for await (const { type } of this.#statuses) {
      if (this.isClosed) return;
      if (type === "disconnect") {
        this.#fail(failure("The connection to NATS has ended", "backplane-failed"));
      } else if (type === "reconnect") {
        void this.#restore();
      }
    }
  }
}

function interrupt(error: unknown, subscription: Subscription): void {
  if (!subscription.isConfirmed || subscription.isInterrupted) return;
  subscription.isInterrupted = true;
  subscription.receiver.interrupted(error);
}

/** Pause before an attempt is repeated, in milliseconds. */
const RETRY_PAUSE = 100;
const PUBLISH_TIMEOUT = 2_000;
/** Maximum time for which a stream recognizes a message that is sent again, in milliseconds. */
const DUPLICATES = 120_000;
/** Maximum time for which presence is stored, in milliseconds. */
const MEMBERS_AGE = 86_400_000;
const NANOSECONDS = 1_000_000;

interface StoredMessage extends NatsMessage {
  readonly seq: number;
  readonly time: Date;
}

interface StreamInfo {
  readonly created: string;
  readonly config: { readonly max_msgs_per_subject: number };
  readonly state: {
    readonly first_seq: number;
    readonly last_seq: number;
    readonly subjects?: Record<string, number>;
  };
}

/** What the backplane uses of a `JetStreamManager`. */
interface Manager {
  readonly streams: {
    info(stream: string, options?: object): Promise<StreamInfo>;
    add(config: object): Promise<StreamInfo>;
    purge(stream: string, options: object): Promise<unknown>;
  };
  readonly direct: { getMessage(stream: string, query: object): Promise<StoredMessage | null> };
}

/**
 * The stream publishes each message again with its sequence number, on a subject that begins with
 * `live`. The sequence numbers are the offsets, and the time at which the stream was created is the epoch.
 */
class JetStreamBackplane extends NatsBackplane {
  readonly #jetstream: NatsJetStream;
  readonly #options: NatsBackplaneOptions;
  readonly #process = crypto.randomUUID();
  #count = 0;
  #manager!: Manager;
  #epoch = "";
  /** The epoch for which the subscriptions have begun. */
  #begunEpoch = "";
  #checking: Promise<unknown> | undefined;
  /** The largest offset that this process was given in the current stream. */
  #largest = 0;
  /** The time of the server, less that of this process. Asked for once for each connection. */
  #clock: Promise<number> | undefined;
  readonly #created: { unsubscribe(): void };

  constructor(
    connection: NatsConnection,
    prefix: string,
    jetstream: NatsJetStream,
    options: NatsBackplaneOptions,
  ) {
    super(connection, prefix);
    this.#jetstream = jetstream;
    this.#options = options;
    // The server tells so when another stream takes the place of one that was deleted.
    const subject = `$JS.EVENT.ADVISORY.STREAM.CREATED.${prefix}`;
    const callback: NatsCallback = (error) => error === null && this.#checkEpoch();
    this.#created = connection.subscribe(subject, { callback });
  }

  override get keepsHistory(): boolean {
    return true;
  }

  override get live(): string {
    return `${this.prefix}-live`;
  }

  override async prepare(): Promise<void> {
    const { size = 100, ttl = 300_000, replicas = 1, storage = "file" } = this.#options;
    this.#manager = await this.#jetstream.jetstreamManager() as Manager;
    const shared = { allow_direct: true, num_replicas: replicas, storage, discard: "old" };
    await this.#create({
      ...shared,
      name: this.prefix,
      subjects: [`${this.prefix}.>`],
      max_msgs_per_subject: size,
      max_age: ttl * NANOSECONDS,
      duplicate_window: Math.min(ttl, DUPLICATES) * NANOSECONDS,
      republish: { src: `${this.prefix}.>`, dest: `${this.live}.>` },
    });
    await this.#create({
      ...shared,
      name: this.#members,
      subjects: [`${this.#members}.>`],
      max_msgs_per_subject: 1,
      max_age: MEMBERS_AGE * NANOSECONDS,
    });
    const { created } = await this.#manager.streams.info(this.prefix);
    this.#epoch = this.#begunEpoch = epochOf(created);
    this.#largest = 0;
    this.#clock = undefined;
  }

  override async close(): Promise<void> {
    this.#created.unsubscribe();
    await super.close();
  }

  // A server publishes the messages of several connections again in any order, also those of one topic.
  override sequenceOf(
    topic: string,
    deliver: (message: BackplaneMessage) => void,
  ): Sequence | undefined {
    if (topic.endsWith("*")) return undefined;
    return new Sequence({
      // What was held during an outage may be of another stream than before.
      deliver: ({ data, position }) =>
        deliver({ data, position: { epoch: this.#epoch, offset: position!.offset } }),
      repeated: () => this.#checkEpoch(),
      missing: () => this.restart(failure("NATS has left out messages", "backplane-failed")),
    });
  }

  override async begin({ topic, sequence }: Subscription): Promise<void> {
    if (sequence === undefined) return;
    const last = await this.#get({ last_by_subj: subjectOf(this.prefix, topic) });
    sequence.begin(last?.seq ?? 0);
  }

  override enqueue(sequence: Sequence, source: NatsMessage, message: BackplaneMessage): void {
    const previous = Number(source.headers?.get("Nats-Last-Sequence") || 0);
    sequence.take(message.position!.offset, previous, message);
  }

  /** Begins again if another stream has taken the place of the one that this process knows. */
  #checkEpoch(): void {
    this.#checking ??= handled(this.#look().finally(() => this.#checking = undefined));
  }

  override parse({ data, headers }: NatsMessage): BackplaneMessage | undefined {
    const offset = Number(headers?.get("Nats-Sequence") || NaN);
    if (!Number.isSafeInteger(offset)) return undefined;
    return { data, position: { epoch: this.#epoch, offset } };
  }

  override async publish(
    topic: string,
    data: Uint8Array,
    { signal }: BackplaneCall,
  ): Promise<Position> {
    const subject = subjectOf(this.prefix, topic);
    const options = { msgID: `${this.#process}-${++this.#count}`, timeout: PUBLISH_TIMEOUT };
    const publish = () => this.#jetstream.publish(subject, data, options);
    const { seq, duplicate } = await this.#insist(signal, publish);
    // Another stream has smaller offsets at first.
    if (seq <= this.#largest && !duplicate) await abortable(this.#look(), signal);
    this.#largest = Math.max(this.#largest, seq);
    return { epoch: this.#epoch, offset: seq };
  }

  /** Asks the server until it answers. A stream that is gone is made again. */
  async #insist<T>(signal: AbortSignal, ask: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        await this.ready(signal);
        return await abortable(ask(), signal);
      } catch (error) {
        if (this.isClosed || !(signal.aborted || isTransient(error))) throw error;
        if (isGone(error) && this.isUp) this.restart(error);
        this.hold();
        if (signal.aborted) throw error;
      }
    }
  }

  async read(
    topic: string,
    since: Position | undefined,
    { signal }: BackplaneCall,
  ): Promise<HistoryRead> {
    return await this.#insist(signal, () => this.#read(subjectOf(this.prefix, topic), since));
  }

  async announce(
    topic: string,
    owner: string,
    data: Uint8Array,
    ttl: number,
    { signal }: BackplaneCall,
  ): Promise<void> {
    const head = new TextEncoder().encode(`${ttl} `);
    const bytes = new Uint8Array(head.length + data.length);
    bytes.set(head);
    bytes.set(data, head.length);
    const options = { msgID: `${this.#process}-${++this.#count}`, timeout: PUBLISH_TIMEOUT };
    const subject = `${subjectOf(this.#members, topic)}.${owner}`;
    await this.#insist(signal, () => this.#jetstream.publish(subject, bytes, options));
  }

  async withdraw(topic: string, owner: string, { signal }: BackplaneCall): Promise<void> {
    const filter = `${subjectOf(this.#members, topic)}.${owner}`;
    await this.#insist(signal, () => this.#manager.streams.purge(this.#members, { filter }));
  }

  async members(topic: string, { signal }: BackplaneCall): Promise<readonly Uint8Array[]> {
    return await this.#insist(signal, () => this.#readMembers(topic));
  }

  async #readMembers(topic: string): Promise<Uint8Array[]> {
    const options = { subjects_filter: `${subjectOf(this.#members, topic)}.*` };
    const { state } = await this.#manager.streams.info(this.#members, options);
    const subjects = Object.keys(state.subjects ?? {});
    if (subjects.length === 0) return [];
    const found = await Promise.all(
      subjects.map((subject) => this.#get({ last_by_subj: subject }, this.#members)),
    );
    this.#clock ??= this.#compareClocks();
    const time = now() + await this.#clock;
    return found.flatMap((message) => {
      const space = message?.data.indexOf(32) ?? -1;
      if (message === null || space < 0) return [];
      const ttl = Number(new TextDecoder().decode(message.data.subarray(0, space)));
      return message.time.getTime() + ttl > time ? [message.data.subarray(space + 1)] : [];
    });
  }

  /** Learns the time of the server from a message. The clock of this machine may be another one. */
  async #compareClocks(): Promise<number> {
    // No topic has the empty name, so that no members are announced here.
    const subject = `${subjectOf(this.#members, "")}.clock`;
    const options = { msgID: `${this.#process}-${++this.#count}`, timeout: PUBLISH_TIMEOUT };
    try {
      const sent = now();
      await this.#jetstream.publish(subject, new Uint8Array(), options);
      const message = await this.#get({ last_by_subj: subject }, this.#members);
      return message!.time.getTime() - sent;
    } catch (error) {
      this.#clock = undefined;
      throw error;
    }
  }

  get #members(): string {
    return `${this.prefix}-members`;
  }

  async #create(config: { name: string } & Record<string, unknown>): Promise<void> {
    const { streams } = this.#manager;
    try {
      await streams.info(config.name);
    } catch {
      // Another process may make the stream at the same time.
      await streams.add(config).catch(() => streams.info(config.name));
    }
  }

  /** Asks for the state of the stream. Begins again if it is another one than before. */
  async #look(): Promise<StreamInfo> {
    const info = await this.#manager.streams.info(this.prefix);
    this.#epoch = epochOf(info.created);
    if (this.isUp && this.#epoch !== this.#begunEpoch) {
      this.restart(failure("The stream has begun again", "backplane-failed"));
    }
    return info;
  }

  #get(query: object, stream: string = this.prefix): Promise<StoredMessage | null> {
    return this.#manager.direct.getMessage(stream, query);
  }

  async #read(subject: string, since: Position | undefined): Promise<HistoryRead> {
    const { config, state } = await this.#look();
    const epoch = this.#epoch;
    const last = await this.#get({ last_by_subj: subject });
    const position = { epoch, offset: last?.seq ?? state.last_seq };
    if (since === undefined) return { recovered: true, messages: [], position };
    const gone = { recovered: false, messages: [], position };
    if (since.epoch !== epoch || since.offset > Math.max(state.last_seq, position.offset)) {
      return gone;
    }
    const messages: BackplaneMessage[] = [];
    for (let seq = since.offset + 1; seq <= position.offset;) {
      const found = await this.#get({ seq, next_by_subj: subject });
      if (found === null) break;
      messages.push({ data: found.data, position: { epoch, offset: found.seq } });
      seq = found.seq + 1;
    }
    // The stream drops the oldest messages of a subject first, if they are too many or too old.
    const oldest = await this.#get({ seq: 1, next_by_subj: subject });
    if (oldest !== null && oldest.seq <= since.offset) {
      return { recovered: true, messages, position };
    }
    const isOld = since.offset === 0
      ? state.first_seq > 1
      : await this.#get({ seq: since.offset }) === null;
    if (isOld || messages.length >= config.max_msgs_per_subject) return gone;
    return { recovered: true, messages, position };
  }
}

/** The epoch of a stream that was created at a time. */
function epochOf(created: string): string {
  return created.replace(/\W/g, "");
}

/** Whether a stream is gone. Then nobody answers, and the client says that JetStream is not enabled. */
function isGone(error: unknown): boolean {
  return /^(StreamNotFound|NoResponders|JetStreamNotEnabled)/.test(String((error as Error)?.name));
}

/** Whether a call may succeed later: there was no answer, or the server is starting. */
function isTransient(error: unknown): boolean {
  const name = String((error as Error)?.name);
  return isGone(error) || /^(Timeout|Request|ClosedConnection)/.test(name);
}

/**
 * Writes a topic as a subject: each `/` begins a token, and what a token may not have is written as `=`
 * and two hexadecimal digits. An empty token is `=`.
 *
 * @param isPrefix Whether the subject matches all topics that begin with these tokens.
 */
function subjectOf(prefix: string, topic: string, isPrefix = false): string {
  const tokens = topic.split("/").map(tokenOf);
  if (isPrefix) tokens[tokens.length - 1] = ">";
  return `${prefix}.${tokens.join(".")}`;
}

function tokenOf(text: string): string {
  if (/^[\w-]+$/.test(text)) return text;
  if (text === "") return "=";
  const bytes = Array.from(new TextEncoder().encode(text));
  return bytes.map((byte) => {
    const character = String.fromCharCode(byte);
    return /[\w-]/.test(character) ? character : `=${byte.toString(16).padStart(2, "0")}`;
  }).join("");
}

/** Parses a subject without its prefix. Returns undefined if it is not the subject of a topic. */
function topicOf(subject: string): string | undefined {
  try {
    const tokens = subject.split(".").map((token) => token === "=" ? "" : token);
    return decodeURIComponent(tokens.join("/").replaceAll("=", "%"));
  } catch {
    return undefined;
  }
}
