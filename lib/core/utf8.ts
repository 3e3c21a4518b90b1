/**
 * Strict, incremental UTF-8 (RFC 3629; RFC 6455 §8.1).
 *
 * @module
 */
import { RemoteProtocolError } from "./error.ts";

/**
 * How text becomes bytes and back. The default rests on TextEncoder and TextDecoder; a runtime's
 * adapter may bring a faster one.
 */
export interface TextCodec {
  /**
   * Decodes the UTF-8 from `start` on and before `end`. A byte order mark is kept.
   *
   * @throws when the bytes are not UTF-8
   */
  decode(bytes: Uint8Array, start: number, end: number): string;
  /**
   * Encodes into `target` from `offset` on, where there must be room for three bytes a code unit;
   * gives the number of bytes written. Lone surrogates become U+FFFD.
   */
  encodeInto(text: string, target: Uint8Array, offset: number): number;
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** The {@linkcode TextCodec} of the web platform. */
export const webTextCodec: TextCodec = {
  decode: (bytes, start, end) => decoder.decode(bytes.subarray(start, end)),
  encodeInto: (text, target, offset) => encoder.encodeInto(text, target.subarray(offset)).written,
};

/**
 * Decodes UTF-8 in pieces and fails at the first byte that cannot be part of it, not at the end of
 * the character or of the message.
 */
export class Utf8Decoder {
  readonly #what: string;
  readonly #codec: TextCodec;
  /** The beginning of a character that the last piece cut off. */
  readonly #carry = new Uint8Array(4);
  #carried = 0;
  /** Bytes decoded before the present piece, for messages. */
  #position = 0;

  /**
   * Makes a decoder for one text after the other.
   *
   * @param what what is decoded, for messages
   * @param codec how whole characters are decoded
   */
  constructor(what: string, codec: TextCodec = webTextCodec) {
    this.#what = what;
    this.#codec = codec;
  }

  /**
   * Decodes a piece; a character that the piece cuts off comes with the next one.
   *
   * @param bytes the piece
   * @param last whether the text ends with it; the decoder is then ready for another text
   * @throws {RemoteProtocolError} 1007 at the first impossible byte, or at a text that ends within
   * a character
   */
  push(bytes: Uint8Array, last: boolean): string {
    if (this.#carried > 0) return this.#pushAfterCarry(bytes, last);
    const tail = last ? 0 : incompleteTail(bytes);
    if (tail === 0) return this.#whole(bytes, last);
    const text = this.#whole(bytes.subarray(0, bytes.length - tail), false);
    this.#checkStart(bytes.subarray(bytes.length - tail));
    this.#carry.set(bytes.subarray(bytes.length - tail));
    this.#carried = tail;
    return text;
  }

  #pushAfterCarry(bytes: Uint8Array, last: boolean): string {
    const carry = this.#carry;
    const length = sequenceLength(carry[0]);
    let taken = 0;
    while (this.#carried < length && taken < bytes.length) {
      carry[this.#carried++] = bytes[taken++];
      this.#checkStart(carry.subarray(0, this.#carried));
    }
    if (this.#carried < length) {
      if (last) throw this.#failure(this.#position + this.#carried);
      return "";
    }
    this.#carried = 0;
    const character = this.#whole(carry.subarray(0, length), false);
    return character + this.push(bytes.subarray(taken), last);
  }

  #whole(bytes: Uint8Array, last: boolean): string {
    let text: string;
    try {
      text = bytes.length === 0 ? "" : this.#codec.decode(bytes, 0, bytes.length);
    } catch {
      throw this.#failure(this.#position + firstInvalid(bytes));
    }
    this.#position = last ? 0 : this.#position + bytes.length;
    return text;
  }

  #checkStart(bytes: Uint8Array): void {
    const invalid = firstInvalid(bytes);
    if (invalid < bytes.length) throw this.#failure(this.#position + invalid);
  }

  #failure(position: number): RemoteProtocolError {
    return new RemoteProtocolError(
      `Expected UTF-8 in ${this.#what}, invalid at byte ${position}`,
      1007,
    );
  }
}

/**
 * Cuts text between its characters. The first half of a character at the end of a piece goes with the
 * next piece, as in `TextEncoderStream`: encoded by itself it would become U+FFFD.
 */
export class WholeCharacters {
  /** The half that the last piece has cut off. */
  half = "";

  /** Takes a piece, and gives the characters that are whole. After the last piece, another text may begin. */
  take(piece: string, last: boolean): string {
    const text = this.half + piece;
    const unit = text.charCodeAt(text.length - 1);
    const isCut = !last && unit >= 0xd800 && unit < 0xdc00;
    const end = isCut ? text.length - 1 : text.length;
    this.half = text.slice(end);
    return text.slice(0, end);
  }
}

/** How many bytes the character takes that this byte begins. */
function sequenceLength(lead: number): number {
  return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/** How many bytes at the end begin a character that is not whole. */
function incompleteTail(bytes: Uint8Array): number {
  const { length } = bytes;
  for (let back = 1; back <= 3 && back <= length; back++) {
    const byte = bytes[length - back];
    if (byte < 0x80) return 0;
    if (byte >= 0xc0) return sequenceLength(byte) > back ? back : 0;
  }
  return 0;
}

/**
 * The index of the first byte that no valid text has at its place; `length` if there is none, be it
 * that the last character is cut off. RFC 3629 §4, and Table 3-7 of the Unicode Standard.
 */
function firstInvalid(bytes: Uint8Array): number {
  let at = 0;
  while (at < bytes.length) {
    const lead = bytes[at];
    if (lead < 0x80) {
      at++;
      continue;
    }
    // C0 and C1 would be overlong; F5 and up lie beyond U+10FFFF.
    if (lead < 0xc2 || lead > 0xf4) return at;
    const length = sequenceLength(lead);
    for (let i = 1; i < length; i++) {
      if (at + i === bytes.length) return bytes.length;
      const byte = bytes[at + i];
      const low = i > 1 ? 0x80 : lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
      const high = i > 1 ? 0xbf : lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
      if (byte < low || byte > high) return at + i;
    }
    at += length;
  }
  return at;
}
