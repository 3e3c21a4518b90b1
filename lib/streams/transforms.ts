/** Transform streams from bytes to frames to messages, and back. */
import { onAbort } from "../abortable.ts";
import {
  FrameDecoder,
  type FrameDecoderOptions,
  type FramePiece,
  isControl,
} from "../core/decoder.ts";
import { frameLength, writeFrame } from "../core/frame_writer.ts";
import {
  encodeWith,
  type Extension,
  ExtensionReader,
  type OutgoingFrame,
  PENDING,
} from "../core/extension.ts";
import { checkRole, type Frame, type Opcode, type Role } from "../core/frame.ts";
import { maskingKey } from "../core/mask.ts";
import { checkKnown } from "../core/option_hints.ts";
import { checkFunction, checkNumber, type OptionNames } from "../core/options.ts";
import {
  DecodedPiece,
  fragments,
  type FragmentsOptions,
  MAX_MESSAGE_SIZE,
  type Message,
  type MessageOptions,
  MessageReader,
} from "../core/message.ts";

interface Machine<O> {
  /**
   * Returns the next output, `PENDING`, or undefined if there is no input left. `ready` is called when
   * pending output is there.
   */
  next(ready: () => void): O | typeof PENDING | undefined;
  /** Called when there is no more input. */
  end?(): void;
}

/** Makes a machine. `take` returns the next input, or undefined if there is none yet. */
type MachineOf<I, O> = (take: () => I | undefined) => Machine<O>;

/**
 * A machine as a pair of streams, like `CompressionStream`. The readable queues nothing: it takes each
 * item from the machine on demand, so that all items before an error can be read. (A `TransformStream`
 * that errors drops its queue.)
 */
export class PullStream<I, O> {
  /** The output. */
  readonly readable: ReadableStream<O>;
  /** The input. A write resolves when the machine has no more output for it. */
  readonly writable: WritableStream<I>;
  readonly #machine: Machine<O>;
  #chunk: I | undefined;
  #output!: ReadableStreamDefaultController<O>;
  #input!: WritableStreamDefaultController;
  #currentWrite: { resolve(): void; reject(error: unknown): void } | undefined;
  #resolvePull: (() => void) | undefined;
  #isClosing = false;
  readonly #ready = () => {
    // The reader may have cancelled in the meantime.
    if (this.#resolvePull !== undefined) this.#advance();
  };

  /**
   * Makes the streams of a machine.
   * @param machineOf Makes the machine that turns the input into output.
   */
  constructor(machineOf: MachineOf<I, O>) {
    this.#machine = machineOf(() => {
      const chunk = this.#chunk;
      this.#chunk = undefined;
      return chunk;
    });
    this.readable = new ReadableStream<O>({
      start: (controller) => {
        this.#output = controller;
      },
      pull: () => this.#pull(),
      cancel: (reason) => {
        this.#settlePull(() => {});
        this.#input.error(reason);
        this.#settleWrite();
      },
    }, { highWaterMark: 0 });
    this.writable = new WritableStream<I>({
      start: (controller) => {
        this.#input = controller;
        // abort() below is only called after the current write, which waits for a reader or an extension.
        onAbort(controller.signal, (reason) => this.#rejectAll(reason));
      },
      write: (chunk) => this.#write(() => this.#chunk = chunk),
      close: () => this.#write(() => this.#isClosing = true),
      abort: (reason) => this.#fail(reason),
    });
  }

  #write(act: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#currentWrite = { resolve, reject };
      act();
      if (this.#resolvePull !== undefined) this.#advance();
    });
  }

  #pull(): Promise<void> {
    return new Promise((resolve) => {
      this.#resolvePull = resolve;
      this.#advance();
    });
  }

  #advance(): void {
    try {
      const item = this.#machine.next(this.#ready);
      if (item === PENDING) return;
      if (item !== undefined) return this.#settlePull(() => this.#output.enqueue(item));
      if (this.#isClosing) {
        this.#machine.end?.();
        this.#settlePull(() => this.#output.close());
      }
    } catch (error) {
      return this.#fail(error);
    }
    this.#settleWrite();
  }

  #fail(error: unknown): void {
    this.#input.error(error);
    this.#rejectAll(error);
  }

  #rejectAll(error: unknown): void {
    this.#currentWrite?.reject(error);
    this.#currentWrite = undefined;
    this.#settlePull(() => this.#output.error(error));
  }

  #settlePull(act: () => void): void {
    const resolve = this.#resolvePull;
    this.#resolvePull = undefined;
    act();
    resolve?.();
  }

  #settleWrite(): void {
    this.#currentWrite?.resolve();
    this.#currentWrite = undefined;
  }
}

const MAX_ITEMS = 1024;
const MAX_BATCH_SIZE = 65536;

function batched<I, O>(
  machineOf: MachineOf<I, O>,
  options: BatchOptions<O>,
): PullStream<readonly I[], O[]> {
  return new PullStream((take) => {
    let items: readonly I[] = [];
    let at = 0;
    const takeOne = () => {
      if (at === items.length) {
        items = take() ?? [];
        at = 0;
      }
      return at < items.length ? items[at++] : undefined;
    };
    return new Batch(machineOf(takeOne), options);
  });
}

interface BatchOptions<O> {
  /** Returns the size of an item, in bytes. */
  size: (item: O) => number;
  /**
   * Returns the function that handles an item outside of the batches, or undefined if the item belongs in
   * a batch. The function is called when all items before it have been read.
   */
  divert?: ((item: O) => (() => void) | undefined) | undefined;
}

/**
 * Collects the available output of a machine. A batch ends when the machine has no more output, its
 * output is pending, or it fails. The error then takes the place of the next batch.
 */
class Batch<O> implements Machine<O[]> {
  readonly #machine: Machine<O>;
  readonly #options: BatchOptions<O>;
  #failure: { error: unknown } | undefined;
  /** An item to divert when the batch before it has been read. */
  #held: O | undefined;
  #isPending = false;
  #isGathering = false;
  #wake: () => void = () => {};
  readonly #ready = () => {
    this.#isPending = false;
    // While gathering, the loop continues by itself.
    if (!this.#isGathering) this.#wake();
  };

  constructor(machine: Machine<O>, options: BatchOptions<O>) {
    this.#machine = machine;
    this.#options = options;
  }

  next(ready: () => void): O[] | typeof PENDING | undefined {
    this.#wake = ready;
    const batch: O[] = [];
    this.#isGathering = true;
    try {
      if (this.#failure === undefined) this.#gather(batch);
    } catch (error) {
      this.#failure = { error };
    } finally {
      this.#isGathering = false;
    }
    if (batch.length > 0) return batch;
    if (this.#failure !== undefined) throw this.#failure.error;
    return this.#isPending ? PENDING : undefined;
  }

  end(): void {
    this.#machine.end?.();
  }

  #gather(batch: O[]): void {
    const { size } = this.#options;
    for (let room = MAX_BATCH_SIZE; room > 0 && batch.length < MAX_ITEMS;) {
      const item = this.#next(batch.length > 0);
      if (item === undefined) return;
      room -= size(item);
      batch.push(item);
    }
  }

  /** Returns the next item of the batch, unless an earlier item must be diverted first. */
  #next(hasItems: boolean): O | undefined {
    for (;;) {
      const item = this.#held ?? this.#take();
      const act = item === undefined ? undefined : this.#options.divert?.(item);
      if (act === undefined) return item;
      this.#held = hasItems ? item : undefined;
      if (hasItems) return undefined;
      act();
    }
  }

  #take(): O | undefined {
    while (!this.#isPending) {
      // Set before the call: the machine may call #ready at once.
      this.#isPending = true;
      const item = this.#machine.next(this.#ready);
      if (item === PENDING) continue;
      this.#isPending = false;
      return item;
    }
    return undefined;
  }
}

function decoderOf(options: FrameDecoderOptions): MachineOf<Uint8Array, FramePiece> {
  const decoder = new FrameDecoder(options);
  return (take) => ({
    next: () => {
      for (;;) {
        const piece = decoder.next();
        const chunk = piece === undefined ? take() : undefined;
        if (chunk === undefined) return piece;
        decoder.push(chunk);
      }
    },
    end: () => decoder.end(),
  });
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
   * @param options The role of the receiving end, and the limits.
   */
  constructor(options: FrameDecoderOptions) {
    super(decoderOf(options));
  }

  /**
   * Makes a decoder whose items are arrays: the pieces of one chunk, at most 1024, and none after the
   * first 64 KiB of payload. An error comes after the pieces before it.
   * @param options The options of the constructor.
   */
  static batched(options: FrameDecoderOptions): PullStream<Uint8Array, FramePiece[]> {
    const machineOf = decoderOf(options);
    return new PullStream((take) => new Batch(machineOf(take), { size: payloadSize }));
  }
}

/**
 * Undoes the changes that the peer's extensions made to frames. Control frames pass through. The stream
 * errors with the RemoteProtocolError of an extension.
 */
export class ExtensionDecoderStream extends PullStream<FramePiece, FramePiece> {
  /**
   * Makes a decoder for one connection.
   * @param extensions The negotiated extensions, in order. The caller closes them.
   */
  constructor(extensions: readonly Extension[]) {
    super((take) => new ExtensionReader(extensions, take));
  }

  /**
   * Makes a decoder of arrays, limited like those of {@linkcode FrameDecoderStream}. An array also ends
   * when the output of an extension is pending.
   * @param extensions The extensions, in the order in which they were negotiated.
   */
  static batched(
    extensions: readonly Extension[],
  ): PullStream<readonly FramePiece[], FramePiece[]> {
    return batched((take) => new ExtensionReader(extensions, take), { size: payloadSize });
  }
}

/** Applies the extensions to frames. Control frames pass through. */
export class ExtensionEncoderStream extends PullStream<Frame, Frame> {
  /**
   * Makes an encoder for one connection.
   * @param extensions The negotiated extensions, in order. The caller closes them.
   */
  constructor(extensions: readonly Extension[]) {
    super(extensionEncoderOf(extensions));
  }

  /**
   * Makes an encoder of arrays, limited like those of {@linkcode FrameDecoderStream}. An array also ends
   * when the output of an extension is pending.
   * @param extensions The extensions, in the order in which they were negotiated.
   */
  static batched(extensions: readonly Extension[]): PullStream<readonly Frame[], Frame[]> {
    return batched(extensionEncoderOf(extensions), { size: payloadSize });
  }
}

function extensionEncoderOf(extensions: readonly Extension[]): MachineOf<Frame, Frame> {
  /** The frame that another thread has encoded, or why it has not. */
  let encoded: Frame | undefined;
  let failure: Error | undefined;
  return (take) => ({
    next: (ready) => {
      if (failure !== undefined) throw failure;
      const frame = encoded ?? take();
      if (frame === undefined || frame === encoded || isControl(frame.opcode)) {
        encoded = undefined;
        return frame;
      }
      const { fin = true, rsv = 0, opcode, payload } = frame;
      const later = (error: Error | undefined, result: OutgoingFrame) => {
        failure = error;
        encoded = result;
        ready();
      };
      return encodeWith(extensions, { fin, rsv, opcode, payload }, later) ?? PENDING;
    },
  });
}

/** Options of a {@linkcode MessageAssemblerStream}. */
export interface MessageAssemblerOptions extends MessageOptions {
  /**
   * Maximum size of a message, in bytes. A larger message fails with 1009.
   * @default {1_048_576}
   */
  maxMessageSize?: number | undefined;
  /** Called with each control frame after the messages before it. By default, frames are items. */
  onControl?: ((frame: Frame) => void) | undefined;
}

const ASSEMBLER_OPTIONS: OptionNames<MessageAssemblerOptions> = {
  maxMessageSize: checkNumber,
  textCodec: true,
  onControl: checkFunction,
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
   * @param options The limit, and the callback for control frames.
   */
  constructor(options: MessageAssemblerOptions = {}) {
    super(assemblerOf(options));
  }

  /**
   * Makes an assembler of arrays, limited like those of {@linkcode FrameDecoderStream}. Control frames
   * keep their place; a frame for `onControl` ends the array before it. An error comes after the messages
   * before it.
   * @param options The options of the constructor.
   */
  static batched(
    options: MessageAssemblerOptions = {},
  ): PullStream<readonly FramePiece[], (Message | Frame)[]> {
    const { onControl, ...rest } = options;
    const divert = onControl &&
      ((item: Message | Frame) => isMessage(item) ? undefined : () => onControl(item));
    const size = (item: Message | Frame) => isMessage(item) ? item.length : payloadSize(item);
    return batched(assemblerOf(rest), { size, divert });
  }
}

const WHOLE = { whole: true };

function assemblerOf(options: MessageAssemblerOptions): MachineOf<FramePiece, Message | Frame> {
  checkKnown("MessageAssemblerStream", options, ASSEMBLER_OPTIONS);
  const { maxMessageSize = MAX_MESSAGE_SIZE, onControl } = options;
  const reader = new MessageReader({ ...options, maxMessageSize });
  const decoded = new DecodedPiece();
  const read = (piece: FramePiece): Message | Frame | undefined => {
    const { header: { fin, rsv, opcode }, payload } = piece;
    if (!isControl(opcode)) return reader.read(decoded.set(piece), WHOLE)?.data;
    const frame: Frame = { fin, rsv, opcode: opcode as Opcode, payload };
    return onControl === undefined ? frame : void onControl(frame);
  };
  return (take) => ({
    next: () => {
      for (let piece = take(); piece !== undefined; piece = take()) {
        const item = read(piece);
        if (item !== undefined) return item;
      }
      return undefined;
    },
    end: () => reader.end(),
  });
}

/** Splits messages into frames. Frames pass through, so control frames can come between messages. */
export class MessageFragmenterStream extends PullStream<Message | Frame, Frame> {
  /**
   * Makes a fragmenter.
   * @param options The maximum size of a frame.
   */
  constructor(options: FragmentsOptions = {}) {
    super(fragmenterOf(options));
  }

  /**
   * Makes a fragmenter of arrays, limited like those of {@linkcode FrameDecoderStream}.
   * @param options The options of the constructor.
   */
  static batched(
    options: FragmentsOptions = {},
  ): PullStream<readonly (Message | Frame)[], Frame[]> {
    return batched(fragmenterOf(options), { size: payloadSize });
  }
}

const FRAGMENTER_OPTIONS: OptionNames<FragmentsOptions> = { maxFrameSize: true };

function fragmenterOf(options: FragmentsOptions): MachineOf<Message | Frame, Frame> {
  checkKnown("MessageFragmenterStream", options, FRAGMENTER_OPTIONS);
  let frames: Iterator<Frame> = [].values();
  return (take) => ({
    next: () => {
      for (;;) {
        const frame: Frame | undefined = frames.next().value;
        const item = frame === undefined ? take() : undefined;
        if (item === undefined) return frame;
        frames = isMessage(item) ? fragments(item, options) : [item].values();
      }
    },
  });
}

/** Options of a {@linkcode FrameEncoderStream}. */
export interface FrameEncoderOptions {
  /** Role of the sending end. A client masks its frames, a server does not. */
  role: Role;
}

/**
 * Encodes frames into bytes (RFC 6455 §5.2), one chunk per frame. An invalid frame causes a RangeError, a
 * payload that is not a Uint8Array a TypeError.
 */
export class FrameEncoderStream extends PullStream<Frame, Uint8Array> {
  /**
   * Makes an encoder.
   * @param options The role of the sending end.
   */
  constructor(options: FrameEncoderOptions) {
    super((take) =>
      new Encoding(options, () => {
        const frame = take();
        return frame && [frame];
      })
    );
  }

  /**
   * Makes an encoder that turns each array into one chunk, or into several of about 64 KiB. A chunk
   * belongs to the reader. The error of an invalid frame comes after the frames before it.
   * @param options The options of the constructor.
   */
  static batched(options: FrameEncoderOptions): PullStream<readonly Frame[], Uint8Array> {
    return new PullStream((take) => new Encoding(options, take));
  }
}

const ENCODER_OPTIONS: OptionNames<FrameEncoderOptions> = { role: true };

class Encoding implements Machine<Uint8Array> {
  readonly #masked: boolean;
  readonly #take: () => readonly Frame[] | undefined;
  #frames: readonly Frame[] = [];
  #at = 0;

  constructor(options: FrameEncoderOptions, take: () => readonly Frame[] | undefined) {
    checkKnown("FrameEncoderStream", options, ENCODER_OPTIONS);
    checkRole(options.role);
    this.#masked = options.role === "client";
    this.#take = take;
  }

  next(): Uint8Array | undefined {
    if (this.#at === this.#frames.length) {
      this.#frames = this.#take() ?? [];
      this.#at = 0;
    }
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
