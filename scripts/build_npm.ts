/** Builds the npm package into npm/: `deno task build:npm`. */
import { cp, glob } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { stop, transform } from "esbuild";
import config from "../deno.json" with { type: "json" };
import { takeNoArguments } from "./arguments.ts";
import { ROOT, runDevTool } from "./process.ts";

/** The folder in which the package is built. */
export const NPM_DIR: URL = new URL("npm/", ROOT);

const SOURCES = new URL("src/", NPM_DIR);
const COMPILED = new URL("dist/", NPM_DIR);
const REPOSITORY = "https://github.com/sluice-ws/sluice";
const DESCRIPTION =
  "WebSocket client and server on WHATWG Streams, with backpressure end to end, " +
  "for Deno, Bun and Node";
const COMMAND = "./lib/cli.ts";
const DOCUMENTS = ["README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE"];

/**
 * One step makes the JavaScript and the declarations. "lib" is what Node 20 supports, without "dom", so
 * that a newer built-in or a browser type in the sources fails here and not in a user's project.
 */
const COMPILER_OPTIONS = {
  target: "es2022",
  module: "esnext",
  moduleResolution: "bundler",
  lib: "es2023,esnext.disposable",
  types: "node",
  rewriteRelativeImportExtensions: true,
  isolatedDeclarations: true,
  erasableSyntaxOnly: true,
  verbatimModuleSyntax: true,
  strict: true,
  noUncheckedSideEffectImports: true,
  declaration: true,
  // The maps point to the sources in npm/src/, which are part of the package.
  inlineSourceMap: true,
  declarationMap: true,
} as const;

/** Builds the package from scratch. */
export async function buildNpm(): Promise<void> {
  await Deno.remove(NPM_DIR, { recursive: true }).catch(ignoreNotFound);
  await copySources();
  await compile();
  for (const name of DOCUMENTS) {
    await Deno.copyFile(new URL(name, ROOT), new URL(name, NPM_DIR)).catch(ignoreNotFound);
  }
  const manifest = JSON.stringify(packageJson(), null, 2);
  await Deno.writeTextFile(new URL("package.json", NPM_DIR), `${manifest}\n`);
}

async function copySources() {
  for (const path of ["mod.ts", "lib"]) {
    await cp(new URL(path, ROOT), new URL(path, SOURCES), { recursive: true });
  }
}

async function compile() {
  const flags = Object.entries(COMPILER_OPTIONS).flatMap(([name, value]) => [
    `--${name}`,
    String(value),
  ]);
  const folders = ["--rootDir", SOURCES.pathname, "--outDir", COMPILED.pathname];
  const entryPoints = [...Object.values(config.exports), COMMAND]
    .map((path) => new URL(path, SOURCES).pathname);
  await runDevTool("tsc", [...flags, ...folders, ...entryPoints]);
  const cwd = fileURLToPath(COMPILED);
  for await (const path of glob("**/*.js", { cwd })) await dropComments(new URL(path, COMPILED));
  await stop();
}

/** Drops the comments, which the declarations have too, and with them a quarter of the code in memory. */
async function dropComments(file: URL) {
  const name = file.pathname.split("/").at(-1)!;
  const compiled = await Deno.readTextFile(file);
  const { code, map } = await transform(compiled, {
    ...{ target: COMPILER_OPTIONS.target, sourcefile: name, sourcemap: "external" },
    legalComments: "none",
  });
  // `sources` is relative to the map, which is next to the file.
  await Deno.writeTextFile(file, `${code}//# sourceMappingURL=${name}.map\n`);
  await Deno.writeTextFile(new URL(`${name}.map`, file), map);
}

function packageJson() {
  return {
    name: "sluice",
    version: config.version,
    description: DESCRIPTION,
    keywords: [
      "websocket",
      "websockets",
      "websocketstream",
      "streams",
      "whatwg-streams",
      "backpressure",
      "rfc6455",
      "deno",
      "bun",
      "node",
    ],
    license: config.license,
    homepage: `${REPOSITORY}#readme`,
    repository: { type: "git", url: `git+${REPOSITORY}.git` },
    bugs: { url: `${REPOSITORY}/issues` },
    type: "module",
    sideEffects: [compiled(COMMAND, ".js")],
    bin: { sluice: compiled(COMMAND, ".js").slice("./".length) },
    engines: { node: ">=20" },
    exports: {
      ...Object.fromEntries(Object.entries(config.exports).map(exportsEntry)),
      "./package.json": "./package.json",
    },
    files: ["dist", "src", "CHANGELOG.md", "SECURITY.md"],
  };
}

function exportsEntry([subpath, source]: [string, string]) {
  const target = targetOf(source);
  if (subpath !== ".") return [subpath, target];
  // The first condition that matches is used: a bundler for Workers sets "browser" too.
  const runtimes = { deno: target, bun: target, workerd: target, node: target };
  const browser = targetOf(config.exports["./browser"]);
  return [subpath, { ...runtimes, "react-native": browser, browser, ...target }];
}

function targetOf(source: string) {
  return { types: compiled(source, ".d.ts"), default: compiled(source, ".js") };
}

function compiled(source: string, extension: string): string {
  return `./dist/${source.slice("./".length, -".ts".length)}${extension}`;
}

function ignoreNotFound(error: unknown) {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}

if (import.meta.main) {
  await takeNoArguments("build:npm", Deno.args);
  await buildNpm();
  console.log(`Built version ${config.version} in npm/`);
}
