/** The class WebSocketStream over the package's own client. */
import {
  CONNECT_OPTIONS,
  type ConnectOptions,
  connectWith,
  type InternalConnectOptions,
} from "../client/client.ts";
import { driverOf, type WebSocketConnection } from "../connection/connection.ts";
import { checkValues } from "../core/options.ts";
import {
  type StandardOpenInfo,
  type StandardWebSocketStream,
  webSocketStreamClass,
  type WebSocketStreamConstructor,
} from "./stream_class.ts";

/** The result of `opened` of a {@linkcode WebSocketStream}. */
export interface WebSocketOpenInfo extends StandardOpenInfo {
  /** The underlying connection, with pings, statistics and addresses. */
  readonly connection: WebSocketConnection;
}

/** A WebSocket as two streams, as in WHATWG's draft, with the underlying connection. */
export type WebSocketStream = StandardWebSocketStream<WebSocketOpenInfo>;

/** The defaults of a browser: no limit on the size of messages, and no keepalive. */
const DEFAULTS = {
  maxMessageSize: Infinity,
  pingInterval: 0,
  pingTimeout: 0,
  requireProtocol: true,
} satisfies InternalConnectOptions;

/**
 * A WebSocket as two streams, as in WHATWG's draft. The defaults are those of a browser: no limit on the
 * size of messages, and no keepalive. The options are those of `connect()`, with `protocols` and `signal`
 * as in the standard.
 *
 * @example
 * ```ts
 * import { serve, WebSocketStream } from "sluice";
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
  async connect(url, options): Promise<WebSocketConnection> {
    const connection = await connectWith(url, { ...DEFAULTS, ...options });
    driverOf(connection).closing.leaveRule = "standard";
    return connection;
  },
  describe: (connection) => ({
    readable: connection.readable,
    writable: connection.writable,
    extensions: connection.extensions,
    protocol: connection.protocol,
    connection,
  }),
});
