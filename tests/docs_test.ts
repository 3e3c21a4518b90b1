import { describe } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { type Block, canRead, pages, type Section, sectionsOf } from "./docs.ts";
import { it, notApplicable } from "./it.ts";
import { freePort } from "./ports.ts";
import { type Child, insideRepository, withPrograms } from "./programs.ts";

/** The ports in the pages. The tests replace them by free ones. */
const PORTS = /\b(?:8080|8081|8443)\b/g;

const RUNTIMES = ["deno", "bun", "node"] as const;
const RUNTIME = RUNTIMES.find((name) => process.versions[name] !== undefined)!;
const sections = (await Promise.all((await pages()).map(sectionsOf))).flat();

/** The words of a printed value, without the punctuation that differs between runtimes. */
function words(text: string): string[] {
  return text.replace(/Uint8Array(\(\d+\))?/g, "").match(/[\w.:/-]+/g) ?? [];
}

/** Whether this runtime runs the block. Some blocks are for one runtime only. */
function isForThisRuntime({ attributes }: Block): boolean {
  if (attributes.includes("no-run")) return false;
  const named = RUNTIMES.filter((name) => attributes.includes(name));
  return named.length === 0 || named.includes(RUNTIME);
}

async function runSection({ blocks }: Section): Promise<void> {
  const ports = new Map<string, string>();
  for (const { program } of blocks) {
    for (const [port] of program.matchAll(PORTS)) {
      if (!ports.has(port)) ports.set(port, String(await freePort()));
    }
  }
  const asShown = (text: string) => {
    for (const [shown, used] of ports) text = text.replaceAll(used, shown);
    return text;
  };
  await withPrograms(async (start) => {
    for (const block of blocks) {
      const { line, name = `line_${line}.m${block.language}`, output } = block;
      const program = block.program.replace(PORTS, (port) => ports.get(port)!);
      const child = await start(name, program);
      const isServer = await endsOrListens(child, `${block.page}:${line}`);
      if (output === undefined) continue;
      const expected = words(output);
      const printed = () => words(asShown(child.stdout));
      if (isServer) await until(() => printed().length >= expected.length);
      assert.deepEqual(printed(), expected, `the output of ${block.page}:${line}`);
    }
  }, await insideRepository());
}

/**
 * Waits until the condition is true, without keeping the machine busy. The limit counts checks and not time,
 * so that a pause of the machine is not a failure.
 */
async function until(condition: () => boolean): Promise<void> {
  for (let looks = 0; !condition(); looks++) {
    if (looks > 4000) throw new Error(`Expected within 4000 looks: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/**
 * Waits until a program ends without an error, or prints that it is listening. Returns whether it listens.
 */
async function endsOrListens(child: Child, place: string): Promise<boolean> {
  let code: number | null | undefined;
  child.exited.then((exitCode) => code = exitCode);
  await until(() => code !== undefined || /listening/i.test(child.stdout));
  if (code === undefined) return true;
  assert.equal(code, 0, `${place} ends with ${code}:\n${child.stdout}${child.stderr}`);
  return false;
}

describe("The programs of the documentation", () => {
  it("The pages are found", () => {
    assert.ok(new Set(sections.map(({ page }) => page)).size >= 3);
  });

  for (const { page, heading, blocks } of sections) {
    // A client needs the server before it, so a section that says `using` is left out as a whole.
    const isReadable = blocks.every(({ program }) => canRead(program));
    const here = isReadable ? blocks.filter(isForThisRuntime) : [];
    const skip = here.length === 0
      ? notApplicable("its programs are for another runtime")
      : undefined;
    it(`${page} ${heading || "(start)"}: the programs run and print what the page shows`, {
      skip,
    }, () => runSection({ page, heading, blocks: here }));
  }
});
