/**
 * Fails if the library has become much slower. It compares our server with ws on Node, in ratios, which a
 * busy machine hardly changes.
 */
import { hasCompiler } from "./burst_load.ts";
import { separateCores } from "./cores.ts";
import { measure } from "./measure.ts";
import { candidatesOf, findRuntimeByName } from "./options.ts";
import { ratioOf } from "./statistics.ts";
import { titleOf, type Workload } from "./workload.ts";

const OPTIONS = { rounds: 5, seconds: 0.25 };

interface Check {
  workload: Workload;
  /** The minimum ratio to ws, far below what a busy machine measures. bench/NOTES.md has these figures. */
  least: number;
}

const CHECKS: readonly Check[] = [
  { workload: { kind: "echo", type: "text", size: 16 }, least: 2 },
  { workload: { kind: "echo", type: "binary", size: 65536 }, least: 0.5 },
  { workload: { kind: "open", type: "text", size: 16 }, least: 0.25 },
  { workload: { kind: "fanout", type: "text", size: 64, inFlight: 10 }, least: 2 },
];

/** Runs a short contest for each check. */
export async function guard() {
  await separateCores();
  const runtime = await findRuntimeByName("node24");
  for (const { workload, least } of CHECKS) {
    if (workload.kind === "fanout" && !await hasCompiler()) {
      console.log(`skip   ${titleOf(workload)}: no C compiler`);
      continue;
    }
    const run = await measure(runtime, workload, candidatesOf(["loop", "ws"]), OPTIONS);
    const { median } = ratioOf([run], "loop", "ws")!;
    const isFast = median >= least;
    const what = `${titleOf(workload)}: ${median.toFixed(2)} times ws, at least ${least}`;
    console.log(`${isFast ? "ok    " : "FAILED"} ${what}`);
    if (!isFast) Deno.exitCode = 1;
  }
}
