/**
 * Pings and pongs: those that wait, those that keepalive sends, and how many the peer may send.
 *
 * @module
 */
import { CloseCode } from "../core/close.ts";
import { RemoteProtocolError } from "../core/error.ts";
import { Queue } from "../core/queue.ts";
import { handled } from "../abortable.ts";
import { backgroundTimer, deadline, now } from "../timers.ts";

interface PendingPing {
  key: string;
  sentAt: number;
  resolve(latency: number): void;
  reject(error: unknown): void;
}

/** The pings that were sent and not answered yet. */
export class Pings {
  readonly #pending = new Queue<PendingPing>();
  readonly #payloads = new Set<string>();
  #latency: number | undefined;

  /** The time that the last answered ping took, in milliseconds. */
  get latency(): number | undefined {
    return this.#latency;
  }

  /** Notes a ping; resolves with the milliseconds until its pong. */
  add(payload: Uint8Array): Promise<number> {
    const key = keyOf(payload);
    this.#payloads.add(key);
    return handled(
      new Promise((resolve, reject) => this.#pending.push({ key, sentAt: now(), resolve, reject })),
    );
  }

  /** Whether a ping with this payload waits. */
  has(payload: Uint8Array): boolean {
    return this.#payloads.has(keyOf(payload));
  }

  /**
   * A pong came. RFC 6455 §5.5.3: it may answer the last of several pings alone. Tells whether it answers
   * any.
   */
  pong(payload: Uint8Array): boolean {
    const key = keyOf(payload);
    if (!this.#payloads.has(key)) return false;
    const answeredAt = now();
    for (let answers = false; !answers;) {
      const ping = this.#take()!;
      answers = ping.key === key;
      this.#latency = answeredAt - ping.sentAt;
      ping.resolve(this.#latency);
    }
    return true;
  }

  #take(): PendingPing | undefined {
    const ping = this.#pending.shift();
    if (ping !== undefined) this.#payloads.delete(ping.key);
    return ping;
  }

  /** No pong will come. */
  fail(error: () => unknown): void {
    for (let ping = this.#take(); ping !== undefined; ping = this.#take()) ping.reject(error());
  }
}

/** The bytes of a payload as a string, which can be looked up. */
function keyOf(payload: Uint8Array): string {
  return String.fromCharCode(...payload);
}

/** The bytes of a connection. */
export interface Traffic {
  /** The bytes that came. */
  received: number;
  /** The bytes that the transport was given. */
  sent: number;
  /** Those of them that wait in the transport, because the platform takes no more. */
  waiting: number;
}

/** What a {@linkcode Keepalive} asks of its connection. */
export interface KeepaliveHost {
  /** Sends a ping; settles with its pong. */
  sendPing(): Promise<unknown>;
  /** Whether we have stopped reading, so that no pong can be seen. */
  paused(): boolean;
  /** The bytes so far. */
  traffic(): Traffic;
  /** The peer does not answer. */
  lost(): void;
}

/**
 * With more bytes than this before the ping, the platform may hold so many of them that a slow reader
 * needs several deadlines to reach the ping, and nothing of that can be seen here.
 */
const MUCH = 65536;

/** Sends a ping at an interval and waits for its pong. */
export class Keepalive {
  readonly #host: KeepaliveHost;
  readonly #interval: number;
  readonly #timeout: number;
  #cancel: (() => void) | undefined;
  #stopped = false;
  /** The bytes that were sent before the last ping that was answered: the peer has read these. */
  #confirmed = 0;

  /**
   * @param host the connection
   * @param interval how often to ping, in milliseconds
   * @param timeout how long a pong may take, in milliseconds; 0 for as long as it likes
   */
  constructor(host: KeepaliveHost, interval: number, timeout: number) {
    this.#host = host;
    this.#interval = interval;
    this.#timeout = timeout;
    if (interval > 0) this.#pingLater();
  }

  /** Sends no more. */
  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }

  #pingLater(): void {
    this.#cancel?.();
    if (!this.#stopped) this.#cancel = backgroundTimer(() => this.#ping(), this.#interval);
  }

  #ping(): void {
    const { sent } = this.#host.traffic();
    this.#host.sendPing().then(() => {
      this.#confirmed = sent;
      this.#pingLater();
    }, () => {});
    if (this.#timeout > 0) this.#awaitPong(new Progress(this.#host), sent - this.#confirmed > MUCH);
  }

  /**
   * Waits for the pong. Each deadline starts anew when bytes have moved. If none have, the pong gets one
   * more deadline while we do not read, because it may have come, and two more if much was sent before
   * the ping, because it may not have reached the peer.
   */
  #awaitPong(progress: Progress, hasMuchBefore: boolean, quiet = 1): void {
    this.#cancel?.();
    if (this.#stopped) return;
    this.#cancel = deadline(
      () => {
        const most = hasMuchBefore ? 3 : this.#host.paused() ? 2 : 1;
        if (quiet >= most) this.#host.lost();
        else this.#awaitPong(progress, hasMuchBefore, quiet + 1);
      },
      this.#timeout,
      () => {
        const hasProgressed = progress.look();
        if (hasProgressed) quiet = 1;
        return hasProgressed;
      },
    );
  }
}

/** Looks from time to time whether a connection makes progress. */
class Progress {
  readonly #host: KeepaliveHost;
  #last: Traffic;
  #wasPaused: boolean;

  constructor(host: KeepaliveHost) {
    this.#host = host;
    this.#last = host.traffic();
    this.#wasPaused = host.paused();
  }

  /** Whether there was any since the last look. */
  look(): boolean {
    const before = this.#last;
    const wasPaused = this.#wasPaused;
    const now = this.#last = this.#host.traffic();
    const isPaused = this.#wasPaused = this.#host.paused();
    if (now.received !== before.received) return true;
    // A pong that came meanwhile is yet to be read.
    if (wasPaused && !isPaused) return true;
    const moved = now.sent - now.waiting !== before.sent - before.waiting;
    // The platform takes bytes for a dead peer too, as long as it has room. Bytes that had to wait leave
    // only when the peer reads. While we do not read, we cannot be so strict.
    return moved && (before.waiting > 0 || isPaused);
  }
}

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
  readonly #clock: () => number;
  /** How many may still come. */
  #left: number;
  #countedAt: number;
  #messages = 0;

  /**
   * @param limit how many a second, and at once, beside one for each message
   * @param clock a clock, in milliseconds
   */
  constructor(limit: number = MAX_CONTROL_FRAMES, clock: () => number = now) {
    this.#limit = this.#left = limit;
    this.#clock = clock;
    this.#countedAt = clock();
  }

  /**
   * Counts one more.
   *
   * @param messages how many messages have come so far
   * @throws {RemoteProtocolError} with 1008 when it is one too many
   */
  count(messages: number): void {
    if (this.#limit === Infinity) return;
    const time = this.#clock();
    const earned = (time - this.#countedAt) / SECOND * this.#limit + messages - this.#messages;
    this.#left = Math.min(this.#limit, this.#left + earned) - 1;
    this.#countedAt = time;
    this.#messages = messages;
    if (this.#left >= 0) return;
    throw new RemoteProtocolError(
      `Expected at most ${this.#limit} control frames a second, received more`,
      // RFC 6455 §7.4.1: the peer breaks a rule of ours, and none of the protocol.
      CloseCode.PolicyViolation,
    );
  }
}
