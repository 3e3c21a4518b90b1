/** Collects garbage on demand, for tests that measure memory. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

const { Bun } = globalThis as { Bun?: { gc(force: boolean): void } };

function collector(): () => void {
  if (Bun !== undefined) return () => Bun.gc(true);
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc");
}

const collect = collector();

/** Collects all garbage before it returns. It repeats, because V8 frees the memory of buffers late. */
export function collectGarbage(): void {
  for (let again = 0; again < 2; again++) collect();
}
