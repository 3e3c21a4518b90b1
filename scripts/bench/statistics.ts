/** Calculates figures from the rounds of a contest. */
import type { Results } from "./contest.ts";

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The median of the ratios of neighbouring turns. */
export function ratio(values: number[], baseline: number[]): number {
  return median(values.map((value, round) => value / baseline[round]));
}

/** One figure of each contestant, for every round. */
export function valuesOf(
  results: Results,
  figure: "rate" | "p50" | "p99",
): Record<string, number[]> {
  return Object.fromEntries(
    [...results].map(([name, rounds]) => [name, rounds.map((round) => round[figure]!)]),
  );
}
