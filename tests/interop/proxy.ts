/** A proxy of somebody else's in front of a server. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commandOf, type PEERS } from "./peers.ts";
import { accepts, freePort, HOST } from "./ports.ts";

export { HOST };

/**
 * Runs a test with a proxy.
 *
 * @param configure gives the text of its configuration, where it listens at the port and keeps its files
 * in the folder
 * @param args its arguments, the configuration's path behind them
 */
export async function withProxy(
  peer: (typeof PEERS)[keyof typeof PEERS],
  configure: (port: number, folder: string) => string,
  args: (file: string, folder: string) => string[],
  run: (port: number) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "sluice-proxy-"));
  const port = await freePort();
  const file = join(folder, "proxy.conf");
  await writeFile(file, configure(port, folder));
  const [command, ...first] = commandOf(peer);
  const proxy = spawn(command, [...first, ...args(file, folder)], { stdio: "ignore" });
  const gone = once(proxy, "exit");
  try {
    let listening = false;
    while (!listening) {
      assert.equal(proxy.exitCode, null, `${command} has ended`);
      listening = await accepts(port);
    }
    await run(port);
  } finally {
    proxy.kill("SIGKILL");
    await gone;
    await rm(folder, { recursive: true, force: true });
  }
}
