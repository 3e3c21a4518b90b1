/**
 * From when on a peer reads too slowly, and what becomes of its connection.
 *
 * A file of its own because the sends of one connection and a broadcast to many have the same rule.
 *
 * @module
 */
import { CloseCode, type CloseInfo } from "../core/close.ts";
import type { ConnectionOptions } from "../options.ts";

/** How many bytes may wait for a connection where the caller does not say. */
export const MAX_BUFFERED_AMOUNT = 1048576;

/**
 * What a message that waits as an object takes beside its own bytes, in bytes: the object, the promise of
 * its sender and the functions that settle it.
 */
export const MESSAGE_OVERHEAD = 768;

/** What is done about a peer that is too slow, where its sends do not just wait. */
export interface SlowPolicy {
  slow: "close" | "terminate";
  maxBufferedAmount: number;
}

/** The policy of a connection; none where sends just wait. */
export function slowPolicyOf(options: ConnectionOptions): SlowPolicy | undefined {
  const { slow = "wait", maxBufferedAmount = MAX_BUFFERED_AMOUNT } = options;
  return slow === "wait" ? undefined : { slow, maxBufferedAmount };
}

/** Whether a message of this length would make too much wait. One message is always let through. */
export function isTooMuch(waiting: number, length: number, most: number): boolean {
  return waiting > 0 && waiting + length > most;
}

/** What can be ended in both ways. */
export interface Endable {
  /** Starts the closing handshake. */
  startClose(info: CloseInfo): void;
  /** Ends the transport at once. */
  terminate(): void;
}

/** Ends a connection whose peer does not keep up. */
export function endAsSlow(connection: Endable, how: "close" | "terminate"): void {
  if (how === "terminate") connection.terminate();
  // RFC 6455 §7.4.1: the peer breaks a rule of ours.
  else connection.startClose({ closeCode: CloseCode.PolicyViolation, reason: "Too slow" });
}
