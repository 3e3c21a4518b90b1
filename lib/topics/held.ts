/** Messages that wait while the history is read. */
import { isTooMuch, MESSAGE_OVERHEAD } from "../connection/sending.ts";
import { Queue } from "../core/queue.ts";
import type { Delivery } from "./envelope.ts";

/** How many messages may wait. */
export interface HeldLimits {
  /** Maximum number of messages. */
  readonly maxWaiting: number;
  /** Maximum number of bytes. */
  readonly maxWaitingBytes: number;
}

export class Held {
  readonly #limits: HeldLimits;
  readonly #queue = new Queue<Delivery>();
  #bytes = 0;
  #hasOverflowed = false;

  constructor(limits: HeldLimits) {
    this.#limits = limits;
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
