/** Puts messages into the order of their stream. */
import { backgroundTimer } from "../timers.ts";
import type { BackplaneMessage } from "./backplane.ts";

/** Maximum number of messages that wait for an earlier one. */
const MAX_HELD = 1000;
/** Maximum time for which messages wait for an earlier one, in milliseconds. */
const MAX_WAIT = 2000;

interface Held {
  readonly offset: number;
  readonly previous: number;
  readonly message: BackplaneMessage;
}

/** What a {@linkcode Sequence} calls. */
export interface SequenceHost {
  /** Takes the next message. */
  deliver(message: BackplaneMessage): void;
  /** Told of a message that is not after the last one. */
  repeated(): void;
  /** Told that an earlier message has not come in time. */
  missing(): void;
}

/**
 * The messages of one topic. An engine may send them in another order than that of its stream. Each message
 * names the offset of the one before it, so that a gap is seen.
 */
export class Sequence {
  readonly #host: SequenceHost;
  /** The offset of the last message that was delivered, or was there at the beginning. */
  #last: number | undefined;
  /** By the offset of the message before. */
  readonly #held = new Map<number, Held>();
  #cancelTimer: (() => void) | undefined;

  constructor(host: SequenceHost) {
    this.#host = host;
  }

  /** Begins after an offset. Until then, messages are held. */
  begin(last: number): void {
    this.#last = last;
    const held = [...this.#held.values()].sort((a, b) => a.offset - b.offset);
    this.#held.clear();
    for (const { offset, previous, message } of held) {
      if (offset > this.#last) this.take(offset, previous, message);
    }
  }

  /** Forgets everything. Messages are held until the sequence begins again. */
  reset(): void {
    this.#last = undefined;
    this.#held.clear();
    this.#stopTimer();
  }

  /**
   * Takes a message.
   *
   * @param previous Offset of the message of the topic before this one, or 0 if the stream has none.
   */
  take(offset: number, previous: number, message: BackplaneMessage): void {
    if (this.#last === undefined || previous > this.#last) {
      return this.#hold({ offset, previous, message });
    }
    if (offset <= this.#last) return this.#host.repeated();
    let next: Held | undefined = { offset, previous, message };
    do {
      this.#last = next.offset;
      this.#held.delete(next.previous);
      this.#host.deliver(next.message);
      // A receiver may end the subscription.
      next = this.#held.get(next.offset);
    } while (next !== undefined);
    if (this.#held.size === 0) this.#stopTimer();
  }

  #hold(held: Held): void {
    this.#held.set(held.previous, held);
    if (this.#last !== undefined) {
      if (this.#held.size > MAX_HELD) return this.#host.missing();
      if (this.#cancelTimer === undefined) this.#startTimer();
    } else if (this.#held.size > MAX_HELD) {
      const [oldest] = this.#held.keys();
      this.#held.delete(oldest);
    }
  }

  /** Waits for the next message. Messages may be held all the time while others arrive. */
  #startTimer(): void {
    const last = this.#last;
    this.#cancelTimer = backgroundTimer(() => {
      if (this.#last === last) this.#host.missing();
      else this.#startTimer();
    }, MAX_WAIT);
  }

  #stopTimer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }
}
