/**
 * The client in the shape of the standard's draft.
 *
 * @module
 */
import {
  CONNECT_OPTIONS,
  type ConnectOptions,
  connectWith,
  type InternalConnectOptions,
} from "../client/client.ts";
import type { WebSocketConnection } from "../connection/connection.ts";
import { checkValues } from "../core/options.ts";
import {
  type StandardOpenInfo,
  type StandardWebSocketStream,
  webSocketStreamClass,
  type WebSocketStreamConstructor,
} from "./stream_class.ts";

/** What `opened` of a {@linkcode WebSocketStream} resolves with. */
export interface WebSocketOpenInfo extends StandardOpenInfo {
  /** The connection beneath, with all that the standard has not: pings, statistics, addresses. */
  readonly connection: WebSocketConnection;
}

/** A WebSocket as two streams, as WHATWG's draft has it, with the connection beneath. */
export type WebSocketStream = StandardWebSocketStream<WebSocketOpenInfo>;

/** As a browser: no limit on the size of messages, and no keepalive. */
const DEFAULTS = {
  maxMessageSize: Infinity,
  pingInterval: 0,
  pingTimeout: 0,
  requireProtocol: true,
} satisfies InternalConnectOptions;

/**
 * A WebSocket as two streams, as WHATWG's draft has it. Its defaults are a browser's: no limit on the
 * size of messages and no keepalive. Its options are the standard's `protocols` and `signal`, and those
 * of `connect()`.
 *
 * @example
 * ```ts
 * import { serve, WebSocketStream } from "@sluice/sluice";
 *
 * const server = await serve({ port: 0 }, (ws) => ws.readable.pipeTo(ws.writable));
 *
 * const stream = new WebSocketStream(server.url!);
 * const { readable, writable } = await stream.opened;
 * const writer = writable.getWriter();
 * await writer.write("Hello");
 * console.log((await readable.getReader().read()).value); // Hello
 * stream.close({ closeCode: 1000 });
 * await stream.closed;
 * await server.shutdown();
 * ```
 */
export const WebSocketStream: WebSocketStreamConstructor<
  Omit<ConnectOptions, "protocols"> & { protocols?: Iterable<string> },
  WebSocketOpenInfo
> = /* @__PURE__ */ webSocketStreamClass({
  check: (options) => checkValues(options, CONNECT_OPTIONS),
  connect: (url, options) => connectWith(url, { ...DEFAULTS, ...options }),
  describe: (connection) => ({
    readable: connection.readable,
    writable: connection.writable,
    extensions: connection.extensions,
    protocol: connection.protocol,
    connection,
  }),
});
