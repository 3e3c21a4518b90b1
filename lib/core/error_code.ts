/** The codes of all errors of the library, and the functions that make errors with a code. */

/** The code of a {@linkcode HandshakeError}. */
export type HandshakeErrorCode =
  /** The host could not be reached: refused, unreachable, unknown name, no agreement on TLS. See `cause`. */
  | "connect-failed"
  /** The server's certificate is not valid: unknown authority, expired, wrong host name. See `cause`. */
  | "certificate"
  /** The proxy refused, or its answer cannot be read. See `response` and `reply`. */
  | "proxy"
  /** The transport ended or failed before the handshake was complete, or later without a Close frame. */
  | "connection-lost"
  /** The handshake took longer than `openTimeout`. A server answers 408. */
  | "timeout"
  /** The head is not valid, or the target is not that of a WebSocket. A server answers 400. */
  | "malformed-head"
  /** The request target is too long. A server answers 414. */
  | "target-too-long"
  /** The head exceeds a limit, or more than 16 interim responses came. A server answers 431. */
  | "head-too-large"
  /** The HTTP version has no upgrade. A server answers 505, or 400 to HTTP/1.0. */
  | "http-version"
  /** A header field occurs twice or cannot be parsed. A server answers 400. */
  | "malformed-header"
  /** The method is not GET, or over HTTP/2 not CONNECT. A server answers 405. */
  | "method"
  /**
   * The request does not ask for an upgrade to websocket. A server answers 426, or over HTTP/2, if
   * `:protocol` is not websocket, 501.
   */
  | "not-upgrade"
  /** Sec-WebSocket-Version is missing (400) or not 13 (426, over HTTP/2 400). */
  | "version"
  /** Sec-WebSocket-Key is missing or not 16 bytes in base64. A server answers 400. */
  | "key"
  /** Host, or over HTTP/2 `:authority`, is missing, occurs twice or is not valid. A server answers 400. */
  | "host"
  /**
   * The request has a body. A server answers 400. If the request is plain HTTP, it answers 413 if the
   * body is longer than `maxRequestBody`, and 501 if the transfer coding is unknown.
   */
  | "body"
  /** The origin is not allowed. A server answers 403. */
  | "origin"
  /** There is no WebSocket at the path of the request. A server answers 404. */
  | "not-found"
  /** `onRequest` returned a response. */
  | "rejected"
  /**
   * The HTTP/2 session does not allow extended CONNECT (RFC 8441 §3): the server's settings lack
   * `enableConnectProtocol`. A server answers 501.
   */
  | "no-extended-connect"
  /** The server refused the HTTP/2 stream without processing it (RFC 9113 §8.7). */
  | "stream-refused"
  /** The status of the response is not 101, or over HTTP/2 not 2xx. See `response`. */
  | "status"
  /** The body of the response, or of a plain request, cannot be read. A server answers 400. */
  | "malformed-body"
  /**
   * A redirect was not followed although `maxRedirects` is greater than 0: there were too many, or
   * a loop, or it leads from wss to ws or not to a WebSocket. See `response`.
   */
  | "redirect"
  /** The response with status 101 does not upgrade to websocket, or to another protocol too. */
  | "upgrade"
  /** Sec-WebSocket-Accept does not match the key. */
  | "accept"
  /** The server chose a subprotocol that was not offered, or none although one is required. */
  | "subprotocol"
  /** The server chose an extension that was not offered, or two that exclude each other. */
  | "extension"
  /** A parameter of an extension occurs twice. */
  | "duplicate-parameter"
  /** A parameter of an extension is unknown, or does not answer an offer. */
  | "parameter-name"
  /** A parameter of an extension has an invalid value. */
  | "parameter-value"
  /** The platform, or its version, does not support what the URL or the options ask for. */
  | "unsupported"
  /** A hook of the server threw or returned a wrong value. A server answers 500. See `cause`. */
  | "hook-failed"
  /** `maxConnections` or `maxConnectionsPerAddress` is reached. A server answers 503. */
  | "too-many-connections"
  /** The server is shutting down. A server answers 503. */
  | "shutdown";

/** The code of an error that is not a {@linkcode HandshakeError}. */
export type CallErrorCode =
  /** An argument, option or chunk has the wrong type. */
  | "wrong-type"
  /** An argument, option or chunk has a value that is not allowed. */
  | "wrong-value"
  /** There is no option with this name. */
  | "unknown-option"
  /** A member of another WebSocket API, which a connection does not have. */
  | "no-such-member"
  /** A URL is not a URL of a WebSocket or a proxy. */
  | "invalid-url"
  /** The connection is closing or closed. */
  | "not-open"
  /** The close came before the last item of a message. The peer may have a part of the message. */
  | "cut-short"
  /** Another call is waiting, or another reader or writer has the connection. */
  | "busy"
  /** The connection is read in another way. */
  | "reading-mode"
  /** The socket, stream or WebSocket already has a connection. */
  | "already-used"
  /** A handler returned while a reader waited: an `await` is missing. */
  | "forgotten-await"
  /** The current state does not allow the call (`LocalProtocolError`). */
  | "wrong-state"
  /** There are no more messages: the connection was closed cleanly. */
  | "closed"
  /** The peer closed while messages waited to be sent. */
  | "unsent"
  /** The message was dropped, because it came after this end's close and there was no room for it. */
  | "dropped"
  /** This end ended the transport without a closing handshake. */
  | "terminated"
  /** The peer violated RFC 6455 (1002). */
  | "protocol-violation"
  /** A text or a compressed message is not valid (1007). */
  | "invalid-data"
  /** A frame or message exceeds `maxFrameSize` or `maxMessageSize` (1009). */
  | "too-big"
  /** The peer exceeds `maxControlFramesPerSecond` (1008). */
  | "flood"
  /** No pong came within `pingTimeout` (1011). */
  | "pong-timeout"
  /** A callback, an extension or the source of a message threw (1011). See `cause`. */
  | "callback-failed"
  /** Bytes were detached or resized before they were sent (1011). */
  | "bytes-changed"
  /** `serve()` cannot listen on the host and port, or on the path. See `cause`. */
  | "listen-failed"
  /** The engine of a topic is unreachable, slow, or has refused a call. See `cause`. */
  | "backplane-failed"
  /** Messages of a topic are missing, or may be: after an outage, or because a reader is too slow. */
  | "messages-missed"
  /** What came from a client or an engine of topics is not a valid message. */
  | "malformed-message"
  /** A connection has as many subscriptions as `maxTopicsPerConnection` allows. */
  | "too-many-topics"
  /** The server does not allow the client to use the topic. */
  | "forbidden"
  /** The server has refused a message that was published by `resumable()`. */
  | "refused"
  /** A native WebSocket or the compressor of the platform failed. See `cause`. */
  | "platform-failed";

/** The code of an error of the library. */
export type ErrorCode = CallErrorCode | HandshakeErrorCode;

export interface ErrorDetails {
  code?: ErrorCode;
  cause?: unknown;
}

const codes = new WeakMap<object, ErrorCode>();

/** In Chromium, a subclass of DOMException has no stack. */
let print: (error: DOMException) => void = (error) => {
  const { captureStackTrace } = Error as { captureStackTrace?: (target: object) => void };
  if (!error.stack) captureStackTrace?.(error);
};

/** Sets what `makeReadable()` does. error_print.ts calls this function; browsers do without. */
export function makeReadableBy(makePrintable: (error: DOMException) => void): void {
  print = makePrintable;
}

/** Lets runtimes print a DOMException with its stack and codes. */
export function makeReadable(error: DOMException): void {
  print(error);
}

/** Makes `errorCodeOf()` return the code of an error that has it as a property. */
export function noteCode(error: object, code: ErrorCode): void {
  codes.set(error, code);
}

/**
 * Returns the code of an error of the library, and undefined for any other value. The code is also the
 * property `code` of the error. A DOMException, such as a {@linkcode WebSocketError}, has the code in
 * `errorCode`, because its `code` is a number.
 *
 * @example
 * ```ts
 * import { connect, errorCodeOf } from "sluice";
 *
 * try {
 *   await connect("ftp://example.com");
 * } catch (error) {
 *   console.log(errorCodeOf(error)); // invalid-url
 * }
 * ```
 */
export function errorCodeOf(error: unknown): ErrorCode | undefined {
  return codes.get(error as object);
}

export function withCode<T extends Error>(error: T, code: ErrorCode): T {
  codes.set(error, code);
  const isDom = error instanceof DOMException;
  if (isDom) makeReadable(error);
  const name = isDom ? "errorCode" : "code";
  return Object.defineProperty(error, name, { value: code, enumerable: true, configurable: true });
}

/** Makes a TypeError. */
export function wrongType(message: string, details: ErrorDetails = {}): TypeError {
  return withCode(new TypeError(message, details), details.code ?? "wrong-type");
}

/** Makes a RangeError. */
export function wrongValue(message: string, details: ErrorDetails = {}): RangeError {
  const { code = "wrong-value" } = details;
  return withCode(new RangeError(message, details), code);
}

/** Makes an Error of a transport or of the platform. */
export function failure(message: string, code: ErrorCode, cause?: unknown): Error {
  return withCode(new Error(message, cause === undefined ? undefined : { cause }), code);
}

/** Makes a DOMException with a name of the DOM standard. */
export function domError(
  name: string,
  message: string,
  code: ErrorCode,
  cause?: unknown,
): DOMException {
  return withCode(withCause(new DOMException(message, name), cause), code);
}

export function invalidState(message: string, code: ErrorCode, cause?: unknown): DOMException {
  return domError("InvalidStateError", message, code, cause);
}

export function withCause<T extends DOMException>(error: T, cause: unknown): T {
  if (cause === undefined) return error;
  return Object.defineProperty(error, "cause", {
    value: cause,
    configurable: true,
    writable: true,
  });
}
