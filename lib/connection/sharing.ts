/** Writes the frames that the connections of a server share, into a buffer of the current turn. */
import { SharedFrames, sharedLength } from "../core/encoder.ts";
import type { Message } from "../core/message.ts";
import type { SharedFrame } from "../core/shared_frame.ts";
import { nextTurn } from "../timers.ts";
import { SEND_MARK } from "./sender.ts";

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
