/**
 * The load for compressed messages. It is like `load.ts`, but the echoes differ in length, because the
 * server refers to earlier messages. Therefore it counts frames, not bytes.
 */
import { Buffer } from "node:buffer";
import { constants, deflateRawSync, inflateRawSync } from "node:zlib";
import { encode, handshake } from "./frames.ts";
import { keepInFlight, Lane, type Load, runLanes } from "./lane.ts";
import type { LoadOptions } from "./load.ts";

const finishFlush = constants.Z_SYNC_FLUSH;
/** Number of different messages. */
const VARIETY = 64;
const WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu".split(" ");

/** Makes JSON as services send it: all texts have the same form and different values. */
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

/** Makes a masked frame. It refers to no earlier message, so that the server can inflate it at any time. */
function frameOf(text: string): Uint8Array {
  const payload = deflateRawSync(text, { finishFlush, memLevel: 8 }).subarray(0, -4);
  return encode(0xc1, payload, true);
}

/** Counts whole frames in the received data. */
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

/** The connections to one server. They send compressed messages. */
export class DeflateLoad implements Load {
  readonly #lanes: DeflateLane[];
  readonly #inFlight: number;

  private constructor(lanes: DeflateLane[], { inFlight }: LoadOptions) {
    this.#lanes = lanes;
    this.#inFlight = inFlight;
  }

  /** Connects, and checks that a message comes back compressed and unchanged. */
  static async connect(port: number, options: LoadOptions): Promise<DeflateLoad> {
    const texts = Array.from({ length: VARIETY }, (_, i) => json(options.size, i));
    const frames = texts.map(frameOf);
    const lanes: DeflateLane[] = [];
    for (let i = 0; i < options.connections; i++) {
      const request = handshake("/", "permessage-deflate");
      const [lane, response] = await Lane.open({ port, handshake: request });
      if (!response.includes("permessage-deflate")) throw new Error(`Refused: ${response}`);
      lanes.push(new DeflateLane(lane, frames, options.inFlight, i));
      await lanes[i].verify(texts);
    }
    return new DeflateLoad(lanes, options);
  }

  run(messages: number): Promise<number> {
    return runLanes(messages, this.#inFlight, this.#lanes);
  }

  close() {
    for (const lane of this.#lanes) lane.close();
  }
}

class DeflateLane {
  readonly #lane: Lane;
  readonly #frames: Uint8Array[];
  readonly #inFlight: number;
  readonly #counter = new FrameCounter();
  #next: number;

  constructor(lane: Lane, frames: Uint8Array[], inFlight: number, next: number) {
    this.#lane = lane;
    this.#frames = frames;
    this.#inFlight = inFlight;
    this.#next = next;
  }

  async verify(texts: string[]) {
    const text = texts[this.#next % VARIETY];
    let echo = Buffer.alloc(0);
    const echoed = this.#lane.take((chunk) => {
      echo = Buffer.concat([echo, chunk]);
      return this.#counter.push(chunk) === 1;
    });
    this.#send(1);
    await echoed;
    const payload = echo.subarray(echo[1] < 126 ? 2 : echo[1] === 126 ? 4 : 10);
    const inflated = inflateRawSync(payload, { finishFlush }).toString();
    if (echo[0] !== 0xc1 || inflated !== text) {
      throw new Error("The message did not come back compressed and unchanged");
    }
  }

  #send(count: number) {
    const frames = Array.from({ length: count }, () => this.#frames[this.#next++ % VARIETY]);
    this.#lane.socket.write(Buffer.concat(frames));
  }

  /** Sends this number of messages and waits for their echoes. */
  run(messages: number): Promise<void> {
    return keepInFlight(
      this.#lane,
      messages,
      this.#inFlight,
      (chunk) => this.#counter.push(chunk),
      (count) => this.#send(count),
    );
  }

  close() {
    this.#lane.close();
  }
}
