/** Counts what a process holds open, as reported by the platform. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import process from "node:process";
import { until } from "./support.ts";

const DESCRIPTORS = "/proc/self/fd";

/**
 * The number of sockets of this process on Linux, 0 elsewhere. On Deno, Unix sockets without a name do not
 * count, because Deno creates a pair of them after some seconds.
 */
export function countSockets(): number {
  const own = new Set(process.versions.deno === undefined ? [] : unnamedUnixSockets());
  return socketInodes().filter((inode) => !own.has(inode)).length;
}

/** The number of TCP sockets of this process. */
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
  // A row has its inode in the seventh column, and the name, if the socket has one, in the eighth.
  return rowsOf("unix").filter((row) => row.length === 7).map((row) => row[6]);
}

/** The rows of a table of the kernel, split into columns. */
function rowsOf(name: string): string[][] {
  const table = `/proc/self/net/${name}`;
  if (!existsSync(table)) return [];
  return readFileSync(table, "utf8").split("\n").map((row) => row.trim().split(/\s+/));
}

function targetOf(descriptor: string): string {
  try {
    return readlinkSync(`${DESCRIPTORS}/${descriptor}`);
  } catch {
    // The descriptor that was used to read the folder is closed.
    return "";
  }
}

/** The names of what keeps the event loop running: sockets, servers, timers. Bun reports nothing. */
function activeResources(): string[] {
  return process.getActiveResourcesInfo().sort();
}

/**
 * Runs a test, and waits until everything that it opened is closed. Unhandled rejections are not checked
 * here, because the test runners fail a test for each of them.
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
 * Runs a test, and waits until none of the timers that it set is left, including those that do not keep the
 * process running. Returns the number of timers that the test set.
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
  // Without this timer the process could end before timers fire that do not keep it running.
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

/** A signal, the number of its listeners, and a function that aborts it. */
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
