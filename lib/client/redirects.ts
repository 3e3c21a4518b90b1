/** Follows redirects of the opening handshake (RFC 6455 §4.1, RFC 9110 §15.4). */
import { HandshakeError, type RefusedResponse } from "../core/error.ts";
import { headerValues, isToken, type RawHeaders } from "../core/header.ts";
import type { ResponseHead } from "../core/http1.ts";
import { checkType } from "../core/options.ts";
import { parseWebSocketUrl, type WebSocketUrl, withoutCredentials } from "../core/url.ts";
import type { TlsConnectOptions } from "../transport.ts";

/** The options of `connect()` that a server can see. */
export interface HopOptions {
  headers: [string, string][];
  protocols?: string[];
  origin?: string;
  userAgent?: string | false;
  tls?: TlsConnectOptions;
  crossOriginHeaders?: readonly string[];
  requireProtocol?: boolean;
}

export interface Hop<O extends HopOptions> {
  readonly target: WebSocketUrl;
  readonly options: O;
}

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
 * Makes a request, and follows redirects.
 * @throws {HandshakeError} If a redirect is not followed ("redirect"), or if `request` throws.
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
        throw refusal(
          `The server redirects more than maxRedirects (${maxRedirects}) times`,
          response,
        );
      }
      hop = nextHop(hop, response);
      if (visited.has(placeOf(hop.target))) {
        throw refusal("The server redirects in a loop", response);
      }
    }
  }
}

function redirectOf(error: unknown): RefusedResponse | undefined {
  if (!(error instanceof HandshakeError) || error.code !== "status") return undefined;
  const { response } = error;
  if (response === undefined) return undefined;
  const { status, rawHeaders: headers } = response;
  return isRedirect({ status, headers }) ? response : undefined;
}

/** Whether a response redirects to another place (RFC 9110 §15.4). */
export function isRedirect({ status, headers }: Pick<ResponseHead, "status" | "headers">): boolean {
  return [301, 302, 303, 307, 308].includes(status) && locationsOf(headers).length > 0;
}

function locationsOf(headers: RawHeaders): string[] {
  return headerValues(headers, "Location");
}

function nextHop<O extends HopOptions>(
  { target, options }: Hop<O>,
  response: RefusedResponse,
): Hop<O> {
  const next = resolve(target, response);
  if (target.secure && !next.secure) {
    throw refusal("The server redirects from wss to ws, which is not encrypted", response);
  }
  const stays = originOf(next) === originOf(target);
  const names = new Set(options.crossOriginHeaders?.map((name) => name.toLowerCase()));
  const goes = (name: string) => stays || names.has(name.toLowerCase());
  // The user name and password in a location are ignored: a server must not choose them.
  const { username, password } = goes("Authorization") ? target : NOBODY;
  return {
    target: { ...next, username, password },
    options: stays ? options : { ...options, ...crossOriginOptions(options, goes, response) },
  };
}

const NOBODY = { username: "", password: "" };

/** The options for another origin: only the header fields that `crossOriginHeaders` names. */
function crossOriginOptions(
  { headers, protocols = [], origin, userAgent, tls, requireProtocol }: HopOptions,
  goes: (name: string) => boolean,
  response: RefusedResponse,
): HopOptions {
  const offers = protocols.length > 0 && goes("Sec-WebSocket-Protocol");
  if (requireProtocol && protocols.length > 0 && !offers) {
    throw refusal(
      "The server redirects to another origin, and crossOriginHeaders does not name Sec-WebSocket-Protocol",
      response,
    );
  }
  return {
    headers: headers.filter(([name]) => goes(name)),
    protocols: offers ? protocols : undefined,
    origin: goes("Origin") ? origin : undefined,
    userAgent: userAgent === false || goes("User-Agent") ? userAgent : undefined,
    // The name and the certificate are for the first server only.
    tls: tls && { ...tls, servername: undefined, cert: undefined, key: undefined },
  };
}

function resolve({ href }: WebSocketUrl, response: RefusedResponse): WebSocketUrl {
  const [location, ...others] = locationsOf(response.rawHeaders);
  if (others.length > 0) throw refusal("The redirect has several Location headers", response);
  // RFC 6455 §3: a WebSocket URL has no fragment.
  const place = escapeBytes(location).replace(/#.*/s, "");
  try {
    return parseWebSocketUrl(place, href);
  } catch (cause) {
    const shown = withoutCredentials(place.length > 200 ? `${place.slice(0, 200)}…` : place);
    throw refusal(
      `The server redirects to ${shown}, which is not a WebSocket URL`,
      response,
      cause,
    );
  }
}

/** Percent-encodes the bytes of a header field that are not ASCII. */
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
