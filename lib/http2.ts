/**
 * WebSockets over HTTP/2 (RFC 8441). Each connection is one stream of a session of `node:http2`. Client
 * and server on Node and Bun; only the client on Deno.
 *
 * Node limits the memory of all streams of a session: see the option `maxSessionMemory` of its
 * `connect()` and `createServer()`, in megabytes (10 by default). A connection whose peer does not read
 * counts with 16 KiB, even after it was cut. Raise the option for long sessions, or for sessions with
 * many such connections: beyond the limit, the session refuses new streams.
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
  checkEventOf,
  checkServer,
  fits,
  notFound,
  UPGRADE_OPTIONS,
  type UpgradeOptions,
  type UpgradeRequest,
} from "./server/attachment.ts";
import {
  CONNECT_OPTIONS,
  type ConnectOptions,
  named,
  open as openClient,
  openingOf,
  requestOf,
} from "./client/client.ts";
import type { WebSocketConnection } from "./connection/connection.ts";
import { HandshakeError, invalidState } from "./core/error.ts";
import { http2Response, lost, plainBody } from "./core/handshake.ts";
import type { RawHeaders } from "./core/header.ts";
import { checkKnown } from "./core/option_hints.ts";
import { copyOf, type OptionNames, optionsWithout } from "./core/options.ts";
import { parseWebSocketUrl, type WebSocketUrl } from "./core/url.ts";
import { onAbort, sleep } from "./abortable.ts";
import { backgroundTimer, nextTurn } from "./timers.ts";
import { defaultProvider, extensionsOf } from "./platform.ts";
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
import { acceptOn, sendableHeaders, setUp } from "./server/server.ts";
import type { Handler, ServerStats, ShutdownOptions } from "./server/sessions.ts";

export type { Attachment, Handler, ServerStats, ShutdownOptions, UpgradeOptions };

/** The options of `connect()`, without those that say how to reach the server. */
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

/** Options of {@linkcode attachHttp2}. */
export interface AttachHttp2Options extends UpgradeOptions {
  /**
   * The path of the requests to take, without the query, or a function that decides by the path. Other
   * requests are left to the other 'stream' and 'connect' listeners of the server. If none of them has
   * begun to read or answer a request for a WebSocket within one second, the request is answered with
   * 404; if there are no such listeners, it is answered at once. By default, all requests are taken.
   */
  path?: string | Http2PathFilter | undefined;
}

const ATTACH_OPTIONS: OptionNames<AttachHttp2Options> = { ...UPGRADE_OPTIONS, path: true };

/** Decides by the path, without the query, whether to take a request. */
export type Http2PathFilter = (path: string, headers: IncomingHttpHeaders) => boolean;

/** Maximum number of retries of a refused request. The delays are 1, 2, 4 ms and so on. */
const MOST_RETRIES = 9;

const taken = new WeakSet<ServerHttp2Stream>();

/**
 * Connects through a new stream of a session. The session stays open when the connection ends. Waits for
 * the server's settings if they have not arrived. The user name and password of the URL are sent as Basic
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
 * @param session The session, which may still be connecting. Its errors are reported by this call and by
 * its connections, so that the session needs no 'error' listener while there are any.
 * @param url The URL of the request. The schemes are ws, wss, http and https. The session decides where
 * the request goes and whether it is encrypted.
 * @returns The open connection. The promise rejects with a {@linkcode HandshakeError} if the handshake
 * fails: "no-extended-connect" if the server's settings do not allow WebSockets, "stream-refused" if the
 * server has no room for another stream. Otherwise it rejects as that of `connect()`.
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
    const options = { ...copyOf(given), extensions: await extensionsOf(given, true) };
    const { textCodec } = await defaultProvider();
    const scheme = target.secure ? "https" : "http";
    const request = { ...requestOf(target, options), scheme } as const;
    // Check the request before waiting for the settings.
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
  } catch (error) {
    throw named(error, target);
  } finally {
    leave();
  }
}

/** RFC 9113 §8.7: a request that the server has not processed may be sent again. */
function mayRetry(error: unknown): boolean {
  return error instanceof HandshakeError && error.code === "stream-refused";
}

async function openStream(
  watch: SessionWatch,
  opening: Opening,
  target: WebSocketUrl,
  deadline: Deadline,
): Promise<WebSocketConnection> {
  const { signal } = deadline;
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
  return await openClient(reader, opening, target, deadline, { arrived: arrived() });
}

/** Throws the reason why a stream has ended without a response. */
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
 * Answers a request for a WebSocket in a 'stream' listener of a server of `node:http2`, whose `settings`
 * must have `enableConnectProtocol: true`. Such a request has the `:method` CONNECT and the `:protocol`
 * websocket. Call the function at once, and do asynchronous work in `onRequest`. A refusal is answered
 * with its status, and then the promise rejects. Catch the rejection: otherwise one wrong request ends the
 * process.
 *
 * @example A listener of your own
 * ```ts
 * import { createServer, type ServerHttp2Stream } from "node:http2";
 * import { upgradeHttp2 } from "sluice/http2";
 *
 * const server = createServer({ settings: { enableConnectProtocol: true } });
 * server.on("stream", async (stream: ServerHttp2Stream, headers) => {
 *   if (headers[":method"] !== "CONNECT") {
 *     stream.respond({ ":status": 200 });
 *     stream.end("Hello");
 *     return;
 *   }
 *   try {
 *     const ws = await upgradeHttp2(stream, headers, { protocols: ["chat"] });
 *     await ws.send(`Hello from ${ws.protocol}`);
 *     await ws.close({ closeCode: 1000 });
 *   } catch (error) {
 *     console.error(error); // the handshake was refused, or the client has left
 *   }
 * });
 * ```
 * @param stream The stream of the event.
 * @param headers The headers of the event.
 * @returns The open connection, whose `request` is a GET, because the web has no Request for CONNECT. The
 * promise rejects with a {@linkcode HandshakeError} if the handshake fails ("no-extended-connect" if the
 * server's settings do not allow WebSockets, "unsupported" on Deno), with the reason of the signal if it
 * is aborted, and with InvalidStateError if the stream was already taken.
 */
export async function upgradeHttp2(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  options: UpgradeOptions = {},
): Promise<WebSocketConnection> {
  if (typeof stream?.on === "function") guard(stream);
  checkKnown("upgradeHttp2()", options, UPGRADE_OPTIONS);
  checkEventOf(
    "stream",
    [typeof stream?.respond === "function", "stream", stream],
    [typeof headers === "object" && headers !== null, "headers", headers],
  );
  const sent = sendableHeaders(options);
  checkHttp2Headers(sent);
  const source = upgradeRequest(stream, headers);
  return await acceptOn(source.take(), setUp(options, sent), source);
}

/** Checks that HTTP/2 has the header fields. */
function checkHttp2Headers(headers: RawHeaders): void {
  http2Response({ headers });
}

function upgradeRequest(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): UpgradeRequest {
  return {
    remoteAddress: remoteAddress(stream),
    take() {
      if (taken.has(stream)) {
        throw invalidState(
          "Cannot upgrade: the stream was taken by an earlier call",
          "already-used",
        );
      }
      taken.add(stream);
      return new Http2Transport(stream);
    },
    give: (endpoint) => endpoint.takeFields(fieldsOf(headers)),
    check() {
      checkServerRuntime();
      checkLocalSettings(stream.session);
      // RFC 9110 §9.3.1, §9.3.2: a body has no meaning in GET and HEAD.
      const mayHaveBody = !["CONNECT", "GET", "HEAD"].includes(headers[":method"] ?? "");
      if (mayHaveBody && !stream.endAfterHeaders) throw plainBody();
    },
    respond: ({ fields }) => respond(stream, fields!),
  };
}

/**
 * Serves the WebSockets of a server of `node:http2`, whose `settings` must have `enableConnectProtocol:
 * true`. The server continues to serve all other requests. If the server has neither other 'stream'
 * listeners nor 'request' listeners, other requests go to `onRequest`, and are refused if it does not
 * answer them. If several attachments match a request, the first takes it. When the handler's promise
 * resolves, the connection is closed with 1000. When it rejects, the connection is closed with 1011, and
 * `onError` is called. A handler that returns no promise leaves the connection open; see {@linkcode
 * Handler}.
 *
 * The sessions of the server stay open when the attachment is detached or shut down. From then on, a
 * server without other listeners answers each request with 503.
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
 * @returns The attachment, which can be detached or shut down.
 * @throws {HandshakeError} If the runtime is Deno ("unsupported"): a client can crash its server of
 * `node:http2`.
 */
export function attachHttp2(
  server: Http2Server | Http2SecureServer,
  options: AttachHttp2Options,
  handler: Handler,
): Attachment {
  checkServer(server, "node:http2", ["on", "listenerCount", "close", "updateSettings"]);
  checkKnown("attachHttp2()", options, ATTACH_OPTIONS);
  return attachTo(options, handler, (take) => {
    checkServerRuntime();
    const onStream = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      guard(stream);
      if (taken.has(stream) || !(isForWebSocket(headers) || others(server) === 0)) return;
      const target = headers[":path"] ?? "";
      const found = fits(options.path, target, headers);
      const serve = (fault?: HandshakeError) => take(upgradeRequest(stream, headers), fault);
      if (found !== false) serve(found === true ? undefined : found);
      else {
        const refuse = () => isTaken(stream, server) || serve(notFound(target));
        // The server's own 'stream' listener leaves each CONNECT to the 'connect' listeners.
        const ownOnly = others(server) <= (server.listenerCount("request") > 0 ? 1 : 0);
        if (ownOnly) nextTurn(refuse);
        else stream.once("close", backgroundTimer(refuse, GRACE));
      }
    };
    ours.add(onStream);
    server.on("stream", onStream);
    const stop = leaveConnect(server);
    return () => {
      server.off("stream", onStream);
      refuseLater(server);
      stop();
    };
  }, checkHttp2Headers);
}

/** The 'stream' and 'connect' listeners of this module. */
const ours = new WeakSet<object>();

/** Whether the server has a 'connect' listener that is not ours. */
function hasConnectListener(server: Http2Server | Http2SecureServer): boolean {
  return server.listeners("connect").some((one) => !ours.has(one));
}

/**
 * Adds a 'connect' listener: without one, a server that has 'request' listeners answers each CONNECT with
 * 405. A request that no other listener answers gets the same answer as without this listener.
 */
function leaveConnect(server: Http2Server | Http2SecureServer): () => void {
  const listener = (request: Http2ServerRequest, response: Http2ServerResponse | Duplex) => {
    // A server that allows HTTP/1.1 also emits 'connect' for HTTP/1.1.
    const isHttp2 = "writeHead" in response;
    const answer = () => {
      if (hasConnectListener(server)) return;
      if (!isHttp2) response.destroy();
      else if (!isForWebSocket(request.headers) && !response.headersSent) {
        response.writeHead(405).end();
      }
    };
    // Answer only after all 'stream' listeners have run.
    queueMicrotask(answer);
  };
  ours.add(listener);
  server.on("connect", listener);
  return () => void server.off("connect", listener);
}

const ignore = () => {};

/** Adds an 'error' listener, so that an error of the stream does not end the process. */
function guard(stream: ServerHttp2Stream): void {
  if (!stream.listeners("error").includes(ignore)) stream.on("error", ignore);
}

/** The servers that had attachments. */
const detachedFrom = new WeakSet<object>();

/**
 * Answers the requests that no other listener of a server gets. Its sessions stay open after an attachment
 * has left, and an error of a stream that nobody listens to ends the process.
 */
function refuseLater(server: Http2Server | Http2SecureServer): void {
  if (detachedFrom.has(server)) return;
  detachedFrom.add(server);
  const onStream = (stream: ServerHttp2Stream) => {
    if (server.listenerCount("stream") > 1) return;
    guard(stream);
    // The client may have left.
    if (stream.destroyed || stream.closed) return;
    stream.respond({ ":status": 503 }, { endStream: true });
    // Some versions of Node would otherwise reset the stream before the answer.
    nextTurn(() => stream.close());
  };
  ours.add(onStream);
  server.on("stream", onStream);
}

/**
 * Time that other 'stream' listeners have to take a request for a WebSocket, in milliseconds. A listener
 * that is slower would throw, because the stream has already been answered.
 */
const GRACE = 1000;

/** Counts the 'stream' listeners that are not ours, including the one of the 'request' event. */
function others(server: Http2Server | Http2SecureServer): number {
  return server.listeners("stream").filter((one) => !ours.has(one)).length;
}

/** Whether another listener has answered or read a stream, or may still do so as a 'connect' listener. */
function isTaken(stream: ServerHttp2Stream, server: Http2Server | Http2SecureServer): boolean {
  return taken.has(stream) || stream.headersSent || stream.destroyed || stream.closed ||
    stream.readableFlowing !== null || stream.listenerCount("readable") > 0 ||
    // Node emits 'connect' only if there is a 'request' listener too.
    (hasConnectListener(server) && server.listenerCount("request") > 0);
}

function isForWebSocket(headers: IncomingHttpHeaders): boolean {
  return headers[":method"] === "CONNECT" && headers[":protocol"] === "websocket";
}
