/**
 * Proxies of the client: which one is used, and how it is asked for a connection to the server.
 *
 * A file of its own because a proxy is spoken with before the handshake, and knows nothing of it.
 *
 * @module
 */
import { HandshakeError } from "../core/error.ts";
import { checkKnown, type OptionNames } from "../core/options.ts";
import { percentDecode, type WebSocketUrl } from "../core/url.ts";
import { connectByHttp, connectRequest } from "./http_proxy.ts";
import { type OnTimeout, TransportReader } from "../opening.ts";
import { checkTls, type HeadersLike } from "../options.ts";
import { toRawHeaders } from "../http.ts";
import { environmentProxy } from "./proxy_environment.ts";
import { checkCredentials, connectBySocks } from "./socks.ts";
import type { DialOptions, TlsConnectOptions, Transport, TransportProvider } from "../transport.ts";

/** A proxy, and what it is given. */
export interface ProxyOptions {
  /**
   * Where it is, with user name and password where it asks for them. The schemes are http and https for
   * an HTTP proxy that knows CONNECT, reached in clear or over TLS (default ports 80 and 443), and socks5
   * or, which is the same here, socks5h (1080): the proxy looks up the name of the server.
   */
  url: string | URL;
  /** More header fields for an HTTP proxy; the server does not see them. Default: none */
  headers?: HeadersLike;
  /** How an https proxy is connected to. Default: as the platform does */
  tls?: TlsConnectOptions;
}

const PROXY_OPTIONS: OptionNames<ProxyOptions> = { url: true, headers: true, tls: true };

/**
 * A proxy, "environment" for the one that the environment variables name, or false for none. See
 * `proxy` of `connect()`.
 */
export type ProxyOption = string | URL | ProxyOptions | false;

/** A proxy, read. */
export interface Proxy {
  readonly scheme: "http" | "https" | "socks5";
  /** The host; an IPv6 address without its brackets. */
  readonly hostname: string;
  readonly port: number;
  readonly username: string;
  readonly password: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly tls?: TlsConnectOptions;
}

const PORTS = { http: 80, https: 443, socks5: 1080 } as const;

/**
 * Checks the option.
 *
 * @param direct whether the transport is another than one to the URL's host and port
 * @throws {TypeError} for a value of the wrong type, or a proxy for a transport that needs none
 * @throws {RangeError} for a URL that is none of a proxy
 */
export function checkProxy(option: unknown, direct: boolean): void {
  if (option === undefined || option === false || option === "environment") return;
  if (direct) throw new TypeError("Expected no proxy beside unix or transport");
  readProxy(option as ProxyOptions);
}

/** The proxy for a server, if there is one for it. */
export function proxyFor(
  option: ProxyOption | undefined,
  target: WebSocketUrl,
  provider: TransportProvider,
): Proxy | undefined {
  if (option === undefined || option === false) return undefined;
  if (option !== "environment") return readProxy(option);
  const { environment } = provider;
  if (environment === undefined) {
    throw new HandshakeError(
      "Expected no proxy from the environment: this transport cannot read it",
      "unsupported",
    );
  }
  const found = environmentProxy(target, environment);
  return found && readProxy(found.url, `${found.variable} in the environment`);
}

function readProxy(option: Exclude<ProxyOption, false>, name = "proxy"): Proxy {
  const { url, headers, tls }: ProxyOptions = typeof option === "string" || option instanceof URL
    ? { url: option }
    : optionsOf(option);
  if (typeof url !== "string" && !(url instanceof URL)) {
    throw new TypeError(`Expected the URL of a proxy, received ${typeof url}`);
  }
  checkTls(tls);
  const proxy = { ...readUrl(String(url), name), headers: toRawHeaders(headers), tls };
  // What cannot be sent is known before there is a connection.
  if (proxy.scheme === "socks5") checkCredentials(proxy);
  else connectRequest({ hostname: "localhost", port: 80 }, proxy);
  return proxy;
}

function optionsOf(option: unknown): ProxyOptions {
  if (typeof option === "object" && option !== null) {
    checkKnown("proxy", option, PROXY_OPTIONS);
    return option as ProxyOptions;
  }
  throw new TypeError(
    `Expected proxy as a URL, an object or false, received ${
      option === null ? "null" : typeof option
    }`,
  );
}

/** A message has nothing of the URL in it, which may hold a password. */
function readUrl(text: string, name: string): Omit<Proxy, "headers" | "tls"> {
  const [, given = "", rest = ""] = /^(https?|socks5h?):\/\/(.+)$/is.exec(text) ?? [];
  try {
    // The platform's URL knows no socks5, and of its own schemes leaves out the usual port.
    const [url, other] = [new URL(`http://${rest}`), new URL(`https://${rest}`)];
    const scheme = given.toLowerCase().replace("socks5h", "socks5") as Proxy["scheme"];
    return {
      scheme,
      hostname: url.hostname.replace(/^\[(.*)\]$/, "$1"),
      port: Number(url.port || other.port || PORTS[scheme]),
      username: percentDecode(url.username),
      password: percentDecode(url.password),
    };
  } catch {
    throw new RangeError(`Expected ${name} to be an http, https, socks5 or socks5h URL`);
  }
}

/**
 * Connects to a server by way of a proxy.
 *
 * @param place the server
 * @param dial connects to the proxy
 */
export async function dialProxy(
  proxy: Proxy,
  place: DialOptions,
  provider: TransportProvider,
  dial: (provider: Pick<TransportProvider, "connect">, place: DialOptions) => Promise<Transport>,
  onTimeout: OnTimeout,
): Promise<TransportReader> {
  const { scheme, hostname, port } = proxy;
  let reader: TransportReader | undefined;
  const open = async (transport: Transport) => {
    const line = new TransportReader(transport);
    if (scheme === "socks5") await connectBySocks(line, place, proxy);
    else await connectByHttp(line, place, proxy, onTimeout);
    reader = line;
  };
  const connect = async (options: DialOptions) => {
    try {
      return await provider.connect(options);
    } catch (error) {
      // Not the proxy's fault, and no reason to look for it elsewhere.
      throw reader === undefined ? error : behind(proxy, place, error);
    }
  };
  const tls = scheme === "https"
    ? { ...proxy.tls, servername: proxy.tls?.servername ?? hostname }
    : undefined;
  const tunnel = { open, tls: place.tls };
  const transport = await dial({ connect }, { hostname, port, tls, tunnel, signal: place.signal });
  if (reader?.transport === transport) return reader;
  if (reader !== undefined) return new TransportReader(transport);
  // One that does not know of tunnels would tell the proxy what is meant for the server.
  transport.destroy();
  throw new HandshakeError("Expected no proxy: this transport knows none", "unsupported");
}

function behind(proxy: Proxy, place: DialOptions, cause: unknown): unknown {
  if (cause instanceof HandshakeError || place.signal?.aborted) return cause;
  return new HandshakeError(
    `Expected TLS with ${place.hostname} port ${place.port} through the proxy ${proxy.hostname}: ` +
      `${(cause as Error).message}`,
    "connect-failed",
    { cause },
  );
}
