/**
 * Builds the documentation: `deno task docs [build]` builds the site into site/, `deno task docs serve`
 * builds and shows it, and `deno task docs check` checks links, options, errors and the types of code blocks.
 */
import { cp, rm } from "node:fs/promises";
import config from "../deno.json" with { type: "json" };
import { checkBlocks } from "./docs/blocks.ts";
import { checkLinks } from "./docs/links.ts";
import { checkReference } from "./docs/reference.ts";
import { checkSite } from "./docs/site.ts";
import { knownNames, readArguments, UsageError, withoutSeparator } from "./arguments.ts";
import { ROOT, run } from "./process.ts";

const SITE = "site";
const API = ".cache/docs/api";
/** Pages that exist only while the site is built, with the text of each. */
const MADE: Record<string, () => Promise<string>> = {
  "docs/measurements.md": measurements,
  "docs/results.md": results,
};

async function build(): Promise<void> {
  const entries = Object.values(config.exports);
  await remove(API);
  await Deno.mkdir(new URL(".cache/docs/", ROOT), { recursive: true });
  await deno("doc", "-q", "--html", "--name=Sluice", `--output=${API}`, ...entries);
  await Deno.writeTextFile(new URL(".cache/docs/api.json", ROOT), JSON.stringify(await apiPages()));
  try {
    for (const [page, text] of Object.entries(MADE)) {
      await Deno.writeTextFile(new URL(page, ROOT), await text());
    }
    await deno("run", "-A", "npm:vitepress", "build", "docs");
  } finally {
    await Promise.all(Object.keys(MADE).map(remove));
  }
  await cp(new URL(API, ROOT), new URL(`${SITE}/api`, ROOT), { recursive: true });
  report(await checkSite(SITE));
  console.log(`Built into ${SITE}/`);
}

/** The pages of the API reference by symbol name. For a symbol of several entry points, the first one. */
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

/** Returns the page with the charts of `deno task bench render` and the tables of the README. */
async function measurements(): Promise<string> {
  const readme = (await Deno.readTextFile(new URL("README.md", ROOT)))
    .replaceAll(/\]\((?![a-z]+:)/g, "](../")
    .replaceAll(/<!--.*-->\n/g, "");
  const section = (heading: string) => {
    const [, text] = new RegExp(`^## ${heading}\n([^]*?)(?=^## |$(?![^]))`, "m").exec(readme) ?? [];
    if (text === undefined) throw new Error(`README.md has no section "${heading}"`);
    return text.trim();
  };
  return `# Measurements

[All results](results.md) have each figure with its range.
[How they are measured](../bench/NOTES.md) says what each one means.

## Speed

${section("How fast")}

## Memory

![Memory of idle and active connections on each runtime](../bench/results/memory.svg)

With its default options a server keeps a connection that waits for messages in this much memory.
\`pipeTo\` adds the two streams. The kernel's memory for each socket comes on top.

## Latency

![Latency of an echo on each runtime](../bench/results/latency.svg)

All servers of a runtime get the same rate of messages.

## Reliability

${section("How reliable")}
`;
}

/** Returns bench/RESULTS.md as a page of the site. */
async function results(): Promise<string> {
  const text = await Deno.readTextFile(new URL("bench/RESULTS.md", ROOT));
  return text.replace("# Results\n", "# All results\n")
    .replaceAll("](NOTES.md)", "](../bench/NOTES.md)")
    .replaceAll("](results/", "](../bench/results/");
}

async function remove(folder: string): Promise<void> {
  await rm(new URL(folder, ROOT), { recursive: true, force: true });
}

async function deno(...args: string[]): Promise<void> {
  const { code, output } = await run(Deno.execPath(), args, { env: { NO_COLOR: "1" } });
  if (code === 0) return;
  console.log(output);
  throw new Error(`deno ${args.join(" ")} failed with exit code ${code}`);
}

/** Serves the built site until it is interrupted. */
async function serve(): Promise<void> {
  await build();
  const args = ["run", "-A", "npm:vitepress", "preview", "docs", "--port", "4173"];
  await new Deno.Command(Deno.execPath(), { args, cwd: ROOT }).spawn().status;
}

/** Prints the problems of the pages, and fails if there are any. */
async function check(): Promise<void> {
  report([...await checkLinks(), ...await checkReference(), ...await checkBlocks()]);
}

function report(problems: string[]): void {
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
