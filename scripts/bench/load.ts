/**
 * The load: raw sockets that send masked frames made in advance and count the bytes that come back,
 * so that the process that is measured is the one that has to work.
 */
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";

/** What is sent. */
export interface LoadOptions {
  type: "text" | "binary";
  /** Bytes of each message. */
  size: number;
  connections: number;
  /** Messages on their way at a time, on each connection. */
  inFlight: number;
  /** Whether the connections are encrypted. */
  tls: boolean;
  /** How messages are compressed; undefined: they are not. */
  deflate: "deflate" | "deflate-each" | undefined;
  /** Whether what comes back is masked still, from a server that knows no frames. */
  raw?: boolean;
}

const HANDSHAKE = [
  "GET / HTTP/1.1",
  "Host: 127.0.0.1",
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  "\r\n",
].join("\r\n");

/** Connections to one server. */
export class Load {
  readonly #lanes: Lane[];
  readonly #options: LoadOptions;

  private constructor(lanes: Lane[], options: LoadOptions) {
    this.#lanes = lanes;
    this.#options = options;
  }

  /** Connect, and check that a message comes back as it was sent. */
  static async connect(port: number, options: LoadOptions): Promise<Load> {
    const lanes: Lane[] = [];
    for (let i = 0; i < options.connections; i++) lanes.push(await Lane.open(port, options));
    return new Load(lanes, options);
  }

  /** Have at least so many messages echoed; gives their exact number. */
  async run(messages: number): Promise<number> {
    const { connections, inFlight } = this.#options;
    const each = Math.max(inFlight, Math.ceil(messages / connections));
    await Promise.all(this.#lanes.map((lane) => lane.run(each)));
    return each * connections;
  }

  close() {
    for (const lane of this.#lanes) lane.close();
  }
}

/** One connection. */
class Lane {
  readonly #socket: Socket;
  /** As many masked frames as may be on their way, one behind the other. */
  readonly #frames: Uint8Array;
  readonly #sentSize: number;
  readonly #echoSize: number;
  #onData: (chunk: Uint8Array) => void = () => {};
  #fail: (error: Error) => void = () => {};
  /** Why there will be no more echoes. */
  #error: Error | undefined;

  private constructor(socket: Socket, { type, size, inFlight, raw = false }: LoadOptions) {
    const frame = encode(type, payloadOf(size), true);
    this.#socket = socket;
    this.#sentSize = frame.length;
    this.#echoSize = raw ? frame.length : frame.length - 4;
    this.#frames = new Uint8Array(inFlight * frame.length);
    for (let i = 0; i < inFlight; i++) this.#frames.set(frame, i * frame.length);
    socket.on("data", (chunk: Uint8Array) => this.#onData(chunk));
    socket.on("error", (error) => this.#end(error));
    socket.on("close", () => this.#end(new Error("The server has ended the connection")));
  }

  #end(error: Error) {
    this.#error ??= error;
    this.#fail(this.#error);
  }

  static async open(port: number, options: LoadOptions): Promise<Lane> {
    const place = { host: "127.0.0.1", port };
    const socket = options.tls
      ? connectTls({ ...place, rejectUnauthorized: false })
      : connect({ ...place, noDelay: true });
    const lane = new Lane(socket, options);
    await lane.#open(encode(options.type, payloadOf(options.size), options.raw ?? false));
    return lane;
  }

  async #open(expected: Uint8Array) {
    this.#socket.write(HANDSHAKE);
    const head = await this.#receive((bytes) => endOfHead(bytes) > 0);
    if (!ascii(head).startsWith("HTTP/1.1 101 ")) throw new Error(`Refused: ${ascii(head)}`);
    this.#socket.write(this.#frames.subarray(0, this.#sentSize));
    const echo = await this.#receive((bytes) => bytes.length >= expected.length);
    const equal = echo.length === expected.length && echo.every((byte, i) => byte === expected[i]);
    if (!equal) throw new Error("Expected the message to come back as it was sent");
  }

  /** Gather what comes until it is enough. */
  #receive(enough: (bytes: Uint8Array) => boolean): Promise<Uint8Array> {
    let bytes = new Uint8Array(0);
    return new Promise((resolve, reject) => {
      this.#fail = reject;
      this.#onData = (chunk) => {
        const longer = new Uint8Array(bytes.length + chunk.length);
        longer.set(bytes);
        longer.set(chunk, bytes.length);
        bytes = longer;
        if (enough(bytes)) resolve(bytes);
      };
    });
  }

  /** Have so many messages echoed: each that comes back is followed by another one. */
  run(messages: number): Promise<void> {
    if (this.#error !== undefined) return Promise.reject(this.#error);
    const inFlight = this.#frames.length / this.#sentSize;
    let toSend = messages - inFlight;
    let missing = messages;
    let partial = 0;
    return new Promise((resolve, reject) => {
      this.#fail = reject;
      this.#onData = (chunk) => {
        partial += chunk.length;
        const echoed = Math.floor(partial / this.#echoSize);
        partial -= echoed * this.#echoSize;
        missing -= echoed;
        const next = Math.min(echoed, toSend);
        toSend -= next;
        if (next > 0) this.#socket.write(this.#frames.subarray(0, next * this.#sentSize));
        if (missing === 0) resolve();
      };
      this.#socket.write(this.#frames);
    });
  }

  close() {
    this.#fail = () => {};
    this.#socket.destroy();
  }
}

function payloadOf(size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, i) => 97 + i % 26);
}

/** One frame (RFC 6455 §5.2). */
function encode(type: LoadOptions["type"], payload: Uint8Array, masked: boolean): Uint8Array {
  const { length } = payload;
  const mask = masked ? 0x80 : 0;
  const key = masked ? [0x37, 0xfa, 0x21, 0x3d] : [];
  const first = type === "text" ? 0x81 : 0x82;
  const head = length < 126
    ? [first, mask | length]
    : length < 65536
    ? [first, mask | 126, length >> 8, length & 255]
    : [first, mask | 127, 0, 0, 0, 0, ...[24, 16, 8, 0].map((shift) => length >> shift & 255)];
  const body = masked ? payload.map((byte, i) => byte ^ key[i & 3]) : payload;
  return new Uint8Array([...head, ...key, ...body]);
}

function endOfHead(bytes: Uint8Array): number {
  return ascii(bytes).indexOf("\r\n\r\n");
}

function ascii(bytes: Uint8Array): string {
  return new TextDecoder("latin1").decode(bytes);
}
