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

/** The symbols of the members, found on the first socket. Empty if sockets cannot share memory. */
let symbols: readonly symbol[] | undefined;

function symbolsOf(socket: Socket): readonly symbol[] {
  if (!isKnown()) return [];
  const all = Object.getOwnPropertySymbols(socket);
  const found = NAMES.map((name) => all.find(({ description }) => description === name));
  return found.every((symbol) => symbol !== undefined) ? found : [];
}

function isKnown(): boolean {
  const { bun, deno, node = "" } = process.versions as Record<string, string | undefined>;
  const major = parseInt(node);
  if (bun !== undefined || deno !== undefined || major < FIRST || major > LAST) return false;
  // On Windows, the system may fill the memory of several sockets at the same time.
  return process.platform !== "win32";
}

/** Returns the memory, which `console.log()` of a request or a socket does not show. */
function sharedMemory(): Uint8Array | undefined {
  const memory = readingMemory();
  // The bytes may be those of another connection.
  if (memory !== undefined && !(INSPECT in memory)) {
    Object.defineProperty(memory, INSPECT, { value: () => "[shared memory]" });
  }
  return memory;
}

/**
 * Makes a socket read into the shared memory, unless that is impossible, or impossible now. The next read
 * of any socket overwrites the memory. The socket must stay with its reader.
 */
export function shareReads(socket: Socket, onRead: OnRead): void {
  symbols ??= symbolsOf(socket);
  const members = socket as unknown as Members;
  if (symbols.length === 0 || symbols.some((symbol) => members[symbol] !== null)) return;
  // A paused socket would not stop, and waiting bytes would be overtaken.
  if (socket.isPaused() || socket.readableLength > 0) return;
  // Somebody else also listens.
  if (socket.listenerCount("data") !== 1) return;
  const { _handle: handle } = members;
  // TLS over a stream of JavaScript has no descriptor. It may read while another socket is being read, if
  // the reader of that socket writes to the stream.
  if (!(handle?.fd! >= 0)) return;
  const memory = sharedMemory();
  if (memory === undefined || typeof handle?.useUserBuffer !== "function") return;
  handle.useUserBuffer(memory);
  const [buffer, callback] = symbols;
  members[buffer] = memory;
  members[callback] = onRead;
}
