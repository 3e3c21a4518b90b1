/**
 * The option `compression` as an extension.
 *
 * @module
 */
import { HandshakeError } from "./core/error.ts";
import type { ExtensionFactory } from "./core/extension.ts";
import { MAX_MESSAGE_SIZE } from "./core/message.ts";
import { PerMessageDeflate, type PerMessageDeflateOptions } from "./core/permessage_deflate.ts";
import { defaultDeflate } from "./default_provider.ts";
import type { ConnectionOptions } from "./options.ts";

/**
 * The extensions that the options ask for.
 *
 * @param byDefault whether to compress if the options do not say
 * @throws {HandshakeError} "unsupported" if the options ask for compression and the platform has none
 */
export function extensionsOf(
  options: Omit<ConnectionOptions, "signal">,
  byDefault: boolean,
): readonly ExtensionFactory[] | Promise<readonly ExtensionFactory[]> {
  const { extensions = [], compression = byDefault } = options;
  return compression === false ? extensions : withCompression(extensions, compression, options);
}

async function withCompression(
  extensions: readonly ExtensionFactory[],
  wanted: true | PerMessageDeflateOptions,
  { compression, maxMessageSize = MAX_MESSAGE_SIZE }: Omit<ConnectionOptions, "signal">,
): Promise<readonly ExtensionFactory[]> {
  const engine = await defaultDeflate();
  if (engine === undefined) {
    if (compression === undefined) return extensions;
    throw new HandshakeError("Expected a platform that can compress", "unsupported");
  }
  const options = wanted === true ? {} : wanted;
  const deflate = new PerMessageDeflate({ ...options, engine, maxMessageSize });
  // The caller may have configured the extension.
  if (extensions.some(({ name }) => name === deflate.name)) return extensions;
  return [...extensions, deflate];
}
