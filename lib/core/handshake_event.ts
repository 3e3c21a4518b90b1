/**
 * The events of the opening handshake (RFC 6455 §4).
 *
 * @module
 */
import type { ExtensionHeader, RawHeaders } from "./header.ts";

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
  extensions?: readonly { readonly name: string }[];
}

/** A request to send. By default, it offers no subprotocol and adds no header fields. */
export type OutgoingRequest =
  & Pick<RequestEvent, "type" | "host" | "target">
  & Partial<Omit<RequestEvent, "extensions">>
  & ExtensionChoice
  & {
    /**
     * The scheme of a request over HTTP/2: "https" for a wss URL, "http" for a ws URL.
     * `Endpoint.fields` then has the head. Without it, the request uses HTTP/1.1.
     */
    scheme?: "http" | "https";
  };

/** An answer to send. By default, it chooses no subprotocol and adds no header fields. */
export type OutgoingAccept =
  & Pick<AcceptEvent, "type">
  & Partial<Omit<AcceptEvent, "extensions">>
  & ExtensionChoice;

/**
 * A refusal to send. By default, the status is 400 and there is no body. The header fields announce
 * a body with Content-Length or "Transfer-Encoding: chunked". Without either, the body is chunked;
 * over HTTP/2 and for an HTTP/1.0 client, it ends with the stream or connection. The response to a
 * HEAD may announce a body, but has none.
 */
export type OutgoingReject = Pick<RejectEvent, "type"> & Partial<RejectEvent>;

/** A piece of the body to send. By default, it is the last piece. */
export type OutgoingRejectData = Pick<RejectDataEvent, "type" | "data"> & Partial<RejectDataEvent>;

/** An event that an `Endpoint` sends during the opening handshake. */
export type OutgoingHandshakeEvent =
  | OutgoingRequest
  | OutgoingAccept
  | OutgoingReject
  | OutgoingRejectData;
