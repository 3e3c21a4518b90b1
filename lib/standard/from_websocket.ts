/// <reference lib="esnext.disposable" preserve="true" />
/**
 * Connections over native WebSockets, for servers and browsers without sockets.
 *
 * @module
 */
import { checkCloseInfo } from "../connection/closing.ts";
import { WebSocketConnection } from "../connection/connection.ts";
import type { CloseInfo } from "../core/close.ts";
import { domError } from "../core/error.ts";
import type { RequestHead, ResponseHead } from "../core/http1.ts";
import { MAX_MESSAGE_SIZE } from "../core/message.ts";
import { checkKnown } from "../core/option_hints.ts";
import {
  checkNumber,
  checkSignal,
  checkSlow,
  checkType,
  type OptionNames,
} from "../core/options.ts";
import { withDeadline } from "../opening.ts";
import { checkStrategy, type ConnectionOptions, type ConnectionStats } from "../options.ts";
import { handled } from "../abortable.ts";
import { NativeMachine } from "./native_machine.ts";
import {
  checkNativeClose,
  MAX_QUEUED_BYTES,
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
 *
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
  return await connectionOver(socket, options);
}

/** Connects over a native WebSocket, with checked options. Internal. */
export async function connectionOver(
  socket: WebSocketLike,
  options: FromWebSocketOptions,
): Promise<WebSocketConnection> {
  const { maxMessageSize = MAX_MESSAGE_SIZE, maxQueuedBytes = MAX_QUEUED_BYTES } = options;
  const { closeTimeout = 10_000 } = options;
  takeSocket(socket);
  const request = requestOf(socket, options.request);
  const machine = new NativeMachine(socket, { maxMessageSize, maxQueuedBytes, closeTimeout });
  try {
    await withDeadline(options, () => machine.native.opened);
  } catch (error) {
    machine.transport.destroy();
    throw error;
  }
  return new NativeConnection(machine, request, options);
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

/** A connection without the features that a native WebSocket does not have. */
class NativeConnection extends WebSocketConnection {
  readonly #machine: NativeMachine;

  constructor(
    machine: NativeMachine,
    { head, secure }: { head: RequestHead; secure: boolean },
    options: FromWebSocketOptions,
  ) {
    const { readableStrategy, closeTimeout, maxBufferedAmount, slow } = options;
    const { role, transport, native: { socket } } = machine;
    super({
      ...{ role, transport, machine },
      takeOver: (handlers) => transport.handle(handlers),
      agreement: { protocol: socket.protocol ?? "", extensions: [] },
      request: head,
      response: responseOf(socket),
      secure,
      options: { readableStrategy, closeTimeout, maxBufferedAmount, slow, pingInterval: 0 },
    });
    this.#machine = machine;
  }

  override get extensions(): string {
    return this.#machine.native.socket.extensions ?? "";
  }

  override get stats(): ConnectionStats {
    const { bytesReceived, native: { bytesSent } } = this.#machine;
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
