/** Running a script with the runtime that runs the tests. */
import { spawn } from "node:child_process";
import process from "node:process";

const DEADLINE = 60_000;

/** What a script left. */
export interface ChildResult {
  code: number | null;
  /** True when it did not end by itself. */
  hung: boolean;
  stdout: string;
  stderr: string;
}

/** Runs a script to its end. */
export async function runScript(path: string): Promise<ChildResult> {
  const flags = "Deno" in globalThis ? ["run", "-A", "--no-check", "--no-lock"] : [];
  const child = spawn(process.execPath, [...flags, path], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, NO_COLOR: "1", NODE_NO_WARNINGS: "1" },
  });
  const result: ChildResult = { code: null, hung: false, stdout: "", stderr: "" };
  child.stdout.on("data", (chunk) => result.stdout += chunk);
  child.stderr.on("data", (chunk) => result.stderr += chunk);
  const timer = setTimeout(() => {
    result.hung = true;
    child.kill("SIGKILL");
  }, DEADLINE);
  result.code = await new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  clearTimeout(timer);
  return result;
}
