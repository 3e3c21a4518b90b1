/** Connects repeatedly: an iterator of connections, with backoff. */
import { driverOf, type WebSocketConnection } from "../connection/connection.ts";
import { HandshakeError } from "../core/error.ts";
import { checkKnown } from "../core/option_hints.ts";
import { copyOf, type OptionNames } from "../core/options.ts";
import { parseWebSocketUrl } from "../core/url.ts";
import { now, wallClock } from "../timers.ts";
import { checkDialling, CONNECT_OPTIONS, type ConnectOptions, connectWith } from "./client.ts";
import {
  checkUrl,
  reconnecting,
  RETRY_OPTIONS,
  type RetryOptions,
  type UrlSource,
} from "./reconnection.ts";

/** Options of {@linkcode reconnect}. */
export interface ReconnectOptions extends ConnectOptions, RetryOptions {
  /**
   * Ends the iteration at once when aborted; the iteration throws the reason. The current connection stays
   * open, unless the next one has been asked for.
   */
  signal?: AbortSignal | undefined;
}

const RECONNECT_OPTIONS: OptionNames<ReconnectOptions> = { ...CONNECT_OPTIONS, ...RETRY_OPTIONS };

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
  url: UrlSource,
  options: ReconnectOptions = {},
): AsyncIterableIterator<WebSocketConnection> {
  checkKnown("reconnect()", options, RECONNECT_OPTIONS);
  if (typeof url !== "function") parseWebSocketUrl(checkUrl(url));
  // Each attempt sends the header fields, which an iterator yields only once.
  const own = { ...copyOf(options), headers: checkDialling(options) };
  return reconnecting(url, own, {
    connect: (url, signal) => connectWith(url, { ...own, signal }),
    measureUptime,
    retryAfter,
  });
}

/** Counts the milliseconds from now until a connection closes, or ends without a Close frame. */
function measureUptime(ws: WebSocketConnection): () => number {
  const openedAt = now();
  const { closing } = driverOf(ws);
  return () => (closing.startedAt ?? now()) - openedAt;
}

/** The time that the server asks to wait, in milliseconds. RFC 9110 §10.2.3: seconds or a date. */
function retryAfter(error: unknown): number {
  const { response } = error instanceof HandshakeError ? error : {};
  const value = response?.headers.get("retry-after")?.trim() ?? "";
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const present = wallClock();
  const date = parseHttpDate(value, present);
  if (date === undefined) return 0;
  // The clock of the server counts, if the response has a date.
  const sentAt = parseHttpDate(response!.headers.get("date")?.trim() ?? "", present) ?? present;
  return Math.max(0, date - sentAt);
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
  const groups = FORMATS.map((format) => format.exec(text)?.groups).find(Boolean);
  if (groups === undefined) return undefined;
  const [day, hour, minute, second, given] = ["day", "hour", "minute", "second", "year"].map((
    name,
  ) => Number(groups[name]));
  const present = new Date(now).getUTCFullYear();
  const near = present - present % 100 + given;
  // RFC 9110 §5.6.7: a year that seems to be more than 50 years ahead is in the past.
  const year = groups.year.length === 4 ? given : near > present + 50 ? near - 100 : near;
  const date = new Date(0);
  date.setUTCFullYear(year, MONTHS.indexOf(groups.month), day);
  // RFC 9110 §5.6.7: a second of 60 is a leap second.
  if (date.getUTCDate() !== day || hour > 23 || minute > 59 || second > 60) return undefined;
  return date.setUTCHours(hour, minute, second);
}
