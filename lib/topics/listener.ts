/** One subscriber in this process: gets messages from the history, then the messages as they come. */
import { abortable, handled } from "../abortable.ts";
import { type BackplaneMessage, type HistoryRead, isCovered, type Position } from "./backplane.ts";
import type { Channel, ChannelHost, Member, Peer } from "./channel.ts";
import { callHook } from "./engine.ts";
import type { Delivery } from "./envelope.ts";
import { Held } from "./held.ts";

/** What a subscription begins with. */
export interface Joined {
  /** Whether all messages after `since` were delivered. True without `since`. */
  readonly recovered: boolean;
  /**
   * The place in the topic from which on messages are delivered. Undefined without history and for
   * prefixes.
   */
  readonly position: Position | undefined;
}

export abstract class Listener implements Member {
  abstract readonly peer: Peer | undefined;
  abstract readonly presence: unknown;
  /** Resolves when the subscription has begun. */
  readonly ready: Promise<Joined>;
  /** Told how the subscription begins, after the history and before the messages that came meanwhile. */
  onJoined: ((joined: Joined) => void) | undefined;
  readonly #channel: Channel;
  readonly #host: ChannelHost;
  readonly #abort = new AbortController();
  /** The place up to which no message is held. What is read from the history must reach it. */
  #passed: Position | undefined;
  /** Messages that came while the history is sent. */
  #held: Held | undefined;
  /** The place up to which messages were delivered from the history. */
  #covered: Position | undefined;
  #hasMissed = false;

  constructor(channel: Channel, host: ChannelHost, since: Position | undefined) {
    this.#channel = channel;
    this.#host = host;
    this.#passed = channel.position;
    if (since !== undefined) this.#held = new Held(host.limits);
    this.ready = handled(this.#begin(since));
  }

  /** Delivers a message now, or decides that the subscriber is too slow for it. Does not throw. */
  protected abstract deliver(delivery: Delivery): void;
  /** Delivers a message, and waits until there is room for another one. */
  protected abstract deliverWithRoom(delivery: Delivery): Promise<void>;
  /** Tells the subscriber that messages may be missing. */
  protected abstract tellMissed(): void;
  abstract end(): void;

  missed(): void {
    // An engine that has lost its last messages may use their offsets again.
    this.#covered = undefined;
    this.#held?.clear();
    this.#passed = this.#channel.position;
    this.#hasMissed = true;
    return this.tellMissed();
  }

  /** Ends the subscription. If it has not begun, `ready` rejects with the reason. */
  protected stop(reason: unknown): void {
    this.#abort.abort(reason);
  }

  /** Takes the messages that were not delivered yet. */
  takeHeld(): Delivery[] {
    const taken: Delivery[] = [];
    for (let next = this.#held?.shift(); next !== undefined; next = this.#held?.shift()) {
      if (!isCovered(next.position, this.#covered)) taken.push(next);
    }
    return taken;
  }

  get isCatchingUp(): boolean {
    return this.#held !== undefined;
  }

  protected get hasEnded(): boolean {
    return this.#abort.signal.aborted;
  }

  receive(delivery: Delivery): void {
    if (this.#held !== undefined) this.#held.push(delivery);
    else if (this.#covered === undefined || !isCovered(delivery.position, this.#covered)) {
      this.deliver(delivery);
    }
  }

  async #begin(since: Position | undefined): Promise<Joined> {
    await abortable(this.#channel.confirmed, this.#abort.signal);
    const recovered = since === undefined || await this.#catchUp(since, this.#held!);
    this.#abort.signal.throwIfAborted();
    const position = since === undefined ? this.#channel.position : this.#covered ?? this.#passed;
    const joined = { recovered, position };
    // Otherwise the subscriber might go on after later messages before it knows that some are missing.
    this.onJoined?.(joined);
    if (this.#held !== undefined) this.#release(this.#held);
    return joined;
  }

  /** Delivers what came meanwhile, and from now on messages as they come. */
  #release(held: Held): void {
    for (let next = held.shift(); next !== undefined; next = held.shift()) {
      if (!isCovered(next.position, this.#covered)) this.deliver(next);
    }
    this.#held = undefined;
    if (!held.hasOverflowed) return;
    callHook(
      () => this.tellMissed(),
      (error) => this.#host.engine.report(error, this.#channel.name),
    );
  }

  /**
   * Delivers what came after a position, and what comes meanwhile. Reads a page of the history when the
   * subscriber has taken the one before. Returns false if messages are gone.
   */
  async #catchUp(since: Position, held: Held): Promise<boolean> {
    if (!this.#host.engine.backplane.keepsHistory) return false;
    for (let after = since;; after = this.#covered!) {
      const { recovered, messages, position } = await this.#readAfter(after, held);
      if (!recovered) {
        this.#covered = position;
        return false;
      }
      this.#passed = position;
      this.#covered = messages.at(-1)?.position ?? position;
      for (const message of messages) await this.#deliverOpened(message);
      const isLast = isCovered(position, this.#covered);
      if (isLast) await this.#deliverHeld(held);
      if (this.#hasMissed) return false;
      if (isLast && !held.hasOverflowed) return true;
    }
  }

  /** Delivers what came meanwhile, up to the first message that was left out. */
  async #deliverHeld(held: Held): Promise<void> {
    while (!held.hasOverflowed) {
      const next = held.shift();
      if (next === undefined) return;
      if (isCovered(next.position, this.#covered)) continue;
      this.#covered = next.position;
      await this.#deliverNext(next);
    }
  }

  /** Reads from the history, together with other subscribers if they read what this one needs. */
  async #readAfter(since: Position, held: Held): Promise<HistoryRead> {
    // What was left out is in the history, but an answer to others may be too old.
    if (held.hasOverflowed) {
      held.clear();
      return await this.#read(since);
    }
    const read = await this.#insist(() => this.#channel.readShared(since));
    if (this.#passed === undefined || isCovered(this.#passed, read.position)) return read;
    return await this.#read(since);
  }

  #read(since: Position): Promise<HistoryRead> {
    return this.#insist(() => this.#host.engine.read(this.#channel.name, since));
  }

  #insist(read: () => Promise<HistoryRead>): Promise<HistoryRead> {
    return this.#host.engine.insist(this.#channel.name, this.#abort.signal, read);
  }

  async #deliverOpened(message: BackplaneMessage): Promise<void> {
    const delivery = this.#channel.open(this.#channel.name, message);
    if (delivery !== undefined) await this.#deliverNext(delivery);
  }

  async #deliverNext(delivery: Delivery): Promise<void> {
    this.#abort.signal.throwIfAborted();
    await abortable(this.deliverWithRoom(delivery), this.#abort.signal);
  }
}
