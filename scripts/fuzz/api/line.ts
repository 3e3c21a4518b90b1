/** The line between both ends: it splits, joins, delays and stalls data, and breaks. */
import { connect, createServer, type Server as SocketServer, type Socket } from "node:net";
import type { AddressInfo } from "node:net";
import type { TransportHandlers } from "../../../lib/transport.ts";
import { type MemoryTransport, transportPair } from "../../../lib/testing.ts";
import { type Clock, turn } from "./clock.ts";

/** One side of the line. */
interface Wire {
  readonly bufferedAmount: number;
  handle(handlers: TransportHandlers): void;
  write(parts: readonly Uint8Array[]): void;
  pause(): void;
  resume(): void;
  end(): void;
  destroy(): void;
  reset(): void;
}

/** How the line carries bytes. */
export interface LineOptions {
  /** Maximum number of bytes that it forwards at once. 0 keeps the chunks. */
  chop: number;
  /** Whether it joins all chunks of one turn. */
  join: boolean;
  /** Delay of each chunk, in milliseconds. */
  delay: number;
}

/** How a line may break. */
export const BREAKS = ["cut", "reset", "half-close", "silence"] as const;

/** The line forwards no further piece while more than this number of bytes is unread. */
const ROOM = 65536;
/** Number of pieces to split into. The rest is forwarded unchanged, so that a run stays short. */
const MOST_PIECES = 600;

/** One direction of the line. */
class Direction {
  readonly #from: Wire;
  readonly #to: Wire;
  readonly #line: Line;
  #queue: Uint8Array[] = [];
  #size = 0;
  #ended = false;
  #gone: { error?: Error } | undefined;
  #running = false;
  #pieces = 0;
  /** Whether this direction forwards nothing any more. */
  muted = false;

  constructor(from: Wire, to: Wire, line: Line) {
    this.#from = from;
    this.#to = to;
    this.#line = line;
  }

  handlers(opposite: Direction): TransportHandlers {
    return {
      data: (chunk) => this.#take(chunk),
      drain: () => opposite.run(),
      end: () => {
        this.#ended = true;
        this.run();
      },
      close: (error) => {
        this.#gone = { error };
        this.run();
      },
    };
  }

  #take(chunk: Uint8Array): void {
    this.#line.clock.touch();
    this.#queue.push(new Uint8Array(chunk));
    this.#size += chunk.length;
    if (this.#size >= ROOM) this.#from.pause();
    this.run();
  }

  run(): void {
    if (!this.#running) void this.#run();
  }

  async #run(): Promise<void> {
    this.#running = true;
    const { options, clock } = this.#line;
    if (options.join) await turn();
    while (!this.#line.stalled && !this.muted && this.#to.bufferedAmount <= ROOM) {
      const piece = this.#next();
      if (piece === undefined) break;
      if (options.delay > 0) await clock.sleep(options.delay);
      if (this.muted) break;
      clock.touch();
      this.#to.write([piece]);
      if (this.#size < ROOM) this.#from.resume();
      if (options.chop > 0) await turn();
    }
    this.#running = false;
    if (this.#queue.length === 0 && !this.#line.stalled && !this.muted) this.#passEnd();
    if (this.muted) {
      this.#queue = [];
      this.#from.resume();
    }
  }

  #next(): Uint8Array | undefined {
    const { chop, join } = this.#line.options;
    if (join && this.#queue.length > 1) {
      const joined = new Uint8Array(this.#size);
      let at = 0;
      for (const chunk of this.#queue) {
        joined.set(chunk, at);
        at += chunk.length;
      }
      this.#queue = [joined];
    }
    const first = this.#queue.shift();
    if (first === undefined) return undefined;
    const whole = chop === 0 || first.length <= chop || ++this.#pieces > MOST_PIECES;
    const piece = whole ? first : first.subarray(0, chop);
    if (!whole) this.#queue.unshift(first.subarray(chop));
    this.#size -= piece.length;
    return piece;
  }

  #passEnd(): void {
    if (this.#ended || this.#gone !== undefined) {
      this.#line.clock.touch();
      if (this.#gone?.error !== undefined) this.#to.reset();
      else this.#to.end();
    }
  }
}

/** A line of two wires. */
export class Line {
  readonly options: LineOptions;
  readonly clock: Clock;
  stalled = false;
  readonly #wires: readonly Wire[];
  readonly #directions: readonly Direction[];

  constructor(near: Wire, far: Wire, options: LineOptions, clock: Clock) {
    this.options = options;
    this.clock = clock;
    this.#wires = [near, far];
    const there = new Direction(near, far, this);
    const back = new Direction(far, near, this);
    this.#directions = [there, back];
    near.handle(there.handlers(back));
    far.handle(back.handlers(there));
  }

  /** Continues after a stall. */
  goOn(): void {
    this.stalled = false;
    for (const direction of this.#directions) direction.run();
  }

  /** @param way Direction to close: 0 for the client's data, 1 for the server's data. */
  break(how: typeof BREAKS[number], way: number): void {
    this.clock.touch();
    const muted = how === "half-close" ? [this.#directions[way]] : this.#directions;
    for (const direction of muted) direction.muted = true;
    if (how === "half-close") this.#wires[1 - way].end();
    else if (how !== "silence") {
      for (const wire of this.#wires) how === "cut" ? wire.destroy() : wire.reset();
    }
    this.goOn();
  }

  /** Ends both sides. */
  close(): void {
    for (const direction of this.#directions) direction.muted = true;
    for (const wire of this.#wires) wire.destroy();
  }
}

function memoryWire(transport: MemoryTransport): Wire {
  return Object.assign(transport, {
    reset: () => transport.fail(new Error("The line was reset")),
  });
}

/** A line in memory, and the transports of both ends. */
export function memoryLine(
  options: LineOptions,
  capacity: number,
  clock: Clock,
): { line: Line; ends: [MemoryTransport, MemoryTransport] } {
  const [clientEnd, near] = transportPair({ capacity });
  const [far, serverEnd] = transportPair({ capacity });
  const line = new Line(memoryWire(near), memoryWire(far), options, clock);
  return { line, ends: [clientEnd, serverEnd] };
}

class SocketWire implements Wire {
  readonly #socket: Socket;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
  }

  get bufferedAmount(): number {
    return this.#socket.writableLength;
  }

  handle({ data, drain, end, close }: TransportHandlers): void {
    let error: Error | undefined;
    this.#socket.on("data", (chunk: Uint8Array) => void data(chunk));
    this.#socket.on("drain", drain);
    this.#socket.on("end", end);
    this.#socket.on("error", (cause) => {
      error = cause;
    });
    this.#socket.on("close", () => close(error));
  }

  write(parts: readonly Uint8Array[]): void {
    for (const part of parts) if (this.#socket.writable) this.#socket.write(part);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    if (this.#socket.writable) this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  reset(): void {
    if (!this.#socket.destroyed) this.#socket.resetAndDestroy();
  }
}

/** A TCP proxy in front of a port, with a line for each connection. */
export class TcpLine {
  readonly #server: SocketServer;
  #line: Line | undefined;

  private constructor(server: SocketServer) {
    this.#server = server;
  }

  static async to(port: number, options: LineOptions, clock: Clock): Promise<TcpLine> {
    const server = createServer({ allowHalfOpen: true });
    const proxy = new TcpLine(server);
    server.on("connection", (near) => {
      const far = connect({ host: "127.0.0.1", port, allowHalfOpen: true });
      proxy.#line = new Line(new SocketWire(near), new SocketWire(far), options, clock);
    });
    await new Promise<void>((resolve) => server.listen({ host: "127.0.0.1", port: 0 }, resolve));
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** The line of the connection, if there is one. */
  get line(): Line | undefined {
    return this.#line;
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#line?.close();
    await closed;
  }
}
