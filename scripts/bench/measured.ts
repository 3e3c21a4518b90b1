/**
 * A measured process. It answers each line of input with a number, which is the CPU time used so far if
 * the line is empty.
 */
import process from "node:process";
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
  readonly #process: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: ReadableStreamDefaultReader<string>;

  constructor({ command, args, env }: Program) {
    this.#process = new Deno.Command(command, {
      args,
      env,
      cwd: ROOT,
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#input = this.#process.stdin.getWriter();
    this.#lines = this.#process.stdout
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(splitLines())
      .getReader();
  }

  /** Sends a line and returns the answer. */
  async ask(line: string): Promise<number> {
    await this.#input.write(new TextEncoder().encode(`${line}\n`));
    return await this.number();
  }

  /** Reads a number that the process prints without being asked. */
  async number(): Promise<number> {
    const { value } = await this.#lines.read();
    if (value === undefined) throw new Error("The process has ended");
    return Number(value);
  }

  /** Ends the process. */
  async close() {
    // The process may have ended already.
    await this.#input.close().catch(() => {});
    await this.#lines.cancel();
    await this.#process.status;
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

function splitLines(): TransformStream<string, string> {
  let rest = "";
  return new TransformStream({
    transform(text, controller) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) controller.enqueue(line);
    },
  });
}
