/** The server's side of the wire format of topics. */
import { BROADCAST_OPTIONS, type BroadcastOptions, isRecipient } from "../connection/broadcast.ts";
import { errorCodeOf, failure, invalidState, wrongValue } from "../core/error.ts";
import type { Message } from "../core/message.ts";
import { checkKnown, notConnections } from "../core/option_hints.ts";
import { checkFunction, type OptionNames } from "../core/options.ts";
import { backgroundTimer } from "../timers.ts";
import { formatPosition, type Position } from "./backplane.ts";
import { onJoined, type Subscriber, type Subscription } from "./subscription.ts";
import { type Line, parseFrame } from "./wire.ts";

/** A connection whose messages {@linkcode Topics.serve} reads. */
export interface TopicsConnection extends Subscriber, AsyncIterable<Message> {}

/** Options of {@linkcode Topics.serve}. */
export interface ServeTopicsOptions extends Pick<BroadcastOptions, "slow" | "maxBufferedAmount"> {
  /** Decides whether the client may subscribe to a name or prefix. By default, it may not. */
  maySubscribe?: ((topic: string) => boolean | Promise<boolean>) | undefined;
  /**
   * Decides whether the client may publish to a topic. The message has been checked by the codec or schema
   * already. By default, it may not.
   */
  mayPublish?: ((topic: string, message: unknown) => boolean | Promise<boolean>) | undefined;
  /** What `members()` tells of the client. */
  presence?: unknown;
}

const { slow, maxBufferedAmount } = BROADCAST_OPTIONS;

/** Maximum time for which a request to unsubscribe waits for the answer to subscribe, in milliseconds. */
const PAUSE = 50;

const SERVE_OPTIONS: OptionNames<ServeTopicsOptions> = {
  maySubscribe: checkFunction,
  mayPublish: checkFunction,
  presence: true,
  slow,
  maxBufferedAmount,
};

/** What serving needs of the topics. */
export interface ServingTopics {
  subscribe(ws: Subscriber, name: string, options: object): Subscription;
  publish(name: string, message: unknown): Promise<{ readonly position: Position | undefined }>;
  parse(message: Message): Promise<unknown>;
}

/** Serves a connection until it ends. */
export async function serveTopics(
  topics: ServingTopics,
  ws: TopicsConnection,
  options: ServeTopicsOptions,
): Promise<void> {
  if (!isRecipient(ws)) throw notConnections("a connection", ws);
  checkKnown("serve()", options, SERVE_OPTIONS);
  const session = new Session(topics, ws, options);
  for await (const message of ws) await session.receive(message);
}

function positionOf(position: Position | undefined): Line {
  return position === undefined ? {} : { position: formatPosition(position) };
}

class Session {
  readonly #topics: ServingTopics;
  readonly #ws: TopicsConnection;
  readonly #options: ServeTopicsOptions;
  readonly #subscriptions = new Map<string, Subscription>();
  /** Those whose answer the client has not taken. One for each name, so that answers do not pile up. */
  readonly #unanswered = new Map<string, Subscription>();
  /** The names whose `missed` the client has not taken, with the number of messages sent before. */
  readonly #missed = new Map<string, { readonly sent: number; isRepeated: boolean }>();

  constructor(topics: ServingTopics, ws: TopicsConnection, options: ServeTopicsOptions) {
    this.#topics = topics;
    this.#ws = ws;
    this.#options = options;
  }

  /** Answers a message. The promise waits while the client does not read, so that the client must wait. */
  async receive(message: Message): Promise<void> {
    const { line = {}, payload } = parseFrame(message) ?? {};
    // The answer repeats the request, as far as it is of the right type.
    const request = Object.fromEntries(
      ["subscribe", "unsubscribe", "publish", "id"].flatMap((name) =>
        typeof line[name] === "string" || typeof line[name] === "number" ? [[name, line[name]]] : []
      ),
    );
    try {
      await this.#answer(line, payload);
    } catch (error) {
      const { message: why } = Object(error) as Partial<Error>;
      // Only errors with a code are about the request. Others may tell secrets of the server.
      const code = errorCodeOf(error);
      await this.#send({
        refused: code ?? "failed",
        reason: code === undefined ? "The server cannot do this" : String(why),
        ...request,
      });
    }
  }

  async #answer(line: Line, payload: Message | undefined): Promise<void> {
    const { subscribe, unsubscribe, publish, id, since } = line;
    if (typeof subscribe === "string") await this.#subscribe(subscribe, since);
    else if (typeof unsubscribe === "string") await this.#unsubscribe(unsubscribe);
    else if (typeof publish === "string" && payload !== undefined) {
      const position = await this.#publish(publish, payload);
      await this.#send({ published: publish, id, ...positionOf(position) });
    } else throw failure("Expected subscribe, unsubscribe, or publish", "malformed-message");
  }

  async #subscribe(name: string, since: unknown): Promise<void> {
    if (await this.#options.maySubscribe?.(name) !== true) throw forbidden("subscribe to", name);
    if (this.#unanswered.has(name)) {
      const message = "An earlier request to subscribe to this name is not answered yet";
      throw invalidState(message, "busy");
    }
    const { slow, maxBufferedAmount, presence } = this.#options;
    const subscription: Subscription = this.#topics.subscribe(this.#ws, name, {
      since,
      slow,
      maxBufferedAmount,
      presence,
      framed: true,
      onMissed: () => void this.#tellMissed(name, subscription),
    });
    // A request that is refused does not end the earlier subscription.
    this.#subscriptions.get(name)?.unsubscribe();
    this.#subscriptions.set(name, subscription);
    void this.#tellJoined(name, subscription);
  }

  /** Answers after the messages of the history. The client may send other requests before. */
  async #tellJoined(name: string, subscription: Subscription): Promise<void> {
    this.#unanswered.set(name, subscription);
    let answered: Promise<void> | undefined;
    onJoined(subscription, ({ recovered, position }) => {
      answered = this.#send({ subscribed: name, recovered, ...positionOf(position) });
    });
    try {
      await subscription.ready;
      await answered;
    } catch (error) {
      // Otherwise the subscription has ended before.
      if (errorCodeOf(error) === "backplane-failed") {
        subscription.unsubscribe();
        await this.#send({
          refused: "backplane-failed",
          reason: String((error as Error).message),
          subscribe: name,
        });
      }
    }
    if (this.#unanswered.get(name) === subscription) this.#unanswered.delete(name);
  }

  /**
   * Tells that messages are missing. A line that waits is repeated when the client has taken it, so that
   * lines do not pile up. Messages that were sent after that line must not come before the next one.
   */
  async #tellMissed(name: string, { sent }: Subscription): Promise<void> {
    const waiting = this.#missed.get(name);
    if (waiting?.sent === sent) {
      waiting.isRepeated = true;
      return;
    }
    const line = { sent, isRepeated: false };
    this.#missed.set(name, line);
    do {
      line.isRepeated = false;
      await this.#send({ missed: name });
    } while (line.isRepeated);
    if (this.#missed.get(name) === line) this.#missed.delete(name);
  }

  async #unsubscribe(name: string): Promise<void> {
    const unanswered = this.#unanswered.get(name);
    // Otherwise a client could begin any number of calls while the engine cannot be reached.
    if (unanswered !== undefined) await settledOrLate(unanswered.ready);
    this.#subscriptions.get(name)?.unsubscribe();
    this.#subscriptions.delete(name);
    this.#unanswered.delete(name);
    await this.#send({ unsubscribed: name });
  }

  async #publish(name: string, payload: Message): Promise<Position | undefined> {
    const value = await this.#topics.parse(payload);
    if (await this.#options.mayPublish?.(name, value) !== true) throw forbidden("publish to", name);
    return (await this.#topics.publish(name, value)).position;
  }

  async #send(line: Line): Promise<void> {
    // If the connection has ended, the loop that reads it tells so.
    await this.#ws.send(JSON.stringify(line)).catch(() => {});
  }
}

/** Waits until a promise has settled, but not longer than the pause. */
async function settledOrLate(promise: Promise<unknown>): Promise<void> {
  await new Promise<void>((resolve) => {
    const cancel = backgroundTimer(resolve, PAUSE);
    const done = () => {
      cancel();
      resolve();
    };
    promise.then(done, done);
  });
}

function forbidden(what: string, name: string): RangeError {
  const message = `The server does not allow to ${what} ${JSON.stringify(name)}`;
  return wrongValue(message, { code: "forbidden" });
}
