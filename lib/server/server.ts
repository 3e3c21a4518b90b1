/// <reference lib="esnext.disposable" preserve="true" />
/**
 * The server: listening, the opening handshake, and graceful shutdown.
 *
 * @module
 */
import {
  type AcceptOptions,
  announcesBody,
  type ReceivedOffer,
  refusal,
} from "../core/agreement.ts";
import { HandshakeError } from "../core/error.ts";
import { acceptExtensions } from "../core/extension.ts";
import { checkExtraFields, checkField, isUpgrade } from "../core/handshake.ts";
import type { RawHeaders } from "../core/header.ts";
import { ServerHandshake } from "../core/server_handshake.ts";
import {
  HEAD_LIMITS,
  type HeadLimits,
  type RequestHead,
  type ResponseHead,
} from "../core/http1.ts";
import { formatAuthority, requestUrl } from "../core/url.ts";
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkKnown,
  checkNested,
  checkNumber,
  type OptionNames,
  optionsWithout,
} from "../core/options.ts";
import { type ByteDuplex, fromStreams } from "../byte_streams.ts";
import { WebSocketConnection } from "../connection/connection.ts";
import { defaultProvider, extensionsOf } from "../platform.ts";
import { toHeaders, toRawHeaders, toRequest } from "../http.ts";
import {
  checkNotEmpty,
  checkTlsServe,
  CONNECTION_OPTIONS,
  type ConnectionOptions,
} from "../options.ts";
import type { Address, Listener, ListenOptions, TlsServeOptions, Transport } from "../transport.ts";
import { type Cancellable, type Deadline, TransportReader, withDeadline } from "../opening.ts";
import { hook, hookFailed, reportRefused, requestOf } from "./hooks.ts";
import { checkOrigin, checkOrigins } from "./origin.ts";
import { Refusal, refuse, type Responder } from "./refusal.ts";
import { type Handler, Sessions, type ShutdownOptions } from "./sessions.ts";

/** How a server works. */
export interface ServeOptions extends ConnectionOptions {
  /**
   * Where to listen: a host name or IP address. Default: "127.0.0.1", which other machines cannot
   * reach; "0.0.0.0" or "::" for all interfaces
   */
  hostname?: string;
  /** The port; 0 for a free one. Default: 0 */
  port?: number;
  /**
   * The path of a Unix socket to listen on, in place of `hostname` and `port`, as long as the platform's
   * addresses allow: 107 bytes on Linux, 103 on macOS. Its file must not exist, and goes when the
   * server shuts down. Default: none
   */
  unix?: string;
  /**
   * Shares the TCP port with other servers that have this option, in this process or in others; the
   * platform spreads the clients over them. On Linux with Bun, Deno (with TLS only if it was started
   * with `--unstable-net`) and Node from 22.12 on; `serve()` rejects where the platform has no way for
   * it. Without effect on a Unix socket. Default: false
   */
  reusePort?: boolean;
  /** Serves wss, with this certificate. Default: no TLS */
  tls?: TlsServeOptions;
  /**
   * The origins whose pages may connect: exact ones, patterns, and null for clients that send no
   * Origin, as those outside of browsers; or "same-origin" for pages of the host itself and for
   * those clients. A pattern must match the whole origin: /https:\/\/[a-z]+\.example\.com/ does not
   * match "https://a.example.com.evil". "same-origin" compares the host and the port of the Origin
   * header with those of the Host header; a default port may be left out in either. Others are refused
   * with 403. Default: all
   */
  origins?: readonly (string | RegExp | null)[] | "same-origin";
  /**
   * Chooses one of the subprotocols that the client offers, or none. Default: the one of `protocols`
   * for which the places in both lists add up to the least; none where there is none in common
   */
  selectProtocol?: (offered: readonly string[], request: Request) => string | undefined | void;
  /**
   * Sees every request before it is checked, plain HTTP too. A Response that it returns is sent instead of
   * the upgrade; the hook returns a new one for each request. A plain request with a body is answered with
   * 413 and not shown to the hook, because the body would be dropped. If the client leaves before the hook
   * returns, the result is ignored. Default: none
   */
  onRequest?: (
    request: Request,
  ) => Response | void | undefined | Promise<Response | void | undefined>;
  /** May add to the header fields of the 101 response. Default: none */
  onResponse?: (headers: Headers, request: Request) => void | Promise<void>;
  /**
   * Shuts the server down when aborted; in `accept()`: ends the opening handshake, without effect
   * afterwards. Default: none
   */
  signal?: AbortSignal;
  /**
   * Told what a handler or a hook has thrown, which wrong value a hook has returned, why the body of a
   * Response of `onRequest` failed, and the listener's errors. Default: `console.error`
   */
  onError?: (error: unknown) => void;
  /**
   * Told of every handshake that is turned down, before the answer is sent: the library or `onRequest`
   * refused it (code "rejected", plain HTTP too), a limit was reached, time ran out, or the client left.
   * What the callback throws goes to `onError`. It is not told of TLS handshakes that fail. Default: none
   *
   * @param error the reason; its `status` is the one of the answer, undefined if there is no answer
   * @param request the request, if one was read and the web has a Request for it
   */
  onRefused?: (error: HandshakeError, request?: Request) => void;
  /** How large the head of a request may be. */
  limits?: HeadLimits;
  /**
   * Maximum number of connections at a time. Handshakes under way count, also those of TLS. Another client
   * is answered with 503, and nothing is read of it. With TLS, one client at a time completes its
   * handshake to receive the 503, and the others are cut; on Deno the others wait until there is a
   * place, and a silent client keeps its place until it leaves. Not in `accept()` and `upgrade()`.
   * Default: Infinity
   */
  maxConnections?: number;
  /**
   * How many of them may come from one IP address, or one /64 of IPv6. Behind a reverse proxy all have
   * the address of that. On Deno, TLS handshakes under way do not count. Not in `accept()` and `upgrade()`.
   * Default: Infinity
   */
  maxConnectionsPerAddress?: number;
  /**
   * How long a connection may be open, in milliseconds, before it is closed with 1001; 0 disables. Not in
   * `accept()` and `upgrade()`. Default: 0
   */
  maxLifetime?: number;
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
  onResponse: checkFunction,
  onError: checkFunction,
  onRefused: checkFunction,
  limits: (name, value) => checkNested(name, value, HEAD_LIMITS),
  maxConnections: checkNumber,
  maxConnectionsPerAddress: checkNumber,
  maxLifetime: checkNumber,
};

/** The options that say where and how to listen. */
export const LISTENING = ["hostname", "port", "unix", "reusePort", "tls"] as const;

/** The options of `accept()`, whose transport is there already. */
const ACCEPT_OPTIONS = optionsWithout(SERVE_OPTIONS, LISTENING);

export type { Handler, ShutdownOptions };

/** A server that runs. */
export interface Server extends AsyncDisposable {
  /** Where it listens. */
  readonly address: Address;
  /**
   * The URL to connect to, as "ws://127.0.0.1:8080" or, with TLS, "wss://...". For a server that listens on
   * all interfaces the host is "localhost". Undefined on a Unix socket.
   */
  readonly url: string | undefined;
  /** The host name or IP address that it listens on. Undefined on a Unix socket. */
  readonly hostname: string | undefined;
  /** The port that it listens on. Undefined on a Unix socket. */
  readonly port: number | undefined;
  /** The connections that are open or closing. */
  readonly connections: ReadonlySet<WebSocketConnection>;
  /**
   * Resolves when the server was shut down: all handlers have settled and all transports have ended, or
   * `timeout` has passed.
   */
  readonly finished: Promise<void>;
  /**
   * Takes no more connections, closes those that are open, and waits for `finished`.
   *
   * @param options The code and reason to close with, 1001 by default, and how long it may take.
   */
  shutdown(options?: ShutdownOptions): Promise<void>;
}

/**
 * Listens for WebSockets. When the promise of the handler resolves, its connection is closed with 1000;
 * when it rejects, with 1011, and `onError` is told. A handler that returns no promise leaves the
 * connection open; see {@linkcode Handler}.
 *
 * @example An echo that is no faster than its peer reads
 * ```ts
 * import { serve } from "@sluice/sluice";
 *
 * const server = await serve({ hostname: "127.0.0.1", port: 0 }, (ws) => ws.readable.pipeTo(ws.writable));
 * await server.shutdown();
 * ```
 *
 * @returns the server, once it listens; rejects with the platform's error when it cannot, and with a
 * {@linkcode HandshakeError}, code "unsupported", when the platform has no way for an option
 */
export async function serve(options: ServeOptions, handler: Handler): Promise<Server> {
  checkKnown("serve()", options, SERVE_OPTIONS);
  const server = new RunningServer(options, handler);
  await server.listen();
  return server;
}

class RunningServer implements Server {
  readonly #options: ServeOptions;
  readonly #sessions: Sessions;
  #listener!: Listener;

  constructor(options: ServeOptions, handler: Handler) {
    this.#options = options;
    this.#sessions = new Sessions(options, handler);
  }

  get address(): Address {
    return this.#listener.address;
  }

  get url(): string | undefined {
    const { hostname = "", port } = this;
    if (port === undefined) return undefined;
    const isAny = ["0.0.0.0", "::"].includes(hostname);
    const scheme = this.#options.tls === undefined ? "ws" : "wss";
    return `${scheme}://${formatAuthority(isAny ? "localhost" : hostname, port)}`;
  }

  get hostname(): string | undefined {
    return this.address.transport === "tcp" ? this.address.hostname : undefined;
  }

  get port(): number | undefined {
    return this.address.transport === "tcp" ? this.address.port : undefined;
  }

  get connections(): ReadonlySet<WebSocketConnection> {
    return this.#sessions.connections;
  }

  get finished(): Promise<void> {
    return this.#sessions.finished;
  }

  async listen(): Promise<void> {
    const { hostname = "127.0.0.1", port = 0, unix, reusePort, tls, openTimeout, signal } =
      this.#options;
    signal?.throwIfAborted();
    const provider = this.#options.provider ?? await defaultProvider();
    const headers = reusableHeaders(this.#options);
    const options = {
      ...this.#options,
      headers,
      provider,
      signal: this.#sessions.signal,
    };
    const place: ListenOptions = {
      ...{ hostname, port, unix, reusePort, tls, handshakeTimeout: openTimeout },
      onError: (error) => this.#sessions.report(error),
      admit: (address) => this.#sessions.admit(address),
    };
    this.#listener = await provider.listen(place, (transport) => {
      this.#sessions.take(
        (fault) =>
          fault === undefined
            ? acceptOn(transport, options)
            : refuseUnread(transport, options, fault),
        transport.remoteAddress,
      );
    });
    this.#sessions.start(() => this.#listener.close());
  }

  shutdown(options?: ShutdownOptions): Promise<void> {
    return this.#sessions.shutdown(options);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.shutdown();
  }
}

/**
 * The header fields for all responses of a server: an iterator gives them once, and one that cannot be
 * sent should not wait for a client. Internal.
 *
 * @throws {TypeError} for a field that cannot be sent
 */
export function reusableHeaders(options: Pick<ServeOptions, "headers">): [string, string][] {
  const headers = toRawHeaders(options.headers);
  checkExtraFields(headers);
  for (const [name, value] of headers) checkField(name, value);
  return headers;
}

/**
 * The server's side of one connection, over a transport or a pair of byte streams of your own: reads
 * the request, checks it and answers it. A refusal is answered with its status.
 *
 * @returns the open connection. It rejects with a {@linkcode HandshakeError} when the handshake failed
 * and with the signal's reason when it was aborted
 */
export async function accept(
  transport: Transport | ByteDuplex,
  options: Omit<ServeOptions, "hostname" | "port" | "unix" | "reusePort" | "tls"> = {},
): Promise<WebSocketConnection> {
  checkKnown("accept()", options, ACCEPT_OPTIONS);
  const headers = reusableHeaders(options);
  return await acceptOn(fromStreams(transport), { ...options, headers });
}

function acceptOn(
  transport: Transport,
  options: Cancellable<ServeOptions>,
): Promise<WebSocketConnection> {
  const reader = new TransportReader(transport);
  const handshake = new ServerHandshake(options.limits);
  return answer(reader, options, () => readRequest(reader, handshake), undefined, { handshake });
}

/** Answers a client without reading what it asks for. */
async function refuseUnread(
  transport: Transport,
  options: Cancellable<ServeOptions>,
  fault: HandshakeError,
): Promise<never> {
  const reader = new TransportReader(transport);
  reportRefused(fault, undefined, options);
  await refuse(reader, fault, undefined, options);
  throw fault;
}

/** A request whose head was read. Internal. */
export interface ReadRequest {
  /** What checks it and makes the answer: a `ServerHandshake`, over HTTP/1.1. */
  handshake: {
    check(): ReceivedOffer;
    accept(options: AcceptOptions): { response: ResponseHead; bytes: Uint8Array };
    readonly trailing: Uint8Array;
  };
  /** Its head. */
  head: RequestHead;
  /** Throws a `HandshakeError` if the request is to be refused before anything else is checked. */
  check?: () => void;
}

/** The parts of a request that are known so far. */
interface Asked {
  head?: RequestHead;
  request?: Request;
  /** Reads the head, if no other parser has read it. */
  handshake?: ServerHandshake;
}

/**
 * The part of a request that its answer depends on. The answer to a HEAD has no body, even if the rest of
 * the request cannot be read.
 */
function answered({ head, handshake }: Asked): Pick<RequestHead, "method" | "version"> | undefined {
  return head ?? (handshake?.isHead ? { method: "HEAD", version: "1.1" } : undefined);
}

/**
 * As {@linkcode accept}, for a request that another HTTP parser has read. Internal.
 *
 * @param read gives it; a `HandshakeError` that it throws is answered
 * @param responder sends the head of the response, where it is not written to the transport
 */
export async function acceptRead(
  transport: Transport,
  options: Cancellable<ServeOptions>,
  read: () => ReadRequest,
  responder?: Responder,
): Promise<WebSocketConnection> {
  return await answer(new TransportReader(transport), options, read, responder);
}

async function readRequest(
  reader: TransportReader,
  handshake: ServerHandshake,
): Promise<ReadRequest> {
  let head: RequestHead | undefined;
  while (head === undefined) head = handshake.receive(await reader.read());
  const { headers } = head;
  const check = () => {
    if (announcesBody(headers) && !isUpgrade(headers)) throw plainBody();
  };
  return { handshake, head, check };
}

/**
 * The refusal of a plain request with a body, which `onRequest` could not see (RFC 9110 §15.5.14).
 * Internal.
 */
export function plainBody(): HandshakeError {
  return refusal(413, "body", "Expected a plain request without a body, received one with a body");
}

async function answer(
  reader: TransportReader,
  options: Cancellable<ServeOptions>,
  read: () => ReadRequest | Promise<ReadRequest>,
  responder?: Responder,
  asked: Asked = {},
): Promise<WebSocketConnection> {
  try {
    return await withDeadline(
      options,
      (deadline) => open(reader, read, asked, options, deadline, responder),
    );
  } catch (thrown) {
    const error = refusalOf(thrown, options);
    if (options.onRefused !== undefined) {
      const { secure = false } = reader.transport;
      reportRefused(error, asked.request ?? requestOf(asked.head, secure), options);
    }
    await refuse(reader, error, answered(asked), options, responder);
    throw thrown;
  }
}

/** The error that a handshake is turned down with. */
function refusalOf(thrown: unknown, { signal }: Cancellable<ServeOptions>): HandshakeError {
  if (thrown instanceof HandshakeError) return thrown;
  if (!signal?.aborted || thrown !== signal.reason) return hookFailed(thrown);
  return new HandshakeError("The handshake was aborted", "shutdown", { cause: thrown });
}

async function open(
  reader: TransportReader,
  read: () => ReadRequest | Promise<ReadRequest>,
  asked: Asked,
  options: Cancellable<ServeOptions>,
  deadline: Deadline,
  responder: Responder | undefined,
): Promise<WebSocketConnection> {
  const { handshake, head, check } = await read();
  asked.head = head;
  check?.();
  const { textCodec } = options.provider ?? await defaultProvider();
  const { secure = false } = reader.transport;
  const { onRequest, selectProtocol, onResponse } = options;
  const request = () => asked.request ??= toRequest(head, secure);
  // The client may leave while a hook is waited for.
  const wait = <T>(run: () => T | Promise<T>): Promise<T> => {
    reader.watch((lost) => deadline.giveUp(lost));
    deadline.throwIfPassed();
    return hook(run);
  };
  if (onRequest !== undefined) {
    // What is wrong with the request is not the hook's fault.
    const made = request();
    const refusal = await wait(async () => {
      const response = await onRequest(made);
      return response === undefined ? undefined : new Refusal(response, head);
    });
    if (refusal !== undefined) throw refusal;
  }
  const offer = handshake.check();
  checkOrigin(offer.origin, () => requestUrl(head, secure), options.origins);
  const protocol = selectProtocol === undefined
    ? commonProtocol(offer.protocols, options.protocols)
    : await wait(() => selectProtocol(offer.protocols, request())) ?? "";
  // Nothing is awaited for nothing, which would take a promise and its reactions.
  const supported = extensionsOf(options, false);
  const factories = supported instanceof Promise ? await supported : supported;
  const agreed = acceptExtensions(offer.extensions, factories);
  let headers: RawHeaders = toRawHeaders(options.headers);
  if (headers.length > 0 || onResponse !== undefined) {
    const fields = toHeaders(headers);
    if (onResponse !== undefined) await wait(() => onResponse(fields, request()));
    headers = [...fields];
  }
  let accepted: { response: ResponseHead; bytes: Uint8Array };
  try {
    accepted = handshake.accept({ protocol, extensions: agreed.headers, headers });
  } catch (cause) {
    throw hookFailed(cause);
  }
  const { response, bytes } = accepted;
  // The hooks may have taken longer than `openTimeout`, or longer than the client waited.
  deadline.throwIfPassed();
  if (responder === undefined) reader.transport.write([bytes]);
  else responder.respond(response);
  return new WebSocketConnection({
    role: "server",
    transport: reader.transport,
    agreement: { protocol, extensions: agreed.headers },
    activeExtensions: agreed.extensions,
    request: head,
    response,
    webRequest: asked.request,
    secure,
    takeOver: (handlers) => reader.handOver(handshake.trailing, handlers),
    options,
    textCodec,
  });
}

/** The subprotocol for which the places in both lists add up to the least. */
function commonProtocol(theirs: readonly string[], ours: readonly string[] = []): string {
  if (ours.length === 0 || theirs.length === 0) return "";
  const rank = (protocol: string) => ours.indexOf(protocol) + theirs.indexOf(protocol);
  const common = ours.filter((protocol) => theirs.includes(protocol));
  return common.sort((a, b) => rank(a) - rank(b))[0] ?? "";
}
