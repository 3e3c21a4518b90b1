/** Converts what a caller sends into messages and pieces of messages. */
import { wrongType, wrongValue } from "../core/error.ts";
import { concat, type Message } from "../core/message.ts";
import { kindOf } from "../core/options.ts";
import { WholeCharacters } from "../core/utf8.ts";
import type { BufferSource, OutgoingMessage, SendOptions } from "../options.ts";

const encoder = new TextEncoder();

/** The prototype of Node's bytes, if the platform has them. */
const { Buffer } = globalThis as { Buffer?: { readonly prototype: object } };
const bufferPrototype = Buffer?.prototype;

/** Whether a value is bytes whose members are those of the platform, and not those of a subclass. */
export function isPlainBytes(value: unknown): value is Uint8Array {
  if (!(value instanceof Uint8Array)) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Uint8Array.prototype || prototype === bufferPrototype;
}

/**
 * Returns a view of the bytes of a buffer source, or undefined for anything else. Bytes of a subclass are
 * copied, because the constructor asks no member of the subclass.
 * @throws {TypeError} If the bytes of a subclass were detached.
 */
export function viewOf(value: unknown): Uint8Array | undefined {
  if (value instanceof Uint8Array) return isPlainBytes(value) ? value : new Uint8Array(value);
  if (ArrayBuffer.isView(value)) {
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  }
  return isBuffer(value, "ArrayBuffer") || isBuffer(value, "SharedArrayBuffer")
    ? new Uint8Array(value)
    : undefined;
}

/** Whether a value is such a buffer, also one of another realm. */
function isBuffer(value: unknown, kind: "ArrayBuffer" | "SharedArrayBuffer"): value is ArrayBuffer {
  return Object.prototype.toString.call(value) === `[object ${kind}]`;
}

/** Whether no other thread can change the bytes, and they cannot be resized away. */
export function isFixed(bytes: Uint8Array): boolean {
  const buffer: object = bytes.buffer;
  const plain = buffer instanceof ArrayBuffer || isBuffer(buffer, "ArrayBuffer");
  return plain && !(buffer as { resizable?: boolean }).resizable;
}

/**
 * Converts a chunk of a stream of messages into a message. Strings and buffer sources stay as they are.
 * @throws {TypeError} If the buffer is shared or resizable, or the chunk cannot be converted to a string.
 */
export function toMessage(chunk: unknown): Message {
  if (typeof chunk === "string") return chunk;
  const bytes = viewOf(chunk);
  // A template literal, unlike String(), throws for a symbol, as the standard demands.
  if (bytes === undefined) return `${chunk}`;
  // Web IDL: a BufferSource that is not [AllowShared] or [AllowResizable].
  if (!isFixed(bytes)) {
    throw wrongType("Expected a buffer that is neither shared nor resizable");
  }
  return bytes;
}

export type Sendable = Message | AsyncIterable<Message> | Iterable<Message>;

/** Converts the argument of `send()`. Throws a TypeError if the argument cannot be sent. */
export function toSendable(message: OutgoingMessage): Sendable {
  if (typeof message === "string") return message;
  const bytes = viewOf(message as BufferSource);
  if (bytes !== undefined) return bytes;
  if (message instanceof ReadableStream) return new StreamSource(message);
  if (typeof message === "object" && message !== null) {
    if (Symbol.asyncIterator in message) return message as AsyncIterable<Message>;
    if (Symbol.iterator in message) return message as Iterable<Message>;
  }
  const sendable = "a string, a buffer source, an iterable or a stream";
  throw wrongType(`Expected ${sendable}, received ${kindOf(message)}${insteadOf(message)}`);
}

/** Converts a whole message. Throws a TypeError if it cannot be sent. */
function toWhole(message: unknown): Message {
  const data = typeof message === "string" ? message : viewOf(message);
  if (data !== undefined) return data;
  throw wrongType(`Expected a string or a buffer source, received ${kindOf(message)}`);
}

/** Passes each of the messages on. Throws if one cannot be sent or the iterable throws. */
export function sendEach(
  messages: Iterable<unknown>,
  { signal, text }: SendOptions,
  send: (message: Message) => void,
): void {
  signal?.throwIfAborted();
  // A string would be sent as characters.
  if (typeof messages === "string" || !(Symbol.iterator in Object(messages))) {
    throw wrongType(
      `Expected an iterable, received ${kindOf(messages)}: send each message`,
    );
  }
  for (const message of messages) send(convert(toWhole(message), text));
}

/** Says what to write instead of an object that cannot be sent. */
function insteadOf(value: unknown): string {
  if (typeof value !== "object" || value === null) return "";
  if (value instanceof Promise) return ": await the promise first";
  return `: write ${value instanceof Blob ? "blob.stream()" : "JSON.stringify(object)"}`;
}

/** A stream as a source that can be cancelled while a read is pending, which its iterator cannot. */
export class StreamSource implements AsyncIterable<Message> {
  readonly #reader: ReadableStreamDefaultReader<Message>;

  constructor(stream: ReadableStream<Message>) {
    if (stream.locked) {
      throw wrongType("Cannot send a stream that is locked: it has another reader");
    }
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

  cancel(reason: unknown): void {
    this.#reader.cancel(reason).catch(() => {});
  }
}

/** Converts a message to text or bytes, if `text` says so. */
export function convert(message: Message, text: boolean | undefined): Message {
  if (text === undefined || text === (typeof message === "string")) return message;
  if (typeof message === "string") return encoder.encode(message);
  // Another thread may change a shared buffer while it is decoded.
  const bytes = isFixed(message) ? message : ownItem(message) as Uint8Array;
  return asText(() => makeDecoder().decode(bytes));
}

export interface Piece {
  data: Message;
  last: boolean;
}

/**
 * Yields the pieces of a message, all of one type. An asynchronous source may be slow to report its end,
 * so that each item is passed on at once, and an empty piece ends the message.
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
    // Copy the item: the source continues meanwhile, and may reuse its buffer.
    held = { item: ownItem(item) };
  }
  if (held !== undefined) yield { data: converter.convert(held.item, true), last: true };
}

/** Returns a copy of bytes, and anything else as it is. Don't use slice(), which Buffer overrides. */
export function ownItem<T>(value: T): T | Uint8Array {
  const bytes = viewOf(value);
  return bytes === undefined ? value : new Uint8Array(bytes);
}

/** The errors of items that cannot be sent, unlike the errors of the source. */
const itemErrors = new WeakSet<object>();

export function isItemError(error: unknown): error is Error {
  return itemErrors.has(error as object);
}

/** Converts items to the type of the message. An item may end within a character. */
class ItemConverter {
  readonly #text: boolean | undefined;
  #decoder: TextDecoder | undefined;
  readonly #characters = new WholeCharacters();
  /** The type of the pieces so far, and whether the items have the other type. */
  #type: "string" | "object" | undefined;
  #isConverting = false;

  constructor(text: boolean | undefined) {
    this.#text = text;
  }

  get hasBegun(): boolean {
    return this.#type !== undefined;
  }

  convert(item: unknown, last: boolean): Message {
    try {
      return this.#toPiece(item, last);
    } catch (error) {
      itemErrors.add(error as Error);
      throw error;
    }
  }

  #toPiece(item: unknown, last: boolean): Message {
    const data = typeof item === "string" ? item : viewOf(item);
    if (data === undefined) {
      throw wrongType(`Expected each item to be a string or bytes, received ${typeof item}`);
    }
    const converts = this.#text !== undefined && this.#text !== (typeof data === "string");
    let piece = converts ? this.#convert(data, last) : data;
    // A character that the items before have cut does not continue in this one.
    const cut = this.#isConverting && !converts ? this.finish() : "";
    if (typeof cut !== "string") piece = concat([cut, data as Uint8Array]);
    this.#isConverting = converts;
    const type = typeof piece as "string" | "object";
    if (this.#type !== undefined && this.#type !== type) {
      throw wrongType("Expected the items of a message to be all text or all bytes, received both");
    }
    this.#type = type;
    return piece;
  }

  /** Returns the rest of the message: what a cut character becomes, if there is one. */
  finish(): Message {
    const nothing = (this.#type === "string") === this.#isConverting ? new Uint8Array(0) : "";
    return this.#isConverting ? this.convert(nothing, true) : nothing;
  }

  #convert(data: Message, last: boolean): Message {
    if (typeof data === "string") return encoder.encode(this.#characters.take(data, last));
    const decoder = this.#decoder ??= makeDecoder();
    return asText(() => decoder.decode(data, { stream: !last }));
  }
}

function makeDecoder(): TextDecoder {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
}

/** Decodes text. Throws a RangeError if the bytes are not UTF-8. */
export function asText(decode: () => string): string {
  try {
    return decode();
  } catch (cause) {
    throw wrongValue("The bytes of the text message are not valid UTF-8", { cause });
  }
}
