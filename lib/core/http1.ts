/** Parses and serializes the heads of HTTP/1.1 messages, strictly and within limits (RFC 9112). */
import { HandshakeError, type HandshakeErrorCode, wrongType } from "./error.ts";
import { checkField, isFieldValue, isToken, type RawHeaders, TCHAR } from "./header.ts";
import { checkNumber, checkValues, type OptionNames } from "./options.ts";

/** The head of a request. */
export interface RequestHead {
  /** The method, such as GET. */
  readonly method: string;
  /** The request target, such as /chat?room=1. */
  readonly target: string;
  /** The HTTP version, such as 1.1. */
  readonly version: string;
  /** The header fields. */
  readonly headers: RawHeaders;
}

/** The head of a response. */
export interface ResponseHead {
  /** The HTTP version, such as 1.1. */
  readonly version: string;
  /** The status code. */
  readonly status: number;
  /** The reason phrase. */
  readonly statusText: string;
  /** The header fields. */
  readonly headers: RawHeaders;
}

/** Limits for the head of a message. */
export interface HeadLimits {
  /**
   * Maximum number of header fields.
   * @default {128}
   */
  maxHeaderCount?: number | undefined;
  /**
   * Maximum length of a line, in bytes.
   * @default {8192}
   */
  maxLineLength?: number | undefined;
  /**
   * Maximum length of the head, in bytes.
   * @default {16384}
   */
  maxHeadSize?: number | undefined;
}

export const HEAD_LIMITS: OptionNames<HeadLimits> = {
  maxHeaderCount: checkNumber,
  maxLineLength: checkNumber,
  maxHeadSize: checkNumber,
};

const EMPTY = new Uint8Array(0);
const TAB = 9;
const LF = 10;
const CR = 13;
const DEL = 0x7f;

/** The items of a start line: regular expressions for one character, or for a run of them. */
type Pattern = readonly string[];

const HTTP_VERSION: Pattern = [..."HTTP/", "\\d", "\\.", "\\d"];
/** RFC 9112 §3: method, target and version. */
const REQUEST_LINE: Pattern = [`${TCHAR}+`, " ", "[\\x21-\\x7e]+", " ", ...HTTP_VERSION];
/** RFC 9112 §4: version, status and reason phrase. */
const STATUS_LINE: Pattern = [...HTTP_VERSION, " ", "[1-9]", "\\d", "\\d", " ", "[^]+"];

/** A kind of start line, and the errors for an invalid one. */
interface StartLine {
  whole: RegExp;
  items: readonly { is: RegExp; repeats: boolean }[];
  message: string;
  tooLong: HandshakeErrorCode;
}

function startLine(
  pattern: Pattern,
  whole: RegExp,
  message: string,
  tooLong: HandshakeErrorCode,
): StartLine {
  const items = pattern.map((item) => ({
    is: new RegExp(`^${item}$`),
    repeats: item.endsWith("+"),
  }));
  return { whole, items, message, tooLong };
}

const REQUEST = startLine(
  REQUEST_LINE,
  new RegExp(`^${REQUEST_LINE.join("")}$`),
  "The head does not begin with a request line of method, target and version",
  "target-too-long",
);
const RESPONSE = startLine(
  STATUS_LINE,
  // Some servers that send no reason phrase omit the space before it.
  new RegExp(`^${STATUS_LINE.slice(0, -2).join("")}(?: .*)?$`),
  "The head does not begin with a status line of version, status and reason phrase",
  "head-too-large",
);

/** The state of a parser between two calls, so that it does not read the same bytes again. */
export class HeadProgress {
  /** The start line, once it is complete. Internal. */
  start: string | undefined;
  /** The fields that have been read. Internal. */
  readonly headers: [string, string][] = [];
  /** The offset of the first incomplete line. Internal. */
  line = 0;
  /** The end of the bytes that have been checked. Internal. */
  seen = 0;
  /** The index of the current item of the start line. Internal. */
  item = 0;
  /** Whether the current item has a character. Internal. */
  begun = false;
  /** The head, if the last call read all of it and nothing follows it. Internal. */
  text: string | undefined;
}

/**
 * Parses the head of a request. Returns undefined while the head is incomplete.
 * @param bytes All bytes received so far, from the first byte of the head.
 * @param limits The limits of the head.
 * @param progress The state that an earlier call with the beginning of these bytes has left.
 * @returns The head, and its length in bytes with the empty line at its end.
 * @throws {HandshakeError} If the head is wrong: "malformed-head", "target-too-long",
 * "head-too-large" or "http-version". An impossible request line and control characters fail at
 * once, other errors at the end of their line.
 * @throws {TypeError} If a limit is not a number.
 * @throws {RangeError} If a limit is negative or NaN.
 */
export function parseRequestHead(
  bytes: Uint8Array,
  limits: HeadLimits = {},
  progress: HeadProgress = new HeadProgress(),
): { head: RequestHead; length: number } | undefined {
  const lines = readLines(bytes, limits, progress, REQUEST);
  if (lines === undefined) return undefined;
  const { headers, length } = lines;
  const [method, target, protocol] = lines.start.split(" ");
  const version = checkVersion(protocol, 505);
  return { head: { method, target, version, headers }, length };
}

/**
 * Parses the head of a response. Returns undefined while the head is incomplete.
 * @param bytes All bytes received so far, from the first byte of the head.
 * @param limits The limits of the head.
 * @param progress The state that an earlier call with the beginning of these bytes has left.
 * @returns The head, and its length in bytes with the empty line at its end.
 * @throws {HandshakeError} If the head is wrong: "malformed-head", "head-too-large" or
 * "http-version". An impossible status line and control characters fail at once, other errors at the
 * end of their line.
 * @throws {TypeError} If a limit is not a number.
 * @throws {RangeError} If a limit is negative or NaN.
 */
export function parseResponseHead(
  bytes: Uint8Array,
  limits: HeadLimits = {},
  progress: HeadProgress = new HeadProgress(),
): { head: ResponseHead; length: number } | undefined {
  const lines = readLines(bytes, limits, progress, RESPONSE);
  if (lines === undefined) return undefined;
  const [protocol, status, ...phrase] = lines.start.split(" ");
  const { headers, length } = lines;
  const version = checkVersion(protocol);
  return { head: { version, status: +status, statusText: phrase.join(" "), headers }, length };
}

function checkVersion(protocol: string, status?: number): string {
  if (protocol.startsWith("HTTP/1.")) return protocol.slice(5);
  throw new HandshakeError(
    `The peer uses ${protocol} instead of HTTP/1.1`,
    "http-version",
    { status },
  );
}

interface Lines {
  start: string;
  headers: RawHeaders;
  length: number;
}

function readLines(
  bytes: Uint8Array,
  limits: HeadLimits,
  progress: HeadProgress,
  startLine: StartLine,
): Lines | undefined {
  checkValues(limits, HEAD_LIMITS, "limits.");
  const { maxHeaderCount = 128, maxLineLength = 8192, maxHeadSize = 16384 } = limits;
  const { headers } = progress;
  let text: string | undefined;
  const base = progress.line;
  for (;;) {
    const end = lineEnd(bytes, progress.seen);
    const { start, line, seen: before } = progress;
    // If the last byte is a CR, it is not part of the line.
    const seen = end ?? bytes.length - (bytes.at(-1) === CR ? 1 : 0);
    const length = seen - line;
    if (length > maxLineLength) {
      throw tooLarge(
        `A line of the head exceeds maxLineLength (${maxLineLength})`,
        start === undefined ? startLine.tooLong : "head-too-large",
      );
    }
    if (seen + 2 > maxHeadSize) {
      throw tooLarge(`The head exceeds maxHeadSize (${maxHeadSize})`);
    }
    progress.seen = seen;
    if (end === undefined) {
      if (start === undefined) checkBeginning(bytes, before, progress, startLine);
      return undefined;
    }
    progress.line = progress.seen = end + 2;
    if (length === 0 && start !== undefined) {
      if (base === 0 && text?.length === end + 2) progress.text = text;
      return { start, headers, length: end + 2 };
    }
    // Decode the whole head once instead of each line.
    text ??= latin1(bytes, base, Math.min(bytes.length, maxHeadSize));
    if (start === undefined) {
      progress.start = text.slice(0, end);
      if (!startLine.whole.test(progress.start)) throw malformed(startLine.message, 0);
    } else {
      headers.push(parseField(text, line - base, end - base, base));
    }
    if (headers.length > maxHeaderCount) {
      throw tooLarge(`The number of header fields exceeds maxHeaderCount (${maxHeaderCount})`);
    }
  }
}

/** Checks that an incomplete start line can still become valid. Each byte is checked once. */
function checkBeginning(
  bytes: Uint8Array,
  from: number,
  progress: HeadProgress,
  { items, whole, message }: StartLine,
): void {
  const { seen } = progress;
  for (const character of latin1(bytes, from, seen)) {
    // A run ends before the first character that does not belong to it.
    const ends = progress.begun && !items[progress.item].is.test(character);
    if (ends) progress.item++;
    const item = items[progress.item];
    if (!item?.is.test(character)) throw malformed(message, 0);
    progress.begun = item.repeats;
    if (!item.repeats) progress.item++;
  }
  // Only LF may follow a CR.
  if (seen < bytes.length && !whole.test(latin1(bytes, 0, seen))) {
    throw malformed(message, 0);
  }
}

/** Returns where the line ends that begins at `start`. RFC 9112 §2.2: lines end with CR LF. */
function lineEnd(bytes: Uint8Array, start: number): number | undefined {
  for (let at = start; at < bytes.length; at++) {
    const byte = bytes[at];
    if ((byte >= 0x20 && byte !== DEL) || byte === TAB) continue;
    if (byte === LF) throw malformed("A line ends with LF instead of CR LF", at);
    // A control character makes the head invalid. Do not wait for the rest of the line.
    if (byte !== CR) throw malformed("The head has a control character", at);
    if (at + 1 === bytes.length) return undefined;
    if (bytes[at + 1] !== LF) throw malformed("A CR is not followed by LF", at + 1);
    return at;
  }
  return undefined;
}

/** Parses the field in a line of the head; `base` is the offset of the text in the head. */
function parseField(text: string, start: number, end: number, base: number): [string, string] {
  const colon = text.indexOf(":", start);
  const name = text.slice(start, colon < end ? Math.max(colon, start) : start);
  // RFC 9112 §5.1, §5.2: there is no white space before the colon, and no folded line.
  if (!isToken(name)) {
    throw malformed("A line is not a header field of name, colon and value", base + start);
  }
  return [name, withoutBlanks(text, colon + 1, end)];
}

/** Returns a part of the text without the blanks at its ends. */
function withoutBlanks(text: string, from: number, to: number): string {
  // A loop, because a regular expression for trailing blanks takes quadratic time.
  while (from < to && (text[from] === " " || text[from] === "\t")) from++;
  while (from < to && (text[to - 1] === " " || text[to - 1] === "\t")) to--;
  return text.slice(from, to);
}

const decoder = new TextDecoder();

function latin1(bytes: Uint8Array, start: number, end: number): string {
  const part = bytes.subarray(start, end);
  const ascii = decoder.decode(part);
  // In UTF-8, all other bytes change the length or are invalid.
  if (ascii.length === part.length && !ascii.includes("\uFFFD")) return ascii;
  return Array.from(part, (byte) => String.fromCharCode(byte)).join("");
}

function malformed(message: string, position: number): HandshakeError {
  return new HandshakeError(`${message} (byte ${position} of the head)`, "malformed-head", {
    status: 400,
  });
}

function tooLarge(message: string, code: HandshakeErrorCode = "head-too-large"): HandshakeError {
  return new HandshakeError(message, code, { status: code === "target-too-long" ? 414 : 431 });
}

/**
 * Serializes the head of a request.
 * @throws {TypeError} If a part contains characters that are not allowed there.
 */
export function serializeRequestHead(head: RequestHead): Uint8Array {
  if (!isToken(head.method) || !/^[\x21-\x7e]+$/.test(head.target)) {
    throw wrongType(
      // The target may contain a password or a token.
      `Expected a method and a request target without spaces, received the method ${
        JSON.stringify(head.method)
      }`,
    );
  }
  checkHttpVersion(head.version);
  return serialize(`${head.method} ${head.target} HTTP/${head.version}`, head.headers);
}

/**
 * Serializes the head of a response.
 * @throws {TypeError} If a part contains characters that are not allowed there.
 */
export function serializeResponseHead(head: ResponseHead): Uint8Array {
  if (!isFieldValue(head.statusText)) {
    throw wrongType(
      `Expected statusText to be one line of Latin-1, received ${JSON.stringify(head.statusText)}`,
    );
  }
  checkHttpVersion(head.version);
  if (!/^[1-9]\d\d$/.test(`${head.status}`)) {
    throw wrongType(`Expected status to have three digits, received ${head.status}`);
  }
  return serialize(`HTTP/${head.version} ${head.status} ${head.statusText}`, head.headers);
}

function checkHttpVersion(version: string): void {
  if (!/^\d\.\d$/.test(version)) {
    throw wrongType(
      `Expected version to be a version of HTTP, received ${JSON.stringify(version)}`,
    );
  }
}

function serialize(start: string, headers: RawHeaders): Uint8Array {
  for (const [name, value] of headers) checkField(name, value);
  return latin1Bytes(headText(start, headers));
}

/** Returns the head of a request, which has been checked, as text. The text takes less memory. */
export function requestText({ method, target, version, headers }: RequestHead): string {
  return headText(`${method} ${target} HTTP/${version}`, headers);
}

/** Returns the head of a response, which has been checked, as text. */
export function responseText({ version, status, statusText, headers }: ResponseHead): string {
  return headText(`HTTP/${version} ${status} ${statusText}`, headers);
}

function headText(start: string, headers: RawHeaders): string {
  const lines = [start];
  for (const field of headers) lines.push(field[0] + ": " + field[1]);
  lines.push("", "");
  return lines.join("\r\n");
}

/** Returns the head of a request from the text of a head that has been checked. */
export function requestOf(text: string): RequestHead {
  const { start, headers } = splitHead(text);
  const [method, target, protocol] = start.split(" ");
  return { method, target, version: protocol.slice(5), headers };
}

/** Returns the head of a response from the text of a head that has been checked. */
export function responseOf(text: string): ResponseHead {
  const { start, headers } = splitHead(text);
  const [protocol, status, ...phrase] = start.split(" ");
  return { version: protocol.slice(5), status: +status, statusText: phrase.join(" "), headers };
}

function splitHead(text: string): { start: string; headers: RawHeaders } {
  const [start, ...lines] = text.slice(0, text.indexOf("\r\n\r\n")).split("\r\n");
  const headers = lines.map((line): [string, string] => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon), withoutBlanks(line, colon + 1, line.length)];
  });
  return { start, headers };
}

export function latin1Bytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Parses a head. Continues where `progress` says that the last call stopped. */
export type HeadParser<T> = (
  bytes: Uint8Array,
  limits: HeadLimits,
  progress: HeadProgress,
) => { head: T; length: number } | undefined;

const MOST_INTERIM = 16;

/** Checks the number of interim responses (RFC 9110 §15.2), which come before the final one. */
export function checkInterim(count: number): void {
  if (count <= MOST_INTERIM) return;
  throw tooLarge(`The server sent more than ${MOST_INTERIM} interim responses`);
}

/** Reads a head from chunks. Skips interim responses. */
export class HeadReader<T> {
  readonly #parse: HeadParser<T>;
  readonly #limits: HeadLimits;
  #progress = new HeadProgress();
  #interim = 0;
  /** The first chunk, or a buffer of this reader's with room for more. */
  #buffer: Uint8Array = EMPTY;
  #length = 0;
  /** The text of the last head, if it was read in one call and nothing followed it. */
  text: string | undefined;

  constructor(parse: HeadParser<T>, limits: HeadLimits = {}) {
    this.#parse = parse;
    this.#limits = limits;
  }

  /** Adds bytes. Returns the head once it is complete, and the bytes after it. */
  push(chunk: Uint8Array): { head: T; rest: Uint8Array } | undefined {
    const isFirst = this.#length === 0;
    if (isFirst) this.#buffer = chunk;
    else this.#append(chunk);
    this.#length += chunk.length;
    let parsed: ReturnType<HeadParser<T>>;
    try {
      const bytes = isFirst ? chunk : this.#buffer.subarray(0, this.#length);
      parsed = this.#parse(bytes, this.#limits, this.#progress);
    } finally {
      // The caller may use the chunk again.
      if (isFirst && parsed === undefined) this.#buffer = chunk.slice();
    }
    if (parsed === undefined) return undefined;
    const { head } = parsed;
    this.text = this.#progress.text;
    const rest = parsed.length === this.#length
      ? EMPTY
      : this.#buffer.slice(parsed.length, this.#length);
    this.#length = 0;
    const { status = 200 } = head as { status?: number };
    // RFC 9110 §15.2: a client must accept interim responses that it did not ask for. 101 is final
    // here.
    if (status >= 200 || status === 101) return { head, rest };
    checkInterim(++this.#interim);
    this.#progress = new HeadProgress();
    return this.push(rest);
  }

  startsWith(text: string): boolean {
    return latin1(this.#buffer, 0, Math.min(this.#length, text.length)) === text;
  }

  #append(chunk: Uint8Array): void {
    const length = this.#length + chunk.length;
    if (length > this.#buffer.length) {
      // Doubling the capacity makes the total time linear.
      const buffer = new Uint8Array(Math.max(length, 2 * this.#length));
      buffer.set(this.#buffer.subarray(0, this.#length));
      this.#buffer = buffer;
    }
    this.#buffer.set(chunk, this.#length);
  }
}
