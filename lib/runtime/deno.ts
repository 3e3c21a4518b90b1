/**
 * TLS, and the TCP of servers, by Deno's own sockets; everything else there is `node:net`'s.
 *
 * A file of its own because Deno's `node:tls` reads on while it is paused, so that a slow reader would
 * have to hold all that its peer sends, and because `node:net` reads less at a time than pays for long
 * messages. Of Deno's types it declares the few that it needs: the package is compiled without them.
 *
 * Deno closes a connection with TLS only once the handshake, or what was written, is through or its peer
 * has gone, be it that nobody waits for it: a peer that stays silent keeps the descriptor. It does not
 * keep the process. For this reason a server accepts a client only when there is a place for it, and
 * a silent client keeps its place until it leaves.
 *
 * Nor can Nagle's algorithm be turned off for one with TLS that is accepted, or that shows a client's
 * certificate: of two small messages shortly after one another, the second may wait for the peer's
 * acknowledgement, some 40 ms.
 *
 * @module
 */
import { onAbort } from "../abortable.ts";
import { HandshakeError } from "../core/error.ts";
import { deadline, timer } from "../timers.ts";
import type {
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
import { certificateError, nodeProvider, openTunnel } from "./node.ts";
import { denoTextCodec } from "./node_text.ts";

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
  /** It is there with the flag that allows `reusePort`, too. */
  listenDatagram?: unknown;
}

const { Deno: sockets } = globalThis as unknown as { Deno: DenoSockets };

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
  const stopWatching = onAbort(signal, () => closeQuietly(conn));
  try {
    await conn.handshake();
    return new DenoTransport(conn, true);
  } catch (error) {
    closeQuietly(conn);
    if (signal?.aborted) throw signal.reason;
    throw asCertificateError(error as Error, tls?.servername ?? hostname);
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
  await openTunnel({ open }, new DenoTransport(conn, false, false), signal);
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

/** How often a listener looks for a place for the next client, in milliseconds. */
const PLACE_INTERVAL = 50;

/** Listens with TLS. */
async function listenTls(
  options: ListenOptions,
  accept: (transport: Transport) => void,
): Promise<Listener> {
  const { hostname, port, unix, reusePort, tls, handshakeTimeout = 10_000 } = options;
  const { onError = () => {}, admit = () => () => {} } = options;
  const { cert, key, ca, alpn } = tls!;
  if (ca !== undefined) throw unsupported("tls.ca of a server");
  if (unix !== undefined) throw unsupported("TLS over a Unix socket");
  // Without the flag, Deno would end the process.
  if (reusePort && sockets.listenDatagram === undefined) {
    throw unsupported("reusePort with TLS without the flag --unstable-net");
  }
  const listener = await Promise.resolve().then(() =>
    sockets.listenTls({ hostname, port, cert, key, alpnProtocols: alpn, reusePort })
  );
  const shaking = new Set<TlsConn>();
  let closed = false;
  const shake = async ({ conn, leave }: { conn: TlsConn; leave: () => void }) => {
    shaking.add(conn);
    let isLate = false;
    // The connection is not closed yet. Closing it would not free the descriptor, and it would no longer
    // be reported when the client leaves.
    const cancelDeadline = deadline(() => isLate = true, handshakeTimeout || Infinity);
    let isDone = false;
    try {
      await conn.handshake();
      isDone = !closed && !isLate;
    } catch {
      // What a client does wrong is no error of the server's.
    }
    cancelDeadline();
    shaking.delete(conn);
    leave();
    if (isDone) accept(new DenoTransport(conn, true));
    else closeQuietly(conn);
  };
  const next = async () => {
    // Wait before accepting the client: afterwards its descriptor cannot be freed.
    let leave = admit();
    for (; leave === undefined && !closed; leave = admit()) await delay(PLACE_INTERVAL);
    try {
      return { conn: await listener.accept(), leave: leave ?? (() => {}) };
    } catch (error) {
      leave?.();
      throw error;
    }
  };
  const finished = acceptAll(next, shake, (error) => closed || onError(error), () => closed);
  const close = () => {
    closed = true;
    closeQuietly(listener);
    shaking.forEach(closeQuietly);
    return finished;
  };
  return { address: addressOf(listener.addr), close };
}

/** Listens without TLS. */
async function listenTcp(
  { hostname, port, onError = () => {} }: ListenOptions,
  accept: (transport: Transport) => void,
): Promise<Listener> {
  const listener = await Promise.resolve().then(() => sockets.listen({ hostname, port }));
  let closed = false;
  const take = (conn: TcpConn) => {
    // It may have come in the same turn.
    if (closed) return closeQuietly(conn);
    try {
      conn.setNoDelay(true);
    } catch {
      // On some platforms a socket whose peer has gone again takes no options.
      return closeQuietly(conn);
    }
    accept(new DenoTransport(conn, false));
  };
  const next = () => listener.accept();
  const finished = acceptAll(next, take, (error) => closed || onError(error), () => closed);
  const close = () => {
    closed = true;
    closeQuietly(listener);
    return finished;
  };
  return { address: addressOf(listener.addr), close };
}

function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => timer(resolve, milliseconds));
}

async function acceptAll<C>(
  next: () => Promise<C>,
  accept: (conn: C) => void,
  onError: (error: Error) => void,
  isClosed: () => boolean,
): Promise<void> {
  while (!isClosed()) {
    try {
      accept(await next());
    } catch (error) {
      // A peer that was gone again before: its address is asked for in vain.
      if ((error as { code?: string }).code === "ENOTCONN") continue;
      onError(error as Error);
      // Such as too many open files: it may pass.
      if (!isClosed()) await delay(100);
    }
  }
}

function listen(
  options: ListenOptions,
  accept: (transport: Transport) => void,
): Promise<Listener> {
  if (options.tls !== undefined) return listenTls(options, accept);
  // Deno's own sockets have `reusePort` with a flag only.
  const { unix, reusePort } = options;
  if (unix !== undefined || reusePort) return nodeProvider.listen(options, accept);
  return listenTcp(options, accept);
}

/** TLS, and TCP that is accepted, by Deno; TCP that is dialled and Unix sockets by `node:net`. */
export const denoProvider: TransportProvider = {
  ...nodeProvider,
  textCodec: denoTextCodec,
  connect: (options) =>
    options.tls === undefined && options.tunnel?.tls === undefined
      ? nodeProvider.connect(options)
      : dialTls(options),
  listen,
};
