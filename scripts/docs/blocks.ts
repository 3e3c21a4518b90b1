/** Checks the types of the code blocks in the pages. */
import { type Block, pages, sectionsOf } from "../../tests/docs.ts";
import { ROOT, run } from "../process.ts";

/** Checks the types of every TypeScript block, and reports errors with page and line. */
export async function checkBlocks(): Promise<string[]> {
  const sections = (await Promise.all((await pages()).map(sectionsOf))).flat();
  const blocks = sections.flatMap(({ blocks }) => blocks).filter(({ language }) =>
    language === "ts"
  );
  // The folder is inside the repository, so that the development dependencies are found. Its name is always
  // the same, so that Deno does not check unchanged blocks again.
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

/** The page and line of a block as a file name. */
function nameOf({ page, line }: Block): string {
  return `${page.replace(/\.md$/, "").replaceAll("/", "-")}-line-${line}`;
}
