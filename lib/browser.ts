/**
 * Sluice in a browser: the package's entry point there. A page can only connect, and only through what
 * the browser has, so that there are no servers here, and only the options that a browser can honour;
 * another one throws a NotSupportedError.
 *
 * A file of its own because nothing that it imports may name a built-in module of a runtime.
 *
 * @module
 */
import type { ConnectOptions as RuntimeOptions } from "./client/client.ts";
import type { WebSocketConnection } from "./connection/connection.ts";
import { HandshakeError, WebSocketError as OwnError } from "./core/error.ts";
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
export { HandshakeError };
export type { Message } from "./core/message.ts";
export type { BufferSource, InboxStrategy } from "./options.ts";
export type {
  StandardOpenInfo,
  StandardWebSocketStream,
  WebSocketStreamConstructor,
  WebSocketStreamOptions,
} from "./standard/stream_class.ts";

/** How a page connects. */
export interface ConnectOptions extends Omit<FromWebSocketOptions, "request"> {
  /** The subprotocols, the preferred one first. Default: none */
  protocols?: string[];
}

/** The platform's, as far as they are needed here. */
const platform = globalThis as unknown as {
  WebSocket?: new (url: string, protocols: string[]) => WebSocketLike;
  WebSocketStream?: WebSocketStreamConstructor;
  WebSocketError?: typeof OwnError;
  document?: { baseURI?: string };
  location?: { href: string };
};

/** The options of the runtimes that a page has not, and the values that it honours all the same. */
const UNSUPPORTED: Record<Exclude<keyof RuntimeOptions, keyof ConnectOptions>, unknown> = {
  headers: undefined,
  extensions: undefined,
  // A browser offers it by itself.
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
  // It follows none.
  maxRedirects: 0,
  crossOriginHeaders: undefined,
  proxy: undefined,
};

const { request: _, ...OWN_OPTIONS } = FROM_WEB_SOCKET_OPTIONS;

/** The options of `connect()`, also those that a browser cannot honour. */
const KNOWN = { ...UNSUPPORTED, ...OWN_OPTIONS, protocols: checkProtocols };

/** What `connect()` has and the platform's own WebSocketStream has not. */
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

/** @throws {DOMException} NotSupportedError for an option that has another value than one of these */
function refuse(options: object, unsupported: Record<string, unknown>): void {
  for (const [name, honoured] of Object.entries(unsupported)) {
    const value = (options as Record<string, unknown>)[name];
    if (value === undefined || value === honoured) continue;
    throw new DOMException(
      `Expected no option ${name}, which a browser does not support`,
      "NotSupportedError",
    );
  }
}

/** What relative URLs are resolved against: the URL of the page or of the worker, if there is one. */
function baseUrl(): string | undefined {
  return platform.document?.baseURI ?? platform.location?.href;
}

/** Connects by a native WebSocket, whose limits are said at `fromWebSocket()`. */
async function open(url: string, options: ConnectOptions): Promise<WebSocketConnection> {
  if (platform.WebSocket === undefined) {
    throw new DOMException("Expected a platform with WebSocket", "NotSupportedError");
  }
  options.signal?.throwIfAborted();
  try {
    return await connectionOver(dial(platform.WebSocket, url, options.protocols), options);
  } catch (error) {
    throw isConnectFailed(error) ? notOpened(url, error.cause) : error;
  }
}

/** @throws {HandshakeError} "connect-failed" if the browser does not even try to connect */
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
  // A policy of the page can have it closed from the beginning.
  if (socket.readyState > 1) throw notOpened(url, undefined);
  return socket;
}

function isConnectFailed(error: unknown): error is HandshakeError {
  return error instanceof HandshakeError && error.code === "connect-failed";
}

/** WHATWG WebSockets: a page must not learn why, but whoever develops it can. */
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
 * Connects to a server, by the browser's WebSocket.
 *
 * The connection has the limits of a native WebSocket: it cannot be held back, so that more than
 * `maxQueuedBytes` (4 MiB by default) of messages that nobody reads fail it with 1013; it has no pings;
 * it closes with 1000 and 3000-4999 only.
 *
 * @param url a ws or wss URL; http and https are taken as these, and a relative URL is resolved against
 * that of the page
 * @returns the open connection. It rejects with a {@linkcode HandshakeError} when the handshake fails,
 * of which a browser does not say why, with the signal's reason when it is aborted, with a DOMException
 * "SyntaxError" for an invalid URL or subprotocol, and "NotSupportedError" for an option that a browser
 * cannot honour
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

/** The same interface over the browser's WebSocket. */
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
 * A WebSocket as two streams: the browser's own class if it has one. Otherwise the same over its
 * `WebSocket`, which cannot be held back: more than 4 MiB of messages that nobody reads fail it with 1013
 * (`maxQueuedBytes` in the options is another limit).
 *
 * It takes the standard's options. Our own class throws a DOMException "NotSupportedError" for one of
 * `connect()`, which the browser's class ignores.
 */
export const WebSocketStream: WebSocketStreamConstructor<
  WebSocketStreamOptions & Pick<ConnectOptions, "maxQueuedBytes">
> = platform.WebSocketStream ?? /* @__PURE__ */ overWebSocket();

/** The error of a {@linkcode WebSocketStream}, and of the connections of `connect()`. */
export type WebSocketError = OwnError;

/**
 * The browser's own class if it has one. Errors of `connect()`, whose codes the browser's class does not
 * take, are instances of it all the same.
 */
export const WebSocketError: typeof OwnError = platform.WebSocketError === undefined
  ? OwnError
  : /* @__PURE__ */ adopted(platform.WebSocketError);

/** Makes our errors instances of the browser's class. */
function adopted(native: typeof OwnError): typeof OwnError {
  const { prototype } = OwnError;
  Object.setPrototypeOf(prototype, native.prototype);
  Object.defineProperty(prototype, "constructor", { value: native });
  return native;
}
