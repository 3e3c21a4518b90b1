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
 * The connection ended other than by a clean close, or a reader met its end.
 *
 * This is the interface of the WebSocketStream draft. `closeCode` is the code of the peer's Close
 * frame; where none came, the code with which our side failed the connection (1002, 1007, 1008, 1009,
 * 1011), or 1006 where the transport was simply gone. `cause` holds what lies beneath.
 *
 * @example
 * ```ts
 * import { WebSocketError } from "@sluice/sluice";
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
   * Makes an error as a caller may: to abort or cancel a stream with, for one.
   *
   * @param message what went wrong
   * @param init the close code and reason to carry; a reason alone gets code 1000
   * @throws {TypeError} when `init` is no object or its code no number of 16 bits
   * @throws {DOMException} InvalidAccessError for a code other than 1000 and 3000-4999, SyntaxError
   * for a reason of over 123 bytes of UTF-8
   */
  constructor(message: string = "", init: { closeCode?: number; reason?: string } = {}) {
    super(message, "WebSocketError");
    const { closeCode, reason } = checkWebCloseInfo(init);
    this.#closeCode = closeCode ?? null;
    this.#reason = reason;
    captureStack(this);
  }

  /** The close code, or null where none is known. */
  get closeCode(): number | null {
    return this.#closeCode;
  }

  /** The reason given with the code, or an empty string. */
  get reason(): string {
    return this.#reason;
  }
}

/**
 * The code and reason that a WebSocketError was made with, whatever properties it has been given since;
 * undefined for any other value. Internal.
 */
export function webSocketErrorSlots(
  value: unknown,
): { closeCode: number | null; reason: string } | undefined {
  return typeof value === "object" && value !== null ? slotsOf(value) : undefined;
}

/** Makes a WebSocketError with any code, the reserved ones too, or with none. Internal. */
export function webSocketError(
  message: string,
  closeCode: number | null,
  reason: string = "",
  cause?: unknown,
): WebSocketError {
  return raise(message, closeCode, reason, cause);
}

/** Makes the error for a call at the wrong moment. Internal. */
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

// A subclass of DOMException gets no stack of its own in JavaScriptCore.
function captureStack(error: Error): void {
  const { captureStackTrace } = Error as { captureStackTrace?: (target: object) => void };
  if (!error.stack) captureStackTrace?.(error);
}

/**
 * The WebSocketStream draft's conversion and check of a close code and reason.
 *
 * @throws {TypeError} when the value is no object or the code no number of 16 bits
 * @throws {DOMException} InvalidAccessError for a code other than 1000 and 3000-4999, SyntaxError
 * for a reason of over 123 bytes of UTF-8
 */
export function checkWebCloseInfo(init: unknown): { closeCode?: number; reason: string } {
  // Web IDL reads and converts the members in the order of their names.
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
      `Expected a reason of at most 123 bytes of UTF-8, received ${length}`,
      "SyntaxError",
    );
  }
  if (closeCode === undefined && text === "") return { reason: "" };
  return { closeCode: closeCode ?? 1000, reason: text };
}

/** Whether a script may close with this code: 1000 and 3000-4999 (WHATWG WebSockets). */
export function isScriptCloseCode(closeCode: number): boolean {
  return closeCode === 1000 || (closeCode >= 3000 && closeCode <= 4999);
}

/** Cuts a reason to at most 123 bytes of UTF-8 (RFC 6455 §5.5), between two characters. */
export function truncateReason(reason: string): string {
  // A TextEncoder stops before the first character that does not fit whole.
  const { read } = new TextEncoder().encodeInto(reason, new Uint8Array(123));
  return reason.slice(0, read);
}

/** What a {@linkcode HandshakeError} can say about the opening handshake. */
export type HandshakeErrorCode =
  /**
   * No connection to the host: refused, unreachable, unknown name, or no agreement on TLS. `cause`
   * has the details.
   */
  | "connect-failed"
  /**
   * The server's certificate is not valid; the message says which check failed: unknown authority,
   * expired, wrong host name. `cause` has the details.
   */
  | "certificate"
  /**
   * The proxy refused to connect us to the server, or answered with something else; see `response` and
   * `reply`.
   */
  | "proxy"
  /** The transport ended or failed before the handshake was through. */
  | "connection-lost"
  /** `openTimeout` went by. */
  | "timeout"
  /**
   * The head is no HTTP/1.1 message, and the message says at which byte; or the request target is neither
   * a path nor the URL of a WebSocket. Server answers 400.
   */
  | "malformed-head"
  /** The request target is longer than a line may be. Server answers 414. */
  | "target-too-long"
  /**
   * Too many header fields, a line or the head too long. Server answers 431. On a client also more than
   * 16 interim responses.
   */
  | "head-too-large"
  /** A version of HTTP that cannot be upgraded. Server answers 505. */
  | "http-version"
  /** A header that stands twice or cannot be read; the message names it. Server answers 400. */
  | "malformed-header"
  /** The method is not GET, or over HTTP/2 not CONNECT. Server answers 405. */
  | "method"
  /**
   * A plain HTTP request: no Upgrade to websocket. Server answers 426. Over HTTP/2: the `:protocol` is
   * not websocket. Server answers 501.
   */
  | "not-upgrade"
  /** Sec-WebSocket-Version is missing (400) or not 13 (426, over HTTP/2 400). */
  | "version"
  /** Sec-WebSocket-Key is missing or not 16 bytes in base64. Server answers 400. */
  | "key"
  /**
   * Host is missing, stands twice or is not a host with an optional port; over HTTP/2 `:authority`.
   * Server answers 400.
   */
  | "host"
  /**
   * The request announces a body. Server answers 400 if the request asks for a WebSocket, and 413 if it is
   * plain HTTP.
   */
  | "body"
  /** The Origin is not allowed. Server answers 403. */
  | "origin"
  /** No WebSocket is served at the path of the request. Server answers 404. */
  | "not-found"
  /** `onRequest` answered with a response. */
  | "rejected"
  /**
   * The session of HTTP/2 does not allow the extended CONNECT (RFC 8441 §3): the server's settings lack
   * `enableConnectProtocol`. A server where this is found answers 501.
   */
  | "no-extended-connect"
  /**
   * The server refuses each stream of HTTP/2 before it looks at the request (RFC 9113 §8.7): it has no
   * room for one more. A later attempt may succeed.
   */
  | "stream-refused"
  /** The server answered with another status than 101, over HTTP/2 2xx; see `response`. */
  | "status"
  /** The body of such an answer is not framed as its header fields say. */
  | "malformed-body"
  /**
   * A redirect that is not followed, though `maxRedirects` allows some: one too many, back to where we
   * came from, from wss to ws, or to something else than a WebSocket; see `response`.
   */
  | "redirect"
  /** The 101 response lacks the Upgrade to websocket. */
  | "upgrade"
  /** Sec-WebSocket-Accept does not answer our key. */
  | "accept"
  /** The server chose a subprotocol that was not offered. */
  | "subprotocol"
  /** The server chose an extension that was not offered. */
  | "extension"
  /** A parameter of an extension stands twice. */
  | "duplicate-parameter"
  /** A parameter that the extension does not know, or that answers no offer. */
  | "parameter-name"
  /** A parameter of an extension has a value that it cannot have. */
  | "parameter-value"
  /** The running platform or this version cannot do what the URL or the options ask for. */
  | "unsupported"
  /**
   * A hook of the server threw, or returned something that it must not return. Server answers 500; see
   * `cause`.
   */
  | "hook-failed"
  /** `maxConnections` or `maxConnectionsPerAddress` is reached. Server answers 503. */
  | "too-many-connections"
  /** The server shuts down. Server answers 503. */
  | "shutdown";

/** The response of a server that refused the handshake. */
export interface RefusedResponse {
  /** The status code. */
  readonly status: number;
  /** The reason phrase. */
  readonly statusText: string;
  /** The header fields. */
  readonly headers: Headers;
  /** The header fields as they came, in order, repeated ones kept. */
  readonly rawHeaders: readonly (readonly [name: string, value: string])[];
  /** The body, at most 64 KiB of it. */
  readonly body: ReadableStream<Uint8Array>;
}

/** What else a {@linkcode HandshakeError} may carry. */
export interface HandshakeErrorOptions {
  /** The error beneath. */
  cause?: unknown;
  /** The HTTP status. Default: that of `response` */
  status?: number;
  /** The response of the server, or the proxy, that refused. */
  response?: RefusedResponse;
  /** The reply of the SOCKS proxy that refused. */
  reply?: number;
}

/** The opening handshake failed (RFC 6455 §4). `code` tells which of its conditions. */
export class HandshakeError extends Error {
  /** "HandshakeError". */
  override readonly name = "HandshakeError";
  /** Which condition failed; see {@linkcode HandshakeErrorCode}. */
  readonly code: HandshakeErrorCode;
  /**
   * The HTTP status of the response: on a server, the one that the refusal is answered with; on a client,
   * that of `response`.
   */
  readonly status?: number;
  /** On a client: the response of the server, or the HTTP proxy, that refused. */
  readonly response?: RefusedResponse;
  /** On a client: the reply of the SOCKS proxy that refused (RFC 1928 §6), as 5 for "refused". */
  readonly reply?: number;

  /**
   * Makes an error with its code.
   *
   * @param message what was expected and what came
   * @param code which condition failed
   * @param options what else is known
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

/** The caller asked the core for something that its state or the protocol forbids. Nothing changed. */
export class LocalProtocolError extends Error {
  /** "LocalProtocolError". */
  override readonly name = "LocalProtocolError";
}

/** What answers a peer that broke the protocol: a Close frame, or during the handshake a refusal. */
export type ErrorAnswer =
  | { type: "close"; closeCode: number; reason: string }
  | {
    type: "reject";
    status: number;
    statusText: string;
    headers: readonly (readonly [name: string, value: string])[];
    hasBody: boolean;
  };

/** What else a {@linkcode RemoteProtocolError} may carry. */
export interface RemoteProtocolErrorOptions {
  /** The error beneath. */
  cause?: unknown;
  /** The event to answer with, or null. Default: a Close with the code, and the message as its reason */
  event?: ErrorAnswer | null;
}

/** The peer broke the protocol. */
export class RemoteProtocolError extends Error {
  /** "RemoteProtocolError". */
  override readonly name = "RemoteProtocolError";
  /**
   * The close code that the RFC names for this failure: 1002, 1007 or 1009; 1006 when the input ended in
   * the middle of something, and when the opening handshake failed: then `cause` is the
   * {@linkcode HandshakeError}.
   */
  readonly closeCode: number;
  readonly #event: ErrorAnswer | null | undefined;

  /**
   * Makes an error with the close code that answers it.
   *
   * @param message what was expected and what came
   * @param closeCode the code to send
   * @param options what else is known
   */
  constructor(message: string, closeCode: number, options: RemoteProtocolErrorOptions = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.closeCode = closeCode;
    this.#event = options.event;
  }

  /**
   * The event to answer with: a Close with the code, and the message as its reason; a "reject" with the
   * status for a request that is none for a WebSocket; none where nothing can be answered: the input has
   * ended, our Close frame went before, or a server's response is no good.
   */
  get event(): ErrorAnswer | undefined {
    if (this.#event !== undefined || this.closeCode === 1006) return this.#event ?? undefined;
    return { type: "close", closeCode: this.closeCode, reason: truncateReason(this.message) };
  }
}
