/** What a process holds open, counted by the platform. */
import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import process from "node:process";
import { until } from "./support.ts";

const DESCRIPTORS = "/proc/self/fd";

/** How many sockets this process has, where the platform tells, which is Linux. */
export function countSockets(): number {
  if (process.platform !== "linux") return 0;
  return readdirSync(DESCRIPTORS).filter(isSocket).length;
}

function isSocket(descriptor: string): boolean {
  try {
    return readlinkSync(`${DESCRIPTORS}/${descriptor}`).startsWith("socket:");
  } catch {
    // The one that reads the folder has gone.
    return false;
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
