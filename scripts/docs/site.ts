/** Checks the links of the built site, also those to the API reference. */
import { ROOT } from "../process.ts";

/** Checks that the links of the pages lead to files, and that each guide links to the API reference. */
export async function checkSite(site: string): Promise<string[]> {
  const files = await filesIn(new URL(`${site}/`, ROOT), "");
  const pages = files.filter((file) => file.endsWith(".html") && !file.startsWith("api/"));
  const problems = await Promise.all(pages.map(async (page) => {
    const html = await Deno.readTextFile(new URL(`${site}/${page}`, ROOT));
    const links = [...html.matchAll(/ href="([^"]*)"/g)].map(([, link]) =>
      new URL(link, `https://site/${page}`)
    ).filter(({ host }) => host === "site").map(({ pathname }) => pathname.slice(1));
    const missing = links.filter((link) =>
      !files.includes(link === "" || link.endsWith("/") ? `${link}index.html` : link)
    );
    const isGuide = /^guides\/(?!index)/.test(page);
    const isLinked = links.some((link) => link.startsWith("api/") && !link.includes("all_symbols"));
    return [
      ...[...new Set(missing)].map((link) => `${site}/${page}: no file ${link}`),
      ...(isGuide && !isLinked ? [`${site}/${page}: no link to the API reference`] : []),
    ];
  }));
  return problems.flat();
}

async function filesIn(folder: URL, prefix: string): Promise<string[]> {
  const files: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) files.push(...await filesIn(new URL(`${name}/`, folder), `${prefix}${name}/`));
    else files.push(`${prefix}${name}`);
  }
  return files;
}
