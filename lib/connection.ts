/**
 * The fused duplex: one object that drives the machines of the core over a transport.
 *
 * @module
 */
import {
  CloseCode,
  type CloseInfo,
  isWireCloseCode,
  MAX_REASON_LENGTH,
  serializeClose,
} from "./core/close.ts";
import { RemoteProtocolError, WebSocketError, webSocketError } from "./core/error.ts";
import type { Role } from "./core/frame.ts";
import { BORROW_FROM, type Ownership } from "./core/frame_writer.ts";
import type { Agreement } from "./core/handshake.ts";
import { type RawHeaders, serializeExtensions } from "./core/header.ts";
import type { RequestHead, ResponseHead } from "./core/http1.ts";
import { maskingKey } from "./core/mask.ts";
import { type Fragment, type Message, MessageAssembler } from "./core/message.ts";
import { type CloseEvent, Protocol, response } from "./core/protocol.ts";
import { type TextCodec, webTextCodec } from "./core/utf8.ts";
import { type ResponseInfo, toRequest, toResponseInfo } from "./http.ts";
import { Budget, Inbox } from "./inbox.ts";
import { Keepalive, Pings } from "./keepalive.ts";
import { type IncomingMessage, MessageStreams } from "./message_streams.ts";
import type {
  BufferSource,
  CloseDetails,
  ConnectionOptions,
  ConnectionStats,
  OutgoingMessage,
  SendOptions,
} from "./options.ts";
import { handled, Outbox, SEND_MARK } from "./outbox.ts";
import { type Sendable, SendLock, toMessage, toSendable, viewOf } from "./outgoing.ts";
import type { Address, Transport } from "./transport.ts";
import { backgroundTimer, nextTurn } from "./turn.ts";

/** What a connection begins with. Internal. */
export interface ConnectionInit {
  /** Which end this is. */
  role: Role;
  /** Open, and handled by the handshake so far. */
  transport: Transport;
  /** What the handshake agreed on. */
  agreement: Agreement;
  /** The head of the request. */
  request: RequestHead;
  /** The head of the response. */
  response: ResponseHead;
  /** Whether the transport is encrypted. */
  secure: boolean;
  /** What came behind the handshake. */
  trailing: Uint8Array;
  /** The request, where it was made already. */
  webRequest?: Request;
  /** The options of the caller. */
  options: ConnectionOptions;
  /** How text is encoded and decoded. */
  textCodec?: TextCodec;
}

const INBOX_SIZE = 65536;
const MESSAGE_SIZE = 1048576;
/** What a message counts beside its length. */
const OVERHEAD = 64;

type Mode = "receive" | "readable" | "messages" | "discard";

const messageSize = (message: Message): number => message.length + OVERHEAD;

/**
 * An open WebSocket, of a client or of a server.
 *
 * It is read in one of three ways: message by message, with `receive()` or `for await`; as a stream
 * of messages, with `readable`; as a stream of streams, with `messages()`. All take from one queue;
 * when it is full the transport is not read further, so that the peer has to wait.
 *
 * Errors come in order: what was received whole before one is delivered before it.
 *
 * @example
 * ```ts
 * import { connect, serve } from "@sluice/sluice";
 *
 * const server = await serve({ hostname: "127.0.0.1", port: 0 }, (ws) => ws.readable.pipeTo(ws.writable));
 * if (server.address.transport !== "tcp") throw new Error("not TCP");
 *
 * await using ws = await connect(`ws://127.0.0.1:${server.address.port}`);
 * await ws.send("Hello");
 * console.log(await ws.receive()); // Hello
 * await ws.close();
 * await server.shutdown();
 * ```
 */
export class WebSocketConnection implements AsyncIterable<Message>, AsyncDisposable {
  readonly #init: ConnectionInit;
  readonly #transport: Transport;
  readonly #protocol: Protocol;
  readonly #assembler = new MessageAssembler();
  readonly #budget: Budget;
  readonly #inbox: Inbox<Message>;
  readonly #outbox: Outbox;
  readonly #lock = new SendLock();
  readonly #pings = new Pings();
  readonly #keepalive: Keepalive;
  readonly #codec: TextCodec;

  // Reading
  #mode: Mode | undefined;
  #readable: ReadableStream<Message> | undefined;
  #streams: MessageStreams | undefined;
  #paused = false;
  #pumping = false;
  /** A Close, a failure or the end of the transport was met: nothing behind it is decoded. */
  #stopped = false;
  #bytesReceived = 0;
  #messagesReceived = 0;
  #messagesSent = 0;
  #pauses = 0;

  // Writing
  #writable: WritableStream<Message | BufferSource> | undefined;
  #writableController: WritableStreamDefaultController | undefined;
  #writableClosing = false;
  /** The pong that is due once the transport has room. */
  #owedPong: Uint8Array | undefined;

  // Closing
  #details: CloseDetails = {};
  /** Why the close is not a clean one. */
  #error: WebSocketError | undefined;
  /** Both Close frames went. */
  #shaken = false;
  #finished = false;
  #inputEnded = false;
  #transportClosed = false;
  #transportError: Error | undefined;
  #cancelCloseTimer: (() => void) | undefined;
  readonly #closed: Promise<Required<CloseInfo>>;
  #resolveClosed!: (info: Required<CloseInfo>) => void;
  #rejectClosed!: (error: WebSocketError) => void;
  #request: Request | undefined;
  #response: ResponseInfo | undefined;

  /** Connections come from `connect()`, `serve()` and `accept()`. Internal. */
  constructor(init: ConnectionInit) {
    const { role, transport, options, textCodec = webTextCodec } = init;
    const { highWaterMark = INBOX_SIZE, size = messageSize } = options.readableStrategy ?? {};
    const { maxMessageSize = MESSAGE_SIZE, maxFrameSize, onFrame } = options;
    this.#init = init;
    this.#transport = transport;
    this.#codec = textCodec;
    this.#request = init.webRequest;
    this.#protocol = new Protocol(role, {
      maxMessageSize,
      maxFrameSize,
      onFrame,
      textCodec,
      ownsInput: true,
    });
    this.#budget = new Budget(highWaterMark, () => this.#onTaken());
    this.#inbox = new Inbox(this.#budget, size);
    this.#outbox = new Outbox(role, transport, textCodec);
    this.#closed = handled(
      new Promise((resolve, reject) => {
        this.#resolveClosed = resolve;
        this.#rejectClosed = reject;
      }),
    );
    const { pingInterval = 20_000, pingTimeout = 20_000 } = options;
    this.#keepalive = new Keepalive(this.#keepaliveHost(), pingInterval, pingTimeout);
    transport.handle({
      data: (chunk) => this.#onData(chunk),
      drain: () => this.#onDrain(),
      end: () => this.#onEnd(),
      close: (error) => this.#onClose(error),
    });
    if (init.trailing.length > 0) this.#onData(init.trailing);
    if (!this.#paused) transport.resume();
  }

  /** The subprotocol agreed on, or an empty string. */
  get protocol(): string {
    return this.#init.agreement.protocol;
  }

  /** The extensions agreed on, as in the header, or an empty string. */
  get extensions(): string {
    return serializeExtensions(this.#init.agreement.extensions);
  }

  /** The request of the handshake. It is made when first asked for. */
  get request(): Request {
    return this.#request ??= toRequest(this.#init.request, this.#init.secure);
  }

  /** The response of the handshake. */
  get response(): ResponseInfo {
    return this.#response ??= toResponseInfo(this.#init.response);
  }

  /** The header fields of both as they travelled: in order, repeated ones kept. */
  get rawHeaders(): { readonly request: RawHeaders; readonly response: RawHeaders } {
    return { request: this.#init.request.headers, response: this.#init.response.headers };
  }

  /** The address of this end, where the transport has one. */
  get localAddress(): Address | undefined {
    return this.#transport.localAddress;
  }

  /** The address of the peer, where the transport has one. */
  get remoteAddress(): Address | undefined {
    return this.#transport.remoteAddress;
  }

  /** "open" until a Close frame was sent or acted on, "closed" when the transport has ended. */
  get state(): "open" | "closing" | "closed" {
    if (this.#finished) return "closed";
    return this.#canSend ? "open" : "closing";
  }

  /**
   * Settles when the transport has ended: resolves with the peer's code and reason if both Close
   * frames were exchanged, whatever the code; rejects with a {@linkcode WebSocketError} otherwise.
   */
  get closed(): Promise<Required<CloseInfo>> {
    return this.#closed;
  }

  /** The Close frames that were seen; undefined before the first. */
  get closeInfo(): CloseDetails | undefined {
    return this.#details.first === undefined ? undefined : { ...this.#details };
  }

  /** The bytes accepted by `send()` and `writable`, and not yet taken by the transport. */
  get bufferedAmount(): number {
    return this.#outbox.bufferedAmount;
  }

  /** How long the last ping took to be answered, in milliseconds. */
  get latency(): number | undefined {
    return this.#pings.latency;
  }

  /** What the connection has done so far. */
  get stats(): ConnectionStats {
    return {
      messagesReceived: this.#messagesReceived,
      messagesSent: this.#messagesSent,
      bytesReceived: this.#bytesReceived,
      bytesSent: this.#outbox.bytesSent,
      queued: this.#budget.used,
      peakQueued: this.#budget.peak,
      paused: this.#paused,
      pauses: this.#pauses,
    };
  }

  // Reading

  /**
   * The next message.
   *
   * @param options `signal` takes the call back; no message is lost by it
   * @returns a promise that rejects with a {@linkcode WebSocketError} when there are no more, after
   * a clean close too, and with InvalidStateError while another call waits or the connection is read
   * in another way
   */
  receive(options: { signal?: AbortSignal } = {}): Promise<Message> {
    const { signal } = options;
    try {
      this.#enter("receive");
      signal?.throwIfAborted();
      if (this.#inbox.awaited) throw invalidState("Expected one receive() at a time");
    } catch (error) {
      return Promise.reject(error);
    }
    const message = this.#inbox.take();
    if (message !== undefined) return Promise.resolve(message);
    return new Promise((resolve, reject) => {
      const settle = () => signal?.removeEventListener("abort", abort);
      const waiter = {
        next: (message: Message) => (settle(), resolve(message)),
        end: ({ error }: { error: unknown }) => (settle(), reject(error)),
      };
      const abort = () => {
        this.#inbox.unwait(waiter);
        reject(signal!.reason);
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#inbox.wait(waiter);
    });
  }

  /**
   * Iterates over the messages. It ends when the connection was closed with 1000, 1001 or without a
   * code, and throws a {@linkcode WebSocketError} otherwise. Leaving the loop leaves the connection
   * open.
   */
  [Symbol.asyncIterator](): AsyncIterator<Message> {
    this.#enter("receive");
    return {
      next: async () => {
        try {
          return { done: false, value: await this.receive() };
        } catch (error) {
          if (!this.#endsIteration(error)) throw error;
          return { done: true, value: undefined };
        }
      },
    };
  }

  #endsIteration(error: unknown): boolean {
    const end = this.#inbox.ended;
    if (end === undefined || end.error !== error || !end.clean) return false;
    const code = (error as WebSocketError).closeCode;
    return code === CloseCode.Normal || code === CloseCode.GoingAway || code === CloseCode.NoStatus;
  }

  /**
   * The messages as a stream, made when first asked for. It closes after any clean close, and errors
   * with a {@linkcode WebSocketError} otherwise. Cancelling it closes the connection: with the code of
   * the reason if that is a WebSocketError, else without one.
   *
   * @throws {DOMException} InvalidStateError when the connection is read in another way
   */
  get readable(): ReadableStream<Message> {
    if (this.#readable === undefined) {
      this.#enter("readable");
      this.#readable = this.#inbox.stream((reason) => this.#leave(reason));
    }
    return this.#readable;
  }

  /**
   * The messages as a stream of streams, one a message, so that one of any size can be read in bounded
   * memory (set `maxMessageSize` to allow it). Read or cancel each before the next: what is not read
   * counts towards the queue, and when that is full nothing more is received.
   *
   * @throws {DOMException} InvalidStateError when the connection is read in another way
   */
  messages(): ReadableStream<IncomingMessage> {
    if (this.#streams !== undefined) return this.#streams.readable;
    this.#enter("messages");
    const streams = new MessageStreams(this.#budget, (reason) => this.#leave(reason));
    this.#streams = streams;
    // What was received whole, or in part, before anybody asked.
    for (let data = this.#inbox.take(); data !== undefined; data = this.#inbox.take()) {
      const finished = { frameFinished: true, messageFinished: true };
      streams.push(
        typeof data === "string"
          ? { type: "text", data, ...finished }
          : { type: "binary", data, ...finished },
      );
    }
    const partial = this.#assembler.takePartial();
    if (partial !== undefined) streams.push(partial);
    if (this.#inbox.ended !== undefined) streams.end(this.#inbox.ended);
    return streams.readable;
  }

  /**
   * Reads without keeping: incoming messages are checked and dropped, pings are answered. For those
   * who only send.
   *
   * @throws {DOMException} InvalidStateError when the connection is read in another way
   */
  discard(): void {
    this.#enter("discard");
    this.#inbox.clear();
    this.#pump();
  }

  #enter(mode: Mode): void {
    if (this.#mode === mode) return;
    if (this.#mode !== undefined) {
      throw invalidState(`Expected to be read by ${mode}, it is read by ${this.#mode} already`);
    }
    this.#mode = mode;
  }

  /** The reader or the writer of a stream gives up. */
  #leave(reason: unknown): void {
    this.#mode = "discard";
    this.#startClose(closeInfoOf(reason));
    this.#pump();
  }

  #onData(chunk: Uint8Array): void {
    this.#bytesReceived += chunk.length;
    if (this.#stopped || this.#protocol.state === "closed") return;
    this.#protocol.receive(chunk);
    this.#pump();
  }

  #onTaken(): void {
    if (this.#paused) this.#pump();
  }

  /** Whether to take no more out of the decoder for now. */
  get #full(): boolean {
    if (this.#dropping || this.#transportClosed) return false;
    // As long as nobody has said how the messages are read, a part of one counts as well.
    const partial = this.#mode === undefined ? this.#assembler.size : 0;
    return this.#budget.fullWith(partial);
  }

  /** Whether messages for which there is no room are dropped: after our own Close. */
  get #dropping(): boolean {
    return this.#mode === "discard" || !this.#canSend;
  }

  /** Decodes as long as there is room for the messages. */
  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (!this.#stopped && !this.#full) {
      if (!this.#step()) break;
    }
    this.#pumping = false;
    this.#setPaused(!this.#stopped && this.#full);
  }

  /** Takes one event; tells whether there was one. */
  #step(): boolean {
    try {
      const event = this.#protocol.next();
      if (event === undefined) return false;
      switch (event.type) {
        case "ping":
          this.#answer(event.payload);
          break;
        case "pong":
          this.#pings.pong(event.payload);
          break;
        case "close":
          this.#stop(event);
          break;
        default:
          this.#deliver(event);
      }
    } catch (error) {
      // Anything else was thrown by a callback of the user's: it must not take the process down.
      if (error instanceof RemoteProtocolError) this.#stop(error);
      else this.#fail(CloseCode.InternalError, "A callback threw", error);
    }
    return true;
  }

  #deliver(fragment: Fragment): void {
    if (fragment.messageFinished) this.#messagesReceived++;
    if (this.#mode === "discard") return;
    const late = !this.#canSend && this.#budget.full;
    if (this.#streams !== undefined) {
      if (late) this.#streams.drop(fragment);
      else this.#streams.push(fragment);
      return;
    }
    const message = this.#assembler.push(fragment);
    if (message !== undefined && !late) this.#inbox.push(message);
  }

  #setPaused(paused: boolean): void {
    if (paused === this.#paused) return;
    this.#paused = paused;
    if (paused) {
      this.#pauses++;
      this.#transport.pause();
    } else {
      this.#transport.resume();
    }
  }

  /** RFC 6455 §5.5.2: a ping is answered; §5.5.3: of several, the last one is enough. */
  #answer(payload: Uint8Array): void {
    if (!this.#canSend) return;
    if (this.#outbox.bufferedAmount > SEND_MARK) {
      // A peer that pings and does not read must not make us hold ever more pongs.
      this.#owedPong = payload.slice();
      return;
    }
    this.#protocol.write({ type: "pong", payload }, this.#outbox.writer);
    this.#outbox.post();
  }

  #onDrain(): void {
    this.#outbox.drained();
    const payload = this.#owedPong;
    if (payload === undefined || this.#outbox.bufferedAmount > SEND_MARK) return;
    this.#owedPong = undefined;
    this.#answer(payload);
  }

  // Writing

  get #canSend(): boolean {
    const { state } = this.#protocol;
    return this.#error === undefined && (state === "open" || state === "remote-closing");
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
   * the connection is closing or closed, TypeError for what cannot be sent, RangeError for bytes
   * that are not UTF-8 and should be text
   */
  send(message: OutgoingMessage, options: SendOptions = {}): Promise<void> {
    try {
      const { signal, text } = options;
      signal?.throwIfAborted();
      const sendable = toSendable(message);
      const whole = typeof sendable === "string" || sendable instanceof Uint8Array;
      if (!whole) return handled(this.#sendFragments(sendable, options));
      const typed = text === undefined ? sendable : this.#convert(sendable, text);
      return this.#lock.busy
        ? handled(this.#sendInTurn(typed, signal))
        : this.#sendWhole(typed, "borrow");
    } catch (error) {
      return handled(Promise.reject(error));
    }
  }

  /** The message as the type that `text` asks for. */
  #convert(message: Message, text: boolean): Message {
    if (text === (typeof message === "string")) return message;
    if (typeof message === "string") return new TextEncoder().encode(message);
    try {
      return this.#codec.decode(message);
    } catch (cause) {
      throw new RangeError("Expected a text message to be UTF-8, received other bytes", { cause });
    }
  }

  #sendWhole(message: Message, ownership: Ownership): Promise<void> {
    if (!this.#canSend) throw this.#closedError();
    this.#messagesSent++;
    this.#write(message, true, ownership);
    const borrowed = ownership === "borrow" && typeof message !== "string" &&
      message.length >= BORROW_FROM;
    return this.#outbox.settle(borrowed);
  }

  #write(data: Message, messageFinished: boolean, ownership: Ownership): void {
    const { writer } = this.#outbox;
    const flags = { frameFinished: true, messageFinished };
    if (typeof data === "string") this.#protocol.write({ type: "text", data, ...flags }, writer);
    else this.#protocol.write({ type: "binary", data, ...flags }, writer, ownership);
  }

  /** Sends a message behind a fragmented one that is under way (RFC 6455 §5.4). */
  async #sendInTurn(
    message: Message,
    signal?: AbortSignal,
    ownership: Ownership = "borrow",
  ): Promise<void> {
    await this.#lock.acquire(signal);
    let sent: Promise<void>;
    try {
      sent = this.#sendWhole(message, ownership);
    } finally {
      this.#lock.release();
    }
    await sent;
  }

  async #sendFragments(
    items: AsyncIterable<Message> | Iterable<Message>,
    { signal, text }: SendOptions,
  ): Promise<void> {
    await this.#lock.acquire(signal);
    let type: "string" | "object" | undefined;
    try {
      for await (const { item, last } of marked(items)) {
        signal?.throwIfAborted();
        if (!this.#canSend) throw this.#closedError();
        const data = item === undefined
          ? (type === "string" ? "" : new Uint8Array(0))
          : this.#checkItem(item, type, text);
        type = typeof data as "string" | "object";
        this.#write(data, last, "copy");
        await this.#outbox.settle(false);
      }
      this.#messagesSent++;
    } catch (error) {
      if (type !== undefined && this.#canSend) this.#failMidway(error);
      throw error;
    } finally {
      this.#lock.release();
    }
  }

  #checkItem(item: unknown, type: "string" | "object" | undefined, text?: boolean): Message {
    const data = typeof item === "string" ? item : viewOf(item);
    if (data === undefined) {
      throw new TypeError(`Expected each item to be a string or bytes, received ${typeof item}`);
    }
    const typed = text === undefined ? data : this.#convert(data, text);
    if (type !== undefined && typeof typed !== type) {
      throw new TypeError("Expected the items of a message to be of one type, received both");
    }
    return typed;
  }

  /** A message was begun and cannot be finished: the peer can be told in no other way. */
  #failMidway(cause: unknown): void {
    this.#fail(CloseCode.InternalError, "The message was cut short by its sender", cause);
  }

  /**
   * Messages written to it are sent; bytes are copied at the write, other chunks than strings and
   * buffer sources are converted to strings. A write resolves as `send()` does. Closing it closes the
   * connection, and waits for the closing handshake; aborting it closes the connection with the code of
   * the reason if that is a {@linkcode WebSocketError}, else without one. Made when first asked for.
   */
  get writable(): WritableStream<Message | BufferSource> {
    return this.#writable ??= new WritableStream({
      start: (controller) => {
        this.#writableController = controller;
        // An abort waits for the write that is under way, which may wait for the peer.
        controller.signal?.addEventListener("abort", () => this.#leave(controller.signal.reason));
        if (this.#finished) controller.error(this.#error ?? this.#closedError());
      },
      write: (chunk) => this.#writeChunk(chunk),
      close: async () => {
        this.#writableClosing = true;
        if (this.#finished) return;
        this.#startClose({});
        await this.#closed;
      },
      abort: (reason) => this.#leave(reason),
    });
  }

  #writeChunk(chunk: Message | BufferSource): Promise<void> {
    const message = toMessage(chunk);
    return this.#lock.busy
      ? this.#sendInTurn(typeof message === "string" ? message : message.slice(), undefined)
      : this.#sendWhole(message, "copy");
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
    const { signal } = options;
    try {
      signal?.throwIfAborted();
      const bytes = controlPayload(payload ?? randomPayload());
      if (this.#pings.has(bytes)) throw invalidState("Expected no ping with this payload to wait");
      this.#sendControl("ping", bytes);
      const latency = this.#pings.add(bytes);
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
      this.#sendControl("pong", controlPayload(payload));
      return this.#outbox.settle(false);
    } catch (error) {
      return handled(Promise.reject(error));
    }
  }

  #sendControl(type: "ping" | "pong", payload: Uint8Array): void {
    if (!this.#canSend) throw this.#closedError();
    this.#protocol.write({ type, payload }, this.#outbox.writer);
    this.#outbox.post();
  }

  // Closing

  /**
   * Closes the connection: sends a Close frame behind all that was sent, and waits until the peer has
   * answered it and the transport has ended, at most for `closeTimeout`. Further calls change nothing.
   *
   * @param info the code and reason; a reason alone goes with 1000; nothing: no code
   * @returns a promise of the peer's code and reason, or 1006 where none came; it never rejects
   * @throws {TypeError} for a code or reason of the wrong type
   * @throws {RangeError} for a code that must not be sent, or a reason over 123 bytes of UTF-8
   */
  close(info: CloseInfo = {}): Promise<Required<CloseInfo>> {
    this.#startClose(checkCloseInfo(info));
    return this.#closed.catch(() =>
      this.#details.received ?? { closeCode: CloseCode.Abnormal, reason: "" }
    );
  }

  /** Ends the transport at once, without a closing handshake. `closed` rejects with 1006. */
  terminate(): void {
    if (this.#finished) return;
    if (!this.#shaken) {
      this.#error ??= webSocketError("The connection was terminated", CloseCode.Abnormal);
    }
    this.#transport.destroy();
  }

  /** Whether the error is the one that this connection's end has given to its readers or writers. */
  isOwnError(error: unknown): boolean {
    return error !== undefined && (error === this.#error || error === this.#inbox.ended?.error);
  }

  /** Closes with 1000 and waits for it, so that `await using` may hold a connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close({ closeCode: CloseCode.Normal });
  }

  #startClose(info: CloseInfo): void {
    if (!this.#canSend || this.#finished) return;
    const { reason = "" } = info;
    const closeCode = info.closeCode ?? (reason === "" ? CloseCode.NoStatus : CloseCode.Normal);
    this.#sendClose({ type: "close", closeCode, reason });
    this.#lock.fail(this.#closedError());
    // A full queue stops nothing now: the peer's Close may lie behind it.
    this.#pump();
  }

  #sendClose(event: CloseEvent): void {
    const { closeCode, reason } = event;
    this.#protocol.write(event, this.#outbox.writer);
    this.#details.sent = { closeCode, reason };
    this.#details.first ??= "sent";
    this.#keepalive.stop();
    this.#outbox.post();
    this.#armCloseTimer();
  }

  #armCloseTimer(): void {
    const { closeTimeout = 10_000 } = this.#init.options;
    if (closeTimeout === 0 || this.#cancelCloseTimer !== undefined) return;
    this.#cancelCloseTimer = backgroundTimer(() => this.#transport.destroy(), closeTimeout);
  }

  /**
   * What ends the input has been met. It is acted on when those before it had their turn: an echo of
   * an earlier message is to leave before our Close.
   */
  #stop(cause: CloseEvent | RemoteProtocolError): void {
    this.#stopped = true;
    this.#budget.whenQuiet(() => {
      if (this.#finished) return;
      if (cause instanceof RemoteProtocolError) this.#fail(cause.closeCode, cause.message, cause);
      else if (cause.closeCode === CloseCode.Abnormal) this.#lose();
      else this.#closeReceived(cause);
    });
  }

  #closeReceived(event: CloseEvent): void {
    const { closeCode, reason } = event;
    this.#details.received = { closeCode, reason };
    this.#details.first ??= "received";
    if (this.#error === undefined && this.#protocol.state === "remote-closing") {
      this.#answerClose(event);
    }
    this.#shaken = this.#protocol.state === "closed" && this.#error === undefined;
    this.#endTransport();
  }

  #answerClose(event: CloseEvent): void {
    // The standard calls a close clean only if all that was written had left before.
    const pending = this.#outbox.congested || this.#lock.busy;
    if (this.#transportClosed) {
      this.#error = this.#remoteError("The transport ended before the Close could be answered");
    } else if (pending) {
      this.#error = this.#remoteError(
        "The peer closed the connection while messages waited to be sent",
      );
    }
    this.#sendClose(response(event) as CloseEvent);
    const refused = this.#closedError();
    this.#lock.fail(refused);
    if (pending) this.#outbox.fail(refused);
  }

  #remoteError(message: string): WebSocketError {
    const { closeCode, reason } = this.#details.received!;
    return webSocketError(`${message} (${this.#describe()})`, closeCode, reason);
  }

  /** RFC 6455 §7.1.1: the server ends the transport first, the client waits for it to do so. */
  #endTransport(): void {
    if (this.#transportClosed) return this.#finish();
    this.#outbox.flush();
    if (this.#protocol.role === "server" || this.#inputEnded) this.#transport.end();
    this.#armCloseTimer();
  }

  /** RFC 6455 §7.1.7: we fail the connection: say why, stop reading, end the transport. */
  #fail(closeCode: number, message: string, cause: unknown): void {
    if (this.#finished || this.#error !== undefined) return;
    const closing = !this.#canSend;
    // The reason of a Close has room for 123 bytes; a message of our own is ASCII.
    if (!closing) {
      this.#sendClose({ type: "close", closeCode, reason: message.slice(0, MAX_REASON_LENGTH) });
    }
    this.#stopped = true;
    this.#error = webSocketError(message, closeCode, "", cause);
    this.#endStreams(this.#error);
    if (this.#transportClosed) return this.#finish();
    this.#outbox.flush();
    this.#transport.end();
    this.#setPaused(false);
    this.#armCloseTimer();
  }

  /** The transport ended without a Close frame. */
  #lose(): void {
    const cause = this.#transportError;
    const details = cause === undefined ? "" : `: ${cause.message}`;
    this.#error ??= webSocketError(
      `The transport ended without a Close frame${details} (${this.#describe()})`,
      CloseCode.Abnormal,
      "",
      cause,
    );
    if (this.#transportClosed) this.#finish();
    else this.#transport.destroy();
  }

  #onEnd(): void {
    this.#inputEnded = true;
    if (this.#shaken || this.#error !== undefined) return this.#transport.end();
    this.#protocol.receive(null);
    this.#pump();
  }

  #onClose(error?: Error): void {
    this.#transportClosed = true;
    this.#transportError = error;
    this.#keepalive.stop();
    if (this.#shaken || this.#error !== undefined) return this.#finish();
    if (!this.#inputEnded) this.#protocol.receive(null);
    this.#inputEnded = true;
    // What was received whole is still delivered: the rest of one chunk, whatever the queue holds.
    this.#pump();
  }

  /** The transport is gone: everything that waits is settled. */
  #finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#cancelCloseTimer?.();
    this.#keepalive.stop();
    const { closeCode, reason } = this.#details.received ??
      { closeCode: CloseCode.Abnormal, reason: "" };
    const error = this.#error;
    if (error !== undefined) {
      this.#endStreams(error);
      this.#rejectClosed(error);
      return;
    }
    const end = webSocketError(
      `The connection was closed (${this.#describe()})`,
      closeCode,
      reason,
    );
    this.#pings.fail(end);
    this.#outbox.fail(this.#closedError());
    this.#endReading(end, true);
    const settle = () => {
      if (!this.#writableClosing) this.#writableController?.error(this.#closedError());
      this.#resolveClosed({ closeCode, reason });
    };
    // A pipe from `readable` closes `writable` in the turn after the former has closed.
    if (this.#writable === undefined) settle();
    else nextTurn(settle);
  }

  #endStreams(error: WebSocketError): void {
    this.#pings.fail(error);
    this.#lock.fail(error);
    this.#outbox.fail(error);
    this.#writableController?.error(error);
    this.#endReading(error, false);
  }

  #endReading(error: WebSocketError, clean: boolean): void {
    this.#inbox.end({ error, clean });
    this.#streams?.end({ error, clean });
  }

  #closedError(): DOMException {
    const error = invalidState(
      `Expected an open connection, it is ${this.state} (${this.#describe()})`,
    );
    if (this.#error !== undefined) Object.defineProperty(error, "cause", { value: this.#error });
    return error;
  }

  /** As "received 1001 (going away); then sent 1001". */
  #describe(): string {
    const { received, sent, first } = this.#details;
    const say = (verb: string, info?: Required<CloseInfo>) =>
      info && `${verb} ${info.closeCode}${info.reason && ` ${JSON.stringify(info.reason)}`}`;
    const both = [say("received", received), say("sent", sent)];
    if (first === "sent") both.reverse();
    return both.filter(Boolean).join("; then ") || "no Close frame either way";
  }

  #keepaliveHost(): ConstructorParameters<typeof Keepalive>[0] {
    // deno-lint-ignore no-this-alias
    const connection = this;
    return {
      ping: () => connection.ping(),
      lost: () =>
        connection.#fail(CloseCode.InternalError, "Keepalive: no pong in time", undefined),
      get paused() {
        return connection.#paused;
      },
      get traffic() {
        return connection.#bytesReceived + connection.#outbox.bytesSent;
      },
    };
  }
}

function invalidState(message: string): DOMException {
  return new DOMException(message, "InvalidStateError");
}

function randomPayload(): Uint8Array {
  return new Uint8Array(Int32Array.of(maskingKey()).buffer);
}

function controlPayload(payload: Uint8Array | string): Uint8Array {
  if (typeof payload === "string") return new TextEncoder().encode(payload);
  if (payload instanceof Uint8Array) return payload.slice();
  throw new TypeError(`Expected a payload of bytes or text, received ${typeof payload}`);
}

/** Checks what a caller wants to close with. */
function checkCloseInfo(info: CloseInfo): CloseInfo {
  const { closeCode, reason } = info;
  if (closeCode === CloseCode.NoStatus) {
    throw new RangeError("Expected a close code that may be sent, received 1005");
  }
  serializeClose({ closeCode: closeCode ?? (reason ? CloseCode.Normal : undefined), reason });
  return info;
}

/** The code and reason that a reason for cancelling or aborting carries. */
function closeInfoOf(reason: unknown): CloseInfo {
  if (!(reason instanceof WebSocketError) || reason.closeCode === null) return {};
  return isWireCloseCode(reason.closeCode)
    ? { closeCode: reason.closeCode, reason: reason.reason }
    : {};
}

function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/**
 * The items of a message, the last one marked. An asynchronous source may take its time to say that
 * an item was the last, so that each is sent as it comes, and an empty one behind them.
 */
async function* marked(
  items: AsyncIterable<Message> | Iterable<Message>,
): AsyncGenerator<{ item: Message | undefined; last: boolean }> {
  if (Symbol.asyncIterator in items) {
    let some = false;
    for await (const item of items) {
      some = true;
      yield { item, last: false };
    }
    if (some) yield { item: undefined, last: true };
    return;
  }
  let held: Message | undefined;
  for (const item of items) {
    if (held !== undefined) yield { item: held, last: false };
    held = item;
  }
  if (held !== undefined) yield { item: held, last: true };
}
