/** Sends messages that are too large for memory. The server answers each with a short text. */
import { once } from "node:events";
import { encode, firstByteOf, handshake } from "./frames.ts";
import { Lane, type Load } from "./lane.ts";

const CHUNK = new Uint8Array(2 ** 18).fill(0x61);

/** One connection. */
export class HugeLoad implements Load {
  readonly #lane: Lane;
  readonly #size: number;

  private constructor(lane: Lane, size: number) {
    this.#lane = lane;
    this.#size = size;
  }

  static async connect(port: number, size: number): Promise<HugeLoad> {
    const [lane] = await Lane.open({ port, handshake: handshake() });
    return new HugeLoad(lane, size);
  }

  async run(messages: number): Promise<number> {
    for (let sent = 0; sent < messages; sent++) await this.#send();
    return messages;
  }

  async #send() {
    const { socket } = this.#lane;
    const head = encode(firstByteOf("binary"), new Uint8Array(65536), true).slice(0, 14);
    new DataView(head.buffer).setBigUint64(2, BigInt(this.#size));
    const answered = this.#lane.take(() => true);
    socket.write(head);
    for (let sent = 0; sent < this.#size; sent += CHUNK.length) {
      const isLast = sent + CHUNK.length >= this.#size;
      const chunk = isLast ? CHUNK.subarray(0, this.#size - sent) : CHUNK;
      if (!socket.write(chunk) && !isLast) await once(socket, "drain");
    }
    await answered;
  }

  close() {
    this.#lane.close();
  }
}
