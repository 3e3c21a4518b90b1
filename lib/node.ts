/**
 * WebSockets on an HTTP server that you already have: a server of `node:http` or `node:https`, on Node,
 * Bun and Deno, or of a framework that uses such a server.
 *
 * @module
 */
import type { IncomingMessage, Server as HttpServer } from "node:http";
import type { Server as HttpsServer } from "node:https";
import type { Duplex } from "node:stream";
import {
  type Attachment,
  attachTo,
  checkEventOf,
  checkServer,
  fits,
  notFound,
  UPGRADE_OPTIONS,
  type UpgradeOptions,
  type UpgradeRequest,
} from "./server/attachment.ts";
import type { RawHeaders } from "./core/header.ts";
import { nextTurn } from "./timers.ts";
import { checkKnown } from "./core/option_hints.ts";
import type { OptionNames } from "./core/options.ts";
import type { WebSocketConnection } from "./connection/connection.ts";
import { type HandshakeError, invalidState, refusal } from "./core/error.ts";
import {
  checkEncrypted,
  headOf,
  ignoreErrors,
  isEncrypted,
  isForWebSocket,
  remoteAddress,
  upgradedTransport,
  watchUse,
} from "./runtime/node_upgrade.ts";
import { acceptOn, sendableHeaders, setUp } from "./server/server.ts";
import type { Handler, ServerStats, ShutdownOptions } from "./server/sessions.ts";

export type { Attachment, Handler, ServerStats, ShutdownOptions, UpgradeOptions };

/** Decides by the path, without the query, whether to take a request. */
export type PathFilter = (path: string, request: IncomingMessage) => boolean;

/** Options of {@linkcode attach}. */
export interface AttachOptions
  extends Omit<UpgradeOptions, "onRequest" | "selectProtocol" | "onResponse"> {
  /** Like the option of `serve()`, with the request of `node:http` as an additional argument. */
  onRequest?:
    | ((
      request: Request,
      incoming: IncomingMessage,
    ) => Response | void | undefined | Promise<Response | void | undefined>)
    | undefined;
  /** Like the option of `serve()`, with the request of `node:http` as an additional argument. */
  selectProtocol?:
    | ((
      offered: readonly string[],
      request: Request,
      incoming: IncomingMessage,
    ) => string | undefined | void)
    | undefined;
  /** Like the option of `serve()`, with the request of `node:http` as an additional argument. */
  onResponse?:
    | ((headers: Headers, request: Request, incoming: IncomingMessage) => void | Promise<void>)
    | undefined;
  /**
   * The path of the requests to take, without the query, or a function that decides by the path. By
   * default, all requests are taken. Other requests for a WebSocket are left to the other 'upgrade'
   * listeners of the server. They are answered with 404 if no listener uses the socket in the same turn
   * of the event loop. A listener that needs more time must add an 'error' listener to the socket at
   * once, which it needs anyway: without one, a client that resets its connection ends the process.
   */
  path?: string | PathFilter | undefined;
}

const ATTACH_OPTIONS: OptionNames<AttachOptions> = { ...UPGRADE_OPTIONS, path: true };

const taken = new WeakSet<Duplex>();

/**
 * Answers a request for a WebSocket in an 'upgrade' listener of an HTTP server. Call the function at
 * once, and do asynchronous work in `onRequest`. A refusal is answered with its status, and then the
 * promise rejects. Catch the rejection: otherwise one wrong request ends the process.
 *
 * @example A listener of your own
 * ```ts
 * import { createServer } from "node:http";
 * import { connect } from "sluice";
 * import { upgrade } from "sluice/node";
 *
 * const server = createServer((_request, response) => void response.end("Hello"));
 * server.on("upgrade", async (request, socket, head) => {
 *   try {
 *     const ws = await upgrade(request, socket, head, { protocols: ["chat"] });
 *     await ws.send(`Hello from ${ws.protocol}`);
 *     await ws.close({ closeCode: 1000 });
 *   } catch (error) {
 *     console.error(error); // the handshake was refused, or the client has left
 *   }
 * });
 * server.listen(0, "127.0.0.1", async () => {
 *   const { port } = server.address() as { port: number };
 *   const client = await connect(`ws://127.0.0.1:${port}`, { protocols: ["chat"] });
 *   console.log(await client.receive()); // Hello from chat
 *   await client.closed;
 *   server.close();
 * });
 * ```
 * @param request The request of the event.
 * @param socket The socket of the event.
 * @param head The bytes that arrived after the request.
 * @returns The open connection. The promise rejects with a {@linkcode HandshakeError} if the handshake
 * fails, with the reason of the signal if it is aborted, and with InvalidStateError if the socket was
 * already taken. On Deno, a socket of `node:https` is "unsupported", because its peer cannot be slowed
 * down. If an option is wrong, the socket stays with the caller, who must answer or destroy it.
 */
export async function upgrade(
  request: IncomingMessage,
  socket: Duplex,
  head: Uint8Array,
  options: UpgradeOptions = {},
): Promise<WebSocketConnection> {
  const isSocket = typeof socket?.write === "function";
  let headers: RawHeaders;
  try {
    checkKnown("upgrade()", options, UPGRADE_OPTIONS);
    checkEventOf(
      "upgrade",
      [Array.isArray(request?.rawHeaders), "request", request],
      [isSocket, "socket", socket],
      [head === undefined || head instanceof Uint8Array, "head", head],
    );
    headers = sendableHeaders(options);
  } catch (error) {
    if (isSocket) ignoreErrors(socket);
    throw error;
  }
  const source = upgradeRequest(request, socket, head);
  return await acceptOn(source.take(), setUp(options, headers), source);
}

function upgradeRequest(
  request: IncomingMessage,
  socket: Duplex,
  trailing: Uint8Array,
): UpgradeRequest {
  const head = headOf(request);
  // Copy the bytes, because they are unmasked in place.
  const rest = new Uint8Array(trailing);
  return {
    remoteAddress: remoteAddress(socket),
    take() {
      if (taken.has(socket)) {
        throw invalidState(
          "Cannot upgrade: the socket was taken by an earlier call",
          "already-used",
        );
      }
      taken.add(socket);
      return upgradedTransport(socket);
    },
    give: (endpoint) => endpoint.takeHead(head, rest),
    check: () => checkEncrypted(isEncrypted(socket)),
  };
}

/** Serves a request that matches the path, or refuses it with the fault. Returns whether it does so. */
type Take = (
  request: IncomingMessage,
  socket: Duplex,
  head: Uint8Array,
  fault?: HandshakeError,
) => boolean;

class Upgrades {
  static readonly #ofServers = new WeakMap<object, Upgrades>();
  readonly #server: HttpServer;
  readonly #attached: Take[] = [];

  static of(server: HttpServer): Upgrades {
    let upgrades = Upgrades.#ofServers.get(server);
    if (upgrades === undefined) {
      Upgrades.#ofServers.set(server, upgrades = new Upgrades(server));
    }
    return upgrades;
  }

  constructor(server: HttpServer) {
    this.#server = server;
    this.#leavePlainHttp();
  }

  /** Adds an attachment. Returns a function that removes it. */
  add(take: Take): () => void {
    const attached = this.#attached;
    // This listener runs before the others, so that it sees what they do to the socket.
    if (attached.push(take) === 1) this.#server.prependListener("upgrade", this.#onUpgrade);
    return () => {
      if (!attached.includes(take)) return;
      attached.splice(attached.indexOf(take), 1);
      if (attached.length === 0) this.#server.off("upgrade", this.#onUpgrade);
    };
  }

  readonly #onUpgrade = (request: IncomingMessage, socket: Duplex, head: Uint8Array): void => {
    if (taken.has(socket)) return;
    const attached = [...this.#attached];
    const isAsked = isForWebSocket(request);
    if (isAsked && attached.some((take) => take(request, socket, head))) return;
    const refuse = () => {
      const fault = isAsked ? notFound(request.url ?? "") : notUpgrade(request);
      attached[0](request, socket, head, fault);
    };
    if (!this.#hasOthers) return refuse();
    const stopWatching = watchUse(socket);
    nextTurn(() => stopWatching() || refuse());
  };

  get #hasOthers(): boolean {
    const { length } = this.#attached;
    return this.#server.listenerCount("upgrade") > (length > 0 ? 1 : 0);
  }

  /** Leaves requests for other protocols to the server, which may ignore the upgrade (RFC 9110 §7.8). */
  #leavePlainHttp(): void {
    const server = this.#server as HttpServer & { shouldUpgradeCallback?: ShouldUpgrade };
    const { shouldUpgradeCallback: before } = server;
    // Node 20 does not have this method.
    if (before === undefined) return;
    server.shouldUpgradeCallback = (request) =>
      before.call(server, request) && (isForWebSocket(request) || this.#hasOthers);
  }
}

type ShouldUpgrade = (request: IncomingMessage) => boolean;

function notUpgrade({ headers: { upgrade } }: IncomingMessage): HandshakeError {
  return refusal(
    400,
    "not-upgrade",
    `The request has no upgrade to websocket (Upgrade: ${upgrade ?? "none"})`,
  );
}

/**
 * Serves the WebSockets of an HTTP server. The server continues to serve all other requests. If several
 * attachments match a request, the first takes it. A request for a WebSocket that no attachment and no
 * listener takes is answered with 404. A request to upgrade to another protocol, such as h2c, stays a
 * plain HTTP request unless the server has other 'upgrade' listeners; on Node 20 it is answered with 400.
 * When the handler's promise resolves, the connection is closed with 1000. When it rejects, the
 * connection is closed with 1011, and `onError` is called. A handler that returns no promise leaves the
 * connection open; see {@linkcode Handler}.
 *
 * @example HTTP and WebSocket on one port
 * ```ts
 * import { createServer } from "node:http";
 * import { connect } from "sluice";
 * import { attach } from "sluice/node";
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
 * @returns The attachment, which can be detached or shut down.
 * @throws {HandshakeError} If the server is one of `node:https` on Deno ("unsupported"), where a peer
 * cannot be slowed down.
 */
export function attach(
  server: HttpServer | HttpsServer,
  options: AttachOptions,
  handler: Handler,
): Attachment {
  // An application of Express has some methods of a server.
  checkServer(server, "node:http or node:https", ["prependListener", "listenerCount", "close"]);
  checkKnown("attach()", options, ATTACH_OPTIONS);
  return attachTo(options as UpgradeOptions, handler, (take) => {
    checkEncrypted("setSecureContext" in server);
    return Upgrades.of(server).add((request, socket, head, given) => {
      const found = given ?? fits(options.path, request.url ?? "", request);
      if (found === false) return false;
      const fault = found === true ? undefined : found;
      take({ ...upgradeRequest(request, socket, head), incoming: request }, fault);
      return true;
    });
  });
}
