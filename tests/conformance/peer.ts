/** The other end of a connection: raw frames over a socket or over a line in memory. */
import { createHash } from "node:crypto";
import type { Socket } from "node:net";
import { type Frame, FrameDecoder, Opcode, type Role } from "../../lib/core/mod.ts";
import type { Transport } from "../../lib/transport.ts";
import { concat, latin1 } from "../bytes.ts";

/** Carries the bytes of a peer. */
export interface Line {
  write(bytes: Uint8Array): void;
  end(): void;
  destroy(): void;
  handle(handlers: LineHandlers): void;
}

interface LineHandlers {
  data(chunk: Uint8Array): void;
  end(): void;
  close(): void;
}

/** Makes a line of a socket that was created with `allowHalfOpen`. */
export function socketLine(socket: Socket): Line {
  socket.setNoDelay(true);
  socket.on("error", () => {});
  return {
    write: (bytes) => void socket.write(bytes),
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
    handle: ({ data, end, close }) => socket.on("data", data).on("end", end).on("close", close),
  };
}

/** Makes a line of one end of a pair in memory. */
export function memoryLine(transport: Transport): Line {
  return {
    write: (bytes) => transport.write([bytes]),
    end: () => transport.end(),
    destroy: () => transport.destroy(),
    handle: (handlers) => transport.handle({ ...handlers, drain: () => {} }),
  };
}

/** Collects bytes into whole frames. */
export class FrameCollector {
  readonly #decoder: FrameDecoder;
  #parts: Uint8Array[] = [];

  /** @param role Role of the receiver */
  constructor(role: Role) {
    this.#decoder = new FrameDecoder({ role });
  }

  /** Takes bytes, and returns the frames that they complete. */
  push(bytes: Uint8Array): Frame[] {
    const frames: Frame[] = [];
    this.#decoder.push(bytes.slice());
    for (let piece = this.#decoder.next(); piece !== undefined; piece = this.#decoder.next()) {
      this.#parts.push(piece.payload);
      if (!piece.last) continue;
      const { fin, rsv, opcode } = piece.header;
      frames.push({ fin, rsv, opcode: opcode as Opcode, payload: concat(this.#parts) });
      this.#parts = [];
    }
    return frames;
  }
}

/** Time limit in milliseconds, so that a test which waits in vain ends with the frames that came. */
const WATCHDOG = 20_000;
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const REQUEST = [
  "GET / HTTP/1.1",
  "Host: localhost",
  "Upgrade: websocket",
  "Connection: Upgrade",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  "Sec-WebSocket-Version: 13",
];

/** A peer that sends what it is told to send, and records the frames that it receives. */
export class Peer {
  /** The frames received. */
  readonly frames: Frame[] = [];
  readonly #role: Role;
  readonly #line: Line;
  readonly #collector: FrameCollector;
  #head = "";
  #headRead: boolean;
  #ended = false;
  #closed = false;
  /** The error in the frames received. */
  #failure: unknown;
  #wake = () => {};
  readonly #watchdog: ReturnType<typeof setTimeout>;

  /** @param options Whether the opening handshake comes first. Default: true */
  constructor(role: Role, line: Line, { handshake = true } = {}) {
    this.#role = role;
    this.#line = line;
    this.#collector = new FrameCollector(role);
    this.#headRead = !handshake;
    this.#watchdog = setTimeout(() => line.destroy(), WATCHDOG);
    line.handle({
      data: (chunk) => this.#onData(chunk),
      end: () => {
        this.#ended = true;
        this.#wake();
      },
      close: () => {
        clearTimeout(this.#watchdog);
        this.#ended = this.#closed = true;
        this.#wake();
      },
    });
  }

  #onData(chunk: Uint8Array): void {
    if (this.#headRead) this.#read(chunk);
    else this.#readHead(chunk);
    this.#wake();
  }

  #readHead(chunk: Uint8Array): void {
    this.#head += String.fromCharCode(...chunk);
    const end = this.#head.indexOf("\r\n\r\n");
    if (end < 0) return;
    this.#headRead = true;
    const rest = latin1(this.#head.slice(end + 4));
    this.#head = this.#head.slice(0, end);
    this.#read(rest);
  }

  #read(chunk: Uint8Array): void {
    try {
      this.frames.push(...this.#collector.push(chunk));
    } catch (error) {
      this.#failure ??= error;
      this.#line.destroy();
    }
  }

  /** Performs the opening handshake. */
  async open(): Promise<void> {
    if (this.#role === "client") this.write(head(REQUEST));
    await this.#until(() => this.#headRead);
    if (this.#role === "server") return this.#answer();
    if (!this.#head.startsWith("HTTP/1.1 101 ")) throw new Error(`Expected 101, got ${this.#head}`);
  }

  #answer(): void {
    const key = /^Sec-WebSocket-Key: (.*)$/m.exec(this.#head)?.[1].trim();
    const accept = createHash("sha1").update(`${key}${GUID}`).digest("base64");
    this.write(head([
      "HTTP/1.1 101 Switching Protocols",
      "Upgrade: websocket",
      "Connection: Upgrade",
      `Sec-WebSocket-Accept: ${accept}`,
    ]));
  }

  /** Sends bytes unchanged. */
  write(bytes: Uint8Array): void {
    this.#line.write(bytes);
  }

  /** Ends the peer's side. */
  end(): void {
    this.#line.end();
  }

  /** Waits until `count` frames have arrived in total, or no more can arrive. */
  async received(count: number): Promise<void> {
    const enough = () => this.frames.length >= count || this.frames.at(-1)?.opcode === Opcode.Close;
    await this.#until(() => enough() || this.#ended);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Ends the transport. A client waits for the server to end it first (RFC 6455 §7.1.1). */
  async finish(): Promise<void> {
    if (this.#role === "client") await this.#until(() => this.#ended);
    this.end();
    await this.#until(() => this.#closed);
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.#closed) throw new Error("Expected the line to be open, it is closed");
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}

function head(lines: readonly string[]): Uint8Array {
  return latin1([...lines, "", ""].join("\r\n"));
}
