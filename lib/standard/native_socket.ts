/**
 * A native WebSocket as what a connection drives.
 *
 * A file of its own because it stands in for both parts beneath a driver: a native socket gives
 * messages and not bytes, so that it is the protocol machine, whose events are its messages, and the
 * transport, whose end is the socket's. The rules of a connection (one reader, order at the end, sends
 * in turn) stay the driver's. Frames written in memory for a `Protocol` to read again would leave the
 * driver as it is, but take 2 to 4 µs more for a message of 1 KiB and 90 µs for one of 64 KiB, which is
 * more than the native socket itself takes.
 *
 * @module
 */
import { CloseCode, type CloseInfo, isWireCloseCode } from "../core/close.ts";
import { RemoteProtocolError, webSocketError } from "../core/error.ts";
import type { Role } from "../core/frame.ts";
import { Encoder } from "../core/encoder.ts";
import { concat, type Fragment, type Message, ownBytes } from "../core/message.ts";
import type { CloseEvent, ProtocolEvent } from "../core/event.ts";
import type { ProtocolState } from "../core/protocol.ts";
import type { Machine } from "../connection/driver.ts";
import { SEND_MARK } from "../connection/sender.ts";
import { viewOf } from "../connection/outgoing.ts";
import { Budget, Inbox, sizeOf, wholeFragment } from "../connection/receiver.ts";
import type { Transport, TransportHandlers } from "../transport.ts";
import { backgroundTimer, deadline, nextTurn } from "../timers.ts";

/** What is read of the events of a native WebSocket. */
export interface WebSocketLikeEvent {
  /** Which of them it is. */
  readonly type: string;
  /** Of "message": the message. */
  readonly data?: unknown;
  /** Of "close": the close code. */
  readonly code?: number;
  /** Of "close": the reason. */
  readonly reason?: string;
  /** Of "close": whether both Close frames went. */
  readonly wasClean?: boolean;
  /** Of "error": what went wrong, where the platform says so. */
  readonly error?: unknown;
  /** Of "error": the same in words, where the platform says so. */
  readonly message?: string;
}

/** What is needed of a native WebSocket: those of all platforms fit, and those of the package `ws`. */
export interface WebSocketLike {
  /** 0 while it connects, 1 when it is open, then 2 and 3. */
  readonly readyState: number;
  /** The bytes given to `send()` that the platform has not sent yet. Missing: nothing holds us back */
  readonly bufferedAmount?: number;
  /** The subprotocol. */
  readonly protocol?: string | null;
  /** The extensions. */
  readonly extensions?: string | null;
  /** The URL, on a client. */
  readonly url?: string | null;
  /** How binary messages come; it is set to "arraybuffer". */
  binaryType?: string;
  /** Sends a message. */
  send(data: string | Uint8Array<ArrayBuffer>): void;
  /** Starts the closing handshake. */
  close(code?: number, reason?: string): void;
  /** Ends the transport, where the platform has it. */
  terminate?(): void;
  /** Calls back at an event. */
  addEventListener(
    type: "open" | "message" | "error" | "close",
    listener: (event: WebSocketLikeEvent) => void,
  ): void;
  /** Calls back no more. */
  removeEventListener(
    type: "open" | "message" | "error" | "close",
    listener: (event: WebSocketLikeEvent) => void,
  ): void;
}

/** What a {@linkcode NativeSocket} may hold. */
export interface NativeLimits {
  /** The longest message received, in bytes. */
  maxMessageSize: number;
  /** What may wait to be read, and of one message to be sent whole. */
  maxQueuedBytes: number;
  /** How long the socket may be closing, in milliseconds; 0 disables. */
  closeTimeout: number;
}

/** The value of `readyState` from the first Close frame on (WHATWG WebSockets). */
const CLOSING = 2;
/** How often in `closeTimeout` the socket is asked whether it is closing. */
const CLOSING_CHECKS = 4;

/** How long to wait at most before asking again whether the platform has sent, in milliseconds. */
const LONGEST_DELAY = 64;
/** Added to a close code that a native WebSocket does not send, to make it one for private use. */
const PRIVATE_USE = 3000;

const EMPTY = new Uint8Array(0);

/** What was received, or in its place what is wrong with it. */
type Item = Fragment | CloseEvent | RemoteProtocolError;

const itemSize = (item: Item): number => "data" in item ? sizeOf(item.data) : 0;

/** That the events of "error" have a listener: without one `ws` throws. */
const ignore = () => {};

/** Drives a native WebSocket. */
export class NativeSocket implements Machine {
  /** Of no meaning to a native WebSocket; as a server's, nothing is masked. */
  readonly role: Role = "server";
  /** An extension is the platform's business. */
  readonly pending = false;
  readonly extended = false;
  readonly #socket: WebSocketLike;
  readonly #limits: NativeLimits;
  /** Whether it copies what it sends, as the standard says. The package `ws` keeps it until it has left. */
  readonly #copies: boolean;
  readonly #budget = new Budget(Infinity);
  readonly #queue = new Inbox<Item>(this.#budget, itemSize);
  readonly #listeners;
  /** The transport; the frames that it could be given are never written. */
  readonly transport: Transport = this.#asTransport();
  #handlers: TransportHandlers | undefined;
  #state: ProtocolState = "open";
  /** Nothing more is taken from the socket. */
  #deaf = false;
  /** The socket has closed, or was let go. */
  #gone = false;
  /** The connection has ended its side. */
  #ended = false;
  #closed = false;
  #error: Error | undefined;
  #bytesReceived = 0;
  #bytesSent = 0;
  /** The pieces of a message to send that is not whole yet. */
  #pieces: Message[] = [];
  #gathered = 0;
  #buffered = 0;
  #delay = 1;
  #asksSoon = false;
  #cancelWatch: (() => void) | undefined;
  readonly #onWatch = () => this.#watch();
  #cancelClosingCheck: (() => void) | undefined;

  /**
   * @param socket connecting or open
   * @param limits what it may hold
   */
  constructor(socket: WebSocketLike, limits: NativeLimits) {
    const { WebSocket: platform } = globalThis as { WebSocket?: new (url: string) => object };
    this.#socket = socket;
    this.#copies = platform !== undefined && socket instanceof platform;
    this.#limits = limits;
    this.#listeners = {
      message: ({ data }: WebSocketLikeEvent) => this.#onMessage(data),
      error: (event: WebSocketLikeEvent) => this.#error ??= errorOf(event),
      close: (event: WebSocketLikeEvent) => this.#onClose(event),
    };
    socket.binaryType = "arraybuffer";
    socket.addEventListener("error", ignore);
    this.#listen("addEventListener");
  }

  #listen(method: "addEventListener" | "removeEventListener"): void {
    const { message, error, close } = this.#listeners;
    this.#socket[method]("message", message);
    this.#socket[method]("error", error);
    this.#socket[method]("close", close);
  }

  /** The bytes of the messages received. */
  get bytesReceived(): number {
    return this.#bytesReceived;
  }

  /** The bytes of the messages sent; text counts its length. */
  get bytesSent(): number {
    return this.#bytesSent;
  }

  // From the socket

  #onMessage(data: unknown): void {
    if (this.#deaf) return;
    const message = toMessage(data);
    if (message === undefined) {
      return this.#refuse("Expected text or an ArrayBuffer", CloseCode.UnsupportedData);
    }
    const { maxMessageSize, maxQueuedBytes } = this.#limits;
    const size = byteLength(message, maxMessageSize);
    if (size > maxMessageSize) {
      return this.#refuse(
        `Expected a message of at most ${maxMessageSize} bytes, received ${size}`,
        CloseCode.MessageTooBig,
      );
    }
    const { used } = this.#budget;
    // As in the inbox, one is let in whatever the limit.
    if (used > 0 && used + sizeOf(message) > maxQueuedBytes) {
      return this.#fail(
        `Expected messages to be read as they come, ${maxQueuedBytes} bytes of them wait`,
        CloseCode.TryAgainLater,
      );
    }
    this.#bytesReceived += size;
    this.#queue.push(wholeFragment(message));
    this.#handlers?.data(EMPTY);
  }

  /** Takes no more, and says so behind what came before. */
  #refuse(message: string, closeCode: number): void {
    this.#deaf = true;
    this.#queue.push(new RemoteProtocolError(message, closeCode));
    this.#handlers?.data(EMPTY);
  }

  #onClose({ code = 0, reason = "", wasClean }: WebSocketLikeEvent): void {
    this.#letGo();
    if (this.#ended) return this.#close();
    // What is unclean is reported as 1006, or 0, or with the code that the platform itself had sent.
    if (wasClean === false || !(isWireCloseCode(code) || code === CloseCode.NoStatus)) {
      return this.#close(this.#error);
    }
    this.#queue.push({ type: "close", closeCode: code, reason });
    this.#handlers?.data(EMPTY);
  }

  #letGo(): void {
    this.#deaf = this.#gone = true;
    this.#cancelWatch?.();
    this.#cancelClosingCheck?.();
    this.#listen("removeEventListener");
  }

  /** Ends the connection: the peer is told the code. */
  #fail(message: string, closeCode: number, cause?: unknown): void {
    if (this.#gone) return;
    this.#closeSocket({ closeCode, reason: message });
    this.#letGo();
    this.#close(webSocketError(message, closeCode, "", cause));
  }

  #close(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#error = error;
    this.#handlers?.close(error);
  }

  // As the protocol machine

  /** Where the closing handshake stands. */
  get state(): ProtocolState {
    return this.#state;
  }

  /** Whether both Close frames went: the socket has ended its transport then. */
  get endsTransport(): boolean {
    return this.#state === "closed";
  }

  /** Nothing: what is received comes from the socket's events. */
  receive(): void {}

  /** Without effect: messages come whole. */
  whole = true;
  readonly held = 0;

  /** Nothing: messages come whole. */
  takeHeld(): undefined {}

  /** There are no chunks. */
  release(): boolean {
    return false;
  }

  /** What waits to be read. */
  get bufferedAmount(): number {
    return 0;
  }

  get bufferedMemory(): number {
    return this.#budget.used;
  }

  /** Nothing: no extensions are ours to free. */
  dispose(): void {}

  /** The next event. */
  next(): ProtocolEvent | undefined {
    const item = this.#queue.take();
    if (item instanceof RemoteProtocolError) throw item;
    if (item?.type === "close") {
      this.#state = this.#state === "local-closing" ? "closed" : "remote-closing";
    }
    return item;
  }

  /** Nothing is written to it: the frames are not ours. */
  readonly encoder = new Encoder("server");

  /** Closes the socket; pings and pongs are the platform's. */
  write(event: ProtocolEvent): void {
    if (event.type !== "close") return;
    this.#state = this.#state === "remote-closing" ? "closed" : "local-closing";
    // An answer too: most platforms have given it by themselves, and then this is without effect.
    this.#closeSocket(event);
  }

  /** Sends a message, or gathers its pieces. */
  writePiece(data: Message, fin: boolean, lend: boolean): boolean {
    const isKept = typeof data === "string" || (lend && this.#copies);
    this.#write(isKept ? data : new Uint8Array(data), fin, lend);
    return true;
  }

  /** @param awaited whether the sender waits until the socket has sent */
  #write(data: Message, messageFinished: boolean, awaited: boolean): void {
    if (messageFinished && this.#pieces.length === 0) return this.#send(data, awaited);
    this.#gathered += data.length;
    const { maxQueuedBytes } = this.#limits;
    if (this.#gathered > maxQueuedBytes) {
      this.#pieces = [];
      this.#gathered = 0;
      throw new RangeError(
        `Expected the pieces of a message to make up at most ${maxQueuedBytes} bytes, it goes on`,
      );
    }
    this.#pieces.push(data);
    if (!messageFinished) return;
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#gathered = 0;
    this.#send(typeof data === "string" ? pieces.join("") : concat(pieces as Uint8Array[]), false);
  }

  #send(data: Message, awaited: boolean): void {
    // What cannot leave any more waits for ever, so that sends behind it do not seem to succeed.
    this.#buffered += data.length;
    if (this.#gone) return;
    try {
      this.#socket.send(data as string | Uint8Array<ArrayBuffer>);
    } catch (error) {
      return this.#fail("The native WebSocket does not send", CloseCode.InternalError, error);
    }
    this.#bytesSent += data.length;
    // Asking costs more than adding up, and makes a difference only when a send has to wait.
    if (this.#buffered > SEND_MARK) this.#buffered = this.#socket.bufferedAmount ?? 0;
    this.#watchFrom(awaited || this.#buffered > SEND_MARK);
  }

  #closeSocket({ closeCode, reason }: CloseInfo): void {
    for (const code of [closeCode!, closeCode! + PRIVATE_USE]) {
      try {
        if (closeCode === CloseCode.NoStatus) this.#socket.close();
        else this.#socket.close(code, reason);
        return;
      } catch {
        // Only 1000 and 3000-4999 are for the users of a native WebSocket (WHATWG WebSockets).
      }
    }
  }

  // As the transport

  #asTransport(): Transport {
    const buffered = () => this.#buffered;
    return {
      get bufferedAmount() {
        return buffered();
      },
      handle: (handlers) => this.#handle(handlers),
      write() {},
      // The events that wait are not taken meanwhile; the socket itself cannot be held back.
      pause() {},
      resume() {},
      end: () => {
        this.#ended = true;
        if (this.#gone) queueMicrotask(() => this.#close());
      },
      destroy: () => this.#destroy(),
    };
  }

  #handle(handlers: TransportHandlers): void {
    this.#handlers = handlers;
    this.#checkClosing();
    const closed = this.#closed;
    queueMicrotask(() => {
      if (closed !== this.#closed) return;
      handlers.data(EMPTY);
      if (closed) handlers.close(this.#error);
    });
  }

  #destroy(): void {
    if (!this.#gone) {
      this.#letGo();
      if (this.#socket.terminate !== undefined) this.#socket.terminate();
      else this.#closeSocket({ closeCode: CloseCode.NoStatus });
    }
    queueMicrotask(() => this.#close());
  }

  /**
   * Ends the connection when the socket has been closing for `closeTimeout`: Node's WebSocket tells of the
   * peer's Close only when the peer has ended its transport, too.
   */
  #checkClosing(): void {
    const { closeTimeout } = this.#limits;
    if (closeTimeout === 0 || this.#gone) return;
    this.#cancelClosingCheck = backgroundTimer(() => {
      if (this.#socket.readyState !== CLOSING) return this.#checkClosing();
      this.#cancelClosingCheck = deadline(() => this.#lose(), closeTimeout);
    }, closeTimeout / CLOSING_CHECKS);
  }

  #lose(): void {
    this.#letGo();
    this.#socket.terminate?.();
    this.#close(
      webSocketError("The socket is closing, and its transport does not end", CloseCode.Abnormal),
    );
  }

  /**
   * No event says that the platform has sent, so that it is asked from time to time.
   *
   * @param soon whether somebody waits for it; a turn of the event loop of its own costs more than a
   * timer
   */
  #watchFrom(soon: boolean): void {
    if (soon && !this.#asksSoon) {
      this.#asksSoon = true;
      nextTurn(this.#onWatch);
    } else if (this.#cancelWatch === undefined) {
      this.#cancelWatch = backgroundTimer(this.#onWatch, this.#delay);
    }
  }

  #watch(): void {
    this.#asksSoon = false;
    this.#cancelWatch?.();
    this.#cancelWatch = undefined;
    if (this.#gone) return;
    const { bufferedAmount = 0 } = this.#socket;
    this.#delay = bufferedAmount < this.#buffered || bufferedAmount === 0
      ? 1
      : Math.min(2 * this.#delay, LONGEST_DELAY);
    this.#buffered = bufferedAmount;
    if (bufferedAmount === 0) this.#handlers?.drain();
    else this.#watchFrom(false);
  }
}

function toMessage(data: unknown): Message | undefined {
  if (typeof data === "string") return data;
  const view = viewOf(data);
  return view && ownBytes(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
}

/** The length in bytes, where it makes a difference to the limit. */
function byteLength(message: Message, limit: number): number {
  const { length } = message;
  if (typeof message !== "string" || length > limit || 3 * length <= limit) return length;
  return new TextEncoder().encode(message).length;
}

function errorOf({ error, message }: WebSocketLikeEvent): Error {
  return error instanceof Error ? error : new Error(message || "The native WebSocket has failed");
}
