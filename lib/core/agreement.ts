/**
 * What a client offers and a server chooses in the opening handshake: subprotocols and extensions.
 *
 * A file of its own because it is the same over HTTP/1.1 (RFC 6455 §4) and HTTP/2 (RFC 8441 §5).
 *
 * @module
 */
import { HandshakeError, type HandshakeErrorCode, LocalProtocolError } from "./error.ts";
import {
  type ExtensionHeader,
  headerValue,
  headerValues,
  isFieldValue,
  isToken,
  parseExtensions,
  parseProtocols,
  type RawHeaders,
  serializeExtensions,
  serializeProtocols,
} from "./header.ts";

/** The version of the protocol (RFC 6455 §4.1). */
export const VERSION = "13";

/** What both ends agreed on. */
export interface Agreement {
  /** The subprotocol, or an empty string. */
  readonly protocol: string;
  /** The extensions in use. */
  readonly extensions: readonly ExtensionHeader[];
}

/** What a client offers. */
export interface HandshakeOffer {
  /** The subprotocols offered, the preferred one first. Default: none */
  protocols?: readonly string[];
  /** The extensions offered, the preferred one first. Default: none */
  extensions?: readonly ExtensionHeader[];
  /**
   * Whether a server that chooses none of the subprotocols offered is an error, as it is in a
   * browser. Default: false
   */
  requireProtocol?: boolean;
}

/** What a client offered and where it comes from, as a server reads it. */
export interface ReceivedOffer {
  /** The subprotocols offered, in the client's order. */
  readonly protocols: readonly string[];
  /** The extensions offered, in the client's order. */
  readonly extensions: readonly ExtensionHeader[];
  /** The Origin header, where there is one. */
  readonly origin: string | undefined;
}

/** What a server answers. */
export interface AcceptOptions {
  /** The subprotocol chosen. Default: none */
  protocol?: string;
  /** The extensions accepted. Default: none */
  extensions?: readonly ExtensionHeader[];
  /** More header fields. Default: none */
  headers?: RawHeaders;
}

/** The header fields of a list of subprotocols and one of extensions, where there are any. */
function fieldsOf(
  protocols: readonly string[],
  extensions: readonly ExtensionHeader[],
): [string, string][] {
  const fields: [string, string][] = [];
  if (protocols.length > 0) fields.push(["Sec-WebSocket-Protocol", serializeProtocols(protocols)]);
  if (extensions.length > 0) {
    fields.push(["Sec-WebSocket-Extensions", serializeExtensions(extensions)]);
  }
  return fields;
}

/**
 * The header fields that make the offer.
 *
 * @throws {TypeError} for a name or value that is no token
 */
export function offerFields(
  { protocols = [], extensions = [] }: HandshakeOffer,
): [string, string][] {
  return fieldsOf(protocols, extensions);
}

/**
 * Reads the offer in a request.
 *
 * @throws {HandshakeError} "malformed-header"
 */
export function readOffer(headers: RawHeaders): ReceivedOffer {
  const protocols = headerValues(headers, "Sec-WebSocket-Protocol").flatMap(parseProtocols);
  if (protocols.length > 1 && new Set(protocols).size !== protocols.length) {
    // RFC 6455 §4.1: the elements are unique.
    throw refusal(400, "malformed-header", "Expected each subprotocol once, received one twice");
  }
  return {
    protocols,
    extensions: headerValues(headers, "Sec-WebSocket-Extensions").flatMap(parseExtensions),
    origin: headerValue(headers, "Origin"),
  };
}

/**
 * The header fields that answer the offer (RFC 6455 §4.2.2).
 *
 * @throws {LocalProtocolError} for a subprotocol that was not offered
 */
export function answerFields(
  offer: ReceivedOffer,
  { protocol = "", extensions = [] }: AcceptOptions,
): [string, string][] {
  if (protocol !== "" && !offer.protocols.includes(protocol)) {
    throw new LocalProtocolError(
      `Expected one of the subprotocols offered (${offer.protocols.join(", ") || "none"}), ` +
        `received ${protocol}`,
    );
  }
  return fieldsOf(protocol === "" ? [] : [protocol], extensions);
}

/**
 * Checks the answer in a response (RFC 6455 §4.1).
 *
 * @throws {HandshakeError} "subprotocol", "extension" or "malformed-header"
 */
export function checkAnswer(headers: RawHeaders, offer: HandshakeOffer): Agreement {
  return { protocol: checkProtocol(headers, offer), extensions: checkExtensions(headers, offer) };
}

function checkProtocol(
  headers: RawHeaders,
  { protocols = [], requireProtocol = false }: HandshakeOffer,
): string {
  const chosen = headerValue(headers, "Sec-WebSocket-Protocol");
  // RFC 6455 §4.1: a subprotocol that was not asked for fails the connection.
  const missing = chosen === undefined && requireProtocol && protocols.length > 0;
  if (missing || (chosen !== undefined && !protocols.includes(chosen))) {
    throw new HandshakeError(
      `Expected one of the subprotocols offered (${protocols.join(", ") || "none"}), received ${
        chosen ?? "none"
      }`,
      "subprotocol",
    );
  }
  return chosen ?? "";
}

function checkExtensions(
  headers: RawHeaders,
  { extensions: offered = [] }: HandshakeOffer,
): ExtensionHeader[] {
  const values = headerValues(headers, "Sec-WebSocket-Extensions");
  const chosen = values.flatMap(parseExtensions);
  for (const { name } of chosen) {
    // RFC 6455 §4.1: so does an extension that was not asked for.
    if (!offered.some((offer) => offer.name === name)) {
      throw new HandshakeError(
        `Expected only extensions that were offered, received ${name}`,
        "extension",
      );
    }
  }
  return chosen;
}

/** Checks header fields that another parser may have read. */
export function checkFields(headers: RawHeaders): void {
  // Destructured, each field would take an iterator.
  if (headers.every((field) => isToken(field[0]) && isFieldValue(field[1]))) return;
  throw refusal(
    400,
    "malformed-head",
    "Expected header fields of a name and a value without control characters, received others",
  );
}

/** A request that a proxy in between could frame in another way is not let through. */
export function checkNoBody(headers: RawHeaders): void {
  if (!announcesBody(headers)) return;
  throw refusal(400, "body", "Expected a request without a body, received one that announces one");
}

/** Whether the header fields of a request announce a body (RFC 9112 §6.3). */
export function announcesBody(headers: RawHeaders): boolean {
  return headerValues(headers, "Transfer-Encoding").length > 0 ||
    headerValues(headers, "Content-Length").some((length) => length !== "0");
}

/**
 * Checks the version of the protocol (RFC 6455 §4.4).
 *
 * @param unknown the status for another version than ours
 */
export function checkVersion(headers: RawHeaders, unknown: number): void {
  const version = headerValue(headers, "Sec-WebSocket-Version");
  if (version === VERSION) return;
  throw refusal(
    version === undefined ? 400 : unknown,
    "version",
    `Expected Sec-WebSocket-Version ${VERSION}, received ${version ?? "none"}`,
  );
}

/** A fault of the request, and the status that answers it. */
export function refusal(
  status: number,
  code: HandshakeErrorCode,
  message: string,
): HandshakeError {
  return new HandshakeError(message, code, { status });
}
