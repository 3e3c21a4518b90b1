/** Writes frames as bytes (RFC 6455 §5.2). */
import { wrongType, wrongValue } from "./error.ts";
import { type Frame, MAX_CONTROL_LENGTH, Opcode } from "./frame.ts";
import { copyMasked, maskingKey } from "./mask.ts";
import { kindOf } from "./options.ts";

/** Maximum length of a frame header: 2 bytes, a length of 8 bytes, a masking key of 4 bytes. */
export const MAX_HEADER_LENGTH = 14;

export function headerLength(length: number, masked: boolean): number {
  return (length < 126 ? 2 : length < 65536 ? 4 : 10) + (masked ? 4 : 0);
}

/** Writes a frame header, which ends with the masking key. Returns the offset after the header. */
export function writeHeader(
  target: Uint8Array,
  offset: number,
  first: number,
  length: number,
  key?: number,
): number {
  const maskBit = key === undefined ? 0 : 0x80;
  target[offset++] = first;
  if (length < 126) {
    target[offset++] = maskBit | length;
  } else if (length < 65536) {
    target[offset++] = maskBit | 126;
    target[offset++] = length >> 8;
    target[offset++] = length;
  } else {
    target[offset++] = maskBit | 127;
    const high = Math.floor(length / 2 ** 32);
    for (let shift = 24; shift >= 0; shift -= 8) target[offset++] = high >>> shift;
    for (let shift = 24; shift >= 0; shift -= 8) target[offset++] = length >>> shift;
  }
  if (key === undefined) return offset;
  for (let shift = 0; shift < 32; shift += 8) target[offset++] = key >>> shift;
  return offset;
}

/** Length of the header of a frame without a masking key, in bytes. */
export function headerLengthAt(bytes: Uint8Array, start: number): number {
  const length = bytes[start + 1];
  return length < 126 ? 2 : length === 126 ? 4 : 10;
}

/**
 * Encodes one frame. `mask` is the masking key of 4 bytes, or true for a random one. Clients must
 * mask; servers must not.
 *
 * @example
 * ```ts
 * import { encodeFrame, Opcode } from "sluice/core";
 *
 * const payload = new TextEncoder().encode("Hello");
 * console.log(encodeFrame({ opcode: Opcode.Text, payload }));
 * // 81 05 48 65 6c 6c 6f
 * ```
 * @throws {RangeError} If a control frame is fragmented or longer than 125 bytes, the opcode is
 * unknown, or the masking key is not 4 bytes long.
 * @throws {TypeError} If the payload is not a Uint8Array.
 */
export function encodeFrame(
  frame: Frame,
  options: { mask?: Uint8Array | true | undefined } = {},
): Uint8Array {
  const { mask } = options;
  const bytes = new Uint8Array(frameLength(frame, mask !== undefined));
  if (mask instanceof Uint8Array && mask.length !== 4) {
    throw wrongValue(`Expected a masking key of 4 bytes, received ${mask.length}`);
  }
  const key = mask === true
    ? maskingKey()
    : mask && new DataView(mask.buffer, mask.byteOffset).getInt32(0, true);
  writeFrame(bytes, 0, frame, key);
  return bytes;
}

/** Checks a frame to send and returns its length in bytes. */
export function frameLength(frame: Frame, masked: boolean): number {
  if (!(frame?.payload instanceof Uint8Array)) {
    throw wrongType(
      `Expected frame.payload to be a Uint8Array, received ${kindOf(frame?.payload)}`,
    );
  }
  const { fin = true, rsv = 0, opcode, payload } = frame;
  if (!isKnown(opcode)) throw wrongValue(`Expected a known opcode, received ${opcode}`);
  if (!Number.isInteger(rsv) || rsv < 0 || rsv > 7) {
    throw wrongValue(`Expected rsv to be an integer from 0 to 7, received ${rsv}`);
  }
  if ((opcode & 8) !== 0) {
    // RFC 6455 §5.5: control frames must not be fragmented.
    if (!fin) throw wrongValue("Cannot fragment a control frame: fin must be true");
    checkControl(payload);
  }
  return headerLength(payload.length, masked) + payload.length;
}

function isKnown(opcode: number): boolean {
  return Number.isInteger(opcode) &&
    ((opcode >= Opcode.Continuation && opcode <= Opcode.Binary) ||
      (opcode >= Opcode.Close && opcode <= Opcode.Pong));
}

/** Checks the payload of a control frame (RFC 6455 §5.5). */
export function checkControl(payload: Uint8Array): Uint8Array {
  if (payload.length > MAX_CONTROL_LENGTH) {
    throw wrongValue(`Expected a control payload of at most 125 bytes, received ${payload.length}`);
  }
  return payload;
}

/** Writes a frame. The target must have room for {@linkcode frameLength} bytes. */
export function writeFrame(
  target: Uint8Array,
  offset: number,
  frame: Frame,
  key: number | undefined,
): number {
  const { fin = true, rsv = 0, opcode, payload } = frame;
  const { length } = payload;
  const at = writeHeader(target, offset, firstByte(fin, rsv, opcode), length, key);
  if (key === undefined) target.set(payload, at);
  else copyMasked(payload, 0, length, target, at, key, 0);
  return at + length;
}

/** The bit of the first byte that says whether a frame is the last of its message. */
export const FIN = 0x80;

export function firstByte(fin: boolean, rsv: number, opcode: number): number {
  return (fin ? FIN : 0) | (rsv << 4) | opcode;
}
