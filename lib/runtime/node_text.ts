/**
 * Text by way of `node:buffer`, several times as fast as TextEncoder and TextDecoder for short text.
 *
 * @module
 */
import { Buffer, isAscii } from "node:buffer";
import { type TextCodec, webTextCodec } from "../core/utf8.ts";

type Slice = (this: Uint8Array, start: number, end: number) => string;
type Write = (this: Uint8Array, text: string, offset: number) => number;
const { latin1Slice, utf8Slice, utf8Write } = Buffer.prototype as unknown as {
  latin1Slice: Slice;
  utf8Slice: Slice;
  utf8Write: Write;
};

/** Below this many code units a loop beats the way into the platform and back. */
const SHORT = 24;

/** The {@linkcode TextCodec} over `node:buffer`. */
export const nodeTextCodec: TextCodec = {
  decode(bytes, start, end) {
    const text = utf8Slice.call(bytes, start, end);
    // It puts U+FFFD where there is no UTF-8. Where the peer has sent one, it is decoded twice.
    return text.includes("\uFFFD") ? webTextCodec.decode(bytes, start, end) : text;
  },

  encodeInto(text, target, offset) {
    const { length } = text;
    if (length > SHORT) return utf8Write.call(target, text, offset);
    for (let i = 0; i < length; i++) {
      const unit = text.charCodeAt(i);
      if (unit >= 0x80) return utf8Write.call(target, text, offset);
      target[offset + i] = unit;
    }
    return length;
  },
};

/** From this many bytes on, Deno decodes ASCII faster than UTF-8. */
const DENO_LONG = 256;

/** The same where `utf8Slice()` is slow for long ASCII, as on Deno. */
export const denoTextCodec: TextCodec = {
  ...nodeTextCodec,
  decode(bytes, start, end) {
    if (end - start < DENO_LONG) return nodeTextCodec.decode(bytes, start, end);
    return isAscii(new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start))
      ? latin1Slice.call(bytes, start, end)
      : nodeTextCodec.decode(bytes, start, end);
  },
};
