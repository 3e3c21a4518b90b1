/** Runs other programs. Keeps their output, limits their time or silence, and ends their children. */

/** The result of a finished program. */
export interface RunResult {
  /** Exit code, or 128 plus the number of the signal that ended the program. */
  code: number;
  /** Whether the program was killed because the deadline passed or because it was silent for too long. */
  timedOut: boolean;
  /** Standard output and standard error, in the order of their arrival. */
  output: string;
}

/** The options to run a program. */
export interface RunOptions {
  /** Working directory. Default: the repository */
  cwd?: string | URL;
  /** Environment variables to add to those of this process. */
  env?: Record<string, string>;
  /** Milliseconds after which the program and its children are killed. Default: 5 minutes */
  deadline?: number;
  /**
   * Milliseconds without output after which they are killed. Replaces the deadline: a program that
   * shows its progress may take as long as it needs.
   */
  patience?: number;
  /** Whether output shows progress. Other output does not count. Default: all output does */
  isProgress?: (text: string) => boolean;
  /** Called with each piece of output. */
  onOutput?: (text: string) => void;
}

/** The root folder of the repository. */
export const ROOT: URL = new URL("../", import.meta.url);

const DEFAULT_DEADLINE = 5 * 60_000;
const running = new Set<Deno.ChildProcess>();
let interruptible = false;

/** Runs a program to its end and keeps its output. */
export async function run(
  command: string,
  args: string[],
  options: RunOptions = {},
): Promise<RunResult> {
  killChildrenOnInterrupt();
  const child = new Deno.Command(command, {
    args,
    cwd: options.cwd ?? ROOT,
    env: options.env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    // Use a separate process group, so that the deadline ends the children too.
    detached: Deno.build.os !== "windows",
  }).spawn();
  running.add(child);

  const result: RunResult = { code: 0, timedOut: false, output: "" };
  const giveUp = () => {
    result.timedOut = true;
    kill(child);
  };
  const watch = new Watch(giveUp, options);
  const keep = (text: string) => {
    if (options.isProgress?.(text) ?? true) watch.restart();
    result.output += text;
    options.onOutput?.(text);
  };
  try {
    const [status] = await Promise.all([
      child.status,
      readText(child.stdout, keep),
      readText(child.stderr, keep),
    ]);
    result.code = status.code;
  } finally {
    watch.stop();
    running.delete(child);
  }
  return result;
}

/** Number of ticks that a limit is divided into. A machine that is suspended makes no ticks. */
const TICKS = 20;

/** Calls back when the time of a program has passed. */
class Watch {
  #left = TICKS;
  readonly #byProgress: boolean;
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(giveUp: () => void, { patience, deadline = DEFAULT_DEADLINE }: RunOptions) {
    this.#byProgress = patience !== undefined;
    this.#timer = setInterval(() => {
      if (--this.#left === 0) giveUp();
    }, (patience ?? deadline) / TICKS);
  }

  /** Restarts the time if it is counted from the last output. */
  restart(): void {
    if (this.#byProgress) this.#left = TICKS;
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

/** Runs a program that must succeed. If it fails, the error contains its output. */
export async function mustRun(
  command: string,
  args: string[],
  options: RunOptions = {},
): Promise<string> {
  const { code, timedOut, output } = await run(command, args, options);
  if (timedOut || code !== 0) {
    const end = timedOut ? "it ran out of time" : `exit code ${code}`;
    throw new Error(`\`${command} ${args.join(" ")}\` failed: ${end}\n${output}`);
  }
  return output;
}

/** Runs a program of a development dependency, like `tsc`, which must succeed. */
export async function runDevTool(name: string, args: string[], cwd: URL = ROOT): Promise<string> {
  const config = new URL("deno.json", ROOT).pathname;
  const program = new URL(`node_modules/.bin/${name}`, ROOT).pathname;
  return await mustRun(Deno.execPath(), ["run", "-A", "--config", config, program, ...args], {
    cwd,
  });
}

async function readText(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  keep: (s: string) => void,
) {
  for await (const text of stream.pipeThrough(new TextDecoderStream())) keep(text);
}

function kill(child: Deno.ChildProcess) {
  const target = Deno.build.os === "windows" ? child.pid : -child.pid;
  try {
    Deno.kill(target, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Ends the children on Ctrl-C, which the terminal does not send to other process groups. */
function killChildrenOnInterrupt() {
  if (interruptible) return;
  interruptible = true;
  const stop = () => {
    for (const child of running) kill(child);
    Deno.exit(130);
  };
  Deno.addSignalListener("SIGINT", stop);
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", stop);
}
