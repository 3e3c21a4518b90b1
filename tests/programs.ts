/** Runs programs with the runtime of the tests, or with another one. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const ROOT = new URL("../", import.meta.url);

const DEADLINE = 180_000;

const THIS = {
  path: process.execPath,
  name: process.versions.deno === undefined ? "another" : "deno",
};

const ENTRIES: Record<string, string> = {
  "": "mod.ts",
  "/browser": "lib/browser.ts",
  "/core": "lib/core/mod.ts",
  "/http2": "lib/http2.ts",
  "/node": "lib/node.ts",
  "/streams": "lib/streams.ts",
  "/testing": "lib/testing.ts",
  "/topics": "lib/topics.ts",
  "/ws": "lib/ws.ts",
  "/zlib": "lib/zlib.ts",
};

/** The program with the package names replaced by the paths of the files. */
export function withSources(program: string): string {
  return program.replace(
    /(from\s+|import\s*\(?\s*|import\.meta\.resolve\()"sluice(\/\w+)?"/g,
    (_, keyword, entry = "") => `${keyword}"${new URL(ENTRIES[entry], ROOT).href}"`,
  );
}

/** The options for running a program. */
export interface ChildOptions {
  /** The runtime. Default: the one that runs the tests */
  runtime?: { path: string; name: string };
  /** Additional environment variables. Default: none */
  env?: Record<string, string>;
  /** Flags of the runtime, before the program. Default: none */
  flags?: string[];
  /** Arguments of the program. Default: none */
  args?: string[];
}

/** A running program. */
export class Child {
  /** The output so far. */
  stdout = "";
  stderr = "";
  /** The exit code. Resolves when the program has ended. */
  readonly exited: Promise<number | null>;
  readonly #process: ChildProcess;
  #onOutput: (() => void) | undefined;

  constructor(path: string, { runtime = THIS, env, flags = [], args = [] }: ChildOptions = {}) {
    const run = runtime.name === "deno" ? ["run", "-A", "--no-check"] : [];
    this.#process = spawn(runtime.path, [...run, ...flags, path, ...args], {
      cwd: new URL(".", ROOT),
      env: { ...process.env, NO_COLOR: "1", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#process.stdout!.on("data", (chunk) => {
      this.stdout += chunk;
      this.#onOutput?.();
    });
    this.#process.stderr!.on("data", (chunk) => this.stderr += chunk);
    this.exited = new Promise((resolve) => {
      this.#process.on("close", (code) => {
        resolve(code);
        this.#onOutput?.();
      });
    });
  }

  /** The peak of the resident memory so far, in bytes; undefined if this platform does not report it. */
  async peakMemory(): Promise<number | undefined> {
    const status = await readFile(`/proc/${this.#process.pid}/status`, "utf8").catch(() => "");
    const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(status) ?? [];
    return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
  }

  /** Waits until the output matches. Only a hang reaches the deadline. */
  async printed(pattern: RegExp): Promise<RegExpExecArray> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#onOutput?.();
    }, DEADLINE);
    try {
      for (;;) {
        const match = pattern.exec(this.stdout);
        if (match !== null) return match;
        if (late || this.#process.exitCode !== null) {
          const received = `${this.stdout}${this.stderr}`;
          throw new Error(`Expected ${pattern} in the output, received ${received}`);
        }
        await new Promise<void>((resolve) => this.#onOutput = resolve);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  stop(signal?: "SIGKILL" | "SIGSTOP"): void {
    if (signal === undefined) this.#process.kill();
    // Deno's child.kill() sends only one signal, even if that signal only stops the child.
    else if (this.#process.exitCode === null && this.#process.signalCode === null) {
      process.kill(this.#process.pid!, signal);
    }
  }
}

/**
 * Runs programs from a new folder, which is removed afterwards.
 *
 * @param parent Folder of the new folder. Default: one outside of the repository
 */
export async function withPrograms(
  use: (
    start: (name: string, program: string, options?: ChildOptions) => Promise<Child>,
  ) => Promise<void>,
  parent: string = tmpdir(),
): Promise<void> {
  const folder = await mkdtemp(join(parent, "sluice-"));
  const children: Child[] = [];
  try {
    await use(async (name, program, options) => {
      const path = join(folder, name);
      await writeFile(path, withSources(program));
      const child = new Child(path, options);
      children.push(child);
      return child;
    });
  } finally {
    for (const child of children) child.stop();
    await Promise.all(children.map(({ exited }) => exited));
    await rm(folder, { recursive: true });
  }
}

/** A folder for programs that import the development dependencies. */
export async function insideRepository(): Promise<string> {
  const folder = fileURLToPath(new URL(".cache/programs/", ROOT));
  await mkdir(folder, { recursive: true });
  return folder;
}

/** The text of a file of the repository. */
export function readSource(path: string): Promise<string> {
  return readFile(new URL(path, ROOT), "utf8");
}
