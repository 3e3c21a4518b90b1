/// <reference lib="esnext.disposable" preserve="true" />
/** The connection that applications use. `driver.ts` runs it. */
import { wrongType } from "../core/error.ts";
import { abortable, handled } from "../abortable.ts";
import { CloseCode, type CloseInfo } from "../core/close.ts";
import { checkCloseInfo } from "./closing.ts";
import { type Agreement, upgradeResponseTo } from "../core/handshake.ts";
import { type RawHeaders, serializeExtensions } from "../core/header.ts";
import { type RequestHead, requestOf, type ResponseHead, responseOf } from "../core/http1.ts";
import { checkControl } from "../core/frame_writer.ts";
import { checkKnown } from "../core/option_hints.ts";
import { randomPayload } from "../core/mask.ts";
import type { Message } from "../core/message.ts";
import { requestUrl } from "../core/url.ts";
import {
  addressText,
  type ConnectionListener,
  diagnostics,
  makeInspectable,
  withoutSecrets,
} from "../inspect.ts";
import { Driver, type DriverInit } from "./driver.ts";
import { type ResponseInfo, toRequest, toResponseInfo } from "../http.ts";
import type { IncomingMessage } from "./receiver.ts";
import { defineSending } from "./sending.ts";
import {
  type BufferSource,
  type CloseDetails,
  type ConnectionStats,
  type OutgoingMessage,
  SEND_OPTIONS,
  type SendOptions,
} from "../options.ts";
import { checkSignal } from "../core/options.ts";
import type { Address } from "../transport.ts";

/** What a connection begins with. Internal. */
export interface ConnectionInit extends DriverInit {
  agreement: Agreement;
  request: RequestHead;
  response: ResponseHead;
  /** The heads as text. Of a response that follows from the request, the added header fields. */
  texts: { request: string; response: string | RawHeaders };
  /** The request, if it was made already. */
  webRequest?: Request;
  secure: boolean;
}

const INSTEAD: { readonly [event: string]: string | undefined } = {
  open: "a connection is open when you get it",
  message: "write: for await (const message of ws)",
  close: "write: await ws.closed",
  error: "write: ws.closed.catch((error) => ...)",
  ping: "pings are answered; the option `onFrame` sees each frame",
  pong: "write: await ws.ping()",
  drain: "write: await ws.send(message)",
};

const NO_MEMBER = { code: "no-such-member" } as const;
const HANDLERS = ["open", "message", "close", "error"];
const METHODS = ["addEventListener", "removeEventListener", "on", "once", "off", "addListener"];

/**
 * Makes members of other WebSocket APIs throw a TypeError, because their handlers would never be called.
 * The members are not in the types and not enumerable.
 */
function refuseForeignMembers(prototype: object): void {
  const refuse = (name: string, instead?: string): never => {
    throw wrongType(`A connection has no ${name}: ${instead}`, NO_MEMBER);
  };
  const refuseSetting = (name: string, instead?: string) =>
    define(name, { get: () => undefined, set: () => refuse(name, instead) });
  const define = (name: string, descriptor: PropertyDescriptor) =>
    Object.defineProperty(prototype, name, { ...descriptor, configurable: true });
  for (const event of HANDLERS) refuseSetting(`on${event}`, INSTEAD[event]);
  refuseSetting("binaryType", "binary messages are always Uint8Arrays");
  const states = `ws.state is "open", "closing" or "closed"`;
  // Reading the member would give undefined, which is different from every state.
  define("readyState", { get: () => refuse("readyState", states) });
  for (const name of METHODS) {
    const value = (event: unknown) =>
      refuse(`${name}()`, INSTEAD[typeof event === "string" ? event : ""] ?? INSTEAD.message);
    define(name, { value, writable: true });
  }
}

/** Returns the driver of a connection. Internal. */
export let driverOf: (ws: WebSocketConnection) => Driver;

/**
 * An open WebSocket, of a client or of a server.
 *
 * A connection can be read in one of three ways: by messages, with `receive()`, `for await` or
 * `batches()`; as a stream of messages, with `readable`; as a stream of streams, with `messages()`. All of
 * them take from one queue. When the queue is full, the transport is not read, so that the peer has to
 * wait.
 *
 * Errors come in order: messages that were received completely before an error are delivered before it.
 *
 * The reader owns the received bytes. Each message, and each piece of a message, is a `Uint8Array` with a
 * buffer of its own, which may be changed or transferred.
 *
 * @example
 * ```ts
 * import { connect, serve } from "sluice";
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
    defineSending(this.prototype, (ws) => ws.#driver.sender);
    refuseForeignMembers(this.prototype);
    makeInspectable(this.prototype, "WebSocketConnection", (ws) => ws.#state());
  }

  readonly #agreement: Agreement;
  /** The head as text. As an object, it would take several times the memory. */
  readonly #requestText: string;
  /** The head as text, or what was added to the response that follows from the request. */
  readonly #answer: string | RawHeaders;
  readonly #secure: boolean;
  readonly #driver: Driver;
  #request: Request | undefined;
  #response: ResponseInfo | undefined;
  #abort: AbortController | undefined;

  /** Connections come from `connect()`, `serve()` and `accept()`. Internal. */
  constructor(init: ConnectionInit) {
    this.#agreement = init.agreement;
    this.#requestText = init.texts.request;
    this.#answer = init.texts.response;
    this.#secure = init.secure;
    this.#request = init.webRequest;
    const listener = diagnostics?.listen(init);
    this.#driver = new Driver(listener === undefined ? init : { ...init, listener });
    if (listener !== undefined) this.#tell(listener);
  }

  /** The negotiated subprotocol, or an empty string. */
  get protocol(): string {
    return this.#agreement.protocol;
  }

  /** The negotiated extensions, as in the header, or an empty string. */
  get extensions(): string {
    return serializeExtensions(this.#agreement.extensions);
  }

  /** The request of the handshake. It is created on first access. */
  get request(): Request {
    return this.#request ??= toRequest(requestOf(this.#requestText), this.#secure);
  }

  /** The response of the handshake. */
  get response(): ResponseInfo {
    return this.#response ??= toResponseInfo(this.#responseHead());
  }

  #responseHead(): ResponseHead {
    const answer = this.#answer;
    if (typeof answer === "string") return responseOf(answer);
    return upgradeResponseTo(requestOf(this.#requestText), { ...this.#agreement, headers: answer });
  }

  /** The header fields of the request and the response, in order and with repeated fields. */
  get rawHeaders(): { readonly request: RawHeaders; readonly response: RawHeaders } {
    const { headers: request } = requestOf(this.#requestText);
    // Other responses share the fields, which a program may change in place, such as to hide a secret.
    const response = this.#responseHead().headers.map(([name, value]) => [name, value] as const);
    return { request, response };
  }

  /** The address of this end, if the transport has one. */
  get localAddress(): Address | undefined {
    return this.#driver.transport.localAddress;
  }

  /** The address of the peer, if the transport has one. */
  get remoteAddress(): Address | undefined {
    return this.#driver.transport.remoteAddress;
  }

  /** "open" until a Close frame was sent or processed; "closed" when `closed` has settled. */
  get state(): "open" | "closing" | "closed" {
    return this.#driver.closing.state;
  }

  /**
   * Resolves with the peer's code and reason when both Close frames were exchanged and the transport has
   * ended, whatever the code. Rejects with a {@linkcode WebSocketError} as soon as a clean close is no
   * longer possible. `closed` settles before the reads and writes that the end interrupts, or in the same
   * turn.
   */
  get closed(): Promise<Required<CloseInfo>> {
    return this.#driver.closing.closed;
  }

  /**
   * Aborts when the connection has ended. Pass the signal to work that is done for the connection, such
   * as a `fetch()`, a query or a timer. The reason is the error that `closed` rejects with, or an
   * InvalidStateError after a clean close. If a handler rejects with the reason, `onError` is not called.
   */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      const abort = this.#abort = new AbortController();
      const { closing } = this.#driver;
      closing.whenEnded((error) => abort.abort(error ?? closing.closedError()));
    }
    return this.#abort.signal;
  }

  /** The Close frames that were sent and received. Undefined before the first one. */
  get closeInfo(): CloseDetails | undefined {
    return this.#driver.closing.details;
  }

  /** Number of bytes that `send()` and `writable` have accepted and the transport has not taken yet. */
  get bufferedAmount(): number {
    return this.#driver.sender.bufferedAmount;
  }

  /** Time between the last answered ping and its pong, in milliseconds. */
  get latency(): number | undefined {
    return this.#driver.latency;
  }

  /** What the connection has done so far. */
  get stats(): ConnectionStats {
    return this.#driver.stats;
  }

  /**
   * Receives the next message.
   * @param options `signal` cancels the call. No message is lost.
   * @returns A promise of the message. It rejects with a {@linkcode WebSocketError} if there are no more
   * messages, also after a clean close, and with InvalidStateError if another call is waiting or the
   * connection is read in another way. The promise may be awaited later: its rejection never counts as
   * unhandled.
   */
  receive(options?: { signal?: AbortSignal | undefined }): Promise<Message> {
    const refused = options === undefined
      ? undefined
      : refusal("receive()", options, SIGNAL_OPTION);
    if (refused !== undefined) return refused;
    return this.#driver.receiver.receive(options);
  }

  /**
   * Iterates over the messages. The iteration ends if the connection was closed with 1000, 1001 or
   * without a code; otherwise it throws a {@linkcode WebSocketError}. Leaving the loop leaves the
   * connection open.
   */
  [Symbol.asyncIterator](): AsyncIterator<Message> {
    return this.#driver.receiver.iterate();
  }

  /**
   * Iterates over arrays of the messages at hand, for programs that handle many short messages. Each
   * array has at least one message: those that waited when the array was asked for, or else the next
   * message and those that came with it. The queue limits an array, so that a slow loop slows the peer
   * down. Otherwise this is the same as iterating over the connection itself.
   *
   * @example
   * ```ts
   * import { pair } from "sluice/testing";
   *
   * const [client, server] = await pair();
   * await client.sendAll(["a", "b", "c"]);
   * void client.close({ closeCode: 1000 });
   * for await (const messages of server.batches()) console.log(messages.join(" ")); // a b c
   * ```
   * @throws {DOMException} InvalidStateError If the connection is read in another way.
   */
  batches(): AsyncIterableIterator<Message[]> {
    return this.#driver.receiver.batches();
  }

  /**
   * The messages as a stream. It closes after any clean close, and errors with a
   * {@linkcode WebSocketError} otherwise.
   *
   * Cancelling the stream closes the connection. The reason decides on the close code:
   *
   * - A WebSocketError with the code 1000 or 3000-4999 is sent as it is.
   * - Another error, except an AbortError, is sent as 1011, so that the peer sees that a `pipeTo()` or
   *   `pipeThrough()` has failed. On a `WebSocketStream` it has no code, as in the standard.
   * - Anything else closes without a code. In a handler that returns a promise, this close waits until
   *   the promise settles or `closed` is accessed. If an error leaves a loop over the stream, the loop
   *   cancels without a reason, the handler rejects, and the connection closes with 1011.
   *
   * The promise of `pipeTo()` may be ignored: its rejection never counts as unhandled.
   * @throws {DOMException} InvalidStateError If the connection is read in another way.
   */
  get readable(): ReadableStream<Message> {
    return this.#driver.receiver.readable;
  }

  /**
   * The messages as a stream of streams, one for each message. A message of any size can be read in
   * bounded memory (set `maxMessageSize` to allow it). Read or cancel each message before the next one:
   * unread pieces count towards the queue, and a full queue stops receiving.
   * @throws {DOMException} InvalidStateError If the connection is read in another way.
   */
  messages(): ReadableStream<IncomingMessage> {
    return this.#driver.receiver.messages();
  }

  /**
   * Checks and drops incoming messages, and still answers pings. Use it if you only send.
   * @throws {DOMException} InvalidStateError If the connection is read in another way.
   */
  discard(): void {
    this.#driver.receiver.discard();
  }

  /**
   * Sends a message. A string is sent as text, a buffer source as binary. An iterable or a stream is one
   * message with a frame for each item; an asynchronous one ends with an empty frame.
   *
   * Do not change a binary message of more than 16,384 bytes until the promise has settled.
   * @param message The message.
   * @param options Options of this message.
   * @returns A promise that resolves when at most 64 KiB of this and earlier messages wait, or when the
   * transport has taken them. It rejects with InvalidStateError if the connection is closing or closed,
   * or if this call ends it (see `slow`); with TypeError if the message cannot be sent; with RangeError
   * if bytes that should be sent as text are not UTF-8.
   */
  send(message: OutgoingMessage, options?: SendOptions): Promise<void> {
    const refused = options === undefined ? undefined : refusal("send()", options, SEND_OPTIONS);
    if (refused !== undefined) return refused;
    return this.#driver.sender.send(message, options ?? undefined);
  }

  /**
   * Sends each item of an iterable as a message of its own, in one call: no message of another call comes
   * between them. Bytes are copied, and the iterable is not used after the call.
   *
   * All messages are accepted, also beyond the 64 KiB at which a `send()` waits. So pass as many as may
   * wait in memory, such as an array of `batches()`.
   * @param messages The messages. If one of them cannot be sent or the iterable throws, the messages
   * before it are sent, and those after it are not.
   * @param options Options of each message.
   * @returns A promise that resolves like that of `send()` for the last message. It rejects with the first
   * error of a message or of the iterable.
   */
  sendAll(messages: Iterable<Message | BufferSource>, options?: SendOptions): Promise<void> {
    const refused = options === undefined ? undefined : refusal("sendAll()", options, SEND_OPTIONS);
    if (refused !== undefined) return refused;
    return this.#driver.sender.sendAll(messages, options ?? undefined);
  }

  /**
   * A stream of messages to send. Bytes are copied when they are written. Chunks other than strings and
   * buffer sources are converted to strings. A write resolves like `send()`.
   *
   * Closing the stream closes the connection without a code, and waits for the closing handshake. Like in
   * any stream, the close waits for earlier writes, and these wait for a peer that does not read: abort
   * the stream to give up. Aborting closes the connection like cancelling `readable`. If the end of the
   * connection interrupts a write, the write rejects when `closed` has settled.
   */
  get writable(): WritableStream<Message | BufferSource> {
    return this.#driver.sender.writable;
  }

  /**
   * Sends a ping (RFC 6455 §5.5.2).
   * @param payload At most 125 bytes. By default, four random bytes.
   * @param options `signal` stops waiting for the pong.
   * @returns A promise of the time until the pong, in milliseconds. It rejects with InvalidStateError if
   * the connection is closing or closed, or a ping with this payload is waiting; with a
   * {@linkcode WebSocketError} if the connection closes before the pong; with RangeError if the payload is too long.
   */
  ping(
    payload?: Uint8Array | string,
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<number> {
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
   * Sends an unsolicited pong (RFC 6455 §5.5.3). Pings are answered automatically.
   * @param payload At most 125 bytes. By default, none.
   * @returns A promise that resolves like that of `send()`.
   */
  pong(payload: Uint8Array | string = ""): Promise<void> {
    try {
      return this.#driver.sender.control({ type: "pong", payload: controlPayload(payload) });
    } catch (error) {
      return handled(Promise.reject(error));
    }
  }

  /**
   * Closes the connection: sends a Close frame after all complete messages, then waits until the peer has
   * answered and the transport has ended, at most for `closeTimeout`. Further calls have no effect.
   *
   * A message that is sent as an iterable or a stream is not complete. If it has begun, it is cut short.
   * If not, it is refused, and so are the messages after it: each `send()` rejects with
   * InvalidStateError. Await those sends before you close.
   *
   * Messages that the peer sends before its own Close can still be read. If the queue is full when one
   * arrives, that message and all later ones are dropped.
   * @param info The code and reason. A reason without a code has the code 1000. An empty object or the
   * code 1005 closes without a code, so that the result of `closed` of another connection can be passed
   * on.
   * @returns A promise of the peer's code and reason, or of 1006 if the peer has sent none. It never
   * rejects.
   * @throws {TypeError} If the code or reason has the wrong type.
   * @throws {RangeError} If the code must not be sent, or the reason is longer than 123 bytes of UTF-8.
   */
  close(info: CloseInfo = {}): Promise<Required<CloseInfo>> {
    const { closing } = this.#driver;
    closing.startClose(checkCloseInfo(info));
    return new Promise((resolve) =>
      closing.whenEnded(() =>
        resolve(closing.received ?? { closeCode: CloseCode.Abnormal, reason: "" })
      )
    );
  }

  /** Ends the transport at once, without a closing handshake. `closed` rejects with 1006. */
  terminate(): void {
    this.#driver.closing.terminate();
  }

  /** Closes with 1000 and waits for the end. Called by `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close({ closeCode: CloseCode.Normal });
  }

  #tell(listener: ConnectionListener): void {
    const { closing } = this.#driver;
    listener.opened(this);
    closing.whenEnded((error) => {
      const { received = { closeCode: CloseCode.Abnormal, reason: "" } } = closing;
      listener.ended(this, received, error);
    });
  }

  #state(): object {
    const { state, protocol, extensions, bufferedAmount, closeInfo, stats: { queued, paused } } =
      this;
    const url = requestUrl(requestOf(this.#requestText), this.#secure);
    const { role } = this.#driver.machine;
    return {
      url: withoutSecrets(url).replace(/^http/, "ws"),
      ...(role === undefined ? {} : { role }),
      ...{ state, protocol, extensions },
      localAddress: addressText(this.localAddress),
      remoteAddress: addressText(this.remoteAddress),
      ...{ queued, paused, bufferedAmount, closeInfo },
    };
  }

  /** Whether an error of a read or write only says that this connection has ended. */
  isOwnError(error: unknown): boolean {
    return this.#driver.closing.isOwnError(error);
  }
}

const SIGNAL_OPTION = { signal: checkSignal };

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
  // Don't use slice(), which a subclass such as Buffer overrides without copying.
  if (payload instanceof Uint8Array) return checkControl(new Uint8Array(payload));
  throw wrongType(`Expected a payload of bytes or text, received ${typeof payload}`);
}
