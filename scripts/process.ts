/** Runs other programs: keeps their output, limits their time or silence, and leaves none running. */

/** What a finished program left. */
export interface RunResult {
  /** Exit code; 128 and the signal's number when a signal ended it. */
  code: number;
  /** True when the program was killed: the deadline passed, or the program was silent for too long. */
  timedOut: boolean;
  /** Standard output and standard error, in the order they came. */
  output: string;
}

/** How to run a program. */
export interface RunOptions {
  /** Working directory; the repository by default. */
  cwd?: string | URL;
  /** Environment variables added to ours. */
  env?: Record<string, string>;
  /** Milliseconds after which the program and its children are killed. Default: 5 minutes */
  deadline?: number;
  /**
   * Milliseconds without output after which they are killed, instead of the deadline: a program that
   * shows its progress may take as long as it needs.
   */
  patience?: number;
  /** Whether output shows progress; other output does not count. Default: all does */
  isProgress?: (text: string) => boolean;
  /** Called with each piece of output as it comes. */
  onOutput?: (text: string) => void;
}

/** The root folder of the repository. */
export const ROOT: URL = new URL("../", import.meta.url);

const DEFAULT_DEADLINE = 5 * 60_000;
const running = new Set<Deno.ChildProcess>();
let interruptible = false;

/** Run a program to its end and keep its output. */
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
    // A process group of its own, so that the deadline ends its children too.
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

/** Number of ticks that a limit is counted in: a machine that stands still makes no ticks. */
const TICKS = 20;

/** Calls back when a program has used up its time. */
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

  /** Starts the time anew, if it is counted from the last output. */
  restart(): void {
    if (this.#byProgress) this.#left = TICKS;
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

/** Run a program that is expected to succeed; its output is in the error when it does not. */
export async function mustRun(
  command: string,
  args: string[],
  options: RunOptions = {},
): Promise<string> {
  const { code, timedOut, output } = await run(command, args, options);
  if (timedOut || code !== 0) {
    const end = timedOut ? "it ran out of time" : `exit code ${code}`;
    throw new Error(`Expected \`${command} ${args.join(" ")}\` to succeed: ${end}\n${output}`);
  }
  return output;
}

/** Run a program of a development dependency, like `tsc`; it must succeed. */
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

/** A process group of its own does not get the terminal's Ctrl-C, so pass it on. */
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
