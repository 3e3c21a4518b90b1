/**
 * Several who do the same work in turns, so that whatever slows the machine down meets all of them.
 */
import type { Clocks, Measured } from "./measured.ts";

/** What is compared. */
export interface Contestant {
  readonly name: string;
  /** Get ready, and check that the work is done right. */
  open(): Promise<void>;
  /** Do so much of it. */
  round(messages: number): Promise<Round>;
  close(): Promise<void>;
}

/** One round of one contestant. */
export interface Round {
  /** Messages per second of CPU time. */
  rate: number;
  /** How much of the round each side computed; over 1 with several threads. */
  measuredBusy: number;
  otherBusy: number;
  seconds: number;
  /** Microseconds that a message took, where one is in flight. */
  p50?: number;
  p99?: number;
}

/** How long it takes. */
export interface ContestOptions {
  rounds: number;
  /** Seconds of CPU time that a round is to take. */
  seconds: number;
  /** Messages of a first try, which shows how many a round is to have. */
  first: number;
  /** Messages of a round, whatever time they take. */
  messages?: number;
  onRound?: (round: number, name: string, result: Round) => void;
}

/** The rounds of each contestant, by its name. */
export type Results = Map<string, Round[]>;

/** Have all of them take turns. */
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
      // The second round is the one that makes it warm.
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

/** Time what a process does, and say it as a round. */
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
