/** Connections that are opened, some at a time; their end is not measured. */
import { handshake } from "./frames.ts";
import { Lane, type Load } from "./lane.ts";

/** So many are opened side by side. */
const AT_ONCE = 32;

/** A message of this load is a connection. */
export class OpenLoad implements Load {
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

  /** Close the connections of the last run, and let the server see it. */
  async settle() {
    this.close();
    await new Promise((resolve) => setTimeout(resolve, 200));
  }

  close() {
    for (const lane of this.#lanes) lane.close();
    this.#lanes = [];
  }
}
