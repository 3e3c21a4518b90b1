/**
 * The load for servers of HTTP/2 (RFC 9113 and RFC 8441). It is like the `stream` of `load.ts`: each stream
 * of a session sends as many messages as have come back. What is in flight fits into the flow-control
 * window of a session, so the load ignores WINDOW_UPDATE frames.
 */
import { Buffer } from "node:buffer";
import { connect, type Socket } from "node:net";
import { concat, encodeMessage, payloadOf } from "./frames.ts";
import type { Load } from "./lane.ts";
import type { LoadOptions } from "./load.ts";

const [DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE] = [0, 1, 4, 6, 8];
const END_HEADERS = 4;
const ACK = 1;
const LARGEST_FRAME = 16384;
const LARGEST_WINDOW = 2 ** 31 - 1;
/** Bytes that may be in flight in a session. Servers acknowledge half of a window of 64 KiB at a time. */
const IN_FLIGHT = 24_000;
const STREAMS = 8;

const ascii = new TextEncoder();

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Uint8Array {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.set([type, flags], 3);
  head.writeUInt32BE(stream, 5);
  return concat([head, payload]);
}

function numbers(format: (bytes: Buffer) => void, size: number): Uint8Array {
  const bytes = Buffer.alloc(size);
  format(bytes);
  return bytes;
}

/** Header fields as literals without indexing (RFC 7541 §6.2.2). */
function fields(list: Record<string, string>): Uint8Array {
  const text = (value: string) => [value.length, ...ascii.encode(value)];
  return Uint8Array.from(
    Object.entries(list).flatMap(([name, value]) => [0, ...text(name), ...text(value)]),
  );
}

const PREFACE = concat([
  ascii.encode("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
  frame(
    SETTINGS,
    0,
    0,
    numbers((bytes) => {
      // SETTINGS_INITIAL_WINDOW_SIZE
      bytes.writeUInt16BE(4, 0);
      bytes.writeUInt32BE(LARGEST_WINDOW, 2);
    }, 6),
  ),
  frame(
    WINDOW_UPDATE,
    0,
    0,
    numbers((bytes) => bytes.writeUInt32BE(LARGEST_WINDOW - 65535, 0), 4),
  ),
]);

/** The request of a connection (RFC 8441 §5.1). */
const REQUEST = fields({
  ":method": "CONNECT",
  ":protocol": "websocket",
  ":scheme": "http",
  ":path": "/",
  ":authority": "127.0.0.1",
  "sec-websocket-version": "13",
});

/** A connection, which is a stream of a session. */
interface Stream {
  id: number;
  isOpen: boolean;
  /** The messages that are to be sent, and that are to come back. */
  toSend: number;
  missing: number;
  /** Bytes of an echo that has not come back whole. */
  partial: number;
  /** All received bytes, while the echo is verified. */
  received?: Uint8Array[];
}

class Session {
  readonly #socket: Socket;
  readonly #streams: Stream[];
  readonly #options: LoadOptions;
  readonly #message: Uint8Array;
  readonly #echo: Uint8Array;
  #bytes = Buffer.alloc(0);
  #done = () => {};
  #fail: (error: Error) => void = () => {};

  constructor(port: number, streams: number, options: LoadOptions) {
    const { type, size } = options;
    this.#options = options;
    this.#message = encodeMessage(type, payloadOf(size), true);
    this.#echo = encodeMessage(type, payloadOf(size), false);
    this.#streams = Array.from({ length: streams }, (_, i) => {
      return { id: 2 * i + 1, isOpen: false, toSend: 0, missing: 0, partial: 0 };
    });
    this.#socket = connect({ host: "127.0.0.1", port, noDelay: true });
    this.#socket.on("data", (chunk: Uint8Array) => this.#receive(chunk));
    this.#socket.on("error", (error) => this.#fail(error));
    this.#socket.on("close", () => this.#fail(new Error("The server has ended the session")));
  }

  async open() {
    const requests = this.#streams.map(({ id }) => frame(HEADERS, END_HEADERS, id, REQUEST));
    const opened = this.#until();
    this.#socket.write(concat([PREFACE, ...requests]));
    await opened;
    for (const stream of this.#streams) stream.received = [];
    await this.run(this.#options.inFlight);
    for (const stream of this.#streams) {
      const received = concat(stream.received!);
      stream.received = undefined;
      for (let at = 0; at < received.length; at += this.#echo.length) {
        const echo = received.subarray(at, at + this.#echo.length);
        if (Buffer.compare(echo, this.#echo) !== 0) throw new Error("Not an echo");
      }
    }
  }

  /** Sends this number of messages on each stream and waits for their echoes. */
  async run(each: number) {
    const done = this.#until();
    const { inFlight } = this.#options;
    for (const stream of this.#streams) {
      stream.missing = each;
      stream.toSend = each - inFlight;
    }
    this.#socket.write(concat(this.#streams.flatMap((stream) => this.#data(stream, inFlight))));
    await done;
  }

  #until(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#done = resolve;
      this.#fail = reject;
    });
  }

  #data({ id }: Stream, messages: number): Uint8Array[] {
    const most = Math.floor(LARGEST_FRAME / this.#message.length);
    const frames: Uint8Array[] = [];
    for (; messages > 0; messages -= most) {
      const payload = Array.from({ length: Math.min(messages, most) }, () => this.#message);
      frames.push(frame(DATA, 0, id, concat(payload)));
    }
    return frames;
  }

  #receive(chunk: Uint8Array) {
    let bytes = this.#bytes = Buffer.concat([this.#bytes, chunk]);
    const replies: Uint8Array[] = [];
    while (bytes.length >= 9 && bytes.length >= 9 + bytes.readUIntBE(0, 3)) {
      const size = bytes.readUIntBE(0, 3);
      const [type, flags, id] = [bytes[3], bytes[4], bytes.readUInt32BE(5)];
      const payload = bytes.subarray(9, 9 + size);
      bytes = bytes.subarray(9 + size);
      const stream = this.#streams[id >> 1];
      if (type === DATA) this.#count(stream, payload);
      // The status 200 has the index 8.
      else if (type === HEADERS && payload[0] === 0x88) stream.isOpen = true;
      else if (type === SETTINGS && flags === 0) {
        replies.push(frame(SETTINGS, ACK, 0, payload.subarray(0, 0)));
      } else if (type === PING && flags === 0) replies.push(frame(PING, ACK, 0, payload));
      else if (type !== WINDOW_UPDATE && flags !== ACK) {
        return this.#fail(new Error(`Unexpected frame of type ${type}`));
      }
    }
    this.#bytes = bytes;
    for (const stream of this.#streams) {
      const next = Math.min(stream.toSend, Math.floor(stream.partial / this.#echo.length));
      stream.missing -= Math.floor(stream.partial / this.#echo.length);
      stream.partial %= this.#echo.length;
      stream.toSend -= next;
      if (next > 0) replies.push(...this.#data(stream, next));
    }
    if (replies.length > 0) this.#socket.write(concat(replies));
    if (this.#streams.every(({ isOpen, missing }) => isOpen && missing === 0)) this.#done();
  }

  #count(stream: Stream, payload: Uint8Array) {
    stream.partial += payload.length;
    stream.received?.push(payload.slice());
  }

  close() {
    this.#fail = () => {};
    this.#socket.destroy();
  }
}

/** The sessions with one server. */
export class Http2Load implements Load {
  readonly #sessions: Session[];
  readonly #options: LoadOptions;

  private constructor(sessions: Session[], options: LoadOptions) {
    this.#sessions = sessions;
    this.#options = options;
  }

  static async connect(port: number, options: LoadOptions): Promise<Http2Load> {
    const { connections, inFlight, size } = options;
    if (size > LARGEST_FRAME / 2) throw new RangeError("The load of HTTP/2 has small frames only");
    const fits = STREAMS * inFlight * size <= IN_FLIGHT;
    const streams = fits ? Math.min(STREAMS, connections) : 1;
    const sessions: Session[] = [];
    while (sessions.length < Math.ceil(connections / streams)) {
      sessions.push(new Session(port, streams, options));
      await sessions.at(-1)!.open();
    }
    return new Http2Load(sessions, { ...options, connections: sessions.length * streams });
  }

  async run(messages: number): Promise<number> {
    const { connections, inFlight } = this.#options;
    const each = inFlight * Math.ceil(messages / connections / inFlight);
    await Promise.all(this.#sessions.map((session) => session.run(each)));
    return each * connections;
  }

  close() {
    for (const session of this.#sessions) session.close();
  }
}
