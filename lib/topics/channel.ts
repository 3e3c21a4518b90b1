/** A subscription of this process at the engine, for all of its subscribers in the process. */
import { handled } from "../abortable.ts";
import type { Recipient } from "../connection/broadcast.ts";
import { failure, invalidState } from "../core/error.ts";
import { backgroundTimer } from "../timers.ts";
import {
  type BackplaneMessage,
  type BackplaneReceiver,
  formatPosition,
  type HistoryRead,
  isCovered,
  type Position,
} from "./backplane.ts";
import { callHook, type Engine } from "./engine.ts";
import { type Delivery, openEnvelope } from "./envelope.ts";
import { Held, type HeldLimits } from "./held.ts";

/** A connection that subscribes. */
export interface Peer {
  readonly ws: Recipient;
  /** The last dispatch in which the connection got a message. */
  lastDispatch: number;
}

/** What a channel needs of the topics. */
export interface ChannelHost {
  readonly engine: Engine;
  /** How many messages may wait while the history is read. */
  readonly limits: HeldLimits;
  /** Takes a message that a channel has received from the engine. */
  arrived(channel: Channel, delivery: Delivery): void;
  /**
   * Gives a message of the history to all subscribers in this process, or, if a prefix has brought it, to
   * those of the topic only.
   */
  recovered(delivery: Delivery): void;
  /** Gives a message to all subscribers in this process, unless they have got it. */
  dispatch(delivery: Delivery): void;
  /** Gives a message to the subscribers of prefixes only, unless they have got it. */
  dispatchLate(delivery: Delivery): void;
}

/** Maximum time for which a message of a prefix waits for its topic, in milliseconds. */
const MAX_EARLY = 5000;

/** A subscriber of this process. */
export interface Member {
  /** The connection of the subscriber, if there is one. */
  readonly peer: Peer | undefined;
  /** What `members()` tells of the subscriber. */
  readonly presence: unknown;
  /** Takes a message. */
  receive(delivery: Delivery): void;
  /** Says that messages may be missing. */
  missed(): void;
  /** Says that the subscription has ended. */
  end(): void;
}

/** Returns the error for messages that may be missing. */
function missing(name: string, cause?: unknown): Error {
  return failure(`Messages of ${JSON.stringify(name)} may be missing`, "messages-missed", cause);
}

export class Channel implements BackplaneReceiver {
  readonly name: string;
  /** The name without its asterisk. */
  readonly prefix: string;
  readonly isPrefix: boolean;
  readonly members: Set<Member> = new Set();
  /** Resolves when the engine has confirmed the subscription. Rejects if the channel is stopped before. */
  readonly confirmed: Promise<void>;
  readonly #host: ChannelHost;
  readonly #abort = new AbortController();
  /** The current position when the subscription began. An earlier message may still come by a prefix. */
  #start: Position | undefined;
  /** The place of the last message. */
  #last: Position | undefined;
  /** The messages that wait while what was missed is read. Undefined if nothing is missed. */
  #held: Held | undefined;
  /** Number of outages and of their ends. */
  #changes = 0;
  #isConfirmed = false;
  /** Reads of the history that have not been answered yet, by the position after which they begin. */
  readonly #reads = new Map<string, Promise<HistoryRead>>();
  /** The place of the first message. Those after it have come in order. */
  #first: Position | undefined;
  /** Messages that came by a prefix, and that this subscription has not brought yet. */
  readonly #early = new Map<string, Delivery>();
  #cancelTimer: (() => void) | undefined;

  constructor(name: string, host: ChannelHost) {
    this.name = name;
    this.isPrefix = name.endsWith("*");
    this.prefix = this.isPrefix ? name.slice(0, -1) : name;
    this.#host = host;
    this.confirmed = handled(this.#begin());
  }

  /** Whether a topic is the one of this subscription, or begins with its prefix. */
  matches(topic: string): boolean {
    return this.isPrefix ? topic.startsWith(this.prefix) : topic === this.name;
  }

  /** The place after which messages come. Undefined without history, for a prefix, and at first. */
  get position(): Position | undefined {
    return this.#last ?? this.#start;
  }

  /** Aborts when the channel is stopped. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Whether what was missed can be read. A prefix stands for topics that are not known. */
  get #hasHistory(): boolean {
    return !this.isPrefix && this.#host.engine.backplane.keepsHistory;
  }

  async #begin(): Promise<void> {
    const { engine } = this.#host;
    const { backplane } = engine;
    // The position is read first: if a message came between, reading from there would include it.
    const reading = this.#hasHistory ? handled(this.#readPosition()) : undefined;
    if (reading !== undefined && !engine.isLocal) await reading;
    await engine.insist(this.name, this.signal, async () => {
      try {
        await engine.call("subscribe", (call) => backplane.subscribe(this.name, this, call));
      } catch (error) {
        // The engine may confirm the subscription later. After stop(), the name may be another channel's.
        if (!this.signal.aborted) this.#unsubscribe();
        this.#held = undefined;
        throw error;
      }
    });
    await reading;
    this.#isConfirmed = true;
  }

  async #readPosition(): Promise<void> {
    const { engine } = this.#host;
    const read = () => engine.read(this.name, undefined);
    const { position } = await engine.insist(this.name, this.signal, read);
    this.#start = position;
  }

  /**
   * Reads the history after the subscription is confirmed, with one call for all that ask for the same. The
   * answer may be older than the call.
   */
  readShared(since: Position): Promise<HistoryRead> {
    const key = formatPosition(since);
    let reading = this.#reads.get(key);
    if (reading === undefined) {
      const { engine } = this.#host;
      reading = engine.read(this.name, since).finally(() => this.#reads.delete(key));
      this.#reads.set(key, reading);
    }
    return reading;
  }

  /** Ends the subscription. */
  stop(): void {
    this.end();
    this.#unsubscribe();
    this.#giveAll();
  }

  /** Ends the subscription without telling the engine, which is closed next. */
  end(): void {
    this.#abort.abort(invalidState("The subscription has ended", "not-open"));
    this.#stopTimer();
  }

  #unsubscribe(): void {
    const { engine } = this.#host;
    const ending = engine.call("unsubscribe", () => engine.backplane.unsubscribe(this.name));
    ending.catch((error) => engine.report(error, this.name));
  }

  message(topic: string, message: BackplaneMessage): void {
    if (this.signal.aborted) return;
    const delivery = this.open(topic, message);
    if (delivery !== undefined) this.#host.arrived(this, delivery);
  }

  /** Opens the envelope of a message. Reports bytes that are no message. */
  open(topic: string, message: BackplaneMessage): Delivery | undefined {
    const delivery = openEnvelope(topic, message);
    if (delivery === undefined) {
      const error = failure("The engine sent bytes that are no message", "malformed-message");
      this.#host.engine.report(error, topic);
    }
    return delivery;
  }

  /** Takes a message of this topic from the engine. */
  accept(delivery: Delivery): void {
    const { position } = delivery;
    if (position !== undefined) {
      if (this.#held !== undefined) return this.#held.push(delivery);
      const last = this.#last;
      if (last !== undefined && last.epoch !== position.epoch) this.#tellMissed();
      else if (isCovered(position, last)) return;
      this.#last = position;
      if (this.#isConfirmed) this.#first ??= position;
    }
    this.#host.dispatch(delivery);
    this.#giveCovered();
  }

  /** Takes a message of this topic that came by a prefix, for which the engine may have another order. */
  acceptEarly(delivery: Delivery): void {
    const { id, position } = delivery;
    if (isCovered(position, this.position)) {
      const isKnown = isCovered(this.#first, position);
      return isKnown ? undefined : this.#host.dispatchLate(delivery);
    }
    if (position === undefined || !this.#isConfirmed) return this.accept(delivery);
    // This subscription brings the message too, in the order of the topic.
    this.#early.set(id, delivery);
    this.#cancelTimer ??= backgroundTimer(() => this.#giveAll(), MAX_EARLY);
    if (this.#early.size > this.#host.limits.maxWaiting) this.#giveAll();
  }

  /** Gives the messages up to the last one. If this subscription has not brought them, it never will. */
  #giveCovered(): void {
    if (this.#early.size === 0) return;
    for (const [id, delivery] of this.#early) {
      if (!isCovered(delivery.position, this.#last)) continue;
      this.#early.delete(id);
      this.#host.dispatchLate(delivery);
    }
    if (this.#early.size === 0) this.#stopTimer();
  }

  #giveAll(): void {
    for (const delivery of this.#early.values()) {
      // What was missed is read for the subscribers of the topic, in its order.
      if (this.#held === undefined) this.#host.dispatch(delivery);
      else this.#host.dispatchLate(delivery);
    }
    this.#early.clear();
    this.#stopTimer();
  }

  #stopTimer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  interrupted(error: unknown): void {
    if (this.signal.aborted) return;
    this.#changes++;
    if (this.#hasHistory) this.#held ??= new Held(this.#host.limits);
    this.#host.engine.reportOutage(error);
  }

  restored(): void {
    this.#host.engine.endOutage();
    if (this.signal.aborted) return;
    this.#changes++;
    if (this.#hasHistory) void this.#recover().catch(() => {});
    else this.#tellMissed();
  }

  error(error: unknown): void {
    this.#host.engine.report(error, this.name);
  }

  #tellMissed(cause?: unknown): void {
    this.#host.engine.report(missing(this.name, cause), this.name);
    // A hook may end subscriptions, and subscribe again.
    for (const member of [...this.members]) {
      if (!this.members.has(member)) continue;
      callHook(() => member.missed(), (error) => this.#host.engine.report(error, this.name));
    }
  }

  /** Reads and dispatches what was missed, page by page, then the messages that were held. */
  async #recover(): Promise<void> {
    const { engine, limits } = this.#host;
    const changes = this.#changes;
    let held: Held;
    let isLast = false;
    do {
      // What is held by now is in the history too.
      this.#held = held = new Held(limits);
      const read = () => engine.read(this.name, this.position);
      const { recovered, messages, position } = await engine.insist(this.name, this.signal, read);
      // Another restored() follows another outage.
      if (this.#changes !== changes) return;
      if (!recovered) this.#tellMissed();
      for (const message of messages) {
        const delivery = this.open(this.name, message);
        if (delivery !== undefined) this.#host.recovered(delivery);
      }
      this.#last = messages.at(-1)?.position ?? position;
      isLast = isCovered(position, this.#last);
    } while (held.hasOverflowed || !isLast);
    this.#held = undefined;
    for (let next = held.shift(); next !== undefined; next = held.shift()) this.accept(next);
    this.#giveCovered();
  }
}
