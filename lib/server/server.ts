/// <reference lib="esnext.disposable" preserve="true" />
/** The server: it listens, runs the opening handshake, and shuts down. */
import { errorCodeOf, failure, HandshakeError, refusal } from "../core/error.ts";
import type { Endpoint } from "../core/endpoint.ts";
import { checkExtraFields, type ReceivedOffer } from "../core/handshake.ts";
import type { RawHeaders } from "../core/header.ts";
import { HEAD_LIMITS, type HeadLimits } from "../core/http1.ts";
import { formatAuthority, requestUrl } from "../core/url.ts";
import { checkKnown, checkNested } from "../core/option_hints.ts";
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkNumber,
  copyOf,
  type OptionNames,
  optionsWithout,
} from "../core/options.ts";
import {
  type Address,
  type ByteDuplex,
  fromStreams,
  type Listener,
  type ListenOptions,
  type TlsServeOptions,
  type Transport,
} from "../transport.ts";
import type { WebSocketConnection } from "../connection/connection.ts";
import { defaultProvider, extensionsOf } from "../platform.ts";
import { addressText, diagnostics, makeInspectable } from "../inspect.ts";
import { toHeaders, toRawHeaders, toRequest } from "../http.ts";
import {
  checkNotEmpty,
  checkTlsServe,
  CONNECTION_OPTIONS,
  type ConnectionOptions,
} from "../options.ts";
import {
  causeOf,
  Deadlines,
  endpointOptions,
  type Limited,
  Opening,
  type OpeningInit,
  READ_AHEAD,
  type SharedDeadline,
  TransportReader,
} from "../opening.ts";
import { checkOrigin, checkOrigins } from "./origin.ts";
import {
  hookFailed,
  type Outcome,
  readBody,
  Refusal,
  refuse,
  type RefusedInfo,
  reportRefused,
  requestOf,
} from "./refusal.ts";

export type { RefusedInfo };
import { type Handler, type ServerStats, Sessions, type ShutdownOptions } from "./sessions.ts";

/** Options of {@linkcode serve}. */
export interface ServeOptions extends ConnectionOptions {
  /**
   * Host name or IP address to listen on. Other machines cannot reach the default. "0.0.0.0" and "::" stand
   * for all interfaces.
   * @default {"127.0.0.1"}
   */
  hostname?: string | undefined;
  /**
   * Port to listen on. 0 chooses a free port.
   * @default {0}
   */
  port?: number | undefined;
  /**
   * Path of a Unix socket to listen on instead of `hostname` and `port`, of at most 107 bytes on Linux and
   * 103 on macOS. The file must not exist, and is removed when the server shuts down.
   */
  unix?: string | undefined;
  /**
   * Whether to share the TCP port with other servers that have this option, in this process or in others.
   * The platform distributes the clients. Supported on Linux with Bun, Deno (with TLS only with
   * `--unstable-net`) and Node 22.12 and later; elsewhere `serve()` rejects. The option has no effect on a
   * Unix socket.
   * @default {false}
   */
  reusePort?: boolean | undefined;
  /** Certificate and options of TLS, to serve wss. By default the server has no TLS. */
  tls?: TlsServeOptions | undefined;
  /**
   * Origins whose pages may connect: exact origins, patterns, and null for clients that send no Origin, such
   * as clients outside of browsers. Other clients are answered with 403. By default all origins are allowed.
   *
   * A pattern must match the whole origin: /https:\/\/[a-z]+\.example\.com/ does not match
   * "https://a.example.com.evil". "same-origin" allows pages of the server's own host, and clients without
   * Origin: it compares the host and port of the Origin header with those of the Host header, where either
   * may omit the default port.
   */
  origins?: readonly (string | RegExp | null)[] | "same-origin" | undefined;
  /**
   * Chooses one of the subprotocols that the client offers, or none. By default, the server chooses from
   * `protocols` the one whose positions in both lists have the lowest sum.
   */
  selectProtocol?:
    | ((offered: readonly string[], request: Request) => string | undefined | void)
    | undefined;
  /**
   * Called with every request before it is checked, including plain HTTP. If the hook returns a Response, it
   * is sent instead of the upgrade; each request needs a new Response. The body of a plain request is read
   * before; see `maxRequestBody`. If the client leaves before the hook returns, the result is ignored.
   */
  onRequest?:
    | ((request: Request) => Response | void | undefined | Promise<Response | void | undefined>)
    | undefined;
  /**
   * Maximum size of the body of a plain HTTP request for `onRequest`, in bytes. The body must arrive within
   * `openTimeout`. A longer body, and any body of GET or HEAD, is answered with 413, an unknown transfer
   * coding with 501. With 0, every body is answered with 413. The option has no effect in `attach()` and
   * `upgrade()`, where the HTTP server answers plain requests.
   * @default {0}
   */
  maxRequestBody?: number | undefined;
  /** Called before the 101 response is sent, and may add header fields. */
  onResponse?:
    | (((headers: Headers, request: Request) => void | Promise<void>) | undefined)
    | undefined;
  /**
   * Shuts the server down when aborted. In `accept()`, the signal ends the opening handshake, and has no
   * effect afterwards.
   */
  signal?: AbortSignal | undefined;
  /**
   * Called with each error that a handler or a hook throws, with the error of a wrong value that a hook
   * returns, and with errors of the listener and of the body of a Response of `onRequest`.
   * @default {console.error}
   */
  onError?: ((error: unknown) => void) | undefined;
  /**
   * Called for every handshake that is refused, before the answer is sent: the library or `onRequest` has
   * refused it, a limit was reached, the time was over, or the client has left. Also called for every plain
   * HTTP request that `onRequest` answers. Whatever `onRequest` answers has the code "rejected". Errors of
   * the callback go to `onError`. TLS handshakes that fail are not reported.
   * @param error The reason. Its `status` is that of the answer, or undefined if there is no answer.
   * @param request The request, if it was read and can be represented as a Request.
   * @param info The address of the client.
   */
  onRefused?:
    | ((error: HandshakeError, request: Request | undefined, info: RefusedInfo) => void)
    | undefined;
  /** Limits for the head of a request. */
  limits?: HeadLimits | undefined;
  /**
   * Maximum number of connections at a time, including handshakes and TLS handshakes. Further clients are
   * answered with 503, and their requests are not read. With TLS, one client at a time completes its
   * handshake to receive the 503, and the others are cut; on Deno the others wait until there is a place, and
   * a silent client keeps its place until it leaves. The option has no effect in `accept()` and `upgrade()`.
   * @default {Infinity}
   */
  maxConnections?: number | undefined;
  /**
   * Maximum number of connections from one IP address, or one /64 of IPv6. Behind a reverse proxy, all clients
   * have the address of the proxy. On Deno, TLS handshakes do not count. The option has no effect in
   * `accept()` and `upgrade()`.
   * @default {Infinity}
   */
  maxConnectionsPerAddress?: number | undefined;
  /**
   * Maximum time that a connection may be open, in milliseconds, before it is closed with 1001. 0 disables the
   * limit. The option has no effect in `accept()` and `upgrade()`.
   * @default {0}
   */
  maxLifetime?: number | undefined;
}

/** The options of `serve()`. */
export const SERVE_OPTIONS: OptionNames<ServeOptions> = {
  ...CONNECTION_OPTIONS,
  hostname: checkNotEmpty,
  port: (name, value) => checkInteger(name, value, 0, 65535),
  unix: checkNotEmpty,
  reusePort: checkBoolean,
  tls: checkTlsServe,
  origins: checkOrigins,
  selectProtocol: checkFunction,
  onRequest: checkFunction,
  maxRequestBody: checkNumber,
  onResponse: checkFunction,
  onError: checkFunction,
  onRefused: checkFunction,
  limits: (name, value) => checkNested(name, value, HEAD_LIMITS),
  maxConnections: checkNumber,
  maxConnectionsPerAddress: checkNumber,
  maxLifetime: checkNumber,
};

export const LISTENING = ["hostname", "port", "unix", "reusePort", "tls"] as const;

/** The options of `accept()`, which does not listen. */
const ACCEPT_OPTIONS = optionsWithout(SERVE_OPTIONS, LISTENING);

export type { Handler, ServerStats, ShutdownOptions };

/** A running server. */
export interface Server extends AsyncDisposable {
  /** The address that the server listens on. */
  readonly address: Address;
  /**
   * The URL to connect to, such as "ws://127.0.0.1:8080", or "wss://..." with TLS. The host is
   * "localhost" if the server listens on all interfaces. Undefined on a Unix socket.
   */
  readonly url: string | undefined;
  /** The host name or IP address that the server listens on. Undefined on a Unix socket. */
  readonly hostname: string | undefined;
  /** The port that the server listens on. Undefined on a Unix socket. */
  readonly port: number | undefined;
  /** The connections that are open or closing. */
  readonly connections: ReadonlySet<WebSocketConnection>;
  /** Counts of connections, refusals, messages and bytes so far. */
  readonly stats: ServerStats;
  /**
   * Resolves when the server has shut down: all handlers have settled and all transports have ended, or
   * `timeout` has passed.
   */
  readonly finished: Promise<void>;
  /**
   * Stops taking connections, closes the open connections, and waits for `finished`.
   * @param options The code and reason to close with, 1001 by default, and how long it may take.
   */
  shutdown(options?: ShutdownOptions): Promise<void>;
}

/**
 * Listens for WebSocket connections, and calls the handler with each of them. When the handler's promise
 * resolves, the connection is closed with 1000. When it rejects, the connection is closed with 1011, and
 * `onError` is called. A handler that returns no promise leaves the connection open; see {@linkcode
 * Handler}.
 *
 * @example An echo server with backpressure
 * ```ts
 * import { serve } from "sluice";
 *
 * const server = await serve({ hostname: "127.0.0.1", port: 0 }, (ws) => ws.readable.pipeTo(ws.writable));
 * await server.shutdown();
 * ```
 * @returns The server, which is listening. If it cannot listen, the promise rejects with an error that has
 * the platform's `code`, such as EADDRINUSE, and for which `errorCodeOf()` returns "listen-failed". If the
 * platform does not support an option, it rejects with a {@linkcode HandshakeError} ("unsupported").
 */
export async function serve(options: ServeOptions, handler: Handler): Promise<Server> {
  checkKnown("serve()", options, SERVE_OPTIONS);
  const sessions = new Sessions(options, handler);
  const { hostname = "127.0.0.1", port = 0, unix, reusePort, tls, openTimeout, signal } = options;
  signal?.throwIfAborted();
  const provider = options.provider ?? await defaultProvider();
  const headers = sendableHeaders(options);
  const setup = await setUp({ ...copyOf(options), provider, signal: sessions.signal }, headers);
  const place: ListenOptions = {
    ...{ hostname, port, unix, reusePort, tls, handshakeTimeout: openTimeout },
    onError: (error) => sessions.report(error),
    admit: (address) => sessions.admit(address),
  };
  const take = (transport: Transport) => openOn(transport, setup, sessions.take(transport));
  let listener: Listener;
  try {
    listener = await provider.listen(place, take);
  } catch (error) {
    throw listenError(error, place);
  }
  sessions.start(() => listener.close());
  const { address } = listener;
  const bound = address.transport === "tcp" ? address : { hostname: undefined, port: undefined };
  const url = urlOf(address, tls !== undefined);
  const server = Object.assign(sessions.control(), {
    ...{ address, url, hostname: bound.hostname, port: bound.port },
  });
  makeInspectable(server, "Server", ({ connections }) => ({
    url,
    address: addressText(address),
    connections: connections.size,
  }));
  return server;
}

function urlOf(address: Address, isSecure: boolean): string | undefined {
  if (address.transport !== "tcp") return undefined;
  const { hostname, port } = address;
  const isAny = hostname === "0.0.0.0" || hostname === "::";
  return `${isSecure ? "wss" : "ws"}://${formatAuthority(isAny ? "localhost" : hostname, port)}`;
}

/** What the codes of a platform mean when a server cannot listen. */
const REASONS: { readonly [code: string]: string | undefined } = {
  EACCES: "permission denied",
  EADDRINUSE: "the address is in use",
  EADDRNOTAVAIL: "this machine does not have the address",
  ENOTFOUND: "the host is unknown",
};

/** Names the place in the platform's error. Keeps the platform's `code`, such as EADDRINUSE. */
function listenError(cause: unknown, { hostname, port, unix }: ListenOptions): unknown {
  if (!(cause instanceof Error) || errorCodeOf(cause) !== undefined) return cause;
  const { code, message } = cause as Error & { code?: unknown };
  const meaning = REASONS[String(code)];
  const reason = meaning === undefined ? message : `${meaning} (${code})`;
  const place = unix ?? `${hostname} port ${port}`;
  const error = failure(`Cannot listen on ${place}: ${reason}`, "listen-failed", cause);
  return typeof code === "string" ? Object.defineProperty(error, "code", { value: code }) : error;
}

/** Checks and reads the header fields for all responses, which an iterator yields only once. */
export function sendableHeaders(options: Pick<ServeOptions, "headers">): RawHeaders {
  const headers = toRawHeaders(options.headers);
  checkExtraFields(headers);
  return headers;
}

/** The options of a server, which were checked and completed for all of its connections. */
export interface Setup extends OpeningInit {
  options: ServeOptions;
  deadlines: Deadlines;
  headers: RawHeaders;
}

export async function setUp(options: ServeOptions, headers: RawHeaders): Promise<Setup> {
  const { textCodec } = options.provider ?? await defaultProvider();
  const extensions = await extensionsOf(options, false);
  // The fields are sent as the web's Headers have them, also without `onResponse`.
  const sent = headers.length === 0 ? headers : [...toHeaders(headers)];
  const { limits } = options;
  const deadlines = new Deadlines(options);
  const setup: Setup = { options, deadlines, headers: sent, extensions, limits, textCodec };
  const shared = endpointOptions(setup);
  // Callbacks need the driver of their connection.
  if (shared.onFrame === undefined && shared.onReady === undefined) setup.shared = shared;
  return setup;
}

/**
 * Accepts one connection over a transport or a pair of byte streams of the caller: reads the request,
 * checks it and answers it. A refusal is answered with its status.
 * @returns The open connection. The promise rejects with a {@linkcode HandshakeError} if the handshake
 * fails, and with the reason of the signal if it is aborted.
 */
export async function accept(
  transport: Transport | ByteDuplex,
  options: Omit<ServeOptions, "hostname" | "port" | "unix" | "reusePort" | "tls"> = {},
): Promise<WebSocketConnection> {
  checkKnown("accept()", options, ACCEPT_OPTIONS);
  const headers = sendableHeaders(options);
  return await acceptOn(fromStreams(transport), setUp(options, headers));
}

/** A request whose head another HTTP parser has read. Internal. */
export interface RequestSource {
  /** Gives the head to the endpoint. A `HandshakeError` that it throws is answered. */
  give(endpoint: Endpoint): void;
  /** Throws a `HandshakeError` if the server cannot accept the request. */
  check(): void;
  /** Sends the head of the response. By default, it is written to the transport. */
  respond?(endpoint: Endpoint): void;
  /** An additional argument for the hooks. */
  incoming?: unknown;
}

/**
 * Reads a request, checks it and answers it. The options are checked, and another parser may have read
 * the request.
 */
export function openOn(
  transport: Transport,
  given: Setup | Promise<Setup>,
  outcome: Outcome,
  source?: RequestSource,
): void {
  if (!(given instanceof Promise)) {
    let opening: ServerOpening;
    try {
      opening = new ServerOpening(transport, given, outcome, source);
    } catch (error) {
      // A transport of the caller has thrown.
      return outcome.refused(error);
    }
    return opening.open();
  }
  given.then(
    (setup) => openOn(transport, setup, outcome, source),
    (error) => {
      // The platform does not support an option.
      transport.destroy();
      outcome.refused(error);
    },
  );
}

/** Opens one connection like {@linkcode openOn}. Rejects if the handshake is refused. */
export function acceptOn(
  transport: Transport,
  given: Setup | Promise<Setup>,
  source?: RequestSource,
): Promise<WebSocketConnection> {
  return new Promise((opened, refused) => openOn(transport, given, { opened, refused }, source));
}

type Answer = Response | void | undefined;

/** The hooks of `ServeOptions`, with the additional argument of `attach()`. */
interface Hooks {
  onRequest?: (request: Request, incoming?: unknown) => Answer | Promise<Answer>;
  selectProtocol?: (
    offered: readonly string[],
    request: Request,
    incoming?: unknown,
  ) => string | undefined | void;
  onResponse?: (headers: Headers, request: Request, incoming?: unknown) => void | Promise<void>;
}

/** The opening handshake of one connection. It waits only for bytes, unless there are hooks. */
class ServerOpening extends Opening implements Limited {
  readonly #reader: TransportReader;
  readonly #setup: Setup;
  readonly #outcome: Outcome;
  readonly #source: RequestSource | undefined;
  #deadline: SharedDeadline | undefined;
  #givenUp: { reason: unknown } | undefined;
  /** Rejects the promise of the hook that runs. */
  #onGivenUp: ((reason: unknown) => void) | undefined;
  #request: Request | undefined;

  constructor(
    transport: Transport,
    setup: Setup,
    outcome: Outcome,
    source: RequestSource | undefined,
  ) {
    super("server", setup);
    this.#reader = new TransportReader(transport, READ_AHEAD);
    this.#setup = setup;
    this.#outcome = outcome;
    this.#source = source;
  }

  #webRequest(body?: Uint8Array): Request {
    const { secure = false } = this.#reader.transport;
    return this.#request ??= toRequest(this.endpoint.request!, secure, body);
  }

  open(): void {
    const { fault } = this.#outcome;
    try {
      this.#deadline = this.#setup.deadlines.start(this);
      this.#source?.give(this.endpoint);
      if (fault !== undefined) throw fault;
      this.#source?.check();
    } catch (thrown) {
      return this.#refuse(thrown);
    }
    this.#reader.listener = this;
    this.inputChanged();
  }

  giveUp(reason: unknown): void {
    this.#givenUp ??= { reason };
    this.#reader.giveUp(reason);
    this.#onGivenUp?.(reason);
  }

  /** Reads the request as far as it has arrived, and answers it. */
  inputChanged(arrived?: Uint8Array): void {
    const { endpoint } = this;
    const reader = this.#reader;
    let offer: ReceivedOffer | undefined;
    let wrong: unknown;
    try {
      if (arrived !== undefined) endpoint.receive(arrived);
      while ((offer = endpoint.readRequest()) === undefined) {
        const chunk = reader.take();
        if (chunk === undefined) return reader.transport.resume();
        endpoint.receive(chunk);
      }
    } catch (thrown) {
      wrong = thrown;
    }
    reader.listener = undefined;
    this.#answer(offer, wrong);
  }

  /** Answers the request, which is refused if it is wrong. */
  #answer(offer: ReceivedOffer | undefined, wrong: unknown): void {
    const { options, headers } = this.#setup;
    const { onRequest, selectProtocol, onResponse, protocols } = options;
    const isAsking = onRequest !== undefined || selectProtocol !== undefined ||
      onResponse !== undefined;
    if (isAsking) {
      this.#askHooks(wrong).then((ws) => this.#outcome.opened(ws), (error) => this.#refuse(error));
      return;
    }
    let ws: WebSocketConnection;
    try {
      if (offer === undefined) throw this.#shownError(wrong);
      this.#checkOrigin(offer);
      ws = this.#accept(commonProtocol(offer.protocols, protocols), headers);
    } catch (thrown) {
      return this.#refuse(thrown);
    }
    this.#outcome.opened(ws);
  }

  async #askHooks(thrown: unknown): Promise<WebSocketConnection> {
    const { options, headers } = this.#setup;
    const { onRequest, selectProtocol, onResponse }: Hooks = options;
    let wrong = thrown === undefined ? undefined : this.#shownError(thrown);
    if (wrong?.status === 413) wrong = await this.#readBody(wrong);
    if (onRequest !== undefined) {
      const isPlain = wrong?.code === "not-upgrade" || wrong?.code === "method";
      await this.#askWhetherToAccept(onRequest, isPlain);
    }
    if (wrong !== undefined) throw wrong;
    const offer = this.endpoint.offer!;
    this.#checkOrigin(offer);
    const { protocols: offered } = offer;
    const protocol = selectProtocol === undefined
      ? commonProtocol(offered, options.protocols)
      : await this.#ask((incoming) => selectProtocol(offered, this.#webRequest(), incoming)) ?? "";
    if (onResponse === undefined) return this.#accept(protocol, headers);
    const fields = toHeaders(headers);
    await this.#ask((incoming) => onResponse(fields, this.#webRequest(), incoming));
    return this.#accept(protocol, [...fields]);
  }

  /** Returns the error of a wrong request that `onRequest` may still see. Throws any other error. */
  #shownError(thrown: unknown): HandshakeError {
    const error = causeOf(thrown);
    if (this.endpoint.request !== undefined && error instanceof HandshakeError) return error;
    throw error;
  }

  async #askWhetherToAccept(
    onRequest: NonNullable<Hooks["onRequest"]>,
    isPlain: boolean,
  ): Promise<void> {
    // Make the Request outside of the hook, so that its errors do not count as errors of the hook.
    const request = this.#webRequest();
    const refusal = await this.#ask(async (incoming) => {
      const response = await onRequest(request, incoming);
      return response === undefined ? undefined : new Refusal(response, this.endpoint, isPlain);
    });
    if (refusal !== undefined) throw refusal;
  }

  /**
   * Reads the body of a plain request, if `onRequest` may have it. Returns why the request is refused if
   * the hook does not answer.
   */
  async #readBody(refused: HandshakeError): Promise<HandshakeError> {
    const { onRequest, maxRequestBody = 0 } = this.#setup.options;
    const { endpoint } = this;
    const { method } = endpoint.request!;
    const isRead = onRequest !== undefined && maxRequestBody > 0 &&
      this.#source === undefined && !/^(?:GET|HEAD)$/.test(method);
    if (!isRead) throw refused;
    this.#webRequest(await readBody(endpoint, this.#reader, maxRequestBody));
    return refusal(405, "method", `The method is ${method} instead of GET`);
  }

  /** Waits for a hook, unless the handshake is given up. */
  #ask<T>(hook: (incoming: unknown) => T | Promise<T>): Promise<T> {
    // The client may leave in the meantime.
    this.#reader.watch((lost) => this.giveUp(lost));
    if (this.#givenUp !== undefined) throw this.#givenUp.reason;
    const called = this.#callHook(hook);
    return new Promise((resolve, reject) => {
      this.#onGivenUp = reject;
      // The hook itself may have ended the handshake.
      if (this.#givenUp !== undefined) reject(this.#givenUp.reason);
      called.then(resolve, reject);
    });
  }

  /** @throws {HandshakeError} If the hook throws or rejects ("hook-failed", status 500). */
  async #callHook<T>(hook: (incoming: unknown) => T | Promise<T>): Promise<T> {
    try {
      return await hook(this.#source?.incoming);
    } catch (cause) {
      throw hookFailed(cause);
    }
  }

  #checkOrigin({ origin }: ReceivedOffer): void {
    const { origins } = this.#setup.options;
    if (origins === undefined) return;
    const { secure = false } = this.#reader.transport;
    checkOrigin(origin, () => requestUrl(this.endpoint.request!, secure), origins);
  }

  #accept(protocol: string, headers: RawHeaders): WebSocketConnection {
    this.#deadline!.leave(this);
    let bytes: Uint8Array;
    try {
      bytes = this.endpoint.accept({ type: "accept", protocol, headers });
    } catch (cause) {
      throw hookFailed(cause);
    }
    const { transport } = this.#reader;
    if (this.#source?.respond === undefined) transport.write([bytes]);
    else this.#source.respond(this.endpoint);
    return this.connect(this.#reader, transport.secure === true, this.#request);
  }

  /** Answers with what was thrown, and tells the outcome when the transport is gone. */
  #refuse(thrown: unknown): void {
    const { refused } = this.#outcome;
    this.#sendRefusal(thrown).then(() => refused(thrown), refused);
  }

  async #sendRefusal(thrown: unknown): Promise<void> {
    this.#reader.listener = undefined;
    this.#deadline?.leave(this);
    const { endpoint } = this;
    const { options } = this.#setup;
    const { signal, onRefused } = options;
    const { secure = false, remoteAddress } = this.#reader.transport;
    let error = thrown;
    if (!(error instanceof HandshakeError)) {
      error = signal?.aborted && thrown === signal.reason
        ? new HandshakeError("The handshake was aborted", "shutdown", { cause: thrown })
        : hookFailed(thrown);
    }
    if (onRefused !== undefined || diagnostics?.wantsRefused) {
      const request = this.#request ?? requestOf(endpoint.request, secure);
      reportRefused(error as HandshakeError, request, remoteAddress, options);
    }
    await refuse(this.#reader, endpoint, error as HandshakeError, options, this.#source?.respond);
  }
}

/** Returns the common subprotocol whose positions in both lists have the lowest sum. */
function commonProtocol(theirs: readonly string[], ours: readonly string[] = []): string {
  if (ours.length === 0 || theirs.length === 0) return "";
  const rank = (protocol: string) => ours.indexOf(protocol) + theirs.indexOf(protocol);
  const common = ours.filter((protocol) => theirs.includes(protocol));
  return common.sort((a, b) => rank(a) - rank(b))[0] ?? "";
}
