/**
 * Deno's own connections as transports.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import { Queue } from "../core/queue.ts";
import type { Address, Transport } from "../transport.ts";
import { BaseTransport, sizeOf } from "../transport_base.ts";

/** The address of a connection. */
export interface NetAddress {
  hostname: string;
  port: number;
}

/** The part of Deno's connections that is used here. */
export interface Conn {
  readonly localAddr: NetAddress;
  readonly remoteAddr: NetAddress;
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
  close(): void;
}

/**
 * Size of the buffer that a connection owns, in bytes. A read that waits holds its buffer, and most
 * connections are idle.
 */
const OWN_SIZE = 512;

/** Size of a shared buffer, for a connection that has more to read. */
const SHARED_SIZE = 32_768;
/**
 * Size of a large shared buffer, for a connection that has read much before: four messages of 64 KiB with
 * their headers. The kernel moves the same bytes in fewer, larger pieces at a lower cost.
 */
const LARGE_SIZE = 266_240;
/** A read of so many bytes makes the next one use a large buffer. */
const MUCH = 24_576;

/** Maximum number of free buffers of each size: about as many connections read at the same time. */
const MAX_FREE = 32;
const sharedBuffers: Uint8Array<ArrayBuffer>[] = [];
const largeBuffers: Uint8Array<ArrayBuffer>[] = [];

/** Takes a buffer that connections share, one after the other. */
function takeBuffer(large: boolean): Uint8Array<ArrayBuffer> {
  if (large) return largeBuffers.pop() ?? new Uint8Array(LARGE_SIZE);
  return sharedBuffers.pop() ?? new Uint8Array(SHARED_SIZE);
}

function freeBuffer(buffer: Uint8Array<ArrayBuffer>): void {
  const free = buffer.length === LARGE_SIZE ? largeBuffers : sharedBuffers;
  if (free.length < MAX_FREE) free.push(buffer);
}

/** Stands for a buffer that the handler keeps for good. */
const KEPT = new Uint8Array(0);

/** A write of at least `LARGE` bytes waits for further writes in the same turn, up to `FULL` bytes. */
const LARGE = SHARED_SIZE;
const FULL = 262_144;

/** A part of at least `LONG` bytes is not copied, except for its beginning, which fills a buffer. */
const LONG = 131_072;
const BEFORE_LONG = 65_536;

/** Results of a read that brings no bytes. */
const ENDED = 0;
const FAILED = -1;

/** After so many microtasks a read has settled if it had nothing to wait for. */
const TICKS = 8;

/** Bytes that wait to be written, and the shared buffer that is free when they have left. */
interface Waiting {
  readonly bytes: Uint8Array;
  /** The length that the bytes had: the owner of borrowed bytes may detach them. */
  readonly length: number;
  readonly buffer: Uint8Array<ArrayBuffer> | undefined;
}

/** The transports that write in the next turn. */
let due: DenoTransport[] = [];

/** One of Deno's connections as a {@linkcode Transport}. */
export class DenoTransport extends BaseTransport implements Transport {
  readonly secure: boolean;
  readonly #conn: Conn;
  readonly #readsAhead: boolean;
  #queue: Queue<Waiting> | undefined;
  /** The bytes that wait and were not copied. */
  #borrowed = 0;
  /** The buffer into which bytes that wait are copied, and how much of the buffer is filled. */
  #outgoing: Uint8Array<ArrayBuffer> | undefined;
  #filled = 0;
  #own: Uint8Array<ArrayBuffer>;
  /** The buffer whose bytes the handler has not let go of yet. */
  #held: Uint8Array<ArrayBuffer> | undefined;
  /** How many bytes the last read has brought, and whether more are likely to follow. */
  #lastRead = 0;
  #isMore = false;
  /** Whether the handler has kept the chunk before the last one. A large buffer should not be kept. */
  #isKept = false;
  #paused = false;
  #isReading = false;
  #isWriting = false;
  /** These resolve when the loop has ended. */
  #reading: Promise<void> | undefined;
  #writing: Promise<void> | undefined;
  #readError: Error | undefined;

  /**
   * @param conn a connection whose TLS handshake is done
   * @param secure whether the connection has TLS
   * @param readsAhead false if another reader continues where the transport is paused
   */
  constructor(conn: Conn, secure: boolean, readsAhead: boolean = true) {
    super();
    this.#conn = conn;
    this.#readsAhead = readsAhead;
    this.secure = secure;
    this.#own = new Uint8Array(OWN_SIZE);
  }

  get localAddress(): Address {
    return addressOf(this.#conn.localAddr);
  }

  get remoteAddress(): Address {
    return addressOf(this.#conn.remoteAddr);
  }

  override get bufferedAmount(): number {
    // Bytes that were copied and leave in this turn count as taken.
    return (this.#isWriting || this.#borrowed > 0 ? this.unsent : 0) + this.late;
  }

  // Reading

  protected start(): void {
    if (this.#isReading) return;
    this.#isReading = true;
    this.#reading = this.#read();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(released?: boolean): void {
    this.#paused = false;
    if (released && this.#held !== undefined) {
      if (this.#held !== KEPT) freeBuffer(this.#held);
      this.#held = undefined;
    }
    if (this.handlers !== undefined) this.start();
  }

  async #read(): Promise<void> {
    while (!this.#paused && !this.isInputEnded && !this.isDestroyed) {
      const buffer = this.#isMore ? takeBuffer(this.#bringsMuch) : this.#own;
      let length: number;
      // Not a function of its own: an asynchronous call takes memory of each idle connection.
      try {
        length = await this.#conn.read(buffer) ?? ENDED;
      } catch (error) {
        length = this.#failed(error as Error);
      }
      const isFilled = length === OWN_SIZE && buffer === this.#own;
      if (isFilled && this.#readsAhead) await this.#readOn();
      else this.#settle(buffer, 0, length);
    }
    // In the same microtask as the check: a call of resume() in between would be lost.
    this.#isReading = false;
  }

  get #bringsMuch(): boolean {
    return this.#lastRead >= MUCH && !this.#isKept && this.handlers!.keepsUp !== false;
  }

  /** The own buffer is filled. Reads once more, and joins both reads if the second one is ready at once. */
  async #readOn(): Promise<void> {
    const buffer = takeBuffer(this.#bringsMuch);
    buffer.set(this.#own);
    let more: number | undefined;
    const reading = this.#conn.read(buffer.subarray(OWN_SIZE)).then(
      (length) => more = length ?? ENDED,
      (error) => more = this.#failed(error),
    );
    for (let i = 0; i < TICKS && more === undefined; i++) await undefined;
    if (more !== undefined && more > 0) return this.#settle(buffer, 0, OWN_SIZE + more);
    this.#settle(this.#own, 0, OWN_SIZE);
    this.#settle(buffer, OWN_SIZE, await reading);
  }

  /** The result of a read that failed. */
  #failed(error: Error): number {
    // A peer that leaves without a closing alert of TLS has ended, as on every other platform.
    if (error.name === "UnexpectedEof") return ENDED;
    this.#readError = error;
    return FAILED;
  }

  /**
   * Hands on what a read has brought.
   *
   * @param start number of bytes that were in the buffer before
   * @param length the result of the read
   */
  #settle(buffer: Uint8Array<ArrayBuffer>, start: number, length: number): void {
    // Bytes that are read after the end are lost, as on a socket.
    if (this.isDestroyed) return;
    if (length === FAILED) return this.fail(this.#readError!);
    if (length === ENDED) return this.reportEnd();
    const end = start + length;
    this.#lastRead = end;
    this.#isMore = end === buffer.length && buffer !== this.#own;
    // The handler can no longer give the chunk before back.
    this.#isKept = this.#held !== undefined;
    this.#held = undefined;
    if (buffer === this.#own) this.#giveOwn(length);
    else this.#give(buffer, start, end);
  }

  /** Hands on bytes of the own buffer. A copy of few bytes keeps less memory than the buffer. */
  #giveOwn(length: number): void {
    const own = this.#own;
    if (length < OWN_SIZE / 2) this.handlers!.data(own.slice(0, length));
    else if (this.handlers!.data(own.subarray(0, length)) !== true) {
      this.#own = new Uint8Array(OWN_SIZE);
    }
  }

  #give(buffer: Uint8Array<ArrayBuffer>, start: number, end: number): void {
    if (end - start < buffer.length / 2) {
      const chunk = buffer.slice(start, end);
      freeBuffer(buffer);
      this.handlers!.data(chunk);
    } else if (this.handlers!.data(buffer.subarray(start, end)) === true) {
      freeBuffer(buffer);
    } else {
      // Only a handler that has paused gives the buffer back later. Otherwise the transport would hold the
      // buffer for as long as the connection is idle.
      this.#held = this.#paused ? buffer : KEPT;
    }
  }

  // Writing

  write(parts: readonly Uint8Array[]): void {
    if (this.phase !== "open") return this.drop(parts);
    const size = sizeOf(parts);
    this.unsent += size;
    if (parts.length === 1 && size < LARGE && this.unsent === size) this.#borrow(parts[0]);
    else for (const part of parts) this.#copy(part);
    if (this.#isWriting) return;
    const isMoreExpected = this.#held !== undefined && size >= LARGE;
    if (!isMoreExpected || this.unsent >= FULL || this.#borrowed > 0) return this.#startWriting();
    // The handler has more messages to answer: one large write costs the kernel less than many.
    if (due.push(this) === 1) setImmediate(DenoTransport.#writeDue);
  }

  static #writeDue(): void {
    const transports = due;
    due = [];
    for (const transport of transports) transport.#startWriting();
  }

  /** Copies a part after the bytes that wait. If the part is long, copies only its beginning. */
  #copy(part: Uint8Array): void {
    let rest = part;
    while (rest.length > 0) {
      if (rest.length >= LONG && this.#filled >= BEFORE_LONG) this.#cutOutgoing();
      if (rest.length >= LONG && this.#filled === 0) return this.#borrow(rest);
      const buffer = this.#outgoing ??= takeBuffer(this.unsent > SHARED_SIZE);
      const most = rest.length < LONG ? buffer.length : Math.min(BEFORE_LONG, buffer.length);
      const size = Math.min(rest.length, most - this.#filled);
      buffer.set(size < rest.length ? rest.subarray(0, size) : rest, this.#filled);
      this.#filled += size;
      rest = rest.subarray(size);
      if (rest.length > 0) this.#cutOutgoing();
    }
  }

  #borrow(part: Uint8Array): void {
    this.#borrowed += part.length;
    this.#push(part, undefined);
  }

  #cutOutgoing(): void {
    const buffer = this.#outgoing!;
    this.#push(buffer.subarray(0, this.#filled), buffer);
    this.#outgoing = undefined;
    this.#filled = 0;
  }

  #push(bytes: Uint8Array, buffer: Uint8Array<ArrayBuffer> | undefined): void {
    this.#queue ??= new Queue();
    this.#queue.push({ bytes, length: bytes.length, buffer });
  }

  #startWriting(): void {
    if (this.#isWriting || this.isDestroyed) return;
    this.#isWriting = true;
    this.#writing = this.#flush();
  }

  async #flush(): Promise<void> {
    try {
      for (let next = this.#next(); next !== undefined; next = this.#next()) {
        await this.#writeAll(next);
      }
      this.#isWriting = false;
      if (this.phase === "ending") await this.#endOutput();
    } catch (error) {
      this.fail(error as Error);
    }
  }

  #next(): Waiting | undefined {
    if (this.isDestroyed) return undefined;
    if (!this.#queue?.length && this.#filled > 0) this.#cutOutgoing();
    return this.#queue?.shift();
  }

  async #writeAll({ bytes, length, buffer }: Waiting): Promise<void> {
    for (let at = 0; at < length && !this.isDestroyed;) {
      if (bytes.length !== length) throw new TypeError("The bytes were detached");
      const written = await this.#conn.write(at === 0 ? bytes : bytes.subarray(at));
      at += written;
      if (at === length && buffer === undefined) this.#borrowed -= length;
      if (at === length && buffer !== undefined) freeBuffer(buffer);
      this.reportSent(written);
    }
  }

  protected finish(): void {
    this.#startWriting();
  }

  async #endOutput(): Promise<void> {
    // Nothing may be written any more.
    this.#isWriting = true;
    await this.#conn.closeWrite();
    this.reportFinished();
  }

  protected cut(): void {
    this.#queue = undefined;
    this.#filled = 0;
    this.#outgoing = undefined;
    closeQuietly(this.#conn);
    // Closing the connection ends both loops. As on a socket, the end is reported in a later turn.
    Promise.all([this.#reading, this.#writing]).then(() => this.reportClose());
  }
}

/** Closes a resource that may be closed already. */
export function closeQuietly(closable: { close(): void }): void {
  try {
    closable.close();
  } catch {
    // It is closed already.
  }
}

/** The address of a connection or listener of Deno. */
export function addressOf({ hostname, port }: NetAddress): Address {
  return { transport: "tcp", hostname, port };
}
