/** The buffers that connections of Deno read into and write from, and the turns in which they read. */
import { Queue } from "../core/queue.ts";

/** Size of a shared buffer, in bytes. A connection that reads more than a few bytes uses one. */
export const SHARED_SIZE = 32_768;
/** Size of a large shared buffer, in bytes: four messages of 64 KiB with their headers. */
const LARGE_SIZE = 266_240;
/** Maximum number of connections that wait with a shared buffer. */
export const MAX_WAITING = 128;

/** Maximum number of large buffers that are kept. */
const MAX_FREE = 32;
const sharedBuffers: Uint8Array<ArrayBuffer>[] = [];
const largeBuffers: Uint8Array<ArrayBuffer>[] = [];

export function takeBuffer(large: boolean): Uint8Array<ArrayBuffer> {
  if (large) return largeBuffers.pop() ?? new Uint8Array(LARGE_SIZE);
  return sharedBuffers.pop() ?? new Uint8Array(SHARED_SIZE);
}

export function freeBuffer(buffer: Uint8Array<ArrayBuffer>): void {
  if (buffer.length === LARGE_SIZE) {
    if (largeBuffers.length < MAX_FREE) largeBuffers.push(buffer);
  } else if (sharedBuffers.length < MAX_WAITING) sharedBuffers.push(buffer);
}

/**
 * The transport whose turn it is to read into a shared buffer, and those that wait for their turn. With
 * turns, the connections use the same few buffers one after the other, which stay in the processor's cache.
 */
let reader: object | undefined;
const readers: Queue<{ transport: object; enter: () => void }> = new Queue();

/** Resolves when it is the transport's turn to read. */
export function turnOf(transport: object): Promise<void> | undefined {
  if (reader !== undefined) return new Promise((enter) => readers.push({ transport, enter }));
  reader = transport;
  return undefined;
}

/** Lets the next transport read, if it is this transport's turn. */
export function endTurn(transport: object): void {
  if (reader !== transport) return;
  const next = readers.shift();
  reader = next?.transport;
  next?.enter();
}
