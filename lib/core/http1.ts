/**
 * Heads of HTTP/1.1 messages, read strictly and within limits (RFC 9112).
 *
 * @module
 */
import { HandshakeError, type HandshakeErrorCode } from "./error.ts";
import { checkField } from "./handshake.ts";
import { headerValue, headerValues, isFieldValue, isToken, type RawHeaders } from "./header.ts";
import { concat } from "./message.ts";

/** The head of a request. */
export interface RequestHead {
  /** The method, as GET. */
  readonly method: string;
  /** The request target, as /chat?room=1. */
  readonly target: string;
  /** The version of HTTP, as 1.1. */
  readonly version: string;
  /** The header fields. */
  readonly headers: RawHeaders;
}

/** The head of a response. */
export interface ResponseHead {
  /** The version of HTTP, as 1.1. */
  readonly version: string;
  /** The status code. */
  readonly status: number;
  /** The reason phrase. */
  readonly statusText: string;
  /** The header fields. */
  readonly headers: RawHeaders;
}

/** How large a head may be. */
export interface HeadLimits {
  /** The number of header fields. Default: 128 */
  maxHeaderCount?: number;
  /** The length of a line, in bytes. Default: 8192 */
  maxLineLength?: number;
  /** The length of the whole head, in bytes. Default: 16384 */
  maxHeadSize?: number;
}

/** A head, and where it ends. */
export interface ParsedHead<T> {
  /** The head. */
  head: T;
  /** Its length in bytes, the empty line included; what follows was not touched. */
  length: number;
}

const EMPTY = new Uint8Array(0);
const CR = 13;
const LF = 10;

/**
 * Reads the head of a request; undefined while it is not whole.
 *
 * @throws {HandshakeError} "malformed-head", "target-too-long", "head-too-large" or "http-version"
 */
export function parseRequestHead(
  bytes: Uint8Array,
  limits: HeadLimits = {},
): ParsedHead<RequestHead> | undefined {
  const lines = readLines(bytes, limits, "target-too-long");
  if (lines === undefined) return undefined;
  const parts = /^([^ ]+) ([\x21-\x7e]+) HTTP\/(\d)\.(\d)$/.exec(lines.start);
  if (parts === null || !isToken(parts[1])) {
    throw malformed("Expected a request line of method, target and version", 0);
  }
  const [, method, target, major, minor] = parts;
  if (major !== "1") {
    throw new HandshakeError(`Expected HTTP/1.1, received HTTP/${major}.${minor}`, "http-version", {
      status: 505,
    });
  }
  return {
    head: { method, target, version: `${major}.${minor}`, headers: lines.headers },
    length: lines.length,
  };
}

/**
 * Reads the head of a response; undefined while it is not whole.
 *
 * @throws {HandshakeError} "malformed-head", "head-too-large" or "http-version"
 */
export function parseResponseHead(
  bytes: Uint8Array,
  limits: HeadLimits = {},
): ParsedHead<ResponseHead> | undefined {
  const lines = readLines(bytes, limits, "head-too-large");
  if (lines === undefined) return undefined;
  // The space before the reason phrase is left out by some servers that send none.
  const parts = /^HTTP\/(\d)\.(\d) ([1-9]\d\d)(?: ([^\r\n]*))?$/.exec(lines.start);
  if (parts === null || !isFieldValue(parts[4] ?? "")) {
    throw malformed("Expected a status line of version, status and reason phrase", 0);
  }
  const [, major, minor, status, statusText = ""] = parts;
  if (major !== "1") {
    throw new HandshakeError(`Expected HTTP/1.1, received HTTP/${major}.${minor}`, "http-version");
  }
  return {
    head: { version: `${major}.${minor}`, status: +status, statusText, headers: lines.headers },
    length: lines.length,
  };
}

interface Lines {
  start: string;
  headers: RawHeaders;
  length: number;
}

function readLines(
  bytes: Uint8Array,
  limits: HeadLimits,
  startTooLong: HandshakeErrorCode,
): Lines | undefined {
  const { maxHeaderCount = 128, maxLineLength = 8192, maxHeadSize = 16384 } = limits;
  // In one piece: a view for each line would take more memory than the lines.
  const text = latin1(bytes, Math.min(bytes.length, maxHeadSize));
  const headers: [string, string][] = [];
  let start: string | undefined;
  let at = 0;
  for (;;) {
    const end = lineEnd(bytes, at);
    // A CR that is the last byte so far is not part of the line.
    const seen = end ?? bytes.length - (bytes.at(-1) === CR ? 1 : 0);
    const length = seen - at;
    if (length > maxLineLength) {
      throw tooLarge(
        `Expected a line of at most ${maxLineLength} bytes, received a longer one`,
        start === undefined ? startTooLong : "head-too-large",
      );
    }
    if (seen + 2 > maxHeadSize) {
      throw tooLarge(`Expected a head of at most ${maxHeadSize} bytes, received a longer one`);
    }
    if (end === undefined) return undefined;
    if (length === 0 && start !== undefined) return { start, headers, length: end + 2 };
    if (start === undefined) start = text.slice(at, end);
    else headers.push(parseField(text, at, end));
    if (headers.length > maxHeaderCount) {
      throw tooLarge(`Expected at most ${maxHeaderCount} header fields, received more`);
    }
    at = end + 2;
  }
}

/** Where the line ends that begins here. RFC 9112 §2.2: with CR LF; neither of them alone. */
function lineEnd(bytes: Uint8Array, start: number): number | undefined {
  for (let at = start; at < bytes.length; at++) {
    const byte = bytes[at];
    if (byte === LF) throw malformed("Expected CR before LF", at);
    // A head is text: a byte that it cannot hold ends the wait for the rest.
    if (byte < 0x20 && byte !== CR && byte !== 9) {
      throw malformed("Expected no control character", at);
    }
    if (byte !== CR) continue;
    if (at + 1 === bytes.length) return undefined;
    if (bytes[at + 1] !== LF) throw malformed("Expected LF behind CR", at + 1);
    return at;
  }
  return undefined;
}

/** Reads the field that stands in a line of the head. */
function parseField(text: string, start: number, end: number): [string, string] {
  const colon = text.indexOf(":", start);
  const name = text.slice(start, colon < end ? Math.max(colon, start) : start);
  // RFC 9112 §5.1: no white space before the colon; §5.2: a folded line begins with some.
  if (!isToken(name)) throw malformed("Expected a header field of name, colon and value", start);
  const value = trimmed(text, colon + 1, end);
  if (!isFieldValue(value)) {
    throw malformed(`Expected a ${name} header without control characters`, start);
  }
  return [name, value];
}

// A regular expression anchored at the end only would try each run of blanks from each of its
// places.
function trimmed(text: string, start: number, end: number): string {
  let from = start;
  let to = end;
  while (from < to && isBlank(text[from])) from++;
  while (from < to && isBlank(text[to - 1])) to--;
  return text.slice(from, to);
}

function isBlank(character: string): boolean {
  return character === " " || character === "\t";
}

function latin1(bytes: Uint8Array, end: number): string {
  let text = "";
  // As many arguments at a time as any engine takes.
  for (let at = 0; at < end; at += 8192) {
    const part: ArrayLike<number> = bytes.subarray(at, Math.min(at + 8192, end));
    // Spread, they would go through an iterator.
    text += String.fromCharCode.apply(undefined, part as number[]);
  }
  return text;
}

function malformed(message: string, position: number): HandshakeError {
  return new HandshakeError(`${message} at byte ${position} of the head`, "malformed-head", {
    status: 400,
  });
}

function tooLarge(message: string, code: HandshakeErrorCode = "head-too-large"): HandshakeError {
  return new HandshakeError(message, code, { status: code === "target-too-long" ? 414 : 431 });
}

/**
 * Writes the head of a request.
 *
 * @throws {TypeError} for anything that would break out of its place
 */
export function serializeRequestHead(head: RequestHead): Uint8Array {
  if (!isToken(head.method) || !/^[\x21-\x7e]+$/.test(head.target)) {
    throw new TypeError(
      `Expected a method and a request target without blanks, received ${
        JSON.stringify(`${head.method} ${head.target}`)
      }`,
    );
  }
  checkHttpVersion(head.version);
  return serialize(`${head.method} ${head.target} HTTP/${head.version}`, head.headers);
}

/**
 * Writes the head of a response.
 *
 * @throws {TypeError} for anything that would break out of its place
 */
export function serializeResponseHead(head: ResponseHead): Uint8Array {
  if (!isFieldValue(head.statusText)) {
    throw new TypeError(
      `Expected a reason phrase of one line, received ${JSON.stringify(head.statusText)}`,
    );
  }
  checkHttpVersion(head.version);
  if (!/^[1-9]\d\d$/.test(`${head.status}`)) {
    throw new TypeError(`Expected a status of three digits, received ${head.status}`);
  }
  return serialize(`HTTP/${head.version} ${head.status} ${head.statusText}`, head.headers);
}

function checkHttpVersion(version: string): void {
  if (!/^\d\.\d$/.test(version)) {
    throw new TypeError(`Expected a version of HTTP, received ${JSON.stringify(version)}`);
  }
}

function serialize(start: string, headers: RawHeaders): Uint8Array {
  const lines = [start];
  for (const field of headers) {
    checkField(field[0], field[1]);
    lines.push(`${field[0]}: ${field[1]}`);
  }
  lines.push("", "");
  const text = lines.join("\r\n");
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Gathers bytes until they hold a head. */
export class HeadReader<T> {
  readonly #parse: (bytes: Uint8Array, limits: HeadLimits) => ParsedHead<T> | undefined;
  readonly #limits: HeadLimits;
  #bytes: Uint8Array = EMPTY;
  #parsedAt = 0;

  /**
   * Makes a reader for one head.
   *
   * @param parse the parser of the head
   * @param limits how large it may be
   */
  constructor(
    parse: (bytes: Uint8Array, limits: HeadLimits) => ParsedHead<T> | undefined,
    limits: HeadLimits = {},
  ) {
    this.#parse = parse;
    this.#limits = limits;
  }

  /**
   * Adds bytes; gives the head once it is whole, with the bytes behind it.
   *
   * @throws {HandshakeError} as the parser does
   */
  push(chunk: Uint8Array): { head: T; rest: Uint8Array } | undefined {
    const bytes = this.#bytes.length === 0 ? chunk : concat([this.#bytes, chunk]);
    // A peer that sends byte by byte must not have the whole head parsed anew for each of them.
    const little = this.#parsedAt > 0 && bytes.length < this.#parsedAt + 1024;
    const parsed = little && !endsWithin(bytes, this.#parsedAt) ? undefined : this.#read(bytes);
    // What is kept is our own; a subclass may have a slice() that does not copy, as Buffer has.
    if (parsed !== undefined) {
      const rest = parsed.length === bytes.length ? EMPTY : bytes.subarray(parsed.length);
      return { head: parsed.head, rest: rest === EMPTY ? EMPTY : new Uint8Array(rest) };
    }
    this.#bytes = bytes === chunk ? new Uint8Array(chunk) : bytes;
    return undefined;
  }

  #read(bytes: Uint8Array): ParsedHead<T> | undefined {
    this.#parsedAt = bytes.length;
    return this.#parse(bytes, this.#limits);
  }
}

/** Whether an empty line ends at or behind this offset. */
function endsWithin(bytes: Uint8Array, from: number): boolean {
  for (let at = Math.max(from - 3, 0); at + 3 < bytes.length; at++) {
    if (bytes[at] === CR && bytes[at + 1] === LF && bytes[at + 2] === CR && bytes[at + 3] === LF) {
      return true;
    }
  }
  return false;
}

/** How one knows where a body ends. */
export type BodyFraming = { length: number } | "chunked" | "until-close";

/**
 * How the body of a response is delimited (RFC 9112 §6.3), for one that is no answer to HEAD.
 *
 * @throws {HandshakeError} "malformed-header"
 */
export function bodyFraming(head: ResponseHead): BodyFraming {
  if (head.status < 200 || head.status === 204 || head.status === 304) return { length: 0 };
  const codings = headerValues(head.headers, "Transfer-Encoding");
  if (codings.length > 0) {
    return codings.join(",").trim().toLowerCase() === "chunked" ? "chunked" : "until-close";
  }
  const length = headerValue(head.headers, "Content-Length");
  if (length === undefined) return "until-close";
  if (!/^\d{1,15}$/.test(length)) {
    throw new HandshakeError(
      `Expected a Content-Length of digits, received ${JSON.stringify(length)}`,
      "malformed-header",
    );
  }
  return { length: +length };
}
