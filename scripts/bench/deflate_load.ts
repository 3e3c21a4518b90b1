/**
 * The load for compressed messages: as `load.ts`, but the echoes differ in length, since the server
 * refers to what it has sent before. So frames are counted, not bytes.
 */
import { Buffer } from "node:buffer";
import { connect, type Socket } from "node:net";
import { constants, deflateRawSync, inflateRawSync } from "node:zlib";
import type { LoadOptions } from "./load.ts";

const HANDSHAKE = [
  "GET / HTTP/1.1",
  "Host: 127.0.0.1",
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  "Sec-WebSocket-Extensions: permessage-deflate",
  "\r\n",
].join("\r\n");

const finishFlush = constants.Z_SYNC_FLUSH;
const KEY = [0x37, 0xfa, 0x21, 0x3d];
/** So many messages differ from each other. */
const VARIETY = 64;
const WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu".split(" ");

/** JSON as services send it: like the others in its form, unlike in its values. */
function json(size: number, seed: number): string {
  let state = seed + 1;
  const random = () => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) / 2 ** 32;
  const word = () => WORDS[Math.floor(random() * WORDS.length)];
  let text = "[";
  while (text.length < size) {
    text += JSON.stringify({
      id: Math.floor(random() * 1e6),
      name: `${word()} ${word()}`,
      active: random() > 0.5,
      score: random() * 100,
    }) + ",";
  }
  return text.slice(0, size);
}

/** A masked frame; what it holds refers to no other message, which a server cannot tell before. */
function frameOf(text: string): Uint8Array {
  const payload = deflateRawSync(text, { finishFlush, memLevel: 8 }).subarray(0, -4);
  const { length } = payload;
  const head = length < 126
    ? [0xc1, 0x80 | length]
    : length < 65536
    ? [0xc1, 0x80 | 126, length >> 8, length & 255]
    : [0xc1, 0x80 | 127, 0, 0, 0, 0, ...[24, 16, 8, 0].map((shift) => length >> shift & 255)];
  return new Uint8Array([...head, ...KEY, ...payload.map((byte, i) => byte ^ KEY[i & 3])]);
}

/** Counts whole frames in what comes. */
class FrameCounter {
  #head = Buffer.alloc(0);
  #left = 0;

  push(chunk: Uint8Array): number {
    let frames = 0;
    let bytes = Buffer.concat([this.#head, chunk]);
    for (;;) {
      const taken = Math.min(this.#left, bytes.length);
      bytes = bytes.subarray(taken);
      this.#left -= taken;
      if (taken > 0 && this.#left === 0) frames++;
      const length = bytes.length < 2 ? 2 : (bytes[1] & 127) < 126 ? 2 : bytes[1] === 126 ? 4 : 10;
      if (this.#left > 0 || bytes.length < length) break;
      this.#left = length === 2
        ? bytes[1]
        : length === 4
        ? bytes.readUInt16BE(2)
        : Number(bytes.readBigUInt64BE(2));
      bytes = bytes.subarray(length);
    }
    this.#head = this.#left > 0 ? Buffer.alloc(0) : Buffer.from(bytes);
    return frames;
  }
}

/** Connections to one server, which send compressed messages. */
export class DeflateLoad {
  readonly #lanes: Lane[];
  readonly #options: LoadOptions;

  private constructor(lanes: Lane[], options: LoadOptions) {
    this.#lanes = lanes;
    this.#options = options;
  }

  /** Connect, and check that a message comes back as it was sent. */
  static async connect(port: number, options: LoadOptions): Promise<DeflateLoad> {
    const texts = Array.from({ length: VARIETY }, (_, i) => json(options.size, i));
    const frames = texts.map(frameOf);
    const lanes: Lane[] = [];
    for (let i = 0; i < options.connections; i++) {
      lanes.push(await Lane.open(port, frames, texts[0], i));
    }
    return new DeflateLoad(lanes, options);
  }

  /** Have at least so many messages echoed; gives their exact number. */
  async run(messages: number): Promise<number> {
    const { connections, inFlight } = this.#options;
    const each = Math.max(inFlight, Math.ceil(messages / connections));
    await Promise.all(this.#lanes.map((lane) => lane.run(each, inFlight)));
    return each * connections;
  }

  close() {
    for (const lane of this.#lanes) lane.close();
  }
}

class Lane {
  readonly #socket: Socket;
  readonly #frames: Uint8Array[];
  readonly #counter = new FrameCounter();
  #next: number;
  #onData: (chunk: Uint8Array) => void = () => {};
  #fail: (error: Error) => void = () => {};

  private constructor(socket: Socket, frames: Uint8Array[], next: number) {
    this.#socket = socket;
    this.#frames = frames;
    this.#next = next;
    socket.on("data", (chunk: Uint8Array) => this.#onData(chunk));
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#fail(new Error("The server has ended the connection")));
  }

  static async open(port: number, frames: Uint8Array[], first: string, next: number) {
    const lane = new Lane(connect({ host: "127.0.0.1", port, noDelay: true }), frames, next);
    await lane.#open(first);
    return lane;
  }

  async #open(text: string) {
    this.#socket.write(HANDSHAKE);
    let head = "";
    await this.#receive((chunk) =>
      (head += Buffer.from(chunk).toString("latin1")).endsWith("\r\n\r\n")
    );
    if (!/^HTTP\/1.1 101 [^]*permessage-deflate/.test(head)) throw new Error(`Refused: ${head}`);
    let echo = Buffer.alloc(0);
    this.#socket.write(this.#frames[0]);
    await this.#receive((chunk) => {
      echo = Buffer.concat([echo, chunk]);
      return this.#counter.push(chunk) === 1;
    });
    const payload = echo.subarray(echo[1] < 126 ? 2 : echo[1] === 126 ? 4 : 10);
    const inflated = inflateRawSync(payload, { finishFlush }).toString();
    if (echo[0] !== 0xc1 || inflated !== text) {
      throw new Error("Expected the message to come back compressed, and as it was sent");
    }
  }

  #receive(enough: (chunk: Uint8Array) => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#fail = reject;
      this.#onData = (chunk) => enough(chunk) && resolve();
    });
  }

  #send(count: number) {
    const frames = Array.from({ length: count }, () => this.#frames[this.#next++ % VARIETY]);
    this.#socket.write(Buffer.concat(frames));
  }

  /** Have so many messages echoed: each that comes back is followed by another one. */
  run(messages: number, inFlight: number): Promise<void> {
    let toSend = messages - inFlight;
    let missing = messages;
    const echoed = this.#receive((chunk) => {
      const count = this.#counter.push(chunk);
      const next = Math.min(count, toSend);
      toSend -= next;
      if (next > 0) this.#send(next);
      return (missing -= count) === 0;
    });
    this.#send(inFlight);
    return echoed;
  }

  close() {
    this.#fail = () => {};
    this.#socket.destroy();
  }
}
