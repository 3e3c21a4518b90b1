/// <reference lib="esnext.disposable" preserve="true" />
/**
 * Connections over native WebSockets, for those whose server or browser gives nothing else.
 *
 * A file of its own because it is an opening handshake as `client.ts` and `server.ts` are, where the
 * platform has done most of it.
 *
 * @module
 */
import { checkCloseInfo } from "../connection/closing.ts";
import { WebSocketConnection } from "../connection/connection.ts";
import { CloseCode, type CloseInfo } from "../core/close.ts";
import { HandshakeError, invalidState, isScriptCloseCode } from "../core/error.ts";
import type { RequestHead, ResponseHead } from "../core/http1.ts";
import { MAX_MESSAGE_SIZE } from "../core/message.ts";
import { checkKnown, checkNumber, checkType, type OptionNames } from "../core/options.ts";
import { withDeadline } from "../opening.ts";
import {
  checkSignal,
  checkSlow,
  checkStrategy,
  type ConnectionOptions,
  type ConnectionStats,
} from "../options.ts";
import { handled } from "../abortable.ts";
import { NativeSocket, type WebSocketLike, type WebSocketLikeEvent } from "./native_socket.ts";

/** How a native WebSocket is used. */
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
   * How much may wait beside what `readableStrategy` allows, counting each message as
   * `readableStrategy` does: a native WebSocket cannot be held back, so that what is not read in time piles up. When it is
   * more, the connection fails with 1013, behind what waits already. A message that is sent in pieces,
   * which are gathered until it is whole, may be as long; beyond, the send rejects with RangeError, and
   * the connection fails with 1011 as with any message that is cut short. Infinity disables. Default:
   * 4194304
   */
  maxQueuedBytes?: number;
  /**
   * On a server: the request that was upgraded, which the socket does not know. Its URL and header
   * fields are read at once; on Deno give a copy, made before the upgrade, which closes the request.
   * Default: one for the URL of the socket, without header fields
   */
  request?: Request;
}

/** The options of `fromWebSocket()`. */
export const FROM_WEB_SOCKET_OPTIONS: OptionNames<FromWebSocketOptions> = {
  signal: checkSignal,
  maxMessageSize: checkNumber,
  maxBufferedAmount: checkNumber,
  slow: checkSlow,
  openTimeout: checkNumber,
  closeTimeout: checkNumber,
  readableStrategy: checkStrategy,
  maxQueuedBytes: checkNumber,
  request: (name, value) => checkType(name, value, "a Request", value instanceof Request),
};

const MAX_QUEUED_BYTES = 4194304;
/** The values of `readyState` (WHATWG WebSockets). */
const CONNECTING = 0;
const OPEN = 1;

/** The sockets that have a connection: another one would take its messages away. */
const used = new WeakSet<WebSocketLike>();

/**
 * A connection over a native WebSocket: of a browser, of `Deno.upgradeWebSocket()`, of Cloudflare
 * Workers (behind its `accept()`, and within `waitUntil()`), of the global class of any runtime, or of
 * the package `ws`. Call it before the first message comes: what came earlier is lost.
 *
 * Where a socket or a `node:http` server is to be had, `connect()`, `serve()` and `attach()` are better,
 * because a native WebSocket
 *
 * - cannot be held back: it receives as fast as the peer sends, read or not. `maxQueuedBytes` bounds
 *   what waits, and fails the connection
 * - does not say when it has sent: while its `bufferedAmount` is not 0, sends over 64 KiB wait, and it
 *   is asked again after 1 to 64 ms. Where it has none (Workers), they never wait
 * - has no pings: `ping()` and `pong()` reject with NotSupportedError, and there is no keepalive
 * - closes with 1000 and 3000-4999 only: `close()` throws RangeError for other codes. Where the
 *   connection fails with one, as with 1009 for a message too long, the peer is told that code if the
 *   platform sends it, and otherwise the code plus 3000; our own errors have the code itself
 * - sends whole messages: an iterable or a stream is gathered first
 * - has no `terminate()`, but in `ws` and Bun: elsewhere the socket is closed and let go
 * - knows little: `request` has the URL, on a client (see the option of that name), `response` the
 *   subprotocol and extensions, but not of Deno's server; addresses are missing. `stats` counts the
 *   lengths of messages as bytes
 *
 * @example
 * ```ts
 * import { fromWebSocket, serve } from "@sluice/sluice";
 *
 * const server = await serve({ port: 0 }, (ws) => ws.readable.pipeTo(ws.writable));
 *
 * const ws = await fromWebSocket(new WebSocket(server.url!));
 * await ws.send("Hello");
 * console.log(await ws.receive()); // Hello
 * await ws.close({ closeCode: 1000 });
 * await server.shutdown();
 * ```
 *
 * @param socket connecting or open, with nobody else to listen to it or send
 * @returns the connection, once the socket is open. It rejects with a {@linkcode HandshakeError} when
 * the socket does not open ("connect-failed") or not in time ("timeout"), with the signal's reason when
 * it is aborted before, with InvalidStateError for a socket that is closing, closed or used for another
 * connection, and with TypeError for anything else than a WebSocket
 */
export async function fromWebSocket(
  socket: WebSocketLike,
  options: FromWebSocketOptions = {},
): Promise<WebSocketConnection> {
  checkKnown("fromWebSocket()", options, FROM_WEB_SOCKET_OPTIONS);
  return await connectionOver(socket, options);
}

/** Connects over a native WebSocket, with options that have been checked. Internal. */
export async function connectionOver(
  socket: WebSocketLike,
  options: FromWebSocketOptions,
): Promise<WebSocketConnection> {
  checkSocket(socket);
  const { maxMessageSize = MAX_MESSAGE_SIZE, maxQueuedBytes = MAX_QUEUED_BYTES } = options;
  const { closeTimeout = 10_000 } = options;
  const request = requestOf(socket, options.request);
  used.add(socket);
  const native = new NativeSocket(socket, { maxMessageSize, maxQueuedBytes, closeTimeout });
  try {
    await withDeadline(options, () => opened(socket));
  } catch (error) {
    native.transport.destroy();
    throw error;
  }
  return new NativeConnection(socket, native, request, options);
}

function checkSocket(socket: WebSocketLike): void {
  const { readyState, send, close, addEventListener } = socket ?? {} as Partial<WebSocketLike>;
  const functions = [send, close, addEventListener].every((one) => typeof one === "function");
  if (typeof readyState !== "number" || !functions) {
    throw new TypeError(
      `Expected a WebSocket, received ${socket === null ? "null" : typeof socket}`,
    );
  }
  if (readyState > OPEN) {
    throw invalidState(
      `Expected a WebSocket that is connecting or open, its state is ${readyState}`,
    );
  }
  if (used.has(socket)) throw invalidState("Expected a WebSocket that has no connection yet");
}

/** Waits until the socket is open. */
function opened(socket: WebSocketLike): Promise<void> {
  if (socket.readyState !== CONNECTING) return Promise.resolve();
  const types = ["open", "error", "close"] as const;
  return new Promise((resolve, reject) => {
    const settle = (event: WebSocketLikeEvent) => {
      for (const type of types) socket.removeEventListener(type, settle);
      if (event.type === "open") return resolve();
      const detail = event.message ? `: ${event.message}` : "";
      reject(
        new HandshakeError(
          `Expected the WebSocket to open, it does not${detail}`,
          "connect-failed",
          {
            cause: event.error,
          },
        ),
      );
    };
    for (const type of types) socket.addEventListener(type, settle);
  });
}

/** What is known of the request. */
function requestOf(
  { url }: WebSocketLike,
  request: Request | undefined,
): { head: RequestHead; secure: boolean } {
  const { protocol, host, pathname, search } = new URL(request?.url ?? (url || "ws://localhost/"));
  // The URL was made of the Host header, which another server may not have checked.
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

/** What is known of the response. */
function responseOf({ protocol, extensions }: WebSocketLike): ResponseHead {
  const headers: [name: string, value: string][] = [];
  if (protocol) headers.push(["sec-websocket-protocol", protocol]);
  if (extensions) headers.push(["sec-websocket-extensions", extensions]);
  return { version: "1.1", status: 101, statusText: "Switching Protocols", headers };
}

/** A connection without what a native WebSocket cannot do. */
class NativeConnection extends WebSocketConnection {
  readonly #socket: WebSocketLike;
  readonly #native: NativeSocket;

  constructor(
    socket: WebSocketLike,
    native: NativeSocket,
    { head, secure }: { head: RequestHead; secure: boolean },
    options: FromWebSocketOptions,
  ) {
    const { readableStrategy, closeTimeout, maxBufferedAmount, slow } = options;
    super({
      role: native.role,
      transport: native.transport,
      machine: native,
      takeOver: (handlers) => native.transport.handle(handlers),
      agreement: { protocol: socket.protocol ?? "", extensions: [] },
      request: head,
      response: responseOf(socket),
      secure,
      options: { readableStrategy, closeTimeout, maxBufferedAmount, slow, pingInterval: 0 },
    });
    this.#socket = socket;
    this.#native = native;
  }

  override get extensions(): string {
    return this.#socket.extensions ?? "";
  }

  override get stats(): ConnectionStats {
    const { bytesReceived, bytesSent } = this.#native;
    return { ...super.stats, bytesReceived, bytesSent };
  }

  override ping(): Promise<number> {
    return notSupported("pings");
  }

  override pong(): Promise<void> {
    return notSupported("pongs");
  }

  override close(info: CloseInfo = {}): Promise<Required<CloseInfo>> {
    const checked = checkCloseInfo(info);
    const { closeCode = CloseCode.NoStatus } = checked;
    if (closeCode !== CloseCode.NoStatus && !isScriptCloseCode(closeCode)) {
      throw new RangeError(
        `Expected a close code of 1000 or 3000-4999 for a native WebSocket, received ${closeCode}`,
      );
    }
    return super.close(checked);
  }
}

function notSupported(what: string): Promise<never> {
  const message = `Expected a transport of bytes, a native WebSocket has no ${what}`;
  return handled(Promise.reject(new DOMException(message, "NotSupportedError")));
}
