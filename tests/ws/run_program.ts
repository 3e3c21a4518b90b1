/**
 * Runs one of the programs in `programs/` on an implementation of `ws`, and prints its result as JSON:
 * `node run_program.ts NAME sluice|ws`. All modules that ask for the package `ws` get the implementation.
 */
import { Buffer } from "node:buffer";
import Module, { createRequire } from "node:module";
import process from "node:process";
import { IMPLEMENTATIONS, type Name } from "./implementations.ts";
import type { Program } from "./programs/program.ts";

const [program, name, load = "1"] = process.argv.slice(2);
const implementation = IMPLEMENTATIONS[name as Name];

interface Context {
  conditions: readonly string[];
}

type Resolve = (specifier: string, context: Context) => object;

interface Hooks {
  registerHooks(hooks: {
    resolve(specifier: string, context: Context, next: Resolve): object;
  }): void;
}

if (name === "sluice") {
  // What package.json would say in "exports": one file for import, and one for require().
  const module = { url: new URL("../../lib/ws.ts", import.meta.url).href };
  const commonjs = { url: new URL("shim.cjs", import.meta.url).href, format: "commonjs" };
  (Module as unknown as Hooks).registerHooks({
    resolve(specifier, context, next) {
      if (specifier !== "ws") return next(specifier, context);
      const found = context.conditions.includes("require") ? commonjs : module;
      return { ...found, shortCircuit: true };
    },
  });
  const found = createRequire(import.meta.url)("ws");
  if (found !== implementation.WebSocket) throw new Error("The package ws was not replaced");
}

const { run } = await import(`./programs/${program}.ts`) as { run: Program };
let messages = 0;
let cpu = 0;
const result = await run(implementation, {
  load: Number(load),
  async measure(count, work) {
    const before = process.cpuUsage();
    await work();
    const { user, system } = process.cpuUsage(before);
    messages += count;
    cpu += user + system;
  },
});
const line = JSON.stringify({ result, messages, seconds: cpu / 1e6 });
process.stdout.write(Buffer.from(`${line}\n`), () => process.exit(0));
