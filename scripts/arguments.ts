/** Reads the arguments of the tasks. A wrong argument prints the usage and exits with code 2. */
import process from "node:process";

/** The names of the runtimes on the command line, in the order of the suite. */
export const RUNTIME_NAMES = ["deno", "bun", "node22", "node24", "node26"] as const;

/** An argument that is not valid. */
export class UsageError extends Error {}

/**
 * Reads the arguments of a task. `--help` prints the usage and exits with code 0. If `read` throws
 * because of an argument, the process prints the reason and the usage, and exits with code 2.
 *
 * @param usage The arguments that may be given.
 * @param read Reads the arguments.
 */
export async function readArguments<T>(usage: string, read: () => T | Promise<T>): Promise<T> {
  if (process.argv.slice(2).some((arg) => arg === "--help" || arg === "-h")) {
    console.log(`Usage: ${usage}`);
    process.exit(0);
  }
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof UsageError) && !isParseError(error)) throw error;
    // parseArgs() adds advice that does not help here.
    const [message] = (error as Error).message.split(". ");
    console.error(`${message}\nUsage: ${usage}`);
    process.exit(2);
  }
}

/** Whether `parseArgs()` of node:util threw the error. */
function isParseError(error: unknown): boolean {
  return /^ERR_PARSE_ARGS_/.test((error as { code?: string }).code ?? "");
}

/** The arguments without the "--" that `deno task` passes on. */
export function withoutSeparator(args: readonly string[]): string[] {
  return args.filter((arg) => arg !== "--");
}

/** Refuses any argument, for a task that takes none. */
export function takeNoArguments(name: string, args: readonly string[]): Promise<void> {
  return readArguments(`deno task ${name}`, () => {
    const [first] = withoutSeparator(args);
    if (first !== undefined) throw new UsageError(`Unexpected argument: ${first}`);
  });
}

/** Returns the names, each of which must be known, or all known names if there are none. */
export function knownNames(
  what: string,
  names: readonly string[],
  known: readonly string[],
): readonly string[] {
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    throw new UsageError(
      `Unknown ${what}: ${unknown.join(", ")} (known: ${known.join(", ")})`,
    );
  }
  return names.length > 0 ? names : known;
}

/** Returns the whole number given for an option, if any. */
export function wholeNumber(
  option: string,
  text: string | undefined,
  least: number,
): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= least) return value;
  throw new UsageError(`Expected ${option} to be a whole number of at least ${least}, got ${text}`);
}

/** Returns the number above 0 given for an option, if any. */
export function positiveNumber(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (value > 0 && value < Infinity) return value;
  throw new UsageError(`Expected ${option} to be a number above 0, got ${text}`);
}
