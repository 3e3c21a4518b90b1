/**
 * What leaves: frames gathered into a batch, one write a turn, and who waits for room.
 *
 * @module
 */
import type { Role } from "../core/frame.ts";
import { FrameWriter } from "../core/frame_writer.ts";
import type { TextCodec } from "../core/utf8.ts";
import type { Transport } from "../transport.ts";
import { nextTurn } from "../timers.ts";
import { TurnClock } from "./turn.ts";

/** How many bytes may wait, here and in the transport, before a send waits too. */
export const SEND_MARK = 65536;

/** Each time that so many messages were sent, a power of 2, the length of this turn is looked at. */
const LOOK_EVERY = 64;

/** What a message that is long, or that an extension changes, is taken for at least. */
const COSTLY = 0.5;

/** How many bytes the transport is given at a time: it may copy them. */
const GIVE_MOST = 4 * SEND_MARK;

/** What a send gives that need not wait. */
export const DONE: Promise<void> = Promise.resolve();

/** What all sends get that wait for the same bytes: a promise for each of them would be most of what waits. */
class Departure {
  readonly promise: Promise<void>;
  resolve!: (when: void | PromiseLike<void>) => void;
  reject!: (error: unknown) => void;

  constructor() {
    this.promise = handled(
      new Promise((resolve, reject) => {
        this.resolve = resolve;
        this.reject = reject;
      }),
    );
  }
}

/** Those that are flushed in the next turn: one callback for all, and none for each to keep. */
let due: Outbox[] = [];

/** What an {@linkcode Outbox} tells its connection. */
export interface OutboxHost {
  /**
   * A caller has detached the bytes of a message that waited.
   *
   * @param lent whether the transport had them already, so that a part of the frame may have left
   */
  vanished(lent: boolean): void;
  /** The transport has thrown. */
  transportThrew(error: unknown): void;
}

/** Gathers frames and writes them to a transport. */
export class Outbox {
  /** Where frames are written; call `settle()` or `post()` after it. */
  readonly writer: FrameWriter;
  readonly #transport: Transport;
  readonly #host: OutboxHost;
  #scheduled = false;
  #bytesSent = 0;
  #messages = 0;
  readonly #clock = new TurnClock();
  /** For sends whose bytes are in the batch at hand, and those whose bytes the transport has. */
  #batched: Departure | undefined;
  #flushed: Departure | undefined;
  /** Why nothing leaves any more. */
  #failure: (() => unknown) | undefined;

  /**
   * @param role which end this is
   * @param transport where the bytes go
   * @param codec how text is encoded
   * @param host the connection
   */
  constructor(role: Role, transport: Transport, codec: TextCodec | undefined, host: OutboxHost) {
    this.writer = new FrameWriter(role, codec);
    this.#transport = transport;
    this.#host = host;
  }

  /** The bytes that wait here and in the transport. */
  get bufferedAmount(): number {
    return this.writer.size + this.#transport.bufferedAmount;
  }

  /** The bytes given to the transport since the beginning. */
  get bytesSent(): number {
    return this.#bytesSent;
  }

  /** Whether sends wait for room. */
  get congested(): boolean {
    return this.#batched !== undefined || this.#flushed !== undefined;
  }

  /** Whether the bytes that the transport was lent are as they were. */
  get isLentIntact(): boolean {
    return this.writer.isLentIntact;
  }

  /** Sees to it that what was written leaves in this turn. */
  post(): void {
    const { size } = this.writer;
    if (size >= SEND_MARK) this.flush();
    else if (size > 0) this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    if (due.push(this) === 1) nextTurn(Outbox.#flushDue);
  }

  /**
   * Does as `post()`; the promise resolves at once while there is room, and otherwise once what was
   * written has left. If this turn of the event loop has been long, it resolves in the next one: a loop
   * that awaits its sends must let timers and other connections run.
   */
  settle(): Promise<void> {
    const { size } = this.writer;
    if (size >= SEND_MARK) return this.settleLong(false);
    if (size > 0) this.#schedule();
    if (size + this.#transport.bufferedAmount > SEND_MARK) return this.#departure();
    return (++this.#messages & (LOOK_EVERY - 1)) === 0 ? this.#clock.look(1) ?? DONE : DONE;
  }

  /**
   * The same for a message that is long, or takes long to send, so that a few of them make a turn long.
   *
   * @param borrowed whether the batch holds bytes that are not our own
   */
  settleLong(borrowed: boolean): Promise<void> {
    const work = COSTLY + this.writer.size / SEND_MARK;
    this.post();
    if (this.#failure !== undefined) return handled(Promise.reject(this.#failure()));
    const { bufferedAmount } = this;
    if (bufferedAmount > SEND_MARK || (borrowed && bufferedAmount > 0)) return this.#departure();
    return this.#clock.look(work) ?? DONE;
  }

  /** When what waits now has left. */
  #departure(): Promise<void> {
    if (this.writer.size > 0) return (this.#batched ??= new Departure()).promise;
    return (this.#flushed ??= new Departure()).promise;
  }

  static #flushDue(): void {
    const outboxes = due;
    due = [];
    for (const outbox of outboxes) {
      outbox.#scheduled = false;
      try {
        outbox.flush();
      } catch (error) {
        // A transport of somebody's own that throws is no harm to the other connections.
        outbox.#host.transportThrew(error);
      }
    }
  }

  /**
   * Gives the batch to the transport, a part at a time and only once the transport has taken what it was
   * given before; `drained()` goes on. What waits here is held once, and can still be checked.
   */
  flush(): void {
    const transport = this.#transport;
    while (transport.bufferedAmount === 0 && this.#give(GIVE_MOST, false)) {
      if (transport.bufferedAmount === 0) this.#settleFlushed();
    }
  }

  /** Gives the batch to the transport in any case: nothing is written after it. */
  flushAll(): void {
    this.#give(Infinity, this.#transport.bufferedAmount > 0);
    if (this.#transport.bufferedAmount === 0) this.#settleFlushed();
  }

  /** Tells whether something was given, and more may be. */
  #give(most: number, copy: boolean): boolean {
    const { writer } = this;
    if (writer.size === 0) return false;
    const parts = writer.take(most, copy);
    for (const { length } of parts) this.#bytesSent += length;
    // Sends wait for the last of their bytes.
    if (writer.size === 0 && this.#batched !== undefined) this.#depart(this.#batched);
    try {
      if (parts.length > 0) this.#transport.write(parts);
    } catch (error) {
      // What was taken is lost, and the stream of frames out of step.
      this.#host.transportThrew(error);
      return false;
    }
    if (!writer.hasVanished) return true;
    this.#host.vanished(false);
    return false;
  }

  /** The sends in the batch wait for the transport from now on. */
  #depart(batched: Departure): void {
    this.#batched = undefined;
    if (this.#flushed === undefined) this.#flushed = batched;
    else this.#flushed.promise.then(batched.resolve, batched.reject);
  }

  /** The transport has taken all that it was given. */
  drained(): void {
    this.#settleFlushed();
    this.flush();
  }

  /** Ends all waiting. */
  fail(error: () => unknown): void {
    this.#failure = error;
    this.#flushed?.reject(error());
    this.#batched?.reject(error());
    this.#flushed = this.#batched = undefined;
  }

  #settleFlushed(): void {
    if (!this.writer.isLentIntact) return this.#host.vanished(true);
    this.writer.recycle();
    const flushed = this.#flushed;
    this.#flushed = undefined;
    if (flushed !== undefined) flushed.resolve(this.#clock.look(1));
  }
}

const ignore = () => {};

/** Marks a promise as handled: whoever wants its rejection still gets it. */
export function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(ignore);
  return promise;
}
