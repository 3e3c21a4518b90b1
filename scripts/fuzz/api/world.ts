/** The state of one run: its promises, its messages, its signals, and the faults caused on purpose. */
import type { CloseInfo, Server, WebSocketConnection } from "../../../mod.ts";
import type { Message } from "../../../lib/core/mod.ts";
import type { Random } from "../random.ts";
import { type Clock, turn } from "./clock.ts";
import type { Line, TcpLine } from "./line.ts";

/** An error that sources, sinks and handlers of the random user throw. */
export class UserFault extends Error {
  override name = "UserFault";
}

/** The names of errors that the call may reject with besides the general ones, or "never". */
export type Expected = readonly string[] | "never";

/** A promise that the library, or a program that uses the library, has returned. */
export interface Tracked {
  what: string;
  state: "pending" | "resolved" | "rejected";
  error?: unknown;
  /** Names of expected errors, besides those that are expected everywhere. */
  expected: Expected;
}

/** A message that one end was asked to send. */
export interface Sent {
  /** Group of messages that keep their order: those of `send()`, of one writer, of one pipe, of a feed. */
  lane: string;
  index: number;
  /** Whether its body identifies it. A message may be too short for that. */
  named: boolean;
  body: Message;
  /** "sent" after its promise has resolved; "unknown" if there is no promise. */
  state: "waiting" | "sent" | "refused" | "unknown";
  /** Whether a policy may drop the message. */
  lossy: boolean;
  /** Number of times that the peer's reader got it. */
  received: number;
}

/** A source of items or a sink that the library must release. */
export interface Source {
  what: string;
  /** Whether it must be released. */
  checked: boolean;
  begun: boolean;
  /** Whether an item was requested and not returned yet. */
  busy: boolean;
  finished: boolean;
  /** Number of times that it was told to stop. */
  released: number;
}

/** The state of one run. */
export class World {
  readonly clock: Clock;
  /** Whether no operation may end the connection other than cleanly. */
  readonly calm: boolean;
  readonly trace: string[] = [];
  readonly tracked: Tracked[] = [];
  readonly sources: Source[] = [];
  readonly signals: WatchedSignal[] = [];
  /** The invariants that were found broken during the run. */
  readonly broken: string[] = [];
  /** Why the connection may end other than cleanly. */
  readonly trouble = new Set<string>();
  /** Values that were given as the reason of an abort or a cancellation, or thrown. */
  readonly reasons = new Set<unknown>();
  /** The errors that the server's `onError` received. */
  readonly reported: unknown[] = [];
  readonly users: User[] = [];
  line: Line | undefined;
  server: Server | undefined;
  proxy: TcpLine | undefined;
  /** Functions that end the running handlers of the server. */
  readonly endHandlers: (() => void)[] = [];
  #gates: (() => void)[] = [];
  #open = false;

  constructor(clock: Clock, calm: boolean) {
    this.clock = clock;
    this.calm = calm;
  }

  say(text: string): void {
    this.trace.push(text);
  }

  /** Watches a promise until it settles. */
  track(what: string, promise: Promise<unknown>, expected: Expected = []): Tracked {
    const tracked: Tracked = { what, state: "pending", expected };
    this.tracked.push(tracked);
    promise.then(
      () => {
        tracked.state = "resolved";
        this.clock.touch();
      },
      (error) => {
        tracked.state = "rejected";
        tracked.error = error;
        this.clock.touch();
      },
    );
    return tracked;
  }

  /** Makes an error of the user, which may come back from any call. */
  fault(text: string): UserFault {
    const fault = new UserFault(text);
    this.reasons.add(fault);
    return fault;
  }

  /** Waits until the run opens the gates, at the end of the run at the latest. */
  gate(): Promise<void> {
    if (this.#open) return Promise.resolve();
    return new Promise((resolve) => void this.#gates.push(resolve));
  }

  /** Resolves the promises of all gates. */
  openGates(forGood = false): void {
    this.#open ||= forGood;
    const gates = this.#gates;
    this.#gates = [];
    for (const open of gates) open();
  }

  /** Makes a signal that counts its listeners. */
  signal(): WatchedSignal {
    const watched = new WatchedSignal();
    this.signals.push(watched);
    return watched;
  }
}

/** A signal, and the number of its listeners. */
export class WatchedSignal {
  readonly controller = new AbortController();
  listeners = 0;

  constructor() {
    const { signal } = this.controller;
    // The platform's own streams listen in other ways.
    for (
      const [method, change] of [["addEventListener", 1], ["removeEventListener", -1]] as const
    ) {
      const original = signal[method].bind(signal) as (...args: unknown[]) => void;
      const seen = this.#seen;
      signal[method] = (type: string, listener: unknown, ...rest: unknown[]) => {
        if (change > 0 && !seen.has(listener)) this.listeners++;
        if (change < 0 && seen.has(listener)) this.listeners--;
        if (change > 0) seen.add(listener);
        else seen.delete(listener);
        original(type, listener, ...rest);
      };
    }
  }

  readonly #seen = new Set<unknown>();

  get signal(): AbortSignal {
    return this.controller.signal;
  }
}

/** How reading a whole stream of messages has ended. */
export type ReadEnd = "clean" | "error" | undefined;

/** One end of the connection, with its user. */
export class User {
  readonly name: "client" | "server";
  readonly world: World;
  readonly ws: WebSocketConnection;
  /** The messages that the user was asked to send. */
  readonly sent: Sent[] = [];
  /** The peer's messages that were read, in order. A string stands for an unknown message. */
  readonly received: (Sent | string)[] = [];
  /** Number of the peer's messages that the user has skipped on purpose, or lost by its own reading. */
  skipped = 0;
  /** Whether the user does not want to read all messages. */
  dropped = false;
  /** Whether the user has started to close. */
  gaveUp = false;
  /** The reading to the end, if it could start. */
  readingOn: Tracked | undefined;
  readEnd: ReadEnd;
  /** Ends the handler of a server's connection: resolves it, or rejects it with the error. */
  endHandler: ((error?: unknown) => void) | undefined;
  /** The `close()` of a WebSocketStream, if the client is one. */
  closeStream: ((info?: CloseInfo) => void) | undefined;
  readonly #indexes = new Map<string, number>();
  #lanes = 0;

  constructor(name: "client" | "server", ws: WebSocketConnection, world: World) {
    this.name = name;
    this.ws = ws;
    this.world = world;
  }

  get peer(): User {
    return this.world.users[this.name === "client" ? 1 : 0];
  }

  say(text: string): void {
    this.world.say(`${this.name} ${text}`);
  }

  track(what: string, promise: Promise<unknown>, expected?: Expected): Tracked {
    return this.world.track(`${this.name} ${what}`, promise, expected);
  }

  /** Runs a program of several calls, which ends when its promise settles. */
  task(what: string, run: () => Promise<unknown>, expected?: Expected): Tracked {
    return this.track(what, run(), expected);
  }

  /** Makes a call that may throw InvalidStateError synchronously, or one of the expected errors. */
  attempt<T>(what: string, call: () => T, expected: readonly string[] = []): T | undefined {
    try {
      return call();
    } catch (error) {
      const name = (error as Error)?.name;
      if (name !== "InvalidStateError" && !expected.includes(name)) {
        this.world.broken.push(`${this.name} ${what} threw ${describe(error)}`);
      }
      return undefined;
    }
  }

  /** Makes a separate lane for a writer or a pipe. */
  lane(what: string): string {
    return `${what}${this.#lanes++}`;
  }

  /** Makes a message of about this length, which identifies its sender and its number. */
  compose(random: Random, lane: string, length: number, text: boolean, lossy = false): Sent {
    const index = this.#indexes.get(lane) ?? 0;
    this.#indexes.set(lane, index + 1);
    const head = `${this.name[0]}.${lane}.${index}.${length}.`;
    const body = bodyOf(random, head, length, text);
    const named = length >= head.length;
    const sent: Sent = { lane, index, named, body, state: "unknown", lossy, received: 0 };
    this.sent.push(sent);
    // A thread compresses long messages.
    if (length >= 16_384 && this.ws.extensions !== "") this.world.clock.threads = true;
    return sent;
  }

  /** Watches the promise of a message. */
  trackSend(what: string, sent: Sent, promise: Promise<void>, expected?: Expected): void {
    sent.state = "waiting";
    const wasOpen = this.ws.state === "open";
    promise.then(() => sent.state = "sent", (error) => {
      sent.state = "refused";
      if (wasOpen) void this.#checkOrder(`${what} ${sent.lane}.${sent.index}`, error);
    });
    this.track(`${what} ${sent.lane}.${sent.index}`, promise, expected);
  }

  /** Checks that calls interrupted by the end of the connection settle with `closed` or after it. */
  async #checkOrder(what: string, error: unknown): Promise<void> {
    if (this.gaveUp || (error as Error)?.name !== "WebSocketError") return;
    await turn();
    await turn();
    if (this.world.tracked.find((one) => one.what === `${this.name} closed`)?.state !== "pending") {
      return;
    }
    this.world.broken.push(
      `${this.name} ${what} was interrupted before closed settled: ${describe(error)}`,
    );
  }

  /** Checks a message that a reader got. */
  receive(message: unknown): void {
    this.world.clock.touch();
    const own = typeof message === "string" || this.checkBuffer(message);
    const found = this.peer.sent.find((sent) => sent.received === 0 && same(sent.body, message)) ??
      this.peer.sent.find((sent) => same(sent.body, message));
    if (found !== undefined) found.received++;
    this.received.push(found ?? describe(message));
    // The caller owns a message and may transfer it. That must not affect anything else.
    if (message instanceof Uint8Array && own && this.received.length % 5 === 0) {
      structuredClone(message.buffer, { transfer: [message.buffer as ArrayBuffer] });
    }
  }

  /** Checks that received bytes do not share their memory. */
  checkBuffer(bytes: unknown): boolean {
    const own = bytes instanceof Uint8Array && bytes.byteLength === bytes.buffer.byteLength;
    if (!own) this.world.broken.push(`${this.name} received bytes that do not own their buffer`);
    return own;
  }
}

const FILLERS = ["a", "lorem ipsum ", "zé", "x€y", "😀"];

/** The head and a filler, or only the filler if the message is too short for its head. */
function bodyOf(random: Random, head: string, length: number, text: boolean): Message {
  const start = length >= head.length ? head : "";
  if (text) return start + random.pick(FILLERS).repeat(length).slice(0, length - start.length);
  const bytes = random.once(4) ? random.bytes(length) : new Uint8Array(length).fill(length % 256);
  bytes.set(new TextEncoder().encode(start));
  return bytes;
}

/** Whether a message arrived unchanged. Lone surrogates are replaced. */
function same(sent: Message, received: unknown): boolean {
  if (typeof sent === "string") {
    return typeof received === "string" && sent.length === received.length &&
      (sent === received || wellFormed(sent) === received);
  }
  if (!(received instanceof Uint8Array) || received.length !== sent.length) return false;
  return sent.every((byte, i) => byte === received[i]);
}

/** Returns the text after a round trip through UTF-8. */
export function wellFormed(text: string): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(new TextEncoder().encode(text));
}

/** Describes a value in a few words. */
export function describe(value: unknown): string {
  if (value instanceof Uint8Array) {
    return `${value.length} bytes ${new TextDecoder().decode(value.subarray(0, 24))}`;
  }
  if (typeof value === "string") return `${value.length} characters ${value.slice(0, 24)}`;
  if (typeof value === "object" && value !== null && "message" in value) {
    const { name, message, closeCode } = value as {
      name: string;
      message: string;
      closeCode?: number;
    };
    return `${name}${closeCode === undefined ? "" : ` ${closeCode}`}: ${message}`;
  }
  return `${value}`;
}
