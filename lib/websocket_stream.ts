/**
 * The client in the shape of the standard's draft.
 *
 * @module
 */
import {
  checkProtocols,
  connect,
  type ConnectOptions,
  type InternalConnectOptions,
} from "./client.ts";
import type { WebSocketConnection } from "./connection.ts";
import type { CloseInfo } from "./core/close.ts";
import { checkWebCloseInfo, HandshakeError, webSocketError } from "./core/error.ts";
import type { Message } from "./core/message.ts";
import { parseWebSocketUrl } from "./core/url.ts";
import type { BufferSource } from "./options.ts";
import { handled } from "./outbox.ts";

/** What `opened` of a {@linkcode WebSocketStream} resolves with. */
export interface WebSocketOpenInfo {
  /** The messages that come. */
  readonly readable: ReadableStream<Message>;
  /** The messages to send. */
  readonly writable: WritableStream<Message | BufferSource>;
  /** The extensions agreed on, as in the header, or an empty string. */
  readonly extensions: string;
  /** The subprotocol agreed on, or an empty string. */
  readonly protocol: string;
  /** The connection beneath, with all that the standard has not: pings, statistics, addresses. */
  readonly connection: WebSocketConnection;
}

/**
 * A WebSocket as two streams, as WHATWG's draft has it. Its defaults are a browser's: no limit on the
 * size of messages and no keepalive.
 *
 * @example
 * ```ts
 * import { serve, WebSocketStream } from "@sluice/sluice";
 *
 * const server = await serve({ port: 0 }, (ws) => ws.readable.pipeTo(ws.writable));
 * if (server.address.transport !== "tcp") throw new Error("not TCP");
 *
 * const stream = new WebSocketStream(`ws://127.0.0.1:${server.address.port}`);
 * const { readable, writable } = await stream.opened;
 * const writer = writable.getWriter();
 * await writer.write("Hello");
 * console.log((await readable.getReader().read()).value); // Hello
 * stream.close({ closeCode: 1000 });
 * await stream.closed;
 * await server.shutdown();
 * ```
 */
export class WebSocketStream {
  readonly #url: string;
  readonly #opened: Promise<WebSocketOpenInfo>;
  readonly #closed: Promise<Required<CloseInfo>>;
  readonly #handshake = new AbortController();
  #connection: WebSocketConnection | undefined;

  /**
   * Begins to connect.
   *
   * @param url a ws or wss URL; http and https are taken as these
   * @param options the standard's `protocols` and `signal`, and those of `connect()`
   * @throws {TypeError} without a URL, or for options of the wrong type
   * @throws {DOMException} SyntaxError for an invalid URL, or a subprotocol that is no token or stands
   * twice
   */
  constructor(url: string | URL, options: ConnectOptions = {}) {
    if (arguments.length === 0) throw new TypeError("Expected a URL, received nothing");
    const dictionary = checkOptions(options);
    const target = parseWebSocketUrl(url);
    checkProtocols(dictionary.protocols);
    this.#url = target.href;
    const connection = this.#connect(dictionary);
    this.#opened = handled(connection.then((ws) => ({
      readable: ws.readable,
      writable: ws.writable,
      extensions: ws.extensions,
      protocol: ws.protocol,
      connection: ws,
    })));
    this.#closed = handled(connection.then((ws) => ws.closed));
  }

  async #connect(options: ConnectOptions): Promise<WebSocketConnection> {
    const { signal } = options;
    const abort = () => this.#handshake.abort(signal!.reason);
    try {
      signal?.throwIfAborted();
      signal?.addEventListener("abort", abort, { once: true });
      const internal: InternalConnectOptions = {
        maxMessageSize: Infinity,
        pingInterval: 0,
        pingTimeout: 0,
        ...options,
        signal: this.#handshake.signal,
        requireProtocol: true,
      };
      return this.#connection = await connect(this.#url, internal);
    } catch (error) {
      if (signal?.aborted && error === signal.reason) throw error;
      const message = error instanceof HandshakeError ? error.message : "The handshake failed";
      throw webSocketError(message, 1006, "", error);
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** The URL, serialised. */
  get url(): string {
    return this.#url;
  }

  /** Resolves when the connection is open; rejects with a WebSocketError whose `cause` tells why. */
  get opened(): Promise<WebSocketOpenInfo> {
    return this.#opened;
  }

  /**
   * Resolves with the peer's code and reason after a clean close; rejects with a WebSocketError
   * otherwise, and when the connection was never open.
   */
  get closed(): Promise<Required<CloseInfo>> {
    return this.#closed;
  }

  /**
   * Closes the connection, or gives up the handshake.
   *
   * @param info the code, 1000 or 3000-4999, and reason; a reason alone goes with 1000; nothing: no
   * code
   * @throws {TypeError} when the argument is no object
   * @throws {DOMException} InvalidAccessError for another code, SyntaxError for a reason of over 123
   * bytes of UTF-8
   */
  close(info: CloseInfo = {}): void {
    const checked = checkWebCloseInfo(info);
    if (this.#connection !== undefined) this.#connection.close(checked);
    else this.#handshake.abort(new DOMException("The stream was closed", "AbortError"));
  }
}

/** Web IDL's conversion of the dictionary WebSocketStreamOptions. */
function checkOptions(options: ConnectOptions): ConnectOptions {
  if (options === null || options === undefined) return {};
  if (typeof options !== "object" && typeof options !== "function") {
    throw new TypeError(`Expected options as an object, received ${typeof options}`);
  }
  const { protocols, signal } = options as { protocols?: unknown; signal?: unknown };
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new TypeError("Expected signal to be an AbortSignal");
  }
  if (protocols === undefined) return options;
  const iterable = typeof protocols === "object" && protocols !== null &&
    Symbol.iterator in protocols;
  if (!iterable) throw new TypeError("Expected protocols to be a sequence of strings");
  return { ...options, protocols: Array.from(protocols as Iterable<unknown>, String) };
}
