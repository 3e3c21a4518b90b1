/** Who is subscribed to a topic, across processes. */
import { failure, invalidState } from "../core/error.ts";
import { checkInteger, type OptionNames } from "../core/options.ts";
import { backgroundTimer, nextTurn } from "../timers.ts";
import type { Engine } from "./engine.ts";

/** Options of presence. */
export interface PresenceOptions {
  /**
   * Time after which the members of a process that has died are forgotten, in milliseconds. Each process
   * announces its members three times in this time. An integer from 100.
   * @default {30_000}
   */
  ttl?: number | undefined;
  /**
   * Maximum number of members that a process announces for a topic.
   * @default {1000}
   */
  maxMembers?: number | undefined;
}

export const PRESENCE_OPTIONS: OptionNames<PresenceOptions> = {
  // Redis takes integers only.
  ttl: (name, value) => checkInteger(name, value, 100, 1e12),
  maxMembers: (name, value) => checkInteger(name, value, 0, Infinity),
};

/** What a process announces. */
interface Announcement {
  readonly owner: string;
  readonly members: readonly unknown[];
}

export class Presence {
  readonly #engine: Engine;
  readonly #owner: string;
  readonly #ttl: number;
  readonly #maxMembers: number;
  readonly #membersOf: (topic: string) => unknown[];
  /** The announced topics, and whether each has changed since it was announced. */
  readonly #topics = new Map<string, { hasChanged: boolean; isBusy: boolean }>();
  #cancelTimer: (() => void) | undefined;

  constructor(
    engine: Engine,
    owner: string,
    { ttl = 30_000, maxMembers = 1000 }: PresenceOptions,
    membersOf: (topic: string) => unknown[],
  ) {
    if (engine.backplane.announce === undefined) {
      throw invalidState("The backplane has no presence", "unsupported");
    }
    this.#engine = engine;
    this.#owner = owner;
    this.#ttl = ttl;
    this.#maxMembers = maxMembers;
    this.#membersOf = membersOf;
  }

  /** Announces the members of a topic in the next turn. */
  changed(topic: string): void {
    const found = this.#topics.get(topic);
    if (found !== undefined) found.hasChanged = true;
    else this.#topics.set(topic, { hasChanged: true, isBusy: false });
    nextTurn(() => void this.#announce(topic));
    this.#cancelTimer ??= backgroundTimer(() => this.#refresh(), this.#ttl / 3);
  }

  #refresh(): void {
    this.#cancelTimer = undefined;
    for (const topic of this.#topics.keys()) this.changed(topic);
  }

  /** Announces a topic until nothing has changed. The engine gets one announcement after the other. */
  async #announce(topic: string): Promise<void> {
    const found = this.#topics.get(topic);
    if (found === undefined || found.isBusy) return;
    found.isBusy = true;
    while (found.hasChanged && this.#topics.get(topic) === found) {
      found.hasChanged = false;
      try {
        if (!await this.#store(topic) && !found.hasChanged) this.#topics.delete(topic);
      } catch (error) {
        this.#engine.report(error, topic);
      }
    }
    found.isBusy = false;
  }

  async #store(topic: string): Promise<boolean> {
    const { backplane } = this.#engine;
    const members = this.#membersOf(topic).slice(0, this.#maxMembers);
    if (members.length === 0) {
      await this.#engine.call("withdraw", (call) => backplane.withdraw!(topic, this.#owner, call));
      return false;
    }
    const announcement: Announcement = { owner: this.#owner, members };
    const data = new TextEncoder().encode(JSON.stringify(announcement));
    await this.#engine.call(
      "announce",
      (call) => backplane.announce!(topic, this.#owner, data, this.#ttl, call),
    );
    return true;
  }

  /** Returns the members of this process as they are now, and those that others have announced. */
  async members(topic: string): Promise<unknown[]> {
    const { backplane } = this.#engine;
    const found = await this.#engine.call("list members", (call) => {
      return backplane.members!(topic, call);
    });
    const others = found.flatMap((data) => this.#parse(topic, data));
    return [...this.#membersOf(topic), ...others];
  }

  #parse(topic: string, data: Uint8Array): readonly unknown[] {
    try {
      const { owner, members } = JSON.parse(new TextDecoder().decode(data)) as Announcement;
      if (owner === this.#owner) return [];
      if (Array.isArray(members)) return members;
    } catch {
      // The report below says so.
    }
    const message = "The backplane has members that are no announcement";
    this.#engine.report(failure(message, "malformed-message"), topic);
    return [];
  }

  /** Withdraws all members of this process. */
  async close(): Promise<void> {
    this.#cancelTimer?.();
    const topics = [...this.#topics.keys()];
    this.#topics.clear();
    await Promise.all(topics.map((topic) =>
      this.#engine.call("withdraw", (call) => {
        return this.#engine.backplane.withdraw!(topic, this.#owner, call);
      }).catch((error) => this.#engine.report(error, topic))
    ));
  }
}
