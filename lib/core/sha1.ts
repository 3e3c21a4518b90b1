/** SHA-1 (RFC 3174) and base64, for Sec-WebSocket-Accept. WebCrypto has only an asynchronous SHA-1. */

/** The words of a block. All calls can share the array, because they are synchronous. */
const words = new Int32Array(80);
const state = new Int32Array(5);

/** @param message Text of Latin-1, which stands for its bytes. */
export function sha1(message: string): Uint8Array {
  state[0] = 0x67452301;
  state[1] = 0xefcdab89;
  state[2] = 0x98badcfe;
  state[3] = 0x10325476;
  state[4] = 0xc3d2e1f0;
  const blocks = Math.ceil((message.length + 9) / 64);
  for (let block = 0; block < blocks; block++) {
    for (let t = 0; t < 16; t++) words[t] = wordAt(message, block * 64 + t * 4, blocks * 64);
    for (let t = 16; t < 80; t++) {
      words[t] = rotate(words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16], 1);
    }
    compress();
  }
  const digest = new Uint8Array(20);
  for (let i = 0; i < 20; i++) digest[i] = state[i >> 2] >>> (24 - (i & 3) * 8);
  return digest;
}

/**
 * RFC 3174 §4: the message is followed by a bit 1, bits 0, and its length in 64 bits. A message is shorter
 * than 512 MiB, so that the first 32 bits of the length are 0.
 */
function wordAt(message: string, at: number, size: number): number {
  if (at === size - 4) return message.length << 3;
  let word = 0;
  for (let i = at; i < at + 4; i++) {
    const byte = i < message.length ? message.charCodeAt(i) : i === message.length ? 0x80 : 0;
    word = (word << 8) | byte;
  }
  return word;
}

/** RFC 3174 §6.1: the 80 steps of one block. */
function compress(): void {
  let a = state[0];
  let b = state[1];
  let c = state[2];
  let d = state[3];
  let e = state[4];
  for (let t = 0; t < 80; t++) {
    const next = (rotate(a, 5) + mix(t, b, c, d) + e + words[t]) | 0;
    e = d;
    d = c;
    c = rotate(b, 30);
    b = a;
    a = next;
  }
  state[0] += a;
  state[1] += b;
  state[2] += c;
  state[3] += d;
  state[4] += e;
}

/** RFC 3174 §5: the function and the constant of a step. */
function mix(t: number, b: number, c: number, d: number): number {
  if (t < 20) return (((b & c) | (~b & d)) + 0x5a827999) | 0;
  if (t < 40) return ((b ^ c ^ d) + 0x6ed9eba1) | 0;
  if (t < 60) return (((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc) | 0;
  return ((b ^ c ^ d) + 0xca62c1d6) | 0;
}

function rotate(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}

/** The digits of base64 (RFC 4648 §4), as character codes. */
const DIGITS: readonly number[] = Array.from(
  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
  (digit) => digit.charCodeAt(0),
);

export function base64(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 3) {
    // Bytes after the end count as 0.
    const bits = (bytes[i] << 16) | (bytes[i + 1] << 8) | bytes[i + 2];
    text += String.fromCharCode(
      DIGITS[bits >> 18],
      DIGITS[(bits >> 12) & 63],
      DIGITS[(bits >> 6) & 63],
      DIGITS[bits & 63],
    );
  }
  const padding = ["", "==", "="][bytes.length % 3];
  return text.slice(0, text.length - padding.length) + padding;
}
