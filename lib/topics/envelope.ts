/**
 * How a backplane carries a message: a header of 21 ASCII characters, then the UTF-8 of a text or the
 * bytes. The header has the type, `t` or `b`, the id of the publisher in 12 characters, and the number of
 * the message in 8 digits of base 36.
 *
 * @module
 */
import { SharedMessage } from "../connection/broadcast.ts";
import type { Message } from "../core/message.ts";
import { type BackplaneMessage, formatPosition, type Position } from "./backplane.ts";
import { frameWith } from "./wire.ts";

const TEXT = 0x74;
const BINARY = 0x62;
const ID_LENGTH = 12;
const NUMBER_LENGTH = 8;
const HEADER_LENGTH = 1 + ID_LENGTH + NUMBER_LENGTH;

const HEADER = /^[tb][A-Za-z0-9_-]{12}[0-9a-z]{8}$/;

const utf8 = new TextEncoder();
const ascii = new TextDecoder("latin1");
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Makes the id of a publisher. */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}

/** Puts a message into an envelope. */
export function sealEnvelope(message: Message, id: string, number: number): Uint8Array {
  const isText = typeof message === "string";
  const payload = isText ? utf8.encode(message) : message;
  const data = new Uint8Array(HEADER_LENGTH + payload.length);
  data[0] = isText ? TEXT : BINARY;
  for (let i = 0; i < ID_LENGTH; i++) data[1 + i] = id.charCodeAt(i);
  for (let at = HEADER_LENGTH - 1, rest = number; at > ID_LENGTH; at--) {
    const digit = rest % 36;
    data[at] = digit < 10 ? 0x30 + digit : 0x57 + digit;
    rest = (rest - digit) / 36;
  }
  data.set(payload, HEADER_LENGTH);
  return data;
}

/** Opens an envelope. Returns undefined if the bytes are not one. */
export function openEnvelope(
  topic: string,
  { data, position }: BackplaneMessage,
): Delivery | undefined {
  const header = ascii.decode(data.subarray(0, HEADER_LENGTH));
  if (!HEADER.test(header)) return undefined;
  const delivery = new Delivery(topic, position, header, data.subarray(HEADER_LENGTH));
  try {
    // Text that is not UTF-8 would make each subscriber fail its connection.
    void delivery.message;
  } catch {
    return undefined;
  }
  return delivery;
}

/** A message on its way to the subscribers of this process. */
export class Delivery {
  readonly topic: string;
  readonly position: Position | undefined;
  readonly #header: string;
  readonly #payload: Uint8Array;
  #message: Message | undefined;
  #plain: SharedMessage | undefined;
  #framed: SharedMessage | undefined;

  constructor(
    topic: string,
    position: Position | undefined,
    header: string,
    payload: Uint8Array,
  ) {
    this.topic = topic;
    this.position = position;
    this.#header = header;
    this.#payload = payload;
  }

  /** Different for all messages of all publishers. */
  get id(): string {
    return this.#header;
  }

  get publisher(): string {
    return this.#header.slice(1, 1 + ID_LENGTH);
  }

  /** The number that the publisher has given the message. */
  get number(): number {
    return parseInt(this.#header.slice(1 + ID_LENGTH), 36);
  }

  get length(): number {
    return this.#payload.length;
  }

  get message(): Message {
    return this.#message ??= this.#header.startsWith("t")
      ? strict.decode(this.#payload)
      : this.#payload;
  }

  /** The message as it was published. */
  get plain(): SharedMessage {
    return this.#plain ??= new SharedMessage(this.message);
  }

  /** The message after a line that says its topic and position. See wire.ts. */
  get framed(): SharedMessage {
    const { topic, position, message } = this;
    const at = position === undefined ? {} : { position: formatPosition(position) };
    return this.#framed ??= new SharedMessage(frameWith({ topic, ...at }, message));
  }
}

/** Number of messages among which repetitions are found. */
const MAX_RECENT = 1000;

/** The ids of the last messages. */
export class RecentIds {
  readonly #ids = new Set<string>();

  /** Adds the id of a message. Returns whether it was there. */
  add(id: string): boolean {
    if (this.#ids.has(id)) return true;
    this.#ids.add(id);
    if (this.#ids.size > MAX_RECENT) {
      const [oldest] = this.#ids;
      this.#ids.delete(oldest);
    }
    return false;
  }

  clear(): void {
    this.#ids.clear();
  }
}
