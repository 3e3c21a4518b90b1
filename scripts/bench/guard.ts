/** Fails where the library has become much slower: a ratio, which a busy machine hardly changes. */
import { contest } from "./contest.ts";
import { separateCores } from "./cores.ts";
import { candidatesOf, findRuntimeByName } from "./options.ts";
import { ratio, valuesOf } from "./statistics.ts";
import { FIRST } from "./suite.ts";
import { contestantOf, firstTry, type Workload } from "./workload.ts";

/** What must hold, far below what is measured. */
const LEAST = 2;
const WORKLOAD: Workload = { kind: "echo", type: "text", size: 16 };
const ROUNDS = 5;
const SECONDS = 0.3;

/** A short round of our server and of ws. */
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
