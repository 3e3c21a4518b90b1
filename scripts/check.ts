/** Checks formatting, lint, types and documentation: `deno task check`. Runs all checks before it fails. */
import config from "../deno.json" with { type: "json" };
import { takeNoArguments } from "./arguments.ts";
import { run } from "./process.ts";

const STEPS = [
  ["fmt", "--check"],
  ["lint"],
  ["check", "--doc"],
  // The links, the pages of options and errors, and the types of the code blocks.
  ["run", "-A", "scripts/docs.ts", "check"],
  // The speed that the README states is the measured one.
  ["run", "-A", "scripts/bench.ts", "render", "--check"],
  ["doc", "--lint", ...Object.values(config.exports)],
  // Types that JSR refuses, and files that are missing from the package.
  ["publish", "--dry-run", "--allow-dirty"],
];

await takeNoArguments("check", Deno.args);
for (const args of STEPS) {
  const { code, output } = await run(Deno.execPath(), args);
  console.log(`${code === 0 ? "ok    " : "FAILED"} deno ${args.join(" ")}`);
  if (code === 0) continue;
  console.log(output);
  Deno.exitCode = 1;
}
