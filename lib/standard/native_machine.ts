/**
 * A native WebSocket as the protocol machine and the transport of a connection.
 *
 * @module
 */
import type { Machine } from "../connection/driver.ts";
import { Budget, Inbox, sizeOf, wholeFragment } from "../connection/receiver.ts";
import { CloseCode, type CloseInfo } from "../core/close.ts";
import { Encoder } from "../core/encoder.ts";
import { RemoteProtocolError, webSocketError } from "../core/error.ts";
import type { CloseEvent, ProtocolEvent } from "../core/event.ts";
import type { Role } from "../core/frame.ts";
import type { Fragment, Message } from "../core/message.ts";
import { type FrameCounts, NO_FRAMES } from "../core/protocol.ts";
import { backgroundTimer, Countdown } from "../timers.ts";
import type { TransportHandlers } from "../transport.ts";
import { BaseTransport } from "../transport_base.ts";
import {
  Gathering,
  type NativeLimits,
  type NativeOwner,
  NativeSocket,
  type WebSocketLike,
} from "./native_socket.ts";

/** The value of `readyState` after the first Close frame (WHATWG WebSockets). */
const CLOSING = 2;
/** How often in `closeTimeout` `readyState` is checked. */
const CLOSING_CHECKS = 4;
const EMPTY = new Uint8Array(0);

type Item = Fragment | CloseEvent | RemoteProtocolError;

const itemSize = (item: Item): number => "data" in item ? sizeOf(item.data) : 0;

/** The end and the unsent bytes of a native socket. No bytes pass through this transport. */
class NativeTransport extends BaseTransport {
  readonly #native: NativeSocket;
  readonly #closeTimeout: number;
  #cancelClosingCheck: (() => void) | undefined;

  constructor(native: NativeSocket, closeTimeout: number) {
    super();
    this.#native = native;
    this.#closeTimeout = closeTimeout;
  }

  override get bufferedAmount(): number {
    return this.#native.bufferedAmount;
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
    if (this.#native.isReleased) queueMicrotask(() => this.close());
  }

  protected cut(): void {
    this.#native.cut();
    queueMicrotask(() => this.close());
  }

  notify(): void {
    this.handlers?.data(EMPTY);
  }

  drained(): void {
    this.reportDrain();
  }

  close(error?: Error): void {
    this.#cancelClosingCheck?.();
    this.reportClose(error);
  }

  /**
   * Ends the connection when the socket has been closing for `closeTimeout`: Node's WebSocket reports the
   * peer's Close frame only after the peer has ended its transport.
   */
  #watchClosing(): void {
    if (this.#closeTimeout === 0 || this.#native.isReleased) return;
    this.#cancelClosingCheck = backgroundTimer(() => {
      if (this.#native.socket.readyState !== CLOSING) return this.#watchClosing();
      const countdown = new Countdown(() => this.#lose(), this.#closeTimeout);
      this.#cancelClosingCheck = () => countdown.cancel();
    }, this.#closeTimeout / CLOSING_CHECKS);
  }

  #lose(): void {
    this.#native.release();
    this.#native.socket.terminate?.();
    const message = "The socket was closing for longer than closeTimeout";
    this.close(webSocketError(message, CloseCode.Abnormal));
  }
}

/** The protocol machine over a native WebSocket. Its events are the messages of the socket. */
export class NativeMachine implements Machine, NativeOwner {
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
  readonly native: NativeSocket;
  readonly transport: NativeTransport;
  readonly #budget = new Budget(Infinity);
  readonly #queue = new Inbox<Item>(this.#budget, itemSize);
  readonly #gathering: Gathering;

  constructor(socket: WebSocketLike, limits: NativeLimits, closeTimeout: number) {
    this.native = new NativeSocket(socket, limits, this);
    this.transport = new NativeTransport(this.native, closeTimeout);
    this.#gathering = new Gathering(limits.maxQueuedBytes);
  }

  get queued(): number {
    return this.#budget.used;
  }

  receive(): void {}

  deliver(message: Message): void {
    this.#report(wholeFragment(message));
  }

  /** Reports the error after the messages before it. */
  refuse(message: string, closeCode: number): void {
    this.#report(new RemoteProtocolError(message, closeCode));
  }

  #report(item: Item): void {
    this.#queue.push(item);
    this.transport.notify();
  }

  drained(): void {
    this.transport.drained();
  }

  closed(info: Required<CloseInfo> | undefined, error: Error | undefined): void {
    const { transport } = this;
    if (transport.isEnding) transport.close();
    else if (info === undefined) transport.close(error);
    else this.#report({ type: "close", ...info });
  }

  get bufferedMemory(): number {
    return this.#budget.used;
  }

  get overhead(): number {
    return this.native.overhead;
  }

  takeHeld(): undefined {}

  release(): boolean {
    return false;
  }

  get counts(): FrameCounts {
    return NO_FRAMES;
  }

  dispose(): void {}

  next(): ProtocolEvent | undefined {
    const item = this.#queue.take();
    if (item instanceof RemoteProtocolError) throw item;
    return item;
  }

  /** Closes the socket. The platform sends pings and pongs itself. */
  write(event: ProtocolEvent): void {
    // Most platforms answer a Close frame themselves; then this call has no effect.
    if (event.type === "close") this.native.close(event);
  }

  writePiece(data: Message, fin: boolean, lend: boolean): boolean {
    const isKept = typeof data === "string" || (lend && this.native.copies);
    const kept = isKept ? data : new Uint8Array(data);
    if (fin && this.#gathering.isEmpty) this.native.send(kept, lend);
    else {
      this.#gathering.add(kept);
      if (fin) this.native.send(this.#gathering.take(), false);
    }
    return true;
  }
}
