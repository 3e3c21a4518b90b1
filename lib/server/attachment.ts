/// <reference lib="esnext.disposable" preserve="true" />
/** Attaches WebSockets to an HTTP server of the caller. */
import { handled } from "../abortable.ts";
import type { WebSocketConnection } from "../connection/connection.ts";
import { HandshakeError, wrongType, wrongValue } from "../core/error.ts";
import type { RawHeaders } from "../core/header.ts";
import { copyOf, kindOf, type OptionNames, optionsWithout } from "../core/options.ts";
import { pathOfTarget } from "../core/url.ts";
import {
  LISTENING,
  openOn,
  type RequestSource,
  sendableHeaders,
  SERVE_OPTIONS,
  type ServeOptions,
  setUp,
} from "./server.ts";
import { hookFailed } from "./refusal.ts";
import { type Handler, type ServerStats, Sessions, type ShutdownOptions } from "./sessions.ts";
import { makeInspectable } from "../inspect.ts";
import type { Address, Transport } from "../transport.ts";

/** The options of `serve()` without those for listening, and without `limits`, which the HTTP server has. */
export interface UpgradeOptions extends
  Omit<
    ServeOptions,
    "hostname" | "port" | "unix" | "reusePort" | "tls" | "provider" | "limits"
  > {
}

/** The options of `upgrade()` and `upgradeHttp2()`. */
export const UPGRADE_OPTIONS: OptionNames<UpgradeOptions> = optionsWithout(SERVE_OPTIONS, [
  ...LISTENING,
  "provider",
  "limits",
]);

/** A WebSocket server that is attached to an HTTP server. */
export interface Attachment extends AsyncDisposable {
  /** The connections that are open or closing. */
  readonly connections: ReadonlySet<WebSocketConnection>;
  /** Counts of connections, refusals, messages and bytes so far. */
  readonly stats: ServerStats;
  /**
   * Resolves when `shutdown()` is complete: all handlers have settled and all transports have ended, or
   * `timeout` has passed.
   */
  readonly finished: Promise<void>;
  /** Stops taking requests. The open connections stay open. */
  detach(): void;
  /**
   * Detaches, closes the open connections, and waits for `finished`. The `close()` of an HTTP server
   * waits for the connections, but does not close them.
   * @param options The code and reason to close with, 1001 by default, and how long it may take.
   */
  shutdown(options?: ShutdownOptions): Promise<void>;
}

export type Path<Request> = string | ((path: string, request: Request) => boolean) | undefined;

/** Serves a request with the handler, or refuses it with a fault. */
export type TakeRequest = (source: UpgradeRequest, fault?: HandshakeError) => void;

/** A request that another HTTP parser has read, and the transport to answer it on. */
export interface UpgradeRequest extends RequestSource {
  /** Takes the transport. Throws if it was taken before. */
  take(): Transport;
  remoteAddress: Address | undefined;
}

/**
 * Checks the options, and calls `listen`, which takes requests and returns a function that stops.
 * @param check Checks the header fields for all responses.
 */
export function attachTo(
  options: UpgradeOptions & { path?: Path<never> },
  handler: Handler,
  listen: (take: TakeRequest) => () => void,
  check?: (headers: RawHeaders) => void,
): Attachment {
  checkPath(options.path);
  options.signal?.throwIfAborted();
  const headers = sendableHeaders(options);
  check?.(headers);
  const sessions = new Sessions(options, handler);
  const setup = handled(setUp({ ...copyOf(options), signal: sessions.signal }, headers));
  const detach = listen((source, fault) => {
    const outcome = { fault, ...sessions.take(source) };
    let transport: Transport;
    try {
      transport = source.take();
    } catch (error) {
      return outcome.refused(error);
    }
    openOn(transport, setup, outcome, source);
  });
  sessions.start(detach);
  const attachment = Object.assign(sessions.control(), { detach });
  const path = typeof options.path === "string" ? options.path : undefined;
  makeInspectable(attachment, "Attachment", ({ connections }) => ({
    path,
    connections: connections.size,
  }));
  return attachment;
}

function checkPath(path: unknown): void {
  if (path === undefined || typeof path === "function") return;
  if (typeof path !== "string") {
    throw wrongType(`Expected path to be a string or a function, received ${kindOf(path)}`);
  }
  if (!path.startsWith("/")) {
    throw wrongValue(`Expected path to begin with /, received ${JSON.stringify(path)}`);
  }
  // Such a path would silently match no request.
  const { pathname } = new URL(path.replace(/^\/+/, "/"), "http://localhost");
  if (path.startsWith("//") || path === pathname) return;
  throw wrongValue(
    `Expected path to be the pathname of a URL, like ${pathname}, received ${JSON.stringify(path)}`,
  );
}

/** @throws {TypeError} If `server` lacks one of the methods, such as an application of a framework. */
export function checkServer(server: unknown, what: string, methods: readonly string[]): void {
  const members = Object(server) as Record<string, unknown>;
  if (methods.every((name) => typeof members[name] === "function")) return;
  throw wrongType(
    `Expected a server of ${what}. In Express, app.listen() returns it; in Fastify, it is app.server`,
  );
}

/** Checks the arguments of an upgrade, which are those of an event of Node's server. */
export function checkEventOf(
  event: string,
  ...parts: [isRight: boolean, name: string, part: unknown][]
): void {
  const wrong = parts.find(([isRight]) => !isRight);
  if (wrong === undefined) return;
  const [, name, part] = wrong;
  throw wrongType(`Expected the ${name} of the event '${event}', received ${kindOf(part)}`);
}

export function notFound(target: string): HandshakeError {
  return new HandshakeError(
    `No WebSocket is served at ${pathOfTarget(target) ?? target}`,
    "not-found",
    {
      status: 404,
    },
  );
}

/** Whether a request matches the path. Returns an error if the filter throws. */
export function fits<Request>(
  path: Path<Request>,
  target: string,
  request: Request,
): boolean | HandshakeError {
  if (path === undefined) return true;
  // The filter sees the same path as `request.url` of the handler.
  const asked = pathOfTarget(target) ?? target;
  if (typeof path === "string") return asked === path;
  try {
    const found: unknown = path(asked, request) ?? false;
    if (typeof found === "boolean") return found;
    // A promise cannot be awaited here. Its rejection must be handled.
    Promise.resolve(found).catch(() => {});
    throw wrongType(`path must return true or false, received ${kindOf(found)}`);
  } catch (cause) {
    return hookFailed(cause);
  }
}
