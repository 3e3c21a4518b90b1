/** What one run knows: its promises, its messages, its signals, and what has gone wrong on purpose. */
import type { CloseInfo, Server, WebSocketConnection } from "../../../mod.ts";
import type { Message } from "../../../lib/core/mod.ts";
import type { Random } from "../random.ts";
import { type Clock, turn } from "./clock.ts";
import type { Line, TcpLine } from "./line.ts";

/** What sources, sinks and handlers of the random user throw. */
export class UserFault extends Error {
  override name = "UserFault";
}

/** With which errors, beside those that any call may reject with; or that it must not reject. */
export type Expected = readonly string[] | "never";

/** A promise that the library, or a program over it, gave. */
export interface Tracked {
  what: string;
  state: "pending" | "resolved" | "rejected";
  error?: unknown;
  /** Names of errors that are right here, beside those that are right everywhere. */
  expected: Expected;
}

/** A message that one end was asked to send. */
export interface Sent {
  /** Where messages keep their order: those of `send()`, of one writer, of one pipe, of a feed. */
  lane: string;
  index: number;
  /** Whether it tells which it is: a message may be too short for that. */
  named: boolean;
  body: Message;
  /** "sent" once its promise has resolved; "unknown" where there is none. */
  state: "waiting" | "sent" | "refused" | "unknown";
  /** Whether a policy may drop it. */
  lossy: boolean;
  /** How often the peer's reader got it. */
  received: number;
}

/** A source of items or a sink that the library is to release. */
export interface Source {
  what: string;
  /** Whether it must be released. */
  checked: boolean;
  begun: boolean;
  /** Whether it has been asked for an item that it has not given yet. */
  busy: boolean;
  finished: boolean;
  /** How often it was told that nobody wants the rest. */
  released: number;
}

/** The state of one run. */
export class World {
  readonly clock: Clock;
  /** Whether nothing is done that may end the connection other than cleanly. */
  readonly calm: boolean;
  readonly trace: string[] = [];
  readonly tracked: Tracked[] = [];
  readonly sources: Source[] = [];
  readonly signals: WatchedSignal[] = [];
  /** What the invariants found broken as it happened. */
  readonly broken: string[] = [];
  /** Why the connection may end other than cleanly. */
  readonly trouble = new Set<string>();
  /** What was given as the reason of an abort or a cancellation, or thrown. */
  readonly reasons = new Set<unknown>();
  /** What the server's `onError` was told. */
  readonly reported: unknown[] = [];
  readonly users: User[] = [];
  line: Line | undefined;
  server: Server | undefined;
  proxy: TcpLine | undefined;
  /** Ends the handlers of the server that run. */
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

  /** Watches a promise to its end. */
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

  /** An error of the user's own, which may come back from any call. */
  fault(text: string): UserFault {
    const fault = new UserFault(text);
    this.reasons.add(fault);
    return fault;
  }

  /** Waits until the run opens its gates, at the end if not before. */
  gate(): Promise<void> {
    if (this.#open) return Promise.resolve();
    return new Promise((resolve) => void this.#gates.push(resolve));
  }

  /** Lets those go on that wait at a gate. */
  openGates(forGood = false): void {
    this.#open ||= forGood;
    const gates = this.#gates;
    this.#gates = [];
    for (const open of gates) open();
  }

  /** A signal that counts its listeners. */
  signal(): WatchedSignal {
    const watched = new WatchedSignal();
    this.signals.push(watched);
    return watched;
  }
}

/** A signal, and how many listen to it. */
export class WatchedSignal {
  readonly controller = new AbortController();
  listeners = 0;

  constructor() {
    const { signal } = this.controller;
    // The streams of the platforms listen by other ways.
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

/** How a reader of a whole stream of messages has ended. */
export type ReadEnd = "clean" | "error" | undefined;

/** One end of the connection, and its user. */
export class User {
  readonly name: "client" | "server";
  readonly world: World;
  readonly ws: WebSocketConnection;
  /** The messages that it was asked to send. */
  readonly sent: Sent[] = [];
  /** Those of its peer that it has read, in order; a string for what is none of them. */
  readonly received: (Sent | string)[] = [];
  /** Messages of the peer that it has left out knowingly, or lost by its own reading. */
  skipped = 0;
  /** It does not want to read all. */
  dropped = false;
  /** It has begun to close. */
  gaveUp = false;
  /** Its reading to the end, if it could begin that. */
  readingOn: Tracked | undefined;
  readEnd: ReadEnd;
  /** Ends the handler of a server's connection: resolves it, or rejects it with the error. */
  endHandler: ((error?: unknown) => void) | undefined;
  /** The `close()` of a WebSocketStream, where the client is one. */
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

  /** Runs a program of several calls, which is over when its promise has settled. */
  task(what: string, run: () => Promise<unknown>, expected?: Expected): Tracked {
    return this.track(what, run(), expected);
  }

  /** Calls what may throw InvalidStateError at once, or one of the expected errors. */
  attempt<T>(what: string, call: () => T, expected: readonly string[] = []): T | undefined {
    try {
      return call();
    } catch (error) {
      const name = (error as Error)?.name;
      if (name !== "InvalidStateError" && !expected.includes(name)) {
        this.world.broken.push(`${this.name} ${what} has thrown ${describe(error)}`);
      }
      return undefined;
    }
  }

  /** A lane of its own for a writer or a pipe. */
  lane(what: string): string {
    return `${what}${this.#lanes++}`;
  }

  /** A new message of about this length, which tells who has sent it and when. */
  compose(random: Random, lane: string, length: number, text: boolean, lossy = false): Sent {
    const index = this.#indexes.get(lane) ?? 0;
    this.#indexes.set(lane, index + 1);
    const head = `${this.name[0]}.${lane}.${index}.${length}.`;
    const body = bodyOf(random, head, length, text);
    const named = length >= head.length;
    const sent: Sent = { lane, index, named, body, state: "unknown", lossy, received: 0 };
    this.sent.push(sent);
    // Long messages are compressed on another thread.
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

  /** What the end of the connection cuts off does not settle before `closed`, or in the same turn. */
  async #checkOrder(what: string, error: unknown): Promise<void> {
    if (this.gaveUp || (error as Error)?.name !== "WebSocketError") return;
    await turn();
    await turn();
    if (this.world.tracked.find((one) => one.what === `${this.name} closed`)?.state !== "pending") {
      return;
    }
    this.world.broken.push(`${this.name} ${what} was cut off before closed: ${describe(error)}`);
  }

  /** Looks at a message that a reader got. */
  receive(message: unknown): void {
    this.world.clock.touch();
    const own = typeof message === "string" || this.checkBuffer(message);
    const found = this.peer.sent.find((sent) => sent.received === 0 && same(sent.body, message)) ??
      this.peer.sent.find((sent) => same(sent.body, message));
    if (found !== undefined) found.received++;
    this.received.push(found ?? describe(message));
    // A message is the caller's, who may give it away. Nothing else is to notice.
    if (message instanceof Uint8Array && own && this.received.length % 5 === 0) {
      structuredClone(message.buffer, { transfer: [message.buffer as ArrayBuffer] });
    }
  }

  /** Bytes that were received share their memory with nothing. */
  checkBuffer(bytes: unknown): boolean {
    const own = bytes instanceof Uint8Array && bytes.byteLength === bytes.buffer.byteLength;
    if (!own) this.world.broken.push(`${this.name} received bytes that do not own their buffer`);
    return own;
  }
}

const FILLERS = ["a", "lorem ipsum ", "zé", "x€y", "😀"];

/** The head and a filler; a message that is too short for its head has the filler alone. */
function bodyOf(random: Random, head: string, length: number, text: boolean): Message {
  const start = length >= head.length ? head : "";
  if (text) return start + random.pick(FILLERS).repeat(length).slice(0, length - start.length);
  const bytes = random.once(4) ? random.bytes(length) : new Uint8Array(length).fill(length % 256);
  bytes.set(new TextEncoder().encode(start));
  return bytes;
}

/** Whether a message came as it was sent. Lone surrogates do not travel. */
function same(sent: Message, received: unknown): boolean {
  if (typeof sent === "string") {
    return typeof received === "string" && sent.length === received.length &&
      (sent === received || wellFormed(sent) === received);
  }
  if (!(received instanceof Uint8Array) || received.length !== sent.length) return false;
  return sent.every((byte, i) => byte === received[i]);
}

/** What becomes of text in UTF-8. */
export function wellFormed(text: string): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(new TextEncoder().encode(text));
}

/** A value in a few words. */
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
