/** The protocol after the opening handshake (RFC 6455 §5 to §7). */
import { CloseCode, parseClose, serializeClose } from "./close.ts";
import { LocalProtocolError, RemoteProtocolError } from "./error.ts";
import { complete, type OutgoingEvent, type ProtocolEvent } from "./event.ts";
import { Encoder, type Written } from "./encoder.ts";
import { checkControl, FIN } from "./frame_writer.ts";
import {
  type DataPiece,
  FrameDecoder,
  type FrameDecoderOptions,
  type FramePiece,
} from "./decoder.ts";
import { bitsOf, type Extension, ExtensionReader, PENDING } from "./extension.ts";
import { checkRole, type Frame, Opcode, type Role } from "./frame.ts";
import {
  concat,
  DecodedPiece,
  type Fragment,
  type Message,
  MessageAssembler,
  type MessageOptions,
  MessageReader,
} from "./message.ts";
import { checkKnown } from "./option_hints.ts";
import { checkBoolean, checkFunction, checkNumber, type OptionNames } from "./options.ts";
import type { SharedFrame } from "./shared_frame.ts";

const NONE: readonly Extension[] = [];

/** The state of the closing handshake (RFC 6455 §7.1.3, §7.1.4). */
export type ProtocolState =
  /** No Close frame has been sent or received. */
  | "open"
  /** This end has sent a Close frame and waits for the peer's. */
  | "local-closing"
  /** The peer has sent a Close frame that this end has not answered. */
  | "remote-closing"
  /** Both ends have sent a Close frame, or the transport has ended. */
  | "closed";

/** Options of a {@linkcode Protocol}. */
export interface ProtocolOptions
  extends MessageOptions, Omit<FrameDecoderOptions, "role" | "rsvInUse"> {
  /**
   * The extensions in use, in the order in which they were agreed on. The protocol closes them.
   * @default {[]}
   */
  extensions?: readonly Extension[] | undefined;
  /**
   * Returns memory for a whole message, in bytes. The memory need not be zeroed, because it is
   * overwritten completely.
   * @default {(length) => new Uint8Array(length)}
   */
  allocate?: ((length: number) => Uint8Array) | undefined;
  /**
   * Allows extensions to work on other threads. Called when `pending` becomes false and `next()`
   * may return an event. By default, extensions work synchronously.
   */
  onReady?: (() => void) | undefined;
  /**
   * Called with each frame that is received or about to be sent, for diagnosis. Received frames are
   * joined from their pieces, which takes memory, and their payload is a copy. The payload of a
   * frame to send must not be changed, because it may belong to the caller, and must not be used
   * after the call.
   */
  onFrame?: ((direction: "in" | "out", frame: Frame) => void) | undefined;
}

export const PROTOCOL_OPTIONS: OptionNames<ProtocolOptions> = {
  maxMessageSize: checkNumber,
  textCodec: true,
  maxFrameSize: checkNumber,
  ownsInput: checkBoolean,
  allocate: checkFunction,
  extensions: true,
  onReady: checkFunction,
  onFrame: checkFunction,
};

class Extended {
  readonly extensions: readonly Extension[];
  /** Whether an extension is processing the next event on another thread. */
  pending = false;
  readonly reader: ExtensionReader;
  readonly #onReady: (() => void) | undefined;

  constructor(
    extensions: readonly Extension[],
    source: () => FramePiece | undefined,
    onReady: (() => void) | undefined,
  ) {
    this.extensions = extensions;
    this.reader = new ExtensionReader(extensions, source);
    this.#onReady = onReady && (() => {
      this.pending = false;
      onReady();
    });
  }

  next(): FramePiece | undefined {
    // Set before the call, because an extension may be ready before it returns.
    this.pending = this.#onReady !== undefined;
    const piece = this.reader.next(this.#onReady);
    if (piece === PENDING) return undefined;
    this.pending = false;
    return piece;
  }
}

/** What was received and sent. A native WebSocket counts none of it. */
export interface FrameCounts {
  /** Number of frames received, including control frames and fragments. */
  readonly framesReceived: number;
  /** Number of frames sent. */
  readonly framesSent: number;
  /** Number of pings received. */
  readonly pingsReceived: number;
  /** Number of pings sent, including those of `pingInterval`. */
  readonly pingsSent: number;
  /** Number of pongs received. */
  readonly pongsReceived: number;
  /** Number of pongs sent, including the answers to pings. */
  readonly pongsSent: number;
  /** Of compressed messages: number of payload bytes received, before they were decompressed. */
  readonly compressedBytesReceived: number;
  /** Of compressed messages: number of payload bytes sent. */
  readonly compressedBytesSent: number;
  /** Of compressed messages: number of bytes received, after they were decompressed. */
  readonly uncompressedBytesReceived: number;
  /** Of compressed messages: number of bytes sent, before they were compressed. */
  readonly uncompressedBytesSent: number;
}

type ControlCounts = {
  -readonly [name in "pingsReceived" | "pingsSent" | "pongsReceived" | "pongsSent"]:
    FrameCounts[name];
};

const NO_CONTROLS: Readonly<ControlCounts> = {
  pingsReceived: 0,
  pingsSent: 0,
  pongsReceived: 0,
  pongsSent: 0,
};

/** Counts of a connection that counts no frames. */
export const NO_FRAMES: FrameCounts = {
  framesReceived: 0,
  framesSent: 0,
  ...NO_CONTROLS,
  compressedBytesReceived: 0,
  compressedBytesSent: 0,
  uncompressedBytesReceived: 0,
  uncompressedBytesSent: 0,
};

/** Reports received frames to `onFrame`. */
class FrameObserver {
  readonly onFrame: NonNullable<ProtocolOptions["onFrame"]>;
  #assembler: MessageAssembler | undefined;

  constructor(onFrame: NonNullable<ProtocolOptions["onFrame"]>) {
    this.onFrame = onFrame;
  }

  received({ header, payload, last }: FramePiece): void {
    this.#assembler ??= new MessageAssembler();
    const whole = this.#assembler.push({
      type: "binary",
      data: payload,
      frameFinished: last,
      messageFinished: last,
    });
    if (whole === undefined) return;
    const { fin, rsv, opcode } = header;
    const { onFrame } = this;
    onFrame("in", { fin, rsv, opcode: opcode as Opcode, payload: whole as Uint8Array });
  }
}

/** What a connection has while it holds input, or a part of a frame or message. */
class Input extends FrameDecoder {
  messages: MessageReader | undefined;
  /** Only set if there are extensions or an `onFrame`. */
  filtered: Filtered | undefined;
  /** Number of calls of `next()` that read it, or that an error has ended. */
  reads = 0;
}

/** `begin()` sets the options of an input. */
const UNUSED: FrameDecoderOptions = { role: "server" };

/** An input that a connection has left, and that any other may take. It holds no bytes. */
let spare: Input | undefined;

class Filtered {
  /** The last piece that was not read from the decoder directly. */
  readonly piece = new DecodedPiece();
  /** Only set if there is an `onFrame`. */
  observer: FrameObserver | undefined;
}

/**
 * The protocol after the opening handshake: bytes in, events out; events in, bytes out. It sends
 * nothing on its own. `response()` makes the answer to a ping or a Close.
 *
 * @example
 * ```ts
 * import { Protocol, response } from "sluice/core";
 *
 * const client = new Protocol("client");
 * const server = new Protocol("server");
 * server.receive(client.send({ type: "ping", payload: new Uint8Array([1]) }));
 * for (const event of server.events()) {
 *   const due = response(event);
 *   if (due) client.receive(server.send(due));
 * }
 * console.log([...client.events()]); // [{ type: "pong", payload: Uint8Array [1] }]
 * ```
 */
export class Protocol {
  #options: ProtocolOptions;
  /** An idle connection has none. */
  #input: Input | undefined;
  /** The numbers of bytes and of frames that earlier inputs had. */
  #bytesRead = 0;
  #framesRead = 0;
  /** Only set if there are extensions. */
  readonly #extended: Extended | undefined;
  #state: ProtocolState = "open";
  /** Whether the input has ended. Buffered bytes may still be read. */
  #ended = false;
  /** The peer's error. Nothing more is read. Null after the error was sent (RFC 6455 §7.1.7). */
  #failure: RemoteProtocolError | null | undefined;
  /** Made for the first ping or pong. */
  #controls: ControlCounts | undefined;
  /**
   * Whether each message is one event. Otherwise each piece of a message is an event.
   * @default {false}
   */
  whole: boolean = false;
  /**
   * See {@linkcode ProtocolOptions.allocate}.
   * @internal
   */
  allocate: ((length: number) => Uint8Array) | undefined;
  /**
   * Holds the written frames until they are taken.
   * @internal
   */
  readonly encoder: Encoder;

  /**
   * Makes one end of a connection after the opening handshake.
   * @param role The role of this end.
   * @param options The extensions and limits.
   * @param agreed The extensions that an `Endpoint` has agreed on. Its options have been checked.
   * Internal.
   * @throws {TypeError} If the role or an option does not exist, or an option has the wrong type.
   * @throws {RangeError} If a limit is negative or NaN.
   */
  constructor(role: Role, options: ProtocolOptions = {}, agreed?: readonly Extension[]) {
    if (agreed === undefined) {
      checkRole(role);
      checkKnown("Protocol", options, PROTOCOL_OPTIONS);
    }
    this.#options = options;
    this.allocate = options.allocate;
    const { textCodec, onReady, onFrame } = options;
    const extensions = agreed ?? options.extensions ?? NONE;
    this.encoder = new Encoder(role, {
      textCodec,
      extensions,
      onFrame: onFrame && ((frame) => onFrame("out", frame)),
      refusal: extensions.length === 0 ? undefined : () => this.#refusal(),
    });
    if (extensions.length > 0) {
      this.#extended = new Extended(extensions, () => this.#receivedPiece(), onReady);
    }
  }

  /** The role of this end. */
  get role(): Role {
    return this.encoder.role;
  }

  /** Whether extensions are in use. */
  get extended(): boolean {
    return this.#extended !== undefined;
  }

  /** The state of the closing handshake. */
  get state(): ProtocolState {
    return this.#state;
  }

  /**
   * Whether this end should end the transport now. The server does so after both Close frames, so
   * that the client's port is not left in TIME_WAIT (RFC 6455 §7.1.1).
   */
  get endsTransport(): boolean {
    return this.#state === "closed" && this.role === "server";
  }

  /** Amount held of an incomplete message: bytes, or code units of text. */
  get held(): number {
    return this.#input?.messages?.held ?? 0;
  }

  /**
   * Sets {@linkcode ProtocolOptions.maxMessageSize}.
   * @internal
   */
  set maxMessageSize(size: number) {
    this.#options = { ...this.#options, maxMessageSize: size };
    const messages = this.#input?.messages;
    if (messages !== undefined) messages.maxMessageSize = size;
  }

  /** Returns the held part of an incomplete message as one piece, and forgets it. */
  takeHeld(): Fragment | undefined {
    return this.#input?.messages?.takeHeld();
  }

  /**
   * Drops the last chunk of the input. Returns false if the chunk is still in use.
   * @param isBorrowed Whether the memory of the last chunk will be used again. What has not been read is
   * then copied. Not possible with extensions.
   */
  release(isBorrowed?: boolean): boolean {
    // Extensions may keep views of their input.
    if (this.#extended !== undefined) return false;
    const input = this.#input;
    if (input === undefined) return true;
    if (!input.release(isBorrowed)) return false;
    if (input.isBetweenFrames && (input.messages === undefined || input.messages.opcode === 0)) {
      this.#bytesRead = input.position;
      this.#framesRead = input.frames;
      this.#input = undefined;
      // A callback of the application may have called this while `next()` reads.
      if (input.filtered === undefined && input.reads === 0) {
        input.messages?.leave();
        spare = input;
      }
    }
    return true;
  }

  /** Number of received bytes that have not been read as events. */
  get bufferedAmount(): number {
    return this.#input?.bufferedAmount ?? 0;
  }

  /** Approximate memory of the received bytes that have not been read, in bytes. */
  get bufferedMemory(): number {
    return this.#input?.bufferedMemory ?? 0;
  }

  /**
   * What was received and sent so far.
   * @internal
   */
  get counts(): FrameCounts {
    const sent = this.encoder.counts;
    const { compressed = 0, uncompressed = 0 } = this.#extended?.reader ?? {};
    return {
      framesReceived: this.#input?.frames ?? this.#framesRead,
      framesSent: sent.frames,
      ...(this.#controls ?? NO_CONTROLS),
      compressedBytesReceived: compressed,
      compressedBytesSent: sent.compressed,
      uncompressedBytesReceived: uncompressed,
      uncompressedBytesSent: sent.uncompressed,
    };
  }

  /** Whether an extension is busy on another thread. `next()` returns undefined meanwhile. */
  get pending(): boolean {
    return this.#extended !== undefined && this.#extended.pending;
  }

  /** Frees the resources of the extensions. Pending callbacks are not called. */
  dispose(): void {
    for (const extension of this.#extended?.extensions ?? NONE) extension.close();
  }

  /**
   * Adds the next bytes from the transport, or null at its end.
   * @throws {LocalProtocolError} If the input has ended or the connection is closed.
   */
  receive(bytes: Uint8Array | null): void {
    if (this.#ended) throw new LocalProtocolError("Cannot receive more input: the input has ended");
    if (bytes === null) {
      this.#ended = true;
      return;
    }
    if (this.#state === "closed") {
      throw new LocalProtocolError("Cannot receive input: the connection is closed");
    }
    // RFC 6455 §5.5.1, §7.1.7: bytes after a Close frame, or after an error, are not processed.
    if (this.#state === "remote-closing" || this.#failure !== undefined) return;
    if (this.#input === undefined) {
      const { maxFrameSize, ownsInput } = this.#options;
      const rsvInUse = this.#extended === undefined ? 0 : bitsOf(this.#extended.extensions);
      const options = { role: this.encoder.role, maxFrameSize, ownsInput, rsvInUse };
      this.#input = spare ?? new Input(UNUSED);
      spare = undefined;
      this.#input.begin(options, this.#bytesRead, this.#framesRead);
      this.#input.messages?.begin(this.#options);
    }
    this.#input.push(bytes);
  }

  /**
   * Returns the next event, or undefined if there is none yet.
   * @throws {RemoteProtocolError} If the peer violated the protocol. Later calls throw it again
   * until its `event` is sent.
   */
  next(): ProtocolEvent | undefined {
    if (this.#state === "remote-closing" || this.#state === "closed" || this.#failure === null) {
      if (this.#ended) this.#state = "closed";
      return undefined;
    }
    if (this.#failure !== undefined) throw this.#failure;
    const extended = this.#extended;
    if (extended !== undefined && extended.pending) return undefined;
    const input = this.#input;
    const isPlain = extended === undefined && this.#options.onFrame === undefined;
    let event: ProtocolEvent | undefined;
    if (input !== undefined) input.reads++;
    try {
      while (input !== undefined && event === undefined) {
        const piece = isPlain ? input.advance() && input : this.#filteredPiece(input);
        if (!piece) break;
        event = (piece.opcode & 8) === 0
          ? (input.messages ??= new MessageReader(this.#options)).read(piece, this)
          : this.#readControl(piece);
      }
    } catch (error) {
      throw this.#fail(error);
    }
    if (input !== undefined) input.reads--;
    if (event !== undefined) return event;
    if (extended !== undefined && extended.pending) return undefined;
    if (!this.#ended) return undefined;
    // RFC 6455 §7.1.5: a transport that ends without a Close frame is reported as 1006.
    this.#state = "closed";
    return { type: "close", closeCode: CloseCode.Abnormal, reason: "" };
  }

  /** Returns the next piece after the extensions, if there are any. */
  #filteredPiece(input: Input): DataPiece | undefined {
    const piece = this.#extended === undefined ? this.#receivedPiece() : this.#extended.next();
    return piece && (input.filtered ??= new Filtered()).piece.set(piece);
  }

  #receivedPiece(): FramePiece | undefined {
    const input = this.#input!;
    const piece = input.next();
    const { onFrame } = this.#options;
    if (piece !== undefined && onFrame !== undefined) {
      const filtered = input.filtered ??= new Filtered();
      (filtered.observer ??= new FrameObserver(onFrame)).received(piece);
    }
    return piece;
  }

  /** Returns the available events. */
  *events(): IterableIterator<ProtocolEvent> {
    for (let event = this.next(); event !== undefined; event = this.next()) yield event;
  }

  #fail(error: unknown): unknown {
    if (this.#extended !== undefined) this.#extended.pending = false;
    if (!(error instanceof RemoteProtocolError)) return error;
    const { message, closeCode } = error;
    // RFC 6455 §5.5.1: nothing is sent after this end's Close frame.
    const answerable = this.#refusal("close") === undefined;
    return this.#failure = answerable
      ? error
      : new RemoteProtocolError(message, closeCode, { cause: error, event: null });
  }

  get #counted(): ControlCounts {
    return this.#controls ??= { ...NO_CONTROLS };
  }

  #readControl(piece: DataPiece): ProtocolEvent {
    if (piece.opcode === Opcode.Ping) {
      this.#counted.pingsReceived++;
      return { type: "ping", payload: piece.copy() };
    }
    if (piece.opcode === Opcode.Pong) {
      this.#counted.pongsReceived++;
      return { type: "pong", payload: piece.copy() };
    }
    const info = parseClose(piece.copy());
    this.#state = this.#state === "local-closing" ? "closed" : "remote-closing";
    return { type: "close", ...info };
  }

  /**
   * Returns the bytes that send an event. Each piece of a message becomes a frame. If the call
   * throws, nothing has changed.
   * @throws {LocalProtocolError} If a Close frame was sent, except for a pong before the peer's
   * Close frame; or if the piece has another type than the current message.
   * @throws {RangeError} If a control frame cannot hold the payload, close code or reason.
   * @throws {TypeError} If data has the wrong type.
   */
  send(event: OutgoingEvent): Uint8Array {
    this.write(complete(event));
    const bytes = concat(this.encoder.take());
    this.encoder.recycle();
    return bytes;
  }

  /**
   * Writes an event into the batch of the `encoder`, as `send()`.
   * @param shared The unmasked frame of a ping, if other connections send it too.
   * @internal
   */
  write(event: ProtocolEvent, shared?: SharedFrame): void {
    const { type } = event;
    if (type === "text" || type === "binary") {
      this.writePiece(event.data, event.messageFinished, false, event.compress);
      return;
    }
    const refused = this.#state === "open" ? undefined : this.#refusal(type);
    if (refused !== undefined) throw refused;
    switch (type) {
      case "ping": {
        const payload = checkControl(event.payload);
        this.#counted.pingsSent++;
        if (shared === undefined || !this.encoder.writeSharedControl(shared)) {
          this.encoder.writeBytes(FIN | Opcode.Ping, payload);
        }
        break;
      }
      case "pong": {
        const payload = checkControl(event.payload);
        this.#counted.pongsSent++;
        this.encoder.writeBytes(FIN | Opcode.Pong, payload);
        break;
      }
      case "close": {
        const payload = serializeClose(event);
        if (this.#failure !== undefined) this.#failure = null;
        this.#state = this.#state === "remote-closing" ? "closed" : "local-closing";
        this.encoder.writeBytes(FIN | Opcode.Close, payload);
      }
    }
  }

  /**
   * Writes a piece of a message; see {@linkcode Encoder.writePiece}. If a Close frame is sent while
   * the piece is pending, the piece is refused.
   * @throws {LocalProtocolError} If the state does not allow the piece.
   * @internal
   */
  writePiece(
    data: Message,
    fin: boolean,
    lend?: boolean,
    compress?: boolean,
    later?: Written,
  ): boolean {
    if (this.#state !== "open") {
      const refused = this.#refusal(typeof data === "string" ? "text" : "binary");
      if (refused !== undefined) throw refused;
    }
    return this.encoder.writePiece(data, fin, lend, compress, later);
  }

  /** RFC 6455 §5.5.1: after a Close frame no data is sent, and no ping either. */
  #refusal(type?: ProtocolEvent["type"]): LocalProtocolError | undefined {
    // RFC 6455 §5.5.2: a ping is answered until the peer's Close frame is received.
    if (type === "pong" && this.#state === "local-closing") return undefined;
    // After the peer's Close frame, this end may finish its message before it answers.
    if (this.#state === "open" || this.#state === "remote-closing") return undefined;
    const what = type === undefined ? "message" : `${type} event`;
    return new LocalProtocolError(`Cannot send a ${what} in the state ${this.#state}`);
  }
}
