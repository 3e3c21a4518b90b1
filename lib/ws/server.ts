/** The server of `ws`. */
import { Buffer } from "node:buffer";
import type { IncomingMessage, Server as HttpServer } from "node:http";
import type { Server as HttpsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { nextTick } from "node:process";
import type { Duplex } from "node:stream";
import { Endpoint } from "../core/endpoint.ts";
import { HandshakeError } from "../core/error.ts";
import type { RequestHead } from "../core/http1.ts";
import type { PerMessageDeflate } from "../core/permessage_deflate.ts";
import { http } from "./client.ts";
import { type Refusal, refusalOf, UNACCEPTABLE } from "./errors.ts";
import { Emitter } from "./event_target.ts";
import { Inlet } from "./inlet.ts";
import {
  CapturedDeflate,
  CONNECTION_DEFAULTS,
  type ConnectionOptions,
  deflateOf,
  fieldsOf,
  type PerMessageDeflateOptions,
  thresholdOf,
  type VerifyClientCallbackAsync,
  type VerifyClientCallbackSync,
} from "./options.ts";
import type { Deflation } from "./outlet.ts";
import { isTaken, openServerSide, WebSocket } from "./websocket.ts";

/** The events of a {@linkcode WebSocketServer}, with the parameters of their listeners. */
export interface WebSocketServerEvents<W = WebSocket, R = IncomingMessage> {
  /** A client has connected. */
  connection: [websocket: W, request: R];
  /** The response is about to be written. A listener may change the lines of its head. */
  headers: [headers: string[], request: R];
  /** A request is not valid. The listener must answer it or destroy the socket. */
  wsClientError: [error: Error, socket: Duplex, request: R];
  /** The server listens. */
  listening: [];
  /** The server is closed. */
  close: [];
  /** An error of the HTTP server. */
  error: [error: Error];
}

/** Options of a {@linkcode WebSocketServer}. Exactly one of `port`, `server` and `noServer` is needed. */
export interface ServerOptions<
  T extends typeof WebSocket = typeof WebSocket,
  U extends typeof IncomingMessage = typeof IncomingMessage,
> extends ConnectionOptions {
  /** Maximum length of the queue of pending connections. */
  backlog?: number | null | undefined;
  /**
   * Whether `clients` has the connections.
   * @default {true}
   */
  clientTracking?: boolean | undefined;
  /** Chooses a subprotocol, or false for none. By default, the first one. */
  handleProtocols?: ((protocols: Set<string>, request: InstanceType<U>) => string | false) | null;
  /** The host name to listen on. */
  host?: string | null | undefined;
  /**
   * Whether there is no HTTP server. Call `handleUpgrade()` for each request.
   * @default {false}
   */
  noServer?: boolean | undefined;
  /** The path of the requests to accept. */
  path?: string | null | undefined;
  /**
   * Whether to accept compression, and its options.
   * @default {false}
   */
  perMessageDeflate?: boolean | PerMessageDeflateOptions | undefined;
  /** The port to listen on. */
  port?: number | null | undefined;
  /** The HTTP server. */
  server?: HttpServer<U> | HttpsServer<U> | null | undefined;
  /** Decides whether to accept a request. With two parameters, it calls back. */
  verifyClient?:
    | VerifyClientCallbackAsync<InstanceType<U>>
    | VerifyClientCallbackSync<InstanceType<U>>
    | null
    | undefined;
  /** The class of the connections. */
  WebSocket?: T | undefined;
}

/** The opening handshake of a request. */
interface Handshake<R> {
  request: R;
  socket: Duplex;
  head: Buffer;
  endpoint: Endpoint;
  inlet: Inlet;
  deflate: CapturedDeflate | undefined;
}

const MESSAGE = 'One and only one of the "port", "server", or "noServer" options must be specified';

const [RUNNING, CLOSING, CLOSED] = [0, 1, 2] as const;

const DEFAULTS = {
  ...CONNECTION_DEFAULTS,
  backlog: null,
  clientTracking: true,
  handleProtocols: null,
  host: null,
  noServer: false,
  path: null,
  perMessageDeflate: false,
  port: null,
  server: null,
  verifyClient: null,
} as const;

/**
 * A server with the interface of `ws`.
 *
 * @example
 * ```ts
 * import { WebSocket, WebSocketServer } from "sluice/ws";
 *
 * const wss = new WebSocketServer({ port: 0, path: "/chat" });
 * wss.on("connection", (ws) => {
 *   ws.on("error", console.error);
 *   ws.on("message", (data, isBinary) => {
 *     for (const client of wss.clients) client.send(data, { binary: isBinary });
 *   });
 * });
 * wss.on("listening", () => {
 *   const { port } = wss.address() as { port: number };
 *   const ws = new WebSocket(`ws://127.0.0.1:${port}/chat`);
 *   ws.on("open", () => ws.send("Hello"));
 *   ws.on("message", (data) => {
 *     console.log(data.toString()); // Hello
 *     ws.close();
 *     wss.close();
 *   });
 * });
 * ```
 */
export class WebSocketServer<
  T extends typeof WebSocket = typeof WebSocket,
  U extends typeof IncomingMessage = typeof IncomingMessage,
> extends Emitter<WebSocketServerEvents<InstanceType<T>, InstanceType<U>>> {
  /** The options, with their defaults. */
  options: ServerOptions<T, U>;
  /** The open connections. Not set if `clientTracking` is false. */
  declare clients: Set<InstanceType<T>>;
  /** The HTTP server. Internal. */
  _server: HttpServer | null = null;
  /** 0 while the server runs, 1 while it closes, 2 after its end. Internal. */
  _state: 0 | 1 | 2 = RUNNING;
  readonly #factory: PerMessageDeflate | undefined;
  #stopListening: () => void = () => {};
  #closesWithLast = false;

  /**
   * Makes a server.
   *
   * @param options Options of the server.
   * @param callback A listener for 'listening', with the option `port`.
   * @throws {TypeError} Unless exactly one of `port`, `server` and `noServer` is set.
   */
  constructor(options?: ServerOptions<T, U>, callback?: () => void) {
    super();
    const all = { ...DEFAULTS, WebSocket, ...options } as unknown as ServerOptions<T, U>;
    const { port, server, noServer, clientTracking, perMessageDeflate, maxPayload } = all;
    const places = [port !== null && port !== undefined, Boolean(server), Boolean(noServer)];
    if (places.filter(Boolean).length !== 1) throw new TypeError(MESSAGE);
    if (perMessageDeflate === true) all.perMessageDeflate = {};
    this.options = all;
    this.#factory = deflateOf(all.perMessageDeflate, maxPayload);
    if (clientTracking) this.clients = new Set();
    if (noServer) return;
    this._server = (server as HttpServer | null | undefined) ?? refusingServer();
    if (!server) {
      this._server.listen(port!, all.host as string, all.backlog as number, callback);
    }
    this.#listenTo(this._server);
  }

  #listenTo(server: HttpServer): void {
    const onListening = () => this.emit("listening");
    const onError = (error: Error) => this.emit("error", error);
    const onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      const asked = request as InstanceType<U>;
      this.handleUpgrade(asked, socket, head, (ws) => this.emit("connection", ws, asked));
    };
    server.on("listening", onListening).on("error", onError).on("upgrade", onUpgrade);
    this.#stopListening = () => {
      server.off("listening", onListening).off("error", onError).off("upgrade", onUpgrade);
    };
  }

  /**
   * Returns the address of the HTTP server: an object, the path of a Unix socket, or null if the server
   * does not listen.
   *
   * @throws {Error} With the option `noServer`.
   */
  address(): AddressInfo | string | null {
    if (this.options.noServer) throw new Error('The server is operating in "noServer" mode');
    return this._server?.address() ?? null;
  }

  /**
   * Accepts no more connections. Open connections stay open. 'close' follows: after the HTTP server has
   * closed with the option `port`, and otherwise after the last client has left.
   *
   * @param callback A listener for 'close'. It is given an error if the server is closed already.
   */
  close(callback?: (error?: Error) => void): void {
    const emitClose = () => {
      this._state = CLOSED;
      this.emit("close");
    };
    if (this._state === CLOSED) {
      if (callback !== undefined) {
        this.once(
          "close" as never,
          (() => callback(new Error("The server is not running"))) as never,
        );
      }
      return nextTick(emitClose);
    }
    if (callback !== undefined) this.once("close", callback);
    if (this._state === CLOSING) return;
    this._state = CLOSING;
    const server = this._server;
    this._server = null;
    this.#stopListening();
    if (server !== null && !this.options.server) server.close(emitClose);
    else if (this.clients?.size > 0) this.#closesWithLast = true;
    else nextTick(emitClose);
  }

  /** Returns whether the server takes a request: by default, whether its path is that of the options. */
  shouldHandle(request: InstanceType<U>): boolean | Promise<boolean> {
    const { path } = this.options;
    return !path || request.url!.split("?", 1)[0] === path;
  }

  /**
   * Answers a request for a WebSocket.
   *
   * @param request The request of the 'upgrade' event.
   * @param socket The socket of the event.
   * @param head The bytes that arrived after the request.
   * @param callback Called with the open WebSocket and the request.
   * @throws {Error} If the socket has a WebSocket already.
   */
  handleUpgrade(
    request: InstanceType<U>,
    socket: Duplex,
    head: Buffer,
    callback: (client: InstanceType<T>, request: InstanceType<U>) => void,
  ): void {
    socket.on("error", destroy);
    const inlet = new Inlet(this.options);
    const deflate = this.#factory &&
      new CapturedDeflate(this.#factory, this.options.perMessageDeflate);
    const endpoint = new Endpoint("server", {
      ...inlet.protocolOptions,
      extensions: deflate === undefined ? [] : [deflate],
    }, true);
    const handshake = { request, socket, head, endpoint, inlet, deflate };
    const found = this.#check(handshake);
    if (found?.isEarly) return this.#refuse(handshake, found.refusal);
    if (!this.shouldHandle(request)) return answer(socket, { status: 400 });
    if (found !== undefined) return this.#refuse(handshake, found.refusal);
    this.#verify(handshake, () => this.#accept(handshake, callback));
  }

  /** Returns how to refuse a request, and whether that comes before `shouldHandle()`. */
  #check(
    { request, endpoint, deflate }: Handshake<InstanceType<U>>,
  ): ReturnType<typeof refusalOf> | undefined {
    const fault = faultOf(request, request.headers["sec-websocket-version"] as string, endpoint);
    if (fault?.code === "version") {
      // The key is the more important fault.
      const other = faultOf(request, "13", new Endpoint("server"));
      return refusalOf(other?.code === "key" ? other : fault);
    }
    if (fault !== undefined) return refusalOf(fault);
    const offers = endpoint.offer!.extensions.filter(({ name }) => name === deflate?.name);
    const isAcceptable = offers.length === 0 ||
      offers.some(({ parameters }) => deflate!.accept(parameters) !== undefined);
    return isAcceptable ? undefined : { refusal: UNACCEPTABLE, isEarly: false };
  }

  #refuse({ request, socket }: Handshake<InstanceType<U>>, refusal: Refusal): void {
    if (this.listenerCount("wsClientError") === 0) return answer(socket, refusal);
    this.emit("wsClientError", new Error(refusal.message), socket, request);
  }

  #verify({ request, socket, endpoint }: Handshake<InstanceType<U>>, accept: () => void): void {
    const { verifyClient } = this.options;
    if (!verifyClient) return accept();
    const { encrypted, authorized } = request.socket as Socket & {
      encrypted?: boolean;
      authorized?: boolean;
    };
    // A request of version 8 has the origin in another header.
    const origin = request.headers["sec-websocket-version"] === "8"
      ? request.headers["sec-websocket-origin"] as string
      : endpoint.offer!.origin as string;
    const info = { origin, secure: Boolean(authorized || encrypted), req: request };
    if (verifyClient.length < 2) {
      const verify = verifyClient as (asked: typeof info) => boolean;
      return verify(info) ? accept() : answer(socket, { status: 401 });
    }
    verifyClient(info, (isVerified, status, message, headers) => {
      if (isVerified) return accept();
      answer(socket, { status: status || 401, message, headers: headers as Refusal["headers"] });
    });
  }

  #accept(
    { request, socket, head, endpoint, inlet, deflate }: Handshake<InstanceType<U>>,
    callback: (client: InstanceType<T>, request: InstanceType<U>) => void,
  ): void {
    // The client may have left.
    if (!socket.readable || !socket.writable) return void socket.destroy();
    if (isTaken(socket)) {
      throw new Error(
        "server.handleUpgrade() was called more than once with the same socket, possibly due to a " +
          "misconfiguration",
      );
    }
    if (this._state > RUNNING) return answer(socket, { status: 503 });
    const Class = this.options.WebSocket ?? WebSocket;
    const ws = new Class(null, undefined, this.options as never) as InstanceType<T>;
    const offered = endpoint.offer!.protocols;
    const subprotocol = this.#choose(offered, request);
    const isOffered = offered.includes(subprotocol);
    const protocol = isOffered ? subprotocol : undefined;
    const response = Buffer.from(endpoint.send({ type: "accept", protocol }));
    const lines = response.toString("latin1").trimEnd().split("\r\n");
    // The client will refuse a subprotocol that it did not offer.
    if (subprotocol !== "" && !isOffered) lines.push(`Sec-WebSocket-Protocol: ${subprotocol}`);
    this.emit("headers", lines, request);
    socket.write(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
    socket.removeListener("error", destroy);
    const deflation = this.#deflation(endpoint, deflate);
    openServerSide(ws, {
      ...{ socket, head, inlet, subprotocol, deflation },
      protocol: endpoint.protocol,
    });
    this.#track(ws);
    callback(ws, request);
  }

  #choose(offered: readonly string[], request: InstanceType<U>): string {
    const { handleProtocols } = this.options;
    if (offered.length === 0) return "";
    return (handleProtocols ? handleProtocols(new Set(offered), request) : offered[0]) || "";
  }

  #deflation(endpoint: Endpoint, deflate: CapturedDeflate | undefined): Deflation | undefined {
    const { extensions } = endpoint.agreement!;
    if (deflate?.extension === undefined || extensions.length === 0) return undefined;
    const isTakeover = !extensions[0].parameters.some(([name]) =>
      name === "server_no_context_takeover"
    );
    const threshold = thresholdOf(this.options.perMessageDeflate, isTakeover);
    return { extension: deflate.extension, threshold };
  }

  #track(ws: InstanceType<T>): void {
    const { clients } = this;
    if (clients === undefined) return;
    clients.add(ws);
    ws.on("close", () => {
      clients.delete(ws);
      if (!this.#closesWithLast || clients.size > 0) return;
      nextTick(() => {
        this._state = CLOSED;
        this.emit("close");
      });
    });
  }
}

/** Makes the HTTP server of the option `port`, which answers plain requests with 426. */
function refusingServer(): HttpServer {
  return http.createServer((_, response) => {
    const body = http.STATUS_CODES[426]!;
    response.writeHead(426, { "Content-Length": body.length, "Content-Type": "text/plain" });
    response.end(body);
  });
}

/** Returns the head of a request. Version 8 differs only in the name of the header for the origin. */
function headOf(request: IncomingMessage, version: string | undefined): RequestHead {
  // A program that has no HTTP server may have made the request itself.
  const { method = "", url: target = "", httpVersion = "1.1" } = request;
  const others = fieldsOf(request).filter(([name]) => name !== "sec-websocket-version");
  const headers = version === undefined
    ? others
    : [...others, ["sec-websocket-version", version === "8" ? "13" : version] as const];
  return { method, target, version: httpVersion, headers };
}

/** Gives a request to an endpoint. Returns what is wrong with it. */
function faultOf(
  request: IncomingMessage,
  version: string | undefined,
  endpoint: Endpoint,
): HandshakeError | undefined {
  try {
    endpoint.takeHead(headOf(request, version));
    endpoint.readRequest();
  } catch (error) {
    const { cause } = error as Error;
    if (cause instanceof HandshakeError) return cause;
    throw error;
  }
}

function destroy(this: Duplex): void {
  this.destroy();
}

/** Answers a request without a WebSocket, and ends the connection. */
function answer(
  socket: Duplex,
  { status, message, headers }: { status: number; message?: string; headers?: Refusal["headers"] },
): void {
  const reason = http.STATUS_CODES[status] ?? "";
  const body = message || reason;
  const fields = Object.entries({
    Connection: "close",
    "Content-Type": "text/html",
    "Content-Length": Buffer.byteLength(body),
    ...headers,
  });
  socket.once("finish", destroy);
  const head = [
    `HTTP/1.1 ${status} ${reason}`,
    ...fields.map(([name, value]) => `${name}: ${value}`),
  ];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`);
}
