/** Connects repeatedly, by any way to connect: when to try again, and how long to wait. */
import { abortable, onAbort, sleep } from "../abortable.ts";
import type { CloseInfo } from "../core/close.ts";
import { HandshakeError, wrongType } from "../core/error.ts";
import { checkFunction, checkNumber, type OptionNames } from "../core/options.ts";

/** The argument of {@linkcode RetryOptions.onRetry}. */
export interface RetryInfo {
  /** The error of the last attempt, or undefined after the end of a connection. */
  readonly error: unknown;
  /** Number of retries since a connection lasted for `minUptime`. */
  readonly attempt: number;
  /** Time until the next attempt, in milliseconds. */
  readonly delay: number;
}

/** When to connect again. */
export interface RetryOptions {
  /**
   * Maximum delay before the first retry, in milliseconds.
   * @default {1000}
   */
  minDelay?: number | undefined;
  /**
   * Maximum of all delays, in milliseconds. The limit is 2,147,483,647 (24 days).
   * @default {60_000}, and up to 72,000 after a Retry-After
   */
  maxDelay?: number | undefined;
  /**
   * Factor by which the maximum delay grows with each failure.
   * @default {1.6}
   */
  backoffFactor?: number | undefined;
  /**
   * Time that a connection must last, in milliseconds, so that the delays start from the beginning. After
   * a shorter connection the delays continue to grow. Time that your code takes after the end of the
   * connection does not count.
   * @default {5000}
   */
  minUptime?: number | undefined;
  /**
   * Maximum number of failed attempts in a row. Then the iteration throws the last error. A connection,
   * however short, resets the count.
   * @default {Infinity}
   */
  maxAttempts?: number | undefined;
  /**
   * Decides whether to try again after a failure; if not, the iteration throws the error. An error whose
   * property `fatal` is true is always thrown. By default, {@linkcode isTransient} decides, and every
   * error of a function `url` is followed by a retry.
   */
  retry?: ((error: unknown, attempt: number) => boolean | Promise<boolean>) | undefined;
  /** Called before each delay. If the callback throws or rejects, the iteration throws its error. */
  onRetry?: ((info: RetryInfo) => void) | undefined;
}

export const RETRY_OPTIONS: OptionNames<RetryOptions> = {
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

const RETURNED = Symbol("returned");

/** The URL of a connection, or a function that is asked for it before each attempt. */
export type UrlSource = string | URL | (() => string | URL | Promise<string | URL>);

/** A connection, as far as connecting again needs it. */
interface Closable {
  close(): Promise<Required<CloseInfo>>;
}

/** How {@linkcode reconnecting} connects. */
export interface Dialer<Connection extends Closable> {
  connect(url: string | URL, signal: AbortSignal): Promise<Connection>;
  /** Measures how long a connection lasts, in milliseconds from now. */
  measureUptime(ws: Connection): () => number;
  /** Returns the time that the server asks to wait, in milliseconds. */
  retryAfter(error: unknown): number;
}

type Iteration<Connection> = AsyncGenerator<Connection, void, void>;

/** Iterates over connections. `return()` and `throw()` also end an attempt or a delay. */
export function reconnecting<Connection extends Closable>(
  url: UrlSource,
  options: RetryOptions & { signal?: AbortSignal | undefined },
  dialer: Dialer<Connection>,
): Iteration<Connection> {
  // Aborted by the caller's signal, and at the end of the iteration.
  const controller = new AbortController();
  const iteration = connections(url, options, dialer, controller);
  for (const name of ["return", "throw"] as const) {
    const finish = iteration[name].bind(iteration);
    // A generator would wait for its current promise first.
    iteration[name] = (value) => {
      controller.abort(RETURNED);
      return finish(value as never);
    };
  }
  return iteration;
}

async function* connections<Connection extends Closable>(
  url: UrlSource,
  options: RetryOptions & { signal?: AbortSignal | undefined },
  dialer: Dialer<Connection>,
  controller: AbortController,
): Iteration<Connection> {
  const { minUptime = 5000, maxAttempts = Infinity, retry, onRetry } = options;
  const { signal } = controller;
  let failures = 0;

  const wait = async (error?: unknown): Promise<void> => {
    const delay = delayAfter(failures++, options, dialer.retryAfter(error));
    const returned: unknown = onRetry?.({ error, attempt: failures, delay });
    Promise.resolve(returned).catch((error) => controller.abort(error));
    await sleep(delay, signal);
  };

  const mayRetry = async (error: unknown, isTransient: boolean, attempt: number) => {
    if (retry === undefined) return isTransient;
    const answer: unknown = await abortable(Promise.resolve(retry(error, attempt)), signal);
    if (typeof answer === "boolean") return answer;
    throw wrongType(`Expected retry to return a boolean, received ${typeof answer}`, {
      cause: error,
    });
  };

  const connect = async (): Promise<Connection> => {
    for (let failed = 1;; failed++) {
      let ws: Connection | undefined;
      let error: unknown;
      let isUrlKnown = false;
      try {
        const given = typeof url === "function"
          ? await abortable(Promise.resolve(url()), signal)
          : url;
        isUrlKnown = true;
        ws = await dialer.connect(checkUrl(given), signal);
      } catch (failure) {
        error = failure;
      }
      // The iteration may have ended during the attempt.
      if (signal.aborted) void ws?.close();
      signal.throwIfAborted();
      if (ws !== undefined) return ws;
      const isFinal = Object(error).fatal === true || failed >= maxAttempts;
      const isPassing = !isUrlKnown || isTransient(error);
      if (isFinal || !await mayRetry(error, isPassing, failed)) throw error;
      await wait(error);
    }
  };

  const stopWatching = onAbort(options.signal, (reason) => controller.abort(reason));
  try {
    for (;;) {
      const ws = await connect();
      const uptime = dialer.measureUptime(ws);
      yield ws;
      const lasted = uptime();
      await abortable(ws.close(), signal);
      if (lasted >= minUptime) failures = 0;
      // Wait also after a long uptime: the server may have disconnected all clients at once.
      await wait();
    }
  } catch (error) {
    if (error !== RETURNED) throw error;
  } finally {
    stopWatching();
  }
}

export function checkUrl(url: unknown): string | URL {
  if (typeof url === "string" || url instanceof URL) return url;
  throw wrongType(`Expected url to be, or to return, a string or URL, received ${typeof url}`);
}

const LONGEST_DELAY = 2 ** 31 - 1;

/** The default of `maxDelay`, without and with the jitter after a Retry-After of one minute. */
const MAX_DELAY = 60_000;
const MAX_DELAY_WITH_JITTER = 72_000;

/** @param asked Time that the server asks to wait, in milliseconds. */
function delayAfter(
  failures: number,
  { minDelay = 1000, maxDelay, backoffFactor = 1.6 }: RetryOptions,
  asked: number,
): number {
  const most = Math.min(maxDelay ?? MAX_DELAY, LONGEST_DELAY);
  // If the server asks for more than `maxDelay`, the clients still spread out.
  if (asked > most) return randomBetween(most / 2, most);
  const grown = minDelay * backoffFactor ** failures;
  // 0 * Infinity is NaN.
  const limit = Math.min(most, Number.isNaN(grown) ? minDelay : grown);
  const mostWithJitter = maxDelay === undefined ? MAX_DELAY_WITH_JITTER : most;
  return randomBetween(asked, Math.min(mostWithJitter, asked + Math.max(limit, asked / 2)));
}

function randomBetween(least: number, most: number): number {
  return least + Math.random() * (most - least);
}
