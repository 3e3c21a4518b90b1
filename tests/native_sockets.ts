/** Native WebSockets of each kind, with a connection of this library at their other end. */
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import type * as Ws from "ws";
import { notApplicable } from "./it.ts";
import { connect, fromWebSocket, type FromWebSocketOptions, serve } from "../mod.ts";
import type {
  CloseInfo,
  Message,
  StandardOpenInfo,
  WebSocketConnection,
  WebSocketLike,
} from "../mod.ts";
import { portOf } from "./support.ts";

// Imported by its path, because Bun has a built-in "ws".
const path = new URL("../node_modules/ws/wrapper.mjs", import.meta.url).href;
const { WebSocketServer }: typeof Ws = await import(path);

/** The options of a pair. */
export interface NativeInit extends FromWebSocketOptions {
  /** The subprotocol that both ends agree on. */
  subprotocol?: string;
  /** Called with the peer at once, before the native end is wrapped. */
  first?: (peer: WebSocketConnection) => unknown;
}

/** A connection over a native WebSocket, and its peer. */
export interface NativePair {
  ours: WebSocketConnection;
  peer: WebSocketConnection;
  socket: WebSocketLike;
  stop(): Promise<void>;
}

/** A way to get a native WebSocket. */
export interface Kind {
  title: string;
  skip: string | false;
  open(init?: NativeInit): Promise<NativePair>;
}

export const CLIENT: Kind = { title: "the runtime's client", skip: false, open: openClient };

export const KINDS: readonly Kind[] = [
  CLIENT,
  { title: "the server of ws", skip: false, open: openWs },
  {
    title: "Deno.upgradeWebSocket",
    skip: "Deno" in globalThis ? false : notApplicable("only Deno has this class"),
    open: openDeno,
  },
];

const PEER = { maxMessageSize: Infinity, pingInterval: 0 };

async function openClient(init: NativeInit = {}): Promise<NativePair> {
  const { subprotocol, first, ...options } = init;
  const protocols = subprotocol === undefined ? [] : [subprotocol];
  const peer = deferred<WebSocketConnection>();
  const server = await serve({ ...PEER, port: 0, protocols }, async (ws) => {
    await first?.(ws);
    peer.resolve(ws);
    await ws.closed;
  });
  const socket = new WebSocket(`ws://127.0.0.1:${portOf(server)}/chat?room=1`, protocols);
  const ours = await fromWebSocket(socket, options);
  return pairOf(ours, await peer.promise, socket, () => server.shutdown());
}

async function openWs({ subprotocol, first, ...options }: NativeInit = {}): Promise<NativePair> {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const ours = deferred<WebSocketConnection>();
  const socket = deferred<WebSocketLike>();
  server.on("connection", (native) => {
    socket.resolve(native);
    ours.resolve(fromWebSocket(native, options));
  });
  const peer = await connectTo(port, subprotocol);
  await first?.(peer);
  return pairOf(
    await ours.promise,
    peer,
    await socket.promise,
    () => new Promise((resolve) => server.close(() => resolve())),
  );
}

async function openDeno({ subprotocol, first, ...options }: NativeInit = {}): Promise<NativePair> {
  const ours = deferred<WebSocketConnection>();
  const native = deferred<WebSocketLike>();
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    // After the upgrade the request can no longer be read.
    const copy = new Request(request.url, { headers: request.headers });
    const { socket, response } = Deno.upgradeWebSocket(
      request,
      subprotocol === undefined ? {} : { protocol: subprotocol },
    );
    native.resolve(socket);
    ours.resolve(fromWebSocket(socket, { request: copy, ...options }));
    return response;
  });
  const peer = await connectTo(server.addr.port, subprotocol);
  await first?.(peer);
  return pairOf(await ours.promise, peer, await native.promise, () => server.shutdown());
}

function connectTo(port: number, subprotocol: string | undefined): Promise<WebSocketConnection> {
  const protocols = subprotocol === undefined ? [] : [subprotocol];
  return connect(`ws://127.0.0.1:${port}/chat?room=1`, { ...PEER, protocols });
}

function pairOf(
  ours: WebSocketConnection,
  peer: WebSocketConnection,
  socket: WebSocketLike,
  end: () => Promise<void>,
): NativePair {
  return {
    ours,
    peer,
    socket,
    async stop() {
      ours.terminate();
      peer.terminate();
      await end();
    },
  };
}

function deferred<T>(): { promise: Promise<T>; resolve(value: T | Promise<T>): void } {
  let resolve!: (value: T | Promise<T>) => void;
  const promise = new Promise<T>((settle) => resolve = settle);
  return { promise, resolve };
}

/** A fake native WebSocket. */
export class FakeSocket implements WebSocketLike {
  readyState = 1;
  bufferedAmount: number | undefined;
  binaryType = "blob";
  readonly sent: unknown[] = [];
  readonly closes: unknown[][] = [];
  #target = new EventTarget();
  /** The number of listeners, by type. */
  readonly listeners: Record<string, number> = {};

  send(data: unknown): void {
    this.sent.push(data);
  }

  close(...args: unknown[]): void {
    const [code = 1000] = args as number[];
    if (code !== 1000 && code < 3000) throw new DOMException("invalid code", "InvalidAccessError");
    this.closes.push(args);
  }

  addEventListener(type: string, listener: (event: never) => void): void {
    this.listeners[type] = (this.listeners[type] ?? 0) + 1;
    this.#target.addEventListener(type, listener as EventListener);
  }

  removeEventListener(type: string, listener: (event: never) => void): void {
    this.listeners[type]--;
    this.#target.removeEventListener(type, listener as EventListener);
  }

  emit(type: string, members: object = {}): void {
    if (type === "close") this.readyState = 3;
    this.#target.dispatchEvent(Object.assign(new Event(type), members));
  }
}

/** A fake WebSocketStream of a browser. Whatever it promises stays pending, unless the test settles it. */
export class FakeStream {
  /** The last one that was made. */
  static last: FakeStream;
  readonly opened: Promise<StandardOpenInfo>;
  readonly closed: Promise<CloseInfo>;
  readonly closes: unknown[] = [];
  /** The writes that wait. */
  readonly writes: { resolve(): void; reject(error: unknown): void }[] = [];
  open!: () => void;
  input!: ReadableStreamDefaultController<Message>;
  output!: WritableStreamDefaultController;
  /** Resolves `closed` with the information, if there is one, or rejects it with the error. */
  settle!: (info: CloseInfo | undefined, error: unknown) => void;
  isOver = false;

  constructor() {
    FakeStream.last = this;
    const readable = new ReadableStream<Message>({ start: (input) => void (this.input = input) });
    const writable = new WritableStream({
      start: (output) => void (this.output = output),
      write: () => new Promise<void>((resolve, reject) => this.writes.push({ resolve, reject })),
    });
    const info = { readable, writable, protocol: "", extensions: "" };
    this.opened = new Promise((resolve) => this.open = () => resolve(info));
    this.closed = new Promise((resolve, reject) => {
      this.settle = (info, error) => {
        this.isOver = true;
        if (info === undefined) reject(error);
        else resolve(info);
      };
    });
  }

  close(info?: unknown): void {
    this.closes.push(info);
  }
}

/** Runs a test with globals other than those of the platform. */
export async function withGlobals<T>(
  globals: Record<string, unknown>,
  run: () => T | Promise<T>,
): Promise<T> {
  const before = Object.keys(globals).map((name) =>
    [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const
  );
  try {
    for (const [name, value] of Object.entries(globals)) {
      Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    }
    return await run();
  } finally {
    for (const [name, descriptor] of before) {
      if (descriptor === undefined) delete (globalThis as Record<string, unknown>)[name];
      else Object.defineProperty(globalThis, name, descriptor);
    }
  }
}
