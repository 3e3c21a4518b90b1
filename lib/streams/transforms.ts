/**
 * The core's machines as streams: bytes to frames to messages, and the reverse.
 *
 * @module
 */
import { Batch, MAX_BATCH_SIZE, Spread } from "./batch.ts";
import {
  FrameDecoder,
  type FrameDecoderOptions,
  type FramePiece,
  isControl,
} from "../core/decoder.ts";
import {
  encodeWith,
  type Extension,
  ExtensionReader,
  type OutgoingFrame,
  PENDING,
} from "../core/extension.ts";
import {
  checkRole,
  type Frame,
  frameLength,
  type Opcode,
  type Role,
  writeFrame,
} from "../core/frame.ts";
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
import { type Machine, PullStream } from "./pull_stream.ts";

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
 * Bytes to frames (RFC 6455 §5.2), in pieces: a frame that lies whole in a chunk is one piece, and so is
 * every control frame. Errors with a RemoteProtocolError: 1002, 1009, or 1006 when the input ends within
 * a frame. The payload of a data frame may be a view of a chunk that was written.
 */
export class FrameDecoderStream extends PullStream<Uint8Array, FramePiece> {
  /**
   * Makes a decoder for one connection.
   *
   * @param options the role of the end that receives, and the limits
   */
  constructor(options: FrameDecoderOptions) {
    super(decoderOf(options));
  }

  /**
   * Makes a decoder that gives arrays: the pieces of a chunk of bytes, at most 1024, and no further
   * ones once they are 64 KiB of payload together. An error comes behind the pieces before it.
   *
   * @param options as those of the constructor
   */
  static batched(options: FrameDecoderOptions): PullStream<Uint8Array, FramePiece[]> {
    return new PullStream(new Batch(decoderOf(options), { size: payloadSize }));
  }
}

/**
 * Frames as they came to frames as they were before the peer's extensions changed them. Control frames
 * pass through. Errors with the RemoteProtocolError of an extension.
 */
export class ExtensionDecoderStream extends PullStream<FramePiece, FramePiece> {
  /**
   * Makes a decoder for one connection.
   *
   * @param extensions what was agreed on, in that order; whoever made them closes them
   */
  constructor(extensions: readonly Extension[]) {
    super(new ExtensionDecoding(extensions));
  }

  /**
   * Makes a decoder that takes and gives arrays, bounded as those of {@linkcode FrameDecoderStream}.
   * One ends where an extension works elsewhere on what comes next.
   *
   * @param extensions as those of the constructor
   */
  static batched(
    extensions: readonly Extension[],
  ): PullStream<readonly FramePiece[], FramePiece[]> {
    const machine = new Spread(new ExtensionDecoding(extensions));
    return new PullStream(new Batch(machine, { size: payloadSize }));
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

  end(): void {}
}

/** Frames to frames as extensions make them. Control frames pass through. */
export class ExtensionEncoderStream extends PullStream<Frame, Frame> {
  /**
   * Makes an encoder for one connection.
   *
   * @param extensions what was agreed on, in that order; whoever made them closes them
   */
  constructor(extensions: readonly Extension[]) {
    super(new ExtensionEncoding(extensions));
  }

  /**
   * Makes an encoder that takes and gives arrays, bounded as those of {@linkcode FrameDecoderStream}.
   * One ends where an extension works elsewhere on what comes next.
   *
   * @param extensions as those of the constructor
   */
  static batched(extensions: readonly Extension[]): PullStream<readonly Frame[], Frame[]> {
    const machine = new Spread(new ExtensionEncoding(extensions));
    return new PullStream(new Batch(machine, { size: payloadSize }));
  }
}

class ExtensionEncoding implements Machine<Frame, Frame> {
  readonly #extensions: readonly Extension[];
  #frame: Frame | undefined;
  /** What came of the frame that was pending. */
  #changed: Frame | undefined;
  #failure: Error | undefined;

  constructor(extensions: readonly Extension[]) {
    this.#extensions = extensions;
  }

  push(frame: Frame): void {
    this.#frame = frame;
  }

  next(ready: () => void): Frame | typeof PENDING | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    const frame = this.#frame ?? this.#changed;
    if (frame === undefined || frame === this.#changed || isControl(frame.opcode)) {
      this.#frame = this.#changed = undefined;
      return frame;
    }
    this.#frame = undefined;
    const { fin = true, rsv = 0, opcode, payload } = frame;
    const later = (error: Error | undefined, changed: OutgoingFrame) => {
      this.#failure = error;
      this.#changed = changed;
      ready();
    };
    return encodeWith(this.#extensions, { fin, rsv, opcode, payload }, later) ?? PENDING;
  }

  end(): void {}
}

/** How a {@linkcode MessageAssemblerStream} works. */
export interface MessageAssemblerOptions extends MessageOptions {
  /** The longest message, in bytes; a longer one fails with 1009. Default: 1048576 */
  maxMessageSize?: number;
  /**
   * Called with each control frame, when the messages before it were read. Default: they are items of
   * the stream, between messages
   */
  onControl?: (frame: Frame) => void;
}

const ASSEMBLER_OPTIONS: OptionNames<MessageAssemblerOptions> = {
  maxMessageSize: true,
  textCodec: true,
  onControl: true,
};

/**
 * Frames to messages (RFC 6455 §5.4, §5.6). Control frames are items too, unless `onControl` takes
 * them. Errors with a RemoteProtocolError: 1002, 1007 or 1009, or 1006 when the input ends within a
 * message. Bytes have a buffer of their own, unless a piece fills the buffer of a chunk that was written.
 */
export class MessageAssemblerStream extends PullStream<FramePiece, Message | Frame> {
  /**
   * Makes an assembler for one connection.
   *
   * @param options the limit, and who is told of control frames
   */
  constructor(options: MessageAssemblerOptions = {}) {
    super(new Assembling(options));
  }

  /**
   * Makes an assembler that takes and gives arrays, bounded as those of {@linkcode FrameDecoderStream}.
   * Control frames keep their place in them; one that `onControl` takes ends the array before it. An
   * error comes behind the messages before it.
   *
   * @param options as those of the constructor
   */
  static batched(
    options: MessageAssemblerOptions = {},
  ): PullStream<readonly FramePiece[], (Message | Frame)[]> {
    const { onControl, ...rest } = options;
    const divert = onControl &&
      ((item: Message | Frame) => isMessage(item) ? undefined : () => onControl(item));
    const size = (item: Message | Frame) => isMessage(item) ? item.length : payloadSize(item);
    return new PullStream(new Batch(new Spread(new Assembling(rest)), { size, divert }));
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

/** Messages to frames. Frames pass through, so that control frames can be written between messages. */
export class MessageFragmenterStream extends PullStream<Message | Frame, Frame> {
  /**
   * Makes a fragmenter.
   *
   * @param options how long a frame may be
   */
  constructor(options: FragmentsOptions = {}) {
    super(new Fragmenting(options));
  }

  /**
   * Makes a fragmenter that takes and gives arrays, bounded as those of {@linkcode FrameDecoderStream}.
   *
   * @param options as those of the constructor
   */
  static batched(
    options: FragmentsOptions = {},
  ): PullStream<readonly (Message | Frame)[], Frame[]> {
    return new PullStream(new Batch(new Spread(new Fragmenting(options)), { size: payloadSize }));
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

  end(): void {}
}

/** How a {@linkcode FrameEncoderStream} works. */
export interface FrameEncoderOptions {
  /** Which end sends: a client masks its frames, a server does not. */
  role: Role;
}

/** Frames to bytes (RFC 6455 §5.2), a chunk for each frame. Errors with RangeError for an invalid frame. */
export class FrameEncoderStream extends PullStream<Frame, Uint8Array> {
  /**
   * Makes an encoder.
   *
   * @param options the role of the end that sends
   */
  constructor(options: FrameEncoderOptions) {
    const machine = new Encoding(options);
    super({
      push: (frame) => machine.push([frame]),
      next: () => machine.next(),
      end: () => machine.end(),
    });
  }

  /**
   * Makes an encoder that takes arrays and gives a chunk for each: a new one when it has reached 64 KiB.
   * Nobody else holds the chunk. The error of an invalid frame comes behind the frames before it.
   *
   * @param options as those of the constructor
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

  /** How many of the frames go into the next chunk. */
  #measure(): { end: number; size: number } {
    let end = this.#at;
    let size = 0;
    try {
      for (; end < this.#frames.length && size < MAX_BATCH_SIZE; end++) {
        size += frameLength(this.#frames[end], this.#masked);
      }
    } catch (error) {
      // It is met again when those before it have left.
      if (size === 0) throw error;
    }
    return { end, size };
  }

  end(): void {}
}
