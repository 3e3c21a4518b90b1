/** Calls a backplane: within a time limit, and again after failures. */
import { abortable, sleep } from "../abortable.ts";
import { domError, errorCodeOf, failure, invalidState } from "../core/error.ts";
import { backgroundTimer, now } from "../timers.ts";
import type { Backplane, BackplaneCall, HistoryRead, Position } from "./backplane.ts";

/** Told of errors that no call reports. */
export type Report = (error: unknown, topic: string | undefined) => void;

/** Calls a function of the application. Reports its error, also that of an async function. */
export function callHook(hook: () => unknown, report: (error: unknown) => void): void {
  try {
    const result = hook();
    if (result instanceof Promise) result.catch(report);
  } catch (error) {
    report(error);
  }
}

/** Delays before a failed call is repeated, in milliseconds. */
const MIN_DELAY = 50;
const MAX_DELAY = 5000;

/** The time limits of calls are counted in steps of this part of the limit, with one timer each. */
const STEP = 1 / 8;

/** A call that takes effect at once needs no limit. */
const LOCAL: BackplaneCall = { signal: new AbortController().signal };

interface EngineOptions {
  readonly isLocal: boolean;
  /** Maximum time for a call, in milliseconds. */
  readonly timeout: number;
  /** Maximum number of bytes of a page of the history. */
  readonly maxBytes: number;
  readonly report: Report;
}

interface Limit {
  readonly controller: AbortController;
  /** Calls that begin before this time share the limit. */
  readonly until: number;
  readonly cancel: () => void;
}

/** The backplanes that belong to topics. */
const owned = new WeakSet<Backplane>();

export class Engine {
  readonly backplane: Backplane;
  readonly report: Report;
  /** Whether a call takes effect at once. */
  readonly #isLocal: boolean;
  readonly #timeout: number;
  readonly #maxBytes: number;
  readonly #limits = new Set<Limit>();
  #limit: Limit | undefined;
  #outage: unknown;
  #isClosed = false;

  constructor(backplane: Backplane, { isLocal, timeout, maxBytes, report }: EngineOptions) {
    if (owned.has(backplane)) {
      const message = "The backplane belongs to other topics: make a backplane for each Topics";
      throw invalidState(message, "already-used");
    }
    owned.add(backplane);
    this.backplane = backplane;
    this.#isLocal = isLocal;
    this.#timeout = timeout;
    this.#maxBytes = maxBytes;
    this.report = report;
  }

  /** Reports an outage once, although it interrupts each subscription. */
  reportOutage(error: unknown): void {
    if (error instanceof Error && error === this.#outage) return;
    this.#outage = error;
    this.report(error, undefined);
  }

  endOutage(): void {
    this.#outage = undefined;
  }

  /** Calls the backplane. Rejects with "backplane-failed" if the call fails or takes too long. */
  async call<T>(what: string, begin: (options: BackplaneCall) => Promise<T>): Promise<T> {
    if (this.#isClosed) throw invalidState("The topics are closed", "not-open");
    try {
      if (this.#isLocal) return await begin(LOCAL);
      const signal = this.#currentLimit();
      return await abortable(begin({ signal }), signal);
    } catch (error) {
      throw failure(`The backplane did not ${what}`, "backplane-failed", error);
    }
  }

  /**
   * Repeats an attempt until it succeeds. Rejects only with the reason of the signal, or if the backplane
   * does not support the call.
   */
  async insist<T>(topic: string, signal: AbortSignal, attempt: () => Promise<T>): Promise<T> {
    for (let delay = MIN_DELAY;; delay = Math.min(2 * delay, MAX_DELAY)) {
      signal.throwIfAborted();
      try {
        return await abortable(attempt(), signal);
      } catch (error) {
        signal.throwIfAborted();
        this.report(error, topic);
        if (errorCodeOf((error as Error).cause) === "unsupported") throw error;
      }
      // Random delays keep many processes from calling at the same time.
      await sleep(delay * (0.5 + Math.random()), signal);
    }
  }

  /** Reads a page of the history as it is from now on. */
  read(topic: string, since: Position | undefined): Promise<HistoryRead> {
    const maxBytes = this.#maxBytes;
    const read = ({ signal }: BackplaneCall) =>
      this.backplane.read!(topic, since, { signal, maxBytes });
    return this.call("read the history", read);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const { controller, cancel } of this.#limits) {
      cancel();
      controller.abort(invalidState("The topics are closed", "not-open"));
    }
    this.#limits.clear();
    await this.backplane.close();
  }

  #currentLimit(): AbortSignal {
    const time = now();
    if (this.#limit !== undefined && time < this.#limit.until) return this.#limit.controller.signal;
    const controller = new AbortController();
    const cancel = backgroundTimer(() => {
      this.#limits.delete(limit);
      const message = `No answer within publishTimeout (${this.#timeout} ms)`;
      controller.abort(domError("TimeoutError", message, "backplane-failed"));
    }, this.#timeout * (1 + STEP));
    const limit = { controller, until: time + this.#timeout * STEP, cancel };
    this.#limits.add(limit);
    this.#limit = limit;
    return controller.signal;
  }
}
