/** The messages that are sent in simulations. */
import type { Message } from "../../mod.ts";

const LETTERS = ["a", "é", "€", "😀"];

/** A message that tells which it is, if it is long enough. */
export function messageOf(index: number, size: number): Message {
  if (index % 2 === 0) {
    const letter = LETTERS[index / 2 % LETTERS.length];
    return `${index}|`.padEnd(size, letter).slice(0, size).toWellFormed();
  }
  return new Uint8Array(size).fill(index);
}

const encoder = new TextEncoder();

/** How many bytes a message has on the line. */
export function byteLength(message: Message): number {
  return typeof message === "string" ? encoder.encode(message).length : message.length;
}
