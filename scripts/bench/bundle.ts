/** Measures the size of the library in an application: bundled, minified, compressed. */
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build, type Plugin, stop } from "esbuild";

const ROOT = new URL("../../", import.meta.url);

/** The sizes in bytes. */
export interface Size {
  minified: number;
  gzipped: number;
}

interface Entry {
  code: string;
  platform: "browser" | "node";
}

/** Maximum size of a bundle of {@linkcode PAGE}, gzipped. */
export const PAGE_LIMIT = 8192;

/** The names that a page needs to connect and to reconnect. */
export const PAGE: Entry = {
  code: `export { connect, reconnect } from "./lib/browser.ts"`,
  platform: "browser",
};

const ENTRIES: Record<string, Entry> = {
  "sluice, connect() and reconnect() in browsers": PAGE,
  "sluice, everything in browsers": {
    code: `export * from "./lib/browser.ts"`,
    platform: "browser",
  },
  "sluice, connect()": { code: `export { connect } from "./mod.ts"`, platform: "node" },
  "sluice, everything": { code: `export * from "./mod.ts"`, platform: "node" },
  "ws, its client": { code: `export { WebSocket } from "ws"`, platform: "node" },
  "ws, everything": { code: `export * from "ws"`, platform: "node" },
  "undici, its client": { code: `export { WebSocket } from "undici"`, platform: "node" },
};

/** As the package.json of the npm package states: a bundler may leave out unused modules. */
const withoutSideEffects: Plugin = {
  name: "without side effects",
  setup({ onResolve, resolve }) {
    onResolve({ filter: /^\./ }, async ({ path, ...options }) => {
      if (options.pluginData === "resolved" || options.importer.includes("node_modules")) return;
      const result = await resolve(path, { ...options, pluginData: "resolved" });
      return { ...result, sideEffects: false };
    });
  },
};

/**
 * The size of an entry with the modules that it loads on demand, and the files in it.
 * @param folder The folder that the entry imports from.
 */
export async function weigh(
  { code, platform }: Entry,
  folder: URL = ROOT,
): Promise<Size & { files: string[] }> {
  const { outputFiles, metafile } = await build({
    stdin: { contents: code, resolveDir: fileURLToPath(folder), loader: "ts" },
    absWorkingDir: fileURLToPath(folder),
    bundle: true,
    minify: true,
    splitting: true,
    write: false,
    metafile: true,
    outdir: "bundle",
    format: "esm",
    target: "es2022",
    platform,
    external: ["bufferutil", "utf-8-validate"],
    plugins: [withoutSideEffects],
    logLevel: "error",
  });
  const sum = (sizeOf: (bytes: Uint8Array) => number) =>
    outputFiles.reduce((total, { contents }) => total + sizeOf(contents), 0);
  const files = Object.values(metafile.outputs).flatMap(({ inputs }) =>
    Object.entries(inputs).filter(([, { bytesInOutput }]) => bytesInOutput > 0)
  ).map(([file]) => file);
  await stop();
  return {
    minified: sum(({ length }) => length),
    gzipped: sum((bytes) => gzipSync(bytes, { level: 9 }).length),
    files,
  };
}

/** The size of each entry. */
export async function bundleSizes(): Promise<Record<string, Size>> {
  const sizes: Record<string, Size> = {};
  for (const [name, entry] of Object.entries(ENTRIES)) {
    const { minified, gzipped } = await weigh(entry);
    sizes[name] = { minified, gzipped };
  }
  return sizes;
}
