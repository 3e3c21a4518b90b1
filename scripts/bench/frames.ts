/** Encodes the data that the benchmark's own ends send, in advance and without the library. */

/** The type of a message. A ping is answered by a pong. */
export type MessageType = "text" | "binary" | "ping";

export const MASKING_KEY = [0x37, 0xfa, 0x21, 0x3d];

/** The opening handshake of a client. */
export function handshake(path = "/", extensions?: string): string {
  return [
    `GET ${path} HTTP/1.1`,
    "Host: 127.0.0.1",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ...extensions === undefined ? [] : [`Sec-WebSocket-Extensions: ${extensions}`],
    "\r\n",
  ].join("\r\n");
}

/** Makes a payload of letters, which depend on the seed. */
export function payloadOf(size: number, seed = 0): Uint8Array {
  const payload = new Uint8Array(size);
  for (let i = 0; i < size; i++) payload[i] = 97 + (i + seed * 7 + (i >> 8)) % 26;
  return payload;
}

/** Encodes a message in this number of frames. */
export function encodeMessage(
  type: MessageType,
  payload: Uint8Array,
  masked: boolean,
  fragments = 1,
): Uint8Array {
  const size = Math.floor(payload.length / fragments);
  return concat(Array.from({ length: fragments }, (_, i) => {
    const isLast = i === fragments - 1;
    const opcode = i === 0 ? firstByteOf(type) & 15 : 0;
    const part = payload.subarray(i * size, isLast ? undefined : (i + 1) * size);
    return encode((isLast ? 0x80 : 0) | opcode, part, masked);
  }));
}

/** Encodes one frame (RFC 6455 §5.2). */
export function encode(first: number, payload: Uint8Array, masked: boolean): Uint8Array {
  const { length } = payload;
  const mask = masked ? 0x80 : 0;
  const key = masked ? MASKING_KEY : [];
  const head = length < 126
    ? [first, mask | length]
    : length < 65536
    ? [first, mask | 126, length >> 8, length & 255]
    : [first, mask | 127, 0, 0, 0, 0, ...[24, 16, 8, 0].map((shift) => length >> shift & 255)];
  const body = masked ? payload.map((byte, i) => byte ^ key[i & 3]) : payload;
  return concat([new Uint8Array([...head, ...key]), body]);
}

/** The first byte of a message frame. */
export function firstByteOf(type: MessageType): number {
  return { text: 0x81, binary: 0x82, ping: 0x89 }[type];
}

export function concat(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}
