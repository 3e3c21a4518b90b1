/**
 * How many control frames a peer may send.
 *
 * A file of its own because it counts, and whoever receives need only know whether it is too many.
 *
 * @module
 */
import { CloseCode } from "../core/close.ts";
import { RemoteProtocolError } from "../core/error.ts";
import { now as clock } from "../timers.ts";

/** What a peer may send where the caller does not say. */
const MAX_CONTROL_FRAMES = 10_000;
/** In milliseconds. */
const SECOND = 1000;

/**
 * Counts the pings and pongs that come. A frame costs its receiver as much as a small message does, and an
 * answer besides, but fills no queue, so that nothing else would hold back a flood of them.
 */
export class ControlRate {
  readonly #limit: number;
  readonly #now: () => number;
  /** How many may still come. */
  #left: number;
  #countedAt: number;
  #messages = 0;

  /**
   * @param limit how many a second, and at once, beside one for each message
   * @param now a clock, in milliseconds
   */
  constructor(limit: number = MAX_CONTROL_FRAMES, now: () => number = clock) {
    this.#limit = this.#left = limit;
    this.#now = now;
    this.#countedAt = now();
  }

  /**
   * Counts one more.
   *
   * @param messages how many messages have come so far
   * @throws {RemoteProtocolError} with 1008 when it is one too many
   */
  count(messages: number): void {
    if (this.#limit === Infinity) return;
    const now = this.#now();
    const earned = (now - this.#countedAt) / SECOND * this.#limit + messages - this.#messages;
    this.#left = Math.min(this.#limit, this.#left + earned) - 1;
    this.#countedAt = now;
    this.#messages = messages;
    if (this.#left >= 0) return;
    throw new RemoteProtocolError(
      `Expected at most ${this.#limit} control frames a second, received more`,
      // RFC 6455 §7.4.1: the peer breaks a rule of ours, and none of the protocol.
      CloseCode.PolicyViolation,
    );
  }
}
