/** A native WebSocket: its limits, what it has not sent yet, and its end. */
import { handled } from "../abortable.ts";
import { viewOf } from "../connection/outgoing.ts";
import { sizeOf } from "../connection/inbox.ts";
import { SEND_MARK } from "../connection/sender.ts";
import { type CloseInfo, isWireCloseCode, PRIVATE_USE } from "../core/close.ts";
import {
  failure,
  HandshakeError,
  invalidState,
  isScriptCloseCode,
  webSocketError,
  wrongType,
  wrongValue,
} from "../core/error.ts";
import { type Message, ownBytes } from "../core/message.ts";
import { checkNumber, checkSignal, checkSlow, kindOf, type OptionCheck } from "../core/options.ts";
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

type SocketOption =
  | "signal"
  | "maxMessageSize"
  | "maxBufferedAmount"
  | "slow"
  | "openTimeout"
  | "closeTimeout"
  | "maxQueuedBytes";

/** The options of every connection over a native WebSocket. */
export const SOCKET_OPTIONS: Readonly<Record<SocketOption, OptionCheck>> = {
  signal: checkSignal,
  maxMessageSize: checkNumber,
  maxBufferedAmount: checkNumber,
  slow: checkSlow,
  openTimeout: checkNumber,
  closeTimeout: checkNumber,
  maxQueuedBytes: checkNumber,
};

/** The value of `readyState` when the socket is open (WHATWG WebSockets). */
export const OPEN = 1;

/** The sockets that have a connection. A second connection would take messages from the first one. */
const used = new WeakSet<WebSocketLike>();

/** Maximum time between two checks of `bufferedAmount`, in milliseconds. */
const LONGEST_DELAY = 64;
/** Default for the maximum size of the messages that wait to be read. */
export const MAX_QUEUED_BYTES = 4194304;

/** Without a listener for "error", the package `ws` throws. */
const ignore = () => {};

/** A native WebSocket with limits, and with the amounts that it has not sent. */
export abstract class NativeSocket {
  readonly socket: WebSocketLike;
  protected readonly maxQueuedBytes: number;
  readonly #listeners: readonly (readonly [
    type: "open" | "message" | "error" | "close",
    listener: (event: WebSocketLikeEvent) => void,
  ])[];
  /** Resolves when the socket is open. Rejects with a {@linkcode HandshakeError} if it fails to open. */
  readonly opened: Promise<void>;
  /** Whether the socket copies what it sends, as the standard says. The package `ws` does not. */
  readonly copies: boolean;
  /** Whether the socket has closed or is no longer used. */
  isDetached = false;
  #error: Error | undefined;
  /** Bytes of the messages sent. Text counts its UTF-16 code units. */
  bytesSent = 0;
  #unsent = 0;
  /** Unsent bytes of a socket that is no longer used. They count as waiting for ever. */
  #late = 0;
  #delay = 1;
  #checksSoon = false;
  #cancelCheck: (() => void) | undefined;
  readonly #check = () => this.#checkBuffered();

  /** @param maxQueuedBytes Maximum size of the messages that wait to be read. */
  constructor(socket: WebSocketLike, maxQueuedBytes: number) {
    const { WebSocket: platform } = globalThis as { WebSocket?: new (url: string) => object };
    this.copies = platform !== undefined && socket instanceof platform;
    this.socket = socket;
    this.maxQueuedBytes = maxQueuedBytes;
    let open!: () => void;
    let fail!: (error: HandshakeError) => void;
    this.opened = handled(new Promise((resolve, reject) => [open, fail] = [resolve, reject]));
    if (socket.readyState === OPEN) open();
    const onEnd = () => {
      const message = "The WebSocket failed to open";
      fail(new HandshakeError(message, "connect-failed", { cause: this.#error }));
    };
    this.#listeners = [
      ["open", () => open()],
      ["message", ({ data }) => this.#onMessage(data)],
      ["error", (event) => (this.#error ??= errorOf(event), onEnd())],
      ["close", (event) => (onEnd(), this.#onClose(event))],
    ];
    socket.binaryType = "arraybuffer";
    socket.addEventListener("error", ignore);
    for (const [type, listener] of this.#listeners) socket.addEventListener(type, listener);
  }

  /** Size of the messages that wait to be read. */
  abstract readonly queued: number;

  /** Called with each message, or with undefined for one that is neither text nor bytes. */
  protected abstract deliver(message: Message | undefined): void;

  /** The peer has received everything that was sent, as far as the platform tells. */
  protected abstract drained(): void;

  /**
   * Called once, when the socket has closed or failed.
   * @param info The peer's code and reason after a clean close.
   * @param error The reason of another end, if it is known.
   */
  protected abstract ended(info: Required<CloseInfo> | undefined, error: Error | undefined): void;

  /** Number of bytes that the platform has not sent. */
  get unsentAmount(): number {
    return this.#unsent + this.#late;
  }

  #onMessage(data: unknown): void {
    const message = toMessage(data);
    const { queued } = this;
    const most = this.maxQueuedBytes;
    // One message is always allowed.
    if (queued === 0 || message === undefined || queued + sizeOf(message) <= most) {
      return this.deliver(message);
    }
    const what = `Messages that were not read exceed maxQueuedBytes (${most})`;
    this.fail(what, 1013);
  }

  #onClose({ code = 0, reason = "", wasClean }: WebSocketLikeEvent): void {
    this.detach();
    // An unclean end has the code 1006, 0, or the code that the platform has sent itself.
    const isClean = wasClean !== false && (isWireCloseCode(code) || code === 1005);
    if (isClean) this.ended({ closeCode: code, reason }, undefined);
    else this.ended(undefined, this.#error);
  }

  /** Closes the socket with a code, and stops using it. */
  fail(message: string, closeCode: number, cause?: unknown): void {
    if (this.isDetached) return;
    this.close({ closeCode, reason: message });
    this.detach();
    this.ended(undefined, webSocketError(message, closeCode, "", cause, "platform-failed"));
  }

  /** Sends a message. Failures are reported to the owner. */
  send(data: Message, isAwaited: boolean): void {
    if (this.isDetached) {
      this.#late += data.length;
      return;
    }
    try {
      this.socket.send(data as string | Uint8Array<ArrayBuffer>);
    } catch (error) {
      return this.fail("The native WebSocket does not send", 1011, error);
    }
    this.bytesSent += data.length;
    this.#unsent += data.length;
    // The amount matters only when a send has to wait.
    if (this.#unsent > SEND_MARK) this.measure();
    this.#scheduleCheck(isAwaited || this.#unsent > SEND_MARK);
  }

  /** Starts or answers the closing handshake. The peer gets another code if this one is not allowed. */
  close({ closeCode = 1005, reason }: CloseInfo): void {
    for (const code of [closeCode, closeCode + PRIVATE_USE]) {
      try {
        if (closeCode === 1005) this.socket.close();
        else this.socket.close(code, reason);
        return;
      } catch {
        // WHATWG WebSockets: only 1000 and 3000-4999 are allowed.
      }
    }
  }

  /** Ends the socket at once, or closes it if the platform cannot do that, and stops using it. */
  cut(): void {
    if (this.isDetached) return;
    this.detach();
    if (this.socket.terminate !== undefined) this.socket.terminate();
    else this.close({});
  }

  /** Stops using the socket. */
  detach(): void {
    this.isDetached = true;
    this.#late += this.#unsent;
    this.#unsent = 0;
    this.#cancelCheck?.();
    for (const [type, listener] of this.#listeners) this.socket.removeEventListener(type, listener);
  }

  /** Asks the platform how much it has not sent. */
  protected measure(): void {
    this.#unsent = this.socket.bufferedAmount ?? 0;
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
    if (this.isDetached) return;
    const before = this.#unsent;
    this.measure();
    const unsent = this.#unsent;
    this.#delay = unsent < before || unsent === 0 ? 1 : Math.min(2 * this.#delay, LONGEST_DELAY);
    if (unsent === 0) this.drained();
    else this.#scheduleCheck(false);
  }
}

/**
 * Checks that a socket is connecting or open, and that this is its first use.
 * @throws {TypeError} If it is not a WebSocket.
 * @throws {DOMException} InvalidStateError If it is closing, closed or used for another connection.
 */
export function takeSocket(socket: WebSocketLike): void {
  const { readyState, send, close, addEventListener } = socket ?? {} as Partial<WebSocketLike>;
  const functions = [send, close, addEventListener].every((one) => typeof one === "function");
  if (typeof readyState !== "number" || !functions) {
    throw wrongType(`Expected a WebSocket, received ${kindOf(socket)}`);
  }
  if (readyState > OPEN) {
    throw invalidState(`The WebSocket is closing or closed (readyState ${readyState})`, "not-open");
  }
  if (used.has(socket)) {
    throw invalidState("The WebSocket has a connection already", "already-used");
  }
  used.add(socket);
}

/** @throws {RangeError} If a native WebSocket does not close with the code. */
export function checkNativeClose(info: CloseInfo): CloseInfo {
  const { closeCode = 1005 } = info;
  if (closeCode === 1005 || isScriptCloseCode(closeCode)) return info;
  throw wrongValue(`A native WebSocket closes with 1000 or 3000-4999 only, received ${closeCode}`);
}

function toMessage(data: unknown): Message | undefined {
  if (typeof data === "string") return data;
  const view = viewOf(data);
  return view && ownBytes(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
}

/** The length in bytes. Of text that is certainly within the limit, the code units. */
export function byteLength(message: Message, limit: number): number {
  const { length } = message;
  if (typeof message !== "string" || length > limit || 3 * length <= limit) return length;
  return new TextEncoder().encode(message).length;
}

function errorOf({ error, message }: WebSocketLikeEvent): Error {
  return error instanceof Error
    ? error
    : failure(message || "The native WebSocket has failed", "platform-failed");
}
