/**
 * Sends one message to many connections.
 *
 * @module
 */
import { wrongType } from "../core/error.ts";
import { driverOf, WebSocketConnection } from "./connection.ts";
import type { Message } from "../core/message.ts";
import {
  checkBoolean,
  checkKnown,
  checkNumber,
  checkOneOf,
  type OptionNames,
} from "../core/options.ts";
import { Queue } from "../core/queue.ts";
import { MAX_BUFFERED_AMOUNT, MESSAGE_OVERHEAD } from "./sender.ts";

/** Options of {@linkcode broadcast}. */
export interface BroadcastOptions {
  /**
   * Maximum number of bytes that may wait for a connection, this message included. Text counts its UTF-16
   * code units. A message that waits as an object counts 768 bytes more, for example with "drop-oldest"
   * or after a message of several frames. One message is always allowed.
   * @default {1_048_576}
   */
  maxBufferedAmount?: number | undefined;
  /**
   * What to do with a connection that would exceed `maxBufferedAmount`. "close" closes it with 1008,
   * "terminate" cuts it, "drop-newest" skips this message, and "drop-oldest" drops the oldest messages
   * that wait. Use the same value in each call.
   * @default {"close"}
   */
  slow?: "close" | "terminate" | "drop-newest" | "drop-oldest" | undefined;
  /** Whether to compress the message, as in `send()`. */
  compress?: boolean | undefined;
  /** Connections that do not get the message, such as its sender. By default, none. */
  except?: WebSocketConnection | Iterable<WebSocketConnection> | undefined;
}

/** Result of {@linkcode broadcast}. */
export interface BroadcastResult {
  /** Number of connections that get the message. */
  readonly sent: number;
  /** Number of connections that miss the message, because they are too slow. */
  readonly missed: number;
  /** Number of connections that were closed or cut, because they are too slow. */
  readonly closed: number;
}

const BROADCAST_OPTIONS: OptionNames<BroadcastOptions> = {
  maxBufferedAmount: checkNumber,
  slow: (name, value) =>
    checkOneOf(name, value, ["close", "terminate", "drop-newest", "drop-oldest"]),
  compress: checkBoolean,
  except: (name, value) => {
    const isMany = typeof Object(value)[Symbol.iterator] === "function";
    if (value === undefined || value instanceof WebSocketConnection || isMany) return;
    throw wrongType(`Expected ${name} to be a connection or an iterable of connections`);
  },
};

/** The waiting messages of connections with "drop-oldest". */
const feeds = new WeakMap<WebSocketConnection, Feed>();

/**
 * Sends a message to many connections without waiting for any of them. Connections that are closing are
 * skipped. For a slow connection, at most `maxBufferedAmount` bytes wait.
 *
 * @example
 * ```ts
 * import { broadcast, serve } from "sluice";
 *
 * const server = await serve({ port: 0 }, async (ws) => {
 *   for await (const message of ws) broadcast(server.connections, message);
 * });
 * await server.shutdown();
 * ```
 *
 * @param to The connections, such as `server.connections`.
 * @param message A string, or bytes, which are copied.
 * @returns The numbers of connections that get the message, miss it, and were closed. Connections that
 * were closing already do not count.
 * @throws {TypeError} If the message is neither a string nor bytes, or an option has the wrong type.
 * @throws {RangeError} If an option has an invalid value.
 */
export function broadcast(
  to: Iterable<WebSocketConnection>,
  message: Message,
  options: BroadcastOptions = {},
): BroadcastResult {
  if (typeof message !== "string" && !(message instanceof Uint8Array)) {
    throw wrongType(`Expected a string or a Uint8Array, received ${typeof message}`);
  }
  checkKnown("broadcast()", options, BROADCAST_OPTIONS);
  const { maxBufferedAmount = MAX_BUFFERED_AMOUNT, slow = "close", compress } = options;
  // Copy the bytes: the caller is not told when they are sent. A subclass may not copy in slice().
  const held = typeof message === "string" ? message : new Uint8Array(message);
  const { except = [] } = options;
  const excluded = new Set(except instanceof WebSocketConnection ? [except] : except);
  const result = { sent: 0, missed: 0, closed: 0 };
  for (const ws of to) {
    if (ws.state !== "open" || excluded.has(ws)) continue;
    const { sender } = driverOf(ws);
    if (slow === "drop-oldest" || !sender.isTooMuch(held.length, maxBufferedAmount)) {
      if (slow === "drop-oldest") feedOf(ws).push(held, maxBufferedAmount, compress);
      else void ws.send(held, { compress });
      result.sent++;
    } else if (slow === "drop-newest") {
      result.missed++;
    } else {
      sender.endAsSlow(slow);
      result.closed++;
    }
  }
  return result;
}

function feedOf(ws: WebSocketConnection): Feed {
  let feed = feeds.get(ws);
  if (feed === undefined) feeds.set(ws, feed = new Feed(ws));
  return feed;
}

interface Waiting {
  message: Message;
  compress: boolean | undefined;
}

/** Sends one connection its messages as fast as it takes them, and holds the newest of the others. */
class Feed {
  readonly #ws: WebSocketConnection;
  readonly #waiting = new Queue<Waiting>();
  #size = 0;
  #running = false;

  constructor(ws: WebSocketConnection) {
    this.#ws = ws;
  }

  push(message: Message, most: number, compress: boolean | undefined): void {
    this.#waiting.push({ message, compress });
    this.#size += message.length + MESSAGE_OVERHEAD;
    while (this.#waiting.length > 1 && this.#size + driverOf(this.#ws).sender.heldAmount > most) {
      this.#take();
    }
    if (!this.#running) void this.#run();
  }

  #take(): Waiting | undefined {
    const first = this.#waiting.shift();
    if (first !== undefined) this.#size -= first.message.length + MESSAGE_OVERHEAD;
    return first;
  }

  async #run(): Promise<void> {
    this.#running = true;
    try {
      for (let next = this.#take(); next !== undefined; next = this.#take()) {
        await this.#ws.send(next.message, { compress: next.compress });
      }
    } catch {
      // The connection has ended, so the waiting messages are dropped.
      this.#waiting.clear();
      this.#size = 0;
    }
    this.#running = false;
  }
}
