/**
 * The protocol after the opening handshake, without I/O (RFC 6455 §5 to §7).
 *
 * @module
 */
import { CloseCode, parseClose, serializeClose } from "./close.ts";
import { LocalProtocolError, RemoteProtocolError } from "./error.ts";
import { type CloseEvent, complete, type OutgoingEvent, type ProtocolEvent } from "./event.ts";
import { Encoder, type Written } from "./encoder.ts";
import {
  type DataPiece,
  FrameDecoder,
  type FrameDecoderOptions,
  type FramePiece,
} from "./decoder.ts";
import { bitsOf, type Extension, ExtensionReader, PENDING } from "./extension.ts";
import { type Frame, Opcode, type Role } from "./frame.ts";
import {
  concat,
  DecodedPiece,
  type Fragment,
  type Message,
  MessageAssembler,
  type MessageOptions,
  MessageReader,
} from "./message.ts";
import { checkKnown, type OptionNames } from "./options.ts";

/** Shared by all that have none. */
const NONE: readonly Extension[] = [];

/** Where the closing handshake stands (RFC 6455 §7.1.3, §7.1.4). */
export type ProtocolState =
  /** No Close frame yet. */
  | "open"
  /** We sent a Close frame and wait for the peer's. */
  | "local-closing"
  /** The peer sent a Close frame that we have not answered. */
  | "remote-closing"
  /** Both Close frames went, or the transport ended. */
  | "closed";

/** How a {@linkcode Protocol} works. */
export interface ProtocolOptions
  extends MessageOptions, Omit<FrameDecoderOptions, "role" | "rsvInUse"> {
  /** The extensions that were agreed on, in that order; they are this object's from now on. Default: none */
  extensions?: readonly Extension[];
  /**
   * Takes memory for a message that is put together, in bytes. It need not be zeroed: all of it is written
   * before it is given out.
   *
   * @default {(length) => new Uint8Array(length)}
   */
  allocate?: (length: number) => Uint8Array;
  /**
   * Lets extensions work elsewhere, as on another thread: called when `pending` is over and `next()`
   * may have more. Default: none, all is done at once
   */
  onReady?: () => void;
  /**
   * Called with each frame that came or is about to leave, for diagnosis: frames that come in pieces
   * are put together for it, which takes memory. The payload of a frame that came is a copy. That of a
   * frame about to leave must not be changed: it may be the caller's own bytes, which may go to other
   * connections too, and what it holds after the call is undefined. Default: none
   */
  onFrame?: (direction: "in" | "out", frame: Frame) => void;
}

/** The names of the options. Internal. */
export const PROTOCOL_OPTIONS: OptionNames<ProtocolOptions> = {
  maxMessageSize: true,
  textCodec: true,
  maxFrameSize: true,
  ownsInput: true,
  allocate: true,
  extensions: true,
  onReady: true,
  onFrame: true,
};

/** What a connection with extensions has beside the others. */
class Extended {
  readonly extensions: readonly Extension[];
  /** Whether one of them works elsewhere on what comes next. */
  pending = false;
  readonly #reader: ExtensionReader;
  readonly #onReady: (() => void) | undefined;
  readonly #piece = new DecodedPiece();

  constructor(
    extensions: readonly Extension[],
    source: () => FramePiece | undefined,
    onReady: (() => void) | undefined,
  ) {
    this.extensions = extensions;
    this.#reader = new ExtensionReader(extensions, source);
    this.#onReady = onReady && (() => {
      this.pending = false;
      onReady();
    });
  }

  next(): DataPiece | undefined {
    // Set before the call: an extension may be ready before it returns.
    this.pending = this.#onReady !== undefined;
    const piece = this.#reader.next(this.#onReady);
    if (piece === PENDING) return undefined;
    this.pending = false;
    return piece && this.#piece.set(piece);
  }
}

/** Tells of the frames that come, as they do. */
class FrameObserver {
  readonly onFrame: NonNullable<ProtocolOptions["onFrame"]>;
  /** What came of a frame that is not whole yet. */
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
    const payloadOfFrame = whole as Uint8Array;
    const { onFrame } = this;
    onFrame("in", { fin, rsv, opcode: opcode as Opcode, payload: payloadOfFrame });
  }
}

/**
 * Bytes in, events out; events in, bytes out. Nothing is answered by itself: `response()`
 * says what is due.
 *
 * @example
 * ```ts
 * import { Protocol, response } from "@sluice/sluice/core";
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
  /** Whether there are extensions. */
  readonly extended: boolean;
  readonly #role: Role;
  /** None where nobody wants to see the frames. */
  readonly #observer: FrameObserver | undefined;
  readonly #decoder: FrameDecoder;
  readonly #piece = new DecodedPiece();
  readonly #messages: MessageReader;
  /** None where there are no extensions. */
  readonly #extended: Extended | undefined;
  #state: ProtocolState = "open";
  /** The input ended; once what is buffered is read, this says so. */
  #ended = false;
  /** What the peer did wrong: nothing is read any more. */
  #failure: RemoteProtocolError | undefined;
  /** And that we have said so (RFC 6455 §7.1.7). */
  #failed = false;
  /**
   * Holds the frames that were written, until they are taken.
   *
   * @internal
   */
  readonly encoder: Encoder;

  /**
   * Makes the machine for one end, behind the opening handshake.
   *
   * @param role which end this is
   * @param options limits, and whether received chunks may be changed
   */
  constructor(role: Role, options: ProtocolOptions = {}) {
    checkKnown("Protocol", options, PROTOCOL_OPTIONS);
    this.#role = role;
    const { extensions = NONE, onReady, onFrame } = options;
    this.#observer = onFrame && new FrameObserver(onFrame);
    this.#decoder = new FrameDecoder({ ...options, role, rsvInUse: bitsOf(extensions) });
    this.#messages = new MessageReader(options, false, options.allocate);
    this.encoder = new Encoder(role, {
      textCodec: options.textCodec,
      extensions,
      onFrame: onFrame && ((frame) => onFrame("out", frame)),
      refusal: extensions === NONE ? undefined : () => this.#refusal(),
    });
    this.extended = extensions.length > 0;
    if (this.extended) {
      this.#extended = new Extended(extensions, () => this.#receivedPiece(), onReady);
    }
  }

  /** Where the closing handshake stands. */
  get state(): ProtocolState {
    return this.#state;
  }

  /** Which end this is. */
  get role(): Role {
    return this.#role;
  }

  /**
   * Whether this end is the one to end the transport now: the server does, once both Close frames
   * went, so that the client's port is not the one that lingers (RFC 6455 §7.1.1).
   */
  get endsTransport(): boolean {
    return this.#state === "closed" && this.#role === "server";
  }

  /**
   * Whether messages are put together, so that each is one event. Otherwise each piece is an event.
   *
   * @default {false}
   */
  get whole(): boolean {
    return this.#messages.whole;
  }

  set whole(whole: boolean) {
    this.#messages.whole = whole;
  }

  /** What is held of a message that is put together: bytes, or code units of text. */
  get held(): number {
    return this.#messages.held;
  }

  /** Gives out what is held of an unfinished message, as one piece, and forgets it. */
  takeHeld(): Fragment | undefined {
    return this.#messages.takeHeld();
  }

  /** See {@linkcode FrameDecoder.release}. */
  release(): boolean {
    // An extension may keep views of what it was given.
    return this.#extended === undefined && this.#decoder.release();
  }

  /** How many received bytes were not read as events yet. */
  get bufferedAmount(): number {
    return this.#decoder.bufferedAmount;
  }

  /** See {@linkcode FrameDecoder.bufferedMemory}. */
  get bufferedMemory(): number {
    return this.#decoder.bufferedMemory;
  }

  /** Whether an extension works elsewhere on what comes next: `next()` gives nothing meanwhile. */
  get pending(): boolean {
    return this.#extended !== undefined && this.#extended.pending;
  }

  /** Frees what the extensions hold; what is pending is not called back. */
  dispose(): void {
    for (const extension of this.#extended?.extensions ?? NONE) extension.close();
  }

  /**
   * Takes the next bytes from the transport, or null at its end.
   *
   * @throws {LocalProtocolError} after the end, or when the connection is closed
   */
  receive(bytes: Uint8Array | null): void {
    if (this.#ended) throw new LocalProtocolError("Expected no more input after its end");
    if (bytes === null) {
      this.#ended = true;
      return;
    }
    if (this.#state === "closed") {
      throw new LocalProtocolError("Expected no more input on a closed connection");
    }
    // RFC 6455 §5.5.1, §7.1.7: what follows a Close frame, or a failure, is not processed.
    if (this.#state !== "remote-closing" && this.#failure === undefined) this.#decoder.push(bytes);
  }

  /**
   * Reads the next event, or gives undefined when there is none yet.
   *
   * @throws {RemoteProtocolError} when the peer broke the protocol, and again at every later call until
   * its `event` is sent
   */
  next(): ProtocolEvent | undefined {
    if (this.#state === "remote-closing" || this.#state === "closed" || this.#failed) {
      if (this.#ended) this.#state = "closed";
      return undefined;
    }
    if (this.#failure !== undefined) throw this.#failure;
    const extended = this.#extended;
    if (extended !== undefined && extended.pending) return undefined;
    const decoder = this.#decoder;
    const isPlain = extended === undefined && this.#observer === undefined;
    try {
      for (;;) {
        const piece = isPlain ? decoder.advance() && decoder : this.#filteredPiece();
        if (!piece) break;
        const event = (piece.opcode & 8) === 0
          ? this.#messages.read(piece)
          : this.#readControl(piece);
        if (event !== undefined) return event;
      }
    } catch (error) {
      throw this.#fail(error);
    }
    if (extended !== undefined && extended.pending) return undefined;
    return this.#ended ? this.#lost() : undefined;
  }

  /** The next piece as the extensions have decoded it, or as received if only an observer wants to see it. */
  #filteredPiece(): DataPiece | undefined {
    if (this.#extended !== undefined) return this.#extended.next();
    const piece = this.#receivedPiece();
    return piece && this.#piece.set(piece);
  }

  /** The next piece as it was received. */
  #receivedPiece(): FramePiece | undefined {
    const piece = this.#decoder.next();
    if (piece !== undefined) this.#observer?.received(piece);
    return piece;
  }

  /** Reads the events that are at hand. */
  *events(): IterableIterator<ProtocolEvent> {
    for (let event = this.next(); event !== undefined; event = this.next()) yield event;
  }

  #fail(error: unknown): unknown {
    if (this.#extended !== undefined) this.#extended.pending = false;
    if (!(error instanceof RemoteProtocolError)) return error;
    const { message, closeCode } = error;
    // RFC 6455 §5.5.1: nothing more is sent after our Close.
    const answerable = this.#refusal("close") === undefined;
    return this.#failure = answerable
      ? error
      : new RemoteProtocolError(message, closeCode, { cause: error, event: null });
  }

  #readControl(piece: DataPiece): ProtocolEvent {
    if (piece.opcode === Opcode.Ping) return { type: "ping", payload: piece.copy() };
    if (piece.opcode === Opcode.Pong) return { type: "pong", payload: piece.copy() };
    const info = parseClose(piece.copy());
    this.#state = this.#state === "local-closing" ? "closed" : "remote-closing";
    return { type: "close", ...info };
  }

  /** RFC 6455 §7.1.5: a transport that ends without a Close frame is reported as 1006. */
  #lost(): CloseEvent {
    this.#state = "closed";
    return { type: "close", closeCode: CloseCode.Abnormal, reason: "" };
  }

  /**
   * Gives the bytes that send the event; each piece of a message becomes a frame. A call that throws
   * has changed nothing.
   *
   * @throws {LocalProtocolError} If the state forbids the event: after a Close frame was sent, except a
   * pong while the peer's Close frame has not come, or a piece of another type in the middle of a
   * message
   * @throws {RangeError} for a payload, close code or reason that a control frame cannot carry
   * @throws {TypeError} for data of the wrong type
   */
  send(event: OutgoingEvent): Uint8Array {
    this.write(complete(event));
    const bytes = concat(this.encoder.take());
    this.encoder.recycle();
    return bytes;
  }

  /**
   * Does as `send()`, into the batch of the `encoder`.
   *
   * @internal
   */
  write(event: ProtocolEvent): void {
    switch (event.type) {
      case "text":
      case "binary":
        this.writePiece(event.data, event.messageFinished, false, event.compress);
        return;
      case "ping":
      case "pong":
        if (this.#state !== "open") this.#checkSendable(event.type);
        this.encoder.writeControl(event.type === "ping" ? Opcode.Ping : Opcode.Pong, event.payload);
        break;
      case "close":
        if (this.#state !== "open") this.#checkSendable(event.type);
        this.encoder.writeControl(Opcode.Close, serializeClose(event));
        this.#failed = this.#failure !== undefined;
        this.#state = this.#state === "remote-closing" ? "closed" : "local-closing";
    }
    if (this.#observer !== undefined) this.encoder.tell();
  }

  /**
   * Writes a piece of a message; see {@linkcode Encoder.writePiece}. A frame that was pending is refused if a
   * Close frame goes meanwhile.
   *
   * @throws {LocalProtocolError} as `send()`
   * @internal
   */
  writePiece(
    data: Message,
    fin: boolean,
    lend?: boolean,
    compress?: boolean,
    later?: Written,
  ): boolean {
    if (this.#state !== "open") this.#checkSendable(typeof data === "string" ? "text" : "binary");
    const isWritten = this.encoder.writePiece(data, fin, lend, compress, later);
    if (this.#observer !== undefined) this.encoder.tell();
    return isWritten;
  }

  #checkSendable(type: ProtocolEvent["type"]): void {
    const refused = this.#refusal(type);
    if (refused !== undefined) throw refused;
  }

  /** RFC 6455 §5.5.1: no data is sent after a Close frame, and no ping by us. */
  #refusal(type?: ProtocolEvent["type"]): LocalProtocolError | undefined {
    // RFC 6455 §5.5.2: a ping is answered unless the peer's Close frame has come.
    if (type === "pong" && this.#state === "local-closing") return undefined;
    // Until ours is sent, what was begun may be finished, be it that the peer's has come.
    if (this.#state === "open" || this.#state === "remote-closing") return undefined;
    const what = type === undefined ? "message" : `${type} event`;
    return new LocalProtocolError(
      `Expected state open or remote-closing to send a ${what}, it is ${this.#state}`,
    );
  }
}
