/** Lets the calls of a backplane wait for each other. */
import { abortable } from "../abortable.ts";

/** Lets calls wait while it is closed. They go on in the order in which they came. */
export class Gate {
  #opened: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  /** Waits until the gate is open. Takes as long if it is, so that no call overtakes those that waited. */
  pass(signal: AbortSignal): Promise<unknown> {
    return abortable(this.#opened, signal);
  }

  /** Closes the gate until a promise has settled, unless it is closed already. */
  close(wait: () => Promise<unknown>): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#opened = Promise.allSettled([wait()]).then(() => this.#isClosed = false);
  }
}
