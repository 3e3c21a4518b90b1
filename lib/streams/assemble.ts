/** Makes a duplex of messages over a duplex of bytes. */
import { wrongType } from "../core/error.ts";
import { type ByteDuplex, fromStreams } from "../transport.ts";
import { Driver, type Link, protocolOptions } from "../connection/driver.ts";
import type { CloseInfo } from "../core/close.ts";
import type { Extension } from "../core/extension.ts";
import type { Role } from "../core/frame.ts";
import type { Message } from "../core/message.ts";
import { checkKnown } from "../core/option_hints.ts";
import { checkNumber, type OptionNames } from "../core/options.ts";
import { Protocol } from "../core/protocol.ts";
import { type BufferSource, checkStrategy, type ConnectionOptions } from "../options.ts";

/** Options of {@linkcode assemble}. */
export interface AssembleOptions extends
  Pick<
    ConnectionOptions,
    | "maxMessageSize"
    | "maxFrameSize"
    | "maxControlFramesPerSecond"
    | "readableStrategy"
    | "closeTimeout"
  > {
  /** Role of this end. */
  role: Role;
  /** Extensions, in the order in which they were negotiated. They are closed with the connection. */
  extensions?: readonly Extension[] | undefined;
}

const ASSEMBLE_OPTIONS: OptionNames<AssembleOptions> = {
  maxMessageSize: checkNumber,
  maxFrameSize: checkNumber,
  maxControlFramesPerSecond: checkNumber,
  readableStrategy: checkStrategy,
  closeTimeout: checkNumber,
  role: true,
  extensions: true,
};

/** A duplex of messages. */
export interface MessageDuplex {
  /** The messages received. A binary message has a buffer of its own. */
  readonly readable: ReadableStream<Message>;
  /** The messages to send. */
  readonly writable: WritableStream<Message | BufferSource>;
  /** Settles like `closed` of a `WebSocketConnection`. */
  readonly closed: Promise<Required<CloseInfo>>;
}

/**
 * Makes a duplex of messages over a pair of byte streams, after the opening handshake. The duplex answers
 * pings and performs the closing handshake like a `WebSocketConnection`, but sends no pings of its own.
 *
 * @example
 * ```ts
 * import { assemble } from "sluice/streams";
 *
 * const up = new TransformStream<Uint8Array, Uint8Array>();
 * const down = new TransformStream<Uint8Array, Uint8Array>();
 * const client = assemble({ readable: down.readable, writable: up.writable }, { role: "client" });
 * const server = assemble({ readable: up.readable, writable: down.writable }, { role: "server" });
 * server.readable.pipeTo(server.writable);
 * const writer = client.writable.getWriter();
 * await writer.write("Hello");
 * console.log((await client.readable.getReader().read()).value); // Hello
 * await writer.close();
 * ```
 * @param duplex The byte streams. Neither may be locked.
 * @param options The role of this end, the extensions and the limits.
 * @returns The streams of messages, and a promise of the end.
 * @throws {TypeError} If `duplex` is not a pair of byte streams, if one of them is locked, if an option
 * does not exist, or if an option has the wrong type.
 * @throws {RangeError} If a number is negative or NaN.
 */
export function assemble(duplex: ByteDuplex, options: AssembleOptions): MessageDuplex {
  checkKnown("assemble()", options, ASSEMBLE_OPTIONS);
  checkDuplex(duplex);
  const { role, extensions = [], ...limits } = options;
  const transport = fromStreams(duplex);
  const codec = { textCodec: undefined, isExtended: extensions.length > 0 };
  const link: Link = {};
  const machine = new Protocol(role, { ...protocolOptions(limits, codec, link), extensions });
  machine.whole = true;
  const driver = new Driver({
    ...{ machine, transport, link },
    options: { ...limits, pingInterval: 0 },
  });
  const { receiver: { readable }, sender: { writable } } = driver;
  return { readable, writable, closed: driver.closing.closed };
}

/** Over other streams, the duplex would never end. */
function checkDuplex(duplex: ByteDuplex): void {
  const { readable, writable } = (duplex ?? {}) as Partial<ByteDuplex>;
  if (!(readable instanceof ReadableStream && writable instanceof WritableStream)) {
    throw wrongType("Expected a readable and a writable stream of bytes");
  }
  if (readable.locked || writable.locked) {
    throw wrongType("Expected streams that are not locked");
  }
}
