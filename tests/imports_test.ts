import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";

const ROOT = new URL("../", import.meta.url);
/** The most lines of a file. A longer file has more than one purpose. */
const LONGEST_FILE = 700;
/** The fewest lines of a file. Shorter code belongs in the file that uses it, unless it is an entry point. */
const SHORTEST_FILE = 40;

/** The folders of lib/ in layers, the lowest first. A folder must not import a folder of a higher layer. */
const LAYERS = [
  ["core"],
  ["connection"],
  ["client", "server", "streams", "topics"],
  ["standard"],
  ["ws"],
];

interface Import {
  specifier: string;
  dynamic: boolean;
}

interface File {
  /** The path from the root of the repository. */
  path: string;
  text: string;
  /** The text without comments, and with all strings empty. */
  code: string;
  imports: Import[];
  /** The files imported. */
  edges: { to: string; dynamic: boolean }[];
}

/** Comments, strings and templates. The expressions in a template count as text. */
const PROSE =
  /\/\*[^]*?\*\/|\/\/[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\[^])*`/g;

function withoutComments(text: string): string {
  return text.replace(PROSE, (found) => found.startsWith("/") ? " " : found);
}

function withoutStrings(text: string): string {
  return text.replace(PROSE, (found) => found.startsWith("`") ? expressions(found) : '""');
}

/** The expressions of a template. The result is good enough to find names in it. */
function expressions(template: string): string {
  return `(${(template.match(/\$\{[^]*?\}/g) ?? []).join(" ")})`;
}

/** Imports and re-exports, static and dynamic, of values and types. */
function importsOf(text: string): Import[] {
  const code = withoutComments(text);
  const statics = code.matchAll(/^\s*(?:import|export)\b[^;"'()]*?\bfrom\s*["']([^"']+)["']/gm);
  const bare = code.matchAll(/^\s*import\s*["']([^"']+)["']/gm);
  const dynamics = code.matchAll(/\bimport\s*\(\s*["'`]([^"'`]+)["'`]/g);
  return [
    ...[...statics, ...bare].map(([, specifier]) => ({ specifier, dynamic: false })),
    ...Array.from(dynamics, ([, specifier]) => ({ specifier, dynamic: true })),
  ];
}

function readSource(path: string): File {
  const text = readFileSync(new URL(path, ROOT), "utf8");
  const imports = importsOf(text);
  const edges = imports.filter(({ specifier }) => specifier.startsWith(".")).map((found) => ({
    to: new URL(found.specifier, new URL(path, ROOT)).pathname.slice(ROOT.pathname.length),
    dynamic: found.dynamic,
  }));
  return { path, text, code: withoutStrings(withoutComments(text)), imports, edges };
}

/** The sources in a folder. */
function sourcesIn(folder: string): File[] {
  const entries = readdirSync(new URL(folder, ROOT), { recursive: true }) as string[];
  const paths = entries.map((name) => folder + name.replaceAll("\\", "/"));
  return paths.filter((path) => path.endsWith(".ts")).map(readSource);
}

function sources(): File[] {
  const found = sourcesIn("lib/");
  return existsSync(new URL("mod.ts", ROOT)) ? [...found, readSource("mod.ts")] : found;
}

/** The exports of the package, the command, and the entry point of the demo page. */
function findEntryPoints(): Set<string> {
  const manifest = JSON.parse(readFileSync(new URL("deno.json", ROOT), "utf8"));
  const exported = Object.values(manifest.exports as Record<string, string>);
  return new Set([...exported, "./lib/cli.ts", "./lib/browser.ts"].map((path) => path.slice(2)));
}

function linesOf(text: string): number {
  return text.trimEnd().split("\n").length;
}

const entryPoints = findEntryPoints();
const files = sources();
const core = files.filter(({ path }) => path.startsWith("lib/core/"));
const runtime = files.filter(({ path }) => path.startsWith("lib/runtime/"));
const others = files.filter((file) => !runtime.includes(file));

/** The path of the first cycle found, or undefined. */
function findCycle(graph: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>();
  const visit = (path: string, above: string[]): string[] | undefined => {
    if (above.includes(path)) return [...above.slice(above.indexOf(path)), path];
    if (done.has(path)) return undefined;
    for (const to of graph.get(path) ?? []) {
      const cycle = visit(to, [...above, path]);
      if (cycle !== undefined) return cycle;
    }
    done.add(path);
    return undefined;
  };
  for (const path of graph.keys()) {
    const cycle = visit(path, []);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

/** The imports that break a rule, as "from -> to". */
function broken(from: readonly File[], isBroken: (to: string, file: File) => boolean): string[] {
  return from.flatMap((file) => {
    const paths = file.edges.map(({ to }) => to);
    const bare = file.imports.map(({ specifier }) => specifier).filter((name) => name[0] !== ".");
    return [...paths, ...bare].filter((to) => isBroken(to, file)).map((to) =>
      `${file.path} -> ${to}`
    );
  });
}

/** Whether code without comments and strings uses a global of a runtime. `process` may name a member. */
function namesRuntime(code: string): boolean {
  return /\b(?:Deno|Bun)\b|\bglobalThis\.process\b|(?<![.\w$#])process\b(?!\s*[:(])/.test(code);
}

describe("importsOf", () => {
  const cases: readonly [text: string, imports: Import[]][] = [
    ['import { a } from "./a.ts";', [{ specifier: "./a.ts", dynamic: false }]],
    ['import type { A } from "./a.ts";', [{ specifier: "./a.ts", dynamic: false }]],
    ['import {\n  a,\n  type B,\n} from "./a.ts";', [{ specifier: "./a.ts", dynamic: false }]],
    ['import a, * as b from "node:fs";', [{ specifier: "node:fs", dynamic: false }]],
    ['import "./a.ts";', [{ specifier: "./a.ts", dynamic: false }]],
    ['export * from "./a.ts";', [{ specifier: "./a.ts", dynamic: false }]],
    ['export { a } from "./a.ts";\nimport b from "./b.ts";', [
      { specifier: "./a.ts", dynamic: false },
      { specifier: "./b.ts", dynamic: false },
    ]],
    ['const a = await import("./a.ts");', [{ specifier: "./a.ts", dynamic: true }]],
    ['let a: import("./a.ts").A;', [{ specifier: "./a.ts", dynamic: true }]],
    ['// import { a } from "./a.ts";\n/**\n * import "./b.ts";\n */\nexport const a = "from";', []],
    ['const url = "https://a"; import("./a.ts")', [{ specifier: "./a.ts", dynamic: true }]],
  ];
  for (const [text, imports] of cases) {
    it(`importsOf reads ${JSON.stringify(text)}`, () => {
      assert.deepEqual(importsOf(text), imports);
    });
  }
});

describe("findCycle", () => {
  it("findCycle finds a cycle if there is one", () => {
    const graph = new Map([["a", ["b", "c"]], ["b", ["c", "d"]], ["c", ["d"]], ["d", []]]);
    assert.equal(findCycle(graph), undefined);
    assert.deepEqual(findCycle(graph.set("d", ["b"])), ["b", "c", "d", "b"]);
    assert.deepEqual(findCycle(new Map([["a", ["a"]]])), ["a", "a"]);
  });
});

describe("namesRuntime", () => {
  const cases: readonly [text: string, names: boolean][] = [
    ["Deno.serve()", true],
    ["globalThis.Bun?.serve()", true],
    ["process.env.HOME", true],
    ["const { env } = process;", true],
    ["globalThis.process", true],
    ["const text = `${process.pid}`;", true],
    ["this.process();", false],
    ["process(chunk: Uint8Array) {}", false],
    ['const url = "https://deno.land/Deno"; // on Bun', false],
    ["/** What `process` and Deno\n * do */ const a = 'process.env';", false],
    ["preprocess.a; Denote", false],
  ];
  for (const [text, names] of cases) {
    it(`namesRuntime says ${names} of ${JSON.stringify(text)}`, () => {
      assert.equal(namesRuntime(withoutStrings(withoutComments(text))), names);
    });
  }
});

describe("The imports of the library", () => {
  it("The files and their imports are found", () => {
    assert.ok(core.length >= 10);
    const mod = core.find(({ path }) => path === "lib/core/mod.ts");
    assert.ok(mod?.edges.some(({ to }) => to === "lib/core/protocol.ts"));
    const known = new Set(files.map(({ path }) => path));
    assert.deepEqual(broken(files, (to) => /^lib\/|^mod/.test(to) && !known.has(to)), []);
  });

  it("No file imports itself through other files, not even for a type", () => {
    // The module that an adapter serves loads it with a dynamic import, which does not count as a cycle.
    const graph = new Map(files.map(({ path, edges }) => [
      path,
      edges.filter(({ to, dynamic }) => !dynamic || !to.startsWith("lib/runtime/"))
        .map(({ to }) => to),
    ]));
    assert.equal(findCycle(graph)?.join(" -> "), undefined);
  });

  it("No script and no test imports itself", () => {
    const others = [...sourcesIn("scripts/"), ...sourcesIn("tests/")];
    const graph = new Map(others.map(({ path, edges }) => [path, edges.map(({ to }) => to)]));
    assert.ok(graph.size > 100);
    assert.equal(findCycle(graph)?.join(" -> "), undefined);
  });

  it("No folder imports itself by a detour", () => {
    // Files directly in lib/ belong to different layers, so each one is a layer.
    const layerOf = (path: string) => /^lib\/[^/]+\//.exec(path)?.[0] ?? path;
    const graph = new Map<string, string[]>();
    for (const { path, edges } of files) {
      const to = edges.filter(({ dynamic }) => !dynamic).map(({ to }) => layerOf(to));
      const others = to.filter((layer) => layer !== layerOf(path));
      graph.set(layerOf(path), [...graph.get(layerOf(path)) ?? [], ...others]);
    }
    assert.ok(graph.size < files.length);
    assert.equal(findCycle(graph)?.join(" -> "), undefined);
  });

  it("The core imports nothing but the core", () => {
    assert.deepEqual(broken(core, (to) => !to.startsWith("lib/core/")), []);
  });

  it("A runtime's adapter imports its contracts, waiting, printing, the core and built-in modules", () => {
    const allowed =
      /^lib\/((?:abortable|inspect|transport|timers)\.ts$|core\/|runtime\/)|^node:|^bun$/;
    assert.deepEqual(broken(runtime, (to) => !allowed.test(to)), []);
  });

  it("Nothing under lib imports mod.ts, and nothing but lib is imported", () => {
    const library = files.filter(({ path }) => path !== "mod.ts");
    assert.deepEqual(broken(library, (to) => to === "mod.ts"), []);
    // The entry points for node:http and node:http2 use the types of these modules. A command has a terminal.
    // The interface of `ws` is that of node:events and node:http.
    const allowed = (to: string, path: string) =>
      (["lib/http2.ts", "lib/node.ts", "lib/cli.ts"].includes(path) ||
        path.startsWith("lib/ws")) &&
      to.startsWith("node:");
    const foreign = broken(others, (to, { path }) => !to.startsWith("lib/") && !allowed(to, path));
    assert.deepEqual(foreign, []);
  });

  it("Nothing imports a runtime's adapter but who chooses it and the entry points for it", () => {
    const choosers = ["lib/http2.ts", "lib/node.ts", "lib/platform.ts", "lib/zlib.ts"];
    const importing = others.filter(({ path, edges }) =>
      edges.some(({ to }) => to.startsWith("lib/runtime/")) && !path.startsWith("lib/ws/")
    );
    assert.deepEqual(importing.map(({ path }) => path).sort(), choosers);
  });

  it("No file but a runtime's adapter names a runtime", () => {
    const library = others.filter(({ path }) => path !== "lib/cli.ts");
    const naming = library.filter(({ code }) => namesRuntime(code));
    assert.deepEqual(naming.map(({ path }) => path), []);
  });

  it("Imports point down from folder to folder, and to no entry point", () => {
    const layerOf = (path: string) => {
      const folder = /^lib\/([^/]+)\//.exec(path)?.[1];
      return LAYERS.findIndex((folders) => folders.includes(folder!));
    };
    const isUpward = (to: string, from: string) =>
      layerOf(from) >= 0 && layerOf(to) > layerOf(from);
    assert.deepEqual(broken(files, (to, { path }) => isUpward(to, path)), []);
    const library = files.filter(({ path }) => path !== "mod.ts");
    assert.deepEqual(broken(library, (to) => entryPoints.has(to)), []);
  });

  it(`No file has more than ${LONGEST_FILE} lines`, () => {
    const long = files.filter(({ text }) => linesOf(text) > LONGEST_FILE);
    assert.deepEqual(long.map(({ path }) => path), []);
  });

  it(`No file but an entry point has fewer than ${SHORTEST_FILE} lines`, () => {
    const short = files.filter(({ path, text }) =>
      linesOf(text) < SHORTEST_FILE && !entryPoints.has(path)
    );
    assert.deepEqual(short.map(({ path }) => path), []);
  });
});

describe("ARCHITECTURE.md", () => {
  const text = readFileSync(new URL("ARCHITECTURE.md", ROOT), "utf8");

  it("names the folders of lib/, and each file of lib/, lib/core/ and lib/connection/", () => {
    const missing = files.filter(({ path }) => {
      const [, folder, name = folder] = path.split("/");
      const isListed = name === folder || ["core", "connection"].includes(folder);
      return path !== "mod.ts" && !text.includes(isListed ? name : `${folder}/`);
    });
    assert.deepEqual(missing.map(({ path }) => path), []);
  });

  it("names only files and functions that exist", () => {
    const paths = [...text.matchAll(/`((?:\w+\/)*\w+\.ts)`/g)].map(([, path]) => path);
    const isFile = (path: string) =>
      files.some((file) => file.path.endsWith(`/${path}`)) || existsSync(new URL(path, ROOT));
    const calls = [...text.matchAll(/`(?:\w+\.)?(#?\w+)\(\)`/g)].map(([, name]) => name);
    const isFunction = (name: string) =>
      files.some(({ code }) => new RegExp(`(?<![\\w#])${name}\\(`).test(code));
    assert.ok(
      paths.length > 15 && calls.length > 25,
      `${paths.length} files, ${calls.length} calls`,
    );
    assert.deepEqual(paths.filter((path) => !isFile(path)), []);
    assert.deepEqual(calls.filter((name) => !isFunction(name)), []);
  });
});
