/** The messages that are sent in simulations. */
import type { Message } from "../../mod.ts";

const LETTERS = ["a", "é", "€", "😀"];

/** Makes a message that contains its index, if it is long enough. */
export function messageOf(index: number, size: number): Message {
  if (index % 2 === 0) {
    const letter = LETTERS[index / 2 % LETTERS.length];
    return `${index}|`.padEnd(size, letter).slice(0, size).toWellFormed();
  }
  return new Uint8Array(size).fill(index);
}

const encoder = new TextEncoder();

/** The length of a message on the line, in bytes. */
export function byteLength(message: Message): number {
  return typeof message === "string" ? encoder.encode(message).length : message.length;
}
