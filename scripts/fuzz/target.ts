/** What is fuzzed, and how inputs are run. */
import process from "node:process";
import { HandshakeError, RemoteProtocolError } from "../../lib/core/mod.ts";
import { Random } from "./random.ts";

/** Something that takes inputs. */
export interface Target {
  /** What is fuzzed. */
  what: string;
  /** How many inputs it gets where nothing is said. */
  inputs: number;
  /** Makes an input, has it taken, and says in a word what became of it. Throws what must not be. */
  run(random: Random): string | Promise<string>;
  /** Says more of the input that has just failed: what it does, and how little of it is enough. */
  explain?(): Promise<string>;
  /** Runs before the first input. */
  begin?(): Promise<void>;
  /** Runs after the last one. */
  end?(): Promise<void>;
}

/** How long a run is. */
export interface RunOptions {
  /** The seed of the first input. Each following input has the next number. */
  seed: number;
  /** How many inputs. Default: that of the target */
  inputs?: number;
  /** How long at most, in seconds. Default: as long as it takes */
  seconds?: number;
}

/** What came of a run. */
export interface RunResult {
  /** How many inputs were taken. */
  inputs: number;
  /** How long that took, in seconds. */
  seconds: number;
  /** How often each outcome came. */
  outcomes: Map<string, number>;
}

/** In milliseconds: longer than any input takes. */
const DEADLINE = 120_000;
// A target may replace the platform's time.
const { setTimeout, clearTimeout } = globalThis;

/** An input that did what must not be. */
export class FuzzFailure extends Error {
  /** The seed of the input alone. */
  readonly seed: number;

  /** @param explanation what the target says of it */
  constructor(name: string, seed: number, cause: unknown, explanation = "") {
    const again = `deno task fuzz ${name} --seed ${seed} --inputs 1 --runtime ${runtimeName()}`;
    super(`${name} fails; again: ${again}${explanation && `\n${explanation}`}`, { cause });
    this.seed = seed;
  }
}

/** Gives a target its inputs. */
export async function runTarget(
  name: string,
  target: Target,
  options: RunOptions,
): Promise<RunResult> {
  const { seed, inputs = target.inputs, seconds = Infinity } = options;
  const outcomes = new Map<string, number>();
  const started = performance.now();
  const elapsed = () => (performance.now() - started) / 1000;
  await target.begin?.();
  let count = 0;
  try {
    for (; count < inputs && elapsed() < seconds; count++) {
      const outcome = await runInput(name, target, seed + count);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      // Timers and sockets have their turn now and then.
      if (count % 1000 === 999) await new Promise((resolve) => setTimeout(resolve));
    }
  } finally {
    await target.end?.();
  }
  return { inputs: count, seconds: elapsed(), outcomes };
}

async function runInput(name: string, target: Target, seed: number): Promise<string> {
  try {
    const outcome = target.run(new Random(seed));
    return typeof outcome === "string" ? outcome : await soon(outcome);
  } catch (error) {
    throw new FuzzFailure(name, seed, error, await target.explain?.());
  }
}

/** The runtime that this is, by the name that `--runtime` knows it by. */
function runtimeName(): string {
  const { bun, deno, node } = process.versions as Record<string, string | undefined>;
  return deno !== undefined ? "deno" : bun !== undefined ? "bun" : `node${node!.split(".")[0]}`;
}

/** What a promise gives, which must not take for ever. */
export async function soon<T>(promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("Something is pending still")), DEADLINE);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The outcome that an error is; any but the documented ones is thrown on. */
export function outcomeOf(error: unknown, closeCodes: readonly number[]): string {
  if (error instanceof RemoteProtocolError && closeCodes.includes(error.closeCode)) {
    return String(error.closeCode);
  }
  if (error instanceof HandshakeError && CODES.has(error.code)) return error.code;
  throw error;
}

/** What a peer can cause in an opening handshake. */
const CODES: ReadonlySet<string> = new Set([
  "accept",
  "body",
  "connection-lost",
  "duplicate-parameter",
  "extension",
  "head-too-large",
  "host",
  "http-version",
  "key",
  "malformed-head",
  "malformed-header",
  "method",
  "not-upgrade",
  "origin",
  "parameter-name",
  "parameter-value",
  "status",
  "subprotocol",
  "target-too-long",
  "upgrade",
  "version",
]);
