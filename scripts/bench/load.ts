/**
 * The load: raw sockets that send masked frames made in advance and count the bytes that come back,
 * so that the process that is measured is the one that has to work.
 */
import { Buffer } from "node:buffer";
import { concat, encode, firstByteOf, handshake, type MessageType, payloadOf } from "./frames.ts";
import { keepInFlight, Lane, type Load, runLanes } from "./lane.ts";

/** What is sent. */
export interface LoadOptions {
  type: MessageType;
  /** Bytes of each message. */
  size: number;
  connections: number;
  /** Messages on their way at a time, on each connection. */
  inFlight: number;
  /** Whether the connections are encrypted. */
  tls?: boolean;
  /** How messages are compressed; undefined: they are not. */
  deflate?: "deflate" | "deflate-each";
  /** Whether what comes back is masked still, from a server that knows no frames. */
  raw?: boolean;
}

/** On so many connections it is seen whether messages come back as they were sent. */
const VERIFIED = 4;

/** Connections to one server. */
export class EchoLoad implements Load {
  readonly #lanes: EchoLane[];
  readonly #options: LoadOptions;

  private constructor(lanes: EchoLane[], options: LoadOptions) {
    this.#lanes = lanes;
    this.#options = options;
  }

  /** Connect, and check that messages come back as they were sent. */
  static async connect(port: number, options: LoadOptions): Promise<EchoLoad> {
    const lanes: EchoLane[] = [];
    for (let i = 0; i < options.connections; i++) {
      const [lane] = await Lane.open({ port, tls: options.tls, handshake: handshake() });
      lanes.push(new EchoLane(lane, options));
    }
    await Promise.all(lanes.slice(0, VERIFIED).map((lane, i) => lane.verify(i)));
    return new EchoLoad(lanes, options);
  }

  run(messages: number): Promise<number> {
    return runLanes(messages, this.#options.inFlight, this.#lanes);
  }

  close() {
    for (const lane of this.#lanes) lane.close();
  }
}

class EchoLane {
  readonly #lane: Lane;
  readonly #options: LoadOptions;
  /** As many masked frames as may be on their way, one after the other. */
  readonly #frames: Uint8Array;
  readonly #sentSize: number;
  readonly #echoSize: number;

  constructor(lane: Lane, options: LoadOptions) {
    const { type, size, inFlight, raw = false } = options;
    const frame = encode(firstByteOf(type), payloadOf(size), true);
    this.#lane = lane;
    this.#options = options;
    this.#sentSize = frame.length;
    this.#echoSize = raw ? frame.length : frame.length - 4;
    this.#frames = concat(Array.from({ length: inFlight }, () => frame));
  }

  /** Messages that differ come back as they were sent, and in order. */
  async verify(seed: number) {
    const { type, size, inFlight, raw = false } = this.#options;
    const payloads = Array.from({ length: inFlight }, (_, i) => payloadOf(size, seed + i));
    const frames = (masked: boolean) =>
      concat(payloads.map((payload) => encode(firstByteOf(type), payload, masked)));
    const expected = frames(raw);
    let offset = 0;
    const echoed = this.#lane.take((chunk) => {
      const part = expected.subarray(offset, offset + chunk.length);
      if (Buffer.compare(chunk, part) !== 0) {
        throw new Error("Expected the messages to come back as they were sent");
      }
      offset += chunk.length;
      return offset === expected.length;
    });
    this.#lane.socket.write(frames(true));
    await echoed;
  }

  /** Have so many messages echoed. */
  run(messages: number): Promise<void> {
    const { inFlight } = this.#options;
    let partial = 0;
    const count = (chunk: Uint8Array) => {
      partial += chunk.length;
      const echoed = Math.floor(partial / this.#echoSize);
      partial -= echoed * this.#echoSize;
      return echoed;
    };
    return keepInFlight(this.#lane, messages, inFlight, count, (next) => {
      this.#lane.socket.write(this.#frames.subarray(0, next * this.#sentSize));
    });
  }

  close() {
    this.#lane.close();
  }
}
