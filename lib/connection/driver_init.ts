/**
 * What a driver begins with, and the protocol machine that it makes of that.
 *
 * A file of its own because what stands in for the protocol machine knows this, and not the driver.
 *
 * @module
 */
import type { Extension } from "../core/extension.ts";
import type { Role } from "../core/frame.ts";
import { MAX_MESSAGE_SIZE } from "../core/message.ts";
import { Protocol } from "../core/protocol.ts";
import { type TextCodec, webTextCodec } from "../core/utf8.ts";
import type { ConnectionOptions } from "../options.ts";
import type { Transport, TransportHandlers } from "../transport.ts";
import { nextTurn } from "../timers.ts";

/** What a driver needs of a {@linkcode Protocol}, or of what stands in for one. */
export type Machine = Pick<
  Protocol,
  | "role"
  | "state"
  | "endsTransport"
  | "pending"
  | "extended"
  | "bufferedMemory"
  | "whole"
  | "held"
  | "takeHeld"
  | "release"
  | "receive"
  | "next"
  | "write"
  | "writeText"
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
  options: Omit<ConnectionOptions, "signal">;
  /** The extensions that were agreed on. Default: none */
  activeExtensions?: readonly Extension[];
  /** How text is encoded and decoded. Default: TextEncoder and TextDecoder */
  textCodec?: TextCodec;
  /** What stands in for the protocol machine. Default: none, it is made */
  machine?: Machine;
}

/** What a driver is told by its machine. */
export interface MachineHost {
  /** An extension is done with what was pending. */
  onReady(): void;
  /** A callback of the user's threw. */
  onThrown(error: unknown): void;
}

/** The machine that was given, or one that is made. */
export function machineOf(init: DriverInit, host: MachineHost): Machine {
  if (init.machine !== undefined) return init.machine;
  const { activeExtensions: extensions } = init;
  const { options: { maxMessageSize = MAX_MESSAGE_SIZE, maxFrameSize, onFrame } } = init;
  const protocol = new Protocol(init.role, {
    maxMessageSize,
    maxFrameSize,
    onFrame: guarded(onFrame, host),
    textCodec: init.textCodec ?? webTextCodec,
    allocate: init.transport.allocate,
    ownsInput: true,
    extensions,
    onReady: extensions?.length ? () => host.onReady() : undefined,
  });
  protocol.whole = true;
  return protocol;
}

/** A callback of the user's that throws fails the connection, and not what it was called from. */
function guarded(
  onFrame: ConnectionOptions["onFrame"],
  host: MachineHost,
): ConnectionOptions["onFrame"] {
  if (onFrame === undefined) return undefined;
  const fail = (error: unknown) => nextTurn(() => host.onThrown(error));
  return (direction, frame) => {
    try {
      const returned: unknown = onFrame(direction, frame);
      // Nobody waits for it, but it may reject.
      if (returned instanceof Promise) returned.catch(fail);
    } catch (error) {
      fail(error);
    }
  };
}
