/**
 * The events of a connection after the opening handshake.
 *
 * @module
 */
import { CloseCode } from "./close.ts";
import type { HandshakeEvent } from "./handshake_event.ts";
import type { BinaryEvent, Fragment, TextEvent } from "./message.ts";

/** A ping (RFC 6455 §5.5.2). */
export interface PingEvent {
  /** The type of the event. */
  type: "ping";
  /** The payload, at most 125 bytes. */
  payload: Uint8Array;
}

/** A pong (RFC 6455 §5.5.3). */
export interface PongEvent {
  /** The type of the event. */
  type: "pong";
  /** The payload, at most 125 bytes. */
  payload: Uint8Array;
}

/** The closing handshake, or the end of the transport without one (RFC 6455 §5.5.1, §7.1.5). */
export interface CloseEvent {
  /** The type of the event. */
  type: "close";
  /** The close code, 1005 if the frame has none, or 1006 if no frame was received. */
  closeCode: number;
  /** The reason, or an empty string. */
  reason: string;
}

/** An event that a `Protocol` receives after the opening handshake. */
export type ProtocolEvent = Fragment | PingEvent | PongEvent | CloseEvent;

/**
 * An event to send. Fields that have a default may be omitted: a piece is the last of its message,
 * a ping or pong has no payload, and a Close has neither code nor reason.
 */
export type OutgoingEvent =
  | (Pick<TextEvent, "type" | "data"> & Partial<TextEvent>)
  | (Pick<BinaryEvent, "type" | "data"> & Partial<BinaryEvent>)
  | (Pick<PingEvent, "type"> & Partial<PingEvent>)
  | (Pick<PongEvent, "type"> & Partial<PongEvent>)
  | (Pick<CloseEvent, "type"> & Partial<CloseEvent>);

/** Adds the defaults to an event to send. Throws a TypeError if the event is not valid. */
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
 * Returns the event that answers another event: a pong with the payload of a ping (RFC 6455
 * §5.5.3), or a Close with the code and reason of a Close (§5.5.1). Returns undefined for all other
 * events.
 */
export function response(
  event: ProtocolEvent | HandshakeEvent,
): PongEvent | CloseEvent | undefined {
  if (event.type === "ping") return { type: "pong", payload: event.payload };
  if (event.type !== "close" || event.closeCode === CloseCode.Abnormal) return undefined;
  return { type: "close", closeCode: event.closeCode, reason: event.reason };
}
