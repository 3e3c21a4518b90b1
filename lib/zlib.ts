/**
 * The compression engine for `PerMessageDeflate` of the core. `connect()` and `serve()` load it by
 * themselves.
 *
 * @example
 * ```ts
 * import { PerMessageDeflate } from "sluice/core";
 * import { deflateEngine } from "sluice/zlib";
 *
 * const deflate = new PerMessageDeflate({ engine: deflateEngine, memory: "low" });
 * console.log(deflate.offer().length); // 2
 * ```
 *
 * @module
 */
export type {
  DeflateEngine,
  Deflater,
  DeflaterOptions,
  Inflater,
  InflaterOptions,
} from "./core/deflate.ts";
export { deflateEngine } from "./runtime/zlib.ts";
