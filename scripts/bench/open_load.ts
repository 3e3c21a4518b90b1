/** Opens connections, several at a time, and closes them, which is measured separately. */
import { encode, handshake } from "./frames.ts";
import { Lane, type Load } from "./lane.ts";

/** Number of connections that are opened or closed at the same time. */
const AT_ONCE = 32;

/** A Close frame with the code 1000. */
const CLOSE = encode(0x88, Uint8Array.of(3, 232), true);

/** Each connection counts as a message of this load. */
export class OpenLoad implements Load {
  readonly isKept = true;
  readonly #port: number;
  #lanes: Lane[] = [];

  constructor(port: number) {
    this.#port = port;
  }

  async run(connections: number): Promise<number> {
    let missing = connections;
    const open = async () => {
      while (missing-- > 0) {
        const [lane] = await Lane.open({ port: this.#port, handshake: handshake() });
        this.#lanes.push(lane);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, open));
    return connections;
  }

  /** Closes the connections of the last run with a Close frame, as a client of RFC 6455 does. */
  async end(): Promise<number> {
    const lanes = this.#lanes;
    this.#lanes = [];
    const { length } = lanes;
    const leave = async () => {
      for (let lane = lanes.pop(); lane !== undefined; lane = lanes.pop()) await lane.leave(CLOSE);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, leave));
    return length;
  }

  close() {
    for (const lane of this.#lanes) lane.close();
    this.#lanes = [];
  }
}
