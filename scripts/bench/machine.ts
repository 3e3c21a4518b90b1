/** Describes the environment of a result: the versions and the machine, without its name. */
import { cpus, release } from "node:os";
import config from "../../deno.json" with { type: "json" };
import { run } from "../process.ts";
import type { Runtime } from "../runtimes.ts";
import { PYTHON } from "./peer.ts";
import { FIRST } from "./suite.ts";

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
export async function versions(runtime: Runtime): Promise<Record<string, string>> {
  const { name, engine, version } = runtime;
  // On Bun, ws is part of the runtime.
  const packages = engine === "node" ? ["ws", "bufferutil", "undici"] as const : ["ws"] as const;
  const python = name === FIRST ? await pythonWebsockets() : undefined;
  return {
    [name]: version,
    sluice: config.version,
    ...engine === "bun" ? {} : Object.fromEntries(
      packages.map((name) => [name, config.imports[name].split("@").at(-1)!]),
    ),
    ...python === undefined ? {} : { "python3-websockets": python },
    load: `deno ${Deno.version.deno}`,
  };
}

/** The version of python3-websockets; undefined if it is not installed. */
export async function pythonWebsockets(): Promise<string | undefined> {
  try {
    const code = "import websockets; print(websockets.__version__)";
    const result = await run(PYTHON, ["-c", code]);
    return result.code === 0 ? result.output.trim() : undefined;
  } catch {
    return undefined;
  }
}
