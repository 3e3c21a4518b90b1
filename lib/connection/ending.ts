/**
 * How far a connection has come to its end.
 *
 * A file of its own because an open connection has nothing of it: all of them share one.
 *
 * @module
 */
import { CloseRecord } from "./close_record.ts";
import type { CloseInfo } from "../core/close.ts";
import { invalidState, type WebSocketError } from "../core/error.ts";
import { deadline } from "../timers.ts";

/** Whoever is told of the end: an object, which takes less memory than a function that remembers as much. */
export interface EndListener {
  /** The transport has ended; the error says why it was none after a clean close. */
  ended(error?: WebSocketError): void;
}

/** Tells one more listener. */
export function withListener(before: EndListener | undefined, listener: EndListener): EndListener {
  if (before === undefined) return listener;
  return { ended: (error) => (before.ended(error), listener.ended(error)) };
}

/** How a connection closes when a stream of it is cancelled or aborted without a code. */
export type LeaveRule =
  /** With 1011 for an error, and otherwise without a code. */
  | "direct"
  /** Without a code, whatever the reason. */
  | "standard"
  /** As "direct", but what is no error waits for the handler, which says whether it has failed. */
  | "handler";

/** What has happened so far at the end of one connection. */
export class Ending {
  /** A Close, a violation or the end of the input was met: nothing behind it is decoded. */
  stopped = false;
  /** Our Close frame is to go behind the messages that were accepted. */
  closeAsked = false;
  /** The Close frames that went. */
  readonly record: CloseRecord = new CloseRecord();
  /** Why the connection does not end with a clean close. */
  error: WebSocketError | undefined;
  /** Both Close frames went. */
  shaken = false;
  inputEnded = false;
  transportClosed = false;
  transportError: Error | undefined;
  /** What to close with when the handler has returned: its streams were left. */
  leaving: CloseInfo | undefined;
  /** How it ends is certain, and `closed` has settled. */
  decided = false;
  /** The transport is gone, and all that waited was settled. */
  finished = false;
  /** And who waits for the end was told. */
  settled = false;
  #cancelTimer: (() => void) | undefined;
  /** The errors that those got who called at the wrong moment, and the last of them. */
  #refusals: WeakSet<object> | undefined;
  #lastRefusal: DOMException | undefined;

  /** Calls back unless the end comes within so many milliseconds from the first such call on; 0: never. */
  armTimer(timeout: number, callback: () => void): void {
    if (this.finished || timeout === 0 || this.#cancelTimer !== undefined) return;
    this.#cancelTimer = deadline(callback, timeout);
  }

  /** The end has come. */
  disarmTimer(): void {
    this.#cancelTimer?.();
  }

  /** The error of a call at the wrong moment: the same one as long as there is nothing else to say. */
  refusal(message: string): DOMException {
    const last = this.#lastRefusal;
    if (last?.message === message && last.cause === this.error) return last;
    const error = this.#lastRefusal = invalidState(message, this.error);
    (this.#refusals ??= new WeakSet()).add(error);
    return error;
  }

  /** Whether an error says no more than that the connection is at its end. */
  hasCaused(error: object): boolean {
    return error === this.error || this.#refusals?.has(error) === true;
  }
}

/** That of all connections for which nothing has ended yet. */
export const NOT_ENDING: Readonly<Ending> = new Ending();
