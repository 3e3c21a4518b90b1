/** Encodes messages and control frames as bytes (RFC 6455 §5), and collects the frames in buffers. */
import { LocalProtocolError } from "./error.ts";
import { encodeWith, type Extension, type OutgoingFrame } from "./extension.ts";
import { type Frame, Opcode, type Role } from "./frame.ts";
import {
  encodeFrame,
  FIN,
  firstByte,
  headerLength,
  headerLengthAt,
  MAX_HEADER_LENGTH,
  writeHeader,
} from "./frame_writer.ts";
import { applyMask, copyMasked, maskingKey } from "./mask.ts";
import type { Message } from "./message.ts";
import { Queue } from "./queue.ts";
import { type Crowd, type SharedFrame, sharedFrame, SharedRange } from "./shared_frame.ts";
import { type TextCodec, webTextCodec, WholeCharacters } from "./utf8.ts";

/** From this size on, a lent payload is not copied into a buffer. */
export const LEND_FROM = 8192;

/** Texts shorter than this are encoded in a loop. */
const SHORT_TEXT = 24;

const EMPTY = new Uint8Array(0);
const utf8 = new TextEncoder();

/** Shared frames up to this length are copied if other frames come between them. */
const COPY_UP_TO = 1024;

/** Called when a frame is in the batch, or with the reason why it is not. */
export type Written = (error?: Error) => void;

export interface EncoderOptions {
  textCodec?: TextCodec | undefined;
  extensions?: readonly Extension[] | undefined;
  /** Called after each frame was written. May write another frame. */
  onFrame?: ((frame: Frame) => void) | undefined;
  /** Returns why a pending frame may no longer be sent. Only needed with extensions. */
  refusal?: (() => Error | undefined) | undefined;
}

/** What only an encoder with extensions has. */
class Extended {
  readonly extensions: readonly Extension[];
  /** Returns why a pending frame may no longer be sent. */
  readonly refusal: EncoderOptions["refusal"];
  /** Number of payload bytes of compressed messages, before and after the extensions. */
  uncompressed = 0;
  compressed = 0;
  /** Whether an extension has changed the message that is being written. */
  isChanged = false;

  constructor(extensions: readonly Extension[], refusal: EncoderOptions["refusal"]) {
    this.extensions = extensions;
    this.refusal = refusal;
  }
}

/** Writes frames into a batch, which `take()` returns for one gathered write. */
export class Encoder {
  readonly role: Role;
  readonly #masked: boolean;
  readonly #codec: TextCodec;
  readonly #extended: Extended | undefined;
  readonly #onFrame: ((frame: Frame) => void) | undefined;
  /** Number of bytes that were written and not yet taken, except shared frames. */
  ownSize = 0;
  /** Number of frames that were written, except shared messages. */
  #frames = 0;
  /** Number of shared messages that were written before those of `#shared`. */
  #sharedMessages = 0;
  #message: Opcode = 0;
  #characters: WholeCharacters | undefined;
  /** Whether the last `take()` dropped a frame because its lent bytes changed length. */
  hasVanished = false;

  #buffer: Uint8Array = EMPTY;
  /** The range of the buffer that has not been taken. */
  #start = 0;
  #end = 0;
  /** Only set while a batch has more than one part, or its bytes have not left. */
  #parts: Parts | undefined;
  /** Number of bytes of the previous batch. The next one will probably be as large. */
  #likely = 0;
  /** Shared frames. The batch has nothing else then. A crowd keeps the range after its frames were taken. */
  #shared: SharedRange | undefined;
  /** Number of bytes that crowds have taken, except those of `#shared`. */
  #crowdBytes = 0;

  constructor(role: Role, options: EncoderOptions = {}) {
    const { textCodec = webTextCodec, extensions = [], onFrame, refusal } = options;
    this.role = role;
    this.#masked = role === "client";
    this.#codec = textCodec;
    if (extensions.length > 0) this.#extended = new Extended(extensions, refusal);
    this.#onFrame = onFrame;
  }

  /** The shared frames that have not been taken. */
  get #waiting(): SharedRange | undefined {
    const shared = this.#shared;
    return shared === undefined || shared.isTaken ? undefined : shared;
  }

  /** The crowd to which the encoder belongs. */
  get crowd(): Crowd | undefined {
    return this.#shared?.crowd;
  }

  /** Number of bytes that were written and not yet taken. */
  get size(): number {
    return this.#waiting?.length ?? this.ownSize;
  }

  /** Number of shared messages that were written, each as one frame. */
  get sharedMessages(): number {
    const shared = this.#shared;
    return shared === undefined ? this.#sharedMessages : this.#sharedMessages + shared.frames;
  }

  /** Number of bytes that crowds have taken, which `take()` has not returned. */
  get crowdBytes(): number {
    return this.#crowdBytes + (this.#shared?.bytesTaken ?? 0);
  }

  /** Numbers of the frames that were written, and of payload bytes of compressed messages. */
  get counts(): { frames: number; compressed: number; uncompressed: number } {
    const { compressed = 0, uncompressed = 0 } = this.#extended ?? {};
    return { frames: this.#frames + this.sharedMessages, compressed, uncompressed };
  }

  /** Memory that is held in addition to `size`, in bytes. */
  get unused(): number {
    return this.#parts?.unused ?? 0;
  }

  /** Whether all lent bytes that were taken still have their length. */
  get isLentIntact(): boolean {
    return this.#parts === undefined || this.#parts.lent.every(isIntact);
  }

  /**
   * Writes a piece of a message as a frame. If the call throws, nothing has changed.
   * @param lend Whether the bytes do not change until they have been sent. Long lent bytes are not
   * copied.
   * @param compress Whether to compress the message, for an extension that compresses.
   * @param later Allows an extension to work on another thread. Then the method returns false,
   * calls `later` once the frame is in the batch or refused, and no other piece may be written
   * before.
   * @returns Whether the frame was written.
   */
  writePiece(
    data: Message,
    fin: boolean,
    lend: boolean = false,
    compress?: boolean,
    later?: Written,
  ): boolean {
    const begun = this.#message;
    const type = typeof data === "string" ? Opcode.Text : Opcode.Binary;
    // RFC 6455 §5.4: a message has one type, and all its frames after the first are continuations.
    if (begun !== 0 && begun !== type) throw otherType(begun);
    const opcode = begun === 0 ? type : Opcode.Continuation;
    // Detached bytes look empty. A copy of them throws.
    if (data.length === 0 && typeof data !== "string") data = new Uint8Array(data);
    if (this.#extended !== undefined) {
      return this.#writeExtended(this.#extended, data, { opcode, fin, compress }, lend, later);
    }
    this.#message = fin ? 0 : type;
    const first = fin ? FIN | opcode : opcode;
    if (typeof data !== "string") this.writeBytes(first, data, lend);
    else if (fin && this.#characters === undefined) this.writeText(first, data);
    else this.writeText(first, this.#whole(data, fin));
    return true;
  }

  /**
   * Writes a whole message as a frame that other encoders write too, without a copy if nothing comes
   * between such frames. Returns false if this encoder needs a frame of its own.
   */
  writeShared(shared: SharedFrame, compress?: boolean): boolean {
    if (this.#masked || this.#message !== 0 || this.#onFrame !== undefined) return false;
    const extended = this.#extended;
    const frame = extended === undefined ? shared : this.#changed(extended, shared, compress);
    if (frame === undefined) return false;
    this.#share(frame);
    return true;
  }

  /** Writes a control frame that other encoders write too. See {@linkcode writeShared}. */
  writeSharedControl(frame: SharedFrame): boolean {
    if (this.#masked || this.#onFrame !== undefined) return false;
    this.#share(frame);
    // It is no message.
    this.#sharedMessages--;
    this.#frames++;
    return true;
  }

  #share(frame: SharedFrame): void {
    if (this.crowd?.isFlushing) this.unshare();
    const held = this.#waiting;
    if (held?.precedes(frame)) this.#hold(held.followedBy(frame));
    else if (this.size === 0) this.#hold(SharedRange.of(frame));
    else {
      const range = SharedRange.of(frame);
      this.#insert(range.parts[0]);
      this.ownSize += range.length;
      this.#sharedMessages++;
    }
  }

  #hold(range: SharedRange): void {
    this.#letGo();
    // An encoder with an extension is not counted, because the extension may change the next frame.
    if (this.#extended === undefined) range.holders++;
    this.#shared = range;
  }

  /** Lets go of the shared frames, and counts those that were taken. Returns what `Crowd.leave()` returns. */
  #letGo(): readonly Uint8Array[] | undefined {
    const held = this.#shared;
    if (held === undefined) return undefined;
    this.#shared = undefined;
    if (this.#extended === undefined) held.holders--;
    this.#sharedMessages += held.framesTaken;
    this.#crowdBytes += held.bytesTaken;
    return held.crowd?.leave(this);
  }

  /** Returns the frame as the extension changes it, or undefined if the frame cannot be shared. */
  #changed(
    extended: Extended,
    shared: SharedFrame,
    compress: boolean | undefined,
  ): SharedFrame | undefined {
    const [extension, another] = extended.extensions;
    const { bytes, start, end } = shared;
    const at = start + headerLengthAt(bytes, start);
    const key = another === undefined ? extension.sharedBy?.(end - at, compress) : undefined;
    if (key === null) return shared;
    if (key === undefined) return undefined;
    shared.changed ??= new Map();
    let frame = shared.changed.get(key);
    if (frame === undefined) {
      const opcode = (bytes[start] & 15) as Opcode;
      const payload = bytes.subarray(at, end);
      const plain = { opcode, fin: true, rsv: 0, payload, compress };
      frame = sharedFrame(encodeFrame(encodeWith([extension], plain)!));
      shared.changed.set(key, frame);
    }
    extended.uncompressed += end - at;
    extended.compressed += frame.end - headerLengthAt(frame.bytes, 0);
    return frame;
  }

  /** Adds bytes that nobody changes to the batch. The caller adds their length to `size`. */
  #insert(bytes: Uint8Array): void {
    const { length } = bytes;
    if (length <= COPY_UP_TO) {
      this.#reserve(length);
      this.#buffer.set(bytes, this.#end);
      this.#end += length;
    } else {
      this.unshare();
      this.#cut(undefined);
      (this.#parts ??= new Parts()).waiting.push({ bytes, length, header: 0, full: undefined });
    }
  }

  /** Makes the shared frames a part of the batch like any other. No frame follows them for all holders. */
  unshare(): void {
    const parts = this.#leave();
    if (parts === undefined) return;
    this.#insert(parts[0]);
    this.ownSize += parts[0].length;
  }

  /** Returns the shared frames, which are no longer in the batch. */
  #leave(): readonly Uint8Array[] | undefined {
    const waiting = this.#waiting;
    const unwritten = this.#letGo();
    if (waiting !== undefined) this.#sharedMessages += waiting.frames - waiting.framesTaken;
    if (unwritten !== undefined) this.#crowdBytes -= unwritten[0].length;
    return unwritten ?? waiting?.parts;
  }

  /** Returns complete characters, including the one that the previous piece cut off. */
  #whole(data: string, fin: boolean): string {
    return (this.#characters ??= new WholeCharacters()).take(data, fin);
  }

  #writeExtended(
    extended: Extended,
    data: Message,
    { opcode, fin, compress }: { opcode: Opcode; fin: boolean; compress: boolean | undefined },
    lend: boolean,
    later: Written | undefined,
  ): boolean {
    const half = this.#characters?.half ?? "";
    const payload = typeof data === "string" ? utf8.encode(this.#whole(data, fin)) : data;
    const put = ({ opcode, payload: changed, fin, rsv }: OutgoingFrame) => {
      if (opcode !== Opcode.Continuation) extended.isChanged = rsv !== 0;
      if (extended.isChanged) {
        extended.uncompressed += payload.length;
        extended.compressed += changed.length;
      }
      this.writeBytes(firstByte(fin, rsv, opcode), changed, lend, changed !== data);
    };
    let isDue = true;
    const encoded = later && ((error: Error | undefined, frame: OutgoingFrame) => {
      if (!isDue) return;
      isDue = false;
      const refused = error ?? extended.refusal?.();
      if (refused === undefined) put(frame);
      later(refused);
    });
    let frame: OutgoingFrame | undefined;
    try {
      frame = encodeWith(extended.extensions, { opcode, fin, rsv: 0, payload, compress }, encoded);
    } catch (error) {
      if (this.#characters !== undefined) this.#characters.half = half;
      throw error;
    }
    this.#message = fin ? 0 : typeof data === "string" ? Opcode.Text : Opcode.Binary;
    if (frame !== undefined) put(frame);
    return frame !== undefined;
  }

  /** Whether the batch is in one of the largest buffers, of which few are kept. */
  get isLarge(): boolean {
    return this.#buffer.length === BUFFER_SIZE;
  }

  /** Writes a frame with text as its payload; `first` is the first byte of the frame. */
  writeText(first: number, text: string): void {
    const { length } = text;
    if (3 * length > BUFFER_SIZE / 2 || this.#onFrame !== undefined) {
      const bytes = this.#codec.encode?.(text) ?? utf8.encode(text);
      return this.writeBytes(first, bytes, true, true);
    }
    this.#reserveText(text);
    const buffer = this.#buffer;
    const key = this.#masked ? maskingKey() : undefined;
    // Most texts have one byte per code unit. Otherwise the header is written again.
    let at = writeHeader(buffer, this.#end, first, length, key);
    let size = length <= SHORT_TEXT ? 0 : -1;
    while (size >= 0 && size < length) {
      const unit = text.charCodeAt(size);
      if (unit < 0x80) buffer[at + size++] = unit;
      else size = -1;
    }
    if (size < 0) size = this.#codec.encodeInto(text, buffer, at);
    if (size !== length) {
      const moved = this.#end + headerLength(size, this.#masked);
      if (moved !== at) buffer.copyWithin(moved, at, at + size);
      at = writeHeader(buffer, this.#end, first, size, key);
    }
    this.#finish(at, size, key);
  }

  /**
   * Writes a frame with bytes as its payload.
   * @param lend Whether the bytes do not change until they have been sent.
   * @param isOwn Whether the bytes were made for this frame and may be changed.
   */
  writeBytes(
    first: number,
    payload: Uint8Array,
    lend: boolean = false,
    isOwn: boolean = false,
  ): void {
    const { length } = payload;
    // The bytes may belong to the caller, or be masked, so copy them.
    const seen = this.#onFrame && frameOf(first, new Uint8Array(payload));
    const key = this.#masked ? maskingKey() : undefined;
    if (length >= LEND_FROM) this.#writeLong(first, payload, key, lend, isOwn);
    else {
      this.#reserve(MAX_HEADER_LENGTH + length);
      const at = writeHeader(this.#buffer, this.#end, first, length, key);
      this.#buffer.set(payload, at);
      this.#finish(at, length, key);
    }
    if (seen !== undefined) this.#onFrame?.(seen);
  }

  /** Adds a frame to the batch, whose header and payload were written, and masks it. */
  #finish(at: number, length: number, key: number | undefined): void {
    this.#frames++;
    this.ownSize += at + length - this.#end;
    this.#end = at + length;
    if (key !== undefined) applyMask(this.#buffer, at, this.#end, key, 0);
  }

  #writeLong(
    first: number,
    payload: Uint8Array,
    key: number | undefined,
    lend: boolean,
    isOwn: boolean,
  ): void {
    this.#reserve(MAX_HEADER_LENGTH);
    const { length } = payload;
    const start = this.#end;
    this.#end = writeHeader(this.#buffer, start, first, length, key);
    const header = this.#end - start;
    this.#frames++;
    this.ownSize += header + length;
    // Masking changes the payload, so lent bytes are copied too.
    if (!isOwn && (this.#masked || !lend)) return this.#copy(payload, key);
    if (key !== undefined) applyMask(payload, 0, length, key, 0);
    this.#cut(undefined);
    this.#parts!.waiting.push({ bytes: payload, length, header, full: undefined });
  }

  #copy(payload: Uint8Array, key: number | undefined): void {
    const { length } = payload;
    for (let at = 0; at < length;) {
      if (this.#end === this.#buffer.length) this.#reserve(1);
      const size = Math.min(length - at, this.#buffer.length - this.#end);
      const part = payload.subarray(at, at + size);
      if (key === undefined) this.#buffer.set(part, this.#end);
      else copyMasked(part, 0, part.length, this.#buffer, this.#end, key, at);
      this.#end += size;
      at += size;
    }
  }

  /** Counts the bytes of the text only if there may be too little room for any text of this length. */
  #reserveText(text: string): void {
    const most = MAX_HEADER_LENGTH + 3 * text.length;
    const { length } = this.#buffer;
    const room = length === 0 ? this.#likely : length - this.#end;
    const size = room < most ? this.#codec.byteLength?.(text) : undefined;
    this.#reserve(size === undefined ? most : MAX_HEADER_LENGTH + size);
  }

  #reserve(size: number): void {
    if (this.#shared !== undefined) this.unshare();
    const full = this.#buffer;
    if (full.length - this.#end >= size) return;
    const waiting = this.#end - this.#start;
    const isLarge = full.length === BUFFER_SIZE;
    const buffer = takeBuffer(isLarge ? BUFFER_SIZE : Math.max(waiting + size, this.#likely));
    if (isLarge) {
      if (waiting > 0) this.#cut(full);
      else this.#retire(full);
      this.#end = 0;
    } else {
      // Move the few bytes to the new buffer. Otherwise the batch would have another part.
      if (waiting > 0) buffer.set(full.subarray(this.#start, this.#end));
      if (full.length > 0) this.#retire(full);
      this.#end = waiting;
    }
    this.#start = 0;
    this.#buffer = buffer;
  }

  /** Frees the buffer after all earlier parts have been sent. */
  #retire(full: Uint8Array): void {
    const { waiting, full: taken } = this.#parts ??= new Parts();
    if (waiting.length === 0) taken.push(full);
    else waiting.push({ bytes: EMPTY, length: 0, header: 0, full });
  }

  #cut(full: Uint8Array | undefined): void {
    const length = this.#end - this.#start;
    if (length === 0) return;
    const part = {
      bytes: this.#buffer.subarray(this.#start, this.#end),
      length,
      header: 0,
      full,
    };
    const parts = this.#parts ??= new Parts();
    parts.waiting.push(part);
    parts.unused += unusedOf(part);
    this.#start = this.#end;
  }

  /**
   * Returns the written bytes, which must not change until {@linkcode recycle}. If lent bytes have
   * changed their length, their frame and everything after it is dropped.
   * @param most Stop after this many bytes.
   * @param copy Whether to copy lent bytes.
   */
  take(most: number = Infinity, copy: boolean = false): readonly Uint8Array[] {
    this.hasVanished = false;
    const shared = this.#shared && this.#leave();
    if (shared !== undefined) return shared;
    if (this.ownSize === 0) return [];
    if (this.ownSize === this.#end - this.#start) {
      const bytes = this.#buffer.subarray(this.#start, this.#end);
      this.#start = this.#end;
      this.ownSize = 0;
      return [bytes];
    }
    const taken: Uint8Array[] = [];
    this.#cut(undefined);
    const { waiting, full } = this.#parts!;
    let size = 0;
    for (let next = waiting.first; next !== undefined; next = waiting.first) {
      // A header stays with its payload. An empty part only frees a buffer.
      if (size >= most && next.header === 0 && next.length > 0) break;
      if (!isIntact(next)) {
        this.#drop(next, taken);
        break;
      }
      waiting.shift();
      size += next.length;
      if (next.full !== undefined) full.push(next.full);
      if (next.length > 0) taken.push(this.#taking(next, copy));
    }
    return taken;
  }

  #taking(part: Part, copy: boolean): Uint8Array {
    const { bytes, length, header } = part;
    this.ownSize -= length;
    const parts = this.#parts!;
    parts.unused -= unusedOf(part);
    if (header === 0) return bytes;
    if (copy) return new Uint8Array(bytes);
    parts.lent.push(part);
    return bytes;
  }

  /** Drops everything that was not taken, and the header of `part` at the end of `taken`. */
  #drop({ header }: Part, taken: Uint8Array[]): void {
    const parts = this.#parts!;
    parts.waiting.clear();
    this.ownSize = parts.unused = 0;
    this.hasVanished = true;
    const last = taken.pop()!;
    if (last.length > header) taken.push(last.subarray(0, last.length - header));
  }

  /**
   * Frees the buffers of the bytes that were taken. Returns false, and frees nothing, if lent bytes
   * have changed their length.
   */
  recycle(): boolean {
    let size = this.#end;
    const parts = this.#parts;
    if (parts !== undefined) {
      if (!parts.lent.every(isIntact)) return false;
      // Don't replace the array. Garbage that is old keeps what it refers to until a full collection.
      const isLending = parts.lent.length > 0;
      parts.lent.length = 0;
      for (let full = parts.full.pop(); full !== undefined; full = parts.full.pop()) {
        // The batch did not fit into this buffer.
        size = Math.max(size, full.length + 1);
        releaseBuffer(full);
      }
      // A connection that lends bytes will probably lend more.
      if (!isLending && parts.waiting.length === 0) this.#parts = undefined;
    }
    if (this.ownSize > 0 || this.#end === 0) return true;
    this.#likely = size;
    releaseBuffer(this.#buffer);
    this.#buffer = EMPTY;
    this.#start = this.#end = 0;
    return true;
  }
}

function otherType(begun: Opcode): LocalProtocolError {
  const [begunType, otherType] = begun === Opcode.Text ? ["text", "binary"] : ["binary", "text"];
  return new LocalProtocolError(
    `Cannot send a ${otherType} event: the ${begunType} message is not finished`,
  );
}

function frameOf(first: number, payload: Uint8Array): Frame {
  return { fin: first >= FIN, rsv: (first >> 4) & 7, opcode: (first & 15) as Opcode, payload };
}

// The buffers of batches. Connections share them, so that an idle connection holds none.

/** Size of the largest buffers: a message of 64 KiB and its headers fit. */
export const BUFFER_SIZE: number = 65536 + 448;

/** Maximum number of these buffers that are kept. */
export const LARGE_KEPT = 64;

/** Small buffers are made so many bytes at a time. */
const SLAB = 8192;

/** Offset of a {@linkcode workBuffer} in its memory. */
const SHIFT = 64;

/**
 * Allocates a buffer to copy frames into. Some processors copy ten times slower if the target is 1 to 15
 * bytes further into its page than the source. Large memory and long messages begin at a page, so that a
 * payload after the header of the first frame would be.
 */
export function workBuffer(size: number): Uint8Array {
  return new Uint8Array(SHIFT + size).subarray(SHIFT);
}

/** The free buffers of one size, and the maximum number that is kept. */
interface Pool {
  readonly size: number;
  readonly most: number;
  readonly free: Uint8Array[];
}

// Most connections write little.
const small: Pool = { size: 256, most: 4096, free: [] };
const middle: Pool = { size: 2048, most: 2048, free: [] };
const large: Pool = { size: BUFFER_SIZE, most: LARGE_KEPT, free: [] };
const pools = new Map([small, middle, large].map((pool) => [pool.size, pool]));

/** Returns a buffer of at least `size` bytes, or one of the largest. */
export function takeBuffer(size: number): Uint8Array {
  const pool = size <= small.size ? small : size <= middle.size ? middle : large;
  return pool.free.pop() ?? makeBuffer(pool);
}

/** Small buffers are parts of one: an object for the memory of each would take another 100 bytes. */
function makeBuffer({ size, free }: Pool): Uint8Array {
  if (size > SLAB) return workBuffer(size);
  const slab = new Uint8Array(SLAB);
  for (let at = size; at + size <= slab.length; at += size) {
    free.push(slab.subarray(at, at + size));
  }
  return slab.subarray(0, size);
}

export function releaseBuffer(buffer: Uint8Array): void {
  const { free, most } = pools.get(buffer.length)!;
  if (free.length < most) free.push(buffer);
}

interface Part {
  bytes: Uint8Array;
  /** The length of the part when it was written. The owner may detach lent bytes. */
  length: number;
  /** The length of the header of lent bytes. The header is at the end of the previous part. */
  header: number;
  /** The full buffer to free after this part has been sent. */
  full: Uint8Array | undefined;
}

/** The parts of a batch that has more than the bytes in the current buffer. */
class Parts {
  /** Finished parts, before the bytes in the current buffer. */
  readonly waiting: Queue<Part> = new Queue();
  /** Full buffers that were taken and may not have been sent yet. */
  readonly full: Uint8Array[] = [];
  /** Lent parts that were taken and may not have been sent yet. */
  readonly lent: Part[] = [];
  /** Memory that is held in addition to the bytes, in bytes. */
  unused = 0;
}

function isIntact({ bytes, length }: Part): boolean {
  return bytes.length === length;
}

function unusedOf({ bytes, length, full }: Part): number {
  return full === undefined ? 0 : full.length - (bytes.byteOffset - full.byteOffset) - length;
}
