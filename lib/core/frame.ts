/**
 * Frames: their parts, what makes one valid, and how one is written (RFC 6455 §5.2).
 *
 * @module
 */
import { copyMasked, maskingKey } from "./mask.ts";

/** Which end of the connection this is. Clients mask what they send, servers do not. */
export type Role = "client" | "server";

/**
 * Checks a role. Internal.
 *
 * @throws {TypeError} If it is neither "client" nor "server".
 */
export function checkRole(role: unknown): void {
  if (role === "client" || role === "server") return;
  const received = typeof role === "string" ? JSON.stringify(role) : typeof role;
  throw new TypeError(`Expected role to be "client" or "server", received ${received}`);
}

/** What a frame is (RFC 6455 §5.2 and §11.8). */
export const Opcode = {
  /** 0: goes on with the message begun before. */
  Continuation: 0,
  /** 1: begins a text message. */
  Text: 1,
  /** 2: begins a binary message. */
  Binary: 2,
  /** 8: begins or answers the closing handshake. */
  Close: 8,
  /** 9: asks for a pong. */
  Ping: 9,
  /** 10: answers a ping, or comes unasked. */
  Pong: 10,
} as const;
/** One of the values of {@linkcode Opcode}. */
export type Opcode = (typeof Opcode)[keyof typeof Opcode];

/** The reserved bits of a frame header, as they stand in {@linkcode FrameHeader.rsv}. */
export const Rsv = { Rsv1: 4, Rsv2: 2, Rsv3: 1 } as const;

/** A frame. */
export interface Frame {
  /** Whether it is the last of its message. Default: true */
  fin?: boolean;
  /** The three reserved bits as one number: RSV1 is 4, RSV2 is 2, RSV3 is 1. Default: 0 */
  rsv?: number;
  /** What it is. */
  opcode: Opcode;
  /** The payload, unmasked. */
  payload: Uint8Array;
}

/** What stands before the payload of a frame. */
export interface FrameHeader {
  /** Whether the frame is the last of its message. */
  fin: boolean;
  /** The three reserved bits as one number: RSV1 is 4, RSV2 is 2, RSV3 is 1. */
  rsv: number;
  /** What the frame is; a number that has no meaning is possible before the check. */
  opcode: number;
  /** Whether a masking key follows and the payload is masked. */
  masked: boolean;
  /** The length of the payload in bytes. */
  length: number;
}

/** The longest payload of a control frame, in bytes (RFC 6455 §5.5). */
export const MAX_CONTROL_LENGTH = 125;

/** The longest header of a frame, in bytes: two, eight of length, four of masking key. */
export const MAX_HEADER_LENGTH = 14;

function isKnown(opcode: number): boolean {
  return Number.isInteger(opcode) &&
    ((opcode >= Opcode.Continuation && opcode <= Opcode.Binary) ||
      (opcode >= Opcode.Close && opcode <= Opcode.Pong));
}

/** The length in bytes of the header of a frame that this end sends. */
export function headerLength(length: number, masked: boolean): number {
  return (length < 126 ? 2 : length < 65536 ? 4 : 10) + (masked ? 4 : 0);
}

/**
 * Writes a frame header but for its masking key, with the length in the fewest bytes that hold it
 * (RFC 6455 §5.2).
 *
 * @returns the offset behind what was written
 */
export function writeHeader(
  target: Uint8Array,
  offset: number,
  first: number,
  masked: boolean,
  length: number,
): number {
  const maskBit = masked ? 0x80 : 0;
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
  return offset;
}

/** The first byte of a frame: FIN, the reserved bits, the opcode. */
export function firstByte(fin: boolean, rsv: number, opcode: number): number {
  return (fin ? 0x80 : 0) | (rsv << 4) | opcode;
}

/** How {@linkcode encodeFrame} writes. */
export interface EncodeFrameOptions {
  /**
   * The masking key of 4 bytes, or true for a fresh one, as a client must. Default: none, as a
   * server must
   */
  mask?: Uint8Array | true;
}

/**
 * Writes one frame.
 *
 * @example
 * ```ts
 * import { encodeFrame, Opcode } from "@sluice/sluice/core";
 *
 * const payload = new TextEncoder().encode("Hello");
 * console.log(encodeFrame({ opcode: Opcode.Text, payload }));
 * // 81 05 48 65 6c 6c 6f
 * ```
 *
 * @throws {RangeError} for a control frame that is fragmented or over 125 bytes, an unknown opcode,
 * or a masking key that is not 4 bytes long
 */
export function encodeFrame(frame: Frame, options: EncodeFrameOptions = {}): Uint8Array {
  const { mask } = options;
  const bytes = new Uint8Array(frameLength(frame, mask !== undefined));
  if (mask instanceof Uint8Array && mask.length !== 4) {
    throw new RangeError(`Expected a masking key of 4 bytes, received ${mask.length}`);
  }
  const key = mask === true
    ? maskingKey()
    : mask && new DataView(mask.buffer, mask.byteOffset).getInt32(0, true);
  writeFrame(bytes, 0, frame, key);
  return bytes;
}

/**
 * The length in bytes of a frame that this end sends.
 *
 * @throws {RangeError} as {@linkcode encodeFrame}
 */
export function frameLength(frame: Frame, masked: boolean): number {
  const { fin = true, rsv = 0, opcode, payload } = frame;
  checkOutgoing(fin, rsv, opcode, payload.length);
  return headerLength(payload.length, masked) + payload.length;
}

/**
 * Writes a frame where there is room for its {@linkcode frameLength}.
 *
 * @param key the masking key; undefined where none is used
 * @returns the offset behind what was written
 */
export function writeFrame(
  target: Uint8Array,
  offset: number,
  frame: Frame,
  key: number | undefined,
): number {
  const { fin = true, rsv = 0, opcode, payload } = frame;
  const masked = key !== undefined;
  const at = writeHeader(target, offset, firstByte(fin, rsv, opcode), masked, payload.length);
  const start = masked ? at + 4 : at;
  if (masked) {
    writeKey(target, at, key);
    copyMasked(payload, target, start, key, 0);
  } else target.set(payload, start);
  return start + payload.length;
}

function checkOutgoing(fin: boolean, rsv: number, opcode: number, length: number): void {
  if (!isKnown(opcode)) throw new RangeError(`Expected a known opcode, received ${opcode}`);
  if (!Number.isInteger(rsv) || rsv < 0 || rsv > 7) {
    throw new RangeError(`Expected rsv to be a number of 3 bits, received ${rsv}`);
  }
  if ((opcode & 8) === 0) return;
  if (!fin) throw new RangeError("Expected a whole control frame, received a fragment");
  if (length > MAX_CONTROL_LENGTH) {
    throw new RangeError(`Expected a control payload of at most 125 bytes, received ${length}`);
  }
}

/** Writes a masking key. */
export function writeKey(target: Uint8Array, offset: number, key: number): void {
  target[offset] = key;
  target[offset + 1] = key >>> 8;
  target[offset + 2] = key >>> 16;
  target[offset + 3] = key >>> 24;
}
