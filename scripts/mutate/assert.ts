/**
 * Takes the place of `node:assert/strict` in a worker. It does not describe how values differ, because that
 * takes minutes for long arrays.
 */
import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";

function deepEqual(actual: unknown, expected: unknown, message?: string | Error): void {
  if (isDeepStrictEqual(actual, expected)) return;
  if (message instanceof Error) throw message;
  throw new assert.AssertionError({ message: message ?? "The values are not deeply equal" });
}

const quick: typeof assert = new Proxy(assert, {
  get: (target, name) =>
    name === "deepEqual" || name === "deepStrictEqual" ? deepEqual : Reflect.get(target, name),
});
export default quick;
