/** The WebSocket of `ws`, for clients and for the connections of a server. */
import { Buffer } from "node:buffer";
import type { ClientRequest, ClientRequestArgs, IncomingMessage } from "node:http";
import { nextTick } from "node:process";
import type { Duplex } from "node:stream";
import { Opcode } from "../core/frame.ts";
import { ClientOpening, type OpeningHost, protocolsOf } from "./client.ts";
import { violationOf } from "./errors.ts";
import {
  addListener,
  attributeOf,
  clearAttribute,
  type CloseEvent,
  Emitter,
  type ErrorEvent,
  type Event,
  type EventListener,
  type EventListenerOptions,
  type MessageEvent,
  type RawData,
  removeListener,
  type WebSocketEventMap,
} from "./event_target.ts";
import {
  BINARY_TYPES,
  type BinaryType,
  EMPTY,
  type Inlet,
  type InletHandlers,
  ownBuffer,
} from "./inlet.ts";
import { type ClientOptions, CONNECTION_DEFAULTS, type ConnectionOptions } from "./options.ts";
import { lengthOf, type Opened, Outlet, type SendCallback } from "./outlet.ts";
import { type AgreedExtensions, Receiver } from "./receiver.ts";
import { checkClose, Sender } from "./sender.ts";

/** The events of a {@linkcode WebSocket}, with the parameters of their listeners. */
export interface WebSocketEvents {
  /** The connection is open. */
  open: [];
  /** A message. Text is a Buffer of UTF-8. */
  message: [data: RawData, isBinary: boolean];
  /** The connection has ended. */
  close: [code: number, reason: Buffer];
  /** An error. 'close' follows. */
  error: [error: Error];
  /** A ping, which is answered unless `autoPong` is false. */
  ping: [data: Buffer];
  /** A pong. */
  pong: [data: Buffer];
  /** A redirect is followed. */
  redirect: [url: string, request: ClientRequest];
  /** The response of the handshake. */
  upgrade: [response: IncomingMessage];
  /** The server has refused. The listener must end the request. */
  "unexpected-response": [request: ClientRequest, response: IncomingMessage];
}

/** Options of a message. */
export interface SendOptions {
  /** Whether the message is binary. By default, everything but a string is. */
  binary?: boolean | undefined;
  /**
   * Whether to compress the message.
   * @default {true}
   */
  compress?: boolean | undefined;
  /**
   * Whether this is the last frame of the message.
   * @default {true}
   */
  fin?: boolean | undefined;
  /** Whether to mask the frame. By default, clients do. */
  mask?: boolean | undefined;
}

/** Anything that can be sent. Another value is converted with `Buffer.from()`. */
export type BufferLike =
  | string
  | Uint8Array
  | ArrayBuffer
  | SharedArrayBuffer
  | ArrayBufferView
  | Blob
  | readonly (number | Uint8Array)[]
  | number
  | { valueOf(): string | Uint8Array | ArrayBuffer | SharedArrayBuffer | readonly number[] }
  | { [Symbol.toPrimitive](hint: string): string };

/** Called when a ping or pong has been written, or with the reason why not. */
export type ControlCallback = (error: Error) => void;

const STATES = ["CONNECTING", "OPEN", "CLOSING", "CLOSED"] as const;
const [CONNECTING, OPEN, CLOSING, CLOSED] = [0, 1, 2, 3] as const;

/** The WebSocket of a socket. With it, all connections share their listeners. */
const OWNER = Symbol("websocket");

interface Owned extends Duplex {
  [OWNER]: WebSocket | undefined;
}

/** Whether a socket already has a WebSocket. */
export function isTaken(socket: Duplex): boolean {
  return (socket as Owned)[OWNER] !== undefined;
}

/** What the inlets of all connections call. */
let HANDLERS: InletHandlers<WebSocket>;

/** Gives a WebSocket of a server its connection. Internal. */
export let openServerSide: (ws: WebSocket, opened: Opened) => void;

/**
 * A WebSocket with the interface of `ws`: an EventEmitter, and an EventTarget for 'open', 'message',
 * 'close' and 'error'.
 *
 * @example
 * ```ts
 * import { WebSocket, WebSocketServer } from "sluice/ws";
 *
 * const wss = new WebSocketServer({ port: 0 }, () => {
 *   const { port } = wss.address() as { port: number };
 *   const ws = new WebSocket(`ws://127.0.0.1:${port}`);
 *   ws.on("open", () => ws.send("Hello"));
 *   ws.on("message", (data) => {
 *     console.log(data.toString()); // Hello
 *     ws.close();
 *     wss.close();
 *   });
 * });
 * wss.on("connection", (ws) => {
 *   ws.on("error", console.error);
 *   ws.on("message", (data, isBinary) => ws.send(data, { binary: isBinary }));
 * });
 * ```
 */
export class WebSocket extends Emitter<WebSocketEvents> {
  static {
    openServerSide = (ws, opened) => ws.#open(opened);
    for (const [value, name] of STATES.entries()) {
      Object.defineProperty(this, name, { value, enumerable: true });
      Object.defineProperty(this.prototype, name, { value, enumerable: true });
    }
  }

  /** The opening handshake is in progress. */
  declare static readonly CONNECTING: 0;
  /** The connection is open. */
  declare static readonly OPEN: 1;
  /** The connection is closing. */
  declare static readonly CLOSING: 2;
  /** The connection has ended. */
  declare static readonly CLOSED: 3;
  /** The opening handshake is in progress. */
  declare readonly CONNECTING: 0;
  /** The connection is open. */
  declare readonly OPEN: 1;
  /** The connection is closing. */
  declare readonly CLOSING: 2;
  /** The connection has ended. */
  declare readonly CLOSED: 3;

  /** The timer of `closeTimeout`. Internal. */
  _closeTimer: ReturnType<typeof setTimeout> | null = null;
  readonly #isServer: boolean;
  readonly #options: ConnectionOptions & Pick<ClientOptions, "generateMask">;
  #readyState: 0 | 1 | 2 | 3 = CONNECTING;
  #socket: Duplex | null = null;
  #opening: ClientOpening | undefined;
  #binaryType: BinaryType = "nodebuffer";
  #inlet: Inlet | undefined;
  #outlet: Outlet | undefined;
  /** Made when a program asks for them. */
  #receiver: Receiver | undefined;
  #sender: Sender | undefined;
  #subprotocol = "";
  #hasDeflate = false;
  #isPaused = false;
  /** Length of what was sent after the end. */
  #lostAmount = 0;
  #closeCode = 1006;
  #closeReason: Buffer = EMPTY;
  #isCloseReceived = false;
  #isCloseSent = false;
  #isInputFailed = false;
  #hasEmittedError = false;
  #pendingPongs = 0;

  /**
   * Connects to a server.
   *
   * @param address A ws, wss, http, https or ws+unix URL. Null is for servers.
   * @param protocols The subprotocols, or the options.
   * @param options Options of the client.
   * @throws {SyntaxError} If the URL or a subprotocol is not valid.
   * @throws {RangeError} If `protocolVersion` is not supported.
   */
  constructor(
    address: string | URL | null,
    protocols?: string | string[] | ClientOptions | ClientRequestArgs,
    options?: ClientOptions | ClientRequestArgs,
  ) {
    super();
    this.#isServer = address === null;
    if (address === null) {
      this.#options = { ...CONNECTION_DEFAULTS, ...options };
      return;
    }
    const asked = protocolsOf(protocols, options);
    this.#options = asked.options;
    this.#opening = new ClientOpening(this.#host(), address, asked.protocols, asked.options);
    this.#opening.start();
  }

  #host(): OpeningHost {
    return {
      websocket: this,
      isConnecting: () => this.#readyState === CONNECTING,
      open: (opened) => this.#open(opened),
      closing: () => this.#readyState = CLOSING,
      fail: (error) => this.#fail(error),
      emitClose: () => this.#emitClose(),
    };
  }

  /**
   * The socket of the connection, or null before it is open. Internal, but many programs read it. What a
   * program then does with the socket comes after the messages that it has sent.
   */
  get _socket(): Duplex | null {
    this.#outlet?.writeBatch();
    return this.#socket;
  }

  /** The request of the opening handshake. Internal. */
  get _req(): ClientRequest | null {
    return this.#opening?.request ?? null;
  }

  /** Number of redirects that were followed. Internal. */
  get _redirects(): number {
    return this.#opening?.redirects ?? 0;
  }

  /** Whether this is the WebSocket of a server. Internal. */
  get _isServer(): boolean {
    return this.#isServer;
  }

  /** The extensions in use, by their names. Internal. */
  get _extensions(): AgreedExtensions {
    if (!this.#hasDeflate) return {};
    return { "permessage-deflate": { _maxPayload: this.#options.maxPayload ?? 0 } };
  }

  /**
   * The receiving half, or null before the connection is open. Internal, but programs change its
   * `_maxPayload`.
   */
  get _receiver(): Receiver | null {
    if (this.#inlet === undefined) return null;
    if (this.#receiver === undefined) {
      this.#receiver = new Receiver({ extensions: this._extensions }, this.#inlet);
      if (this.#inlet.isBehind) this.#receiver._setBehind(true);
    }
    return this.#receiver;
  }

  /**
   * The sending half, or null before the connection is open. Internal, but Socket.IO broadcasts with its
   * `sendFrame()`.
   */
  get _sender(): Sender | null {
    if (this.#outlet === undefined) return null;
    return this.#sender ??= new Sender(this.#socket!, undefined, undefined, this.#outlet);
  }

  /** The type of binary messages. Another value than those of the type is ignored. */
  get binaryType(): BinaryType {
    return this.#binaryType;
  }

  set binaryType(type: BinaryType) {
    if (!BINARY_TYPES.includes(type)) return;
    this.#binaryType = type;
    this.#inlet?.setBinaryType(type);
  }

  /** Number of bytes that were sent and have not been given to the network. */
  get bufferedAmount(): number {
    const socket = this.#socket;
    if (socket === null) return this.#lostAmount;
    return this.#outlet!.bufferedAmount + socket.writableLength + this.#lostAmount;
  }

  /** The names of the extensions in use. */
  get extensions(): string {
    return this.#hasDeflate ? "permessage-deflate" : "";
  }

  /** Whether `pause()` was called. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** The subprotocol, or an empty string. */
  get protocol(): string {
    return this.#subprotocol;
  }

  /** The state of the connection: CONNECTING, OPEN, CLOSING or CLOSED. */
  get readyState(): 0 | 1 | 2 | 3 {
    return this.#readyState;
  }

  /** The URL of the server. Undefined on a server. */
  get url(): string {
    return this.#opening?.url as string;
  }

  /** The listener for 'open'. */
  get onopen(): ((event: Event<WebSocket>) => void) | null {
    return attributeOf(this, "open") as null;
  }

  set onopen(listener: ((event: Event<WebSocket>) => void) | null) {
    this.#setAttribute("open", listener);
  }

  /** The listener for 'message'. Text is a string. */
  get onmessage(): ((event: MessageEvent<WebSocket>) => void) | null {
    return attributeOf(this, "message") as null;
  }

  set onmessage(listener: ((event: MessageEvent<WebSocket>) => void) | null) {
    this.#setAttribute("message", listener);
  }

  /** The listener for 'close'. */
  get onclose(): ((event: CloseEvent<WebSocket>) => void) | null {
    return attributeOf(this, "close") as null;
  }

  set onclose(listener: ((event: CloseEvent<WebSocket>) => void) | null) {
    this.#setAttribute("close", listener);
  }

  /** The listener for 'error'. */
  get onerror(): ((event: ErrorEvent<WebSocket>) => void) | null {
    return attributeOf(this, "error") as null;
  }

  set onerror(listener: ((event: ErrorEvent<WebSocket>) => void) | null) {
    this.#setAttribute("error", listener);
  }

  #setAttribute<E>(type: string, listener: ((event: E) => void) | null): void {
    clearAttribute(this, type);
    if (typeof listener !== "function") return;
    addListener(this, type, listener, { isAttribute: true }, this.#wasClean);
  }

  /** Adds a listener for 'open', 'message', 'close' or 'error', which is given an event object. */
  addEventListener<K extends keyof WebSocketEventMap>(
    type: K,
    listener: EventListener<WebSocketEventMap<WebSocket>[K]>,
    options: EventListenerOptions = {},
  ): void {
    addListener(this, type, listener, options, this.#wasClean);
  }

  /** Removes a listener that was added with `addEventListener()`. */
  removeEventListener<K extends keyof WebSocketEventMap>(
    type: K,
    listener: EventListener<WebSocketEventMap<WebSocket>[K]>,
  ): void {
    removeListener(this, type, listener);
  }

  readonly #wasClean = (): boolean => this.#isCloseReceived && this.#isCloseSent;

  #open({ socket, head, inlet, protocol, subprotocol, deflation }: Opened): void {
    const { generateMask } = this.#options;
    const owned = socket as Owned & { setTimeout?(time: number): void; setNoDelay?(): void };
    this.#socket = socket;
    this.#subprotocol = subprotocol;
    this.#hasDeflate = deflation !== undefined;
    this.#inlet = inlet;
    this.#outlet = new Outlet(socket, protocol, {
      masks: !this.#isServer,
      generateMask,
      deflation,
      onError: (error) => this.#sendFailed(error),
    });
    inlet.setBinaryType(this.#binaryType);
    inlet.start(protocol, this, HANDLERS);
    owned[OWNER] = this;
    // A duplex that is not a socket does not have these methods.
    owned.setTimeout?.(0);
    owned.setNoDelay?.();
    if (head.length > 0) socket.unshift(head);
    socket.on("close", WebSocket.#onClose);
    socket.on("data", WebSocket.#onData);
    socket.on("end", WebSocket.#onEnd);
    socket.on("error", WebSocket.#onError);
    this.#readyState = OPEN;
    this.emit("open");
  }

  static #onData(this: Owned, chunk: Buffer): void {
    this[OWNER]!.#inlet!.receive(chunk);
  }

  static #onEnd(this: Owned): void {
    const ws = this[OWNER]!;
    ws.#readyState = CLOSING;
    ws.#outlet!.writeBatch();
    this.end();
  }

  static #onError(this: Owned): void {
    const ws = this[OWNER];
    this.removeListener("error", WebSocket.#onError);
    this.on("error", () => {});
    if (ws === undefined) return;
    ws.#readyState = CLOSING;
    this.destroy();
  }

  static #onClose(this: Owned): void {
    const ws = this[OWNER]!;
    const inlet = ws.#inlet!;
    this.removeListener("close", WebSocket.#onClose);
    this.removeListener("data", WebSocket.#onData);
    this.removeListener("end", WebSocket.#onEnd);
    ws.#readyState = CLOSING;
    // A paused socket may have data that was never read.
    const unread = !this.readableEnded && this.readableLength > 0 ? this.read() : null;
    if (unread !== null) inlet.receive(unread);
    this[OWNER] = undefined;
    clearTimeout(ws._closeTimer!);
    inlet.end();
  }

  static {
    HANDLERS = {
      message: (ws, data, isBinary) => ws.emit("message", data, isBinary),
      ping: (ws, data) => {
        ws.#answerPing(data);
        ws.emit("ping", data);
      },
      pong: (ws, data) => ws.emit("pong", data),
      close: (ws, code, reason) => {
        ws.#isCloseReceived = true;
        ws.#closeCode = code;
        ws.#closeReason = reason === "" ? EMPTY : ownBuffer(Buffer.from(reason));
        if (ws.#stopReading()) {
          if (code === 1005) ws.close();
          else ws.close(code, reason);
        }
        ws.#receiver?.emit("conclude", code, ws.#closeReason);
      },
      violation: (ws, error) => {
        ws.#isInputFailed = true;
        if (ws.#stopReading()) ws.close(error.closeCode);
        ws.#emitError(violationOf(error));
      },
      behind: (ws, isBehind) => {
        if (isBehind) ws.#socket!.pause();
        else if (!ws.#isPaused) ws.#socket!.resume();
        ws.#receiver?._setBehind(isBehind);
      },
      over: (ws) => ws.#emitClose(),
    };
  }

  /** Drops all further input. Returns false if the socket is closed. */
  #stopReading(): boolean {
    const socket = this.#socket as Owned;
    if (socket[OWNER] === undefined) return false;
    socket.removeListener("data", WebSocket.#onData);
    // The end of the transport is only seen if everything is read.
    nextTick(() => socket.resume());
    return true;
  }

  #answerPing(data: Buffer): void {
    const { autoPong, maxPendingAutoPongs = 0 } = this.#options;
    if (!autoPong || this.#readyState !== OPEN) return;
    if (maxPendingAutoPongs > 0 && this.#pendingPongs >= maxPendingAutoPongs) {
      return this.terminate();
    }
    this.#pendingPongs++;
    this.pong(data, undefined, this.#pongDone);
  }

  readonly #pongDone: ControlCallback = () => {
    this.#pendingPongs--;
  };

  #emitError(error: Error): void {
    if (this.#hasEmittedError) return;
    this.#hasEmittedError = true;
    this.emit("error", error);
  }

  #emitClose(): void {
    this.#outlet?.dispose();
    this.#readyState = CLOSED;
    this.emit("close", this.#closeCode, this.#closeReason);
  }

  /** Ends a client whose opening handshake has failed. */
  #fail(error: Error): void {
    this.#readyState = CLOSING;
    this.#hasEmittedError = true;
    this.emit("error", error);
    this.#emitClose();
  }

  /** Closes the connection because a message could not be sent. */
  #sendFailed(error: Error): void {
    if (this.#readyState === CLOSED) return;
    if (this.#readyState === OPEN) {
      this.#readyState = CLOSING;
      this.#startCloseTimer();
    }
    // The peer can still send what it has begun.
    this.#socket!.end();
    this.#emitError(error);
  }

  #startCloseTimer(): void {
    const socket = this.#socket!;
    this._closeTimer = setTimeout(() => socket.destroy(), this.#options.closeTimeout);
  }

  /**
   * Starts the closing handshake.
   *
   * @param code The close code.
   * @param reason The reason, at most 123 bytes.
   * @throws {TypeError} If the code must not be sent.
   * @throws {RangeError} If the reason is too long.
   */
  close(code?: number, reason?: string | Uint8Array): void {
    if (this.#readyState === CLOSED) return;
    if (this.#readyState === CONNECTING) return this.#opening!.abort();
    if (this.#readyState === CLOSING) return this.#endIfShaken();
    this.#outlet!.close(checkClose(code, reason), (error) => {
      // The listener of the socket handles the error.
      if (error) return;
      this.#isCloseSent = true;
      this.#endIfShaken();
    });
    this.#readyState = CLOSING;
    this.#startCloseTimer();
  }

  #endIfShaken(): void {
    if (!this.#isCloseSent) return;
    if (this.#isCloseReceived || this.#isInputFailed) this.#socket!.end();
  }

  /** Ends the connection without a closing handshake. */
  terminate(): void {
    if (this.#readyState === CLOSED) return;
    if (this.#readyState === CONNECTING) return this.#opening!.abort();
    if (this.#socket === null) return;
    this.#readyState = CLOSING;
    this.#outlet!.writeBatch();
    this.#socket.destroy();
  }

  /** Stops reading from the socket. Events may still be emitted for what was read before. */
  pause(): void {
    if (this.#readyState === CONNECTING || this.#readyState === CLOSED) return;
    this.#isPaused = true;
    this.#socket!.pause();
  }

  /** Continues to read from the socket. */
  resume(): void {
    if (this.#readyState === CONNECTING || this.#readyState === CLOSED) return;
    this.#isPaused = false;
    if (!this.#inlet!.isBehind) this.#socket!.resume();
  }

  /**
   * Sends a message.
   *
   * @param data The message. Do not change a binary message until the callback has been called.
   * @param callback Called when the message has been written, or with an error.
   * @throws {Error} If the connection is not open yet.
   */
  send(data: BufferLike, callback?: SendCallback): void;
  /** Sends a message, or a frame of a message. */
  send(data: BufferLike, options: SendOptions, callback?: SendCallback): void;
  send(data: BufferLike, options?: SendOptions | SendCallback, callback?: SendCallback): void {
    if (typeof options === "function") {
      callback = options;
      options = undefined;
    }
    if (typeof data === "number") data = `${data}`;
    if (this.#readyState !== OPEN) return this.#refuse(data, callback);
    const outlet = this.#outlet!;
    if (options === undefined && typeof data === "string" && outlet.isPlain) {
      return outlet.sendText(data, callback);
    }
    // As in `ws`, a value of undefined means false.
    const { binary, compress, fin, mask } = {
      binary: typeof data !== "string",
      compress: true,
      fin: true,
      mask: !this.#isServer,
      ...options,
    } as Required<SendOptions>;
    const opcode = binary ? Opcode.Binary : Opcode.Text;
    outlet.sendData(data || EMPTY, { opcode, fin, compress, mask }, callback);
  }

  /**
   * Sends a ping.
   *
   * @param data At most 125 bytes.
   * @param mask Whether to mask the frame. By default, clients do.
   * @param callback Called when the ping has been written, or with an error.
   * @throws {Error} If the connection is not open yet.
   * @throws {RangeError} If the data is longer than 125 bytes.
   */
  ping(
    data?: BufferLike | ControlCallback,
    mask?: boolean | ControlCallback,
    callback?: ControlCallback,
  ): void {
    this.#sendControl(Opcode.Ping, data, mask, callback);
  }

  /**
   * Sends a pong. The parameters are those of `ping()`.
   *
   * @param data At most 125 bytes.
   * @param mask Whether to mask the frame. By default, clients do.
   * @param callback Called when the pong has been written, or with an error.
   */
  pong(
    data?: BufferLike | ControlCallback,
    mask?: boolean | ControlCallback,
    callback?: ControlCallback,
  ): void {
    this.#sendControl(Opcode.Pong, data, mask, callback);
  }

  #sendControl(
    opcode: Opcode,
    data?: BufferLike | ControlCallback,
    mask?: boolean | ControlCallback,
    callback?: ControlCallback,
  ): void {
    if (typeof data === "function") {
      callback = data;
      data = mask = undefined;
    } else if (typeof mask === "function") {
      callback = mask;
      mask = undefined;
    }
    if (typeof data === "number") data = `${data}`;
    if (this.#readyState !== OPEN) return this.#refuse(data, callback as SendCallback);
    const isMasked = mask ?? !this.#isServer;
    this.#outlet!.sendControl(data || EMPTY, opcode, isMasked, callback as SendCallback);
  }

  /** Refuses to send because the connection is not open. */
  #refuse(data: unknown, callback: SendCallback | undefined): void {
    const state = `readyState ${this.#readyState} (${STATES[this.#readyState]})`;
    const error = new Error(`WebSocket is not open: ${state}`);
    if (this.#readyState === CONNECTING) throw error;
    if (data) this.#lostAmount += lengthOf(data);
    if (typeof callback === "function") nextTick(callback, error);
  }
}

for (
  const name of [
    ...["binaryType", "bufferedAmount", "extensions", "isPaused", "protocol", "readyState", "url"],
    ...["onopen", "onmessage", "onclose", "onerror"],
  ]
) Object.defineProperty(WebSocket.prototype, name, { enumerable: true });
