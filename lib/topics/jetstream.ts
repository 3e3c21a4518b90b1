/** A backplane over JetStream, which keeps a history. */
import { abortable, handled } from "../abortable.ts";
import { errorCodeOf, failure } from "../core/error.ts";
import { now } from "../timers.ts";
import type {
  BackplaneCall,
  BackplaneMessage,
  HistoryRead,
  Position,
  ReadCall,
} from "./backplane.ts";
import {
  bytesOf,
  NatsBackplane,
  type NatsCallback,
  type NatsConnection,
  type NatsMessage,
  type NatsSubscription,
  subjectOf,
} from "./nats_core.ts";
import { Outbox, type OutboxHost } from "./outbox.ts";
import { Ranges } from "./ranges.ts";
import { Sequence } from "./sequence.ts";

/** What `jetstream(connection)` of `@nats-io/jetstream` returns. */
export interface NatsJetStream {
  /** Stores a message. */
  publish(
    subject: string,
    data: Uint8Array,
    options: { msgID: string; timeout: number; expect?: { lastMsgID: string } },
  ): Promise<{ readonly seq: number; readonly duplicate?: boolean }>;
  /** Returns a `JetStreamManager`. */
  jetstreamManager(): Promise<unknown>;
}

/** How streams are created. */
interface StreamOptions {
  readonly size?: number | undefined;
  readonly ttl?: number | undefined;
  readonly replicas?: number | undefined;
  readonly storage?: "file" | "memory" | undefined;
}

const PUBLISH_TIMEOUT = 2_000;
/** Code of the server's error if the last message of the stream has another id than expected. */
const UNEXPECTED = 10_070;
/** Maximum time for which a stream recognizes a message that is sent again, in milliseconds. */
const DUPLICATES = 120_000;
/** Maximum time for which presence is stored, in milliseconds. */
const MEMBERS_AGE = 86_400_000;
const NANOSECONDS = 1_000_000;
/**
 * How a page of a history is read: the number of sequence numbers to begin with, and the number of messages
 * after which no others are looked for. Each message takes a call, and the page must arrive in time.
 */
const MIN_SPAN = 512;
const ENOUGH = 256;

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
export class JetStreamBackplane extends NatsBackplane implements OutboxHost {
  readonly #jetstream: NatsJetStream;
  readonly #options: StreamOptions;
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
  readonly #outbox: Outbox = new Outbox(this);

  constructor(
    connection: NatsConnection,
    prefix: string,
    jetstream: NatsJetStream,
    options: StreamOptions,
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

  override async begin({ topic, sequence }: NatsSubscription): Promise<void> {
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
    data: Uint8Array | string,
    { signal }: BackplaneCall,
  ): Promise<Position> {
    const subject = subjectOf(this.prefix, topic);
    const options = { msgID: `${this.#process}-${++this.#count}`, timeout: PUBLISH_TIMEOUT };
    const bytes = bytesOf(data);
    // The server answers with the place of a message that it has. No message has the expected id.
    const ifStored = { ...options, expect: { lastMsgID: "-" } };
    const publish = (isLate: boolean) =>
      this.#ask(() => this.#jetstream.publish(subject, bytes, isLate ? ifStored : options));
    const { seq, duplicate } = await this.#outbox.publish(topic, signal, publish);
    // Another stream has smaller offsets at first.
    if (seq <= this.#largest && !duplicate) await abortable(this.#look(), signal);
    this.#largest = Math.max(this.#largest, seq);
    return { epoch: this.#epoch, offset: seq };
  }

  /** Asks the server until it answers. */
  async #insist<T>(signal: AbortSignal, ask: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        await this.ready(signal);
        return await abortable(this.#ask(ask), signal);
      } catch (error) {
        this.failed(error, signal);
      }
    }
  }

  /** Asks the server. Rejects when the connection is lost: a request of the client goes on. */
  #ask<T>(ask: () => Promise<T>): Promise<T> {
    const { lost } = this;
    return abortable((async () => await ask())(), lost);
  }

  isRefusal(error: unknown): boolean {
    return isGone(error) || (error as { code?: unknown }).code === UNEXPECTED;
  }

  /** Prepares to ask again. A stream that is gone is made again. */
  failed(error: unknown, signal: AbortSignal): void {
    if (this.isClosed || !(signal.aborted || isTransient(error))) throw error;
    if (isGone(error) && this.isUp) this.restart(error);
    this.hold();
    if (signal.aborted) throw error;
  }

  override async settled(): Promise<void> {
    await this.#outbox.settled();
  }

  async read(
    topic: string,
    since: Position | undefined,
    call: ReadCall,
  ): Promise<HistoryRead> {
    const subject = subjectOf(this.prefix, topic);
    return await this.#insist(call.signal, () => this.#read(subject, since, call));
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
  async #look(options?: { subjects_filter: string }): Promise<StreamInfo> {
    const info = await this.#manager.streams.info(this.prefix, options);
    this.#epoch = epochOf(info.created);
    if (this.isUp && this.#epoch !== this.#begunEpoch) {
      this.restart(failure("The stream has begun again", "backplane-failed"));
    }
    return info;
  }

  #get(query: object, stream: string = this.prefix): Promise<StoredMessage | null> {
    return this.#manager.direct.getMessage(stream, query);
  }

  async #read(
    subject: string,
    since: Position | undefined,
    call: ReadCall,
  ): Promise<HistoryRead> {
    const { state } = await this.#look();
    const epoch = this.#epoch;
    const last = await this.#get({ last_by_subj: subject });
    const position = { epoch, offset: last?.seq ?? state.last_seq };
    if (since === undefined) return { recovered: true, messages: [], position };
    const gone = { recovered: false, messages: [], position };
    if (since.epoch !== epoch || since.offset > Math.max(state.last_seq, position.offset)) {
      return gone;
    }
    const found = await this.#readPage(subject, since.offset + 1, position.offset, call);
    const messages = found.map(({ data, seq }) => ({ data, position: { epoch, offset: seq } }));
    // The stream drops the oldest messages of a subject first, if they are too many or too old.
    const oldest = await this.#get({ seq: 1, next_by_subj: subject });
    if (oldest !== null && oldest.seq <= since.offset) {
      return { recovered: true, messages, position };
    }
    return await this.#hasDropped(subject, since.offset)
      ? gone
      : { recovered: true, messages, position };
  }

  /** Whether messages after an offset may have been dropped, if there is none before it any more. */
  async #hasDropped(subject: string, offset: number): Promise<boolean> {
    const { config, state } = await this.#look({ subjects_filter: subject });
    const isOld = offset === 0 ? state.first_seq > 1 : await this.#get({ seq: offset }) === null;
    return isOld || (state.subjects?.[subject] ?? 0) >= config.max_msgs_per_subject;
  }

  /** Reads the first messages of a subject. The numbers between them belong to other subjects. */
  async #readPage(
    subject: string,
    first: number,
    last: number,
    { signal, maxBytes }: ReadCall,
  ): Promise<StoredMessage[]> {
    const found: StoredMessage[] = [];
    const get = (seq: number) => {
      // A call that was given up must not take the server's time from the next one.
      signal.throwIfAborted();
      return this.#get({ seq, next_by_subj: subject });
    };
    let left = maxBytes ?? Infinity;
    let isFull = false;
    for (let span = MIN_SPAN; first <= last && !isFull; span *= 2) {
      const end = Math.min(first + span - 1, last);
      const ranges = new Ranges<StoredMessage>(first, end, left);
      await ranges.read(get);
      found.push(...ranges.found);
      left -= ranges.bytes;
      isFull = ranges.isFull || left <= 0 || (maxBytes !== undefined && found.length >= ENOUGH);
      first = end + 1;
    }
    return found;
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
  return isGone(error) || /^(Timeout|Request|ClosedConnection)/.test(name) ||
    errorCodeOf(error) === "backplane-failed";
}
