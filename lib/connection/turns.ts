/** A queue of messages that wait for their turn to be sent. */
import { onAbort } from "../abortable.ts";

/** What a turn is for: a whole message, or a message whose items are still to come. */
export type Turn = "whole" | "items";

export interface Waiting {
  readonly turn: Turn;
  /** Number of bytes that wait with the message. Text counts its UTF-16 code units. */
  readonly length: number;
  /** Called when the turn begins. `release()` ends it. */
  enter(): void;
  /** Called if the message gets no turn. */
  fail(error: unknown): void;
  stop?: () => void;
}

export class SendTurns {
  /** Interrupts the current message of several frames, whatever it waits for. */
  interrupt: ((error: unknown) => void) | undefined;
  /** Whether extensions work on a frame. This frame is always written, and no other frame before it. */
  encoding = false;
  /** The length of the whole message that is being encoded. */
  underway = 0;
  /** Whether a frame of the current message was written. */
  begun = false;
  /** Whether this end's Close frame waits for the complete messages. */
  isClosing = false;
  /** What the current turn is for; undefined between turns. */
  holder: Turn | undefined;
  /** In order. Any message can leave the set in constant time. */
  readonly #waiting = new Set<Waiting>();
  #length = 0;
  #isAdvancing = false;

  get count(): number {
    return this.#waiting.size;
  }

  /** Length of the waiting messages and the one being encoded. Text counts its UTF-16 code units. */
  get length(): number {
    return this.#length + this.underway;
  }

  /** Adds a message to the queue. Its turn begins at once if no other message has the turn. */
  join(waiting: Waiting, signal?: AbortSignal): void {
    if (signal?.aborted) return waiting.fail(signal.reason);
    if (signal !== undefined) {
      waiting.stop = onAbort(signal, (reason) => {
        this.#leave(waiting);
        waiting.fail(reason);
      });
    }
    this.#waiting.add(waiting);
    this.#length += waiting.length;
    this.#advance();
  }

  #leave(waiting: Waiting): void {
    this.#waiting.delete(waiting);
    waiting.stop?.();
    this.#length -= waiting.length;
  }

  /** Waits for a turn. `release()` ends it. */
  acquire(turn: Turn, signal?: AbortSignal): Promise<void> {
    return new Promise((enter, fail) => this.join({ turn, length: 0, enter, fail }, signal));
  }

  release(): void {
    this.holder = undefined;
    this.begun = false;
    this.#advance();
  }

  /** Begins the next turns. This is a loop, because a message may end its turn at once. */
  #advance(): void {
    if (this.#isAdvancing) return;
    this.#isAdvancing = true;
    for (const waiting of this.#waiting) {
      if (this.holder !== undefined) break;
      this.#leave(waiting);
      this.holder = waiting.turn;
      waiting.enter();
    }
    this.#isAdvancing = false;
  }

  /** Refuses the messages that wait, or only those that wait for one kind of turn. */
  fail(error: unknown, turn?: Turn): void {
    for (const waiting of this.#waiting) {
      if (turn !== undefined && waiting.turn !== turn) continue;
      this.#leave(waiting);
      waiting.fail(error);
    }
  }
}
