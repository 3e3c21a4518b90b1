/** What the mutation task and its workers tell each other. */

/** Begins each line that a worker writes. */
export const MARK = "\u0001";

/** A test of a file. */
export interface TestName {
  file: string;
  name: string;
}

/** A test that is to run with a fault. */
export interface TestCall extends TestName {
  /** How many faults the test passes without a fault, counting each time. */
  passed: number;
}

/** What a test did without a fault. */
export interface TestReport extends TestCall {
  /** Milliseconds of the processor. Other programs make a test slower, but this time hardly longer. */
  milliseconds: number;
  failure: string | undefined;
  /** Numbers of the faults that the test reaches. */
  hits: number[];
}

/** What a worker is to do. */
export type Request =
  | { survey: readonly string[] }
  | { mutant: number; tests: readonly TestCall[] };

/**
 * What became of a fault: `at` is the index of the test that failed. A test that `hung` seems to wait for
 * nothing; one that is `slow` may need more time. `doubtful`: it failed, but not because of the fault alone.
 */
export type Verdict =
  | { state: "survived" }
  | { state: "killed" | "hung" | "slow" | "doubtful"; at: number; message: string };
