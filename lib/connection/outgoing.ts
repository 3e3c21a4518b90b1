/**
 * What a caller may send, as messages and the items of messages.
 *
 * @module
 */
import type { Message } from "../core/message.ts";
import { WholeCharacters } from "../core/utf8.ts";
import type { BufferSource, OutgoingMessage } from "../options.ts";

const encoder = new TextEncoder();

/** The bytes of a buffer source, not copied. Undefined for anything else. */
export function viewOf(value: unknown): Uint8Array | undefined {
  if (value instanceof Uint8Array) return value;
  if (ArrayBuffer.isView(value)) {
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  }
  return isBuffer(value, "ArrayBuffer") || isBuffer(value, "SharedArrayBuffer")
    ? new Uint8Array(value)
    : undefined;
}

/** Whether it is such a buffer, be it one of another realm. */
function isBuffer(value: unknown, kind: "ArrayBuffer" | "SharedArrayBuffer"): value is ArrayBuffer {
  return Object.prototype.toString.call(value) === `[object ${kind}]`;
}

/** Whether the bytes can neither be changed by another thread nor vanish. */
export function isFixed(bytes: Uint8Array): boolean {
  const buffer: object = bytes.buffer;
  const plain = buffer instanceof ArrayBuffer || isBuffer(buffer, "ArrayBuffer");
  return plain && !(buffer as { resizable?: boolean }).resizable;
}

/**
 * A chunk written to a stream of messages, as a message: strings and buffer sources as they are,
 * anything else as the string it converts to.
 *
 * @throws {TypeError} for a shared or resizable buffer, and for what converts to no string
 */
export function toMessage(chunk: unknown): Message {
  if (typeof chunk === "string") return chunk;
  const bytes = viewOf(chunk);
  // A template literal, unlike String(), throws for a symbol, as the standard demands.
  if (bytes === undefined) return `${chunk}`;
  // Web IDL: a BufferSource that is not [AllowShared] or [AllowResizable].
  if (!isFixed(bytes)) {
    throw new TypeError("Expected a buffer that is neither shared nor resizable");
  }
  return bytes;
}

/** A message in one piece, or in many. */
export type Sendable = Message | AsyncIterable<Message> | Iterable<Message>;

/**
 * What `send()` was given.
 *
 * @throws {TypeError} when it can be sent in no way
 */
export function toSendable(message: OutgoingMessage): Sendable {
  if (typeof message === "string") return message;
  const bytes = viewOf(message as BufferSource);
  if (bytes !== undefined) return bytes;
  if (message instanceof ReadableStream) return new StreamSource(message);
  if (typeof message === "object" && message !== null) {
    if (Symbol.asyncIterator in message) return message as AsyncIterable<Message>;
    if (Symbol.iterator in message) return message as Iterable<Message>;
  }
  throw new TypeError(
    `Expected a string, a buffer source, an iterable or a stream, received ${
      message === null ? "null" : typeof message
    }`,
  );
}

/**
 * A stream as a source that can be cancelled while it is silent: the iterator of a stream would wait
 * for the next chunk to say so.
 */
export class StreamSource implements AsyncIterable<Message> {
  readonly #reader: ReadableStreamDefaultReader<Message>;

  constructor(stream: ReadableStream<Message>) {
    this.#reader = stream.getReader();
  }

  [Symbol.asyncIterator](): AsyncIterator<Message, undefined> {
    return {
      next: async () => {
        const { done, value } = await this.#reader.read();
        return done ? { done, value: undefined } : { done, value };
      },
    };
  }

  /** Tells the stream that nobody wants the rest. */
  cancel(reason: unknown): void {
    this.#reader.cancel(reason).catch(() => {});
  }
}

/** A piece of a message of several frames. */
export interface Piece {
  data: Message;
  /** Whether the message ends with it. */
  last: boolean;
}

/**
 * The pieces of a message, all of one type. An asynchronous source may take its time to say that an item
 * was the last, so that each is given as it comes, and an empty piece after them.
 *
 * @param text the type that the option `text` asks for
 */
export async function* piecesOf(
  items: AsyncIterable<Message> | Iterable<Message>,
  text: boolean | undefined,
): AsyncGenerator<Piece, void, void> {
  const converter = new ItemConverter(text);
  if (Symbol.asyncIterator in items) {
    for await (const item of items) yield { data: converter.convert(item, false), last: false };
    if (converter.hasBegun) yield { data: converter.finish(), last: true };
    return;
  }
  let held: { item: unknown } | undefined;
  for (const item of items) {
    if (held !== undefined) yield { data: converter.convert(held.item, false), last: false };
    // The source goes on while the item is held, and may use its buffer again.
    held = { item: ownItem(item) };
  }
  if (held !== undefined) yield { data: converter.convert(held.item, true), last: true };
}

/** The item, copied where it is bytes: a subclass may have a slice() that does not copy, as Buffer has. */
export function ownItem<T>(value: T): T | Uint8Array {
  const bytes = viewOf(value);
  return bytes === undefined ? value : new Uint8Array(bytes);
}

/** Makes the items of a message what is sent. They may cut characters anywhere. */
class ItemConverter {
  readonly #text: boolean | undefined;
  #decoder: TextDecoder | undefined;
  readonly #characters = new WholeCharacters();
  /** The type of the pieces so far, and whether the items are of the other one. */
  #type: "string" | "object" | undefined;
  #isConverting = false;

  constructor(text: boolean | undefined) {
    this.#text = text;
  }

  get hasBegun(): boolean {
    return this.#type !== undefined;
  }

  convert(item: unknown, last: boolean): Message {
    const data = typeof item === "string" ? item : viewOf(item);
    if (data === undefined) {
      throw new TypeError(`Expected each item to be a string or bytes, received ${typeof item}`);
    }
    this.#isConverting = this.#text !== undefined && this.#text !== (typeof data === "string");
    const piece = this.#isConverting ? this.#convert(data, last) : data;
    const type = typeof piece as "string" | "object";
    if (this.#type !== undefined && this.#type !== type) {
      throw new TypeError("Expected the items of a message to be of one type, received both");
    }
    this.#type = type;
    return piece;
  }

  /** The piece after all items. */
  finish(): Message {
    const nothing = (this.#type === "string") === this.#isConverting ? new Uint8Array(0) : "";
    return this.#isConverting ? this.#convert(nothing, true) : nothing;
  }

  #convert(data: Message, last: boolean): Message {
    if (typeof data === "string") return encoder.encode(this.#characters.take(data, last));
    const decoder = this.#decoder ??= new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    return asText(() => decoder.decode(data, { stream: !last }));
  }
}

/**
 * What gives text.
 *
 * @throws {RangeError} when the bytes are not UTF-8
 */
export function asText(decode: () => string): string {
  try {
    return decode();
  } catch (cause) {
    throw new RangeError("Expected a text message to be UTF-8, received other bytes", { cause });
  }
}
