/**
 * Runs several contestants in turns, so that anything that slows the machine down affects all of them.
 */
import type { Clocks, Measured } from "./measured.ts";
import type { Figures, Run } from "./statistics.ts";

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
  figures: Figures;
  /** The share of the round in which each side computed. Over 1 with several threads. */
  measuredBusy: number;
  otherBusy: number;
  seconds: number;
}

/** The length of a contest. */
export interface ContestOptions {
  rounds: number;
  /** Seconds of CPU time per round. */
  seconds: number;
  /** Seconds of CPU time before the rounds that count. By default twice those of a round. */
  warmUp?: number;
  /** Number of messages of the first try, which determines the number per round. */
  first: number;
  /** Maximum number of messages per round. */
  most?: number;
  /** Number of messages per round, regardless of the time. */
  messages?: number;
  onRound?: (round: number, name: string, result: Round) => void;
}

/** Lets the contestants take turns. */
export async function contest(
  contestants: Contestant[],
  options: ContestOptions,
): Promise<Run> {
  const { rounds, onRound } = options;
  const run: Run = {};
  const shares = new Map<string, number>();
  try {
    for (const contestant of contestants) {
      run[contestant.name] = {};
      await contestant.open();
      shares.set(contestant.name, await prepare(contestant, options));
    }
    for (let round = 1; round <= rounds; round++) {
      for (const contestant of contestants) {
        const { name } = contestant;
        const result = await contestant.round(shares.get(name)!);
        for (const [figure, value] of Object.entries(result.figures)) {
          (run[name][figure] ??= []).push(value);
        }
        onRound?.(round, name, result);
      }
    }
  } finally {
    await Promise.all(contestants.map((contestant) => contestant.close()));
  }
  return run;
}

/** Warms a contestant up. Returns the number of messages per round. */
async function prepare(
  contestant: Contestant,
  { seconds, warmUp = 2 * seconds, first, most = Infinity, messages }: ContestOptions,
): Promise<number> {
  let rate = (await contestant.round(messages ?? first)).figures.rate;
  const share = (seconds: number) => messages ?? Math.min(Math.ceil(rate * seconds), most);
  // On Deno rounds became a third faster in the first second. Cold code makes the estimate too low.
  for (let left = warmUp; left > warmUp / 10;) {
    const count = share(left);
    rate = (await contestant.round(count)).figures.rate;
    left -= count / rate;
  }
  return share(seconds);
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
    figures: { rate: messages / measured },
    measuredBusy: measured / seconds,
    otherBusy: (after.own - before.own) / seconds,
    seconds,
  };
}
