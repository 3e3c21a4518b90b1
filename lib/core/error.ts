/** The errors of the library. */
import {
  domError,
  type ErrorCode,
  errorCodeOf,
  type HandshakeErrorCode,
  makeReadable,
  noteCode,
  withCause,
  withCode,
} from "./error_code.ts";
import { defineInterface, toDictionary, toUnsignedShort, toUsvString } from "./webidl.ts";

export * from "./error_code.ts";

type Raise = (
  message: string,
  closeCode: number | null,
  reason: string,
  cause: unknown,
  code: ErrorCode,
) => WebSocketError;

let raise: Raise;

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
  /** The code of an error of a connection. An error that the application made has none. */
  declare readonly errorCode?: ErrorCode;
  #closeCode: number | null = null;
  #reason = "";

  static {
    defineInterface(this, "WebSocketError", ["closeCode", "reason"]);
    raise = (message, closeCode, reason, cause, code) => {
      const error = new WebSocketError(message);
      error.#closeCode = closeCode;
      error.#reason = reason;
      return withCode(withCause(error, cause), code);
    };
  }

  /**
   * Makes an error, for example to abort or cancel a stream.
   * @param message The error message.
   * @param init The close code and reason. A reason without a code has the code 1000.
   * @throws {TypeError} If `init` is not an object, or its code is not a number of 16 bits.
   * @throws {DOMException} If the code is not 1000 or 3000-4999 (InvalidAccessError), or the reason is
   * longer than 123 bytes of UTF-8 (SyntaxError).
   */
  constructor(message: string = "", init?: { closeCode?: number; reason?: string }) {
    super(message, "WebSocketError");
    if (init !== undefined) {
      const { closeCode, reason } = checkWebCloseInfo(init);
      this.#closeCode = closeCode ?? null;
      this.#reason = reason;
    }
    makeReadable(this);
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

/** Makes a WebSocketError with any close code, including reserved codes, or without one. */
export function webSocketError(
  message: string,
  closeCode: number | null,
  reason: string = "",
  cause?: unknown,
  code: ErrorCode = CODES[closeCode ?? 0] ?? "connection-lost",
): WebSocketError {
  return raise(message, closeCode, reason, cause, code);
}

const CODES: { readonly [closeCode: number]: ErrorCode | undefined } = {
  1002: "protocol-violation",
  1007: "invalid-data",
  1008: "flood",
  1009: "too-big",
  1011: "callback-failed",
};

/** Maximum length of a reason, in bytes of UTF-8 (RFC 6455 §5.5). */
export const MAX_REASON_LENGTH = 123;

/** Converts and checks a close code and reason as the WebSocketStream draft says. */
export function checkWebCloseInfo(init: unknown): { closeCode?: number; reason: string } {
  // Web IDL reads and converts the members in alphabetical order.
  const dictionary = toDictionary(init, "close information");
  const given = dictionary.closeCode;
  const closeCode = given === undefined ? undefined : toUnsignedShort(given, "closeCode");
  const { reason = "" } = dictionary;
  const text = toUsvString(reason);
  if (closeCode !== undefined && !isScriptCloseCode(closeCode)) {
    throw domError(
      "InvalidAccessError",
      `Expected closeCode to be 1000 or 3000-4999, received ${closeCode}`,
      "wrong-value",
    );
  }
  const { length } = new TextEncoder().encode(text);
  if (length > MAX_REASON_LENGTH) {
    throw domError(
      "SyntaxError",
      `Expected reason to be at most ${MAX_REASON_LENGTH} bytes of UTF-8, received ${length}`,
      "wrong-value",
    );
  }
  if (closeCode === undefined && text === "") return { reason: "" };
  return { closeCode: closeCode ?? 1000, reason: text };
}

/** Returns whether a script may close with this code (WHATWG WebSockets). */
export function isScriptCloseCode(closeCode: number): boolean {
  return closeCode === 1000 || (closeCode >= 3000 && closeCode <= 4999);
}

/** Cuts a reason to {@linkcode MAX_REASON_LENGTH}, between two characters. */
export function truncateReason(reason: string): string {
  // A TextEncoder stops before the first character that does not fit.
  const { read } = new TextEncoder().encodeInto(reason, new Uint8Array(MAX_REASON_LENGTH));
  return reason.slice(0, read);
}

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
  /** The body, limited to 64 KiB. Of a redirect, it is empty if `maxRedirects` is not 0. */
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
  declare readonly status?: number;
  /** On a client: the response of the server or HTTP proxy that refused. */
  declare readonly response?: RefusedResponse;
  /** On a client: the reply of the SOCKS proxy that refused, such as 5 (RFC 1928 §6). */
  declare readonly reply?: number;

  /**
   * Makes an error.
   * @param message The error message.
   * @param code The condition that failed.
   * @param options The cause, the status and the response.
   */
  constructor(message: string, code: HandshakeErrorCode, options: HandshakeErrorOptions = {}) {
    // Reads only `cause`.
    super(message, options);
    noteCode(this, this.code = code);
    const { status = options.response?.status } = options;
    if (status !== undefined) this.status = status;
    if (options.response !== undefined) this.response = options.response;
    if (options.reply !== undefined) this.reply = options.reply;
  }
}

export function timedOut(openTimeout: number): HandshakeError {
  return new HandshakeError(
    `The opening handshake took longer than openTimeout (${openTimeout} ms)`,
    "timeout",
    { status: 408 },
  );
}

export function refusal(status: number, code: HandshakeErrorCode, message: string): HandshakeError {
  return new HandshakeError(message, code, { status });
}

/** The current state does not allow the call. The call has changed nothing. */
export class LocalProtocolError extends Error {
  /** "LocalProtocolError". */
  override readonly name = "LocalProtocolError";
  /** "wrong-state". */
  readonly code: ErrorCode = "wrong-state";

  /**
   * Makes an error.
   * @param message The error message.
   */
  constructor(message: string) {
    super(message);
    noteCode(this, this.code);
  }
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

/** The peer violated the protocol. */
export class RemoteProtocolError extends Error {
  /** "RemoteProtocolError". */
  override readonly name = "RemoteProtocolError";
  /**
   * The close code: 1002, 1007 or 1009; or 1006 if the input ended too early or the opening
   * handshake failed. If the handshake failed, `cause` is the {@linkcode HandshakeError}.
   */
  readonly closeCode: number;
  /** The rule that the peer violated. If the opening handshake failed, the code of `cause`. */
  readonly code: ErrorCode;
  readonly #event: ErrorAnswer | null | undefined;

  /**
   * Makes an error.
   * @param message The error message.
   * @param closeCode The close code to send.
   * @param options `cause` is the underlying error. `event` is the event to answer with, or null for
   * none. By default, it is a Close frame.
   */
  constructor(
    message: string,
    closeCode: number,
    options: { cause?: unknown; event?: ErrorAnswer | null | undefined } = {},
  ) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.closeCode = closeCode;
    noteCode(this, this.code = errorCodeOf(options.cause) ?? CODES[closeCode] ?? "connection-lost");
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
