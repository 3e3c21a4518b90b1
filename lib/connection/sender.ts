/**
 * The sending half of a connection: messages in turn, one write for each turn of the event loop, and
 * when a send settles.
 *
 * @module
 */
import { handled, onAbort } from "../abortable.ts";
import { CloseCode, type CloseInfo } from "../core/close.ts";
import { LEND_FROM } from "../core/encoder.ts";
import type { CloseEvent, PingEvent, PongEvent } from "../core/event.ts";
import type { Message } from "../core/message.ts";
import type { Protocol } from "../core/protocol.ts";
import { webTextCodec } from "../core/utf8.ts";
import type { BufferSource, ConnectionOptions, OutgoingMessage, SendOptions } from "../options.ts";
import {
  asText,
  isFixed,
  ownItem,
  piecesOf,
  StreamSource,
  toMessage,
  toSendable,
} from "./outgoing.ts";
import type { Transport } from "../transport.ts";
import { nextTurn, TurnClock } from "../timers.ts";
import { SendTurns } from "./turns.ts";

/** How many bytes may wait, here and in the transport, before a send waits too. */
export const SEND_MARK = 65536;

/** The bytes that the transport is given at a time. It may copy them. */
const GIVE_MOST = 4 * SEND_MARK;

/** Extensions may work on messages of this length and more on another thread. */
const LATER_FROM = 16384;

/** The work of sending a message is its length plus this number of bytes. */
const MESSAGE_WORK = 1024;

/** The same for a message that an extension changes. */
const EXTENDED_WORK = 32768;

/** After this much work the sender checks whether the turn of the event loop has been long. */
const LOOK_EVERY = 65536;

/** Default for the maximum number of bytes that may wait for a connection. */
export const MAX_BUFFERED_AMOUNT = 1048576;

/**
 * The memory of a message that waits as an object, without its own bytes: the object, the promise of its
 * sender and the functions that settle the promise.
 */
export const MESSAGE_OVERHEAD = 768;

/** The options of a send without options. */
const DEFAULTS: SendOptions = {};

/** The result of a send that need not wait. */
const DONE: Promise<void> = Promise.resolve();

const NOT_BEGUN = "Cannot send: the connection was closed before the message had begun. " +
  "Await send() before close()";
const VANISHED = "The bytes to send were detached or resized before they had left";
const CUT_SHORT =
  "The message was cut short: the connection was closed before its last item came. " +
  "Await send() before close()";

/** The connection of a {@linkcode Sender}. */
export interface SenderHost {
  /** Whether messages may be sent. */
  canSend(): boolean;
  /** Whether frames may still be written. They may until our Close frame, which follows accepted messages. */
  canWrite(): boolean;
  /** Whether a ping may still be answered. */
  canAnswer(): boolean;
  /** The error for those who send when they may not. */
  closedError(): DOMException;
  /** An error that says no more than that this connection is at its end. */
  refusal(message: string): DOMException;
  /** Fails the connection, and tells the peer why. */
  fail(closeCode: number, message: string, cause?: unknown): void;
  /** Fails the connection, and ends the transport at once: a part of a frame may have left. */
  cut(message: string, closeCode: number, cause?: unknown): void;
  /** Starts the closing handshake. */
  startClose(info: CloseInfo): void;
  /** Ends the transport at once. */
  terminate(): void;
  /** Rejects with the error of a write: if the end has cut it off, no sooner than `closed` settles. */
  cutOff(error: unknown): Promise<never>;
  /** The writer of the stream has closed it; resolves when the connection is closed. */
  finish(): Promise<void>;
  /** The writer of the stream has aborted it. */
  leave(reason: unknown): void;
}

/** All sends that wait for the same bytes share one promise. */
class Departure {
  resolve!: (when: void | PromiseLike<void>) => void;
  reject!: (error: unknown) => void;
  readonly promise: Promise<void> = handled(
    new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    }),
  );
}

/** The senders to flush in the next turn: one callback serves all. */
let due: Sender[] = [];

/** The machine that writes the frames, or a native WebSocket, which sends messages itself. */
export interface WritingMachine
  extends Pick<Protocol, "encoder" | "extended" | "write" | "writePiece"> {
  /** Of a native WebSocket: the memory that unsent messages take in addition to their bytes. */
  readonly overhead?: number;
}

/** Sends, one message after the other. */
export class Sender {
  readonly #machine: WritingMachine;
  readonly #encoder: Protocol["encoder"];
  readonly #isExtended: boolean;
  readonly #transport: Transport;
  readonly #host: SenderHost;
  /** What is done about a peer that is too slow, and from how many bytes on. */
  readonly #slow: NonNullable<ConnectionOptions["slow"]>;
  readonly #maxBufferedAmount: number;
  #messagesSent = 0;
  #bytesSent = 0;
  /** Made for the first message that cannot be sent in one go. */
  #turns: SendTurns | undefined;
  /** Whether this is to be flushed in the next turn. */
  #isDue = false;
  /** Whether the transport has bytes that have not left. Then it says so by `drained()`. */
  #isFull: boolean;
  /** Work since the length of the turn was last looked at. */
  #work = 0;
  readonly #clock = new TurnClock();
  /** For sends whose bytes are in the batch, and those whose bytes the transport has. */
  #batched: Departure | undefined;
  #given: Departure | undefined;
  /** The pong that is due once the transport has room. */
  #owedPong: Uint8Array | undefined;
  #sink: MessageSink | undefined;
  /** Why nothing is sent any more. */
  #endError: (() => unknown) | undefined;
  /** Our Close frame goes after the messages that are at hand. */
  #isClosing = false;

  /**
   * @param machine the machine that writes the frames
   * @param transport where they go
   * @param host the connection
   * @param options what is done about a peer that is too slow
   */
  constructor(
    machine: WritingMachine,
    transport: Transport,
    host: SenderHost,
    options: Pick<ConnectionOptions, "slow" | "maxBufferedAmount">,
  ) {
    this.#machine = machine;
    this.#encoder = machine.encoder;
    this.#isExtended = machine.extended;
    this.#transport = transport;
    this.#isFull = transport.bufferedAmount > 0;
    this.#host = host;
    this.#slow = options.slow ?? "wait";
    this.#maxBufferedAmount = options.maxBufferedAmount ?? MAX_BUFFERED_AMOUNT;
  }

  get messagesSent(): number {
    return this.#messagesSent;
  }

  /** The bytes given to the transport. */
  get bytesSent(): number {
    return this.#bytesSent;
  }

  /** The bytes that wait: for their turn, in the batch, and in the transport. */
  get bufferedAmount(): number {
    return (this.#turns?.length ?? 0) + this.#unsent;
  }

  /** The same with what the messages take that wait for their turn, in bytes of memory. */
  get heldAmount(): number {
    const waiting = (this.#turns?.count ?? 0) * MESSAGE_OVERHEAD;
    return this.bufferedAmount + this.#encoder.unused + waiting + (this.#machine.overhead ?? 0);
  }

  /** Whether messages wait for room, or in the middle of another one. */
  get pending(): boolean {
    return this.#batched !== undefined || this.#given !== undefined || this.#isBusy;
  }

  /** Whether somebody has asked for the stream. */
  get streaming(): boolean {
    return this.#sink !== undefined;
  }

  /** The bytes that wait in the batch and in the transport. */
  get #unsent(): number {
    return this.#encoder.size + this.#transport.bufferedAmount;
  }

  /** Whether a message has its turn. */
  get #isBusy(): boolean {
    return this.#turns !== undefined && this.#turns.holder !== undefined;
  }

  /** Whether an extension may want to work on the message elsewhere. */
  #isSlow(message: Message): boolean {
    return this.#isExtended && message.length >= LATER_FROM;
  }

  /** See `WebSocketConnection`. */
  send(message: OutgoingMessage, options: SendOptions = DEFAULTS): Promise<void> {
    try {
      const { signal, text } = options;
      const sendable = typeof message === "string" || message instanceof Uint8Array
        ? message
        : toSendable(message);
      if (typeof sendable !== "string" && !(sendable instanceof Uint8Array)) {
        return handled(this.#sendItems(sendable, options));
      }
      signal?.throwIfAborted();
      const data = text === undefined ? sendable : convert(sendable, text);
      if (this.#slow !== "wait") this.#checkRoom(data.length);
      const lend = data.length >= LEND_FROM && typeof data !== "string" && isFixed(data);
      return this.#send(data, lend, options);
    } catch (error) {
      return handled(Promise.reject(error));
    }
  }

  /** Sends a message that was written to the stream. Its bytes are copied before this returns. */
  write(message: Message): Promise<void> {
    return this.#send(message, false, DEFAULTS);
  }

  /** @param lend whether the bytes stay as they are until they have left */
  #send(message: Message, lend: boolean, options: SendOptions): Promise<void> {
    if (!this.#host.canSend()) throw this.#host.closedError();
    if (this.#turns !== undefined || this.#isExtended) {
      if (this.#isBusy || this.#isSlow(message)) return this.#sendInTurn(message, lend, options);
    }
    this.#write(message, true, lend, options.compress);
    this.#messagesSent++;
    return this.#settle(message.length, lend);
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
      // The peer's half of an extension knows nothing of what ours has failed on.
      if (this.#isExtended && this.#host.canWrite()) this.#failMidway(error);
      throw error;
    }
  }

  /** Sends a ping, a pong or a Close, between the frames of a message if need be. */
  control(event: PingEvent | PongEvent | CloseEvent): Promise<void> {
    if (!this.#host.canWrite()) throw this.#host.closedError();
    this.#machine.write(event);
    return this.#settle(0);
  }

  /** RFC 6455 §5.5.2: a ping is answered; §5.5.3: of several, the last one is enough. */
  answer(payload: Uint8Array): void {
    if (!this.#host.canAnswer()) return;
    if (this.#isFull && this.#unsent > SEND_MARK) {
      // A peer that pings and does not read must not make us hold ever more pongs.
      this.#owedPong = payload.slice();
    } else {
      this.#machine.write({ type: "pong", payload });
      this.#settle(0);
    }
  }

  // Bytes to the transport

  /**
   * Sees to it that what was written leaves in this turn. The promise resolves at once while there is
   * room, and otherwise once what was written has left. If this turn of the event loop has been long, it
   * resolves in the next one: a loop that awaits its sends must let timers and other connections run.
   *
   * @param length that of the message
   * @param lent whether the bytes of the message are its owner's
   */
  #settle(length: number, lent: boolean = false): Promise<void> {
    let waiting = this.#encoder.size;
    if (waiting >= SEND_MARK) {
      this.flush();
      waiting = this.#encoder.size;
    } else if (waiting > 0 && !this.#isDue) {
      this.#isDue = true;
      if (due.push(this) === 1) nextTurn(Sender.#flushDue);
    }
    if (this.#endError !== undefined) return handled(Promise.reject(this.#endError()));
    // A native WebSocket takes the message when it is written, and nothing waits in the batch.
    if (waiting === 0) this.#isFull = this.#transport.bufferedAmount > 0;
    if (this.#isFull) waiting += this.#transport.bufferedAmount;
    if (waiting > SEND_MARK || (lent && waiting > 0)) return this.#departure();
    const work = this.#work += length + (this.#isExtended ? EXTENDED_WORK : MESSAGE_WORK);
    if (work < LOOK_EVERY) return DONE;
    this.#work = 0;
    return this.#clock.count(work) ?? DONE;
  }

  /** When what waits now has left. */
  #departure(): Promise<void> {
    if (this.#encoder.size > 0) return (this.#batched ??= new Departure()).promise;
    return (this.#given ??= new Departure()).promise;
  }

  static #flushDue(): void {
    const senders = due;
    due = [];
    for (const sender of senders) {
      sender.#isDue = false;
      sender.flush();
    }
  }

  /**
   * Gives the batch to the transport, a part at a time and only once the transport has taken what it was
   * given before; `drained()` goes on. What waits here is held once, and can still be checked.
   */
  flush(): void {
    while (!this.#isFull && this.#give(GIVE_MOST, false));
  }

  /** Gives the batch to the transport in any case: nothing is written after it. */
  flushAll(): void {
    this.#give(Infinity, this.#isFull);
  }

  /** Gives a part of the batch to the transport; tells whether there may be more. */
  #give(most: number, copy: boolean): boolean {
    const parts = this.#encoder.take(most, copy);
    for (const { length } of parts) this.#bytesSent += length;
    const isLast = this.#encoder.size === 0;
    // Sends wait for the last of their bytes.
    if (isLast && this.#batched !== undefined) this.#depart(this.#batched);
    try {
      if (parts.length > 0) this.#transport.write(parts);
      this.#isFull = this.#transport.bufferedAmount > 0;
    } catch (error) {
      // What was taken is lost, and the stream of frames out of step. No other connection is harmed.
      this.#host.cut("The transport threw", CloseCode.Abnormal, error);
      return false;
    }
    if (this.#encoder.hasVanished) {
      this.#host.fail(CloseCode.InternalError, VANISHED);
      return false;
    }
    if (!this.#isFull) this.#left();
    return !isLast;
  }

  /** The sends in the batch wait for the transport from now on. */
  #depart(batched: Departure): void {
    this.#batched = undefined;
    if (this.#given === undefined) this.#given = batched;
    else this.#given.promise.then(batched.resolve, batched.reject);
  }

  /** The transport has taken all that it was given. */
  drained(): void {
    this.#isFull = false;
    this.#left();
    this.flush();
    const payload = this.#owedPong;
    this.#owedPong = undefined;
    if (payload !== undefined) this.answer(payload);
  }

  #left(): void {
    if (!this.#encoder.recycle()) return this.checkLent();
    const given = this.#given;
    if (given === undefined) return;
    this.#given = undefined;
    given.resolve(this.#clock.count(LOOK_EVERY));
  }

  /** Fails the connection unless the bytes that the transport was lent are as long as they were. */
  checkLent(): void {
    if (!this.#encoder.isLentIntact) this.#host.cut(VANISHED, CloseCode.InternalError);
  }

  /** A message was begun and cannot be finished. */
  #failMidway(cause: unknown): void {
    const message = "The message was cut short by its sender";
    this.#host.fail(CloseCode.InternalError, message, cause);
  }

  // Messages that take a turn: behind another one, made of items, or changed elsewhere

  /** Sends after the message that is under way (RFC 6455 §5.4), or one that takes its time. */
  #sendInTurn(message: Message, lend: boolean, options: SendOptions): Promise<void> {
    const turns = this.#turns ??= new SendTurns();
    const held = lend ? message : ownItem(message);
    const { length } = message;
    const sent = new Promise<void>((resolve, reject) => {
      const enter = () => {
        const sending = this.#sendHeld(held, length, lend, options.compress, turns);
        sending.then(resolve, reject);
      };
      turns.join({ turn: "whole", length, enter, fail: reject }, options.signal);
    });
    return handled(sent);
  }

  /**
   * Sends a message whose turn has come.
   *
   * @param length the length that the message had when it was given to `send()`
   */
  async #sendHeld(
    message: Message,
    length: number,
    lend: boolean,
    compress: boolean | undefined,
    turns: SendTurns,
  ): Promise<void> {
    let settled: Promise<void>;
    try {
      if (!this.#host.canWrite()) throw this.#host.closedError();
      if (message.length !== length) {
        // This fails the connection, and with it all sends.
        this.#host.fail(CloseCode.InternalError, VANISHED);
      } else if (this.#isSlow(message)) {
        turns.underway = length;
        await this.#writeLater(message, true, compress, turns);
      } else this.#write(message, true, lend, compress);
      this.#messagesSent++;
      settled = this.#settle(length, lend);
    } finally {
      turns.underway = 0;
      turns.release();
    }
    await settled;
  }

  /** Writes a frame as soon as the extensions are done with it, unless the connection ends before. */
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
          // The transport may have been cut meanwhile.
          return this.#host.canWrite() ? resolve() : reject(this.#host.closedError());
        }
        // The peer's half of the compressor knows nothing of what ours has failed on.
        if (this.#host.canWrite()) this.#failMidway(error);
        reject(error);
      });
      if (!isWritten) return;
      turns.encoding = false;
      resolve();
    });
  }

  async #sendItems(
    items: AsyncIterable<Message> | Iterable<Message>,
    options: SendOptions,
  ): Promise<void> {
    const { signal } = options;
    try {
      signal?.throwIfAborted();
      if (this.#isBusy) this.#checkRoom(MESSAGE_OVERHEAD);
      if (!this.#host.canSend()) throw this.#host.closedError();
      const turns = this.#turns ??= new SendTurns();
      await turns.acquire("items", signal);
      // What is being encoded is waited for: the message goes on, or fails, after it.
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
      // The source may be in the middle of an item, and is told once it has it.
      handled(source.return());
      if (turns.begun && this.#host.canSend()) this.#failMidway(error);
      throw error;
    }
  }

  #checkGoingOn(signal: AbortSignal | undefined, turns: SendTurns): void {
    signal?.throwIfAborted();
    if (!this.#host.canSend()) throw this.#refusal(turns.begun);
  }

  /**
   * Waits, unless the connection ends or the signal is aborted meanwhile.
   *
   * @param begin called if neither has happened yet: nobody would see how its promise ends
   */
  #interruptible<T>(
    begin: () => Promise<T>,
    signal: AbortSignal | undefined,
    turns: SendTurns,
  ): Promise<T> {
    this.#checkGoingOn(signal, turns);
    // Not a race: one against a promise that long outlives it would leave a reaction there.
    return new Promise((resolve, reject) => {
      turns.interrupt = reject;
      begin().then(resolve, reject);
    });
  }

  // Peers that are too slow

  /** Whether a message of this length would make too much wait. One message is always let through. */
  isTooMuch(length: number, most: number): boolean {
    const held = this.heldAmount;
    return held > 0 && held + length > most;
  }

  /** Ends the connection where the caller wants it, and there is no room for so much more. */
  #checkRoom(length: number): void {
    const slow = this.#slow;
    if (slow === "wait" || !this.#host.canSend()) return;
    if (this.isTooMuch(length, this.#maxBufferedAmount)) this.endAsSlow(slow);
  }

  /** Ends a connection whose peer does not keep up. */
  endAsSlow(how: "close" | "terminate"): void {
    if (how === "terminate") this.#host.terminate();
    // RFC 6455 §7.4.1: the peer breaks a rule of ours.
    else this.#host.startClose({ closeCode: CloseCode.PolicyViolation, reason: "Too slow" });
  }

  // The end

  /** See `WebSocketConnection`. */
  get writable(): WritableStream<Message | BufferSource> {
    if (this.#sink === undefined) {
      this.#sink = new MessageSink(this, this.#host);
      if (this.#endError !== undefined) this.#sink.end(this.#endError());
    }
    return this.#sink.writable;
  }

  /**
   * Lets the messages leave that were accepted and are at hand, then has the Close written. One whose
   * items are yet to come might never end: it is cut short, and what waits after it is refused.
   */
  beforeClose(write: () => void): void {
    const turns = this.#turns;
    this.#isClosing = true;
    if (turns?.holder !== "whole") {
      write();
      turns?.fail(this.#refusal(false));
      return turns?.interrupt?.(this.#refusal(turns.begun));
    }
    turns.fail(this.#refusal(false), "items");
    const enter = () => {
      write();
      turns.release();
    };
    turns.join({ turn: "whole", length: 0, enter, fail: () => {} });
  }

  /** The error for a message that does not leave, or not whole, because the connection is closing. */
  #refusal(begun: boolean): DOMException {
    if (!this.#isClosing) return this.#host.closedError();
    return this.#host.refusal(begun ? CUT_SHORT : NOT_BEGUN);
  }

  /**
   * Nothing more is sent: refuses the message that is under way, and the sends that wait for their turn or
   * for room. The error is made when somebody gets it.
   */
  end(error: () => unknown): void {
    this.#endError = error;
    if (this.#turns !== undefined) {
      this.#turns.fail(error());
      this.#turns.interrupt?.(error());
    }
    this.#given?.reject(error());
    this.#batched?.reject(error());
    this.#given = this.#batched = undefined;
    this.#sink?.end(error());
  }
}

/** The stream of messages to send. */
class MessageSink {
  readonly writable: WritableStream<Message | BufferSource>;
  #controller!: WritableStreamDefaultController;
  #isClosing = false;

  constructor(sender: Sender, host: SenderHost) {
    this.writable = new WritableStream({
      start: (controller) => {
        this.#controller = controller;
        // An abort waits for the write that is under way, and that may wait for the peer.
        onAbort(controller.signal, (reason) => host.leave(reason));
      },
      write: (chunk) => {
        try {
          const sent = sender.write(toMessage(chunk));
          return sent === DONE ? sent : sent.catch((error) => host.cutOff(error));
        } catch (error) {
          return host.cutOff(error);
        }
      },
      close: () => {
        this.#isClosing = true;
        return host.finish();
      },
      abort: (reason) => host.leave(reason),
    });
  }

  /** Nothing more is sent. A stream that was closed by its writer stays closed. */
  end(error: unknown): void {
    if (!this.#isClosing) this.#controller.error(error);
  }
}

/** The message as the type that the option `text` asks for. */
function convert(message: Message, text: boolean): Message {
  if (text === (typeof message === "string")) return message;
  if (typeof message === "string") return new TextEncoder().encode(message);
  // Another thread may write to what is shared while it is decoded.
  const bytes = isFixed(message) ? message : ownItem(message) as Uint8Array;
  return asText(() => webTextCodec.decode(bytes, 0, bytes.length));
}
