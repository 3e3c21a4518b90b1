/** Calculates figures from the rounds of several runs. */

/** What one round measured, for example `rate` or `p99`. */
export type Figures = Record<string, number>;

/** What one run measured, in fresh processes: by peer and figure, the value of each round. */
export type Run = Record<string, Record<string, number[]>>;

/** The median of several runs, and the lowest and the highest run. */
export interface Spread {
  median: number;
  least: number;
  most: number;
}

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The median of the ratios of neighbouring turns. */
export function ratio(values: number[], baseline: number[]): number {
  return median(values.map((value, round) => value / baseline[round]));
}

/** The figure of a peer in each run, which is the median of its rounds. */
export function figureOf(runs: Run[], peer: string, figure = "rate"): Spread | undefined {
  return spreadOf(runs.map((run) => run[peer]?.[figure]), median);
}

/** The ratio of two peers in each run. */
export function ratioOf(
  runs: Run[],
  peer: string,
  baseline: string,
  figure = "rate",
): Spread | undefined {
  return spreadOf(
    runs.map((run) => run[baseline]?.[figure] && run[peer]?.[figure] && [run[peer], run[baseline]]),
    ([values, others]) => ratio(values[figure], others[figure]),
  );
}

/** The spread of the runs that have a value. */
function spreadOf<T>(runs: (T | undefined)[], valueOf: (run: T) => number): Spread | undefined {
  const values = runs.filter((run) => run !== undefined).map((run) => valueOf(run as T));
  if (values.length === 0) return undefined;
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) };
}
