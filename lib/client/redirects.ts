/**
 * Redirects of the opening handshake (RFC 6455 §4.1, RFC 9110 §15.4).
 *
 * A file of its own because what may go on to another server, and what must not, is a matter by itself.
 *
 * @module
 */
import { HandshakeError, type RefusedResponse } from "../core/error.ts";
import { headerValues, type RawHeaders } from "../core/header.ts";
import { parseWebSocketUrl, type WebSocketUrl } from "../core/url.ts";
import { checkNumber } from "../options.ts";
import type { TlsConnectOptions } from "../transport.ts";

/** The most that `maxRedirects` may be. */
const MOST = 20;

/** One request: where to, and what of the options depends on that. */
export interface Hop {
  /** Where to. */
  readonly target: WebSocketUrl;
  /** The caller's header fields. */
  readonly headers: RawHeaders;
  /** The caller's options of TLS. */
  readonly tls?: TlsConnectOptions;
}

/**
 * Checks the option.
 *
 * @throws {TypeError} when it is no number
 * @throws {RangeError} when it is no whole number from 0 to 20
 */
export function checkMaxRedirects(maxRedirects: unknown): void {
  checkNumber("maxRedirects", maxRedirects);
  const count = (maxRedirects ?? 0) as number;
  if (Number.isInteger(count) && count <= MOST) return;
  throw new RangeError(`Expected maxRedirects as a whole number up to ${MOST}, received ${count}`);
}

/**
 * Makes a request, and those that redirects ask for.
 *
 * @param maxRedirects how many of them to follow
 * @throws {HandshakeError} "redirect", and what `request` throws
 */
export async function followRedirects<T>(
  first: Hop,
  maxRedirects: number,
  request: (hop: Hop) => Promise<T>,
): Promise<T> {
  const visited = new Set<string>();
  for (let hop = first;;) {
    visited.add(placeOf(hop.target));
    try {
      return await request(hop);
    } catch (error) {
      const response = redirectOf(error);
      if (response === undefined || maxRedirects === 0) throw error;
      if (visited.size > maxRedirects) {
        throw refusal(`Expected at most ${maxRedirects} redirects, received more`, response);
      }
      hop = nextHop(hop, response);
      if (visited.has(placeOf(hop.target))) {
        throw refusal("Expected no redirect to where we came from", response);
      }
    }
  }
}

/** The response, if it is one that says where else to go. */
function redirectOf(error: unknown): RefusedResponse | undefined {
  if (!(error instanceof HandshakeError) || error.code !== "status") return undefined;
  const { response } = error;
  const redirects = [301, 302, 303, 307, 308].includes(response?.status ?? 0);
  return redirects && locationsOf(response!).length > 0 ? response : undefined;
}

function locationsOf({ rawHeaders }: RefusedResponse): string[] {
  return headerValues(rawHeaders, "Location");
}

function nextHop({ target, headers, tls }: Hop, response: RefusedResponse): Hop {
  const next = resolve(target, response);
  if (target.secure && !next.secure) {
    throw refusal("Expected a redirect from wss to wss, received one to ws", response);
  }
  // What a server says is no reason to log in elsewhere, nor as somebody else.
  if (originOf(next) === originOf(target)) {
    const { username, password } = target;
    return { target: { ...next, username, password }, headers, tls };
  }
  return {
    target: { ...next, username: "", password: "" },
    headers: headers.filter(([name]) => !isCredential(name)),
    // The name is that of the first server.
    tls: tls && { ...tls, servername: undefined, cert: undefined, key: undefined },
  };
}

function resolve({ href }: WebSocketUrl, response: RefusedResponse): WebSocketUrl {
  const [location, ...others] = locationsOf(response);
  if (others.length > 0) throw refusal("Expected one Location header, received several", response);
  try {
    const url = new URL(location, href);
    // RFC 6455 §3: a fragment has no meaning here.
    url.hash = "";
    return parseWebSocketUrl(url);
  } catch (cause) {
    const shown = location.length > 200 ? `${location.slice(0, 200)}…` : location;
    throw refusal(
      `Expected a redirect to a WebSocket URL, received ${JSON.stringify(shown)}`,
      response,
      cause,
    );
  }
}

function originOf({ secure, host }: WebSocketUrl): string {
  return `${secure ? "wss" : "ws"}://${host}`;
}

function placeOf(target: WebSocketUrl): string {
  return originOf(target) + target.resourceName;
}

/** Authorization and Cookie, and what else is called like something that lets one in. */
function isCredential(name: string): boolean {
  return /auth|cookie|token|secret|key|passw|session|credential|signature/i.test(name);
}

function refusal(message: string, response: RefusedResponse, cause?: unknown): HandshakeError {
  return new HandshakeError(message, "redirect", { response, cause });
}
