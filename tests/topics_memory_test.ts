import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { MemoryEngine } from "../lib/topics/memory.ts";
import { bytesOf, CALL, contract } from "./topics/contract.ts";
import { inVirtualTime } from "./virtual_time.ts";

for (const history of [undefined, { size: 1000 }]) {
  const start = () => {
    const engine = new MemoryEngine(history);
    return { connect: () => engine.attach(), stop: () => {} };
  };
  const title = history === undefined ? "in memory" : "in memory with a history";
  contract(title, start, { history: history !== undefined, presence: true });
}

describe("The history in memory", () => {
  const fill = async (engine: MemoryEngine, topic: string, count: number, size = 1) => {
    const backplane = engine.attach();
    for (let i = 0; i < count; i++) await backplane.publish(topic, new Uint8Array(size), CALL);
    return backplane;
  };

  it("keeps the last messages of each topic", async () => {
    const engine = new MemoryEngine({ size: 3 });
    const { position: start } = engine.history!.read("a", undefined);
    const backplane = await fill(engine, "a", 3);
    assert.equal((await backplane.read!("a", start, CALL)).messages.length, 3);
    await fill(engine, "b", 5);
    assert.equal((await backplane.read!("a", start, CALL)).messages.length, 3);
    const first = engine.history!.read("a", start).messages[0].position!;
    await fill(engine, "a", 1);
    assert.equal((await backplane.read!("a", start, CALL)).recovered, false);
    assert.equal((await backplane.read!("a", first, CALL)).messages.length, 3);
  });

  it("forgets messages and topics after their time", () =>
    inVirtualTime(async (time) => {
      const engine = new MemoryEngine({ ttl: 1000 });
      const { position: start } = engine.history!.read("a", undefined);
      const backplane = await fill(engine, "a", 1);
      await time.advance(600);
      const second = await backplane.publish("a", bytesOf("x"), CALL);
      await time.advance(600);
      assert.equal(engine.history!.read("a", start).recovered, false);
      const { messages: [left] } = engine.history!.read("a", { ...second!, offset: 1 });
      assert.deepEqual(left.position, second);
      await time.advance(600);
      assert.deepEqual(engine.history!.read("a", second), {
        recovered: true,
        messages: [],
        position: second,
      });
      assert.equal(engine.history!.read("a", { ...second!, offset: 1 }).recovered, false);
    }));

  it("holds at most maxBytes, of the topics that were used last", async () => {
    const engine = new MemoryEngine({ maxBytes: 10 * 1256 });
    const { position: start } = engine.history!.read("a", undefined);
    await fill(engine, "a", 5, 1000);
    await fill(engine, "b", 5, 1000);
    assert.equal(engine.history!.read("a", start).messages.length, 5);
    await fill(engine, "c", 1, 1000);
    assert.equal(engine.history!.read("a", start).recovered, false);
    assert.equal(engine.history!.read("b", { ...start, offset: 5 }).messages.length, 5);
    await fill(engine, "d", 1, 100_000);
    assert.equal(engine.history!.read("b", { ...start, offset: 5 }).recovered, false);
  });
});
