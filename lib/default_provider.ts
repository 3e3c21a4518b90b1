/**
 * Which platform's transports are used where nobody names another.
 *
 * A file of its own so that the contract in `transport.ts` knows none of those who fulfil it. Nothing
 * else looks at what the platform is.
 *
 * @module
 */
import type { DeflateEngine } from "./core/deflate.ts";
import type { TransportProvider } from "./transport.ts";

let provider: Promise<TransportProvider> | undefined;

/** The provider of the running platform. */
export function defaultProvider(): Promise<TransportProvider> {
  return provider ??= load();
}

async function load(): Promise<TransportProvider> {
  // Where there is this one, node:tls reads on while it is paused.
  if ("Deno" in globalThis) return (await import("./runtime/deno.ts")).denoProvider;
  if ("Bun" in globalThis) return (await import("./runtime/bun.ts")).bunProvider;
  return (await import("./runtime/node.ts")).nodeProvider;
}

let engine: Promise<DeflateEngine | undefined> | undefined;

/** What compresses on the running platform; undefined where there is nothing. */
export function defaultDeflate(): Promise<DeflateEngine | undefined> {
  return engine ??= import("./runtime/zlib.ts").then(
    ({ deflateEngine }) => deflateEngine,
    () => undefined,
  );
}
