/** Chooses the proxy for a server, and asks it for a connection. */
import { HandshakeError, wrongType, wrongValue } from "../core/error.ts";
import { checkExtraFields, lost } from "../core/handshake.ts";
import { headerValues, type RawHeaders } from "../core/header.ts";
import {
  HeadReader,
  parseResponseHead,
  type ResponseHead,
  serializeRequestHead,
} from "../core/http1.ts";
import { checkNested } from "../core/option_hints.ts";
import { kindOf, type OptionNames } from "../core/options.ts";
import {
  formatAuthority,
  ipBytes,
  percentDecode,
  shareBits,
  type WebSocketUrl,
} from "../core/url.ts";
import { basicAuthorization, toRawHeaders } from "../http.ts";
import { bodyOf, type Deadline, readRefusal, TransportReader } from "../opening.ts";
import { checkTlsConnect, type HeadersLike } from "../options.ts";
import type { DialOptions, TlsConnectOptions, Transport, TransportProvider } from "../transport.ts";
import { checkSocksCredentials, connectBySocks } from "./socks.ts";

/** A proxy, and the options of the connection to it. */
export interface ProxyOptions {
  /**
   * The URL of the proxy, with user name and password if it asks for them. The schemes are http and https
   * for an HTTP proxy that supports CONNECT, reached in clear text or over TLS (default ports 80 and 443),
   * and socks5 or its synonym socks5h (1080). The proxy resolves the name of the server.
   */
  url: string | URL;
  /** Additional header fields for an HTTP proxy. The server does not see them. */
  headers?: HeadersLike | undefined;
  /** Options of TLS for an https proxy. */
  tls?: TlsConnectOptions | undefined;
}

const PROXY_OPTIONS: OptionNames<ProxyOptions> = {
  url: true,
  headers: true,
  tls: checkTlsConnect,
};

/**
 * A proxy, "environment" for the proxy that the environment variables name, or false for none. See
 * `proxy` of `connect()`.
 */
export type ProxyOption = string | URL | ProxyOptions | false;

export interface Proxy {
  readonly scheme: "http" | "https" | "socks5";
  /** The host name or IP address. An IPv6 address has no brackets. */
  readonly hostname: string;
  readonly port: number;
  readonly username: string;
  readonly password: string;
  readonly headers: RawHeaders;
  readonly tls?: TlsConnectOptions;
}

const PORTS = { http: 80, https: 443, socks5: 1080 } as const;

/**
 * @throws {TypeError} If the option has the wrong type.
 * @throws {RangeError} If the URL is not one of a proxy.
 */
export function checkProxy(name: string, option: unknown): void {
  if (option !== false && option !== "environment") readProxy(option as ProxyOptions, name);
}

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
      'Cannot use proxy: "environment": this transport cannot read environment variables',
      "unsupported",
    );
  }
  const found = environmentProxy(target, environment);
  return found && readProxy(found.url, `${found.variable} in the environment`);
}

function readProxy(option: Exclude<ProxyOption, false>, name = "proxy"): Proxy {
  const isUrl = typeof option === "string" || option instanceof URL;
  if (!isUrl) checkNested("proxy", option, PROXY_OPTIONS);
  const { url, headers, tls }: ProxyOptions = isUrl ? { url: option } : option;
  if (typeof url !== "string" && !(url instanceof URL)) {
    throw wrongType(`Expected proxy to be a URL or { url }, received ${kindOf(url)}`);
  }
  const proxy = { ...parseProxyUrl(String(url), name), headers: toRawHeaders(headers), tls };
  // Report now what could not be sent later.
  if (proxy.scheme === "socks5") checkSocksCredentials(proxy);
  else connectRequest({ hostname: "localhost", port: 80 }, proxy);
  return proxy;
}

/** The error message does not show the URL, which may contain a password. */
function parseProxyUrl(text: string, name: string): Omit<Proxy, "headers" | "tls"> {
  const [, given = "", rest = ""] = /^(https?|socks5h?):\/\/(.+)$/is.exec(text) ?? [];
  try {
    // `URL` does not know socks5, and drops the default port of a scheme that it knows.
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
    throw wrongValue(`Expected ${name} to be an http, https, socks5 or socks5h URL`);
  }
}

/** Connects to the server at `place` through a proxy. The function `dial` connects to the proxy. */
export async function dialProxy(
  proxy: Proxy,
  place: DialOptions,
  provider: TransportProvider,
  dial: (provider: Pick<TransportProvider, "connect">, place: DialOptions) => Promise<Transport>,
  deadline: Deadline,
): Promise<TransportReader> {
  const { scheme, hostname, port } = proxy;
  let reader: TransportReader | undefined;
  const open = async (transport: Transport) => {
    const line = new TransportReader(transport);
    if (scheme === "socks5") await connectBySocks(line, place, proxy);
    else await connectByHttp(line, place, proxy, deadline);
    reader = line;
  };
  const connect = async (options: DialOptions) => {
    try {
      return await provider.connect(options);
    } catch (error) {
      // Once the tunnel is open, the failure is the server's, and another proxy address would not help.
      throw reader === undefined ? error : tunnelFailed(proxy, place, error);
    }
  };
  const tls = scheme === "https"
    ? { ...proxy.tls, servername: proxy.tls?.servername ?? hostname }
    : undefined;
  const tunnel = { open, tls: place.tls };
  const transport = await dial({ connect }, { hostname, port, tls, tunnel, signal: place.signal });
  if (reader?.transport === transport) return reader;
  if (reader !== undefined) return new TransportReader(transport);
  // This provider has ignored `tunnel`: the proxy would read what is meant for the server.
  transport.destroy();
  throw new HandshakeError(
    "Cannot use a proxy: this transport does not support one",
    "unsupported",
  );
}

function tunnelFailed(proxy: Proxy, place: DialOptions, cause: unknown): unknown {
  if (cause instanceof HandshakeError || place.signal?.aborted) return cause;
  return new HandshakeError(
    `Cannot establish TLS with ${place.hostname} port ${place.port} through the proxy ` +
      `${proxy.hostname}: ${(cause as Error).message}`,
    "connect-failed",
    { cause },
  );
}

/** @throws {TypeError} If a header field cannot be sent. */
function connectRequest(
  { hostname, port }: { hostname: string; port: number },
  { username, password, headers }: Proxy,
): Uint8Array {
  const target = formatAuthority(hostname, port);
  checkExtraFields(headers);
  const fields: [string, string][] = [["Host", target]];
  // RFC 9110 §11.7.1
  const isGiven = headerValues(headers, "Proxy-Authorization").length > 0;
  if ((username !== "" || password !== "") && !isGiven) {
    fields.push(["Proxy-Authorization", basicAuthorization(username, password)]);
  }
  return serializeRequestHead({
    method: "CONNECT",
    target,
    version: "1.1",
    headers: [...fields, ...headers],
  });
}

/**
 * RFC 9110 §9.3.6.
 * @throws {HandshakeError} If the proxy refuses ("proxy") or the connection ends ("connection-lost").
 */
async function connectByHttp(
  line: TransportReader,
  server: { hostname: string; port: number },
  proxy: Proxy,
  deadline: Deadline,
): Promise<void> {
  line.transport.write([connectRequest(server, proxy)]);
  const { head, rest } = await readProxyResponse(line);
  const { status, statusText } = head;
  // RFC 9110 §9.3.6: any 2xx opens the tunnel, whatever the response says of its body.
  if (status < 200 || status > 299) {
    const message = `The proxy refused the connection: ${status} ${statusText}`;
    const error = new HandshakeError(message, "proxy");
    throw await readRefusal(error, head, bodyOf(head, rest, line), deadline);
  }
  if (rest.length > 0) {
    throw new HandshakeError(
      `The proxy sent ${rest.length} bytes after its response, before the server was asked`,
      "proxy",
    );
  }
}

async function readProxyResponse(
  line: TransportReader,
): Promise<{ head: ResponseHead; rest: Uint8Array }> {
  const reader = new HeadReader(parseResponseHead);
  for (;;) {
    const chunk = await line.read();
    if (chunk === null) throw lost("proxy's response");
    try {
      const response = reader.push(chunk);
      if (response !== undefined) return response;
    } catch (cause) {
      const { message } = cause as Error;
      throw new HandshakeError(`Cannot read the proxy's response: ${message}`, "proxy", { cause });
    }
  }
}

type Environment = (name: string) => string | undefined;

/** Returns the URL of the proxy that the environment names for a server, and the variable's name. */
export function environmentProxy(
  target: Pick<WebSocketUrl, "secure" | "hostname" | "port">,
  environment: Environment,
): { url: string; variable: string } | undefined {
  const exempt = firstSet(["no_proxy", "NO_PROXY"], environment)?.value ?? "";
  if (exempt.split(/[\s,]+/).some((entry) => matchesEntry(entry, target))) return undefined;
  const scheme = target.secure ? "https" : "http";
  const names = [`${scheme}_proxy`, `${scheme}_proxy`.toUpperCase(), "all_proxy", "ALL_PROXY"];
  // In a CGI program, HTTP_PROXY is the request header "Proxy", which anybody can send.
  const isCgi = environment("REQUEST_METHOD") !== undefined;
  const found = firstSet(names.filter((name) => !(isCgi && name === "HTTP_PROXY")), environment);
  if (found === undefined) return undefined;
  const { value, name } = found;
  return { url: /^[a-z][a-z\d+.-]*:\/\//i.test(value) ? value : `http://${value}`, variable: name };
}

function firstSet(
  names: readonly string[],
  environment: Environment,
): { name: string; value: string } | undefined {
  for (const name of names) {
    const value = environment(name)?.trim();
    if (value) return { name, value };
  }
}

function matchesEntry(
  entry: string,
  { hostname, port }: Pick<WebSocketUrl, "hostname" | "port">,
): boolean {
  if (entry === "*") return true;
  // An IPv6 address is in brackets if a port follows; without brackets it contains colons.
  const parts = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(entry);
  const [name, wanted] = parts === null ? [entry] : [parts[1] ?? parts[2], parts[3]];
  if (!name || (wanted !== undefined && Number(wanted) !== port)) return false;
  const address = ipBytes(hostname);
  if (address !== undefined) return matchesAddress(name, address);
  // A name matches its subdomains too, with a leading dot or without.
  const domain = name.toLowerCase().replace(/^\*?\./, "").replace(/\.$/, "");
  const host = hostname.replace(/\.$/, "");
  return host === domain || host.endsWith(`.${domain}`);
}

function matchesAddress(name: string, address: Uint8Array): boolean {
  const [text, length] = name.split("/");
  const other = ipBytes(text);
  if (other === undefined || (length !== undefined && !/^\d{1,3}$/.test(length))) return false;
  return shareBits(other, address, length === undefined ? other.length * 8 : Number(length));
}
