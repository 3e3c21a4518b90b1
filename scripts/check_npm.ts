/** Checks the npm package as a user installs it: `deno task check:npm`. */
import { takeNoArguments } from "./arguments.ts";
import config from "../deno.json" with { type: "json" };
import { PAGE_LIMIT, weigh } from "./bench/bundle.ts";
import { mustRun, ROOT, runDevTool } from "./process.ts";
import { copyProgram, installTarball } from "./tarball.ts";

/** Programs that use the package, and the settings that each is compiled with. */
const PROGRAMS: Record<string, (setting: string) => boolean> = {
  "types_consumer.ts": () => true,
  // The entry points that this program uses need `node:http`.
  "types_consumer_node.ts": (setting) => setting.includes("@types/node"),
  // `deno check` compiles this program with the types of @types/ws.
  "types_consumer_ws.ts": (setting) => setting.includes("@types/node"),
  "types_consumer_browser.ts": (setting) => setting.includes("lib dom"),
};

interface Compiler {
  /** The npm specifier of the compiler. */
  spec: string;
  /** The folder of the `@types/node` to compile with. */
  types: string;
  /** The libraries that contain "dom". */
  dom: string;
}

/** The newest compiler, and the oldest supported one with a version of `@types/node` that it can read. */
const COMPILERS: Compiler[] = [
  { spec: config.imports.typescript, types: "@types", dom: "dom,dom.iterable,dom.asynciterable" },
  {
    spec: config.imports["typescript-5.2"],
    types: `${folderOf(config.imports["@types/node-20"])}/node_modules/@types`,
    dom: "dom,dom.iterable",
  },
];
/** The libraries that a user may set. The declarations must be valid with each of them. */
const TYPE_SETTINGS: Record<string, (compiler: Compiler) => string[]> = {
  "@types/node alone": () => ["--lib", "es2022", "--types", "node"],
  "lib dom alone": ({ dom }) => ["--lib", `es2022,${dom}`, "--typeRoots", "none"],
  "lib dom and @types/node": ({ dom }) => ["--lib", `esnext,${dom}`, "--types", "node"],
};
/** The strictest options that a user may set. They check the declarations too. */
const STRICTEST = [
  ...["--noEmit", "--target", "es2022", "--strict", "--exactOptionalPropertyTypes"],
  ...["--noUncheckedIndexedAccess", "--noPropertyAccessFromIndexSignature"],
  ...["--skipLibCheck", "false"],
];
const RESOLUTIONS = [
  ["--module", "esnext", "--moduleResolution", "bundler"],
  ["--module", "nodenext", "--moduleResolution", "nodenext"],
];
/** Options that resolve modules as a bundler for browsers does. */
const BROWSER = [["--customConditions", "browser", ...RESOLUTIONS[0]]];

await takeNoArguments("check:npm", Deno.args);
await using consumer = await installTarball();

await step("publint", () => runDevTool("publint", ["run", consumer.tarball.pathname, "--strict"]));
await step(
  "are the types wrong? (ESM only)",
  () => runDevTool("attw", [consumer.tarball.pathname, "--profile", "esm-only"]),
);
await step("the bundle of a page is small", checkPage);
for (const [file, applies] of Object.entries(PROGRAMS)) {
  const program = await copyProgram(file, consumer);
  const resolutions = file === "types_consumer_browser.ts" ? BROWSER : RESOLUTIONS;
  for (const [name, settings] of Object.entries(TYPE_SETTINGS)) {
    if (!applies(name)) continue;
    for (const compiler of COMPILERS) {
      for (const resolution of resolutions) {
        const version = compiler.spec.slice("npm:".length);
        await step(
          `${file} with ${version}, ${name}, ${resolution.at(-1)}`,
          () => checkTypes(compiler, program, [...settings(compiler), ...resolution]),
        );
      }
    }
  }
}

/** The compiled classes are not the sources: a bundler must be able to leave them out, too. */
async function checkPage() {
  const code = 'export { connect, reconnect } from "sluice"';
  const { gzipped } = await weigh({ code, platform: "browser" }, consumer.folder);
  if (gzipped > PAGE_LIMIT) throw new Error(`${gzipped} bytes, more than ${PAGE_LIMIT}`);
}

async function checkTypes({ spec, types }: Compiler, program: string, options: string[]) {
  const typeRoots = new URL(`node_modules/${types}`, ROOT).pathname;
  const tsc = ["run", "-A", "--config", new URL("deno.json", ROOT).pathname, `${spec}/tsc`];
  const args = [...STRICTEST, "--typeRoots", typeRoots, ...options, program];
  await mustRun(Deno.execPath(), [...tsc, ...args], { cwd: consumer.folder });
}

/** The folder of a package whose version differs from the one in `node_modules/`. */
function folderOf(spec: string): string {
  return `.deno/${spec.slice("npm:".length).replace("/", "+")}`;
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
