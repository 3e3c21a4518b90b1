/** Topics for clients, also in browsers: remembers positions, and asks for what was missed. */
import { handled } from "../abortable.ts";
import { invalidState, wrongType, wrongValue } from "../core/error_code.ts";
import type { Message } from "../core/message.ts";
import { checkKnown, checkType, kindOf } from "../core/options.ts";
import { nextTurn } from "../timers.ts";
import { checkTopic, parsePosition } from "./backplane.ts";
import { frameWith, type Line, type Parsed, parseFrame } from "./wire.ts";

/** A connection of {@linkcode resumable}. */
export interface ResumableConnection extends AsyncIterable<Message> {
  /** Sends a message. */
  send(message: Message): Promise<void>;
  /** Closes the connection. Called when the iteration ends. */
  close(): Promise<unknown>;
  /** Whether an error only says that the connection has ended. */
  isOwnError(error: unknown): boolean;
}

/** What {@linkcode resumable} yields. */
export type TopicEvent =
  /** A message of a topic. */
  | {
    readonly type: "message";
    readonly topic: string;
    readonly message: Message;
    readonly position: string | undefined;
  }
  /**
   * The server has confirmed a subscription, after each connect. If `recovered` is false, messages were
   * missed, and the state of the topic must be fetched in another way.
   */
  | {
    readonly type: "subscribed";
    readonly topic: string;
    readonly recovered: boolean;
    readonly position: string | undefined;
  }
  /** Messages of a topic may be missing, because the server has missed them. */
  | { readonly type: "missed"; readonly topic: string }
  /** The server has refused a subscription, or something that it did not understand. */
  | {
    readonly type: "refused";
    readonly topic: string | undefined;
    readonly code: string;
    readonly reason: string;
  };

/** Options of {@linkcode resumable}. */
export interface ResumableOptions {
  /** The names and prefixes to subscribe to at first. By default, none. */
  topics?: Iterable<string> | undefined;
  /**
   * Positions from which to go on, by topic, for example the `positions` of an earlier page. By default,
   * subscriptions begin with the messages of now.
   */
  positions?: Readonly<Record<string, string>> | undefined;
}

/** Topics over connections that are made again when they are lost. */
export interface ResumableTopics extends AsyncIterable<TopicEvent> {
  /** The position of the last message of each topic. Save them to go on later. */
  readonly positions: Readonly<Record<string, string>>;
  /**
   * Subscribes to a name or prefix, on this connection and all later ones.
   *
   * @throws {TypeError} If the name is not a string.
   * @throws {RangeError} If the name is not valid.
   */
  subscribe(topic: string): void;
  /** Ends a subscription. */
  unsubscribe(topic: string): void;
  /**
   * Publishes a message. The caller must be iterating.
   *
   * @returns A promise of the position, or of undefined if the server keeps no history. It rejects with
   * TypeError or RangeError if an argument is not valid, with RangeError if the server refuses, and with
   * InvalidStateError if there is no connection, or the connection is lost before the answer. In that case
   * the message may have been published. It rejects in a later turn of the event loop, so that a loop may
   * publish again until it succeeds.
   */
  publish(topic: string, message: Message): Promise<string | undefined>;
}

const RESUMABLE_OPTIONS = {
  // The characters of a string are no names.
  topics: (name: string, value: unknown) =>
    checkType(
      name,
      value,
      "an iterable of names",
      typeof value === "object" && Symbol.iterator in Object(value),
    ),
  positions: (name: string, value: unknown) =>
    checkType(name, value, "an object", typeof value === "object"),
};

/**
 * Subscribes to topics of a server that uses `Topics.serve()`, over connections that follow each other.
 * After each connect, the server is asked for what was missed.
 *
 * @example
 * ```ts
 * import { reconnect, serve } from "sluice";
 * import { resumable, Topics } from "sluice/topics";
 *
 * const topics = new Topics({ history: {} });
 * const server = await serve({ port: 0 }, (ws) => topics.serve(ws, { maySubscribe: () => true }));
 *
 * const news = resumable(reconnect(server.url!), { topics: ["news"] });
 * for await (const event of news) {
 *   if (event.type === "subscribed") await topics.publish("news", "Hello");
 *   if (event.type !== "message") continue;
 *   console.log(event.message); // Hello
 *   break;
 * }
 * await server.shutdown();
 * await topics.close();
 * ```
 *
 * @param connections The connections, such as those of `reconnect()`.
 * @param options What to subscribe to.
 * @returns The topics. Iterate over them once; `break` closes the connection.
 * @throws {TypeError} If an argument or option has the wrong type.
 * @throws {RangeError} If a name or a position is not valid.
 */
export function resumable(
  connections: AsyncIterable<ResumableConnection>,
  options: ResumableOptions = {},
): ResumableTopics {
  if (typeof Object(connections)[Symbol.asyncIterator] !== "function") {
    throw wrongType("Expected connections, such as reconnect(url)");
  }
  checkKnown("resumable()", options, RESUMABLE_OPTIONS);
  return new Resuming(connections, options);
}

interface Pending {
  resolve(position: string | undefined): void;
  reject(error: unknown): void;
}

class Resuming implements ResumableTopics {
  readonly #connections: AsyncIterable<ResumableConnection>;
  readonly #names: Set<string>;
  readonly #positions = new Map<string, string>();
  /** The names whose subscription was confirmed, on this connection or an earlier one. */
  readonly #confirmed = new Set<string>();
  /** The names for which this connection has a request that is not answered yet. */
  readonly #asked = new Set<string>();
  readonly #pending = new Map<number, Pending>();
  #ws: ResumableConnection | undefined;
  #lastId = 0;

  constructor(connections: AsyncIterable<ResumableConnection>, options: ResumableOptions) {
    const { topics = [], positions = {} } = options;
    this.#connections = connections;
    this.#names = new Set(topics);
    for (const topic of this.#names) checkTopic(topic, true);
    for (const [topic, position] of Object.entries(positions)) {
      parsePosition(position);
      this.#positions.set(topic, position);
    }
  }

  get positions(): Readonly<Record<string, string>> {
    return Object.fromEntries(this.#positions);
  }

  subscribe(topic: string): void {
    checkTopic(topic, true);
    this.#names.add(topic);
    this.#ask(topic);
  }

  unsubscribe(topic: string): void {
    this.#names.delete(topic);
    this.#positions.delete(topic);
    this.#confirmed.delete(topic);
    this.#asked.delete(topic);
    this.#send({ unsubscribe: topic });
  }

  #ask(topic: string): void {
    // The server refuses a second request before it has answered the first one.
    if (this.#ws === undefined || this.#asked.has(topic)) return;
    this.#asked.add(topic);
    this.#send({ subscribe: topic, since: this.#positions.get(topic) });
  }

  #send(line: Line): void {
    // If the connection has ended, the loop that reads it tells so.
    if (this.#ws !== undefined) handled(this.#ws.send(JSON.stringify(line)));
  }

  publish(topic: string, message: Message): Promise<string | undefined> {
    return handled(
      this.#publish(topic, message).catch(async (error) => {
        // Otherwise a loop that publishes again at once would keep the next connection from opening.
        await new Promise<void>((resolve) => void nextTurn(resolve));
        throw error;
      }),
    );
  }

  async #publish(topic: string, message: Message): Promise<string | undefined> {
    checkTopic(topic, false);
    if (typeof message !== "string" && !(message instanceof Uint8Array)) {
      throw wrongType(`Expected a string or a Uint8Array, received ${kindOf(message)}`);
    }
    if (this.#ws === undefined) throw invalidState("Cannot publish: not connected", "not-open");
    const id = ++this.#lastId;
    const answer = new Promise<string | undefined>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
    });
    handled(answer);
    try {
      await this.#ws.send(frameWith({ publish: topic, id }, message));
      return await answer;
    } finally {
      this.#pending.delete(id);
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<TopicEvent, void, void> {
    for await (const ws of this.#connections) {
      this.#ws = ws;
      this.#asked.clear();
      // A prefix comes last: its messages must not overtake those that a topic has missed.
      const names = [...this.#names];
      for (const topic of names) if (!topic.endsWith("*")) this.#ask(topic);
      for (const topic of names) if (topic.endsWith("*")) this.#ask(topic);
      try {
        for await (const message of ws) {
          const event = this.#take(message);
          if (event !== undefined) yield event;
        }
      } catch (error) {
        if (!ws.isOwnError(error)) throw error;
      } finally {
        this.#ws = undefined;
        // After `break`, nobody reads the connection any more.
        handled(ws.close());
        for (const { reject } of this.#pending.values()) {
          reject(invalidState("The connection was lost before the answer", "unsent"));
        }
      }
    }
  }

  #take(message: Message): TopicEvent | undefined {
    const { line, payload }: Partial<Parsed> = parseFrame(message) ?? {};
    if (line === undefined) return undefined;
    const position = text(line.position);
    const topic = text(line.topic);
    if (topic !== undefined && payload !== undefined) {
      if (position !== undefined) this.#passed(topic, position);
      return { type: "message", topic, message: payload, position };
    }
    const subscribed = text(line.subscribed);
    if (subscribed !== undefined) return this.#subscribed(subscribed, line, position);
    const missed = text(line.missed);
    if (missed !== undefined) return { type: "missed", topic: missed };
    if (text(line.published) !== undefined) this.#pending.get(Number(line.id))?.resolve(position);
    const code = text(line.refused);
    return code === undefined ? undefined : this.#refused(line, code);
  }

  #subscribed(topic: string, line: Line, position: string | undefined): TopicEvent | undefined {
    this.#asked.delete(topic);
    if (!this.#names.has(topic)) return undefined;
    const known = this.#positions.get(topic);
    // Without a position, the server does not know what this client has missed since it was connected.
    const isKnown = known !== undefined || !this.#confirmed.has(topic);
    this.#confirmed.add(topic);
    if (position === undefined) this.#positions.delete(topic);
    else this.#passed(topic, position);
    return { type: "subscribed", topic, recovered: isKnown && line.recovered === true, position };
  }

  /** Remembers a position, unless a later one is known. Prefixes cannot be resumed. */
  #passed(topic: string, position: string): void {
    const isLate = isLater(this.#positions.get(topic), position);
    if (this.#names.has(topic) && !isLate) this.#positions.set(topic, position);
  }

  #refused(line: Line, code: string): TopicEvent | undefined {
    const reason = text(line.reason) ?? "";
    const pending = this.#pending.get(Number(line.id));
    if (pending !== undefined) {
      pending.reject(
        wrongValue(`The server has refused the message: ${reason}`, { code: "refused" }),
      );
      return undefined;
    }
    const topic = text(line.subscribe);
    if (topic !== undefined) this.#asked.delete(topic);
    return { type: "refused", topic, code, reason };
  }
}

/**
 * Whether a position is after another one, in the same history. A message may overtake the answer, and a
 * prefix may bring an earlier message late.
 */
function isLater(a: string | undefined, b: string): boolean {
  const [epoch, offset] = a?.split(":") ?? [];
  const [otherEpoch, otherOffset] = b.split(":");
  return epoch === otherEpoch && Number(offset) > Number(otherOffset);
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
