/**
 * Transform streams from bytes to frames to messages, and back.
 *
 * @module
 */
import {
  FrameDecoder,
  type FrameDecoderOptions,
  type FramePiece,
  isControl,
} from "../core/decoder.ts";
import { frameLength, writeFrame } from "../core/encoder.ts";
import {
  encodeWith,
  type Extension,
  ExtensionReader,
  type OutgoingFrame,
  PENDING,
} from "../core/extension.ts";
import { checkRole, type Frame, type Opcode, type Role } from "../core/frame.ts";
import { maskingKey } from "../core/mask.ts";
import { checkKnown, type OptionNames } from "../core/options.ts";
import {
  DecodedPiece,
  fragments,
  type FragmentsOptions,
  MAX_MESSAGE_SIZE,
  type Message,
  type MessageOptions,
  MessageReader,
} from "../core/message.ts";
import { Batch, batched, type Machine, MAX_BATCH_SIZE, PullStream } from "./pull_stream.ts";

const DECODER_OPTIONS: OptionNames<FrameDecoderOptions> = {
  role: true,
  maxFrameSize: true,
  ownsInput: true,
  rsvInUse: true,
};

function decoderOf(options: FrameDecoderOptions): FrameDecoder {
  checkKnown("FrameDecoderStream", options, DECODER_OPTIONS);
  return new FrameDecoder(options);
}

const payloadSize = ({ payload }: FramePiece | Frame): number => payload.length;

function isMessage(item: Message | Frame): item is Message {
  return typeof item === "string" || item instanceof Uint8Array;
}

/**
 * Decodes bytes into frames (RFC 6455 §5.2), in pieces. Every control frame, and every frame that arrives
 * complete in one chunk, is one piece. The payload of a data frame may be a view of a chunk that was
 * written. The stream errors with a RemoteProtocolError: 1002, 1009, or 1006 if the input ends within a
 * frame.
 */
export class FrameDecoderStream extends PullStream<Uint8Array, FramePiece> {
  /**
   * Makes a decoder for one connection.
   *
   * @param options The role of the receiving end, and the limits.
   */
  constructor(options: FrameDecoderOptions) {
    super(decoderOf(options));
  }

  /**
   * Makes a decoder whose items are arrays: the pieces of one chunk, at most 1024, and none after the
   * first 64 KiB of payload. An error comes after the pieces before it.
   *
   * @param options The options of the constructor.
   */
  static batched(options: FrameDecoderOptions): PullStream<Uint8Array, FramePiece[]> {
    return new PullStream(new Batch(decoderOf(options), { size: payloadSize }));
  }
}

/**
 * Undoes the changes that the peer's extensions made to frames. Control frames pass through. The stream
 * errors with the RemoteProtocolError of an extension.
 */
export class ExtensionDecoderStream extends PullStream<FramePiece, FramePiece> {
  /**
   * Makes a decoder for one connection.
   *
   * @param extensions The negotiated extensions, in order. The caller closes them.
   */
  constructor(extensions: readonly Extension[]) {
    super(new ExtensionDecoding(extensions));
  }

  /**
   * Makes a decoder of arrays, limited like those of {@linkcode FrameDecoderStream}. An array also ends
   * when the output of an extension is pending.
   *
   * @param extensions The extensions, in the order in which they were negotiated.
   */
  static batched(
    extensions: readonly Extension[],
  ): PullStream<readonly FramePiece[], FramePiece[]> {
    return batched(new ExtensionDecoding(extensions), { size: payloadSize });
  }
}

class ExtensionDecoding implements Machine<FramePiece, FramePiece> {
  readonly #reader: ExtensionReader;
  #piece: FramePiece | undefined;

  constructor(extensions: readonly Extension[]) {
    this.#reader = new ExtensionReader(extensions, () => {
      const piece = this.#piece;
      this.#piece = undefined;
      return piece;
    });
  }

  push(piece: FramePiece): void {
    this.#piece = piece;
  }

  next(ready: () => void): FramePiece | typeof PENDING | undefined {
    return this.#reader.next(ready);
  }
}

/** Applies the extensions to frames. Control frames pass through. */
export class ExtensionEncoderStream extends PullStream<Frame, Frame> {
  /**
   * Makes an encoder for one connection.
   *
   * @param extensions The negotiated extensions, in order. The caller closes them.
   */
  constructor(extensions: readonly Extension[]) {
    super(new ExtensionEncoding(extensions));
  }

  /**
   * Makes an encoder of arrays, limited like those of {@linkcode FrameDecoderStream}. An array also ends
   * when the output of an extension is pending.
   *
   * @param extensions The extensions, in the order in which they were negotiated.
   */
  static batched(extensions: readonly Extension[]): PullStream<readonly Frame[], Frame[]> {
    return batched(new ExtensionEncoding(extensions), { size: payloadSize });
  }
}

class ExtensionEncoding implements Machine<Frame, Frame> {
  readonly #extensions: readonly Extension[];
  #frame: Frame | undefined;
  #encoded: Frame | undefined;
  #failure: Error | undefined;

  constructor(extensions: readonly Extension[]) {
    this.#extensions = extensions;
  }

  push(frame: Frame): void {
    if (isControl(frame.opcode)) this.#encoded = frame;
    else this.#frame = frame;
  }

  next(ready: () => void): Frame | typeof PENDING | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#frame === undefined) {
      const encoded = this.#encoded;
      this.#encoded = undefined;
      return encoded;
    }
    const { fin = true, rsv = 0, opcode, payload } = this.#frame;
    this.#frame = undefined;
    const later = (error: Error | undefined, encoded: OutgoingFrame) => {
      this.#failure = error;
      this.#encoded = encoded;
      ready();
    };
    return encodeWith(this.#extensions, { fin, rsv, opcode, payload }, later) ?? PENDING;
  }
}

/** Options of a {@linkcode MessageAssemblerStream}. */
export interface MessageAssemblerOptions extends MessageOptions {
  /**
   * Maximum size of a message, in bytes. A larger message fails with 1009.
   * @default {1_048_576}
   */
  maxMessageSize?: number | undefined;
  /** Called with each control frame after the messages before it. By default, frames are items. */
  onControl?: ((((frame: Frame) => void) | undefined) | undefined) | undefined;
}

const ASSEMBLER_OPTIONS: OptionNames<MessageAssemblerOptions> = {
  maxMessageSize: true,
  textCodec: true,
  onControl: true,
};

/**
 * Assembles frames into messages (RFC 6455 §5.4, §5.6). Control frames are items too, unless `onControl`
 * is set. A binary message has a buffer of its own, unless a piece fills the buffer of a chunk that was
 * written. The stream errors with a RemoteProtocolError: 1002, 1007, 1009, or 1006 if the input ends
 * within a message.
 */
export class MessageAssemblerStream extends PullStream<FramePiece, Message | Frame> {
  /**
   * Makes an assembler for one connection.
   *
   * @param options The limit, and the callback for control frames.
   */
  constructor(options: MessageAssemblerOptions = {}) {
    super(new Assembling(options));
  }

  /**
   * Makes an assembler of arrays, limited like those of {@linkcode FrameDecoderStream}. Control frames
   * keep their place; a frame for `onControl` ends the array before it. An error comes after the messages
   * before it.
   *
   * @param options The options of the constructor.
   */
  static batched(
    options: MessageAssemblerOptions = {},
  ): PullStream<readonly FramePiece[], (Message | Frame)[]> {
    const { onControl, ...rest } = options;
    const divert = onControl &&
      ((item: Message | Frame) => isMessage(item) ? undefined : () => onControl(item));
    const size = (item: Message | Frame) => isMessage(item) ? item.length : payloadSize(item);
    return batched(new Assembling(rest), { size, divert });
  }
}

class Assembling implements Machine<FramePiece, Message | Frame> {
  readonly #reader: MessageReader;
  readonly #decoded = new DecodedPiece();
  readonly #onControl: ((frame: Frame) => void) | undefined;
  #piece: FramePiece | undefined;

  constructor(options: MessageAssemblerOptions) {
    checkKnown("MessageAssemblerStream", options, ASSEMBLER_OPTIONS);
    const { maxMessageSize = MAX_MESSAGE_SIZE } = options;
    this.#reader = new MessageReader({ ...options, maxMessageSize }, true);
    this.#onControl = options.onControl;
  }

  push(piece: FramePiece): void {
    this.#piece = piece;
  }

  next(): Message | Frame | undefined {
    const piece = this.#piece;
    this.#piece = undefined;
    if (piece === undefined) return undefined;
    const { fin, rsv, opcode } = piece.header;
    if (!isControl(opcode)) return this.#reader.read(this.#decoded.set(piece))?.data;
    const frame: Frame = { fin, rsv, opcode: opcode as Opcode, payload: piece.payload };
    if (this.#onControl === undefined) return frame;
    this.#onControl(frame);
    return undefined;
  }

  end(): void {
    this.#reader.end();
  }
}

/** Splits messages into frames. Frames pass through, so control frames can come between messages. */
export class MessageFragmenterStream extends PullStream<Message | Frame, Frame> {
  /**
   * Makes a fragmenter.
   *
   * @param options The maximum size of a frame.
   */
  constructor(options: FragmentsOptions = {}) {
    super(new Fragmenting(options));
  }

  /**
   * Makes a fragmenter of arrays, limited like those of {@linkcode FrameDecoderStream}.
   *
   * @param options The options of the constructor.
   */
  static batched(
    options: FragmentsOptions = {},
  ): PullStream<readonly (Message | Frame)[], Frame[]> {
    return batched(new Fragmenting(options), { size: payloadSize });
  }
}

const FRAGMENTER_OPTIONS: OptionNames<FragmentsOptions> = { maxFrameSize: true };

class Fragmenting implements Machine<Message | Frame, Frame> {
  readonly #options: FragmentsOptions;
  #frames: Iterator<Frame> = [].values();

  constructor(options: FragmentsOptions) {
    checkKnown("MessageFragmenterStream", options, FRAGMENTER_OPTIONS);
    this.#options = options;
  }

  push(item: Message | Frame): void {
    this.#frames = isMessage(item) ? fragments(item, this.#options) : [item].values();
  }

  next(): Frame | undefined {
    return this.#frames.next().value;
  }
}

/** Options of a {@linkcode FrameEncoderStream}. */
export interface FrameEncoderOptions {
  /** Role of the sending end. A client masks its frames, a server does not. */
  role: Role;
}

/**
 * Encodes frames into bytes (RFC 6455 §5.2), one chunk per frame. An invalid frame causes a RangeError.
 */
export class FrameEncoderStream extends PullStream<Frame, Uint8Array> {
  /**
   * Makes an encoder.
   *
   * @param options The role of the sending end.
   */
  constructor(options: FrameEncoderOptions) {
    const machine = new Encoding(options);
    super({ push: (frame) => machine.push([frame]), next: () => machine.next() });
  }

  /**
   * Makes an encoder that turns each array into one chunk, or into several of about 64 KiB. A chunk
   * belongs to the reader. The error of an invalid frame comes after the frames before it.
   *
   * @param options The options of the constructor.
   */
  static batched(options: FrameEncoderOptions): PullStream<readonly Frame[], Uint8Array> {
    return new PullStream(new Encoding(options));
  }
}

const ENCODER_OPTIONS: OptionNames<FrameEncoderOptions> = { role: true };

class Encoding implements Machine<readonly Frame[], Uint8Array> {
  readonly #masked: boolean;
  #frames: readonly Frame[] = [];
  #at = 0;

  constructor(options: FrameEncoderOptions) {
    checkKnown("FrameEncoderStream", options, ENCODER_OPTIONS);
    checkRole(options.role);
    this.#masked = options.role === "client";
  }

  push(frames: readonly Frame[]): void {
    this.#frames = frames;
    this.#at = 0;
  }

  next(): Uint8Array | undefined {
    const { end, size } = this.#measure();
    if (size === 0) return undefined;
    const bytes = new Uint8Array(size);
    for (let offset = 0; this.#at < end; this.#at++) {
      const key = this.#masked ? maskingKey() : undefined;
      offset = writeFrame(bytes, offset, this.#frames[this.#at], key);
    }
    return bytes;
  }

  /** Returns the index after the last frame of the next chunk, and the chunk's size in bytes. */
  #measure(): { end: number; size: number } {
    let end = this.#at;
    let size = 0;
    try {
      for (; end < this.#frames.length && size < MAX_BATCH_SIZE; end++) {
        size += frameLength(this.#frames[end], this.#masked);
      }
    } catch (error) {
      // The frames before the invalid one are encoded first. The next call throws again.
      if (size === 0) throw error;
    }
    return { end, size };
  }
}
