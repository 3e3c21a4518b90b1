/**
 * The sending half of a connection: `send()`, the stream of messages to send, and control frames.
 *
 * A file of its own because it knows nothing of what is received.
 *
 * @module
 */
import { BORROW_FROM, type Ownership } from "../core/frame_writer.ts";
import type { Message } from "../core/message.ts";
import type { CloseEvent, PingEvent, PongEvent } from "../core/event.ts";
import type { Protocol } from "../core/protocol.ts";
import type { TextCodec } from "../core/utf8.ts";
import type { BufferSource, OutgoingMessage, SendOptions } from "../options.ts";
import { handled, Outbox, SEND_MARK } from "./outbox.ts";
import {
  isFixed,
  type Item,
  marked,
  ownItem,
  SendLock,
  StreamSource,
  toMessage,
  toSendable,
  viewOf,
} from "./outgoing.ts";
import { type Endable, endAsSlow, isTooMuch, type SlowPolicy } from "./slow_consumer.ts";
import type { Transport } from "../transport.ts";

/** From this length on a message is given to extensions as one that they may work on elsewhere. */
const LATER_FROM = 16384;

/** One for all: to make one for every message costs as much as to look at the message. */
const DEFAULTS: SendOptions = {};

/** What a {@linkcode Sender} asks of its connection. */
export interface SenderHost extends Endable {
  /** Whether messages may be sent. */
  canSend(): boolean;
  /** Whether frames may yet be written: until our Close frame goes, behind what was accepted. */
  canWrite(): boolean;
  /** The error for those who send when they may not. */
  closedError(): DOMException;
  /** A message was begun and cannot be finished. */
  failMidway(cause: unknown): void;
  /** The writer of the stream has closed it; resolves when the connection is closed. */
  finish(): Promise<void>;
  /** The writer of the stream has aborted it. */
  leave(reason: unknown): void;
}

/** Sends, one message after the other. */
export class Sender {
  /** Where the frames are gathered. */
  readonly outbox: Outbox;
  readonly #protocol: Pick<Protocol, "role" | "extended" | "write" | "writeText">;
  readonly #codec: TextCodec;
  readonly #host: SenderHost;
  readonly #policy: SlowPolicy | undefined;
  readonly #lock = new SendLock();
  #messagesSent = 0;
  /** The length of the messages that wait for their turn: of text in code units. */
  #waiting = 0;
  /** Ends the message of several frames that is under way, whatever it waits for. */
  #interrupt: ((error: unknown) => void) | undefined;
  /** Whether extensions work on a frame. They take no other before, and this one is written in any case. */
  #encoding = false;
  /** The pong that is due once the transport has room. */
  #owedPong: Uint8Array | undefined;
  #writable: WritableStream<Message | BufferSource> | undefined;
  #controller: WritableStreamDefaultController | undefined;
  #closing = false;
  #ended: { error: unknown } | undefined;

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
    this.outbox = new Outbox(protocol.role, transport, codec);
  }

  /** Messages sent so far. */
  get messagesSent(): number {
    return this.#messagesSent;
  }

  /** The bytes that wait: for their turn, in the batch, and in the transport. */
  get bufferedAmount(): number {
    return this.#waiting + this.outbox.bufferedAmount;
  }

  /** Whether messages wait for room, or in the middle of another one. */
  get pending(): boolean {
    return this.outbox.congested || this.#lock.busy;
  }

  /** Whether somebody has asked for the stream. */
  get streaming(): boolean {
    return this.#writable !== undefined;
  }

  /** See `WebSocketConnection`. */
  send(message: OutgoingMessage, options: SendOptions = DEFAULTS): Promise<void> {
    try {
      const { signal, text } = options;
      signal?.throwIfAborted();
      const sendable = toSendable(message);
      if (typeof sendable !== "string" && !(sendable instanceof Uint8Array)) {
        return handled(this.#sendFragments(sendable, options));
      }
      const typed = text === undefined ? sendable : this.#convert(sendable, text);
      if (this.#policy !== undefined) this.#checkRoom(typed, this.#policy);
      if (!this.#host.canSend()) throw this.#host.closedError();
      if (!this.#waits(typed)) return this.#sendWhole(typed, true, options.compress);
      return handled(this.#sendInTurn(typed, true, options));
    } catch (error) {
      return handled(Promise.reject(error));
    }
  }

  /** Ends the connection where there is no room for one more message. */
  #checkRoom({ length }: Message, { slow, maxBufferedAmount }: SlowPolicy): void {
    if (!this.#host.canSend()) return;
    if (isTooMuch(this.bufferedAmount, length, maxBufferedAmount)) endAsSlow(this.#host, slow);
  }

  /** The message as the type that the option `text` asks for. */
  #convert(message: Message, text: boolean): Message {
    if (text === (typeof message === "string")) return message;
    if (typeof message === "string") return new TextEncoder().encode(message);
    return asText(() => this.#codec.decode(message, 0, message.length));
  }

  /** Whether an extension may want to work on the message elsewhere. */
  #slow(message: Message): boolean {
    return this.#protocol.extended && message.length >= LATER_FROM;
  }

  /** Whether the message takes its turn, or is to have one. */
  #waits(message: Message): boolean {
    return this.#lock.busy || this.#slow(message);
  }

  /** @param lend whether the message stays as it is until it has left */
  #sendWhole(message: Message, lend: boolean, compress?: boolean): Promise<void> {
    if (!this.#host.canWrite()) throw this.#host.closedError();
    this.#messagesSent++;
    if (typeof message === "string" && this.#protocol.writeText(message, this.outbox.writer)) {
      return this.outbox.settle(false);
    }
    const long = typeof message !== "string" && message.length >= BORROW_FROM;
    const borrow = lend && long && isFixed(message);
    this.#write(message, true, compress, borrow ? "borrow" : "copy");
    return this.outbox.settle(borrow);
  }

  #write(
    data: Message,
    fin: boolean,
    compress: boolean | undefined,
    ownership: Ownership,
    later?: (error?: Error) => void,
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

  /** Sends behind the message that is under way (RFC 6455 §5.4), or one that takes its time. */
  async #sendInTurn(message: Message, lend: boolean, options: SendOptions): Promise<void> {
    this.#waiting += message.length;
    let sent: { left: Promise<void> };
    try {
      await this.#lock.acquire("whole", options.signal);
      try {
        sent = await this.#sendNow(message, lend, options);
      } finally {
        this.#lock.release();
      }
    } finally {
      this.#waiting -= message.length;
    }
    await sent.left;
  }

  /** Its turn has come. The promise of having left is given inside of another, lest it be waited for. */
  async #sendNow(
    message: Message,
    lend: boolean,
    { compress }: SendOptions,
  ): Promise<{ left: Promise<void> }> {
    if (!this.#slow(message)) return { left: this.#sendWhole(message, lend, compress) };
    await this.#writeLater(lend ? message : ownItem(message), true, compress);
    this.#messagesSent++;
    return { left: this.outbox.settle(false) };
  }

  /** Writes a frame as soon as the extensions are done with it, unless the connection ends before. */
  #writeLater(data: Message, fin: boolean, compress: boolean | undefined): Promise<void> {
    if (!this.#host.canWrite()) throw this.#host.closedError();
    return new Promise((resolve, reject) => {
      this.#interrupt = reject;
      this.#encoding = true;
      const written = this.#write(data, fin, compress, "copy", (error) => {
        this.#encoding = false;
        if (error === undefined) return resolve();
        // The peer's half of the compressor knows nothing of what ours has failed on.
        if (this.#host.canWrite()) this.#host.failMidway(error);
        reject(error);
      });
      if (!written) return;
      this.#encoding = false;
      resolve();
    });
  }

  async #sendFragments(
    items: AsyncIterable<Message> | Iterable<Message>,
    options: SendOptions,
  ): Promise<void> {
    try {
      if (!this.#host.canSend()) throw this.#host.closedError();
      await this.#lock.acquire("items", options.signal);
      await this.#sendItems(items, options);
    } catch (error) {
      if (items instanceof StreamSource) items.cancel(error);
      throw error;
    }
    await this.outbox.settle(false);
  }

  async #sendItems(
    items: AsyncIterable<Message> | Iterable<Message>,
    options: SendOptions,
  ): Promise<void> {
    const { signal } = options;
    const abort = () => {
      // What is being encoded is waited for: the message goes on, or fails, behind it.
      if (!this.#encoding) this.#interrupt?.(signal!.reason);
    };
    signal?.addEventListener("abort", abort, { once: true });
    try {
      await this.#writeItems(items, options);
    } finally {
      signal?.removeEventListener("abort", abort);
      this.#lock.release();
    }
  }

  async #writeItems(
    items: AsyncIterable<Message> | Iterable<Message>,
    { text, signal, compress }: SendOptions,
  ): Promise<void> {
    const source = marked(items);
    const convert = itemConverter(text);
    let begun = false;
    try {
      for (;;) {
        const { done, value } = await this.#interruptible(source.next(), signal);
        if (done) return;
        this.#checkGoingOn(signal);
        const data = convert(value);
        if (this.#slow(data)) await this.#writeLater(data, value.last, compress);
        else this.#write(data, value.last, compress, "copy");
        if (value.last) break;
        begun = true;
        await this.#interruptible(this.outbox.settle(false), signal);
      }
      this.#messagesSent++;
    } catch (error) {
      // The source may be in the middle of an item, and is told once it has it.
      handled(source.return());
      if (begun && this.#host.canSend()) this.#host.failMidway(error);
      throw error;
    }
  }

  #checkGoingOn(signal: AbortSignal | undefined): void {
    signal?.throwIfAborted();
    if (!this.#host.canSend()) throw this.#host.closedError();
  }

  /** Waits, unless the connection ends or the signal is aborted meanwhile. */
  #interruptible<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    this.#checkGoingOn(signal);
    // Not a race: one against a promise that long outlives it would leave a reaction there.
    return new Promise((resolve, reject) => {
      this.#interrupt = reject;
      promise.then(resolve, reject);
    });
  }

  /** See `WebSocketConnection`. */
  get writable(): WritableStream<Message | BufferSource> {
    return this.#writable ??= new WritableStream({
      start: (controller) => {
        this.#controller = controller;
        // An abort waits for the write that is under way, and that may wait for the peer.
        controller.signal?.addEventListener(
          "abort",
          () => this.#host.leave(controller.signal.reason),
        );
        if (this.#ended !== undefined) controller.error(this.#ended.error);
      },
      write: (chunk) => this.#writeChunk(toMessage(chunk)),
      close: () => {
        this.#closing = true;
        return this.#host.finish();
      },
      abort: (reason) => this.#host.leave(reason),
    });
  }

  #writeChunk(message: Message): Promise<void> {
    if (!this.#host.canSend()) throw this.#host.closedError();
    if (!this.#waits(message)) return this.#sendWhole(message, false);
    return this.#sendInTurn(ownItem(message), true, {});
  }

  /** Sends a ping, a pong or a Close, between the frames of a message if need be. */
  control(event: PingEvent | PongEvent | CloseEvent): void {
    if (!this.#host.canWrite()) throw this.#host.closedError();
    this.#protocol.write(event, this.outbox.writer);
    this.outbox.post();
  }

  /** RFC 6455 §5.5.2: a ping is answered; §5.5.3: of several, the last one is enough. */
  answer(payload: Uint8Array): void {
    if (!this.#host.canWrite()) return;
    if (this.outbox.bufferedAmount > SEND_MARK) {
      // A peer that pings and does not read must not make us hold ever more pongs.
      this.#owedPong = payload.slice();
    } else {
      this.control({ type: "pong", payload });
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
   * items are yet to come might never end: it is cut short, and so is what waits behind it.
   */
  beforeClose(write: () => void): void {
    if (this.#lock.holder !== "whole") {
      write();
      return this.refuse(this.#host.closedError(), { all: false });
    }
    this.#lock.fail(this.#host.closedError(), "items");
    const turn = this.#lock.acquire("whole").then(() => {
      this.#lock.release();
      write();
    });
    handled(turn);
  }

  /**
   * Refuses the sends that wait for their turn and the message that is under way, and if need be the
   * sends that wait for room.
   */
  refuse(error: unknown, { all }: { all: boolean }): void {
    this.#lock.fail(error);
    this.#interrupt?.(error);
    if (all) this.outbox.fail(error);
  }

  /** Nothing more is sent. A stream that was closed by its writer stays closed. */
  end(error: unknown): void {
    this.refuse(error, { all: true });
    this.#ended = { error };
    if (!this.#closing) this.#controller?.error(error);
  }
}

/** Makes the items of a message what is sent; all must be of one type. */
function itemConverter(text: boolean | undefined): (item: Item) => Message {
  let decoder: TextDecoder | undefined;
  let encoder: TextEncoder | undefined;
  let begun: Message | undefined;
  /** Items that should be text may cut its characters anywhere. */
  const decode = (bytes: Uint8Array, stream: boolean) => {
    decoder ??= new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    return asText(() => decoder!.decode(bytes, { stream }));
  };
  const convert = (data: Message, last: boolean) => {
    if (text === undefined || text === (typeof data === "string")) return data;
    if (typeof data !== "string") return decode(data, !last);
    encoder ??= new TextEncoder();
    return encoder.encode(data);
  };
  return ({ value, last, behind }) => {
    if (behind && decoder !== undefined) return decode(new Uint8Array(0), false);
    if (behind) return typeof begun === "string" ? "" : new Uint8Array(0);
    const data = typeof value === "string" ? value : viewOf(value);
    if (data === undefined) {
      throw new TypeError(`Expected each item to be a string or bytes, received ${typeof value}`);
    }
    const typed = convert(data, last);
    if (begun !== undefined && typeof typed !== typeof begun) {
      throw new TypeError("Expected the items of a message to be of one type, received both");
    }
    return begun = typed;
  };
}

function asText(decode: () => string): string {
  try {
    return decode();
  } catch (cause) {
    throw new RangeError("Expected a text message to be UTF-8, received other bytes", { cause });
  }
}
