/**
 * A client that connects again.
 *
 * A file of its own because `connect()` gives one connection, and when to try for another one is a
 * question by itself.
 *
 * @module
 */
import { CONNECT_OPTIONS, type ConnectOptions, connectWith } from "./client.ts";
import type { WebSocketConnection } from "../connection/connection.ts";
import { HandshakeError } from "../core/error.ts";
import { checkKnown, type OptionNames } from "../core/options.ts";
import { checkFunctions, checkNumber } from "../options.ts";
import { LONGEST_DELAY } from "../connection/turn.ts";

/** What {@linkcode ReconnectOptions.onRetry} is told. */
export interface RetryInfo {
  /** Why the last attempt failed; undefined where a connection has come to its end. */
  readonly error: unknown;
  /** How often it has come to this in a row, without a connection that lived for `minUptime`. */
  readonly attempt: number;
  /** How long it waits until the next one, in milliseconds. */
  readonly delay: number;
}

/** How {@linkcode reconnect} tries. */
export interface ReconnectOptions extends ConnectOptions {
  /** The longest delay before the first retry, in milliseconds. Default: 1000 */
  minDelay?: number;
  /** The longest delay at all, in milliseconds. Default: 60000 */
  maxDelay?: number;
  /** By how much the longest delay grows with each failure. Default: 1.6 */
  backoffFactor?: number;
  /**
   * How long a connection must have lived, in milliseconds, for the delays to begin anew: they grow on
   * behind one that ends sooner. Default: 5000
   */
  minUptime?: number;
  /**
   * How many attempts to connect may fail in a row before it gives up; a connection begins the count
   * anew, however short it lives. Default: Infinity
   */
  maxAttempts?: number;
  /**
   * Whether to try again after a failure; otherwise the iteration throws it.
   * Default: {@linkcode isTransient}
   */
  retry?: (error: unknown, attempt: number) => boolean | Promise<boolean>;
  /** Told of each delay before it begins. Default: none */
  onRetry?: (info: RetryInfo) => void;
  /** Ends the iteration when aborted, by throwing its reason; the connection at hand stays open. */
  signal?: AbortSignal;
}

const RECONNECT_OPTIONS: OptionNames<ReconnectOptions> = {
  ...CONNECT_OPTIONS,
  minDelay: true,
  maxDelay: true,
  backoffFactor: true,
  minUptime: true,
  maxAttempts: true,
  retry: true,
  onRetry: true,
};

/** Statuses that a server or a proxy gives when it might do better later (RFC 9110 §15, RFC 6585). */
const TRANSIENT_STATUSES = new Set([408, 425, 429, 500, 502, 503, 504]);

/** Conditions that may be over at the next attempt. */
const TRANSIENT_CODES = new Set([
  "connect-failed",
  "connection-lost",
  "timeout",
  "shutdown",
  "stream-refused",
]);

/** What a SOCKS proxy replies then (RFC 1928 §6): failures, unreachable, refused, expired. */
const TRANSIENT_REPLIES = new Set([1, 3, 4, 5, 6]);

/**
 * Whether a failed attempt to connect may succeed later: no connection to the host, one that was lost or
 * took too long, a stream of HTTP/2 that was refused, or a status of 408, 425, 429, 500, 502, 503 or 504, be it a proxy's, or a SOCKS proxy
 * that could not reach it. All else would fail again: a
 * certificate, a refusal, an answer that is no WebSocket's, an option that is wrong.
 */
export function isTransient(error: unknown): boolean {
  if (!(error instanceof HandshakeError)) return false;
  const { code, response, reply = 0 } = error;
  if (TRANSIENT_CODES.has(code) || TRANSIENT_REPLIES.has(reply)) return true;
  return (code === "status" || code === "proxy") && TRANSIENT_STATUSES.has(response?.status ?? 0);
}

/**
 * Connects, and connects again whenever the loop goes on: an iterator of connections, one at a time. The
 * connection before is closed first, if it is open still. Delays are drawn at random up to a limit that
 * grows with each failure, so that many clients do not come back all at once; a server's Retry-After is
 * obeyed, up to `maxDelay`.
 *
 * Nothing is sent again by itself. Of the messages in flight when a connection ends, those whose `send()`
 * was rejected have not left; of the others nobody can say whether the peer has read them, unless it
 * answers: let it acknowledge what must not be lost, and send what it did not once you are back.
 *
 * `break` ends the iteration and leaves the connection at hand open.
 *
 * @example
 * ```ts
 * import { reconnect, serve } from "@sluice/sluice";
 *
 * const server = await serve({ port: 0 }, (ws) => ws.send("news"));
 * if (server.address.transport !== "tcp") throw new Error("not TCP");
 *
 * const news: unknown[] = [];
 * for await (const ws of reconnect(`ws://127.0.0.1:${server.address.port}`, { minDelay: 10 })) {
 *   for await (const message of ws) news.push(message);
 *   if (news.length === 2) break;
 * }
 * console.log(news.join()); // news,news
 * await server.shutdown();
 * ```
 *
 * @param url where to; a function is asked before each attempt, as for a token that has to be fresh
 * @param options those of `connect()`, and when to try again
 * @returns connections; the iteration throws what `retry` takes for final, and the signal's reason
 */
export function reconnect(
  url: string | URL | (() => string | URL | Promise<string | URL>),
  options: ReconnectOptions = {},
): AsyncIterableIterator<WebSocketConnection> {
  checkKnown("reconnect()", options, RECONNECT_OPTIONS);
  for (const name of NUMBERS) checkNumber(name, options[name]);
  checkFunctions(options, ["retry", "onRetry"]);
  return connections(url, options);
}

const NUMBERS = ["minDelay", "maxDelay", "backoffFactor", "minUptime", "maxAttempts"] as const;

async function* connections(
  url: Parameters<typeof reconnect>[0],
  options: ReconnectOptions,
): AsyncGenerator<WebSocketConnection, void, void> {
  const { minUptime = 5000, signal } = options;
  const backoff = new Backoff(options);
  for (;;) {
    const ws = await attempt(url, options, backoff);
    const since = performance.now();
    yield ws;
    await ws.close();
    signal?.throwIfAborted();
    if (performance.now() - since >= minUptime) backoff.reset();
    // Also behind one that has lived long: its server may have sent all its clients away at once.
    await backoff.wait(undefined);
  }
}

/** Tries until there is a connection, or a failure that is final. */
async function attempt(
  url: Parameters<typeof reconnect>[0],
  options: ReconnectOptions,
  backoff: Backoff,
): Promise<WebSocketConnection> {
  const { retry = isTransient, maxAttempts = Infinity, signal } = options;
  for (let failed = 1;; failed++) {
    try {
      return await connectWith(typeof url === "function" ? await url() : url, options);
    } catch (error) {
      signal?.throwIfAborted();
      if (failed >= maxAttempts || !await retry(error, failed)) throw error;
      await backoff.wait(error);
    }
  }
}

/** How long to wait: at random up to a limit that grows. */
class Backoff {
  readonly #options: ReconnectOptions;
  failures = 0;

  constructor(options: ReconnectOptions) {
    this.#options = options;
  }

  reset(): void {
    this.failures = 0;
  }

  async wait(error: unknown): Promise<void> {
    const { onRetry, signal } = this.#options;
    const delay = this.#next(error);
    this.failures++;
    onRetry?.({ error, attempt: this.failures, delay });
    await sleep(delay, signal);
  }

  #next(error: unknown): number {
    const { minDelay = 1000, maxDelay = 60_000, backoffFactor = 1.6 } = this.#options;
    const limit = Math.min(maxDelay, minDelay * backoffFactor ** this.failures);
    return Math.min(maxDelay, Math.max(Math.random() * limit, retryAfter(error)));
  }
}

/** RFC 9110 §10.2.3: seconds, or a date. In milliseconds. */
function retryAfter(error: unknown): number {
  const { response } = error instanceof HandshakeError ? error : {};
  const value = response?.headers.get("retry-after")?.trim() ?? "";
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? 0 : Math.max(0, date - Date.now());
}

function sleep(delay: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const end = () => {
      signal?.removeEventListener("abort", abort);
      resolve();
    };
    const timer = setTimeout(end, Math.min(delay, LONGEST_DELAY));
    const abort = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    signal?.addEventListener("abort", abort, { once: true });
  });
}
