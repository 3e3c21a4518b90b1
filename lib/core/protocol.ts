/**
 * The protocol after the opening handshake, without I/O (RFC 6455 §5 to §7).
 *
 * @module
 */
import { CloseCode, parseClose, serializeClose } from "./close.ts";
import { LocalProtocolError, RemoteProtocolError } from "./error.ts";
import { type Frame, MAX_CONTROL_LENGTH, Opcode, type Role } from "./frame.ts";
import { FrameDecoder, type FrameDecoderOptions, type FramePiece } from "./frame_decoder.ts";
import { FrameWriter, type Ownership } from "./frame_writer.ts";
import {
  concat,
  type Fragment,
  FragmentReader,
  type MessageOptions,
  type TextEvent,
} from "./message.ts";

type OnFrame = NonNullable<ProtocolOptions["onFrame"]>;

/** A ping (RFC 6455 §5.5.2). */
export interface PingEvent {
  /** Tells the events apart. */
  type: "ping";
  /** At most 125 bytes. */
  payload: Uint8Array;
}

/** A pong (RFC 6455 §5.5.3). */
export interface PongEvent {
  /** Tells the events apart. */
  type: "pong";
  /** At most 125 bytes. */
  payload: Uint8Array;
}

/** The closing handshake, or the end of the transport without one (RFC 6455 §5.5.1, §7.1.5). */
export interface CloseEvent {
  /** Tells the events apart. */
  type: "close";
  /** The close code; 1005 where the frame carries none, 1006 where no frame came. */
  closeCode: number;
  /** The reason. */
  reason: string;
}

/** What {@linkcode Protocol} receives and sends. */
export type ProtocolEvent = Fragment | PingEvent | PongEvent | CloseEvent;

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
export interface ProtocolOptions extends MessageOptions, Omit<FrameDecoderOptions, "role"> {
  /**
   * Called with each frame that came or is about to leave, for diagnosis: frames that come in pieces
   * are put together for it, which takes memory. Default: none
   */
  onFrame?: (direction: "in" | "out", frame: Frame) => void;
}

/**
 * Bytes in, events out; events in, bytes out. Nothing is answered by itself: {@linkcode response}
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
  readonly #role: Role;
  readonly #options: ProtocolOptions;
  readonly #decoder: FrameDecoder;
  readonly #reader: FragmentReader;
  #state: ProtocolState = "open";
  /** The input ended; once what is buffered is read, this says so. */
  #ended = false;
  /** What the peer did wrong: nothing is read any more. */
  #failure: RemoteProtocolError | undefined;
  /** The type of the message that we are in the middle of sending. */
  #sending: "text" | "binary" | undefined;
  #writer: FrameWriter | undefined;
  /** What came of a frame that is not whole yet, for `onFrame`. */
  #observed: Uint8Array[] = [];

  /**
   * Makes the machine for one end, behind the opening handshake.
   *
   * @param role which end this is
   * @param options limits, and whether received chunks may be changed
   */
  constructor(role: Role, options: ProtocolOptions = {}) {
    this.#role = role;
    this.#options = options;
    this.#decoder = new FrameDecoder({ ...options, role });
    this.#reader = new FragmentReader(options);
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

  /** How many received bytes were not read as events yet. */
  get bufferedAmount(): number {
    return this.#decoder.bufferedAmount;
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
   * @throws {RemoteProtocolError} when the peer broke the protocol, and again at every later call;
   * its `event` is the one to send
   */
  next(): ProtocolEvent | undefined {
    if (this.#state === "remote-closing" || this.#state === "closed") {
      if (this.#ended) this.#state = "closed";
      return undefined;
    }
    if (this.#failure !== undefined) throw this.#failure;
    const piece = this.#decoder.next();
    if (piece !== undefined) return this.receivePiece(piece);
    return this.#ended ? this.#lost() : undefined;
  }

  /** Reads the events that are at hand. */
  *events(): IterableIterator<ProtocolEvent> {
    for (let event = this.next(); event !== undefined; event = this.next()) yield event;
  }

  /**
   * Reads a piece of a frame that a {@linkcode FrameDecoder} elsewhere has decoded, in place of
   * `receive()` and `next()`.
   *
   * @throws {RemoteProtocolError} when the peer broke the protocol
   */
  receivePiece(piece: FramePiece): ProtocolEvent {
    try {
      return this.#read(piece);
    } catch (error) {
      if (error instanceof RemoteProtocolError) this.#failure = error;
      throw error;
    }
  }

  #read(piece: FramePiece): ProtocolEvent {
    const { header: { opcode }, payload } = piece;
    if (this.#options.onFrame !== undefined) this.#observe(piece, this.#options.onFrame);
    switch (opcode) {
      case Opcode.Ping:
        return { type: "ping", payload };
      case Opcode.Pong:
        return { type: "pong", payload };
      case Opcode.Close: {
        const info = parseClose(payload);
        this.#state = this.#state === "local-closing" ? "closed" : "remote-closing";
        return { type: "close", ...info };
      }
      default:
        return this.#reader.read(piece);
    }
  }

  #observe({ header, payload, last }: FramePiece, onFrame: OnFrame): void {
    this.#observed.push(payload);
    if (!last) return;
    const { fin, rsv, opcode } = header;
    onFrame("in", { fin, rsv, opcode: opcode as Opcode, payload: concat(this.#observed) });
    this.#observed = [];
  }

  /** RFC 6455 §7.1.5: a transport that ends without a Close frame is reported as 1006. */
  #lost(): CloseEvent {
    this.#state = "closed";
    return { type: "close", closeCode: CloseCode.Abnormal, reason: "" };
  }

  /**
   * Gives the bytes that send the event; each piece of a message becomes a frame.
   *
   * @throws {LocalProtocolError} where the state forbids it: after a Close frame was sent, or a piece
   * of another type in the middle of a message
   * @throws {RangeError} for a payload, close code or reason that a control frame cannot carry
   */
  send(event: ProtocolEvent): Uint8Array {
    const writer = this.#writer ??= new FrameWriter(this.#role, this.#options.textCodec);
    this.write(event, writer);
    const bytes = concat(writer.take());
    writer.recycle();
    return bytes;
  }

  /**
   * Does as `send()`, into a batch.
   *
   * @param ownership what may be done with the bytes of a long binary piece
   */
  write(event: ProtocolEvent, writer: FrameWriter, ownership: Ownership = "copy"): void {
    // RFC 6455 §5.5.1: nothing is sent after a Close frame. Until ours is sent, what was begun may be
    // finished, be it that the peer's has come.
    if (this.#state === "local-closing" || this.#state === "closed") {
      throw new LocalProtocolError(
        `Expected state open or remote-closing to send a ${event.type} event, it is ${this.#state}`,
      );
    }
    switch (event.type) {
      case "text":
        this.#writeText(event, writer);
        break;
      case "binary":
        this.#writeBytes(
          this.#opcode(event, Opcode.Binary),
          event.data,
          event.messageFinished,
          writer,
          ownership,
        );
        break;
      case "ping":
        this.#writeBytes(Opcode.Ping, checkControl(event.payload), true, writer);
        break;
      case "pong":
        this.#writeBytes(Opcode.Pong, checkControl(event.payload), true, writer);
        break;
      case "close":
        this.#writeBytes(Opcode.Close, serializeClose(event), true, writer);
        this.#state = this.#state === "remote-closing" ? "closed" : "local-closing";
    }
  }

  #writeText(event: TextEvent, writer: FrameWriter): void {
    const opcode = this.#opcode(event, Opcode.Text);
    const { data, messageFinished: fin } = event;
    this.#options.onFrame?.("out", {
      fin,
      rsv: 0,
      opcode,
      payload: new TextEncoder().encode(data),
    });
    writer.text(opcode, data, fin);
  }

  #writeBytes(
    opcode: Opcode,
    payload: Uint8Array,
    fin: boolean,
    writer: FrameWriter,
    ownership: Ownership = "copy",
  ): void {
    this.#options.onFrame?.("out", { fin, rsv: 0, opcode, payload });
    writer.bytes(opcode, payload, fin, 0, ownership);
  }

  /** The opcode of the next frame of a message (RFC 6455 §5.4). */
  #opcode(event: Fragment, opcode: Opcode): Opcode {
    const begun = this.#sending;
    if (begun !== undefined && begun !== event.type) {
      throw new LocalProtocolError(
        `Expected the ${begun} message to go on, received a ${event.type} event`,
      );
    }
    this.#sending = event.messageFinished ? undefined : event.type;
    return begun === undefined ? opcode : Opcode.Continuation;
  }
}

function checkControl(payload: Uint8Array): Uint8Array {
  if (payload.length > MAX_CONTROL_LENGTH) {
    throw new RangeError(
      `Expected a control payload of at most 125 bytes, received ${payload.length}`,
    );
  }
  return payload;
}

/**
 * The event that answers another: a pong with the payload of a ping (RFC 6455 §5.5.3), a Close with
 * the code and reason of a Close (§5.5.1). Others need none.
 */
export function response(event: ProtocolEvent): PongEvent | CloseEvent | undefined {
  if (event.type === "ping") return { type: "pong", payload: event.payload };
  if (event.type !== "close" || event.closeCode === CloseCode.Abnormal) return undefined;
  return { type: "close", closeCode: event.closeCode, reason: event.reason };
}
