/**
 * Which platform's transports are used where nobody names another.
 *
 * A file of its own so that the contract in `transport.ts` knows none of those who fulfil it.
 *
 * @module
 */
import type { TransportProvider } from "./transport.ts";

let provider: Promise<TransportProvider> | undefined;

/** The provider of the running platform. */
export function defaultProvider(): Promise<TransportProvider> {
  return provider ??= import("./runtime/node.ts").then((module) => module.nodeProvider);
}
