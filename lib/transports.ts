/**
 * What those need who bring their own transport: the contract between a connection and what carries its
 * bytes, a {@linkcode Transport} made by a {@linkcode TransportProvider}, and byte streams as transports.
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
