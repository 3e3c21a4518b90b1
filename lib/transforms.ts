/**
 * The core's machines as streams: bytes to frames to messages, and the reverse.
 *
 * @module
 */
import {
  encodeWith,
  type Extension,
  ExtensionReader,
  type OutgoingFrame,
  PENDING,
} from "./core/extension.ts";
import { encodeFrame, type Frame, isControl, type Opcode, type Role } from "./core/frame.ts";
import { FrameDecoder, type FrameDecoderOptions, type FramePiece } from "./core/frame_decoder.ts";
import {
  FragmentReader,
  fragments,
  type FragmentsOptions,
  MAX_MESSAGE_SIZE,
  type Message,
  MessageAssembler,
  type MessageOptions,
} from "./core/message.ts";

/** A machine that is given input and from which output is taken. */
export interface Machine<I, O> {
  /** Gives it input. */
  push(input: I): void;
  /** Takes the next output, if there is any. When it is pending, `ready` is called once it is there. */
  next(ready: () => void): O | typeof PENDING | undefined;
  /** Says that no more input comes. */
  end(): void;
}

/**
 * A pull machine as a pair of streams, as `CompressionStream` is one. Its readable holds nothing: each
 * item is taken out of the machine when it is asked for, so that what came before an error is read
 * before the error is met. A TransformStream would drop it: erroring one empties its queue.
 */
export class PullStream<I, O> {
  /** What comes out. */
  readonly readable: ReadableStream<O>;
  /** What goes in. A write resolves when all that it gave was taken. */
  readonly writable: WritableStream<I>;
  readonly #machine: Machine<I, O>;
  #output!: ReadableStreamDefaultController<O>;
  #input!: WritableStreamDefaultController;
  /** Resolves the write, or the close, that is under way. */
  #taken: (() => void) | undefined;
  #refused: ((error: unknown) => void) | undefined;
  /** Resolves the pull that waits for input. */
  #pulled: (() => void) | undefined;
  #closing = false;
  readonly #ready = () => {
    // Whoever has cancelled in the meantime waits for nothing.
    if (this.#pulled !== undefined) this.#advance();
  };

  /**
   * Makes the streams of a machine.
   *
   * @param machine what turns the input into output
   */
  constructor(machine: Machine<I, O>) {
    this.#machine = machine;
    this.readable = new ReadableStream<O>({
      start: (controller) => {
        this.#output = controller;
      },
      pull: () => this.#pull(),
      cancel: (reason) => {
        this.#input.error(reason);
        this.#settleWrite();
      },
    }, { highWaterMark: 0 });
    this.writable = new WritableStream<I>({
      start: (controller) => {
        this.#input = controller;
      },
      write: (chunk) => this.#write(() => machine.push(chunk)),
      close: () => this.#write(() => this.#closing = true),
      abort: (reason) => this.#fail(reason),
    });
  }

  #write(give: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#taken = resolve;
      this.#refused = reject;
      give();
      if (this.#pulled !== undefined) this.#advance();
    });
  }

  #pull(): Promise<void> {
    return new Promise((resolve) => {
      this.#pulled = resolve;
      this.#advance();
    });
  }

  /** Answers the pull that waits, if the machine can; otherwise lets the next input in. */
  #advance(): void {
    try {
      const item = this.#machine.next(this.#ready);
      if (item === PENDING) return;
      if (item !== undefined) return this.#settlePull(() => this.#output.enqueue(item));
      if (this.#closing) this.#end();
    } catch (error) {
      return this.#fail(error);
    }
    this.#settleWrite();
  }

  #end(): void {
    this.#machine.end();
    this.#settlePull(() => this.#output.close());
  }

  #fail(error: unknown): void {
    const refused = this.#refused;
    this.#taken = this.#refused = undefined;
    this.#input.error(error);
    refused?.(error);
    this.#settlePull(() => this.#output.error(error));
  }

  #settlePull(act: () => void): void {
    const pulled = this.#pulled;
    this.#pulled = undefined;
    act();
    pulled?.();
  }

  #settleWrite(): void {
    const taken = this.#taken;
    this.#taken = this.#refused = undefined;
    taken?.();
  }
}

/**
 * Bytes to frames (RFC 6455 §5.2), in pieces: a frame that lies whole in a chunk is one piece, and so is
 * every control frame. Errors with a RemoteProtocolError: 1002, 1009, or 1006 when the input ends within
 * a frame.
 */
export class FrameDecoderStream extends PullStream<Uint8Array, FramePiece> {
  /**
   * Makes a decoder for one connection.
   *
   * @param options the role of the end that receives, and the limits
   */
  constructor(options: FrameDecoderOptions) {
    super(new FrameDecoder(options));
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
    super(new ExtensionMachine(extensions));
  }
}

class ExtensionMachine implements Machine<FramePiece, FramePiece> {
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
export class ExtensionEncoderStream extends TransformStream<Frame, Frame> {
  /**
   * Makes an encoder for one connection.
   *
   * @param extensions what was agreed on, in that order; whoever made them closes them
   */
  constructor(extensions: readonly Extension[]) {
    super({
      async transform(frame, controller) {
        const changed = isControl(frame.opcode) ? frame : await encodeFrameWith(extensions, frame);
        controller.enqueue(changed);
      },
    });
  }
}

function encodeFrameWith(extensions: readonly Extension[], frame: Frame): Promise<OutgoingFrame> {
  const { fin = true, rsv = 0, opcode, payload } = frame;
  return new Promise((resolve, reject) => {
    const later = (error: Error | undefined, changed: OutgoingFrame) =>
      error === undefined ? resolve(changed) : reject(error);
    const changed = encodeWith(extensions, { fin, rsv, opcode, payload }, later);
    if (changed !== undefined) resolve(changed);
  });
}

/** How a {@linkcode MessageAssemblerStream} works. */
export interface MessageAssemblerOptions extends MessageOptions {
  /** The longest message, in bytes; a longer one fails with 1009. Default: 1048576 */
  maxMessageSize?: number;
  /** Called with each control frame. Default: they are items of the stream, between messages */
  onControl?: (frame: Frame) => void;
}

/**
 * Frames to messages (RFC 6455 §5.4, §5.6). Control frames are items too, unless `onControl` takes
 * them. Errors with a RemoteProtocolError: 1002, 1007 or 1009, or 1006 when the input ends within a
 * message.
 */
export class MessageAssemblerStream extends PullStream<FramePiece, Message | Frame> {
  /**
   * Makes an assembler for one connection.
   *
   * @param options the limit, and who is told of control frames
   */
  constructor(options: MessageAssemblerOptions = {}) {
    super(new AssemblingMachine(options));
  }
}

class AssemblingMachine implements Machine<FramePiece, Message | Frame> {
  readonly #reader: FragmentReader;
  readonly #assembler = new MessageAssembler();
  readonly #onControl: ((frame: Frame) => void) | undefined;
  #piece: FramePiece | undefined;

  constructor(options: MessageAssemblerOptions) {
    this.#reader = new FragmentReader({
      ...options,
      maxMessageSize: options.maxMessageSize ?? MAX_MESSAGE_SIZE,
    });
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
    if (!isControl(opcode)) return this.#assembler.push(this.#reader.read(piece));
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
export class MessageFragmenterStream extends TransformStream<Message | Frame, Frame> {
  /**
   * Makes a fragmenter.
   *
   * @param options how long a frame may be
   */
  constructor(options: FragmentsOptions = {}) {
    super({
      transform(item, controller) {
        if (typeof item === "string" || item instanceof Uint8Array) {
          for (const frame of fragments(item, options)) controller.enqueue(frame);
        } else {
          controller.enqueue(item);
        }
      },
    });
  }
}

/** How a {@linkcode FrameEncoderStream} works. */
export interface FrameEncoderOptions {
  /** Which end sends: a client masks its frames, a server does not. */
  role: Role;
}

/** Frames to bytes (RFC 6455 §5.2), a chunk for each frame. Errors with RangeError for an invalid frame. */
export class FrameEncoderStream extends TransformStream<Frame, Uint8Array> {
  /**
   * Makes an encoder.
   *
   * @param options the role of the end that sends
   */
  constructor({ role }: FrameEncoderOptions) {
    const options = role === "client" ? { mask: true } as const : {};
    super({
      transform: (frame, controller) => controller.enqueue(encodeFrame(frame, options)),
    });
  }
}
