/**
 * Bun's own sockets as transports.
 *
 * A file of its own because how one is made, by listening or by dialling, is another matter, and `bun.ts`
 * has it.
 *
 * @module
 */
import { Queue } from "../core/queue.ts";
import type { Address, Transport, TransportHandlers } from "../transport.ts";
import { free } from "./node_duplex.ts";

/** As much of Bun's sockets as is used here. */
export interface BunSocket {
  /** Ours. */
  data: BunTransport;
  readonly localAddress: string;
  readonly localPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
  /** Gives how many bytes were taken; -1 when the socket is closed. */
  write(bytes: Uint8Array): number;
  pause(): void;
  resume(): void;
  /** Ends our side. */
  shutdown(): void;
  close(): void;
  setNoDelay(noDelay: boolean): void;
  /** Keeps the process from ending. */
  ref(): void;
  /** Has other handlers called from now on. */
  reload(options: { socket: Partial<SocketHandlers> }): void;
}

/** What such a socket calls. */
export interface SocketHandlers {
  binaryType: "uint8array";
  open(socket: BunSocket): void;
  handshake(socket: BunSocket, success: boolean): void;
  data(socket: BunSocket, chunk: Uint8Array): void;
  drain(socket: BunSocket): void;
  end(socket: BunSocket): void;
  close(socket: BunSocket, error?: Error): void;
  error(socket: BunSocket, error: Error): void;
}

/** Bytes that wait to be written. Their owner may detach them: then their length is another one. */
interface Waiting {
  bytes: Uint8Array;
  length: number;
}

/** Stands for that of a Unix socket. */
const NO_PORT = -1;

/** Our end of a connection. */
export interface LocalEnd {
  secure: boolean;
  address: Address | undefined;
}

/** The local ends of what one listener accepts: one, or one for each address of the machine. */
export class LocalEnds {
  readonly #secure: boolean;
  readonly #path: string | undefined;
  #last: LocalEnd | undefined;

  /** @param path that of the Unix socket, if it is one */
  constructor(secure: boolean, path: string | undefined) {
    this.#secure = secure;
    this.#path = path;
  }

  /** That of a socket; nearly always the one before had the same, and they share it. */
  of(socket: BunSocket): LocalEnd {
    const known = this.#last;
    if (this.#path !== undefined) {
      return this.#last = known ??
        { secure: this.#secure, address: { transport: "unix", path: this.#path } };
    }
    const { localAddress: hostname, localPort: port } = socket;
    const { address } = known ?? {};
    if (address?.transport === "tcp" && address.hostname === hostname && address.port === port) {
      return known!;
    }
    return this.#last = { secure: this.#secure, address: tcpAddress(hostname, port) };
  }
}

/** What may still be written: all; nothing, until what waits has left; nothing; and it is closed. */
type Output = "open" | "ending" | "destroyed" | "gone";

/** Parts of so many bytes in all are written as one: to copy them costs less than a system call each. */
const JOINED = 262_144;

/** A chunk of fewer bytes is left to the garbage collector once its handler has let go of it. */
const HELD_FROM = 65_536;

/** A socket as a {@linkcode Transport}. It must be half-open when one side has ended. */
export class BunTransport implements Transport {
  // Asked for at once: a socket that is closed does not know them any more.
  readonly #local: LocalEnd;
  readonly #remote: string;
  readonly #remotePort: number;
  readonly #socket: BunSocket;
  #handlers: TransportHandlers | undefined;
  #queue: Queue<Waiting> | undefined;
  #buffered = 0;
  /** The bytes that came too late to be written. */
  #dropped = 0;
  #inputEnded = false;
  #output: Output = "open";
  #paused = false;
  /** The last chunk, where the handler has kept it and paused: only then it may give it back. */
  #held: Uint8Array | undefined;
  #error: Error | undefined;

  /** @param path that of the peer's end of a Unix socket; a client's has none */
  constructor(socket: BunSocket, local: LocalEnd, path: string = "") {
    const unix = local.address?.transport !== "tcp";
    this.#socket = socket;
    this.#local = local;
    this.#remote = unix ? path : socket.remoteAddress;
    this.#remotePort = unix ? NO_PORT : socket.remotePort;
  }

  get secure(): boolean {
    return this.#local.secure;
  }

  get localAddress(): Address | undefined {
    const { address } = this.#local;
    return address && { ...address };
  }

  get remoteAddress(): Address | undefined {
    if (this.#remotePort !== NO_PORT) return tcpAddress(this.#remote, this.#remotePort);
    return this.#remote === "" ? undefined : { transport: "unix", path: this.#remote };
  }

  get bufferedAmount(): number {
    return this.#buffered + this.#dropped;
  }

  get allocate(): (length: number) => Uint8Array {
    return allocate;
  }

  handle(handlers: TransportHandlers): void {
    const first = this.#handlers === undefined;
    this.#handlers = handlers;
    if (!first) return;
    if (this.#output === "gone") queueMicrotask(() => this.#handlers!.close(this.#error));
    else this.#socket.resume();
  }

  write(parts: readonly Uint8Array[]): void {
    if (this.#output !== "open") {
      // As if they had left, whoever sends on and on would, and the end not get its turn to be told.
      for (const part of parts) this.#dropped += part.length;
      return;
    }
    if (this.#buffered > 0) return parts.forEach((part) => this.#wait(part));
    const size = parts.length === 1 ? Infinity : sizeOf(parts);
    if (size <= JOINED) return this.#writeJoined(parts, size);
    for (const part of parts) {
      const taken = this.#buffered === 0 ? this.#send(part) : 0;
      if (taken < part.length) this.#wait(part.subarray(taken));
    }
  }

  #writeJoined(parts: readonly Uint8Array[], size: number): void {
    const bytes = join(parts, size);
    const taken = this.#send(bytes);
    // The next one who writes needs the place.
    if (taken < size) this.#wait(bytes.slice(taken));
  }

  #wait(bytes: Uint8Array): void {
    const { length } = bytes;
    this.#queue ??= new Queue();
    this.#queue.push({ bytes, length });
    this.#buffered += length;
  }

  /** Gives how many bytes have left: of a socket that is gone, none. */
  #send(bytes: Uint8Array): number {
    const taken = this.#socket.write(bytes);
    if (taken >= 0) return taken;
    // One that is paused would not be told of its end.
    this.#socket.resume();
    return 0;
  }

  pause(): void {
    this.#paused = true;
    this.#socket.pause();
  }

  resume(released?: boolean): void {
    if (released && this.#held !== undefined) free(this.#held);
    this.#held = undefined;
    this.#paused = false;
    this.#socket.resume();
  }

  end(): void {
    if (this.#output !== "open") return;
    this.#output = "ending";
    if (this.#buffered === 0) this.#socket.shutdown();
  }

  destroy(): void {
    if (this.#destroyed) return;
    this.#output = "destroyed";
    this.#socket.close();
  }

  get #destroyed(): boolean {
    return this.#output === "destroyed" || this.#output === "gone";
  }

  received(chunk: Uint8Array): void {
    if (this.#destroyed) return;
    this.#held = undefined;
    if (this.#handlers!.data(chunk) === true) free(chunk);
    else if (this.#paused && chunk.length >= HELD_FROM) this.#held = chunk;
  }

  inputEnded(): void {
    if (this.#destroyed || this.#inputEnded) return;
    this.#inputEnded = true;
    this.#handlers!.end();
  }

  drained(): void {
    if (this.#buffered === 0) return;
    const queue = this.#queue!;
    for (let next = queue.first; next !== undefined; next = queue.first) {
      const { bytes, length } = next;
      if (bytes.length !== length) return this.failed(new TypeError("The bytes were detached"));
      const taken = this.#send(bytes);
      this.#buffered -= taken;
      if (taken < length) {
        next.bytes = bytes.subarray(taken);
        next.length = length - taken;
        return;
      }
      queue.shift();
    }
    this.#queue = undefined;
    if (this.#output === "ending") this.#socket.shutdown();
    if (this.#dropped === 0) this.#handlers!.drain();
  }

  failed(error: Error): void {
    this.#error ??= error;
    this.#socket.close();
  }

  closed(error?: Error): void {
    // When our side has ended first, the end of the peer's is not told.
    if (this.#output === "ending" && error === undefined) this.inputEnded();
    this.#output = "gone";
    this.#held = undefined;
    this.#error ??= error;
    this.#queue = undefined;
    this.#buffered = 0;
    this.#handlers?.close(this.#error);
  }
}

/** Fewer bytes are zeroed in less time than the way into the platform takes. */
const ALLOCATED_FROM = 16_384;

const { Bun: memory } = globalThis as unknown as {
  Bun: { allocUnsafe(length: number): Uint8Array };
};

/** Memory as it is: to zero it would cost a tenth of what a message of 64 KiB takes in all. */
function allocate(length: number): Uint8Array {
  if (length < ALLOCATED_FROM) return new Uint8Array(length);
  return memory.allocUnsafe(length);
}

/** The address of an end over TCP. */
export function tcpAddress(hostname: string, port: number): Address {
  return { transport: "tcp", hostname, port };
}

function sizeOf(parts: readonly Uint8Array[]): number {
  let size = 0;
  for (const part of parts) size += part.length;
  return size;
}

/** Where parts are joined: a socket has taken a copy of what it takes when it returns. */
let place = new Uint8Array(0);

/** The parts one behind the other, until the next call. */
function join(parts: readonly Uint8Array[], size: number): Uint8Array {
  if (place.length < size) place = new Uint8Array(JOINED);
  let at = 0;
  for (const part of parts) {
    place.set(part, at);
    at += part.length;
  }
  return place.subarray(0, size);
}

/** What is the same for all sockets. */
export const HANDLERS: Omit<SocketHandlers, "open" | "handshake"> = {
  binaryType: "uint8array",
  data: (socket, chunk) => socket.data.received(chunk),
  drain: (socket) => socket.data.drained(),
  end: (socket) => socket.data.inputEnded(),
  close: (socket, error) => socket.data.closed(error),
  error: (socket, error) => socket.data.failed(error),
};
