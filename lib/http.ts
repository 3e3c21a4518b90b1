/**
 * Heads of HTTP messages as the web's Request, Response and Headers.
 *
 * A file of its own because the core may not use these, and the client, the server and the
 * connection all do.
 *
 * @module
 */
import { type BodyReader, bodyReader } from "./core/body.ts";
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

/** How the response begins of nearly all servers. */
const SWITCHING = ["1.1", "101", "Switching Protocols"];

/** Fields that many heads have, each with the value that it has in most of them, if there is one. */
const COMMON: readonly (readonly [name: string, value?: string])[] = [
  ["Host"],
  ["Upgrade", "websocket"],
  ["Connection", "Upgrade"],
  ["Sec-WebSocket-Key"],
  ["Sec-WebSocket-Version", "13"],
  ["Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"],
  ["Sec-WebSocket-Protocol"],
  ["Sec-WebSocket-Accept"],
  ["Origin"],
  ["User-Agent"],
  ["Accept-Encoding", "gzip, deflate, br, zstd"],
  ["Accept-Language"],
  ["Cache-Control", "no-cache"],
  ["Pragma", "no-cache"],
  ["Cookie"],
];

// A name is a token and so of ASCII: what is beyond is free to stand for a name, or for a whole field.
const FIRST_CODE = 0x80;
const nameCode = (index: number) => String.fromCharCode(FIRST_CODE + 2 * index);
const fieldCode = (index: number) => String.fromCharCode(FIRST_CODE + 2 * index + 1);
const CODES = new Map(
  COMMON.map(([name, value], i) => [name, { name: nameCode(i), field: fieldCode(i), value }]),
);

/** Both heads as one string, which takes a twentieth of the memory of their lists of fields. */
export function packHeads(request: RequestHead, response: ResponseHead): string {
  const { version, status, statusText } = response;
  const parts = ["", request.version, request.method, request.target];
  pushFields(parts, request.headers);
  // How many belong to the request.
  parts[0] = `${parts.length - 1}`;
  const start = [version, `${status}`, statusText];
  if (start.every((part, i) => part === SWITCHING[i])) parts.push("");
  else parts.push(...start);
  pushFields(parts, response.headers);
  // No parser lets a line break into any of them.
  return parts.join("\n");
}

function pushFields(parts: string[], fields: RawHeaders): void {
  for (const field of fields) {
    const code = CODES.get(field[0]);
    if (code === undefined) parts.push(field[0], field[1]);
    else if (code.value === field[1]) parts.push(code.field);
    else parts.push(code.name, field[1]);
  }
}

/** Undoes {@linkcode packHeads}. */
export function unpackHeads(packed: string): { request: RequestHead; response: ResponseHead } {
  const [count, ...parts] = packed.split("\n");
  const [requestVersion, method, target, ...asked] = parts.splice(0, +count);
  if (parts[0] === "") parts.splice(0, 1, ...SWITCHING);
  const [version, status, statusText, ...answered] = parts;
  return {
    request: { method, target, version: requestVersion, headers: fieldsOf(asked) },
    response: { version, status: +status, statusText, headers: fieldsOf(answered) },
  };
}

function fieldsOf(parts: readonly string[]): [string, string][] {
  const fields: [string, string][] = [];
  for (let i = 0; i < parts.length; i++) {
    const code = parts[i].charCodeAt(0) - FIRST_CODE;
    const [name, value = ""] = code >= 0 ? COMMON[code >> 1] : [parts[i]];
    fields.push([name, code % 2 === 1 ? value : parts[++i]]);
  }
  return fields;
}

/** How much of the body of a refusal is kept, in bytes. */
const MAX_BODY = 65536;

/** The body of a response that refuses, at most 64 KiB of it, as far as it has come. */
export class RefusalBody {
  readonly #reader: BodyReader;
  #parts: Uint8Array[] = [];
  #size = 0;

  constructor(head: ResponseHead) {
    this.#reader = bodyReader(head);
  }

  /**
   * Reads it, and gives it as a stream. One that fails is a stream that errors behind what came.
   *
   * @param read gives the next bytes, or null at the end
   */
  async read(
    first: Uint8Array,
    read: () => Promise<Uint8Array | null>,
  ): Promise<ReadableStream<Uint8Array>> {
    const reader = this.#reader;
    let chunk: Uint8Array | null = first;
    try {
      for (; this.#push(chunk); chunk = await read());
    } catch (error) {
      return this.stream(error);
    }
    return this.stream(this.#size < MAX_BODY && !reader.finished ? reader.failure : undefined);
  }

  /** Takes a chunk, and tells whether there is more to read. */
  #push(chunk: Uint8Array | null): boolean {
    const reader = this.#reader;
    if (chunk === null) reader.end();
    const data = reader.push(chunk ?? new Uint8Array(0));
    this.#parts.push(data.slice(0, MAX_BODY - this.#size));
    this.#size += data.length;
    return this.#size < MAX_BODY && !reader.finished && reader.failure === undefined;
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
