/** The other runtimes of the suite, whose paths its runner gives as environment variables. */
import process from "node:process";
import { peerMissing } from "./it.ts";

/** A runtime that can run a program. */
export interface OtherRuntime {
  /** Its name: deno, bun, node22, ... */
  name: string;
  /** The path of its binary; undefined where there is none. */
  path: string | undefined;
  /** Why a test that needs it is skipped, or false. */
  skip: string | false;
}

const NAMES = ["deno", "bun", "node22", "node24", "node26"];

/** All runtimes of the suite. The one that runs the tests is among them. */
export const RUNTIMES: readonly OtherRuntime[] = NAMES.map((name) => {
  const variable = `RUNTIME_${name.toUpperCase()}`;
  const path = process.env[variable];
  const missing = path === undefined &&
    peerMissing(`${name}, which the runner gives by ${variable}`);
  // Where everything is expected to be here, nothing passes by being left out.
  return { name, path, skip: process.env.PEERS === "required" ? false : missing };
});
