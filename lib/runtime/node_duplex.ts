/**
 * A duplex of `node:stream` as the bytes of a transport.
 *
 * A file of its own because sockets and the streams of HTTP/2 are such, and differ in all else.
 *
 * @module
 */
import type { Duplex } from "node:stream";
import { Queue } from "../core/queue.ts";
import type { Address, TransportHandlers } from "../transport.ts";

const OWNER = Symbol("transport");

type Owned = Duplex & { [OWNER]?: DuplexTransport };

/**
 * How many bytes a duplex is given before it has taken those before. A duplex that is given more writes
 * all of it as one, and does not tell meanwhile whether the peer reads. 1 MiB and its frame are written
 * at once.
 */
const GIVEN_AT_ONCE = 1_572_864;

/** Parts in their order, taken by length. */
class PartQueue {
  /** With the length that each has: the owner of one that is lent may detach it. */
  readonly #parts = new Queue<{ part: Uint8Array; length: number }>();
  #length = 0;

  /** The bytes of all parts. */
  get length(): number {
    return this.#length;
  }

  push(part: Uint8Array): void {
    this.#parts.push({ part, length: part.length });
    this.#length += part.length;
  }

  /** Takes parts off the front, and divides the last one: at most so many bytes. None if one was detached. */
  take(most: number): Uint8Array[] | undefined {
    const taken: Uint8Array[] = [];
    for (let room = most; room > 0 && this.#parts.length > 0;) {
      const first = this.#parts.first!;
      const { part, length } = first;
      if (part.length !== length) return undefined;
      const head = length > room ? part.subarray(0, room) : part;
      if (head === part) this.#parts.shift();
      else {
        first.part = part.subarray(room);
        first.length = length - room;
      }
      taken.push(head);
      room -= head.length;
      this.#length -= head.length;
    }
    return taken;
  }
}

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
    if (!error && this.#waiting !== undefined) this.#giveMore();
    if (this.bufferedAmount > 0) return;
    this.#onWritten = undefined;
    if (!error) this.#handlers?.drain();
  };

  /** What carries the bytes. */
  protected readonly duplex: T;
  #handlers: TransportHandlers | undefined;
  #error: Error | undefined;
  readonly #givenAtOnce: number;
  /** What the duplex is not given yet. */
  #waiting: PartQueue | undefined;
  /** Our side ends after the parts that wait. */
  #ending = false;
  /** The bytes that came too late to be written. */
  #dropped = 0;
  /** Kept until all has left: a function for every write would be much garbage, one for good 100 bytes. */
  #onWritten: ((error?: Error | null) => void) | undefined;

  /**
   * @param duplex what carries the bytes
   * @param givenAtOnce the most bytes that it is given before it has taken those before
   */
  constructor(duplex: T, givenAtOnce: number = GIVEN_AT_ONCE) {
    this.duplex = duplex;
    this.#givenAtOnce = givenAtOnce;
    (duplex as Owned)[OWNER] = this;
    // An error may come before anybody handles this transport.
    duplex.on("error", DuplexTransport.#onError);
  }

  /** An error came. */
  protected failed(): void {}

  get bufferedAmount(): number {
    return this.duplex.writableLength + (this.#waiting?.length ?? 0) + this.#dropped;
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
    if (this.#ending || !duplex.writable) return this.#drop(parts);
    if (this.#waiting === undefined && this.#hasRoom(parts)) return this.give(parts);
    this.#waiting ??= new PartQueue();
    for (const part of parts) this.#waiting.push(part);
    this.#giveMore();
  }

  #hasRoom(parts: readonly Uint8Array[]): boolean {
    let size = this.duplex.writableLength;
    for (const part of parts) size += part.length;
    return size <= this.#givenAtOnce;
  }

  /** Gives the duplex as much of what waits as it may have now. */
  #giveMore(): void {
    const { duplex } = this;
    const waiting = this.#waiting!;
    if (!duplex.writable) return;
    const parts = waiting.take(this.#givenAtOnce - duplex.writableLength);
    if (parts === undefined) {
      // A part of the frame may have left, so that nothing can follow.
      this.#error ??= new TypeError("The bytes were detached");
      return this.destroy();
    }
    if (waiting.length === 0) this.#waiting = undefined;
    if (parts.length > 0) this.give(parts);
    if (this.#ending && this.#waiting === undefined) duplex.end();
  }

  /** Gives parts to the duplex, as one. */
  protected give(parts: readonly Uint8Array[]): void {
    const duplex = this.duplex;
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
  #drop(parts: readonly Uint8Array[]): void {
    for (const part of parts) this.#dropped += part.length;
  }

  pause(): void {
    this.duplex.pause();
  }

  resume(): void {
    this.duplex.resume();
  }

  end(): void {
    this.#ending = true;
    if (this.#waiting === undefined) this.duplex.end();
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
