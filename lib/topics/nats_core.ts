/** A backplane over core NATS, and how topics are written as subjects. */
import { abortable, Gate, handled, sleep } from "../abortable.ts";
import { failure, invalidState } from "../core/error.ts";
import type {
  Backplane,
  BackplaneCall,
  BackplaneMessage,
  BackplaneReceiver,
  Position,
} from "./backplane.ts";
import type { Sequence } from "./sequence.ts";

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

/** Pause before an attempt is repeated, in milliseconds. */
const RETRY_PAUSE = 100;

/** A subscription at the server. */
export interface NatsSubscription {
  readonly topic: string;
  readonly receiver: BackplaneReceiver;
  /** The order of the messages, if the stream has one that the server may not keep. */
  readonly sequence: Sequence | undefined;
  unsubscribe(): void;
  isConfirmed: boolean;
  isInterrupted: boolean;
}

export class NatsBackplane implements Backplane {
  readonly prefix: string;
  readonly connection: NatsConnection;
  readonly #end = new AbortController();
  readonly #statuses: AsyncIterable<{ readonly type: string }> & { stop?(): void };
  readonly #subscriptions = new Map<string, NatsSubscription>();
  /** The last receiver of each topic: a subscription may end while the connection is not ready. */
  readonly #wanted = new Map<string, BackplaneReceiver>();
  /** Settles when the connection can be used, or an attempt to use it has failed. */
  #ready!: Promise<void>;
  #settle!: { resolve(): void; reject(error: unknown): void };
  #isUp = false;
  /** Aborted when the connection is lost. */
  #lost = new AbortController();
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
  async begin(_subscription: NatsSubscription): Promise<void> {}

  /** Gives a message to the sequence of its topic. */
  enqueue(_sequence: Sequence, _source: NatsMessage, _message: BackplaneMessage): void {}

  /** Waits for the connection, or until the call is given up. */
  async ready(signal: AbortSignal): Promise<void> {
    this.#end.signal.throwIfAborted();
    do {
      await abortable(abortable(this.#ready, this.#end.signal), signal);
      await abortable(this.#gate.pass(this.#end.signal), signal);
      // The connection may be lost while the gate is closed.
    } while (!this.#isUp);
  }

  /**
   * Lets all later calls wait until the server has answered, and for a pause. Otherwise the client would
   * keep the bytes of any number of calls that were given up, and a message that is sent again would come
   * after later ones.
   */
  hold(): void {
    const { signal } = this.#end;
    this.#gate.close(() =>
      Promise.allSettled([this.connection.flush(), this.settled(), sleep(RETRY_PAUSE, signal)])
    );
  }

  /** Waits until the messages that were sent are settled, if they are sent again after failures. */
  async settled(): Promise<void> {}

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
      if (error !== null) {
        const what = `NATS reports an error of the subscription to ${topic}`;
        return interrupt(failure(what, "backplane-failed", error), subscription);
      }
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
    data: Uint8Array | string,
    { signal }: BackplaneCall,
  ): Promise<Position | undefined> {
    await this.ready(signal);
    this.connection.publish(subjectOf(this.prefix, topic), bytesOf(data));
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

  /** Whether messages can be sent now. */
  get canSend(): boolean {
    return this.#isUp && !this.#gate.isClosed;
  }

  /** Aborted when the connection of this moment is lost. */
  get lost(): AbortSignal {
    return this.#lost.signal;
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

  #deliver(subscription: NatsSubscription, topic: string | undefined, message: NatsMessage): void {
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
        const error = failure("The connection to NATS has ended", "backplane-failed");
        this.#lost.abort(error);
        this.#lost = new AbortController();
        this.#fail(error);
      } else if (type === "reconnect") {
        void this.#restore();
      }
    }
  }
}

const utf8 = new TextEncoder();

export function bytesOf(data: Uint8Array | string): Uint8Array {
  return typeof data === "string" ? utf8.encode(data) : data;
}

function interrupt(error: unknown, subscription: NatsSubscription): void {
  if (!subscription.isConfirmed || subscription.isInterrupted) return;
  subscription.isInterrupted = true;
  subscription.receiver.interrupted(error);
}

/**
 * Writes a topic as a subject: each `/` begins a token, and what a token may not have is written as `=`
 * and two hexadecimal digits. An empty token is `=`.
 *
 * @param isPrefix Whether the subject matches all topics that begin with these tokens.
 */
export function subjectOf(prefix: string, topic: string, isPrefix = false): string {
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
