/**
 * WebSocket on WHATWG streams, for Deno, Bun and Node.
 *
 * `connect()` and `serve()` return a {@linkcode WebSocketConnection}, whose `readable` and `writable` are
 * streams of messages with backpressure in both directions. {@linkcode WebSocketStream} is the client
 * with the API of the proposed standard.
 *
 * @module
 */
export {
  basicAuth,
  type BasicAuthOptions,
  type Credentials,
  credentialsOf,
} from "./lib/server/basic_auth.ts";
export {
  broadcast,
  type BroadcastOptions,
  type BroadcastResult,
} from "./lib/connection/broadcast.ts";
export { relay, type RelayOptions } from "./lib/connection/relay.ts";
export type {
  Address,
  ByteDuplex,
  DialOptions,
  Listener,
  ListenOptions,
  TlsConnectOptions,
  TlsServeOptions,
  Transport,
  TransportHandlers,
  TransportProvider,
  Tunnel,
} from "./lib/transport.ts";
export { connect, type ConnectOptions } from "./lib/client/client.ts";
export type { WebSocketConnection } from "./lib/connection/connection.ts";
export { CloseCode, type CloseInfo } from "./lib/core/close.ts";
export {
  type CallErrorCode,
  type ErrorCode,
  errorCodeOf,
  HandshakeError,
  type HandshakeErrorCode,
  type HandshakeErrorOptions,
  type RefusedResponse,
  WebSocketError,
} from "./lib/core/error.ts";
export type { Extension, ExtensionFactory } from "./lib/core/extension.ts";
export type { Frame, Opcode } from "./lib/core/frame.ts";
export type { RawHeaders } from "./lib/core/header.ts";
export type { HeadLimits } from "./lib/core/http1.ts";
export type { PerMessageDeflateOptions } from "./lib/core/permessage_deflate.ts";
export type { Message } from "./lib/core/message.ts";
export type { FrameCounts } from "./lib/core/protocol.ts";
export type { TextCodec } from "./lib/core/utf8.ts";
export { fromWebSocket, type FromWebSocketOptions } from "./lib/standard/from_websocket.ts";
export type { ResponseInfo } from "./lib/http.ts";
export type { IncomingMessage } from "./lib/connection/receiver.ts";
export type {
  BufferSource,
  CloseDetails,
  ConnectionOptions,
  ConnectionStats,
  HeadersLike,
  InboxStrategy,
  OutgoingMessage,
  SendOptions,
} from "./lib/options.ts";
export type { ProxyOption, ProxyOptions } from "./lib/client/proxy.ts";
export { reconnect, type ReconnectOptions } from "./lib/client/reconnect.ts";
export {
  isTransient,
  type RetryInfo,
  type RetryOptions,
  type UrlSource,
} from "./lib/client/reconnection.ts";
export {
  accept,
  type Handler,
  type RefusedInfo,
  serve,
  type ServeOptions,
  type Server,
  type ServerStats,
  type ShutdownOptions,
} from "./lib/server/server.ts";
export type {
  StandardOpenInfo,
  StandardWebSocketStream,
  WebSocketStreamConstructor,
} from "./lib/standard/stream_class.ts";
export { type WebSocketOpenInfo, WebSocketStream } from "./lib/standard/websocket_stream.ts";
export type { WebSocketLike, WebSocketLikeEvent } from "./lib/standard/native_socket.ts";
