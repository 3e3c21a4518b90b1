/** What the library weighs in an application: bundled, minified, compressed. */
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build, type Plugin, stop } from "esbuild";
import { ROOT } from "../process.ts";

/** Bytes. */
export interface Size {
  minified: number;
  gzipped: number;
}

const ENTRIES: Record<string, { code: string; platform: "browser" | "node" }> = {
  "sluice, connect() in browsers": {
    code: `export { connect } from "./lib/browser.ts"`,
    platform: "browser",
  },
  "sluice, connect()": { code: `export { connect } from "./mod.ts"`, platform: "node" },
  "sluice, everything": { code: `export * from "./mod.ts"`, platform: "node" },
  "ws, its client": { code: `export { WebSocket } from "ws"`, platform: "node" },
  "ws, everything": { code: `export * from "ws"`, platform: "node" },
  "undici, its client": { code: `export { WebSocket } from "undici"`, platform: "node" },
};

/** As the package.json of the npm package has it: a module that nothing is taken from is left out. */
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

/** The size of each entry, with what it loads only when it is needed. */
export async function bundleSizes(): Promise<Record<string, Size>> {
  const sizes: Record<string, Size> = {};
  for (const [name, { code, platform }] of Object.entries(ENTRIES)) {
    const { outputFiles } = await build({
      stdin: { contents: code, resolveDir: fileURLToPath(ROOT), loader: "ts" },
      bundle: true,
      minify: true,
      splitting: true,
      write: false,
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
    sizes[name] = {
      minified: sum(({ length }) => length),
      gzipped: sum((bytes) => gzipSync(bytes, { level: 9 }).length),
    };
  }
  await stop();
  return sizes;
}
