/**
 * What happens on a connection after the opening handshake, as events.
 *
 * A file of its own because those who write events need not know the states of `protocol.ts`.
 *
 * @module
 */
import { CloseCode } from "./close.ts";
import type { HandshakeEvent } from "./handshake_event.ts";
import type { BinaryEvent, Fragment, TextEvent } from "./message.ts";

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
 * What may be sent: an event, of which may be left out what is not special. Left out, a piece is the last
 * of its message, a ping or pong carries nothing, and a Close neither code nor reason.
 */
export type OutgoingEvent =
  | (Pick<TextEvent, "type" | "data"> & Partial<TextEvent>)
  | (Pick<BinaryEvent, "type" | "data"> & Partial<BinaryEvent>)
  | (Pick<PingEvent, "type"> & Partial<PingEvent>)
  | (Pick<PongEvent, "type"> & Partial<PongEvent>)
  | (Pick<CloseEvent, "type"> & Partial<CloseEvent>);

/**
 * Fills in what was left out. Internal.
 *
 * @throws {TypeError} for no event, and for data of another type than its own
 */
export function complete(event: OutgoingEvent): ProtocolEvent {
  switch (event.type) {
    case "text":
      if (typeof event.data !== "string") throw wrongData("text", event.data);
      return { ...event, frameFinished: true, messageFinished: event.messageFinished ?? true };
    case "binary":
      if (!(event.data instanceof Uint8Array)) throw wrongData("binary", event.data);
      return { ...event, frameFinished: true, messageFinished: event.messageFinished ?? true };
    case "ping":
    case "pong": {
      const { type, payload = new Uint8Array(0) } = event;
      if (!(payload instanceof Uint8Array)) throw wrongData(type, payload);
      return { type, payload };
    }
    case "close": {
      const { type, closeCode = CloseCode.NoStatus, reason = "" } = event;
      return { type, closeCode, reason };
    }
    default:
      throw new TypeError(
        `Expected an event, received the type ${String((event as { type?: unknown }).type)}`,
      );
  }
}

function wrongData(type: string, data: unknown): TypeError {
  const expected = type === "text" ? "a string" : "a Uint8Array";
  return new TypeError(
    `Expected the data of a ${type} event as ${expected}, received ${typeof data}`,
  );
}

/**
 * The event that answers another: a pong with the payload of a ping (RFC 6455 §5.5.3), a Close with
 * the code and reason of a Close (§5.5.1). Others need none.
 */
export function response(
  event: ProtocolEvent | HandshakeEvent,
): PongEvent | CloseEvent | undefined {
  if (event.type === "ping") return { type: "pong", payload: event.payload };
  if (event.type !== "close" || event.closeCode === CloseCode.Abnormal) return undefined;
  return { type: "close", closeCode: event.closeCode, reason: event.reason };
}
