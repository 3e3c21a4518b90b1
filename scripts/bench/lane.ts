/** One raw connection of the load to a measured server, and the parts that all loads share. */
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Figures } from "./statistics.ts";

/** Keeps a server busy. */
export interface Load {
  /** Has at least this number of messages echoed (or handled), and returns their exact number. */
  run(messages: number): Promise<number>;
  /**
   * Whether a server keeps for long what it makes in a run. The cost of moving it out of the young generation
   * then belongs to the run.
   */
  readonly isKept?: boolean;
  /** Ends what the last run has begun, and returns the number of ends. They are a figure of their own. */
  end?(): Promise<number>;
  /** Other figures of the last run. */
  figures?(): Figures;
  close(): void | Promise<void>;
}

/** The target of a lane. */
export interface LaneOptions {
  port: number;
  /** Whether the connection is encrypted. */
  tls?: boolean;
  /** The request, as a Latin-1 string. */
  handshake: string;
}

/** A connection after the opening handshake. */
export class Lane {
  readonly socket: Socket;
  #onData: (chunk: Uint8Array) => void = () => {};
  #fail: (error: Error) => void = () => {};
  /** The error after which no more data comes. */
  #error: Error | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Uint8Array) => this.#onData(chunk));
    socket.on("error", (error) => this.#end(error));
    socket.on("close", () => this.#end(new Error("The server has ended the connection")));
  }

  #end(error: Error) {
    this.#error ??= error;
    this.#fail(this.#error);
  }

  /** Connects and makes the handshake. Returns the server's response too. */
  static async open({ port, tls, handshake }: LaneOptions): Promise<[Lane, string]> {
    const place = { host: "127.0.0.1", port };
    const lane = new Lane(
      tls
        ? connectTls({ ...place, rejectUnauthorized: false })
        : connect({ ...place, noDelay: true }),
    );
    let head = "";
    lane.socket.write(handshake);
    await lane.take((chunk) => {
      for (const byte of chunk) head += String.fromCharCode(byte);
      return head.endsWith("\r\n\r\n");
    });
    if (!head.startsWith("HTTP/1.1 101 ")) throw new Error(`Refused: ${head}`);
    return [lane, head];
  }

  /** Reads chunks until `enough` returns true. */
  take(enough: (chunk: Uint8Array) => boolean): Promise<void> {
    if (this.#error !== undefined) return Promise.reject(this.#error);
    return new Promise((resolve, reject) => {
      this.#fail = reject;
      this.#onData = (chunk) => {
        try {
          if (enough(chunk)) resolve();
        } catch (error) {
          reject(error);
        }
      };
    });
  }

  /** Sends the last bytes, and waits until both sides have ended. */
  async leave(last: Uint8Array): Promise<void> {
    const closed = new Promise((resolve) => this.socket.once("close", resolve));
    this.#fail = () => {};
    this.#onData = () => this.socket.end();
    this.socket.write(last);
    await closed;
  }

  close() {
    this.#fail = () => {};
    this.socket.destroy();
  }
}

/**
 * Keeps a window of messages in flight: sends as many new messages as have come back.
 *
 * @param count Returns the number of messages that end in a received chunk.
 * @param send Sends this number of messages.
 */
export async function keepInFlight(
  lane: Lane,
  messages: number,
  inFlight: number,
  count: (chunk: Uint8Array) => number,
  send: (messages: number) => void,
): Promise<void> {
  let toSend = messages - inFlight;
  let missing = messages;
  const echoed = lane.take((chunk) => {
    const came = count(chunk);
    const next = Math.min(came, toSend);
    toSend -= next;
    missing -= came;
    if (next > 0) send(next);
    return missing === 0;
  });
  send(inFlight);
  await echoed;
}

/** Runs all lanes at the same time, each with its share. */
export async function runLanes(
  messages: number,
  inFlight: number,
  lanes: { run(messages: number): Promise<void> }[],
): Promise<number> {
  const each = inFlight * Math.ceil(messages / lanes.length / inFlight);
  await Promise.all(lanes.map((lane) => lane.run(each)));
  return each * lanes.length;
}
