/** The types of the code blocks in the pages. */
import { type Block, pages, sectionsOf } from "../../tests/docs.ts";
import { ROOT, run } from "../process.ts";

/** Checks the types of every TypeScript block, and names the page and line of what is wrong. */
export async function checkBlocks(): Promise<string[]> {
  const sections = (await Promise.all((await pages()).map(sectionsOf))).flat();
  const blocks = sections.flatMap(({ blocks }) => blocks).filter(({ language }) =>
    language === "ts"
  );
  // Inside of the repository, so that the development dependencies are found. The name is always the
  // same, so that Deno need not check again what has not changed.
  const folder = new URL("docs/.blocks", ROOT).pathname;
  await Deno.mkdir(folder, { recursive: true });
  try {
    const files = await Promise.all(blocks.map(async (block) => {
      const file = `${folder}/${nameOf(block)}.ts`;
      await Deno.writeTextFile(file, `${block.program}\nexport {};\n`);
      return file;
    }));
    const { code, output } = await run(Deno.execPath(), ["check", "-q", ...files], {
      env: { NO_COLOR: "1" },
    });
    return code === 0 ? [] : [output.replaceAll(`file://${folder}/`, "")];
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The page and line of a block as the name of a file. */
function nameOf({ page, line }: Block): string {
  return `${page.replace(/\.md$/, "").replaceAll("/", "-")}-line-${line}`;
}
