/**
 * The error for a call at the wrong moment.
 *
 * @module
 */

/** An InvalidStateError, as the web platform throws it. */
export function invalidState(message: string, cause?: unknown): DOMException {
  const error = new DOMException(message, "InvalidStateError");
  if (cause !== undefined) {
    Object.defineProperty(error, "cause", { value: cause, configurable: true, writable: true });
  }
  return error;
}
