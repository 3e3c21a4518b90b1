/**
 * Transports over `node:net`, which Node, Bun and Deno have.
 *
 * @module
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import type {
  Address,
  DialOptions,
  Listener,
  ListenOptions,
  Transport,
  TransportHandlers,
  TransportProvider,
} from "../transport.ts";
import { nodeTextCodec } from "./node_text.ts";

/** A socket as a {@linkcode Transport}. It must have been made with `allowHalfOpen`. */
export class NodeTransport implements Transport {
  readonly #socket: Socket;
  readonly #local: Address | undefined;
  readonly #remote: Address | undefined;
  #handlers: TransportHandlers | undefined;
  #error: Error | undefined;
  /** Made once: a closure for every write would be garbage for every batch. */
  readonly #written = () => {
    if (this.#socket.writableLength === 0) this.#handlers?.drain();
  };

  /**
   * @param socket a connected socket
   * @param ends the addresses that the socket does not know itself: those of a Unix socket
   */
  constructor(socket: Socket, ends: { local?: Address; remote?: Address } = {}) {
    this.#socket = socket;
    this.#local = ends.local;
    this.#remote = ends.remote;
    socket.setNoDelay(true);
    // An error may come before anybody handles this transport.
    socket.on("error", (error) => this.#error = error);
  }

  get localAddress(): Address | undefined {
    return this.#local ?? tcpAddress(this.#socket.localAddress, this.#socket.localPort);
  }

  get remoteAddress(): Address | undefined {
    return this.#remote ?? tcpAddress(this.#socket.remoteAddress, this.#socket.remotePort);
  }

  get bufferedAmount(): number {
    return this.#socket.writableLength;
  }

  handle(handlers: TransportHandlers): void {
    const first = this.#handlers === undefined;
    this.#handlers = handlers;
    if (!first) return;
    const socket = this.#socket;
    if (socket.destroyed) {
      queueMicrotask(() => this.#handlers!.close(this.#error));
      return;
    }
    socket.on("data", (chunk: Uint8Array) => this.#handlers!.data(chunk));
    socket.on("end", () => this.#handlers!.end());
    socket.on("close", () => this.#handlers!.close(this.#error));
  }

  write(parts: readonly Uint8Array[]): void {
    const socket = this.#socket;
    if (!socket.writable) return;
    if (parts.length === 1) {
      socket.write(parts[0], this.#written);
      return;
    }
    socket.cork();
    for (let i = 0; i < parts.length - 1; i++) socket.write(parts[i]);
    socket.write(parts[parts.length - 1], this.#written);
    socket.uncork();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

function tcpAddress(hostname: string | undefined, port: number | undefined): Address | undefined {
  if (hostname === undefined || port === undefined) return undefined;
  return { transport: "tcp", hostname, port };
}

function unixAddress(path: string | undefined): Address | undefined {
  return path === undefined ? undefined : { transport: "unix", path };
}

function placeOf(
  host: string,
  port: number,
  path: string | undefined,
): { path: string } | { host: string; port: number } {
  return path === undefined ? { host, port } : { path };
}

/** Connects over TCP or a Unix socket. */
function dial({ hostname, port, path, signal }: DialOptions): Promise<Transport> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const socket = connect({ ...placeOf(hostname, port, path), allowHalfOpen: true });
    const abort = () => {
      socket.destroy();
      reject(signal!.reason);
    };
    const settle = () => signal?.removeEventListener("abort", abort);
    signal?.addEventListener("abort", abort, { once: true });
    socket.once("connect", () => {
      settle();
      socket.removeListener("error", reject);
      resolve(new NodeTransport(socket, { remote: unixAddress(path) }));
    });
    socket.once("error", reject);
    socket.once("error", settle);
  });
}

/** Listens on TCP or a Unix socket. */
function listen(
  { hostname, port, path, onError = () => {} }: ListenOptions,
  accept: (transport: Transport) => void,
): Promise<Listener> {
  return new Promise((resolve, reject) => {
    const server = createServer(
      { allowHalfOpen: true },
      (socket) => accept(new NodeTransport(socket, { local: unixAddress(path) })),
    );
    server.once("error", reject);
    server.listen(placeOf(hostname, port, path), () => {
      server.removeListener("error", reject);
      server.on("error", onError);
      resolve({ address: boundAddress(server), close: () => close(server) });
    });
  });
}

function boundAddress(server: Server): Address {
  const bound = server.address();
  if (typeof bound === "string") return { transport: "unix", path: bound };
  if (bound === null) throw new TypeError("Expected an address, the server has none");
  return { transport: "tcp", hostname: bound.address, port: bound.port };
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}

/** TCP and Unix sockets by way of `node:net`. */
export const nodeProvider: TransportProvider = {
  connect: dial,
  listen,
  textCodec: nodeTextCodec,
};
