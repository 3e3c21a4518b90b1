/**
 * Takes the place of `node:test` in a worker: collects the tests of a file, and runs one of them at a time,
 * as often as it is asked to.
 */
import process from "node:process";

type Body = () => unknown;
type Hook = "before" | "after" | "beforeEach" | "afterEach";

interface Suite {
  title: string;
  parent: Suite | undefined;
  hooks: Record<Hook, Body[]>;
  skipped: boolean;
}

/** A test that can be run again and again. */
export interface Test {
  name: string;
  suite: Suite;
  body: Body;
}

function newSuite(title: string, parent: Suite | undefined, skipped: boolean): Suite {
  const hooks = { before: [], after: [], beforeEach: [], afterEach: [] };
  return { title, parent, hooks, skipped: skipped || parent?.skipped === true };
}

let suite = newSuite("", undefined, false);
let collected: Test[] = [];
/** How many tests of the file have the name. */
const titles = new Map<string, number>();

function isSkipped(options: unknown): boolean {
  const { skip, todo } = options as { skip?: unknown; todo?: unknown };
  return Boolean(skip) || Boolean(todo);
}

export function describe(title: string, ...rest: unknown[]): void {
  const body = rest.at(-1) as Body;
  const outside = suite;
  suite = newSuite(title, outside, rest.length > 1 && isSkipped(rest[0]));
  try {
    body();
  } finally {
    suite = outside;
  }
}

export function it(title: string, ...rest: unknown[]): void {
  const body = rest.at(-1);
  if (suite.skipped || typeof body !== "function") return;
  if (rest.length > 1 && isSkipped(rest[0])) return;
  let name = title;
  for (let at: Suite | undefined = suite; at?.parent; at = at.parent) {
    name = `${at.title} > ${name}`;
  }
  const copies = (titles.get(name) ?? 0) + 1;
  titles.set(name, copies);
  if (copies > 1) name += ` #${copies}`;
  collected.push({ name, suite, body: body as Body });
}

export const test = it;
export const before = (body: Body): unknown => suite.hooks.before.push(body);
export const after = (body: Body): unknown => suite.hooks.after.push(body);
export const beforeEach = (body: Body): unknown => suite.hooks.beforeEach.push(body);
export const afterEach = (body: Body): unknown => suite.hooks.afterEach.push(body);

/** Imports a file, and returns its tests. */
export async function testsOf(url: string): Promise<Test[]> {
  collected = [];
  titles.clear();
  suite = newSuite("", undefined, false);
  await import(url);
  return collected;
}

// Tests may replace these.
const { setInterval, clearInterval, setImmediate } = globalThis;

/** Milliseconds without anything to wait for, after which a test will never end. */
const IDLE = 120;
const TICK = 20;
/** A tick that takes more microseconds of the processor shows that another thread works. */
const BUSY = 2000;

/** What an attempt came to: nothing if the test passed. */
export interface Failure {
  message: string;
  /** Whether the test did not end, so that it may still have an effect. */
  hung: boolean;
  /** Whether it might have ended, if it had had more time. */
  slow: boolean;
}

let fail: (error: unknown) => void = () => {};
process.on("uncaughtException", (error) => fail(error));
process.on("unhandledRejection", (error) => fail(error));

/** Runs a test, for at most `limit` milliseconds. */
export async function attempt(test: Test, limit: number): Promise<Failure | undefined> {
  let watch: unknown;
  try {
    return await new Promise<Failure | undefined>((resolve) => {
      fail = (error) => resolve({ message: describeError(error), hung: false, slow: false });
      watch = watchOver(limit, (message, slow) => resolve({ message, hung: true, slow }));
      runWithHooks(test).then(() => resolve(undefined), fail);
    });
  } finally {
    clearInterval(watch as number);
    fail = () => {};
  }
}

async function runWithHooks({ suite, body }: Test): Promise<void> {
  const suites: Suite[] = [];
  for (let at: Suite | undefined = suite; at; at = at.parent) suites.unshift(at);
  const run = async (hook: Hook, order: Suite[]) => {
    for (const { hooks } of order) for (const body of hooks[hook]) await body();
  };
  const inward = [...suites].reverse();
  await run("before", suites);
  try {
    await run("beforeEach", suites);
    try {
      await body();
    } finally {
      await run("afterEach", inward);
    }
  } finally {
    await run("after", inward);
  }
  // Rejections that nobody handles are reported before the next turn.
  await new Promise<void>((resolve) => setImmediate(resolve));
}

const baseline = process.getActiveResourcesInfo().length;

/**
 * Calls back when nothing is left that the test could wait for, or when the time has passed. It counts ticks,
 * because they come late on a busy machine, as everything does.
 */
function watchOver(limit: number, giveUp: (why: string, slow: boolean) => void): unknown {
  let idle = 0;
  let ticks = 0;
  let usage = process.cpuUsage();
  const timer = setInterval(() => {
    const { user, system } = process.cpuUsage(usage);
    usage = process.cpuUsage();
    const isWaiting = user + system > BUSY || process.getActiveResourcesInfo().length > baseline;
    idle = isWaiting ? 0 : idle + TICK;
    if (idle >= IDLE) giveUp("the test waits for nothing", false);
    else if (++ticks > limit / TICK) giveUp("the test takes too long", true);
  }, TICK) as unknown as { unref(): void };
  timer.unref();
  return timer;
}

function describeError(error: unknown): string {
  return String((error as Error | undefined)?.message ?? error).split("\n")[0].slice(0, 200);
}
