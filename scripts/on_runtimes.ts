/** Runs a program on several runtimes. Works only on Deno, which downloads the other runtimes. */
import { ROOT, run } from "./process.ts";
import { findRuntimes, SUITE_RUNTIMES } from "./runtimes.ts";

/** Maximum time of a program, in milliseconds. */
const DEADLINE = 6 * 60 * 60_000;

/**
 * Runs a program on each of the runtimes, and returns whether all runs succeeded.
 *
 * @param program Path of the program, relative to the repository.
 * @param names Names of the runtimes, as in `SUITE_RUNTIMES`.
 * @param args Arguments of the program.
 */
export async function runOnRuntimes(
  program: string,
  names: readonly string[],
  args: string[],
): Promise<boolean> {
  const runtimes = await findRuntimes(
    SUITE_RUNTIMES.filter(({ name }) => names.includes(name)),
    true,
  );
  let passed = true;
  for (const { name, engine, path } of runtimes) {
    console.log(`${name}:`);
    const flags = engine === "deno" ? ["run", "-A", "--no-check"] : [];
    const onOutput = (text: string) => console.log(text.trimEnd());
    const { code } = await run(path, [...flags, new URL(program, ROOT).pathname, ...args], {
      deadline: DEADLINE,
      env: { NO_COLOR: "1" },
      onOutput,
    });
    passed &&= code === 0;
  }
  return passed;
}
