/**
 * A measured process. It answers each line of input with numbers. If the line is empty, the answer is the
 * CPU time used so far.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { ROOT } from "../process.ts";
import type { Runtime } from "../runtimes.ts";
import { pinned, type Program } from "./cores.ts";

const FLAGS: Record<Runtime["engine"], string[]> = {
  deno: ["run", "-A", "--v8-flags=--expose-gc"],
  bun: ["run"],
  node: ["--expose-gc", "--disable-warning=ExperimentalWarning"],
};

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
  static readonly #all = new Set<LineProcess>();
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
    LineProcess.#all.add(this);
    this.#process.once("exit", () => LineProcess.#all.delete(this));
    this.#lines = createInterface(this.#process.stdout)[Symbol.asyncIterator]();
  }

  /** Ends all processes at once. What waits for an answer of one of them fails. */
  static killAll() {
    for (const one of LineProcess.#all) one.kill();
  }

  get pid(): number {
    return this.#process.pid!;
  }

  /** Sends a line and returns the numbers of the answer. */
  async ask(line: string): Promise<number[]> {
    this.#process.stdin.write(`${line}\n`);
    return await this.numbers();
  }

  /** Reads a line of numbers that the process prints without being asked. */
  async numbers(): Promise<number[]> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("The process has ended");
    return value.split(" ").map(Number);
  }

  /** Reads the first number of such a line. */
  async number(): Promise<number> {
    return (await this.numbers())[0];
  }

  /** Ends the process, by force if it does not end soon. */
  async close() {
    const { exitCode, signalCode, stdin } = this.#process;
    stdin.end();
    if (exitCode !== null || signalCode !== null) return;
    const timer = setTimeout(() => this.kill(), 10_000);
    await once(this.#process, "exit");
    clearTimeout(timer);
  }

  kill() {
    this.#process.kill("SIGKILL");
  }
}

/** The measured process, on a separate core. */
export class Measured extends LineProcess {
  constructor(program: Program) {
    super({ ...pinned(program), env: program.env });
  }

  async clocks(): Promise<Clocks> {
    const [microseconds] = await this.ask("");
    const { user, system } = process.cpuUsage();
    return {
      measured: microseconds / 1e6,
      own: (user + system) / 1e6,
      time: performance.now() / 1e3,
    };
  }
}
