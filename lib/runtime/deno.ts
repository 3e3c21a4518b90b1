/**
 * Transports over Deno's own sockets: TLS connections and TCP servers. Everything else uses `node.ts`,
 * because Deno's `node:tls` continues to read while it is paused. Two limits of Deno's TLS matter here:
 *
 * - `close()` takes effect only when the handshake and all writes have finished, or the peer has left. A
 *   silent client keeps its descriptor until it leaves, so the server reserves a place before it accepts.
 * - Nagle's algorithm cannot be turned off for an accepted connection or one with a client certificate.
 *   The second of two small messages may wait about 40 ms for the peer's acknowledgement.
 *
 * @module
 */
import { Buffer, isAscii } from "node:buffer";
import { onAbort } from "../abortable.ts";
import { HandshakeError } from "../core/error.ts";
import type { TextCodec } from "../core/utf8.ts";
import { Countdown, timer } from "../timers.ts";
import type {
  Address,
  DialOptions,
  Listener,
  ListenOptions,
  TlsConnectOptions,
  Transport,
  TransportProvider,
} from "../transport.ts";
import {
  addressOf,
  closeQuietly,
  type Conn,
  DenoTransport,
  type NetAddress,
} from "./deno_transport.ts";
import { certificateError, nodeProvider, nodeTextCodec, openTunnel } from "./node.ts";

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
    throw unsupported(
      "tls.insecureSkipVerify, only its flag --unsafely-ignore-certificate-errors",
    );
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

const { latin1Slice } = Buffer.prototype as unknown as {
  latin1Slice(this: Uint8Array, start: number, end: number): string;
};

/** From this many bytes on, ASCII is decoded as Latin-1, which Deno does faster. */
const LONG_TEXT = 256;

/** The codec of `node:buffer`, except that long ASCII is decoded as Latin-1. */
export const denoTextCodec: TextCodec = {
  ...nodeTextCodec,
  decode(bytes, start, end) {
    if (end - start < LONG_TEXT) return nodeTextCodec.decode(bytes, start, end);
    return isAscii(new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start))
      ? latin1Slice.call(bytes, start, end)
      : nodeTextCodec.decode(bytes, start, end);
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
