/** Running the fuzzer on several runtimes. For Deno alone, which fetches the others. */
import { ROOT, run } from "../process.ts";
import { findRuntimes, SUITE_RUNTIMES } from "../runtimes.ts";

/** In milliseconds. */
const DEADLINE = 6 * 60 * 60_000;

/**
 * Runs `scripts/fuzz.ts` on each of these runtimes, and says whether all went well.
 *
 * @param names the runtimes, as `SUITE_RUNTIMES` names them
 * @param args the arguments of the program
 */
export async function fuzzOnRuntimes(names: readonly string[], args: string[]): Promise<boolean> {
  const all = SUITE_RUNTIMES.map(({ name }) => name);
  const unknown = names.filter((name) => !all.includes(name));
  if (unknown.length > 0) throw new RangeError(`Expected runtimes of ${all}; got ${unknown}`);
  const runtimes = await findRuntimes(
    SUITE_RUNTIMES.filter(({ name }) => names.includes(name)),
    true,
  );
  const program = new URL("scripts/fuzz.ts", ROOT).pathname;
  let passed = true;
  for (const { name, engine, path } of runtimes) {
    console.log(`${name}:`);
    const flags = engine === "deno" ? ["run", "-A", "--no-check"] : [];
    const onOutput = (text: string) => console.log(text.trimEnd());
    const { code } = await run(path, [...flags, program, ...args], {
      deadline: DEADLINE,
      env: { NO_COLOR: "1" },
      onOutput,
    });
    passed &&= code === 0;
  }
  return passed;
}
