/** Opens connections, several at a time. Closing them is not measured. */
import { handshake } from "./frames.ts";
import { Lane, type Load } from "./lane.ts";

/** Number of connections that are opened at the same time. */
const AT_ONCE = 32;

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

  /** Closes the connections of the last run, and gives the server time to notice. */
  async settle() {
    this.close();
    await new Promise((resolve) => setTimeout(resolve, 200));
  }

  close() {
    for (const lane of this.#lanes) lane.close();
    this.#lanes = [];
  }
}
