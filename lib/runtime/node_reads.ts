/**
 * Makes the sockets of Node read into memory that they share. By default, Node allocates 64 KiB for each
 * read. The option `onread` avoids this, but only for sockets that connect. So its private members are set
 * here, on open sockets. Where these members are unknown, a socket is read as usual.
 */
import type { Socket } from "node:net";
import process from "node:process";
import { readingMemory } from "../core/mask.ts";

/** Called with the socket as `this` when bytes are in the memory. Returns whether to continue. */
type OnRead = (this: unknown, length: number, memory: Uint8Array) => boolean;

/** The versions of Node whose members are known. */
const FIRST = 20;
const LAST = 26;

/** The descriptions of the symbols of the members: the memory, the callback, and what gives more memory. */
const NAMES = ["kBuffer", "kBufferCb", "kBufferGen"];

type Members = Record<symbol, unknown> & {
  _handle?: { useUserBuffer?(memory: Uint8Array): void; readonly fd?: number } | null;
};

/** The name of the method that makes the text for `console.log()`. */
const INSPECT = Symbol.for("nodejs.util.inspect.custom");

/** What all sockets share: the memory, and the symbols of the members. */
interface Shared {
  readonly memory: Uint8Array;
  readonly symbols: readonly symbol[];
}

/** Made for the first socket. Null if sockets cannot share memory. */
let shared: Shared | null | undefined;

function sharedBy(socket: Socket): Shared | null {
  const memory = isKnown() ? readingMemory() : undefined;
  if (memory === undefined) return null;
  const all = Object.getOwnPropertySymbols(socket);
  const symbols = NAMES.map((name) => all.find(({ description }) => description === name));
  if (!symbols.every((symbol) => symbol !== undefined)) return null;
  // `console.log()` of a request or a socket must not show the bytes of another connection.
  Object.defineProperty(memory, INSPECT, { value: () => "[shared memory]" });
  return { memory, symbols };
}

function isKnown(): boolean {
  const { bun, deno, node = "" } = process.versions as Record<string, string | undefined>;
  const major = parseInt(node);
  if (bun !== undefined || deno !== undefined || major < FIRST || major > LAST) return false;
  // On Windows, the system may fill the memory of several sockets at the same time.
  return process.platform !== "win32";
}

/**
 * Makes a socket read into the shared memory, unless that is impossible, or impossible now. The next read
 * of any socket overwrites the memory. The socket must stay with its reader.
 */
export function shareReads(socket: Socket, onRead: OnRead): void {
  if (shared === undefined) shared = sharedBy(socket);
  if (shared === null) return;
  const { memory, symbols: [buffer, callback, generator] } = shared;
  const members = socket as unknown as Members;
  if (members[buffer] !== null || members[callback] !== null || members[generator] !== null) return;
  // A paused socket would not stop, and waiting bytes would be overtaken.
  if (socket.isPaused() || socket.readableLength > 0) return;
  // Somebody else also listens.
  if (socket.listenerCount("data") !== 1) return;
  const { _handle: handle } = members;
  // TLS over a stream of JavaScript has no descriptor. It may read while another socket is being read, if
  // the reader of that socket writes to the stream.
  if (!(handle?.fd! >= 0) || typeof handle?.useUserBuffer !== "function") return;
  handle.useUserBuffer(memory);
  members[buffer] = memory;
  members[callback] = onRead;
}
