/**
 * A native WebSocket as the protocol machine and the transport of a connection.
 *
 * @module
 */
import type { Machine } from "../connection/driver.ts";
import { viewOf } from "../connection/outgoing.ts";
import { Budget, Inbox, sizeOf, wholeFragment } from "../connection/receiver.ts";
import { MESSAGE_OVERHEAD, SEND_MARK } from "../connection/sender.ts";
import { CloseCode, type CloseInfo, isWireCloseCode } from "../core/close.ts";
import { Encoder } from "../core/encoder.ts";
import { RemoteProtocolError, webSocketError } from "../core/error.ts";
import type { CloseEvent, ProtocolEvent } from "../core/event.ts";
import type { Role } from "../core/frame.ts";
import { concat, type Fragment, type Message, ownBytes } from "../core/message.ts";
import type { ProtocolState } from "../core/protocol.ts";
import { backgroundTimer, deadline, nextTurn } from "../timers.ts";
import type { TransportHandlers } from "../transport.ts";
import { BaseTransport } from "../transport_base.ts";

/** An event of a native WebSocket. */
export interface WebSocketLikeEvent {
  /** The type of the event. */
  readonly type: string;
  /** Of "message": the message. */
  readonly data?: unknown;
  /** Of "close": the close code. */
  readonly code?: number;
  /** Of "close": the reason. */
  readonly reason?: string;
  /** Of "close": whether both Close frames were exchanged. */
  readonly wasClean?: boolean;
  /** Of "error": the error, on some platforms. */
  readonly error?: unknown;
  /** Of "error": the error message, on some platforms. */
  readonly message?: string;
}

/** A native WebSocket: that of any platform, or of the package `ws`. */
export interface WebSocketLike {
  /** 0 while it connects, 1 when it is open, then 2 and 3. */
  readonly readyState: number;
  /** Bytes given to `send()` that the platform has not sent yet. If missing, sends never wait. */
  readonly bufferedAmount?: number;
  /** The subprotocol. */
  readonly protocol?: string | null;
  /** The extensions. */
  readonly extensions?: string | null;
  /** The URL, on a client. */
  readonly url?: string | null;
  /** The type of binary messages; it is set to "arraybuffer". */
  binaryType?: string;
  /** Sends a message. */
  send(data: string | Uint8Array<ArrayBuffer>): void;
  /** Starts the closing handshake. */
  close(code?: number, reason?: string): void;
  /** Cuts the transport, if the platform has this method. */
  terminate?(): void;
  /** Adds a listener. */
  addEventListener(
    type: "open" | "message" | "error" | "close",
    listener: (event: WebSocketLikeEvent) => void,
  ): void;
  /** Removes a listener. */
  removeEventListener(
    type: "open" | "message" | "error" | "close",
    listener: (event: WebSocketLikeEvent) => void,
  ): void;
}

export interface NativeLimits {
  /** Maximum size of a message to receive, in bytes. */
  maxMessageSize: number;
  /** Maximum size of the messages that wait to be read, and of a message that is sent in pieces. */
  maxQueuedBytes: number;
  /** Maximum time that the socket may be closing, in milliseconds. 0 disables the limit. */
  closeTimeout: number;
}

/** The value of `readyState` after the first Close frame (WHATWG WebSockets). */
const CLOSING = 2;
/** How often in `closeTimeout` `readyState` is checked. */
const CLOSING_CHECKS = 4;
/** Maximum time between two checks of `bufferedAmount`, in milliseconds. */
const LONGEST_DELAY = 64;
/** Added to a close code that a native WebSocket refuses. The sum is a code for private use. */
const PRIVATE_USE = 3000;
const EMPTY = new Uint8Array(0);

type Item = Fragment | CloseEvent | RemoteProtocolError;

const itemSize = (item: Item): number => "data" in item ? sizeOf(item.data) : 0;

/** Without a listener for "error", the package `ws` throws. */
const ignore = () => {};

/** The end and the unsent bytes of a native socket. No bytes pass through this transport. */
class NativeTransport extends BaseTransport {
  readonly #socket: WebSocketLike;
  readonly #closeTimeout: number;
  readonly #onRelease: () => void;
  /** Whether the socket has closed or is no longer used. */
  isReleased = false;
  /** Estimated number of messages that the platform has not sent. */
  #waitingMessages = 0;
  #delay = 1;
  #checksSoon = false;
  #cancelCheck: (() => void) | undefined;
  #cancelClosingCheck: (() => void) | undefined;
  readonly #check = () => this.#checkBuffered();

  constructor(socket: WebSocketLike, closeTimeout: number, onRelease: () => void) {
    super();
    this.#socket = socket;
    this.#closeTimeout = closeTimeout;
    this.#onRelease = onRelease;
  }

  override handle(handlers: TransportHandlers): void {
    const wasClosed = this.isClosed;
    // The driver first reads what has arrived, then learns of the end.
    queueMicrotask(() => {
      if (wasClosed === this.isClosed) handlers.data(EMPTY);
    });
    super.handle(handlers);
  }

  get isClosed(): boolean {
    return this.phase === "closed";
  }

  get isEnding(): boolean {
    return this.phase === "ending";
  }

  protected start(): void {
    this.#watchClosing();
  }

  write(): void {}

  // The socket cannot be paused. The driver leaves its messages in the queue.
  pause(): void {}

  resume(): void {}

  protected finish(): void {
    if (this.isReleased) queueMicrotask(() => this.close());
  }

  protected cut(): void {
    if (!this.isReleased) {
      this.release();
      if (this.#socket.terminate !== undefined) this.#socket.terminate();
      else this.closeSocket({ closeCode: CloseCode.NoStatus });
    }
    queueMicrotask(() => this.close());
  }

  notify(): void {
    this.handlers?.data(EMPTY);
  }

  close(error?: Error): void {
    this.reportClose(error);
  }

  /** Stops using the socket. Unsent messages count as waiting for ever. */
  release(): void {
    this.isReleased = true;
    this.late += this.unsent;
    this.unsent = 0;
    this.#cancelCheck?.();
    this.#cancelClosingCheck?.();
    this.#onRelease();
  }

  send(data: Message, isAwaited: boolean): void {
    if (this.isReleased) {
      this.late += data.length;
      return;
    }
    this.#socket.send(data as string | Uint8Array<ArrayBuffer>);
    this.unsent += data.length;
    this.#waitingMessages++;
    // The amount matters only when a send has to wait.
    if (this.unsent > SEND_MARK) this.#measure();
    this.#scheduleCheck(isAwaited || this.unsent > SEND_MARK);
  }

  closeSocket({ closeCode, reason }: CloseInfo): void {
    for (const code of [closeCode!, closeCode! + PRIVATE_USE]) {
      try {
        if (closeCode === CloseCode.NoStatus) this.#socket.close();
        else this.#socket.close(code, reason);
        return;
      } catch {
        // WHATWG WebSockets: only 1000 and 3000-4999 are allowed.
      }
    }
  }

  /** The memory that the waiting messages take in addition to their bytes. */
  get overhead(): number {
    if (this.unsent > 0 && !this.isReleased) this.#measure();
    return this.#waitingMessages * MESSAGE_OVERHEAD;
  }

  /** Estimates the number of waiting messages, because the platform only counts bytes. */
  #measure(): void {
    const { bufferedAmount = 0 } = this.#socket;
    const share = bufferedAmount === 0 ? 0 : Math.min(1, bufferedAmount / this.unsent);
    this.#waitingMessages = Math.ceil(this.#waitingMessages * share);
    this.unsent = bufferedAmount;
  }

  /** No event reports that the platform has sent. A turn of the event loop comes sooner than a timer. */
  #scheduleCheck(isSoon: boolean): void {
    if (isSoon && !this.#checksSoon) {
      this.#checksSoon = true;
      nextTurn(this.#check);
    } else if (this.#cancelCheck === undefined) {
      this.#cancelCheck = backgroundTimer(this.#check, this.#delay);
    }
  }

  #checkBuffered(): void {
    this.#checksSoon = false;
    this.#cancelCheck?.();
    this.#cancelCheck = undefined;
    if (this.isReleased) return;
    const before = this.unsent;
    this.#measure();
    const { unsent } = this;
    this.#delay = unsent < before || unsent === 0 ? 1 : Math.min(2 * this.#delay, LONGEST_DELAY);
    if (unsent === 0) this.reportDrain();
    else this.#scheduleCheck(false);
  }

  /**
   * Ends the connection when the socket has been closing for `closeTimeout`: Node's WebSocket reports the
   * peer's Close frame only after the peer has ended its transport.
   */
  #watchClosing(): void {
    if (this.#closeTimeout === 0 || this.isReleased) return;
    this.#cancelClosingCheck = backgroundTimer(() => {
      if (this.#socket.readyState !== CLOSING) return this.#watchClosing();
      this.#cancelClosingCheck = deadline(() => this.#lose(), this.#closeTimeout);
    }, this.#closeTimeout / CLOSING_CHECKS);
  }

  #lose(): void {
    this.release();
    this.#socket.terminate?.();
    const message = "The socket was closing for longer than closeTimeout";
    this.close(webSocketError(message, CloseCode.Abnormal));
  }
}

/** The protocol machine over a native WebSocket. Its events are the messages of the socket. */
export class NativeSocket implements Machine {
  /** A native WebSocket masks by itself. */
  readonly role: Role = "server";
  /** The platform applies the extensions. */
  readonly pending = false;
  readonly extended = false;
  /** Messages are always whole. */
  whole = true;
  readonly held = 0;
  readonly bufferedAmount = 0;
  /** The platform writes the frames. */
  readonly encoder: Encoder = new Encoder("server");
  readonly transport: NativeTransport;
  readonly #limits: NativeLimits;
  /** Whether the socket copies what it sends, as the standard says. The package `ws` does not. */
  readonly #copies: boolean;
  readonly #budget = new Budget(Infinity);
  readonly #queue = new Inbox<Item>(this.#budget, itemSize);
  #state: ProtocolState = "open";
  #isDeaf = false;
  #error: Error | undefined;
  #bytesReceived = 0;
  #bytesSent = 0;
  #pieces: Message[] = [];
  #gathered = 0;

  constructor(socket: WebSocketLike, limits: NativeLimits) {
    const { WebSocket: platform } = globalThis as { WebSocket?: new (url: string) => object };
    this.#copies = platform !== undefined && socket instanceof platform;
    this.#limits = limits;
    const listeners = {
      message: ({ data }: WebSocketLikeEvent) => this.#onMessage(data),
      error: (event: WebSocketLikeEvent) => this.#error ??= errorOf(event),
      close: (event: WebSocketLikeEvent) => this.#onClose(event),
    };
    const types = ["message", "error", "close"] as const;
    this.transport = new NativeTransport(socket, limits.closeTimeout, () => {
      this.#isDeaf = true;
      for (const type of types) socket.removeEventListener(type, listeners[type]);
    });
    socket.binaryType = "arraybuffer";
    socket.addEventListener("error", ignore);
    for (const type of types) socket.addEventListener(type, listeners[type]);
  }

  get bytesReceived(): number {
    return this.#bytesReceived;
  }

  /** Bytes of the messages sent. Text counts its UTF-16 code units. */
  get bytesSent(): number {
    return this.#bytesSent;
  }

  #onMessage(data: unknown): void {
    if (this.#isDeaf) return;
    const message = toMessage(data);
    if (message === undefined) {
      return this.#refuse(
        "The native WebSocket gave neither text nor an ArrayBuffer",
        CloseCode.UnsupportedData,
      );
    }
    const { maxMessageSize, maxQueuedBytes } = this.#limits;
    const size = byteLength(message, maxMessageSize);
    if (size > maxMessageSize) {
      return this.#refuse(
        `Message of ${size} bytes exceeds maxMessageSize (${maxMessageSize})`,
        CloseCode.MessageTooBig,
      );
    }
    const { used } = this.#budget;
    // One message is always allowed.
    if (used > 0 && used + sizeOf(message) > maxQueuedBytes) {
      return this.#fail(
        `Messages were not read in time: they exceed maxQueuedBytes (${maxQueuedBytes})`,
        CloseCode.TryAgainLater,
      );
    }
    this.#bytesReceived += size;
    this.#queue.push(wholeFragment(message));
    this.transport.notify();
  }

  /** Ignores further messages. Reports the error after the messages before it. */
  #refuse(message: string, closeCode: number): void {
    this.#isDeaf = true;
    this.#queue.push(new RemoteProtocolError(message, closeCode));
    this.transport.notify();
  }

  #onClose({ code = 0, reason = "", wasClean }: WebSocketLikeEvent): void {
    const { transport } = this;
    transport.release();
    if (transport.isEnding) return transport.close();
    // An unclean end has the code 1006, 0, or the code that the platform has sent itself.
    if (wasClean === false || !(isWireCloseCode(code) || code === CloseCode.NoStatus)) {
      return transport.close(this.#error);
    }
    this.#queue.push({ type: "close", closeCode: code, reason });
    transport.notify();
  }

  #fail(message: string, closeCode: number, cause?: unknown): void {
    const { transport } = this;
    if (transport.isReleased) return;
    transport.closeSocket({ closeCode, reason: message });
    transport.release();
    transport.close(webSocketError(message, closeCode, "", cause));
  }

  get state(): ProtocolState {
    return this.#state;
  }

  /** After both Close frames, the socket ends its transport itself. */
  get endsTransport(): boolean {
    return this.#state === "closed";
  }

  get bufferedMemory(): number {
    return this.#budget.used;
  }

  get overhead(): number {
    return this.transport.overhead;
  }

  receive(): void {}

  takeHeld(): undefined {}

  release(): boolean {
    return false;
  }

  dispose(): void {}

  next(): ProtocolEvent | undefined {
    const item = this.#queue.take();
    if (item instanceof RemoteProtocolError) throw item;
    if (item?.type === "close") {
      this.#state = this.#state === "local-closing" ? "closed" : "remote-closing";
    }
    return item;
  }

  /** Closes the socket. The platform sends pings and pongs itself. */
  write(event: ProtocolEvent): void {
    if (event.type !== "close") return;
    this.#state = this.#state === "remote-closing" ? "closed" : "local-closing";
    // Most platforms answer a Close frame themselves; then this call has no effect.
    this.transport.closeSocket(event);
  }

  writePiece(data: Message, fin: boolean, lend: boolean): boolean {
    const isKept = typeof data === "string" || (lend && this.#copies);
    const kept = isKept ? data : new Uint8Array(data);
    if (fin && this.#pieces.length === 0) this.#send(kept, lend);
    else this.#gather(kept, fin);
    return true;
  }

  #gather(data: Message, fin: boolean): void {
    this.#gathered += data.length;
    const { maxQueuedBytes } = this.#limits;
    const isTooLong = this.#gathered > maxQueuedBytes;
    this.#pieces.push(data);
    if (!fin && !isTooLong) return;
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#gathered = 0;
    if (isTooLong) {
      throw new RangeError(
        `The pieces of a message exceed maxQueuedBytes (${maxQueuedBytes}), and a native WebSocket ` +
          "sends whole messages",
      );
    }
    this.#send(typeof data === "string" ? pieces.join("") : concat(pieces as Uint8Array[]), false);
  }

  #send(data: Message, isAwaited: boolean): void {
    const { transport } = this;
    try {
      transport.send(data, isAwaited);
    } catch (error) {
      return this.#fail("The native WebSocket does not send", CloseCode.InternalError, error);
    }
    if (!transport.isReleased) this.#bytesSent += data.length;
  }
}

function toMessage(data: unknown): Message | undefined {
  if (typeof data === "string") return data;
  const view = viewOf(data);
  return view && ownBytes(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
}

/** The length in bytes. Of text that is certainly within the limit, the code units. */
function byteLength(message: Message, limit: number): number {
  const { length } = message;
  if (typeof message !== "string" || length > limit || 3 * length <= limit) return length;
  return new TextEncoder().encode(message).length;
}

function errorOf({ error, message }: WebSocketLikeEvent): Error {
  return error instanceof Error ? error : new Error(message || "The native WebSocket has failed");
}
