/** A proxy between real sockets that fails, splits and delays, as networks do. */
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** A fault of a connection. */
export interface ProxyFault {
  /** The side whose bytes are counted. */
  from: "client" | "server";
  /** The number of bytes that pass before the fault. */
  after: number;
  /**
   * The fault: "cut" ends both sockets, "half-close" ends this direction, "reset" resets both sockets, and
   * with "silence" no more bytes pass.
   */
  how: "cut" | "half-close" | "reset" | "silence";
}

/** How the proxy passes bytes on. */
export interface ProxyOptions {
  /** The fault. Default: none */
  fault?: ProxyFault;
  /** The most bytes to write at once. Default: as many as were read */
  chunkSize?: number;
  /** The delay of each chunk, in milliseconds. Default: 0 */
  delay?: number;
}

/** A proxy that listens. */
export class Proxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Listens on a free port, and connects to another port of this machine. */
  static async to(port: number, options: ProxyOptions): Promise<Proxy> {
    const server = createServer({ allowHalfOpen: true });
    const proxy = new Proxy(server);
    server.on("connection", (near) => {
      const far = connect({ host: "127.0.0.1", port, allowHalfOpen: true });
      for (const socket of [near, far]) {
        proxy.#sockets.add(socket);
        socket.setNoDelay(true);
        socket.on("error", () => {});
        socket.on("close", () => proxy.#sockets.delete(socket));
      }
      new Wire(near, far, options);
    });
    await new Promise<void>((resolve) => server.listen({ host: "127.0.0.1", port: 0 }, resolve));
    return proxy;
  }

  /** The port that the proxy listens on. */
  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Accepts no more connections, and cuts the open ones. */
  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}

/** Two sockets, and the bytes that pass between them. */
class Wire {
  readonly #near: Socket;
  readonly #far: Socket;
  readonly #options: ProxyOptions;
  #broken = false;

  constructor(near: Socket, far: Socket, options: ProxyOptions) {
    this.#near = near;
    this.#far = far;
    this.#options = options;
    this.#carry(near, far, "client");
    this.#carry(far, near, "server");
  }

  #carry(from: Socket, to: Socket, side: ProxyFault["from"]): void {
    const { fault, chunkSize = Infinity, delay = 0 } = this.#options;
    let left = fault?.from === side ? fault.after : Infinity;
    let muted = false;
    // Each chunk is sent after the previous one.
    let passed = Promise.resolve();
    const behind = (act: () => void) => {
      passed = passed.then(async () => {
        if (delay > 0) await new Promise((resolve) => setTimeout(resolve, delay));
        act();
      });
    };
    from.on("data", (chunk: Uint8Array) => {
      for (let at = 0; at < chunk.length && !muted && !this.#broken; at += chunkSize) {
        const piece = chunk.slice(at, Math.min(chunk.length, at + Math.min(chunkSize, left)));
        left -= piece.length;
        if (piece.length > 0) behind(() => !to.destroyed && to.write(piece));
        if (left > 0) continue;
        muted = true;
        behind(() => this.#break(fault!, to));
        break;
      }
    });
    from.on("end", () => !muted && !this.#broken && behind(() => to.end()));
    from.on("close", () => !muted && !this.#broken && behind(() => to.destroy()));
  }

  #break({ how }: ProxyFault, to: Socket): void {
    if (how === "half-close") return void to.end();
    this.#broken = true;
    if (how === "silence") return;
    for (const socket of [this.#near, this.#far]) {
      if (how === "reset") socket.resetAndDestroy();
      else socket.end();
    }
  }
}
