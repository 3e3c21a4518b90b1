/**
 * Assigns cores: the measured process runs on the first core and the load on the others, so that neither
 * displaces the other. Without `taskset`, or with one core, the system decides.
 */
import { mustRun } from "../process.ts";

/** A program to run. */
export interface Program {
  command: string;
  args: string[];
  env?: Record<string, string>;
}

let measuredCore: number | undefined;

/** Keeps this process off the first core, and returns whether that is possible. */
export async function separateCores(): Promise<boolean> {
  try {
    const [first, ...others] = coresOf(await mustRun("taskset", ["-pc", String(Deno.pid)]));
    if (others.length === 0) return false;
    await mustRun("taskset", ["-apc", others.join(), String(Deno.pid)]);
    measuredCore = first;
    return true;
  } catch {
    // There is no `taskset` program.
    return false;
  }
}

/** Parses the allowed cores from a line like "pid 7's current affinity list: 0,2-5". */
function coresOf(line: string): number[] {
  return line.split(": ")[1].trim().split(",").flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** The same program, on the first core. */
export function pinned({ command, args }: Program): Program {
  if (measuredCore === undefined) return { command, args };
  return { command: "taskset", args: ["-c", String(measuredCore), command, ...args] };
}
