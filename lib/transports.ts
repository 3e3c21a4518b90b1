/**
 * The types to implement a transport: a {@linkcode TransportProvider} makes each {@linkcode Transport},
 * and {@linkcode fromStreams} makes one from a pair of byte streams.
 *
 * @module
 */
export { type ByteDuplex, fromStreams, toStreams } from "./byte_streams.ts";
export type { TextCodec } from "./core/utf8.ts";
export type {
  Address,
  DialOptions,
  Listener,
  ListenOptions,
  TlsConnectOptions,
  TlsServeOptions,
  Transport,
  TransportHandlers,
  TransportProvider,
  Tunnel,
} from "./transport.ts";
