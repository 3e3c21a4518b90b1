/// <reference lib="esnext.disposable" preserve="true" />
/**
 * WebSockets on the HTTP server that you already have: `node:http` and `node:https`, on Node, Bun and
 * Deno, and all that is built on them.
 *
 * An entry point of its own because its declarations need those of `node:http`, which the others must
 * not.
 *
 * @module
 */
import type { IncomingMessage, Server as HttpServer } from "node:http";
import type { Server as HttpsServer } from "node:https";
import type { Duplex } from "node:stream";
import type { CloseInfo } from "./core/close.ts";
import { HandshakeError } from "./core/error.ts";
import { ServerHandshake } from "./core/server_handshake.ts";
import type { WebSocketConnection } from "./connection.ts";
import { invalidState } from "./invalid_state.ts";
import { checkEncrypted, headOf, isEncrypted, upgradedTransport } from "./runtime/node_upgrade.ts";
import { acceptRead, checkServeOptions, reusableHeaders, type ServeOptions } from "./server.ts";
import { type Handler, Sessions } from "./sessions.ts";

export type { Handler };

/** The options of `serve()` but for where to listen, and `limits`, which the HTTP server has. */
export interface UpgradeOptions
  extends Omit<ServeOptions, "hostname" | "port" | "path" | "transport" | "limits"> {
}

/** Tells which requests to take by the path of their URL, without the query. */
export type PathFilter = (path: string, request: IncomingMessage) => boolean;

/** How a server is attached. */
export interface AttachOptions extends UpgradeOptions {
  /**
   * The path, without the query, of the requests to take, or what tells which. Others are left to the
   * server's other 'upgrade' listeners, and stay without an answer where there are none: node:http
   * leaves every upgrade to its listeners once it has one. Default: all requests
   */
  path?: string | PathFilter;
}

/** What is attached to an HTTP server. Calling it detaches it: what is open stays open. */
export interface Attachment extends AsyncDisposable {
  (): void;
  /** The connections that are open or closing. */
  readonly connections: ReadonlySet<WebSocketConnection>;
  /** Resolves when `shutdown()` is through: all handlers have returned, all transports ended. */
  readonly finished: Promise<void>;
  /**
   * Detaches, closes the connections that are open, and waits for `finished`. The `close()` of an HTTP
   * server waits for them, and does not close them.
   *
   * @param info the code and reason to close with. Default: 1001
   */
  shutdown(info?: CloseInfo): Promise<void>;
}

/** The sockets that were taken already. */
const taken = new WeakSet<Duplex>();

/**
 * Answers a request for a WebSocket that an HTTP server has read: for what stands in an 'upgrade'
 * listener. Call it at once; what takes its time is for `onRequest`. A refusal is answered with its
 * status.
 *
 * @example A listener of your own
 * ```ts
 * import { createServer } from "node:http";
 * import { connect } from "@sluice/sluice";
 * import { upgrade } from "@sluice/sluice/node";
 *
 * const server = createServer((_request, response) => void response.end("Hello"));
 * server.on("upgrade", async (request, socket, head) => {
 *   const ws = await upgrade(request, socket, head, { protocols: ["chat"] });
 *   await ws.send(`Hello from ${ws.protocol}`);
 *   await ws.close({ closeCode: 1000 });
 * });
 * server.listen(0, "127.0.0.1", async () => {
 *   const { port } = server.address() as { port: number };
 *   const client = await connect(`ws://127.0.0.1:${port}`, { protocols: ["chat"] });
 *   console.log(await client.receive()); // Hello from chat
 *   await client.closed;
 *   server.close();
 * });
 * ```
 *
 * @param request the request of the event
 * @param socket its socket
 * @param head what came behind the request
 * @returns the open connection. It rejects with a {@linkcode HandshakeError} when the handshake failed,
 * with the signal's reason when it was aborted, and with InvalidStateError for a socket that was taken
 * already. Deno's `node:https` cannot hold a peer back: there it is "unsupported"
 */
export async function upgrade(
  request: IncomingMessage,
  socket: Duplex,
  head: Uint8Array,
  options: UpgradeOptions = {},
): Promise<WebSocketConnection> {
  checkServeOptions(options);
  return await open(request, socket, head, options);
}

/** @param fault what keeps the request from being looked at */
async function open(
  request: IncomingMessage,
  socket: Duplex,
  trailing: Uint8Array,
  options: UpgradeOptions,
  fault?: HandshakeError,
): Promise<WebSocketConnection> {
  if (taken.has(socket)) throw invalidState("Expected a socket that was not taken already");
  taken.add(socket);
  return await acceptRead(upgradedTransport(socket), options, () => {
    if (fault !== undefined) throw fault;
    checkEncrypted(isEncrypted(socket));
    const handshake = new ServerHandshake();
    const head = headOf(request);
    // Ours to unmask in place.
    handshake.takeHead(head, new Uint8Array(trailing));
    return { handshake, head };
  });
}

/**
 * Serves the WebSockets of an HTTP server, which goes on with all other requests. Of several that are
 * attached to one server, the first whose `path` fits takes a request. When the handler returns, the
 * connection is closed with 1000; when it throws, with 1011, and `onError` is told.
 *
 * @example HTTP and WebSocket on one port
 * ```ts
 * import { createServer } from "node:http";
 * import { connect } from "@sluice/sluice";
 * import { attach } from "@sluice/sluice/node";
 *
 * const server = createServer((_request, response) => void response.end("Hello"));
 * const attached = attach(server, { path: "/echo" }, (ws) => ws.readable.pipeTo(ws.writable));
 * server.listen(0, "127.0.0.1", async () => {
 *   const { port } = server.address() as { port: number };
 *   console.log(await (await fetch(`http://127.0.0.1:${port}`)).text()); // Hello
 *   const client = await connect(`ws://127.0.0.1:${port}/echo`);
 *   await client.send("echo");
 *   console.log(await client.receive()); // echo
 *   server.close();
 *   await attached.shutdown();
 * });
 * ```
 *
 * @returns a function that detaches: no more requests are taken, and what is open stays open
 * @throws {HandshakeError} "unsupported" for a server of `node:https` on Deno, which cannot hold a peer
 * back
 */
export function attach(
  server: HttpServer | HttpsServer,
  options: AttachOptions,
  handler: Handler,
): Attachment {
  checkServeOptions(options);
  checkPath(options.path);
  checkEncrypted("setSecureContext" in server);
  options.signal?.throwIfAborted();
  const headers = reusableHeaders(options);
  const sessions = new Sessions(options, handler);
  const listener = (request: IncomingMessage, socket: Duplex, head: Uint8Array) => {
    if (taken.has(socket)) return;
    const found = find(options.path, request);
    if (found === false) return;
    const fault = found === true ? undefined : found;
    sessions.take((signal) => open(request, socket, head, { ...options, headers, signal }, fault));
  };
  const detach = () => void server.off("upgrade", listener);
  server.on("upgrade", listener);
  sessions.start(detach);
  const shutdown = (info?: CloseInfo) => sessions.shutdown(info);
  return Object.assign(detach, {
    connections: sessions.connections,
    finished: sessions.finished,
    shutdown,
    [Symbol.asyncDispose]: () => shutdown(),
  });
}

function checkPath(path: unknown): void {
  if (path === undefined || typeof path === "function") return;
  if (typeof path !== "string") {
    throw new TypeError(`Expected path as a string or a function, received ${typeof path}`);
  }
  if (!path.startsWith("/")) {
    throw new RangeError(`Expected path to begin with /, received ${JSON.stringify(path)}`);
  }
}

/** Whether the request is ours, or what the filter has thrown. */
function find(path: string | PathFilter | undefined, request: IncomingMessage) {
  if (path === undefined) return true;
  const asked = pathOf(request.url ?? "");
  if (typeof path === "string") return asked === path;
  try {
    return path(asked, request) === true;
  } catch (cause) {
    return new HandshakeError("The path filter threw", "hook-failed", { status: 500, cause });
  }
}

/** The path as `request.url` of the handler will have it. */
function pathOf(target: string): string {
  const base = "http://localhost";
  try {
    return new URL(target.startsWith("/") ? base + target : target, base).pathname;
  } catch {
    return target;
  }
}
