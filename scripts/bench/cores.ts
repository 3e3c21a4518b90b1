/**
 * Who computes where: what is measured on the first core, the load on the others, so that neither
 * pushes the other one off its core. Without `taskset`, or with one core, the system decides.
 */
import { mustRun } from "../process.ts";
import type { Program } from "./measured.ts";

let separate = false;

/** Keep this process off the first core; says whether that is possible. */
export async function separateCores(): Promise<boolean> {
  const cores = navigator.hardwareConcurrency;
  if (cores < 2) return false;
  try {
    await mustRun("taskset", ["-apc", `1-${cores - 1}`, String(Deno.pid)]);
    separate = true;
  } catch {
    // No such program, or no such core.
  }
  return separate;
}

/** The same program, on the first core. */
export function pinned({ command, args }: Program): Program {
  return separate ? { command: "taskset", args: ["-c", "0", command, ...args] } : { command, args };
}
