/**
 * What a connection closes with when one of its streams is cancelled or aborted.
 *
 * @module
 */
import type { CloseInfo } from "../core/close.ts";
import { isScriptCloseCode, WebSocketError } from "../core/error.ts";

/** The platform's own class, if it has one. Its errors carry a code too. */
const { WebSocketError: Native } = globalThis as unknown as {
  WebSocketError?: typeof WebSocketError;
};

/**
 * Returns what to close with when a stream is cancelled or aborted. A WebSocketError gives the code, if a
 * script may send that code; an error of another connection may have any. For another error it is 1011,
 * unless the connection follows the standard, which has no code for it.
 */
export function closeInfoOf(reason: unknown, standard: boolean): CloseInfo {
  const slots = slotsOf(reason);
  if (slots === undefined) {
    return !standard && isFailure(reason) ? { closeCode: 1011 } : {};
  }
  const { closeCode, reason: text } = slots;
  return closeCode !== null && isScriptCloseCode(closeCode) ? { closeCode, reason: text } : {};
}

/**
 * Returns the code and reason of a WebSocketError, of this library or of the platform. Uses the getters
 * of the class, because properties of the error itself do not count.
 */
function slotsOf(reason: unknown): { closeCode: number | null; reason: string } | undefined {
  for (const { prototype } of [WebSocketError, Native ?? WebSocketError]) {
    try {
      return {
        closeCode: Reflect.get(prototype, "closeCode", reason),
        reason: Reflect.get(prototype, "reason", reason),
      };
    } catch {
      // It is not an error of this class.
    }
  }
}

/**
 * Whether a reason without a code is a failure. An AbortError is a deliberate end, and an object that
 * only looks like a WebSocketError is not trusted.
 */
function isFailure(reason: unknown): boolean {
  try {
    return reason instanceof Error && !(reason instanceof WebSocketError) &&
      reason.name !== "AbortError";
  } catch {
    // A getter or a proxy of the caller has thrown.
    return false;
  }
}
