/** The output of the tasks in deno.json for `--help` and for wrong arguments. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import config from "../deno.json" with { type: "json" };

const ROOT = fileURLToPath(new URL("../", import.meta.url));

interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

function run(args: string[]): Promise<Result> {
  const env = { ...process.env, NO_COLOR: "1" };
  const child = spawn(process.execPath, args, {
    cwd: ROOT,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const result: Result = { code: null, stdout: "", stderr: "" };
  child.stdout.on("data", (chunk) => result.stdout += chunk);
  child.stderr.on("data", (chunk) => result.stderr += chunk);
  return new Promise((resolve) => child.on("close", (code) => resolve({ ...result, code })));
}

describe("The arguments of the tasks", () => {
  for (const [name, { command }] of Object.entries(config.tasks)) {
    // Without `deno install`, which has already run.
    const program = command.replace(/^deno install -q && /, "").split(" ").slice(1);

    it(`${name} --help prints the usage and nothing else`, async () => {
      const { code, stdout, stderr } = await run([...program, "--help"]);
      assert.equal(code, 0, stderr);
      assert.match(
        stdout,
        name === "cli" ? /^Usage: sluice / : new RegExp(`^Usage: deno task ${name}\\b`),
      );
      assert.equal(stderr, "");
    });

    it(`${name} refuses arguments that it does not know, with the usage and exit code 2`, async () => {
      for (
        const args of [["--no-such-option"], ["no-such-name", "--no-such-option"], [
          "no-such-name",
          "x",
        ]]
      ) {
        const { code, stdout, stderr } = await run([...program, ...args]);
        assert.equal(code, 2, `${args}: ${stdout}${stderr}`);
        assert.match(stderr, /^Usage: /m);
        assert.equal(stdout, "");
      }
    });
  }
});
