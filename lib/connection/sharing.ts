/** Writes the frames that the connections of a server share, into a buffer of the current turn. */
import {
  encodeFrame,
  FIN,
  headerLength,
  MAX_HEADER_LENGTH,
  writeHeader,
} from "../core/frame_writer.ts";
import { Opcode } from "../core/frame.ts";
import type { Message } from "../core/message.ts";
import { type SharedFrame, sharedFrame, type SharedRange } from "../core/shared_frame.ts";
import { nextTurn } from "../timers.ts";
import { SEND_MARK } from "./sender.ts";
import { type Member, Recipients } from "./crowd.ts";
import { isTooMuch, type Sending, sendingOf, type Shareable } from "./sending.ts";

const utf8 = new TextEncoder();

/**
 * Collects the frames of a server that several connections send. A connection that sends consecutive ones
 * and nothing else gives its transport a part of this buffer.
 */
export class SharedFrames {
  readonly #bytes: Uint8Array;
  /** Number of bytes that are written. */
  size = 0;

  /** @param bytes The buffer for the frames. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Makes a frame that has a buffer by itself. */
  static single(message: Message): SharedFrame {
    const isText = typeof message === "string";
    const payload = isText ? utf8.encode(message) : message;
    return sharedFrame(encodeFrame({ opcode: isText ? Opcode.Text : Opcode.Binary, payload }));
  }

  /** Writes an unmasked frame with a whole message. Returns undefined if there is no room for it. */
  write(message: Message): SharedFrame | undefined {
    const isText = typeof message === "string";
    if (this.#bytes.length - this.size < sharedLength(message)) return undefined;
    const start = this.size;
    // The length of a text is only known afterwards. Most texts have one byte per code unit.
    let at = start + headerLength(message.length, false);
    const length = isText
      ? utf8.encodeInto(message, this.#bytes.subarray(at)).written
      : message.length;
    if (headerLength(length, false) !== at - start) {
      const moved = start + headerLength(length, false);
      this.#bytes.copyWithin(moved, at, at + length);
      at = moved;
    }
    if (!isText) this.#bytes.set(message, at);
    const first = FIN | (isText ? Opcode.Text : Opcode.Binary);
    writeHeader(this.#bytes, start, first, length);
    this.size = at + length;
    return { bytes: this.#bytes, start, end: this.size };
  }
}

/** Returns the number of bytes that a frame with this message takes at most. */
export function sharedLength(message: Message): number {
  return MAX_HEADER_LENGTH + (typeof message === "string" ? 3 : 1) * message.length;
}

/** The frames of messages up to this length share a buffer. */
const SHARE_UP_TO = 8192;

/**
 * Makes a `Buffer`, if the platform has them. Its views are Buffers too. Node makes a Buffer of any other
 * view again at each write.
 */
const allocate = (globalThis as { Buffer?: { alloc(size: number): Uint8Array } }).Buffer?.alloc;

/** The shared frames of this turn, their size, and the size of those in the last turn that had any. */
let frames: SharedFrames | undefined;
let framesSize = 0;
let lastSize = 0;

/** Remembers the recipients of a broadcast, if all of them hold its frame. */
export function gather(
  recipients: readonly unknown[],
  members: readonly Sending[],
  range: SharedRange | undefined,
): void {
  // A recipient that does not get this broadcast may get the next one.
  if (range?.holders !== recipients.length) return;
  range.crowd = new Recipients(range, recipients, members as unknown as Member[]);
}

/**
 * Sends a message to a crowd, if these are its recipients and no connection has left it. The next
 * broadcast to the same recipients need not look at each of them. Returns false if each recipient must be
 * looked at.
 */
export function sendToCrowd(
  recipients: readonly unknown[],
  shared: Shareable,
  maxBufferedAmount: number,
): boolean {
  const crowd = sendingOf(recipients[0])?.crowd;
  if (crowd === undefined || crowd.recipients.length !== recipients.length) return false;
  // A member that leaves during a flush takes only the frames that are being written.
  if (crowd.isFlushing) return false;
  const { range } = crowd;
  if (isTooMuch(range.length, shared.message.length, maxBufferedAmount)) return false;
  for (let i = 0; i < recipients.length; i++) {
    if (recipients[i] !== crowd.recipients[i]) return false;
  }
  const isFirst = range.isTaken;
  if (!range.add(shared.frame)) return false;
  if (range.length >= SEND_MARK) crowd.flush();
  else if (isFirst) nextTurn(() => crowd.flush());
  return true;
}

/** Writes a message as a frame that the connections of a server can share. */
export function shareFrame(message: Message): SharedFrame {
  if (message.length > SHARE_UP_TO) return SharedFrames.single(message);
  if (frames === undefined) {
    nextTurn(() => {
      lastSize = framesSize;
      framesSize = 0;
      frames = undefined;
    });
  }
  const frame = frames?.write(message) ?? writeFirst(message);
  framesSize += frame.end - frame.start;
  return frame;
}

function writeFirst(message: Message): SharedFrame {
  // This turn will probably have as many frames as the last one.
  const size = Math.max(sharedLength(message), Math.min(2 * lastSize, SEND_MARK));
  frames = new SharedFrames(allocate?.(size) ?? new Uint8Array(size));
  return frames.write(message)!;
}
