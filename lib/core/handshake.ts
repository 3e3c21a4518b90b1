/**
 * What both ends of the opening handshake have in common (RFC 6455 §4).
 *
 * @module
 */
import { HandshakeError, type HandshakeErrorCode } from "./error.ts";
import {
  headerValues,
  isFieldValue,
  isToken,
  parseTokenList,
  parseUpgrade,
  type RawHeaders,
} from "./header.ts";
import { base64, sha1 } from "./sha1.ts";

const encoder = new TextEncoder();

/** RFC 6455 §1.3. */
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** The header fields that the handshake writes by itself. */
const OWN_FIELDS = new Set([
  "host",
  "upgrade",
  "connection",
  "sec-websocket-key",
  "sec-websocket-version",
  "sec-websocket-accept",
  "sec-websocket-protocol",
  "sec-websocket-extensions",
  "content-length",
  "transfer-encoding",
]);

/** Refuses header fields of the caller's that would contradict our own. */
export function checkExtraFields(headers: RawHeaders): void {
  for (const field of headers) {
    if (OWN_FIELDS.has(field[0].toLowerCase())) {
      throw new TypeError(`Expected no ${field[0]} header, which the handshake writes by itself`);
    }
  }
}

/** Refuses a header field that would break out of its place. */
export function checkField(name: string, value: string): void {
  if (!isToken(name)) {
    throw new TypeError(`Expected a header name to be a token, received ${JSON.stringify(name)}`);
  }
  if (!isFieldValue(value)) {
    throw new TypeError(
      // The value may be a password.
      `Expected a ${name} header of Latin-1 without control characters, received another`,
    );
  }
}

/** The header fields of a head but for those that the handshake writes by itself. */
export function extraFields(headers: RawHeaders): RawHeaders {
  return headers.filter(([name]) => !OWN_FIELDS.has(name.toLowerCase()));
}

/** The value of Sec-WebSocket-Accept that answers a key (RFC 6455 §4.2.2). */
export function acceptToken(key: string): string {
  return base64(sha1(encoder.encode(key + GUID)));
}

/**
 * Whether a head asks for, or agrees to, the upgrade.
 *
 * @throws {HandshakeError} "malformed-header"
 */
export function isUpgrade(headers: RawHeaders): boolean {
  const connection = headerValues(headers, "Connection");
  return names(headerValues(headers, "Upgrade"), "websocket", parseUpgrade) &&
    names(connection, "upgrade", (value) => parseTokenList("Connection", value));
}

/** Checks that a head asks for, or agrees to, the upgrade. */
export function checkUpgrade(headers: RawHeaders, code: HandshakeErrorCode, status?: number): void {
  if (isUpgrade(headers)) return;
  const upgrade = headerValues(headers, "Upgrade");
  const connection = headerValues(headers, "Connection");
  throw new HandshakeError(
    `Expected an upgrade to websocket, received Upgrade: ${upgrade.join(", ") || "none"} and ` +
      `Connection: ${connection.join(", ") || "none"}`,
    code,
    { status },
  );
}

/** Whether one of the elements in all values is this, whatever its case. */
function names(
  values: readonly string[],
  name: string,
  parse: (value: string) => string[],
): boolean {
  // Nearly all heads have it alone.
  if (values.length === 1 && values[0].toLowerCase() === name) return true;
  return values.flatMap(parse).some((element) => element.toLowerCase() === name);
}

/** The error for an input that ends within a head. */
export function lost(what: string): HandshakeError {
  return new HandshakeError(
    `Expected the head of the ${what}, the connection ended before it was whole`,
    "connection-lost",
  );
}
