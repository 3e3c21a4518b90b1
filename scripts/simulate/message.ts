/** The messages that are sent in simulations. */
import { Buffer } from "node:buffer";
import type { Message } from "../../mod.ts";

const LETTERS = ["a", "é", "€", "😀"];

const made = new Map<string, Message>();

/** Returns the message of an index and a size, which nobody changes. */
export function messageOf(index: number, size: number): Message {
  const key = `${index} ${size}`;
  if (!made.has(key)) made.set(key, makeMessage(index, size));
  return made.get(key)!;
}

/** Makes a message that contains its index, if it is long enough. */
function makeMessage(index: number, size: number): Message {
  if (index % 2 === 0) {
    const letter = LETTERS[index / 2 % LETTERS.length];
    return `${index}|`.padEnd(size, letter).slice(0, size).toWellFormed();
  }
  return new Uint8Array(size).fill(index);
}

/** The length of a message on the line, in bytes. */
export function byteLength(message: Message): number {
  return typeof message === "string" ? Buffer.byteLength(message) : message.length;
}
