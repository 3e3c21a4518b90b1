/** The contract of backplanes: the same tests for every engine. */
import { after, before, describe } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import type {
  Backplane,
  BackplaneMessage,
  BackplaneReceiver,
  Position,
} from "../../lib/topics/backplane.ts";
import { it, knownLimit, notApplicable } from "../it.ts";

/** An engine that several backplanes share, as processes do. */
export interface Engine {
  /** Makes the backplane of another process. */
  connect(): Promise<Backplane> | Backplane;
  /** Ends the engine. */
  stop(): Promise<void> | void;
}

/** What the backplanes of an engine can do. */
export interface Abilities {
  history: boolean;
  presence: boolean;
  /** Whether prefixes can be subscribed. Default: true */
  prefixes?: boolean;
  /** Whether all processes get the messages of several publishers in the same order. Default: true */
  order?: boolean;
}

/** Collects what a subscription receives. */
export class Received implements BackplaneReceiver {
  readonly messages: { topic: string; text: string; message: BackplaneMessage }[] = [];
  readonly events: string[] = [];
  #waiting: (() => void)[] = [];

  message(topic: string, message: BackplaneMessage): void {
    this.messages.push({ topic, text: textOf(message.data), message });
    for (const wake of this.#waiting.splice(0)) wake();
  }

  interrupted(): void {
    this.events.push("interrupted");
    for (const wake of this.#waiting.splice(0)) wake();
  }

  restored(): void {
    this.events.push("restored");
    for (const wake of this.#waiting.splice(0)) wake();
  }

  error(): void {
    this.events.push("error");
    for (const wake of this.#waiting.splice(0)) wake();
  }

  get texts(): string[] {
    return this.messages.map(({ text }) => text);
  }

  /** Waits until a condition holds. It is checked after each call. */
  async until(holds: (received: Received) => boolean): Promise<void> {
    while (!holds(this)) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Waits for a number of messages. */
  async count(messages: number): Promise<string[]> {
    await this.until(() => this.messages.length >= messages);
    return this.texts;
  }
}

/** What calls of a backplane get when nobody gives them up. */
export const CALL: { signal: AbortSignal } = { signal: new AbortController().signal };

export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function textOf(data: Uint8Array | string): string {
  return typeof data === "string"
    ? data
    : new TextDecoder("utf-8", { ignoreBOM: true }).decode(data);
}

let names = 0;

/** A name that no other test has used. The engine may keep messages of earlier runs. */
export function newTopic(): string {
  return `t${Date.now().toString(36)}-${process.pid}-${++names}`;
}

/** Names that an engine might take for something else. */
const NAMES = [
  "a b",
  "a.b",
  "a.>",
  "[ab]",
  "a?b",
  "a\\b",
  "ü/😀",
  "$SYS",
  ".",
  "a/b/",
  "{a}",
  "a:b",
  // Another name than with one character for both.
  "e\u0301",
];

export function contract(
  title: string,
  start: () => Promise<Engine> | Engine,
  { history, presence, prefixes = true, order = true }: Abilities,
  skip?: string | undefined,
): void {
  const onlyHistory = skip ?? (history ? undefined : notApplicable("The engine has no history"));
  const onlyPresence = skip ?? (presence ? undefined : notApplicable("The engine has no presence"));

  const onlyPrefixes = skip ?? (prefixes ? undefined : knownLimit("The client has no patterns"));

  describe(`The backplane ${title}`, () => {
    let engine: Engine;
    let a: Backplane;
    let b: Backplane;

    before(async () => {
      if (skip !== undefined) return;
      engine = await start();
      [a, b] = [await engine.connect(), await engine.connect()];
    });
    after(async () => {
      if (skip !== undefined) return;
      await a.close();
      await b.close();
      await engine.stop();
    });

    /** Publishes texts without waiting in between. */
    const publishAll = (backplane: Backplane, topic: string, texts: readonly string[]) =>
      Promise.all(texts.map((text) => backplane.publish(topic, bytesOf(text), CALL)));

    it(
      "gives a message to all processes that have subscribed, also to its own",
      { skip },
      async () => {
        const topic = newTopic();
        const [atA, atB] = [new Received(), new Received()];
        await Promise.all([a.subscribe(topic, atA, CALL), b.subscribe(topic, atB, CALL)]);
        await a.publish(topic, bytesOf("one"), CALL);
        await b.publish(topic, bytesOf("two"), CALL);
        assert.deepEqual(await atA.count(2), ["one", "two"]);
        assert.deepEqual(await atB.count(2), ["one", "two"]);
        assert.ok(atA.messages.every((each) => each.topic === topic));
        await Promise.all([a.unsubscribe(topic), b.unsubscribe(topic)]);
      },
    );

    it("keeps the order of a publisher that does not wait, and gives all the same order", {
      skip,
    }, async () => {
      const topic = newTopic();
      const [atA, atB] = [new Received(), new Received()];
      await Promise.all([a.subscribe(topic, atA, CALL), b.subscribe(topic, atB, CALL)]);
      const texts = (name: string) => Array.from({ length: 200 }, (_, i) => `${name}${i}`);
      await Promise.all([publishAll(a, topic, texts("a")), publishAll(b, topic, texts("b"))]);
      await Promise.all([atA.count(400), atB.count(400)]);
      for (const name of ["a", "b"]) {
        const of = ({ texts }: Received) => texts.filter((text) => text.startsWith(name));
        assert.deepEqual(of(atA), texts(name));
        assert.deepEqual(of(atB), texts(name));
      }
      if (order) assert.deepEqual(atB.texts, atA.texts);
      await Promise.all([a.unsubscribe(topic), b.unsubscribe(topic)]);
    });

    it("carries every byte, nothing, and 300 KiB", { skip }, async () => {
      const topic = newTopic();
      const received = new Received();
      await a.subscribe(topic, received, CALL);
      const all = Uint8Array.from({ length: 256 }, (_, i) => i);
      const long = new Uint8Array(307_200).map((_, i) => i * 7);
      for (const data of [all, new Uint8Array(0), long]) await b.publish(topic, data, CALL);
      await received.count(3);
      const found = received.messages.map(({ message: { data } }) =>
        typeof data === "string" ? bytesOf(data) : new Uint8Array(data)
      );
      assert.deepEqual(found, [all, new Uint8Array(0), long]);
      await a.unsubscribe(topic);
    });

    it("carries text as the bytes of its UTF-8, or as text", { skip }, async () => {
      const topic = newTopic();
      const received = new Received();
      const start = history ? await a.read!(topic, undefined, CALL) : undefined;
      await a.subscribe(topic, received, CALL);
      const texts = ["", "t", "b", "\ufeffa\u0000\n\ud83d\ude00", "\u00fc".repeat(100_000)];
      for (const text of texts) await b.publish(topic, text, CALL);
      assert.deepEqual(await received.count(texts.length), texts);
      if (history) {
        const { messages } = await b.read!(topic, start!.position, CALL);
        assert.deepEqual(messages.map(({ data }) => textOf(data)), texts);
      }
      await a.unsubscribe(topic);
    });

    for (const special of NAMES) {
      it(`takes the name ${JSON.stringify(special)} literally`, { skip }, async () => {
        const start = newTopic();
        const topic = `${start}${special}`;
        const [exact, prefix] = [new Received(), new Received()];
        await a.subscribe(topic, exact, CALL);
        if (prefixes) await a.subscribe(`${topic}*`, prefix, CALL);
        const others = ["", "aab", "a.b.c", "b", "\u00e9", special, `${special}/more`];
        const topics = others.map((other) => `${start}${other}`);
        for (const other of topics) await b.publish(other, bytesOf(other), CALL);
        const expected = topics.filter((other) => other.startsWith(topic));
        if (prefixes) assert.deepEqual(await prefix.count(expected.length), expected);
        if (prefixes) assert.deepEqual(prefix.messages.map(({ topic }) => topic), expected);
        assert.deepEqual(await exact.count(1), [topic]);
        await a.unsubscribe(topic);
        await a.unsubscribe(`${topic}*`);
      });
    }

    it("takes a name of 255 bytes", { skip }, async () => {
      const topic = newTopic().padEnd(255, "x");
      const received = new Received();
      await a.subscribe(topic, received, CALL);
      await b.publish(topic, bytesOf("long"), CALL);
      assert.deepEqual(await received.count(1), ["long"]);
      await a.unsubscribe(topic);
    });

    it("gives each matching subscription the message once", { skip: onlyPrefixes }, async () => {
      const start = newTopic();
      const names = [`${start}/1`, `${start}/*`, `${start}*`];
      const found = names.map(() => new Received());
      for (const [i, name] of names.entries()) await a.subscribe(name, found[i], CALL);
      for (const [i, topic] of [`${start}/1`, `${start}/2`, `${start}`].entries()) {
        await b.publish(topic, bytesOf(`${i}`), CALL);
      }
      assert.deepEqual(await found[2].count(3), ["0", "1", "2"]);
      assert.deepEqual(await found[1].count(2), ["0", "1"]);
      assert.deepEqual(await found[0].count(1), ["0"]);
      for (const name of names) await a.unsubscribe(name);
    });

    it("calls no receiver after unsubscribe()", { skip }, async () => {
      const topic = newTopic();
      const [gone, again, witness] = [new Received(), new Received(), new Received()];
      await a.subscribe(topic, gone, CALL);
      await b.subscribe(topic, witness, CALL);
      const ending = a.unsubscribe(topic);
      await b.publish(topic, bytesOf("1"), CALL);
      await ending;
      await b.publish(topic, bytesOf("2"), CALL);
      await witness.count(2);
      await a.subscribe(topic, again, CALL);
      await b.publish(topic, bytesOf("3"), CALL);
      assert.deepEqual(await again.count(1), ["3"]);
      assert.deepEqual(gone.texts, []);
      await Promise.all([a.unsubscribe(topic), b.unsubscribe(topic)]);
    });

    it("subscribes again at once, and allows to end what was never begun", { skip }, async () => {
      const topic = newTopic();
      await a.unsubscribe(topic);
      const received = new Received();
      await a.subscribe(topic, new Received(), CALL);
      const ending = a.unsubscribe(topic);
      await a.subscribe(topic, received, CALL);
      await ending;
      await b.publish(topic, bytesOf("here"), CALL);
      assert.deepEqual(await received.count(1), ["here"]);
      await a.unsubscribe(topic);
    });

    it("says whether it keeps a history", { skip }, async () => {
      assert.equal(a.keepsHistory, history);
      assert.ok(!history || a.read !== undefined);
      const position = await a.publish(newTopic(), bytesOf("x"), CALL);
      assert.equal(position === undefined, !history);
    });

    it("gives the publisher, the receivers and the history the same positions", {
      skip: onlyHistory,
    }, async () => {
      const topic = newTopic();
      const received = new Received();
      const start = await a.read!(topic, undefined, CALL);
      assert.deepEqual([start.recovered, start.messages], [true, []]);
      await a.subscribe(topic, received, CALL);
      const texts = Array.from({ length: 20 }, (_, i) => `${i}`);
      const positions = await publishAll(b, topic, texts);
      await received.count(20);
      assert.deepEqual(received.messages.map(({ message }) => message.position), positions);
      const offsets = positions.map((position) => position!.offset);
      assert.ok(offsets.every((offset, i) => offset > (offsets[i - 1] ?? start.position.offset)));
      for (const from of [-1, 0, 10, 19]) {
        const since = positions[from] ?? start.position;
        const read = await a.read!(topic, since, CALL);
        const found = read.messages.map(({ data }) => textOf(data));
        assert.deepEqual([read.recovered, found], [true, texts.slice(from + 1)]);
        assert.deepEqual(read.messages.map(({ position }) => position), positions.slice(from + 1));
        assert.deepEqual(read.position, positions[19]);
      }
      assert.deepEqual((await a.read!(topic, undefined, CALL)).position, positions[19]);
      await a.unsubscribe(topic);
    });

    it("reads a part of the history if there are more than maxBytes", {
      skip: onlyHistory,
    }, async () => {
      const topic = newTopic();
      const { position: start } = await a.read!(topic, undefined, CALL);
      // Text and bytes of 1,000 bytes, and one message that is longer than a part.
      const data = Array.from({ length: 90 }, (_, i) => {
        const text = `${i}`.padEnd(i === 40 ? 20_000 : 1000);
        return i % 2 === 0 ? text : bytesOf(text);
      });
      const positions = await Promise.all(data.map((each) => b.publish(topic, each, CALL)));
      const found: (Position | undefined)[] = [];
      const lengths: number[] = [];
      for (let since = start, isLast = false; !isLast;) {
        const read = await a.read!(topic, since, { ...CALL, maxBytes: 17_800 });
        assert.equal(read.recovered, true);
        found.push(...read.messages.map(({ position }) => position));
        lengths.push(read.messages.length);
        since = found.at(-1)!;
        isLast = since.offset === read.position.offset;
      }
      assert.deepEqual(found, positions);
      // With the 768 bytes that each message counts more, ten fit, or nine of those that are base64.
      assert.deepEqual(Math.max(...lengths), 10);
      assert.ok(lengths.length >= 10);
    });

    it("says when a position is gone", { skip: onlyHistory }, async () => {
      const topic = newTopic();
      const first = await a.publish(topic, bytesOf("x"), CALL);
      const wrong = [
        { epoch: "other", offset: first!.offset },
        { epoch: first!.epoch, offset: first!.offset + 1_000_000 },
      ];
      for (const since of wrong) {
        const read = await b.read!(topic, since, CALL);
        assert.deepEqual([read.recovered, read.messages], [false, []]);
        assert.deepEqual(read.position, first);
      }
    });

    it("takes any position, also one of another topic", { skip: onlyHistory }, async () => {
      const topic = newTopic();
      const other = await a.publish(newTopic(), bytesOf("other"), CALL);
      const positions = await publishAll(a, topic, ["0", "1", "2"]);
      const { epoch, offset } = positions[2]!;
      const forged = [
        other!,
        ...[0, 1, offset - 1, offset + 1, Number.MAX_SAFE_INTEGER].map((each) => ({
          epoch,
          offset: each,
        })),
        ...["0", "-", "_".repeat(64), "KEYS", "1-1"].map((each) => ({ epoch: each, offset: 1 })),
      ];
      for (const since of forged) {
        const { recovered, messages, position } = await b.read!(topic, since, CALL);
        assert.deepEqual(position, positions[2]);
        // If nothing is said to be missing, all later messages are there, once and in order.
        const later = positions.filter((each) => each!.offset > since.offset);
        const found = messages.map(({ position }) => position);
        assert.deepEqual(found, recovered ? later : [], JSON.stringify(since));
        assert.ok(!recovered || since.epoch === epoch);
        assert.ok(!recovered || since.offset <= offset);
      }
    });

    it("keeps one subscription after a flood of changes", { skip }, async () => {
      const topic = newTopic();
      const all = Array.from({ length: 100 }, () => new Received());
      const changes: Promise<unknown>[] = [];
      for (const received of all) {
        changes.push(a.subscribe(topic, received, CALL), a.unsubscribe(topic));
      }
      const last = new Received();
      await Promise.all([Promise.allSettled(changes), a.subscribe(topic, last, CALL)]);
      await b.publish(topic, bytesOf("once"), CALL);
      await b.publish(topic, bytesOf("end"), CALL);
      await last.until(({ texts }) => texts.includes("end"));
      assert.deepEqual(last.texts, ["once", "end"]);
      assert.ok(all.every(({ texts, events }) => texts.length === 0 && events.length === 0));
      await a.unsubscribe(topic);
    });

    it("knows the members that processes have announced", { skip: onlyPresence }, async () => {
      const topic = newTopic();
      const found = async () =>
        (await b.members!(topic, CALL)).map((data) => new TextDecoder().decode(data)).sort();
      assert.deepEqual(await found(), []);
      await a.announce!(topic, "p1", bytesOf("old"), 60_000, CALL);
      await a.announce!(topic, "p1", bytesOf("one"), 60_000, CALL);
      await b.announce!(topic, "p2", bytesOf("two"), 60_000, CALL);
      assert.deepEqual(await found(), ["one", "two"]);
      await a.withdraw!(topic, "p1", CALL);
      await a.withdraw!(topic, "p1", CALL);
      assert.deepEqual(await found(), ["two"]);
      await a.announce!(topic, "p3", bytesOf("short"), 1, CALL);
      while ((await found()).length > 1);
      assert.deepEqual(await found(), ["two"]);
      await b.withdraw!(topic, "p2", CALL);
    });

    it("ends everything with close(), more than once", { skip }, async () => {
      const topic = newTopic();
      const received = new Received();
      const c = await engine.connect();
      await c.subscribe(topic, received, CALL);
      await c.close();
      await c.close();
      await b.publish(topic, bytesOf("late"), CALL);
      await assert.rejects(async () => await c.publish(topic, bytesOf("x"), CALL));
      await assert.rejects(async () => await c.subscribe(topic, received, CALL));
      assert.deepEqual(received.texts, []);
    });
  });
}
