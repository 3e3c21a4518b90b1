/** Minimal proxies for the tests: HTTP and SOCKS 5. */
import { type AddressInfo, connect as connectSocket, createServer, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import type { Certificate } from "./certificates.ts";

/** A running proxy. */
export interface RunningProxy {
  port: number;
  /** The requests received: the head of each CONNECT, or the host and port in the SOCKS request. */
  asked: string[];
}

/** Reads a socket piece by piece. */
class Reader {
  readonly #socket: Socket;
  #bytes: Uint8Array = new Uint8Array(0);
  #more: Promise<void>;
  #wake!: () => void;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.#more = new Promise((resolve) => this.#wake = resolve);
    socket.on("data", this.#onData);
  }

  readonly #onData = (chunk: Uint8Array) => {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    this.#wake();
    this.#more = new Promise((resolve) => this.#wake = resolve);
  };

  /**
   * Takes this many bytes, or the number that the function returns for the buffered bytes. 0 waits for more.
   */
  async take(length: number | ((bytes: Uint8Array) => number)): Promise<Uint8Array> {
    const wanted = typeof length === "number" ? () => length : length;
    for (;;) {
      const count = wanted(this.#bytes);
      if (count > 0 && this.#bytes.length >= count) {
        const taken = this.#bytes.slice(0, count);
        this.#bytes = this.#bytes.slice(count);
        return taken;
      }
      await this.#more;
    }
  }

  release(): void {
    this.#socket.pause();
    this.#socket.off("data", this.#onData);
  }
}

function endOfHead(bytes: Uint8Array): number {
  return Buffer.from(bytes).indexOf("\r\n\r\n") + 1 && Buffer.from(bytes).indexOf("\r\n\r\n") + 4;
}

/** Connects to a server, and passes bytes on in both directions. */
function join(socket: Socket, host: string, port: number, answer: Uint8Array | string): void {
  const server = connectSocket({ host, port, allowHalfOpen: true }, () => {
    socket.write(answer);
    socket.pipe(server);
    server.pipe(socket);
  });
  server.on("error", () => socket.destroy());
  server.on("close", () => socket.destroy());
  socket.on("close", () => server.destroy());
}

async function serveHttp(socket: Socket, asked: string[]): Promise<void> {
  const reader = new Reader(socket);
  const head = Buffer.from(await reader.take(endOfHead)).toString("latin1");
  asked.push(head);
  reader.release();
  const [, host, port] = /^CONNECT (.*):(\d+) HTTP\/1.1\r\n/.exec(head)!;
  // Interim responses may come first. The whole answer has exactly the size that a client may read at once.
  const answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Filler: ";
  const filler = ".".repeat(512 - answer.length - 4);
  join(socket, host.replace(/^\[(.*)\]$/, "$1"), Number(port), `${answer}${filler}\r\n\r\n`);
}

async function serveSocks(socket: Socket, asked: string[]): Promise<void> {
  const reader = new Reader(socket);
  const [, count] = await reader.take(2);
  const methods = [...await reader.take(count)];
  let user = "";
  if (methods.includes(2)) {
    socket.write(Uint8Array.of(5, 2));
    const text = async () => Buffer.from(await reader.take((await reader.take(1))[0])).toString();
    await reader.take(1);
    user = `${await text()}:${await text()}@`;
    socket.write(Uint8Array.of(1, 0));
  } else {
    socket.write(Uint8Array.of(5, 0));
  }
  const [, , , type] = await reader.take(4);
  const length = type === 1 ? 4 : type === 4 ? 16 : (await reader.take(1))[0];
  const address = await reader.take(length);
  const [high, low] = await reader.take(2);
  const host = type === 1
    ? [...address].join(".")
    : type === 3
    ? Buffer.from(address).toString()
    : `[${Buffer.from(address).toString("hex")}]`;
  asked.push(`${user}${type === 3 ? "name " : ""}${host}:${high * 256 + low}`);
  reader.release();
  // The address that the proxy connects from, as a name.
  const answer = Uint8Array.of(5, 0, 0, 3, 1, 97, 1, 2);
  join(socket, host.startsWith("[") ? "::1" : host, high * 256 + low, answer);
}

/** Runs a test with a proxy. With a certificate the proxy uses TLS. */
export async function withProxy(
  kind: "http" | "socks5",
  run: (proxy: RunningProxy) => Promise<unknown>,
  certificate?: Certificate,
): Promise<void> {
  const serve = kind === "http" ? serveHttp : serveSocks;
  const asked: string[] = [];
  await withSockets(
    (socket) => void serve(socket, asked),
    (port) => run({ port, asked }),
    certificate,
  );
}

/** Runs a test with a server of sockets. */
async function withSockets(
  onSocket: (socket: Socket) => void,
  run: (port: number) => Promise<unknown>,
  certificate?: Certificate,
): Promise<void> {
  const sockets = new Set<Socket>();
  const accept = (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    onSocket(socket);
  };
  const server = certificate === undefined
    ? createServer({ allowHalfOpen: true }, accept)
    : createTlsServer({ ...certificate }, accept);
  await new Promise<void>((resolve) => server.listen({ host: "127.0.0.1", port: 0 }, resolve));
  try {
    await run((server.address() as AddressInfo).port);
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}
