/**
 * TLS by Deno's own sockets; everything else there is `node:net`'s.
 *
 * A file of its own because Deno's `node:tls` reads on while it is paused, so that a slow reader would
 * have to hold all that its peer sends. Of Deno's types it declares the few that it needs: the package
 * is compiled without them.
 *
 * Deno closes such a connection only once the handshake, or what was written, is through or its peer
 * has gone, be it that nobody waits for it: a peer that stays silent keeps the descriptor. It does not
 * keep the process.
 *
 * Nor can Nagle's algorithm be turned off for a connection that is accepted, or that shows a client's
 * certificate: of two small messages shortly after one another, the second may wait for the peer's
 * acknowledgement, some 40 ms.
 *
 * @module
 */
import { HandshakeError } from "../core/error.ts";
import type {
  Address,
  DialOptions,
  Listener,
  ListenOptions,
  TlsConnectOptions,
  Transport,
  TransportHandlers,
  TransportProvider,
} from "../transport.ts";
import { certificateError } from "./certificate_error.ts";
import { nodeProvider } from "./node.ts";
import { denoTextCodec } from "./node_text.ts";
import { openTunnel } from "./tunnel.ts";

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

interface TlsConn extends Conn {
  handshake(): Promise<unknown>;
}

interface TlsListener {
  readonly addr: NetAddress;
  accept(): Promise<TlsConn>;
  close(): void;
}

interface TlsTrust {
  hostname: string;
  caCerts?: string[];
  alpnProtocols?: string[];
}

interface DenoSockets {
  connect(options: NetAddress & { signal?: AbortSignal }): Promise<
    Conn & { setNoDelay(noDelay: boolean): void }
  >;
  connectTls(options: NetAddress & TlsTrust & { cert: string; key: string }): Promise<TlsConn>;
  startTls(conn: Conn, options: TlsTrust): Promise<TlsConn>;
  listenTls(
    options: NetAddress & {
      cert: string;
      key: string;
      alpnProtocols?: string[];
      reusePort?: boolean;
    },
  ): TlsListener;
  /** It is there with the flag that allows `reusePort`, too. */
  listenDatagram?: unknown;
}

const { Deno: sockets } = globalThis as unknown as { Deno: DenoSockets };

/** A record of TLS holds this much, and more is never read at once. */
const RECORD = 16384;

/** One of Deno's connections as a {@linkcode Transport}. */
export class DenoTransport implements Transport {
  readonly secure = true;
  readonly localAddress: Address;
  readonly remoteAddress: Address;
  readonly #conn: Conn;
  readonly #readSize: number;
  #handlers: TransportHandlers | undefined;
  #queue: Uint8Array[] = [];
  #buffered = 0;
  /** The bytes that came too late to be written. */
  #dropped = 0;
  #buffer: Uint8Array<ArrayBuffer>;
  #paused = false;
  #isReading = false;
  #isWriting = false;
  /** Resolve when what is under way has ended. */
  #reading: Promise<void> | undefined;
  #writing: Promise<void> | undefined;
  #inputEnded = false;
  #ending = false;
  #outputEnded = false;
  #destroyed = false;
  #gone = false;
  #error: Error | undefined;

  /**
   * @param conn a connection, its TLS handshake done
   * @param readSize how many bytes are read at most at once
   */
  constructor(conn: Conn, readSize: number = RECORD) {
    this.#conn = conn;
    this.#readSize = readSize;
    this.#buffer = new Uint8Array(readSize);
    this.localAddress = addressOf(conn.localAddr);
    this.remoteAddress = addressOf(conn.remoteAddr);
  }

  get bufferedAmount(): number {
    return this.#buffered + this.#dropped;
  }

  handle(handlers: TransportHandlers): void {
    const first = this.#handlers === undefined;
    this.#handlers = handlers;
    if (first && this.#gone) queueMicrotask(() => this.#handlers!.close(this.#error));
    if (first) this.#startReading();
  }

  write(parts: readonly Uint8Array[]): void {
    if (this.#ending || this.#destroyed) {
      // As if they had left, whoever sends on and on would, and the end not get its turn to be told.
      for (const part of parts) this.#dropped += part.length;
      return;
    }
    for (const part of parts) {
      this.#queue.push(part);
      this.#buffered += part.length;
    }
    this.#startWriting();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#startReading();
  }

  end(): void {
    if (this.#ending || this.#destroyed) return;
    this.#ending = true;
    this.#startWriting();
  }

  destroy(): void {
    this.#destroy();
  }

  #startReading(): void {
    if (this.#handlers === undefined || this.#isReading) return;
    this.#isReading = true;
    this.#reading = this.#read();
  }

  async #read(): Promise<void> {
    while (!this.#paused && !this.#inputEnded && !this.#destroyed) {
      const chunk = await this.#readChunk();
      // What a socket has read when it is destroyed is lost.
      if (this.#destroyed || chunk === undefined) break;
      if (chunk === null) this.#endInput();
      else this.#handlers!.data(chunk);
    }
    // Not a microtask later: a call of resume() in between would be lost.
    this.#isReading = false;
  }

  /** The next bytes, null at the end of the input, undefined when it failed. */
  async #readChunk(): Promise<Uint8Array | null | undefined> {
    try {
      const length = await this.#conn.read(this.#buffer);
      return length === null ? null : this.#take(length);
    } catch (error) {
      // A peer that is gone without a closing alert has ended, as everywhere else.
      if ((error as Error).name === "UnexpectedEof") return null;
      this.#destroy(error as Error);
    }
  }

  /** A chunk that is large is handed over, a small one copied. */
  #take(length: number): Uint8Array {
    if (length < this.#readSize / 2) return this.#buffer.slice(0, length);
    const chunk = this.#buffer.subarray(0, length);
    this.#buffer = new Uint8Array(this.#readSize);
    return chunk;
  }

  #endInput(): void {
    this.#inputEnded = true;
    this.#handlers!.end();
    this.#destroyAtEnd();
  }

  #startWriting(): void {
    if (this.#isWriting) return;
    this.#isWriting = true;
    this.#writing = this.#flush();
  }

  async #flush(): Promise<void> {
    try {
      for (let part = this.#queue.shift(); part !== undefined; part = this.#queue.shift()) {
        await this.#writePart(part);
        if (this.bufferedAmount === 0) this.#handlers?.drain();
      }
      // What is written from now on finds nobody at work.
      this.#isWriting = false;
      if (this.#ending && !this.#destroyed) await this.#endOutput();
    } catch (error) {
      this.#destroy(error as Error);
    }
  }

  async #endOutput(): Promise<void> {
    // Nothing is written behind it.
    this.#isWriting = true;
    await this.#conn.closeWrite();
    this.#outputEnded = true;
    this.#destroyAtEnd();
  }

  async #writePart(part: Uint8Array): Promise<void> {
    for (let at = 0; at < part.length && !this.#destroyed;) {
      at += await this.#conn.write(part.subarray(at));
    }
    // Only now is nothing of it read any more.
    this.#buffered -= part.length;
  }

  #destroyAtEnd(): void {
    if (this.#inputEnded && this.#outputEnded) this.#destroy();
  }

  #destroy(error?: Error): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#error = error;
    this.#queue = [];
    closeQuietly(this.#conn);
    // Closing ends what is under way. Turns later, as with a socket.
    Promise.all([this.#reading, this.#writing]).then(() => {
      this.#gone = true;
      this.#buffered = 0;
      this.#handlers?.close(this.#error);
    });
  }
}

function closeQuietly(closable: { close(): void }): void {
  try {
    closable.close();
  } catch {
    // It is closed already.
  }
}

function addressOf({ hostname, port }: NetAddress): Address {
  return { transport: "tcp", hostname, port };
}

/** Connects with TLS, to the peer or through a tunnel. */
async function dialTls(options: DialOptions): Promise<Transport> {
  const { signal, tunnel } = options;
  signal?.throwIfAborted();
  if (tunnel === undefined) return await shake(await openTls(options), options);
  if (options.tls === undefined) return await shake(await openInner(options), options);
  // startTls() takes a connection without TLS only.
  if (tunnel.tls !== undefined) throw unsupported("TLS inside of TLS, as of wss by an https proxy");
  const transport = await shake(await openTls(options), options);
  await openTunnel(tunnel, transport, signal);
  return transport;
}

/** Waits for the TLS handshake. */
async function shake(conn: TlsConn, options: DialOptions): Promise<Transport> {
  const { signal, hostname, tls = options.tunnel?.tls } = options;
  const abort = () => closeQuietly(conn);
  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted) abort();
  try {
    await conn.handshake();
    return new DenoTransport(conn);
  } catch (error) {
    closeQuietly(conn);
    if (signal?.aborted) throw signal.reason;
    throw asCertificateError(error as Error, tls?.servername ?? hostname);
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

async function openTls({ hostname, port, path, tls = {}, signal }: DialOptions): Promise<TlsConn> {
  const { cert, key, servername = hostname } = tls;
  const trust = trustOf(tls, hostname);
  if (path !== undefined) throw unsupported("TLS over a Unix socket");
  if (cert === undefined || key === undefined) {
    return await startTls(await openTcp({ hostname, port, signal }), trust);
  }
  // startTls() would leave the certificate out.
  if (servername !== hostname) throw unsupported("a client's certificate beside a servername");
  return await sockets.connectTls({ ...trust, port, cert, key });
}

/** Begins TLS inside of a tunnel through a peer without. */
async function openInner({ hostname, port, tunnel, signal }: DialOptions): Promise<TlsConn> {
  const { open, tls = {} } = tunnel!;
  const trust = trustOf(tls, hostname);
  if (tls.cert !== undefined) throw unsupported("a client's certificate by way of a proxy");
  const conn = await openTcp({ hostname, port, signal });
  await openTunnel({ open }, new DenoTransport(conn), signal);
  return await startTls(conn, trust);
}

async function startTls(conn: Conn, trust: TlsTrust): Promise<TlsConn> {
  try {
    return await sockets.startTls(conn, trust);
  } catch (error) {
    // What it refuses at once, as a certificate that is none, leaves the socket open.
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
  if (insecureSkipVerify) throw unsupported("insecureSkipVerify; its command line can");
  return { hostname: servername, caCerts: listOf(ca), alpnProtocols: alpn };
}

function unsupported(what: string): HandshakeError {
  return new HandshakeError(`Expected no ${what}: Deno has no way for it`, "unsupported");
}

function listOf(ca: string | string[] | undefined): string[] | undefined {
  return typeof ca === "string" ? [ca] : ca;
}

function asCertificateError(error: Error, servername: string): Error {
  if (!error.message.startsWith("invalid peer certificate")) return error;
  return certificateError(servername, error);
}

/** Listens with TLS. */
async function listenTls(
  options: ListenOptions,
  accept: (transport: Transport) => void,
): Promise<Listener> {
  const { hostname, port, path, reusePort, tls, handshakeTimeout = 10_000 } = options;
  const { onError = () => {} } = options;
  const { cert, key, ca, alpn } = tls!;
  if (ca !== undefined) throw unsupported("tls.ca of a server");
  if (path !== undefined) throw unsupported("TLS over a Unix socket");
  // Without the flag, Deno would end the process.
  if (reusePort && sockets.listenDatagram === undefined) {
    throw unsupported("reusePort with TLS without the flag --unstable-net");
  }
  const listener = await Promise.resolve().then(() =>
    sockets.listenTls({ hostname, port, cert, key, alpnProtocols: alpn, reusePort })
  );
  const shaking = new Set<TlsConn>();
  let closed = false;
  const shake = async (conn: TlsConn) => {
    shaking.add(conn);
    // A timer that is longer would fire at once.
    const limited = handshakeTimeout > 0 && handshakeTimeout < 2 ** 31;
    const timer = limited ? setTimeout(() => closeQuietly(conn), handshakeTimeout) : undefined;
    try {
      await conn.handshake();
      if (closed) closeQuietly(conn);
      else accept(new DenoTransport(conn));
    } catch {
      // What a client does wrong is no error of the server's.
      closeQuietly(conn);
    }
    clearTimeout(timer);
    shaking.delete(conn);
  };
  const finished = acceptAll(listener, shake, (error) => closed || onError(error), () => closed);
  const close = () => {
    closed = true;
    closeQuietly(listener);
    shaking.forEach(closeQuietly);
    return finished;
  };
  return { address: addressOf(listener.addr), close };
}

async function acceptAll(
  listener: TlsListener,
  shake: (conn: TlsConn) => void,
  onError: (error: Error) => void,
  isClosed: () => boolean,
): Promise<void> {
  while (!isClosed()) {
    try {
      shake(await listener.accept());
    } catch (error) {
      onError(error as Error);
      // Such as too many open files: it may pass.
      if (!isClosed()) await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** TLS by Deno, TCP and Unix sockets by `node:net`. */
export const denoProvider: TransportProvider = {
  ...nodeProvider,
  textCodec: denoTextCodec,
  connect: (options) =>
    options.tls === undefined && options.tunnel?.tls === undefined
      ? nodeProvider.connect(options)
      : dialTls(options),
  listen: (options, accept) =>
    options.tls === undefined ? nodeProvider.listen(options, accept) : listenTls(options, accept),
};
