/** Messages that wait while the history is read, or until their topic brings them. */
import { isTooMuch, MESSAGE_OVERHEAD } from "../connection/sending.ts";
import { Queue } from "../core/queue.ts";
import { isCovered, type Position } from "./backplane.ts";
import type { Delivery } from "./envelope.ts";

/** How many messages may wait. */
export interface HeldLimits {
  /** Maximum number of messages. */
  readonly maxWaiting: number;
  /** Maximum number of bytes. */
  readonly maxWaitingBytes: number;
}

/** Messages that wait while the history is read. */
export class Held {
  readonly #limits: HeldLimits;
  readonly #queue = new Queue<Delivery>();
  #bytes = 0;
  #hasOverflowed = false;

  constructor(limits: HeldLimits) {
    this.#limits = limits;
  }

  get length(): number {
    return this.#queue.length;
  }

  /** Whether messages were left out. They are in the history. */
  get hasOverflowed(): boolean {
    return this.#hasOverflowed;
  }

  push(delivery: Delivery): void {
    const { maxWaiting, maxWaitingBytes } = this.#limits;
    const size = sizeOf(delivery);
    this.#hasOverflowed ||= this.#queue.length >= maxWaiting ||
      isTooMuch(this.#bytes, size, maxWaitingBytes);
    if (this.#hasOverflowed) return;
    this.#queue.push(delivery);
    this.#bytes += size;
  }

  shift(): Delivery | undefined {
    const delivery = this.#queue.shift();
    if (delivery !== undefined) this.#bytes -= sizeOf(delivery);
    return delivery;
  }

  clear(): void {
    this.#queue.clear();
    this.#bytes = 0;
    this.#hasOverflowed = false;
  }
}

function sizeOf({ message }: Delivery): number {
  return message.length + MESSAGE_OVERHEAD;
}

/** Messages that a prefix has brought before their topic. */
export class Early {
  readonly #held: Held;
  /** Number of messages that came before the current read of the history. */
  #read = 0;
  /** The last message that was dropped. */
  #dropped: Position | undefined;

  constructor(limits: HeldLimits) {
    this.#held = new Held(limits);
  }

  /** Whether no message waits, and none was dropped. */
  get isEmpty(): boolean {
    return this.#held.length === 0 && this.#dropped === undefined;
  }

  /** Adds a message. If there are too many, drops all of them, because the topic will bring them. */
  push(delivery: Delivery): void {
    this.#held.push(delivery);
    if (!this.#held.hasOverflowed) return;
    for (const { position } of this.takeAll()) this.#drop(position);
    this.#drop(delivery.position);
  }

  #drop(position: Position | undefined): void {
    if (!isCovered(position, this.#dropped)) this.#dropped = position;
  }

  /** Says that the history is read from now on, which has the messages that wait. */
  beginRead(): void {
    this.#read = this.#held.length;
  }

  /**
   * Takes the messages that the topic will not bring any more.
   *
   * @param last The place up to which the topic has brought its messages.
   * @param isRead Whether the read of the history has ended.
   */
  take(last: Position | undefined, isRead: boolean): Delivery[] {
    const taken: Delivery[] = [];
    const { length } = this.#held;
    let read = 0;
    for (let i = 0; i < length; i++) {
      const delivery = this.#held.shift()!;
      const wasRead = i < this.#read;
      if (isCovered(delivery.position, last) || (isRead && wasRead)) taken.push(delivery);
      else {
        this.#held.push(delivery);
        if (wasRead) read++;
      }
    }
    this.#read = read;
    if (isCovered(this.#dropped, last)) this.#dropped = undefined;
    return taken;
  }

  takeAll(): Delivery[] {
    const taken: Delivery[] = [];
    for (let next = this.#held.shift(); next !== undefined; next = this.#held.shift()) {
      taken.push(next);
    }
    this.#held.clear();
    this.#read = 0;
    return taken;
  }

  /** Whether messages were dropped that the topic has not brought. Forgets them. */
  takeDropped(): boolean {
    const hasDropped = this.#dropped !== undefined;
    this.#dropped = undefined;
    return hasDropped;
  }
}
