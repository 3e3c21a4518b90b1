/**
 * Transports over duplex streams of `node:stream`, and the provider for Node, which uses `node:net` and
 * `node:tls`.
 */
import { Buffer, isAscii, transcode } from "node:buffer";
import type { Server, Socket } from "node:net";
import process from "node:process";
import type { Duplex } from "node:stream";
import type { Server as TlsServer, TLSSocket } from "node:tls";
import { onAbort } from "../abortable.ts";
import { setDiagnostics } from "../inspect.ts";
import { failure, HandshakeError, wrongType, wrongValue } from "../core/error.ts";
import { type TextCodec, webTextCodec } from "../core/utf8.ts";
import { Countdown } from "../timers.ts";
import {
  type Address,
  BaseTransport,
  ByteQueue,
  type DialOptions,
  type Listener,
  type ListenOptions,
  tcpAddress,
  type TlsConnectOptions,
  type Transport,
  type TransportProvider,
  type Tunnel,
} from "../transport.ts";
import { platformDiagnostics } from "./diagnostics.ts";
import { shareReads } from "./node_reads.ts";

/** A duplex reports progress only when it has written all that it was given. */
const CAPACITY = 1_572_864;

/** The transport of a duplex. With it, all transports share their listeners. */
const OWNER = Symbol("transport");

interface Owned {
  [OWNER]: DuplexTransport;
}

/** A duplex as a transport. The two sides of the duplex must end independently. */
export class DuplexTransport<T extends Duplex = Duplex> extends BaseTransport {
  protected readonly duplex: T;
  #queue: ByteQueue | undefined;
  #written: ((error?: Error | null) => void) | undefined;
  /** Whether the transport must report that the waiting bytes were sent. */
  #owesDrain = false;
  /** Whether the duplex has sent the last bytes before it returned. */
  protected isPrompt = false;
  /** Maximum number of bytes that the duplex is given. */
  readonly #capacity: number;

  constructor(duplex: T, capacity: number = CAPACITY) {
    super();
    this.duplex = duplex;
    this.#capacity = capacity;
    (duplex as unknown as Owned)[OWNER] = this;
    // An error may occur before the transport has a handler.
    duplex.on("error", DuplexTransport.#onError);
  }

  static #onError(this: Owned, error: Error): void {
    this[OWNER].fail(error);
  }

  static #onData(this: Owned, chunk: Uint8Array): void {
    const transport = this[OWNER];
    // Another listener may keep the chunk. Its bytes are unmasked in place, and its memory is freed.
    const isShared = transport.duplex.listenerCount("data") > 1;
    const isReleased = transport.handlers!.data(isShared ? new Uint8Array(chunk) : chunk);
    if (isReleased === true && !isShared && chunk.length >= FREED_FROM) free(chunk);
    if (transport.handlers!.borrow !== undefined) transport.lendReads();
  }

  /** Lets the handlers borrow further chunks, if the platform can read into the same memory again. */
  protected lendReads(): void {}

  static #onEnd(this: Owned): void {
    this[OWNER].reportEnd();
  }

  static #onClose(this: Owned): void {
    this[OWNER].reportClose();
  }

  override get bufferedAmount(): number {
    return this.duplex.writableLength + this.unsent + this.late;
  }

  protected start(): void {
    const { duplex } = this;
    if (duplex.destroyed) return queueMicrotask(() => this.reportClose());
    // A duplex emits 'end' only once.
    if (duplex.readableEnded) queueMicrotask(() => this.reportEnd());
    // Before the listeners of others: one that is called once is gone when the next one is called.
    duplex.prependListener("data", DuplexTransport.#onData);
    if (duplex.readableFlowing !== false) duplex.resume();
    duplex.on("end", DuplexTransport.#onEnd);
    duplex.on("close", DuplexTransport.#onClose);
  }

  /** Pauses the duplex and stops listening to it, so that another reader can continue. */
  release(): void {
    const { duplex } = this;
    duplex.pause();
    duplex.off("data", DuplexTransport.#onData);
    duplex.off("end", DuplexTransport.#onEnd);
    duplex.off("close", DuplexTransport.#onClose);
  }

  /** The callback of the writes that may have to wait. It is made when the first one does. */
  get #onWritten(): (error?: Error | null) => void {
    if (this.#written === undefined) {
      const written = (error?: Error | null): void => error ? undefined : this.#continue();
      this.#written = written;
    }
    return this.#written;
  }

  #continue(): void {
    if (!this.#owesDrain) return;
    if (this.#queue !== undefined) this.#giveMore();
    if (this.bufferedAmount > 0) return;
    this.#owesDrain = false;
    this.reportDrain();
  }

  write(parts: readonly Uint8Array[]): void {
    const { duplex } = this;
    if (this.phase !== "open" || !duplex.writable) return this.drop(parts);
    let size = 0;
    for (const part of parts) size += part.length;
    if (this.unsent === 0 && duplex.writableLength + size <= this.#capacity) {
      return this.give(parts);
    }
    this.unsent += size;
    this.#queue ??= new ByteQueue();
    for (const part of parts) this.#queue.push(part);
    this.#giveMore();
  }

  #giveMore(): void {
    const { duplex } = this;
    if (!duplex.writable) return;
    const parts: Uint8Array[] = [];
    for (let room = this.#capacity - duplex.writableLength; room > 0 && this.unsent > 0;) {
      const part = this.firstOf(this.#queue)?.subarray(0, room);
      if (part === undefined) return;
      this.#queue!.remove(part.length);
      this.unsent -= part.length;
      room -= part.length;
      parts.push(part);
    }
    if (this.unsent === 0) this.#queue = undefined;
    if (parts.length > 0) this.give(parts);
    if (this.unsent === 0 && this.phase === "ending") this.finish();
  }

  /** Gives the duplex all parts as one write. */
  protected give(parts: readonly Uint8Array[]): void {
    const { duplex } = this;
    const last = parts.length - 1;
    if (last > 0) duplex.cork();
    for (let i = 0; i < last; i++) duplex.write(parts[i]);
    // A callback costs Node a tick of its own, even if all bytes have been sent at once.
    const isQuiet = this.isPrompt && !this.#owesDrain && this.unsent === 0;
    duplex.write(parts[last], isQuiet ? undefined : this.#onWritten);
    if (last > 0) duplex.uncork();
    const isWaiting = duplex.writableLength > 0;
    if (isWaiting && isQuiet && duplex.writable) duplex.write(new Uint8Array(0), this.#onWritten);
    this.isPrompt = !isWaiting;
    this.#owesDrain ||= isWaiting || this.unsent > 0;
  }

  pause(): void {
    this.duplex.pause();
  }

  resume(): void {
    this.duplex.resume();
  }

  protected finish(): void {
    this.duplex.end();
  }

  protected cut(): void {
    this.duplex.destroy();
  }
}

const FREED_FROM = 16384;

/** Frees the memory of a chunk at once, without waiting for the garbage collector. */
export function free(chunk: Uint8Array): void {
  // Check the length first: Bun creates the buffer of an array only when it is asked for.
  if (chunk.length < FREED_FROM) return;
  const { buffer } = chunk;
  // A part of a larger buffer may be shared. Node 20 does not have the method.
  if (chunk.length !== buffer.byteLength) return;
  (buffer as { transfer?(length: number): unknown }).transfer?.(0);
}

let net: Promise<typeof import("node:net")> | undefined;

/** A server on Deno or Bun saves the memory of `node:net`. */
const loadNet = () => net ??= import("node:net");

/** Without TLS, a process saves the memory of `node:tls` and `node:crypto`. */
const loadTls = () => import("./node_tls.ts");

interface Ends {
  local?: Address | undefined;
  remote?: Address | undefined;
}

/** A socket as a {@linkcode Transport}. The socket must have been created with `allowHalfOpen`. */
export class NodeTransport extends DuplexTransport<Socket> implements Transport {
  /** The addresses that the socket does not know, or will not know after it was destroyed. */
  #ends: Ends | undefined;
  readonly secure: boolean;

  /** @param ends The addresses of a Unix socket, which the socket itself does not know. */
  constructor(socket: Socket, ends?: Ends) {
    super(socket);
    this.secure = (socket as Partial<TLSSocket>).encrypted === true;
    // A plain socket has room for the first bytes.
    this.isPrompt = !this.secure;
    this.#ends = ends;
    // A destroyed socket knows this address only if it was read before.
    void socket.remoteAddress;
    // After an upgrade whose request has a body, the socket may be a duplex without this method.
    socket.setNoDelay?.(true);
  }

  get socket(): Socket {
    return this.duplex;
  }

  protected override lendReads(): void {
    shareReads(this.duplex, NodeTransport.#onRead);
  }

  /** Called when the socket has read into shared memory. Returns whether to continue. */
  static #onRead(this: unknown, length: number, memory: Uint8Array): boolean {
    const socket = this as Socket & { [OWNER]: NodeTransport };
    const handlers = socket[OWNER].handlers!;
    const chunk = new Uint8Array(memory.buffer, memory.byteOffset, length);
    if (handlers.borrow === undefined) handlers.data(new Uint8Array(chunk));
    else handlers.borrow(chunk);
    return !socket.isPaused();
  }

  get localAddress(): Address | undefined {
    const { localAddress, localPort } = this.duplex;
    return this.#ends?.local ?? tcpAddress(localAddress, localPort);
  }

  get remoteAddress(): Address | undefined {
    const { remoteAddress, remotePort } = this.duplex;
    return this.#ends?.remote ?? tcpAddress(remoteAddress, remotePort);
  }

  protected override finish(): void {
    this.#keepLocalAddress();
    this.duplex.end();
  }

  protected override cut(): void {
    this.#keepLocalAddress();
    this.duplex.destroy();
  }

  /** A destroyed socket does not know this address, even if it was read before. */
  #keepLocalAddress(): void {
    this.#ends = { ...this.#ends, local: this.localAddress };
  }
}

function unixAddress(path: string | undefined): Address | undefined {
  return path === undefined ? undefined : { transport: "unix", path };
}

function placeOf(
  host: string,
  port: number,
  path: string | undefined,
): { path: string } | { host: string; port: number } {
  if (path === undefined) return { host, port };
  checkUnixPath(path);
  return { path };
}

/** Some platforms truncate a path that is too long, so that a client would reach another server. */
export function checkUnixPath(path: string): void {
  // Named pipes have no such limit.
  if (process.platform === "win32") return;
  // sun_path holds 108 bytes on Linux and 104 on the BSDs, including the final NUL.
  const most = process.platform === "linux" ? 107 : 103;
  const length = new TextEncoder().encode(path).length;
  if (length <= most) return;
  throw wrongValue(
    `Expected unix to be at most ${most} bytes of UTF-8, received ${length}: ${path}`,
  );
}

/**
 * Connects over TCP or a Unix socket, then through the tunnel, with TLS if the options ask for it.
 * `adopt` may replace a connected transport before its first use.
 */
export async function dial(
  options: DialOptions,
  adopt: (transport: NodeTransport) => Transport = (transport) => transport,
): Promise<Transport> {
  const { hostname, port, unix: path, tunnel, signal } = options;
  const needsTls = options.tls !== undefined || tunnel?.tls !== undefined;
  const { connect } = await loadNet();
  const secure = needsTls ? await loadTls() : undefined;
  signal?.throwIfAborted();
  const tls = options.tls && { ...options.tls, servername: options.tls.servername ?? hostname };
  const place = { ...placeOf(hostname, port, path), allowHalfOpen: true };
  const socket = tls === undefined ? connect(place) : secure!.connectTls(place, tls);
  const ends = { remote: unixAddress(path) };
  const transport = await established(socket, tls, signal, ends);
  if (tunnel?.tls === undefined) {
    const adopted = adopt(transport);
    if (tunnel !== undefined) await openTunnel(tunnel, adopted, signal);
    return adopted;
  }
  await openTunnel(tunnel, transport, signal);
  // On some platforms, TLS inside TLS does not know the addresses.
  const inside = { local: transport.localAddress, remote: transport.remoteAddress };
  transport.release();
  const inner = secure!.connectTls({ socket }, tunnel.tls);
  inner.on("close", () => socket.destroy());
  return await established(inner, tunnel.tls, signal, inside);
}

function established(
  socket: Socket,
  tls: TlsConnectOptions | undefined,
  signal: AbortSignal | undefined,
  ends: Ends,
): Promise<NodeTransport> {
  return new Promise((resolve, reject) => {
    const stopWatching = onAbort(signal, (reason) => {
      socket.destroy();
      reject(reason);
    });
    const fail = (error: Error) => {
      stopWatching();
      reject(isUntrusted(socket, tls) ? certificateError(tls!.servername!, error) : error);
    };
    const closed = () =>
      fail(failure("The connection was closed before it was established", "connection-lost"));
    socket.on("error", fail);
    socket.on("close", closed);
    socket.once(tls === undefined ? "connect" : "secureConnect", () => {
      stopWatching();
      socket.removeListener("error", fail);
      socket.removeListener("close", closed);
      resolve(new NodeTransport(socket, ends));
    });
  });
}

function isUntrusted(socket: Socket, tls: TlsConnectOptions | undefined): boolean {
  const { authorizationError } = socket as Partial<TLSSocket>;
  return tls !== undefined && !tls.insecureSkipVerify && Boolean(authorizationError);
}

/** Error texts of OpenSSL, BoringSSL and rustls for a failed certificate check. */
const CHECKS: readonly (readonly [pattern: RegExp, finding: string])[] = [
  [/ALTNAME|not valid for name|NotValidForName/, "is for another host (wrong host name)"],
  [/HAS_EXPIRED|\b[Ee]xpired/, "has expired"],
  [/NOT_YET_VALID|NotValidYet|not valid yet/, "is not yet valid"],
  [
    /UNABLE_TO_(?:GET|VERIFY)|SELF_SIGNED|UNTRUSTED|UnknownIssuer/,
    "is from an unknown authority",
  ],
];

export function certificateError(servername: string, cause: unknown): HandshakeError {
  const { code, message } = cause as { code?: unknown; message?: string };
  const text = `${String(code)} ${message}`;
  const finding = CHECKS.find(([pattern]) => pattern.test(text))?.[1] ?? "is not valid";
  return new HandshakeError(
    `The certificate of ${servername} ${finding}: ${message}`,
    "certificate",
    { cause },
  );
}

/** Opens the tunnel of a proxy. The transport is destroyed if opening fails or the signal is aborted. */
export async function openTunnel(
  { open }: Tunnel,
  transport: Transport,
  signal: AbortSignal | undefined,
): Promise<void> {
  const stopWatching = onAbort(signal, () => transport.destroy());
  try {
    await open(transport);
    signal?.throwIfAborted();
  } catch (error) {
    transport.destroy();
    throw signal?.aborted ? signal.reason : error;
  } finally {
    stopWatching();
  }
}

async function listen(
  options: ListenOptions,
  accept: (transport: Transport) => void,
): Promise<Listener> {
  const { hostname, port, unix: path, onError = () => {} } = options;
  const reusePort = path === undefined && options.reusePort;
  const { createServer } = await loadNet();
  const secure = options.tls && await loadTls();
  return await new Promise((resolve, reject) => {
    // Older versions would ignore the option.
    if (reusePort && !canReusePort(process.versions.node)) throw unsupportedReusePort();
    const fail = (error: NodeJS.ErrnoException) =>
      reject(reusePort && error.code === "ENOTSUP" ? unsupportedReusePort(error) : error);
    const ends = path === undefined ? undefined : { local: unixAddress(path) };
    const handshakes = new Handshakes<unknown>(options);
    const acceptSocket = (socket: Socket) => {
      dropIdleListener(socket);
      accept(new NodeTransport(socket, ends));
    };
    const server = secure === undefined
      ? createServer({ allowHalfOpen: true }, acceptSocket)
      : tlsServerOf(secure.createTlsServer(options.tls!), path, handshakes, acceptSocket);
    const close = () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        handshakes.cut();
      });
    server.once("error", fail);
    server.listen({ ...placeOf(hostname, port, path), reusePort }, () => {
      server.removeListener("error", fail);
      server.on("error", onError);
      resolve({ address: boundAddress(server), close });
    });
  });
}

/**
 * Node listens for the end of each socket, but does nothing if the socket is half-open. The listener would
 * make a list of ours, which takes more memory than any other object of an idle connection's transport.
 */
function dropIdleListener(socket: Socket): void {
  const [listener] = socket.listeners("end");
  if (listener?.name === "onReadableStreamEnd") socket.off("end", listener as () => void);
}

function canReusePort(version: string): boolean {
  const [major, minor] = version.split(".").map(Number);
  return major > 23 || major === 23 && minor >= 1 || major === 22 && minor >= 12;
}

function unsupportedReusePort(cause?: Error): HandshakeError {
  const platform = `${process.platform} ${process.version}`;
  return new HandshakeError(`reusePort is not supported on ${platform}`, "unsupported", { cause });
}

export class Handshakes<K> {
  readonly #timeout: number;
  readonly #admit: NonNullable<ListenOptions["admit"]>;
  readonly #pending = new Map<K, { cut: () => void; end: () => void }>();

  constructor({ handshakeTimeout = 10_000, admit = () => () => {} }: ListenOptions) {
    this.#timeout = handshakeTimeout || Infinity;
    this.#admit = admit;
  }

  /** Returns the function that ends the handshake, or undefined if there is no place for the client. */
  begin(key: K, address: Address | undefined, cut: () => void): (() => void) | undefined {
    const leave = this.#admit(address);
    if (leave === undefined) return undefined;
    const countdown = new Countdown(cut, this.#timeout);
    let isOver = false;
    const end = () => {
      if (isOver) return;
      isOver = true;
      // Clients that left before they were accepted may share the same unknown address as their key.
      if (this.#pending.get(key)?.end === end) this.#pending.delete(key);
      countdown.cancel();
      leave();
    };
    this.#pending.set(key, { cut, end });
    return end;
  }

  has(key: K): boolean {
    return this.#pending.has(key);
  }

  end(key: K): void {
    this.#pending.get(key)?.end();
  }

  cut(): void {
    for (const { cut } of [...this.#pending.values()]) cut();
  }
}

/** Accepts the sockets of a TLS server after their handshakes. */
function tlsServerOf(
  server: TlsServer,
  unix: string | undefined,
  handshakes: Handshakes<unknown>,
  accept: (socket: Socket) => void,
): TlsServer {
  const keyOf = unix === undefined ? peerOf : beneath;
  server.on("connection", (socket) => {
    const address = tcpAddress(socket.remoteAddress, socket.remotePort);
    const end = handshakes.begin(keyOf(socket), address, () => socket.destroy());
    if (end === undefined) socket.destroy();
    else socket.once("close", end);
  });
  server.on("secureConnection", (socket) => {
    handshakes.end(keyOf(socket));
    // If this were set earlier, a client that leaves during the handshake would stay half-open.
    socket.allowHalfOpen = true;
    accept(socket);
  });
  // A client's mistake is not an error of the server. After a timeout the client is still connected.
  server.on("tlsClientError", (_, socket) => socket.destroy());
  return server;
}

/** Returns a key that a TCP connection and the TLS socket over it share. */
function peerOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

/** Returns such a key for a Unix socket, whose peer has no address: the socket beneath TLS. */
function beneath(socket: Socket): Socket {
  return (socket as { _parent?: Socket | null })._parent ?? socket;
}

function boundAddress(server: Server): Address {
  const bound = server.address();
  if (typeof bound === "string") return { transport: "unix", path: bound };
  if (bound === null) throw wrongType("The server has no address: it does not listen");
  return { transport: "tcp", hostname: bound.address, port: bound.port };
}

type Slice = (this: Uint8Array, start: number, end: number) => string;
type Write = (this: Uint8Array, text: string, offset: number) => number;
const { latin1Slice, ucs2Slice, utf8Slice, utf8Write } = Buffer.prototype as unknown as {
  latin1Slice: Slice;
  ucs2Slice: Slice;
  utf8Slice: Slice;
  utf8Write: Write;
};

// `transcode()` is up to 16 times as fast as V8 where V8 goes character by character.
const ENCODES_SLOWLY = isNodeBefore(26);
const DECODES_SLOWLY = isNodeBefore(23);

/** Texts with fewer code units than this are encoded by V8. */
const TRANSCODE_FROM = 2048;

/** Texts with fewer bytes than this are decoded by V8. */
const DECODE_FROM = 1024;

/** V8 does not search strings that it stores in one byte per code unit. */
const BEYOND_LATIN1 = /[^\0-\xff]/;

function isNodeBefore(major: number): boolean {
  const { bun, deno, node } = process.versions as Record<string, string | undefined>;
  return bun === undefined && deno === undefined && parseInt(node!) < major;
}

/** Encodes long text with characters beyond Latin-1. Returns undefined if that is not possible. */
function encodeWide(text: string): Uint8Array | undefined {
  if (!ENCODES_SLOWLY || text.length < TRANSCODE_FROM || !BEYOND_LATIN1.test(text)) {
    return undefined;
  }
  try {
    return transcode(Buffer.from(text, "utf16le"), "utf16le", "utf8");
  } catch {
    // The text has lone surrogates.
    return undefined;
  }
}

/** Decodes long text that is not ASCII. Returns undefined if that is not possible. */
function decodeWide(bytes: Uint8Array, start: number, end: number): string | undefined {
  if (!DECODES_SLOWLY || end - start < DECODE_FROM) return undefined;
  const utf8 = new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start);
  if (isAscii(utf8)) return undefined;
  try {
    const units = transcode(utf8, "utf8", "utf16le");
    return ucs2Slice.call(units, 0, units.length);
  } catch {
    // The bytes are not UTF-8.
    return undefined;
  }
}

/** Encodes and decodes text with `node:buffer`, which is faster for short text than the web's classes. */
export const nodeTextCodec: TextCodec = {
  decode(bytes, start, end, isPlain) {
    if (isPlain) return latin1Slice.call(bytes, start, end);
    const wide = decodeWide(bytes, start, end);
    if (wide !== undefined) return wide;
    const text = utf8Slice.call(bytes, start, end);
    // U+FFFD stands for invalid bytes, unless the peer has sent that character.
    return text.includes("\uFFFD") ? webTextCodec.decode(bytes, start, end) : text;
  },

  encodeInto(text, target, offset) {
    const bytes = encodeWide(text);
    if (bytes === undefined) return utf8Write.call(target, text, offset);
    target.set(bytes, offset);
    return bytes.length;
  },

  encode(text) {
    const wide = encodeWide(text);
    if (wide !== undefined) return new Uint8Array(wide.buffer, wide.byteOffset, wide.length);
    // Buffer.from() may take the bytes from memory that the whole program shares.
    const bytes = new Uint8Array(Buffer.allocUnsafeSlow(Buffer.byteLength(text)).buffer);
    utf8Write.call(bytes, text, 0);
    return bytes;
  },

  byteLength: (text) => Buffer.byteLength(text),

  encodeLatin1: (text) => Buffer.from(text, "latin1"),
};

setDiagnostics(platformDiagnostics);

export const nodeProvider: TransportProvider = {
  connect: (options) => dial(options),
  listen,
  environment: (name) => process.env[name],
  textCodec: nodeTextCodec,
};
