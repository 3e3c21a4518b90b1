/**
 * The sending half of a connection: `send()`, the stream of messages to send, and control frames.
 *
 * A file of its own because it knows nothing of what is received.
 *
 * @module
 */
import type { Ownership } from "../core/frame_writer.ts";
import type { Message } from "../core/message.ts";
import type { CloseEvent, PingEvent, PongEvent } from "../core/event.ts";
import type { Protocol } from "../core/protocol.ts";
import type { TextCodec } from "../core/utf8.ts";
import type { BufferSource, OutgoingMessage, SendOptions } from "../options.ts";
import { MessageSink, type SinkHost } from "./message_sink.ts";
import { handled, Outbox, type OutboxHost, SEND_MARK } from "./outbox.ts";
import {
  abortable,
  asText,
  isBorrowable,
  isFixed,
  itemConverter,
  marked,
  ownItem,
  SendTurns,
  StreamSource,
  toSendable,
  type Waiting,
} from "./outgoing.ts";
import {
  type Endable,
  endAsSlow,
  isTooMuch,
  MESSAGE_OVERHEAD,
  type SlowPolicy,
} from "./slow_consumer.ts";
import type { Transport } from "../transport.ts";

/** From this length on a message is given to extensions as one that they may work on elsewhere. */
const LATER_FROM = 16384;

/** One for all: to make one for every message costs as much as to look at the message. */
const DEFAULTS: SendOptions = {};

/** Why messages do not leave that closing came before. */
const NOT_BEGUN = "Cannot send: the connection was closed before the message had begun. " +
  "Await send() before close()";
const CUT_SHORT =
  "The message was cut short: the connection was closed before its last item came. " +
  "Await send() before close()";

/** A message at hand whose turn has come. */
interface WholeMessage {
  message: Message;
  /** The length that the message had when it was given to `send()`. */
  length: number;
  borrow: boolean;
  compress: boolean | undefined;
  resolve(sent: Promise<void>): void;
  reject(error: unknown): void;
}

/** What a {@linkcode Sender} asks of its connection. */
export interface SenderHost extends Endable, OutboxHost, Omit<SinkHost, "write"> {
  /** Whether messages may be sent. */
  canSend(): boolean;
  /** Whether frames may yet be written: until our Close frame goes, behind what was accepted. */
  canWrite(): boolean;
  /** The error for those who send when they may not. */
  closedError(): DOMException;
  /** Whether a ping may yet be answered. */
  canAnswer(): boolean;
  /** An error that says no more than that this connection is at its end. */
  refusal(message: string): DOMException;
  /** A message was begun and cannot be finished. */
  failMidway(cause: unknown): void;
}

/** Sends, one message after the other. */
export class Sender implements SinkHost {
  /** Where the frames are gathered. */
  readonly outbox: Outbox;
  readonly #protocol: Pick<Protocol, "role" | "extended" | "write" | "writeText">;
  readonly #codec: TextCodec;
  readonly #host: SenderHost;
  readonly #policy: SlowPolicy | undefined;
  /** Made for the first message that cannot be sent in one go. */
  #turns: SendTurns | undefined;
  #messagesSent = 0;
  /** The pong that is due once the transport has room. */
  #owedPong: Uint8Array | undefined;
  #sink: MessageSink | undefined;
  #endError: (() => unknown) | undefined;
  /** Our Close frame goes after the messages that are at hand. */
  #closing = false;

  /**
   * @param protocol the machine that writes the frames
   * @param transport where they go
   * @param codec how text is encoded
   * @param host the connection
   * @param policy what is done about a peer that is too slow. Default: sends wait
   */
  constructor(
    protocol: Pick<Protocol, "role" | "extended" | "write" | "writeText">,
    transport: Transport,
    codec: TextCodec,
    host: SenderHost,
    policy?: SlowPolicy,
  ) {
    this.#protocol = protocol;
    this.#codec = codec;
    this.#host = host;
    this.#policy = policy;
    this.outbox = new Outbox(protocol.role, transport, codec, host);
  }

  /** Messages sent so far. */
  get messagesSent(): number {
    return this.#messagesSent;
  }

  /** The bytes that wait: for their turn, in the batch, and in the transport. */
  get bufferedAmount(): number {
    return (this.#turns?.length ?? 0) + this.outbox.bufferedAmount;
  }

  /** The same with what the messages take that wait for their turn, in bytes of memory. */
  get heldAmount(): number {
    const waiting = (this.#turns?.count ?? 0) * MESSAGE_OVERHEAD;
    return this.bufferedAmount + this.outbox.writer.unused + waiting;
  }

  /** Whether messages wait for room, or in the middle of another one. */
  get pending(): boolean {
    return this.outbox.congested || this.#busy;
  }

  /** Whether a message has its turn. */
  get #busy(): boolean {
    return this.#turns !== undefined && this.#turns.busy;
  }

  /** Whether somebody has asked for the stream. */
  get streaming(): boolean {
    return this.#sink !== undefined;
  }

  /** See `WebSocketConnection`. */
  send(message: OutgoingMessage, options: SendOptions = DEFAULTS): Promise<void> {
    try {
      const { signal, text } = options;
      const sendable = toSendable(message);
      if (typeof sendable !== "string" && !(sendable instanceof Uint8Array)) {
        return handled(this.#sendFragments(sendable, options));
      }
      signal?.throwIfAborted();
      const typed = text === undefined ? sendable : this.#convert(sendable, text);
      if (this.#policy !== undefined) this.#checkRoom(typed.length);
      if (!this.#host.canSend()) throw this.#host.closedError();
      if (!this.#waits(typed)) return this.#sendWhole(typed, isBorrowable(typed), options.compress);
      return handled(this.#sendInTurn(typed, options));
    } catch (error) {
      return handled(Promise.reject(error));
    }
  }

  /** Ends the connection where there is no room for so much more. */
  #checkRoom(length: number): void {
    if (this.#policy === undefined || !this.#host.canSend()) return;
    const { slow, maxBufferedAmount } = this.#policy;
    if (isTooMuch(this.heldAmount, length, maxBufferedAmount)) endAsSlow(this.#host, slow);
  }

  /** The message as the type that the option `text` asks for. */
  #convert(message: Message, text: boolean): Message {
    if (text === (typeof message === "string")) return message;
    if (typeof message === "string") return new TextEncoder().encode(message);
    // Another thread may write to what is shared while it is decoded.
    const bytes = isFixed(message) ? message : ownItem(message);
    return asText(() => this.#codec.decode(bytes, 0, bytes.length));
  }

  /** Whether an extension may want to work on the message elsewhere. */
  #slow(message: Message): boolean {
    return this.#protocol.extended && message.length >= LATER_FROM;
  }

  /** Whether the message takes its turn, or is to have one. */
  #waits(message: Message): boolean {
    return this.#busy || this.#slow(message);
  }

  /** @param borrow whether the bytes stay their owner's until they have left */
  #sendWhole(message: Message, borrow: boolean, compress?: boolean): Promise<void> {
    if (!this.#host.canWrite()) throw this.#host.closedError();
    this.#messagesSent++;
    if (typeof message === "string" && this.#protocol.writeText(message, this.outbox.writer)) {
      return this.outbox.settle();
    }
    this.#write(message, true, compress, borrow ? "borrow" : "copy");
    return borrow || this.#protocol.extended
      ? this.outbox.settleLong(borrow)
      : this.outbox.settle();
  }

  #write(
    data: Message,
    fin: boolean,
    compress: boolean | undefined,
    ownership: Ownership,
    later?: (error?: Error) => void,
  ): boolean {
    try {
      return this.#writeEvent(data, fin, compress, ownership, later);
    } catch (error) {
      // The peer's half of an extension knows nothing of what ours has failed on.
      if (this.#protocol.extended && this.#host.canWrite()) this.#host.failMidway(error);
      throw error;
    }
  }

  #writeEvent(
    data: Message,
    fin: boolean,
    compress: boolean | undefined,
    ownership: Ownership,
    later: ((error?: Error) => void) | undefined,
  ): boolean {
    const { writer } = this.outbox;
    // Two objects and not one of either type: the engine knows each of them by its shape.
    return typeof data === "string"
      ? this.#protocol.write(
        { type: "text", data, frameFinished: true, messageFinished: fin, compress },
        writer,
        "copy",
        later,
      )
      : this.#protocol.write(
        { type: "binary", data, frameFinished: true, messageFinished: fin, compress },
        writer,
        ownership,
        later,
      );
  }

  /** Sends after the message that is under way (RFC 6455 §5.4), or one that takes its time. */
  #sendInTurn(message: Message, { compress, signal }: SendOptions): Promise<void> {
    const turns = this.#turns ??= new SendTurns();
    return new Promise((resolve, reject) => {
      const borrow = isBorrowable(message);
      const held = borrow ? message : ownItem(message);
      const { length } = message;
      const turn: Waiting = {
        turn: "whole",
        length,
        enter: () =>
          this.#sendNow({ message: held, length, borrow, compress, resolve, reject }, turns),
        fail: reject,
      };
      turns.join(abortable(turn, turns, signal));
    });
  }

  /** The turn of a whole message has come. */
  #sendNow(whole: WholeMessage, turns: SendTurns): void {
    const { message, length, borrow, compress, resolve, reject } = whole;
    const finish = (send: () => Promise<void>) => {
      try {
        resolve(handled(send()));
      } catch (error) {
        reject(error);
      }
      turns.underway = 0;
      turns.release();
    };
    if (message.length !== length) {
      return finish(() => {
        this.#host.vanished(false);
        return this.outbox.settleLong(false);
      });
    }
    if (!this.#slow(message)) return finish(() => this.#sendWhole(message, borrow, compress));
    turns.underway = length;
    const settle = () => {
      this.#messagesSent++;
      return this.outbox.settleLong(false);
    };
    this.#writeLater(message, true, compress, turns).then(
      () => finish(settle),
      (error) => finish(() => Promise.reject(error)),
    );
  }

  /** Writes a frame as soon as the extensions are done with it, unless the connection ends before. */
  #writeLater(
    data: Message,
    fin: boolean,
    compress: boolean | undefined,
    turns: SendTurns,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      if (!this.#host.canWrite()) throw this.#host.closedError();
      turns.interrupt = reject;
      turns.encoding = true;
      const written = this.#write(data, fin, compress, "copy", (error) => {
        turns.encoding = false;
        if (error === undefined) {
          // The transport may have been cut meanwhile.
          return this.#host.canWrite() ? resolve() : reject(this.#host.closedError());
        }
        // The peer's half of the compressor knows nothing of what ours has failed on.
        if (this.#host.canWrite()) this.#host.failMidway(error);
        reject(error);
      });
      if (!written) return;
      turns.encoding = false;
      resolve();
    });
  }

  async #sendFragments(
    items: AsyncIterable<Message> | Iterable<Message>,
    options: SendOptions,
  ): Promise<void> {
    try {
      options.signal?.throwIfAborted();
      if (this.#busy) this.#checkRoom(MESSAGE_OVERHEAD);
      if (!this.#host.canSend()) throw this.#host.closedError();
      const turns = this.#turns ??= new SendTurns();
      await turns.acquire("items", options.signal);
      await this.#sendItems(items, options, turns);
    } catch (error) {
      if (items instanceof StreamSource) items.cancel(error);
      throw error;
    }
    await this.outbox.settle();
  }

  async #sendItems(
    items: AsyncIterable<Message> | Iterable<Message>,
    options: SendOptions,
    turns: SendTurns,
  ): Promise<void> {
    const { signal } = options;
    const abort = () => {
      // What is being encoded is waited for: the message goes on, or fails, behind it.
      if (!turns.encoding) turns.interrupt?.(signal!.reason);
    };
    signal?.addEventListener("abort", abort, { once: true });
    try {
      await this.#writeItems(items, options, turns);
    } finally {
      signal?.removeEventListener("abort", abort);
      turns.release();
    }
  }

  async #writeItems(
    items: AsyncIterable<Message> | Iterable<Message>,
    { text, signal, compress }: SendOptions,
    turns: SendTurns,
  ): Promise<void> {
    const source = marked(items);
    const convert = itemConverter(text);
    try {
      for (;;) {
        const { done, value } = await this.#interruptible(() => source.next(), signal, turns);
        if (done) return;
        this.#checkGoingOn(signal, turns);
        const data = convert(value);
        if (this.#slow(data)) await this.#writeLater(data, value.last, compress, turns);
        else this.#write(data, value.last, compress, "copy");
        if (value.last) break;
        turns.begun = true;
        const settled = () =>
          this.#protocol.extended ? this.outbox.settleLong(false) : this.outbox.settle();
        await this.#interruptible(settled, signal, turns);
      }
      this.#messagesSent++;
    } catch (error) {
      // The source may be in the middle of an item, and is told once it has it.
      handled(source.return());
      if (turns.begun && this.#host.canSend()) this.#host.failMidway(error);
      throw error;
    }
  }

  #checkGoingOn(signal: AbortSignal | undefined, turns: SendTurns): void {
    signal?.throwIfAborted();
    if (!this.#host.canSend()) throw this.#refusal(turns.begun);
  }

  /** The error for a message that does not leave, or not whole, because the connection is closing. */
  #refusal(begun: boolean): DOMException {
    if (!this.#closing) return this.#host.closedError();
    return this.#host.refusal(begun ? CUT_SHORT : NOT_BEGUN);
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

  /** See `WebSocketConnection`. */
  get writable(): WritableStream<Message | BufferSource> {
    if (this.#sink === undefined) {
      this.#sink = new MessageSink(this);
      if (this.#endError !== undefined) this.#sink.end(this.#endError());
    }
    return this.#sink.writable;
  }

  /** Sends a message that was written to the stream. */
  write(message: Message): Promise<void> {
    if (!this.#host.canSend()) throw this.#host.closedError();
    if (!this.#waits(message)) return this.#sendWhole(message, false);
    return this.#sendInTurn(ownItem(message), DEFAULTS);
  }

  /** See {@linkcode SinkHost}. */
  cutOff(error: unknown): Promise<never> {
    return this.#host.cutOff(error);
  }

  /** The writer of the stream has closed it. */
  finish(): Promise<void> {
    return this.#host.finish();
  }

  /** The writer of the stream has aborted it. */
  leave(reason: unknown): void {
    this.#host.leave(reason);
  }

  /** Sends a ping, a pong or a Close, between the frames of a message if need be. */
  control(event: PingEvent | PongEvent | CloseEvent): void {
    if (!this.#host.canWrite()) throw this.#host.closedError();
    this.#protocol.write(event, this.outbox.writer);
    this.outbox.post();
  }

  /** RFC 6455 §5.5.2: a ping is answered; §5.5.3: of several, the last one is enough. */
  answer(payload: Uint8Array): void {
    if (!this.#host.canAnswer()) return;
    if (this.outbox.bufferedAmount > SEND_MARK) {
      // A peer that pings and does not read must not make us hold ever more pongs.
      this.#owedPong = payload.slice();
    } else {
      this.#protocol.write({ type: "pong", payload }, this.outbox.writer);
      this.outbox.post();
    }
  }

  /** The transport has room again. */
  drained(): void {
    this.outbox.drained();
    const payload = this.#owedPong;
    this.#owedPong = undefined;
    if (payload !== undefined) this.answer(payload);
  }

  /**
   * Lets the messages leave that were accepted and are at hand, then has the Close written. One whose
   * items are yet to come might never end: it is cut short, and what waits after it is refused.
   */
  beforeClose(write: () => void): void {
    const turns = this.#turns;
    this.#closing = true;
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
    this.outbox.fail(error);
    this.#sink?.end(error());
  }
}
