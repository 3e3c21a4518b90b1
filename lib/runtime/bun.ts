/**
 * Transports over Bun's own sockets. `Bun.connect()` cannot be aborted, so `node:net` connects and the
 * socket beneath it is taken over. The few types of Bun that are used are declared here.
 */
import {
  type Address,
  BaseTransport,
  ByteQueue,
  type Listener,
  type ListenOptions,
  tcpAddress,
  type TlsServeOptions,
  type Transport,
  type TransportProvider,
} from "../transport.ts";
import { workBuffer } from "../core/encoder.ts";
import { nextTurn } from "../timers.ts";
import {
  checkUnixPath,
  dial,
  free,
  Handshakes,
  nodeProvider,
  nodeTextCodec,
  type NodeTransport,
} from "./node.ts";

interface BunSocket {
  data: BunTransport;
  readonly localAddress: string;
  readonly localPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
  /** Returns the number of bytes that were taken, or -1 if the socket is closed. */
  write(bytes: Uint8Array): number;
  pause(): void;
  resume(): void;
  shutdown(): void;
  close(): void;
  setNoDelay(noDelay: boolean): void;
  /** Keeps the process alive. */
  ref(): void;
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

interface BunRuntime {
  listen(
    options: Place & {
      allowHalfOpen: boolean;
      socket: SocketHandlers;
      tls?: Record<string, unknown>;
    },
  ): { readonly hostname: string; readonly port: number; stop(): void };
  allocUnsafe(length: number): Uint8Array;
}

const { Bun: runtime } = globalThis as unknown as { Bun: BunRuntime };

const JOINED = 262_144;

/** A kept chunk of at least this size, in bytes, is freed when its handler releases it. */
const HELD_FROM = 65_536;

/** At least this many bytes are allocated without being zeroed. */
const ALLOCATED_FROM = 16_384;

function allocate(length: number): Uint8Array {
  return length < ALLOCATED_FROM ? new Uint8Array(length) : runtime.allocUnsafe(length);
}

/** A part of more bytes is written alone: a system call for its header costs less than the copy. */
const JOIN_UP_TO = 65_536;

/** The buffer in which parts are joined. A socket copies bytes before `write()` returns. */
let joinBuffer: Uint8Array | undefined;

/** Joins the parts from `at` to `end`. The result is valid until the next call. */
function join(parts: readonly Uint8Array[], at: number, end: number): Uint8Array {
  joinBuffer ??= workBuffer(JOINED);
  let size = 0;
  for (let i = at; i < end; i++) {
    joinBuffer.set(parts[i], size);
    size += parts[i].length;
  }
  return joinBuffer.subarray(0, size);
}

/** Returns the index after the parts that are written together, beginning with the part `at`. */
function endOfWrite(parts: readonly Uint8Array[], at: number): number {
  let size = 0;
  let end = at;
  for (; end < parts.length && parts[end].length <= JOIN_UP_TO; end++) {
    size += parts[end].length;
    if (size > JOINED) break;
  }
  return Math.max(end, at + 1);
}

/** The transports that are paused since this turn of the event loop began. Their sockets still read. */
const pausing = new Set<BunTransport>();

function pauseSockets(): void {
  for (const transport of pausing) transport.pauseSocket();
  pausing.clear();
}

/** What a socket does not know itself, or no longer knows after it has closed. */
interface LocalEnd {
  readonly secure: boolean;
  readonly localAddress: Address | undefined;
}

/** A socket as a {@linkcode Transport}. It must be half-open when one side has ended. */
class BunTransport extends BaseTransport {
  readonly remoteAddress: Address | undefined;
  /** Connections of a server share it. */
  readonly #local: LocalEnd;
  readonly #socket: BunSocket;
  #queue: ByteQueue | undefined;
  /** While it is "pausing", the socket still reads. */
  #reading: "on" | "pausing" | "off" = "on";
  /** The last chunk, if the handler has kept it and paused. Only such a chunk may be released later. */
  #held: Uint8Array | undefined;

  constructor(socket: BunSocket, local: LocalEnd, remoteAddress: Address | undefined) {
    super();
    this.#socket = socket;
    this.#local = local;
    this.remoteAddress = remoteAddress;
  }

  get secure(): boolean {
    return this.#local.secure;
  }

  get localAddress(): Address | undefined {
    const { localAddress } = this.#local;
    return localAddress && { ...localAddress };
  }

  get allocate(): (length: number) => Uint8Array {
    return allocate;
  }

  protected start(): void {
    this.#socket.resume();
  }

  write(parts: readonly Uint8Array[]): void {
    if (this.phase !== "open") return this.drop(parts);
    for (let at = 0; at < parts.length;) {
      const end = this.unsent > 0 ? at + 1 : endOfWrite(parts, at);
      const isJoined = end > at + 1;
      const bytes = isJoined ? join(parts, at, end) : parts[at];
      const taken = this.unsent > 0 ? 0 : this.#write(bytes);
      if (taken < bytes.length) this.#wait(isJoined ? bytes.slice(taken) : bytes.subarray(taken));
      at = end;
    }
  }

  #wait(bytes: Uint8Array): void {
    this.#queue ??= new ByteQueue();
    this.#queue.push(bytes);
    this.unsent += bytes.length;
  }

  #write(bytes: Uint8Array): number {
    const taken = this.#socket.write(bytes);
    if (taken >= 0) return taken;
    // A paused socket would not report its end.
    this.#socket.resume();
    return 0;
  }

  /**
   * Pauses the socket after this turn, or after the next chunk. Most readers take the messages of a chunk
   * in the turn in which it came, and pausing and resuming a socket costs four system calls.
   */
  pause(): void {
    if (this.#reading === "off") return;
    this.#reading = "pausing";
    if (pausing.size === 0) nextTurn(pauseSockets);
    pausing.add(this);
  }

  /** Pauses the socket if the transport is still paused. */
  pauseSocket(): void {
    if (this.#reading !== "pausing" || this.isDestroyed) return;
    this.#reading = "off";
    this.#socket.pause();
  }

  resume(released?: boolean): void {
    if (released && this.#held !== undefined) free(this.#held);
    this.#held = undefined;
    const isOff = this.#reading === "off";
    this.#reading = "on";
    if (isOff) this.#socket.resume();
  }

  protected finish(): void {
    this.#socket.shutdown();
  }

  protected cut(): void {
    this.#socket.close();
  }

  #onData(chunk: Uint8Array): void {
    if (this.isDestroyed) return;
    this.pauseSocket();
    this.#held = undefined;
    if (this.handlers!.data(chunk) === true) free(chunk);
    else if (this.#reading !== "on" && chunk.length >= HELD_FROM) this.#held = chunk;
  }

  #onDrain(): void {
    while (this.unsent > 0) {
      const bytes = this.firstOf(this.#queue);
      if (bytes === undefined) return;
      const taken = this.#write(bytes);
      this.#queue!.remove(taken);
      // The handler writes again when all bytes have been sent. These bytes wait for the next event.
      const isLast = taken === this.unsent;
      if (isLast) this.#queue = undefined;
      this.reportSent(taken);
      if (isLast || taken < bytes.length) return;
    }
  }

  #onClose(error?: Error): void {
    // Bun does not report the peer's end if our side has ended first.
    if (this.phase === "ending" && error === undefined) this.reportEnd();
    this.#held = this.#queue = undefined;
    this.reportClose(error);
  }

  static readonly handlers: Omit<SocketHandlers, "open" | "handshake"> = {
    binaryType: "uint8array",
    data: ({ data: transport }, chunk) => transport.#onData(chunk),
    drain: ({ data: transport }) => transport.#onDrain(),
    end: ({ data: transport }) => transport.reportEnd(),
    close: ({ data: transport }, error) => transport.#onClose(error),
    error: ({ data: transport }, error) => transport.fail(error),
  };
}

/** Returns the local end of a socket: the same object as for the socket before if it is equal. */
function localEnd(
  { localAddress: hostname, localPort: port }: BunSocket,
  { unix: path, tls }: ListenOptions,
  last: LocalEnd | undefined,
): LocalEnd {
  const known = last?.localAddress;
  const isSame = known?.transport === "tcp"
    ? known.hostname === hostname && known.port === port
    : known !== undefined;
  if (isSame) return last!;
  const localAddress: Address | undefined = path === undefined
    ? tcpAddress(hostname, port)
    : { transport: "unix", path };
  return { secure: tls !== undefined, localAddress };
}

function listen(options: ListenOptions, accept: (transport: Transport) => void): Listener {
  const { hostname, port, unix: path, tls, reusePort } = options;
  if (path !== undefined) checkUnixPath(path);
  const handshakes = new Handshakes<BunSocket>(options);
  let local: LocalEnd | undefined;
  const listener = runtime.listen({
    ...(path === undefined ? { hostname, port, reusePort } : { unix: path }),
    allowHalfOpen: true,
    tls: tls && tlsOptions(tls),
    socket: {
      ...BunTransport.handlers,
      open(socket) {
        socket.setNoDelay(true);
        local = localEnd(socket, options, local);
        const remote = path === undefined
          ? tcpAddress(socket.remoteAddress, socket.remotePort)
          : undefined;
        socket.data = new BunTransport(socket, local, remote);
        if (tls === undefined) give(socket, accept);
        else if (!handshakes.begin(socket, socket.data.remoteAddress, () => socket.close())) {
          socket.close();
        }
      },
      handshake(socket, success) {
        handshakes.end(socket);
        // A client's mistake is not an error of the server.
        if (success) give(socket, accept);
        else socket.close();
      },
      end(socket) {
        if (handshakes.has(socket)) socket.close();
        else BunTransport.handlers.end(socket);
      },
      close(socket, error) {
        handshakes.end(socket);
        BunTransport.handlers.close(socket, error);
      },
    },
  });
  const close = () => {
    listener.stop();
    handshakes.cut();
    return Promise.resolve();
  };
  return {
    address: path === undefined
      ? { transport: "tcp", hostname: listener.hostname, port: listener.port }
      : { transport: "unix", path },
    close,
  };
}

/** Hands a socket over. The socket stays paused until the transport has a handler. */
function give(socket: BunSocket, accept: (transport: Transport) => void): void {
  socket.pause();
  accept(socket.data);
}

function tlsOptions({ cert, key, ca, alpn }: TlsServeOptions): Record<string, unknown> {
  const requestCert = ca !== undefined;
  return { cert, key, ca, requestCert, rejectUnauthorized: requestCert, ALPNProtocols: list(alpn) };
}

/** RFC 7301 §3.1: a length precedes each name. */
function list(protocols: string[] | undefined): Uint8Array | undefined {
  if (protocols === undefined) return undefined;
  const names = protocols.map((name) => new TextEncoder().encode(name));
  return Uint8Array.from(names.flatMap((name) => [name.length, ...name]));
}

const METHODS = ["write", "pause", "resume", "shutdown", "close", "ref", "reload"] as const;

/**
 * Takes over the socket beneath a connected socket of `node:net`. That socket is private to Bun: if it
 * does not look as expected, the transport over `node:net` is returned.
 */
function adopt(transport: NodeTransport): Transport {
  const { socket, localAddress, remoteAddress } = transport;
  const owner = socket as unknown as { _handle?: BunSocket | null };
  const handle = owner._handle;
  if (!handle || METHODS.some((name) => typeof handle[name] !== "function")) return transport;
  // Bytes that `node:net` has already read, or an end that it has seen, would be lost.
  if (socket.destroyed || socket.readableEnded || socket.readableLength > 0) return transport;
  if (localAddress === undefined && remoteAddress?.transport !== "unix") return transport;
  handle.pause();
  const { secure } = transport;
  handle.data = new BunTransport(handle, { secure, localAddress }, remoteAddress);
  handle.reload({ socket: BunTransport.handlers });
  // `node:net` may have paused the socket, and a paused socket does not keep the process alive.
  handle.ref();
  owner._handle = null;
  return handle.data;
}

/** Listens with Bun's own sockets and connects through `node:net`. */
export const bunProvider: TransportProvider = {
  ...nodeProvider,
  // Bun's TextEncoder is as fast.
  textCodec: { ...nodeTextCodec, encode: undefined },
  connect: (options) => dial(options, adopt),
  listen: (options, accept) => Promise.resolve().then(() => listen(options, accept)),
};
