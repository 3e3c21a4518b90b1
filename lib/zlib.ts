/**
 * What compresses, for {@linkcode PerMessageDeflate} of the core. `connect()` and `serve()` find it by
 * themselves.
 *
 * An entry point of its own because the core has no platform.
 *
 * @example
 * ```ts
 * import { PerMessageDeflate } from "@sluice/sluice/core";
 * import { deflateEngine } from "@sluice/sluice/zlib";
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
