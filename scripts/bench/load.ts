/**
 * The load: raw sockets that send masked frames, made in advance, and count the returned bytes, so that
 * the measured process does most of the work.
 */
import { Buffer } from "node:buffer";
import { concat, encodeMessage, handshake, type MessageType, payloadOf } from "./frames.ts";
import { keepInFlight, Lane, type Load, runLanes } from "./lane.ts";

/** Describes the messages and connections of a load. */
export interface LoadOptions {
  type: MessageType;
  /** Size of each message, in bytes. */
  size: number;
  connections: number;
  /** Number of messages in flight on each connection. */
  inFlight: number;
  /** Number of frames of each message. Default: 1 */
  fragments?: number;
  /** Whether the connections are encrypted. */
  tls?: boolean;
  /** Whether a whole window is sent in one write, after the previous one has come back. */
  isBurst?: boolean;
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
  /** As many masked messages as may be in flight, in a row. */
  readonly #messages: Uint8Array;
  readonly #sentSize: number;
  readonly #echoSize: number;

  constructor(lane: Lane, options: LoadOptions) {
    const { type, size, inFlight, fragments, raw = false } = options;
    const message = encodeMessage(type, payloadOf(size), true, fragments);
    this.#lane = lane;
    this.#options = options;
    this.#sentSize = message.length;
    this.#echoSize = raw ? message.length : encodeMessage(type, payloadOf(size), false).length;
    this.#messages = concat(Array.from({ length: inFlight }, () => message));
  }

  /** Checks that different messages come back unchanged and in order. */
  async verify(seed: number) {
    const { type, size, inFlight, fragments, raw = false } = this.#options;
    const payloads = Array.from({ length: inFlight }, (_, i) => payloadOf(size, seed + i));
    const messages = (masked: boolean, fragments?: number) =>
      concat(payloads.map((payload) => encodeMessage(type, payload, masked, fragments)));
    const expected = raw ? messages(true, fragments) : messages(false);
    let offset = 0;
    const echoed = this.#lane.take((chunk) => {
      const part = expected.subarray(offset, offset + chunk.length);
      if (Buffer.compare(chunk, part) !== 0) {
        throw new Error("The messages did not come back unchanged");
      }
      offset += chunk.length;
      return offset === expected.length;
    });
    this.#lane.socket.write(messages(true, fragments));
    await echoed;
  }

  /** Sends this number of messages and waits for their echoes. */
  run(messages: number): Promise<void> {
    const { inFlight, isBurst = false } = this.#options;
    const unit = isBurst ? inFlight : 1;
    const unitSize = unit * this.#echoSize;
    let partial = 0;
    const count = (chunk: Uint8Array) => {
      partial += chunk.length;
      const echoed = Math.floor(partial / unitSize);
      partial -= echoed * unitSize;
      return echoed * unit;
    };
    return keepInFlight(this.#lane, messages, inFlight, count, (next) => {
      this.#lane.socket.write(this.#messages.subarray(0, next * this.#sentSize));
    });
  }

  close() {
    this.#lane.close();
  }
}
