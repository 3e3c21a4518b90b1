/** A short round of `deno task simulate`, with some fixed seeds and some new ones in each run. */
import "../scripts/simulate/time.ts";
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { live } from "../scripts/simulate/life.ts";
import { simulate } from "../scripts/simulate/runs.ts";

const SEEDS = { fixed: 1, new: Number(process.env.FUZZ_SEED ?? Date.now() % 1e9) };
const RUNS = 20;

describe("Simulated networks", () => {
  for (const [title, seed] of Object.entries(SEEDS)) {
    it(`Simulations break no invariant, with a ${title} seed`, async () => {
      console.log(`deno task simulate --seed ${seed} --runs ${RUNS}`);
      const { failures, connections, ends } = await simulate({ seed, runs: RUNS });
      assert.equal(failures, 0, "the output has the seeds");
      assert.ok(connections > RUNS);
      // If all simulations ended in the same way, the test would show nothing.
      assert.ok(ends.size > 3, `${[...ends]}`);
    });
  }

  it("A simulation is the same each time", async () => {
    for (let seed = 100; seed < 110; seed++) {
      const [one, two, three] = [await live(seed, true), await live(seed, true), await live(seed)];
      assert.deepEqual(two.trace, one.trace);
      assert.equal(two.hash, one.hash);
      assert.equal(three.hash, one.hash, "the trace makes no difference");
    }
  });
});
