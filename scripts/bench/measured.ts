/**
 * A measured process. It answers each line of input with a number, which is the CPU time used so far if
 * the line is empty.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { ROOT } from "../process.ts";
import type { Runtime } from "../runtimes.ts";
import { pinned } from "./cores.ts";

const FLAGS: Record<Runtime["engine"], string[]> = {
  deno: ["run", "-A", "--v8-flags=--expose-gc"],
  bun: ["run"],
  node: ["--expose-gc", "--disable-warning=ExperimentalWarning"],
};

/** A program to run. */
export interface Program {
  command: string;
  args: string[];
  env?: Record<string, string>;
}

/** The CPU time of both sides and the time of day, in seconds. */
export interface Clocks {
  measured: number;
  own: number;
  time: number;
}

/** A script of this folder, run by a runtime. */
export function programOf(
  runtime: Runtime,
  script: string,
  args: string[],
  flags: string[] = [],
): Program {
  return {
    command: runtime.path,
    args: [...FLAGS[runtime.engine], ...flags, `scripts/bench/${script}`, ...args],
  };
}

/** A process that answers lines, from its start to its end. */
export class LineProcess {
  readonly #process: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  constructor({ command, args, env }: Program) {
    this.#process = spawn(command, args, {
      env: { ...process.env, ...env },
      cwd: ROOT,
      stdio: ["pipe", "pipe", "inherit"],
    });
    // The process may have ended already.
    this.#process.stdin.on("error", () => {});
    this.#lines = createInterface(this.#process.stdout)[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.#process.pid!;
  }

  /** Sends a line and returns the answer. */
  async ask(line: string): Promise<number> {
    this.#process.stdin.write(`${line}\n`);
    return await this.number();
  }

  /** Reads a number that the process prints without being asked. */
  async number(): Promise<number> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("The process has ended");
    return Number(value);
  }

  /** Ends the process. */
  async close() {
    const { exitCode, signalCode, stdin } = this.#process;
    stdin.end();
    if (exitCode === null && signalCode === null) await once(this.#process, "exit");
  }
}

/** The measured process, on a separate core. */
export class Measured extends LineProcess {
  constructor(program: Program) {
    super({ ...pinned(program), env: program.env });
  }

  async clocks(): Promise<Clocks> {
    const measured = await this.ask("") / 1e6;
    const { user, system } = process.cpuUsage();
    return { measured, own: (user + system) / 1e6, time: performance.now() / 1e3 };
  }
}
