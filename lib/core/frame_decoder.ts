/**
 * Bytes to frames, in pieces.
 *
 * @module
 */
import { RemoteProtocolError } from "./error.ts";
import {
  checkFrameHeader,
  checkRole,
  type FrameHeader,
  headerLength,
  headerSize,
  isControl,
  MAX_CONTROL_LENGTH,
  Opcode,
  readKey,
  type Role,
  startOf,
  wholeLength,
} from "./frame.ts";
import { giveInput, type Input, takeInput } from "./frame_input.ts";
import { applyMask, copyMasked, unmaskedCopy } from "./mask.ts";

/** A frame, or as much of its payload as is at hand. */
export interface FramePiece {
  /** The header of the frame; the same object for each of its pieces. */
  readonly header: FrameHeader;
  /** Bytes of the payload, unmasked. They may be a view of a chunk. */
  readonly payload: Uint8Array;
  /** Whether the payload ends with them. */
  readonly last: boolean;
}

/** How a {@linkcode FrameDecoder} works. */
export interface FrameDecoderOptions {
  /** Which end receives the frames: a server takes masked ones only, a client unmasked ones only. */
  role: Role;
  /** The longest payload of a frame, in bytes; a longer one fails with 1009. Default: Infinity */
  maxFrameSize?: number;
  /**
   * Whether the decoder may change the chunks it is given, to unmask in place. Otherwise it copies
   * what is masked. Default: false
   */
  ownsInput?: boolean;
  /** The reserved bits that a negotiated extension uses. Default: 0 */
  rsvInUse?: number;
  /**
   * Takes memory for a frame that is put together, in bytes. It need not be zeroed: what is given out was
   * written. Default: `new Uint8Array(length)`
   */
  allocate?: (length: number) => Uint8Array;
}

/** What {@linkcode FrameDecoder.takeWhole} asks. Internal. */
export interface WholeReader {
  /** Whether a frame of this many bytes may be a message of its own now. */
  takesWhole(length: number): boolean;
  /** Decodes the text of one, which is unmasked. Undefined leaves the frame where it is. */
  decodeWhole(bytes: Uint8Array, start: number, end: number): string | undefined;
}

const EMPTY = new Uint8Array(0);

/** The options of the last decoder that was made. */
let last: Required<FrameDecoderOptions> | undefined;

function zeroed(length: number): Uint8Array {
  return new Uint8Array(length);
}

/** The options with their defaults. Nearly all connections of a process have the same, and share them. */
function shared(
  options: FrameDecoderOptions,
): Required<FrameDecoderOptions> {
  const { role, maxFrameSize = Infinity, ownsInput = false, rsvInUse = 0, allocate = zeroed } =
    options;
  const same = last !== undefined && last.role === role && last.maxFrameSize === maxFrameSize &&
    last.ownsInput === ownsInput && last.rsvInUse === rsvInUse && last.allocate === allocate;
  if (same) return last!;
  checkRole(role);
  return last = { role, maxFrameSize, ownsInput, rsvInUse, allocate };
}

/**
 * A pull machine: `push()` gives it bytes, `next()` takes a piece of a frame out of it, until there
 * is nothing more to take. It holds no more than the chunks pushed and not yet taken.
 *
 * A frame that lies whole in one chunk is one piece, and so is every control frame. The first piece
 * of a longer frame comes with its header, be it empty. The pieces of data frames are views of the
 * chunks pushed: whoever changes or transfers one changes the chunk and the other pieces of it. If the
 * input is not owned, masked pieces are copies. The payload of a control frame is always a copy.
 *
 * @example
 * ```ts
 * import { FrameDecoder } from "@sluice/sluice/core";
 *
 * const decoder = new FrameDecoder({ role: "client" });
 * decoder.push(new Uint8Array([0x81, 0x02, 0x68, 0x69]));
 * const piece = decoder.next();
 * console.log(piece?.header.opcode, piece?.payload, piece?.last); // 1, [104, 105], true
 * ```
 */
export class FrameDecoder {
  readonly #options: Required<FrameDecoderOptions>;
  /**
   * Whether a binary message of one frame is put together here, in a buffer of its own, for those who
   * want it whole: each of its bytes is then copied once. If it comes in several chunks, its header comes
   * first, with an empty piece. Turned off meanwhile, the next piece has all bytes so far. Default: false
   */
  gathers: boolean = false;

  /** What was pushed and not read; none of an idle connection, be it that much came before. */
  #input: Input | undefined;
  /** Where the chunk at hand begins in the whole input. */
  #chunkPosition = 0;
  #failure: RemoteProtocolError | undefined;

  /**
   * Makes a decoder for one connection.
   *
   * @param options the role, and the limits
   */
  constructor(options: FrameDecoderOptions) {
    this.#options = shared(options);
  }

  /** Gives it the next bytes. They are dropped after a failure. */
  push(chunk: Uint8Array): void {
    if (chunk.length === 0 || this.#failure !== undefined) return;
    const input = this.#input ??= takeInput();
    const bytes = chunk.constructor === Uint8Array ? chunk : view(chunk, 0, chunk.length);
    if (!input.unread) return this.#use(bytes, input);
    input.wait(bytes);
  }

  /** Lets go of the chunk that was pushed last; false while it, or a view of it, may still be in use. */
  release(): boolean {
    const input = this.#input;
    // Before a failure views may have been given out.
    if (input === undefined) return this.#failure === undefined;
    if (input.unread) return false;
    this.#use(EMPTY, input);
    // Until the next chunk comes it stays so, however often it is asked for.
    if (input.lent) return false;
    if (!input.withinFrame) {
      this.#input = undefined;
      giveInput(input);
    }
    return true;
  }

  /** The memory that the bytes not taken yet hold, in bytes, about: each chunk counts as an object, too. */
  get bufferedMemory(): number {
    return this.#input === undefined ? 0 : this.#input.memory;
  }

  /** How many of the bytes pushed were not taken yet. */
  get bufferedAmount(): number {
    return this.#input === undefined ? 0 : this.#input.length;
  }

  /**
   * Takes the next piece, or undefined when more bytes are needed.
   *
   * @throws {RemoteProtocolError} 1002 or 1009; and again at every later call
   */
  next(): FramePiece | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    const input = this.#input;
    if (input === undefined) return undefined;
    if (input.header === undefined && !this.#readHeader(input)) return undefined;
    const header = input.header!;
    return isControl(header.opcode)
      ? this.#controlPiece(header, input)
      : this.#dataPiece(header, input);
  }

  /**
   * Takes the next frame where it is a whole message and lies whole in the chunk at hand, as most
   * short ones do: without an object for its header. Bytes are given in a buffer of their own.
   * Undefined for all else, which `next()` reads or refuses. Internal.
   */
  takeWhole(reader: WholeReader): string | Uint8Array | undefined {
    const input = this.#input;
    const { role, ownsInput, maxFrameSize } = this.#options;
    if (input === undefined || input.withinFrame || !ownsInput) return undefined;
    const { chunk, offset } = input;
    const masked = role === "server";
    const length = wholeLength(chunk, offset, masked);
    const start = offset + headerLength(length, masked);
    const end = start + length;
    if (length < 0 || end > chunk.length || length > maxFrameSize) return undefined;
    if (!reader.takesWhole(length)) return undefined;
    const key = masked ? readKey(chunk, start - 4) : 0;
    if ((chunk[offset] & 0x0f) === Opcode.Binary) {
      input.offset = end;
      return masked ? unmaskedCopy(chunk, start, end, key) : chunk.slice(start, end);
    }
    if (masked) applyMask(chunk, start, end, key, 0);
    const text = reader.decodeWhole(chunk, start, end);
    if (text !== undefined) input.offset = end;
    // It is left as it came.
    else if (masked) applyMask(chunk, start, end, key, 0);
    return text;
  }

  /**
   * Says that no more bytes come.
   *
   * @throws {RemoteProtocolError} 1006 when the input ends within a frame: no Close frame can have come
   */
  end(): void {
    if (this.#failure !== undefined) throw this.#failure;
    const input = this.#input;
    if (input === undefined || (!input.unread && !input.withinFrame)) return;
    // Where nothing of it was read yet, the place is that of another frame, if not of another decoder's.
    if (!input.withinFrame) input.framePosition = this.#chunkPosition + input.offset;
    this.#fail("Expected the input to end between two frames, it ended within one", 1006);
  }

  #use(chunk: Uint8Array, input: Input): void {
    this.#chunkPosition += input.chunk.length;
    input.chunk = chunk;
    input.offset = 0;
    if (chunk !== EMPTY) input.lent = false;
  }

  /** Whether there is a byte to read; goes on to the next chunk where the present one is used up. */
  #readable(input: Input): boolean {
    if (input.offset < input.chunk.length) return true;
    const chunk = input.shift();
    this.#use(chunk ?? EMPTY, input);
    return chunk !== undefined;
  }

  #readHeader(input: Input): boolean {
    if (!this.#readable(input)) return false;
    const { chunk, offset } = input;
    if (input.scratchLength === 0) {
      input.framePosition = this.#chunkPosition + offset;
      const left = chunk.length - offset;
      if (left >= 2 && left >= headerSize(chunk[offset + 1])) {
        input.offset = this.#parseHeader(chunk, offset, input);
        return true;
      }
    }
    return this.#gatherHeader(input);
  }

  /** Reads a header that does not lie whole in one chunk. */
  #gatherHeader(input: Input): boolean {
    const scratch = input.scratch ??= new Uint8Array(MAX_CONTROL_LENGTH);
    while (this.#readable(input)) {
      scratch[input.scratchLength++] = input.chunk[input.offset++];
      if (input.scratchLength < 2) continue;
      // What the first two bytes make impossible fails at once, without waiting for the rest.
      if (input.scratchLength === 2) this.#checkHeader(startOf(scratch[0], scratch[1]));
      if (input.scratchLength === headerSize(scratch[1])) {
        input.scratchLength = 0;
        this.#parseHeader(scratch, 0, input);
        return true;
      }
    }
    return false;
  }

  /** Reads a whole header and gives the offset behind it. */
  #parseHeader(bytes: Uint8Array, offset: number, input: Input): number {
    const header = startOf(bytes[offset], bytes[offset + 1]);
    this.#checkHeader(header);
    let at = offset + 2;
    if (header.length === 126) {
      header.length = (bytes[at] << 8) | bytes[at + 1];
      // RFC 6455 §5.2: the length stands in the fewest bytes that hold it.
      if (header.length < 126) this.#failLength(header.length, 2);
      at += 2;
    } else if (header.length === 127) {
      header.length = this.#readLongLength(bytes, at);
      at += 8;
    }
    const { maxFrameSize } = this.#options;
    if (header.length > maxFrameSize) {
      const expected = `Expected a frame of at most ${maxFrameSize} bytes`;
      this.#fail(`${expected}, received ${header.length}`, 1009);
    }
    if (header.masked) {
      input.key = readKey(bytes, at);
      at += 4;
    }
    input.header = header;
    input.given = 0;
    input.started = false;
    return at;
  }

  #readLongLength(bytes: Uint8Array, at: number): number {
    const high =
      ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
    const low =
      ((bytes[at + 4] << 24) | (bytes[at + 5] << 16) | (bytes[at + 6] << 8) | bytes[at + 7]) >>> 0;
    // RFC 6455 §5.2: the most significant bit is 0.
    if (high > 0x7fffffff) this.#fail("Expected a length below 2^63, received a greater one", 1002);
    const length = high * 2 ** 32 + low;
    if (length < 65536) this.#failLength(length, 8);
    if (length > Number.MAX_SAFE_INTEGER) {
      this.#fail("Expected a frame of less than 2^53 bytes, received a longer one", 1009);
    }
    return length;
  }

  #checkHeader(header: FrameHeader): void {
    try {
      checkFrameHeader(header, this.#options.role, this.#options.rsvInUse);
    } catch (error) {
      const { message, closeCode } = error as RemoteProtocolError;
      this.#fail(message, closeCode);
    }
  }

  #controlPiece(header: FrameHeader, input: Input): FramePiece | undefined {
    const payload = this.#controlPayload(header.length, input);
    if (payload === undefined) return undefined;
    input.header = undefined;
    if (header.masked) applyMask(payload, 0, payload.length, input.key, 0);
    return { header, payload, last: true };
  }

  /** A copy of the payload as it came, once it has come whole. */
  #controlPayload(length: number, input: Input): Uint8Array | undefined {
    const { chunk, offset } = input;
    if (input.scratchLength === 0 && chunk.length - offset >= length) {
      input.offset = offset + length;
      return chunk.slice(offset, offset + length);
    }
    const scratch = input.scratch ??= new Uint8Array(MAX_CONTROL_LENGTH);
    while (input.scratchLength < length) {
      if (!this.#readable(input)) return undefined;
      scratch[input.scratchLength++] = input.chunk[input.offset++];
    }
    input.scratchLength = 0;
    return scratch.slice(0, length);
  }

  #dataPiece(header: FrameHeader, input: Input): FramePiece | undefined {
    const left = header.length - input.given;
    if (left > 0 && !this.#readable(input)) {
      if (input.started) return undefined;
      // The length alone may already be too much for whoever takes the pieces.
      input.started = true;
      return { header, payload: EMPTY, last: false };
    }
    const size = Math.min(left, input.chunk.length - input.offset);
    if (this.#mayGather(header, input)) {
      input.gathered = EMPTY;
      if (!input.started && size < left) {
        input.started = true;
        return { header, payload: EMPTY, last: false };
      }
    }
    if (input.gathered !== undefined) return this.#gather(header, input.gathered, input);
    const payload = this.#take(size, input);
    input.given += size;
    input.started = true;
    const last = size === left;
    if (last) input.header = undefined;
    return { header, payload, last };
  }

  /** Whether to put a frame together that begins, instead of lending bytes of the chunk at hand. */
  #mayGather({ opcode, fin }: FrameHeader, input: Input): boolean {
    // Text is checked, and can fail, at each piece.
    return this.gathers && input.given === 0 && opcode === Opcode.Binary && fin &&
      input.gathered === undefined;
  }

  /** Adds the bytes at hand to those before; gives the frame once it is whole. */
  #gather(header: FrameHeader, before: Uint8Array, input: Input): FramePiece | undefined {
    const { length, masked } = header;
    let bytes = before;
    // Through all the chunks at hand: it may be that no other comes before this frame was taken.
    do {
      const start = input.given;
      const size = Math.min(length - start, input.chunk.length - input.offset);
      const end = input.given = start + size;
      bytes = input.gathered = this.#withRoom(bytes, start, end, length);
      const more = view(input.chunk, input.offset, size);
      input.offset += size;
      if (masked) copyMasked(more, bytes, start, input.key, start);
      else bytes.set(more, start);
    } while (input.given < length && this.#readable(input));
    const last = input.given === length;
    if (!last && this.gathers) return undefined;
    input.gathered = undefined;
    if (last) input.header = undefined;
    // After these bytes lies what the memory held before.
    const whole = last && bytes.length === length;
    return { header, payload: whole ? bytes : new Uint8Array(view(bytes, 0, input.given)), last };
  }

  /**
   * The bytes before `start`, with room for those before `end`: for all that was declared once that is
   * plausible, and else for twice as many.
   */
  #withRoom(bytes: Uint8Array, start: number, end: number, declared: number): Uint8Array {
    if (bytes.length >= end) return bytes;
    const { allocate } = this.#options;
    const longer = allocate(declared <= end * PLAUSIBLE ? declared : end * 2);
    if (start > 0) longer.set(view(bytes, 0, start));
    return longer;
  }

  /** Takes payload bytes of the chunk at hand and unmasks them. */
  #take(size: number, input: Input): Uint8Array {
    if (size === 0) return EMPTY;
    const chunk = input.chunk;
    const start = input.offset;
    const end = start + size;
    input.offset = end;
    input.lent = true;
    if (!input.header!.masked) return view(chunk, start, size);
    if (this.#options.ownsInput) {
      applyMask(chunk, start, end, input.key, input.given);
      return view(chunk, start, size);
    }
    const copy = new Uint8Array(size);
    copyMasked(view(chunk, start, size), copy, 0, input.key, input.given);
    return copy;
  }

  #failLength(length: number, bytes: number): never {
    this.#fail(`Expected the length ${length} in fewer bytes, received it in ${bytes}`, 1002);
  }

  #fail(message: string, closeCode: number): never {
    const at = `${message} (frame at byte ${this.#input?.framePosition ?? 0})`;
    this.#failure = new RemoteProtocolError(at, closeCode);
    this.#input = undefined;
    throw this.#failure;
  }
}

/** Memory is taken for no more than so many times what has come of a frame. */
const PLAUSIBLE = 16;

/** A plain Uint8Array, also of a chunk that is a subclass, as Node's Buffer is. */
function view(chunk: Uint8Array, start: number, size: number): Uint8Array {
  return new Uint8Array(chunk.buffer, chunk.byteOffset + start, size);
}
