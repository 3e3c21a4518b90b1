/** The class WebSocketStream of the standard's draft, over any kind of connection. */
import { makeInspectable, withoutSecrets } from "../inspect.ts";
import { handled, onAbort } from "../abortable.ts";
import { CloseCode, type CloseInfo } from "../core/close.ts";
import {
  checkWebCloseInfo,
  domError,
  errorCodeOf,
  HandshakeError,
  webSocketError,
  wrongType,
} from "../core/error.ts";
import type { Message } from "../core/message.ts";
import { parseWebSocketUrl } from "../core/url.ts";
import { defineInterface, toDictionary, toStrings, toUsvString } from "../core/webidl.ts";
import { type BufferSource, checkProtocols } from "../options.ts";

/** Options of the standard's WebSocketStream. */
export interface WebSocketStreamOptions {
  /** Subprotocols, the preferred one first. */
  protocols?: Iterable<string> | undefined;
  /** Ends the opening handshake when aborted. The signal has no effect afterwards. */
  signal?: AbortSignal | undefined;
}

/** The result of `opened` of a {@linkcode StandardWebSocketStream}. */
export interface StandardOpenInfo {
  /** The messages received. */
  readonly readable: ReadableStream<Message>;
  /** The messages to send. */
  readonly writable: WritableStream<Message | BufferSource>;
  /** The negotiated extensions, as in the header, or an empty string. */
  readonly extensions: string;
  /** The negotiated subprotocol, or an empty string. */
  readonly protocol: string;
}

/** A WebSocket as two streams, as in WHATWG's draft. */
export interface StandardWebSocketStream<OpenInfo = StandardOpenInfo> {
  /** The serialised URL. */
  readonly url: string;
  /**
   * Resolves when the connection is open. Rejects with a WebSocketError that has a `cause` and no close
   * code, or with the reason of `signal`.
   */
  readonly opened: Promise<OpenInfo>;
  /**
   * Resolves with the peer's code and reason after a clean close. Otherwise rejects with a WebSocketError,
   * with 1006 if the connection was never open, or with the reason of `signal`.
   */
  readonly closed: Promise<Required<CloseInfo>>;
  /**
   * Closes the connection, or aborts the handshake.
   * @param info The code, 1000 or 3000-4999, and the reason. A reason without a code has the code 1000.
   * @throws {TypeError} If the argument is not an object.
   * @throws {DOMException} InvalidAccessError If the code is not allowed; SyntaxError if the reason is longer
   * than 123 bytes of UTF-8.
   */
  close(info?: CloseInfo): void;
}

/** The class of a {@linkcode StandardWebSocketStream}. */
export interface WebSocketStreamConstructor<
  Options = WebSocketStreamOptions,
  OpenInfo = StandardOpenInfo,
> {
  /** The prototype of all instances. */
  readonly prototype: StandardWebSocketStream<OpenInfo>;
  /**
   * Starts to connect.
   * @param url A ws or wss URL. The schemes http and https stand for ws and wss.
   * @throws {TypeError} If there is no URL, or an option has the wrong type.
   * @throws {DOMException} SyntaxError If the URL is invalid, or a subprotocol is not a token or occurs
   * twice.
   */
  new (url: string | URL, options?: Options): StandardWebSocketStream<OpenInfo>;
}

/** What a WebSocketStream consists of when it is open. */
export interface OpenStream {
  readonly closed: Promise<Required<CloseInfo>>;
  close(info: CloseInfo): void;
  terminate(): void;
}

/** How a WebSocketStream class creates its connections. */
export interface StreamMaker<Stream extends OpenStream, OpenInfo> {
  /** Returns the base of relative URLs. Without a base, relative URLs are invalid. */
  base?(): string | undefined;
  /** Checks the options that are not in the standard. */
  check(options: object): void;
  connect(url: string, options: { protocols?: string[]; signal: AbortSignal }): Promise<Stream>;
  /** Makes the result of `opened`. */
  describe(stream: Stream): OpenInfo;
}

export function webSocketStreamClass<Options, Stream extends OpenStream, OpenInfo>(
  { base, check, connect, describe }: StreamMaker<Stream, OpenInfo>,
): WebSocketStreamConstructor<Options, OpenInfo> {
  class WebSocketStream {
    readonly #url: string;
    readonly #opened: Promise<OpenInfo>;
    readonly #closed: Promise<Required<CloseInfo>>;
    readonly #handshake = new AbortController();
    #connection: Stream | undefined;

    static {
      defineInterface(this, "WebSocketStream", ["url", "opened", "closed", "close"]);
      makeInspectable(this.prototype, "WebSocketStream", (stream) => ({
        url: withoutSecrets(new URL(stream.#url)),
        connection: stream.#connection,
      }));
    }

    constructor(url: string | URL, options: unknown = {}) {
      if (arguments.length === 0) throw wrongType("Expected a URL, received nothing");
      // Web IDL converts all arguments before it uses one of them.
      const text = toUsvString(url);
      const { signal, ...others } = convert(options);
      this.#url = parseWebSocketUrl(text, base?.()).href;
      if (others.protocols !== undefined) checkProtocols("protocols", others.protocols);
      check(others);
      const connection = this.#connect(others, signal);
      this.#opened = handled(connection.then(describe, rejecting(null)));
      this.#closed = handled(connection.then((ws) => ws.closed, rejecting(CloseCode.Abnormal)));
    }

    async #connect(options: object, signal?: AbortSignal): Promise<Stream> {
      const { signal: own } = this.#handshake;
      const stopWatching = onAbort(signal, (reason) => this.#handshake.abort(reason));
      try {
        signal?.throwIfAborted();
        const connection = await connect(this.#url, { ...options, signal: own });
        if (own.aborted) {
          // The handshake was aborted in the turn in which it completed.
          connection.terminate();
          throw own.reason;
        }
        return this.#connection = connection;
      } catch (error) {
        // The signal has priority over a close() in the same turn.
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
        // Web IDL: a getter of a promise does not throw, but returns a rejected promise.
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
      else handshake.abort(domError("AbortError", "The stream was closed", "terminated"));
    }
  }
  return WebSocketStream;
}

/** The reason why a handshake failed. Each promise rejects with its own error. */
class Failure {
  readonly cause: unknown;

  constructor(cause: unknown) {
    this.cause = cause;
  }
}

function rejecting(closeCode: number | null): (reason: unknown) => never {
  return (reason) => {
    if (!(reason instanceof Failure)) throw reason;
    const { cause } = reason;
    const message = cause instanceof HandshakeError ? cause.message : "The handshake failed";
    throw webSocketError(message, closeCode, "", cause, errorCodeOf(cause));
  };
}

/** Converts the dictionary WebSocketStreamOptions as Web IDL says, and keeps other members. */
function convert(
  options: unknown,
): Record<string, unknown> & { protocols?: string[]; signal?: AbortSignal } {
  const dictionary = toDictionary(options, "options");
  const { protocols: given } = dictionary;
  const protocols = given === undefined ? undefined : toStrings(given, "protocols");
  const { signal } = dictionary;
  if (signal !== undefined && !isSignal(signal)) {
    throw wrongType("Expected signal to be an AbortSignal");
  }
  const converted: Record<string, unknown> = {};
  for (const name in dictionary) {
    if (name === "protocols" || name === "signal") continue;
    const value = dictionary[name];
    // Web IDL: a member that is undefined does not exist.
    if (value !== undefined) converted[name] = value;
  }
  return { ...converted, protocols, signal };
}

/** Whether a value is an AbortSignal, and not only has its prototype. */
function isSignal(value: unknown): value is AbortSignal {
  try {
    Object.getOwnPropertyDescriptor(AbortSignal.prototype, "aborted")!.get!.call(value);
    return true;
  } catch {
    return false;
  }
}
