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
  /** Resolves when it is known how the subscription begins, before messages that came meanwhile. */
  readonly joined: Promise<Joined>;
  /** Resolves when the subscription has begun. */
  readonly ready: Promise<Joined>;
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
    this.joined = handled(this.#join(since));
    this.ready = handled(this.#begin());
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

  protected get hasEnded(): boolean {
    return this.#abort.signal.aborted;
  }

  receive(delivery: Delivery): void {
    if (this.#held !== undefined) this.#held.push(delivery);
    else if (this.#covered === undefined || !isCovered(delivery.position, this.#covered)) {
      this.deliver(delivery);
    }
  }

  async #join(since: Position | undefined): Promise<Joined> {
    await abortable(this.#channel.confirmed, this.#abort.signal);
    if (since === undefined) return { recovered: true, position: this.#channel.position };
    const { keepsHistory } = this.#host.engine.backplane;
    const recovered = keepsHistory && await this.#catchUp(since);
    return { recovered, position: this.#covered ?? this.#passed };
  }

  /** Delivers what came meanwhile, and from now on messages as they come. */
  async #begin(): Promise<Joined> {
    const joined = await this.joined;
    // First, the subscriber is told if messages are missing. Otherwise it might go on after the later ones.
    for (let i = 0; i < 3; i++) await undefined;
    this.#abort.signal.throwIfAborted();
    if (this.#held !== undefined) this.#release(this.#held);
    return joined;
  }

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
  async #catchUp(since: Position): Promise<boolean> {
    const held = this.#held!;
    let reading = this.#readShared(since);
    for (;;) {
      const { recovered, messages, position } = await reading;
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
      if (held.hasOverflowed) {
        held.clear();
        reading = this.#read(this.#covered!);
      } else if (isLast) return true;
      else reading = this.#readShared(this.#covered!);
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
  async #readShared(since: Position): Promise<HistoryRead> {
    const { engine } = this.#host;
    const { name } = this.#channel;
    const read = await engine.insist(
      name,
      this.#abort.signal,
      () => this.#channel.readShared(since),
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
