/** Simulates a network of lines between machines, with a {@linkcode TransportProvider} for each machine. */
import type {
  Address,
  DialOptions,
  Listener,
  ListenOptions,
  Transport,
  TransportHandlers,
  TransportProvider,
} from "../../mod.ts";
import type { Random } from "../fuzz/random.ts";
import type { SimulatedTime } from "./time.ts";

/** How a line carries bytes. */
export interface LineOptions {
  /** Time that a byte travels, in milliseconds. */
  latency: number;
  /** Maximum additional time of a segment, in milliseconds. */
  jitter: number;
  /** Bytes per millisecond. */
  bandwidth: number;
  /** Maximum size of a segment, in bytes. */
  segment: number;
  /** Number of bytes that the sender's platform accepts before it reports that bytes wait. */
  sendBuffer: number;
  /** Number of unread bytes that the receiver's platform holds: its window. */
  receiveBuffer: number;
}

/** How a line may break. */
export const BREAKS = ["reset", "end", "half-close", "silence", "silence one way"] as const;
export type Break = typeof BREAKS[number];

/** The contents of the receiver's buffer. */
type Arrival = Uint8Array | "end";

/** Maximum number of short segments of a line. The others have full size, so that a run stays short. */
const MOST_SHORT_SEGMENTS = 300;
const WHOLE_SEGMENT = 16_384;
/** Maximum number of bytes that are read at once. */
const MOST_AT_ONCE = 65_536;

/** One end of a line. */
export class End implements Transport {
  peer!: End;
  readonly line: Line;
  readonly localAddress: Address;
  readonly remoteAddress: Address;
  readonly #network: Network;
  #handlers: TransportHandlers | undefined;
  #paused = true;
  #isScheduled = false;

  /** Data that was written but has not been sent. */
  #unsent: Uint8Array[] = [];
  #unsentLength = 0;
  /** Bytes that are in flight or that the peer has not read, as far as this end knows. */
  #outstanding = 0;
  /** Bytes that were read, but the sender was not told of the room. */
  #freed = 0;
  #lineIsFreeAt = 0;
  #lastArrival = 0;
  #endWritten = false;
  #endSent = false;
  /** Bytes that were written too late to be sent. */
  #dropped = 0;
  /** Until when the peer says that it has no room for data of this end. */
  windowClosedUntil = 0;
  /** Whether data that this end sends from now on is lost. */
  isMute = false;
  /** Whether data in flight is lost too. */
  isDead = false;

  #arrived: Arrival[] = [];
  #inputEnded = false;
  closed = false;
  #error: Error | undefined;

  /** The number of bytes that its handlers have received. */
  delivered = 0;
  /** Called when its handlers have received bytes. */
  onDelivery: (() => void) | undefined;
  /** When the last of these bytes were received. */
  lastDelivery: number;
  /** The most bytes that were written and not accepted by the platform. */
  mostBuffered = 0;

  constructor(network: Network, line: Line, local: Address, remote: Address) {
    this.#network = network;
    this.line = line;
    this.localAddress = local;
    this.remoteAddress = remote;
    this.lastDelivery = network.time.now;
  }

  get bufferedAmount(): number {
    return Math.max(0, this.#unsentLength - this.line.options.sendBuffer) + this.#dropped;
  }

  handle(handlers: TransportHandlers): void {
    const isFirst = this.#handlers === undefined;
    this.#handlers = handlers;
    if (isFirst && this.closed) this.#later(() => handlers.close(this.#error));
    else if (isFirst) this.resume();
  }

  write(parts: readonly Uint8Array[]): void {
    for (const part of parts) {
      if (this.#endWritten || this.closed) this.#dropped += part.length;
      else if (part.length > 0) {
        this.#unsent.push(new Uint8Array(part));
        this.#unsentLength += part.length;
      }
    }
    this.mostBuffered = Math.max(this.mostBuffered, this.bufferedAmount - this.#dropped);
    this.#send();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#deliverLater();
  }

  end(): void {
    if (this.#endWritten || this.closed) return;
    this.#endWritten = true;
    this.#send();
    this.#closeIfEnded();
  }

  destroy(): void {
    if (this.closed) return;
    // Accepted bytes are still sent, unless this end leaves received data unread.
    const isRude = this.#arrived.some((item) => item !== "end");
    if (isRude) this.#sendReset();
    else {
      this.#dropUnsent(this.line.options.sendBuffer);
      this.#endWritten = true;
      this.#send();
    }
    this.#close(undefined);
  }

  /** Closes both ends of the line with an error. */
  reset(why: string): void {
    if (this.closed) return;
    this.#sendReset();
    this.#close(new Error(why));
  }

  /** Ends this direction after the data in flight. This end is not notified. */
  cutOff(): void {
    this.#sendEnd();
    this.isMute = true;
  }

  /** Loses all further data of this direction. No end is notified. */
  fallSilent(): void {
    this.isMute = this.isDead = true;
  }

  /** Continues to send after the line was stopped. */
  goOn(): void {
    this.#send();
  }

  #dropUnsent(keep: number): void {
    while (this.#unsentLength > keep) {
      this.#unsentLength -= this.#unsent.pop()!.length;
    }
  }

  #later(callback: () => void): void {
    const { time } = this.#network;
    time.schedule(time.now, callback);
  }

  #sendReset(): void {
    const { time } = this.#network;
    if (this.isMute) return;
    this.isMute = true;
    time.schedule(time.now + this.line.options.latency, () => {
      this.peer.#arrived = [];
      this.peer.#close(new Error("The connection was reset"));
    });
  }

  #send(): void {
    const { time } = this.#network;
    const { options } = this.line;
    if (this.line.standsStillUntil > time.now || this.windowClosedUntil > time.now) return;
    const hadToWait = this.bufferedAmount > this.#dropped;
    for (;;) {
      const room = options.receiveBuffer - this.#outstanding;
      const size = Math.min(this.#unsentLength, room, this.line.segmentSize());
      if (size <= 0) break;
      const segment = this.#take(size);
      this.#outstanding += segment.length;
      this.#lineIsFreeAt = Math.max(time.now, this.#lineIsFreeAt) +
        segment.length / options.bandwidth;
      this.#transmit(segment);
    }
    if (this.#endWritten && this.#unsentLength === 0) this.#sendEnd();
    if (hadToWait && this.bufferedAmount === 0 && !this.closed) {
      this.#later(() => {
        if (this.bufferedAmount === 0 && !this.closed) this.#handlers?.drain();
      });
    }
  }

  #sendEnd(): void {
    if (this.#endSent) return;
    this.#endSent = true;
    this.#lineIsFreeAt = Math.max(this.#network.time.now, this.#lineIsFreeAt);
    this.#transmit("end");
  }

  #transmit(item: Arrival): void {
    if (this.isMute) return;
    const { latency, jitter } = this.line.options;
    const delay = latency + (jitter > 0 ? this.#network.random.below(jitter + 1) : 0);
    this.#lastArrival = Math.max(this.#lastArrival, this.#lineIsFreeAt + delay);
    this.#network.time.schedule(this.#lastArrival, () => {
      if (!this.isDead) this.peer.#arrive(item);
    });
  }

  /** Takes at most this number of bytes from the unsent data. */
  #take(size: number): Uint8Array {
    const [first] = this.#unsent;
    const segment = first.length <= size ? first : first.subarray(0, size);
    if (segment === first) this.#unsent.shift();
    else this.#unsent[0] = first.subarray(size);
    this.#unsentLength -= segment.length;
    return segment;
  }

  #arrive(item: Arrival): void {
    if (this.closed) {
      // A sender to a closed socket receives a reset.
      if (item !== "end") this.#sendReset();
      return;
    }
    this.#arrived.push(item);
    this.#deliver();
  }

  #deliverLater(): void {
    if (this.#isScheduled || this.#arrived.length === 0) return;
    this.#isScheduled = true;
    this.#later(() => {
      this.#isScheduled = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    while (!this.#paused && !this.closed && this.#arrived.length > 0) {
      if (this.#arrived[0] === "end") {
        this.#arrived.shift();
        this.#endInput();
      } else this.#give(this.#takeArrived());
    }
  }

  /** Takes all data that has arrived, as one chunk. */
  #takeArrived(): Uint8Array {
    const parts: Uint8Array[] = [];
    let length = 0;
    for (let first = this.#arrived[0]; first instanceof Uint8Array; first = this.#arrived[0]) {
      if (parts.length > 0 && length + first.length > MOST_AT_ONCE) break;
      parts.push(first);
      length += first.length;
      this.#arrived.shift();
    }
    if (parts.length === 1) return parts[0];
    const chunk = new Uint8Array(length);
    let at = 0;
    for (const part of parts) {
      chunk.set(part, at);
      at += part.length;
    }
    return chunk;
  }

  #give(chunk: Uint8Array): void {
    const { time } = this.#network;
    const { length } = chunk;
    this.delivered += length;
    this.lastDelivery = time.now;
    this.#network.noteBytes(length, this.localAddress);
    this.#freed += length;
    if (this.#freed >= this.line.options.receiveBuffer / 2) this.#announceRoom();
    this.#handlers!.data(chunk);
    this.onDelivery?.();
  }

  /**
   * Tells the sender that there is room. As with TCP, the receiver waits until half of its window is free,
   * so that a small window does not make ever smaller segments (RFC 9293 §3.8.6.2.2).
   */
  #announceRoom(): void {
    const { time } = this.#network;
    const freed = this.#freed;
    this.#freed = 0;
    time.schedule(time.now + this.line.options.latency, () => {
      if (this.isDead) return;
      this.peer.#outstanding -= freed;
      this.peer.#send();
    });
  }

  #endInput(): void {
    this.#inputEnded = true;
    this.#network.note(`end to ${addressText(this.localAddress)}`);
    this.#handlers!.end();
    this.#closeIfEnded();
  }

  #closeIfEnded(): void {
    if (this.#inputEnded && this.#endWritten && this.#unsentLength === 0) this.#close(undefined);
  }

  #close(error: Error | undefined): void {
    if (this.closed) return;
    this.closed = true;
    this.#error = error;
    this.#network.note(`${addressText(this.localAddress)} is closed: ${error?.message ?? "well"}`);
    if (this.#handlers !== undefined) this.#later(() => this.#handlers!.close(error));
  }
}

export function addressText(address: Address): string {
  return address.transport === "tcp" ? `${address.hostname}:${address.port}` : address.path;
}

/** A line between two machines. */
export class Line {
  readonly options: LineOptions;
  readonly ends: readonly [End, End];
  standsStillUntil = 0;
  /** When both directions fell silent, if they did. */
  silentSince: number | undefined;
  /** The faults that were caused on purpose. */
  readonly faults: string[] = [];
  readonly #network: Network;
  #shortSegments = 0;

  constructor(network: Network, options: LineOptions, client: Address, server: Address) {
    this.#network = network;
    this.options = options;
    this.ends = [
      new End(network, this, client, server),
      new End(network, this, server, client),
    ];
    this.ends[0].peer = this.ends[1];
    this.ends[1].peer = this.ends[0];
  }

  /** The maximum size of the next segment. */
  segmentSize(): number {
    const { segment } = this.options;
    if (segment >= WHOLE_SEGMENT || this.#shortSegments++ > MOST_SHORT_SEGMENTS) {
      return WHOLE_SEGMENT;
    }
    return 1 + this.#network.random.below(segment);
  }

  /** Sends nothing for a time. */
  standStill(duration: number): void {
    const { time } = this.#network;
    this.faults.push("stall");
    this.standsStillUntil = Math.max(this.standsStillUntil, time.now + duration);
    time.schedule(this.standsStillUntil, () => {
      for (const end of this.ends) end.goOn();
    });
  }

  /** One end announces no room for a time, as if another program used up its memory. */
  closeWindow(way: 0 | 1, duration: number): void {
    const { time } = this.#network;
    const sender = this.ends[way];
    this.faults.push("zero window");
    sender.windowClosedUntil = Math.max(sender.windowClosedUntil, time.now + duration);
    time.schedule(sender.windowClosedUntil, () => sender.goOn());
  }

  /** @param way The affected direction: 0 for the client's, 1 for the server's. */
  break(how: Break, way: 0 | 1): void {
    this.faults.push(how);
    const end = this.ends[way];
    if (how === "reset") end.reset("The line was cut");
    else if (how === "half-close") end.cutOff();
    else if (how === "silence one way") end.fallSilent();
    else if (how === "end") { for (const each of this.ends) each.cutOff(); }
    else {
      this.silentSince ??= this.#network.time.now;
      for (const each of this.ends) each.fallSilent();
    }
  }
}

/** All machines and lines of one simulation. */
export class Network {
  readonly time: SimulatedTime;
  readonly random: Random;
  readonly lines: Line[] = [];
  /** Called with each event. Bytes that arrive are too frequent for a text. */
  readonly note: (text: string) => void;
  readonly noteBytes: (length: number, to: Address) => void;
  readonly #listeners = new Map<string, (transport: Transport) => void>();
  readonly #optionsOf: () => LineOptions;
  #lastPort = 49_152;

  /** @param optionsOf Returns the options of the next line. */
  constructor(
    time: SimulatedTime,
    random: Random,
    optionsOf: () => LineOptions,
    note: (text: string) => void,
    noteBytes: (length: number, to: Address) => void,
  ) {
    this.time = time;
    this.random = random;
    this.#optionsOf = optionsOf;
    this.note = note;
    this.noteBytes = noteBytes;
  }

  /** Creates the transport provider of a machine. */
  machine(hostname: string, onLine: (line: Line) => void = () => {}): TransportProvider {
    return {
      connect: (options) => this.#connect(hostname, options, onLine),
      listen: (options, accept) => Promise.resolve(this.#listen(options, accept)),
    };
  }

  #listen({ hostname, port }: ListenOptions, accept: (transport: Transport) => void): Listener {
    const address: Address = { transport: "tcp", hostname, port: port || this.#lastPort++ };
    const name = addressText(address);
    if (this.#listeners.has(name)) throw new Error(`The address ${name} is in use`);
    this.#listeners.set(name, accept);
    const close = () => {
      this.#listeners.delete(name);
      return Promise.resolve();
    };
    return { address, close };
  }

  async #connect(
    from: string,
    { hostname, port, tunnel, signal }: DialOptions,
    onLine: (line: Line) => void,
  ): Promise<Transport> {
    const client: Address = { transport: "tcp", hostname: from, port: this.#lastPort++ };
    const line = new Line(this, this.#optionsOf(), client, { transport: "tcp", hostname, port });
    const [near] = line.ends;
    await abortable(signal, (resolve, reject) => {
      const { latency } = line.options;
      this.time.schedule(this.time.now + latency, () => {
        const accept = this.#listeners.get(`${hostname}:${port}`);
        if (accept !== undefined) this.lines.push(line);
        this.time.schedule(this.time.now + latency, () => {
          if (accept === undefined) reject(new Error(`Connection to ${hostname}:${port} refused`));
          else if (signal?.aborted) near.destroy();
          else resolve();
        });
        accept?.(line.ends[1]);
      });
    });
    onLine(line);
    if (tunnel !== undefined) {
      await abortable(signal, (resolve, reject) => void tunnel.open(near).then(resolve, reject))
        .catch((error) => {
          near.destroy();
          throw error;
        });
    }
    return near;
  }
}

/** Waits for the result of `start`. Rejects with the reason of the signal if the signal is aborted. */
async function abortable(
  signal: AbortSignal | undefined,
  start: (resolve: () => void, reject: (error: unknown) => void) => void,
): Promise<void> {
  let abort: (() => void) | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      abort = () => reject(signal!.reason);
      if (signal?.aborted) return abort();
      signal?.addEventListener("abort", abort);
      start(resolve, reject);
    });
  } finally {
    signal?.removeEventListener("abort", abort!);
  }
}
