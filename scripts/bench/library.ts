/** Loads the measured library from the npm package that is built, as a program has it that installs it. */

function load(path: string) {
  return import(new URL(`../../npm/dist/${path}.js`, import.meta.url).href);
}

export const loadLibrary = (): Promise<typeof import("../../mod.ts")> => load("mod");
export const loadHttp2 = (): Promise<typeof import("../../lib/http2.ts")> => load("lib/http2");
export const loadTopics = (): Promise<typeof import("../../lib/topics.ts")> => load("lib/topics");
export const loadNode = (): Promise<typeof import("../../lib/runtime/node.ts")> =>
  load("lib/runtime/node");
