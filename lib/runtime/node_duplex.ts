/**
 * A duplex of `node:stream` as the bytes of a transport.
 *
 * A file of its own because sockets and the streams of HTTP/2 are such, and differ in all else.
 *
 * @module
 */
import type { Duplex } from "node:stream";
import type { Address, TransportHandlers } from "../transport.ts";

const OWNER = Symbol("transport");

type Owned = Duplex & { [OWNER]?: DuplexTransport };

/** A duplex whose halves end one by one. */
export class DuplexTransport<T extends Duplex = Duplex> {
  // Listeners of all transports, which find theirs by the duplex: four functions for each of them would
  // take as much memory as the socket does.
  static readonly #onError = function (this: Owned, error: Error): void {
    const owner = this[OWNER]!;
    owner.#error = error;
    owner.failed();
  };
  static readonly #onData = function (this: Owned, chunk: Uint8Array): void {
    if (this[OWNER]!.#handlers!.data(chunk) === true) free(chunk);
  };
  static readonly #onEnd = function (this: Owned): void {
    this[OWNER]!.#handlers!.end();
  };
  static readonly #onClose = function (this: Owned): void {
    const owner = this[OWNER]!;
    owner.#handlers!.close(owner.#error);
  };

  static readonly #written = function (this: DuplexTransport, error?: Error | null): void {
    if (!error) this.taken();
    if (this.bufferedAmount > 0) return;
    this.#onWritten = undefined;
    if (!error) this.#handlers?.drain();
  };

  /** What carries the bytes. */
  protected readonly duplex: T;
  #handlers: TransportHandlers | undefined;
  #error: Error | undefined;
  /** The bytes that came too late to be written. */
  #dropped = 0;
  /** Kept until all has left: a function for every write would be much garbage, one for good 100 bytes. */
  #onWritten: ((error?: Error | null) => void) | undefined;

  constructor(duplex: T) {
    this.duplex = duplex;
    (duplex as Owned)[OWNER] = this;
    // An error may come before anybody handles this transport.
    duplex.on("error", DuplexTransport.#onError);
  }

  /** An error came. */
  protected failed(): void {}

  /** The duplex has taken the parts of a write. */
  protected taken(): void {}

  get bufferedAmount(): number {
    return this.duplex.writableLength + this.#dropped;
  }

  handle(handlers: TransportHandlers): void {
    const first = this.#handlers === undefined;
    this.#handlers = handlers;
    if (!first) return;
    const duplex = this.duplex;
    if (duplex.destroyed) {
      queueMicrotask(() => this.#handlers!.close(this.#error));
      return;
    }
    // A duplex emits 'end' only once.
    if (duplex.readableEnded) queueMicrotask(() => this.#handlers!.end());
    duplex.on("data", DuplexTransport.#onData);
    duplex.on("end", DuplexTransport.#onEnd);
    duplex.on("close", DuplexTransport.#onClose);
  }

  /** Lets go of the duplex, paused, for somebody else to read. */
  release(): void {
    const duplex = this.duplex;
    duplex.pause();
    duplex.off("data", DuplexTransport.#onData);
    duplex.off("end", DuplexTransport.#onEnd);
    duplex.off("close", DuplexTransport.#onClose);
  }

  write(parts: readonly Uint8Array[]): void {
    const duplex = this.duplex;
    if (!duplex.writable) return this.drop(parts);
    if (parts.length > 1) duplex.cork();
    for (let i = 0; i < parts.length - 1; i++) duplex.write(parts[i]);
    this.#onWritten ??= DuplexTransport.#written.bind(this);
    duplex.write(parts[parts.length - 1], this.#onWritten);
    if (parts.length > 1) duplex.uncork();
  }

  /**
   * Keeps counting parts that came too late. Otherwise a sender in a loop would never yield, and the end
   * of the connection would never be reported.
   */
  protected drop(parts: readonly Uint8Array[]): void {
    for (const part of parts) this.#dropped += part.length;
  }

  pause(): void {
    this.duplex.pause();
  }

  resume(): void {
    this.duplex.resume();
  }

  end(): void {
    this.duplex.end();
  }

  destroy(): void {
    this.duplex.destroy();
  }
}

/** Below this many bytes it does not pay. */
const FREED_FROM = 16384;

/**
 * Gives memory back without waiting for the garbage collector, which the memory of chunks would have
 * run again and again.
 */
export function free(chunk: Uint8Array): void {
  // The length first: on Bun an array of bytes makes its buffer only when it is asked for.
  if (chunk.length < FREED_FROM) return;
  const { buffer } = chunk;
  // A part of a buffer may not be ours alone. Node 20 does not know the method.
  if (chunk.length !== buffer.byteLength) return;
  (buffer as { transfer?(length: number): unknown }).transfer?.(0);
}

/** An address of TCP, where there is one. */
export function tcpAddress(
  hostname: string | undefined,
  port: number | undefined,
): Address | undefined {
  if (hostname === undefined || port === undefined) return undefined;
  return { transport: "tcp", hostname, port };
}
