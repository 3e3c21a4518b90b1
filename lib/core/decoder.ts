/** Decodes frames from bytes (RFC 6455 §5.2). */
import { CloseCode } from "./close.ts";
import { RemoteProtocolError, wrongType } from "./error.ts";
import { checkRole, type FrameHeader, MAX_CONTROL_LENGTH, Opcode, type Role } from "./frame.ts";
import {
  applyMask,
  copyMasked,
  isInMemory,
  maskedWindow,
  unmaskedCopy,
  WORDS_FROM,
} from "./mask.ts";
import { checkKnown } from "./option_hints.ts";
import { checkBoolean, checkInteger, checkNumber, kindOf, type OptionNames } from "./options.ts";
import { Queue } from "./queue.ts";
import type { TextCodec } from "./utf8.ts";

/** A frame, or the part of it that has been received. */
export interface FramePiece {
  /** The header of the frame. All pieces of a frame have the same object. */
  readonly header: FrameHeader;
  /** The bytes of the piece, unmasked. They may be a view of a received chunk. */
  readonly payload: Uint8Array;
  /** Whether the frame ends with this piece. */
  readonly last: boolean;
}

/** A piece of a data frame. Its bytes can be read once, with one of the methods. */
export interface DataPiece {
  readonly fin: boolean;
  readonly opcode: number;
  /** Length of the frame's payload in bytes, or 0 if the length is unknown. */
  readonly length: number;
  readonly size: number;
  readonly last: boolean;
  /** Returns the bytes, unmasked. They may be a view of a received chunk. */
  bytes(): Uint8Array;
  /** Returns the bytes as text. Throws if they are not UTF-8. */
  text(codec: TextCodec): string;
  /** Whether the last byte is an ASCII character, so that the piece ends with a whole character. */
  readonly endsInAscii: boolean;
  copy(): Uint8Array;
  /** Copies the bytes into `target` at `at`, unmasked. */
  copyTo(target: Uint8Array, at: number): void;
}

/** Options of a {@linkcode FrameDecoder}. */
export interface FrameDecoderOptions {
  /** The role of the receiver. A server accepts only masked frames, a client only unmasked ones. */
  role: Role;
  /**
   * Maximum payload of a frame, in bytes. A longer frame fails with 1009.
   * @default {Infinity}
   */
  maxFrameSize?: number | undefined;
  /**
   * Whether the decoder may change the chunks, to unmask them in place. Otherwise it copies masked
   * payloads.
   * @default {false}
   */
  ownsInput?: boolean | undefined;
  /**
   * The reserved bits that the agreed extensions use.
   * @default {0}
   */
  rsvInUse?: number | undefined;
}

const DECODER_OPTIONS: OptionNames<FrameDecoderOptions> = {
  role: true,
  maxFrameSize: checkNumber,
  ownsInput: checkBoolean,
  rsvInUse: (name, value) => checkInteger(name, value, 0, 7),
};

const EMPTY = new Uint8Array(0);
/** Returned instead of an offset if a header is incomplete. */
const INCOMPLETE = -1;
/** Minimum memory of a chunk in addition to its bytes. */
const CHUNK_OVERHEAD = 256;

/**
 * Decodes frames. `push()` adds bytes, and `next()` returns the next piece of a frame, until it
 * returns undefined. The decoder holds only the chunks that have not been read.
 *
 * If a frame is contained in one chunk, it is one piece. A control frame is always one piece. The
 * first piece of a longer frame may be empty, because it is returned as soon as the header is
 * complete.
 *
 * The payload of a piece is a view of a chunk, so changing or transferring it also changes the
 * chunk. Payloads of control frames are copies, and so are masked payloads unless the decoder owns
 * its input.
 *
 * @example
 * ```ts
 * import { FrameDecoder } from "sluice/core";
 *
 * const decoder = new FrameDecoder({ role: "client" });
 * decoder.push(new Uint8Array([0x81, 0x02, 0x68, 0x69]));
 * const piece = decoder.next();
 * console.log(piece?.header.opcode, piece?.payload, piece?.last); // 1, [104, 105], true
 * ```
 */
export class FrameDecoder {
  #role!: Role;
  #maxFrameSize!: number;
  #ownsInput!: boolean;
  #rsvInUse!: number;

  // The current frame and the current piece of its payload. Valid if `advance()` has returned true.

  /**
   * Number of frames whose header was read.
   * @internal
   */
  frames!: number;
  /** @internal */
  fin: boolean = true;
  /** @internal */
  rsv: number = 0;
  /** @internal */
  opcode: number = 0;
  /** @internal */
  length: number = 0;
  /** @internal */
  size: number = 0;
  /** @internal */
  last: boolean = true;
  /** The header of the frame, once it was asked for. */
  #header: FrameHeader | undefined;
  /** The masking key of the frame. A key of 0 changes nothing. */
  #key = 0;
  /** The masking key of the piece: 0 once the piece is unmasked. */
  #mask = 0;
  /** The array that contains the piece, and the offset of the piece. */
  #piece: Uint8Array = EMPTY;
  #start = 0;
  #given = 0;

  // Input that has not been read.

  #chunk: Uint8Array = EMPTY;
  #offset = 0;
  #waiting: Queue<Uint8Array> | undefined;
  #waitingSize = 0;
  /** Whether a view of the current chunk has been returned. */
  #lent = false;
  /**
   * Number of bytes up to the end of the current chunk, in the whole input.
   * @internal
   */
  position!: number;
  #framePosition = 0;

  /** The beginning of a header or of a control frame's payload that spans several chunks. */
  #scratch: Uint8Array | undefined;
  #scratchLength = 0;
  #failure: RemoteProtocolError | undefined;

  /**
   * Makes a decoder for one connection.
   * @param options The role and the limits.
   * @throws {TypeError} If an option does not exist or has the wrong type.
   * @throws {RangeError} If an option is out of range.
   */
  constructor(options: FrameDecoderOptions) {
    checkKnown("FrameDecoder", options, DECODER_OPTIONS);
    checkRole(options.role);
    this.begin(options, 0, 0);
  }

  /**
   * Begins with the next frame of a connection. The decoder is new, or between frames and released.
   * @param position Number of bytes that came before.
   * @param frames Number of frames that came before.
   * @internal
   */
  begin(options: FrameDecoderOptions, position: number, frames: number): void {
    const { role, maxFrameSize = Infinity, ownsInput = false, rsvInUse = 0 } = options;
    this.#role = role;
    this.#maxFrameSize = maxFrameSize;
    this.#ownsInput = ownsInput;
    this.#rsvInUse = rsvInUse;
    this.position = position;
    this.frames = frames;
  }

  /**
   * Adds the next bytes. After an error they are dropped.
   * @throws {TypeError} If the chunk is not a Uint8Array.
   */
  push(chunk: Uint8Array): void {
    if (chunk.length === 0 || this.#failure !== undefined) return;
    const bytes = chunk.constructor === Uint8Array ? chunk : plainChunk(chunk);
    if (this.#offset === this.#chunk.length && this.#waitingSize === 0) return this.#use(bytes);
    this.#waiting ??= new Queue();
    this.#waiting.push(withoutMuchElse(bytes));
    this.#waitingSize += bytes.length;
  }

  /** Number of bytes that have been added and not read. */
  get bufferedAmount(): number {
    return this.#chunk.length - this.#offset + this.#waitingSize;
  }

  /**
   * Approximate memory of the unread chunks, in bytes.
   * @internal
   */
  get bufferedMemory(): number {
    return this.bufferedAmount + CHUNK_OVERHEAD * (this.#waiting?.length ?? 0);
  }

  /**
   * Whether the input that was read ended with a frame.
   * @internal
   */
  get isBetweenFrames(): boolean {
    return this.last && this.#scratchLength === 0;
  }

  /**
   * Drops the last chunk. Returns false if the chunk is still in use.
   * @param isBorrowed Whether the memory of the current chunk will be used again. What has not been
   * read is then copied.
   * @internal
   */
  release(isBorrowed: boolean = false): boolean {
    if (isBorrowed) {
      this.#piece = EMPTY;
      const isRead = this.#offset === this.#chunk.length;
      this.#chunk = isRead ? EMPTY : this.#chunk.slice(this.#offset);
      this.#offset = 0;
      this.#lent = false;
    }
    if (this.#lent || this.#offset < this.#chunk.length || this.#waitingSize > 0) return false;
    this.#drop();
    return true;
  }

  /**
   * Returns the next piece, or undefined if more bytes are needed.
   * @throws {RemoteProtocolError} If a frame is wrong (1002) or too large (1009). Later calls throw
   * the same error.
   */
  next(): FramePiece | undefined {
    if (!this.advance()) return undefined;
    const { fin, rsv, opcode, length, last } = this;
    const masked = this.#role === "server";
    const header = this.#header ??= { fin, rsv, opcode, masked, length };
    const payload = isControl(opcode) ? this.copy() : this.bytes();
    return { header, payload, last };
  }

  /**
   * Reports the end of the input.
   * @throws {RemoteProtocolError} If the input ends within a frame (1006).
   */
  end(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.isBetweenFrames) {
      if (this.bufferedAmount === 0) return;
      this.#framePosition = this.position - this.#chunk.length + this.#offset;
    }
    this.#fail("The input ended within a frame", 1006);
  }

  /**
   * Moves to the next piece, which the fields then describe. Returns false if more bytes are
   * needed.
   * @internal
   */
  advance(): boolean {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#offset === this.#chunk.length) {
      if (this.#waitingSize === 0) return false;
      this.#nextChunk();
    }
    if (this.last && !this.#readHeader()) return false;
    const left = this.length - this.#given;
    if (left > 0 && this.#offset === this.#chunk.length) this.#nextChunk();
    let bytes = this.#chunk;
    let start = this.#offset;
    let size = Math.min(left, bytes.length - start);
    if ((size < left || this.#scratchLength > 0) && isControl(this.opcode)) {
      const payload = this.#gatherPayload();
      if (payload === undefined) return false;
      bytes = payload;
      start = 0;
      size = left;
    } else {
      // The first piece may be empty, because the declared length alone may exceed a limit.
      this.#offset = start + size;
    }
    if (this.#piece !== bytes) this.#piece = bytes;
    this.#start = start;
    this.#mask = this.#key;
    this.#given += size;
    this.size = size;
    this.last = size === left;
    return true;
  }

  /** @internal */
  bytes(): Uint8Array {
    const { size } = this;
    if (size === 0) return new Uint8Array(0);
    if (this.#mask !== 0) {
      if (!this.#ownsInput) return this.copy();
      this.#unmask();
    }
    if (this.#piece === this.#chunk) this.#lent = true;
    return view(this.#piece, this.#start, size);
  }

  /** @internal */
  text(codec: TextCodec): string {
    const start = this.#start;
    const end = start + this.size;
    if (this.#mask === 0) return codec.decode(this.#piece, start, end);
    const phase = this.#given - this.size;
    const window = maskedWindow(this.#piece, start, end, this.#mask, phase);
    if (window !== undefined) return codec.decode(window.bytes, 0, this.size, window.isAscii);
    if (!this.#ownsInput) return codec.decode(this.copy(), 0, this.size);
    return codec.decode(this.#piece, start, end, this.#unmask());
  }

  /** @internal */
  get endsInAscii(): boolean {
    const byte = this.#piece[this.#start + this.size - 1];
    return ((byte ^ (this.#mask >>> (((this.#given - 1) & 3) << 3))) & 0x80) === 0;
  }

  /** @internal */
  copy(): Uint8Array {
    const start = this.#start;
    const end = start + this.size;
    if (this.#mask === 0) return this.#piece.slice(start, end);
    if (this.#ownsInput && this.#given === this.size) {
      return unmaskedCopy(this.#piece, start, end, this.#mask);
    }
    const copy = new Uint8Array(this.size);
    this.copyTo(copy, 0);
    return copy;
  }

  /** @internal */
  copyTo(target: Uint8Array, at: number): void {
    const start = this.#start;
    const { size } = this;
    if (this.#mask !== 0) {
      const phase = this.#given - size;
      if (size < WORDS_FROM || !this.#ownsInput || !isInMemory(this.#piece)) {
        return copyMasked(this.#piece, start, start + size, target, at, this.#mask, phase);
      }
      this.#unmask();
    }
    target.set(view(this.#piece, start, size), at);
  }

  /** Returns whether the bytes are ASCII, if that is known. */
  #unmask(): boolean | undefined {
    const start = this.#start;
    const key = this.#mask;
    this.#mask = 0;
    return applyMask(this.#piece, start, start + this.size, key, this.#given - this.size);
  }

  #use(chunk: Uint8Array): void {
    this.position += chunk.length;
    this.#chunk = chunk;
    this.#offset = 0;
    this.#lent = false;
  }

  #nextChunk(): boolean {
    const chunk = this.#waiting?.shift();
    if (chunk === undefined) return false;
    this.#use(chunk);
    this.#waitingSize -= chunk.length;
    return true;
  }

  #readHeader(): boolean {
    if (this.#scratchLength > 0) return this.#gatherHeader();
    this.#framePosition = this.position - this.#chunk.length + this.#offset;
    const after = this.#parseHeader(this.#chunk, this.#offset, this.#chunk.length);
    if (after === INCOMPLETE) return this.#gatherHeader();
    this.#offset = after;
    return true;
  }

  #gatherHeader(): boolean {
    const scratch = this.#scratch ??= new Uint8Array(MAX_CONTROL_LENGTH);
    while (this.#offset < this.#chunk.length || this.#nextChunk()) {
      scratch[this.#scratchLength++] = this.#chunk[this.#offset++];
      if (this.#parseHeader(scratch, 0, this.#scratchLength) !== INCOMPLETE) {
        this.#scratch = undefined;
        this.#scratchLength = 0;
        return true;
      }
    }
    return false;
  }

  /** Reads the payload of a control frame that spans several chunks. */
  #gatherPayload(): Uint8Array | undefined {
    const scratch = this.#scratch ??= new Uint8Array(MAX_CONTROL_LENGTH);
    this.last = false;
    while (this.#scratchLength < this.length) {
      if (this.#offset === this.#chunk.length && !this.#nextChunk()) return undefined;
      scratch[this.#scratchLength++] = this.#chunk[this.#offset++];
    }
    this.#scratch = undefined;
    this.#scratchLength = 0;
    return scratch.slice(0, this.length);
  }

  /** Reads and checks a header. Returns the offset after it, or INCOMPLETE. */
  #parseHeader(bytes: Uint8Array, offset: number, end: number): number {
    if (end - offset < 2) return INCOMPLETE;
    const first = bytes[offset];
    const second = bytes[offset + 1];
    this.fin = first >= 0x80;
    this.rsv = (first >> 4) & 7;
    this.opcode = first & 0x0f;
    const masked = second >= 0x80;
    this.length = second & 0x7f;
    const fault = faultOf(this, masked, this.#role, this.#rsvInUse);
    if (fault !== undefined) this.#fail(fault, CloseCode.ProtocolError);
    const at = offset + 2;
    const afterLength = this.length < 126 ? at : at + (this.length === 126 ? 2 : 8);
    const after = masked ? afterLength + 4 : afterLength;
    if (after > end) return INCOMPLETE;
    if (afterLength > at) this.length = this.#readLength(bytes, at, afterLength);
    if (this.length > this.#maxFrameSize) {
      const message = `Frame of ${this.length} bytes exceeds maxFrameSize (${this.#maxFrameSize})`;
      this.#fail(message, CloseCode.MessageTooBig);
    }
    this.#key = masked ? readKey(bytes, afterLength) : 0;
    this.#given = 0;
    this.#header = undefined;
    this.frames++;
    return after;
  }

  #readLength(bytes: Uint8Array, at: number, end: number): number {
    if (end - at === 2) {
      const length = (bytes[at] << 8) | bytes[at + 1];
      // RFC 6455 §5.2: the length is encoded in the fewest bytes that can hold it.
      if (length < 126) this.#failLength(length, 2);
      return length;
    }
    const high = readUint32(bytes, at);
    // RFC 6455 §5.2: the most significant bit must be 0.
    if (high > 0x7fffffff) {
      this.#fail("The frame has a length of 2^63 bytes or more", CloseCode.ProtocolError);
    }
    const length = high * 2 ** 32 + readUint32(bytes, at + 4);
    if (length < 65536) this.#failLength(length, 8);
    if (length > Number.MAX_SAFE_INTEGER) {
      const message = "The frame has a length of 2^53 bytes or more, which is not supported";
      this.#fail(message, CloseCode.MessageTooBig);
    }
    return length;
  }

  #failLength(length: number, bytes: number): never {
    const message = `The frame has its length ${length} in ${bytes} bytes, more than it needs`;
    this.#fail(message, CloseCode.ProtocolError);
  }

  #fail(message: string, closeCode: number): never {
    const where = `${message} (frame at byte ${this.#framePosition})`;
    this.#failure = new RemoteProtocolError(where, closeCode);
    this.#drop();
    throw this.#failure;
  }

  /** Drops all input. The length of a chunk may have changed, so a chunk may wait although none is counted. */
  #drop(): void {
    this.#chunk = this.#piece = EMPTY;
    this.#waiting = undefined;
    this.#offset = this.#waitingSize = 0;
  }
}

/** Reads a masking key as a number whose lowest byte is the first byte of the key. */
export function readKey(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
}

function readUint32(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}

/** Copies bytes that are less than half of their buffer, to release the rest of the buffer. */
function withoutMuchElse(bytes: Uint8Array): Uint8Array {
  return 2 * bytes.length > bytes.buffer.byteLength ? bytes : new Uint8Array(bytes);
}

/** Returns a view of a chunk that is a Buffer, or of another realm. An ArrayBuffer would look empty. */
function plainChunk(chunk: Uint8Array): Uint8Array {
  // A DataView has no length, and the elements of others are longer than a byte.
  if (ArrayBuffer.isView(chunk) && chunk.BYTES_PER_ELEMENT === 1) {
    return view(chunk, 0, chunk.length);
  }
  throw wrongType(`Expected a chunk to be a Uint8Array, received ${kindOf(chunk)}`);
}

/** Returns a plain Uint8Array, even if the chunk is an instance of a subclass such as Buffer. */
function view(chunk: Uint8Array, start: number, size: number): Uint8Array {
  return new Uint8Array(chunk.buffer, chunk.byteOffset + start, size);
}

export function isControl(opcode: number): boolean {
  return (opcode & 8) !== 0;
}

/** Returns what is wrong with a header, or undefined. */
function faultOf(
  { fin, rsv, opcode, length }: Omit<FrameHeader, "masked">,
  masked: boolean,
  role: Role,
  rsvInUse: number,
): string | undefined {
  // RFC 6455 §5.2: a reserved bit is an error unless an agreed extension uses it.
  if ((rsv & ~rsvInUse) !== 0) {
    return `The frame has reserved bits that no agreed extension uses (RSV ${rsv})`;
  }
  if (opcode >= Opcode.Close) {
    // RFC 6455 §5.2: an unknown opcode is an error.
    if (opcode > Opcode.Pong) return `The frame has the unknown opcode ${opcode}`;
    // RFC 6455 §5.5: control frames have at most 125 bytes and must not be fragmented.
    if (length > MAX_CONTROL_LENGTH) {
      return "The control frame is longer than 125 bytes";
    }
    if (!fin) return "The control frame is fragmented";
    // RFC 7692 §6.1: control frames are not compressed.
    if (rsv !== 0) return `The control frame has reserved bits (RSV ${rsv})`;
  } else if (opcode > Opcode.Binary) return `The frame has the unknown opcode ${opcode}`;
  // RFC 6455 §5.1: a server accepts only masked frames, a client only unmasked ones.
  if (masked === (role === "server")) return undefined;
  return role === "server"
    ? "The frame of the client is not masked"
    : "The frame of the server is masked";
}
