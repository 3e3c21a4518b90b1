/// <reference lib="esnext.disposable" preserve="true" />
/** Publishes messages to the subscribers of topics, in this process and, with a backplane, in others. */
import { handled, onAbort } from "../abortable.ts";
import {
  isRecipient,
  policyOf,
  type Recipient,
  recipients,
  sendingTo,
} from "../connection/broadcast.ts";
import { MAX_BUFFERED_AMOUNT } from "../connection/sending.ts";
import { invalidState, wrongType, wrongValue } from "../core/error.ts";
import type { Message } from "../core/message.ts";
import { checkKnown, notConnections } from "../core/option_hints.ts";
import { nextTurn } from "../timers.ts";
import { checkPosition, checkTopic, type Position } from "./backplane.ts";
import { Channel, type ChannelHost, type Member } from "./channel.ts";
import { type Codec, decodeWith, encodeWith, jsonCodec, plainCodec, toJson } from "./codec.ts";
import { callHook, Engine, type Report } from "./engine.ts";
import { type Delivery, randomId, RecentIds, sealEnvelope } from "./envelope.ts";
import { MemoryEngine } from "./memory.ts";
import {
  MESSAGES_OPTIONS,
  type MessagesOptions,
  PUBLISH_OPTIONS,
  type Publishable,
  type PublishOptions,
  type PublishResult,
  SUBSCRIBE_OPTIONS,
  type SubscribeOptions,
  TOPICS_OPTIONS,
  type TopicsOptions,
} from "./options.ts";
import { Presence } from "./presence.ts";
import { Reader, type TopicMessage } from "./reader.ts";
import {
  serveTopics,
  type ServeTopicsOptions,
  type ServingTopics,
  type TopicsConnection,
} from "./serve.ts";
import {
  ConnectionListener,
  type DeliveryOptions,
  type SubscribedPeer,
  type Subscriber,
  Subscription,
} from "./subscription.ts";

/** Memory of a message that waits for its confirmation in addition to its bytes. */
const OVERHEAD = 256;

/** Maximum number of messages with `except` whose return is waited for after their confirmation. */
const MAX_EXCEPTIONS = 10_000;

/**
 * Topics: connections subscribe to names, and each message that is published to a name goes to all of
 * them. With a backplane, also to those of other processes.
 *
 * A name has 1 to 255 bytes of UTF-8 and no control characters. A name with an asterisk at its end is a
 * prefix: `room/*` stands for all names that begin with `room/`. A connection gets each message once,
 * even if several of its subscriptions match. All subscribers of a topic get its messages in the same
 * order, with NATS only if it keeps a history.
 *
 * @example
 * ```ts
 * import { connect, serve } from "sluice";
 * import { Topics } from "sluice/topics";
 *
 * const topics = new Topics();
 * const server = await serve({ port: 0 }, async (ws) => {
 *   using subscription = topics.subscribe(ws, "room/42");
 *   for await (const message of ws) await topics.publish(subscription.topic, message);
 * });
 *
 * const ws = await connect(server.url!);
 * await ws.send("Hello");
 * console.log(await ws.receive()); // Hello
 * await ws.close();
 * await server.shutdown();
 * await topics.close();
 * ```
 */
export class Topics<T = Message> implements AsyncDisposable {
  readonly #options: TopicsOptions<T>;
  readonly #codec: Codec<T>;
  readonly #engine: Engine;
  readonly #presence: Presence | undefined;
  readonly #id = randomId();
  /** The topics with subscribers in this process, by name. */
  readonly #channels = new Map<string, Channel>();
  /** The prefixes among them, the longest first. */
  #prefixes: Channel[] = [];
  readonly #peers = new Map<Recipient, SubscribedPeer>();
  /** The excluded connections of own messages that have not come back, by number. */
  readonly #exceptions = new Map<number, WeakSet<Recipient>>();
  /** The ids of the last messages, if topics overlap. */
  readonly #recent = new RecentIds();
  readonly #host: ChannelHost;
  #published = 0;
  #pendingBytes = 0;
  #dispatches = 0;
  #isDispatching = false;
  /** What is dispatched after the current message. */
  readonly #later: (() => void)[] = [];
  #isClosed = false;

  /**
   * Makes topics.
   *
   * @param options The options.
   * @throws {TypeError} If an option is unknown or has the wrong type, or two options exclude each other.
   * @throws {RangeError} If an option has an invalid value.
   * @throws {DOMException} InvalidStateError if the backplane belongs to other topics, or does not support
   * `presence`.
   */
  constructor(options: TopicsOptions<T> = {}) {
    checkKnown("Topics", options, TOPICS_OPTIONS);
    const { backplane, history, codec, schema, presence = false } = options;
    const { publishTimeout = 5000, maxWaiting = 1000, maxWaitingBytes = 1_048_576 } = options;
    if (backplane !== undefined && history !== undefined) {
      throw wrongType("Expected history or backplane, received both: the backplane has its own");
    }
    if (codec !== undefined && schema !== undefined) {
      throw wrongType("Expected codec or schema, received both: let the codec validate");
    }
    this.#options = options;
    this.#codec = codec ?? (schema && jsonCodec(schema)) ?? plainCodec as Codec<T>;
    const report: Report = (error, topic) => this.#report(error, topic);
    const carrier = backplane ?? new MemoryEngine(history).attach();
    this.#engine = new Engine(carrier, {
      isLocal: backplane === undefined,
      timeout: publishTimeout,
      maxBytes: maxWaitingBytes,
      report,
    });
    this.#host = {
      engine: this.#engine,
      limits: { maxWaiting, maxWaitingBytes },
      arrived: (channel, delivery) => this.#arrived(channel, delivery),
      dispatch: (delivery) => this.#dispatchOnce(delivery),
      dispatchLate: (delivery) => {
        if (!this.#recent.add(delivery.id)) this.#dispatch(delivery, "prefixes");
      },
      missedByPrefixes: (topic) => {
        for (const channel of this.#prefixes) if (channel.matches(topic)) channel.tellMissed();
      },
    };
    if (presence !== false) {
      const wanted = presence === true ? {} : presence;
      this.#presence = new Presence(this.#engine, this.#id, wanted, (name) => this.#present(name));
    }
  }

  #report(error: unknown, topic: string | undefined): void {
    const { onError = (error: unknown) => console.error(error) } = this.#options;
    callHook(() => onError(error, topic), (second) => console.error(second));
  }

  #hook(hook: ((topic: string) => void) | undefined, topic: string): void {
    callHook(() => hook?.(topic), (error) => this.#report(error, topic));
  }

  /**
   * Subscribes a connection. The subscription ends with the connection. If the connection has ended
   * already, so has the subscription.
   *
   * @param ws The connection.
   * @param name The name of a topic, or a prefix such as `room/*`.
   * @param options Options of this subscription.
   * @returns The subscription, at once. Its `ready` resolves when the engine has confirmed it.
   * @throws {TypeError} If an argument or option has the wrong type.
   * @throws {RangeError} If the name, the position or an option is not valid.
   * @throws {DOMException} InvalidStateError if the topics are closed, or the connection has
   * `maxTopicsPerConnection` subscriptions.
   */
  subscribe(ws: Subscriber, name: string, options: SubscribeOptions = {}): Subscription {
    if (!isRecipient(ws) || typeof ws.signal?.aborted !== "boolean") {
      throw notConnections("a connection", ws);
    }
    checkTopic(name, true);
    checkKnown("subscribe()", options, SUBSCRIBE_OPTIONS);
    const delivery = this.#deliveryOptions(name, options);
    this.#checkOpen();
    const peer = this.#peers.get(ws) ?? this.#watch(ws);
    const { maxTopicsPerConnection: most = 1000 } = this.#options;
    if (peer.subscriptions.size >= most) {
      throw invalidState(
        `Cannot subscribe: the connection has maxTopicsPerConnection (${most}) subscriptions`,
        "too-many-topics",
      );
    }
    const listener = this.#join(
      name,
      (channel) => new ConnectionListener(channel, this.#host, peer, delivery),
    );
    peer.subscriptions.add(listener);
    if (ws.signal.aborted) this.#leave(listener);
    return new Subscription(listener, () => this.#leave(listener));
  }

  #deliveryOptions(name: string, options: SubscribeOptions): DeliveryOptions {
    const { presence, framed = false, onMissed } = options;
    if (presence !== undefined && this.#presence === undefined) {
      throw wrongType("The option presence of subscribe() needs presence of the topics");
    }
    const { slow, maxBufferedAmount } = this.#options;
    const policy = policyOf({
      slow: options.slow ?? slow,
      maxBufferedAmount: options.maxBufferedAmount ?? maxBufferedAmount,
      compress: options.compress,
    });
    // The subscribers of this process and those of others are told of the same value.
    const told = presence === undefined ? undefined : JSON.parse(toJson(presence));
    const since = this.#since(name, options.since);
    return { ...policy, framed, onMissed, presence: told, since };
  }

  #since(name: string, since: Position | string | undefined): Position | undefined {
    if (since === undefined) return undefined;
    if (name.endsWith("*")) throw wrongValue("Cannot use since with a prefix: name one topic");
    return checkPosition(since);
  }

  #checkOpen(): void {
    if (this.#isClosed) throw invalidState("The topics are closed", "not-open");
  }

  /** Begins to watch a connection for its end. */
  #watch(ws: Subscriber): SubscribedPeer {
    const peer: SubscribedPeer = {
      ws,
      sending: sendingTo(ws),
      subscriptions: new Set(),
      lastDispatch: 0,
      stopWatching: () => {},
    };
    this.#peers.set(ws, peer);
    peer.stopWatching = onAbort(ws.signal, () => {
      for (const listener of peer.subscriptions) this.#leave(listener);
    });
    return peer;
  }

  /** Adds a member to the channel of a name. The first one makes the channel. */
  #join<M extends Member>(name: string, make: (channel: Channel) => M): M {
    let channel = this.#channels.get(name);
    const isFirst = channel === undefined;
    if (channel === undefined) {
      this.#channels.set(name, channel = new Channel(name, this.#host));
      if (channel.isPrefix) this.#sortPrefixes();
    }
    const member = make(channel);
    channel.members.add(member);
    if (isFirst) this.#hook(this.#options.onFirstSubscriber, name);
    this.#announce(channel, member);
    return member;
  }

  #sortPrefixes(): void {
    this.#prefixes = [...this.#channels.values()].filter(({ isPrefix }) => isPrefix)
      .sort((a, b) => b.prefix.length - a.prefix.length);
    if (this.#prefixes.length === 0) this.#recent.clear();
  }

  #leave(listener: ConnectionListener): void {
    const { channel, peer } = listener;
    if (!peer.subscriptions.delete(listener)) return;
    if (peer.subscriptions.size === 0) {
      peer.stopWatching();
      this.#peers.delete(peer.ws);
    }
    this.#part(channel, listener);
    for (const delivery of listener.takeHeld()) this.#handOver(peer, delivery);
  }

  /** Gives a message that one subscription has held to another one of the connection that matches. */
  #handOver({ subscriptions }: SubscribedPeer, delivery: Delivery): void {
    for (const listener of subscriptions) {
      if (listener.channel.matches(delivery.topic)) return listener.receive(delivery);
    }
  }

  #part(channel: Channel, member: Member): void {
    if (this.#isClosed || !channel.members.delete(member)) return;
    member.end();
    this.#announce(channel, member);
    if (channel.members.size > 0) return;
    channel.stop();
    this.#channels.delete(channel.name);
    if (channel.isPrefix) this.#sortPrefixes();
    this.#hook(this.#options.onLastSubscriber, channel.name);
  }

  #announce({ name, isPrefix }: Channel, { presence }: Member): void {
    if (this.#isClosed || isPrefix) return;
    if (presence !== undefined) this.#presence?.changed(name);
  }

  /**
   * Publishes a message to a topic.
   *
   * @param name The name of the topic, without an asterisk.
   * @param message The message. Bytes are copied. Without codec or schema, a string, a `Uint8Array`, or a
   * value with JSON; a promise, a `Map` or an `ArrayBuffer` is refused, because its JSON is empty.
   * @param options Options of this message.
   * @returns A promise that resolves when the engine has taken the message; in one process, when all
   * subscribers were served. It rejects with TypeError or RangeError if an argument is not valid, or the
   * codec fails; with InvalidStateError if the topics are closed or `maxPendingBytes` is reached; with an
   * error of the code "backplane-failed" if the engine has not confirmed the message in time, or has refused
   * the message but taken a later one of the topic. A message that was not confirmed may have been taken all
   * the same. The rejection never counts as unhandled.
   */
  publish(
    name: string,
    message: Publishable<T>,
    options: PublishOptions = {},
  ): Promise<PublishResult> {
    return handled(this.#publish(name, message as T, options));
  }

  async #publish(name: string, value: T, options: PublishOptions): Promise<PublishResult> {
    checkTopic(name, false);
    checkKnown("publish()", options, PUBLISH_OPTIONS);
    this.#checkOpen();
    const message = encodeWith(this.#codec, value);
    const number = ++this.#published;
    const data = sealEnvelope(message, this.#id, number);
    const size = data.length + OVERHEAD;
    const { maxPendingBytes: most = 16_777_216 } = this.#options;
    if (this.#pendingBytes > 0 && this.#pendingBytes + size > most) {
      // Otherwise a loop that publishes again at once would keep the confirmations from arriving.
      await new Promise<void>((resolve) => void nextTurn(resolve));
      throw invalidState(
        `Cannot publish: more than maxPendingBytes (${most}) wait for the backplane`,
        "busy",
      );
    }
    const { except } = options;
    if (except !== undefined) this.#except(number, except);
    this.#pendingBytes += size;
    try {
      const { backplane } = this.#engine;
      const position = await this.#engine.call(
        "take the message",
        (call) => backplane.publish(name, data, call),
      );
      return { position };
    } finally {
      this.#pendingBytes -= size;
    }
  }

  #except(number: number, except: Recipient | Iterable<Recipient>): void {
    this.#exceptions.set(number, new WeakSet(isRecipient(except) ? [except] : recipients(except)));
    // Each message that waits for its confirmation takes OVERHEAD bytes or more, and will come back.
    if (this.#exceptions.size <= MAX_EXCEPTIONS + this.#pendingBytes / OVERHEAD) return;
    // A message whose publication has failed may never come back.
    const [oldest] = this.#exceptions.keys();
    this.#exceptions.delete(oldest);
  }

  /** Takes a message that one of the subscriptions of this process has received. */
  #arrived(channel: Channel, delivery: Delivery): void {
    const exact = channel.isPrefix ? this.#channels.get(delivery.topic) : channel;
    if (exact === undefined) this.#dispatchOnce(delivery);
    else if (exact === channel) exact.accept(delivery);
    else exact.acceptEarly(delivery);
  }

  /** Gives a message to all subscribers, unless they have got it by another subscription of this process. */
  #dispatchOnce(delivery: Delivery): void {
    const isKnown = this.#prefixes.length > 0 && this.#recent.add(delivery.id);
    if (!isKnown) this.#dispatch(delivery, "all");
    // A channel takes a position once.
    else if (delivery.position !== undefined) this.#dispatch(delivery, "topic");
  }

  #dispatch(delivery: Delivery, to: "all" | "topic" | "prefixes"): void {
    if (this.#isDispatching) {
      // A subscriber that is too slow leaves its topic, which gives the messages that wait there.
      this.#later.push(() => this.#dispatch(delivery, to));
      return;
    }
    this.#isDispatching = true;
    this.#dispatches++;
    const excluded = this.#takeException(delivery, to);
    const members = this.#channels.get(delivery.topic)?.members ?? [];
    // Who also has a prefix must not get from there what is in the history too.
    const own = to === "prefixes" ? [...members].filter((each) => each.isCatchingUp) : members;
    this.#deliver(own, delivery, excluded);
    for (const { prefix, members } of to === "topic" ? [] : this.#prefixes) {
      if (delivery.topic.startsWith(prefix)) this.#deliver(members, delivery, excluded);
    }
    this.#isDispatching = false;
    this.#later.shift()?.();
  }

  #takeException(
    { publisher, number }: Delivery,
    to: "all" | "topic" | "prefixes",
  ): WeakSet<Recipient> | undefined {
    if (this.#exceptions.size === 0 || publisher !== this.#id) return undefined;
    const excluded = this.#exceptions.get(number);
    // The subscribers of the topic may get the message later.
    if (to !== "prefixes") this.#exceptions.delete(number);
    return excluded;
  }

  #deliver(
    members: Iterable<Member>,
    delivery: Delivery,
    excluded: WeakSet<Recipient> | undefined,
  ): void {
    for (const member of members) {
      const { peer } = member;
      if (peer !== undefined) {
        if (peer.lastDispatch === this.#dispatches || excluded?.has(peer.ws)) continue;
        peer.lastDispatch = this.#dispatches;
      }
      try {
        member.receive(delivery);
      } catch (error) {
        this.#report(error, delivery.topic);
      }
    }
  }

  /**
   * Returns the messages of a topic as a stream. The subscription begins at once and ends when the stream
   * is cancelled. A message that the codec or the schema rejects is left out, and `onError` is told.
   *
   * @param name The name of a topic, or a prefix such as `room/*`.
   * @param options Options of the stream.
   * @returns The stream. It closes when the topics are closed. If the reader is too slow, see `slow`.
   * @throws {TypeError} If an argument or option has the wrong type.
   * @throws {RangeError} If the name, the position or an option is not valid.
   * @throws {DOMException} InvalidStateError if the topics are closed.
   */
  messages(name: string, options: MessagesOptions = {}): ReadableStream<TopicMessage<T>> {
    checkTopic(name, true);
    checkKnown("messages()", options, MESSAGES_OPTIONS);
    this.#checkOpen();
    const { slow = "error", maxBufferedAmount = this.#options.maxBufferedAmount } = options;
    const since = this.#since(name, options.since);
    const reader = this.#join(name, (channel) =>
      new Reader<T>(channel, this.#host, {
        since,
        slow,
        maxBufferedAmount: maxBufferedAmount ?? MAX_BUFFERED_AMOUNT,
        decode: (message) => this.parse(message),
      }, (left) => this.#part(channel, left)));
    return reader.stream;
  }

  /**
   * Decodes and validates a message that a client has sent, with the codec or the schema of the topics.
   *
   * @param message A message, as received from a connection.
   * @returns A promise of the value. It rejects with a TypeError of the code "malformed-message" if the
   * message is not valid.
   */
  parse(message: Message): Promise<T> {
    return decodeWith(this.#codec, message);
  }

  /**
   * Serves a client that uses `resumable()`: subscribes the connection to the topics for which it asks,
   * and publishes what it sends. The page "Wire format of topics" describes the messages. Requests that
   * are wrong or not allowed are refused, each with an answer that says why; the connection goes on.
   *
   * @param ws The connection, which must not be read in another way.
   * @param options Which topics the client may use. By default, none.
   * @returns A promise that resolves when the connection has ended.
   * @throws {TypeError} If an argument or option has the wrong type.
   */
  serve(ws: TopicsConnection, options: ServeTopicsOptions): Promise<void> {
    return serveTopics(this as ServingTopics, ws, options);
  }

  /**
   * Returns the connections in this process that are subscribed to a name. A connection that is subscribed
   * to `room/*` counts for that prefix only.
   *
   * @param name The name of a topic, or a prefix such as `room/*`.
   */
  subscribers(name: string): Subscriber[] {
    const members = this.#channels.get(name)?.members ?? [];
    const found = new Set<Subscriber>();
    for (const { peer } of members) if (peer !== undefined) found.add(peer.ws as Subscriber);
    return [...found];
  }

  /** Number of subscriptions and streams of a name in this process. */
  count(name: string): number {
    return this.#channels.get(name)?.members.size ?? 0;
  }

  /** The names and prefixes that have subscribers in this process. */
  get names(): string[] {
    return [...this.#channels.keys()];
  }

  /**
   * Returns what the subscribers of a topic have given as `presence`, in all processes. A subscription
   * without `presence` is not listed, and neither is one to a prefix. Other processes see a change within
   * a few turns of the event loop and the time to reach the engine, and a process that has died is listed
   * until `ttl` has passed.
   *
   * @param name The name of the topic.
   * @returns A promise of the values. It rejects with InvalidStateError if the option `presence` is not
   * set, and with an error of the code "backplane-failed" if the engine does not answer.
   */
  async members(name: string): Promise<unknown[]> {
    checkTopic(name, false);
    this.#checkOpen();
    if (this.#presence === undefined) {
      throw invalidState("The topics have no presence: set the option presence", "wrong-state");
    }
    return await this.#presence.members(name);
  }

  #present(name: string): unknown[] {
    const found: unknown[] = [];
    for (const member of this.#channels.get(name)?.members ?? []) {
      if (member.presence !== undefined) found.push(member.presence);
    }
    return found;
  }

  /**
   * Ends all subscriptions and streams, withdraws the members, and closes the backplane. Connections stay
   * open. Waiting calls of `publish()` reject. May be called again.
   */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const { members } of this.#channels.values()) {
      for (const member of members) member.end();
    }
    for (const channel of this.#channels.values()) channel.end();
    for (const peer of this.#peers.values()) {
      peer.stopWatching();
      peer.subscriptions.clear();
    }
    this.#channels.clear();
    this.#prefixes = [];
    this.#peers.clear();
    this.#exceptions.clear();
    this.#recent.clear();
    await this.#presence?.close();
    await this.#engine.close();
  }

  /** Closes the topics. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
