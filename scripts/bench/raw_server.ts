/**
 * The server for the measured clients. It knows the length of their frames, counts bytes, and answers
 * with frames that were made in advance, so that the client does most of the work. A connection to
 * `/verify` gets its own messages back instead.
 */
import { createHash } from "node:crypto";
import { createServer, type Server, type Socket } from "node:net";
import { concat, encode, firstByteOf, type MessageType, payloadOf } from "./frames.ts";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** Describes the messages of the clients. */
export interface RawServerOptions {
  type: MessageType;
  /** Size of each message, in bytes. */
  size: number;
}

/** A TCP server that answers each message with one of the same size. */
export class RawServer {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(options: RawServerOptions) {
    const fixed = new FixedSize(options);
    this.#server = createServer({ noDelay: true }, (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      // A client may end its connection without a close.
      socket.on("error", () => {});
      socket.once("data", (head: Uint8Array) => fixed.serve(socket, head));
    });
  }

  static async listen(options: RawServerOptions): Promise<RawServer> {
    const raw = new RawServer(options);
    await new Promise<void>((resolve) => raw.#server.listen(0, "127.0.0.1", resolve));
    return raw;
  }

  get port(): number {
    const address = this.#server.address();
    if (typeof address === "object" && address) return address.port;
    throw new Error("The server is not listening");
  }

  close() {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** Answers messages of one size. */
class FixedSize {
  readonly #options: RawServerOptions;
  readonly #reply: Uint8Array;
  /** Size of a received frame, in bytes. A client's frame has a masking key. */
  readonly #sentSize: number;
  /** Several replies in a row: as many as fit into 64 KiB, but at least one. */
  readonly #replies: Uint8Array;

  constructor(options: RawServerOptions) {
    this.#options = options;
    this.#reply = encode(firstByteOf(options.type), payloadOf(options.size), false);
    this.#sentSize = this.#reply.length + 4;
    const count = Math.ceil(65536 / this.#reply.length);
    this.#replies = concat(Array.from({ length: count }, () => this.#reply));
  }

  serve(socket: Socket, head: Uint8Array) {
    const request = new TextDecoder("latin1").decode(head);
    const key = /^sec-websocket-key: *(.*?) *$/im.exec(request)?.[1];
    const accept = createHash("sha1").update(`${key}${GUID}`).digest("base64");
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
        `Sec-WebSocket-Accept: ${accept}\r\n\r\n`,
    );
    if (request.startsWith("GET /verify ")) this.#echo(socket);
    else this.#answer(socket);
  }

  #answer(socket: Socket) {
    let partial = 0;
    socket.on("data", (chunk: Uint8Array) => {
      partial += chunk.length;
      let came = Math.floor(partial / this.#sentSize);
      partial -= came * this.#sentSize;
      const most = this.#replies.length / this.#reply.length;
      for (; came > 0; came -= most) {
        socket.write(this.#replies.subarray(0, Math.min(came, most) * this.#reply.length));
      }
    });
  }

  #echo(socket: Socket) {
    const headSize = this.#reply.length - this.#options.size;
    let bytes: Uint8Array = new Uint8Array(0);
    socket.on("data", (chunk: Uint8Array) => {
      bytes = concat([bytes, chunk]);
      for (; bytes.length >= this.#sentSize; bytes = bytes.subarray(this.#sentSize)) {
        // A Close frame, or a frame of another size, is not a message.
        if (bytes[0] !== this.#reply[0]) return socket.end();
        const key = bytes.subarray(headSize, headSize + 4);
        const payload = bytes.subarray(headSize + 4, this.#sentSize);
        socket.write(encode(bytes[0], payload.map((byte, i) => byte ^ key[i & 3]), false));
      }
      if (bytes.length > 0 && bytes[0] !== this.#reply[0]) socket.end();
    });
  }
}
