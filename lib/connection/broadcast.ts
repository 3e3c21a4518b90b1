/** Sends one message to many connections. */
import { CloseCode, type CloseInfo, PRIVATE_USE } from "../core/close.ts";
import { wrongType } from "../core/error.ts";
import type { Message } from "../core/message.ts";
import { checkKnown, notConnections } from "../core/option_hints.ts";
import { checkBoolean, checkNumber, checkOneOf, type OptionNames } from "../core/options.ts";
import { Queue } from "../core/queue.ts";
import {
  isTooMuch,
  MAX_BUFFERED_AMOUNT,
  MESSAGE_OVERHEAD,
  type Sending,
  sendingOf,
} from "./sending.ts";
import { gather, sendToCrowd, shareFrame } from "./sharing.ts";
import type { SharedFrame, SharedRange } from "../core/shared_frame.ts";

/** A connection that {@linkcode broadcast} can send to: of a server, a client or a browser. */
export interface Recipient {
  /** Whether the connection takes messages. */
  readonly state: "open" | "closing" | "closed";
  /** Number of bytes that wait to be sent. */
  readonly bufferedAmount: number;
  /** Sends a message. */
  send(message: Message, options?: { compress?: boolean }): Promise<void>;
  /** Closes the connection. */
  close(info: CloseInfo): Promise<unknown>;
  /** Ends the transport at once. */
  terminate(): void;
}

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
  except?: Recipient | Iterable<Recipient> | undefined;
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

export const BROADCAST_OPTIONS: OptionNames<BroadcastOptions> = {
  maxBufferedAmount: checkNumber,
  slow: (name, value) =>
    checkOneOf(name, value, ["close", "terminate", "drop-newest", "drop-oldest"]),
  compress: checkBoolean,
  except: (name, value) => {
    if (value === undefined || isRecipient(value) || isMany(value)) return;
    throw notConnections(`${name} to be a connection or an iterable of connections`, value);
  },
};

/** The waiting messages of connections with "drop-oldest". */
const feeds = new WeakMap<Recipient, Feed>();

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
 * @param to The connections, such as `server.connections`.
 * @param message A string, or bytes, which are copied.
 * @returns The numbers of connections that get the message, miss it, and were closed. Connections that
 * were closing already do not count.
 * @throws {TypeError} If `to` has a value that is not a connection, the message is neither a string nor
 * bytes, or an option has the wrong type. No connection gets the message then.
 * @throws {RangeError} If an option has an invalid value.
 */
export function broadcast(
  to: Iterable<Recipient>,
  message: Message,
  options: BroadcastOptions = {},
): BroadcastResult {
  if (typeof message !== "string" && !(message instanceof Uint8Array)) {
    throw wrongType(`Expected a string or a Uint8Array, received ${typeof message}`);
  }
  checkKnown("broadcast()", options, BROADCAST_OPTIONS);
  const policy = policyOf(options);
  // Copy the bytes: the caller is not told when they are sent. A subclass may not copy in slice().
  const shared = new SharedMessage(typeof message === "string" ? message : new Uint8Array(message));
  const found = without(options.except, listOf(to));
  // The messages that "drop-oldest" holds come first.
  if (policy.slow !== "drop-oldest" && sendToCrowd(found, shared, policy.maxBufferedAmount)) {
    return { sent: found.length, missed: 0, closed: 0 };
  }
  // All are checked before the first one gets the message.
  const sendings: Sending[] = [];
  for (const ws of found) sendings.push(sendingTo(ws));
  const result = { sent: 0, missed: 0, closed: 0 };
  for (let i = 0; i < found.length; i++) {
    const outcome = sendOrSkip(found[i], sendings[i], shared, policy);
    if (outcome !== "closing") result[outcome]++;
  }
  gather(found, sendings, shared.range);
  return result;
}

function without(except: BroadcastOptions["except"], found: Recipient[]): Recipient[] {
  if (except === undefined) return found;
  const excluded = new Set(isRecipient(except) ? [except] : recipients(except));
  return found.filter((ws) => !excluded.has(ws));
}

/** What to do with a connection that is slow. */
export interface SlowPolicy {
  readonly maxBufferedAmount: number;
  readonly slow: NonNullable<BroadcastOptions["slow"]>;
  readonly compress: boolean | undefined;
}

export function policyOf(options: BroadcastOptions): SlowPolicy {
  const { maxBufferedAmount = MAX_BUFFERED_AMOUNT, slow = "close", compress } = options;
  return { maxBufferedAmount, slow, compress };
}

/** A message for many connections, which is encoded once for those that can share a frame. */
export class SharedMessage {
  readonly message: Message;
  #frame: SharedFrame | undefined;

  /** @param message A message whose bytes nobody changes. */
  constructor(message: Message) {
    this.message = message;
  }

  get frame(): SharedFrame {
    return this.#frame ??= shareFrame(this.message);
  }

  /** What the connections hold that share the frame, and nothing else waits for them. */
  get range(): SharedRange | undefined {
    return this.#frame?.range;
  }
}

/** @throws {TypeError} If the value is not a connection. */
export function sendingTo(ws: Recipient): Sending {
  return sendingOf(ws) ?? sendingOver(checked(ws));
}

/** Sends a message to a connection, unless it is too slow or closing. Returns what has become of the message. */
export function sendOrSkip(
  ws: Recipient,
  sending: Sending,
  shared: SharedMessage,
  { slow, maxBufferedAmount, compress }: SlowPolicy,
): keyof BroadcastResult | "closing" {
  const isFeeding = slow === "drop-oldest" && feeds.get(ws)?.isRunning;
  if (!isFeeding && sending.sendShared?.(shared, maxBufferedAmount, compress)) return "sent";
  if (ws.state !== "open") return "closing";
  if (slow === "drop-oldest") {
    feedOf(ws, sending).push(shared.message, maxBufferedAmount, compress);
    return "sent";
  }
  if (!isTooMuch(sending.heldAmount, shared.message.length, maxBufferedAmount)) {
    void ws.send(shared.message, { compress });
    return "sent";
  }
  if (slow === "drop-newest") return "missed";
  sending.endAsSlow(slow);
  return "closed";
}

/** Returns the connections, which were checked. */
export function recipients(many: Iterable<Recipient>): Recipient[] {
  return listOf(many).map(checked);
}

function listOf(many: Iterable<Recipient>): Recipient[] {
  if (!isMany(many)) throw notConnections("an iterable of connections", many);
  return [...many];
}

function checked(ws: Recipient): Recipient {
  if (isRecipient(ws)) return ws;
  // Only the entry of a Map is an array.
  throw notConnections("connections", ws, Array.isArray(ws) ? "write map.values()" : undefined);
}

/** Whether a value may hold many connections. A Map has entries, which are not connections. */
function isMany(value: unknown): value is Iterable<Recipient> {
  return typeof value === "object" && value !== null && Symbol.iterator in value &&
    !(value instanceof Map);
}

export function isRecipient(value: unknown): value is Recipient {
  const { state, send } = Object(value) as Partial<Recipient>;
  return typeof state === "string" && typeof send === "function";
}

function feedOf(ws: Recipient, sending: Sending): Feed {
  let feed = feeds.get(ws);
  if (feed === undefined) feeds.set(ws, feed = new Feed(ws, sending));
  return feed;
}

/** The sending half of a connection in a browser, which sends no close code below 3000 but 1000. */
function sendingOver(ws: Recipient): Sending {
  const closeCode = CloseCode.PolicyViolation + PRIVATE_USE;
  return {
    get heldAmount(): number {
      return ws.bufferedAmount;
    },
    endAsSlow(how): void {
      if (how === "terminate") ws.terminate();
      else void ws.close({ closeCode, reason: "Too slow" });
    },
  };
}

interface Waiting {
  message: Message;
  compress: boolean | undefined;
}

/** Sends one connection its messages as fast as it takes them, and holds the newest of the others. */
class Feed {
  readonly #ws: Recipient;
  readonly #sending: Sending;
  readonly #waiting = new Queue<Waiting>();
  #size = 0;
  isRunning = false;

  constructor(ws: Recipient, sending: Sending) {
    this.#ws = ws;
    this.#sending = sending;
  }

  push(message: Message, most: number, compress: boolean | undefined): void {
    this.#waiting.push({ message, compress });
    this.#size += message.length + MESSAGE_OVERHEAD;
    while (this.#waiting.length > 1 && this.#size + this.#sending.heldAmount > most) {
      this.#take();
    }
    if (!this.isRunning) void this.#run();
  }

  #take(): Waiting | undefined {
    const first = this.#waiting.shift();
    if (first !== undefined) this.#size -= first.message.length + MESSAGE_OVERHEAD;
    return first;
  }

  async #run(): Promise<void> {
    this.isRunning = true;
    try {
      for (let next = this.#take(); next !== undefined; next = this.#take()) {
        await this.#ws.send(next.message, { compress: next.compress });
      }
    } catch {
      // The connection has ended, so the waiting messages are dropped.
      this.#waiting.clear();
      this.#size = 0;
    }
    this.isRunning = false;
  }
}
