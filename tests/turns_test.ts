import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { SendTurns, type Turn } from "../lib/connection/turns.ts";

/** Notes what becomes of each message. */
class Log {
  readonly turns: SendTurns = new SendTurns();
  readonly lines: string[] = [];

  join(name: string, turn: Turn = "whole", signal?: AbortSignal, then?: () => void): void {
    const enter = () => {
      this.lines.push(`${name} has its turn`);
      then?.();
    };
    const fail = (error: unknown) => void this.lines.push(`${name} fails: ${error}`);
    this.turns.join({ turn, length: name.length, enter, fail }, signal);
  }

  get state(): unknown[] {
    const { turns: { holder, count, length } } = this;
    return [this.lines.splice(0).join(", "), holder, count, length];
  }
}

describe("SendTurns", () => {
  it("gives one turn at a time, in order, and counts what waits", () => {
    const log = new Log();
    assert.deepEqual([log.turns.encoding, log.turns.begun, log.turns.underway], [false, false, 0]);
    assert.deepEqual(log.state, ["", undefined, 0, 0]);
    log.join("a");
    assert.deepEqual(log.state, ["a has its turn", "whole", 0, 0]);
    log.join("bb", "items");
    log.join("ccc");
    assert.deepEqual(log.state, ["", "whole", 2, 5]);
    log.turns.underway = 10;
    log.turns.begun = true;
    assert.deepEqual(log.state, ["", "whole", 2, 15]);
    log.turns.underway = 0;
    log.turns.release();
    assert.equal(log.turns.begun, false);
    assert.deepEqual(log.state, ["bb has its turn", "items", 1, 3]);
    log.turns.release();
    assert.deepEqual(log.state, ["ccc has its turn", "whole", 0, 0]);
    log.turns.release();
    assert.deepEqual(log.state, ["", undefined, 0, 0]);
  });

  it("gives the next turn after one that ends at once, with a flat stack", () => {
    const log = new Log();
    const depths: number[] = [];
    let depth = 0;
    log.join("first");
    for (let i = 0; i < 3; i++) {
      log.join("x", "whole", undefined, () => {
        depths.push(++depth);
        log.turns.release();
        depth--;
      });
    }
    log.turns.release();
    assert.deepEqual(depths, [1, 1, 1]);
    assert.deepEqual(log.turns.holder, undefined);
  });

  it("gives turns again after a round of them", async () => {
    const { turns } = new Log();
    for (let i = 0; i < 3; i++) {
      await turns.acquire("items");
      assert.equal(turns.holder, "items");
      const next = turns.acquire("whole");
      assert.deepEqual([turns.count, turns.length], [1, 0]);
      turns.release();
      await next;
      turns.release();
    }
  });

  it("leaves a message out when its signal is aborted", () => {
    const log = new Log();
    const { signal, abort } = abortable();
    log.join("a");
    log.join("bb", "whole", signal);
    log.join("ccc");
    abort("late");
    assert.deepEqual(log.state, ["a has its turn, bb fails: late", "whole", 1, 3]);
    log.turns.release();
    assert.deepEqual(log.state, ["ccc has its turn", "whole", 0, 0]);
    log.join("d", "whole", signal);
    assert.deepEqual(log.state, ["d fails: late", "whole", 0, 0]);
  });

  it("does not fail a message that has had its turn when its signal is aborted", () => {
    const log = new Log();
    const { signal, abort } = abortable();
    log.join("a", "whole", signal);
    abort("late");
    assert.deepEqual(log.state, ["a has its turn", "whole", 0, 0]);
  });

  it("fails what waits, or what waits for one kind of turn", () => {
    const log = new Log();
    for (
      const [name, turn] of [["a", "whole"], ["bb", "whole"], ["ccc", "items"], [
        "d",
        "whole",
      ]] as const
    ) {
      log.join(name, turn);
    }
    log.turns.fail("gone", "items");
    assert.deepEqual(log.state, ["a has its turn, ccc fails: gone", "whole", 2, 3]);
    log.turns.fail("gone");
    assert.deepEqual(log.state, ["bb fails: gone, d fails: gone", "whole", 0, 0]);
  });
});

function abortable(): { signal: AbortSignal; abort: (reason: string) => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: (reason) => controller.abort(reason) };
}
