/**
 * A client that connects again: an iterator of connections, with backoff.
 *
 * @module
 */
import { abortable, onAbort, sleep } from "../abortable.ts";
import { driverOf, type WebSocketConnection } from "../connection/connection.ts";
import { HandshakeError, type RefusedResponse } from "../core/error.ts";
import { parseHttpDate } from "../core/http_date.ts";
import { checkFunction, checkKnown, checkNumber, type OptionNames } from "../core/options.ts";
import { parseWebSocketUrl } from "../core/url.ts";
import { now, wallClock } from "../timers.ts";
import { checkDialling, connect, CONNECT_OPTIONS, type ConnectOptions } from "./client.ts";

/** What {@linkcode ReconnectOptions.onRetry} is told. */
export interface RetryInfo {
  /** Why the last attempt failed; undefined after the end of a connection. */
  readonly error: unknown;
  /** The number of retries in a row, without a connection that lived for `minUptime`. */
  readonly attempt: number;
  /** The time until the next attempt, in milliseconds. */
  readonly delay: number;
}

/** How {@linkcode reconnect} tries. */
export interface ReconnectOptions extends ConnectOptions {
  /** The longest delay before the first retry, in milliseconds. Default: 1000 */
  minDelay?: number;
  /**
   * The longest delay at all, in milliseconds. More than 2147483647 (24 days) counts as that. Default:
   * 60000, and up to 72000 after a Retry-After
   */
  maxDelay?: number;
  /** The factor by which the longest delay grows with each failure. Default: 1.6 */
  backoffFactor?: number;
  /**
   * How long a connection must have been up, in milliseconds, for the delays to start anew. After a
   * connection that ended sooner they go on growing. The time that your code takes after the end of a
   * connection does not count. Default: 5000
   */
  minUptime?: number;
  /**
   * How many attempts to connect may fail in a row before the iteration throws the last error. A
   * connection, however short, starts the count anew. Default: Infinity
   */
  maxAttempts?: number;
  /**
   * Decides whether to try again after a failure; otherwise the iteration throws the error. It is not
   * asked about an error whose property `fatal` is true, which is always thrown. Default:
   * {@linkcode isTransient}, and true for whatever a function `url` throws
   */
  retry?: (error: unknown, attempt: number) => boolean | Promise<boolean>;
  /** Called before each delay. If it throws or rejects, the iteration throws the error. Default: none */
  onRetry?: (info: RetryInfo) => void;
  /**
   * Ends the iteration at once when aborted, whatever it waits for: the iteration throws the reason. A
   * connection that you hold stays open, unless you have asked for the next one.
   */
  signal?: AbortSignal;
}

const RECONNECT_OPTIONS: OptionNames<ReconnectOptions> = {
  ...CONNECT_OPTIONS,
  minDelay: checkNumber,
  maxDelay: checkNumber,
  backoffFactor: checkNumber,
  minUptime: checkNumber,
  maxAttempts: checkNumber,
  retry: checkFunction,
  onRetry: checkFunction,
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
 * took too long, a stream of HTTP/2 that was refused, or a status of 408, 425, 429, 500, 502, 503 or 504,
 * also from a proxy, or a SOCKS proxy that could not reach it. Everything else would fail again: a
 * certificate, a refusal, an answer that is not a WebSocket's, an option that is wrong.
 */
export function isTransient(error: unknown): boolean {
  if (!(error instanceof HandshakeError)) return false;
  const { code, response, reply = 0 } = error;
  if (TRANSIENT_CODES.has(code) || TRANSIENT_REPLIES.has(reply)) return true;
  return (code === "status" || code === "proxy") && TRANSIENT_STATUSES.has(response?.status ?? 0);
}

/**
 * Connects, and connects again whenever the loop goes on: an iterator of connections, one at a time. If
 * the last connection is still open, it is closed first. Delays are drawn at random up to a limit that
 * grows with each failure, so that many clients do not come back all at once. If the server sends
 * Retry-After, the delay is that time, or `maxDelay` if that is shorter, with jitter.
 *
 * Nothing is sent again. If a connection ends, the messages whose `send()` was rejected have not left.
 * Nobody can say whether the peer has read the others: have it acknowledge what must not be lost, and
 * send the rest again on the next connection.
 *
 * `break` ends the iteration and leaves the connection open. `return()` does so too, and ends an attempt
 * or a delay at once.
 *
 * @example
 * ```ts
 * import { reconnect, serve } from "@sluice/sluice";
 *
 * const server = await serve({ port: 0 }, (ws) => ws.send("news"));
 *
 * const news: unknown[] = [];
 * for await (const ws of reconnect(server.url!, { minDelay: 10 })) {
 *   try {
 *     for await (const message of ws) news.push(message);
 *   } catch (error) {
 *     if (!ws.isOwnError(error)) throw error;
 *     // The connection was lost: go on with the next one.
 *   }
 *   if (news.length >= 2) break;
 * }
 * console.log(news.join()); // news,news
 * await server.shutdown();
 * ```
 *
 * @param url where to connect to, or a function that is called before each attempt, for example to fetch
 * a fresh token. If the function throws, that is a failed attempt like any other, unless the error has
 * a property `fatal` that is true, as `Object.assign(new Error("logged out"), { fatal: true })` has
 * @param options those of `connect()`, and when to try again
 * @returns an iterator of connections. It throws the error of an attempt that is not to be repeated, the
 * reason of the signal, and TypeError if a function `url` gives anything but a string or URL, or `retry`
 * anything but a boolean
 * @throws {TypeError} If `url` or an option has the wrong type.
 * @throws {RangeError} If an option has a wrong value, such as a negative number.
 * @throws {DOMException} SyntaxError if `url` is not a URL of a WebSocket, or a subprotocol is not a token.
 */
export function reconnect(
  url: string | URL | (() => string | URL | Promise<string | URL>),
  options: ReconnectOptions = {},
): AsyncIterableIterator<WebSocketConnection> {
  checkKnown("reconnect()", options, RECONNECT_OPTIONS);
  if (typeof url !== "function") parseWebSocketUrl(checkUrl(url));
  // Each attempt sends the header fields, and an iterator gives them once.
  const headers = checkDialling(options);
  return new Reconnection(url, { ...options, headers }).iterate();
}

/** The reason that stands for a call of `return()`. */
const RETURNED = Symbol("returned");

type Iteration = AsyncGenerator<WebSocketConnection, void, void>;

/** How an attempt to connect has come out. */
type Outcome = { ws: WebSocketConnection } | { error: unknown; isTransient: boolean };

/** One iteration over connections. */
class Reconnection {
  readonly #url: Parameters<typeof reconnect>[0];
  readonly #options: ReconnectOptions;
  readonly #connectOptions: ConnectOptions;
  readonly #backoff: Backoff;
  /** Aborted by the caller's signal, and by `return()`. */
  readonly #controller = new AbortController();
  readonly #signal: AbortSignal = this.#controller.signal;

  constructor(url: Parameters<typeof reconnect>[0], options: ReconnectOptions) {
    const { minDelay, maxDelay, backoffFactor, minUptime, maxAttempts, retry, onRetry, ...rest } =
      options;
    this.#url = url;
    this.#options = { minUptime, maxAttempts, retry, onRetry, signal: options.signal };
    this.#connectOptions = { ...rest, signal: this.#signal };
    this.#backoff = new Backoff({ minDelay, maxDelay, backoffFactor });
  }

  iterate(): Iteration {
    const iteration = this.#connections();
    const finish = iteration.return.bind(iteration);
    // A generator would not look at them before what it waits for has settled.
    iteration.return = () => {
      this.#controller.abort(RETURNED);
      return finish();
    };
    const fail = iteration.throw.bind(iteration);
    iteration.throw = (error) => {
      this.#controller.abort(RETURNED);
      return fail(error);
    };
    return iteration;
  }

  async *#connections(): Iteration {
    const { minUptime = 5000, signal } = this.#options;
    const stopWatching = onAbort(signal, (reason) => this.#controller.abort(reason));
    try {
      for (;;) {
        const ws = await this.#connect();
        const uptime = measureUptime(ws);
        yield ws;
        await abortable(ws.close(), this.#signal);
        if (uptime() >= minUptime) this.#backoff.reset();
        // Also after a long uptime: the server may have sent all its clients away at once.
        await this.#wait(undefined);
      }
    } catch (error) {
      if (error !== RETURNED) throw error;
    } finally {
      stopWatching();
    }
  }

  /** Tries until there is a connection, or a failure that is final. */
  async #connect(): Promise<WebSocketConnection> {
    const { maxAttempts = Infinity } = this.#options;
    for (let failed = 1;; failed++) {
      const outcome = await this.#try();
      this.#signal.throwIfAborted();
      if ("ws" in outcome) return outcome.ws;
      const { error } = outcome;
      const final = isFatal(error) || failed >= maxAttempts;
      if (final || !await this.#mayRetry(outcome, failed)) throw error;
      await this.#wait(error);
    }
  }

  async #try(): Promise<Outcome> {
    let url: string | URL;
    try {
      url = await this.#askUrl();
    } catch (error) {
      return { error, isTransient: true };
    }
    try {
      const ws = await connect(checkUrl(url), this.#connectOptions);
      // Nobody waits for it any more.
      if (this.#signal.aborted) ws.close();
      return { ws };
    } catch (error) {
      return { error, isTransient: isTransient(error) };
    }
  }

  async #askUrl(): Promise<string | URL> {
    const url = this.#url;
    if (typeof url !== "function") return url;
    return await abortable(Promise.resolve(url()), this.#signal);
  }

  async #mayRetry(
    { error, isTransient }: { error: unknown; isTransient: boolean },
    attempt: number,
  ): Promise<boolean> {
    const { retry } = this.#options;
    if (retry === undefined) return isTransient;
    const answer: unknown = await abortable(Promise.resolve(retry(error, attempt)), this.#signal);
    if (typeof answer === "boolean") return answer;
    throw new TypeError(`Expected retry to return a boolean, received ${typeof answer}`, {
      cause: error,
    });
  }

  /** Calls `onRetry`. One that rejects ends the iteration with its error, as one that throws. */
  #tell(info: RetryInfo): void {
    const returned: unknown = this.#options.onRetry?.(info);
    Promise.resolve(returned).catch((error) => this.#controller.abort(error));
  }

  async #wait(error: unknown): Promise<void> {
    const delay = this.#backoff.next(error);
    this.#tell({ error, attempt: this.#backoff.failures, delay });
    await sleep(delay, this.#signal);
  }
}

/** Counts the milliseconds from now until a connection closes, or ends without a Close frame. */
function measureUptime(ws: WebSocketConnection): () => number {
  const openedAt = now();
  let endedAt: number | undefined;
  const { closing } = driverOf(ws);
  closing.whenEnded(() => endedAt = now());
  return () => (closing.startedAt ?? endedAt ?? now()) - openedAt;
}

function isFatal(error: unknown): boolean {
  return (Object(error) as { fatal?: unknown }).fatal === true;
}

function checkUrl(url: unknown): string | URL {
  if (typeof url === "string" || url instanceof URL) return url;
  throw new TypeError(`Expected url to be, or to return, a string or URL, received ${typeof url}`);
}

/** The longest delay that is a number the platforms' timers know. */
const LONGEST_DELAY = 2 ** 31 - 1;

/** The longest delay if the caller gives none, and the same with the jitter after a Retry-After of a minute. */
const MAX_DELAY = 60_000;
const MAX_DELAY_WITH_JITTER = 72_000;

/** Draws the delays: at random up to a limit that grows. */
class Backoff {
  readonly #minDelay: number;
  readonly #maxDelay: number;
  readonly #maxDelayWithJitter: number;
  readonly #factor: number;
  failures = 0;

  constructor(
    { minDelay = 1000, maxDelay, backoffFactor = 1.6 }: Pick<
      ReconnectOptions,
      "minDelay" | "maxDelay" | "backoffFactor"
    >,
  ) {
    this.#minDelay = minDelay;
    this.#maxDelay = Math.min(maxDelay ?? MAX_DELAY, LONGEST_DELAY);
    this.#maxDelayWithJitter = maxDelay === undefined ? MAX_DELAY_WITH_JITTER : this.#maxDelay;
    this.#factor = backoffFactor;
  }

  reset(): void {
    this.failures = 0;
  }

  /** The delay after one more failure. */
  next(error: unknown): number {
    const limit = this.#limit;
    const most = this.#maxDelay;
    this.failures++;
    const asked = retryAfter(error);
    // The server asks for more than the caller allows: still not all clients at once.
    if (asked > most) return between(most / 2, most);
    return between(asked, Math.min(this.#maxDelayWithJitter, asked + Math.max(limit, asked / 2)));
  }

  get #limit(): number {
    const limit = this.#minDelay * this.#factor ** this.failures;
    // 0 times Infinity is no number.
    return Math.min(this.#maxDelay, Number.isNaN(limit) ? this.#minDelay : limit);
  }
}

function between(least: number, most: number): number {
  return least + Math.random() * (most - least);
}

/** How long the server asks to wait, in milliseconds. RFC 9110 §10.2.3: it gives seconds, or a date. */
function retryAfter(error: unknown): number {
  const { response } = error instanceof HandshakeError ? error : {};
  const value = response?.headers.get("retry-after")?.trim() ?? "";
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const date = parseHttpDate(value, wallClock());
  return date === undefined ? 0 : Math.max(0, date - sentAt(response!));
}

/** When the response was made, by the clock of the server if that tells. */
function sentAt(response: RefusedResponse): number {
  const present = wallClock();
  return parseHttpDate(response.headers.get("date")?.trim() ?? "", present) ?? present;
}
