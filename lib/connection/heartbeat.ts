/** Pings and pongs: pings that wait, pings of keepalive, and the limit for the peer's control frames. */
import { CloseCode } from "../core/close.ts";
import { RemoteProtocolError } from "../core/error.ts";
import { backgroundTimer, Countdown, now, sharedTimer } from "../timers.ts";

/** What waits for the pong of a ping. */
export interface PingWaiter {
  /** @param latency The time until the pong, in milliseconds. */
  resolve(latency: number): void;
  reject(error: unknown): void;
}

export class Pings {
  /** By payload, in the order in which they were sent. */
  readonly #pending = new Map<string, { sentAt: number; waiter: PingWaiter }>();
  latency: number | undefined;

  /** Adds a ping. Returns false if an earlier ping with this payload waits for its pong. */
  add(payload: Uint8Array, waiter: PingWaiter): boolean {
    const key = keyOf(payload);
    if (this.#pending.has(key)) return false;
    this.#pending.set(key, { sentAt: now(), waiter });
    return true;
  }

  /** Returns whether a pong answers a ping. RFC 6455 §5.5.3: it may answer only the last of several. */
  pong(payload: Uint8Array): boolean {
    const answered = keyOf(payload);
    if (!this.#pending.has(answered)) return false;
    const answeredAt = now();
    for (const [key, { sentAt, waiter }] of this.#pending) {
      this.#pending.delete(key);
      this.latency = answeredAt - sentAt;
      waiter.resolve(this.latency);
      if (key === answered) break;
    }
    return true;
  }

  fail(error: () => unknown): void {
    for (const { waiter } of this.#pending.values()) waiter.reject(error());
    this.#pending.clear();
  }
}

function keyOf(payload: Uint8Array): string {
  let key = "";
  for (let i = 0; i < payload.length; i++) key += String.fromCharCode(payload[i]);
  return key;
}

export interface Traffic {
  received: number;
  /** Number of bytes that the transport was given. */
  sent: number;
  /** Number of these bytes that wait in the transport, because the platform takes no more. */
  waiting: number;
}

export interface KeepaliveHost {
  /** Whether the connection is open, so that a pong may come. */
  readonly isAlive: boolean;
  /** Sends a ping with a random payload, unless the connection is closing. */
  sendPing(waiter: PingWaiter): void;
  /** Whether reading is paused, so that no pong can be seen. */
  readonly isPaused: boolean;
  traffic(): Traffic;
  /** Called when no pong has come within `timeout` milliseconds. */
  lost(timeout: number): void;
}

/** With more bytes than this before the ping, a slow reader may need several deadlines to reach it. */
const MUCH = 65536;

/** Connections that were opened at once send their pings at about this many moments from the second on. */
const SPREAD = 8;

export class Keepalive implements PingWaiter {
  readonly #host: KeepaliveHost;
  readonly #interval: number;
  readonly #timeout: number;
  /** Cancels the timer that runs. */
  cancel: () => void;
  /** Number of bytes that were sent before the last answered ping. The peer has read these. */
  #confirmed = 0;
  /** Number of bytes that were sent before the last ping. */
  #sentBefore = 0;
  #isSpread = false;

  /**
   * @param interval Interval between pings, in milliseconds.
   * @param timeout Maximum time to wait for a pong, in milliseconds. 0 disables the limit.
   */
  constructor(host: KeepaliveHost, interval: number, timeout: number) {
    this.#host = host;
    this.#interval = interval;
    this.#timeout = timeout;
    this.cancel = backgroundTimer(() => this.#ping(), interval);
  }

  #ping(): void {
    const before = this.#host.traffic();
    this.#sentBefore = before.sent;
    this.#host.sendPing(this);
    if (this.#timeout === 0) return;
    this.#awaitPong(new Progress(this.#host), before.sent - this.#confirmed > MUCH);
  }

  /** Called when the pong has come. */
  resolve(): void {
    this.#confirmed = this.#sentBefore;
    this.cancel();
    if (!this.#host.isAlive) return;
    const earlier = this.#isSpread ? 0 : Math.floor(Math.random() * SPREAD);
    this.#isSpread = true;
    this.cancel = sharedTimer(() => this.#ping(), this.#interval, earlier);
  }

  /** Called when no pong can come any more. */
  reject(): void {}

  /**
   * Waits for the pong. Each deadline starts anew when bytes have moved. If no bytes have moved, the pong
   * gets one more deadline while reading is paused, because the pong may have arrived. It gets two more
   * if much was sent before the ping, because the ping may not have reached the peer.
   */
  #awaitPong(progress: Progress, hasMuchBefore: boolean, quiet = 1): void {
    this.cancel();
    if (!this.#host.isAlive) return;
    const countdown = new Countdown(
      () => {
        const most = hasMuchBefore ? 3 : this.#host.isPaused ? 2 : 1;
        if (quiet >= most) this.#host.lost(this.#timeout);
        else this.#awaitPong(progress, hasMuchBefore, quiet + 1);
      },
      this.#timeout,
      () => {
        const hasProgressed = progress.look();
        if (hasProgressed) quiet = 1;
        return hasProgressed;
      },
    );
    // In the assignment, V8 would keep the function and the countdown until a full collection.
    const cancel = () => countdown.cancel();
    this.cancel = cancel;
  }
}

class Progress {
  readonly #host: KeepaliveHost;
  #last: Traffic;
  #wasPaused: boolean;

  constructor(host: KeepaliveHost) {
    this.#host = host;
    this.#last = host.traffic();
    this.#wasPaused = host.isPaused;
  }

  look(): boolean {
    const before = this.#last;
    const wasPaused = this.#wasPaused;
    const now = this.#last = this.#host.traffic();
    const isPaused = this.#wasPaused = this.#host.isPaused;
    if (now.received !== before.received) return true;
    // A pong that arrived meanwhile has not been read yet.
    if (wasPaused && !isPaused) return true;
    const moved = now.sent - now.waiting !== before.sent - before.waiting;
    // While it has room, the platform accepts bytes even for a dead peer. Bytes that had to wait are only
    // sent when the peer reads. While reading is paused, any movement counts.
    return moved && (before.waiting > 0 || isPaused);
  }
}

const MAX_CONTROL_FRAMES = 10_000;
const SECOND = 1000;

/** Limits the peer's pings and pongs, which fill no queue and so escape backpressure. */
export class ControlRate {
  readonly #limit: number;
  readonly #clock: () => number;
  #left: number;
  #countedAt: number;
  #messages = 0;

  /** @param limit Maximum number per second, and at once, in addition to one for each message. */
  constructor(limit: number = MAX_CONTROL_FRAMES, clock: () => number = now) {
    this.#limit = this.#left = limit;
    this.#clock = clock;
    this.#countedAt = clock();
  }

  /** Counts a control frame. Throws a RemoteProtocolError (1008) if the limit is exceeded. */
  count(messages: number): void {
    if (this.#limit === Infinity) return;
    const time = this.#clock();
    const earned = (time - this.#countedAt) / SECOND * this.#limit + messages - this.#messages;
    this.#left = Math.min(this.#limit, this.#left + earned) - 1;
    this.#countedAt = time;
    this.#messages = messages;
    if (this.#left >= 0) return;
    throw new RemoteProtocolError(
      `Control frames exceed maxControlFramesPerSecond (${this.#limit})`,
      // RFC 6455 §7.4.1: the peer breaks a rule of this end, not of the protocol.
      CloseCode.PolicyViolation,
    );
  }
}
