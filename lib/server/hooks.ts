/**
 * Calling the hooks of a server's user, and checking what they return.
 *
 * @module
 */
import { HandshakeError } from "../core/error.ts";
import type { RequestHead } from "../core/http1.ts";
import { toRequest } from "../http.ts";

/** The callbacks that report what goes wrong. */
export interface Listeners {
  /**
   * Told what a handler or a hook has thrown, and of a handler that has forgotten to await.
   *
   * @default {console.error}
   */
  onError?: (error: unknown) => void;
  /** Told of every handshake that is turned down. */
  onRefused?: (error: HandshakeError, request?: Request) => void;
}

/** Reports an error to `onError`. */
export function report(
  error: unknown,
  { onError = (error: unknown) => console.error(error) }: Listeners,
): void {
  call(() => onError(error), (second) => console.error(second));
}

/** Reports a handshake that is turned down to `onRefused`. */
export function reportRefused(
  error: HandshakeError,
  request: Request | undefined,
  listeners: Listeners,
): void {
  const { onRefused } = listeners;
  if (onRefused === undefined) return;
  call(() => onRefused(error, request), (thrown) => report(thrown, listeners));
}

/** The Request of a head, if one can be made. */
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

/**
 * Runs a hook of the user.
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

/** The error of a hook that threw, or that returned a wrong value. */
export function hookFailed(cause: unknown): HandshakeError {
  return new HandshakeError("A hook of the server failed", "hook-failed", { status: 500, cause });
}
