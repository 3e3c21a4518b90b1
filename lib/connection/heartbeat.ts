/** Pings and pongs: pings that wait, pings of keepalive, and the limit for the peer's control frames. */
import { CloseCode } from "../core/close.ts";
import { encodeFrame } from "../core/frame_writer.ts";
import { RemoteProtocolError } from "../core/error.ts";
import { Opcode } from "../core/frame.ts";
import { randomPayload } from "../core/mask.ts";
import { type SharedFrame, sharedFrame } from "../core/shared_frame.ts";
import { backgroundTimer, Countdown, nextTurn, now } from "../timers.ts";

/** What waits for the pong of a ping. */
export interface PingWaiter {
  /** The time of the ping. Set by {@linkcode Pings}. */
  sentAt: number;
  /** @param latency The time until the pong, in milliseconds. */
  resolve(latency: number): void;
  reject(error: unknown): void;
}

export class Pings {
  /** By payload, in the order in which they were sent. */
  readonly #pending = new Map<string | number, PingWaiter>();
  latency: number | undefined;

  /** Adds a ping. Returns false if an earlier ping with this payload waits for its pong. */
  add(payload: Uint8Array, waiter: PingWaiter): boolean {
    const key = keyOf(payload);
    if (this.#pending.has(key)) return false;
    waiter.sentAt = now();
    this.#pending.set(key, waiter);
    return true;
  }

  /** Returns whether a pong answers a ping. RFC 6455 §5.5.3: it may answer only the last of several. */
  pong(payload: Uint8Array): boolean {
    const answered = keyOf(payload);
    if (!this.#pending.has(answered)) return false;
    const answeredAt = now();
    for (const [key, waiter] of this.#pending) {
      this.#pending.delete(key);
      this.latency = answeredAt - waiter.sentAt;
      waiter.resolve(this.latency);
      if (key === answered) break;
    }
    return true;
  }

  fail(error: () => unknown): void {
    for (const waiter of this.#pending.values()) waiter.reject(error());
    this.#pending.clear();
  }
}

/** Returns a number for the payloads of the library, because making a string takes longer. */
function keyOf(payload: Uint8Array): string | number {
  if (payload.length !== 4) return String.fromCharCode(...payload);
  return payload[0] << 24 | payload[1] << 16 | payload[2] << 8 | payload[3];
}

export interface Ping {
  readonly payload: Uint8Array;
  /** The frame of a server, if several connections send it. */
  readonly frame?: SharedFrame;
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
  /** Sends a ping, unless the connection is closing. */
  sendPing(ping: Ping, waiter: PingWaiter): void;
  /** Whether reading is paused, so that no pong can be seen. */
  readonly isPaused: boolean;
  traffic(): Traffic;
  /** Called when no pong has come within `timeout` milliseconds. */
  lost(timeout: number): void;
}

/** If more bytes were sent before a ping, a slow reader may need several deadlines to reach the ping. */
const MUCH = 65536;

/** Number of moments in an interval at which pings are sent. */
const MOMENTS = 16;

/** Number of moments over which the second pings of connections are spread that were opened together. */
const SPREAD = 4;

/** Maximum number of pings in a turn of the event loop. */
const MOST_AT_ONCE = 100;

/** Share of the time until the next ping, or until the pong is late, after which a pong has usually come. */
const USUAL = 1 / 16;

const beats = new Map<string, Beat>();

/**
 * The connections that send their pings at the same moment of each interval. A turn of the event loop
 * that works for many connections costs half of what a turn for each of them does.
 */
class Beat {
  readonly #members = new Set<Keepalive>();
  readonly #interval: number;
  readonly #timeout: number;
  #key = "";
  #cancelBeat!: () => void;
  #cancelCheck: (() => void) | undefined;

  private constructor(interval: number, timeout: number) {
    this.#interval = interval;
    this.#timeout = timeout;
  }

  /**
   * Adds a connection, which sends its next ping after the interval, or up to a sixteenth earlier.
   * @param earlier Number of moments that the ping comes before that.
   */
  static join(member: Keepalive, earlier: number): Beat {
    const { interval, timeout } = member;
    const moment = Math.floor((now() + interval) / (interval / MOMENTS)) - earlier;
    let beat = beats.get(keyOfBeat(interval, timeout, moment));
    if (beat === undefined) {
      beat = new Beat(interval, timeout);
      beat.#wait(moment);
    }
    beat.#members.add(member);
    return beat;
  }

  leave(member: Keepalive): void {
    if (!this.#members.delete(member) || this.#members.size > 0) return;
    this.#cancelBeat();
    this.#cancelCheck?.();
    beats.delete(this.#key);
  }

  #wait(moment: number): void {
    const due = moment * this.#interval / MOMENTS;
    // The platforms round a delay down: the pings would come before their moment.
    this.#cancelBeat = backgroundTimer(() => this.#ping(), Math.ceil(due - now()));
    this.#key = keyOfBeat(this.#interval, this.#timeout, moment);
    beats.set(this.#key, this);
  }

  #ping(): void {
    beats.delete(this.#key);
    this.#wait(Math.round((now() + this.#interval) / (this.#interval / MOMENTS)));
    const payload = randomPayload();
    const frame = sharedFrame(encodeFrame({ opcode: Opcode.Ping, payload }));
    this.#send({ payload, frame }, [...this.#members], 0);
  }

  /** Sends a ping to the members from an index on. Other work is done between the turns. */
  #send(ping: Ping, members: readonly Keepalive[], from: number): void {
    const end = from + MOST_AT_ONCE;
    for (const member of members.slice(from, end)) {
      if (this.#members.has(member)) member.ping(ping);
    }
    if (end < members.length) nextTurn(() => this.#send(ping, members, end));
    else if (this.#members.size > 0) this.#checkLater();
  }

  #checkLater(): void {
    const usual = Math.min(this.#interval, this.#timeout || Infinity) * USUAL;
    this.#cancelCheck = backgroundTimer(() => this.#check(), Math.ceil(usual));
  }

  #check(): void {
    for (const member of this.#members) member.check();
  }
}

function keyOfBeat(interval: number, timeout: number, moment: number): string {
  return `${interval} ${timeout} ${moment}`;
}

/** Pings a connection. Usually the pong comes soon, and then the connection stays in its beat. */
export class Keepalive implements PingWaiter {
  sentAt = 0;
  /** Interval between pings, in milliseconds. */
  readonly interval: number;
  /** Maximum time to wait for a pong, in milliseconds. 0 disables the limit. */
  readonly timeout: number;
  readonly #host: KeepaliveHost;
  /** Cancels the timer that runs, unless the connection is in a beat. */
  #cancelTimer: () => void;
  /** Not set before the first pong, and while a pong is late. */
  #beat: Beat | undefined;
  /** Number of bytes that were sent before the last answered ping. The peer has read these. */
  #confirmed = 0;
  /** Number of bytes that were sent before the last ping. */
  #sentBefore = 0;
  /** What has moved since the last ping. Only set while its pong is awaited. */
  #progress: Progress | undefined;
  #isSpread = false;

  constructor(host: KeepaliveHost, interval: number, timeout: number) {
    this.#host = host;
    this.interval = interval;
    this.timeout = timeout;
    this.#cancelTimer = backgroundTimer(() => this.#pingFirst(), interval);
  }

  #pingFirst(): void {
    this.ping({ payload: randomPayload() });
    this.#awaitPong();
  }

  /** Called by the beat. */
  ping(ping: Ping): void {
    if (this.#progress !== undefined) return;
    const progress = new Progress(this.#host);
    this.#progress = progress;
    this.#sentBefore = progress.sent;
    this.#host.sendPing(ping, this);
  }

  /** Called by the beat when pongs have usually come. A connection without a pong leaves the beat. */
  check(): void {
    if (this.#progress === undefined) return;
    this.#beat?.leave(this);
    this.#beat = undefined;
    const usual = Math.min(this.interval, this.timeout) * USUAL;
    this.#awaitPong(this.#progress.look() ? 0 : usual);
  }

  cancel(): void {
    this.#cancelTimer();
    this.#beat?.leave(this);
  }

  /** Called when the pong has come. */
  resolve(): void {
    this.#confirmed = this.#sentBefore;
    this.#progress = undefined;
    if (this.#beat !== undefined) return;
    this.#cancelTimer();
    if (!this.#host.isAlive) return;
    this.#beat = Beat.join(this, this.#isSpread ? 0 : Math.floor(Math.random() * SPREAD));
    this.#isSpread = true;
  }

  /** Called when no pong can come any more. */
  reject(): void {}

  /**
   * Waits for the pong. Each deadline starts anew when bytes have moved. If no bytes have moved, the pong
   * gets one more deadline while reading is paused, because the pong may have arrived. It gets two more
   * if much was sent before the ping, because the ping may not have reached the peer.
   * @param elapsed The part of the first deadline that is over already, in milliseconds.
   */
  #awaitPong(elapsed = 0, quiet = 1): void {
    if (this.timeout === 0 || !this.#host.isAlive) return;
    const progress = this.#progress!;
    const countdown = new Countdown(
      () => {
        const hasMuchBefore = this.#sentBefore - this.#confirmed > MUCH;
        const most = hasMuchBefore ? 3 : this.#host.isPaused ? 2 : 1;
        if (quiet >= most) this.#host.lost(this.timeout);
        else this.#awaitPong(0, quiet + 1);
      },
      this.timeout,
      () => {
        const hasProgressed = progress.look();
        if (hasProgressed) quiet = 1;
        return hasProgressed;
      },
      elapsed,
    );
    // In the assignment, V8 would keep the function and the countdown until a full collection.
    const cancel = () => countdown.cancel();
    this.#cancelTimer = cancel;
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

  /** Number of bytes that the transport had been given when this was asked last. */
  get sent(): number {
    return this.#last.sent;
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
