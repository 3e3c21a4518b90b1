/** One raw connection of the load to a server that is measured, and what loads have in common. */
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";

/** What keeps a server busy. */
export interface Load {
  /** Have at least so many messages echoed, or the like; gives their exact number. */
  run(messages: number): Promise<number>;
  /** What comes after a run and is not measured. */
  settle?(): Promise<void>;
  /** How long the messages of the last run took, in microseconds. */
  latencies?(): { p50: number; p99: number };
  close(): void | Promise<void>;
}

/** Where a lane leads. */
export interface LaneOptions {
  port: number;
  /** Whether it is encrypted. */
  tls?: boolean;
  /** The request, in bytes of Latin-1. */
  handshake: string;
}

/** A connection after the opening handshake. */
export class Lane {
  readonly socket: Socket;
  #onData: (chunk: Uint8Array) => void = () => {};
  #fail: (error: Error) => void = () => {};
  /** Why nothing more will come. */
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

  /** Connect and shake hands; gives the server's response too. */
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

  /** Look at what comes until it is enough. */
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

  close() {
    this.#fail = () => {};
    this.socket.destroy();
  }
}

/**
 * Keep a window of messages on their way: as many as come back are sent anew.
 *
 * @param count how many messages end in a chunk that came
 * @param send sends so many
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

/** Have all lanes run side by side, each with its share. */
export async function runLanes(
  messages: number,
  inFlight: number,
  lanes: { run(messages: number): Promise<void> }[],
): Promise<number> {
  const each = Math.max(inFlight, Math.ceil(messages / lanes.length));
  await Promise.all(lanes.map((lane) => lane.run(each)));
  return each * lanes.length;
}
