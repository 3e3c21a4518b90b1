/**
 * The contract between a connection and the channel that carries its bytes, the base class of all
 * transports, and the transport over a pair of byte streams. The contract uses callbacks because they are
 * faster than byte streams.
 */
import { handled } from "./abortable.ts";
import { domError, failure, wrongType } from "./core/error.ts";
import { Queue } from "./core/queue.ts";
import type { TextCodec } from "./core/utf8.ts";
import { nextTurn } from "./timers.ts";

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
    /** A Unix socket has no host name. */
    hostname?: undefined;
    /** A Unix socket has no port. */
    port?: undefined;
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
   * A transport that reads into the same memory again calls this method instead of `data()`, if the handler
   * has it. The transport must not use the memory before the call has returned, even if the handler writes
   * meanwhile. The handler may change the bytes, and copies what it needs later. The chunk is a part of a
   * larger buffer.
   */
  borrow?(chunk: Uint8Array): void;
  /**
   * Whether the handler takes bytes as fast as they arrive. While it is false, a transport that can
   * choose reads little at a time, because a chunk stays in memory until all of it has been taken.
   * @default {true}
   */
  readonly keepsUp?: boolean;
  /**
   * Called when `bufferedAmount` has fallen to 0, but not within a call of `write()`: after that call,
   * `bufferedAmount` says whether bytes wait.
   */
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

type Phase = "open" | "ending" | "ended" | "destroyed" | "closed";

/** A transport over some platform's channel of bytes. */
export abstract class BaseTransport implements Transport {
  protected handlers: TransportHandlers | undefined;
  /** The bytes written that have not left yet. */
  protected unsent = 0;
  /** The bytes that were written after this side had ended. */
  protected late = 0;
  protected error: Error | undefined;
  phase: Phase = "open";
  /** Whether no more input follows, because the peer or this end has ended it. */
  protected isInputEnded = false;

  get bufferedAmount(): number {
    return this.unsent + this.late;
  }

  protected get isDestroyed(): boolean {
    return this.phase === "destroyed" || this.phase === "closed";
  }

  handle(handlers: TransportHandlers): void {
    const isFirst = this.handlers === undefined;
    this.handlers = handlers;
    if (!isFirst) return;
    if (this.phase === "closed") queueMicrotask(() => this.handlers!.close(this.error));
    else this.start();
  }

  abstract write(parts: readonly Uint8Array[]): void;

  abstract pause(): void;

  abstract resume(released?: boolean): void;

  end(): void {
    if (this.phase !== "open") return;
    this.phase = "ending";
    if (this.unsent === 0) this.finish();
  }

  destroy(): void {
    if (this.isDestroyed) return;
    this.phase = "destroyed";
    this.isInputEnded = true;
    this.cut();
  }

  protected abstract start(): void;

  /** Ends this side. Called when all bytes have left. */
  protected abstract finish(): void;

  /** Ends both sides. `reportClose()` must follow. */
  protected abstract cut(): void;

  /**
   * Keeps counting bytes that are written too late. Otherwise a sender in a loop would never yield, and
   * the end of the connection would never be reported.
   */
  protected drop(parts: readonly Uint8Array[]): void {
    this.late += sizeOf(parts);
  }

  /** Counts bytes that have left. After the last byte, this side ends if `end()` was called. */
  protected reportSent(length: number): void {
    this.unsent -= length;
    if (this.unsent > 0) return;
    if (this.phase === "ending") this.finish();
    this.reportDrain();
  }

  protected reportDrain(): void {
    if (this.bufferedAmount === 0 && !this.isDestroyed) this.handlers?.drain();
  }

  protected reportEnd(): void {
    if (this.isInputEnded) return;
    this.isInputEnded = true;
    this.handlers?.end();
    if (this.phase === "ended") this.destroy();
  }

  /** For platforms that do not close by themselves when both sides have ended. */
  protected reportFinished(): void {
    if (this.phase !== "ending") return;
    this.phase = "ended";
    if (this.isInputEnded) this.destroy();
  }

  protected fail(error: Error): void {
    if (this.isDestroyed) return;
    this.error ??= error;
    this.destroy();
  }

  /**
   * Returns the first bytes of a queue. If they were detached, fails the transport and returns undefined.
   */
  protected firstOf(queue: ByteQueue | undefined): Uint8Array | undefined {
    if (!queue?.isDetached) return queue?.first;
    // Part of the frame may have left, so that no other bytes can follow.
    this.fail(wrongType("The bytes were detached", { code: "bytes-changed" }));
    return undefined;
  }

  protected reportClose(error?: Error): void {
    if (this.phase === "closed") return;
    this.phase = "closed";
    this.isInputEnded = true;
    this.error ??= error;
    this.handlers?.close(this.error);
  }
}

export class ByteQueue {
  /** Each part with its original length: the owner of borrowed bytes may detach them. */
  readonly #parts = new Queue<{ bytes: Uint8Array; length: number }>();

  push(bytes: Uint8Array): void {
    this.#parts.push({ bytes, length: bytes.length });
  }

  get first(): Uint8Array | undefined {
    return this.#parts.first?.bytes;
  }

  /** Whether the first bytes were detached. */
  get isDetached(): boolean {
    const { first } = this.#parts;
    return first !== undefined && first.bytes.length !== first.length;
  }

  /** Removes bytes from the front of `first`. */
  remove(length: number): void {
    const first = this.#parts.first!;
    if (length === first.length) {
      this.#parts.shift();
    } else {
      first.bytes = first.bytes.subarray(length);
      first.length -= length;
    }
  }
}

export function sizeOf(parts: readonly Uint8Array[]): number {
  let size = 0;
  for (const part of parts) size += part.length;
  return size;
}

export function tcpAddress(
  hostname: string | undefined,
  port: number | undefined,
): Address | undefined {
  if (hostname === undefined || port === undefined) return undefined;
  return { transport: "tcp", hostname, port };
}

/** A pair of byte streams, such as a socket of Deno, a `TransformStream` or a `CompressionStream`. */
export interface ByteDuplex {
  /** The bytes that the peer sends. */
  readonly readable: ReadableStream<Uint8Array>;
  /** The bytes that the peer receives. */
  readonly writable: WritableStream<Uint8Array>;
}

/**
 * Makes a transport from a pair of byte streams. A transport is returned as it is.
 * @throws {TypeError} If `duplex` is neither a transport nor a pair of streams.
 */
export function fromStreams(duplex: Transport | ByteDuplex): Transport {
  const { readable, writable, handle } = (duplex ?? {}) as Partial<Transport & ByteDuplex>;
  if (typeof handle === "function") return duplex as Transport;
  if (readable instanceof ReadableStream && writable instanceof WritableStream) {
    return new StreamTransport({ readable, writable });
  }
  throw wrongType("Expected a transport, or a readable and a writable stream of bytes");
}

/** Maximum size of a chunk that is written to a stream, in bytes. */
const LONGEST_PIECE = 1_572_864;

class StreamTransport extends BaseTransport {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #paused = false;
  #reading = false;

  constructor({ readable, writable }: ByteDuplex) {
    super();
    this.#reader = readable.getReader();
    this.#writer = writable.getWriter();
    handled(this.#reader.closed);
    handled(this.#writer.closed);
  }

  protected start(): void {
    // A sink may fail while nothing is written.
    this.#writer.closed.catch((error) => this.#outputFailed(error));
    this.resume();
  }

  write(parts: readonly Uint8Array[]): void {
    if (this.phase !== "open") return this.drop(parts);
    for (const part of parts) {
      // Split long parts, so that `bufferedAmount` falls while a slow peer reads them.
      for (let at = 0; at < part.length; at += LONGEST_PIECE) {
        this.#write(part.subarray(at, at + LONGEST_PIECE));
      }
    }
  }

  #write(piece: Uint8Array): void {
    this.unsent += piece.length;
    // Copy the chunk: the sink may keep it, and the caller may change its bytes.
    this.#writer.write(new Uint8Array(piece)).then(
      () => this.reportSent(piece.length),
      (error) => this.#outputFailed(error),
    );
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    if (!this.#reading && this.handlers !== undefined) this.#read();
  }

  async #read(): Promise<void> {
    this.#reading = true;
    try {
      while (!this.#paused && !this.isInputEnded) {
        const { done, value } = await this.#reader.read();
        if (done) this.reportEnd();
        else if (!this.isInputEnded) this.#give(value);
      }
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#reading = false;
    }
  }

  #give(chunk: unknown): void {
    if (!(chunk instanceof Uint8Array)) {
      throw wrongType(`The readable stream gave a ${typeof chunk} instead of a Uint8Array`);
    }
    // Copy the chunk: the handler unmasks its bytes in place, and the stream's source may still own them.
    this.handlers!.data(new Uint8Array(chunk));
  }

  protected finish(): void {
    this.#writer.close().then(() => this.reportFinished(), (error) => this.#outputFailed(error));
  }

  protected cut(): void {
    const reason = this.error ??
      domError("AbortError", "The transport was destroyed", "terminated");
    handled(this.#reader.cancel(reason));
    handled(this.#writer.abort(reason));
    queueMicrotask(() => this.reportClose());
  }

  /** A turn later, the bytes that came before the failure have been read, unless the reader has paused. */
  #outputFailed(error: unknown): void {
    nextTurn(() => this.#failed(error));
  }

  #failed(error: unknown): void {
    this.fail(error instanceof Error ? error : failure(String(error), "connection-lost"));
  }
}

/** Number of bytes that wait in the readable of `toStreams()` before the transport is paused. */
const QUEUE_SIZE = 65_536;

/**
 * Makes a pair of byte streams from a transport. A write resolves when the platform has taken the bytes.
 * Closing `writable` ends this side, and `readable` closes when the peer ends its side. If the transport
 * fails, `readable` errors after the bytes that were received before.
 */
export function toStreams(transport: Transport): ByteDuplex {
  let input!: ReadableStreamDefaultController<Uint8Array>;
  let output!: WritableStreamDefaultController;
  let drained: (() => void) | undefined;
  let ended = false;
  let lost: { reason: Error } | undefined;
  const settle = () => {
    drained?.();
    drained = undefined;
  };
  const failInput = ({ reason }: { reason: Error }) => {
    // An error would drop the bytes that wait.
    if (input.desiredSize === QUEUE_SIZE) input.error(reason);
  };
  const readable = new ReadableStream<Uint8Array>({
    start: (controller) => input = controller,
    pull: () => lost === undefined ? transport.resume() : failInput(lost),
    cancel: () => {
      ended = true;
      transport.destroy();
    },
  }, { highWaterMark: QUEUE_SIZE, size: (chunk) => chunk.length });
  const writable = new WritableStream<Uint8Array>({
    start: (controller) => output = controller,
    write: (chunk) => {
      transport.write([chunk]);
      if (transport.bufferedAmount > 0) return new Promise<void>((resolve) => drained = resolve);
    },
    close: () => transport.end(),
    abort: () => transport.destroy(),
  });
  transport.handle({
    data: (chunk) => {
      if (ended) return;
      input.enqueue(chunk);
      if (input.desiredSize! <= 0) transport.pause();
    },
    drain: settle,
    end: () => {
      if (!ended) input.close();
      ended = true;
    },
    close: (error) => {
      const reason = error ?? failure("The transport was closed", "connection-lost");
      if (!ended) failInput(lost = { reason });
      ended = true;
      output.error(reason);
      settle();
    },
  });
  transport.resume();
  return { readable, writable };
}
