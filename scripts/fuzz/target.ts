/** Defines the targets of the fuzzer, and runs their inputs. */
import process from "node:process";
import { HandshakeError, RemoteProtocolError } from "../../lib/core/mod.ts";
import { Random } from "./random.ts";

/** Code that is tested with many inputs. */
export interface Target {
  /** A description of the tested code. */
  what: string;
  /** Default number of inputs. */
  inputs: number;
  /** Makes and runs an input, and returns the outcome in one word. Throws if the outcome is wrong. */
  run(random: Random): string | Promise<string>;
  /** Explains the input that has just failed: its operations, reduced to the necessary ones. */
  explain?(): Promise<string>;
  /** Runs before the first input. */
  begin?(): Promise<void>;
  /** Runs after the last one. */
  end?(): Promise<void>;
}

/** The limits of a run. */
export interface RunOptions {
  /** The seed of the first input. Each following input has the next number. */
  seed: number;
  /** Number of inputs. Default: the number of the target */
  inputs?: number;
  /** Maximum time, in seconds. Default: Infinity */
  seconds?: number;
}

/** The result of a run. */
export interface RunResult {
  /** Number of inputs that were run. */
  inputs: number;
  /** Time of the run, in seconds. */
  seconds: number;
  /** Number of inputs for each outcome. */
  outcomes: Map<string, number>;
}

/** Maximum time of an input, in milliseconds. */
const DEADLINE = 120_000;
// Keep these functions, because a target may replace the platform's timers.
const { setTimeout, clearTimeout } = globalThis;

/** An input with a wrong outcome. */
export class FuzzFailure extends Error {
  /** The seed that repeats only this input. */
  readonly seed: number;

  /** @param explanation Explanation of the failure by the target. */
  constructor(name: string, seed: number, cause: unknown, explanation = "") {
    const again = `deno task fuzz ${name} --seed ${seed} --inputs 1 --runtime ${runtimeName()}`;
    super(`${name} fails; again: ${again}${explanation && `\n${explanation}`}`, { cause });
    this.seed = seed;
  }
}

/** Runs the inputs of a target. */
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
      // Let timers and sockets run from time to time.
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

/** The name of this runtime for `--runtime`. */
function runtimeName(): string {
  const { bun, deno, node } = process.versions as Record<string, string | undefined>;
  return deno !== undefined ? "deno" : bun !== undefined ? "bun" : `node${node!.split(".")[0]}`;
}

/** Awaits a promise, and throws if it takes too long. */
export async function soon<T>(promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("A promise is still pending")), DEADLINE);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Returns the outcome for a documented error, and throws any other error again. */
export function outcomeOf(error: unknown, closeCodes: readonly number[]): string {
  if (error instanceof RemoteProtocolError && closeCodes.includes(error.closeCode)) {
    return String(error.closeCode);
  }
  if (error instanceof HandshakeError && CODES.has(error.code)) return error.code;
  throw error;
}

/** The error codes that a peer can cause in an opening handshake. */
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
