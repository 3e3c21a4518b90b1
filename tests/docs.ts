/** Finds the pages of the documentation, and the code blocks in them. */
import { readdir } from "node:fs/promises";
import { readSource } from "./programs.ts";

/** A program that a page shows. */
export interface Block {
  /** The page, as a path from the root of the repository. */
  page: string;
  /** The line of the page where the block begins. */
  line: number;
  /** The language of the block. */
  language: "ts" | "js";
  /** The name in the block's first line, such as `// server.ts`; undefined if it has none. */
  name: string | undefined;
  /** The program: the code in the page, after the code that a "setup" comment before it adds. */
  program: string;
  /** "no-run" for a block that is only type-checked, and the names of the runtimes that the block is for. */
  attributes: string[];
  /** The output that the page shows. */
  output: string | undefined;
}

/** Blocks that run together: those between two headings of level 2. */
export interface Section {
  page: string;
  heading: string;
  blocks: Block[];
}

/** The pages of docs/ and the README, as paths from the root of the repository. */
export async function pages(): Promise<string[]> {
  const names = await readdir(new URL("../docs/", import.meta.url), { recursive: true });
  const markdown = names.map((name) => name.replaceAll("\\", "/")).filter((name) =>
    name.endsWith(".md") && !/^(\.vitepress|public)\//.test(name)
  );
  return ["README.md", ...markdown.sort().map((name) => `docs/${name}`)];
}

const PART =
  /^## (?<heading>.*)$|^<!-- setup\n(?<setup>[^]*?)^-->$|^```(?<info>\w+[^\n]*)\n(?<code>[^]*?)^```$/gm;

/** The blocks of a page, grouped by section. */
export async function sectionsOf(page: string): Promise<Section[]> {
  const text = await readSource(page);
  const sections: Section[] = [{ page, heading: "", blocks: [] }];
  let setup = "";
  for (const { index, groups } of text.matchAll(PART)) {
    const { heading, setup: before, info, code } = groups!;
    const section = sections.at(-1)!;
    if (heading !== undefined) sections.push({ page, heading, blocks: [] });
    else if (before !== undefined) setup = before;
    else {
      const [language, ...attributes] = info.split(/\s+/);
      const last = section.blocks.at(-1);
      if (language === "text" && last !== undefined) last.output = (last.output ?? "") + code;
      if (language !== "ts" && language !== "js") continue;
      section.blocks.push({
        page,
        line: text.slice(0, index).split("\n").length,
        language,
        name: /^\/\/ ([\w.-]+\.m?[jt]s)$/m.exec(code.split("\n")[0])?.[1],
        program: `${setup}${code}`,
        attributes,
        output: undefined,
      });
      setup = "";
    }
  }
  return sections.filter(({ blocks }) => blocks.length > 0);
}

/** Whether this runtime has explicit resource management. Node has it since version 24. */
const HAS_USING = (() => {
  try {
    new Function("return async () => { await using nothing = null; }");
    return true;
  } catch {
    return false;
  }
})();

/** Whether this runtime can read a program. */
export function canRead(program: string): boolean {
  return HAS_USING || !/^\s*(?:await )?using \w+ =/m.test(program);
}
