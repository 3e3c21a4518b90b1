/** What a process holds open, counted by the platform. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import process from "node:process";
import { until } from "./support.ts";

const DESCRIPTORS = "/proc/self/fd";

/**
 * How many sockets this process has, on Linux; elsewhere 0. On Deno, Unix sockets without a name do not
 * count: it makes a pair of them when it has run for some seconds.
 */
export function countSockets(): number {
  const own = new Set(process.versions.deno === undefined ? [] : unnamedUnixSockets());
  return socketInodes().filter((inode) => !own.has(inode)).length;
}

/** How many of them are TCP. */
export function countTcpSockets(): number {
  const tcp = new Set(["tcp", "tcp6"].flatMap(rowsOf).map((row) => row[9]));
  return socketInodes().filter((inode) => tcp.has(inode)).length;
}

function socketInodes(): string[] {
  if (process.platform !== "linux") return [];
  return readdirSync(DESCRIPTORS).flatMap((descriptor) =>
    /^socket:\[(\d+)\]$/.exec(targetOf(descriptor))?.[1] ?? []
  );
}

function unnamedUnixSockets(): string[] {
  // A row has its inode in the seventh column, and the name, if there is one, in the eighth.
  return rowsOf("unix").filter((row) => row.length === 7).map((row) => row[6]);
}

/** The rows of a table of the kernel, as columns. */
function rowsOf(name: string): string[][] {
  const table = `/proc/self/net/${name}`;
  if (!existsSync(table)) return [];
  return readFileSync(table, "utf8").split("\n").map((row) => row.trim().split(/\s+/));
}

function targetOf(descriptor: string): string {
  try {
    return readlinkSync(`${DESCRIPTORS}/${descriptor}`);
  } catch {
    // The descriptor that reads the folder is gone.
    return "";
  }
}

/** What holds the event loop, by name: sockets, servers, timers. Bun names nothing. */
function activeResources(): string[] {
  return process.getActiveResourcesInfo().sort();
}

/**
 * Runs a test, and waits until nothing is left of what it opened. That no rejection is left unhandled is
 * what the test runners see to: each of them fails the test.
 */
export async function withoutLeak(run: () => Promise<unknown>): Promise<void> {
  const sockets = countSockets();
  const active = activeResources();
  await run();
  await until(() => countSockets() <= sockets);
  await until(() => activeResources().length <= active.length).catch(() => {
    assert.deepEqual(activeResources(), active);
  });
}

type Timer = ReturnType<typeof setTimeout>;

/**
 * Runs a test, and waits until none of the timers is left that were set meanwhile, those too that hold no
 * process open; gives how many there were.
 */
export async function withoutTimers(run: () => Promise<unknown>): Promise<number> {
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  const waiting = new Set<Timer>();
  let count = 0;
  const counting = (callback: (...args: unknown[]) => void, delay?: number, ...args: unknown[]) => {
    count++;
    const timer: Timer = set(() => {
      waiting.delete(timer);
      callback(...args);
    }, delay);
    waiting.add(timer);
    return timer;
  };
  // Those that hold no process open must not end it before their time.
  const hold = setInterval(() => {}, 1000);
  globalThis.setTimeout = counting as typeof setTimeout;
  globalThis.clearTimeout = ((timer: Timer) => {
    waiting.delete(timer);
    clear(timer);
  }) as typeof clearTimeout;
  try {
    await run();
    for (let turns = 0; turns < 200 && waiting.size > 0; turns++) {
      await new Promise((resolve) => set(resolve, 1));
    }
    assert.equal(waiting.size, 0, `${waiting.size} of ${count} timers are left`);
  } finally {
    clearInterval(hold);
    globalThis.setTimeout = set;
    globalThis.clearTimeout = clear;
  }
  return count;
}

/** A signal, how many listeners it has, and a way to abort it. */
export function watchedSignal(): {
  signal: AbortSignal;
  listeners: () => number;
  abort: (reason: unknown) => void;
} {
  const controller = new AbortController();
  const { signal } = controller;
  let count = 0;
  for (const [method, change] of [["addEventListener", 1], ["removeEventListener", -1]] as const) {
    const original = signal[method].bind(signal) as (...args: unknown[]) => void;
    signal[method] = (...args: unknown[]) => {
      count += change;
      original(...args);
    };
  }
  return { signal, listeners: () => count, abort: (reason) => controller.abort(reason) };
}
