/**
 * Echoes bytes over the fastest sockets of the runtime: the upper limit for every message server.
 */
import { createServer, type Socket } from "node:net";
import type { TlsServeOptions } from "../../mod.ts";

const HOSTNAME = "127.0.0.1";
/** The response that the load waits for before it starts. */
const HEAD = new TextEncoder().encode("HTTP/1.1 101 Switching Protocols\r\n\r\n");

interface BunSocket {
  data: { open: boolean; rest: Uint8Array[] };
  write(bytes: Uint8Array): number;
  pause(): void;
  resume(): void;
}

/** The parts of Bun that this file uses. */
interface Bun {
  listen(options: {
    hostname: string;
    port: number;
    tls?: TlsServeOptions;
    socket: {
      open(socket: BunSocket): void;
      data(socket: BunSocket, chunk: Uint8Array): void;
      close(socket: BunSocket): void;
      drain(socket: BunSocket): void;
      error(): void;
    };
  }): { port: number };
}

/**
 * Starts a server that echoes bytes, and returns its port.
 *
 * @param isFanOut Whether the bytes of one connection are sent to all connections.
 * @param tls The certificate and key, if the bytes are encrypted.
 */
export async function serveTcp(isFanOut: boolean, tls?: TlsServeOptions): Promise<number> {
  const { Bun } = globalThis as { Bun?: Bun };
  if (Bun !== undefined) return serveBun(Bun, isFanOut, tls);
  const all = new Set<Socket>();
  const echo = (socket: Socket) => {
    socket.once("data", () => {
      socket.write(HEAD);
      all.add(socket);
      socket.on("data", (chunk) => {
        if (!isFanOut) return void (socket.write(chunk) || socket.pause());
        for (const other of all) other.write(chunk);
      });
      socket.on("drain", () => socket.resume());
    });
    socket.on("error", () => {});
    socket.on("close", () => all.delete(socket));
  };
  const server = tls === undefined
    ? createServer({ noDelay: true }, echo)
    : (await import("node:tls")).createServer({ noDelay: true, ...tls }, echo);
  await new Promise<void>((resolve) => server.listen({ host: HOSTNAME, port: 0 }, resolve));
  const address = server.address();
  if (typeof address === "object" && address) return address.port;
  throw new TypeError("Expected an address with a port");
}

function serveBun(bun: Bun, isFanOut: boolean, tls: TlsServeOptions | undefined): number {
  const all = new Set<BunSocket>();
  const send = (socket: BunSocket, bytes: Uint8Array) => {
    const written = Math.max(0, socket.write(bytes));
    if (written === bytes.length) return;
    // A chunk is valid only in its callback.
    socket.data.rest.push(bytes.slice(written));
    socket.pause();
  };
  const echo = (socket: BunSocket, chunk: Uint8Array) => {
    if (socket.data.rest.length > 0) socket.data.rest.push(chunk.slice());
    else send(socket, chunk);
  };
  const echoToAll = (chunk: Uint8Array) => {
    for (const other of all) echo(other, chunk);
  };
  return bun.listen({
    hostname: HOSTNAME,
    port: 0,
    tls,
    socket: {
      open: (socket) => void (socket.data = { open: false, rest: [] }),
      data(socket, chunk) {
        if (socket.data.open) return isFanOut ? echoToAll(chunk) : echo(socket, chunk);
        socket.data.open = true;
        all.add(socket);
        send(socket, HEAD);
      },
      close: (socket) => void all.delete(socket),
      drain(socket) {
        const rest = socket.data.rest.splice(0);
        for (const bytes of rest) echo(socket, bytes);
        if (socket.data.rest.length === 0) socket.resume();
      },
      error: () => {},
    },
  }).port;
}
