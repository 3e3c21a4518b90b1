/** Fails if the library has become much slower. It checks ratios, which a busy machine hardly changes. */
import { separateCores } from "./cores.ts";
import { measure } from "./measure.ts";
import { candidatesOf, findRuntimeByName } from "./options.ts";
import { ratioOf } from "./statistics.ts";
import { titleOf, type Workload } from "./workload.ts";

const ROUNDS = 5;
const SECONDS = 0.3;

interface Check {
  workload: Workload;
  /** The minimum ratio to ws, which is far below the measured one. */
  least: number;
}

const CHECKS: readonly Check[] = [
  { workload: { kind: "echo", type: "text", size: 16 }, least: 2 },
];

/** Runs short contests of our server and ws. */
export async function guard() {
  await separateCores();
  const runtime = await findRuntimeByName("node24");
  for (const { workload, least } of CHECKS) {
    const options = { rounds: ROUNDS, seconds: SECONDS };
    const run = await measure(runtime, workload, candidatesOf(["loop", "ws"]), options);
    const { median } = ratioOf([run], "loop", "ws")!;
    const isFast = median >= least;
    const what = `${titleOf(workload)}: ${median.toFixed(2)} times ws, at least ${least}`;
    console.log(`${isFast ? "ok    " : "FAILED"} ${what}`);
    if (!isFast) Deno.exitCode = 1;
  }
}
