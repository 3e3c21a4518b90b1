/**
 * The interface of the standard's draft over a connection, however that is made.
 *
 * A file of its own because the client and the browser make it in different ways, and a bundle for
 * browsers must not hold the client.
 *
 * @module
 */
import { handled, onAbort } from "../abortable.ts";
import { driverOf, type WebSocketConnection } from "../connection/connection.ts";
import { CloseCode, type CloseInfo } from "../core/close.ts";
import { checkWebCloseInfo, HandshakeError, webSocketError } from "../core/error.ts";
import type { Message } from "../core/message.ts";
import { parseWebSocketUrl } from "../core/url.ts";
import { defineInterface, toDictionary, toStrings, toUsvString } from "../core/webidl.ts";
import { type BufferSource, checkProtocols } from "../options.ts";

/** The options of the standard. */
export interface WebSocketStreamOptions {
  /** The subprotocols, the preferred one first. Default: none */
  protocols?: Iterable<string>;
  /** Ends the opening handshake when aborted; without effect afterwards. Default: none */
  signal?: AbortSignal;
}

/** What `opened` of a {@linkcode StandardWebSocketStream} resolves with. */
export interface StandardOpenInfo {
  /** The messages that come. */
  readonly readable: ReadableStream<Message>;
  /** The messages to send. */
  readonly writable: WritableStream<Message | BufferSource>;
  /** The extensions agreed on, as in the header, or an empty string. */
  readonly extensions: string;
  /** The subprotocol agreed on, or an empty string. */
  readonly protocol: string;
}

/** A WebSocket as two streams, as WHATWG's draft has it. */
export interface StandardWebSocketStream<OpenInfo = StandardOpenInfo> {
  /** The URL, serialised. */
  readonly url: string;
  /**
   * Resolves when the connection is open. Rejects with a WebSocketError without a close code, whose
   * `cause` tells why, or with the reason of `signal`.
   */
  readonly opened: Promise<OpenInfo>;
  /**
   * Resolves with the peer's code and reason after a clean close. Rejects with a WebSocketError
   * otherwise: with 1006 if the connection was never open, or with the reason of `signal`.
   */
  readonly closed: Promise<Required<CloseInfo>>;
  /**
   * Closes the connection, or gives up the handshake.
   *
   * @param info the code, 1000 or 3000-4999, and reason; a reason alone goes with 1000; nothing: no
   * code
   * @throws {TypeError} when the argument is no object
   * @throws {DOMException} InvalidAccessError for another code, SyntaxError for a reason of over 123
   * bytes of UTF-8
   */
  close(info?: CloseInfo): void;
}

/** The class of a {@linkcode StandardWebSocketStream}. */
export interface WebSocketStreamConstructor<
  Options = WebSocketStreamOptions,
  OpenInfo = StandardOpenInfo,
> {
  /** What all of them have in common. */
  readonly prototype: StandardWebSocketStream<OpenInfo>;
  /**
   * Begins to connect.
   *
   * @param url a ws or wss URL; http and https are taken as these
   * @throws {TypeError} without a URL, or for options of the wrong type
   * @throws {DOMException} SyntaxError for an invalid URL, or a subprotocol that is no token or stands
   * twice
   */
  new (url: string | URL, options?: Options): StandardWebSocketStream<OpenInfo>;
}

/** How the connections of a class of streams are made. */
export interface StreamMaker<OpenInfo> {
  /** What relative URLs are resolved against. Default: nothing, they are invalid */
  base?(): string | undefined;
  /** Checks the options that the standard has not. */
  check(options: object): void;
  /** Connects. */
  connect(
    url: string,
    options: { protocols?: string[]; signal: AbortSignal },
  ): Promise<WebSocketConnection>;
  /** What to say of the open connection. */
  describe(connection: WebSocketConnection): OpenInfo;
}

/** Makes a class of streams. */
export function webSocketStreamClass<Options, OpenInfo>(
  { base, check, connect, describe }: StreamMaker<OpenInfo>,
): WebSocketStreamConstructor<Options, OpenInfo> {
  class WebSocketStream {
    readonly #url: string;
    readonly #opened: Promise<OpenInfo>;
    readonly #closed: Promise<Required<CloseInfo>>;
    readonly #handshake = new AbortController();
    #connection: WebSocketConnection | undefined;

    static {
      defineInterface(this, "WebSocketStream", ["url", "opened", "closed", "close"]);
    }

    constructor(url: string | URL, options: unknown = {}) {
      if (arguments.length === 0) throw new TypeError("Expected a URL, received nothing");
      // Web IDL converts all arguments before anything is done with one of them.
      const text = toUsvString(url);
      const { signal, ...others } = convert(options);
      this.#url = parseWebSocketUrl(text, base?.()).href;
      if (others.protocols !== undefined) checkProtocols("protocols", others.protocols);
      check(others);
      const connection = this.#connect(others, signal);
      this.#opened = handled(connection.then(describe, rejecting(null)));
      this.#closed = handled(connection.then((ws) => ws.closed, rejecting(CloseCode.Abnormal)));
    }

    async #connect(options: object, signal?: AbortSignal): Promise<WebSocketConnection> {
      const { signal: own } = this.#handshake;
      const stopWatching = onAbort(signal, (reason) => this.#handshake.abort(reason));
      try {
        signal?.throwIfAborted();
        const connection = await connect(this.#url, { ...options, signal: own });
        if (own.aborted) {
          // Given up in the turn in which the handshake was through.
          connection.terminate();
          throw own.reason;
        }
        driverOf(connection).closing.leaveRule = "standard";
        return this.#connection = connection;
      } catch (error) {
        // Also where close() was called just before, in the same turn.
        if (signal?.aborted) throw signal.reason;
        throw new Failure(error);
      } finally {
        stopWatching();
      }
    }

    get url(): string {
      return this.#url;
    }

    get opened(): Promise<OpenInfo> {
      try {
        return this.#opened;
      } catch (error) {
        // Web IDL: what gives a promise rejects it where others throw.
        return Promise.reject(error);
      }
    }

    get closed(): Promise<Required<CloseInfo>> {
      try {
        return this.#closed;
      } catch (error) {
        return Promise.reject(error);
      }
    }

    close(info: CloseInfo = {}): void {
      const handshake = this.#handshake;
      const checked = checkWebCloseInfo(info);
      if (this.#connection !== undefined) this.#connection.close(checked);
      else handshake.abort(new DOMException("The stream was closed", "AbortError"));
    }
  }
  return WebSocketStream;
}

/** Why a handshake has failed: each promise rejects with an error of its own. */
class Failure {
  readonly cause: unknown;

  constructor(cause: unknown) {
    this.cause = cause;
  }
}

/** @param closeCode the code of the error: a connection that was never open has none */
function rejecting(closeCode: number | null): (reason: unknown) => never {
  return (reason) => {
    if (!(reason instanceof Failure)) throw reason;
    const { cause } = reason;
    const message = cause instanceof HandshakeError ? cause.message : "The handshake failed";
    throw webSocketError(message, closeCode, "", cause);
  };
}

const abortedOf = Object.getOwnPropertyDescriptor(AbortSignal.prototype, "aborted")!.get!;

/** Web IDL's conversion of the dictionary WebSocketStreamOptions; what else there is goes along. */
function convert(
  options: unknown,
): Record<string, unknown> & { protocols?: string[]; signal?: AbortSignal } {
  const dictionary = toDictionary(options, "options");
  const { protocols: given } = dictionary;
  const protocols = given === undefined ? undefined : toStrings(given, "protocols");
  const { signal } = dictionary;
  if (signal !== undefined && !isSignal(signal)) {
    throw new TypeError("Expected signal to be an AbortSignal");
  }
  const converted: Record<string, unknown> = {};
  for (const name in dictionary) {
    if (name === "protocols" || name === "signal") continue;
    const value = dictionary[name];
    // Web IDL: a member that is undefined is none, and leaves the default.
    if (value !== undefined) converted[name] = value;
  }
  return { ...converted, protocols, signal };
}

/** Whether it is one, and not in name only. */
function isSignal(value: unknown): value is AbortSignal {
  try {
    abortedOf.call(value);
    return true;
  } catch {
    return false;
  }
}
