/** The output of the command line. */
import { it } from "node:test";
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { WebSocketConnection } from "../../mod.ts";
import { urlOf, withServer } from "../support.ts";

const COMMAND = fileURLToPath(new URL("../../lib/cli.ts", import.meta.url));

/** Runs the command, and returns its output. */
async function run(...args: string[]): Promise<{ stdout: string; stderr: string }> {
  const flags = process.versions.deno === undefined ? [] : ["run", "-A", "--no-check"];
  const env = { ...process.env, NO_COLOR: "1" };
  return await promisify(execFile)(process.execPath, [...flags, COMMAND, ...args], { env });
}

it("C17 the command escapes all characters that are not seen, or change how others are", async () => {
  const hidden: [text: string, shown: string][] = [
    ["\u200e", "\\u200e"],
    ["\u061c", "\\u061c"],
    ["\ufeff", "\\ufeff"],
    ["\u200b", "\\u200b"],
    ["\u00ad", "\\xad"],
    ["\u2066", "\\u2066"],
    ["\u2060", "\\u2060"],
    ["\u{e0001}", "\\u{e0001}"],
    ["\u{e0041}", "\\u{e0041}"],
    ["\u{1d173}", "\\u{1d173}"],
    ["\u{13430}", "\\u{13430}"],
  ];
  const handler = async (ws: WebSocketConnection) => {
    for (const [text] of hidden) await ws.send(`a${text}b`);
    await ws.send("\u00e9\u{1f600}\u4e2d");
    await ws.close({ closeCode: 1000, reason: "the \u202eend" });
  };
  await withServer({}, async (server) => {
    const { stdout, stderr } = await run(urlOf(server), "--message", "a", "--count", "99");
    const lines = hidden.map(([, shown]) => `a${shown}b`);
    assert.deepEqual(stdout.split("\n"), [...lines, "\u00e9\u{1f600}\u4e2d", ""]);
    assert.doesNotMatch(stderr, /\p{Cf}/u);
    assert.match(stderr, /the \\u202eend/);
  }, handler);
});
