/**
 * The option `compression` as an extension.
 *
 * A file of its own because the client and the server read it alike, and differ in their default.
 *
 * @module
 */
import { HandshakeError } from "./core/error.ts";
import type { ExtensionFactory } from "./core/extension.ts";
import { MAX_MESSAGE_SIZE } from "./core/message.ts";
import { PerMessageDeflate } from "./core/permessage_deflate.ts";
import { defaultDeflate } from "./default_provider.ts";
import type { ConnectionOptions } from "./options.ts";

/**
 * The extensions that the options ask for.
 *
 * @param byDefault whether messages are compressed where the options do not say
 * @throws {HandshakeError} "unsupported" when they do say, and the platform cannot
 */
export async function extensionsOf(
  { extensions = [], compression, maxMessageSize = MAX_MESSAGE_SIZE }: ConnectionOptions,
  byDefault: boolean,
): Promise<readonly ExtensionFactory[]> {
  const wanted = compression ?? byDefault;
  if (wanted === false) return extensions;
  const engine = await defaultDeflate();
  if (engine === undefined) {
    if (compression === undefined) return extensions;
    throw new HandshakeError("Expected a platform that can compress", "unsupported");
  }
  const options = wanted === true ? {} : wanted;
  const deflate = new PerMessageDeflate({ ...options, engine, maxMessageSize });
  // The caller may have set it up for themselves.
  if (extensions.some(({ name }) => name === deflate.name)) return extensions;
  return [...extensions, deflate];
}
