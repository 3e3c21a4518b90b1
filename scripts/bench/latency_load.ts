/** Sends one message at a time on one connection, and measures its round-trip time. */
import { encode, firstByteOf, handshake, payloadOf } from "./frames.ts";
import { keepInFlight, Lane, type Load } from "./lane.ts";
import type { LoadOptions } from "./load.ts";

/** Counts a message as echoed when all its bytes have come back. */
export class LatencyLoad implements Load {
  readonly #lane: Lane;
  readonly #frame: Uint8Array;
  readonly #echoSize: number;
  /** The round-trip times, in milliseconds. */
  #times = new Float64Array(0);

  private constructor(lane: Lane, { type, size, raw = false }: LoadOptions) {
    this.#lane = lane;
    this.#frame = encode(firstByteOf(type), payloadOf(size), true);
    this.#echoSize = raw ? this.#frame.length : this.#frame.length - 4;
  }

  static async connect(port: number, options: LoadOptions): Promise<LatencyLoad> {
    const [lane] = await Lane.open({ port, tls: options.tls, handshake: handshake() });
    return new LatencyLoad(lane, options);
  }

  async run(messages: number): Promise<number> {
    this.#times = new Float64Array(messages);
    let [sent, echoed, came] = [0, 0, 0];
    const count = (chunk: Uint8Array) => {
      came += chunk.length;
      if (came < this.#echoSize) return 0;
      came -= this.#echoSize;
      this.#times[echoed++] = performance.now() - sent;
      return 1;
    };
    await keepInFlight(this.#lane, messages, 1, count, () => {
      sent = performance.now();
      this.#lane.socket.write(this.#frame);
    });
    return messages;
  }

  latencies(): { p50: number; p99: number } {
    const sorted = this.#times.toSorted();
    const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] * 1000;
    return { p50: at(0.5), p99: at(0.99) };
  }

  close() {
    this.#lane.close();
  }
}
