/** Words that comments, messages, documents and titles must not use, because they are hard to read. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";

const ROOT = new URL("../", import.meta.url);

/** Each word, and the word to write instead. */
const WORDS: readonly (readonly [word: RegExp, instead: string])[] = [
  [/\bwho(?:so)?ever\b/i, "the noun: the caller, the peer"],
  [/\blest\b/i, "so that"],
  [/\bbut for\b/i, "unless, or except"],
  [/\bin place of\b/i, "instead of"],
  [/\bis yet to be\b|\bare yet to be\b/i, "has not been"],
  [/\bof its own because\b/i, "because"],
  [/\bbe it\b/i, "if, or also if"],
  [/\bwho calls it\b/i, "the caller"],
  // A server may be behind a proxy.
  [
    /\bbehind\b(?!-)(?! (?:a |an |the |one |several )?(?:reverse |other )?(?:prox|nginx|haproxy|load|session))/i,
    "after",
  ],
];

function filesIn(folder: string, ending: string): string[] {
  const url = new URL(`${folder}/`, ROOT);
  if (!existsSync(url)) return [];
  const names = readdirSync(url, { recursive: true }) as string[];
  return names.map((name) => `${folder}/${name.replaceAll("\\", "/")}`)
    .filter((path) => path.endsWith(ending) && !/\/(?:\.vitepress|public)\//.test(path));
}

/** The text with everything except comments and strings replaced by spaces. Line numbers stay the same. */
function prose(source: string): string {
  let from = 0;
  let text = "";
  const blank = (code: string) => code.replace(/[^\n]/g, " ");
  const found = source.matchAll(
    /\/\*[^]*?\*\/|\/\/[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\[^])*`/g,
  );
  for (const { 0: part, index } of found) {
    text += blank(source.slice(from, index)) + part;
    from = index + part.length;
  }
  return text + blank(source.slice(from));
}

/** The titles of the tests in a source, with the same line numbers. */
function titles(source: string): string {
  const titled =
    /\b(?:it|describe|inBothRoles)\(\s*("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`)/g;
  let text = source.replace(/[^\n]/g, " ");
  for (const { 0: call, 1: title, index } of source.matchAll(titled)) {
    const at = index + call.length - title.length;
    text = text.slice(0, at) + title + text.slice(at + title.length);
  }
  return text;
}

function problemsIn(paths: readonly string[], textOf: (source: string) => string): string[] {
  return paths.flatMap((path) => {
    const text = textOf(readFileSync(new URL(path, ROOT), "utf8"));
    return WORDS.flatMap(([word, instead]) =>
      [...text.matchAll(new RegExp(word, "gi"))].map(({ 0: found, index }) =>
        `${path}:${text.slice(0, index).split("\n").length}: "${found}": write ${instead}`
      )
    );
  });
}

describe("The language of the repository", () => {
  it("Comments and messages of lib/, scripts/ and examples/ have no word of the list", () => {
    const sources = ["lib", "scripts", "examples"].flatMap((folder) => filesIn(folder, ".ts"));
    assert.deepEqual(problemsIn([...sources, "mod.ts"], prose), []);
  });

  it("The documents have no word of the list", () => {
    const root = readdirSync(ROOT).filter((name) => name.endsWith(".md"));
    assert.deepEqual(
      problemsIn([...root, ...filesIn("docs", ".md"), "bench/NOTES.md"], String),
      [],
    );
  });

  it("The titles of tests have no word of the list", () => {
    assert.deepEqual(problemsIn(filesIn("tests", ".ts"), titles), []);
  });

  it("A word is found in comments, strings and titles, and not in names", () => {
    const source = "const behind = 1; // what is behind\nit('but for one', () => {});\n";
    assert.match(prose(source), /^ +\/\/ what is behind\n {3}'but for one' +\n$/);
    assert.match(titles(source), /^ +\n {3}'but for one' +\n$/);
  });
});
