/// <reference lib="esnext.disposable" preserve="true" />
/** Connections over native WebSockets, for servers and browsers without sockets. */
import { handled } from "../abortable.ts";
import { checkCloseInfo } from "../connection/closing.ts";
import { WebSocketConnection } from "../connection/connection.ts";
import type { Machine } from "../connection/driver.ts";
import { Budget, Inbox, sizeOf } from "../connection/inbox.ts";
import { MESSAGE_OVERHEAD } from "../connection/sending.ts";
import { CloseCode, type CloseInfo } from "../core/close.ts";
import { Encoder } from "../core/encoder.ts";
import { domError, RemoteProtocolError, webSocketError, wrongValue } from "../core/error.ts";
import type { EventOf, ProtocolEvent } from "../core/event.ts";
import { type RequestHead, requestText, type ResponseHead, responseText } from "../core/http1.ts";
import {
  type Fragment,
  fragment,
  MAX_MESSAGE_SIZE,
  type Message,
  MessageAssembler,
} from "../core/message.ts";
import { checkKnown } from "../core/option_hints.ts";
import { checkType, copyOf, type OptionNames } from "../core/options.ts";
import { NO_FRAMES } from "../core/protocol.ts";
import { withDeadline } from "../opening.ts";
import { checkStrategy, type ConnectionOptions, type ConnectionStats } from "../options.ts";
import { backgroundTimer, Countdown } from "../timers.ts";
import { BaseTransport, type TransportHandlers } from "../transport.ts";
import {
  byteLength,
  checkNativeClose,
  MAX_QUEUED_BYTES,
  NativeSocket,
  SOCKET_OPTIONS,
  takeSocket,
  type WebSocketLike,
} from "./native_socket.ts";

/** Options of {@linkcode fromWebSocket}. */
export interface FromWebSocketOptions extends
  Pick<
    ConnectionOptions,
    | "signal"
    | "maxMessageSize"
    | "maxBufferedAmount"
    | "slow"
    | "openTimeout"
    | "closeTimeout"
    | "readableStrategy"
  > {
  /**
   * Maximum size of the messages that wait to be read beyond `readableStrategy`, which also measures
   * them. A native WebSocket cannot be paused, so that messages pile up if they are not read in time.
   * Beyond the limit, the connection fails with 1013, after the messages that wait.
   *
   * The limit also applies to a message that is sent in pieces, because the pieces are gathered first.
   * Beyond it, the send rejects with RangeError and the connection fails with 1011. Infinity disables the
   * limit.
   * @default {4_194_304}
   */
  maxQueuedBytes?: number | undefined;
  /**
   * On a server, the request that was upgraded. Its URL and header fields are read at once. On Deno, pass
   * a copy that was made before the upgrade, which closes the request. By default, a request for the URL
   * of the socket, without header fields.
   */
  request?: Request | undefined;
}

const FROM_WEB_SOCKET_OPTIONS: OptionNames<FromWebSocketOptions> = {
  ...SOCKET_OPTIONS,
  readableStrategy: checkStrategy,
  request: (name, value) => checkType(name, value, "a Request", value instanceof Request),
};

/**
 * Makes a connection over a native WebSocket: of a browser, of `Deno.upgradeWebSocket()`, of Cloudflare
 * Workers (after its `accept()`, and within `waitUntil()`), of the global class of any runtime, or of the
 * package `ws`. Call it before the first message arrives: earlier messages are lost.
 *
 * If a socket or a `node:http` server is available, use `connect()`, `serve()` or `attach()` instead. A
 * native WebSocket
 *
 * - cannot be paused: it receives as fast as the peer sends. `maxQueuedBytes` limits the messages that
 *   wait, and fails the connection
 * - does not report when it has sent: sends beyond 64 KiB wait while its `bufferedAmount` is not 0, which
 *   is checked every 1 to 64 ms. Without `bufferedAmount` (Workers), sends never wait
 * - has no pings: `ping()` and `pong()` reject with NotSupportedError, and there is no keepalive
 * - closes with 1000 and 3000-4999 only: `close()` throws RangeError for other codes. If the connection
 *   fails with another code, such as 1009, the peer receives the code plus 3000 unless the platform can
 *   send the code itself; our own errors have the code itself
 * - sends whole messages: an iterable or a stream is gathered first
 * - has no `terminate()`, except for `ws` and Bun: other sockets are closed and no longer used
 * - knows little: on a client, `request` has the URL (see the option `request`); `response` has the
 *   subprotocol and extensions, except on Deno's server; addresses are missing. `stats` counts the
 *   lengths of messages as bytes
 *
 * @example
 * ```ts
 * import { fromWebSocket, serve } from "sluice";
 *
 * const server = await serve({ port: 0 }, (ws) => ws.readable.pipeTo(ws.writable));
 *
 * const ws = await fromWebSocket(new WebSocket(server.url!));
 * await ws.send("Hello");
 * console.log(await ws.receive()); // Hello
 * await ws.close({ closeCode: 1000 });
 * await server.shutdown();
 * ```
 * @param socket A socket that is connecting or open, and that nobody else listens to or sends with.
 * @returns The connection, when the socket is open. The promise rejects with a {@linkcode HandshakeError}
 * if the socket does not open ("connect-failed") or not in time ("timeout"), with the reason of the signal
 * if it is aborted, with InvalidStateError if the socket is closing, closed or used for another connection,
 * and with TypeError if `socket` is not a WebSocket.
 */
export async function fromWebSocket(
  socket: WebSocketLike,
  options: FromWebSocketOptions = {},
): Promise<WebSocketConnection> {
  checkKnown("fromWebSocket()", options, FROM_WEB_SOCKET_OPTIONS);
  takeSocket(socket);
  const own = copyOf(options);
  const request = requestOf(socket, own.request);
  const machine = new NativeMachine(socket, own);
  try {
    await withDeadline(own, () => machine.opened);
  } catch (error) {
    machine.transport.destroy();
    throw error;
  }
  return new NativeConnection(machine, request, own);
}

function requestOf(
  { url }: WebSocketLike,
  request: Request | undefined,
): { head: RequestHead; secure: boolean } {
  const { protocol, host, pathname, search } = new URL(request?.url ?? (url || "ws://localhost/"));
  // The host in the URL has been checked; the Host header may not have been.
  const fields = [...request?.headers ?? []].filter(([name]) => name !== "host");
  return {
    head: {
      method: "GET",
      target: pathname + search,
      version: "1.1",
      headers: [["host", host], ...fields] as [name: string, value: string][],
    },
    secure: protocol === "https:" || protocol === "wss:",
  };
}

function responseOf({ protocol, extensions }: WebSocketLike): ResponseHead {
  const headers: [name: string, value: string][] = [];
  if (protocol) headers.push(["sec-websocket-protocol", protocol]);
  if (extensions) headers.push(["sec-websocket-extensions", extensions]);
  return { version: "1.1", status: 101, statusText: "Switching Protocols", headers };
}

class NativeConnection extends WebSocketConnection {
  readonly #machine: NativeMachine;

  constructor(
    machine: NativeMachine,
    { head, secure }: { head: RequestHead; secure: boolean },
    options: FromWebSocketOptions,
  ) {
    const { readableStrategy, closeTimeout, maxBufferedAmount, slow } = options;
    const { transport, socket } = machine;
    const response = responseOf(socket);
    super({
      ...{ transport, machine },
      agreement: { protocol: socket.protocol ?? "", extensions: [] },
      request: head,
      response,
      texts: { request: requestText(head), response: responseText(response) },
      secure,
      options: { readableStrategy, closeTimeout, maxBufferedAmount, slow, pingInterval: 0 },
    });
    this.#machine = machine;
  }

  override get extensions(): string {
    return this.#machine.socket.extensions ?? "";
  }

  override get stats(): ConnectionStats {
    const { bytesReceived, bytesSent } = this.#machine;
    return { ...super.stats, bytesReceived, bytesSent };
  }

  override ping(): Promise<number> {
    return notSupported("pings");
  }

  override pong(): Promise<void> {
    return notSupported("pongs");
  }

  override close(info: CloseInfo = {}): Promise<Required<CloseInfo>> {
    return super.close(checkNativeClose(checkCloseInfo(info)));
  }
}

function notSupported(what: string): Promise<never> {
  const message = `A native WebSocket has no ${what}`;
  return handled(Promise.reject(domError("NotSupportedError", message, "unsupported")));
}

/** The value of `readyState` after the first Close frame (WHATWG WebSockets). */
const CLOSING = 2;
/** How often in `closeTimeout` `readyState` is checked. */
const CLOSING_CHECKS = 4;
const EMPTY = new Uint8Array(0);

type Item = Fragment | EventOf<"close"> | RemoteProtocolError;

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
    return this.#native.unsentAmount;
  }

  override handle(handlers: TransportHandlers): void {
    const wasClosed = this.phase === "closed";
    // The driver first reads what has arrived, then learns of the end.
    queueMicrotask(() => {
      if (wasClosed === (this.phase === "closed")) handlers.data(EMPTY);
    });
    super.handle(handlers);
  }

  protected start(): void {
    this.#watchClosing();
  }

  write(): void {}

  // The socket cannot be paused. The driver leaves its messages in the queue.
  pause(): void {}

  resume(): void {}

  protected finish(): void {
    if (this.#native.isDetached) queueMicrotask(() => this.close());
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
    if (this.#closeTimeout === 0 || this.#native.isDetached) return;
    this.#cancelClosingCheck = backgroundTimer(() => {
      if (this.#native.socket.readyState !== CLOSING) return this.#watchClosing();
      const countdown = new Countdown(() => this.#lose(), this.#closeTimeout);
      this.#cancelClosingCheck = () => countdown.cancel();
    }, this.#closeTimeout / CLOSING_CHECKS);
  }

  #lose(): void {
    this.#native.detach();
    this.#native.socket.terminate?.();
    const message = "The socket was closing for longer than closeTimeout";
    this.close(webSocketError(message, CloseCode.Abnormal));
  }
}

/** The protocol machine over a native WebSocket. Its events are the messages of the socket. */
class NativeMachine extends NativeSocket implements Machine {
  /** Only the platform knows the role. */
  readonly role = undefined;
  /** The platform applies the extensions. */
  readonly pending = false;
  readonly extended = false;
  /** Messages are always whole. */
  whole = true;
  readonly held = 0;
  readonly bufferedAmount = 0;
  readonly bufferedMemory = 0;
  readonly counts = NO_FRAMES;
  /** The platform writes the frames, and masks them. */
  readonly encoder: Encoder = new Encoder("server");
  readonly transport: NativeTransport;
  readonly #budget = new Budget(Infinity);
  readonly #queue = new Inbox<Item>(this.#budget, itemSize);
  readonly #maxMessageSize: number;
  /** The pieces of a message to send: a native WebSocket sends whole messages. */
  #pieces = new MessageAssembler();
  #waitingMessages = 0;
  #isDeaf = false;
  bytesReceived = 0;

  constructor(socket: WebSocketLike, options: FromWebSocketOptions) {
    const { maxMessageSize = MAX_MESSAGE_SIZE, maxQueuedBytes = MAX_QUEUED_BYTES } = options;
    super(socket, maxQueuedBytes);
    this.transport = new NativeTransport(this, options.closeTimeout ?? 10_000);
    this.#maxMessageSize = maxMessageSize;
  }

  get queued(): number {
    return this.#budget.used;
  }

  /** The memory that the waiting messages take in addition to their bytes. */
  get overhead(): number {
    if (this.unsentAmount > 0 && !this.isDetached) this.measure();
    return this.#waitingMessages * MESSAGE_OVERHEAD;
  }

  override send(data: Message, isAwaited: boolean): void {
    this.#waitingMessages++;
    super.send(data, isAwaited);
  }

  /** Estimates the number of waiting messages, because the platform only counts bytes. */
  protected override measure(): void {
    const before = this.unsentAmount;
    super.measure();
    const after = this.unsentAmount;
    const share = after === 0 ? 0 : Math.min(1, after / before);
    this.#waitingMessages = Math.ceil(this.#waitingMessages * share);
  }

  protected deliver(message: Message | undefined): void {
    if (this.#isDeaf) return;
    if (message === undefined) {
      const what = "The native WebSocket gave neither text nor an ArrayBuffer";
      return this.#refuse(what, CloseCode.UnsupportedData);
    }
    const most = this.#maxMessageSize;
    const size = byteLength(message, most);
    if (size > most) {
      const what = `Message of ${size} bytes exceeds maxMessageSize (${most})`;
      return this.#refuse(what, CloseCode.MessageTooBig);
    }
    this.bytesReceived += size;
    this.#report(fragment(message, true, true));
  }

  /** Ignores further messages. Reports the error after the messages before it. */
  #refuse(message: string, closeCode: number): void {
    this.#isDeaf = true;
    this.#report(new RemoteProtocolError(message, closeCode));
  }

  #report(item: Item): void {
    this.#queue.push(item);
    this.transport.notify();
  }

  protected drained(): void {
    this.transport.drained();
  }

  protected ended(info: Required<CloseInfo> | undefined, error: Error | undefined): void {
    const { transport } = this;
    if (transport.phase === "ending") transport.close();
    else if (info === undefined) transport.close(error);
    else this.#report({ type: "close", ...info });
  }

  next(): ProtocolEvent | undefined {
    const item = this.#queue.take();
    if (item instanceof RemoteProtocolError) throw item;
    return item;
  }

  /** Closes the socket. The platform sends pings and pongs itself. */
  write(event: ProtocolEvent): void {
    // Most platforms answer a Close frame themselves; then this call has no effect.
    if (event.type === "close") this.close(event);
  }

  writePiece(data: Message, fin: boolean, lend: boolean): boolean {
    if (fin && this.#pieces.size === 0) {
      const isKept = typeof data === "string" || (lend && this.copies);
      this.send(isKept ? data : new Uint8Array(data), lend);
      return true;
    }
    const message = this.#pieces.push(fragment(data, fin, fin));
    if ((message?.length ?? this.#pieces.size) > this.maxQueuedBytes) {
      this.#pieces = new MessageAssembler();
      throw wrongValue(
        `The pieces of a message exceed maxQueuedBytes (${this.maxQueuedBytes}), and a native ` +
          "WebSocket sends whole messages",
      );
    }
    if (message !== undefined) this.send(message, false);
    return true;
  }

  receive(): void {}

  takeHeld(): undefined {}

  release(): boolean {
    return false;
  }

  dispose(): void {}
}
