/**
 * Pings that wait for their pongs, and the timer that sends some.
 *
 * @module
 */
import { handled } from "./outbox.ts";
import { backgroundTimer } from "./turn.ts";

interface PendingPing {
  payload: Uint8Array;
  sentAt: number;
  resolve(latency: number): void;
  reject(error: unknown): void;
}

/** A timer that is so late tells of a process that was halted, or busy, in milliseconds. */
const STANDSTILL = 50;

/** Shared by all that wait for none. */
const NONE: readonly PendingPing[] = [];

/** The pings that were sent and not answered yet. */
export class Pings {
  #pending: readonly PendingPing[] = NONE;
  #latency: number | undefined;

  /** The time that the last answered ping took, in milliseconds. */
  get latency(): number | undefined {
    return this.#latency;
  }

  /** Notes a ping; resolves with the milliseconds until its pong. */
  add(payload: Uint8Array): Promise<number> {
    return handled(
      new Promise((resolve, reject) => {
        const ping = { payload, sentAt: performance.now(), resolve, reject };
        this.#pending = [...this.#pending, ping];
      }),
    );
  }

  /** Whether a ping with this payload waits. */
  has(payload: Uint8Array): boolean {
    return this.#pending.some((ping) => equal(ping.payload, payload));
  }

  /**
   * A pong came. RFC 6455 §5.5.3: it may answer the last of several pings alone. Tells whether it answers
   * any.
   */
  pong(payload: Uint8Array): boolean {
    const index = this.#pending.findIndex((ping) => equal(ping.payload, payload));
    const now = performance.now();
    const answered = this.#pending.slice(0, index + 1);
    this.#pending = index + 1 === this.#pending.length ? NONE : this.#pending.slice(index + 1);
    for (const ping of answered) {
      this.#latency = now - ping.sentAt;
      ping.resolve(this.#latency);
    }
    return index >= 0;
  }

  /** No pong will come. */
  fail(error: unknown): void {
    const failed = this.#pending;
    this.#pending = NONE;
    for (const ping of failed) ping.reject(error);
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** What a {@linkcode Keepalive} asks of its connection. */
export interface KeepaliveHost {
  /** Sends a ping; settles with its pong. */
  sendPing(): Promise<unknown>;
  /** Whether we have stopped reading, so that no pong can be seen. */
  paused(): boolean;
  /** Bytes both ways so far: whether the connection is alive at all. */
  traffic(): number;
  /** The peer does not answer. */
  lost(): void;
}

/** Sends a ping at an interval and waits for its pong, with one timer. */
export class Keepalive {
  readonly #host: KeepaliveHost;
  readonly #interval: number;
  readonly #timeout: number;
  #cancel: (() => void) | undefined;
  #stopped = false;

  /**
   * @param host the connection
   * @param interval how often to ping, in milliseconds
   * @param timeout how long a pong may take, in milliseconds; 0 for as long as it likes
   */
  constructor(host: KeepaliveHost, interval: number, timeout: number) {
    this.#host = host;
    this.#interval = interval;
    this.#timeout = timeout;
    if (interval > 0) this.#after(interval, () => this.#ping());
  }

  /** Sends no more. */
  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }

  #after(delay: number, callback: () => void): void {
    this.#cancel?.();
    if (!this.#stopped) this.#cancel = backgroundTimer(callback, delay);
  }

  #ping(): void {
    this.#host.sendPing().then(() => this.#after(this.#interval, () => this.#ping()), () => {});
    if (this.#timeout > 0) this.#await(0, this.#host.traffic());
  }

  /**
   * Waits for the pong. While our own side does not read it could not be seen, so that the deadline
   * does not count then, unless nothing at all has moved for two of them. Once it reads again the
   * pong has its whole time; once more, too, where the process stood still: it may lie there unread.
   */
  #await(quiet: number, traffic: number, mayStandStill = true): void {
    const pausedBefore = this.#host.paused();
    const due = performance.now() + this.#timeout;
    this.#after(this.#timeout, () => {
      const late = performance.now() - due;
      if (mayStandStill && late > Math.max(this.#timeout / 4, STANDSTILL)) {
        return this.#await(quiet, traffic, false);
      }
      const now = this.#host.traffic();
      const stillQuiet = now === traffic ? quiet + 1 : 0;
      const paused = pausedBefore || this.#host.paused();
      if (paused && stillQuiet < 2) this.#await(stillQuiet, now);
      else this.#host.lost();
    });
  }
}
