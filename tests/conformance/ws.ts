/** The npm package "ws" as the other end of a connection. */
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import type * as Ws from "ws";
import {
  connect,
  type ConnectOptions,
  serve,
  type ServeOptions,
  type WebSocketConnection,
} from "../../mod.ts";
import type { Role } from "../../lib/core/mod.ts";

// Imported by its path, because Bun has a built-in "ws".
const path = new URL("../../node_modules/ws/wrapper.mjs", import.meta.url).href;
const { WebSocket, WebSocketServer }: typeof Ws = await import(path);

const HOST = "127.0.0.1";

/** The options of the two ends. */
export interface WsPairOptions {
  ours?: ConnectOptions & ServeOptions;
  /** The options of a server of "ws". */
  theirServer?: Ws.ServerOptions;
  /** The subprotocols that a client of "ws" offers. */
  theirProtocols?: string[];
  /** The compression options of a client of "ws". Default: its own default */
  theirDeflate?: Ws.PerMessageDeflateOptions;
}

/** A connection between this library and "ws". */
export interface WsPair {
  ours: WebSocketConnection;
  theirs: TheirEnd;
  /** Ends both ends and the server. */
  stop(): Promise<void>;
}

/** A socket of "ws", and the events that it reported. */
export class TheirEnd {
  readonly socket: Ws.WebSocket;
  readonly messages: (string | Uint8Array)[] = [];
  readonly pongs: string[] = [];
  readonly pings: string[] = [];
  readonly errors: Error[] = [];
  #next: ((message: string | Uint8Array) => void) | undefined;
  /** Resolves with the arguments of the event "close". */
  readonly closed: Promise<{ closeCode: number; reason: string }>;

  constructor(socket: Ws.WebSocket) {
    this.socket = socket;
    socket.on("message", (data: Uint8Array, isBinary: boolean) => {
      const message = isBinary ? new Uint8Array(data) : String(data);
      if (this.#next === undefined) this.messages.push(message);
      else this.#next(message);
    });
    socket.on("ping", (data) => this.pings.push(String(data)));
    socket.on("pong", (data) => this.pongs.push(String(data)));
    socket.on("error", (error) => this.errors.push(error));
    this.closed = new Promise((resolve) => {
      socket.on("close", (closeCode, reason) => resolve({ closeCode, reason: String(reason) }));
    });
  }

  /** Returns the next message. The message is not added to `messages`. */
  next(): Promise<string | Uint8Array> {
    return new Promise((resolve, reject) => {
      this.#next = resolve;
      this.socket.once(
        "close",
        () => reject(new Error("Expected a message, the socket has closed")),
      );
    });
  }
}

/** Connects the two. This library has the given role. */
export function wsPair(role: Role, options: WsPairOptions = {}): Promise<WsPair> {
  return role === "client" ? ourClient(options) : ourServer(options);
}

async function ourClient({ ours: mine, theirServer }: WsPairOptions): Promise<WsPair> {
  const server = new WebSocketServer({ host: HOST, port: 0, ...theirServer });
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const accepted = new Promise<TheirEnd>((resolve) => {
    server.on("connection", (socket) => resolve(new TheirEnd(socket)));
  });
  const ours = await connect(`ws://${HOST}:${port}`, mine);
  const theirs = await accepted;
  return {
    ours,
    theirs,
    async stop() {
      ours.terminate();
      theirs.socket.terminate();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function ourServer(
  { ours: mine, theirProtocols, theirDeflate }: WsPairOptions,
): Promise<WsPair> {
  let accept!: (ws: WebSocketConnection) => void;
  const accepted = new Promise<WebSocketConnection>((resolve) => accept = resolve);
  const server = await serve({ ...mine, hostname: HOST, port: 0 }, (ws) => {
    accept(ws);
    return ws.closed.catch(() => {});
  });
  if (server.address.transport !== "tcp") throw new TypeError("Expected a TCP address");
  const url = `ws://${HOST}:${server.address.port}`;
  const theirs = new TheirEnd(
    new WebSocket(url, theirProtocols, { perMessageDeflate: theirDeflate ?? true }),
  );
  try {
    await once(theirs.socket, "open");
  } catch (error) {
    await server.shutdown();
    throw error;
  }
  const ours = await accepted;
  return {
    ours,
    theirs,
    async stop() {
      theirs.socket.terminate();
      ours.terminate();
      await server.shutdown();
    },
  };
}
