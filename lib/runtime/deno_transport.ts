/**
 * Deno's own connections as transports.
 *
 * A file of its own because how one is made, by TCP or TLS, is another matter, and `deno.ts` has it.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import { Queue } from "../core/queue.ts";
import type { Address, Transport, TransportHandlers } from "../transport.ts";

/** The address of one of Deno's connections. */
export interface NetAddress {
  hostname: string;
  port: number;
}

/** As much of Deno's connections as is used here. */
export interface Conn {
  readonly localAddr: NetAddress;
  readonly remoteAddr: NetAddress;
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
  close(): void;
}

/**
 * How many bytes a connection reads at first, into a place of its own: a read that waits holds its
 * place, and most connections are idle.
 */
const OWN_SIZE = 512;

/** Where it reads when there is more, and where when there was much before. */
const PLACE_SIZE = 32_768;
/**
 * Four messages of 64 KiB with their headers. To read and write in such pieces costs the kernel far less
 * than to do so in smaller ones.
 */
const LARGE_SIZE = 266_240;
const MUCH = 24_576;

/** As many places are kept as connections are likely to read into at a time. */
const MAX_FREE = 32;
const places: Uint8Array<ArrayBuffer>[] = [];
const largePlaces: Uint8Array<ArrayBuffer>[] = [];

/** A place that connections share, one after the other. */
function takePlace(large: boolean): Uint8Array<ArrayBuffer> {
  if (large) return largePlaces.pop() ?? new Uint8Array(LARGE_SIZE);
  return places.pop() ?? new Uint8Array(PLACE_SIZE);
}

function freePlace(place: Uint8Array<ArrayBuffer>): void {
  const free = place.length === LARGE_SIZE ? largePlaces : places;
  if (free.length < MAX_FREE) free.push(place);
}

/** Stands for a place that the handler has kept for good. */
const KEPT = new Uint8Array(0);

/** From so many bytes on a write waits for others in the same turn, until they are so many. */
const LARGE = PLACE_SIZE;
const FULL = 262_144;

/** A part of so many bytes is not copied, but for its beginning, which leaves with what is before it. */
const LONG = 131_072;
const BEFORE_LONG = 65_536;

/** What comes of a read that brings nothing. */
const ENDED = 0;
const FAILED = -1;

/** So many microtasks later a read is settled that had nothing to wait for. */
const TICKS = 8;

/**
 * Bytes that wait to be written, and the place that is free when they are. The owner of the bytes may
 * detach them: then their length is another one.
 */
interface Waiting {
  readonly bytes: Uint8Array;
  readonly length: number;
  readonly place: Uint8Array<ArrayBuffer> | undefined;
}

/** Those who write in the next turn. */
let due: DenoTransport[] = [];

/** One of Deno's connections as a {@linkcode Transport}. */
export class DenoTransport implements Transport {
  readonly secure: boolean;
  readonly #conn: Conn;
  readonly #readsAhead: boolean;
  #handlers: TransportHandlers | undefined;
  #queue: Queue<Waiting> | undefined;
  /** The bytes that wait, and those of them that were not copied. */
  #waiting = 0;
  #borrowed = 0;
  /** Where the last of what waits is copied to, and how much of it is filled. */
  #place: Uint8Array<ArrayBuffer> | undefined;
  #filled = 0;
  /** The bytes that came too late to be written. */
  #dropped = 0;
  /** Where it reads when it does not know what comes. */
  #own: Uint8Array<ArrayBuffer>;
  /** The place whose bytes the handler has not let go of yet. */
  #held: Uint8Array<ArrayBuffer> | undefined;
  /** What the last reads have brought, and whether there is likely more. */
  #came = 0;
  #isMore = false;
  /** Whether the handler has kept the chunk before the last one: a large place is not for giving away. */
  #isKept = false;
  #paused = false;
  #isReading = false;
  #isWriting = false;
  /** Resolve when what is under way has ended. */
  #reading: Promise<void> | undefined;
  #writing: Promise<void> | undefined;
  #inputEnded = false;
  #ending = false;
  #outputEnded = false;
  #destroyed = false;
  #gone = false;
  #error: Error | undefined;
  #readError: Error | undefined;

  /**
   * @param conn a connection, its TLS handshake done
   * @param secure whether it has TLS
   * @param readsAhead false where somebody else is to read on from where it is paused
   */
  constructor(conn: Conn, secure: boolean, readsAhead: boolean = true) {
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

  get bufferedAmount(): number {
    // What was copied and leaves in this turn is as good as taken.
    return (this.#isWriting || this.#borrowed > 0 ? this.#waiting : 0) + this.#dropped;
  }

  handle(handlers: TransportHandlers): void {
    const first = this.#handlers === undefined;
    this.#handlers = handlers;
    if (first && this.#gone) queueMicrotask(() => this.#handlers!.close(this.#error));
    if (first) this.#startReading();
  }

  write(parts: readonly Uint8Array[]): void {
    const size = sizeOf(parts);
    if (this.#ending || this.#destroyed) {
      // As if they had left, whoever sends on and on would, and the end not get its turn to be told.
      this.#dropped += size;
      return;
    }
    this.#waiting += size;
    if (parts.length === 1 && size < LARGE && this.#waiting === size) {
      this.#borrow(parts[0]);
    } else {
      for (const part of parts) this.#add(part);
    }
    if (this.#isWriting) return;
    const more = this.#held !== undefined && size >= LARGE;
    if (!more || this.#waiting >= FULL || this.#borrowed > 0) return this.#startWriting();
    // Of what came there is more to be answered: many writes cost the kernel more than a large one.
    if (due.push(this) === 1) setImmediate(DenoTransport.#writeDue);
  }

  static #writeDue(): void {
    const transports = due;
    due = [];
    for (const transport of transports) transport.#startWriting();
  }

  /** Copies the part, or its beginning if it is long, behind what waits. */
  #add(part: Uint8Array): void {
    let rest = part;
    while (rest.length > 0) {
      if (rest.length >= LONG && this.#filled >= BEFORE_LONG) this.#cut();
      if (rest.length >= LONG && this.#filled === 0) return this.#borrow(rest);
      const place = this.#place ??= takePlace(this.#waiting > PLACE_SIZE);
      // A place that was taken for a few bytes may be the smaller one.
      const most = rest.length < LONG ? place.length : Math.min(BEFORE_LONG, place.length);
      const size = Math.min(rest.length, most - this.#filled);
      place.set(size < rest.length ? rest.subarray(0, size) : rest, this.#filled);
      this.#filled += size;
      rest = rest.subarray(size);
      if (rest.length > 0) this.#cut();
    }
  }

  /** Has a part wait that is not copied. */
  #borrow(part: Uint8Array): void {
    this.#borrowed += part.length;
    this.#push({ bytes: part, length: part.length, place: undefined });
  }

  #cut(): void {
    const place = this.#place!;
    this.#push({ bytes: place.subarray(0, this.#filled), length: this.#filled, place });
    this.#place = undefined;
    this.#filled = 0;
  }

  #push(waiting: Waiting): void {
    this.#queue ??= new Queue();
    this.#queue.push(waiting);
  }

  pause(): void {
    this.#paused = true;
  }

  resume(released?: boolean): void {
    this.#paused = false;
    if (released && this.#held !== undefined) {
      if (this.#held !== KEPT) freePlace(this.#held);
      this.#held = undefined;
    }
    this.#startReading();
  }

  end(): void {
    if (this.#ending || this.#destroyed) return;
    this.#ending = true;
    this.#startWriting();
  }

  destroy(): void {
    this.#destroy();
  }

  #startReading(): void {
    if (this.#handlers === undefined || this.#isReading) return;
    this.#isReading = true;
    this.#reading = this.#read();
  }

  async #read(): Promise<void> {
    while (!this.#paused && !this.#inputEnded && !this.#destroyed) {
      const place = this.#isMore ? takePlace(this.#bringsMuch) : this.#own;
      let length: number;
      // Not a function of its own: one that waits takes memory of each idle connection.
      try {
        length = await this.#conn.read(place) ?? ENDED;
      } catch (error) {
        length = this.#failed(error as Error);
      }
      const filled = length === OWN_SIZE && place === this.#own;
      if (filled && this.#readsAhead) await this.#readBehind();
      else this.#settle(place, 0, length);
    }
    // Not a microtask later: a call of resume() in between would be lost.
    this.#isReading = false;
  }

  get #bringsMuch(): boolean {
    return this.#came >= MUCH && !this.#isKept && this.#handlers!.keepsUp !== false;
  }

  /** Its own place is filled: reads what there is behind it already, or else once more. */
  async #readBehind(): Promise<void> {
    const place = takePlace(this.#bringsMuch);
    place.set(this.#own);
    let more: number | undefined;
    const reading = this.#conn.read(place.subarray(OWN_SIZE)).then(
      (length) => more = length ?? ENDED,
      (error) => more = this.#failed(error),
    );
    for (let i = 0; i < TICKS && more === undefined; i++) await undefined;
    if (more !== undefined && more > 0) return this.#settle(place, 0, OWN_SIZE + more);
    this.#settle(this.#own, 0, OWN_SIZE);
    this.#settle(place, OWN_SIZE, await reading);
  }

  /** What has come of a read that failed. */
  #failed(error: Error): number {
    // A peer that is gone without a closing alert has ended, as everywhere else.
    if (error.name === "UnexpectedEof") return ENDED;
    this.#readError = error;
    return FAILED;
  }

  /** A read has brought so much into the place, or else has ended, behind what is there already. */
  #settle(place: Uint8Array<ArrayBuffer>, start: number, length: number): void {
    // What a socket has read when it is destroyed is lost.
    if (this.#destroyed) return;
    if (length === FAILED) return this.#destroy(this.#readError);
    if (length === ENDED) return this.#endInput();
    const end = start + length;
    this.#came = end;
    this.#isMore = end === place.length && place !== this.#own;
    // Of the chunk before nothing will be told any more.
    this.#isKept = this.#held !== undefined;
    this.#held = undefined;
    if (place === this.#own) this.#giveOwn(length);
    else this.#give(place, start, end);
  }

  /** A chunk that fills little of its place is copied, lest the rest be kept with it. */
  #giveOwn(length: number): void {
    const own = this.#own;
    if (length < OWN_SIZE / 2) this.#handlers!.data(own.slice(0, length));
    else if (this.#handlers!.data(own.subarray(0, length)) !== true) {
      this.#own = new Uint8Array(OWN_SIZE);
    }
  }

  #give(place: Uint8Array<ArrayBuffer>, start: number, end: number): void {
    if (end - start < place.length / 2) {
      const chunk = place.slice(start, end);
      freePlace(place);
      this.#handlers!.data(chunk);
    } else if (this.#handlers!.data(place.subarray(start, end)) === true) {
      freePlace(place);
    } else {
      // Only who is paused gives it back later; who is not would keep it for as long as it is idle.
      this.#held = this.#paused ? place : KEPT;
    }
  }

  #endInput(): void {
    this.#inputEnded = true;
    this.#handlers!.end();
    this.#destroyAtEnd();
  }

  #startWriting(): void {
    if (this.#isWriting) return;
    this.#isWriting = true;
    this.#writing = this.#flush();
  }

  async #flush(): Promise<void> {
    try {
      for (let next = this.#next(); next !== undefined; next = this.#next()) {
        await this.#writeAll(next);
        if (next.place === undefined) this.#borrowed -= next.length;
        else freePlace(next.place);
        if (this.#waiting + this.#dropped === 0) this.#handlers?.drain();
      }
      // What is written from now on finds nobody at work.
      this.#isWriting = false;
      if (this.#ending && !this.#destroyed) await this.#endOutput();
    } catch (error) {
      this.#destroy(error as Error);
    }
  }

  /** What is to be written next. */
  #next(): Waiting | undefined {
    if (!this.#queue?.length && this.#filled > 0) this.#cut();
    return this.#queue?.shift();
  }

  async #endOutput(): Promise<void> {
    // Nothing is written behind it.
    this.#isWriting = true;
    await this.#conn.closeWrite();
    this.#outputEnded = true;
    this.#destroyAtEnd();
  }

  async #writeAll({ bytes, length }: Waiting): Promise<void> {
    for (let at = 0; at < length && !this.#destroyed;) {
      if (bytes.length !== length) throw new TypeError("The bytes were detached");
      const written = await this.#conn.write(at === 0 ? bytes : bytes.subarray(at));
      at += written;
      this.#waiting -= written;
    }
  }

  #destroyAtEnd(): void {
    if (this.#inputEnded && this.#outputEnded) this.#destroy();
  }

  #destroy(error?: Error): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#error = error;
    this.#queue = undefined;
    this.#filled = 0;
    this.#place = undefined;
    closeQuietly(this.#conn);
    // Closing ends what is under way. Turns later, as with a socket.
    Promise.all([this.#reading, this.#writing]).then(() => {
      this.#gone = true;
      this.#waiting = this.#borrowed = 0;
      this.#handlers?.close(this.#error);
    });
  }
}

function sizeOf(parts: readonly Uint8Array[]): number {
  let size = 0;
  for (const part of parts) size += part.length;
  return size;
}

/** Closes what may be closed already. */
export function closeQuietly(closable: { close(): void }): void {
  try {
    closable.close();
  } catch {
    // It is closed already.
  }
}

/** Where one of Deno's connections or listeners is. */
export function addressOf({ hostname, port }: NetAddress): Address {
  return { transport: "tcp", hostname, port };
}
