/** Converts heads of HTTP messages to the web's Request, Response and Headers. */
import { HandshakeError, wrongType, wrongValue } from "./core/error.ts";
import type { RawHeaders } from "./core/header.ts";
import type { RequestHead, ResponseHead } from "./core/http1.ts";
import { base64 } from "./core/sha1.ts";
import { requestUrl } from "./core/url.ts";
import { kindOf } from "./core/options.ts";
import { withoutSecrets } from "./inspect.ts";
import type { HeadersLike } from "./options.ts";

/**
 * @throws {TypeError} If `headers` has no known form, or a value is neither a string nor a number:
 * `undefined` would be sent as a word.
 */
export function toRawHeaders(headers: HeadersLike = []): [string, string][] {
  if (typeof headers !== "object" || headers === null) {
    throw wrongType(`Expected headers to be an object, received ${kindOf(headers)}`);
  }
  const pairs: unknown[] = Symbol.iterator in headers ? [...headers] : Object.entries(headers);
  return pairs.map(toField);
}

function toField(pair: unknown): [string, string] {
  if (!Array.isArray(pair) || pair.length !== 2) {
    throw wrongType("Expected each item of headers to be [name, value]");
  }
  const [name, value] = pair;
  if (typeof name !== "string") {
    throw wrongType(`Expected the name of a header to be a string, received ${typeof name}`);
  }
  if (typeof value !== "string" && typeof value !== "number") {
    const received = Array.isArray(value)
      ? "an array: write one [name, value] for each of its items"
      : value === null
      ? "null"
      : typeof value;
    throw wrongType(`Expected the ${name} header to be a string, received ${received}`);
  }
  return [name, String(value)];
}

/**
 * Returns an Authorization header for the Basic scheme (RFC 7617 §2).
 * @throws {RangeError} If the user name contains a colon, which would end it.
 */
export function basicAuthorization(username: string, password: string): string {
  if (username.includes(":")) {
    // The message does not show the text, which may contain the password.
    throw wrongValue("Expected the user name to have no colon");
  }
  return `Basic ${base64(new TextEncoder().encode(`${username}:${password}`))}`;
}

export function toHeaders(raw: RawHeaders): Headers {
  const headers = new Headers();
  const cookies: string[] = [];
  for (const [name, value] of raw) {
    if (name.toLowerCase() === "cookie") cookies.push(value);
    else headers.append(name, value);
  }
  // RFC 9113 §8.2.3: cookie fields are joined by a semicolon, not by a comma.
  if (cookies.length > 0) headers.set("cookie", cookies.join("; "));
  return headers;
}

/** Throws, as Headers with the guard "immutable" do (Fetch §5.1). */
const refuseChange = {
  value: (): never => {
    throw wrongType("Cannot change headers that have been sent or received");
  },
};
const UNCHANGEABLE = { append: refuseChange, set: refuseChange, delete: refuseChange };

function sentHeaders(raw: RawHeaders): Headers {
  return Object.defineProperties(toHeaders(raw), UNCHANGEABLE);
}

/**
 * @throws {HandshakeError} If the URL is invalid; see {@linkcode requestUrl}. If Request does not support
 * the method or a header field ("malformed-head", status 400).
 */
export function toRequest(head: RequestHead, secure: boolean, body?: Uint8Array): Request {
  const url = requestUrl(head, secure);
  try {
    const headers = sentHeaders(head.headers);
    const init = { method: head.method, headers, body: body as Uint8Array<ArrayBuffer> };
    const request = new Request(url, init);
    // The request's own headers can be changed, and lack the fields that a page may not set.
    return Object.defineProperty(request, "headers", { value: headers });
  } catch (cause) {
    throw new HandshakeError(
      `The class Request does not support the request ${head.method} ${withoutSecrets(url)}`,
      "malformed-head",
      { status: 400, cause },
    );
  }
}

/** Status and header fields of the response of a handshake. */
export interface ResponseInfo {
  /** The status code. */
  readonly status: number;
  /** The reason phrase. */
  readonly statusText: string;
  /** The header fields. */
  readonly headers: Headers;
}

export function toResponseInfo({ status, statusText, headers }: ResponseHead): ResponseInfo {
  return { status, statusText, headers: sentHeaders(headers) };
}
