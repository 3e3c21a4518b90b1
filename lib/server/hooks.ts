/**
 * Calls the hooks of a server, and checks their results.
 *
 * @module
 */
import { HandshakeError } from "../core/error.ts";
import type { RequestHead } from "../core/http1.ts";
import { toRequest } from "../http.ts";

/** The callbacks that report errors. See `ServeOptions`. */
export interface Listeners {
  onError?: ((((error: unknown) => void) | undefined) | undefined) | undefined;
  onRefused?:
    | ((((error: HandshakeError, request?: Request) => void) | undefined) | undefined)
    | undefined;
}

export function report(
  error: unknown,
  { onError = (error: unknown) => console.error(error) }: Listeners,
): void {
  call(() => onError(error), (second) => console.error(second));
}

export function reportRefused(
  error: HandshakeError,
  request: Request | undefined,
  listeners: Listeners,
): void {
  const { onRefused } = listeners;
  if (onRefused === undefined) return;
  call(() => onRefused(error, request), (thrown) => report(thrown, listeners));
}

/** Makes the Request of a head, or returns undefined if the head has no Request. */
export function requestOf(head: RequestHead | undefined, secure: boolean): Request | undefined {
  try {
    return head && toRequest(head, secure);
  } catch {
    return undefined;
  }
}

/** Calls a listener. An asynchronous listener is not waited for, but its rejection is handled. */
function call(listener: () => unknown, onThrown: (error: unknown) => void): void {
  try {
    Promise.resolve(listener()).catch(onThrown);
  } catch (error) {
    onThrown(error);
  }
}

/** @throws {HandshakeError} If the hook throws or rejects ("hook-failed", status 500). */
export async function hook<T>(run: () => T | Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    throw hookFailed(cause);
  }
}

export function hookFailed(cause: unknown): HandshakeError {
  return new HandshakeError("A hook of the server failed", "hook-failed", { status: 500, cause });
}
