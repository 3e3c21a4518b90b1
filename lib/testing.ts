/**
 * Connected pairs in memory, for tests of code that uses the library.
 *
 * @module
 */
import { failure } from "./core/error.ts";
import { connect, type ConnectOptions } from "./client/client.ts";
import { checkKnown, checkNested } from "./core/option_hints.ts";
import { checkInteger, checkNumber, checkOneOf, type OptionNames } from "./core/options.ts";
import type { WebSocketConnection } from "./connection/connection.ts";
import { Queue } from "./core/queue.ts";
import { accept, type ServeOptions } from "./server/server.ts";
import { BaseTransport, type Transport } from "./transport.ts";
import { nextTurn, timer } from "./timers.ts";

/** Options of {@linkcode transportPair}. */
export interface TransportPairOptions {
  /**
   * Time that bytes need to arrive, in milliseconds. With 0 they arrive in the next turn of the event loop.
   * @default {0}
   */
  delay?: number | undefined;
  /**
   * Maximum number of bytes that arrive at once.
   * @default {Infinity}
   */
  chunkSize?: number | undefined;
  /**
   * Number of bytes that may be under way before `bufferedAmount` grows.
   * @default {65_536}
   */
  capacity?: number | undefined;
  /** Breaks the line once. By default it never breaks. */
  fault?: LineFault | undefined;
}

/** Says when and how the line of a {@linkcode transportPair} breaks. */
export interface LineFault {
  /** The end whose bytes are counted: "client" is the first end, "server" the second. */
  from: "client" | "server";
  /** Number of bytes that arrive, including the opening handshake. The other bytes are lost. */
  after: number;
  /**
   * What happens then: "end" ends both directions, "half-close" ends only this direction, "reset" closes
   * both ends with an error, and after "silence" no more bytes arrive and no end is notified.
   */
  how: "end" | "half-close" | "reset" | "silence";
}

/** One end of a {@linkcode transportPair}. */
export interface MemoryTransport extends Transport {
  /** Breaks the line: closes both ends with this error. Bytes under way are lost. */
  fail(error: Error): void;
}

/** Options of {@linkcode pair}. */
export interface PairOptions extends TransportPairOptions {
  /**
   * URL that the client connects to.
   * @default {"ws://localhost/"}
   */
  url?: string | URL | undefined;
  /** Options of the client. */
  client?: Omit<ConnectOptions, "transport"> | undefined;
  /** Options of the server. */
  server?: Omit<ServeOptions, "hostname" | "port" | "unix" | "reusePort" | "tls"> | undefined;
}

const FAULT_OPTIONS: OptionNames<LineFault> = {
  from: (name, value) => checkOneOf(name, value, ["client", "server"]),
  after: checkNumber,
  how: (name, value) => checkOneOf(name, value, ["end", "half-close", "reset", "silence"]),
};
const TRANSPORT_PAIR_OPTIONS: OptionNames<TransportPairOptions> = {
  delay: checkNumber,
  chunkSize: (name, value) => checkInteger(name, value, 1, Infinity),
  capacity: checkNumber,
  fault: (name, value) => checkNested(name, value, FAULT_OPTIONS),
};
const PAIR_OPTIONS: OptionNames<PairOptions> = {
  ...TRANSPORT_PAIR_OPTIONS,
  url: true,
  client: true,
  server: true,
};

/**
 * Makes two connected transports in memory.
 *
 * @example
 * ```ts
 * import { transportPair } from "sluice/testing";
 * import { accept, connect } from "sluice";
 *
 * const [near, far] = transportPair({ chunkSize: 1 });
 * const [client, server] = await Promise.all([connect("ws://test/", { transport: near }), accept(far)]);
 * near.fail(new Error("cable cut"));
 * await server.closed.catch((error) => console.log(error.closeCode)); // 1006
 * await client.closed.catch((error) => console.log(error.cause.message)); // cable cut
 * ```
 */
export function transportPair(
  options: TransportPairOptions = {},
): [MemoryTransport, MemoryTransport] {
  checkKnown("transportPair()", options, TRANSPORT_PAIR_OPTIONS);
  return memoryPair(options);
}

function memoryPair(options: TransportPairOptions): [MemoryTransport, MemoryTransport] {
  const near = new MemoryEnd(options, "client");
  const far = new MemoryEnd(options, "server");
  near.peer = far;
  far.peer = near;
  return [near, far];
}

/**
 * Connects a client and a server in memory through a real handshake.
 *
 * @example
 * ```ts
 * import { pair } from "sluice/testing";
 *
 * const [client, server] = await pair({ client: { protocols: ["chat"] }, server: { protocols: ["chat"] } });
 * await client.send("Hello");
 * console.log(await server.receive(), server.protocol); // Hello chat
 * await client.close();
 * ```
 */
export async function pair(
  options: PairOptions = {},
): Promise<[client: WebSocketConnection, server: WebSocketConnection]> {
  checkKnown("pair()", options, PAIR_OPTIONS);
  const { url = "ws://localhost/" } = options;
  const [near, far] = memoryPair(options);
  return await Promise.all([
    connect(url, { ...options.client, transport: near }),
    accept(far, options.server),
  ]);
}

class MemoryEnd extends BaseTransport implements MemoryTransport {
  peer!: MemoryEnd;
  readonly #delay: number;
  readonly #chunkSize: number;
  readonly #capacity: number;
  /** Null is the end of the peer's side, an error is a reset. */
  readonly #arriving = new Queue<Uint8Array | null | Error>();
  #underWay = 0;
  #isPaused = true;
  #isScheduled = false;
  #left: number;
  readonly #how: LineFault["how"] | undefined;
  #isMute = false;

  constructor(options: TransportPairOptions, side: LineFault["from"]) {
    super();
    const { delay = 0, chunkSize = Infinity, capacity = 65536, fault } = options;
    this.#left = fault?.from === side ? fault.after : Infinity;
    this.#how = fault?.how;
    this.#delay = delay;
    this.#chunkSize = chunkSize;
    this.#capacity = capacity;
  }

  override get bufferedAmount(): number {
    const isClosed = this.phase === "closed";
    return (isClosed ? 0 : Math.max(0, this.peer.#underWay - this.#capacity)) + this.late;
  }

  protected start(): void {
    this.resume();
  }

  write(parts: readonly Uint8Array[]): void {
    if (this.phase !== "open") return this.drop(parts);
    for (const part of parts) {
      for (let at = 0; at < part.length; at += this.#chunkSize) {
        const end = Math.min(part.length, at + this.#chunkSize);
        this.#send(new Uint8Array(part.subarray(at, end)));
      }
    }
  }

  #send(item: Uint8Array | null): void {
    if (this.#isMute) return;
    if (item === null || item.length < this.#left) {
      this.#left -= item?.length ?? 0;
      return this.peer.#arrive(item);
    }
    if (this.#left > 0) this.peer.#arrive(item.subarray(0, this.#left));
    this.#break();
  }

  #break(): void {
    this.#isMute = true;
    if (this.#how === "silence") this.peer.#isMute = true;
    else if (this.#how === "reset") {
      this.peer.#arrive(failure("The line was reset", "connection-lost"));
    } else this.peer.#arrive(null);
    if (this.#how !== "end") return;
    this.peer.#isMute = true;
    this.#arrive(null);
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#schedule();
  }

  protected finish(): void {
    this.#send(null);
    this.reportFinished();
  }

  protected cut(): void {
    this.#later(() => this.reportClose());
    // Like on a socket, bytes written before still arrive.
    this.#send(null);
  }

  override fail(error: Error): void {
    for (const end of [this, this.peer]) end.#later(() => end.reportClose(error));
  }

  protected override reportClose(error?: Error): void {
    this.#arriving.clear();
    super.reportClose(error);
  }

  #arrive(item: Uint8Array | null | Error): void {
    if (this.phase === "closed") return;
    if (item instanceof Uint8Array) this.#underWay += item.length;
    this.#arriving.push(item);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isPaused || this.handlers === undefined) return;
    if (this.#arriving.length === 0) return;
    this.#isScheduled = true;
    this.#later(() => {
      this.#isScheduled = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    while (!this.#isPaused && !this.isDestroyed && this.#arriving.length > 0) {
      const item = this.#arriving.shift()!;
      if (item === null) this.reportEnd();
      else if (item instanceof Error) this.fail(item);
      else this.#give(item);
    }
  }

  #give(chunk: Uint8Array): void {
    const before = this.peer.bufferedAmount;
    this.#underWay -= chunk.length;
    this.handlers!.data(chunk);
    if (before > 0) this.peer.reportDrain();
  }

  #later(callback: () => void): void {
    if (this.#delay > 0) timer(callback, this.#delay);
    else nextTurn(callback);
  }
}
