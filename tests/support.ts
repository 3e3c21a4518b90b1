/** Helpers for the tests of the connection, the client and the server. */
import assert from "node:assert/strict";
import { type AddressInfo, connect as connectSocket, createServer, type Socket } from "node:net";
import {
  accept,
  connect,
  type ConnectOptions,
  HandshakeError,
  serve,
  type ServeOptions,
  type Server,
} from "../mod.ts";
import type { WebSocketConnection } from "../mod.ts";
import {
  acceptToken,
  encodeFrame,
  Endpoint,
  type Frame,
  FrameDecoder,
  Opcode,
  parseClose,
  parseRequestHead,
  parseResponseHead,
  type RequestHead,
  type Role,
  serializeClose,
} from "../lib/core/mod.ts";
import { type MemoryTransport, transportPair, type TransportPairOptions } from "../lib/testing.ts";
import type { Transport } from "../lib/transport.ts";
import { concat, hex, latin1, utf8 } from "./bytes.ts";

const DEADLINE = 120_000;

export const ROLES: readonly Role[] = ["client", "server"];

/** Waits for a later turn of the event loop. Timers that are due and sockets have run by then. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1));
}

/** Waits for enough turns that everything in memory comes to rest. */
export async function rest(): Promise<void> {
  for (let i = 0; i < 20; i++) await turn();
}

/**
 * Waits until the condition is true. The deadline allows for a slow machine. It begins again when the
 * progress has changed.
 */
export async function until(
  condition: () => unknown,
  progress: () => number = () => 0,
): Promise<void> {
  let last = progress();
  let end = performance.now() + DEADLINE;
  while (!condition()) {
    if (performance.now() > end) {
      if (progress() === last) throw new Error(`Expected within ${DEADLINE} ms: ${condition}`);
      last = progress();
      end = performance.now() + DEADLINE;
    }
    await turn();
  }
}

/** Waits until the value has not changed for a while, and returns it. */
export async function still(value: () => number): Promise<number> {
  let last = value();
  for (let quiet = 0; quiet < 60; quiet++) {
    await turn();
    if (value() !== last) quiet = 0;
    last = value();
  }
  return last;
}

/** Whether the promise is still pending after everything in memory has come to rest. */
export async function isPending(promise: Promise<unknown>): Promise<boolean> {
  let pending = true;
  const settle = () => {
    pending = false;
  };
  promise.then(settle, settle);
  await rest();
  return pending;
}

/** Waits for the promise. Keeps the process running if only timers that do not keep it running are left. */
export async function held<T>(promise: Promise<T>): Promise<T> {
  let settled = false;
  const settle = () => {
    settled = true;
  };
  promise.then(settle, settle);
  await until(() => settled);
  return await promise;
}

/** The reason that the promise rejects with. */
export async function rejection<E = Error>(promise: Promise<unknown>): Promise<E> {
  const [{ status, reason }] = await Promise.allSettled([promise]) as [PromiseRejectedResult];
  assert.equal(status as string, "rejected", "Expected a rejection");
  return reason;
}

/** All items of an iteration, in an array. */
export async function collect<T>(items: AsyncIterable<T> | ReadableStream<T>): Promise<T[]> {
  const gathered: T[] = [];
  for await (const item of items as AsyncIterable<T>) gathered.push(item);
  return gathered;
}

/**
 * Returns the answer of a {@linkcode RawPeer}'s server to a request: bytes, or undefined for no answer.
 * `accept` makes the answer that accepts the request.
 */
export type Answer = (
  accept: (protocol?: string) => Uint8Array,
  head: RequestHead,
) => Uint8Array | undefined;

/** The other end of a connection in these tests. The test controls each of its frames. */
export class RawPeer<T extends Transport = MemoryTransport> {
  /** The frames received, without those that `next()` has returned. */
  readonly frames: Frame[] = [];
  readonly transport: T;
  ended = false;
  closed = false;
  /**
   * Whether to end the transport when it is this end's turn: after both Close frames, or after the peer's
   * end.
   */
  polite = true;
  #closeFrames = { in: 0, out: 0 };
  readonly #role: Role;
  readonly #decoder: FrameDecoder;
  readonly #endpoint: Endpoint;
  readonly #answer: Answer;
  #shaken = false;
  #head: Uint8Array = new Uint8Array(0);
  #pieces: Uint8Array[] = [];

  constructor(transport: T, role: Role, answer: Answer = (accept) => accept()) {
    this.transport = transport;
    this.#role = role;
    this.#answer = answer;
    this.#decoder = new FrameDecoder({ role });
    this.#endpoint = new Endpoint(role);
    transport.handle({
      data: (chunk) => this.#onData(chunk),
      drain: () => {},
      end: () => {
        this.ended = true;
        if (this.polite) transport.end();
      },
      close: () => {
        this.closed = true;
      },
    });
    if (role === "server") return;
    this.write(this.#endpoint.send({ type: "request", host: "localhost", target: "/" }));
  }

  #onData(chunk: Uint8Array): void {
    if (this.#shaken) return this.#onFrames(chunk);
    const bytes = this.#head = concat([this.#head, chunk]);
    const length = this.#role === "server" ? this.#answerHead() : parseResponseHead(bytes)?.length;
    if (length === undefined) return;
    this.#shaken = true;
    this.#onFrames(bytes.subarray(length));
  }

  /** Answers the request when it has arrived, and returns its length. */
  #answerHead(): number | undefined {
    const parsed = parseRequestHead(this.#head);
    if (parsed === undefined) return undefined;
    const { head, length } = parsed;
    const accept = (protocol?: string) => {
      this.#endpoint.takeHead(head);
      this.#endpoint.next();
      return this.#endpoint.send({ type: "accept", protocol });
    };
    const answer = this.#answer(accept, head);
    if (answer === undefined) return undefined;
    this.write(answer);
    return length;
  }

  #onFrames(chunk: Uint8Array): void {
    this.#decoder.push(chunk);
    for (let piece = this.#decoder.next(); piece; piece = this.#decoder.next()) {
      this.#pieces.push(piece.payload);
      if (!piece.last) continue;
      const { fin, rsv, opcode } = piece.header;
      this.frames.push({ fin, rsv, opcode: opcode as Opcode, payload: concat(this.#pieces) });
      this.#pieces = [];
      if (opcode === Opcode.Close) this.#noteClose("in");
    }
  }

  #noteClose(direction: "in" | "out"): void {
    this.#closeFrames[direction]++;
    const both = this.#closeFrames.in > 0 && this.#closeFrames.out > 0;
    if (both && this.polite && this.#role === "server") this.transport.end();
  }

  /** Writes bytes unchanged. */
  write(...parts: Uint8Array[]): void {
    this.transport.write([concat(parts)]);
  }

  /** The bytes of a frame that this end sends. */
  encode(frame: Frame): Uint8Array {
    return encodeFrame(frame, this.#role === "client" ? { mask: hex("37 fa 21 3d") } : {});
  }

  /** The bytes of a frame with an invalid opcode. */
  get badFrame(): Uint8Array {
    return hex(this.#role === "client" ? "83 80 00 00 00 00" : "83 00");
  }

  /** Sends frames, all of them in one chunk. */
  send(...frames: Frame[]): void {
    this.write(...frames.map((frame) => this.encode(frame)));
    if (frames.some(({ opcode }) => opcode === Opcode.Close)) this.#noteClose("out");
  }

  /** Returns the next frame received. */
  async next(): Promise<Frame> {
    await until(() => this.frames.length > 0);
    return this.frames.shift()!;
  }

  /** Returns the code and reason of the next frame received, which must be a Close frame. */
  async nextClose(): Promise<{ closeCode: number; reason: string }> {
    const { opcode, payload } = await this.next();
    assert.equal(opcode, Opcode.Close, "Expected a Close frame");
    return parseClose(payload);
  }

  /** Answers the next Close frame. */
  async answerClose(closeCode = 1000, reason = ""): Promise<void> {
    while ((await this.next()).opcode !== Opcode.Close);
    this.send(closeFrame(closeCode, reason));
  }
}

export function textFrame(text: string, fin = true): Frame {
  return { fin, opcode: Opcode.Text, payload: utf8(text) };
}

export function binaryFrame(payload: Uint8Array, fin = true): Frame {
  return { fin, opcode: Opcode.Binary, payload };
}

export function continuation(payload: Uint8Array | string, fin = true): Frame {
  const bytes = typeof payload === "string" ? utf8(payload) : payload;
  return { fin, opcode: Opcode.Continuation, payload: bytes };
}

export function closeFrame(closeCode?: number, reason = ""): Frame {
  return { opcode: Opcode.Close, payload: serializeClose({ closeCode, reason }) };
}

export function pingFrame(payload: string): Frame {
  return { opcode: Opcode.Ping, payload: utf8(payload) };
}

export function pongFrame(payload: Uint8Array): Frame {
  return { opcode: Opcode.Pong, payload };
}

/** A connection in the given role, in memory, and its peer. */
export async function withPeer(
  role: Role,
  options: ConnectOptions & ServeOptions = {},
  line: TransportPairOptions = {},
): Promise<[WebSocketConnection, RawPeer]> {
  const [near, far] = transportPair(line);
  const peer = new RawPeer(far, role === "client" ? "server" : "client");
  const ws = role === "client"
    ? await connect("ws://localhost/", { pingInterval: 0, ...options, transport: near })
    : await accept(near, { pingInterval: 0, ...options });
  return [ws, peer];
}

/** Runs a test with a connection in each role and its peer, and ends both. */
export async function inBothRoles(
  run: (ws: WebSocketConnection, peer: RawPeer, role: Role) => unknown,
  options: ConnectOptions & ServeOptions = {},
  line: TransportPairOptions = {},
): Promise<void> {
  for (const role of ROLES) {
    const [ws, peer] = await withPeer(role, options, line);
    try {
      await run(ws, peer, role);
    } finally {
      ws.terminate();
      peer.transport.destroy();
    }
  }
}

/** The URL of a server. */
export function urlOf({ address }: Pick<Server, "address">, path = "/"): string {
  assert.equal(address.transport, "tcp");
  return `ws://127.0.0.1:${portOf({ address })}${path}`;
}

/** The port of a server. */
export function portOf({ address }: Pick<Server, "address">): number {
  if (address.transport !== "tcp") throw new TypeError("Expected a TCP address");
  return address.port;
}

/** A raw socket. */
export class RawSocket {
  readonly socket: Socket;
  received: Uint8Array = new Uint8Array(0);
  ended = false;
  closed = false;
  error: Error | undefined;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Uint8Array) => {
      this.received = concat([this.received, chunk]);
    });
    socket.on("end", () => {
      this.ended = true;
    });
    socket.on("error", (error) => {
      this.error = error;
    });
    socket.on("close", () => {
      this.closed = true;
    });
  }

  /** Connects to a port of this machine. */
  static async connect(port: number): Promise<RawSocket> {
    const raw = new RawSocket(connectSocket({ host: "127.0.0.1", port, allowHalfOpen: true }));
    await until(() => !raw.socket.connecting);
    return raw;
  }

  /** The bytes received, as one character each. */
  get text(): string {
    return String.fromCharCode(...this.received);
  }

  write(data: Uint8Array | string): void {
    this.socket.write(typeof data === "string" ? latin1(data) : data);
  }

  /** Waits for the other end to end, then ends this one. */
  async close(): Promise<void> {
    await until(() => this.ended || this.closed);
    this.socket.destroy();
  }
}

/** Runs a test with a server of raw sockets. */
export async function withRawServer(
  onSocket: (raw: RawSocket) => void,
  run: (url: string) => Promise<unknown>,
): Promise<void> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    onSocket(new RawSocket(socket));
  });
  await new Promise<void>((resolve) => server.listen({ host: "127.0.0.1", port: 0 }, resolve));
  try {
    await run(`ws://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** A request for an upgrade, with some of its header fields replaced or removed. */
export function upgradeRequest(
  fields: Record<string, string | null> = {},
  line = "GET / HTTP/1.1",
): string {
  const all: Record<string, string | null> = {
    Host: "localhost",
    Upgrade: "websocket",
    Connection: "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    ...fields,
  };
  const lines = Object.entries(all).filter(([, value]) => value !== null);
  return [line, ...lines.map(([name, value]) => `${name}: ${value}`), "", ""].join("\r\n");
}

/** A frame received: the name of its type, its payload as text, and its FIN bit. */
export type BriefFrame = [type: string, text: string, fin: boolean];

export function brief({ fin, opcode, payload }: Frame): BriefFrame {
  const names: Record<number, string> = {
    0: "more",
    1: "text",
    2: "binary",
    8: "close",
    9: "ping",
  };
  return [names[opcode], new TextDecoder().decode(payload), fin ?? true];
}

/** The next frames that the peer received. */
export async function frames(peer: RawPeer, count: number): Promise<BriefFrame[]> {
  const got: BriefFrame[] = [];
  while (got.length < count) got.push(brief(await peer.next()));
  return got;
}

/** A source of items that gives the next one when it is told to. */
export class Tap<T> {
  returned = false;
  readonly items: AsyncIterable<T>;
  readonly #writer: WritableStreamDefaultWriter<T>;

  constructor() {
    const { readable, writable } = new TransformStream<T, T>();
    this.#writer = writable.getWriter();
    this.#writer.closed.catch(() => {});
    this.items = this.#iterate(readable as unknown as AsyncIterable<T>);
  }

  async *#iterate(items: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* items;
    } finally {
      this.returned = true;
    }
  }

  give(item: T): void {
    this.#writer.write(item).catch(() => {});
  }

  end(): void {
    this.#writer.close().catch(() => {});
  }
}

/** Begins to read a stream, and gives the read up before anything has come. */
export async function giveUpRead(readable: ReadableStream<unknown>): Promise<void> {
  const reader = readable.getReader();
  const read = reader.read();
  await rest();
  reader.releaseLock();
  await rejection(read);
}

/** Waits for the head of the request, and returns it. */
export async function requestOf(raw: RawSocket): Promise<string> {
  await until(() => raw.text.includes("\r\n\r\n"));
  return raw.text;
}

/** The value of a header field. */
export function field(head: string, name: string): string | undefined {
  return new RegExp(`^${name}: (.*)\r$`, "im").exec(head)?.[1];
}

/** The 101 response to a request, with some of its header fields replaced or removed. */
export function upgradeResponse(
  request: string,
  fields: Record<string, string | null> = {},
): string {
  const all: Record<string, string | null> = {
    Upgrade: "websocket",
    Connection: "Upgrade",
    "Sec-WebSocket-Accept": acceptToken(field(request, "Sec-WebSocket-Key")!),
    ...fields,
  };
  const lines = Object.entries(all).filter(([, value]) => value !== null);
  const rest = lines.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  return `HTTP/1.1 101 Switching Protocols\r\n${rest}\r\n`;
}

/** The error of connect() when a raw server gives this answer. */
export async function failure(
  onSocket: (raw: RawSocket) => unknown,
  options?: ConnectOptions,
): Promise<HandshakeError> {
  let error!: HandshakeError;
  const sockets: RawSocket[] = [];
  await withRawServer(async (raw) => {
    sockets.push(raw);
    await onSocket(raw);
  }, async (url) => {
    error = await rejection<HandshakeError>(connect(url, options));
    await until(() => sockets.every(({ ended, closed }) => ended || closed));
  });
  assert.ok(error instanceof HandshakeError, `${error}`);
  return error;
}

/** A handler that sends back the messages it receives. */
export const echo = (ws: WebSocketConnection): Promise<void> => ws.readable.pipeTo(ws.writable);

/** Runs a test with a server, and shuts it down. */
export async function withServer(
  options: ServeOptions,
  run: (server: Server) => unknown,
  handler: (ws: WebSocketConnection) => unknown = echo,
): Promise<void> {
  const server = await serve(options, handler);
  try {
    await run(server);
  } finally {
    await server.shutdown();
  }
}
