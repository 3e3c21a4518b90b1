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

/** What a {@linkcode Transport} calls. */
export interface TransportHandlers {
  /** Bytes came. They belong to the handler, which may change and keep them. */
  data(chunk: Uint8Array): void;
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
  /**
   * The bytes written that the platform has not taken yet. While it is over 0 the parts written may
   * still be read and must not change.
   */
  readonly bufferedAmount: number;
  /** Says who is called from now on. Nothing is read before the first call. */
  handle(handlers: TransportHandlers): void;
  /** Writes the parts in order, as one. Ignored after `end()` and `destroy()`. */
  write(parts: readonly Uint8Array[]): void;
  /** Stops reading: at most what is already under way still comes. */
  pause(): void;
  /** Reads on. */
  resume(): void;
  /** Ends our side once all that was written has left. */
  end(): void;
  /** Ends both sides at once; what was not sent is lost. */
  destroy(): void;
}

/** Whom to connect to. */
export interface DialOptions {
  /** The host name or IP address. */
  hostname: string;
  /** The port. */
  port: number;
  /** The path of a Unix socket to connect to in place of them. Default: none */
  path?: string;
  /** Gives up when aborted. */
  signal?: AbortSignal;
}

/** Where to listen. */
export interface ListenOptions {
  /** The host name or IP address. */
  hostname: string;
  /** The port; 0 for a free one. */
  port: number;
  /** The path of a Unix socket to listen on in place of them. Default: none */
  path?: string;
  /** Told what goes wrong while it listens; it listens on. Default: nobody */
  onError?: (error: Error) => void;
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
  /** Connects. */
  connect(options: DialOptions): Promise<Transport>;
  /** Listens, and hands each new transport to `accept`. */
  listen(options: ListenOptions, accept: (transport: Transport) => void): Promise<Listener>;
  /** A faster way to encode and decode text than TextEncoder and TextDecoder, where there is one. */
  readonly textCodec?: TextCodec;
}
