/**
 * The errors of the library.
 *
 * @module
 */
import { defineInterface, toDictionary, toUnsignedShort, toUsvString } from "./webidl.ts";

type Raise = (
  message: string,
  closeCode: number | null,
  reason: string,
  cause?: unknown,
) => WebSocketError;

let raise: Raise;
let slotsOf: (value: object) => { closeCode: number | null; reason: string } | undefined;

/**
 * The connection did not end with a clean close, or a method was called after its end.
 *
 * This is the interface of the WebSocketStream draft. `closeCode` is the code of the peer's Close
 * frame. Without a Close frame it is the code with which this side failed the connection (1002,
 * 1007, 1008, 1009, 1011), or 1006 if the transport was lost. `cause` is the underlying error.
 *
 * @example
 * ```ts
 * import { WebSocketError } from "sluice";
 *
 * const error = new WebSocketError("Out of paper", { closeCode: 4001, reason: "paper" });
 * console.log(error.name, error.closeCode); // WebSocketError 4001
 * ```
 */
export class WebSocketError extends DOMException {
  #closeCode: number | null = null;
  #reason = "";

  static {
    defineInterface(this, "WebSocketError", ["closeCode", "reason"]);
    raise = (message, closeCode, reason, cause) => {
      const error = new WebSocketError(message);
      error.#closeCode = closeCode;
      error.#reason = reason;
      return withCause(error, cause);
    };
    slotsOf = (value) =>
      #closeCode in value ? { closeCode: value.#closeCode, reason: value.#reason } : undefined;
  }

  /**
   * Makes an error, for example to abort or cancel a stream.
   * @param message The error message.
   * @param init The close code and reason. A reason without a code has the code 1000.
   * @throws {TypeError} If `init` is not an object, or its code is not a number of 16 bits.
   * @throws {DOMException} If the code is not 1000 or 3000-4999 (InvalidAccessError), or the reason is
   * longer than 123 bytes of UTF-8 (SyntaxError).
   */
  constructor(message: string = "", init: { closeCode?: number; reason?: string } = {}) {
    super(message, "WebSocketError");
    const { closeCode, reason } = checkWebCloseInfo(init);
    this.#closeCode = closeCode ?? null;
    this.#reason = reason;
    captureStack(this);
  }

  /** The close code, or null if there is none. */
  get closeCode(): number | null {
    return this.#closeCode;
  }

  /** The reason for closing, or an empty string. */
  get reason(): string {
    return this.#reason;
  }
}

/** Returns the code and reason of a WebSocketError, or undefined for another value. */
export function webSocketErrorSlots(
  value: unknown,
): { closeCode: number | null; reason: string } | undefined {
  return typeof value === "object" && value !== null ? slotsOf(value) : undefined;
}

/** Makes a WebSocketError with any code, including reserved codes, or without a code. */
export function webSocketError(
  message: string,
  closeCode: number | null,
  reason: string = "",
  cause?: unknown,
): WebSocketError {
  return raise(message, closeCode, reason, cause);
}

export function invalidState(message: string, cause?: unknown): DOMException {
  return withCause(new DOMException(message, "InvalidStateError"), cause);
}

function withCause<T extends DOMException>(error: T, cause: unknown): T {
  if (cause === undefined) return error;
  return Object.defineProperty(error, "cause", {
    value: cause,
    configurable: true,
    writable: true,
  });
}

// In JavaScriptCore, a subclass of DOMException has no stack.
function captureStack(error: Error): void {
  const { captureStackTrace } = Error as { captureStackTrace?: (target: object) => void };
  if (!error.stack) captureStackTrace?.(error);
}

/** Converts and checks a close code and reason as the WebSocketStream draft says. */
export function checkWebCloseInfo(init: unknown): { closeCode?: number; reason: string } {
  // Web IDL reads and converts the members in alphabetical order.
  const dictionary = toDictionary(init, "close information");
  const given = dictionary.closeCode;
  const closeCode = given === undefined ? undefined : toUnsignedShort(given, "closeCode");
  const { reason = "" } = dictionary;
  const text = toUsvString(reason);
  if (closeCode !== undefined && !isScriptCloseCode(closeCode)) {
    throw new DOMException(
      `Expected closeCode to be 1000 or 3000-4999, received ${closeCode}`,
      "InvalidAccessError",
    );
  }
  const { length } = new TextEncoder().encode(text);
  if (length > 123) {
    throw new DOMException(
      `Expected reason to be at most 123 bytes of UTF-8, received ${length}`,
      "SyntaxError",
    );
  }
  if (closeCode === undefined && text === "") return { reason: "" };
  return { closeCode: closeCode ?? 1000, reason: text };
}

/** Returns whether a script may close with this code (WHATWG WebSockets). */
export function isScriptCloseCode(closeCode: number): boolean {
  return closeCode === 1000 || (closeCode >= 3000 && closeCode <= 4999);
}

/** Cuts a reason to at most 123 bytes of UTF-8 (RFC 6455 §5.5), between two characters. */
export function truncateReason(reason: string): string {
  // A TextEncoder stops before the first character that does not fit.
  const { read } = new TextEncoder().encodeInto(reason, new Uint8Array(123));
  return reason.slice(0, read);
}

/** The code of a {@linkcode HandshakeError}. */
export type HandshakeErrorCode =
  /** The host could not be reached: refused, unreachable, unknown name, no agreement on TLS. See `cause`. */
  | "connect-failed"
  /** The server's certificate is not valid: unknown authority, expired, wrong host name. See `cause`. */
  | "certificate"
  /** The proxy refused, or its answer cannot be read. See `response` and `reply`. */
  | "proxy"
  /** The transport ended or failed before the handshake was complete. */
  | "connection-lost"
  /** The handshake took longer than `openTimeout`. A server answers 408. */
  | "timeout"
  /** The head is not valid, or the target is not that of a WebSocket. A server answers 400. */
  | "malformed-head"
  /** The request target is too long. A server answers 414. */
  | "target-too-long"
  /** The head exceeds a limit, or more than 16 interim responses came. A server answers 431. */
  | "head-too-large"
  /** The HTTP version has no upgrade. A server answers 505. */
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
  /** The request has a body. A server answers 400, or 413 if the request is plain HTTP. */
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
  /** The body of the response cannot be read. */
  | "malformed-body"
  /**
   * A redirect was not followed although `maxRedirects` is greater than 0: there were too many, or
   * a loop, or it leads from wss to ws or not to a WebSocket. See `response`.
   */
  | "redirect"
  /** The response with status 101 does not upgrade to websocket. */
  | "upgrade"
  /** Sec-WebSocket-Accept does not match the key. */
  | "accept"
  /** The server chose a subprotocol that was not offered. */
  | "subprotocol"
  /** The server chose an extension that was not offered. */
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

/** The response of a server that refused the handshake. */
export interface RefusedResponse {
  /** The status code. */
  readonly status: number;
  /** The reason phrase. */
  readonly statusText: string;
  /** The header fields. */
  readonly headers: Headers;
  /** All header fields in the order in which they were received. */
  readonly rawHeaders: readonly (readonly [name: string, value: string])[];
  /** The body, limited to 64 KiB. */
  readonly body: ReadableStream<Uint8Array>;
}

/** Options of a {@linkcode HandshakeError}. */
export interface HandshakeErrorOptions {
  /** The underlying error. */
  cause?: unknown;
  /**
   * The HTTP status of the response.
   * @default {response?.status}
   */
  status?: number | undefined;
  /** The response of the server or proxy that refused. */
  response?: RefusedResponse | undefined;
  /** The reply of the SOCKS proxy that refused. */
  reply?: number | undefined;
}

/** The opening handshake failed (RFC 6455 §4). `code` says why. */
export class HandshakeError extends Error {
  /** "HandshakeError". */
  override readonly name = "HandshakeError";
  /** The condition that failed. */
  readonly code: HandshakeErrorCode;
  /** The HTTP status of the response. On a server, the status to answer with. */
  readonly status?: number;
  /** On a client: the response of the server or HTTP proxy that refused. */
  readonly response?: RefusedResponse;
  /** On a client: the reply of the SOCKS proxy that refused, such as 5 (RFC 1928 §6). */
  readonly reply?: number;

  /**
   * Makes an error.
   * @param message The error message.
   * @param code The condition that failed.
   * @param options The cause, the status and the response.
   */
  constructor(message: string, code: HandshakeErrorCode, options: HandshakeErrorOptions = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.code = code;
    const { status = options.response?.status } = options;
    if (status !== undefined) this.status = status;
    if (options.response !== undefined) this.response = options.response;
    if (options.reply !== undefined) this.reply = options.reply;
  }
}

export function refusal(
  status: number,
  code: HandshakeErrorCode,
  message: string,
): HandshakeError {
  return new HandshakeError(message, code, { status });
}

/** The current state does not allow the call. The call has changed nothing. */
export class LocalProtocolError extends Error {
  /** "LocalProtocolError". */
  override readonly name = "LocalProtocolError";
}

/** The answer to a peer that violated the protocol: a Close frame or a refusal. */
export type ErrorAnswer =
  | { type: "close"; closeCode: number; reason: string }
  | {
    type: "reject";
    status: number;
    statusText: string;
    headers: readonly (readonly [name: string, value: string])[];
    hasBody: boolean;
  };

/** Options of a {@linkcode RemoteProtocolError}. */
export interface RemoteProtocolErrorOptions {
  /** The underlying error. */
  cause?: unknown;
  /** The event to answer with, or null for none. By default, a Close frame. */
  event?: ErrorAnswer | null | undefined;
}

/** The peer violated the protocol. */
export class RemoteProtocolError extends Error {
  /** "RemoteProtocolError". */
  override readonly name = "RemoteProtocolError";
  /**
   * The close code: 1002, 1007 or 1009; or 1006 if the input ended too early or the opening
   * handshake failed. If the handshake failed, `cause` is the {@linkcode HandshakeError}.
   */
  readonly closeCode: number;
  readonly #event: ErrorAnswer | null | undefined;

  /**
   * Makes an error.
   * @param message The error message.
   * @param closeCode The close code to send.
   * @param options The cause, and the event to answer with.
   */
  constructor(message: string, closeCode: number, options: RemoteProtocolErrorOptions = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.closeCode = closeCode;
    this.#event = options.event;
  }

  /**
   * The event to answer with: a Close frame with the code and the message, or a "reject" for a
   * wrong request. Undefined if no answer is possible, because the input has ended, a Close frame
   * was sent before, or the response of a server is wrong.
   */
  get event(): ErrorAnswer | undefined {
    if (this.#event !== undefined || this.closeCode === 1006) return this.#event ?? undefined;
    return { type: "close", closeCode: this.closeCode, reason: truncateReason(this.message) };
  }
}
