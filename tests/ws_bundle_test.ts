/** The interface of `ws` costs nothing to those who do not import it. */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { it } from "node:test";
import config from "../deno.json" with { type: "json" };
import { weigh } from "../scripts/bench/bundle.ts";

const IS_WS = /lib\/ws[./]/;

/** Returns the modules in a bundle of entry points. */
async function modulesOf(paths: string[]): Promise<string[]> {
  const lines = paths.map((path, at) => `export * as entry${at} from "${path}";`);
  const { files } = await weigh({ code: lines.join("\n"), platform: "node" });
  return files;
}

it("sluice/ws: no other entry point contains a part of it", async () => {
  const { "./ws": ws, ...others } = config.exports;
  const files = await modulesOf(Object.values(others));
  assert.ok(files.length > 50);
  assert.deepEqual(files.filter((file) => IS_WS.test(file)), []);
  assert.ok((await modulesOf([ws])).some((file) => IS_WS.test(file)));
});

it("sluice/ws: no module imports node:http, for which Node would load its client for fetch()", async () => {
  const folder = new URL("../lib/ws/", import.meta.url);
  const names = (await readdir(folder)).filter((name) => name.endsWith(".ts"));
  assert.ok(names.length > 5);
  for (const name of names) {
    const source = await readFile(new URL(name, folder), "utf8");
    assert.doesNotMatch(source, /^import\s+(?!type\b)[^;]*"node:http";/m, name);
  }
});
