/**
 * Frames: their parts and opcodes (RFC 6455 §5.2).
 *
 * @module
 */
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
