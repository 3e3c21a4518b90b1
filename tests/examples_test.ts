import { describe } from "node:test";
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { canRead } from "./docs.ts";
import { it, notApplicable } from "./it.ts";
import { readSource, withPrograms } from "./programs.ts";
import { until } from "./support.ts";

/** The examples in the doc comments, by the file and line where they begin. */
async function examples(): Promise<Map<string, string>> {
  const names = await readdir(new URL("../lib/", import.meta.url), { recursive: true });
  const paths = names.filter((name) => name.endsWith(".ts")).map((name) => `lib/${name}`).sort();
  const found = new Map<string, string>();
  for (const path of ["mod.ts", ...paths]) {
    const text = await readSource(path);
    for (const { 0: block, index } of text.matchAll(/^ *\* ```ts\n[^]*?^ *\* ```$/gm)) {
      const line = text.slice(0, index).split("\n").length;
      const lines = block.split("\n").slice(1, -1).map((line) => line.replace(/^ *\* ?/, ""));
      found.set(`${path}:${line}`, lines.join("\n"));
    }
  }
  return found;
}

/** The words of a printed value, without the punctuation that differs between runtimes. */
function words(text: string): string[] {
  const decimal = text.replace(/\b0x[0-9a-f]+\b/g, (digits) => `${Number(digits)}`);
  return decimal.replace(/Uint8Array(\(\d+\))?/g, "").match(/\w+/g) ?? [];
}

/** The whole output, from the comments after console.log(); undefined if a call has no comment. */
function expectedOutput(program: string): string | undefined {
  const logged = program.split("\n").filter((line) => line.includes("console.log("));
  const comments = logged.map((line) => /\/\/ (.*)$/.exec(line)?.[1]);
  return comments.includes(undefined) ? undefined : comments.join("\n");
}

const found = await examples();

describe("The examples of the doc comments", () => {
  it("The examples are found", () => {
    assert.ok(found.size >= 10);
  });

  for (const [place, program] of found) {
    it(`The example at ${place} runs and prints its documented output`, {
      skip: canRead(program) ? undefined : notApplicable("Node 22 cannot read `using`"),
    }, async () => {
      await withPrograms(async (start) => {
        const child = await start("example.mts", program);
        let code: number | null | undefined;
        child.exited.then((exitCode) => code = exitCode);
        await until(() => code !== undefined);
        assert.equal(code, 0, child.stderr);
        const expected = expectedOutput(program);
        if (expected !== undefined) assert.deepEqual(words(child.stdout), words(expected));
      });
    });
  }
});
