/**
 * One message to many connections.
 *
 * @module
 */
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

/** How {@linkcode broadcast} treats those who are too slow. */
export interface BroadcastOptions {
  /**
   * How many bytes may wait for a connection, this message included, of text its code units. A message
   * that has to be kept as an object counts 768 bytes more, as with "drop-oldest" and behind a message
   * of several frames. One message is always let through. Default: 1048576
   */
  maxBufferedAmount?: number;
  /**
   * What becomes of a connection for which more would wait, the same at each call: it is closed with 1008 or cut, or misses
   * this message, or the oldest of those that wait to be sent. Default: "close"
   */
  slow?: "close" | "terminate" | "drop-newest" | "drop-oldest";
  /** See the same option of `send()`. */
  compress?: boolean;
  /** Connections that do not get the message, such as the one that it came from. Default: none */
  except?: WebSocketConnection | Iterable<WebSocketConnection>;
}

/** What became of a message that was sent to many connections. */
export interface BroadcastResult {
  /** How many connections get the message. */
  readonly sent: number;
  /** How many miss it, because they are too slow. */
  readonly missed: number;
  /** How many were closed or cut, because they are too slow. */
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
    throw new TypeError(`Expected ${name} to be a connection or an iterable of connections`);
  },
};

/** What waits for connections whose oldest messages may be dropped. */
const feeds = new WeakMap<WebSocketConnection, Feed>();

/**
 * Sends a message to many connections, and waits for none of them. Those that are closing are left out;
 * a connection that does not keep up costs no more memory than `maxBufferedAmount`.
 *
 * @example
 * ```ts
 * import { broadcast, serve } from "@sluice/sluice";
 *
 * const server = await serve({ port: 0 }, async (ws) => {
 *   for await (const message of ws) broadcast(server.connections, message);
 * });
 * await server.shutdown();
 * ```
 *
 * @param to connections, such as `server.connections`
 * @param message a string or bytes, which are copied
 * @returns how many connections get the message, miss it, and were closed. Those that were closing already
 * do not count
 * @throws {TypeError} for a message that is neither a string nor bytes, or options of the wrong type
 * @throws {RangeError} for an option with a wrong value
 */
export function broadcast(
  to: Iterable<WebSocketConnection>,
  message: Message,
  options: BroadcastOptions = {},
): BroadcastResult {
  if (typeof message !== "string" && !(message instanceof Uint8Array)) {
    throw new TypeError(`Expected a string or a Uint8Array, received ${typeof message}`);
  }
  checkKnown("broadcast()", options, BROADCAST_OPTIONS);
  const { maxBufferedAmount = MAX_BUFFERED_AMOUNT, slow = "close", compress } = options;
  // Nobody tells the caller when the last connection has sent them. A subclass may not copy in slice().
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

/** Gives a connection its messages as it takes them, and holds the newest of the others. */
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
      // The connection has ended, and with it all that waits.
      this.#waiting.clear();
      this.#size = 0;
    }
    this.#running = false;
  }
}
