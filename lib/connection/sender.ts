/** The sending half of a connection: sends one message after the other, several in one write. */
import { handled, onAbort, rejectTraced, traced } from "../abortable.ts";
import { CloseCode, type CloseInfo } from "../core/close.ts";
import { LARGE_KEPT } from "../core/encoder.ts";
import type { Crowd, SharedFrame } from "../core/shared_frame.ts";
import { type ErrorCode, wrongType } from "../core/error.ts";
import { replaceStack } from "../core/error_print.ts";
import type { EventOf } from "../core/event.ts";
import type { Message } from "../core/message.ts";
import type { Protocol } from "../core/protocol.ts";
import type { BufferSource, ConnectionOptions, OutgoingMessage, SendOptions } from "../options.ts";
import {
  convert,
  isFixed,
  isItemError,
  isPlainBytes,
  ownItem,
  piecesOf,
  sendEach,
  StreamSource,
  toMessage,
  toSendable,
} from "./outgoing.ts";
import { Sink } from "./pipe.ts";
import type { Transport } from "../transport.ts";
import { nextTurn, TurnClock } from "../timers.ts";
import { isTooMuch, MAX_BUFFERED_AMOUNT, MESSAGE_OVERHEAD, type Shareable } from "./sending.ts";
import { SendTurns } from "./turns.ts";

/** Maximum number of bytes that may wait, here and in the transport, before a send waits too. */
export const SEND_MARK = 65536;

/** Longer bytes are sent without a copy. Shorter messages, which share a write with others, are copied. */
const LEND_OVER = 16_384;

/** Maximum number of bytes given to the transport at a time. The transport may copy them. */
const GIVE_MOST = 262_144;

/** Maximum length of a message that is compressed once for several connections, in this thread. */
const COMPRESS_UP_TO = 65_536;

/** Minimum length of a message that extensions may process on another thread. */
const LATER_FROM = 16384;

/** The work of sending a message is its length plus this number of bytes. */
const MESSAGE_WORK = 1024;

/** The same number for a message that an extension changes. */
const EXTENDED_WORK = 32768;

/** After this much work, the sender checks how long the turn of the event loop has been. */
const LOOK_EVERY = 65536;

const DEFAULTS: SendOptions = {};
const DONE: Promise<void> = /* @__PURE__ */ Promise.resolve();

const NOT_BEGUN = "Cannot send: the connection was closed before the message had begun. " +
  "Await send() before close()";
const VANISHED = "The bytes to send were detached or resized before they had left";
const CUT_SHORT =
  "The message was cut short: the connection was closed before its last item came. " +
  "Await send() before close()";

/** What the sender needs of `Closing`. */
export interface SenderHost {
  readonly canSend: boolean;
  readonly canWrite: boolean;
  canAnswer(): boolean;
  closedError(): DOMException;
  /** Returns the reason why nothing is sent any more. */
  endError(): Error;
  retrace(error: unknown, hasWaited: boolean): unknown;
  refusal(message: string, code: ErrorCode): DOMException;
  fail(closeCode: number, message: string, cause?: unknown, code?: ErrorCode): void;
  cut(message: string, closeCode: number, cause?: unknown, code?: ErrorCode): void;
  startClose(info: CloseInfo): void;
  terminate(): void;
  cutOff(error: unknown): Promise<never>;
  finish(): Promise<void>;
  leave(reason: unknown): void;
}

/** What happens to the bytes of a message: they are copied at once, lent until they are sent, or given away. */
type Passing = "copy" | "lend" | "give";

/** The promise that all sends waiting for the same bytes share. */
class Departure {
  resolve!: (when: void | PromiseLike<void>) => void;
  readonly promise: Promise<void> = new Promise((resolve) => this.resolve = resolve);

  reject(make: () => unknown): void {
    this.resolve(rejectTraced(this.promise, make));
  }
}

/** The senders to flush in the next turn. One callback serves all of them. */
let due: Sender[] = [];

/** Number of these senders whose batch is in a large buffer. When all that are kept are used, they flush. */
let largeDue = 0;

/** Not a static private method: `tsc` would make the class one that no bundler can leave out. */
function flushDue(): void {
  const senders = due;
  due = [];
  largeDue = 0;
  for (const sender of senders) {
    sender.isDue = false;
    sender.flush();
  }
}

/** Flushes, unless a loop has sent to more connections since: it may send them another message soon. */
function flushLarge(): void {
  if (largeDue === LARGE_KEPT) flushDue();
}

/** The machine that writes the frames, or a native WebSocket, which sends messages itself. */
export interface WritingMachine
  extends Pick<Protocol, "encoder" | "extended" | "write" | "writePiece"> {
  /** Of a native WebSocket: the memory that unsent messages take in addition to their bytes. */
  readonly overhead?: number;
}

/** How a connection ends whose peer is too slow, and the number of bytes that makes it so. */
interface SlowPolicy {
  readonly slow: "close" | "terminate";
  readonly most: number;
}

export class Sender {
  readonly #machine: WritingMachine;
  readonly encoder: Protocol["encoder"];
  readonly isExtended: boolean;
  readonly transport: Transport;
  readonly #host: SenderHost;
  /** What to do about a peer that is too slow. Undefined if sends wait. */
  readonly #policy: SlowPolicy | undefined;
  /** Number of messages sent, except shared ones. */
  #messagesSent = 0;
  /** Number of bytes given to the transport, except by a crowd. */
  #bytesSent = 0;
  /** Created for the first message that cannot be sent at once. */
  #turns: SendTurns | undefined;
  /** Whether `flushDue()` will flush this sender. */
  isDue = false;
  /** Whether the transport has unsent bytes. It calls `drained()` when they are sent. */
  #isFull = false;
  #work = 0;
  #clock: TurnClock | undefined;
  /** The sends whose bytes are in the batch, and the sends whose bytes the transport has. */
  #batched: Departure | undefined;
  #given: Departure | undefined;
  /** The pong to send when the transport has room. */
  #owedPong: Uint8Array | undefined;
  /** Made when `writable` is asked for. */
  sink: Sink | undefined;
  #isEnded = false;

  constructor(
    machine: WritingMachine,
    transport: Transport,
    host: SenderHost,
    { slow = "wait", maxBufferedAmount }: Pick<ConnectionOptions, "slow" | "maxBufferedAmount">,
  ) {
    this.#machine = machine;
    this.encoder = machine.encoder;
    this.isExtended = machine.extended;
    this.transport = transport;
    this.#host = host;
    if (slow !== "wait") this.#policy = { slow, most: maxBufferedAmount ?? MAX_BUFFERED_AMOUNT };
  }

  get messagesSent(): number {
    return this.#messagesSent + this.encoder.sharedMessages;
  }

  get bytesSent(): number {
    return this.#bytesSent + this.encoder.crowdBytes;
  }

  /** Number of bytes that wait for their turn, in the batch, and in the transport. */
  get bufferedAmount(): number {
    return (this.#turns?.length ?? 0) + this.#unsent;
  }

  /** `bufferedAmount` plus the memory of the messages that wait for their turn, in bytes. */
  get heldAmount(): number {
    const waiting = (this.#turns?.count ?? 0) * MESSAGE_OVERHEAD;
    return this.bufferedAmount + this.encoder.unused + waiting + (this.#machine.overhead ?? 0);
  }

  /** Whether messages wait for room, or a message is incomplete. */
  get pending(): boolean {
    const isBusy = this.#turns?.holder !== undefined;
    return isBusy || this.#batched !== undefined || this.#given !== undefined;
  }

  get #unsent(): number {
    return this.encoder.size + this.transport.bufferedAmount;
  }

  #isSlow(message: Message): boolean {
    return this.isExtended && message.length >= LATER_FROM;
  }

  send(message: OutgoingMessage, options: SendOptions = DEFAULTS): Promise<void> {
    try {
      const { signal, text } = options;
      const sendable = typeof message === "string" || isPlainBytes(message)
        ? message
        : toSendable(message);
      if (typeof sendable !== "string" && !(sendable instanceof Uint8Array)) {
        return this.#sendTraced(sendable, options);
      }
      signal?.throwIfAborted();
      const data = text === undefined ? sendable : convert(sendable, text);
      if (this.#policy !== undefined) this.#checkRoom(data.length);
      const lend = data.length > LEND_OVER && typeof data !== "string" && isFixed(data);
      return this.#send(data, lend ? "lend" : "copy", options);
    } catch (error) {
      return handled(Promise.reject(error));
    }
  }

  /** Sends messages, which are copied. After one that cannot be sent, the others are not. */
  sendAll(messages: Iterable<unknown>, options: SendOptions = DEFAULTS): Promise<void> {
    const waits: Promise<void>[] = [];
    try {
      sendEach(messages, options, (message) => {
        this.#checkRoom(message.length);
        const sent = this.#send(message, "copy", options);
        if (sent !== DONE && sent !== waits.at(-1)) waits.push(sent);
      });
    } catch (error) {
      waits.push(handled(Promise.reject(error)));
    }
    if (waits.length < 2) return waits[0] ?? DONE;
    return traced(Promise.all(waits).then(() => {}), (error) => this.#host.retrace(error, true));
  }

  /** Sends a chunk that is written to the stream. Returns undefined if another one may follow. */
  put(chunk: unknown): Promise<void> | undefined {
    return this.#stream(chunk, "copy");
  }

  /** Sends a message of a pipe, which nobody else has. Returns undefined if another one may follow. */
  move(message: Message): Promise<void> | undefined {
    return this.#stream(message, message.length > LEND_OVER ? "give" : "copy");
  }

  /** Sends a chunk of a stream. If the end interrupts it, the promise rejects after `closed`. */
  #stream(chunk: unknown, passing: Passing): Promise<void> | undefined {
    try {
      const sent = this.#send(toMessage(chunk), passing, DEFAULTS);
      return sent === DONE ? undefined : this.#orCutOff(sent);
    } catch (error) {
      const isSymbol = typeof chunk === "symbol";
      return this.#host.cutOff(
        isSymbol ? wrongType("Cannot convert a symbol to a string") : error,
      );
    }
  }

  /** A method by itself for the same reason as `#flushSoon()`. */
  #orCutOff(sent: Promise<void>): Promise<void> {
    return sent.catch((error) => this.#host.cutOff(error));
  }

  sendShared(shared: Shareable, most: number, compress?: boolean): boolean {
    // A frame that waits keeps the memory of all frames in its buffer. So it is only shared if it leaves.
    if (this.#isFull || !this.#host.canSend) return false;
    // A policy of the connection counts each message, and a native WebSocket has no frames.
    if (this.#policy !== undefined || this.#machine.overhead !== undefined) return false;
    if (this.#turns?.holder !== undefined) return false;
    if (this.isExtended && shared.message.length > COMPRESS_UP_TO) return false;
    if (isTooMuch(this.encoder.size, shared.message.length, most)) return false;
    if (!this.encoder.writeShared(shared.frame, compress)) return false;
    if (this.encoder.size < SEND_MARK) this.#flushInTurn();
    else {
      this.flush();
      this.#settle(0);
    }
    return true;
  }

  get crowd(): Crowd | undefined {
    return this.encoder.crowd;
  }

  /** From now on, this connection may not send what the others of its crowd do. See `sharing.ts`. */
  leaveCrowd(): void {
    this.encoder.unshare();
  }

  #send(message: Message, passing: Passing, options: SendOptions): Promise<void> {
    if (!this.#host.canSend) throw this.#host.closedError();
    if (this.#turns !== undefined || this.isExtended) {
      if (this.#turns?.holder !== undefined || this.#isSlow(message)) {
        return this.#sendInTurn(message, passing, options);
      }
    }
    this.#write(message, true, passing !== "copy", options.compress);
    this.#messagesSent++;
    return this.#settle(message.length, passing === "lend");
  }

  #write(
    data: Message,
    fin: boolean,
    lend: boolean,
    compress: boolean | undefined,
    later?: (error?: Error) => void,
  ): boolean {
    try {
      return this.#machine.writePiece(data, fin, lend, compress, later);
    } catch (error) {
      // The peer's half of the extension cannot follow after this failure.
      if (this.isExtended && this.#host.canWrite) this.#failMidway(error);
      throw error;
    }
  }

  /** Sends a ping or a pong, also between the frames of a message. A shared ping leaves at once. */
  control(event: EventOf<"ping" | "pong">, shared?: SharedFrame): Promise<void> {
    if (!this.#host.canWrite) throw this.#host.closedError();
    this.#machine.write(event, shared);
    if (shared !== undefined) this.flush();
    return this.#settle(0);
  }

  /** RFC 6455 §5.5.2: a ping is answered. §5.5.3: of several pings, answering the last one is enough. */
  answer(payload: Uint8Array): void {
    if (!this.#host.canAnswer()) return;
    if (this.#isFull && this.#unsent > SEND_MARK) {
      // Keep only the last pong: a peer that does not read must not make pongs pile up.
      this.#owedPong = payload.slice();
    } else {
      this.#machine.write({ type: "pong", payload });
      this.#settle(0);
    }
  }

  /**
   * Sends the written bytes in this turn. The promise resolves at once while there is room, and otherwise
   * when the bytes have been sent. If this turn has been long, the promise resolves in the next one, so
   * that a loop that awaits its sends lets timers and other connections run. `lent` bytes belong to the
   * caller.
   */
  #settle(length: number, lent: boolean = false): Promise<void> {
    let waiting = this.encoder.ownSize;
    if (waiting >= SEND_MARK) {
      this.flush();
      waiting = this.encoder.ownSize;
    } else if (waiting > 0 && lent) {
      // A loop that awaits its sends would otherwise send one message in each turn.
      this.#flushSoon();
    } else if (waiting > 0) this.#flushInTurn();
    if (this.#isEnded) return handled(Promise.reject(this.#newEndError()));
    // A native WebSocket accepts the message when it is written, so that nothing waits in the batch.
    if (waiting === 0) this.#isFull = this.transport.bufferedAmount > 0;
    if (this.#isFull) waiting += this.transport.bufferedAmount;
    if (waiting > SEND_MARK || (lent && waiting > 0)) return this.#departure();
    const work = this.#work += length + (this.isExtended ? EXTENDED_WORK : MESSAGE_WORK);
    if (work < LOOK_EVERY) return DONE;
    this.#work = 0;
    return this.#countWork(work) ?? DONE;
  }

  #countWork(work: number): Promise<void> | undefined {
    return (this.#clock ??= new TurnClock()).count(work);
  }

  #departure(): Promise<void> {
    if (this.encoder.size > 0) return (this.#batched ??= new Departure()).promise;
    return (this.#given ??= new Departure()).promise;
  }

  /** A method by itself: a function with a closure makes an object for the closure in each call. */
  #flushSoon(): void {
    queueMicrotask(() => this.flush());
  }

  #flushInTurn(): void {
    if (this.isDue) return;
    this.isDue = true;
    if (due.push(this) === 1) nextTurn(flushDue);
    if (this.encoder.isLarge && ++largeDue === LARGE_KEPT) queueMicrotask(flushLarge);
  }

  /**
   * Gives the batch to the transport in parts, each when the transport has sent the one before.
   * `drained()` continues. Bytes that wait here are held only once, and can still be checked.
   */
  flush(): void {
    const { crowd } = this.encoder;
    if (crowd !== undefined) return crowd.flush();
    while (!this.#isFull && this.#give(GIVE_MOST, false));
  }

  /** Gives the whole batch to the transport, because nothing is written after it. The batch has no shared frames. */
  flushAll(): void {
    if (this.encoder.ownSize > 0) this.#give(Infinity, this.#isFull);
  }

  /** Returns whether the transport has accepted the bytes, and more wait. */
  #give(most: number, copy: boolean): boolean {
    const parts = this.encoder.take(most, copy);
    const isLast = this.encoder.ownSize === 0;
    // Sends wait for their last byte.
    if (isLast && this.#batched !== undefined) this.#depart(this.#batched);
    for (const { length } of parts) this.#bytesSent += length;
    try {
      if (parts.length > 0) this.transport.write(parts);
      this.#isFull = this.transport.bufferedAmount > 0;
    } catch (error) {
      this.cut(error);
      return false;
    }
    if (this.encoder.hasVanished) {
      this.#host.fail(CloseCode.InternalError, VANISHED, undefined, "bytes-changed");
      return false;
    }
    if (!this.#isFull) this.#left();
    return !isLast;
  }

  /** The bytes are lost, so that the stream of frames is broken. Other connections are not affected. */
  cut(cause: unknown): void {
    this.#host.cut("The transport threw", CloseCode.Abnormal, cause);
  }

  filled(): void {
    this.#isFull = this.transport.bufferedAmount > 0;
    // A frame that waits would keep the memory of all frames in its buffer.
    this.leaveCrowd();
  }

  #depart(batched: Departure): void {
    this.#batched = undefined;
    if (this.#given === undefined) this.#given = batched;
    else this.#given.promise.then(batched.resolve, () => batched.reject(() => this.#newEndError()));
  }

  /** Called when the transport has sent everything it was given. */
  drained(): void {
    this.#isFull = false;
    this.#left();
    this.flush();
    const payload = this.#owedPong;
    this.#owedPong = undefined;
    if (payload !== undefined) this.answer(payload);
  }

  #left(): void {
    if (!this.encoder.recycle()) return this.checkLent();
    const given = this.#given;
    if (given === undefined) return;
    this.#given = undefined;
    given.resolve(this.#countWork(LOOK_EVERY));
  }

  /** Fails the connection if bytes that were lent to the transport have changed their length. */
  checkLent(): void {
    if (this.encoder.isLentIntact) return;
    this.#host.cut(VANISHED, CloseCode.InternalError, undefined, "bytes-changed");
  }

  #failMidway(cause: unknown): void {
    this.#host.fail(CloseCode.InternalError, "The message was cut short by its sender", cause);
  }

  // Messages that need a turn: after another message, made of items, or processed on another thread

  /** Sends after the current message (RFC 6455 §5.4), or after work on another thread. */
  #sendInTurn(message: Message, passing: Passing, options: SendOptions): Promise<void> {
    const turns = this.#takeTurns();
    const held = passing === "copy" ? ownItem(message) : message;
    const { length } = message;
    const sent = new Promise<void>((resolve, reject) => {
      const enter = () => {
        const sending = this.#sendHeld(held, length, passing, options.compress, turns);
        sending.then(resolve, reject);
      };
      turns.join({ turn: "whole", length, enter, fail: reject }, options.signal);
    });
    return traced(sent, (error) => this.#host.retrace(error, true));
  }

  #takeTurns(): SendTurns {
    this.leaveCrowd();
    return this.#turns ??= new SendTurns();
  }

  /** Sends a message whose turn has come. `length` is its length when it was passed to `send()`. */
  async #sendHeld(
    message: Message,
    length: number,
    passing: Passing,
    compress: boolean | undefined,
    turns: SendTurns,
  ): Promise<void> {
    let settled: Promise<void>;
    try {
      if (!this.#host.canWrite) throw this.#host.closedError();
      if (message.length !== length) {
        this.#host.fail(CloseCode.InternalError, VANISHED, undefined, "bytes-changed");
      } else if (this.#isSlow(message)) {
        turns.underway = length;
        await this.#writeLater(message, true, compress, turns);
        // Nobody changes the bytes: they are lent, given away or our own copy.
      } else this.#write(message, true, true, compress);
      this.#messagesSent++;
      settled = this.#settle(length, passing === "lend");
    } finally {
      turns.underway = 0;
      turns.release();
    }
    await settled;
  }

  /** Writes a frame when the extensions have processed it, unless the connection ends first. */
  #writeLater(
    data: Message,
    fin: boolean,
    compress: boolean | undefined,
    turns: SendTurns,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      turns.interrupt = reject;
      turns.encoding = true;
      const isWritten = this.#write(data, fin, false, compress, (error) => {
        turns.encoding = false;
        if (error === undefined) {
          return this.#host.canWrite ? resolve() : reject(this.#host.closedError());
        }
        // The peer's half of the extension cannot follow after this failure.
        if (this.#host.canWrite) this.#failMidway(error);
        reject(error);
      });
      if (!isWritten) return;
      turns.encoding = false;
      resolve();
    });
  }

  #sendTraced(
    items: AsyncIterable<Message> | Iterable<Message>,
    options: SendOptions,
  ): Promise<void> {
    return traced(this.#sendItems(items, options), (error) => this.#retraceItems(error));
  }

  async #sendItems(
    items: AsyncIterable<Message> | Iterable<Message>,
    options: SendOptions,
  ): Promise<void> {
    const { signal } = options;
    try {
      signal?.throwIfAborted();
      if (this.#turns?.holder !== undefined) this.#checkRoom(MESSAGE_OVERHEAD);
      if (!this.#host.canSend) throw this.#host.closedError();
      const turns = this.#takeTurns();
      await turns.acquire("items", signal);
      // A frame that is being encoded is finished first. Then the message continues or fails.
      const stop = onAbort(signal, (reason) => turns.encoding || turns.interrupt?.(reason));
      try {
        await this.#writeItems(items, options, turns);
      } finally {
        stop();
        turns.release();
      }
    } catch (error) {
      if (items instanceof StreamSource) items.cancel(error);
      throw error;
    }
    await this.#settle(0);
  }

  #retraceItems(error: unknown): unknown {
    if (!isItemError(error)) return this.#host.retrace(error, true);
    replaceStack(error, this.#retraceItems, true);
    return error;
  }

  async #writeItems(
    items: AsyncIterable<Message> | Iterable<Message>,
    { text, signal, compress }: SendOptions,
    turns: SendTurns,
  ): Promise<void> {
    const source = piecesOf(items, text);
    try {
      for (;;) {
        const { done, value } = await this.#interruptible(() => source.next(), signal, turns);
        if (done) return;
        this.#checkGoingOn(signal, turns);
        const { data, last } = value;
        if (this.#isSlow(data)) await this.#writeLater(data, last, compress, turns);
        else this.#write(data, last, false, compress);
        if (last) break;
        turns.begun = true;
        await this.#interruptible(() => this.#settle(data.length), signal, turns);
      }
      this.#messagesSent++;
    } catch (error) {
      // The source may be producing an item. It handles return() after that item.
      handled(source.return());
      if (turns.begun && this.#host.canSend) this.#failMidway(error);
      throw error;
    }
  }

  #checkGoingOn(signal: AbortSignal | undefined, turns: SendTurns): void {
    signal?.throwIfAborted();
    if (!this.#host.canSend) throw this.#refusal(turns, turns.begun);
  }

  /**
   * Waits for a promise, unless the connection ends or the signal is aborted. If either has happened
   * already, `begin` is not called, because its result would be ignored.
   */
  #interruptible<T>(
    begin: () => Promise<T>,
    signal: AbortSignal | undefined,
    turns: SendTurns,
  ): Promise<T> {
    this.#checkGoingOn(signal, turns);
    // Not Promise.race(): each race would add a reaction to a promise that lives much longer.
    return new Promise((resolve, reject) => {
      turns.interrupt = reject;
      begin().then(resolve, reject);
    });
  }

  /** Ends the connection if there is no room for the message and the option `slow` says so. */
  #checkRoom(length: number): void {
    const policy = this.#policy;
    if (policy === undefined || !this.#host.canSend) return;
    if (isTooMuch(this.heldAmount, length, policy.most)) this.endAsSlow(policy.slow);
  }

  endAsSlow(how: "close" | "terminate"): void {
    if (how === "terminate") this.#host.terminate();
    // RFC 6455 §7.4.1: the peer breaks a rule of this end.
    else this.#host.startClose({ closeCode: CloseCode.PolicyViolation, reason: "Too slow" });
  }

  get writable(): WritableStream<Message | BufferSource> {
    if (this.sink === undefined) {
      this.sink = new Sink(this, this.#host);
      if (this.#isEnded) this.sink.error(this.#host.endError());
    }
    return this.sink.stream;
  }

  /**
   * Sends the complete messages, then has the Close written. A message whose items are still to come
   * might never end, so it is cut short, and the messages after it are refused.
   */
  beforeClose(write: () => void): void {
    const turns = this.#turns;
    if (turns !== undefined) turns.isClosing = true;
    if (turns?.holder !== "whole") {
      write();
      turns?.fail(this.#refusal(turns, false));
      return turns?.interrupt?.(this.#refusal(turns, turns.begun));
    }
    turns.fail(this.#refusal(turns, false), "items");
    const enter = () => {
      write();
      turns.release();
    };
    turns.join({ turn: "whole", length: 0, enter, fail: () => {} });
  }

  #refusal({ isClosing }: SendTurns, begun: boolean): DOMException {
    if (!isClosing) return this.#host.closedError();
    return begun
      ? this.#host.refusal(CUT_SHORT, "cut-short")
      : this.#host.refusal(NOT_BEGUN, "not-open");
  }

  #newEndError(): unknown {
    return this.#host.retrace(this.#host.endError(), true);
  }

  /** Stops sending: refuses the current message and the waiting sends. */
  end(): void {
    this.#isEnded = true;
    if (this.#turns !== undefined) {
      this.#turns.fail(this.#host.endError());
      this.#turns.interrupt?.(this.#host.endError());
    }
    this.#given?.reject(() => this.#newEndError());
    this.#batched?.reject(() => this.#newEndError());
    this.#given = this.#batched = undefined;
    // A stream that its writer has closed does not error.
    if (this.sink?.isClosed === false) this.sink.error(this.#host.endError());
  }
}
