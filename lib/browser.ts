/**
 * Sluice in a browser. A page can only connect, and uses the browser's own classes: its WebSocketStream,
 * which has backpressure, or else its WebSocket. Options that a browser cannot support throw a
 * NotSupportedError.
 *
 * @module
 */
import { abortable, onAbort } from "./abortable.ts";
import type { ConnectOptions as RuntimeOptions } from "./client/client.ts";
import {
  checkUrl,
  reconnecting,
  RETRY_OPTIONS,
  type RetryOptions,
  type UrlSource,
} from "./client/reconnection.ts";
import { domError, HandshakeError, timedOut, WebSocketError as OwnError } from "./core/error.ts";
import { resolveWebSocketUrl } from "./core/url.ts";
import { checkKnown, checkTexts, checkValues, copyOf } from "./core/options.ts";
import type { FromWebSocketOptions as NativeOptions } from "./standard/from_websocket.ts";
import {
  BrowserConnection,
  type Line,
  openStream,
  SocketLine,
} from "./standard/browser_connection.ts";
import {
  MAX_QUEUED_BYTES,
  SOCKET_OPTIONS,
  takeSocket,
  type WebSocketLike,
} from "./standard/native_socket.ts";
import {
  type StandardOpenInfo,
  type StandardWebSocketStream,
  webSocketStreamClass,
  type WebSocketStreamConstructor,
  type WebSocketStreamOptions,
} from "./standard/stream_class.ts";
import { backgroundTimer, now } from "./timers.ts";

export { broadcast, type BroadcastOptions, type BroadcastResult } from "./connection/broadcast.ts";
export type { Recipient } from "./connection/broadcast.ts";
export { relay, type RelayEnd, type RelayOptions } from "./connection/relay.ts";
export { CloseCode, type CloseInfo } from "./core/close.ts";
export { type ErrorCode, errorCodeOf } from "./core/error.ts";
export { HandshakeError };
export type { HandshakeErrorCode, HandshakeErrorOptions, RefusedResponse } from "./core/error.ts";
export type { Message } from "./core/message.ts";
export {
  isTransient,
  type RetryInfo,
  type RetryOptions,
  type UrlSource,
} from "./client/reconnection.ts";
export type { BufferSource, CloseDetails, SendOptions } from "./options.ts";
export type {
  BrowserConnection as WebSocketConnection,
  BrowserStats as ConnectionStats,
} from "./standard/browser_connection.ts";
export type { WebSocketLike, WebSocketLikeEvent } from "./standard/native_socket.ts";
export type {
  StandardOpenInfo,
  StandardWebSocketStream,
  WebSocketStreamConstructor,
  WebSocketStreamOptions,
} from "./standard/stream_class.ts";

/** Options of {@linkcode fromWebSocket}. */
export interface FromWebSocketOptions
  extends Omit<NativeOptions, "request" | "readableStrategy" | "maxQueuedBytes"> {
  /**
   * Maximum size of the messages that wait to be read over a WebSocket, which cannot be paused. Beyond the
   * limit, the connection fails with 1013, after the messages that wait. Infinity disables the limit.
   * @default {4_194_304}
   */
  maxQueuedBytes?: number | undefined;
}

/** Options of {@linkcode connect}. */
export interface ConnectOptions extends FromWebSocketOptions {
  /** Subprotocols, the preferred one first. */
  protocols?: string[] | undefined;
}

/** Options of {@linkcode reconnect}. */
export interface ReconnectOptions extends ConnectOptions, RetryOptions {
  /**
   * Ends the iteration at once when aborted; the iteration throws the reason. The current connection stays
   * open, unless the next one has been asked for.
   */
  signal?: AbortSignal | undefined;
}

const platform = globalThis as unknown as {
  WebSocket?: new (url: string, protocols: string[]) => WebSocketLike;
  WebSocketStream?: WebSocketStreamConstructor;
  WebSocketError?: typeof OwnError;
  document?: { baseURI?: string };
  location?: { href: string };
};

/** Options that a browser does not support, each with the only value that is allowed. */
const UNSUPPORTED: Record<Exclude<keyof RuntimeOptions, keyof ConnectOptions>, unknown> = {
  headers: undefined,
  extensions: undefined,
  // A browser offers compression by itself.
  compression: true,
  maxFrameSize: Infinity,
  maxControlFramesPerSecond: Infinity,
  pingInterval: 0,
  pingTimeout: 0,
  readableStrategy: undefined,
  onFrame: undefined,
  provider: undefined,
  origin: undefined,
  unix: undefined,
  tls: undefined,
  transport: undefined,
  userAgent: undefined,
  // A browser follows no redirects.
  maxRedirects: 0,
  crossOriginHeaders: undefined,
  proxy: undefined,
};

const CONNECT_OPTIONS = { ...UNSUPPORTED, ...SOCKET_OPTIONS, protocols: checkTexts };

/** Options of `connect()` that the platform's WebSocketStream does not have. */
const BEYOND_THE_STANDARD: Record<
  Exclude<keyof ConnectOptions, keyof WebSocketStreamOptions | "maxQueuedBytes">,
  unknown
> = {
  maxMessageSize: Infinity,
  openTimeout: undefined,
  closeTimeout: undefined,
  maxBufferedAmount: Infinity,
  slow: "wait",
};

/** @throws {DOMException} NotSupportedError If an option has another value than the allowed one. */
function refuse(options: object, unsupported: Record<string, unknown>): void {
  for (const name in unsupported) {
    const value = (options as Record<string, unknown>)[name];
    if (value === undefined || value === unsupported[name]) continue;
    throw notSupported(`A browser does not support the option ${name}`);
  }
}

/** Returns the base of relative URLs: the URL of the page or of the worker, if there is one. */
function baseUrl(): string | undefined {
  return platform.document?.baseURI ?? platform.location?.href;
}

async function withinTime(
  { signal, openTimeout = 10_000 }: ConnectOptions,
  connecting: (signal: AbortSignal) => Promise<Line>,
): Promise<Line> {
  const controller = new AbortController();
  const stopWatching = onAbort(signal, (reason) => controller.abort(reason));
  const cancel = openTimeout > 0
    ? backgroundTimer(() => controller.abort(timedOut(openTimeout)), openTimeout)
    : stopWatching;
  const stop = () => {
    cancel();
    stopWatching();
  };
  try {
    return await abortable(connecting(controller.signal).finally(stop), controller.signal);
  } finally {
    stop();
  }
}

async function lineOver(
  socket: WebSocketLike,
  signal: AbortSignal,
  maxQueuedBytes: number = MAX_QUEUED_BYTES,
): Promise<Line> {
  const line = new SocketLine(socket, maxQueuedBytes);
  onAbort(signal, () => line.terminate());
  await line.opened;
  return line;
}

async function dial(
  url: string,
  { protocols = [], maxQueuedBytes }: ConnectOptions,
  signal: AbortSignal,
): Promise<Line> {
  const { WebSocket, WebSocketStream } = platform;
  signal.throwIfAborted();
  if (WebSocket === undefined) throw notSupported("There is no WebSocket");
  try {
    if (WebSocketStream !== undefined) {
      return await openStream(WebSocketStream, url, { protocols, signal });
    }
    const socket = new WebSocket(url, protocols);
    // The Content-Security-Policy of the page may not allow the connection.
    if (socket.readyState > 1) throw undefined;
    return await lineOver(socket, signal, maxQueuedBytes);
  } catch (error) {
    // A subprotocol is not a token, or occurs twice.
    if (Object(error).name === "SyntaxError") throw error;
    throw notOpened(url, error instanceof HandshakeError ? error.cause : error);
  }
}

async function open(
  url: string,
  options: ConnectOptions,
  isStandard?: boolean,
): Promise<BrowserConnection> {
  const line = await withinTime(options, (signal) => dial(url, options, signal));
  return new BrowserConnection(line, options, isStandard);
}

function notSupported(message: string): DOMException {
  return domError("NotSupportedError", message, "unsupported");
}

/** WHATWG WebSockets: a page must not learn the reason. The message lists possible reasons. */
function notOpened(url: string, cause: unknown): HandshakeError {
  return new HandshakeError(
    `Cannot connect to ${
      new URL(url).host
    }, only the console says why: the server is unreachable, ` +
      "may refuse the handshake, or the Content-Security-Policy forbids it (connect-src)",
    "connect-failed",
    cause === undefined ? {} : { cause },
  );
}

/**
 * Connects to a server by the browser's WebSocketStream if there is one, and by its WebSocket otherwise.
 *
 * Over a WebSocket, the library cannot slow the peer down: if more than `maxQueuedBytes` (4 MiB by default)
 * of messages wait to be read, the connection fails with 1013. A browser has no pings, and the only close
 * codes are 1000 and 3000-4999.
 * @param url A ws or wss URL. The schemes http and https stand for ws and wss. A relative URL is resolved
 * against the URL of the page.
 * @returns The open connection. The promise rejects with a {@linkcode HandshakeError} if the handshake
 * fails (a browser does not report why), with the reason of the signal if it is aborted, with a
 * DOMException "SyntaxError" if the URL or a subprotocol is invalid, and with "NotSupportedError" if a
 * browser cannot support an option.
 */
export async function connect(
  url: string | URL,
  options: ConnectOptions = {},
): Promise<BrowserConnection> {
  checkKnown("connect()", options, CONNECT_OPTIONS);
  const { href } = resolveWebSocketUrl(url, baseUrl());
  refuse(options, UNSUPPORTED);
  return await open(href, copyOf(options));
}

/**
 * Connects, and connects again when the loop asks for the next connection. A connection that is still
 * open is closed first. Each delay is random, up to a limit that grows with each failure. A browser does
 * not report why a handshake failed, so that every failed handshake is followed by a retry, unless
 * `maxAttempts` or `retry` says otherwise.
 *
 * Nothing is sent again: let the peer acknowledge messages that must not be lost. `break` ends the
 * iteration and leaves the connection open.
 * @param url The URL, or a function that is called before each attempt. An error with a property `fatal`
 * that is true ends the iteration.
 * @param options The options of `connect()`, and when to try again.
 * @returns An iterator of connections. It throws the error of an attempt that is not repeated, or the reason
 * of the signal.
 * @throws {TypeError} If `url` or an option has the wrong type.
 * @throws {RangeError} If an option has a wrong value, such as a negative number.
 * @throws {DOMException} SyntaxError if `url` is not a URL of a WebSocket, or a subprotocol is not a token;
 * NotSupportedError if a browser cannot support an option.
 */
export function reconnect(
  url: UrlSource,
  options: ReconnectOptions = {},
): AsyncIterableIterator<BrowserConnection> {
  checkKnown("reconnect()", options, { ...CONNECT_OPTIONS, ...RETRY_OPTIONS });
  refuse(options, UNSUPPORTED);
  const parse = (url: string | URL) => resolveWebSocketUrl(checkUrl(url), baseUrl()).href;
  if (typeof url !== "function") parse(url);
  const own = copyOf(options);
  return reconnecting(url, own, {
    connect: async (url, signal) => await open(parse(url), { ...own, signal }),
    measureUptime,
    retryAfter: () => 0,
  });
}

function measureUptime({ closed }: BrowserConnection): () => number {
  const openedAt = now();
  let endedAt: number | undefined;
  const end = () => void (endedAt = now());
  closed.then(end, end);
  return () => (endedAt ?? now()) - openedAt;
}

/**
 * Makes a connection over a native WebSocket. Call it before the first message arrives: earlier messages
 * are lost. It has the limits of `connect()` over a WebSocket.
 * @param socket A socket that is connecting or open, and that nobody else listens to or sends with.
 * @returns The connection, when the socket is open. The promise rejects with a {@linkcode HandshakeError}
 * if the socket does not open ("connect-failed") or not in time ("timeout"), with the reason of the signal
 * if it is aborted, with InvalidStateError if the socket is closing, closed or used for another connection,
 * and with TypeError if `socket` is not a WebSocket.
 */
export async function fromWebSocket(
  socket: WebSocketLike,
  options: FromWebSocketOptions = {},
): Promise<BrowserConnection> {
  checkKnown("fromWebSocket()", options, SOCKET_OPTIONS);
  takeSocket(socket);
  const own = copyOf(options);
  const line = await withinTime(own, (signal) => lineOver(socket, signal, own.maxQueuedBytes));
  return new BrowserConnection(line, own);
}

function streamClass(): WebSocketStreamConstructor {
  return platform.WebSocketStream ?? webSocketStreamClass({
    base: baseUrl,
    check: (options) => {
      refuse(options, UNSUPPORTED);
      refuse(options, BEYOND_THE_STANDARD);
      checkValues(options, SOCKET_OPTIONS);
    },
    connect: (url, options) => open(url, { maxMessageSize: Infinity, ...options }, true),
    describe: ({ readable, writable, extensions, protocol }) => (
      { readable, writable, extensions, protocol }
    ),
  });
}

/** A WebSocket as two streams. */
export type WebSocketStream = StandardWebSocketStream<StandardOpenInfo>;

/**
 * A WebSocket as two streams: the browser's class if it has one, and otherwise our class over the
 * browser's `WebSocket`. Our class cannot slow the peer down: if more than `maxQueuedBytes` (4 MiB by
 * default) of messages wait to be read, the connection fails with 1013.
 *
 * The class takes the standard's options. For other options of `connect()`, our class throws a DOMException
 * "NotSupportedError"; the browser's class ignores them.
 */
export const WebSocketStream: WebSocketStreamConstructor<
  WebSocketStreamOptions & Pick<ConnectOptions, "maxQueuedBytes">
> = /* @__PURE__ */ streamClass();

/** The error of a {@linkcode WebSocketStream} and of the connections of `connect()`. */
export type WebSocketError = OwnError;

/**
 * The browser's class if it has one. The errors of `connect()` are instances of this class too, although
 * its constructor does not accept their codes.
 */
export const WebSocketError: typeof OwnError = /* @__PURE__ */ errorClass();

function errorClass(): typeof OwnError {
  const native = platform.WebSocketError;
  if (native === undefined) return OwnError;
  const { prototype } = OwnError;
  Object.setPrototypeOf(prototype, native.prototype);
  Object.defineProperty(prototype, "constructor", { value: native });
  return native;
}
