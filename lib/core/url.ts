/**
 * WebSocket URLs (RFC 6455 §3; WHATWG WebSockets, "get a URL record").
 *
 * @module
 */

/** What a WebSocket URL tells a client. */
export interface WebSocketUrl {
  /** The URL, serialised; http and https have become ws and wss. */
  readonly href: string;
  /** Whether the connection is to be encrypted. */
  readonly secure: boolean;
  /** The host, in lower case; an IPv6 address without its brackets. */
  readonly hostname: string;
  /** The port, the default one too. */
  readonly port: number;
  /** What stands in the Host header: the host, and the port where it is not the default one. */
  readonly host: string;
  /** Path and query, as they stand in the request. */
  readonly resourceName: string;
  /** The user name, percent-decoded; an empty string where there is none. */
  readonly username: string;
  /** The password, percent-decoded. */
  readonly password: string;
}

/**
 * Reads a WebSocket URL.
 *
 * @throws {DOMException} SyntaxError for an invalid URL, another scheme than ws, wss, http and
 * https, or a fragment
 */
export function parseWebSocketUrl(url: string | URL): WebSocketUrl {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    // Up to the last "@" there may be a password, which is nothing for a log.
    const shown = String(url).replace(/^([a-z][a-z\d+.-]*:\/\/)?.*@/is, "$1");
    throw syntaxError(`Expected a URL, received ${JSON.stringify(shown)}`);
  }
  if (parsed.protocol === "http:") parsed.protocol = "ws:";
  if (parsed.protocol === "https:") parsed.protocol = "wss:";
  if (parsed.protocol !== "ws:" && parsed.protocol !== "wss:") {
    throw syntaxError(`Expected a ws or wss URL, received the scheme ${parsed.protocol}`);
  }
  // RFC 6455 §3: fragments have no meaning here. An empty one is still one.
  if (parsed.href.includes("#")) throw syntaxError("Expected a URL without a fragment");
  const secure = parsed.protocol === "wss:";
  return {
    href: parsed.href,
    secure,
    hostname: parsed.hostname.replace(/^\[(.*)\]$/, "$1"),
    port: parsed.port === "" ? (secure ? 443 : 80) : +parsed.port,
    host: parsed.host,
    resourceName: parsed.pathname + parsed.search,
    username: percentDecode(parsed.username),
    password: percentDecode(parsed.password),
  };
}

/** Undoes percent-encoding; a text that is not encoded so stays as it is. */
export function percentDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function syntaxError(message: string): DOMException {
  return new DOMException(message, "SyntaxError");
}
