/** The state of one simulation: its connections, their messages, and the promises with their times. */
import { Buffer } from "node:buffer";
import {
  type CloseDetails,
  HandshakeError,
  type Message,
  type WebSocketConnection,
  WebSocketError,
} from "../../mod.ts";
import { byteLength } from "./message.ts";
import type { End, Line, Network } from "./network.ts";
import type { Plan } from "./plan.ts";
import type { SimulatedTime } from "./time.ts";

/** A message that one end has sent. */
export interface Sent {
  body: Message;
  /** "sent" after its promise has resolved; "unknown" if there is no promise. */
  state: "waiting" | "sent" | "refused" | "unknown";
}

/** Maximum bytes of a frame besides a message: the longest header, or a whole ping of keepalive. */
const MOST_OVERHEAD = 14;

/** One end of a connection. */
export class Half {
  readonly name: string;
  readonly world: World;
  readonly ws: WebSocketConnection;
  /** The end of its line to the next machine. */
  readonly end: End | undefined;
  peer: Half | undefined;
  readonly sent: Sent[] = [];
  /** The indexes of the peer's messages that it has received. A string stands for an unknown message. */
  readonly received: (number | string)[] = [];
  /** The number of bytes of these messages. */
  receivedBytes = 0;
  /** How reading to the end has ended, if it has. */
  readEnd: "clean" | "error" | undefined;
  closeCalledAt: number | undefined;
  /** The code of that call. */
  askedCode: number | undefined;
  isTerminated = false;
  openedAt: number;
  closedAt: number | undefined;
  /** Time without received bytes before it was closed, in milliseconds. */
  silence = 0;
  closed: "pending" | "clean" | "failed" = "pending";
  error: unknown;
  /** The most bytes held that its reader had not taken. */
  mostHeld = 0;
  /** The most bytes that waited to be sent after a call of `send()`. */
  mostWaiting = 0;

  constructor(name: string, world: World, ws: WebSocketConnection, end: End | undefined) {
    this.name = name;
    this.world = world;
    this.ws = ws;
    this.end = end;
    this.openedAt = world.time.now;
    world.halves.push(this);
    world.say(`${name} is open`);
    // Bytes that the opening handshake has taken.
    const before = end?.delivered ?? 0;
    if (end !== undefined) {
      end.onDelivery = () => {
        // After our close(), messages may be dropped. After a reader has stopped, nothing limits them.
        if (ws.state !== "open" || this.readEnd !== undefined) return;
        const read = this.receivedBytes + MOST_OVERHEAD * ws.stats.framesReceived;
        this.mostHeld = Math.max(this.mostHeld, end.delivered - before - read);
      };
    }
    ws.closed.then(
      () => this.#settle("clean", undefined),
      (error) => this.#settle("failed", error),
    );
  }

  #settle(how: "clean" | "failed", error: unknown): void {
    this.closed = how;
    this.error = error;
    this.closedAt = this.world.time.now;
    this.silence = this.closedAt - (this.end?.lastDelivery ?? 0);
    this.world.say(
      `${this.name} is closed: ${how} ${describe(error)} ${closeText(this.closeInfo)}`,
    );
  }

  get closeInfo(): CloseDetails | undefined {
    return this.ws.closeInfo;
  }

  /** Sends a message, and records the outcome. Returns false if the message was refused. */
  async send(body: Message): Promise<boolean> {
    const sent: Sent = { body, state: "waiting" };
    this.sent.push(sent);
    const sending = this.ws.send(body);
    this.mostWaiting = Math.max(this.mostWaiting, this.ws.bufferedAmount);
    try {
      await this.world.track(`${this.name}: send()`, sending);
      sent.state = "sent";
      return true;
    } catch {
      sent.state = "refused";
      return false;
    }
  }

  /** Records a message that was read. */
  receive(message: Message): void {
    const index = this.#indexOf(message);
    this.receivedBytes += byteLength(message);
    this.received.push(index ?? `${typeof message} of ${message.length}`);
    this.world.say(`${this.name} has received ${index ?? "?"} (${message.length})`);
  }

  /** The index of the peer's message: the first equal message that has not been received yet. */
  #indexOf(message: Message): number | undefined {
    const before = this.received.at(-1);
    const from = typeof before === "number" ? before + 1 : 0;
    const sent = this.peer?.sent ?? [];
    for (let index = from; index < sent.length; index++) {
      if (isSame(sent[index].body, message)) return index;
    }
  }

  async close(closeCode: number): Promise<void> {
    this.closeCalledAt ??= this.world.time.now;
    this.askedCode ??= closeCode;
    this.world.say(`${this.name}: close(${closeCode})`);
    await this.world.track(`${this.name}: close()`, this.ws.close({ closeCode })).catch(() => {});
  }

  terminate(): void {
    this.isTerminated = true;
    this.world.say(`${this.name}: terminate()`);
    this.ws.terminate();
  }
}

function isSame(a: Message, b: Message): boolean {
  if (typeof a === "string" || typeof b === "string") return a === b;
  return Buffer.compare(a, b) === 0;
}

/** An attempt to connect. */
export interface Attempt {
  name: string;
  startedAt: number;
  endedAt: number | undefined;
  openTimeout: number;
  error: unknown;
  lines: Line[];
}

/** A promise that the library has returned. */
export interface Tracked {
  what: string;
  state: "pending" | "resolved" | "rejected";
  error: unknown;
}

/** A delay that `reconnect()` has announced. */
export interface Retry {
  name: string;
  at: number;
  delay: number;
  /** When the next attempt began. */
  nextAt: number | undefined;
}

/** The end of a `reconnect()` by an error. */
export interface GivenUp {
  name: string;
  error: unknown;
  /** The number of attempts that have failed since its last connection. */
  failed: number;
}

/** The state of one simulation. */
export class World {
  readonly plan: Plan;
  readonly time: SimulatedTime;
  network!: Network;
  readonly halves: Half[] = [];
  /** The connections that the server broadcasts to. */
  readonly room = new Set<Half>();
  readonly attempts: Attempt[] = [];
  readonly retries: Retry[] = [];
  readonly givenUp: GivenUp[] = [];
  readonly tracked: Tracked[] = [];
  /** Each counts the listeners of a client's signal. */
  readonly listeners: (() => number)[] = [];
  /** All events, if they are recorded. */
  readonly trace: string[] | undefined;
  /** The invariants that were found broken during the run. */
  readonly broken: string[] = [];
  /** The errors that the server's `onError` received. */
  readonly reported: unknown[] = [];
  /** When the server was asked to shut down, and when it had finished. */
  shutdown: { at: number; finishedAt: number | undefined } | undefined;
  timersLeft = 0;
  #hash = 0x811c9dc5;
  #hashTime = 0;
  /** The sum of the hashes of the events with this time. */
  #sum = 0;

  /** @param traced Whether the events are recorded. */
  constructor(plan: Plan, time: SimulatedTime, traced: boolean) {
    this.plan = plan;
    this.time = time;
    if (traced) this.trace = [];
  }

  /** A hash of all events and their times. */
  get hash(): number {
    return mix(this.#hash, this.#sum);
  }

  /** Records an event. */
  say(text: string): void {
    let hash = 0;
    for (let i = 0; i < text.length; i++) hash = mix(hash, text.charCodeAt(i));
    this.count(hash);
    if (this.trace !== undefined) this.record(text);
  }

  /** Adds an event to the trace. */
  record(text: string): void {
    this.trace?.push(`${this.time.now.toFixed(3).padStart(12)}  ${text}`);
  }

  /**
   * Adds an event to the hash. The order of events with the same time does not matter, because the
   * streams of some runtimes need more microtasks than those of others.
   */
  count(hash: number): void {
    const { now } = this.time;
    if (now !== this.#hashTime) {
      this.#hash = mix(mix(this.#hash, this.#sum), Math.round(now * 1000));
      this.#hashTime = now;
      this.#sum = 0;
    }
    this.#sum = (this.#sum + hash) | 0;
  }

  /** Watches a promise until it settles, and returns it. */
  track<T>(what: string, promise: Promise<T>): Promise<T> {
    const tracked: Tracked = { what, state: "pending", error: undefined };
    this.tracked.push(tracked);
    promise.then(() => {
      tracked.state = "resolved";
    }, (error) => {
      tracked.state = "rejected";
      tracked.error = error;
      this.say(`${what} rejects: ${describe(error)}`);
    });
    return promise;
  }
}

/** Mixes a whole number into a hash. */
export function mix(hash: number, value: number): number {
  const mixed = Math.imul(hash ^ value, 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}

/** Describes an error in a few words. */
export function describe(error: unknown): string {
  if (error === undefined) return "";
  if (error instanceof WebSocketError) return `${error.closeCode} ${error.message}`;
  if (error instanceof HandshakeError) return `${error.code} ${error.message}`;
  const { name, message } = error as Error;
  return `${name} ${message}`;
}

/** Describes the Close frames of a connection. */
export function closeText(info: CloseDetails | undefined): string {
  return `(sent ${info?.sent?.closeCode ?? "none"}, received ${
    info?.received?.closeCode ?? "none"
  })`;
}
