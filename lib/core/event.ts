/** The events of a connection, from the opening handshake (RFC 6455 §4) to its end. */
import { wrongType } from "./error.ts";
import { CloseCode } from "./close.ts";
import type { ExtensionHeader, RawHeaders } from "./header.ts";
import { type Fragment, plainView } from "./message.ts";

/** An event that a `Protocol` receives after the opening handshake. */
export type ProtocolEvent =
  | Fragment
  | {
    /** A ping (RFC 6455 §5.5.2). */
    type: "ping";
    /** The payload, at most 125 bytes. */
    payload: Uint8Array;
  }
  | {
    /** A pong (RFC 6455 §5.5.3). */
    type: "pong";
    /** The payload, at most 125 bytes. */
    payload: Uint8Array;
  }
  | {
    /** A Close frame, or the end of the transport without one (RFC 6455 §5.5.1, §7.1.5). */
    type: "close";
    /** The close code, 1005 if the frame has none, or 1006 if no frame was received. */
    closeCode: number;
    /** The reason, or an empty string. */
    reason: string;
  };

/** An event that an `Endpoint` receives. The first four types are of the opening handshake. */
export type EndpointEvent =
  | {
    /** A client asks for a WebSocket. */
    type: "request";
    /** The value of the Host header. */
    host: string;
    /** The request target: path and query, or a URL, whose host then counts instead of `host`. */
    target: string;
    /** The offered subprotocols, in order of preference. */
    protocols: readonly string[];
    /** The offered extensions, in order of preference. */
    extensions: readonly ExtensionHeader[];
    /** The header fields except those that the handshake writes itself. */
    headers: RawHeaders;
  }
  | {
    /** A server accepts the WebSocket. Messages may follow. */
    type: "accept";
    /** The chosen subprotocol, or an empty string. */
    protocol: string;
    /** The extensions in use. */
    extensions: readonly ExtensionHeader[];
    /** The header fields except those that the handshake writes itself. */
    headers: RawHeaders;
  }
  | {
    /** A server refuses the WebSocket with an HTTP response. */
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
  | {
    /** A piece of the body of a refusal. */
    type: "rejectData";
    /** The bytes of the body, without framing. The last piece may be empty. */
    data: Uint8Array;
    /** Whether the body ends with this piece. */
    bodyFinished: boolean;
  }
  | ProtocolEvent;

/** The received event of a type, such as `EventOf<"close">`. */
export type EventOf<T extends EndpointEvent["type"]> = Extract<EndpointEvent, { type: T }>;

/** The type with all members optional; undefined counts as missing. */
export type Optional<T> = { [name in keyof T]?: T[name] | undefined };

/**
 * An event to send. Fields that have a default may be omitted: a piece is the last of its message,
 * a ping or pong has no payload, and a Close has neither code nor reason.
 */
export type OutgoingEvent =
  | (Pick<EventOf<"text">, "type" | "data"> & Optional<EventOf<"text">>)
  | (Pick<EventOf<"binary">, "type" | "data"> & Optional<EventOf<"binary">>)
  | (Pick<EventOf<"ping">, "type"> & Optional<EventOf<"ping">>)
  | (Pick<EventOf<"pong">, "type"> & Optional<EventOf<"pong">>)
  | (Pick<EventOf<"close">, "type"> & Optional<EventOf<"close">>);

/**
 * An event that an `Endpoint` sends. Fields that have a default may be omitted:
 *
 * - A request offers no subprotocol, and an answer chooses none. Both add no header fields, and use
 *   all supported extensions, unless `extensions` names some of them.
 * - A request is one of HTTP/1.1. With a `scheme`, "https" for a wss URL or "http" for a ws URL, it
 *   is one of HTTP/2, and `Endpoint.fields` has the head.
 * - A refusal has the status 400 and no body. The header fields announce a body with Content-Length
 *   or "Transfer-Encoding: chunked". Without either, the body is chunked; over HTTP/2 and for an
 *   HTTP/1.0 client, it ends with the stream or connection. The response to a HEAD may announce a
 *   body, but has none.
 * - A piece of the body is the last one.
 */
export type OutgoingEndpointEvent =
  | (
    & Pick<EventOf<"request">, "type" | "host" | "target">
    & Optional<Omit<EventOf<"request">, "extensions">>
    & { extensions?: readonly { readonly name: string }[] | undefined }
    & { scheme?: "http" | "https" | undefined }
  )
  | (
    & Pick<EventOf<"accept">, "type">
    & Optional<Omit<EventOf<"accept">, "extensions">>
    & { extensions?: readonly { readonly name: string }[] | undefined }
  )
  | (Pick<EventOf<"reject">, "type"> & Optional<EventOf<"reject">>)
  | (Pick<EventOf<"rejectData">, "type" | "data"> & Optional<EventOf<"rejectData">>)
  | OutgoingEvent;

/** The sent event of a type. */
export type OutgoingOf<T extends EndpointEvent["type"]> = Extract<
  OutgoingEndpointEvent,
  { type: T }
>;

/** Adds the defaults to an event to send. Throws a TypeError if the event is not valid. */
export function complete(event: OutgoingEvent): ProtocolEvent {
  switch (event?.type) {
    case "text":
      if (typeof event.data !== "string") throw wrongData("text", event.data);
      return { ...event, frameFinished: true, messageFinished: event.messageFinished ?? true };
    case "binary":
      if (!(event.data instanceof Uint8Array)) throw wrongData("binary", event.data);
      return {
        ...event,
        data: plainView(event.data),
        frameFinished: true,
        messageFinished: event.messageFinished ?? true,
      };
    case "ping":
    case "pong": {
      const { type, payload = new Uint8Array(0) } = event;
      if (!(payload instanceof Uint8Array)) throw wrongData(type, payload);
      return { type, payload: plainView(payload) };
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
export function response(event: EndpointEvent): EventOf<"pong" | "close"> | undefined {
  if (event.type === "ping") return { type: "pong", payload: event.payload };
  if (event.type !== "close" || event.closeCode === CloseCode.Abnormal) return undefined;
  return { type: "close", closeCode: event.closeCode, reason: event.reason };
}
