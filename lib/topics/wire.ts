/**
 * The messages between a server with topics and its clients: a line of JSON that says what the message
 * is, and after a line feed the published text or bytes. The page docs/reference/topics.md describes
 * them.
 */
import type { Message } from "../core/message.ts";

/** The line of JSON that begins a message. */
export type Line = Readonly<Record<string, unknown>>;

/** What a message says. */
export interface Parsed {
  readonly line: Line;
  /** What follows the line, or undefined if there is no line feed. */
  readonly payload: Message | undefined;
}

/** Maximum length of a line. A name of 255 bytes and a position are shorter, however they are escaped. */
const MAX_LINE_LENGTH = 4096;

const LINE_FEED = 0x0a;

const utf8 = new TextEncoder();

/** Puts a line before a text or before bytes. */
export function frameWith(line: Line, payload: Message): Message {
  const start = `${JSON.stringify(line)}\n`;
  if (typeof payload === "string") return start + payload;
  const head = utf8.encode(start);
  const bytes = new Uint8Array(head.length + payload.length);
  bytes.set(head);
  bytes.set(payload, head.length);
  return bytes;
}

/** Parses a message. Returns undefined if it does not begin with a line that is a JSON object. */
export function parseFrame(message: Message): Parsed | undefined {
  const end = typeof message === "string" ? message.indexOf("\n") : message.indexOf(LINE_FEED);
  const length = end < 0 ? message.length : end;
  if (length > MAX_LINE_LENGTH) return undefined;
  const start = typeof message === "string"
    ? message.slice(0, length)
    : new TextDecoder().decode(message.subarray(0, length));
  const line = parseLine(start);
  return line && { line, payload: end < 0 ? undefined : message.slice(end + 1) };
}

function parseLine(text: string): Line | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value as Line : undefined;
  } catch {
    return undefined;
  }
}
