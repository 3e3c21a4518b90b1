/**
 * The contract between a connection and the channel that carries its bytes. It uses callbacks because
 * they are faster than byte streams; `byte_streams.ts` converts in both directions.
 *
 * @module
 */
import type { TextCodec } from "./core/utf8.ts";

/** The address of one end of a connection. */
export type Address =
  | {
    /** A TCP address. */
    transport: "tcp";
    /** The IP address or host name. */
    hostname: string;
    /** The port. */
    port: number;
  }
  | {
    /** A Unix socket. */
    transport: "unix";
    /** The path of the socket. */
    path: string;
  };

/** The TLS options of a client. Certificates and keys are in PEM format. */
export interface TlsConnectOptions {
  /**
   * Certificates of the authorities to trust instead of the platform's authorities. On Deno, they are
   * trusted in addition.
   */
  ca?: string | string[] | undefined;
  /** Certificate of the client, and its chain, for a server that asks for one. */
  cert?: string | undefined;
  /** Private key of `cert`. */
  key?: string | undefined;
  /**
   * Name that the server's certificate must be valid for. On Deno, it cannot be combined with `cert`. By
   * default, the host name of the server.
   */
  servername?: string | undefined;
  /** Application protocols to offer (ALPN), the preferred one first. */
  alpn?: string[] | undefined;
  /**
   * Accepts any certificate, so that anybody can read and change the bytes. Use it only in tests. On
   * Deno, use the flag `--unsafely-ignore-certificate-errors` instead.
   * @default {false}
   */
  insecureSkipVerify?: boolean | undefined;
}

/** The TLS options of a server. Certificates and keys are in PEM format. */
export interface TlsServeOptions {
  /** Certificate of the server, and its chain. */
  cert: string;
  /** Private key of `cert`. */
  key: string;
  /**
   * Certificates of the authorities whose clients are accepted. Each client must then show a certificate.
   * Not available on Deno.
   */
  ca?: string | string[] | undefined;
  /** Application protocols to choose from (ALPN), the preferred one first. */
  alpn?: string[] | undefined;
}

/** The callbacks of a {@linkcode Transport}. */
export interface TransportHandlers {
  /**
   * Called when bytes have arrived. The handler may change and keep them. It returns true if it has not
   * kept the bytes, so that their memory can be used again.
   */
  data(chunk: Uint8Array): boolean | void;
  /**
   * Whether the handler takes bytes as fast as they arrive. While it is false, a transport that can
   * choose reads little at a time, because a chunk stays in memory until all of it has been taken.
   * @default {true}
   */
  readonly keepsUp?: boolean;
  /** Called when `bufferedAmount` has fallen to 0. */
  drain(): void;
  /** Called when the peer has ended its side. No more data follows. */
  end(): void;
  /**
   * Called once, after all other callbacks, when the transport is closed; with an error if it has failed.
   */
  close(error?: Error): void;
}

/** A reliable, ordered, two-way channel of bytes. */
export interface Transport {
  /** The address of this end, if it has one. */
  readonly localAddress?: Address;
  /** The address of the peer, if it has one. */
  readonly remoteAddress?: Address;
  /**
   * Whether the bytes are encrypted.
   * @default {false}
   */
  readonly secure?: boolean;
  /**
   * Number of bytes written that the platform has not taken yet, plus the bytes that were written after
   * `end()` or `destroy()`. While it is above 0, the parts written may still be read and must not change.
   * It falls as bytes leave, even in the middle of a long write, so that keepalive can see that the peer
   * reads.
   */
  readonly bufferedAmount: number;
  /**
   * Allocates memory that need not be zeroed, if the platform has a faster way. It is called as a
   * function.
   */
  readonly allocate?: (length: number) => Uint8Array;
  /** Sets the handlers. Nothing is read before the first call. */
  handle(handlers: TransportHandlers): void;
  /** Writes the parts in order, as one write. After `end()` or `destroy()`, they are counted and dropped. */
  write(parts: readonly Uint8Array[]): void;
  /** Stops reading. Only bytes that are already under way still arrive. */
  pause(): void;
  /**
   * Continues to read.
   *
   * @param released Whether the handler no longer keeps the last chunk, for which `data()` did not return
   * true.
   */
  resume(released?: boolean): void;
  /** Ends our side after all bytes written. */
  end(): void;
  /** Ends both sides at once. Bytes that have not left are lost. */
  destroy(): void;
}

/** A way through a proxy to another peer. */
export interface Tunnel {
  /** Asks the proxy for the tunnel. Called before anything else is sent or read. */
  open(transport: Transport): Promise<void>;
  /** TLS options inside the tunnel. By default, the tunnel carries clear text. */
  tls?: TlsConnectOptions;
}

/** The peer to connect to, and the options of the connection. */
export interface DialOptions {
  /** The host name or IP address. */
  hostname: string;
  /** The port. */
  port: number;
  /** Path of a Unix socket to connect to instead. */
  unix?: string;
  /** TLS options. By default, the connection is not encrypted. */
  tls?: TlsConnectOptions;
  /** Tunnel to open and use. */
  tunnel?: Tunnel;
  /** Gives up when aborted. */
  signal?: AbortSignal;
}

/** The address to listen on, and the options of the listener. */
export interface ListenOptions {
  /** The host name or IP address. */
  hostname: string;
  /** The port. 0 chooses a free port. */
  port: number;
  /** Path of a Unix socket to listen on instead. */
  unix?: string;
  /**
   * Whether other processes with this option may listen on the same TCP port.
   * @default {false}
   */
  reusePort?: boolean;
  /** TLS options. By default, the connection is not encrypted. */
  tls?: TlsServeOptions;
  /**
   * Maximum time for a TLS handshake, in milliseconds. 0 disables the limit.
   * @default {10_000}
   */
  handshakeTimeout?: number;
  /** Called with errors of a listener that continues to listen. */
  onError?: (error: Error) => void;
  /**
   * Reserves a place before a TLS handshake. Returns a function to call when the handshake is over,
   * directly before `accept` if the handshake succeeded. Returns undefined if there is no place: the
   * client is then cut, or accepted later. By default, there is always a place.
   *
   * @param remoteAddress The address of the client, if it is known.
   */
  admit?: (remoteAddress?: Address) => (() => void) | undefined;
}

/** A server that listens. */
export interface Listener {
  /** The address on which it listens. */
  readonly address: Address;
  /** Accepts no more connections. Resolves when the port is free, or the file of the Unix socket is gone. */
  close(): Promise<void>;
}

/** Makes the transports of a platform. */
export interface TransportProvider {
  /** Connects. Rejects with a HandshakeError if the certificate of the server is not accepted. */
  connect(options: DialOptions): Promise<Transport>;
  /**
   * Listens, and calls `accept` with each new transport. Rejects with a HandshakeError, code "unsupported",
   * if the platform does not support one of the options.
   */
  listen(options: ListenOptions, accept: (transport: Transport) => void): Promise<Listener>;
  /** Returns the value of an environment variable. Throws if the platform does not permit it. */
  environment?(name: string): string | undefined;
  /** A faster way to encode and decode text than TextEncoder and TextDecoder. */
  readonly textCodec?: TextCodec;
}
