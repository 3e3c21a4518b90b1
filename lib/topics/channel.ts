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
import { Early, Held, type HeldLimits } from "./held.ts";

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
   * Gives a message to all subscribers in this process. If the message has a position, those of the topic
   * have not got it yet.
   */
  dispatch(delivery: Delivery): void;
  /**
   * Gives a message to the subscribers of prefixes only, unless they have got it, or will read it from the
   * history.
   */
  dispatchLate(delivery: Delivery): void;
  /** Says to the subscribers of prefixes that messages of a topic may be missing. */
  missedByPrefixes(topic: string): void;
}

/** Time after which the history is read if a topic has not brought a message of a prefix, in milliseconds. */
const MAX_LAG = 5000;

/** A subscriber of this process. */
export interface Member {
  /** The connection of the subscriber, if there is one. */
  readonly peer: Peer | undefined;
  /** What `members()` tells of the subscriber. */
  readonly presence: unknown;
  /** Whether messages wait until those of the history have been delivered. */
  readonly isCatchingUp: boolean;
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
  /** The place up to which all messages have come, or were there at the beginning. */
  #position: Position | undefined;
  /** The messages that wait while what was missed is read. Undefined if nothing is missed. */
  #held: Held | undefined;
  /** Number of outages and of their ends. */
  #changes = 0;
  #isConfirmed = false;
  /** Reads of the history that have not been answered yet, by the position after which they begin. */
  readonly #reads = new Map<string, Promise<HistoryRead>>();
  /** A place from which on all messages were given to all subscribers. */
  #first: Position | undefined;
  /** Messages that came by a prefix, and that this subscription has not brought yet. */
  readonly #early: Early;
  #cancelTimer: (() => void) | undefined;

  constructor(name: string, host: ChannelHost) {
    this.name = name;
    this.isPrefix = name.endsWith("*");
    this.prefix = this.isPrefix ? name.slice(0, -1) : name;
    this.#host = host;
    this.#early = new Early(host.limits);
    this.confirmed = handled(this.#begin());
  }

  /** Whether a topic is the one of this subscription, or begins with its prefix. */
  matches(topic: string): boolean {
    return this.isPrefix ? topic.startsWith(this.prefix) : topic === this.name;
  }

  /** The place after which messages come. Undefined without history, for a prefix, and at first. */
  get position(): Position | undefined {
    return this.#position;
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
    if (this.#hasHistory) await this.#readPosition();
    this.#isConfirmed = true;
  }

  /** Asks from which place on messages come. If some have come already, others may be missing there. */
  async #readPosition(): Promise<void> {
    const { engine } = this.#host;
    const read = () => engine.read(this.name, undefined);
    const { position } = await engine.insist(this.name, this.signal, read);
    if (this.#position === undefined) this.#skipTo(position);
    else if (!isCovered(position, this.#position)) this.#readAgain();
  }

  /** Goes on after a place, without the messages before it. `isLost` says that some of them are gone. */
  #skipTo(position: Position | undefined, isLost = false): void {
    this.#position = position;
    if (isLost) this.tellMissed();
    else if (this.#early.takeDropped()) this.#host.missedByPrefixes(this.name);
    // Messages are missing before those of prefixes, and after them.
    if (!this.#early.isEmpty && this.#giveEarly(isLost) && isLost) this.tellMissed();
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
    if (this.#early.takeDropped()) this.#host.missedByPrefixes(this.name);
    for (const delivery of this.#early.takeAll()) this.#host.dispatchLate(delivery);
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
      const last = this.#position;
      if (last !== undefined && last.epoch !== position.epoch) this.tellMissed();
      else if (isCovered(position, last)) return;
      this.#position = position;
      if (this.#isConfirmed) this.#first ??= position;
    }
    this.#host.dispatch(delivery);
    if (!this.#early.isEmpty) this.#giveEarly();
  }

  /**
   * Takes a message of this topic that came by a prefix, for which the engine may have another order. If this
   * subscription brings the message too, the message waits until then.
   */
  acceptEarly(delivery: Delivery): void {
    const { position } = delivery;
    if (isCovered(position, this.#position)) {
      const isKnown = isCovered(this.#first, position);
      return isKnown ? undefined : this.#host.dispatchLate(delivery);
    }
    const isFirst = !this.#isConfirmed && this.#held === undefined;
    if (position === undefined || isFirst) return this.accept(delivery);
    this.#early.push(delivery);
    this.#startTimer();
  }

  /** Gives the messages of prefixes that this subscription will not bring any more. Returns whether it gave one. */
  #giveEarly(isRead = false): boolean {
    const given = this.#early.take(this.#position, isRead);
    for (const delivery of given) this.#host.dispatchLate(delivery);
    if (this.#early.isEmpty) this.#stopTimer();
    else this.#startTimer();
    return given.length > 0;
  }

  #startTimer(): void {
    this.#cancelTimer ??= backgroundTimer(() => {
      this.#cancelTimer = undefined;
      this.#readAgain();
    }, MAX_LAG);
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
    else this.tellMissed();
  }

  error(error: unknown): void {
    this.#host.engine.report(error, this.name);
  }

  /** Says to all subscribers that messages may be missing. */
  tellMissed(cause?: unknown): void {
    this.#host.engine.report(missing(this.name, cause), this.name);
    this.#first = undefined;
    if (this.#early.takeDropped()) this.#host.missedByPrefixes(this.name);
    // A hook may end subscriptions, and subscribe again.
    for (const member of [...this.members]) {
      if (!this.members.has(member)) continue;
      callHook(() => member.missed(), (error) => this.#host.engine.report(error, this.name));
    }
  }

  /** Reads what this subscription has not brought yet, unless that is read already. */
  #readAgain(): void {
    if (this.#held !== undefined) return;
    this.#held = new Held(this.#host.limits);
    void this.#recover().catch(() => {});
  }

  /** Reads and dispatches what was missed, page by page, then the messages that were held. */
  async #recover(): Promise<void> {
    const { engine, limits } = this.#host;
    const changes = this.#changes;
    let held: Held;
    let isLast = false;
    this.#early.beginRead();
    do {
      // What is held by now is in the history too.
      this.#held = held = new Held(limits);
      const since = this.#position;
      const read = () => engine.read(this.name, since);
      const { recovered, messages, position } = await engine.insist(this.name, this.signal, read);
      // Another restored() follows another outage.
      if (this.#changes !== changes) return;
      // The place at the beginning may have become known meanwhile.
      if (since === undefined && this.#position !== undefined) continue;
      if (since === undefined || !recovered) this.#skipTo(position, !recovered);
      for (const message of messages) {
        const delivery = this.open(this.name, message);
        if (delivery !== undefined) this.#host.dispatch(delivery);
      }
      this.#position = messages.at(-1)?.position ?? position;
      isLast = isCovered(position, this.#position);
    } while (held.hasOverflowed || !isLast);
    this.#held = undefined;
    for (let next = held.shift(); next !== undefined; next = held.shift()) this.accept(next);
    this.#giveEarly(true);
  }
}
