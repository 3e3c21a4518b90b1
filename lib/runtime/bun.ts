/**
 * Bun's own sockets, which cost less than `node:net`'s do. Connecting is left to `node:net`, for what
 * `Bun.connect()` has begun cannot be given up; the socket beneath it is taken over then.
 *
 * A file of its own because nothing of it is known elsewhere. Of Bun's types it declares the few that
 * it needs: the package is compiled without them.
 *
 * @module
 */
import { deadline } from "../timers.ts";
import type {
  Listener,
  ListenOptions,
  TlsServeOptions,
  Transport,
  TransportProvider,
} from "../transport.ts";
import {
  type BunSocket,
  BunTransport,
  HANDLERS,
  LocalEnds,
  type SocketHandlers,
  tcpAddress,
} from "./bun_transport.ts";
import { checkUnixPath, dial, nodeProvider, type NodeTransport } from "./node.ts";

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

/** What listens, as the options say. */
function listen(options: ListenOptions, accept: (transport: Transport) => void): Listener {
  const { hostname, port, unix: path, tls, reusePort } = options;
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
        else if (!shaking.begin(socket)) socket.close();
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
  readonly #admit: NonNullable<ListenOptions["admit"]>;
  /** The function that ends each handshake. */
  readonly #ends = new Map<BunSocket, () => void>();

  constructor({ handshakeTimeout = 10_000, admit = () => () => {} }: ListenOptions) {
    this.#timeout = handshakeTimeout;
    this.#admit = admit;
  }

  /** Returns false if there is no place for the client. */
  begin(socket: BunSocket): boolean {
    const leave = this.#admit(socket.data.remoteAddress);
    if (leave === undefined) return false;
    const cancelDeadline = deadline(() => socket.close(), this.#timeout || Infinity);
    this.#ends.set(socket, () => {
      cancelDeadline();
      leave();
    });
    return true;
  }

  has(socket: BunSocket): boolean {
    return this.#ends.has(socket);
  }

  end(socket: BunSocket): void {
    this.#ends.get(socket)?.();
    this.#ends.delete(socket);
  }

  cut(): void {
    for (const socket of [...this.#ends.keys()]) socket.close();
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
