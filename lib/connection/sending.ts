/** How a broadcast finds the sending half of a connection, and what may wait for a connection. */
import type { Message } from "../core/message.ts";
import type { Crowd, SharedFrame } from "../core/shared_frame.ts";

/** A message, and the frame that the connections of a server share. */
export interface Shareable {
  readonly message: Message;
  readonly frame: SharedFrame;
}

/** What `broadcast()` needs of a connection. The types of connections do not show it. */
export interface Sending {
  /** Bytes that wait to be sent, and the memory of the waiting messages. */
  readonly heldAmount: number;
  endAsSlow(how: "close" | "terminate"): void;
  /**
   * Sends a message with a frame that other connections send too. Returns false if the message needs
   * `send()`, or more than `most` bytes might wait.
   */
  sendShared?(shared: Shareable, most: number, compress: boolean | undefined): boolean;
  /** The connections that can get the next frame together with this one. */
  readonly crowd?: Crowd | undefined;
}

const SENDING = Symbol("sending");

/** Returns the sending half of a connection, or undefined for another value. */
export function sendingOf(ws: unknown): Sending | undefined {
  return Object(ws)[SENDING];
}

/** Lets {@linkcode sendingOf} find the sending half of the connections with a prototype. */
export function defineSending<T extends object>(target: T, get: (ws: T) => Sending): void {
  Object.defineProperty(target, SENDING, {
    get(this: T) {
      return get(this);
    },
  });
}

/** Whether too much would wait with a message of this length. One message is always allowed. */
export function isTooMuch(held: number, length: number, most: number): boolean {
  return held > 0 && held + length > most;
}

/** Default for the maximum number of bytes that may wait for a connection. */
export const MAX_BUFFERED_AMOUNT = 1048576;

/** Memory of a message that waits as an object, without its bytes: the object and its promise. */
export const MESSAGE_OVERHEAD = 768;
