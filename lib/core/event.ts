/**
 * The events of a connection, from the opening handshake (RFC 6455 §4) to its end.
 *
 * @module
 */
import { wrongType } from "./error.ts";
import { CloseCode } from "./close.ts";
import type { ExtensionHeader, RawHeaders } from "./header.ts";
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

/** The type with all members optional; undefined counts as missing. */
export type Optional<T> = { [name in keyof T]?: T[name] | undefined };

/**
 * An event to send. Fields that have a default may be omitted: a piece is the last of its message,
 * a ping or pong has no payload, and a Close has neither code nor reason.
 */
export type OutgoingEvent =
  | (Pick<TextEvent, "type" | "data"> & Optional<TextEvent>)
  | (Pick<BinaryEvent, "type" | "data"> & Optional<BinaryEvent>)
  | (Pick<PingEvent, "type"> & Optional<PingEvent>)
  | (Pick<PongEvent, "type"> & Optional<PongEvent>)
  | (Pick<CloseEvent, "type"> & Optional<CloseEvent>);

/** Adds the defaults to an event to send. Throws a TypeError if the event is not valid. */
export function complete(event: OutgoingEvent): ProtocolEvent {
  switch (event?.type) {
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
      throw wrongType(
        `There is no event of the type ${String((event as { type?: unknown } | undefined)?.type)}`,
      );
  }
}

function wrongData(type: string, data: unknown): TypeError {
  const expected = type === "text" ? "a string" : "a Uint8Array";
  return wrongType(
    `Expected the data of a ${type} event to be ${expected}, received ${typeof data}`,
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

/** A client asks for a WebSocket. */
export interface RequestEvent {
  /** The type of the event. */
  type: "request";
  /** The value of the Host header. */
  host: string;
  /** The request target: path and query. */
  target: string;
  /** The offered subprotocols, in order of preference. */
  protocols: readonly string[];
  /** The offered extensions, in order of preference. */
  extensions: readonly ExtensionHeader[];
  /** The header fields except those that the handshake writes itself. */
  headers: RawHeaders;
}

/** A server accepts the WebSocket. Messages may follow. */
export interface AcceptEvent {
  /** The type of the event. */
  type: "accept";
  /** The chosen subprotocol, or an empty string. */
  protocol: string;
  /** The extensions in use. */
  extensions: readonly ExtensionHeader[];
  /** The header fields except those that the handshake writes itself. */
  headers: RawHeaders;
}

/** A server refuses the WebSocket with an HTTP response. */
export interface RejectEvent {
  /** The type of the event. */
  type: "reject";
  /** The status code. */
  status: number;
  /** The reason phrase. */
  statusText: string;
  /** The header fields. */
  headers: RawHeaders;
  /** Whether a body follows, in "rejectData" events. */
  hasBody: boolean;
}

/** A piece of the body of a refusal. */
export interface RejectDataEvent {
  /** The type of the event. */
  type: "rejectData";
  /** The bytes of the body, without framing. The last piece may be empty. */
  data: Uint8Array;
  /** Whether the body ends with this piece. */
  bodyFinished: boolean;
}

/** An event that an `Endpoint` receives during the opening handshake. */
export type HandshakeEvent = RequestEvent | AcceptEvent | RejectEvent | RejectDataEvent;

/** The extensions to use. */
export interface ExtensionChoice {
  /** The names of the extensions. By default, all supported extensions. */
  extensions?: readonly { readonly name: string }[] | undefined;
}

/** A request to send. By default, it offers no subprotocol and adds no header fields. */
export type OutgoingRequest =
  & Pick<RequestEvent, "type" | "host" | "target">
  & Optional<Omit<RequestEvent, "extensions">>
  & ExtensionChoice
  & {
    /**
     * The scheme of a request over HTTP/2: "https" for a wss URL, "http" for a ws URL.
     * `Endpoint.fields` then has the head. Without it, the request uses HTTP/1.1.
     */
    scheme?: "http" | "https" | undefined;
  };

/** An answer to send. By default, it chooses no subprotocol and adds no header fields. */
export type OutgoingAccept =
  & Pick<AcceptEvent, "type">
  & Optional<Omit<AcceptEvent, "extensions">>
  & ExtensionChoice;

/**
 * A refusal to send. By default, the status is 400 and there is no body. The header fields announce
 * a body with Content-Length or "Transfer-Encoding: chunked". Without either, the body is chunked;
 * over HTTP/2 and for an HTTP/1.0 client, it ends with the stream or connection. The response to a
 * HEAD may announce a body, but has none.
 */
export type OutgoingReject = Pick<RejectEvent, "type"> & Optional<RejectEvent>;

/** A piece of the body to send. By default, it is the last piece. */
export type OutgoingRejectData = Pick<RejectDataEvent, "type" | "data"> & Optional<RejectDataEvent>;

/** An event that an `Endpoint` sends during the opening handshake. */
export type OutgoingHandshakeEvent =
  | OutgoingRequest
  | OutgoingAccept
  | OutgoingReject
  | OutgoingRejectData;
