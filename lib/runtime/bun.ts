/**
 * Bun's own sockets, which cost less than `node:net`'s do. Connecting is left to `node:net`, for what
 * `Bun.connect()` has begun cannot be given up; the socket beneath it is taken over then.
 *
 * A file of its own because nothing of it is known elsewhere. Of Bun's types it declares the few that
 * it needs: the package is compiled without them.
 *
 * @module
 */
import type {
  Address,
  Listener,
  ListenOptions,
  TlsServeOptions,
  Transport,
  TransportHandlers,
  TransportProvider,
} from "../transport.ts";
import { checkUnixPath, dial, nodeProvider, type NodeTransport } from "./node.ts";
import { free } from "./node_duplex.ts";

interface BunSocket {
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

interface SocketHandlers {
  binaryType: "uint8array";
  open(socket: BunSocket): void;
  handshake(socket: BunSocket, success: boolean): void;
  data(socket: BunSocket, chunk: Uint8Array): void;
  drain(socket: BunSocket): void;
  end(socket: BunSocket): void;
  close(socket: BunSocket, error?: Error): void;
  error(socket: BunSocket, error: Error): void;
}

type Place = { hostname: string; port: number; reusePort?: boolean } | { unix: string };

interface BunSockets {
  listen(
    options: Place & {
      allowHalfOpen: boolean;
      socket: SocketHandlers;
      tls?: Record<string, unknown>;
    },
  ): { readonly hostname: string; readonly port: number; stop(): void };
}

const { Bun: sockets } = globalThis as unknown as { Bun: BunSockets };

/** Shared by all where nothing waits. */
const NONE: Uint8Array[] = [];

/** Stands for that of a Unix socket. */
const NO_PORT = -1;

/** Our end of a connection. */
interface LocalEnd {
  secure: boolean;
  address: Address | undefined;
}

/** The local ends of what one listener accepts: one, or one for each address of the machine. */
class LocalEnds {
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
class BunTransport implements Transport {
  // Asked for at once: a socket that is closed does not know them any more.
  readonly #local: LocalEnd;
  readonly #remote: string;
  readonly #remotePort: number;
  readonly #socket: BunSocket;
  #handlers: TransportHandlers | undefined;
  #queue: Uint8Array[] = NONE;
  #buffered = 0;
  /** The bytes that came too late to be written. */
  #dropped = 0;
  #inputEnded = false;
  #output: Output = "open";
  /** The last chunk, where the handler has kept it. */
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
    if (this.#queue === NONE) this.#queue = [];
    this.#queue.push(bytes);
    this.#buffered += bytes.length;
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
    this.#socket.pause();
  }

  resume(released?: boolean): void {
    if (released && this.#held !== undefined) free(this.#held);
    this.#held = undefined;
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
    else if (chunk.length >= HELD_FROM) this.#held = chunk;
  }

  inputEnded(): void {
    if (this.#destroyed || this.#inputEnded) return;
    this.#inputEnded = true;
    this.#handlers!.end();
  }

  drained(): void {
    if (this.#buffered === 0) return;
    while (this.#queue.length > 0) {
      const bytes = this.#queue[0];
      const taken = this.#send(bytes);
      this.#buffered -= taken;
      if (taken < bytes.length) {
        this.#queue[0] = bytes.subarray(taken);
        return;
      }
      this.#queue.shift();
    }
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
    this.#queue = NONE;
    this.#buffered = 0;
    this.#handlers?.close(this.#error);
  }
}

function tcpAddress(hostname: string, port: number): Address {
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
const HANDLERS = {
  binaryType: "uint8array",
  data: (socket, chunk) => socket.data.received(chunk),
  drain: (socket) => socket.data.drained(),
  end: (socket) => socket.data.inputEnded(),
  close: (socket, error) => socket.data.closed(error),
  error: (socket, error) => socket.data.failed(error),
} satisfies Partial<SocketHandlers>;

/** What listens, as the options say. */
function listen(options: ListenOptions, accept: (transport: Transport) => void): Listener {
  const { hostname, port, path, tls, reusePort } = options;
  if (path !== undefined) checkUnixPath(path);
  const shaking = new Shaking(options);
  const ends = new LocalEnds(tls !== undefined, path);
  const listener = sockets.listen({
    ...(path === undefined ? { hostname, port, reusePort } : { unix: path }),
    allowHalfOpen: true,
    tls: tls && tlsOptions(tls),
    socket: {
      ...HANDLERS,
      open(socket) {
        socket.setNoDelay(true);
        socket.data = new BunTransport(socket, ends.of(socket));
        if (tls === undefined) give(socket, accept);
        else shaking.begin(socket);
      },
      handshake(socket, success) {
        shaking.end(socket);
        // What a client does wrong is no error of the server's.
        if (success) give(socket, accept);
        else socket.close();
      },
      end(socket) {
        if (shaking.has(socket)) socket.close();
        else socket.data.inputEnded();
      },
      close(socket, error) {
        shaking.end(socket);
        socket.data.closed(error);
      },
    },
  });
  const close = () => {
    listener.stop();
    shaking.cut();
    return Promise.resolve();
  };
  return {
    address: path === undefined
      ? tcpAddress(listener.hostname, listener.port)
      : { transport: "unix", path },
    close,
  };
}

/** Hands a socket over, which is not read before it is handled. */
function give(socket: BunSocket, accept: (transport: Transport) => void): void {
  socket.pause();
  accept(socket.data);
}

/** The TLS handshakes under way. */
class Shaking {
  readonly #timeout: number;
  readonly #timers = new Map<BunSocket, ReturnType<typeof setTimeout> | undefined>();

  constructor({ handshakeTimeout = 10_000 }: ListenOptions) {
    this.#timeout = handshakeTimeout;
  }

  begin(socket: BunSocket): void {
    // A timer that is longer would fire at once.
    const limited = this.#timeout > 0 && this.#timeout < 2 ** 31;
    const timer = limited ? setTimeout(() => socket.close(), this.#timeout) : undefined;
    this.#timers.set(socket, timer);
  }

  has(socket: BunSocket): boolean {
    return this.#timers.has(socket);
  }

  end(socket: BunSocket): void {
    clearTimeout(this.#timers.get(socket));
    this.#timers.delete(socket);
  }

  cut(): void {
    for (const socket of [...this.#timers.keys()]) socket.close();
  }
}

function tlsOptions({ cert, key, ca, alpn }: TlsServeOptions): Record<string, unknown> {
  const requestCert = ca !== undefined;
  return { cert, key, ca, requestCert, rejectUnauthorized: requestCert, ALPNProtocols: list(alpn) };
}

/** RFC 7301 §3.1: each name with its length before it. */
function list(protocols: string[] | undefined): Uint8Array | undefined {
  if (protocols === undefined) return undefined;
  const names = protocols.map((name) => new TextEncoder().encode(name));
  return Uint8Array.from(names.flatMap((name) => [name.length, ...name]));
}

/** The methods that are called. */
const METHODS = ["write", "pause", "resume", "shutdown", "close", "ref", "reload"] as const;

/**
 * Takes over the socket beneath one of `node:net` that is connected. That there is one is private: what
 * is not as expected stays with `node:net`.
 */
function adopt(transport: NodeTransport): Transport {
  const { socket } = transport;
  const owner = socket as unknown as { _handle?: BunSocket | null };
  const handle = owner._handle;
  if (!handle || METHODS.some((name) => typeof handle[name] !== "function")) return transport;
  // What it was told already would be lost.
  if (socket.destroyed || socket.readableEnded || socket.readableLength > 0) return transport;
  const { localAddress: address, remoteAddress: remote, secure } = transport;
  const path = remote?.transport === "unix" ? remote.path : undefined;
  if (address === undefined && path === undefined) return transport;
  handle.pause();
  handle.data = new BunTransport(handle, { secure, address }, path);
  handle.reload({ socket: HANDLERS });
  // It would not be, had node:net been paused.
  handle.ref();
  // Whatever is still to come of the one above finds nothing.
  owner._handle = null;
  return handle.data;
}

/** Accepts by Bun's own sockets, and dials by `node:net` for them. */
export const bunProvider: TransportProvider = {
  ...nodeProvider,
  connect: (options) => dial(options, adopt),
  listen: (options, accept) => Promise.resolve().then(() => listen(options, accept)),
};
