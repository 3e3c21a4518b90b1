/**
 * The load: raw sockets that send masked frames, made in advance, and count the returned bytes, so that
 * the measured process does most of the work.
 */
import { Buffer } from "node:buffer";
import { concat, encode, firstByteOf, handshake, type MessageType, payloadOf } from "./frames.ts";
import { keepInFlight, Lane, type Load, runLanes } from "./lane.ts";

/** Describes the messages and connections of a load. */
export interface LoadOptions {
  type: MessageType;
  /** Size of each message, in bytes. */
  size: number;
  connections: number;
  /** Number of messages in flight on each connection. */
  inFlight: number;
  /** Whether the connections are encrypted. */
  tls?: boolean;
  /** How messages are compressed. Undefined: not at all. */
  deflate?: "deflate" | "deflate-each";
  /** Whether the echo is still masked, because the server does not parse frames. */
  raw?: boolean;
}

/** Number of connections on which the echo is verified. */
const VERIFIED = 4;

/** Connections to one server. */
export class EchoLoad implements Load {
  readonly #lanes: EchoLane[];
  readonly #options: LoadOptions;

  private constructor(lanes: EchoLane[], options: LoadOptions) {
    this.#lanes = lanes;
    this.#options = options;
  }

  /** Connects, and checks that messages come back unchanged. */
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
  /** As many masked frames as may be in flight, in a row. */
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

  /** Checks that different messages come back unchanged and in order. */
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
        throw new Error("The messages did not come back unchanged");
      }
      offset += chunk.length;
      return offset === expected.length;
    });
    this.#lane.socket.write(frames(true));
    await echoed;
  }

  /** Sends this number of messages and waits for their echoes. */
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
