/**
 * What a driver begins with.
 *
 * A file of its own because what stands in for the protocol machine knows this, and not the driver.
 *
 * @module
 */
import type { Extension } from "./core/extension.ts";
import type { Role } from "./core/frame.ts";
import type { Protocol } from "./core/protocol.ts";
import type { TextCodec } from "./core/utf8.ts";
import type { ConnectionOptions } from "./options.ts";
import type { Transport, TransportHandlers } from "./transport.ts";

/** What a driver needs of a {@linkcode Protocol}, or of what stands in for one. */
export type Machine = Pick<
  Protocol,
  | "role"
  | "state"
  | "endsTransport"
  | "pending"
  | "extended"
  | "bufferedAmount"
  | "receive"
  | "next"
  | "write"
  | "dispose"
>;

/** What a driver begins with. */
export interface DriverInit {
  /** Which end this is. */
  role: Role;
  /** Open, and handled by the handshake so far. */
  transport: Transport;
  /** Takes the transport over from the handshake, with what came behind it. */
  takeOver: (handlers: TransportHandlers) => void;
  /** The options of the caller. */
  options: ConnectionOptions;
  /** The extensions that were agreed on. Default: none */
  activeExtensions?: readonly Extension[];
  /** How text is encoded and decoded. Default: TextEncoder and TextDecoder */
  textCodec?: TextCodec;
  /**
   * Whether the bytes of a message fill their buffer, as a browser's do. Default: false, they may be a
   * part of what was received
   */
  wholeBuffers?: boolean;
  /** What stands in for the protocol machine. Default: none, it is made */
  machine?: Machine;
}
