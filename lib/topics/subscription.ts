/// <reference lib="esnext.disposable" preserve="true" />
/** The subscription of a connection. */
import { sendOrSkip, type SharedMessage, type SlowPolicy } from "../connection/broadcast.ts";
import type { Recipient } from "../connection/broadcast.ts";
import type { Sending } from "../connection/sending.ts";
import { invalidState } from "../core/error.ts";
import type { Position } from "./backplane.ts";
import type { Channel, ChannelHost, Peer } from "./channel.ts";
import type { Delivery } from "./envelope.ts";
import { type Joined, Listener } from "./listener.ts";

/** A connection that can subscribe: of a server, a client or a browser. */
export interface Subscriber extends Recipient {
  /** Aborts when the connection has ended. */
  readonly signal: AbortSignal;
}

/** A connection, and what is known of it. */
export interface SubscribedPeer extends Peer {
  readonly ws: Subscriber;
  readonly sending: Sending;
  readonly subscriptions: Set<ConnectionListener>;
  /** Stops waiting for the end of the connection. */
  stopWatching: () => void;
}

/** How a subscription delivers. */
export interface DeliveryOptions extends SlowPolicy {
  /** Whether each message begins with a line that says its topic. */
  readonly framed: boolean;
  readonly since: Position | undefined;
  readonly onMissed: (() => void) | undefined;
  /** What other subscribers are told of this one. */
  readonly presence: unknown;
}

/** Delivers messages to a connection. */
export class ConnectionListener extends Listener {
  readonly peer: SubscribedPeer;
  readonly channel: Channel;
  readonly options: DeliveryOptions;
  sentCount = 0;
  missedCount = 0;
  closedCount = 0;

  constructor(
    channel: Channel,
    host: ChannelHost,
    peer: SubscribedPeer,
    options: DeliveryOptions,
  ) {
    super(channel, host, options.since);
    this.channel = channel;
    this.peer = peer;
    this.options = options;
  }

  protected deliver(delivery: Delivery): void {
    const { ws, sending } = this.peer;
    const outcome = sendOrSkip(ws, sending, this.#form(delivery), this.options);
    if (outcome === "sent") this.sentCount++;
    else if (outcome === "missed") this.missedCount++;
    else if (outcome === "closed") this.closedCount++;
  }

  protected async deliverWithRoom(delivery: Delivery): Promise<void> {
    const { ws } = this.peer;
    try {
      await ws.send(this.#form(delivery).message, { compress: this.options.compress });
      this.sentCount++;
    } catch (error) {
      throw ended(error);
    }
  }

  #form(delivery: Delivery): SharedMessage {
    return this.options.framed ? delivery.framed : delivery.plain;
  }

  protected tellMissed(): void {
    return this.options.onMissed?.();
  }

  get presence(): unknown {
    return this.options.presence;
  }

  end(): void {
    this.stop(ended());
  }
}

function ended(cause?: unknown): DOMException {
  return invalidState("The subscription has ended", "not-open", cause);
}

let listenerOf: (subscription: Subscription) => ConnectionListener;

/**
 * Calls back when it is known how a new subscription begins. Messages that come meanwhile are sent after
 * the call.
 */
export function onJoined(subscription: Subscription, callback: (joined: Joined) => void): void {
  listenerOf(subscription).onJoined = callback;
}

/**
 * A subscription of a connection to a topic. It ends with the connection, with `unsubscribe()`, or at the
 * end of the block in which it was declared with `using`.
 */
export class Subscription implements Disposable {
  /** The name of the topic, or a prefix such as `room/*`. */
  readonly topic: string;
  readonly #listener: ConnectionListener;
  readonly #leave: () => void;

  static {
    listenerOf = (subscription) => subscription.#listener;
  }

  /** Subscriptions come from {@linkcode Topics.subscribe}. Internal. */
  constructor(listener: ConnectionListener, leave: () => void) {
    this.topic = listener.channel.name;
    this.#listener = listener;
    this.#leave = leave;
  }

  /**
   * Resolves when the engine has confirmed the subscription, and the messages after `since` were sent.
   * Until then, messages may be missing. While the engine cannot be reached, the promise waits. It rejects
   * with InvalidStateError if the subscription ends before, and with an error of the code
   * "backplane-failed" if the client of the engine has no prefixes, as Bun's Redis client. The rejection
   * never counts as unhandled.
   */
  get ready(): Promise<Joined> {
    return this.#listener.ready;
  }

  /** Number of messages that the connection got. */
  get sent(): number {
    return this.#listener.sentCount;
  }

  /** Number of messages that the connection missed, because it was too slow. */
  get missed(): number {
    return this.#listener.missedCount;
  }

  /** Number of messages for which the connection was closed or cut, because it was too slow: 0 or 1. */
  get closed(): number {
    return this.#listener.closedCount;
  }

  /** Ends the subscription. Further calls have no effect. */
  unsubscribe(): void {
    this.#leave();
  }

  /** Ends the subscription. */
  [Symbol.dispose](): void {
    this.#leave();
  }
}
