/**
 * Transports over duplex streams of `node:stream`, such as sockets and HTTP/2 streams.
 *
 * @module
 */
import type { Duplex } from "node:stream";
import { BaseTransport, ByteQueue } from "../transport_base.ts";

/** A duplex reports progress only when it has written all that it was given. */
const CAPACITY = 1_572_864;

/** The transport of a duplex. With it, all transports share their listeners. */
const OWNER = Symbol("transport");

interface Owned {
  [OWNER]: DuplexTransport;
}

/** A duplex as a transport. The two sides of the duplex must end independently. */
export class DuplexTransport<T extends Duplex = Duplex> extends BaseTransport {
  protected readonly duplex: T;
  #queue: ByteQueue | undefined;
  /** Whether the transport must report that the waiting bytes were sent. */
  #owesDrain = false;

  constructor(duplex: T) {
    super();
    this.duplex = duplex;
    Object.assign(duplex, { [OWNER]: this });
    // An error may occur before the transport has a handler.
    duplex.on("error", DuplexTransport.#onError);
  }

  static #onError(this: Owned, error: Error): void {
    this[OWNER].fail(error);
  }

  static #onData(this: Owned, chunk: Uint8Array): void {
    if (this[OWNER].handlers!.data(chunk) === true) free(chunk);
  }

  static #onEnd(this: Owned): void {
    this[OWNER].reportEnd();
  }

  static #onClose(this: Owned): void {
    this[OWNER].reportClose();
  }

  /** Maximum number of bytes that the duplex is given. */
  protected get capacity(): number {
    return CAPACITY;
  }

  override get bufferedAmount(): number {
    return this.duplex.writableLength + this.unsent + this.late;
  }

  protected start(): void {
    const { duplex } = this;
    if (duplex.destroyed) return queueMicrotask(() => this.reportClose());
    // A duplex emits 'end' only once.
    if (duplex.readableEnded) queueMicrotask(() => this.reportEnd());
    duplex.on("data", DuplexTransport.#onData);
    duplex.on("end", DuplexTransport.#onEnd);
    duplex.on("close", DuplexTransport.#onClose);
  }

  /** Pauses the duplex and stops listening to it, so that another reader can continue. */
  release(): void {
    const { duplex } = this;
    duplex.pause();
    duplex.off("data", DuplexTransport.#onData);
    duplex.off("end", DuplexTransport.#onEnd);
    duplex.off("close", DuplexTransport.#onClose);
  }

  readonly #onWritten = (error?: Error | null): void => {
    if (error || !this.#owesDrain) return;
    if (this.#queue !== undefined) this.#giveMore();
    if (this.bufferedAmount > 0) return;
    this.#owesDrain = false;
    this.reportDrain();
  };

  write(parts: readonly Uint8Array[]): void {
    const { duplex } = this;
    if (this.phase !== "open" || !duplex.writable) return this.drop(parts);
    let size = 0;
    for (const part of parts) size += part.length;
    if (this.unsent === 0 && duplex.writableLength + size <= this.capacity) {
      return this.give(parts);
    }
    this.unsent += size;
    this.#queue ??= new ByteQueue();
    for (const part of parts) this.#queue.push(part);
    this.#giveMore();
  }

  #giveMore(): void {
    const { duplex } = this;
    if (!duplex.writable) return;
    const parts: Uint8Array[] = [];
    for (let room = this.capacity - duplex.writableLength; room > 0 && this.unsent > 0;) {
      const part = this.firstOf(this.#queue)?.subarray(0, room);
      if (part === undefined) return;
      this.#queue!.remove(part.length);
      this.unsent -= part.length;
      room -= part.length;
      parts.push(part);
    }
    if (this.unsent === 0) this.#queue = undefined;
    if (parts.length > 0) this.give(parts);
    if (this.unsent === 0 && this.phase === "ending") this.finish();
  }

  /** Gives the duplex all parts as one write. */
  protected give(parts: readonly Uint8Array[]): void {
    const { duplex } = this;
    const last = parts.length - 1;
    if (last > 0) duplex.cork();
    for (let i = 0; i < last; i++) duplex.write(parts[i]);
    duplex.write(parts[last], this.#onWritten);
    if (last > 0) duplex.uncork();
    this.#owesDrain ||= duplex.writableLength > 0 || this.unsent > 0;
  }

  pause(): void {
    this.duplex.pause();
  }

  resume(): void {
    this.duplex.resume();
  }

  protected finish(): void {
    this.duplex.end();
  }

  protected cut(): void {
    this.duplex.destroy();
  }
}

const FREED_FROM = 16384;

/** Frees the memory of a chunk at once, without waiting for the garbage collector. */
export function free(chunk: Uint8Array): void {
  // Check the length first: Bun creates the buffer of an array only when it is asked for.
  if (chunk.length < FREED_FROM) return;
  const { buffer } = chunk;
  // A part of a larger buffer may be shared. Node 20 does not have the method.
  if (chunk.length !== buffer.byteLength) return;
  (buffer as { transfer?(length: number): unknown }).transfer?.(0);
}
