/** Finds the transports and the compression of the running platform. */
import { HandshakeError } from "./core/error.ts";
import type { ExtensionFactory } from "./core/extension.ts";
import { MAX_MESSAGE_SIZE } from "./core/message.ts";
import { PerMessageDeflate } from "./core/permessage_deflate.ts";
import type { ConnectionOptions } from "./options.ts";
import type { TransportProvider } from "./transport.ts";

export async function defaultProvider(): Promise<TransportProvider> {
  // Deno has its own provider: on Deno, sockets of `node:tls` continue to read while they are paused.
  if ("Deno" in globalThis) return (await import("./runtime/deno.ts")).denoProvider;
  if ("Bun" in globalThis) return (await import("./runtime/bun.ts")).bunProvider;
  return (await import("./runtime/node.ts")).nodeProvider;
}

/**
 * Returns the extensions that the options ask for.
 * @param byDefault Whether to compress if the options do not say.
 * @throws {HandshakeError} If the options ask for compression and the platform has none ("unsupported").
 */
export function extensionsOf(
  options: Omit<ConnectionOptions, "signal">,
  byDefault: boolean,
): readonly ExtensionFactory[] | Promise<readonly ExtensionFactory[]> {
  const { extensions = [], compression = byDefault } = options;
  return compression === false ? extensions : withCompression(extensions, options);
}

async function withCompression(
  extensions: readonly ExtensionFactory[],
  { compression, maxMessageSize = MAX_MESSAGE_SIZE }: Omit<ConnectionOptions, "signal">,
): Promise<readonly ExtensionFactory[]> {
  const engine = await import("./runtime/zlib.ts").then(
    ({ deflateEngine }) => deflateEngine,
    () => undefined,
  );
  if (engine === undefined) {
    if (compression === undefined) return extensions;
    throw new HandshakeError("This platform does not support compression", "unsupported");
  }
  const options = typeof compression === "object" ? compression : {};
  const deflate = new PerMessageDeflate({ ...options, engine, maxMessageSize });
  // The caller may have given a PerMessageDeflate of their own.
  if (extensions.some(({ name }) => name === deflate.name)) return extensions;
  return [...extensions, deflate];
}
