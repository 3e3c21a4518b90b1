/// <reference lib="esnext.disposable" preserve="true" />
/**
 * The connection as its users see it; `driver.ts` is what makes it run.
 *
 * @module
 */
import { abortable, handled } from "../abortable.ts";
import { CloseCode, type CloseInfo } from "../core/close.ts";
import { checkCloseInfo } from "./closing.ts";
import type { Agreement } from "../core/handshake.ts";
import { type RawHeaders, serializeExtensions } from "../core/header.ts";
import type { RequestHead, ResponseHead } from "../core/http1.ts";
import { checkControl } from "../core/encoder.ts";
import { checkKnown } from "../core/options.ts";
import { randomPayload } from "../core/mask.ts";
import type { Message } from "../core/message.ts";
import { requestUrl } from "../core/url.ts";
import { Driver, type DriverInit } from "./driver.ts";
import { type ResponseInfo, toRequest, toResponseInfo } from "../http.ts";
import { addressText, makeInspectable, withoutSecrets } from "../inspect.ts";
import type { IncomingMessage } from "./receiver.ts";
import {
  type BufferSource,
  checkSignal,
  type CloseDetails,
  type ConnectionStats,
  type OutgoingMessage,
  SEND_OPTIONS,
  type SendOptions,
} from "../options.ts";
import type { Address } from "../transport.ts";

/** What a connection begins with. Internal. */
export interface ConnectionInit extends DriverInit {
  /** What the handshake agreed on. */
  agreement: Agreement;
  /** The head of the request. */
  request: RequestHead;
  /** The head of the response. */
  response: ResponseHead;
  /** The request, where it was made already. */
  webRequest?: Request;
  /** Whether the transport is encrypted. */
  secure: boolean;
}

/** What to write instead of a listener for an event. */
const INSTEAD: { readonly [event: string]: string | undefined } = {
  open: "a connection is open when you get it",
  message: "write: for await (const message of ws)",
  close: "write: await ws.closed",
  error: "write: ws.closed.catch((error) => ...)",
  ping: "pings are answered; the option `onFrame` sees each frame",
  pong: "write: await ws.ping()",
  drain: "write: await ws.send(message)",
};

const HANDLERS = ["open", "message", "close", "error"];
const METHODS = ["addEventListener", "removeEventListener", "on", "once", "off", "addListener"];

/**
 * Makes members of other WebSockets throw a TypeError: a listener that is never called would be waited for
 * in silence. The members stay out of the types, and no loop over the members finds them.
 */
function refuseForeignMembers(prototype: object): void {
  for (const event of HANDLERS) refuseSetting(prototype, `on${event}`, INSTEAD[event]!);
  refuseSetting(prototype, "binaryType", "binary messages are always Uint8Arrays");
  refuseReading(prototype, "readyState", `ws.state is "open", "closing" or "closed"`);
  for (const name of METHODS) {
    define(prototype, name, {
      value(event: unknown) {
        const instead = typeof event === "string" ? INSTEAD[event] : undefined;
        throw new TypeError(`A connection has no ${name}(): ${instead ?? INSTEAD.message}`);
      },
      writable: true,
    });
  }
}

/** Reading it would give undefined, which equals no state. */
function refuseReading(prototype: object, name: string, instead: string): void {
  define(prototype, name, {
    get() {
      throw new TypeError(`A connection has no ${name}: ${instead}`);
    },
  });
}

function refuseSetting(prototype: object, name: string, instead: string): void {
  define(prototype, name, {
    get: () => undefined,
    set() {
      throw new TypeError(`A connection has no ${name}: ${instead}`);
    },
  });
}

function define(prototype: object, name: string, descriptor: PropertyDescriptor): void {
  Object.defineProperty(prototype, name, { ...descriptor, configurable: true });
}

/** The driver of a connection. Internal. */
export let driverOf: (ws: WebSocketConnection) => Driver;

/**
 * An open WebSocket, of a client or of a server.
 *
 * It is read in one of three ways: message by message, with `receive()` or `for await`; as a stream
 * of messages, with `readable`; as a stream of streams, with `messages()`. All take from one queue;
 * when it is full the transport is not read further, so that the peer has to wait. A connection that is
 * read message by message may go on as a stream when no call waits and each loop was left: `await
 * ws.receive()` for the first message, then `ws.readable`. A stream, once made, stays the way to read.
 *
 * Errors come in order: what was received whole before one is delivered before it.
 *
 * Bytes that are received are the reader's. Each message, and each piece of one, is a `Uint8Array` with
 * a buffer of its own, which may be changed or transferred.
 *
 * @example
 * ```ts
 * import { connect, serve } from "@sluice/sluice";
 *
 * const server = await serve({ hostname: "127.0.0.1", port: 0 }, (ws) => ws.readable.pipeTo(ws.writable));
 *
 * const ws = await connect(server.url!);
 * await ws.send("Hello");
 * console.log(await ws.receive()); // Hello
 * await ws.close();
 * await server.shutdown();
 * ```
 */
export class WebSocketConnection implements AsyncIterable<Message>, AsyncDisposable {
  static {
    driverOf = (ws) => ws.#driver;
    refuseForeignMembers(this.prototype);
    makeInspectable(this.prototype, "WebSocketConnection", (ws) => ws.#state());
  }

  readonly #protocol: string;
  readonly #extensions: string;
  readonly #requestHead: RequestHead;
  readonly #responseHead: ResponseHead;
  readonly #secure: boolean;
  readonly #driver: Driver;
  #request: Request | undefined;
  #response: ResponseInfo | undefined;
  #abort: AbortController | undefined;

  /** Connections come from `connect()`, `serve()` and `accept()`. Internal. */
  constructor(init: ConnectionInit) {
    this.#protocol = init.agreement.protocol;
    this.#extensions = serializeExtensions(init.agreement.extensions);
    this.#requestHead = init.request;
    this.#responseHead = init.response;
    this.#secure = init.secure;
    this.#request = init.webRequest;
    this.#driver = new Driver(init);
  }

  /** The subprotocol agreed on, or an empty string. */
  get protocol(): string {
    return this.#protocol;
  }

  /** The extensions agreed on, as in the header, or an empty string. */
  get extensions(): string {
    return this.#extensions;
  }

  /** The request of the handshake. It is made when first asked for. */
  get request(): Request {
    return this.#request ??= toRequest(this.#requestHead, this.#secure);
  }

  /** The response of the handshake. */
  get response(): ResponseInfo {
    return this.#response ??= toResponseInfo(this.#responseHead);
  }

  /** The header fields of both as they travelled: in order, repeated ones kept. */
  get rawHeaders(): { readonly request: RawHeaders; readonly response: RawHeaders } {
    return { request: this.#requestHead.headers, response: this.#responseHead.headers };
  }

  /** The address of this end, where the transport has one. */
  get localAddress(): Address | undefined {
    return this.#driver.transport.localAddress;
  }

  /** The address of the peer, where the transport has one. */
  get remoteAddress(): Address | undefined {
    return this.#driver.transport.remoteAddress;
  }

  /**
   * "open" until a Close frame was sent or acted on, "closed" when the transport has ended, or the
   * connection has failed: when `closed` has settled.
   */
  get state(): "open" | "closing" | "closed" {
    return this.#driver.closing.state;
  }

  /**
   * Resolves with the peer's code and reason when both Close frames were exchanged, whatever the code,
   * and the transport has ended. Rejects with a {@linkcode WebSocketError} as soon as it is certain that
   * the connection does not end so. It settles before, or in the same turn as, the reads and writes that
   * the end cuts off.
   */
  get closed(): Promise<Required<CloseInfo>> {
    return this.#driver.closing.closed;
  }

  /**
   * Aborts when the connection has ended, for what is done on its behalf: a `fetch()`, a query, a timer.
   * The reason is the error that `closed` rejects with, or after a clean close an InvalidStateError; a
   * handler that rejects with it is not reported to `onError`. Made when first asked for.
   */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      const abort = this.#abort = new AbortController();
      const { closing } = this.#driver;
      closing.whenEnded((error) => abort.abort(error ?? closing.closedError()));
    }
    return this.#abort.signal;
  }

  /** The Close frames that were seen; undefined before the first. */
  get closeInfo(): CloseDetails | undefined {
    return this.#driver.closing.details;
  }

  /** The bytes accepted by `send()` and `writable`, and not yet taken by the transport. */
  get bufferedAmount(): number {
    return this.#driver.sender.bufferedAmount;
  }

  /** How long the last ping took to be answered, in milliseconds. */
  get latency(): number | undefined {
    return this.#driver.latency;
  }

  /** What the connection has done so far. */
  get stats(): ConnectionStats {
    return this.#driver.stats;
  }

  /**
   * The next message.
   *
   * @param options `signal` takes the call back; no message is lost by it
   * @returns a promise that rejects with a {@linkcode WebSocketError} when there are no more, after
   * a clean close too, and with InvalidStateError while another call waits or the connection is read
   * in another way. The promise may be awaited at any time later: a rejection is not an unhandled one
   */
  receive(options?: { signal?: AbortSignal }): Promise<Message> {
    const refused = options === undefined
      ? undefined
      : refusal("receive()", options, SIGNAL_OPTION);
    if (refused !== undefined) return refused;
    return this.#driver.receiver.receive(options);
  }

  /**
   * Iterates over the messages. It ends when the connection was closed with 1000, 1001 or without a
   * code, and throws a {@linkcode WebSocketError} otherwise. Leaving the loop leaves the connection
   * open.
   */
  [Symbol.asyncIterator](): AsyncIterator<Message> {
    return this.#driver.receiver.iterate();
  }

  /**
   * The messages as a stream, made when first asked for. It closes after any clean close, and errors
   * with a {@linkcode WebSocketError} otherwise.
   *
   * Cancelling it closes the connection. A reason that is a WebSocketError is sent, if its code is 1000 or
   * 3000-4999; another error, except an AbortError, is 1011, so that the peer sees what failed in a
   * `pipeTo()` or `pipeThrough()`; anything else is a Close without a code. In a handler that returns a
   * promise, a cancel without a code waits until the promise settles, or somebody asks for `closed`:
   * leaving a loop by an error cancels without a reason, and the connection then closes with 1011. On a
   * `WebSocketStream` only a WebSocketError has a code, as in the standard.
   *
   * The promise of its `pipeTo()` may be ignored: a rejection is not an unhandled one.
   *
   * @throws {DOMException} InvalidStateError when the connection is read in another way
   */
  get readable(): ReadableStream<Message> {
    return this.#driver.receiver.readable;
  }

  /**
   * The messages as a stream of streams, one a message, so that one of any size can be read in bounded
   * memory (set `maxMessageSize` to allow it). Read or cancel each before the next: what is not read
   * counts towards the queue, and when that is full nothing more is received.
   *
   * @throws {DOMException} InvalidStateError when the connection is read in another way
   */
  messages(): ReadableStream<IncomingMessage> {
    return this.#driver.receiver.messages();
  }

  /**
   * Reads without keeping: incoming messages are checked and dropped, pings are answered. For those
   * who only send.
   *
   * @throws {DOMException} InvalidStateError when the connection is read in another way
   */
  discard(): void {
    this.#driver.receiver.discard();
  }

  /**
   * Sends a message. A string is text and a buffer source is binary; an iterable or a stream is one
   * message with a frame for each item, and an asynchronous one ends with an empty frame.
   *
   * Without awaiting, a binary message of 8192 bytes or more must not be changed until the promise has
   * settled.
   *
   * @returns a promise that resolves when the message, and all before it, takes up at most 64 KiB of
   * waiting bytes, or else when the transport has taken it. It rejects with InvalidStateError when
   * the connection is closing or closed, or is ended by this call (`slow`), TypeError for what cannot be sent, RangeError for bytes
   * that are not UTF-8 and should be text
   */
  send(message: OutgoingMessage, options?: SendOptions): Promise<void> {
    const refused = options === undefined ? undefined : refusal("send()", options, SEND_OPTIONS);
    if (refused !== undefined) return refused;
    return this.#driver.sender.send(message, options ?? undefined);
  }

  /**
   * Messages written to it are sent; bytes are copied at the write, other chunks than strings and
   * buffer sources are converted to strings. A write resolves as `send()` does. Closing it closes the
   * connection without a code, and waits for the closing handshake. As with any stream, that begins after
   * the writes before it, which wait for a peer that does not read: abort the stream to give up. Aborting
   * it closes the connection as cancelling `readable` does. Writes that the end of the connection cuts off
   * reject when `closed` has settled, not before. Made when first asked for.
   */
  get writable(): WritableStream<Message | BufferSource> {
    return this.#driver.sender.writable;
  }

  /**
   * Sends a ping (RFC 6455 §5.5.2).
   *
   * @param payload at most 125 bytes. Default: four random bytes
   * @param options `signal` stops waiting for the pong
   * @returns a promise of the time until the pong, in milliseconds. It rejects with InvalidStateError
   * when the connection is closing or closed, or a ping with this payload waits already; with a
   * {@linkcode WebSocketError} when it closes before the pong; with RangeError for a longer payload
   */
  ping(payload?: Uint8Array | string, options: { signal?: AbortSignal } = {}): Promise<number> {
    const refused = options === undefined ? undefined : refusal("ping()", options, SIGNAL_OPTION);
    if (refused !== undefined) return refused;
    const signal = options?.signal;
    try {
      signal?.throwIfAborted();
      const bytes = controlPayload(payload === undefined ? randomPayload() : payload);
      const latency = this.#driver.ping(bytes);
      return signal === undefined ? latency : handled(abortable(latency, signal));
    } catch (error) {
      return handled(Promise.reject(error));
    }
  }

  /**
   * Sends a pong that nobody asked for (RFC 6455 §5.5.3). Pings are answered without it.
   *
   * @param payload at most 125 bytes. Default: none
   */
  pong(payload: Uint8Array | string = ""): Promise<void> {
    try {
      return this.#driver.sender.control({ type: "pong", payload: controlPayload(payload) });
    } catch (error) {
      return handled(Promise.reject(error));
    }
  }

  /**
   * Closes the connection: sends a Close frame after all messages that were at hand, and waits until the
   * peer has answered it and the transport has ended, at most for `closeTimeout`. Further calls change
   * nothing.
   *
   * A message that is sent as an iterable or a stream is not at hand. If it has begun, it is cut short;
   * if it has not, it is refused, and so are the messages that wait after it: each `send()` rejects with
   * InvalidStateError. Await those before you close.
   *
   * Messages that the peer sends before its own Close can still be read. They are not waited for: if the
   * queue is full when one comes, that message and all that come after it are dropped, so that there is no
   * gap in those that are read.
   *
   * @param info The code and reason. A reason alone goes with 1000; nothing, or 1005, means no code, so
   * that what `closed` of another connection gave can be passed on
   * @returns a promise of the peer's code and reason, or 1006 where none came; it never rejects
   * @throws {TypeError} for a code or reason of the wrong type
   * @throws {RangeError} for a code that must not be sent, or a reason over 123 bytes of UTF-8
   */
  close(info: CloseInfo = {}): Promise<Required<CloseInfo>> {
    const { closing } = this.#driver;
    closing.startClose(checkCloseInfo(info));
    return new Promise((resolve) => closing.whenEnded(() => resolve(closing.received)));
  }

  /** Ends the transport at once, without a closing handshake. `closed` rejects with 1006. */
  terminate(): void {
    this.#driver.closing.terminate();
  }

  /** Closes with 1000 and waits for it, so that `await using` may hold a connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close({ closeCode: CloseCode.Normal });
  }

  /** What `console.log()` prints. */
  #state(): object {
    const { state, protocol, extensions, bufferedAmount, closeInfo, stats: { queued, paused } } =
      this;
    return {
      url: withoutSecrets(requestUrl(this.#requestHead, this.#secure)).replace(/^http/, "ws"),
      role: this.#driver.machine.role,
      ...{ state, protocol, extensions },
      localAddress: addressText(this.localAddress),
      remoteAddress: addressText(this.remoteAddress),
      ...{ queued, paused, bufferedAmount, closeInfo },
    };
  }

  /** Whether an error that a reader or writer got says no more than that this connection has ended. */
  isOwnError(error: unknown): boolean {
    return this.#driver.closing.isOwnError(error);
  }
}

const SIGNAL_OPTION = { signal: checkSignal };

/** Rejects for an option that does not exist or has the wrong type. Null counts as no options. */
function refusal(owner: string, options: unknown, names: object): Promise<never> | undefined {
  if (options === null) return undefined;
  try {
    checkKnown(owner, options, names);
  } catch (error) {
    return handled(Promise.reject(error));
  }
}

function controlPayload(payload: Uint8Array | string): Uint8Array {
  if (typeof payload === "string") return checkControl(new TextEncoder().encode(payload));
  // A subclass may have a slice() that does not copy, as Buffer has.
  if (payload instanceof Uint8Array) return new Uint8Array(checkControl(payload));
  throw new TypeError(`Expected a payload of bytes or text, received ${typeof payload}`);
}
