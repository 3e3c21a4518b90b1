/** Programs that are written for `ws` do the same on `sluice/ws`. Each runs in a process of its own. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import process from "node:process";
import { describe } from "node:test";
import { promisify } from "node:util";
import { it, knownLimit } from "./it.ts";
import type { Name } from "./ws/implementations.ts";

const run = promisify(execFile);
const RUNNER = new URL("ws/run_program.ts", import.meta.url).pathname;
const PROGRAMS = readdirSync(new URL("ws/programs/", import.meta.url))
  .map((file) => file.replace(".ts", ""))
  .filter((name) => name !== "program");

/** What cannot run here, with ws either. */
function skipOf(program: string): string | undefined {
  const isNew = Number(process.versions.node.split(".")[0]) >= 26;
  return program === "mqtt" && isNew
    ? knownLimit("aedes answers no MQTT client on Node 26, with ws either")
    : undefined;
}

async function resultOf(program: string, name: Name): Promise<unknown> {
  const { stdout } = await run(process.execPath, [RUNNER, program, name], { timeout: 120_000 });
  return JSON.parse(stdout).result;
}

describe("sluice/ws: programs", () => {
  for (const program of PROGRAMS) {
    it(`sluice/ws: ${program} does the same as on ws`, { skip: skipOf(program) }, async () => {
      const [expected, actual] = await Promise.all([
        resultOf(program, "ws"),
        resultOf(program, "sluice"),
      ]);
      assert.deepEqual(actual, expected);
    });
  }
});
