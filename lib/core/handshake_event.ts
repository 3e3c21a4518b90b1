/**
 * What happens during the opening handshake, as events (RFC 6455 §4).
 *
 * @module
 */
import type { ExtensionHeader, RawHeaders } from "./header.ts";

/** A client asks for a WebSocket. */
export interface RequestEvent {
  /** Tells the events apart. */
  type: "request";
  /** The value of the Host header. */
  host: string;
  /** The request target: path and query. */
  target: string;
  /** The subprotocols offered, the preferred one first. */
  protocols: readonly string[];
  /** The extensions offered, the preferred one first. */
  extensions: readonly ExtensionHeader[];
  /** The header fields but for those that the handshake writes by itself. */
  headers: RawHeaders;
}

/** A server agrees: from here on messages travel. */
export interface AcceptEvent {
  /** Tells the events apart. */
  type: "accept";
  /** The subprotocol chosen, or an empty string. */
  protocol: string;
  /** The extensions in use. */
  extensions: readonly ExtensionHeader[];
  /** The header fields but for those that the handshake writes by itself. */
  headers: RawHeaders;
}

/** A server refuses, in plain HTTP. */
export interface RejectEvent {
  /** Tells the events apart. */
  type: "reject";
  /** The status code. */
  status: number;
  /** The reason phrase. */
  statusText: string;
  /** The header fields. */
  headers: RawHeaders;
  /** Whether a body follows, as "rejectData" events. */
  hasBody: boolean;
}

/** A piece of the body of a refusal. */
export interface RejectDataEvent {
  /** Tells the events apart. */
  type: "rejectData";
  /** The bytes, out of their framing. There may be none in the last piece. */
  data: Uint8Array;
  /** Whether the body ends with this piece. */
  bodyFinished: boolean;
}

/** What an `Endpoint` receives during the opening handshake. */
export type HandshakeEvent = RequestEvent | AcceptEvent | RejectEvent | RejectDataEvent;

/** Which of the supported extensions to use. */
export interface ExtensionChoice {
  /** Their names, as received or as the supported ones are. Default: all that are supported */
  extensions?: readonly { readonly name: string }[];
}

/** A request to send; offers no subprotocol and adds no header fields where it does not say. */
export type OutgoingRequest =
  & Pick<RequestEvent, "type" | "host" | "target">
  & Partial<Omit<RequestEvent, "extensions">>
  & ExtensionChoice
  & {
    /**
     * Sends it over HTTP/2, with this scheme: "https" for a wss URL, "http" for a ws URL. Its head is
     * `Endpoint.fields`, and no bytes. Default: HTTP/1.1
     */
    scheme?: "http" | "https";
  };

/** An answer to send; chooses no subprotocol and adds no header fields where it does not say. */
export type OutgoingAccept =
  & Pick<AcceptEvent, "type">
  & Partial<Omit<AcceptEvent, "extensions">>
  & ExtensionChoice;

/**
 * A refusal to send: status 400 and no body where it does not say. One with a body announces it by
 * Content-Length or Transfer-Encoding: chunked among its header fields; without either it is chunked,
 * for a client of HTTP/1.0, and over HTTP/2, until the end of the connection or stream. The response to a
 * HEAD may announce a body and have none.
 */
export type OutgoingReject = Pick<RejectEvent, "type"> & Partial<RejectEvent>;

/** A piece of its body to send; the last one where it does not say. */
export type OutgoingRejectData = Pick<RejectDataEvent, "type" | "data"> & Partial<RejectDataEvent>;

/** What an `Endpoint` sends during the opening handshake. */
export type OutgoingHandshakeEvent =
  | OutgoingRequest
  | OutgoingAccept
  | OutgoingReject
  | OutgoingRejectData;
