/** The backplane of a single process, with or without a history. */
import { isTooMuch, MESSAGE_OVERHEAD } from "../connection/sending.ts";
import { invalidState } from "../core/error.ts";
import { checkInteger, checkNumber, type OptionNames } from "../core/options.ts";
import { checkKnown } from "../core/option_hints.ts";
import { Queue } from "../core/queue.ts";
import { now } from "../timers.ts";
import type {
  Backplane,
  BackplaneMessage,
  BackplaneReceiver,
  HistoryRead,
  Position,
  ReadCall,
} from "./backplane.ts";

/** What a history in the memory of a process keeps. */
export interface HistoryOptions {
  /**
   * Maximum number of messages of a topic.
   * @default {100}
   */
  size?: number | undefined;
  /**
   * Time for which a message can be read, in milliseconds.
   * @default {300_000}
   */
  ttl?: number | undefined;
  /**
   * Maximum number of bytes of all messages. Text counts its UTF-16 code units, and each message 256 bytes
   * more. If there are more, the topics in which nothing was published for the longest time lose their
   * history.
   * @default {67_108_864}
   */
  maxBytes?: number | undefined;
}

export const HISTORY_OPTIONS: OptionNames<HistoryOptions> = {
  size: (name, value) => checkInteger(name, value, 1, 1_000_000),
  ttl: checkNumber,
  maxBytes: checkNumber,
};

/** Memory of a message in the history in addition to its bytes. */
const OVERHEAD = 256;

interface Kept {
  readonly data: Uint8Array | string;
  readonly position: Position;
  readonly expires: number;
}

interface TopicHistory {
  readonly kept: Queue<Kept>;
  /** The largest offset of a message that is gone, or may have been. */
  gone: number;
}

/** The last messages of all topics. Offsets count the messages of all topics. */
class History {
  readonly #epoch = crypto.randomUUID();
  readonly #size: number;
  readonly #ttl: number;
  readonly #maxBytes: number;
  /** The topic in which nothing was published for the longest time comes first. */
  readonly #topics = new Map<string, TopicHistory>();
  #bytes = 0;
  #offset = 0;
  /** The largest offset of the topics that are forgotten. */
  #forgotten = 0;

  constructor({ size = 100, ttl = 300_000, maxBytes = 67_108_864 }: HistoryOptions) {
    this.#size = size;
    this.#ttl = ttl;
    this.#maxBytes = maxBytes;
  }

  add(topic: string, data: Uint8Array | string): Position {
    const position = { epoch: this.#epoch, offset: ++this.#offset };
    const found = this.#topics.get(topic) ?? { kept: new Queue(), gone: this.#forgotten };
    this.#topics.delete(topic);
    this.#topics.set(topic, found);
    found.kept.push({ data, position, expires: now() + this.#ttl });
    this.#bytes += data.length + OVERHEAD;
    if (found.kept.length > this.#size) this.#dropFirst(found);
    this.#makeRoom(now());
    return position;
  }

  read(topic: string, since: Position | undefined, maxBytes: number = Infinity): HistoryRead {
    // With one time for both, no topic is left without messages.
    const time = now();
    this.#makeRoom(time);
    const found = this.#topics.get(topic);
    if (found !== undefined) this.#dropExpired(found, time);
    const { kept = new Queue<Kept>(), gone = this.#forgotten } = found ?? {};
    const position = kept.at(kept.length - 1)?.position ?? { epoch: this.#epoch, offset: gone };
    if (since === undefined) return { recovered: true, messages: [], position };
    const isKnown = since.epoch === this.#epoch && since.offset >= gone &&
      since.offset <= this.#offset;
    const messages = isKnown ? keptAfter(kept, since.offset, maxBytes) : [];
    return { recovered: isKnown, messages, position };
  }

  #makeRoom(time: number): void {
    for (const [topic, found] of this.#topics) {
      const isOver = found.kept.at(found.kept.length - 1)!.expires <= time;
      if (!isOver && this.#bytes <= this.#maxBytes) return;
      while (found.kept.length > 0) this.#dropFirst(found);
      this.#forgotten = Math.max(this.#forgotten, found.gone);
      this.#topics.delete(topic);
    }
  }

  #dropExpired(found: TopicHistory, time: number): void {
    while (found.kept.length > 0 && found.kept.first!.expires <= time) this.#dropFirst(found);
  }

  #dropFirst(found: TopicHistory): void {
    const { data, position } = found.kept.shift()!;
    found.gone = position.offset;
    this.#bytes -= data.length + OVERHEAD;
  }
}

/** Returns the first messages after an offset. They are among the last ones as a rule. */
function keptAfter(kept: Queue<Kept>, offset: number, maxBytes: number): Kept[] {
  let next = kept.length;
  while (next > 0 && kept.at(next - 1)!.position.offset > offset) next--;
  const found: Kept[] = [];
  for (let bytes = 0; next < kept.length; next++) {
    const message = kept.at(next)!;
    const size = message.data.length + MESSAGE_OVERHEAD;
    if (isTooMuch(bytes, size, maxBytes)) break;
    bytes += size;
    found.push(message);
  }
  return found;
}

/** An engine in memory. Several backplanes of one process may share it, as processes share an engine. */
export class MemoryEngine {
  readonly #history: History | undefined;
  readonly #backplanes = new Set<MemoryBackplane>();
  /** What has been announced for each topic by each owner. */
  readonly #members = new Map<string, Map<string, { data: Uint8Array; expires: number }>>();
  #isDelivering = false;
  #waiting: [topic: string, message: BackplaneMessage][] = [];

  constructor(history?: HistoryOptions | undefined) {
    if (history === undefined) return;
    checkKnown("history", history, HISTORY_OPTIONS);
    this.#history = new History(history);
  }

  get history(): History | undefined {
    return this.#history;
  }

  attach(): Backplane {
    const backplane = new MemoryBackplane(this, () => this.#backplanes.delete(backplane));
    this.#backplanes.add(backplane);
    return backplane;
  }

  publish(topic: string, data: Uint8Array | string): Position | undefined {
    const position = this.#history?.add(topic, data);
    this.#waiting.push([topic, { data, position }]);
    // A receiver that publishes must not overtake the message that it has received.
    if (this.#isDelivering) return position;
    this.#isDelivering = true;
    for (const [topic, message] of this.#waiting) {
      for (const backplane of this.#backplanes) backplane.deliver(topic, message);
    }
    this.#waiting = [];
    this.#isDelivering = false;
    return position;
  }

  announce(topic: string, owner: string, data: Uint8Array, ttl: number): void {
    let found = this.#members.get(topic);
    if (found === undefined) this.#members.set(topic, found = new Map());
    found.set(owner, { data, expires: now() + ttl });
  }

  withdraw(topic: string, owner: string): void {
    const found = this.#members.get(topic);
    found?.delete(owner);
    if (found?.size === 0) this.#members.delete(topic);
  }

  members(topic: string): Uint8Array[] {
    const time = now();
    for (const [owner, { expires }] of this.#members.get(topic) ?? []) {
      if (expires <= time) this.withdraw(topic, owner);
    }
    return Array.from(this.#members.get(topic)?.values() ?? [], ({ data }) => data);
  }
}

/** A backplane of an engine in memory. */
class MemoryBackplane implements Backplane {
  readonly #engine: MemoryEngine;
  readonly #detach: () => void;
  readonly #names = new Map<string, BackplaneReceiver>();
  /** The prefixes without their asterisks. */
  readonly #prefixes = new Map<string, BackplaneReceiver>();
  #isClosed = false;

  constructor(engine: MemoryEngine, detach: () => void) {
    this.#engine = engine;
    this.#detach = detach;
  }

  get keepsHistory(): boolean {
    return this.#engine.history !== undefined;
  }

  deliver(topic: string, message: BackplaneMessage): void {
    this.#names.get(topic)?.message(topic, message);
    for (const [prefix, receiver] of this.#prefixes) {
      if (topic.startsWith(prefix)) receiver.message(topic, message);
    }
  }

  // deno-lint-ignore require-await
  async subscribe(topic: string, receiver: BackplaneReceiver): Promise<void> {
    this.#checkOpen();
    if (topic.endsWith("*")) this.#prefixes.set(topic.slice(0, -1), receiver);
    else this.#names.set(topic, receiver);
  }

  // deno-lint-ignore require-await
  async unsubscribe(topic: string): Promise<void> {
    if (topic.endsWith("*")) this.#prefixes.delete(topic.slice(0, -1));
    else this.#names.delete(topic);
  }

  // deno-lint-ignore require-await
  async publish(topic: string, data: Uint8Array | string): Promise<Position | undefined> {
    this.#checkOpen();
    return this.#engine.publish(topic, data);
  }

  // deno-lint-ignore require-await
  async read(
    topic: string,
    since: Position | undefined,
    { maxBytes }: ReadCall,
  ): Promise<HistoryRead> {
    this.#checkOpen();
    const { history } = this.#engine;
    if (history === undefined) throw invalidState("The backplane has no history", "wrong-state");
    return history.read(topic, since, maxBytes);
  }

  // deno-lint-ignore require-await
  async announce(topic: string, owner: string, data: Uint8Array, ttl: number): Promise<void> {
    this.#checkOpen();
    this.#engine.announce(topic, owner, data, ttl);
  }

  // deno-lint-ignore require-await
  async withdraw(topic: string, owner: string): Promise<void> {
    this.#checkOpen();
    this.#engine.withdraw(topic, owner);
  }

  // deno-lint-ignore require-await
  async members(topic: string): Promise<readonly Uint8Array[]> {
    this.#checkOpen();
    return this.#engine.members(topic);
  }

  // deno-lint-ignore require-await
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#names.clear();
    this.#prefixes.clear();
    this.#detach();
  }

  #checkOpen(): void {
    if (this.#isClosed) throw invalidState("The backplane is closed", "not-open");
  }
}
