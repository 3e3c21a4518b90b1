/**
 * Transports over Deno's own sockets: TLS connections and TCP servers. Everything else uses `node.ts`,
 * because Deno's `node:tls` continues to read while it is paused. Two limits of Deno's TLS matter here:
 *
 * - `close()` takes effect only when the handshake and all writes have finished, or the peer has left. A
 *   silent client keeps its descriptor until it leaves, so the server reserves a place before it accepts.
 * - Nagle's algorithm cannot be turned off for an accepted connection or one with a client certificate.
 *   The second of two small messages may wait about 40 ms for the peer's acknowledgement.
 */
import { isAscii } from "node:buffer";
import { setImmediate } from "node:timers";
import { onAbort } from "../abortable.ts";
import { HandshakeError, wrongType } from "../core/error.ts";
import { Queue } from "../core/queue.ts";
import type { TextCodec } from "../core/utf8.ts";
import { Countdown, timer } from "../timers.ts";
import {
  type Address,
  BaseTransport,
  type DialOptions,
  type Listener,
  type ListenOptions,
  sizeOf,
  type TlsConnectOptions,
  type Transport,
  type TransportProvider,
} from "../transport.ts";
import {
  endTurn,
  freeBuffer,
  MAX_WAITING,
  SHARED_SIZE,
  takeBuffer,
  turnOf,
} from "./deno_buffers.ts";
import { certificateError, nodeProvider, nodeTextCodec, openTunnel } from "./node.ts";

// The transport

interface NetAddress {
  hostname: string;
  port: number;
}

interface Conn {
  readonly localAddr: NetAddress;
  readonly remoteAddr: NetAddress;
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
  close(): void;
}

/** Size of the buffer that each connection owns. It is small because an idle connection holds it. */
const OWN_SIZE = 512;

/** A read of at least this many bytes makes the next read use a large buffer. */
const MUCH = 24_576;
/** A read of at least this many bytes, but not `MUCH`, makes the next read wait with a shared buffer. */
const SOME = 4096;
/** Number of connections that wait with a shared buffer. */
let waiting = 0;

/** Stands for a buffer that the handler keeps for good. */
const KEPT = new Uint8Array(0);

/** A write of at least `LARGE` bytes waits for further writes in the same turn, up to `FULL` bytes. */
const LARGE = SHARED_SIZE;
const FULL = 262_144;

/** A part of at least `LONG` bytes is not copied, except for its beginning, which fills a buffer. */
const LONG = 131_072;
const BEFORE_LONG = 65_536;

/** Results of a read that delivers no bytes. */
const ENDED = 0;
const FAILED = -1;

/** A read that has bytes at hand settles within this many microtasks. */
const TICKS = 8;

/** Bytes waiting to be written, and the shared buffer that becomes free when they have been sent. */
interface Waiting {
  readonly bytes: Uint8Array;
  /** The original length. The owner of borrowed bytes may detach them, which sets their length to 0. */
  readonly length: number;
  readonly buffer: Uint8Array<ArrayBuffer> | undefined;
}

let due: DenoTransport[] = [];

class DenoTransport extends BaseTransport {
  readonly secure: boolean;
  readonly #conn: Conn;
  readonly #readsAhead: boolean;
  #queue: Queue<Waiting> | undefined;
  #borrowed = 0;
  /** The buffer for copies of waiting bytes, and the number of bytes in it. */
  #outgoing: Uint8Array<ArrayBuffer> | undefined;
  #filled = 0;
  #own: Uint8Array<ArrayBuffer>;
  /** The buffer whose bytes the handler has not released yet. */
  #held: Uint8Array<ArrayBuffer> | undefined;
  /** The size of the last read, and whether more bytes are likely to follow. */
  #lastRead = 0;
  #isMore = false;
  /** Whether the handler has kept the chunk before the last one. A large buffer should not be kept. */
  #isKept = false;
  #paused = false;
  #isReading = false;
  #isWriting = false;
  #reading: Promise<void> | undefined;
  #writing: Promise<void> | undefined;
  #readError: Error | undefined;

  /** @param readsAhead False if another reader continues where the transport is paused. */
  constructor(conn: Conn, secure: boolean, readsAhead: boolean = true) {
    super();
    this.#conn = conn;
    this.#readsAhead = readsAhead;
    this.secure = secure;
    this.#own = new Uint8Array(OWN_SIZE);
  }

  get localAddress(): Address {
    return addressOf(this.#conn.localAddr);
  }

  get remoteAddress(): Address {
    return addressOf(this.#conn.remoteAddr);
  }

  override get bufferedAmount(): number {
    // Copied bytes that will be sent in this turn do not count as buffered.
    return (this.#isWriting || this.#borrowed > 0 ? this.unsent : 0) + this.late;
  }

  protected start(): void {
    if (this.#isReading) return;
    this.#isReading = true;
    this.#reading = this.#read();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(released?: boolean): void {
    this.#paused = false;
    if (released && this.#held !== undefined) {
      if (this.#held !== KEPT) freeBuffer(this.#held);
      this.#held = undefined;
      endTurn(this);
    }
    if (this.handlers !== undefined) this.start();
  }

  async #read(): Promise<void> {
    while (!this.#paused && !this.isInputEnded) {
      if (this.#isMore) {
        await this.#readShared(0);
        continue;
      }
      const buffer = this.#takeWaiting();
      let length: number;
      // This code is inlined: each pending asynchronous call would hold memory for an idle connection.
      try {
        length = await this.#conn.read(buffer) ?? ENDED;
      } catch (error) {
        length = this.#failed(error as Error);
      }
      const isOwn = buffer === this.#own;
      if (!isOwn) waiting--;
      if (isOwn && length === OWN_SIZE && this.#readsAhead) await this.#readShared(OWN_SIZE);
      else this.#settle(buffer, 0, length);
    }
    // Clear the flag in the microtask of the check. Otherwise a resume() in between would be lost.
    this.#isReading = false;
  }

  /** Returns a buffer for a read that may wait for long. */
  #takeWaiting(): Uint8Array<ArrayBuffer> {
    if (this.#lastRead < SOME || this.#lastRead >= MUCH || waiting === MAX_WAITING) {
      return this.#own;
    }
    waiting++;
    return takeBuffer(false);
  }

  get #bringsMuch(): boolean {
    return this.#lastRead >= MUCH && !this.#isKept && this.handlers!.keepsUp !== false;
  }

  /**
   * Reads into a shared buffer. The bytes follow the first `start` bytes of the own buffer if they are
   * ready at once.
   */
  async #readShared(start: number): Promise<void> {
    await turnOf(this);
    const buffer = takeBuffer(this.#bringsMuch);
    if (start > 0) buffer.set(this.#own);
    let more: number | undefined;
    const reading = this.#conn.read(buffer.subarray(start)).then(
      (length) => more = length ?? ENDED,
      (error) => more = this.#failed(error),
    );
    for (let i = 0; i < TICKS && more === undefined; i++) await undefined;
    if (more !== undefined && more > 0) return this.#settleInTurn(buffer, start + more);
    endTurn(this);
    if (start > 0) this.#settle(this.#own, 0, start);
    this.#settle(buffer, start, await reading);
  }

  /** Ends the turn when the handler has released the bytes, or at the end of this turn of the event loop. */
  #settleInTurn(buffer: Uint8Array<ArrayBuffer>, length: number): void {
    try {
      this.#settle(buffer, 0, length);
    } finally {
      if (this.#held === undefined) endTurn(this);
      else setImmediate(endTurn, this);
    }
  }

  #failed(error: Error): number {
    // A peer that leaves without a TLS closing alert has ended, as on every other platform.
    if (error.name === "UnexpectedEof") return ENDED;
    this.#readError = error;
    return FAILED;
  }

  /** Hands on the result of a read into a buffer that already held `start` bytes. */
  #settle(buffer: Uint8Array<ArrayBuffer>, start: number, length: number): void {
    // Bytes that arrive after the end are dropped, as on a socket.
    if (this.isDestroyed) return;
    if (length === FAILED) return this.fail(this.#readError!);
    if (length === ENDED) return this.reportEnd();
    const end = start + length;
    this.#lastRead = end;
    this.#isMore = end === buffer.length && buffer !== this.#own;
    // From now on the handler cannot release the previous chunk.
    this.#isKept = this.#held !== undefined;
    this.#held = undefined;
    if (buffer === this.#own) this.#giveOwn(length);
    else this.#give(buffer, start, end);
  }

  /** Hands on bytes of the connection's own buffer. A small copy holds less memory than the buffer. */
  #giveOwn(length: number): void {
    const own = this.#own;
    if (length < OWN_SIZE / 2) this.handlers!.data(own.slice(0, length));
    else if (this.handlers!.data(own.subarray(0, length)) !== true) {
      this.#own = new Uint8Array(OWN_SIZE);
    }
  }

  #give(buffer: Uint8Array<ArrayBuffer>, start: number, end: number): void {
    if (end - start < buffer.length / 2) {
      const chunk = buffer.slice(start, end);
      freeBuffer(buffer);
      this.handlers!.data(chunk);
    } else if (this.handlers!.data(buffer.subarray(start, end)) === true) {
      freeBuffer(buffer);
    } else {
      // Keep the buffer only if the handler has paused. Otherwise an idle connection would hold it.
      this.#held = this.#paused ? buffer : KEPT;
    }
  }

  write(parts: readonly Uint8Array[]): void {
    if (this.phase !== "open") return this.drop(parts);
    const size = sizeOf(parts);
    this.unsent += size;
    if (parts.length === 1 && size < LARGE && this.unsent === size) this.#borrow(parts[0]);
    else for (const part of parts) this.#copy(part);
    if (this.#isWriting) return;
    const isMoreExpected = this.#held !== undefined && size >= LARGE;
    if (!isMoreExpected || this.unsent >= FULL || this.#borrowed > 0) return this.#startWriting();
    // The handler has more messages to answer. Their answers are sent in one large write.
    if (due.push(this) === 1) setImmediate(DenoTransport.#writeDue);
  }

  static #writeDue(): void {
    const transports = due;
    due = [];
    for (const transport of transports) transport.#startWriting();
  }

  /** Copies a part after the waiting bytes. If the part is long, copies only its beginning. */
  #copy(part: Uint8Array): void {
    let rest = part;
    while (rest.length > 0) {
      if (rest.length >= LONG && this.#filled >= BEFORE_LONG) this.#cutOutgoing();
      if (rest.length >= LONG && this.#filled === 0) return this.#borrow(rest);
      const buffer = this.#outgoing ??= takeBuffer(this.unsent > SHARED_SIZE);
      const most = rest.length < LONG ? buffer.length : Math.min(BEFORE_LONG, buffer.length);
      const size = Math.min(rest.length, most - this.#filled);
      buffer.set(size < rest.length ? rest.subarray(0, size) : rest, this.#filled);
      this.#filled += size;
      rest = rest.subarray(size);
      if (rest.length > 0) this.#cutOutgoing();
    }
  }

  #borrow(part: Uint8Array): void {
    this.#borrowed += part.length;
    this.#push(part, undefined);
  }

  #cutOutgoing(): void {
    const buffer = this.#outgoing!;
    this.#push(buffer.subarray(0, this.#filled), buffer);
    this.#outgoing = undefined;
    this.#filled = 0;
  }

  #push(bytes: Uint8Array, buffer: Uint8Array<ArrayBuffer> | undefined): void {
    this.#queue ??= new Queue();
    this.#queue.push({ bytes, length: bytes.length, buffer });
  }

  #startWriting(): void {
    if (this.#isWriting || this.isDestroyed) return;
    this.#isWriting = true;
    this.#writing = this.#flush();
  }

  async #flush(): Promise<void> {
    try {
      for (let next = this.#next(); next !== undefined; next = this.#next()) {
        await this.#writeAll(next);
      }
      this.#isWriting = false;
      if (this.phase !== "ending") return;
      this.#isWriting = true;
      await this.#conn.closeWrite();
      this.reportFinished();
    } catch (error) {
      this.fail(error as Error);
    }
  }

  #next(): Waiting | undefined {
    if (this.isDestroyed) return undefined;
    if (!this.#queue?.length && this.#filled > 0) this.#cutOutgoing();
    return this.#queue?.shift();
  }

  async #writeAll({ bytes, length, buffer }: Waiting): Promise<void> {
    for (let at = 0; at < length && !this.isDestroyed;) {
      if (bytes.length !== length) {
        throw wrongType("The bytes were detached", { code: "bytes-changed" });
      }
      const written = await this.#conn.write(at === 0 ? bytes : bytes.subarray(at));
      at += written;
      if (at === length && buffer === undefined) this.#borrowed -= length;
      if (at === length && buffer !== undefined) freeBuffer(buffer);
      this.reportSent(written);
    }
  }

  protected finish(): void {
    this.#startWriting();
  }

  protected cut(): void {
    this.#queue = undefined;
    this.#filled = 0;
    this.#outgoing = undefined;
    closeQuietly(this.#conn);
    // Closing the connection ends both loops. As on a socket, the end is reported in a later turn.
    Promise.all([this.#reading, this.#writing]).then(() => this.reportClose());
  }
}

function closeQuietly(closable: { close(): void }): void {
  try {
    closable.close();
  } catch {
    // The resource is already closed.
  }
}

function addressOf({ hostname, port }: NetAddress): Address {
  return { transport: "tcp", hostname, port };
}

// Connecting and listening

interface TlsConn extends Conn {
  handshake(): Promise<unknown>;
}

interface TcpConn extends Conn {
  setNoDelay(noDelay: boolean): void;
}

interface DenoListener<C> {
  readonly addr: NetAddress;
  accept(): Promise<C>;
  close(): void;
}

interface TlsTrust {
  hostname: string;
  caCerts?: string[];
  alpnProtocols?: string[];
}

interface DenoSockets {
  connect(options: NetAddress & { signal?: AbortSignal }): Promise<TcpConn>;
  listen(options: NetAddress): DenoListener<TcpConn>;
  connectTls(options: NetAddress & TlsTrust & { cert: string; key: string }): Promise<TlsConn>;
  startTls(conn: Conn, options: TlsTrust): Promise<TlsConn>;
  listenTls(
    options: NetAddress & {
      cert: string;
      key: string;
      alpnProtocols?: string[];
      reusePort?: boolean;
    },
  ): DenoListener<TlsConn>;
  /** Exists only with the flag that also allows `reusePort`. */
  listenDatagram?: unknown;
}

const { Deno: sockets } = globalThis as unknown as { Deno: DenoSockets };

async function dialTls(options: DialOptions): Promise<Transport> {
  const { signal, tunnel } = options;
  signal?.throwIfAborted();
  if (tunnel === undefined) return await shake(await openTls(options), options);
  if (options.tls === undefined) return await shake(await openInner(options), options);
  // startTls() accepts only a connection without TLS.
  if (tunnel.tls !== undefined) {
    throw unsupported("TLS inside TLS: a wss URL through an https proxy");
  }
  const transport = await shake(await openTls(options), options);
  await openTunnel(tunnel, transport, signal);
  return transport;
}

async function shake(conn: TlsConn, options: DialOptions): Promise<Transport> {
  const { signal, hostname, tls = options.tunnel?.tls } = options;
  const stopWatching = onAbort(signal, () => closeQuietly(conn));
  try {
    await conn.handshake();
    return new DenoTransport(conn, true);
  } catch (error) {
    closeQuietly(conn);
    if (signal?.aborted) throw signal.reason;
    if (!(error as Error).message.startsWith("invalid peer certificate")) throw error;
    throw certificateError(tls?.servername ?? hostname, error);
  } finally {
    stopWatching();
  }
}

async function openTls({ hostname, port, unix, tls = {}, signal }: DialOptions): Promise<TlsConn> {
  const { cert, key, servername = hostname } = tls;
  const trust = trustOf(tls, hostname);
  if (unix !== undefined) throw unsupported("TLS over a Unix socket");
  if (cert === undefined || key === undefined) {
    return await startTls(await openTcp({ hostname, port, signal }), trust);
  }
  // startTls() would not send the certificate.
  if (servername !== hostname) throw unsupported("tls.cert together with tls.servername");
  return await sockets.connectTls({ ...trust, port, cert, key });
}

/** Starts TLS inside a tunnel through a proxy without TLS. */
async function openInner({ hostname, port, tunnel, signal }: DialOptions): Promise<TlsConn> {
  const { open, tls = {} } = tunnel!;
  const trust = trustOf(tls, hostname);
  if (tls.cert !== undefined) throw unsupported("tls.cert through a proxy");
  const conn = await openTcp({ hostname, port, signal });
  await openTunnel({ open }, new DenoTransport(conn, false, false), signal);
  return await startTls(conn, trust);
}

async function startTls(conn: Conn, trust: TlsTrust): Promise<TlsConn> {
  try {
    return await sockets.startTls(conn, trust);
  } catch (error) {
    // startTls() leaves the socket open if it rejects an option, such as an invalid certificate.
    closeQuietly(conn);
    throw error;
  }
}

async function openTcp(options: NetAddress & { signal?: AbortSignal }): Promise<Conn> {
  const conn = await sockets.connect(options);
  conn.setNoDelay(true);
  return conn;
}

function trustOf(tls: TlsConnectOptions, hostname: string): TlsTrust {
  const { ca, alpn, servername = hostname, insecureSkipVerify } = tls;
  if (insecureSkipVerify) {
    throw unsupported("tls.insecureSkipVerify, only its flag --unsafely-ignore-certificate-errors");
  }
  const caCerts = typeof ca === "string" ? [ca] : ca;
  return { hostname: servername, caCerts, alpnProtocols: alpn };
}

function unsupported(what: string): HandshakeError {
  return new HandshakeError(`Deno does not support ${what}`, "unsupported");
}

/** Interval at which a full listener checks for a free place, in milliseconds. */
const PLACE_INTERVAL = 50;

function listenTls(options: ListenOptions, accept: (transport: Transport) => void): Listener {
  const { hostname, port, unix, reusePort, tls, handshakeTimeout = 10_000 } = options;
  const { onError = () => {}, admit = () => () => {} } = options;
  const { cert, key, ca, alpn } = tls!;
  if (ca !== undefined) throw unsupported("tls.ca of a server");
  if (unix !== undefined) throw unsupported("TLS over a Unix socket");
  // Without the flag, Deno would exit the process.
  if (reusePort && sockets.listenDatagram === undefined) {
    throw unsupported("reusePort with TLS without the flag --unstable-net");
  }
  const listener = sockets.listenTls({ hostname, port, cert, key, alpnProtocols: alpn, reusePort });
  const shaking = new Set<TlsConn>();
  const shake = async (conn: TlsConn, leave: () => void) => {
    shaking.add(conn);
    let isLate = false;
    // Do not close the connection yet. Closing would not free the descriptor, and Deno would no longer
    // report that the client has left.
    const countdown = new Countdown(() => isLate = true, handshakeTimeout || Infinity);
    let isDone = false;
    try {
      await conn.handshake();
      isDone = !accepting.isClosed && !isLate;
    } catch {
      // A client's mistake is not an error of the server.
    }
    countdown.cancel();
    shaking.delete(conn);
    leave();
    if (isDone) accept(new DenoTransport(conn, true));
    else closeQuietly(conn);
  };
  const accepting = new Accepting(listener, onError, async () => {
    // Reserve a place before accepting: the descriptor of an accepted client cannot be freed.
    let leave = admit();
    for (; leave === undefined && !accepting.isClosed; leave = admit()) await delay(PLACE_INTERVAL);
    try {
      void shake(await listener.accept(), leave ?? (() => {}));
    } catch (error) {
      leave?.();
      throw error;
    }
  });
  return {
    address: accepting.address,
    close: () => {
      const finished = accepting.close();
      shaking.forEach(closeQuietly);
      return finished;
    },
  };
}

function listenTcp(
  { hostname, port, onError = () => {} }: ListenOptions,
  accept: (transport: Transport) => void,
): Listener {
  const listener = sockets.listen({ hostname, port });
  const accepting = new Accepting(listener, onError, async () => {
    const conn = await listener.accept();
    try {
      // The listener may have been closed in the same turn.
      if (accepting.isClosed) return closeQuietly(conn);
      conn.setNoDelay(true);
    } catch {
      // On some platforms, setting an option fails if the peer has left.
      return closeQuietly(conn);
    }
    accept(new DenoTransport(conn, false));
  });
  return accepting;
}

/** Time to wait before the next accept after an error, such as too many open files, in milliseconds. */
const RETRY_INTERVAL = 100;

class Accepting implements Listener {
  readonly address: Address;
  isClosed = false;
  readonly #listener: DenoListener<Conn>;
  readonly #finished: Promise<void>;

  constructor(
    listener: DenoListener<Conn>,
    onError: (error: Error) => void,
    acceptNext: () => Promise<void>,
  ) {
    this.address = addressOf(listener.addr);
    this.#listener = listener;
    // Start in a later microtask, when the caller has assigned its variable.
    this.#finished = Promise.resolve().then(() => this.#run(acceptNext, onError));
  }

  async #run(acceptNext: () => Promise<void>, onError: (error: Error) => void): Promise<void> {
    while (!this.isClosed) {
      try {
        await acceptNext();
      } catch (error) {
        // The peer has already left, so its address is unknown.
        if ((error as { code?: string }).code === "ENOTCONN") continue;
        if (this.isClosed) return;
        onError(error as Error);
        await delay(RETRY_INTERVAL);
      }
    }
  }

  close(): Promise<void> {
    this.isClosed = true;
    closeQuietly(this.#listener);
    return this.#finished;
  }
}

function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => timer(resolve, milliseconds));
}

function listen(
  options: ListenOptions,
  accept: (transport: Transport) => void,
): Listener | Promise<Listener> {
  if (options.tls !== undefined) return listenTls(options, accept);
  // Deno's own sockets support `reusePort` only with a flag.
  const { unix, reusePort } = options;
  if (unix !== undefined || reusePort) return nodeProvider.listen(options, accept);
  return listenTcp(options, accept);
}

/** From this many bytes on, looking whether they are ASCII pays on Deno. */
const LONG_TEXT = 256;

/** The codec of `node:buffer`, except that it finds out whether long text is ASCII. */
export const denoTextCodec: TextCodec = {
  ...nodeTextCodec,
  // Deno's Buffer is slower.
  encodeLatin1: undefined,
  decode(bytes, start, end, known) {
    const isPlain = known ?? (end - start >= LONG_TEXT &&
      isAscii(new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start)));
    return nodeTextCodec.decode(bytes, start, end, isPlain);
  },
};

/** Uses Deno's sockets for TLS and TCP servers, and `node:net` for TCP clients and Unix sockets. */
export const denoProvider: TransportProvider = {
  ...nodeProvider,
  textCodec: denoTextCodec,
  connect: (options) =>
    options.tls === undefined && options.tunnel?.tls === undefined
      ? nodeProvider.connect(options)
      : dialTls(options),
  listen: (options, accept) => Promise.resolve().then(() => listen(options, accept)),
};
