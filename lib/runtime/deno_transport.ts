/**
 * Transports over Deno's own connections.
 *
 * @module
 */
import { wrongType } from "../core/error.ts";
import { setImmediate } from "node:timers";
import { Queue } from "../core/queue.ts";
import type { Address, Transport } from "../transport.ts";
import { BaseTransport, sizeOf } from "../transport_base.ts";

export interface NetAddress {
  hostname: string;
  port: number;
}

export interface Conn {
  readonly localAddr: NetAddress;
  readonly remoteAddr: NetAddress;
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
  close(): void;
}

/** Size of the buffer that each connection owns. It is small because an idle connection holds it. */
const OWN_SIZE = 512;

/** Size of a shared buffer, in bytes. Connections with more to read use one. */
const SHARED_SIZE = 32_768;
/** Size of a large shared buffer, in bytes: four messages of 64 KiB with their headers. */
const LARGE_SIZE = 266_240;
/** A read of at least this many bytes makes the next read use a large buffer. */
const MUCH = 24_576;

const MAX_FREE = 32;
const sharedBuffers: Uint8Array<ArrayBuffer>[] = [];
const largeBuffers: Uint8Array<ArrayBuffer>[] = [];

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

/** Results of a read that delivers no bytes. */
const ENDED = 0;
const FAILED = -1;

/** A read that has bytes at hand settles within this many microtasks. */
const TICKS = 8;

/** Bytes waiting to be written, and the shared buffer that becomes free when they have been sent. */
interface Waiting {
  readonly bytes: Uint8Array;
  /** The original length. The owner of borrowed bytes may detach them, which sets their length to 0. */
  readonly length: number;
  readonly buffer: Uint8Array<ArrayBuffer> | undefined;
}

let due: DenoTransport[] = [];

export class DenoTransport extends BaseTransport implements Transport {
  readonly secure: boolean;
  readonly #conn: Conn;
  readonly #readsAhead: boolean;
  #queue: Queue<Waiting> | undefined;
  #borrowed = 0;
  /** The buffer for copies of waiting bytes, and the number of bytes in it. */
  #outgoing: Uint8Array<ArrayBuffer> | undefined;
  #filled = 0;
  #own: Uint8Array<ArrayBuffer>;
  /** The buffer whose bytes the handler has not released yet. */
  #held: Uint8Array<ArrayBuffer> | undefined;
  /** The size of the last read, and whether more bytes are likely to follow. */
  #lastRead = 0;
  #isMore = false;
  /** Whether the handler has kept the chunk before the last one. A large buffer should not be kept. */
  #isKept = false;
  #paused = false;
  #isReading = false;
  #isWriting = false;
  #reading: Promise<void> | undefined;
  #writing: Promise<void> | undefined;
  #readError: Error | undefined;

  /** @param readsAhead False if another reader continues where the transport is paused. */
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
    // Copied bytes that will be sent in this turn do not count as buffered.
    return (this.#isWriting || this.#borrowed > 0 ? this.unsent : 0) + this.late;
  }

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
      // This code is inlined: each pending asynchronous call would hold memory for an idle connection.
      try {
        length = await this.#conn.read(buffer) ?? ENDED;
      } catch (error) {
        length = this.#failed(error as Error);
      }
      const isFilled = length === OWN_SIZE && buffer === this.#own;
      if (isFilled && this.#readsAhead) await this.#readOn();
      else this.#settle(buffer, 0, length);
    }
    // Clear the flag in the microtask of the check. Otherwise a resume() in between would be lost.
    this.#isReading = false;
  }

  get #bringsMuch(): boolean {
    return this.#lastRead >= MUCH && !this.#isKept && this.handlers!.keepsUp !== false;
  }

  /** After a full own buffer: reads again, and joins both reads if the second one is ready at once. */
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

  #failed(error: Error): number {
    // A peer that leaves without a TLS closing alert has ended, as on every other platform.
    if (error.name === "UnexpectedEof") return ENDED;
    this.#readError = error;
    return FAILED;
  }

  /** Hands on the result of a read into a buffer that already held `start` bytes. */
  #settle(buffer: Uint8Array<ArrayBuffer>, start: number, length: number): void {
    // Bytes that arrive after the end are dropped, as on a socket.
    if (this.isDestroyed) return;
    if (length === FAILED) return this.fail(this.#readError!);
    if (length === ENDED) return this.reportEnd();
    const end = start + length;
    this.#lastRead = end;
    this.#isMore = end === buffer.length && buffer !== this.#own;
    // From now on the handler cannot release the previous chunk.
    this.#isKept = this.#held !== undefined;
    this.#held = undefined;
    if (buffer === this.#own) this.#giveOwn(length);
    else this.#give(buffer, start, end);
  }

  /** Hands on bytes of the connection's own buffer. A small copy holds less memory than the buffer. */
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
      // Keep the buffer only if the handler has paused. Otherwise an idle connection would hold it.
      this.#held = this.#paused ? buffer : KEPT;
    }
  }

  write(parts: readonly Uint8Array[]): void {
    if (this.phase !== "open") return this.drop(parts);
    const size = sizeOf(parts);
    this.unsent += size;
    if (parts.length === 1 && size < LARGE && this.unsent === size) this.#borrow(parts[0]);
    else for (const part of parts) this.#copy(part);
    if (this.#isWriting) return;
    const isMoreExpected = this.#held !== undefined && size >= LARGE;
    if (!isMoreExpected || this.unsent >= FULL || this.#borrowed > 0) return this.#startWriting();
    // The handler has more messages to answer. Their answers are sent in one large write.
    if (due.push(this) === 1) setImmediate(DenoTransport.#writeDue);
  }

  static #writeDue(): void {
    const transports = due;
    due = [];
    for (const transport of transports) transport.#startWriting();
  }

  /** Copies a part after the waiting bytes. If the part is long, copies only its beginning. */
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
      if (bytes.length !== length) {
        throw wrongType("The bytes were detached", { code: "bytes-changed" });
      }
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

export function closeQuietly(closable: { close(): void }): void {
  try {
    closable.close();
  } catch {
    // The resource is already closed.
  }
}

export function addressOf({ hostname, port }: NetAddress): Address {
  return { transport: "tcp", hostname, port };
}
