/** Fails if the library has become much slower. It checks a ratio, which a busy machine hardly changes. */
import { contest } from "./contest.ts";
import { separateCores } from "./cores.ts";
import { candidatesOf, findRuntimeByName } from "./options.ts";
import { ratio, valuesOf } from "./statistics.ts";
import { FIRST } from "./suite.ts";
import { contestantOf, firstTry, type Workload } from "./workload.ts";

/** The minimum ratio, which is far below the measured one. */
const LEAST = 2;
const WORKLOAD: Workload = { kind: "echo", type: "text", size: 16 };
const ROUNDS = 5;
const SECONDS = 0.3;

/** Runs a short contest of our server and ws. */
export async function guard() {
  await separateCores();
  const runtime = await findRuntimeByName(FIRST);
  const contestants = candidatesOf(["loop", "ws"]).map((candidate) =>
    contestantOf(WORKLOAD, runtime, candidate)
  );
  const first = firstTry(WORKLOAD);
  const results = await contest(contestants, { rounds: ROUNDS, seconds: SECONDS, first });
  const { loop, ws } = valuesOf(results, "rate");
  const measured = ratio(loop, ws);
  const what = `${measured.toFixed(2)} times the messages of ws per CPU second, ${FIRST}, 16 bytes`;
  if (measured >= LEAST) return console.log(`ok     ${what}`);
  console.log(`FAILED ${what}: expected at least ${LEAST}`);
  Deno.exitCode = 1;
}
