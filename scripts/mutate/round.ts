/** One round of mutation testing: finds the tests that reach each fault, and runs them with it. */
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { availableParallelism } from "node:os";
import type { TestCall, TestName, TestReport } from "./messages.ts";
import { type Mutant, mutate } from "./mutants.ts";
import { type Setting, Worker } from "./pool.ts";

const ROOT = new URL("../../", import.meta.url);
/** Tests that take longer are not run, in milliseconds of the processor. */
const QUICK = 300;

/** Tests that are shorter are tried first, if their file finds many faults. */
const SHORT = 20;

/** A fault and its end. */
export interface Result {
  mutant: Mutant;
  /** The test that failed. Undefined if the fault survived. */
  killer: TestName | undefined;
  /** The message of the failure. */
  message: string;
  /** Number of tests that reach the fault. */
  tests: number;
}

/** What a round reports while it runs. */
export interface Progress {
  surveyed(tests: number, left: readonly TestReport[]): void;
  judged(result: Result): void;
}

interface Survey {
  tests: TestReport[];
  /** Faults that are reached when the library is loaded. */
  loading: Set<number>;
}

/**
 * Plants faults in the files, and runs those that `choose` returns. A fault counts as a survivor after its tests
 * have taken the time of its budget, in milliseconds of the processor.
 */
export async function runRound(
  files: readonly string[],
  testFiles: readonly string[],
  choose: (mutants: Mutant[]) => Mutant[],
  budgetFor: (mutant: Mutant) => number,
  node: string,
  progress: Progress,
): Promise<void> {
  const folder = new URL(`.cache/mutate/${process.pid}/`, ROOT);
  const { mutants, mapping } = await plant(files, folder);
  const setting = { node, mapping, count: mutants.length };
  const survey = await surveyTests(setting, testFiles);
  const tests = survey.tests.filter((test) => isUsable(test));
  progress.surveyed(tests.length, survey.tests.filter((test) => !isUsable(test)));
  const order = new Order(tests, survey.loading, mutants);
  const queue = order.cheapestFirst(choose(mutants));
  await inParallel(async () => {
    const worker = new Worker(setting);
    for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
      const tests = order.testsFor(mutant, budgetFor(mutant));
      const result = await judge(mutant, tests, order, setting, worker);
      if (result.killer) order.killed(mutant, result.killer);
      progress.judged(result);
    }
    await worker.end();
  });
  await Deno.remove(folder, { recursive: true });
}

function isUsable({ failure, milliseconds }: TestReport): boolean {
  return failure === undefined && milliseconds <= QUICK;
}

/** Writes the sources with faults into a folder. */
async function plant(
  files: readonly string[],
  folder: URL,
): Promise<{ mutants: Mutant[]; mapping: string }> {
  const mutants: Mutant[] = [];
  const sources: [url: string, path: string][] = [];
  await Deno.mkdir(folder, { recursive: true });
  for (const file of files) {
    const url = new URL(file, ROOT);
    const planted = mutate(file, await Deno.readTextFile(url), mutants.length + 1);
    mutants.push(...planted.mutants);
    const path = fileURLToPath(new URL(file.replaceAll("/", "_"), folder));
    await Deno.writeTextFile(path, planted.source);
    sources.push([pathToFileURL(fileURLToPath(url)).href, path]);
  }
  const mapping = fileURLToPath(new URL("sources.json", folder));
  await Deno.writeTextFile(mapping, JSON.stringify(sources));
  return { mutants, mapping };
}

async function surveyTests(setting: Setting, files: readonly string[]): Promise<Survey> {
  const survey: Survey = { tests: [], loading: new Set() };
  const queue = [...files];
  await inParallel(async () => {
    const worker = new Worker(setting);
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const loading = await worker.survey([file], (report) => survey.tests.push(report));
      if (survey.loading.size === 0) survey.loading = new Set(loading);
    }
    await worker.end();
  });
  return survey;
}

/** The tests for each fault: those of the file that is about it or finds most faults, then the quickest test of each file, and so on. */
class Order {
  readonly #tests: readonly TestReport[];
  readonly #loading: ReadonlySet<number>;
  readonly #byMutant = new Map<number, TestReport[]>();
  readonly #byFile = new Map<string, Set<TestReport>>();
  /** How many faults of each source file the tests of each file have found. */
  readonly #kills = new Map<string, Map<string, number>>();
  /** Tests that fail without a fault if they run alone. */
  readonly #unusable = new Set<TestName>();

  constructor(tests: TestReport[], loading: Set<number>, mutants: readonly Mutant[]) {
    this.#tests = tests;
    this.#loading = loading;
    for (const { id, file } of mutants) {
      this.#byMutant.set(id, []);
      if (!this.#byFile.has(file)) this.#byFile.set(file, new Set());
    }
    for (const test of tests) {
      for (const id of test.hits) {
        this.#byMutant.get(id)!.push(test);
        this.#byFile.get(mutants[id - 1].file)!.add(test);
      }
    }
  }

  /** Whether loading the library reaches the fault, so that it must be there from the start. */
  isEarly({ id }: Mutant): boolean {
    return this.#loading.has(id);
  }

  testsFor(mutant: Mutant, budget: number): TestReport[] {
    const { id, file } = mutant;
    let tests = this.#byMutant.get(id)!;
    const subject = file.replace(/^.*\/|\.ts$/g, "");
    if (this.isEarly(mutant)) {
      // A test that only reads a constant reaches no fault by itself.
      const ofFile = this.#byFile.get(file)!;
      const about = this.#tests.filter((test) => ofFile.has(test) || isAbout(test.file, subject));
      tests = about.length > 0 ? about : [...this.#tests];
    }
    const usable = tests.filter((test) => !this.#unusable.has(test));
    return inTurns(usable, subject, this.#bestFile(file), budget);
  }

  /** Sorts the faults that need a process of their own after the others of their file. */
  cheapestFirst(mutants: Mutant[]): Mutant[] {
    const byFile = Map.groupBy(mutants, ({ file }) => file);
    return [...byFile.values()].flatMap((ofFile) => {
      const { true: early = [], false: others = [] } = Object.groupBy(
        ofFile,
        (mutant) => `${this.isEarly(mutant)}` as "true" | "false",
      );
      return [...others, ...early];
    });
  }

  killed({ file }: Mutant, killer: TestName): void {
    const kills = this.#kills.get(file) ?? new Map<string, number>();
    this.#kills.set(file, kills);
    kills.set(killer.file, (kills.get(killer.file) ?? 0) + 1);
  }

  #bestFile(file: string): string | undefined {
    let best: [file: string, kills: number] | undefined;
    for (const entry of this.#kills.get(file) ?? []) {
      if (best === undefined || entry[1] > best[1]) best = entry;
    }
    return best?.[0];
  }

  drop(test: TestName): void {
    this.#unusable.add(test);
  }
}

/** Names of tests that do not have the name of the source that they are about. */
const TESTS_OF: Readonly<Record<string, string>> = { decoder: "frame", encoder: "frame" };

/** Whether a file such as `error_test.ts` is about a source such as `error_print`, or the reverse. */
function isAbout(file: string, subject: string): boolean {
  const name = file.replace(/^.*\/|_test\.ts$/g, "");
  return name.includes(subject) || subject.startsWith(name) || name === TESTS_OF[subject];
}

function inTurns(
  tests: TestReport[],
  subject: string,
  best: string | undefined,
  budget: number,
): TestReport[] {
  const seen = new Map<string, number>();
  const turn = new Map<TestReport, number>();
  for (const test of tests.sort((a, b) => a.milliseconds - b.milliseconds)) {
    const before = seen.get(test.file) ?? 0;
    seen.set(test.file, before + 1);
    const isFirst = (test.file === best || isAbout(test.file, subject)) &&
      test.milliseconds < SHORT;
    turn.set(test, isFirst ? -1 : before);
  }
  // The sort is stable: equal turns stay in the order of their time.
  const order = tests.sort((a, b) => turn.get(a)! - turn.get(b)!);
  let time = 0;
  return order.filter(({ milliseconds }) => (time += milliseconds) - milliseconds < budget);
}

/** Runs the tests of a fault, and makes sure that the fault is to blame for a failure. */
async function judge(
  mutant: Mutant,
  tests: readonly TestReport[],
  order: Order,
  setting: Setting,
  shared: Worker,
): Promise<Result> {
  const early = order.isEarly(mutant);
  const result: Result = { mutant, killer: undefined, message: "", tests: tests.length };
  let left: readonly TestReport[] = tests;
  while (left.length > 0) {
    const worker = early ? new Worker(setting, mutant.id) : shared;
    const calls = left.map(callOf);
    const verdict = await worker.judge(mutant.id, calls);
    if (early) await worker.end();
    if (verdict.state === "survived") break;
    const test = left[verdict.at];
    const certain = verdict.state === "killed" ||
      await failsAlone(test, mutant, early, setting, order);
    if (certain) return { ...result, killer: test, message: verdict.message };
    left = left.slice(verdict.at + 1);
  }
  return result;
}

function callOf({ file, name, passed }: TestReport): TestCall {
  return { file, name, passed };
}

/** Whether the test fails with the fault and passes without it, each time in a process of its own. */
async function failsAlone(
  test: TestReport,
  { id }: Mutant,
  early: boolean,
  setting: Setting,
  order: Order,
): Promise<boolean> {
  const run = async (fault: number): Promise<boolean> => {
    const worker = new Worker(setting, early ? fault : 0);
    const { state } = await worker.judge(fault, [callOf(test)]);
    await worker.end();
    return state !== "survived";
  };
  if (!await run(id)) return false;
  if (!await run(0)) return true;
  order.drop(test);
  return false;
}

function inParallel(work: () => Promise<void>): Promise<unknown> {
  return Promise.all(Array.from({ length: Math.max(availableParallelism(), 2) }, work));
}
