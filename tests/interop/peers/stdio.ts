/** Agents that are programs: commands on standard input, events on standard output. */
import { readFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { type End, run } from "./agent.ts";

/** The commands on standard input. Lines that come before the first is read are lost, so it is called late. */
export function commands(): AsyncIterable<string> {
  return createInterface({ input: process.stdin, crlfDelay: Infinity });
}

export function write(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Plays the ends in this program. */
export async function runHere(
  version: string,
  create: (tell: (told: object) => void) => End,
): Promise<void> {
  await run(version, create, { commands: commands(), write });
  process.exit();
}

/** The version of an installed npm package, and of Node. */
export function packageVersion(name: string): string {
  const path = new URL(`../../../node_modules/${name}/package.json`, import.meta.url);
  return `${name} ${JSON.parse(readFileSync(path, "utf8")).version}, Node ${process.versions.node}`;
}
