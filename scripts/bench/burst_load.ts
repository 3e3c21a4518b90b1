/**
 * A load in a separate process, compiled from `burst.c`: each connection sends a whole window of frames
 * in one write, and the next window after all of them have come back. It needs a C compiler.
 */
import { mustRun, ROOT } from "../process.ts";
import { firstByteOf } from "./frames.ts";
import type { Load } from "./lane.ts";
import type { LoadOptions } from "./load.ts";
import { LineProcess } from "./measured.ts";
import type { Figures } from "./statistics.ts";

const SOURCE = new URL("burst.c", import.meta.url);
const PROGRAM = new URL(".cache/bench/burst", ROOT);

/** What the connections do. `burst.c` describes it. */
export type BurstMode = "echo" | "fanout" | "socket.io" | "paced" | "hold";

export interface BurstOptions {
  /** Default: "echo" */
  mode?: BurstMode;
  /** Whether the time of each window is a figure. */
  isTimed?: boolean;
  /** Number of messages a second, for the mode "paced". */
  rate?: number;
}

/** Connections to one or more servers, held by a separate process. */
export class BurstLoad implements Load {
  readonly #process: LineProcess;
  readonly #isTimed: boolean;
  readonly #rate: number | undefined;
  #figures: Figures = {};

  private constructor(process: LineProcess, isTimed: boolean, rate: number | undefined) {
    this.#process = process;
    this.#isTimed = isTimed;
    this.#rate = rate;
  }

  /**
   * Compiles the program if it is older than its source, connects, and verifies the echo of one window.
   *
   * @param ports The ports over which the connections are spread.
   */
  static async connect(
    ports: number[],
    options: LoadOptions,
    { mode = "echo", isTimed = false, rate }: BurstOptions = {},
  ): Promise<BurstLoad> {
    await compile();
    const { connections, inFlight, type, size, fragments = 1, raw = false } = options;
    const sent = [inFlight, firstByteOf(type), size, fragments];
    const args = [ports.join(), connections, ...sent, Number(raw), mode].map(String);
    const process = new LineProcess({ command: PROGRAM.pathname, args });
    await process.numbers();
    return new BurstLoad(process, isTimed, rate);
  }

  async run(messages: number): Promise<number> {
    const line = `${messages} ${this.#rate ?? ""}`;
    const [count, p50, p99, p999] = await this.#process.ask(line);
    if (this.#isTimed) this.#figures = { p50, p99, p999 };
    return count;
  }

  figures(): Figures {
    return this.#figures;
  }

  async close() {
    await this.#process.close();
  }
}

/** Whether the program can be compiled here. */
export async function hasCompiler(): Promise<boolean> {
  return await compile().then(() => true, () => false);
}

async function compile() {
  const [source, program] = await Promise.all([SOURCE, PROGRAM].map(modified));
  if (program > source) return;
  await Deno.mkdir(new URL(".", PROGRAM), { recursive: true });
  await mustRun("cc", ["-O2", "-Wall", "-o", PROGRAM.pathname, SOURCE.pathname]);
}

async function modified(file: URL): Promise<number> {
  try {
    return (await Deno.stat(file)).mtime?.getTime() ?? 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}
