/**
 * Sluice in a browser. A page can only connect, and uses the browser's WebSocket. Options that a browser
 * cannot support throw a NotSupportedError.
 *
 * @module
 */
import type { ConnectOptions as RuntimeOptions } from "./client/client.ts";
import type { WebSocketConnection } from "./connection/connection.ts";
import { domError, HandshakeError, WebSocketError as OwnError } from "./core/error.ts";
import { parseWebSocketUrl } from "./core/url.ts";
import { checkKnown, checkValues } from "./core/options.ts";
import {
  connectionOver,
  FROM_WEB_SOCKET_OPTIONS,
  type FromWebSocketOptions,
} from "./standard/from_websocket.ts";
import { checkProtocols } from "./options.ts";
import {
  type StandardOpenInfo,
  type StandardWebSocketStream,
  webSocketStreamClass,
  type WebSocketStreamConstructor,
  type WebSocketStreamOptions,
} from "./standard/stream_class.ts";
import type { WebSocketLike } from "./standard/native_socket.ts";

export type { WebSocketConnection } from "./connection/connection.ts";
export type { CloseInfo } from "./core/close.ts";
export { type ErrorCode, errorCodeOf } from "./core/error.ts";
export { HandshakeError };
export type { Message } from "./core/message.ts";
export type { BufferSource, InboxStrategy } from "./options.ts";
export type {
  StandardOpenInfo,
  StandardWebSocketStream,
  WebSocketStreamConstructor,
  WebSocketStreamOptions,
} from "./standard/stream_class.ts";

/** Options of {@linkcode connect}. */
export interface ConnectOptions extends Omit<FromWebSocketOptions, "request"> {
  /** Subprotocols, the preferred one first. */
  protocols?: string[] | undefined;
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

const { request: _, ...OWN_OPTIONS } = FROM_WEB_SOCKET_OPTIONS;

const KNOWN = { ...UNSUPPORTED, ...OWN_OPTIONS, protocols: checkProtocols };

/** Options of `connect()` that the platform's WebSocketStream does not have. */
const BEYOND_THE_STANDARD: Record<
  Exclude<keyof ConnectOptions, keyof WebSocketStreamOptions | "maxQueuedBytes">,
  unknown
> = {
  maxMessageSize: Infinity,
  openTimeout: undefined,
  closeTimeout: undefined,
  readableStrategy: undefined,
  maxBufferedAmount: Infinity,
  slow: "wait",
};

/** @throws {DOMException} NotSupportedError If an option has another value than the allowed one. */
function refuse(options: object, unsupported: Record<string, unknown>): void {
  for (const [name, allowed] of Object.entries(unsupported)) {
    const value = (options as Record<string, unknown>)[name];
    if (value === undefined || value === allowed) continue;
    throw domError(
      "NotSupportedError",
      `A browser does not support the option ${name}`,
      "unsupported",
    );
  }
}

/** Returns the base of relative URLs: the URL of the page or of the worker, if there is one. */
function baseUrl(): string | undefined {
  return platform.document?.baseURI ?? platform.location?.href;
}

async function open(url: string, options: ConnectOptions): Promise<WebSocketConnection> {
  if (platform.WebSocket === undefined) {
    throw domError("NotSupportedError", "This platform has no WebSocket", "unsupported");
  }
  options.signal?.throwIfAborted();
  try {
    return await connectionOver(dial(platform.WebSocket, url, options.protocols), options);
  } catch (error) {
    throw isConnectFailed(error) ? notOpened(url, error.cause) : error;
  }
}

/** @throws {HandshakeError} If the browser does not try to connect ("connect-failed"). */
function dial(
  WebSocket: NonNullable<typeof platform.WebSocket>,
  url: string,
  protocols: string[] = [],
): WebSocketLike {
  let socket: WebSocketLike;
  try {
    socket = new WebSocket(url, protocols);
  } catch (cause) {
    throw notOpened(url, cause);
  }
  // The Content-Security-Policy of the page may not allow the connection.
  if (socket.readyState > 1) throw notOpened(url, undefined);
  return socket;
}

function isConnectFailed(error: unknown): error is HandshakeError {
  return error instanceof HandshakeError && error.code === "connect-failed";
}

/** WHATWG WebSockets: a page must not learn the reason. The message lists possible reasons. */
function notOpened(url: string, cause: unknown): HandshakeError {
  return new HandshakeError(
    `The browser has opened no connection to ${
      new URL(url).host
    }, and does not say why. The server may ` +
      "be unreachable, refuse the handshake, or have a certificate that is not trusted. The page's " +
      "Content-Security-Policy may not allow it (connect-src), the page may come by https and the URL be " +
      "ws, or the browser may block the port. Its console tells which",
    "connect-failed",
    cause === undefined ? {} : { cause },
  );
}

/**
 * Connects to a server by the browser's WebSocket.
 *
 * The connection has the limits of a native WebSocket. The library cannot slow the peer down: if more
 * than `maxQueuedBytes` (4 MiB by default) of messages wait to be read, the connection fails with 1013.
 * There are no pings, and the only close codes are 1000 and 3000-4999.
 *
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
): Promise<WebSocketConnection> {
  checkKnown("connect()", options, KNOWN);
  const { href } = parseWebSocketUrl(url, baseUrl());
  refuse(options, UNSUPPORTED);
  return await open(href, options);
}

function checkStandard(options: object): void {
  refuse(options, UNSUPPORTED);
  refuse(options, BEYOND_THE_STANDARD);
  checkValues(options, OWN_OPTIONS);
}

function overWebSocket(): WebSocketStreamConstructor {
  return webSocketStreamClass({
    base: baseUrl,
    check: checkStandard,
    connect: (url, options) => open(url, { maxMessageSize: Infinity, ...options }),
    describe: ({ readable, writable, extensions, protocol }) => ({
      readable,
      writable,
      extensions,
      protocol,
    }),
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
> = platform.WebSocketStream ?? /* @__PURE__ */ overWebSocket();

/** The error of a {@linkcode WebSocketStream} and of the connections of `connect()`. */
export type WebSocketError = OwnError;

/**
 * The browser's class if it has one. The errors of `connect()` are instances of this class too, although
 * its constructor does not accept their codes.
 */
export const WebSocketError: typeof OwnError = platform.WebSocketError === undefined
  ? OwnError
  : /* @__PURE__ */ adopted(platform.WebSocketError);

function adopted(native: typeof OwnError): typeof OwnError {
  const { prototype } = OwnError;
  Object.setPrototypeOf(prototype, native.prototype);
  Object.defineProperty(prototype, "constructor", { value: native });
  return native;
}
