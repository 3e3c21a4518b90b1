/** The runtimes of the suite, whose paths the test runner passes in environment variables. */
import process from "node:process";
import { peerMissing } from "./it.ts";

/** A runtime that can run a program. */
export interface OtherRuntime {
  /** The name: deno, bun, node22, ... */
  name: string;
  /** The path of the binary; undefined if the runtime is missing. */
  path: string | undefined;
  /** The reason to skip a test that needs this runtime, or false. */
  skip: string | false;
}

const NAMES = ["deno", "bun", "node22", "node24", "node26"];

/** All runtimes of the suite, including the one that runs the tests. */
export const RUNTIMES: readonly OtherRuntime[] = NAMES.map((name) => {
  const variable = `RUNTIME_${name.toUpperCase()}`;
  const path = process.env[variable];
  const missing = path === undefined &&
    peerMissing(`${name}, which the runner gives by ${variable}`);
  // If everything is required to be installed, a missing runtime must fail the test.
  return { name, path, skip: process.env.PEERS === "required" ? false : missing };
});
