/**
 * A native WebSocket: its limits, what it has not sent yet, and its end.
 *
 * @module
 */
import { viewOf } from "../connection/outgoing.ts";
import { sizeOf } from "../connection/receiver.ts";
import { MESSAGE_OVERHEAD, SEND_MARK } from "../connection/sender.ts";
import { CloseCode, type CloseInfo, isWireCloseCode } from "../core/close.ts";
import { failure, webSocketError, wrongValue } from "../core/error.ts";
import { concat, type Message, ownBytes } from "../core/message.ts";
import { backgroundTimer, nextTurn } from "../timers.ts";

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
  // `Uint8Array<ArrayBuffer>` would need TypeScript 5.7.
  send(data: string | Uint8Array & { readonly buffer: ArrayBuffer }): void;
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
}

/** What uses a {@linkcode NativeSocket}. */
export interface NativeOwner {
  /** Size of the messages that wait to be read. */
  readonly queued: number;
  deliver(message: Message): void;
  /** Called for a message that must not be received. The socket is not read any more. */
  refuse(message: string, closeCode: number): void;
  /** The peer has received everything that was sent, as far as the platform tells. */
  drained(): void;
  /**
   * Called once, when the socket has closed or failed.
   *
   * @param info The peer's code and reason after a clean close.
   * @param error The reason of another end, if it is known.
   */
  closed(info: Required<CloseInfo> | undefined, error: Error | undefined): void;
}

/** Maximum time between two checks of `bufferedAmount`, in milliseconds. */
const LONGEST_DELAY = 64;
/** Added to a close code that a native WebSocket refuses. The sum is a code for private use. */
const PRIVATE_USE = 3000;

/** Without a listener for "error", the package `ws` throws. */
const ignore = () => {};

/** A native WebSocket with limits, and with the amounts that it has not sent. */
export class NativeSocket {
  readonly socket: WebSocketLike;
  readonly #limits: NativeLimits;
  readonly #owner: NativeOwner;
  readonly #listeners: readonly (readonly [
    type: "message" | "error" | "close",
    listener: (event: WebSocketLikeEvent) => void,
  ])[];
  /** Whether the socket copies what it sends, as the standard says. The package `ws` does not. */
  readonly copies: boolean;
  /** Whether the socket has closed or is no longer used. */
  isReleased = false;
  #isDeaf = false;
  #error: Error | undefined;
  bytesReceived = 0;
  /** Bytes of the messages sent. Text counts its UTF-16 code units. */
  bytesSent = 0;
  #unsent = 0;
  /** Unsent bytes of a socket that is no longer used. They count as waiting for ever. */
  #late = 0;
  /** Estimated number of messages that the platform has not sent. */
  #waitingMessages = 0;
  #delay = 1;
  #checksSoon = false;
  #cancelCheck: (() => void) | undefined;
  readonly #check = () => this.#checkBuffered();

  constructor(socket: WebSocketLike, limits: NativeLimits, owner: NativeOwner) {
    const { WebSocket: platform } = globalThis as { WebSocket?: new (url: string) => object };
    this.copies = platform !== undefined && socket instanceof platform;
    this.socket = socket;
    this.#limits = limits;
    this.#owner = owner;
    this.#listeners = [
      ["message", ({ data }) => this.#onMessage(data)],
      ["error", (event) => this.#error ??= errorOf(event)],
      ["close", (event) => this.#onClose(event)],
    ];
    socket.binaryType = "arraybuffer";
    socket.addEventListener("error", ignore);
    for (const [type, listener] of this.#listeners) socket.addEventListener(type, listener);
  }

  /** Number of bytes that the platform has not sent. */
  get bufferedAmount(): number {
    return this.#unsent + this.#late;
  }

  /** The memory that the waiting messages take in addition to their bytes. */
  get overhead(): number {
    if (this.#unsent > 0 && !this.isReleased) this.#measure();
    return this.#waitingMessages * MESSAGE_OVERHEAD;
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
    const { queued } = this.#owner;
    // One message is always allowed.
    if (queued > 0 && queued + sizeOf(message) > maxQueuedBytes) {
      return this.fail(
        `Messages were not read in time: they exceed maxQueuedBytes (${maxQueuedBytes})`,
        CloseCode.TryAgainLater,
      );
    }
    this.bytesReceived += size;
    this.#owner.deliver(message);
  }

  #refuse(message: string, closeCode: number): void {
    this.#isDeaf = true;
    this.#owner.refuse(message, closeCode);
  }

  #onClose({ code = 0, reason = "", wasClean }: WebSocketLikeEvent): void {
    this.release();
    // An unclean end has the code 1006, 0, or the code that the platform has sent itself.
    const isClean = wasClean !== false && (isWireCloseCode(code) || code === CloseCode.NoStatus);
    if (isClean) this.#owner.closed({ closeCode: code, reason }, undefined);
    else this.#owner.closed(undefined, this.#error);
  }

  /** Closes the socket with a code, and stops using it. */
  fail(message: string, closeCode: number, cause?: unknown): void {
    if (this.isReleased) return;
    this.close({ closeCode, reason: message });
    this.release();
    const error = webSocketError(message, closeCode, "", cause, "platform-failed");
    this.#owner.closed(undefined, error);
  }

  /** Sends a message. Failures are reported to the owner. */
  send(data: Message, isAwaited: boolean): void {
    if (this.isReleased) {
      this.#late += data.length;
      return;
    }
    try {
      this.socket.send(data as string | Uint8Array<ArrayBuffer>);
    } catch (error) {
      return this.fail("The native WebSocket does not send", CloseCode.InternalError, error);
    }
    this.bytesSent += data.length;
    this.#unsent += data.length;
    this.#waitingMessages++;
    // The amount matters only when a send has to wait.
    if (this.#unsent > SEND_MARK) this.#measure();
    this.#scheduleCheck(isAwaited || this.#unsent > SEND_MARK);
  }

  /** Starts or answers the closing handshake. The peer gets another code if this one is not allowed. */
  close({ closeCode = CloseCode.NoStatus, reason }: CloseInfo): void {
    for (const code of [closeCode, closeCode + PRIVATE_USE]) {
      try {
        if (closeCode === CloseCode.NoStatus) this.socket.close();
        else this.socket.close(code, reason);
        return;
      } catch {
        // WHATWG WebSockets: only 1000 and 3000-4999 are allowed.
      }
    }
  }

  /** Ends the socket at once, or closes it if the platform cannot do that, and stops using it. */
  cut(): void {
    if (this.isReleased) return;
    this.release();
    if (this.socket.terminate !== undefined) this.socket.terminate();
    else this.close({});
  }

  /** Stops using the socket. */
  release(): void {
    this.isReleased = this.#isDeaf = true;
    this.#late += this.#unsent;
    this.#unsent = 0;
    this.#cancelCheck?.();
    for (const [type, listener] of this.#listeners) this.socket.removeEventListener(type, listener);
  }

  /** Estimates the number of waiting messages, because the platform only counts bytes. */
  #measure(): void {
    const { bufferedAmount = 0 } = this.socket;
    const share = bufferedAmount === 0 ? 0 : Math.min(1, bufferedAmount / this.#unsent);
    this.#waitingMessages = Math.ceil(this.#waitingMessages * share);
    this.#unsent = bufferedAmount;
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
    const before = this.#unsent;
    this.#measure();
    const unsent = this.#unsent;
    this.#delay = unsent < before || unsent === 0 ? 1 : Math.min(2 * this.#delay, LONGEST_DELAY);
    if (unsent === 0) this.#owner.drained();
    else this.#scheduleCheck(false);
  }
}

/** Joins the pieces of a message, because a native WebSocket sends whole messages. */
export class Gathering {
  readonly #limit: number;
  #pieces: Message[] = [];
  #length = 0;

  /** @param maxQueuedBytes Maximum size of the message. */
  constructor(maxQueuedBytes: number) {
    this.#limit = maxQueuedBytes;
  }

  get isEmpty(): boolean {
    return this.#pieces.length === 0;
  }

  /** @throws {RangeError} If the pieces exceed the limit. They are dropped then. */
  add(piece: Message): void {
    this.#pieces.push(piece);
    this.#length += piece.length;
    if (this.#length <= this.#limit) return;
    this.#clear();
    throw wrongValue(
      `The pieces of a message exceed maxQueuedBytes (${this.#limit}), and a native WebSocket ` +
        "sends whole messages",
    );
  }

  take(): Message {
    const pieces = this.#clear();
    return typeof pieces[0] === "string" ? pieces.join("") : concat(pieces as Uint8Array[]);
  }

  #clear(): Message[] {
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#length = 0;
    return pieces;
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
  return error instanceof Error
    ? error
    : failure(message || "The native WebSocket has failed", "platform-failed");
}
