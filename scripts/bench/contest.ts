/**
 * Runs several contestants in turns, so that anything that slows the machine down affects all of them.
 */
import type { Clocks, Measured } from "./measured.ts";

/** A candidate that is compared with the others. */
export interface Contestant {
  readonly name: string;
  /** Prepares the contestant, and verifies its work. */
  open(): Promise<void>;
  /** Handles this number of messages. */
  round(messages: number): Promise<Round>;
  close(): Promise<void>;
}

/** One round of one contestant. */
export interface Round {
  /** Messages per second of CPU time. */
  rate: number;
  /** The share of the round in which each side computed. Over 1 with several threads. */
  measuredBusy: number;
  otherBusy: number;
  seconds: number;
  /** Microseconds per message, if only one is in flight. */
  p50?: number;
  p99?: number;
}

/** The length of a contest. */
export interface ContestOptions {
  rounds: number;
  /** Seconds of CPU time per round. */
  seconds: number;
  /** Number of messages of the first try, which determines the number per round. */
  first: number;
  /** Number of messages per round, regardless of the time. */
  messages?: number;
  onRound?: (round: number, name: string, result: Round) => void;
}

/** The rounds of each contestant, by name. */
export type Results = Map<string, Round[]>;

/** Lets the contestants take turns. */
export async function contest(
  contestants: Contestant[],
  { rounds, seconds, first, messages, onRound }: ContestOptions,
): Promise<Results> {
  const results: Results = new Map(contestants.map(({ name }) => [name, []]));
  const shares = new Map<string, number>();
  try {
    for (const contestant of contestants) {
      await contestant.open();
      let share = messages ?? first;
      // The second round completes the warm-up.
      for (const part of [0.5, 1]) {
        const { rate } = await contestant.round(share);
        share = messages ?? Math.ceil(rate * seconds * part);
      }
      shares.set(contestant.name, share);
    }
    for (let round = 1; round <= rounds; round++) {
      for (const contestant of contestants) {
        const result = await contestant.round(shares.get(contestant.name)!);
        results.get(contestant.name)!.push(result);
        onRound?.(round, contestant.name, result);
      }
    }
  } finally {
    await Promise.all(contestants.map((contestant) => contestant.close()));
  }
  return results;
}

/** Measures the work of a process, and returns it as a round. */
export async function timed(measured: Measured, work: () => Promise<number>): Promise<Round> {
  const before = await measured.clocks();
  const messages = await work();
  return roundOf(messages, before, await measured.clocks());
}

function roundOf(messages: number, before: Clocks, after: Clocks): Round {
  const seconds = after.time - before.time;
  const measured = after.measured - before.measured;
  return {
    rate: messages / measured,
    measuredBusy: measured / seconds,
    otherBusy: (after.own - before.own) / seconds,
    seconds,
  };
}
