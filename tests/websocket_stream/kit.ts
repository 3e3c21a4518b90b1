/**
 * Helpers for the rows about WebSocketStream: a peer that the test controls through a server (`server.ts`),
 * and assertions. This module imports nothing, so that the rows also run in a browser.
 */

/** Close information, as an argument and as a result. */
export interface Info {
  closeCode?: number;
  reason?: string;
}

/** The interface under test: Chromium's or ours. */
export interface Stream {
  readonly url: string;
  readonly opened: Promise<OpenInfo>;
  readonly closed: Promise<Info>;
  close(info?: Info): void;
}

/** The result of `opened`. */
export interface OpenInfo {
  readable: ReadableStream<unknown>;
  writable: WritableStream<unknown>;
  extensions: string;
  protocol: string;
}

/** An error of the interface under test. */
export type StreamError = DOMException & { closeCode: number | null; reason: string };

/** The environment that the rows run in. */
export interface Env {
  WebSocketStream: new (...args: unknown[]) => Stream;
  WebSocketError: new (...args: unknown[]) => StreamError;
  /** The URL of the peers. It ends with "/". */
  url: string;
  /** The URL of the server that controls the peers. */
  control: string;
  /** Options that every stream needs in this environment. Default: none */
  options?: Record<string, unknown>;
}

/** A row of the table. */
export interface Row {
  /** The point of the table, and the part of it that the row shows. */
  title: string;
  /** The places where the row does not hold, with the reasons. */
  except?: Partial<Record<Place | "connection", string>>;
  run(env: Env): unknown;
}

/**
 * Chromium's own class, or ours over the browser's `WebSocket`. A "connection" has the same streams without
 * the class.
 */
export type Place = "native" | "overWebSocket";

/** A frame that a peer has received. Each byte of binary data is a character. */
export interface SeenFrame {
  type: "text" | "binary" | "close";
  data: string;
  closeCode?: number;
  reason?: string;
}

/** The commands for a peer. */
export type Command =
  | ["text", text: string]
  | ["bytes", length: number, count?: number]
  | ["close", closeCode?: number, reason?: string]
  | ["polite", polite: boolean]
  | ["pause" | "resume" | "end" | "destroy"];

/** The state of a peer. */
export interface PeerState {
  /** Whether a connection was made. */
  dialled: boolean;
  /** Whether the other end has ended its side, or the connection is gone. */
  ended: boolean;
  /** The number of bytes given to the transport that have not been sent. */
  bufferedAmount: number;
  /** The number of bytes received. */
  received: number;
}

let peers = 0;

/** The other end of a stream. */
export class Peer {
  /** The URL to connect to. */
  readonly url: string;
  readonly #control: string;

  /** @param answer The server's answer to the request: "hang", a status, or a subprotocol */
  constructor(env: Env, answer: string = "") {
    const name = `${++peers}-${Math.random().toString(36).slice(2)}`;
    this.url = `${env.url}${name}?${answer}`;
    this.#control = `${env.control}${name}/`;
  }

  async #ask<T>(what: string, body?: unknown): Promise<T> {
    const init = { method: "POST", body: JSON.stringify(body ?? null) };
    const response = await fetch(this.#control + what, init);
    const text = await response.text();
    if (!response.ok) throw new Error(`The peer says: ${text}`);
    return JSON.parse(text);
  }

  /** Makes the peer execute the commands. */
  do(...commands: Command[]): Promise<PeerState> {
    return this.#ask("do", commands);
  }

  /** Returns the next frame received. */
  next(): Promise<SeenFrame> {
    return this.#ask("next");
  }

  /** Returns the code and reason of the next frame, which must be a Close frame. */
  async nextClose(): Promise<Info> {
    const { type, closeCode, reason } = await this.next();
    assert.equal(type, "close");
    return { closeCode, reason };
  }

  /** The state of the peer. */
  state(): Promise<PeerState> {
    return this.#ask("state");
  }

  /** Waits until the state fulfils the condition. */
  async until(condition: (state: PeerState) => boolean): Promise<void> {
    for (let tries = 0; !condition(await this.state()); tries++) {
      if (tries > 600) throw new Error(`Expected a peer with ${condition}`);
      await turn(20);
    }
  }
}

/** Waits for a later turn of the event loop. */
export function turn(milliseconds = 1): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Waits until everything sent on this machine has arrived, and both ends have handled it. */
export async function rest(peer: Peer): Promise<void> {
  for (let i = 0; i < 6; i++) {
    await peer.state();
    await turn(10);
  }
}

/** The state of a promise after everything has come to rest. */
export async function settled(promise: Promise<unknown>, peer: Peer): Promise<string> {
  let state = "pending";
  promise.then(() => state = "fulfilled", () => state = "rejected");
  await rest(peer);
  return state;
}

/** Waits until the condition is true. */
export async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; !condition(); tries++) {
    if (tries > 1500) throw new Error(`Expected ${condition}`);
    await turn(10);
  }
}

/** An open stream, and its peer. */
export interface Opened extends OpenInfo {
  stream: Stream;
  peer: Peer;
}

/** Makes a stream to a peer. */
export function streamTo(
  env: Env,
  { url }: { url: string },
  options: Record<string, unknown> = {},
): Stream {
  const stream = new env.WebSocketStream(url, { ...env.options, ...options });
  // Marks the promises as handled, which Chromium does not do. Another row tests this.
  for (const promise of [stream.opened, stream.closed]) promise.catch(() => {});
  return stream;
}

/** Opens a stream to a new peer, and ends the connection after the run. */
export async function withStream(
  env: Env,
  run: (opened: Opened) => unknown,
): Promise<void> {
  const peer = new Peer(env);
  const stream = streamTo(env, peer);
  const info = await stream.opened;
  try {
    await run({ stream, peer, ...info });
  } finally {
    await peer.do(["destroy"]);
  }
}

/** Bytes in the pattern that the peer sends. */
export function pattern(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let index = 0; index < length; index++) bytes[index] = (index * 7) % 251;
  return bytes;
}

/** The bytes in the form that the peer reports: one character each. */
export function latin1(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** The reason that a promise rejects with. */
export async function rejection<E = StreamError>(promise: Promise<unknown>): Promise<E> {
  const [result] = await Promise.allSettled([promise]);
  if (result.status === "rejected") return result.reason;
  throw new Error(`Expected a rejection, received ${print(result.value)}`);
}

/** The error that a call throws. */
export function thrown(run: () => unknown, what = ""): DOMException {
  let value: unknown;
  try {
    value = run();
  } catch (error) {
    return error as DOMException;
  }
  throw new Error(`${what}: Expected an exception, received ${print(value)}`);
}

function print(value: unknown): string {
  if (typeof value === "string" && value.length > 200) return `a string of ${value.length}`;
  if (value instanceof Uint8Array) return `Uint8Array(${value.length}) ${latin1(value)}`;
  const plain = Array.isArray(value) || Object.prototype.toString.call(value) === "[object Object]";
  try {
    return (plain ? JSON.stringify(value) : undefined) ?? String(value);
  } catch {
    return typeof value;
  }
}

function fail(message: string): never {
  throw new Error(message);
}

/** Assertions like those of node:assert/strict. */
export const assert = {
  ok(value: unknown, what = "a true value"): void {
    if (!value) fail(`Expected ${what}, received ${print(value)}`);
  },
  equal(actual: unknown, expected: unknown, what = ""): void {
    if (!Object.is(actual, expected)) {
      fail(`${what}: Expected ${print(expected)}, received ${print(actual)}`);
    }
  },
  /** Compares JSON values and bytes. */
  deepEqual(actual: unknown, expected: unknown, what = ""): void {
    const text = (value: unknown) =>
      JSON.stringify(value, (_, item) => {
        if (item instanceof Uint8Array) return `bytes ${latin1(item)}`;
        if (item === undefined) return "undefined";
        if (item === null || typeof item !== "object" || Array.isArray(item)) return item;
        return Object.fromEntries(Object.entries(item).sort(([a], [b]) => a < b ? -1 : 1));
      });
    const [left, right] = [text(actual), text(expected)];
    if (left !== right) fail(`${what}: Expected ${print(expected)}, received ${print(actual)}`);
  },
};

/** The close information for a Close frame without a code. */
export const NO_CODE = { closeCode: 1005, reason: "" };

/** Answers a Close frame with the same code and reason. */
export async function answer({ peer }: Opened): Promise<Info> {
  const info = await peer.nextClose();
  await peer.do(["close", info.closeCode === 1005 ? undefined : info.closeCode, info.reason]);
  return info;
}
