/** Packs the npm package into a tarball and installs it, as a user does. */
import { buildNpm, NPM_DIR } from "./build_npm.ts";
import { ROOT } from "./process.ts";
import { runNpm } from "./runtimes.ts";

/** An installed tarball. Disposing of it removes the folder. */
export interface Consumer extends AsyncDisposable {
  /** A folder outside the repository with the package in its node_modules. */
  readonly folder: URL;
  /** The URL of the tarball. */
  readonly tarball: URL;
}

/** Builds and packs the package, and installs it into a new folder. */
export async function installTarball(): Promise<Consumer> {
  await buildNpm();
  const path = await Deno.makeTempDir({ prefix: "sluice-consumer-" });
  const folder = new URL(`file://${path}/`);
  await runNpm(["pack", "--ignore-scripts", "--pack-destination", path], NPM_DIR);
  const name = await tarballIn(folder);
  const manifest = { name: "consumer", version: "0.0.0", private: true, type: "module" };
  await Deno.writeTextFile(new URL("package.json", folder), JSON.stringify(manifest));
  const quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--offline"];
  await runNpm(["install", ...quiet, `./${name}`], folder);
  return {
    folder,
    tarball: new URL(name, folder),
    [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }),
  };
}

/**
 * Copies a program of this folder to the consumer's folder, where it imports the installed package. A
 * program for `ws` imports `sluice/ws` instead.
 */
export async function copyProgram(name: string, consumer: Consumer): Promise<string> {
  const copy = new URL(name, consumer.folder);
  const text = await Deno.readTextFile(new URL(`scripts/${name}`, ROOT));
  await Deno.writeTextFile(copy, text.replaceAll('from "ws"', 'from "sluice/ws"'));
  return copy.pathname;
}

async function tarballIn(folder: URL): Promise<string> {
  for await (const { name } of Deno.readDir(folder)) if (name.endsWith(".tgz")) return name;
  throw new Error(`npm pack made no tarball in ${folder.pathname}`);
}
