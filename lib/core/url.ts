/** WebSocket URLs (RFC 6455 §3; WHATWG WebSockets, "get a URL record"). */
import { domError, refusal } from "./error.ts";
import { headerValues } from "./header.ts";
import type { RequestHead } from "./http1.ts";

/** A parsed WebSocket URL. */
export interface WebSocketUrl {
  /** The serialized URL, with the scheme ws or wss. */
  readonly href: string;
  /** Whether the connection is encrypted. */
  readonly secure: boolean;
  /** The host in lower case. An IPv6 address has no brackets. */
  readonly hostname: string;
  /** The port, also if it is the default port. */
  readonly port: number;
  /** The value of the Host header: the host, and the port unless it is the default port. */
  readonly host: string;
  /** Path and query, as in the request. */
  readonly resourceName: string;
  /** The user name, percent-decoded, or an empty string. */
  readonly username: string;
  /** The password, percent-decoded, or an empty string. */
  readonly password: string;
}

/**
 * Parses a WebSocket URL.
 * @param url The URL.
 * @param base The base of a relative URL, such as the URL of a page.
 * @throws {DOMException} If the URL is invalid, has another scheme than ws, wss, http and https, or
 * has a fragment (SyntaxError).
 */
export function parseWebSocketUrl(url: string | URL, base?: string): WebSocketUrl {
  const parsed = resolveWebSocketUrl(url, base);
  // The URL standard allows some characters in a host that RFC 3986 forbids and no server accepts.
  if (!isAuthority(parsed.host)) {
    throw syntaxError(`Expected a host name or an IP address, received ${parsed.host}`);
  }
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

/**
 * Checks a WebSocket URL, and gives it the scheme ws or wss.
 * @param url The URL.
 * @param base The base of a relative URL, such as the URL of a page.
 * @throws {DOMException} If the URL is invalid, has another scheme than ws, wss, http and https, or
 * has a fragment (SyntaxError).
 */
export function resolveWebSocketUrl(url: string | URL, base?: string): URL {
  let parsed: URL;
  try {
    parsed = new URL(url, base);
  } catch {
    throw syntaxError(`Expected a URL, received ${withoutCredentials(url)}`);
  }
  if (parsed.protocol === "http:") parsed.protocol = "ws:";
  if (parsed.protocol === "https:") parsed.protocol = "wss:";
  if (parsed.protocol !== "ws:" && parsed.protocol !== "wss:") {
    throw syntaxError(`Expected a ws or wss URL, received the scheme ${parsed.protocol}`);
  }
  // RFC 6455 §3: a URL must not have a fragment. An empty fragment counts too.
  if (parsed.href.includes("#")) throw syntaxError("Expected a URL without a fragment");
  return parsed;
}

/**
 * Quotes text that may not be a valid URL, without the parts that may be secret: the user name, the password,
 * the query and the fragment. If the text has "?" or "#" before an "@", only the scheme remains.
 */
export function withoutCredentials(url: string | URL): string {
  return JSON.stringify(String(url).replace(/[?#].*|^(\w+:\/\/)?(.*[?#].*@.*|.*@)?/gs, "$1"));
}

/** Decodes percent-encoding. Text that is not valid percent-encoding is returned unchanged. */
export function percentDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** A host and an optional port (RFC 3986 §3.2.2, §3.2.3). The name must not be empty. */
const AUTHORITY = /^(?:\[[\da-f:.]+\]|(?:[\w.~!$&'()*+,;=-]|%[\da-f]{2})+)(?::\d*)?$/i;

/**
 * RFC 9112 §3.2. Browsers send characters that RFC 3986 does not allow, but no fragment, and no
 * backslash in a path, which `URL` would read as a slash.
 */
const TARGET =
  /^(?:(https?|wss?):\/\/([^/?]+)(?=[/?]|$)|(?=\/))((?:\/[!"$->@-[\]-~]*)?(?:\?[!"$-~]*)?)$/i;

/** Returns whether the text is a valid value of a Host field or of `:authority`. */
export function isAuthority(text: string): boolean {
  return AUTHORITY.test(text);
}

interface Target {
  /** Whether the scheme is https or wss. Undefined if the target has no scheme. */
  secure: boolean | undefined;
  /** The host and port. Undefined if the target has none. */
  authority: string | undefined;
  /** Path and query. The path may be empty if there is an authority. */
  path: string;
}

/** Parses a request target. Returns undefined if the target cannot be that of a WebSocket. */
export function readTarget(target: string): Target | undefined {
  if (target.startsWith("/")) {
    return TARGET.test(target)
      ? { secure: undefined, authority: undefined, path: target }
      : undefined;
  }
  const parts = TARGET.exec(target);
  if (parts === null) return undefined;
  const [, scheme, authority, path] = parts;
  if (authority !== undefined && !isAuthority(authority)) return undefined;
  return {
    secure: scheme === undefined ? undefined : /^(?:https|wss)$/i.test(scheme),
    authority,
    path,
  };
}

/** Returns the normalized path of a request target, or undefined if the target is not valid. */
export function pathOfTarget(target: string): string | undefined {
  const read = readTarget(target);
  const url = read && join(false, read.authority ?? "localhost", read.path);
  return url && new URL(url).pathname;
}

/**
 * Returns the URL of a request, with the scheme http or https (RFC 9112 §3.3).
 * @throws {HandshakeError} If the URL is not valid: "host" or "malformed-head", with the status
 * 400.
 */
export function requestUrl(head: RequestHead, secure: boolean): URL {
  return new URL(checkRequestUrl(head, secure));
}

/**
 * Checks the URL of a request, and returns its text.
 * @throws {HandshakeError} As `requestUrl()`.
 */
export function checkRequestUrl(
  { method, target, version, headers }: RequestHead,
  secure: boolean,
): string {
  const hosts = headerValues(headers, "Host");
  // RFC 9112 §3.2: HTTP/1.0 requests may have no Host field.
  if (hosts.length === 0 && version === "1.0") hosts.push("localhost");
  if (hosts.length !== 1) {
    const count = hosts.length === 0 ? "no Host header" : `${hosts.length} Host headers`;
    throw refusal(400, "host", `The request has ${count} instead of one`);
  }
  const [host] = hosts;
  const read = readTarget(target);
  const path = read === undefined || read.authority !== undefined ? "" : read.path;
  const base = isAuthority(host) ? join(secure, host, path) : undefined;
  if (base === undefined) {
    throw refusal(
      400,
      "host",
      `The Host header is not a host with an optional port: ${withoutCredentials(host)}`,
    );
  }
  // RFC 9112 §3.2.4: "*" means the whole server.
  if (method === "OPTIONS" && target === "*") return base;
  if (read !== undefined && read.authority === undefined) return base;
  // RFC 9113 §8.3.1: in HTTP/2 the authority has a field of its own.
  const url = read?.authority !== undefined && version !== "2.0"
    ? join(read.secure ?? secure, read.authority, read.path)
    : undefined;
  if (url !== undefined) return url;
  throw refusal(
    400,
    "malformed-head",
    `The request target is neither a path nor the URL of a WebSocket: ${
      withoutCredentials(target)
    }`,
  );
}

/**
 * Returns the URL of the parts, or undefined if the port is greater than 65535 or the host is not
 * valid. The parts have been checked, so that none of them can end within another.
 */
function join(secure: boolean, authority: string, path: string): string | undefined {
  const url = `${secure ? "https" : "http"}://${authority}${path}`;
  return URL.canParse(url) ? url : undefined;
}

export function formatAuthority(hostname: string, port: number): string {
  return `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

/** Parses an IP address without brackets. Returns 4 or 16 bytes, or undefined for a name. */
export function ipBytes(text: string): Uint8Array | undefined {
  if (/^\d+(?:\.\d+){3}$/.test(text)) {
    const parts = text.split(".").map(Number);
    return parts.every((part) => part < 256) ? Uint8Array.from(parts) : undefined;
  }
  if (!/^[\da-f.:]*:[\da-f.:]*$/i.test(text)) return undefined;
  try {
    // `URL` returns the shortest form (RFC 5952), without an IPv4 address at its end.
    return expandIpv6(new URL(`http://[${text}]`).hostname.slice(1, -1));
  } catch {
    return undefined;
  }
}

function expandIpv6(text: string): Uint8Array {
  const [head, tail] = text.split("::").map((half) => half === "" ? [] : half.split(":"));
  const gap = tail === undefined ? 0 : 8 - head.length - tail.length;
  const groups = [...head, ...Array(gap).fill("0"), ...(tail ?? [])];
  return Uint8Array.from(
    groups.map((group) => parseInt(group, 16)).flatMap((n) => [n >> 8, n & 255]),
  );
}

/** Returns whether two addresses are of the same kind and share their first bits. */
export function shareBits(a: Uint8Array, b: Uint8Array, bits: number): boolean {
  if (a.length !== b.length || bits > a.length * 8) return false;
  return a.every((byte, i) => {
    const ignored = Math.min(8, Math.max(0, (i + 1) * 8 - bits));
    return byte >> ignored === b[i] >> ignored;
  });
}

function syntaxError(message: string): DOMException {
  return domError("SyntaxError", message, "invalid-url");
}
