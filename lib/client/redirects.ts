/**
 * Redirects of the opening handshake (RFC 6455 §4.1, RFC 9110 §15.4).
 *
 * A file of its own because what may go on to another server, and what must not, is a matter by itself.
 *
 * @module
 */
import { HandshakeError, type RefusedResponse } from "../core/error.ts";
import { headerValues, isToken } from "../core/header.ts";
import { checkType } from "../core/options.ts";
import { parseWebSocketUrl, type WebSocketUrl } from "../core/url.ts";
import type { TlsConnectOptions } from "../transport.ts";

/** What a server is told, or shown, of the caller's. */
export interface HopOptions {
  /** The header fields. */
  headers: [string, string][];
  /** The subprotocols. */
  protocols?: string[];
  /** The Origin header. */
  origin?: string;
  /** The User-Agent header, or false for none. */
  userAgent?: string | false;
  /** The options of TLS. */
  tls?: TlsConnectOptions;
  /** Names of header fields that go to other origins too. */
  crossOriginHeaders?: readonly string[];
  /** Whether the server must choose one of the subprotocols. */
  requireProtocol?: boolean;
}

/** One request. */
export interface Hop<O extends HopOptions> {
  /** Where it goes. */
  readonly target: WebSocketUrl;
  /** The options that hold there. */
  readonly options: O;
}

/** Checks the option `crossOriginHeaders`. */
export function checkFieldNames(name: string, value: unknown): void {
  const isName = (item: unknown) => typeof item === "string" && isToken(item);
  checkType(
    name,
    value,
    "an array of names of header fields",
    Array.isArray(value) && value.every(isName),
  );
}

/**
 * Makes a request, and those that redirects ask for.
 *
 * @param maxRedirects how many of them to follow
 * @throws {HandshakeError} "redirect", and what `request` throws
 */
export async function followRedirects<T, O extends HopOptions>(
  first: Hop<O>,
  maxRedirects: number,
  request: (hop: Hop<O>) => Promise<T>,
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

function nextHop<O extends HopOptions>(
  { target, options }: Hop<O>,
  response: RefusedResponse,
): Hop<O> {
  const next = resolve(target, response);
  if (target.secure && !next.secure) {
    throw refusal("Expected a redirect from wss to wss, received one to ws", response);
  }
  const stays = originOf(next) === originOf(target);
  const names = new Set(options.crossOriginHeaders?.map((name) => name.toLowerCase()));
  const goes = (name: string) => stays || names.has(name.toLowerCase());
  // What a server says is no reason to log in as somebody else.
  const { username, password } = goes("Authorization") ? target : NOBODY;
  return {
    target: { ...next, username, password },
    options: stays ? options : { ...options, ...allowed(options, goes, response) },
  };
}

const NOBODY = { username: "", password: "" };

/** What another origin gets of the caller's: nothing but the header fields that go there by name. */
function allowed(
  { headers, protocols = [], origin, userAgent, tls, requireProtocol }: HopOptions,
  goes: (name: string) => boolean,
  response: RefusedResponse,
): HopOptions {
  const offers = protocols.length > 0 && goes("Sec-WebSocket-Protocol");
  if (requireProtocol && protocols.length > 0 && !offers) {
    throw refusal(
      "Expected no redirect to another origin, to which crossOriginHeaders lets no subprotocol go",
      response,
    );
  }
  return {
    headers: headers.filter(([name]) => goes(name)),
    protocols: offers ? protocols : undefined,
    origin: goes("Origin") ? origin : undefined,
    userAgent: userAgent === false || goes("User-Agent") ? userAgent : undefined,
    // The name is that of the first server, and the certificate is for that server.
    tls: tls && { ...tls, servername: undefined, cert: undefined, key: undefined },
  };
}

function resolve({ href }: WebSocketUrl, response: RefusedResponse): WebSocketUrl {
  const [location, ...others] = locationsOf(response);
  if (others.length > 0) throw refusal("Expected one Location header, received several", response);
  try {
    const url = new URL(escapeBytes(location), href);
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

/** The bytes of a header field that are not ASCII, as the URL of a UTF-8 text has them. */
function escapeBytes(value: string): string {
  return value.replace(
    /[\x80-\xff]/g,
    (byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function originOf({ secure, host }: WebSocketUrl): string {
  return `${secure ? "wss" : "ws"}://${host}`;
}

function placeOf(target: WebSocketUrl): string {
  return originOf(target) + target.resourceName;
}

function refusal(message: string, response: RefusedResponse, cause?: unknown): HandshakeError {
  return new HandshakeError(message, "redirect", { response, cause });
}
