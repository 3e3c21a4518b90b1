/** Runs the rows about WebSocketStream on a page in a headless browser. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { fileURLToPath } from "node:url";
import { build, type BuildOptions, stop } from "esbuild";
import { certificates } from "../certificates.ts";
import type { Place } from "../websocket_stream/kit.ts";
import { bodyOf, startPeers } from "../websocket_stream/server.ts";
import { withBrowser } from "./chromium.ts";

const ROOT = new URL("../../", import.meta.url);
/** The time in milliseconds after which a page without a result counts as hanging. */
const DEADLINE = 180_000;

/** The result of each row: an empty string, or the error. */
export type Results = ReadonlyMap<string, string>;

interface Report {
  title?: string;
  problem?: string;
  done?: boolean;
}

/** Bundles a file of this repository for browsers. */
export async function bundle(path: string, options: BuildOptions = {}) {
  const result = await build({
    entryPoints: [fileURLToPath(new URL(path, ROOT))],
    bundle: true,
    write: false,
    metafile: true,
    format: "esm",
    target: "es2022",
    platform: "browser",
    conditions: ["browser"],
    logLevel: "silent",
    ...options,
  });
  await stop();
  return { text: result.outputFiles![0].text, inputs: Object.keys(result.metafile!.inputs) };
}

/** Runs all rows, and returns their results. */
export async function runRows(place: Place, scheme: "ws" | "wss"): Promise<Results> {
  const { text } = await bundle("tests/websocket_stream/page.ts");
  const results = new Map<string, string>();
  let settle!: { resolve(): void; reject(error: Error): void };
  const done = new Promise<void>((resolve, reject) => settle = { resolve, reject });
  const peers = await startPeers(await certificates(), async (request, response) => {
    const report = await answer(request, response, text);
    if (report === undefined) return;
    deadline.refresh();
    if (report.title !== undefined) results.set(report.title, report.problem ?? "");
    if (!report.done) return;
    if (report.problem) settle.reject(new Error(report.problem));
    else settle.resolve();
  });
  const late = () => settle.reject(new Error(`Expected a result within ${DEADLINE} ms`));
  const deadline = setTimeout(late, DEADLINE);
  const settings = JSON.stringify({ url: peers[scheme], control: peers.control, place });
  const page = new URL(`/?settings=${encodeURIComponent(settings)}`, peers.control);
  try {
    await withBrowser(page, done);
  } finally {
    clearTimeout(deadline);
    await peers.close();
  }
  return results;
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  script: string,
): Promise<Report | undefined> {
  const { pathname } = new URL(request.url!, "http://localhost");

  if (pathname === "/report") {
    const report = JSON.parse(await bodyOf(request));
    response.end();
    return report;
  }
  if (pathname === "/page.js") {
    response.setHeader("Content-Type", "text/javascript");
    response.end(script);
  } else {
    response.statusCode = pathname === "/" ? 200 : 404;
    response.setHeader("Content-Type", "text/html");
    response.end('<!doctype html><script type="module" src="/page.js"></script>');
  }
}
