/**
 * What happens on a connection after the opening handshake, as events.
 *
 * A file of its own because those who write events need not know the states of `protocol.ts`.
 *
 * @module
 */
import { CloseCode } from "./close.ts";
import type { Fragment } from "./message.ts";

/** A ping (RFC 6455 §5.5.2). */
export interface PingEvent {
  /** Tells the events apart. */
  type: "ping";
  /** At most 125 bytes. */
  payload: Uint8Array;
}

/** A pong (RFC 6455 §5.5.3). */
export interface PongEvent {
  /** Tells the events apart. */
  type: "pong";
  /** At most 125 bytes. */
  payload: Uint8Array;
}

/** The closing handshake, or the end of the transport without one (RFC 6455 §5.5.1, §7.1.5). */
export interface CloseEvent {
  /** Tells the events apart. */
  type: "close";
  /** The close code; 1005 where the frame carries none, 1006 where no frame came. */
  closeCode: number;
  /** The reason. */
  reason: string;
}

/** What a `Protocol` receives and sends after the opening handshake. */
export type ProtocolEvent = Fragment | PingEvent | PongEvent | CloseEvent;

/**
 * The event that answers another: a pong with the payload of a ping (RFC 6455 §5.5.3), a Close with
 * the code and reason of a Close (§5.5.1). Others need none.
 */
export function response(event: ProtocolEvent): PongEvent | CloseEvent | undefined {
  if (event.type === "ping") return { type: "pong", payload: event.payload };
  if (event.type !== "close" || event.closeCode === CloseCode.Abnormal) return undefined;
  return { type: "close", closeCode: event.closeCode, reason: event.reason };
}
