/** Checks the npm package as a user gets it: `deno task check:npm`. */
import { takeNoArguments } from "./arguments.ts";
import { ROOT, runDevTool } from "./process.ts";
import { copyProgram, installTarball } from "./tarball.ts";

/**
 * Programs against the package, and which settings are theirs: one's entry point is for those who have
 * `node:http`, and that of another for bundlers for browsers.
 */
const PROGRAMS: Record<string, (setting: string) => boolean> = {
  "types_consumer.ts": () => true,
  "types_consumer_node.ts": (setting) => setting.includes("@types/node"),
  "types_consumer_browser.ts": (setting) => setting.includes("lib dom"),
};
/** A user's compiler options: the declarations must hold with each of them, lib check included. */
const TYPE_SETTINGS: Record<string, string[]> = {
  "@types/node alone": ["--lib", "es2022", "--types", "node"],
  "lib dom alone": ["--lib", "es2022,dom,dom.iterable,dom.asynciterable", "--types", ""],
  "lib dom and @types/node": [
    "--lib",
    "esnext,dom,dom.iterable,dom.asynciterable",
    "--types",
    "node",
  ],
};
const RESOLUTIONS = [
  ["--module", "esnext", "--moduleResolution", "bundler"],
  ["--module", "nodenext", "--moduleResolution", "nodenext"],
];
/** As a bundler for browsers resolves. */
const BROWSER = [["--customConditions", "browser", ...RESOLUTIONS[0]]];

await takeNoArguments("check:npm", Deno.args);
await using consumer = await installTarball();

await step("publint", () => runDevTool("publint", ["run", consumer.tarball.pathname, "--strict"]));
await step(
  "are the types wrong? (ESM only)",
  () => runDevTool("attw", [consumer.tarball.pathname, "--profile", "esm-only"]),
);
for (const [file, applies] of Object.entries(PROGRAMS)) {
  const program = await copyProgram(file, consumer);
  for (const [name, setting] of Object.entries(TYPE_SETTINGS)) {
    if (applies(name)) {
      await checkResolutions(program, `${file} with ${name}`, setting);
    }
  }
}

async function checkResolutions(program: string, title: string, setting: string[]) {
  for (const resolution of title.startsWith("types_consumer_browser") ? BROWSER : RESOLUTIONS) {
    await step(
      `${title}, ${resolution.at(-1)}`,
      () => checkTypes(program, [...setting, ...resolution]),
    );
  }
}

async function checkTypes(program: string, options: string[]) {
  const typeRoots = new URL("node_modules/@types", ROOT).pathname;
  const common = ["--noEmit", "--strict", "--skipLibCheck", "false", "--target", "es2022"];
  const args = [...common, "--typeRoots", typeRoots, ...options, program];
  await runDevTool("tsc", args, consumer.folder);
}

async function step(name: string, action: () => Promise<unknown>) {
  try {
    await action();
    console.log(`ok     ${name}`);
  } catch (error) {
    console.log(`FAILED ${name}\n${error instanceof Error ? error.message : error}`);
    Deno.exitCode = 1;
  }
}
