/**
 * Heads of HTTP messages as the web's Request, Response and Headers.
 *
 * A file of its own because the core may not use these, and the client, the server and the
 * connection all do.
 *
 * @module
 */
import { HandshakeError } from "./core/error.ts";
import type { RawHeaders } from "./core/header.ts";
import { bodyFraming, type RequestHead, type ResponseHead } from "./core/http1.ts";
import { concat } from "./core/message.ts";
import type { HeadersLike } from "./options.ts";

/**
 * Header fields as pairs.
 *
 * @throws {TypeError} when they are given in no known form
 */
export function toRawHeaders(headers: HeadersLike = []): [string, string][] {
  if (typeof headers !== "object" || headers === null) {
    throw new TypeError(`Expected headers as an object, received ${typeof headers}`);
  }
  const pairs = Symbol.iterator in headers ? [...headers] : Object.entries(headers);
  return pairs.map(([name, value]) => [String(name), String(value)]);
}

/** Header fields as the web's Headers. */
export function toHeaders(raw: RawHeaders): Headers {
  const headers = new Headers();
  for (const [name, value] of raw) headers.append(name, value);
  return headers;
}

/**
 * The head of a request as the web's Request, without a body.
 *
 * @throws {HandshakeError} "malformed-head", status 400, when there is no such Request
 */
export function toRequest(head: RequestHead, secure: boolean): Request {
  const host = head.headers.find(([name]) => name.toLowerCase() === "host")?.[1] ?? "localhost";
  try {
    // A target may be a whole URL (RFC 9112 §3.2.2); a path that begins with // is none.
    const base = `${secure ? "https" : "http"}://${host}`;
    const url = new URL(head.target.startsWith("/") ? base + head.target : head.target, base);
    url.username = url.password = url.hash = "";
    return new Request(url, { method: head.method, headers: toHeaders(head.headers) });
  } catch (cause) {
    throw new HandshakeError(
      `Expected a request for a URL, received ${head.method} ${head.target} for the host ${host}`,
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
  return { status, statusText, headers: toHeaders(headers) };
}

/** How much of the body of a refusal is kept, in bytes. */
const MAX_BODY = 65536;
/** The longest line before a chunk of it, in bytes. */
const MAX_LINE = 1024;

/**
 * Reads the body of a response, at most 64 KiB of it. A body that fails is a stream that errors.
 *
 * @param read gives the next bytes, or null at the end
 */
export async function readBody(
  head: ResponseHead,
  first: Uint8Array,
  read: () => Promise<Uint8Array | null>,
): Promise<ReadableStream<Uint8Array>> {
  const framing = bodyFraming(head);
  const decoder = framing === "chunked" ? new ChunkedDecoder() : undefined;
  const wanted = typeof framing === "object" ? Math.min(framing.length, MAX_BODY) : MAX_BODY;
  const parts: Uint8Array[] = [];
  let size = 0;
  let failure: unknown;
  const next = () =>
    read().catch((error) => {
      failure = error;
      return null;
    });
  for (let chunk: Uint8Array | null = first; chunk !== null; chunk = await next()) {
    const body = decoder === undefined ? chunk : decoder.push(chunk);
    parts.push(body.slice(0, wanted - size));
    size += body.length;
    if (size >= wanted || decoder?.done) break;
  }
  const whole = framing === "until-close" || size >= wanted || decoder?.done;
  if (!whole) failure ??= new Error("The connection ended before the body was whole");
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

/** Undoes the chunked transfer coding (RFC 9112 §7.1); trailer fields are dropped. */
class ChunkedDecoder {
  #bytes: Uint8Array = new Uint8Array(0);
  done = false;

  push(chunk: Uint8Array): Uint8Array {
    this.#bytes = concat([this.#bytes, chunk]);
    const parts: Uint8Array[] = [];
    for (let part = this.#next(); part !== undefined; part = this.#next()) parts.push(part);
    return concat(parts);
  }

  /** The next chunk, once it is whole. */
  #next(): Uint8Array | undefined {
    const bytes = this.#bytes;
    const lineEnd = bytes.subarray(0, MAX_LINE).indexOf(10);
    // A line that does not end is no beginning of a chunk, however long one waits for it.
    if (lineEnd < 0 && bytes.length >= MAX_LINE) this.done = true;
    if (this.done || lineEnd < 0) return undefined;
    const line = String.fromCharCode(...bytes.subarray(0, lineEnd));
    const digits = /^([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r$/.exec(line)?.[1];
    const size = parseInt(digits ?? "0", 16);
    // What is no chunk ends the body, as does the chunk of no bytes.
    this.done = size === 0 || size > MAX_BODY;
    const end = lineEnd + 1 + size;
    if (this.done || bytes.length < end + 2) return undefined;
    this.#bytes = bytes.subarray(end + 2);
    return bytes.subarray(lineEnd + 1, end);
  }
}
