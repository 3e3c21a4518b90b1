/// <reference lib="esnext.disposable" preserve="true" />
/** The connection of a browser: over its WebSocketStream, or over the same streams of a WebSocket. */
import { abortable, handled, onAbort, Readable } from "../abortable.ts";
import { sendEach, toMessage } from "../connection/outgoing.ts";
import { sizeOf } from "../connection/inbox.ts";
import {
  alreadyAwaited,
  checkMode,
  closeInfoOf,
  endsIteration,
  type Mode,
} from "../connection/receiver.ts";
import { SEND_MARK } from "../connection/sender.ts";
import { isTooMuch, MAX_BUFFERED_AMOUNT, MESSAGE_OVERHEAD } from "../connection/sending.ts";
import { type CloseInfo, PRIVATE_USE } from "../core/close.ts";
import {
  checkWebCloseInfo,
  invalidState,
  isScriptCloseCode,
  WebSocketError,
  webSocketError,
} from "../core/error.ts";
import { MAX_MESSAGE_SIZE, type Message } from "../core/message.ts";
import { checkBoolean, checkKnown, checkSignal, type OptionNames } from "../core/options.ts";
import type { BufferSource, CloseDetails, ConnectionStats, SendOptions } from "../options.ts";
import { backgroundTimer, nextTurn } from "../timers.ts";
import type { FromWebSocketOptions } from "./from_websocket.ts";
import { byteLength, NativeSocket, OPEN, type WebSocketLike } from "./native_socket.ts";
import type { WebSocketStreamConstructor, WebSocketStreamOptions } from "./stream_class.ts";

/** An open WebSocket of a browser. */
export interface Line {
  readonly protocol: string;
  readonly extensions: string;
  /** Resolves with the peer's code and reason after a clean close. */
  readonly closed: Promise<Required<CloseInfo>>;
  /** Reads the messages, one after the other. */
  readonly reader: ReadableStreamDefaultReader<unknown>;
  /**
   * Sends a message, without keeping its bytes. Settles when there is room for another one. After the end,
   * it may never settle.
   */
  write(message: Message): Promise<void> | undefined;
  /** Starts the closing handshake, after the messages written. */
  close(info: CloseInfo): void;
  /** Ends the connection at once, as far as the browser can. */
  terminate(): void;
}

/** Connects by a WebSocketStream of the platform. */
export async function openStream(
  Native: WebSocketStreamConstructor,
  url: string,
  options: WebSocketStreamOptions,
): Promise<Line> {
  const stream = new Native(url, options);
  const closed = handled(stream.closed);
  const { readable, writable, protocol, extensions } = await stream.opened;
  const reader = readable.getReader();
  const writer = writable.getWriter();
  let written = Promise.resolve();
  const line: Line = {
    ...{ protocol, extensions, closed, reader },
    write: (message) =>
      written = writer.write(typeof message === "string" ? message : new Uint8Array(message)),
    close: (info) => void handled(written.finally(() => stream.close(info))),
    terminate() {
      stream.close();
      handled(reader.cancel());
    },
  };
  // The stream ignores the signal as soon as it is open, but its caller may give up in the same turn.
  onAbort(options.signal, () => line.terminate());
  return line;
}

/** A WebSocket of the platform, which cannot be paused. */
export class SocketLine extends NativeSocket implements Line {
  readonly closed: Promise<Required<CloseInfo>>;
  readonly reader: ReadableStreamDefaultReader<Message>;
  #input!: ReadableStreamDefaultController<Message>;
  #settle!: { resolve(info: Required<CloseInfo>): void; reject(error: unknown): void };
  #room: Promise<void> | undefined;
  #makeRoom: (() => void) | undefined;

  /** @param socket A socket that is connecting or open. */
  constructor(socket: WebSocketLike, maxQueuedBytes: number) {
    super(socket, maxQueuedBytes);
    this.closed = handled(new Promise((resolve, reject) => this.#settle = { resolve, reject }));
    this.reader = new ReadableStream<Message>(
      { start: (input) => void (this.#input = input) },
      { highWaterMark: 0, size: sizeOf },
    ).getReader();
  }

  get queued(): number {
    return -this.#input.desiredSize!;
  }

  get protocol(): string {
    return this.socket.protocol ?? "";
  }

  get extensions(): string {
    return this.socket.extensions ?? "";
  }

  write(message: Message): Promise<void> | undefined {
    // A socket that is closing would drop the message.
    if (this.socket.readyState > OPEN) return new Promise(() => {});
    const isKept = typeof message === "string" || this.copies;
    this.send(isKept ? message : new Uint8Array(message), false);
    if (this.unsentAmount <= SEND_MARK) return;
    return this.#room ??= new Promise((resolve) => this.#makeRoom = resolve);
  }

  terminate(): void {
    if (this.isDetached) return;
    this.cut();
    this.ended(undefined, undefined);
  }

  protected deliver(message: Message | undefined): void {
    if (message === undefined) this.fail("Neither text nor bytes", 1003);
    else this.#input.enqueue(message);
  }

  protected drained(): void {
    this.#makeRoom?.();
    this.#room = undefined;
  }

  protected ended(info: Required<CloseInfo> | undefined, error: Error | undefined): void {
    // In the standard, a close is clean only if everything that was written has been sent.
    if (info !== undefined && this.#room === undefined) {
      this.#settle.resolve(info);
    } else {
      const { closeCode = 1006, reason } = info ?? {};
      this.#settle.reject(
        error instanceof WebSocketError
          ? error
          : webSocketError("The connection was lost", closeCode, reason, error),
      );
    }
    // An error of the stream would drop the messages that wait.
    this.#input.close();
  }
}

/** Options of a {@linkcode BrowserConnection}. */
export type BrowserConnectionOptions = Pick<
  FromWebSocketOptions,
  "maxMessageSize" | "maxBufferedAmount" | "slow" | "closeTimeout"
>;

const SEND_OPTIONS: OptionNames<SendOptions> = {
  text: checkBoolean,
  compress: checkBoolean,
  signal: checkSignal,
};

const CLOSE_INFO: OptionNames<CloseInfo> = { closeCode: true, reason: true };

/** What a connection in a browser has done so far. */
export type BrowserStats = Pick<
  ConnectionStats,
  "messagesReceived" | "messagesSent" | "bytesReceived" | "bytesSent"
>;

/**
 * An open WebSocket in a browser. It has the members of a connection on a server that a browser can
 * support: no pings, addresses and header fields.
 */
export class BrowserConnection implements AsyncIterable<Message>, AsyncDisposable {
  readonly #line: Line;
  readonly #options: BrowserConnectionOptions;
  readonly #isStandard: boolean;
  readonly #closed: Promise<Required<CloseInfo>>;
  #settle!: { resolve(info: Required<CloseInfo>): void; reject(error: unknown): void };
  readonly #abort = new AbortController();
  readonly #stats = { messagesReceived: 0, messagesSent: 0, bytesReceived: 0, bytesSent: 0 };
  #state: "open" | "closing" | "closed" = "open";
  #closeInfo: CloseDetails | undefined;
  #error: WebSocketError | undefined;
  #endError: WebSocketError | undefined;
  /** The errors that only say that the connection has ended. */
  readonly #ownErrors = new WeakSet<object>();
  #cancelTimer: (() => void) | undefined;
  #mode: Mode | undefined;
  #loops = 0;
  #isAwaited = false;
  #isDropping = false;
  #reading: Promise<{ value?: unknown }> | undefined;
  #readable: ReadableStream<Message> | undefined;
  #writable: WritableStream<Message | BufferSource> | undefined;
  #writing: WritableStreamDefaultController | undefined;
  #isWriterClosed = false;
  #bufferedAmount = 0;
  #bufferedMessages = 0;

  /**
   * Connections come from `connect()` and `fromWebSocket()`. Internal.
   * @param isStandard Whether a cancelled stream closes as the standard says: without a code for errors.
   */
  constructor(line: Line, options: BrowserConnectionOptions, isStandard = false) {
    this.#line = line;
    this.#options = options;
    this.#isStandard = isStandard;
    this.#closed = handled(new Promise((resolve, reject) => this.#settle = { resolve, reject }));
    line.closed.then(
      // A pipe from `readable` to `writable` needs a turn to close `writable`.
      (info) => nextTurn(() => this.#end(info)),
      (error) => this.#end(undefined, error),
    );
  }

  /** The negotiated subprotocol, or an empty string. */
  get protocol(): string {
    return this.#line.protocol;
  }

  /** The negotiated extensions, as in the header, or an empty string. */
  get extensions(): string {
    return this.#line.extensions;
  }

  /** "open" until a side closes; "closed" when `closed` has settled. */
  get state(): "open" | "closing" | "closed" {
    return this.#state;
  }

  /**
   * Resolves with the peer's code and reason after a clean close, whatever the code. Rejects with a
   * {@linkcode WebSocketError} as soon as a clean close is no longer possible.
   */
  get closed(): Promise<Required<CloseInfo>> {
    return this.#closed;
  }

  /**
   * Aborts when the connection has ended. The reason is the error that `closed` rejects with, or an
   * InvalidStateError after a clean close.
   */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** The Close frames that were sent and received. Undefined before the first one. */
  get closeInfo(): CloseDetails | undefined {
    return this.#closeInfo && { ...this.#closeInfo };
  }

  /** Number of bytes that `send()` and `writable` have accepted and the browser has not taken yet. */
  get bufferedAmount(): number {
    return this.#bufferedAmount;
  }

  /** What the connection has done so far. Text counts its UTF-16 code units. */
  get stats(): BrowserStats {
    return { ...this.#stats };
  }

  /**
   * Receives the next message.
   * @param options `signal` cancels the call. No message is lost.
   * @returns A promise of the message. It rejects with a {@linkcode WebSocketError} if there are no more
   * messages, also after a clean close, and with InvalidStateError if another call is waiting or the
   * connection is read in another way. A rejection never counts as unhandled.
   */
  receive({ signal }: { signal?: AbortSignal | undefined } = {}): Promise<Message> {
    return handled(this.#receive(signal));
  }

  async #receive(signal?: AbortSignal): Promise<Message> {
    this.#enter("receive");
    if (this.#isAwaited) throw alreadyAwaited();
    this.#isAwaited = true;
    try {
      const message = await this.#next(signal);
      if (message !== undefined) return message;
    } finally {
      this.#isAwaited = false;
    }
    await this.#over();
    const { closeCode, reason } = this.#received;
    const message = `The connection was closed: ${closeCode} ${reason}`.trim();
    throw this.#error ??
      (this.#endError ??= this.#own(
        webSocketError(message, closeCode, reason, undefined, "closed"),
      ));
  }

  /**
   * Iterates over the messages. The iteration ends if the connection was closed with 1000, 1001 or
   * without a code; otherwise it throws a {@linkcode WebSocketError}. Leaving the loop leaves the
   * connection open.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Message, void, void> {
    this.#enter("receive");
    this.#loops++;
    try {
      for (;;) yield await this.receive();
    } catch (error) {
      const { closeCode } = this.#received;
      if (error !== this.#endError || !endsIteration({ clean: true, closeCode })) throw error;
    } finally {
      this.#loops--;
    }
  }

  /**
   * Iterates over arrays of messages, as on a server. In a browser each array has one message, because
   * the browser gives one after the other.
   */
  async *batches(): AsyncGenerator<Message[], void, void> {
    for await (const message of this) yield [message];
  }

  /**
   * The messages as a stream. It closes after any clean close, and errors with a
   * {@linkcode WebSocketError} otherwise. Cancelling the stream closes the connection: with the code of a
   * WebSocketError, with 4011 for another error except an AbortError, and otherwise without a code. The
   * promise of `pipeTo()` may be ignored.
   * @throws {DOMException} InvalidStateError If the connection is read in another way.
   */
  get readable(): ReadableStream<Message> {
    if (this.#readable === undefined) {
      this.#enter("readable");
      // The stream reads one message ahead, and so learns of the end. Its queue is empty then.
      this.#readable = new Readable({
        pull: async (controller) => {
          const message = await this.#next();
          if (message !== undefined) controller.enqueue(message);
          else if (this.#error === undefined) controller.close();
          else throw this.#error;
        },
        cancel: (reason) => {
          this.#leave(reason);
          void this.#drop();
        },
      });
    }
    return this.#readable;
  }

  /**
   * Drops incoming messages. Use it if you only send.
   * @throws {DOMException} InvalidStateError If the connection is read in another way.
   */
  discard(): void {
    if (this.#mode === "discard") return;
    this.#enter("discard");
    void this.#drop();
  }

  async #drop(): Promise<void> {
    this.#isDropping = true;
    try {
      while ((await this.#read()).value !== undefined) this.#reading = undefined;
    } catch {
      // The connection has failed.
    }
  }

  /** Reads the next message. A call that was cancelled has left it for the next call. */
  #read(): Promise<{ value?: unknown }> {
    return this.#reading ??= this.#line.reader.read();
  }

  #enter(mode: Mode): void {
    if (mode === this.#mode) return;
    checkMode(this.#mode, mode, this.#isAwaited || this.#loops > 0);
    this.#mode = mode;
  }

  /** Returns the next message, or undefined at the end. If the connection has failed, `#error` is set. */
  async #next(signal?: AbortSignal): Promise<Message | undefined> {
    signal?.throwIfAborted();
    if (this.#isDropping) return;
    const reading = this.#read();
    let value: unknown;
    try {
      ({ value } = await (signal === undefined ? reading : abortable(reading, signal)));
    } catch (error) {
      if (signal?.aborted) throw error;
    }
    this.#reading = undefined;
    // After a clean end, a pipe closes `writable` before this connection is closed. After terminate(), the
    // line may take long to close.
    if (value === undefined) {
      return void await Promise.race([this.#line.closed, this.#closed]).catch(() => this.#over());
    }
    // A native stream may give an ArrayBuffer.
    const message = toMessage(value);
    const { maxMessageSize = MAX_MESSAGE_SIZE } = this.#options;
    const size = byteLength(message, maxMessageSize);
    if (size > maxMessageSize) {
      this.#fail(`Message of ${size} bytes exceeds maxMessageSize (${maxMessageSize})`, 1009);
      return;
    }
    this.#stats.messagesReceived++;
    this.#stats.bytesReceived += size;
    return message;
  }

  /**
   * Sends a message. A string is sent as text, a buffer source as binary.
   * @param message The message. Bytes are copied.
   * @param options Options of this message. `compress` has no effect: the browser decides.
   * @returns A promise that resolves when the browser has taken the message and there is room for another
   * one. It rejects with InvalidStateError if the connection is closing or closed, or if this call ends it
   * (see `slow`); with TypeError if the message is neither text nor bytes; with RangeError if bytes that
   * should be sent as text are not UTF-8.
   */
  send(message: string | BufferSource, options: SendOptions = {}): Promise<void> {
    return handled(this.#sendAll("send()", [message], options));
  }

  /**
   * Sends each item of an iterable as a message of its own, in one call: no message of another call comes
   * between them. All messages are accepted, so pass as many as may wait in memory.
   * @param messages The messages. Bytes are copied. If one of them cannot be sent or the iterable throws,
   * the messages before it are sent, and those after it are not.
   * @param options Options of each message.
   * @returns A promise that resolves like that of `send()` for the last message. It rejects with the first
   * error of a message or of the iterable.
   */
  sendAll(messages: Iterable<Message | BufferSource>, options: SendOptions = {}): Promise<void> {
    return handled(this.#sendAll("sendAll()", messages, options));
  }

  async #sendAll(
    method: string,
    messages: Iterable<unknown>,
    options: SendOptions,
  ): Promise<void> {
    checkKnown(method, options, SEND_OPTIONS);
    const sent: Promise<void>[] = [];
    sendEach(messages, options, (message) => sent.push(handled(this.#write(message))));
    await Promise.all(sent);
  }

  /** Throws at once if the message cannot be sent, so that no message after it is. */
  #write(message: Message): Promise<void> {
    if (this.#state !== "open") throw this.#closedError();
    const { length } = message;
    const { slow = "wait", maxBufferedAmount = MAX_BUFFERED_AMOUNT } = this.#options;
    const held = this.#bufferedAmount + this.#bufferedMessages * MESSAGE_OVERHEAD;
    if (slow !== "wait" && isTooMuch(held, length, maxBufferedAmount)) {
      if (slow === "terminate") this.terminate();
      else this.#startClose({ closeCode: 1008, reason: "Too slow" });
      throw this.#closedError();
    }
    return this.#put(message, length);
  }

  async #put(message: Message, length: number): Promise<void> {
    this.#bufferedAmount += length;
    this.#bufferedMessages++;
    this.#stats.messagesSent++;
    this.#stats.bytesSent += length;
    try {
      const written = this.#line.write(message);
      if (written !== undefined) await abortable(written, this.signal);
    } catch {
      await this.#over();
      throw this.#error ?? this.#closedError();
    } finally {
      this.#bufferedAmount -= length;
      this.#bufferedMessages--;
    }
  }

  /**
   * A stream of messages to send. Chunks other than strings and buffer sources are converted to strings.
   * A write resolves like `send()`. Closing the stream closes the connection without a code, and waits for
   * the closing handshake. Aborting it closes the connection like cancelling `readable`.
   */
  get writable(): WritableStream<Message | BufferSource> {
    return this.#writable ??= new WritableStream({
      start: (controller) => {
        this.#writing = controller;
        onAbort(controller.signal, (reason) => this.#leave(reason));
        if (this.#state === "closed") controller.error(this.#error ?? this.#closedError());
      },
      write: (chunk) => this.#write(toMessage(chunk)),
      close: async () => {
        this.#isWriterClosed = true;
        this.#startClose({});
        await this.#closed;
      },
      abort: (reason) => this.#leave(reason),
    });
  }

  /**
   * Closes the connection after the messages sent, and waits until the peer has answered, at most for
   * `closeTimeout`. Further calls have no effect. Unless a loop, a `receive()` or a stream reads the
   * connection, the messages that have not been read are dropped: they come before the peer's answer.
   * @param info The code, 1000 or 3000-4999, and the reason. A reason without a code has the code 1000.
   * Without both, or with 1005, the connection closes without a code.
   * @returns A promise of the peer's code and reason, or of 1006 if the peer has sent none. It never
   * rejects.
   * @throws {TypeError} If the code or reason has the wrong type.
   * @throws {DOMException} InvalidAccessError If a browser must not send the code; SyntaxError if the reason
   * is longer than 123 bytes of UTF-8.
   */
  close(info: CloseInfo = {}): Promise<Required<CloseInfo>> {
    checkKnown("close()", info, CLOSE_INFO);
    // The result of `closed` of another connection can be passed on.
    const isWithoutCode = info.closeCode === 1005 && !info.reason;
    this.#startClose(isWithoutCode ? {} : checkWebCloseInfo(info));
    return this.#over().then(() => this.#received);
  }

  /** Ends the connection at once, without waiting for the peer. `closed` rejects with 1006. */
  terminate(): void {
    this.#cut("The connection was terminated");
  }

  /** Closes with 1000 and waits for the end. Called by `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close({ closeCode: 1000 });
  }

  /** Whether an error of a read or write only says that this connection has ended. */
  isOwnError(error: unknown): boolean {
    return this.#ownErrors.has(error as object);
  }

  #leave(reason: unknown): void {
    this.#startClose(closeInfoOf(reason, this.#isStandard));
  }

  #startClose(info: CloseInfo): void {
    if (this.#state !== "open") return;
    this.#state = "closing";
    const { closeCode = 1005, reason = "" } = info;
    this.#closeInfo = { sent: { closeCode, reason }, first: "sent" };
    const { closeTimeout = 10_000 } = this.#options;
    if (closeTimeout > 0) {
      this.#cancelTimer = backgroundTimer(
        () => this.#cut("The peer has not closed within closeTimeout"),
        closeTimeout,
      );
    }
    if (!this.#isAwaited && this.#loops === 0 && this.#readable === undefined) void this.#drop();
    const code = isScriptCloseCode(closeCode) ? closeCode : closeCode + PRIVATE_USE;
    this.#line.close(closeCode === 1005 ? {} : { closeCode: code, reason });
  }

  #fail(message: string, closeCode: number): void {
    this.#startClose({ closeCode, reason: message });
    this.#end(undefined, webSocketError(message, closeCode));
    // The peer's Close frame comes after the messages that are still to be received.
    void this.#drop();
  }

  #over(): Promise<unknown> {
    return this.#closed.catch(() => {});
  }

  #cut(message: string): void {
    if (this.#state === "closed") return;
    this.#line.terminate();
    this.#end(undefined, webSocketError(message, 1006));
  }

  #end(info: Required<CloseInfo> | undefined, error?: WebSocketError): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#cancelTimer?.();
    if (info !== undefined) {
      this.#closeInfo = { sent: info, first: "received", ...this.#closeInfo, received: info };
      this.#settle.resolve(info);
    } else {
      this.#settle.reject(this.#error = this.#own(error!));
    }
    const reason = error ?? this.#closedError();
    this.#abort.abort(reason);
    if (!this.#isWriterClosed) this.#writing?.error(reason);
  }

  get #received(): Required<CloseInfo> {
    return this.#closeInfo?.received ?? { closeCode: 1006, reason: "" };
  }

  #closedError(): DOMException {
    return this.#own(
      invalidState(`Cannot send: the connection is ${this.#state}`, "not-open", this.#error),
    );
  }

  #own<T extends object>(error: T): T {
    this.#ownErrors.add(error);
    return error;
  }
}
