/**
 * The contract between a connection and whatever carries its bytes.
 *
 * It is made of callbacks, not of streams: a WHATWG byte stream between a socket and a connection
 * costs a fifth to a quarter of the throughput. `byte_streams.ts` has the adapters both ways.
 *
 * @module
 */
import type { TextCodec } from "./core/utf8.ts";

/** Where one end of a connection is. */
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
    /** Its path. */
    path: string;
  };

/** How a client uses TLS. Certificates and keys are in PEM format. */
export interface TlsConnectOptions {
  /**
   * Certificates of the authorities to trust, in place of those of the platform; on Deno, beside them.
   * Default: none
   */
  ca?: string | string[];
  /** The certificate that the client shows when it is asked for one, and its chain. Default: none */
  cert?: string;
  /** The private key of `cert`. Default: none */
  key?: string;
  /**
   * The name that the server's certificate must be for. On Deno, not beside a `cert`. Default: the host
   * that is connected to
   */
  servername?: string;
  /** The application protocols to offer (ALPN), the preferred one first. Default: none */
  alpn?: string[];
  /**
   * Takes any certificate, which lets anybody read and change what is sent; for tests. Not available
   * on Deno, whose flag `--unsafely-ignore-certificate-errors` does it. Default: false
   */
  insecureSkipVerify?: boolean;
}

/** How a server uses TLS. Certificates and keys are in PEM format. */
export interface TlsServeOptions {
  /** The server's certificate, and its chain. */
  cert: string;
  /** The private key of `cert`. */
  key: string;
  /**
   * Certificates of the authorities whose clients are let in: a client must then show a certificate.
   * Not available on Deno. Default: none
   */
  ca?: string | string[];
  /** The application protocols to choose from (ALPN), the preferred one first. Default: none */
  alpn?: string[];
}

/** What a {@linkcode Transport} calls. */
export interface TransportHandlers {
  /**
   * Bytes came. They belong to the handler, which may change and keep them. It gives true when it has not
   * kept them: their memory may be used again.
   */
  data(chunk: Uint8Array): boolean | void;
  /**
   * Whether somebody takes what comes. While it is false a transport that can choose reads little at a
   * time: a chunk that is not read to its end is held until somebody does. Default: true
   */
  readonly keepsUp?: boolean;
  /** `bufferedAmount` has fallen to 0. */
  drain(): void;
  /** The peer has ended its side; no more data comes. */
  end(): void;
  /** The transport is gone, with an error where it did not end well. Called once, and last. */
  close(error?: Error): void;
}

/** A reliable, ordered, two-way channel of bytes. */
export interface Transport {
  /** The address of this end, where it has one. */
  readonly localAddress?: Address;
  /** The address of the peer, where it has one. */
  readonly remoteAddress?: Address;
  /** Whether the bytes are encrypted on their way. Default: false */
  readonly secure?: boolean;
  /**
   * The bytes written that the platform has not taken yet, and those that it never will because they
   * came too late. While it is over 0 the parts written may still be read and must not change. It falls
   * as bytes leave, also in the middle of a long write: keepalive sees by it that the peer still reads.
   */
  readonly bufferedAmount: number;
  /**
   * Takes memory that need not be zeroed, for so many bytes, where that costs the platform less. It is
   * called as a function. Default: the memory is zeroed
   */
  readonly allocate?: (length: number) => Uint8Array;
  /** Says who is called from now on. Nothing is read before the first call. */
  handle(handlers: TransportHandlers): void;
  /** Writes the parts in order, as one. After `end()` and `destroy()` they are counted and dropped. */
  write(parts: readonly Uint8Array[]): void;
  /** Stops reading: at most what is already under way still comes. */
  pause(): void;
  /**
   * Reads on.
   *
   * @param released whether the last chunk is not kept any more, for which `data()` did not give true
   */
  resume(released?: boolean): void;
  /** Ends our side once all that was written has left. */
  end(): void;
  /** Ends both sides at once; what was not sent is lost. */
  destroy(): void;
}

/** A way through the peer that is connected to, a proxy, to another one. */
export interface Tunnel {
  /** Asks for it. It is called before anything else is sent or read on the connection. */
  open(transport: Transport): Promise<void>;
  /** Encrypts what goes through it, as these options say. Default: no TLS */
  tls?: TlsConnectOptions;
}

/** Whom to connect to. */
export interface DialOptions {
  /** The host name or IP address. */
  hostname: string;
  /** The port. */
  port: number;
  /** The path of a Unix socket to connect to instead. Default: none */
  unix?: string;
  /** Encrypts, as these options say. Default: no TLS */
  tls?: TlsConnectOptions;
  /** Asks for a tunnel and goes on inside of it. Default: none */
  tunnel?: Tunnel;
  /** Gives up when aborted. */
  signal?: AbortSignal;
}

/** Where to listen. */
export interface ListenOptions {
  /** The host name or IP address. */
  hostname: string;
  /** The port; 0 for a free one. */
  port: number;
  /** The path of a Unix socket to listen on instead. Default: none */
  unix?: string;
  /** Whether others that say so too may listen on the same TCP port. Default: false */
  reusePort?: boolean;
  /** Encrypts, as these options say. Default: no TLS */
  tls?: TlsServeOptions;
  /** How long a TLS handshake may take, in milliseconds; 0 disables. Default: 10000 */
  handshakeTimeout?: number;
  /** Told what goes wrong while it listens; it listens on. Default: nobody */
  onError?: (error: Error) => void;
  /**
   * Reserves a place before a TLS handshake. Returns a function to call when the handshake is over, directly
   * before `accept` if it succeeded. Returns undefined if there is no place: the client is then cut, or
   * accepted later. Default: there is always a place
   *
   * @param remoteAddress the client's address, if it is known by then
   */
  admit?: (remoteAddress?: Address) => (() => void) | undefined;
}

/** Something that listens. */
export interface Listener {
  /** Where it listens. */
  readonly address: Address;
  /** Takes no more connections; resolves when the port is free, or the Unix socket's file gone. */
  close(): Promise<void>;
}

/** How a platform makes transports. */
export interface TransportProvider {
  /** Connects; rejects with a HandshakeError where it is the certificate that is not accepted. */
  connect(options: DialOptions): Promise<Transport>;
  /**
   * Listens, and hands each new transport to `accept`; rejects with a HandshakeError, code
   * "unsupported", where the platform has no way for one of the options.
   */
  listen(options: ListenOptions, accept: (transport: Transport) => void): Promise<Listener>;
  /**
   * The value of an environment variable, where there are any. It throws when the platform does not
   * permit it.
   */
  environment?(name: string): string | undefined;
  /** A faster way to encode and decode text than TextEncoder and TextDecoder, where there is one. */
  readonly textCodec?: TextCodec;
}
