/**
 * Connects repeatedly: an iterator of connections, with backoff.
 *
 * @module
 */
import { abortable, onAbort, sleep } from "../abortable.ts";
import { driverOf, type WebSocketConnection } from "../connection/connection.ts";
import { HandshakeError, type RefusedResponse } from "../core/error.ts";
import { checkFunction, checkKnown, checkNumber, type OptionNames } from "../core/options.ts";
import { parseWebSocketUrl } from "../core/url.ts";
import { now, wallClock } from "../timers.ts";
import { checkDialling, connect, CONNECT_OPTIONS, type ConnectOptions } from "./client.ts";

/** The argument of {@linkcode ReconnectOptions.onRetry}. */
export interface RetryInfo {
  /** The error of the last attempt, or undefined after the end of a connection. */
  readonly error: unknown;
  /** Number of retries since a connection lasted for `minUptime`. */
  readonly attempt: number;
  /** Time until the next attempt, in milliseconds. */
  readonly delay: number;
}

/** Options of {@linkcode reconnect}. */
export interface ReconnectOptions extends ConnectOptions {
  /**
   * Maximum delay before the first retry, in milliseconds.
   * @default {1000}
   */
  minDelay?: number;
  /**
   * Maximum of all delays, in milliseconds. The limit is 2,147,483,647 (24 days).
   * @default {60_000}, and up to 72,000 after a Retry-After
   */
  maxDelay?: number;
  /**
   * Factor by which the maximum delay grows with each failure.
   * @default {1.6}
   */
  backoffFactor?: number;
  /**
   * Time that a connection must last, in milliseconds, so that the delays start from the beginning. After
   * a shorter connection the delays continue to grow. Time that your code takes after the end of the
   * connection does not count.
   * @default {5000}
   */
  minUptime?: number;
  /**
   * Maximum number of failed attempts in a row. Then the iteration throws the last error. A connection,
   * however short, resets the count.
   * @default {Infinity}
   */
  maxAttempts?: number;
  /**
   * Decides whether to try again after a failure; if not, the iteration throws the error. An error whose
   * property `fatal` is true is always thrown. By default, {@linkcode isTransient} decides, and every
   * error of a function `url` is followed by a retry.
   */
  retry?: (error: unknown, attempt: number) => boolean | Promise<boolean>;
  /** Called before each delay. If the callback throws or rejects, the iteration throws its error. */
  onRetry?: (info: RetryInfo) => void;
  /**
   * Ends the iteration at once when aborted; the iteration throws the reason. The current connection stays
   * open, unless the next one has been asked for.
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

/** Statuses after which a later attempt may succeed (RFC 9110 §15, RFC 6585). */
const TRANSIENT_STATUSES = new Set([408, 425, 429, 500, 502, 503, 504]);

/** Codes of a HandshakeError after which a later attempt may succeed. */
const TRANSIENT_CODES = new Set([
  "connect-failed",
  "connection-lost",
  "timeout",
  "shutdown",
  "stream-refused",
]);

/** Replies of a SOCKS proxy after which a later attempt may succeed (RFC 1928 §6). */
const TRANSIENT_REPLIES = new Set([1, 3, 4, 5, 6]);

/**
 * Whether a later attempt to connect may succeed. This is true if the host could not be reached, the
 * connection was lost or took too long, an HTTP/2 stream was refused, the server or a proxy answered with
 * the status 408, 425, 429, 500, 502, 503 or 504, or a SOCKS proxy could not reach the server. Other
 * failures would happen again, such as a wrong certificate, a refusal or a wrong option.
 */
export function isTransient(error: unknown): boolean {
  if (!(error instanceof HandshakeError)) return false;
  const { code, response, reply = 0 } = error;
  if (TRANSIENT_CODES.has(code) || TRANSIENT_REPLIES.has(reply)) return true;
  return (code === "status" || code === "proxy") && TRANSIENT_STATUSES.has(response?.status ?? 0);
}

/**
 * Connects, and connects again when the loop asks for the next connection. A connection that is still
 * open is closed first. Each delay is random, up to a limit that grows with each failure, so that many
 * clients do not reconnect at the same time. If the server sends Retry-After, the delay is that time or
 * `maxDelay`, whichever is shorter, with jitter.
 *
 * Nothing is sent again. Messages whose `send()` was rejected have not been sent. The peer may or may not
 * have read the other messages: let the peer acknowledge messages that must not be lost, and send the
 * others again on the next connection.
 *
 * `break` ends the iteration and leaves the connection open. `return()` does the same, and also ends an
 * attempt or a delay at once.
 *
 * @example
 * ```ts
 * import { reconnect, serve } from "sluice";
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
 * @param url The URL, or a function that is called before each attempt, for example to fetch a new token.
 * If the function throws, the attempt has failed, and `retry` decides. An error with a property `fatal`
 * that is true ends the iteration: `Object.assign(new Error("logged out"), { fatal: true })`.
 * @param options The options of `connect()`, and when to try again.
 * @returns An iterator of connections. It throws the error of an attempt that is not repeated, the reason
 * of the signal, or a TypeError if a function `url` does not return a string or URL, or `retry` does not
 * return a boolean.
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
  // Each attempt sends the header fields, which an iterator yields only once.
  const headers = checkDialling(options);
  return new Reconnection(url, { ...options, headers }).iterate();
}

const RETURNED = Symbol("returned");

type Iteration = AsyncGenerator<WebSocketConnection, void, void>;

type Outcome = { ws: WebSocketConnection } | { error: unknown; isTransient: boolean };

class Reconnection {
  readonly #url: Parameters<typeof reconnect>[0];
  readonly #options: ReconnectOptions;
  readonly #connectOptions: ConnectOptions;
  readonly #backoff: Backoff;
  /** Aborted by the caller's signal and by `return()`. */
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
    // A generator would wait for its current promise first.
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
        // Wait also after a long uptime: the server may have disconnected all clients at once.
        await this.#wait(undefined);
      }
    } catch (error) {
      if (error !== RETURNED) throw error;
    } finally {
      stopWatching();
    }
  }

  async #connect(): Promise<WebSocketConnection> {
    const { maxAttempts = Infinity } = this.#options;
    for (let failed = 1;; failed++) {
      const outcome = await this.#try();
      this.#signal.throwIfAborted();
      if ("ws" in outcome) return outcome.ws;
      const { error } = outcome;
      const isFinal = isFatal(error) || failed >= maxAttempts;
      if (isFinal || !await this.#mayRetry(outcome, failed)) throw error;
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
      // The iteration ended during the attempt.
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

  /** Calls `onRetry`. If it throws or rejects, the iteration ends with the error. */
  #reportRetry(info: RetryInfo): void {
    const returned: unknown = this.#options.onRetry?.(info);
    Promise.resolve(returned).catch((error) => this.#controller.abort(error));
  }

  async #wait(error: unknown): Promise<void> {
    const delay = this.#backoff.next(error);
    this.#reportRetry({ error, attempt: this.#backoff.failures, delay });
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

const LONGEST_DELAY = 2 ** 31 - 1;

/** The default of `maxDelay`, without and with the jitter after a Retry-After of one minute. */
const MAX_DELAY = 60_000;
const MAX_DELAY_WITH_JITTER = 72_000;

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

  next(error: unknown): number {
    const limit = this.#limit;
    const most = this.#maxDelay;
    this.failures++;
    const asked = retryAfter(error);
    // If the server asks for more than `maxDelay`, the clients still spread out.
    if (asked > most) return randomBetween(most / 2, most);
    return randomBetween(
      asked,
      Math.min(this.#maxDelayWithJitter, asked + Math.max(limit, asked / 2)),
    );
  }

  get #limit(): number {
    const limit = this.#minDelay * this.#factor ** this.failures;
    // 0 * Infinity is NaN.
    return Math.min(this.#maxDelay, Number.isNaN(limit) ? this.#minDelay : limit);
  }
}

function randomBetween(least: number, most: number): number {
  return least + Math.random() * (most - least);
}

/** The time that the server asks to wait, in milliseconds. RFC 9110 §10.2.3: seconds or a date. */
function retryAfter(error: unknown): number {
  const { response } = error instanceof HandshakeError ? error : {};
  const value = response?.headers.get("retry-after")?.trim() ?? "";
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const date = parseHttpDate(value, wallClock());
  return date === undefined ? 0 : Math.max(0, date - sentAt(response!));
}

/** Returns the time of the response, by the clock of the server if the response has a date. */
function sentAt(response: RefusedResponse): number {
  const present = wallClock();
  return parseHttpDate(response.headers.get("date")?.trim() ?? "", present) ?? present;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const MONTH = `(?<month>${MONTHS.join("|")})`;
const TIME = "(?<hour>\\d\\d):(?<minute>\\d\\d):(?<second>\\d\\d)";

/** RFC 9110 §5.6.7: a recipient must accept all three formats, of which two are obsolete. */
const FORMATS = [
  // IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT
  `(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?<day>\\d\\d) ${MONTH} (?<year>\\d{4}) ${TIME} GMT`,
  // rfc850-date: Sunday, 06-Nov-94 08:49:37 GMT
  `(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?<day>\\d\\d)-${MONTH}-(?<year>\\d\\d) ${TIME} GMT`,
  // asctime-date: Sun Nov  6 08:49:37 1994
  `(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ${MONTH} (?<day>\\d\\d| \\d) ${TIME} (?<year>\\d{4})`,
].map((format) => new RegExp(`^${format}$`));

/** Parses an HTTP date to milliseconds since 1970. A two-digit year is close to `now`. */
export function parseHttpDate(text: string, now: number): number | undefined {
  for (const format of FORMATS) {
    const { groups } = format.exec(text) ?? {};
    if (groups !== undefined) return toTime(groups, now);
  }
}

function toTime(groups: Record<string, string>, now: number): number | undefined {
  const [day, hour, minute, second] = ["day", "hour", "minute", "second"].map((name) =>
    Number(groups[name])
  );
  const year = groups.year.length === 4 ? Number(groups.year) : nearYear(Number(groups.year), now);
  const date = new Date(0);
  date.setUTCFullYear(year, MONTHS.indexOf(groups.month), day);
  // RFC 9110 §5.6.7: a second of 60 is a leap second.
  if (date.getUTCDate() !== day || hour > 23 || minute > 59 || second > 60) return undefined;
  return date.setUTCHours(hour, minute, second);
}

/** RFC 9110 §5.6.7: a year that seems to be more than 50 years ahead is in the past. */
function nearYear(digits: number, now: number): number {
  const present = new Date(now).getUTCFullYear();
  const year = present - present % 100 + digits;
  return year > present + 50 ? year - 100 : year;
}
