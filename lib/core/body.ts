/**
 * Reads and writes the bodies of plain requests, and of responses that refuse a handshake (RFC 9112 §6,
 * §7.1).
 */
import { HandshakeError, LocalProtocolError, refusal } from "./error.ts";
import { headerValue, headerValues } from "./header.ts";
import type { RequestHead, ResponseHead } from "./http1.ts";
import { concat } from "./message.ts";

const EMPTY = new Uint8Array(0);

/** Maximum length of the line before a chunk, in bytes. */
const MAX_LINE = 1024;

/** How the length of a body is determined. */
export type BodyFraming = { length: number } | "chunked" | "until-close";

/** Returns how a response's body is delimited (RFC 9112 §6.3), unless the request was a HEAD. */
export function bodyFraming(head: ResponseHead): BodyFraming {
  if (head.status < 200 || head.status === 204 || head.status === 304) return { length: 0 };
  const codings = headerValues(head.headers, "Transfer-Encoding");
  if (codings.length > 0) {
    return codings.join(",").trim().toLowerCase() === "chunked" ? "chunked" : "until-close";
  }
  const length = headerValue(head.headers, "Content-Length");
  if (length === undefined) return "until-close";
  // A length that overflows becomes Infinity, which is never reached.
  if (!/^\d+$/.test(length)) {
    throw new HandshakeError(
      `The Content-Length is not a number: ${JSON.stringify(length)}`,
      "malformed-header",
    );
  }
  return { length: +length };
}

/**
 * Returns how a request's body is delimited (RFC 9112 §6.3).
 * @throws {HandshakeError} If the header fields do not tell the length (400), or the transfer coding is
 * not known (501).
 */
export function requestFraming({ version, headers }: RequestHead): BodyFraming {
  const codings = headerValues(headers, "Transfer-Encoding");
  const length = headerValue(headers, "Content-Length");
  if (codings.length === 0 && /^\d+$/.test(length ?? "")) return { length: +length! };
  if (codings.length === 0) {
    throw refusal(
      400,
      "body",
      `The Content-Length is not a number of bytes: ${JSON.stringify(length)}`,
    );
  }
  // RFC 9112 §6.1: a proxy that does not know the transfer coding would see another request.
  if (length !== undefined) {
    throw refusal(400, "body", "The request has both Content-Length and Transfer-Encoding");
  }
  if (version !== "1.1") {
    throw refusal(400, "body", `A request of HTTP/${version} must not have Transfer-Encoding`);
  }
  if (codings.join(",").trim().toLowerCase() === "chunked") return "chunked";
  throw refusal(501, "body", `The transfer coding is not supported: ${codings.join(", ")}`);
}

/** Removes the framing from a body. It buffers only the line before a chunk. */
export class BodyReader {
  readonly #chunked: boolean;
  readonly #untilClose: boolean;
  /** Bytes that remain of the body, or of the current chunk. */
  #left: number;
  /** The part of a chunk line that has been received. */
  #line = "";
  #afterChunk = false;
  /** Whether the whole body has been received. Bytes after the body are dropped. */
  finished: boolean;
  /** Why the body will never be complete: its framing is broken, or the input ended. */
  failure: HandshakeError | undefined;

  constructor(framing: BodyFraming, failure?: HandshakeError) {
    this.failure = failure;
    this.#chunked = framing === "chunked";
    this.#untilClose = framing === "until-close";
    this.#left = this.#chunked ? 0 : typeof framing === "object" ? framing.length : Infinity;
    this.finished = !this.#chunked && this.#left === 0;
  }

  /** Returns the part of the body that `bytes` contains. It may be a view of `bytes`. */
  push(bytes: Uint8Array): Uint8Array {
    const parts: Uint8Array[] = [];
    for (let at = 0; at < bytes.length && !this.finished && this.failure === undefined;) {
      if (this.#left === 0) {
        at = this.#readLine(bytes, at);
        continue;
      }
      const part = bytes.subarray(at, Math.min(bytes.length, at + this.#left));
      parts.push(part);
      at += part.length;
      this.#left -= part.length;
      this.finished = this.#left === 0 && !this.#chunked;
    }
    return parts.length === 1 ? parts[0] : concat(parts);
  }

  end(): void {
    if (this.finished) return;
    if (this.#untilClose) this.finished = true;
    else this.failure ??= lost();
  }

  /** Reads a line, or the part of it that has been received. Returns the offset after the line. */
  #readLine(bytes: Uint8Array, at: number): number {
    const rest = bytes.subarray(at, at + MAX_LINE - this.#line.length);
    const length = rest.indexOf(10) + 1 || rest.length;
    this.#line += String.fromCharCode(...rest.subarray(0, length));
    if (this.#line.endsWith("\n")) this.#endLine();
    else if (this.#line.length === MAX_LINE) {
      this.#fail("a chunk begins with a line that is too long");
    }
    return at + length;
  }

  #endLine(): void {
    const line = this.#line;
    this.#line = "";
    if (this.#afterChunk) {
      this.#afterChunk = false;
      if (line !== "\r\n") this.#fail("a chunk is longer than announced");
      return;
    }
    const digits = /^([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?\r\n$/.exec(line)?.[1];
    if (digits === undefined) return this.#fail("a chunk begins without its size");
    this.#left = parseInt(digits, 16);
    this.#afterChunk = true;
    // RFC 9112 §7.1.2: only trailer fields can follow, which are ignored.
    this.finished = this.#left === 0;
  }

  #fail(why: string): void {
    this.failure = new HandshakeError(`The body is malformed: ${why}`, "malformed-body");
  }
}

/** Makes a reader for the body of a response. It has failed if the framing is not valid. */
export function bodyReader(head: ResponseHead): BodyReader {
  try {
    return new BodyReader(bodyFraming(head));
  } catch (error) {
    return new BodyReader("until-close", error as HandshakeError);
  }
}

function lost(): HandshakeError {
  return new HandshakeError("The connection ended before the body was complete", "connection-lost");
}

const CRLF = new Uint8Array([13, 10]);

const LAST_CHUNK = new TextEncoder().encode("0\r\n\r\n");

/** Encodes a chunk. Empty bytes give no chunk, because an empty chunk ends the body. */
function chunkOf(bytes: Uint8Array): Uint8Array {
  if (bytes.length === 0) return EMPTY;
  const size = new TextEncoder().encode(`${bytes.length.toString(16)}\r\n`);
  return concat([size, bytes, CRLF]);
}

export class BodyWriter {
  readonly #framing: BodyFraming;
  #sent = 0;

  constructor(framing: BodyFraming) {
    this.#framing = framing;
  }

  /** Returns the framed bytes of a piece. Throws if the body has not its announced size. */
  write(bytes: Uint8Array, last: boolean): Uint8Array {
    const framing = this.#framing;
    if (framing === "until-close") return bytes.slice();
    if (framing === "chunked") return concat([chunkOf(bytes), last ? LAST_CHUNK : EMPTY]);
    const size = this.#sent + bytes.length;
    if (size > framing.length || (last && size < framing.length)) {
      throw new LocalProtocolError(
        `The body has ${size} bytes instead of the ${framing.length} bytes of its Content-Length`,
      );
    }
    this.#sent = size;
    return bytes.slice();
  }
}
