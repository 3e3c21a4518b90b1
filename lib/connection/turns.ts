/**
 * Whose turn it is to send.
 *
 * @module
 */
import { onAbort } from "../abortable.ts";

/** What a sender has its turn for: a message at hand, or one whose items are yet to come. */
export type Turn = "whole" | "items";

/** A message that waits for its turn. */
export interface Waiting {
  readonly turn: Turn;
  /** How many bytes wait with it: of text, code units. */
  readonly length: number;
  /** The turn has come; `release()` ends it. */
  enter(): void;
  /** The turn does not come. */
  fail(error: unknown): void;
  /** Removes the listener for the signal that takes the message out of the queue. */
  stop?: () => void;
  // The neighbours in the queue: any of them may leave it, and none may cost more when many wait.
  previous?: Waiting;
  next?: Waiting;
}

/** Lets one sender after the other have its turn. */
export class SendTurns {
  /** Ends the message of several frames that is under way, whatever it waits for. */
  interrupt: ((error: unknown) => void) | undefined;
  /** Whether extensions work on a frame. They take no other before, and this one is written in any case. */
  encoding = false;
  /** The length of the whole message that is being encoded. */
  underway = 0;
  /** Whether the message under way has begun: a frame of it was written. */
  begun = false;
  /** What the turn is for; undefined if nobody has it. */
  holder: Turn | undefined;
  /** How many wait for their turn. */
  count = 0;
  #first: Waiting | undefined;
  #last: Waiting | undefined;
  #length = 0;
  #isAdvancing = false;

  /** The length of the messages that wait, the one that is being encoded too: of text in code units. */
  get length(): number {
    return this.#length + this.underway;
  }

  /**
   * Gives the turn to those who wait, one after the other; to this one at once if nobody has it.
   *
   * @param signal takes it out of the queue
   */
  join(waiting: Waiting, signal?: AbortSignal): void {
    if (signal?.aborted) return waiting.fail(signal.reason);
    if (signal !== undefined) {
      waiting.stop = onAbort(signal, (reason) => {
        this.#leave(waiting);
        waiting.fail(reason);
      });
    }
    waiting.previous = this.#last;
    if (this.#last === undefined) this.#first = waiting;
    else this.#last.next = waiting;
    this.#last = waiting;
    this.count++;
    this.#length += waiting.length;
    this.#advance();
  }

  #leave(waiting: Waiting): void {
    const { previous, next } = waiting;
    if (previous === undefined) this.#first = next;
    else previous.next = next;
    if (next === undefined) this.#last = previous;
    else next.previous = previous;
    waiting.previous = waiting.next = undefined;
    waiting.stop?.();
    this.count--;
    this.#length -= waiting.length;
  }

  /** Waits for the turn; `release()` ends it. */
  acquire(turn: Turn, signal?: AbortSignal): Promise<void> {
    return new Promise((enter, fail) => this.join({ turn, length: 0, enter, fail }, signal));
  }

  /** Ends the turn. */
  release(): void {
    this.holder = undefined;
    this.begun = false;
    this.#advance();
  }

  /** Lets the next ones have their turns. A loop: many may have theirs and end it at once. */
  #advance(): void {
    if (this.#isAdvancing) return;
    this.#isAdvancing = true;
    while (this.holder === undefined && this.#first !== undefined) {
      const waiting = this.#first;
      this.#leave(waiting);
      this.holder = waiting.turn;
      waiting.enter();
    }
    this.#isAdvancing = false;
  }

  /** Refuses all who wait, or those who wait for such a turn. */
  fail(error: unknown, turn?: Turn): void {
    for (let next, waiting = this.#first; waiting !== undefined; waiting = next) {
      next = waiting.next;
      if (turn !== undefined && waiting.turn !== turn) continue;
      this.#leave(waiting);
      waiting.fail(error);
    }
  }
}
