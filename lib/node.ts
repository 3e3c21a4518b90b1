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
import type { Cancellable } from "./opening.ts";
import { type Attachment, attachTo, fits, type UpgradeOptions } from "./server/attachment.ts";
import type { WebSocketConnection } from "./connection/connection.ts";
import type { HandshakeError } from "./core/error.ts";
import { ServerHandshake } from "./core/server_handshake.ts";
import { invalidState } from "./invalid_state.ts";
import {
  checkEncrypted,
  headOf,
  isEncrypted,
  remoteAddress,
  upgradedTransport,
} from "./runtime/node_upgrade.ts";
import { acceptRead, checkServeOptions } from "./server/server.ts";
import type { Handler } from "./server/sessions.ts";

export type { Attachment, Handler, UpgradeOptions };

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
  options: Cancellable<UpgradeOptions>,
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
  return attachTo(options, handler, (take) => {
    checkEncrypted("setSecureContext" in server);
    const listener = (request: IncomingMessage, socket: Duplex, head: Uint8Array) => {
      if (taken.has(socket)) return;
      const found = fits(options.path, request.url ?? "", request);
      if (found === false) return;
      const fault = found === true ? undefined : found;
      take(
        (reusable, refused) => open(request, socket, head, reusable, refused ?? fault),
        remoteAddress(socket),
      );
    };
    server.on("upgrade", listener);
    return () => void server.off("upgrade", listener);
  });
}
