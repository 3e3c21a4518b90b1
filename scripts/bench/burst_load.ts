/**
 * A load in a separate process, compiled from `burst.c`: each connection sends a whole window of frames
 * in one write, and the next window after all of them have come back. It needs a C compiler.
 */
import { mustRun, ROOT } from "../process.ts";
import { firstByteOf } from "./frames.ts";
import type { Load } from "./lane.ts";
import type { LoadOptions } from "./load.ts";
import { LineProcess } from "./measured.ts";

const SOURCE = new URL("burst.c", import.meta.url);
const PROGRAM = new URL(".cache/bench/burst", ROOT);

/** Whether messages come back on all connections, and how the messages are written. */
const FAN_OUT = { none: 0, plain: 1, "socket.io": 2 } as const;

/** Connections to one or more servers, held by a separate process. */
export class BurstLoad implements Load {
  readonly #process: LineProcess;

  private constructor(process: LineProcess) {
    this.#process = process;
  }

  /**
   * Compiles the program if it is older than its source, connects, and verifies the echo of one window.
   *
   * @param ports The ports over which the connections are spread.
   * @param fanOut Whether the messages of one connection come back on all connections.
   */
  static async connect(
    ports: number[],
    options: LoadOptions,
    fanOut: keyof typeof FAN_OUT = "none",
  ): Promise<BurstLoad> {
    await compile();
    const { connections, inFlight, type, size, raw = false } = options;
    const sent = [inFlight, firstByteOf(type), size];
    const args = [ports.join(), connections, ...sent, Number(raw), FAN_OUT[fanOut]].map(String);
    const process = new LineProcess({ command: PROGRAM.pathname, args });
    await process.number();
    return new BurstLoad(process);
  }

  run(messages: number): Promise<number> {
    return this.#process.ask(String(messages));
  }

  async close() {
    await this.#process.close();
  }
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
