/** A short round of `deno task fuzz`, with a new seed for each run of the suite. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { Random } from "../scripts/fuzz/random.ts";
import { frameInput } from "../scripts/fuzz/frames.ts";
import { FuzzFailure, runTarget } from "../scripts/fuzz/target.ts";
import { TARGETS } from "../scripts/fuzz/targets.ts";
import { withoutLeak } from "./resources.ts";

// Each run tries a different seed. A failure reports the seed.
const seed = Number(process.env.FUZZ_SEED ?? Date.now() % 1e9);
const INPUTS = 250;

// The target "api" has its own test file.
const { api: _, ...others } = TARGETS;

describe("Fuzzing", () => {
  for (const [name, target] of Object.entries(others)) {
    it(`Fuzzing ${name}: ${target.what}`, async () => {
      await withoutLeak(async () => {
        const { inputs, outcomes } = await runTarget(name, target, { seed, inputs: INPUTS });
        assert.equal(inputs, INPUTS);
        // If all inputs had the same outcome, the test would show nothing.
        assert.ok(outcomes.size > 1, `${[...outcomes]}`);
      });
    });
  }

  it("Fuzzing gives the same inputs for the same seed", () => {
    for (let i = 0; i < 50; i++) {
      const [one, two, other] = [i, i, i + 1000].map((n) => frameInput(new Random(n), "server"));
      assert.deepEqual(one, two);
      assert.notDeepEqual(one, other);
    }
  });

  it("Fuzzing says with which seed a failure comes again", async () => {
    const target = {
      what: "fails now and then",
      inputs: 1000,
      run: (random: Random) => random.once(100) ? assert.fail("found") : "well",
    };
    const failing = async (seed: number, inputs: number) => {
      try {
        await runTarget("it", target, { seed, inputs });
      } catch (error) {
        assert.ok(error instanceof FuzzFailure);
        assert.match(
          error.message,
          new RegExp(`deno task fuzz it --seed ${error.seed} --inputs 1`),
        );
        assert.equal((error.cause as Error).message, "found");
        return error.seed;
      }
      return assert.fail("It did not fail");
    };
    const found = await failing(7, 1000);
    assert.equal(await failing(found, 1), found);
  });
});
