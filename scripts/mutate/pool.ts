/** Workers that run tests with planted faults, and are ended if they do not answer. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { MARK, type Request, type TestCall, type TestReport, type Verdict } from "./messages.ts";

const WORKER = fileURLToPath(new URL("./worker.ts", import.meta.url));
/** Milliseconds without an answer after which a worker is in an endless loop, unless it asks for others. */
const PATIENCE = 60_000;
const HEAP = "--max-old-space-size=600";

/** What workers need to know. */
export interface Setting {
  /** Path of Node. */
  node: string;
  /** Path of a file with the paths of the sources. */
  mapping: string;
  /** Number of faults. */
  count: number;
}

type Answer = { at: number; patience: number } | Verdict | TestReport | { loading: number[] } | {
  done: true;
};

/** A process that runs tests. It starts when it is needed. */
export class Worker {
  readonly #setting: Setting;
  readonly #active: number;
  #child: ChildProcess | undefined;
  #listen: (answer: Answer | undefined) => void = () => {};

  /** @param active The fault that is switched on before anything is loaded, or 0. */
  constructor(setting: Setting, active = 0) {
    this.#setting = setting;
    this.#active = active;
  }

  /** Reports the tests of the files. Returns the faults that are reached when the library is loaded. */
  async survey(
    files: readonly string[],
    report: (report: TestReport) => void,
  ): Promise<number[]> {
    let loading: number[] = [];
    const answered = await this.#ask({ survey: files }, (answer) => {
      if ("loading" in answer) loading = answer.loading;
      if ("name" in answer) report(answer);
      return "done" in answer;
    });
    if (!answered) throw new Error(`The worker ended while it ran ${files.join(", ")}`);
    return loading;
  }

  /** Runs tests with a fault, until one of them fails. */
  async judge(mutant: number, tests: readonly TestCall[]): Promise<Verdict> {
    let at = 0;
    let verdict: Verdict | undefined;
    const answered = await this.#ask({ mutant, tests }, (answer) => {
      if ("state" in answer) verdict = answer;
      else if ("at" in answer) at = answer.at;
      return verdict !== undefined;
    });
    if (!answered) verdict = { state: "slow", at, message: "the process does not answer" };
    if (verdict!.state !== "survived" && verdict!.state !== "killed") await this.end();
    return verdict!;
  }

  /** Sends a request. Returns false if the worker had to be ended. */
  async #ask(request: Request, isLast: (answer: Answer) => boolean): Promise<boolean> {
    this.#child ??= this.#start();
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`);
    let timer: ReturnType<typeof setTimeout>;
    const done = await new Promise<boolean>((resolve) => {
      const wait = (patience = PATIENCE) => timer = setTimeout(() => resolve(false), patience);
      wait();
      this.#listen = (answer) => {
        clearTimeout(timer);
        if (answer === undefined) resolve(false);
        else if (isLast(answer)) resolve(true);
        else wait("patience" in answer ? answer.patience : undefined);
      };
    });
    clearTimeout(timer!);
    if (!done) await this.end();
    return done;
  }

  #start(): ChildProcess {
    const { node, mapping, count } = this.#setting;
    const args = [HEAP, "--no-warnings", WORKER, mapping, `${count}`, `${this.#active}`];
    const child = spawn(node, args, {
      stdio: ["pipe", "pipe", process.env.DEBUG_MUTATE ? "inherit" : "ignore"],
      env: { ...process.env, SKIPS: "" },
    });
    child.stdin.on("error", () => {});
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (line.startsWith(MARK) && child === this.#child) this.#listen(JSON.parse(line.slice(1)));
    });
    child.on("exit", () => {
      if (child === this.#child) this.#listen(undefined);
    });
    return child;
  }

  /** Ends the process. The next request starts another one. */
  async end(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  }
}
