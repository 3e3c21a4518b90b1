/** A browser without a window, for as long as a page needs. */
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { commandOf, PEERS } from "./peers.ts";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
  // The certificates are the tests' own.
  "--ignore-certificate-errors",
  "--js-flags=--expose-gc",
];

/** Shows a page until it has a result. */
export async function withBrowser<T>(page: string | URL, result: Promise<T>): Promise<T> {
  const profile = await mkdtemp(join(tmpdir(), "sluice-chromium-"));
  const [command, ...args] = commandOf(PEERS.chromium);
  const browser = spawn(command, [...args, ...FLAGS, `--user-data-dir=${profile}`, String(page)], {
    // Its helpers are ended with it.
    detached: true,
    stdio: "ignore",
  });
  const ended = new Promise((resolve) => browser.once("exit", resolve));
  const early = ended.then((): never => {
    throw new Error("The browser has ended by itself");
  });
  try {
    return await Promise.race([result, early]);
  } finally {
    early.catch(() => {});
    if (browser.exitCode === null) process.kill(-browser.pid!, "SIGKILL");
    await ended;
    await rm(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}
