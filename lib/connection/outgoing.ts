/**
 * What a caller may send, as messages and the items of messages.
 *
 * @module
 */
import type { Message } from "../core/message.ts";
import { WholeCharacters } from "../core/utf8.ts";
import type { BufferSource, OutgoingMessage } from "../options.ts";

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

/** An item of a message of several frames. */
export interface Item {
  /** What its source gave. */
  value: unknown;
  /** Whether the message ends with it. */
  last: boolean;
  /** Whether it is none of the source's, but the end behind them. */
  behind: boolean;
}

/**
 * The items of a message, the last one marked. An asynchronous source may take its time to say that
 * an item was the last, so that each is sent as it comes, and an empty one behind them.
 */
export async function* marked(
  items: AsyncIterable<Message> | Iterable<Message>,
): AsyncGenerator<Item, void, void> {
  let held: Item | undefined;
  if (Symbol.asyncIterator in items) {
    for await (const value of items) {
      held = { value: undefined, last: true, behind: true };
      yield { value, last: false, behind: false };
    }
  } else {
    for (const value of items) {
      if (held !== undefined) yield held;
      // The source goes on while the item is held, and may use its buffer again.
      held = { value: ownItem(value), last: false, behind: false };
    }
  }
  if (held !== undefined) yield { ...held, last: true };
}

/** The item, copied where it is bytes: a subclass may have a slice() that does not copy, as Buffer has. */
export function ownItem<T>(value: T): T | Uint8Array {
  const bytes = viewOf(value);
  return bytes === undefined ? value : new Uint8Array(bytes);
}

/** Makes the items of a message what is sent; all must be of one type. */
export function itemConverter(text: boolean | undefined): (item: Item) => Message {
  let decoder: TextDecoder | undefined;
  let encoder: TextEncoder | undefined;
  const characters = new WholeCharacters();
  let begun: Message | undefined;
  /** Items that should be text may cut its characters anywhere. */
  const decode = (bytes: Uint8Array, stream: boolean) => {
    decoder ??= new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    return asText(() => decoder!.decode(bytes, { stream }));
  };
  const encode = (data: string, last: boolean) => {
    encoder ??= new TextEncoder();
    return encoder.encode(characters.take(data, last));
  };
  const convert = (data: Message, last: boolean) => {
    if (text === undefined || text === (typeof data === "string")) return data;
    if (typeof data !== "string") return decode(data, !last);
    return encode(data, last);
  };
  return ({ value, last, behind }) => {
    if (behind && decoder !== undefined) return decode(new Uint8Array(0), false);
    if (behind && encoder !== undefined) return encode("", true);
    if (behind) return typeof begun === "string" ? "" : new Uint8Array(0);
    const data = typeof value === "string" ? value : viewOf(value);
    if (data === undefined) {
      throw new TypeError(`Expected each item to be a string or bytes, received ${typeof value}`);
    }
    const typed = convert(data, last);
    if (begun !== undefined && typeof typed !== typeof begun) {
      throw new TypeError("Expected the items of a message to be of one type, received both");
    }
    return begun = typed;
  };
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
