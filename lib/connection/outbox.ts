/**
 * What leaves: frames gathered into a batch, one write a turn, and who waits for room.
 *
 * @module
 */
import type { Role } from "../core/frame.ts";
import { FrameWriter } from "../core/frame_writer.ts";
import type { TextCodec } from "../core/utf8.ts";
import type { Transport } from "../transport.ts";
import { nextTurn } from "./turn.ts";

/** How many bytes may wait, here and in the transport, before a send waits too. */
export const SEND_MARK = 65536;

/** What a send gives that need not wait. */
export const DONE: Promise<void> = Promise.resolve();

interface Waiter {
  resolve(): void;
  reject(error: unknown): void;
}

/** Shared by all where nobody waits. */
const NONE: Waiter[] = [];

function added(list: Waiter[], waiter: Waiter): Waiter[] {
  if (list === NONE) return [waiter];
  list.push(waiter);
  return list;
}

/** Those that are flushed in the next turn: one callback for all, and none for each to keep. */
let due: Outbox[] = [];

/** Gathers frames and writes them to a transport. */
export class Outbox {
  /** Where frames are written; call `settle()` or `post()` behind it. */
  readonly writer: FrameWriter;
  readonly #transport: Transport;
  #scheduled = false;
  #bytesSent = 0;
  /** Sends in the batch at hand, and sends whose bytes the transport has. */
  #batched: Waiter[] = NONE;
  #flushed: Waiter[] = NONE;

  /**
   * @param role which end this is
   * @param transport where the bytes go
   * @param codec how text is encoded
   */
  constructor(role: Role, transport: Transport, codec: TextCodec | undefined) {
    this.writer = new FrameWriter(role, codec);
    this.#transport = transport;
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
    return this.#batched.length + this.#flushed.length > 0;
  }

  /** Sees to it that what was written leaves in this turn. */
  post(): void {
    const { size } = this.writer;
    if (size >= SEND_MARK) return this.flush();
    if (this.#scheduled || size === 0) return;
    this.#scheduled = true;
    if (due.push(this) === 1) nextTurn(Outbox.#flushDue);
  }

  /**
   * Does as `post()`; the promise resolves at once while there is room, and otherwise once what was
   * written has left.
   *
   * @param borrowed whether the batch holds bytes that are not our own
   */
  settle(borrowed: boolean): Promise<void> {
    this.post();
    if (this.bufferedAmount <= SEND_MARK && !(borrowed && this.bufferedAmount > 0)) return DONE;
    const promise = new Promise<void>((resolve, reject) => {
      const waiter = { resolve, reject };
      if (this.writer.size > 0) this.#batched = added(this.#batched, waiter);
      else this.#flushed = added(this.#flushed, waiter);
    });
    handled(promise);
    return promise;
  }

  static #flushDue(): void {
    const outboxes = due;
    due = [];
    let next = 0;
    try {
      while (next < outboxes.length) {
        const outbox = outboxes[next++];
        outbox.#scheduled = false;
        outbox.flush();
      }
    } finally {
      // A transport of somebody's own that throws is no harm to the other connections.
      if (next < outboxes.length) {
        due = [...outboxes.slice(next), ...due];
        nextTurn(Outbox.#flushDue);
      }
    }
  }

  /** Gives the batch to the transport. */
  flush(): void {
    const { size } = this.writer;
    if (size > 0) {
      this.#bytesSent += size;
      this.#transport.write(this.writer.take());
      if (this.#flushed === NONE) this.#flushed = this.#batched;
      else this.#flushed.push(...this.#batched);
      this.#batched = NONE;
    }
    if (this.#transport.bufferedAmount === 0) this.#settleFlushed();
  }

  /** The transport has taken all that it was given. */
  drained(): void {
    this.#settleFlushed();
    if (this.writer.size > 0) this.flush();
  }

  /** Ends all waiting. */
  fail(error: unknown): void {
    const waiters = [...this.#flushed, ...this.#batched];
    this.#flushed = this.#batched = NONE;
    for (const waiter of waiters) waiter.reject(error);
  }

  #settleFlushed(): void {
    this.writer.recycle();
    if (this.#flushed.length === 0) return;
    const waiters = this.#flushed;
    this.#flushed = NONE;
    for (const waiter of waiters) waiter.resolve();
  }
}

/** Marks a promise as handled: whoever wants its rejection still gets it. */
export function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
