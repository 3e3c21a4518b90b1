/**
 * An engine in simulated time that delivers late, fails and forgets, and clients of `Topics.serve()` that
 * check each line they get against what the engine has taken.
 */
import assert from "node:assert/strict";
import type {
  Backplane,
  BackplaneMessage,
  BackplaneReceiver,
  HistoryRead,
  Position,
  ReadCall,
} from "../../lib/topics/backplane.ts";
import type { Topics } from "../../lib/topics/topics.ts";
import type { WebSocketConnection } from "../../lib/connection/connection.ts";
import { pair } from "../../lib/testing.ts";

/** Returns random whole numbers below a limit. */
export type Chance = (limit: number) => number;

/** Makes random numbers from a seed (mulberry32). */
export function chanceOf(seed: number): Chance {
  let state = seed | 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor(((t ^ (t >>> 14)) >>> 0) / 4294967296 * limit);
  };
}

const wait = (delay: number) => new Promise<void>((resolve) => setTimeout(resolve, delay));

/** A message that the engine has taken. */
export interface Taken extends BackplaneMessage {
  readonly topic: string;
  readonly position: Position;
  readonly time: number;
}

/** The engine. */
export class ModelEngine {
  readonly chance: Chance;
  /** Maximum number of messages of a topic that can be read. */
  readonly size: number;
  /** Whether prefixes have another order than topics. */
  readonly isShuffling: boolean;
  readonly taken: Taken[] = [];
  readonly backplanes: ModelBackplane[] = [];
  #epoch = 1;
  #offset = 0;

  constructor(chance: Chance, size: number, isShuffling: boolean) {
    this.chance = chance;
    this.size = size;
    this.isShuffling = isShuffling;
  }

  attach(): ModelBackplane {
    const backplane = new ModelBackplane(this);
    this.backplanes.push(backplane);
    return backplane;
  }

  get epoch(): string {
    return `e${this.#epoch}`;
  }

  take(topic: string, data: Uint8Array | string): Position {
    const position = { epoch: this.epoch, offset: ++this.#offset };
    const message = { topic, data, position, time: performance.now() };
    this.taken.push(message);
    for (const backplane of this.backplanes) backplane.carry(message);
    return position;
  }

  /** Loses everything. */
  wipe(): void {
    this.#epoch++;
    this.#offset = 0;
  }

  read(topic: string, since: Position | undefined, most: number): HistoryRead {
    const all = this.taken.filter((each) =>
      each.topic === topic && each.position.epoch === this.epoch
    );
    const position = { epoch: this.epoch, offset: all.at(-1)?.position.offset ?? 0 };
    if (since === undefined) return { recovered: true, messages: [], position };
    const kept = all.slice(-this.size);
    const gone = all.at(-this.size - 1)?.position.offset ?? 0;
    const isKnown = since.epoch === this.epoch && since.offset >= gone;
    const messages = kept.filter((each) => each.position.offset > since.offset).slice(0, most);
    return { recovered: isKnown, messages: isKnown ? messages : [], position };
  }
}

interface Pipe {
  readonly receiver: BackplaneReceiver;
  /** Whether the engine sends messages to the subscription. */
  isActive: boolean;
  isConfirmed: boolean;
  isInterrupted: boolean;
  /** When the last message arrives: later ones come after it. */
  due: number;
  /** Additional time for each message, if prefixes have another order. */
  lag: number;
  /** What was sent before a loss does not arrive. */
  losses: number;
}

/** The connection of one process to the engine. */
export class ModelBackplane implements Backplane {
  readonly keepsHistory = true;
  readonly #engine: ModelEngine;
  readonly #pipes = new Map<string, Pipe>();
  #isDown = false;
  #isClosed = false;
  #outages = 0;
  /** When the last message that was published arrives. */
  #due = 0;
  /** When the last message from the engine arrives, unless prefixes have another order. */
  #arrival = 0;
  #lag = 0;
  /** Additional time for each read. */
  readTime = 0;

  constructor(engine: ModelEngine) {
    this.#engine = engine;
  }

  #pause(): Promise<void> {
    return wait(this.#engine.chance(10));
  }

  #check(outages = this.#outages): void {
    if (this.#isDown || this.#isClosed || outages !== this.#outages) {
      throw new Error("The engine is down");
    }
  }

  async subscribe(name: string, receiver: BackplaneReceiver): Promise<void> {
    this.#check();
    const outages = this.#outages;
    const pipe = {
      receiver,
      isActive: false,
      isConfirmed: false,
      isInterrupted: false,
      due: 0,
      lag: 0,
      losses: 0,
    };
    this.#pipes.set(name, pipe);
    try {
      await this.#pause();
      this.#check(outages);
      pipe.isActive = true;
      await this.#answer();
      this.#check(outages);
    } catch (error) {
      if (this.#pipes.get(name) === pipe) this.#pipes.delete(name);
      throw error;
    }
    pipe.isConfirmed = true;
  }

  /** Waits for an answer, which comes after the messages that were sent before. */
  #answer(): Promise<void> {
    return wait(this.#arriveAfter(0) - performance.now());
  }

  #arriveAfter(lag: number): number {
    const time = performance.now() + lag + this.#engine.chance(10);
    if (this.#engine.isShuffling) return time;
    return this.#arrival = Math.max(this.#arrival, time + this.#lag);
  }

  async unsubscribe(name: string): Promise<void> {
    this.#pipes.delete(name);
    await this.#pause();
  }

  async publish(topic: string, data: Uint8Array | string): Promise<Position> {
    this.#check();
    const outages = this.#outages;
    this.#due = Math.max(this.#due, performance.now() + this.#engine.chance(5));
    await wait(this.#due - performance.now());
    this.#check(outages);
    const position = this.#engine.take(topic, data);
    await this.#pause();
    this.#check(outages);
    return position;
  }

  async read(
    topic: string,
    since: Position | undefined,
    { maxBytes = Infinity }: ReadCall,
  ): Promise<HistoryRead> {
    this.#check();
    const outages = this.#outages;
    await this.#pause();
    this.#check(outages);
    const read = this.#engine.read(topic, since, Math.max(1, Math.floor(maxBytes / 1000)));
    await this.#pause();
    await wait(this.readTime);
    this.#check(outages);
    return read;
  }

  /** Brings a message to the subscriptions, each in its own time. */
  carry(message: Taken): void {
    for (const [name, pipe] of this.#pipes) {
      const isPrefix = name.endsWith("*");
      const matches = isPrefix
        ? message.topic.startsWith(name.slice(0, -1))
        : message.topic === name;
      if (!matches || !pipe.isActive || this.#isDown) continue;
      const { losses } = pipe;
      const due = this.#arriveAfter(pipe.lag);
      pipe.due = isPrefix && this.#engine.isShuffling ? due : Math.max(pipe.due, due);
      setTimeout(() => {
        const isLost = losses !== pipe.losses || this.#pipes.get(name) !== pipe;
        if (!isLost) pipe.receiver.message(message.topic, message);
      }, pipe.due - performance.now());
    }
  }

  /** Lets messages come later: those of one subscription, if the others may overtake them. */
  delay(nth: number, time: number): void {
    const pipes = [...this.#pipes.values()];
    if (!this.#engine.isShuffling) this.#lag = time;
    else if (pipes.length > 0) pipes[nth % pipes.length].lag = time;
  }

  cut(): void {
    if (this.#isDown) return;
    this.#isDown = true;
    this.#outages++;
    for (const pipe of this.#pipes.values()) this.#lose(pipe, new Error("cut"));
  }

  mend(): void {
    if (!this.#isDown) return;
    this.#isDown = false;
    for (const pipe of this.#pipes.values()) void this.#restore(pipe);
  }

  /** Loses what is on its way to one subscription. */
  skip(nth: number): void {
    const pipes = [...this.#pipes.values()].filter(({ isConfirmed }) => isConfirmed);
    if (this.#isDown || pipes.length === 0) return;
    const pipe = pipes[nth % pipes.length];
    if (pipe.isInterrupted) return;
    this.#lose(pipe, new Error("cut"));
    void this.#restore(pipe);
  }

  #lose(pipe: Pipe, error: Error): void {
    pipe.losses++;
    pipe.isActive = false;
    pipe.due = 0;
    if (!pipe.isConfirmed || pipe.isInterrupted) return;
    pipe.isInterrupted = true;
    pipe.receiver.interrupted(error);
  }

  async #restore(pipe: Pipe): Promise<void> {
    const outages = this.#outages;
    await this.#pause();
    if (outages !== this.#outages || this.#isClosed) return;
    pipe.isActive = true;
    await this.#answer();
    if (outages !== this.#outages || this.#isClosed || !pipe.isInterrupted) return;
    pipe.isInterrupted = false;
    if ([...this.#pipes.values()].includes(pipe)) pipe.receiver.restored();
  }

  // deno-lint-ignore require-await
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#pipes.clear();
  }
}

interface Wanted {
  readonly since: Position | undefined;
  isConfirmed: boolean;
  confirmedAt: number;
  /** The place up to which everything has come, or was reported as missing. */
  last: Position | undefined;
  /** When messages were reported as missing. */
  missedAt: number;
  hasMissed: boolean;
}

const parse = (text: string): Position => {
  const [epoch, offset] = text.split(":");
  return { epoch, offset: Number(offset) };
};

/** What may happen to messages in a run. */
export interface Expected {
  /** Whether few messages may wait for a topic. Those with a prefix miss them if the topic ends. */
  readonly isTight: boolean;
  /** Whether the engine had an outage. Then those with a prefix may miss messages. */
  hasOutages: boolean;
  /** Whether the engine has lost messages, or keeps only some of them. */
  hasGaps: boolean;
}

/** A client that resumes its topics after each connect. */
export class ModelClient {
  readonly #engine: ModelEngine;
  readonly #expected: Expected;
  topics: Topics;
  #far: WebSocketConnection | undefined;
  readonly #positions = new Map<string, Position>();
  readonly #wanted = new Map<string, Wanted>();
  readonly #names = new Set<string>();
  /** The names that the server was asked to leave and has not answered. */
  readonly #leaving = new Set<string>();
  readonly #got = new Set<Taken>();
  /** The last message of each topic on this connection. */
  readonly #lastOf = new Map<string, Position>();
  #asleep: Promise<void> = Promise.resolve();
  #wake: (() => void) | undefined;
  /** What the client has done and got, for the message of a failure. */
  readonly #trace: string[] = [];
  #failure: unknown;
  #done: Promise<void> = Promise.resolve();

  constructor(engine: ModelEngine, topics: Topics, expected: Expected) {
    this.#engine = engine;
    this.topics = topics;
    this.#expected = expected;
  }

  get isConnected(): boolean {
    return this.#far !== undefined;
  }

  async connect(topics: Topics): Promise<void> {
    if (this.isConnected) return;
    await this.#done;
    this.topics = topics;
    const [far, ws] = await pair({ capacity: 500 });
    this.#far = far;
    this.#wanted.clear();
    this.#leaving.clear();
    this.#lastOf.clear();
    this.#trace.push("connect");
    void topics.serve(ws, { maySubscribe: () => true, maxBufferedAmount: 1e9 }).catch(() => {});
    this.#done = this.#read(far);
    const names = [...this.#names].sort((a, b) =>
      Number(a.endsWith("*")) - Number(b.endsWith("*"))
    );
    for (const name of names) this.#ask(name);
  }

  drop(): void {
    this.#trace.push("drop");
    this.#far?.terminate();
    this.#far = undefined;
    this.wake();
  }

  sleep(): void {
    if (this.#wake !== undefined) return;
    this.#asleep = new Promise((resolve) => this.#wake = resolve);
  }

  wake(): void {
    this.#wake?.();
    this.#wake = undefined;
  }

  subscribe(name: string): void {
    if (this.#names.has(name) || this.#leaving.has(name)) return;
    // A topic that a prefix brings already would begin with messages that have come.
    if (name.endsWith("*") === false && [...this.#names].some((each) => each.endsWith("*"))) return;
    this.#names.add(name);
    this.#ask(name);
  }

  unsubscribe(name: string): void {
    if (this.#far === undefined || !this.#names.delete(name)) return;
    this.#trace.push(`unsubscribe ${name}`);
    this.#leaving.add(name);
    this.#positions.delete(name);
    this.#send({ unsubscribe: name });
  }

  #ask(name: string): void {
    if (this.#far === undefined) return;
    const since = this.#positions.get(name);
    this.#trace.push(`subscribe ${name} since ${since && `${since.epoch}:${since.offset}`}`);
    this.#wanted.set(name, {
      since,
      isConfirmed: false,
      confirmedAt: Infinity,
      last: since,
      missedAt: -1,
      hasMissed: false,
    });
    this.#send({ subscribe: name, since: since && `${since.epoch}:${since.offset}` });
  }

  #send(line: unknown): void {
    this.#far?.send(JSON.stringify(line)).catch(() => {});
  }

  async #read(far: WebSocketConnection): Promise<void> {
    try {
      for await (const message of far) {
        await this.#asleep;
        if (this.#far !== far) return;
        try {
          this.#take(String(message));
        } catch (error) {
          this.#failure ??= error;
        }
      }
    } catch {
      // The connection was dropped.
    }
  }

  #take(text: string): void {
    const [head] = text.split("\n", 1);
    this.#trace.push(head);
    const line = JSON.parse(head);
    if (line.topic !== undefined) this.#takeMessage(text.slice(head.length + 1), line);
    else if (line.subscribed !== undefined) this.#takeSubscribed(line);
    else if (line.missed !== undefined) this.#takeMissed(line.missed);
    else if (line.unsubscribed !== undefined) {
      this.#leaving.delete(line.unsubscribed);
      this.#wanted.delete(line.unsubscribed);
    } else throw new Error(`Unexpected ${head}`);
  }

  #between(topic: string, from: Position, to: Position): Taken[] {
    return this.#engine.taken.filter((each) =>
      each.topic === topic && each.position.epoch === to.epoch && from.epoch === to.epoch &&
      each.position.offset > from.offset && each.position.offset <= to.offset
    );
  }

  #takeMessage(data: string, { topic, position: at }: { topic: string; position: string }): void {
    const position = parse(at);
    const taken = this.#engine.taken.find((each) =>
      each.topic === topic && each.position.epoch === position.epoch &&
      each.position.offset === position.offset
    );
    assert.ok(taken !== undefined && String(taken.data).endsWith(data), `unknown message ${at}`);
    assert.ok(!this.#got.has(taken), `${topic} ${at} came twice`);
    this.#got.add(taken);
    const wanted = this.#wanted.get(topic);
    const last = this.#lastOf.get(topic);
    // What a prefix brings from before the subscription may be late.
    const isOrdered = wanted === undefined || this.#wanted.size === 1 ||
      taken.time > Math.max(wanted.confirmedAt, wanted.missedAt);
    if (this.#engine.isShuffling ? wanted !== undefined && isOrdered : true) {
      const isLater = last === undefined || last.epoch !== position.epoch ||
        last.offset < position.offset;
      assert.ok(isLater, `${topic} ${at} came after ${last?.offset}`);
    }
    this.#lastOf.set(topic, position);
    if (wanted === undefined) return;
    if (wanted.isConfirmed) this.#checkNext(topic, wanted, position);
    const known = this.#positions.get(topic);
    const isLater = known?.epoch !== position.epoch || known.offset < position.offset;
    if (this.#names.has(topic) && isLater) this.#positions.set(topic, position);
  }

  /** Checks that no message is missing before this one, unless that was reported. */
  #checkNext(topic: string, wanted: Wanted, position: Position): void {
    const { last } = wanted;
    // What a prefix brings from before the subscription may be late.
    if (last?.epoch === position.epoch && last.offset >= position.offset) return;
    if (!wanted.hasMissed && last !== undefined) {
      assert.equal(last.epoch, position.epoch, `${topic} begins anew without a report`);
      const missing = this.#between(topic, last, position).slice(0, -1);
      const early = missing.filter((each) => !this.#got.has(each) && each.time > wanted.missedAt);
      assert.deepEqual(early.map(({ position }) => position.offset), [], `gap of ${topic}`);
    }
    wanted.hasMissed = false;
    wanted.last = position;
  }

  #takeSubscribed(line: { subscribed: string; recovered: boolean; position?: string }): void {
    const { subscribed: name, recovered } = line;
    const wanted = this.#wanted.get(name);
    if (wanted === undefined || this.#leaving.has(name)) return;
    wanted.isConfirmed = true;
    wanted.confirmedAt = performance.now();
    if (name.endsWith("*")) return;
    const position = parse(line.position!);
    const { since } = wanted;
    if (since !== undefined && recovered) {
      const missing = this.#between(name, since, position).filter((each) => !this.#got.has(each));
      assert.deepEqual(missing.map(({ position }) => position.offset), [], `recovered ${name}`);
      assert.equal(since.epoch, position.epoch, `recovered ${name} in another epoch`);
    }
    assert.ok(recovered || this.#expected.hasGaps, `${name} was not recovered`);
    const last = this.#lastOf.get(name);
    const isAhead = last?.epoch === position.epoch && last.offset > position.offset;
    wanted.last = isAhead ? last : position;
    if (!isAhead) this.#positions.set(name, position);
    if (isAhead && recovered) this.#checkNext(name, { ...wanted, last: position }, last);
  }

  #takeMissed(name: string): void {
    const wanted = this.#wanted.get(name);
    if (wanted === undefined) return;
    const { hasOutages, hasGaps, isTight } = this.#expected;
    const mayMiss = hasGaps || ((hasOutages || isTight) && name.endsWith("*"));
    assert.ok(mayMiss, `${name} was missed`);
    wanted.hasMissed = true;
    wanted.missedAt = performance.now();
  }

  /** Checks that everything has come that was due. Called when everything is at rest. */
  check(): void {
    try {
      this.#check();
    } catch (error) {
      const { message } = error as Error;
      throw new Error(`${message}\n${this.#trace.join("\n")}`, { cause: error });
    }
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
    for (const [name, wanted] of this.#wanted) {
      if (this.#leaving.has(name)) continue;
      assert.ok(wanted.isConfirmed, `${name} is not confirmed`);
      if (name.endsWith("*")) this.#checkPrefix(name.slice(0, -1), wanted);
      else if (!wanted.hasMissed) {
        const end = this.#engine.taken.filter(({ topic }) => topic === name).at(-1)!.position;
        assert.deepEqual(wanted.last, end, `the end of ${name}`);
      }
    }
  }

  #checkPrefix(prefix: string, wanted: Wanted): void {
    const missing = this.#engine.taken.filter((each) =>
      each.topic.startsWith(prefix) && each.time > wanted.confirmedAt && !this.#got.has(each) &&
      each.time > Math.max(wanted.missedAt, this.#wanted.get(each.topic)?.missedAt ?? -1)
    );
    assert.deepEqual(missing.map(({ position }) => position.offset), [], `missing at ${prefix}*`);
  }
}
