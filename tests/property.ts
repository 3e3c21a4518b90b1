/** Configures property tests (FC_SEED sets the seed of every run), and defines shared arbitraries. */
import process from "node:process";
import fc from "fast-check";

const { FC_SEED, FC_RUNS } = process.env;
fc.configureGlobal({
  ...(FC_SEED === undefined ? {} : { seed: Number(FC_SEED) }),
  ...(FC_RUNS === undefined ? {} : { numRuns: Number(FC_RUNS) }),
});

export { fc };

/** Offsets at which input may be cut. */
export function offsets(maxLength: number): fc.Arbitrary<number[]> {
  return fc.array(fc.nat(maxLength), { maxLength: 12 });
}

/** Text of any characters, including those outside of the basic plane. */
export const text: fc.Arbitrary<string> = fc.string({ unit: "binary", maxLength: 300 });

/** Bytes of a binary payload. */
export const binary: fc.Arbitrary<Uint8Array> = fc.uint8Array({ maxLength: 300 });
