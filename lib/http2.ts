/**
 * WebSockets over HTTP/2 (RFC 8441): each is one stream of a session of `node:http2`, whose other
 * streams go on beside it. Both sides on Node and Bun; on Deno the client.
 *
 * Node limits what the streams of a session hold by the option `maxSessionMemory` of its `connect()` and
 * `createServer()`, in megabytes: 10 by default. A connection whose peer does not read counts with 16
 * KiB, and goes on counting if it is cut then. Raise the option for sessions that live long, or that
 * carry many such connections: beyond it the session refuses each new stream.
 *
 * @module
 */
import type {
  ClientHttp2Session,
  ClientHttp2Stream,
  Http2SecureServer,
  Http2Server,
  Http2ServerRequest,
  Http2ServerResponse,
  IncomingHttpHeaders,
  ServerHttp2Stream,
} from "node:http2";
import type { Duplex } from "node:stream";
import {
  type Attachment,
  attachTo,
  checkServer,
  fits,
  notFound,
  UPGRADE_OPTIONS,
  type UpgradeOptions,
} from "./server/attachment.ts";
import {
  CONNECT_OPTIONS,
  type ConnectOptions,
  open as openClient,
  openingOf,
  requestOf,
} from "./client/client.ts";
import type { WebSocketConnection } from "./connection/connection.ts";
import { HandshakeError, invalidState } from "./core/error.ts";
import { http2Response, lost, plainBody } from "./core/handshake.ts";
import { checkKnown, type OptionNames, optionsWithout } from "./core/options.ts";
import { parseWebSocketUrl, type WebSocketUrl } from "./core/url.ts";
import { onAbort, sleep } from "./abortable.ts";
import { backgroundTimer, nextTurn } from "./timers.ts";
import { defaultProvider, extensionsOf } from "./platform.ts";
import { toRawHeaders } from "./http.ts";
import { type Deadline, type Opening, TransportReader, withDeadline } from "./opening.ts";
import {
  checkLocalSettings,
  checkServerRuntime,
  fieldsOf,
  Http2Transport,
  isRefused,
  remoteAddress,
  remoteSettings,
  request,
  respond,
  responseOf,
  SessionWatch,
} from "./runtime/node_http2.ts";
import { acceptOn } from "./server/server.ts";
import type { Handler, ServerStats, ShutdownOptions } from "./server/sessions.ts";

export type { Attachment, Handler, ServerStats, ShutdownOptions, UpgradeOptions };

/** The options of `connect()` but for how to reach the server, which the session has. */
export interface ConnectHttp2Options extends
  Omit<
    ConnectOptions,
    | "unix"
    | "tls"
    | "transport"
    | "provider"
    | "maxRedirects"
    | "crossOriginHeaders"
    | "proxy"
  > {
}

const CONNECT_HTTP2_OPTIONS: OptionNames<ConnectHttp2Options> = optionsWithout(CONNECT_OPTIONS, [
  "unix",
  "tls",
  "transport",
  "provider",
  "maxRedirects",
  "crossOriginHeaders",
  "proxy",
]);

/** How a server of HTTP/2 is attached. */
export interface AttachHttp2Options extends UpgradeOptions {
  /**
   * The path, without the query, of the requests to take, or what tells which. Others are left to the
   * server's other 'stream' listeners and its 'connect' listeners. A request for a WebSocket that none of
   * them has begun to read or to answer after one second is answered with 404; at once if there are no
   * such listeners. Default: all requests
   */
  path?: string | Http2PathFilter;
}

const ATTACH_OPTIONS: OptionNames<AttachHttp2Options> = { ...UPGRADE_OPTIONS, path: true };

/** Tells which requests to take by the path of their URL, without the query. */
export type Http2PathFilter = (path: string, headers: IncomingHttpHeaders) => boolean;

/** How often a request that is refused is sent again, after 1, 2, 4 ms and so on: for half a second. */
const MOST_RETRIES = 9;

/** The streams that were taken already. */
const taken = new WeakSet<ServerHttp2Stream>();

/**
 * Connects by one more stream of a session, which stays open when the connection ends. Waits for the
 * server's settings where they have not come yet. User name and password of the URL are sent as Basic
 * authentication.
 *
 * @example
 * ```ts
 * import { connect } from "node:http2";
 * import { connectHttp2 } from "sluice/http2";
 *
 * export async function chat(): Promise<void> {
 *   const session = connect("https://localhost:8443");
 *   const [one, other] = await Promise.all([
 *     connectHttp2(session, "wss://localhost:8443/one"),
 *     connectHttp2(session, "wss://localhost:8443/other"),
 *   ]);
 *   await one.readable.pipeTo(other.writable);
 *   session.close();
 * }
 * ```
 *
 * @param session the session, which may still be connecting. Its errors are those of this call and of
 * its connections: while there are any, the session needs no 'error' listener
 * @param url a ws or wss URL, http and https are taken as these: what to ask for. Where it goes, and
 * whether it is encrypted, the session has decided
 * @returns the open connection. It rejects with a {@linkcode HandshakeError} when the handshake fails,
 * "no-extended-connect" when the server's settings do not allow it, "stream-refused" when the server has
 * no room for one more stream; otherwise as `connect()` does
 */
export async function connectHttp2(
  session: ClientHttp2Session,
  url: string | URL,
  given: ConnectHttp2Options = {},
): Promise<WebSocketConnection> {
  checkKnown("connectHttp2()", given, CONNECT_HTTP2_OPTIONS);
  const target = parseWebSocketUrl(url);
  const watch = SessionWatch.of(session);
  const leave = watch.join();
  try {
    const options = { ...given, extensions: await extensionsOf(given, true) };
    const { textCodec } = await defaultProvider();
    const scheme = target.secure ? "https" : "http";
    const request = { ...requestOf(target, options), scheme } as const;
    // Before the settings are waited for: the request may be one that cannot be sent.
    openingOf(options, textCodec).endpoint.send(request);
    return await withDeadline(options, async (deadline) => {
      await remoteSettings(watch, deadline.signal);
      for (let refusals = 0;; refusals++) {
        const opening = openingOf(options, textCodec);
        opening.endpoint.send(request);
        try {
          return await openStream(watch, opening, target, deadline);
        } catch (error) {
          if (!mayRetry(error) || refusals === MOST_RETRIES) throw error;
          await sleep(2 ** refusals, deadline.signal);
        }
      }
    });
  } finally {
    leave();
  }
}

/** RFC 9113 §8.7: a request that the server has not looked at may be sent again. */
function mayRetry(error: unknown): boolean {
  return error instanceof HandshakeError && error.code === "stream-refused";
}

/** Opens a connection by one more stream. */
async function openStream(
  watch: SessionWatch,
  opening: Opening,
  target: WebSocketUrl,
  { signal, onTimeout }: Deadline,
): Promise<WebSocketConnection> {
  signal.throwIfAborted();
  const { endpoint } = opening;
  const stream = request(watch, endpoint.fields!);
  const responded = responseOf(stream);
  const transport = new Http2Transport(stream);
  const reader = new TransportReader(transport);
  onAbort(signal, () => transport.destroy());
  const arrived = async () => {
    endpoint.takeFields(await responded ?? await failure(stream, reader));
  };
  return await openClient(reader, opening, target, onTimeout, arrived());
}

/** Why a stream has ended without a response. */
async function failure(stream: ClientHttp2Stream, reader: TransportReader): Promise<never> {
  if (isRefused(stream)) {
    throw new HandshakeError(
      `The server refused the stream (HTTP/2 error code ${stream.rstCode})`,
      "stream-refused",
    );
  }
  await reader.read();
  throw lost("response");
}

/**
 * Answers a request for a WebSocket: for what stands in a 'stream' listener of a server of
 * `node:http2`, whose `settings` must have `enableConnectProtocol: true`. It is one whose `:method` is
 * CONNECT and whose `:protocol` is websocket. Call it at once; what takes its time is for `onRequest`.
 * A refusal is answered with its status.
 *
 * @example A listener of your own
 * ```ts
 * import { createServer, type ServerHttp2Stream } from "node:http2";
 * import { upgradeHttp2 } from "sluice/http2";
 *
 * const server = createServer({ settings: { enableConnectProtocol: true } });
 * server.on("stream", async (stream: ServerHttp2Stream, headers) => {
 *   if (headers[":method"] === "CONNECT") {
 *     const ws = await upgradeHttp2(stream, headers, { protocols: ["chat"] });
 *     await ws.send(`Hello from ${ws.protocol}`);
 *     await ws.close({ closeCode: 1000 });
 *   } else {
 *     stream.respond({ ":status": 200 });
 *     stream.end("Hello");
 *   }
 * });
 * ```
 *
 * @param stream the stream of the event
 * @param headers its headers
 * @returns the open connection, whose `request` is a GET: the web has no Request for CONNECT. It
 * rejects with a {@linkcode HandshakeError} when the handshake failed, "no-extended-connect" when the
 * server's settings do not allow it; with the signal's reason when it was aborted; and with
 * InvalidStateError for a stream that was taken already. On Deno it is "unsupported"
 */
export async function upgradeHttp2(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  options: UpgradeOptions = {},
): Promise<WebSocketConnection> {
  guard(stream);
  checkKnown("upgradeHttp2()", options, UPGRADE_OPTIONS);
  return await open(stream, headers, { ...options, headers: sendableHeaders(options) });
}

/**
 * The header fields for all responses.
 *
 * @throws {TypeError} If one of them cannot be sent over HTTP/2.
 */
function sendableHeaders(options: UpgradeOptions): [string, string][] {
  const headers = toRawHeaders(options.headers);
  http2Response({ protocols: [], extensions: [], origin: undefined }, { headers });
  return headers;
}

/** @param fault what keeps the request from being looked at */
async function open(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  options: UpgradeOptions,
  fault?: HandshakeError,
): Promise<WebSocketConnection> {
  if (taken.has(stream)) throw invalidState("Expected a stream that was not taken already");
  taken.add(stream);
  return await acceptOn(new Http2Transport(stream), options, {
    give: (endpoint) => {
      endpoint.takeFields(fieldsOf(headers));
      if (fault !== undefined) throw fault;
      checkServerRuntime();
      checkLocalSettings(stream.session);
      // RFC 9110 §9.3.1, §9.3.2: a body has no meaning in GET and HEAD.
      const mayHaveBody = !["CONNECT", "GET", "HEAD"].includes(headers[":method"] ?? "");
      if (mayHaveBody && !stream.endAfterHeaders) throw plainBody();
    },
    respond: ({ fields }) => respond(stream, fields!),
  });
}

/**
 * Serves the WebSockets of a server of `node:http2`, whose `settings` must have
 * `enableConnectProtocol: true`; it goes on with all other requests. A server that has no other 'stream'
 * and no 'request' listeners leaves these to `onRequest`; what that does not answer is refused. Of several
 * that are attached to one server, the first whose `path` fits takes a request. When the promise of the
 * handler resolves, its connection is closed with 1000; when it rejects, with 1011, and `onError` is told.
 * A handler that returns no promise leaves the connection open; see {@linkcode Handler}.
 *
 * @example HTTP and WebSocket on one port
 * ```ts
 * import { connect, createServer } from "node:http2";
 * import { attachHttp2, connectHttp2 } from "sluice/http2";
 *
 * const settings = { enableConnectProtocol: true };
 * const server = createServer({ settings }, (_request, response) => void response.end("Hello"));
 * if (!("Deno" in globalThis)) {
 *   const attached = attachHttp2(server, { path: "/echo" }, (ws) => ws.readable.pipeTo(ws.writable));
 *   server.listen(0, "127.0.0.1", async () => {
 *     const { port } = server.address() as { port: number };
 *     const session = connect(`http://127.0.0.1:${port}`);
 *     const client = await connectHttp2(session, `ws://127.0.0.1:${port}/echo`);
 *     await client.send("Hello");
 *     await client.receive();
 *     await attached.shutdown();
 *     session.close();
 *     server.close();
 *   });
 * }
 * ```
 *
 * @returns the attachment, which can be detached or shut down
 * @throws {HandshakeError} "unsupported" on Deno, whose server of `node:http2` can be made to crash
 */
export function attachHttp2(
  server: Http2Server | Http2SecureServer,
  options: AttachHttp2Options,
  handler: Handler,
): Attachment {
  checkServer(server, "node:http2", ["on", "listenerCount", "close", "updateSettings"]);
  checkKnown("attachHttp2()", options, ATTACH_OPTIONS);
  const headers = sendableHeaders(options);
  return attachTo({ ...options, headers }, handler, (take) => {
    checkServerRuntime();
    const onStream = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      guard(stream);
      if (taken.has(stream) || !(isForWebSocket(headers) || others(server) === 0)) return;
      const target = headers[":path"] ?? "";
      const found = fits(options.path, target, headers);
      const serve = (fault?: HandshakeError) =>
        take(
          (reusable, refused) => open(stream, headers, reusable, refused ?? fault),
          remoteAddress(stream),
        );
      if (found !== false) serve(found === true ? undefined : found);
      else {
        const refuse = () => isTaken(stream, server) || serve(notFound(target));
        // That of the 'request' event leaves each CONNECT to the 'connect' listeners.
        const ownOnly = others(server) <= (server.listenerCount("request") > 0 ? 1 : 0);
        if (ownOnly) nextTurn(refuse);
        else stream.once("close", backgroundTimer(refuse, GRACE));
      }
    };
    streamListeners.add(onStream);
    server.on("stream", onStream);
    const stop = leaveConnect(server);
    return () => {
      server.off("stream", onStream);
      stop();
    };
  });
}

/** The 'connect' listeners of attachHttp2(), which answer nothing that others could. */
const placeholders = new WeakSet<object>();

/** Whether the server's CONNECT requests have a listener of somebody else's. */
function hasConnectListener(server: Http2Server | Http2SecureServer): boolean {
  return server.listeners("connect").some((one) => !placeholders.has(one));
}

/**
 * Keeps a server that has 'request' listeners from answering each CONNECT with 405, as it does unless
 * there is a 'connect' listener; what nobody takes is answered as it would have been.
 */
function leaveConnect(server: Http2Server | Http2SecureServer): () => void {
  const listener = (request: Http2ServerRequest, response: Http2ServerResponse | Duplex) => {
    // Of HTTP/1.1, on a server that speaks both.
    const isHttp2 = "writeHead" in response;
    const answer = () => {
      if (hasConnectListener(server)) return;
      if (!isHttp2) response.destroy();
      else if (!isForWebSocket(request.headers) && !response.headersSent) {
        response.writeHead(405).end();
      }
    };
    // When all 'stream' listeners have seen it.
    queueMicrotask(answer);
  };
  placeholders.add(listener);
  server.on("connect", listener);
  return () => void server.off("connect", listener);
}

/** The streams whose errors have a listener. */
const guarded = new WeakSet<ServerHttp2Stream>();

/** Sees to it that an error of a stream does not end the process, whoever takes the stream. */
function guard(stream: ServerHttp2Stream): void {
  if (guarded.has(stream)) return;
  guarded.add(stream);
  stream.on("error", () => {});
}

/** The 'stream' listeners of attachHttp2(). */
const streamListeners = new WeakSet<object>();

/**
 * How long other 'stream' listeners have to take a request for a WebSocket, in milliseconds. One that
 * looks something up before it answers would throw if the stream were answered already.
 */
const GRACE = 1000;

/** How many 'stream' listeners of somebody else's a server has, that of its 'request' event among them. */
function others(server: Http2Server | Http2SecureServer): number {
  return server.listeners("stream").filter((one) => !streamListeners.has(one)).length;
}

/** Whether somebody has answered a stream, reads it, or may yet do so as a 'connect' listener. */
function isTaken(stream: ServerHttp2Stream, server: Http2Server | Http2SecureServer): boolean {
  return taken.has(stream) || stream.headersSent || stream.destroyed || stream.closed ||
    stream.readableFlowing !== null || stream.listenerCount("readable") > 0 ||
    // Node emits 'connect' only if there is a 'request' listener too.
    (hasConnectListener(server) && server.listenerCount("request") > 0);
}

function isForWebSocket(headers: IncomingHttpHeaders): boolean {
  return headers[":method"] === "CONNECT" && headers[":protocol"] === "websocket";
}
