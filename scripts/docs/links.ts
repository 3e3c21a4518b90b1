/** Checks the links between the documents of the repository. */
import { pages } from "../../tests/docs.ts";
import { ROOT } from "../process.ts";

/** The documents besides the pages. */
const DOCUMENTS = [
  "ARCHITECTURE.md",
  "CHANGELOG.md",
  "CONTRIBUTING.md",
  "SECURITY.md",
  "bench/NOTES.md",
  "bench/RESULTS.md",
  "examples/README.md",
];

/** Pages that are generated when the site is built. */
const MADE = /^docs\/(api\/|(measurements|results)\.md$)/;

/** A file of the repository that a text names, like `tests/url_test.ts`. */
const NAMED_FILE = /`((?:tests|examples|lib|scripts|bench)\/[\w./-]+\.\w+)`/g;

/**
 * Checks that every relative link leads to a file, every anchor to a heading and every label to its
 * definition, and that the files named in the text exist.
 */
export async function checkLinks(): Promise<string[]> {
  const problems: string[] = [];
  const texts = new Map<string, string>();
  for (const path of [...await pages(), ...DOCUMENTS]) {
    texts.set(path, withoutCode(await Deno.readTextFile(new URL(path, ROOT))));
  }
  for (const [path, text] of texts) {
    for (const { 1: link, index } of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(link)) continue;
      const line = text.slice(0, index).split("\n").length;
      const problem = await problemOf(path, link, texts);
      if (problem !== undefined) problems.push(`${path}:${line}: ${problem}`);
    }
    for (const { 1: file, index } of text.matchAll(NAMED_FILE)) {
      if (await exists(file)) continue;
      problems.push(`${path}:${text.slice(0, index).split("\n").length}: no file ${file}`);
    }
    const labels = new Set([...text.matchAll(/^\[([^\]]+)\]: /gm)].map(([, label]) => label));
    for (const [, label] of text.matchAll(/\]\[([^\]]+)\]/g)) {
      if (!labels.delete(label) && !text.includes(`\n[${label}]: `)) {
        problems.push(`${path}: no definition of [${label}]`);
      }
    }
    for (const label of labels) problems.push(`${path}: nothing links to [${label}]`);
  }
  return [...problems, ...await checkSidebar(texts)];
}

async function problemOf(
  path: string,
  link: string,
  texts: Map<string, string>,
): Promise<string | undefined> {
  // The site serves docs/public/ at its root.
  const inside = link.startsWith("/") ? `/docs/public${link}` : link;
  const target = new URL(inside, new URL(path, "file:///"));
  const file = target.pathname.slice(1);
  if (MADE.test(file)) return undefined;
  const text = texts.get(file);
  if (text === undefined && !await exists(file)) return `no file ${file}`;
  const anchor = decodeURIComponent(target.hash.slice(1));
  if (anchor === "" || text === undefined) return undefined;
  return anchorsOf(text).has(anchor) ? undefined : `no heading #${anchor} in ${file}`;
}

/** Checks that the site's navigation lists every page and only existing pages. */
async function checkSidebar(texts: Map<string, string>): Promise<string[]> {
  const config = await Deno.readTextFile(new URL("docs/.vitepress/config.ts", ROOT));
  const linked = new Set(
    [...config.matchAll(/link: "\/([^"]*)"/g)].map(([, link]) =>
      `docs/${link === "" || link.endsWith("/") ? `${link}index` : link}.md`
    ),
  );
  const written = [...texts.keys()].filter((path) => path.startsWith("docs/"));
  return [
    ...written.filter((path) => !linked.has(path) && path !== "docs/index.md")
      .map((path) => `docs/.vitepress/config.ts: no link to ${path}`),
    ...[...linked].filter((path) => !texts.has(path) && !MADE.test(path))
      .map((path) => `docs/.vitepress/config.ts: no page ${path}`),
  ];
}

/** A document with its code replaced by spaces, so that positions stay the same. */
function withoutCode(text: string): string {
  const blank = (code: string) => code.replace(/[^\n]/g, " ");
  return text.replace(/^(`{3,})[^]*?^\1$/gm, blank).replace(/<!--[^]*?-->/g, blank);
}

/** The anchors of the headings, as GitHub and VitePress generate them. */
function anchorsOf(text: string): Set<string> {
  const anchors = new Set<string>();
  for (const [, heading] of text.matchAll(/^#{1,6} (.*)$/gm)) {
    const plain = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1");
    const slug = plain.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").trim().replace(/\s/g, "-");
    let anchor = slug;
    for (let i = 1; anchors.has(anchor); i++) anchor = `${slug}-${i}`;
    anchors.add(anchor);
  }
  return anchors;
}

async function exists(file: string): Promise<boolean> {
  try {
    await Deno.stat(new URL(file, ROOT));
    return true;
  } catch {
    return false;
  }
}
