/** The client: it dials, and runs the opening handshake. */
import { onAbort } from "../abortable.ts";
import { diagnostics } from "../inspect.ts";
import {
  type ByteDuplex,
  type DialOptions,
  fromStreams,
  type TlsConnectOptions,
  type Transport,
  type TransportProvider,
} from "../transport.ts";
import type { WebSocketConnection } from "../connection/connection.ts";
import { HandshakeError, wrongType } from "../core/error.ts";
import { addToMessage } from "../core/error_print.ts";
import { checkExtraFields, wrongStatus } from "../core/handshake.ts";
import type { OutgoingOf } from "../core/event.ts";
import { checkKnown } from "../core/option_hints.ts";
import { checkInteger, checkText, copyOf, type OptionNames } from "../core/options.ts";
import { parseWebSocketUrl, type WebSocketUrl } from "../core/url.ts";
import type { TextCodec } from "../core/utf8.ts";
import { defaultProvider, extensionsOf } from "../platform.ts";
import { basicAuthorization, toRawHeaders } from "../http.ts";
import { type Deadline, Opening, readRefusal, TransportReader, withDeadline } from "../opening.ts";
import {
  checkNotEmpty,
  checkProtocols,
  checkTlsConnect,
  checkTransport,
  CONNECTION_OPTIONS,
  type ConnectionOptions,
} from "../options.ts";
import { checkProxy, dialProxy, proxyFor, type ProxyOption } from "./proxy.ts";
import { checkFieldNames, followRedirects, isRedirect } from "./redirects.ts";

/** The version of the library, as in its manifests. */
export const VERSION = "0.1.0";

/** Options of {@linkcode connect}. */
export interface ConnectOptions extends ConnectionOptions {
  /** The Origin header. By default there is none. */
  origin?: string | undefined;
  /**
   * The User-Agent header, or false for none. A User-Agent in `headers` replaces it.
   * @default "sluice/" and the version
   */
  userAgent?: string | false | undefined;
  /**
   * Path of a Unix socket to connect to, of at most 107 bytes on Linux and 103 on macOS. The host of the
   * URL is then used for the Host header only.
   */
  unix?: string | undefined;
  /** Options of TLS for a wss URL. By default, the certificate authorities of the platform are used. */
  tls?: TlsConnectOptions | undefined;
  /** A transport, or a pair of byte streams, to use instead of dialling. */
  transport?: Transport | ByteDuplex | undefined;
  /**
   * Maximum number of redirects to follow, from 0 to 20. With 0, and with `unix` or `transport`, a
   * redirect is a refusal with the code "status". A server with another scheme, host or port receives the
   * header fields, subprotocols, user name and password only if `crossOriginHeaders` names them, and
   * never the client's certificate.
   * @default {0}
   */
  maxRedirects?: number | undefined;
  /**
   * Names of header fields that are also sent to another origin after a redirect.
   * "Sec-WebSocket-Protocol" stands for `protocols`, "Origin" for `origin`, "User-Agent" for `userAgent`,
   * and "Authorization" also for the user name and password of the URL. The server that redirects chooses
   * the receiver of these fields, so name no field with a secret, such as a token in `protocols`. If the
   * subprotocols are not sent, the connection opens with an empty `protocol`.
   */
  crossOriginHeaders?: readonly string[] | undefined;
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
  proxy?: ProxyOption | undefined;
}

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

/** Additional options for WebSocketStream. Internal. */
export interface InternalConnectOptions extends ConnectOptions {
  /** See `EndpointOptions`. */
  requireProtocol?: boolean;
}

/**
 * Connects to a server. The user name and password of the URL are sent as Basic authentication.
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
 * @param url A ws or wss URL. The schemes http and https stand for ws and wss.
 * @returns The open connection. The promise rejects with a {@linkcode HandshakeError} if the handshake
 * fails, with the reason of the signal if it is aborted, with a DOMException "SyntaxError" if the URL or
 * a subprotocol is invalid, with a TypeError if a header field cannot be sent, and with a RangeError if
 * the path of a Unix socket is too long or a user name contains a colon.
 */
export async function connect(
  url: string | URL,
  options: ConnectOptions = {},
): Promise<WebSocketConnection> {
  checkKnown("connect()", options, CONNECT_OPTIONS);
  return await connectWith(url, options);
}

/** Connects without checking the names of the options. Internal. */
export async function connectWith(
  url: string | URL,
  given: InternalConnectOptions,
): Promise<WebSocketConnection> {
  const target = parseWebSocketUrl(url);
  const headers = checkDialling(given);
  const maxRedirects = isDirect(given) ? 0 : given.maxRedirects ?? 0;
  // Copy the options before the first await: the caller may change them afterwards.
  const own = { ...copyOf(given), headers, maxRedirects };
  const options = { ...own, extensions: await extensionsOf(own, true) };
  const provider = options.provider ?? await defaultProvider();
  try {
    return await withDeadline(options, async (deadline) => {
      return await followRedirects({ target, options }, maxRedirects, ({ target, options }) => {
        // A refusal of an earlier redirect no longer counts.
        deadline.onTimeout = undefined;
        return connectTo(target, options, provider, deadline);
      });
    });
  } catch (error) {
    throw named(error, target);
  }
}

/** Logs why there is no connection. Adds the URL to the message of a HandshakeError. */
export function named(error: unknown, { secure, host, resourceName }: WebSocketUrl): unknown {
  // User name, password and query may be secret.
  const url = `${secure ? "wss" : "ws"}://${host}${resourceName.replace(/\?.*/, "")}`;
  diagnostics?.failed(url, error);
  if (error instanceof HandshakeError) addToMessage(error, ` (${url})`);
  return error;
}

async function connectTo(
  target: WebSocketUrl,
  options: InternalConnectOptions,
  provider: TransportProvider,
  deadline: Deadline,
): Promise<WebSocketConnection> {
  const opening = openingOf(options, provider.textCodec);
  // Check the request before dialling.
  const bytes = opening.endpoint.send(requestOf(target, options));
  const reader = await reach(target, options, provider, deadline);
  const { transport } = reader;
  onAbort(deadline.signal, () => transport.destroy());
  transport.write([bytes]);
  const followsRedirects = options.maxRedirects !== 0;
  return await open(reader, opening, target, deadline, { followsRedirects });
}

function isDirect({ unix, transport }: ConnectOptions): boolean {
  return unix !== undefined || transport !== undefined;
}

/** Checks combinations of options, and reads the header fields, which an iterator yields only once. */
export function checkDialling(options: ConnectOptions): [string, string][] {
  const { proxy } = options;
  if (proxy !== undefined && proxy !== false && proxy !== "environment" && isDirect(options)) {
    throw wrongType("Cannot use proxy together with unix or transport");
  }
  const headers = toRawHeaders(options.headers);
  checkExtraFields(headers);
  return headers;
}

export function openingOf(
  options: InternalConnectOptions,
  textCodec: TextCodec | undefined,
): Opening {
  const { extensions, requireProtocol } = options;
  return new Opening("client", { extensions, requireProtocol, options, textCodec });
}

export function requestOf(
  { host, resourceName, username, password }: WebSocketUrl,
  options: InternalConnectOptions,
): OutgoingOf<"request"> {
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
  deadline: Deadline,
): Promise<TransportReader> {
  const { transport, unix } = options;
  if (transport !== undefined) return new TransportReader(fromStreams(transport));
  const place = placeOf(target, options, deadline.signal);
  const proxy = unix === undefined ? proxyFor(options.proxy, target, provider) : undefined;
  if (proxy !== undefined) return await dialProxy(proxy, place, provider, dial, deadline);
  return new TransportReader(await dial(provider, place));
}

function placeOf(
  { secure, hostname, port }: WebSocketUrl,
  { unix, tls }: ConnectOptions,
  signal: AbortSignal,
): DialOptions {
  // The name stays that of the URL even if another address is dialled.
  const encryption = secure ? { ...tls, servername: tls?.servername ?? hostname } : undefined;
  return { hostname, port, unix, tls: encryption, signal };
}

async function dial(
  provider: Pick<TransportProvider, "connect">,
  place: DialOptions,
): Promise<Transport> {
  const { hostname, port, unix, tunnel, signal } = place;
  // The server may listen on the loopback address that the platform does not choose for localhost.
  const others = unix === undefined && hostname === "localhost" ? ["127.0.0.1", "::1"] : [];
  try {
    return await provider.connect(place);
  } catch (cause) {
    if (signal?.aborted) throw signal.reason;
    // A RangeError reports a path that is too long.
    if (cause instanceof HandshakeError || cause instanceof RangeError) throw cause;
    for (const other of others) {
      const transport = await provider.connect({ ...place, hostname: other }).catch(thrown);
      if (transport !== undefined) return transport;
      if (signal?.aborted) throw signal.reason;
    }
    const address = unix ?? `${hostname} port ${port}`;
    throw new HandshakeError(
      `Cannot connect to ${tunnel === undefined ? "" : "the proxy "}${address}: ${
        describe(cause, place)
      }`,
      "connect-failed",
      { cause },
    );
  }
}

/**
 * Ignores the error of a fallback address, unless the host has answered and is not trusted. An
 * "unsupported" error is ignored too, because the error of the name is more useful.
 */
function thrown(error: unknown): undefined {
  if (error instanceof HandshakeError && error.code !== "unsupported") throw error;
}

function describe(error: unknown, place: DialOptions): string {
  const text = oneLine(withoutAddress(error, place));
  return place.tls !== undefined && place.tunnel === undefined && NO_TLS.test(text)
    ? `${text}. The server may not speak TLS: use ws://`
    : text;
}

/** What OpenSSL, BoringSSL and rustls say of an answer that is not TLS. */
const NO_TLS = /wrong.version.number|InvalidContentType|http.request|packet.length.too.long/i;

/** Leaves out what OpenSSL says of its source: "401D:error:0A00010B:SSL routines:function:reason:file:line:". */
function oneLine(message: string): string {
  const [, reason = message] = /:SSL routines:[^:]*:([^:]+)(?::.*)?$/s.exec(message) ?? [];
  return reason.replace(/\s+/g, " ").trim();
}

/**
 * Returns the message of an error, without the address that was dialled. The AggregateError of several
 * addresses may have no message.
 */
function withoutAddress(error: unknown, { hostname, port, unix }: DialOptions): string {
  const { message, errors = [] } = error as AggregateError;
  if (message === "") return errors.map((one) => withoutConnect(one.message)).join("; ");
  const addresses = [unix, `${hostname}:${port}`, hostname];
  const address = addresses.find((one) => one !== undefined && message.endsWith(` ${one}`)) ?? "";
  return withoutConnect(message.slice(0, message.length - address.length).trimEnd());
}

/** Returns the message of `node:net` without the name of its system call. */
function withoutConnect(message: string): string {
  return message.replace(/^connect (?=E)/, "");
}

/** Options of {@linkcode open}. */
interface OpenOptions {
  /** If another parser reads the head of the response: settles when the endpoint has it. */
  arrived?: Promise<void>;
  /** Whether redirects are followed. The body of a redirect is not read then: it may be long or slow. */
  followsRedirects?: boolean;
}

/** Waits for the response, and makes the connection. Internal. */
export async function open(
  reader: TransportReader,
  opening: Opening,
  { secure }: WebSocketUrl,
  deadline: Deadline,
  { arrived, followsRedirects = false }: OpenOptions = {},
): Promise<WebSocketConnection> {
  try {
    await arrived;
    const { type } = await opening.next(
      reader,
      arrived === undefined ? checkNoTlsAlert : undefined,
    );
    if (type === "accept") return opening.connect(reader, secure);
    const response = opening.endpoint.response!;
    const body = followsRedirects && isRedirect(response) ? [] : opening.body(reader);
    throw await readRefusal(wrongStatus(response), response, body, deadline);
  } catch (error) {
    reader.transport.destroy();
    throw error;
  }
}

/** Detects a TLS alert, with which some servers answer a plain request on their TLS port. */
function checkNoTlsAlert(chunk: Uint8Array | null): void {
  // RFC 8446 §5.1: the record type, and the legacy version.
  if (chunk === null || chunk[0] !== 21 || chunk[1] !== 3) return;
  throw new HandshakeError(
    "The server answered with a TLS alert: its port expects a wss URL",
    "connection-lost",
  );
}
