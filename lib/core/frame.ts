/** The parts of a frame (RFC 6455 §5.2). */
import { wrongType } from "./error.ts";

/** The role of one end. A client masks the frames that it sends; a server does not. */
export type Role = "client" | "server";

export function checkRole(role: unknown): void {
  if (role === "client" || role === "server") return;
  const received = typeof role === "string" ? JSON.stringify(role) : typeof role;
  throw wrongType(`Expected role to be "client" or "server", received ${received}`);
}

/** The opcodes of frames (RFC 6455 §5.2 and §11.8). */
export const Opcode = {
  /** 0: continues the current message. */
  Continuation: 0,
  /** 1: begins a text message. */
  Text: 1,
  /** 2: begins a binary message. */
  Binary: 2,
  /** 8: starts or answers the closing handshake. */
  Close: 8,
  /** 9: asks for a pong. */
  Ping: 9,
  /** 10: answers a ping, or is sent unasked. */
  Pong: 10,
} as const;
/** One of the values of {@linkcode Opcode}. */
export type Opcode = (typeof Opcode)[keyof typeof Opcode];

/** The reserved bits, as in {@linkcode FrameHeader.rsv}. */
export const Rsv = { Rsv1: 4, Rsv2: 2, Rsv3: 1 } as const;

/** A frame. */
export interface Frame {
  /**
   * Whether the frame is the last of its message.
   * @default {true}
   */
  fin?: boolean;
  /**
   * The three reserved bits as one number; see {@linkcode Rsv}.
   * @default {0}
   */
  rsv?: number;
  /** The opcode. */
  opcode: Opcode;
  /** The payload, unmasked. */
  payload: Uint8Array;
}

/** The header of a frame. */
export interface FrameHeader {
  /** Whether the frame is the last of its message. */
  fin: boolean;
  /** The three reserved bits as one number; see {@linkcode Rsv}. */
  rsv: number;
  /** The opcode. It may be unknown, because the header has not been checked. */
  opcode: number;
  /** Whether the payload is masked. */
  masked: boolean;
  /** The length of the payload in bytes. */
  length: number;
}

/** RFC 6455 §5.5. */
export const MAX_CONTROL_LENGTH = 125;
