/** The `Receiver` of `ws`: a stream that is given the bytes of a connection and emits its messages. */
import { Buffer } from "node:buffer";
import { Writable } from "node:stream";
import { Protocol } from "../core/protocol.ts";
import { violationOf } from "./errors.ts";
import {
  type BinaryType,
  EMPTY,
  Inlet,
  type InletHandlers,
  type InletOptions,
  ownBuffer,
} from "./inlet.ts";

/** The extensions of a connection, by their names. */
export interface AgreedExtensions {
  /** Compression. */
  "permessage-deflate"?: {
    /** Maximum size of a message, in bytes. */
    readonly _maxPayload: number;
  };
}

/** Options of a {@linkcode Receiver}. */
export interface ReceiverOptions extends InletOptions {
  /**
   * The type of binary messages.
   * @default {"nodebuffer"}
   */
  binaryType?: BinaryType | undefined;
  /** Has no effect: a receiver that a program makes does not inflate. */
  extensions?: AgreedExtensions | undefined;
  /**
   * Whether the bytes are those of a client, and masked.
   * @default {false}
   */
  isServer?: boolean | undefined;
}

const HANDLERS: InletHandlers<Receiver> = {
  message: (receiver, data, isBinary) => receiver.emit("message", data, isBinary),
  ping: (receiver, data) => receiver.emit("ping", data),
  pong: (receiver, data) => receiver.emit("pong", data),
  close: (receiver, code, reason) => {
    receiver.emit("conclude", code, reason === "" ? EMPTY : ownBuffer(Buffer.from(reason)));
    receiver.end();
  },
  violation: (receiver, error) => receiver._settle(violationOf(error)),
  behind: (receiver, isBehind) => {
    if (!isBehind) receiver._settle();
  },
  over: () => {},
};

/**
 * Reads frames: a Writable that emits 'message', 'ping', 'pong', and 'conclude' for a Close frame. An error
 * has the code of `ws`.
 *
 * @example
 * ```ts
 * import { Receiver, Sender } from "sluice/ws";
 *
 * const receiver = new Receiver();
 * receiver.on("message", (data) => console.log(data.toString())); // Hello
 * for (const bytes of Sender.frame("Hello", { opcode: 1, fin: true })) receiver.write(bytes);
 * ```
 */
export class Receiver extends Writable {
  /** The extensions in use. */
  readonly _extensions: AgreedExtensions;
  readonly #inlet: Inlet<Receiver>;
  #callback: ((error?: Error | null) => void) | undefined;
  #error: Error | undefined;

  /**
   * Makes a receiver.
   *
   * @param options Options of the receiver.
   * @param inlet What a WebSocket reads with. Internal.
   */
  constructor(options: ReceiverOptions = {}, inlet?: Inlet) {
    super();
    this._extensions = options.extensions ?? {};
    if (inlet !== undefined) {
      this.#inlet = inlet as Inlet<Receiver>;
      return;
    }
    this.#inlet = new Inlet(options, 0);
    const role = options.isServer ? "server" : "client";
    const protocol = new Protocol(role, this.#inlet.protocolOptions);
    this.#inlet.binaryType = options.binaryType ?? "nodebuffer";
    this.#inlet.start(protocol, this, HANDLERS);
  }

  /**
   * Maximum size of a message, in bytes. 0 disables the limit. Programs change it after they have
   * authenticated a client.
   */
  get _maxPayload(): number {
    return this.#inlet.maxPayload;
  }

  set _maxPayload(size: number) {
    this.#inlet.maxPayload = size;
  }

  /** The state of the parser: 5 while a message is inflated, 6 while an event waits for its turn, or 0. */
  get _state(): number {
    return this.#inlet.state;
  }

  /** Reports that the peer is held back, or no longer. Internal. */
  _setBehind(isBehind: boolean): void {
    (this as unknown as { _writableState: { needDrain: boolean } })._writableState.needDrain =
      isBehind;
    if (!isBehind) this.emit("drain");
  }

  /** Ends the write that waits. Internal. */
  _settle(error?: Error): void {
    const callback = this.#callback;
    this.#callback = undefined;
    if (callback === undefined) this.#error = error;
    else callback(error);
  }

  /** Reads bytes. Internal. */
  override _write(
    chunk: Uint8Array,
    _encoding: string,
    callback: (error?: Error | null) => void,
  ): void {
    const inlet = this.#inlet;
    // The memory of a stream may be used again.
    inlet.receive(new Uint8Array(chunk));
    if (this.#error !== undefined) callback(this.#error);
    else if (inlet.isWaiting) this.#callback = callback;
    else callback();
  }
}
