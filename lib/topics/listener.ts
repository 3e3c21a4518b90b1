/**
 * One subscriber in this process: gets messages from the history, then the messages as they come.
 *
 * @module
 */
import { abortable, handled } from "../abortable.ts";
import { Queue } from "../core/queue.ts";
import { type BackplaneMessage, type HistoryRead, isCovered, type Position } from "./backplane.ts";
import type { Channel, ChannelHost, Member, Peer } from "./channel.ts";
import type { Delivery } from "./envelope.ts";

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
  readonly ready: Promise<Joined>;
  readonly #channel: Channel;
  readonly #host: ChannelHost;
  readonly #abort = new AbortController();
  /** The place of the last message that came before this subscriber. */
  readonly #passed: Position | undefined;
  /** Messages that came while the history is sent. */
  #held: Queue<Delivery> | undefined;
  #hasOverflowed = false;
  /** The place up to which messages were delivered from the history. */
  #covered: Position | undefined;
  #hasMissed = false;

  constructor(channel: Channel, host: ChannelHost, since: Position | undefined) {
    this.#channel = channel;
    this.#host = host;
    this.#passed = channel.position;
    if (since !== undefined) this.#held = new Queue();
    this.ready = handled(this.#join(since));
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

  protected get hasEnded(): boolean {
    return this.#abort.signal.aborted;
  }

  receive(delivery: Delivery): void {
    if (this.#held !== undefined) this.#hold(this.#held, delivery);
    else if (this.#covered === undefined || !isCovered(delivery.position, this.#covered)) {
      this.deliver(delivery);
    }
  }

  #hold(held: Queue<Delivery>, delivery: Delivery): void {
    if (held.length < this.#host.maxWaiting) held.push(delivery);
    else this.#hasOverflowed = true;
  }

  async #join(since: Position | undefined): Promise<Joined> {
    await abortable(this.#channel.confirmed, this.#abort.signal);
    if (since === undefined) return { recovered: true, position: this.#channel.position };
    const recovered = this.#host.engine.backplane.keepsHistory && await this.#catchUp(since);
    for (let next = this.#held!.shift(); next !== undefined; next = this.#held!.shift()) {
      if (!isCovered(next.position, this.#covered)) this.deliver(next);
    }
    this.#held = undefined;
    return { recovered, position: this.#covered ?? this.#channel.position };
  }

  /** Delivers what came after a position, and what comes meanwhile. Returns false if some of it is gone. */
  async #catchUp(since: Position): Promise<boolean> {
    const held = this.#held!;
    let reading = this.#readFirst(since);
    for (;;) {
      const { recovered, messages, position } = await reading;
      if (!recovered) return false;
      this.#covered = position;
      for (const message of messages) await this.#deliverOpened(message);
      // If messages were dropped here, they are in the history.
      while (held.length > 0 && !this.#hasOverflowed) {
        const next = held.shift()!;
        if (isCovered(next.position, this.#covered)) continue;
        this.#covered = next.position;
        await this.#deliverNext(next);
      }
      if (this.#hasMissed) return false;
      if (!this.#hasOverflowed) return true;
      held.clear();
      this.#hasOverflowed = false;
      reading = this.#read(this.#covered!);
    }
  }

  /** Reads from the history, together with other subscribers if they read what this one needs. */
  async #readFirst(since: Position): Promise<HistoryRead> {
    const { engine } = this.#host;
    const { name } = this.#channel;
    const read = await engine.insist(
      name,
      this.#abort.signal,
      () => engine.readShared(name, since),
    );
    if (this.#passed === undefined || isCovered(this.#passed, read.position)) return read;
    return await this.#read(since);
  }

  #read(since: Position): Promise<HistoryRead> {
    const { engine } = this.#host;
    const { name } = this.#channel;
    return engine.insist(name, this.#abort.signal, () => engine.read(name, since));
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
