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

/** More arguments that are wrong, for tasks with their own names and values. */
const WRONG: Readonly<Record<string, readonly string[]>> = {
  bench: [
    "--rounds 0",
    "--runtime none",
    "report none",
    "render --none",
    "guard none",
    "programs none",
    "programs --rounds x",
  ],
  demo: ["--page --port x"],
  docs: ["none"],
  fuzz: ["none", "--seed x", "--inputs 0", "--seconds 0", "--runtime none"],
  interop: ["--peer none"],
  mutate: ["--seed x", "--file lib/none.ts"],
  parity: ["none", "tests/none_test.ts"],
  simulate: ["--seed x", "--runs 0", "--seconds 0", "--runtime none", "--trace --runtime deno"],
  soak: ["none", "--size x", "--seconds x"],
  test: ["none", "deno tests/none_test.ts", "--all deno", "--filter"],
};

/** Arguments with which nothing runs. */
const NOTHING: Readonly<Record<string, string>> = {
  fuzz: "decoder --seconds 0.000001",
  simulate: "--seconds 0.000001",
  test: "deno tests/url_test.ts --filter none",
};

async function refuses(args: string[]): Promise<void> {
  const { code, stdout, stderr } = await run(args);
  assert.equal(code, 2, `${args}: ${stdout}${stderr}`);
  assert.match(stderr, /^Usage: (?!Usage)/m);
  assert.equal(stdout, "");
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
      await refuses([...program, "no-such-name", "--no-such-option"]);
      await refuses([...program, "no-such-name", "x"]);
    });

    for (const args of WRONG[name] ?? []) {
      it(`${name} ${args} is refused, with the usage and exit code 2`, async () => {
        await refuses([...program, ...args.split(" ")]);
      });
    }

    if (name in NOTHING) {
      it(`${name} ${NOTHING[name]} fails, because nothing ran`, async () => {
        const { code, stdout, stderr } = await run([...program, ...NOTHING[name].split(" ")]);
        assert.equal(code, 1);
        assert.match(stdout + stderr, /No (input|simulation|test) ran/);
      });
    }
  }
});

describe("deno task mutate", () => {
  const MUTATE = ["run", "-A", "scripts/mutate.ts"];
  const FILES = ["--file", "lib/connection/turns.ts,lib/core/queue.ts"];
  // The test about turns does not reach the queue.
  const TESTS = ["--tests", "tests/turns_test.ts"];

  it("kills the faults that a test finds, and reports those that none does", async () => {
    const args = [...MUTATE, ...FILES, ...TESTS, "--sample", "9", "--verbose"];
    const { code, stdout, stderr } = await run(args);
    assert.equal(code, 1, stderr);
    assert.match(stdout, /^ {2}lib\/connection\/turns\.ts:\d+ .+ → .*: tests\/turns_test\.ts: /m);
    assert.match(stdout, /^ {2}lib\/core\/queue\.ts:\d+ \(.+\): .+ → .* \[no test reaches it\]$/m);
    assert.match(stdout, /^9 faults, [1-8] killed /m);
  });

  it("fails if there was nothing to try", async () => {
    const args = ["--file", "lib/core/mod.ts", "--tests", "tests/close_test.ts"];
    const { code, stdout } = await run([...MUTATE, ...args]);
    assert.equal(code, 1);
    assert.match(stdout, /^No fault was tried$/m);
  });

  for (
    const args of [
      ["--file", "lib/core/no_such_file.ts"],
      ["--tests", "tests/tasks_test.ts"],
      ["--seed", "x"],
      ["--sample", "0"],
    ]
  ) {
    it(`refuses ${args.join(" ")}`, async () => {
      const { code, stdout, stderr } = await run([...MUTATE, ...args]);
      assert.equal(code, 2, `${stdout}${stderr}`);
      assert.match(stderr, /^Usage: deno task mutate /m);
    });
  }

  it("interop refuses unknown peers, cases and runtimes, and a table of a part", async () => {
    const lists = ["--peer ws,nobody", "--case none", "--runtime perl", "--write --peer ws"];
    for (const list of lists) {
      const { code, stdout, stderr } = await run([
        "run",
        "-A",
        "scripts/interop.ts",
        ...list.split(" "),
      ]);
      assert.equal(code, 2, `${list}: ${stdout}${stderr}`);
      assert.match(stderr, /^Usage: deno task interop /m);
      assert.equal(stdout, "");
    }
  });
});
