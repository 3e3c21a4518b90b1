/** Describes the environment of a result: the versions and the machine, without its name. */
import { cpus, release } from "node:os";
import config from "../../deno.json" with { type: "json" };
import type { Runtime } from "../runtimes.ts";

/** The processor and the system. */
export function machine(): Record<string, string | number> {
  const [{ model }] = cpus();
  return {
    cpu: model.trim(),
    cores: navigator.hardwareConcurrency,
    system: Deno.build.os,
    kernel: release().split("-")[0],
  };
}

/** The versions of all peers on a runtime. `load` is the runtime of the other end. */
export function versions(runtime: Runtime): Record<string, string> {
  const { name, engine, version } = runtime;
  // On Bun, ws is part of the runtime.
  const packages = engine === "node" ? ["ws", "bufferutil", "undici"] as const : ["ws"] as const;
  return {
    [name]: version,
    sluice: config.version,
    ...engine === "bun" ? {} : Object.fromEntries(
      packages.map((name) => [name, config.imports[name].split("@").at(-1)!]),
    ),
    load: `deno ${Deno.version.deno}`,
  };
}
