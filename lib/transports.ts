/**
 * The types to implement a transport: a {@linkcode TransportProvider} makes each {@linkcode Transport},
 * and {@linkcode fromStreams} makes one from a pair of byte streams.
 *
 * @module
 */
export {
  type Address,
  type ByteDuplex,
  type DialOptions,
  fromStreams,
  type Listener,
  type ListenOptions,
  type TlsConnectOptions,
  type TlsServeOptions,
  toStreams,
  type Transport,
  type TransportHandlers,
  type TransportProvider,
  type Tunnel,
} from "./transport.ts";
export type { TextCodec } from "./core/utf8.ts";
