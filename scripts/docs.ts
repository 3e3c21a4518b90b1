/**
 * The documentation: `deno task docs [build]` builds the site into site/, `deno task docs serve` builds
 * and shows it, and `deno task docs check` checks links, options, errors and the types of code blocks.
 */
import { cp, rm } from "node:fs/promises";
import config from "../deno.json" with { type: "json" };
import { checkBlocks } from "./docs/blocks.ts";
import { checkLinks } from "./docs/links.ts";
import { checkReference } from "./docs/reference.ts";
import { knownNames, readArguments, UsageError, withoutSeparator } from "./arguments.ts";
import { ROOT, run } from "./process.ts";

const SITE = "site";
const API = ".cache/docs/api";
/** Is there while the site is built: elsewhere the page is bench/RESULTS.md. */
const MEASUREMENTS = new URL("docs/measurements.md", ROOT);

async function build(): Promise<void> {
  const entries = Object.values(config.exports);
  await remove(API);
  await Deno.mkdir(new URL(".cache/docs/", ROOT), { recursive: true });
  await deno("doc", "-q", "--html", "--name=Sluice", `--output=${API}`, ...entries);
  await Deno.writeTextFile(new URL(".cache/docs/api.json", ROOT), JSON.stringify(await apiPages()));
  await Deno.writeTextFile(MEASUREMENTS, await measurements());
  try {
    await deno("run", "-A", "npm:vitepress", "build", "docs");
  } finally {
    await Deno.remove(MEASUREMENTS);
  }
  await cp(new URL(API, ROOT), new URL(`${SITE}/api`, ROOT), { recursive: true });
  console.log(`Built into ${SITE}/`);
}

/** The pages of the API reference by the names of the symbols; of several, that of the first entry point. */
async function apiPages(): Promise<Record<string, string>> {
  const pages: Record<string, string> = {};
  for (const entry of ["", ...Object.keys(config.exports).map((name) => name.slice(2))]) {
    const folder = `${entry}${entry && "/"}~`;
    for await (const { name } of Deno.readDir(new URL(`${API}/${folder}`, ROOT))) {
      const [, symbol] = /^(\w+)\.html$/.exec(name) ?? [];
      if (symbol !== undefined) pages[symbol] ??= `${folder}/${name}`;
    }
  }
  return pages;
}

/** bench/RESULTS.md as a page of the site, with the chart. */
async function measurements(): Promise<string> {
  const results = await Deno.readTextFile(new URL("bench/RESULTS.md", ROOT));
  const chart = "![Echo servers beside a raw TCP echo](../bench/results/echo.svg)";
  return results.replace("# Results\n", `# Measurements\n\n${chart}\n`)
    .replaceAll("](NOTES.md)", "](../bench/NOTES.md)");
}

async function remove(folder: string): Promise<void> {
  await rm(new URL(folder, ROOT), { recursive: true, force: true });
}

async function deno(...args: string[]): Promise<void> {
  const { code, output } = await run(Deno.execPath(), args, { env: { NO_COLOR: "1" } });
  if (code === 0) return;
  console.log(output);
  throw new Error(`deno ${args.join(" ")} ends with ${code}`);
}

/** Shows the built site until it is interrupted. */
async function serve(): Promise<void> {
  await build();
  const args = ["run", "-A", "npm:vitepress", "preview", "docs", "--port", "4173"];
  await new Deno.Command(Deno.execPath(), { args, cwd: ROOT }).spawn().status;
}

/** Prints what is wrong with the pages, and fails if anything is. */
async function check(): Promise<void> {
  const problems = [...await checkLinks(), ...await checkReference(), ...await checkBlocks()];
  for (const problem of problems) console.log(problem);
  if (problems.length > 0) Deno.exitCode = 1;
}

const COMMANDS: Record<string, () => Promise<void>> = { build, serve, check };

const command = await readArguments("deno task docs [build|serve|check]", () => {
  const [name, ...rest] = withoutSeparator(Deno.args);
  if (rest.length > 0) throw new UsageError(`Unexpected argument: ${rest[0]}`);
  return knownNames("command", name === undefined ? ["build"] : [name], Object.keys(COMMANDS))[0];
});
await COMMANDS[command]();
