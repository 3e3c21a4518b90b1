/**
 * Calling the hooks of a server's user, and checking what they return.
 *
 * @module
 */
import { HandshakeError } from "../core/error.ts";
import type { RequestHead } from "../core/http1.ts";
import { toRequest } from "../http.ts";

/** The listeners of a server's user. */
export interface Listeners {
  /**
   * Told what a handler or a hook has thrown, and of a handler that has forgotten to await.
   * Default: `console.error`
   */
  onError?: (error: unknown) => void;
  /** Told of every handshake that is turned down. Default: nobody */
  onRefused?: (error: HandshakeError, request?: Request) => void;
}

/** Tells `onError`. */
export function report(
  error: unknown,
  { onError = (error: unknown) => console.error(error) }: Listeners,
): void {
  call(() => onError(error), (second) => console.error(second));
}

/** Tells `onRefused` of a handshake that is turned down. */
export function reportRefused(
  error: HandshakeError,
  request: Request | undefined,
  listeners: Listeners,
): void {
  const { onRefused } = listeners;
  if (onRefused === undefined) return;
  call(() => onRefused(error, request), (thrown) => report(thrown, listeners));
}

/** The Request of a head, where one can be made. */
export function requestOf(head: RequestHead | undefined, secure: boolean): Request | undefined {
  try {
    return head && toRequest(head, secure);
  } catch {
    return undefined;
  }
}

/** Calls a listener, which may be asynchronous though nobody waits for it. */
function call(listener: () => unknown, onThrown: (error: unknown) => void): void {
  try {
    Promise.resolve(listener()).catch(onThrown);
  } catch (error) {
    onThrown(error);
  }
}

/**
 * Runs code of the user's, whose failure is not the client's.
 *
 * @throws {HandshakeError} "hook-failed", status 500
 */
export async function hook<T>(run: () => T | Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    throw hookFailed(cause);
  }
}

/** The error of a hook that threw, or that returned what it must not return. */
export function hookFailed(cause: unknown): HandshakeError {
  return new HandshakeError("A hook of the server failed", "hook-failed", { status: 500, cause });
}

/** What was received, for an error message. */
export function kindOf(value: unknown): string {
  return value === null ? "null" : typeof value;
}
