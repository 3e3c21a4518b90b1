/**
 * The transports and the compression of the running platform. No other module asks what the platform is.
 *
 * @module
 */
import type { DeflateEngine } from "./core/deflate.ts";
import type { TransportProvider } from "./transport.ts";

/** Loads the provider of the running platform. */
export async function defaultProvider(): Promise<TransportProvider> {
  // Sockets of `node:tls` on Deno continue to read while they are paused.
  if ("Deno" in globalThis) return (await import("./runtime/deno.ts")).denoProvider;
  if ("Bun" in globalThis) return (await import("./runtime/bun.ts")).bunProvider;
  return (await import("./runtime/node.ts")).nodeProvider;
}

/** Loads the engine that compresses on the running platform; undefined if there is none. */
export function defaultDeflate(): Promise<DeflateEngine | undefined> {
  return import("./runtime/zlib.ts").then(({ deflateEngine }) => deflateEngine, () => undefined);
}
