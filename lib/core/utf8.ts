/** Strict, incremental UTF-8 (RFC 3629; RFC 6455 §8.1). */
import { RemoteProtocolError } from "./error.ts";

/** Encodes and decodes UTF-8. The default codec uses TextEncoder and TextDecoder. */
export interface TextCodec {
  /**
   * Decodes the UTF-8 from `start` to `end`. A byte order mark is kept. The bytes change after the call.
   * @param isAscii Whether all of these bytes are ASCII, if that is known.
   * @throws {Error} If the bytes are not UTF-8.
   */
  decode(bytes: Uint8Array, start: number, end: number, isAscii?: boolean): string;
  /** Whether `decode()` takes any bytes. A character may then be cut off. */
  readonly takesAnything?: boolean | undefined;
  /**
   * Encodes text into `target` at `offset` and returns the number of bytes written. The target must have
   * room for as many bytes as `byteLength()` returns, or without it for three bytes per code unit: the
   * TextEncoder of Node 26 may stop early otherwise. Lone surrogates become U+FFFD.
   */
  encodeInto(text: string, target: Uint8Array, offset: number): number;
  /** Encodes text into memory of its own, as TextEncoder does, if the platform has a faster way. */
  readonly encode?: ((text: string) => Uint8Array) | undefined;
  /** Returns the number of bytes that `encodeInto()` writes, if the platform has a fast way. */
  readonly byteLength?: ((text: string) => number) | undefined;
  /** Encodes text that has only characters of Latin-1, if the platform has a faster way. */
  readonly encodeLatin1?: ((text: string) => Uint8Array) | undefined;
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

export const webTextCodec: TextCodec = {
  decode: (bytes, start, end) => decoder.decode(bytes.subarray(start, end)),
  encodeInto: (text, target, offset) => encoder.encodeInto(text, target.subarray(offset)).written,
};

/** A piece of a text that has not been decoded. */
interface TextPiece {
  readonly size: number;
  readonly endsInAscii: boolean;
  bytes(): Uint8Array;
  text(codec: TextCodec): string;
}

/** Decodes UTF-8 in pieces. It fails at the first invalid byte, even within a character. */
export class Utf8Decoder {
  readonly #what: string;
  readonly #codec: TextCodec;
  /** The first bytes of a character that the last piece cut off. */
  readonly #carry = new Uint8Array(4);
  #carried = 0;
  /** Number of bytes decoded before the current piece, for error messages. */
  #position = 0;

  constructor(what: string, codec: TextCodec = webTextCodec) {
    this.#what = what;
    this.#codec = codec;
  }

  /**
   * Decodes a piece. A character that is cut off is returned with the next piece. After the last
   * piece, the decoder is ready for another text.
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

  /** As {@linkcode push}, but makes an array of the bytes only if a character is cut off. */
  pushPiece(piece: TextPiece, last: boolean): string {
    if (this.#carried === 0 && (last || this.#codec.takesAnything || piece.endsInAscii)) {
      try {
        const text = piece.text(this.#codec);
        this.#position = last ? 0 : this.#position + piece.size;
        return text;
      } catch {
        // push() finds the position of the error.
      }
    }
    return this.push(piece.bytes(), last);
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
    return new RemoteProtocolError(`Invalid UTF-8 in ${this.#what}, at byte ${position}`, 1007);
  }
}

/**
 * Cuts text between its characters, as `TextEncoderStream` does. A surrogate that is cut off from
 * its pair would become U+FFFD.
 */
export class WholeCharacters {
  half = "";

  /** Returns the complete characters of a piece. After the last piece, another text may begin. */
  take(piece: string, last: boolean): string {
    const text = this.half + piece;
    const unit = text.charCodeAt(text.length - 1);
    const isCut = !last && unit >= 0xd800 && unit < 0xdc00;
    const end = isCut ? text.length - 1 : text.length;
    this.half = text.slice(end);
    return text.slice(0, end);
  }
}

/** Returns the length of a character from its first byte, which is not ASCII. */
function sequenceLength(lead: number): number {
  return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/** Returns the number of bytes at the end that begin an incomplete character. */
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
 * Returns the index of the first invalid byte, or `length`. The last character may be incomplete.
 * RFC 3629 §4; Unicode Standard, Table 3-7.
 */
function firstInvalid(bytes: Uint8Array): number {
  let at = 0;
  while (at < bytes.length) {
    const lead = bytes[at];
    if (lead < 0x80) {
      at++;
      continue;
    }
    // C0 and C1 would be overlong. F5 and above are beyond U+10FFFF.
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
