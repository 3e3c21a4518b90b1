/** Messages that wait for an engine that refuses some of them, or loses its connection. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Gate } from "../lib/abortable.ts";
import { Outbox, type OutboxHost } from "../lib/topics/outbox.ts";
import { fc } from "./property.ts";
import { rejection, rest, turn } from "./support.ts";
import { CALL } from "./topics/contract.ts";

/** What the engine does with the next message, or with the connection. */
type Step = "take" | "refuse" | "lose" | "ignore" | "takeSilently";

/** An engine that stores each message once, in the order in which they arrive. A test calls `next()`. */
class Host implements OutboxHost {
  readonly gate = new Gate();
  readonly outbox: Outbox = new Outbox(this);
  readonly stored: string[] = [];
  #arriving: { text: string; isLate: boolean; resolve(): void; reject(error: Error): void }[] = [];

  get canSend(): boolean {
    return !this.gate.isClosed;
  }

  async ready(): Promise<void> {
    await this.gate.pass(CALL.signal);
  }

  isRefusal(error: unknown): boolean {
    return (error as Error).message === "refuse";
  }

  failed(): void {
    this.gate.close(() => Promise.allSettled([turn(), this.outbox.settled()]));
  }

  /** Publishes a text to the topic that is its first character. */
  publish(text: string): Promise<void> {
    return this.outbox.publish(text[0], CALL.signal, (isLate) =>
      new Promise((resolve, reject) => {
        this.#arriving.push({ text, isLate, resolve, reject });
      }));
  }

  get waiting(): number {
    return this.#arriving.length;
  }

  /** Handles the next message. If the connection is lost, some messages arrived before it. */
  next(step: Step, arrived = 0): void {
    if (step === "lose") {
      // Until there is another connection, no message is sent.
      this.gate.close(() => turn());
      const lost = this.#arriving.splice(0);
      for (const { text } of lost.slice(0, arrived)) this.#store(text);
      for (const { reject } of lost) reject(new Error("lost"));
      return;
    }
    const { text, isLate, resolve, reject } = this.#arriving.shift()!;
    if (step === "ignore") return reject(new Error("timeout"));
    if (step === "refuse" || (isLate && !this.stored.includes(text))) {
      return reject(new Error("refuse"));
    }
    this.#store(text);
    if (step === "takeSilently") reject(new Error("timeout"));
    else resolve();
  }

  #store(text: string): void {
    if (!this.stored.includes(text)) this.stored.push(text);
  }

  async takeAll(): Promise<void> {
    for (let quiet = 0; quiet < 8; quiet++) {
      for (; this.waiting > 0; quiet = 0) this.next("take");
      await turn();
    }
  }
}

describe("Messages that wait for the engine", () => {
  it("A message that is refused is sent again, before those that came later", async () => {
    const host = new Host();
    const first = [host.publish("a1"), host.publish("a2")];
    await rest();
    host.next("refuse");
    await turn();
    // Comes while the second one is not refused yet.
    const later = host.publish("a3");
    await turn();
    host.next("refuse");
    await host.takeAll();
    await Promise.all([...first, later]);
    assert.deepEqual(host.stored, ["a1", "a2", "a3"]);
  });

  it("A message is given up if it was refused, and a later one of its topic taken", async () => {
    const host = new Host();
    const first = rejection(host.publish("a1"));
    const others = [host.publish("b1"), host.publish("a2"), host.publish("b2")];
    await rest();
    for (const step of ["refuse", "refuse", "take", "refuse"] as const) host.next(step);
    await host.takeAll();
    assert.match((await first).message, /refused the message, but taken a later one/);
    await Promise.all(others);
    assert.deepEqual(host.stored, ["a2", "b1", "b2"]);
  });

  it("A refused message waits until it is known what became of later ones", async () => {
    const host = new Host();
    const first = rejection(host.publish("a1"));
    const second = host.publish("a2");
    await rest();
    host.next("refuse");
    await rest();
    assert.equal(host.waiting, 1);
    // Nobody knows whether the second message has arrived.
    host.next("lose", 1);
    await host.takeAll();
    await first;
    await second;
    assert.deepEqual(host.stored, ["a2"]);
  });

  for (const step of ["ignore", "takeSilently"] as const) {
    const isLost = step === "ignore";
    const what = isLost ? "is given up if it was lost, and" : "is confirmed if it was stored, and";
    it(`A message without an answer ${what} a later one was taken`, async () => {
      const host = new Host();
      const published = Promise.allSettled(["a1", "a2"].map((text) => host.publish(text)));
      await rest();
      host.next(step);
      host.next("take");
      while (host.waiting === 0) await turn();
      // The second attempt may have no answer either.
      host.next("ignore");
      await host.takeAll();
      const statuses = (await published).map(({ status }) => status);
      assert.deepEqual(statuses, [isLost ? "rejected" : "fulfilled", "fulfilled"]);
      assert.deepEqual(host.stored, isLost ? ["a2"] : ["a1", "a2"]);
    });
  }

  it("Messages that were lost before are not taken for later ones", async () => {
    const host = new Host();
    const published = [host.publish("a1"), host.publish("a2")];
    await rest();
    host.next("lose");
    while (host.waiting < 2) await turn();
    host.next("refuse");
    host.next("refuse");
    await host.takeAll();
    await Promise.all(published);
    assert.deepEqual(host.stored, ["a1", "a2"]);
  });

  const step = fc.record({
    steps: fc.array(fc.constantFrom<Step>("take", "refuse", "lose", "takeSilently"), {
      maxLength: 4,
    }),
    topics: fc.array(fc.constantFrom("a", "b"), { maxLength: 3 }),
    arrived: fc.nat(3),
    turns: fc.nat(4),
  });
  it("Each topic keeps its order, whatever the engine does", () =>
    fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (schedule) => {
      const host = new Host();
      let count = 0;
      const taken = new Set<string>();
      const refused = new Set<string>();
      const published: Promise<unknown>[] = [];
      for (const { steps, topics, arrived, turns } of schedule) {
        for (const topic of topics) {
          const text = `${topic}${++count}`;
          published.push(
            host.publish(text).then(() => taken.add(text), () => refused.add(text)),
          );
        }
        for (let i = 0; i < turns; i++) await turn();
        for (const each of steps) if (host.waiting > 0) host.next(each, arrived);
      }
      await host.takeAll();
      await Promise.all(published);
      for (const topic of ["a", "b"]) {
        const numbers = host.stored.filter((text) => text.startsWith(topic)).map((text) =>
          Number(text.slice(1))
        );
        assert.deepEqual(numbers, numbers.toSorted((a, b) => a - b));
      }
      assert.equal(taken.size + refused.size, count);
      assert.ok([...taken].every((text) => host.stored.includes(text)));
      // A message that was given up may have been stored before.
      const isLost = schedule.some(({ steps }) =>
        steps.includes("lose") || steps.includes("takeSilently")
      );
      assert.ok(isLost || host.stored.length === taken.size);
    })));
});
