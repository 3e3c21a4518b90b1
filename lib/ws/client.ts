/** The opening handshake of a client, over `node:http` and `node:https`, and its redirects. */
import { Buffer } from "node:buffer";
import type { EventEmitter } from "node:events";
import type { ClientRequest, ClientRequestArgs, IncomingMessage } from "node:http";
import https, { type RequestOptions } from "node:https";
import { createRequire } from "node:module";
import net, { type NetConnectOpts } from "node:net";
import { nextTick } from "node:process";
import { unescape } from "node:querystring";
import type { Duplex } from "node:stream";
import tls, { type ConnectionOptions as TlsOptions } from "node:tls";
import { Endpoint } from "../core/endpoint.ts";
import { HandshakeError } from "../core/error.ts";
import { isToken } from "../core/header.ts";
import { serializeResponseHead } from "../core/http1.ts";
import { answerError } from "./errors.ts";
import { Inlet } from "./inlet.ts";
import {
  CapturedDeflate,
  type ClientOptions,
  CONNECTION_DEFAULTS,
  deflateOf,
  fieldsOf,
  thresholdOf,
} from "./options.ts";
import type { Opened } from "./outlet.ts";

/** An `import` would read each name, also `WebSocket`, for which Node loads its client for `fetch()`. */
export const http = createRequire("/")("node:http") as typeof import("node:http");

const SUPPORTED_VERSIONS = [8, 13];

const CLOSED_EARLY = "WebSocket was closed before the connection was established";

/** The WebSocket that is opened. */
export interface OpeningHost {
  readonly websocket: Pick<EventEmitter, "emit" | "listenerCount">;
  isConnecting(): boolean;
  open(opened: Opened): void;
  /** The handshake has failed. 'error' follows. */
  closing(): void;
  /** Emits 'error' and 'close'. */
  fail(error: Error): void;
  emitClose(): void;
}

/** Finds the subprotocols and the options in the arguments of the constructor. */
export function protocolsOf(
  protocols: string | string[] | ClientOptions | ClientRequestArgs | undefined,
  given: ClientOptions | ClientRequestArgs | undefined,
): { protocols: unknown[]; options: ClientOptions } {
  const isOmitted = typeof protocols === "object" && protocols !== null &&
    !Array.isArray(protocols);
  const options = (isOmitted ? protocols : given) as ClientOptions | undefined;
  const named = isOmitted || protocols === undefined ? options?.protocols ?? [] : protocols;
  return {
    protocols: Array.isArray(named) ? named : [named],
    options: { ...CONNECTION_DEFAULTS, ...options },
  };
}

function checkSubprotocols(protocols: unknown[]): string[] {
  const areValid = protocols.every((one) => typeof one === "string" && isToken(one));
  if (areValid && new Set(protocols).size === protocols.length) return protocols as string[];
  throw new SyntaxError("An invalid or duplicated subprotocol was specified");
}

/** The server that a URL names. */
interface Target {
  url: URL;
  isSecure: boolean;
  /** The path of a Unix socket. */
  socketPath: string | undefined;
  /** Path and query of the request. */
  path: string;
  /** The host with its port, or the path of the Unix socket. */
  place: string;
}

function parseTarget(address: string | URL): Target {
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    throw new SyntaxError(`Invalid URL: ${address}`);
  }
  if (url.protocol === "http:") url.protocol = "ws:";
  if (url.protocol === "https:") url.protocol = "wss:";
  const isUnix = url.protocol === "ws+unix:";
  if (url.protocol !== "ws:" && url.protocol !== "wss:" && !isUnix) {
    throw new SyntaxError(
      'The URL\'s protocol must be one of "ws:", "wss:", "http:", "https:", or "ws+unix:"',
    );
  }
  if (isUnix && url.pathname === "") throw new SyntaxError("The URL's pathname is empty");
  if (url.hash !== "") throw new SyntaxError("The URL contains a fragment identifier");
  const path = `${url.pathname}${url.search}`;
  const isSecure = url.protocol === "wss:";
  if (!isUnix) return { url, isSecure, socketPath: undefined, path, place: url.host };
  const [, socketPath, rest] = /^([^:]*):?(.*)$/s.exec(path)!;
  return { url, isSecure, socketPath, path: rest, place: socketPath };
}

type Headers = Record<string, string | string[] | number | undefined>;

/** Returns the head of a response, with the header fields that `node:http` has accepted. */
function headOf(response: IncomingMessage): Parameters<typeof serializeResponseHead>[0] {
  const { statusCode: status = 0, statusMessage: statusText = "", httpVersion: version } = response;
  return { version, status, statusText, headers: fieldsOf(response) };
}

export class ClientOpening {
  request: ClientRequest | null = null;
  redirects = 0;
  url = "";
  readonly #host: OpeningHost;
  readonly #protocols: string[];
  readonly #options: ClientOptions;
  /** The header fields for the next request. */
  #headers: Headers;
  #first: Target;
  /** The request that was given up. Its errors are ignored. */
  #aborted: ClientRequest | undefined;

  constructor(
    host: OpeningHost,
    address: string | URL,
    protocols: unknown[],
    options: ClientOptions,
  ) {
    const { protocolVersion = 13 } = options;
    if (!SUPPORTED_VERSIONS.includes(protocolVersion)) {
      throw new RangeError(
        `Unsupported protocol version: ${protocolVersion} ` +
          `(supported versions: ${SUPPORTED_VERSIONS.join(", ")})`,
      );
    }
    this.#host = host;
    this.#options = options;
    this.#headers = { ...options.headers };
    this.#first = parseTarget(address);
    this.#protocols = checkSubprotocols(protocols);
    if (options.followRedirects) this.#headers = withLowerCase(this.#headers);
    this.url = this.#first.url.href;
  }

  start(): void {
    this.#send(this.#first);
  }

  /** Gives the handshake up, because the application closes the WebSocket. */
  abort(): void {
    if (this.request !== null) this.#giveUp(this.request, CLOSED_EARLY);
  }

  #giveUp(request: ClientRequest, message: string): void {
    this.#aborted = request;
    this.#host.closing();
    request.destroy();
    // After a response, the request does not destroy its socket.
    request.socket?.destroy();
    const error = new Error(message);
    nextTick(() => this.#host.fail(error));
  }

  #send(target: Target): void {
    const { url, isSecure, path } = target;
    this.url = url.href;
    const inlet = new Inlet(this.#options);
    const { perMessageDeflate = true, maxPayload } = this.#options;
    const factory = deflateOf(perMessageDeflate, maxPayload);
    const deflate = factory && new CapturedDeflate(factory, perMessageDeflate);
    const endpoint = new Endpoint("client", {
      ...inlet.protocolOptions,
      extensions: deflate === undefined ? [] : [deflate],
      requireProtocol: true,
    }, true);
    const host = url.host === "" ? "localhost" : url.host;
    // The bytes of the request are not used: node:http writes the same head with more fields.
    endpoint.send({
      type: "request",
      host,
      target: path || "/",
      protocols: this.#protocols,
    });
    const options = this.#requestOptions(target, endpoint);
    const request = isSecure ? https.request(options) : http.request(options);
    this.request = request;
    if (this.redirects > 0) this.#host.websocket.emit("redirect", this.url, request);
    this.#listen(request, target, { endpoint, inlet, deflate });
    const { finishRequest } = this.#options;
    if (finishRequest === undefined) request.end();
    else finishRequest(request, this.#host.websocket as never);
  }

  #requestOptions(target: Target, endpoint: Endpoint): RequestOptions {
    const { url, isSecure, socketPath, path } = target;
    const { origin, protocolVersion = 13, handshakeTimeout, auth: givenAuth } = this.#options;
    const headers: Headers = { ...this.#headers };
    for (const [name, value] of endpoint.request!.headers) {
      if (name !== "Host") headers[name] = value;
    }
    headers["Sec-WebSocket-Version"] = `${protocolVersion}`;
    if (origin) headers[protocolVersion < 13 ? "Sec-WebSocket-Origin" : "Origin"] = origin;
    let auth = credentialsOf(url) ?? givenAuth ?? undefined;
    if (this.#mustDropSecrets(target)) {
      delete headers.authorization;
      delete headers.cookie;
      if (!this.#isSamePlace(target)) delete headers.host;
      auth = undefined;
    }
    if (auth !== undefined && this.#options.followRedirects && !this.#headers.authorization) {
      // The first credentials are kept for all requests.
      this.#headers.authorization = `Basic ${Buffer.from(auth).toString("base64")}`;
    }
    const { hostname } = url;
    return {
      ...this.#options,
      createConnection: this.#options.createConnection ?? (isSecure ? dialTls : dial),
      defaultPort: isSecure ? 443 : 80,
      port: url.port || (isSecure ? 443 : 80),
      host: hostname.startsWith("[") ? hostname.slice(1, -1) : hostname,
      hostname: undefined,
      protocol: undefined,
      method: "GET",
      timeout: handshakeTimeout,
      headers,
      auth,
      path,
      socketPath,
    } as RequestOptions;
  }

  /** Whether a redirect leads to another host, or away from TLS, and no listener takes care of it. */
  #mustDropSecrets(target: Target): boolean {
    if (this.redirects === 0 || this.#host.websocket.listenerCount("redirect") > 0) return false;
    return !this.#isSamePlace(target) || (this.#first.isSecure && !target.isSecure);
  }

  #isSamePlace({ socketPath, place }: Target): boolean {
    const first = this.#first;
    return (socketPath === undefined) === (first.socketPath === undefined) && place === first.place;
  }

  #listen(
    request: ClientRequest,
    target: Target,
    parts: { endpoint: Endpoint; inlet: Inlet; deflate: CapturedDeflate | undefined },
  ): void {
    const isCurrent = () => this.request === request && this.#aborted !== request;
    if (this.#options.handshakeTimeout) {
      request.on("timeout", () => this.#giveUp(request, "Opening handshake has timed out"));
    }
    request.on("error", (error) => {
      if (!isCurrent()) return;
      this.request = null;
      this.#host.fail(error);
    });
    request.on("response", (response) => this.#takeResponse(request, response, target));
    request.on("upgrade", (response, socket, head) => {
      const { websocket } = this.#host;
      websocket.emit("upgrade", response);
      // A listener may have closed the WebSocket.
      if (!this.#host.isConnecting()) return;
      this.request = null;
      this.#finish(response, socket, head, parts);
    });
  }

  #takeResponse(request: ClientRequest, response: IncomingMessage, { url }: Target): void {
    const { statusCode = 0, headers: { location } } = response;
    const { followRedirects = false, maxRedirects = 10 } = this.#options;
    if (!location || !followRedirects || statusCode < 300 || statusCode >= 400) {
      const { websocket } = this.#host;
      if (websocket.emit("unexpected-response", request, response)) return;
      return this.#giveUp(request, `Unexpected server response: ${statusCode}`);
    }
    if (++this.redirects > maxRedirects) return this.#giveUp(request, "Maximum redirects exceeded");
    this.#aborted = request;
    request.destroy();
    let next: Target;
    try {
      next = parseTarget(resolve(location, url));
    } catch (error) {
      return this.#host.fail(error as Error);
    }
    this.#send(next);
  }

  /** Lets the endpoint check the response, and opens the WebSocket. */
  #finish(
    response: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    { endpoint, inlet, deflate }: {
      endpoint: Endpoint;
      inlet: Inlet;
      deflate: CapturedDeflate | undefined;
    },
  ): void {
    try {
      endpoint.receive(serializeResponseHead(headOf(response)));
      endpoint.next();
    } catch (error) {
      const { cause, message } = error as Error;
      const isFault = cause instanceof HandshakeError;
      return this.#refuse(socket, isFault ? cause : new HandshakeError(message, "malformed-head"));
    }
    const { extensions, protocol: subprotocol } = endpoint.agreement!;
    const { perMessageDeflate } = this.#options;
    this.#host.open({
      socket,
      head,
      inlet,
      protocol: endpoint.protocol,
      subprotocol,
      deflation: deflate?.extension && {
        extension: deflate.extension,
        threshold: thresholdOf(
          perMessageDeflate,
          !extensions[0].parameters.some(([name]) => name === "client_no_context_takeover"),
        ),
      },
    });
  }

  #refuse(socket: Duplex, cause: HandshakeError): void {
    const { perMessageDeflate = true } = this.#options;
    const error = answerError(cause, {
      offersProtocols: this.#protocols.length > 0,
      offersExtensions: perMessageDeflate !== false,
    });
    this.#host.closing();
    socket.once("error", (error) => this.#host.websocket.emit("error", error));
    socket.once("close", () => this.#host.emitClose());
    socket.destroy(error);
  }
}

function withLowerCase(headers: Headers): Headers {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]),
  );
}

function resolve(location: string, base: URL): URL {
  try {
    return new URL(location, base);
  } catch {
    throw new SyntaxError(`Invalid URL: ${location}`);
  }
}

function credentialsOf({ username, password }: URL): string | undefined {
  if (username === "" && password === "") return undefined;
  return `${unescape(username)}:${unescape(password)}`;
}

type DialOptions = TlsOptions & { socketPath?: string };

/** Connects without an agent. */
function dial(options: DialOptions): Duplex {
  return net.connect({ ...options, path: options.socketPath } as NetConnectOpts);
}

function dialTls(options: DialOptions): Duplex {
  const { host = "", servername } = options;
  const name = servername ?? (net.isIP(host) ? "" : host);
  return tls.connect({ ...options, path: undefined, servername: name });
}
