/**
 * The client: dialling and the opening handshake.
 *
 * @module
 */
import { onAbort } from "../abortable.ts";
import { type ByteDuplex, fromStreams } from "../byte_streams.ts";
import type { WebSocketConnection } from "../connection/connection.ts";
import { HandshakeError } from "../core/error.ts";
import { checkExtraFields, wrongStatus } from "../core/handshake.ts";
import type { OutgoingRequest } from "../core/handshake_event.ts";
import { checkField } from "../core/header.ts";
import { checkInteger, checkKnown, checkText, type OptionNames } from "../core/options.ts";
import { parseWebSocketUrl, type WebSocketUrl } from "../core/url.ts";
import type { TextCodec } from "../core/utf8.ts";
import { defaultProvider, extensionsOf } from "../platform.ts";
import { basicAuthorization, toRawHeaders } from "../http.ts";
import { type OnTimeout, Opening, readRefusal, TransportReader, withDeadline } from "../opening.ts";
import {
  checkNotEmpty,
  checkProtocols,
  checkTlsConnect,
  checkTransport,
  CONNECTION_OPTIONS,
  type ConnectionOptions,
} from "../options.ts";
import { checkProxy, dialProxy, proxyFor, type ProxyOption } from "./proxy.ts";
import { checkFieldNames, followRedirects } from "./redirects.ts";
import type { DialOptions, TlsConnectOptions, Transport, TransportProvider } from "../transport.ts";

/** The version of the library, as in its manifests. */
export const VERSION = "0.1.0";

/** Options of {@linkcode connect}. */
export interface ConnectOptions extends ConnectionOptions {
  /** The Origin header. By default there is none. */
  origin?: string;
  /**
   * The User-Agent header, or false for none. A User-Agent in `headers` replaces it.
   * @default "sluice/" and the version
   */
  userAgent?: string | false;
  /**
   * Path of a Unix socket to connect to, of at most 107 bytes on Linux and 103 on macOS. The host of the
   * URL is then used for the Host header only.
   */
  unix?: string;
  /** Options of TLS for a wss URL. By default, the certificate authorities of the platform are used. */
  tls?: TlsConnectOptions;
  /** A transport, or a pair of byte streams, to use instead of dialling. */
  transport?: Transport | ByteDuplex;
  /**
   * How many redirects are followed, at most 20; with 0, and with `unix` or `transport`, a redirect is a
   * refusal with code "status". Another scheme, host or port gets nothing of the caller's unless
   * `crossOriginHeaders` names it: no header fields, subprotocols, user name and password, and never the
   * client's certificate. Default: 0
   */
  maxRedirects?: number;
  /**
   * Names of header fields that are also sent to another origin after a redirect. "Sec-WebSocket-Protocol"
   * stands for `protocols`, "Origin" for `origin`, "User-Agent" for `userAgent`, and "Authorization" also for
   * the user name and password of the URL. The server that redirects chooses who receives these fields, so
   * name no field with a secret, such as a token in `protocols`. Without its subprotocols the connection is
   * opened all the same, with an empty `protocol`.
   */
  crossOriginHeaders?: readonly string[];
  /**
   * The proxy to connect through: an http or https URL of a proxy that supports CONNECT, or a socks5 URL of
   * a SOCKS 5 proxy, which resolves the server's name. The URL may contain a user name and a password. The
   * option cannot be combined with `unix` or `transport`. `remoteAddress` is the address of the proxy.
   *
   * "environment" uses the proxy that the environment variables name: HTTPS_PROXY for wss, HTTP_PROXY for ws,
   * or else ALL_PROXY; the lower-case name of each has priority. NO_PROXY lists hosts without a proxy:
   * names, which include their subdomains, addresses, ranges such as 10.0.0.0/8, each with or without a port,
   * or "*".
   */
  proxy?: ProxyOption;
}

/** The options of `connect()`. */
export const CONNECT_OPTIONS: OptionNames<ConnectOptions> = {
  ...CONNECTION_OPTIONS,
  protocols: checkProtocols,
  origin: checkText,
  userAgent: (name, value) => value === false || checkText(name, value),
  unix: checkNotEmpty,
  tls: checkTlsConnect,
  transport: checkTransport,
  maxRedirects: (name, value) => checkInteger(name, value, 0, 20),
  crossOriginHeaders: checkFieldNames,
  proxy: checkProxy,
};

/** Options of the WebSocketStream that nobody else needs. Internal. */
export interface InternalConnectOptions extends ConnectOptions {
  /** See `ClientHandshakeOptions`. */
  requireProtocol?: boolean;
}

/**
 * Connects to a server. User name and password of the URL are sent as Basic authentication.
 *
 * @example
 * ```ts
 * import { connect, serve } from "sluice";
 *
 * const server = await serve({ port: 0 }, async (ws) => {
 *   for await (const message of ws) await ws.send(message);
 * });
 *
 * const ws = await connect(server.url!, { maxMessageSize: 65536 });
 * await ws.send("Hello");
 * console.log(await ws.receive()); // Hello
 * await ws.close({ closeCode: 1000 });
 * await server.shutdown();
 * ```
 *
 * @param url a ws or wss URL; http and https are taken as these
 * @returns the open connection. It rejects with a {@linkcode HandshakeError} when the handshake fails,
 * with the signal's reason when it is aborted, with a DOMException "SyntaxError" for an invalid URL or
 * subprotocol, with TypeError for a header that cannot be sent, and with RangeError for a path of a
 * Unix socket that is too long, and for a user name with a colon, which Basic authentication cannot send
 */
export async function connect(
  url: string | URL,
  options: ConnectOptions = {},
): Promise<WebSocketConnection> {
  checkKnown("connect()", options, CONNECT_OPTIONS);
  return await connectWith(url, options);
}

/** Connects, whatever else there is beside the options. Internal. */
export async function connectWith(
  url: string | URL,
  given: InternalConnectOptions,
): Promise<WebSocketConnection> {
  const target = parseWebSocketUrl(url);
  const headers = checkDialling(given);
  const options = { ...given, headers, extensions: await extensionsOf(given, true) };
  const followed = isDirect(options) ? 0 : options.maxRedirects ?? 0;
  const provider = options.provider ?? await defaultProvider();
  return await withDeadline(options, async ({ signal, onTimeout }) => {
    return await followRedirects({ target, options }, followed, ({ target, options }) => {
      // A refusal before this one is none any more.
      onTimeout((timeout) => timeout);
      return connectTo(target, options, provider, signal, onTimeout);
    });
  });
}

/** Connects to one server, which may refuse. */
async function connectTo(
  target: WebSocketUrl,
  options: InternalConnectOptions,
  provider: TransportProvider,
  signal: AbortSignal,
  onTimeout: OnTimeout,
): Promise<WebSocketConnection> {
  const opening = openingOf(options, provider.textCodec);
  // Before there is a connection: the request may be one that cannot be sent.
  const bytes = opening.endpoint.send(requestOf(target, options));
  const reader = await reach(target, options, provider, signal, onTimeout);
  const { transport } = reader;
  onAbort(signal, () => transport.destroy());
  transport.write([bytes]);
  return await open(reader, opening, target, onTimeout);
}

/** Whether the transport is another than one to the URL's host and port. */
function isDirect({ unix, transport }: ConnectOptions): boolean {
  return unix !== undefined || transport !== undefined;
}

/**
 * Checks how the options go together, and reads the header fields: an iterator gives them once. Internal.
 *
 * @throws {TypeError} If a proxy is given for a connection that is not made to host and port, or if a
 * header field cannot be sent.
 */
export function checkDialling(options: ConnectOptions): [string, string][] {
  const { proxy } = options;
  if (proxy !== undefined && proxy !== false && proxy !== "environment" && isDirect(options)) {
    throw new TypeError("Expected no proxy beside unix or transport");
  }
  const headers = toRawHeaders(options.headers);
  checkExtraFields(headers);
  for (const [name, value] of headers) checkField(name, value);
  return headers;
}

/** An endpoint for one request. Internal. */
export function openingOf(
  options: InternalConnectOptions,
  textCodec: TextCodec | undefined,
): Opening {
  const { extensions, requireProtocol } = options;
  return new Opening("client", { extensions, requireProtocol, options, textCodec });
}

/** What to ask for. Internal. */
export function requestOf(
  { host, resourceName, username, password }: WebSocketUrl,
  options: InternalConnectOptions,
): OutgoingRequest {
  const { protocols, origin, userAgent = `sluice/${VERSION}` } = options;
  const headers = toRawHeaders(options.headers);
  const given = (name: string) => headers.some(([field]) => field.toLowerCase() === name);
  // RFC 9110 §10.1.5
  if (userAgent !== false && !given("user-agent")) headers.unshift(["User-Agent", userAgent]);
  if (origin !== undefined) headers.push(["Origin", origin]);
  if ((username !== "" || password !== "") && !given("authorization")) {
    headers.push(["Authorization", basicAuthorization(username, password)]);
  }
  return { type: "request", host, target: resourceName, protocols, headers };
}

async function reach(
  target: WebSocketUrl,
  options: ConnectOptions,
  provider: TransportProvider,
  signal: AbortSignal,
  onTimeout: OnTimeout,
): Promise<TransportReader> {
  const { transport, unix } = options;
  if (transport !== undefined) return new TransportReader(fromStreams(transport));
  const place = placeOf(target, options, signal);
  const proxy = unix === undefined ? proxyFor(options.proxy, target, provider) : undefined;
  if (proxy !== undefined) return await dialProxy(proxy, place, provider, dial, onTimeout);
  return new TransportReader(await dial(provider, place));
}

function placeOf(
  { secure, hostname, port }: WebSocketUrl,
  { unix, tls }: ConnectOptions,
  signal: AbortSignal,
): DialOptions {
  // The name stays the one of the URL, whichever address is dialled.
  const encryption = secure ? { ...tls, servername: tls?.servername ?? hostname } : undefined;
  return { hostname, port, unix, tls: encryption, signal };
}

async function dial(
  provider: Pick<TransportProvider, "connect">,
  place: DialOptions,
): Promise<Transport> {
  const { hostname, port, unix, tunnel, signal } = place;
  // Whatever the platform takes localhost for, the server may listen on the other loopback address.
  const others = unix === undefined && hostname === "localhost" ? ["127.0.0.1", "::1"] : [];
  try {
    return await provider.connect(place);
  } catch (cause) {
    if (signal?.aborted) throw signal.reason;
    // A path that is too long is no matter of the network.
    if (cause instanceof HandshakeError || cause instanceof RangeError) throw cause;
    for (const other of others) {
      const transport = await provider.connect({ ...place, hostname: other }).catch(thrown);
      if (transport !== undefined) return transport;
      if (signal?.aborted) throw signal.reason;
    }
    throw new HandshakeError(
      `Expected a connection to ${tunnel === undefined ? "" : "the proxy "}${
        unix ?? `${hostname} port ${port}`
      }: ${describe(cause)}`,
      "connect-failed",
      { cause },
    );
  }
}

/**
 * A host that answers and is not trusted is not passed over for another. Where the platform has no way
 * to check the name beside another address, what the name has failed with is to be told.
 */
function thrown(error: unknown): undefined {
  if (error instanceof HandshakeError && error.code !== "unsupported") throw error;
}

/** A platform that tries several addresses gives an error without a message of its own. */
function describe(error: unknown): string {
  const { message, errors } = error as AggregateError;
  return message || (errors ?? []).map((one) => one.message).join("; ");
}

/**
 * Waits for the response to a request that was sent, and begins the connection. Internal.
 *
 * @param arrived settles when the head of the response was given to the endpoint, if another parser reads it
 */
export async function open(
  reader: TransportReader,
  opening: Opening,
  { secure }: WebSocketUrl,
  onTimeout: OnTimeout,
  arrived?: Promise<void>,
): Promise<WebSocketConnection> {
  try {
    await arrived;
    const { type } = await opening.next(
      reader,
      arrived === undefined ? checkNoTlsAlert : undefined,
    );
    if (type === "accept") return opening.connect(reader, { secure });
    const response = opening.endpoint.response!;
    throw await readRefusal(wrongStatus(response), response, opening.body(reader), onTimeout);
  } catch (error) {
    reader.transport.destroy();
    throw error;
  }
}

/** Some servers answer a plain request on their TLS port with an alert, others just close. */
function checkNoTlsAlert(chunk: Uint8Array | null): void {
  // RFC 8446 §5.1: the type of the record, and the version of old.
  if (chunk === null || chunk[0] !== 21 || chunk[1] !== 3) return;
  throw new HandshakeError(
    "Expected an HTTP response, received a TLS alert: the server expects wss",
    "connection-lost",
  );
}
