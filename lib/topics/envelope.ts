/**
 * How a backplane carries a message: a header of 21 ASCII characters, then the text or the bytes. The
 * header has the type, `t` or `b`, the id of the publisher in 12 characters, and the number of the message
 * in 8 digits of base 36. A text is carried as text, so that only the engine turns it into bytes.
 */
import { SharedMessage } from "../connection/broadcast.ts";
import type { Message } from "../core/message.ts";
import { type BackplaneMessage, formatPosition, type Position } from "./backplane.ts";
import { frameWith } from "./wire.ts";

const ID_LENGTH = 12;
const NUMBER_LENGTH = 8;
const HEADER_LENGTH = 1 + ID_LENGTH + NUMBER_LENGTH;

const HEADER = /^[tb][A-Za-z0-9_-]{12}[0-9a-z]{8}$/;

/** The method is older than the types that this is compiled with. */
type WellFormed = string & { toWellFormed(): string };

const utf8 = new TextEncoder();
const ascii = new TextDecoder("latin1");
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Makes the id of a publisher. */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}

/** Puts a message into an envelope. Bytes are copied. */
export function sealEnvelope(message: Message, id: string, number: number): Uint8Array | string {
  const header = `${id}${number.toString(36).padStart(NUMBER_LENGTH, "0")}`;
  if (typeof message === "string") return `t${header}${(message as WellFormed).toWellFormed()}`;
  const data = new Uint8Array(HEADER_LENGTH + message.length);
  utf8.encodeInto(`b${header}`, data);
  data.set(message, HEADER_LENGTH);
  return data;
}

/** Opens an envelope. Returns undefined if the data are not one. */
export function openEnvelope(topic: string, message: BackplaneMessage): Delivery | undefined {
  const { data, position } = message;
  const header = typeof data === "string"
    ? data.slice(0, HEADER_LENGTH)
    : ascii.decode(data.subarray(0, HEADER_LENGTH));
  if (!HEADER.test(header)) return undefined;
  try {
    return new Delivery(topic, position, header, payloadOf(data, header.startsWith("t")));
  } catch {
    // Text that is not UTF-8 would make each subscriber fail its connection.
    return undefined;
  }
}

function payloadOf(data: Uint8Array | string, isText: boolean): Message {
  if (typeof data === "string") {
    const payload = data.slice(HEADER_LENGTH);
    return isText ? payload : utf8.encode(payload);
  }
  const payload = data.subarray(HEADER_LENGTH);
  return isText ? strict.decode(payload) : payload;
}

/** A message on its way to the subscribers of this process. */
export class Delivery {
  readonly topic: string;
  readonly position: Position | undefined;
  readonly message: Message;
  readonly #header: string;
  #plain: SharedMessage | undefined;
  #framed: SharedMessage | undefined;

  /** @param message A message whose bytes nobody changes. */
  constructor(topic: string, position: Position | undefined, header: string, message: Message) {
    this.topic = topic;
    this.position = position;
    this.message = message;
    this.#header = header;
  }

  /** Different for all messages of all publishers. */
  get id(): string {
    // Put together from short parts: engines let a long part of a string keep the whole message.
    return `${this.#header.slice(0, ID_LENGTH)}${this.#header.slice(ID_LENGTH)}`;
  }

  get publisher(): string {
    return this.#header.slice(1, 1 + ID_LENGTH);
  }

  /** The number that the publisher has given the message. */
  get number(): number {
    return parseInt(this.#header.slice(1 + ID_LENGTH), 36);
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
const MAX_RECENT = 10_000;

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
