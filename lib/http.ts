/**
 * Heads of HTTP messages as the web's Request, Response and Headers.
 *
 * @module
 */
import { HandshakeError } from "./core/error.ts";
import type { RawHeaders } from "./core/header.ts";
import type { RequestHead, ResponseHead } from "./core/http1.ts";
import { base64 } from "./core/sha1.ts";
import { requestUrl } from "./core/url.ts";
import type { HeadersLike } from "./options.ts";

/**
 * Header fields as pairs.
 *
 * @throws {TypeError} If they are given in no known form, or one of them is neither text nor a number:
 * `undefined` would be sent as a word.
 */
export function toRawHeaders(headers: HeadersLike = []): [string, string][] {
  if (typeof headers !== "object" || headers === null) {
    throw new TypeError(`Expected headers as an object, received ${typeof headers}`);
  }
  const pairs: unknown[] = Symbol.iterator in headers ? [...headers] : Object.entries(headers);
  return pairs.map(toField);
}

function toField(pair: unknown): [string, string] {
  if (!Array.isArray(pair) || pair.length !== 2) {
    throw new TypeError("Expected each item of headers to be [name, value], received another");
  }
  const [name, value] = pair;
  if (typeof name !== "string") {
    throw new TypeError(`Expected the name of a header to be a string, received ${typeof name}`);
  }
  if (typeof value !== "string" && typeof value !== "number") {
    const received = Array.isArray(value)
      ? "an array: write one [name, value] for each of its items"
      : value === null
      ? "null"
      : typeof value;
    throw new TypeError(`Expected the ${name} header to be a string, received ${received}`);
  }
  return [name, String(value)];
}

/**
 * The value of an Authorization header for the Basic scheme (RFC 7617 §2).
 *
 * @throws {RangeError} If the user name contains a colon, which would end it.
 */
export function basicAuthorization(username: string, password: string): string {
  if (username.includes(":")) {
    // What follows the colon may be the password.
    throw new RangeError("Expected a user name without a colon, received one with it");
  }
  return `Basic ${base64(new TextEncoder().encode(`${username}:${password}`))}`;
}

/** Header fields as the web's Headers. */
export function toHeaders(raw: RawHeaders): Headers {
  const headers = new Headers();
  const cookies: string[] = [];
  for (const [name, value] of raw) {
    if (name.toLowerCase() === "cookie") cookies.push(value);
    else headers.append(name, value);
  }
  // RFC 9113 §8.2.3: unlike other fields, these are not joined by a comma.
  if (cookies.length > 0) headers.set("cookie", cookies.join("; "));
  return headers;
}

/** As the web's Headers do whose guard is "immutable" (Fetch §5.1). */
const refuseChange = {
  value: (): never => {
    throw new TypeError("Expected no change of headers that were sent or received");
  },
};
const UNCHANGEABLE = { append: refuseChange, set: refuseChange, delete: refuseChange };

/** Header fields that travelled, and which nobody can change any more. */
function sentHeaders(raw: RawHeaders): Headers {
  return Object.defineProperties(toHeaders(raw), UNCHANGEABLE);
}

/**
 * The head of a request as the web's Request, without a body.
 *
 * @throws {HandshakeError} As {@linkcode requestUrl}; "malformed-head", status 400, if the web has no
 * Request for this method or these header fields.
 */
export function toRequest(head: RequestHead, secure: boolean): Request {
  const url = requestUrl(head, secure);
  try {
    const headers = sentHeaders(head.headers);
    const request = new Request(url, { method: head.method, headers });
    // Its own may be changed, and lack what a page may not set.
    return Object.defineProperty(request, "headers", { value: headers });
  } catch (cause) {
    throw new HandshakeError(
      `Expected a request that the web has too, received ${head.method} ${url.href}`,
      "malformed-head",
      { status: 400, cause },
    );
  }
}

/** What a handshake's response says, as {@linkcode Response} would for another status than 101. */
export interface ResponseInfo {
  /** The status code. */
  readonly status: number;
  /** The reason phrase. */
  readonly statusText: string;
  /** The header fields. */
  readonly headers: Headers;
}

/** The head of a response, for reading. */
export function toResponseInfo({ status, statusText, headers }: ResponseHead): ResponseInfo {
  return { status, statusText, headers: sentHeaders(headers) };
}

/** How much of the body of a refusal is kept, in bytes. */
const MAX_BODY = 65536;

/** The body of a response that refuses, at most 64 KiB of it, as far as it has come. */
export class RefusalBody {
  readonly #parts: Uint8Array[] = [];

  /** Reads the body, and gives it as a stream. One that fails is a stream that errors after its bytes. */
  async read(pieces: AsyncIterable<Uint8Array>): Promise<ReadableStream<Uint8Array>> {
    let size = 0;
    try {
      for await (const piece of pieces) {
        this.#parts.push(piece.slice(0, MAX_BODY - size));
        size += piece.length;
        if (size >= MAX_BODY) break;
      }
    } catch (error) {
      return this.stream(error);
    }
    return this.stream();
  }

  /**
   * What has come, as a stream.
   *
   * @param failure what it errors with in the end. Default: none
   */
  stream(failure?: unknown): ReadableStream<Uint8Array> {
    const parts = this.#parts;
    return new ReadableStream({
      start(controller) {
        for (const part of parts) if (part.length > 0) controller.enqueue(part);
      },
      // Behind what came: an error would drop it.
      pull(controller) {
        if (failure === undefined) controller.close();
        else controller.error(failure);
      },
    }, { highWaterMark: 0 });
  }
}
