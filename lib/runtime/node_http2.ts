/**
 * A stream of `node:http2` as a transport, its header fields, and what a session allows.
 *
 * A file of its own because only those who have a session of HTTP/2 load it.
 *
 * @module
 */
import type {
  ClientHttp2Session,
  ClientHttp2Stream,
  Http2Session,
  Http2Stream,
  IncomingHttpHeaders,
  OutgoingHttpHeaders,
  ServerHttp2Stream,
} from "node:http2";
import process from "node:process";
import { HandshakeError } from "../core/error.ts";
import type { RawHeaders } from "../core/header.ts";
import type { Address, Transport, TransportHandlers } from "../transport.ts";
import { DuplexTransport, tcpAddress } from "./node_duplex.ts";

/** RFC 8441 §5 names it for what is the reset of a TCP connection. */
const CANCEL = 8;

// Its sessions hold back what is written while any other stream waits for its window, until a frame
// comes in (oven-sh/bun#43422).
const IS_BUN = process.versions.bun !== undefined;

/** The sessions that a frame is sure to come in on. */
const nudged = new WeakSet<Http2Session>();

/** Has a frame come in: the answer to a ping, one at a time. */
function nudge(session: Http2Session | undefined): void {
  if (session === undefined || session.destroyed || nudged.has(session)) return;
  if (session.state.outboundQueueSize === 0) return;
  if (session.ping(() => nudged.delete(session))) nudged.add(session);
}

/** Whence a stream comes; undefined when its session is gone. */
export function remoteAddress(stream: Http2Stream): Address | undefined {
  const { socket } = stream.session ?? {};
  return tcpAddress(socket?.remoteAddress, socket?.remotePort);
}

/** One stream of a session as a {@linkcode Transport}. */
export class Http2Transport extends DuplexTransport implements Transport {
  readonly localAddress: Address | undefined;
  readonly remoteAddress: Address | undefined;
  readonly secure: boolean;
  readonly #stream: Http2Stream;
  /** The peer has ended its side. */
  #ended = false;
  #destroyed = false;

  /** @param stream a stream that nobody reads */
  constructor(stream: Http2Stream) {
    super(stream);
    this.#stream = stream;
    // A session that is gone knows no more.
    const { socket, encrypted } = stream.session ?? {};
    this.localAddress = tcpAddress(socket?.localAddress, socket?.localPort);
    this.remoteAddress = remoteAddress(stream);
    this.secure = encrypted === true;
  }

  override handle(handlers: TransportHandlers): void {
    super.handle({
      data: (chunk) => handlers.data(chunk),
      drain: () => handlers.drain(),
      // A stream that is reset ends, as if it had nothing more to say.
      end: () => {
        this.#ended = !this.#isReset;
        if (this.#ended) handlers.end();
      },
      close: (error) => handlers.close(error ?? this.#resetError()),
    });
  }

  override write(parts: readonly Uint8Array[]): void {
    super.write(parts);
    if (IS_BUN && this.bufferedAmount > 0) nudge(this.#stream.session);
  }

  get #isReset(): boolean {
    return this.#stream.aborted || Boolean(this.#stream.rstCode);
  }

  #resetError(): Error | undefined {
    if (this.#ended || this.#destroyed || !this.#isReset) return undefined;
    return new Error(`The stream was reset with code ${this.#stream.rstCode ?? 0}`);
  }

  override destroy(): void {
    if (this.#stream.destroyed) return;
    this.#destroyed = true;
    // Closing would end our side in passing, and what is cut short would look whole.
    this.#stream._final = (done) => done();
    // This says with which code, and the other does not wait for what is still to be sent.
    this.#stream.close(CANCEL);
    this.#stream.destroy();
  }
}

/** Header fields as they came; the platform has joined most of the repeated ones. */
export function fieldsOf(headers: IncomingHttpHeaders): RawHeaders {
  return Object.entries(headers).flatMap(([name, value]) =>
    [value ?? []].flat().map((one): [string, string] => [name, String(one)])
  );
}

function headersOf(fields: RawHeaders): OutgoingHttpHeaders {
  const headers: Record<string, string | string[]> = Object.create(null);
  for (const [name, value] of fields) {
    const before = headers[name];
    headers[name] = before === undefined ? value : [before, value].flat();
  }
  return headers;
}

/** Sends the head of a response. */
export function respond(stream: ServerHttp2Stream, fields: RawHeaders): void {
  // The client may have left.
  if (!stream.destroyed && !stream.closed) stream.respond(headersOf(fields));
}

/**
 * Sends a request; its body stays open.
 *
 * @throws {HandshakeError} "connect-failed" when the session takes no more requests
 */
export function request(session: ClientHttp2Session, fields: RawHeaders): ClientHttp2Stream {
  try {
    return session.request(headersOf(fields), { endStream: false });
  } catch (cause) {
    throw sessionClosed(cause);
  }
}

/** The header fields of the final response; none if the stream ends without one. */
export function responseOf(stream: ClientHttp2Stream): Promise<RawHeaders | undefined> {
  return new Promise((resolve) => {
    stream.once("response", (headers) => resolve(fieldsOf(headers)));
    stream.once("close", () => resolve(undefined));
  });
}

/**
 * Refuses to be a server where a client can bring the process down.
 *
 * @throws {HandshakeError} "unsupported", status 501
 */
export function checkServerRuntime(): void {
  if (process.versions.deno === undefined) return;
  throw new HandshakeError(
    "Expected a runtime other than Deno, whose server of node:http2 can be made to crash",
    "unsupported",
    { status: 501 },
  );
}

/**
 * Checks that a server has said that it takes the extended CONNECT (RFC 8441 §3).
 *
 * @throws {HandshakeError} "no-extended-connect", status 501
 */
export function checkLocalSettings(session: Http2Session | undefined): void {
  // What the client has not confirmed yet is not among the local settings.
  if (session === undefined || session.pendingSettingsAck) return;
  if (session.localSettings.enableConnectProtocol !== true) throw noExtendedConnect(501);
}

function noExtendedConnect(status?: number): HandshakeError {
  return new HandshakeError(
    "Expected a server whose HTTP/2 settings have enableConnectProtocol, received one without",
    "no-extended-connect",
    { status },
  );
}

function sessionClosed(cause?: unknown): HandshakeError {
  const detail = cause instanceof Error ? `: ${cause.message}` : "";
  return new HandshakeError(`Expected an open HTTP/2 session${detail}`, "connect-failed", {
    cause,
  });
}

/**
 * Waits until the server has said whether it takes the extended CONNECT (RFC 8441 §3).
 *
 * @throws {HandshakeError} "no-extended-connect" when it does not, "connect-failed" when the session
 * ends before it has
 */
export async function remoteSettings(
  session: ClientHttp2Session,
  signal: AbortSignal,
): Promise<void> {
  if (session.closed || session.destroyed) throw sessionClosed();
  if (allowsConnect(session)) return;
  let wait = waits.get(session);
  if (wait === undefined) waits.set(session, wait = new SettingsWait(session));
  await wait.join(signal);
}

function allowsConnect(session: ClientHttp2Session): boolean {
  const settings: ClientHttp2Session["remoteSettings"] | undefined = session.remoteSettings;
  return settings?.enableConnectProtocol === true;
}

type Outcome = (error?: unknown) => void;

const waits = new WeakMap<ClientHttp2Session, SettingsWait>();

/** Those who wait for the settings of one session: it shall have one set of listeners for them all. */
class SettingsWait {
  readonly #session: ClientHttp2Session;
  readonly #waiting = new Set<Outcome>();
  readonly #check = () =>
    this.#settle(allowsConnect(this.#session) ? undefined : noExtendedConnect());
  readonly #fail = (error?: Error) => this.#settle(sessionClosed(error));

  constructor(session: ClientHttp2Session) {
    this.#session = session;
    session.on("remoteSettings", this.#check);
    session.on("connect", this.#ask);
    session.on("error", this.#fail);
    session.on("close", this.#fail);
    if (!session.connecting) this.#ask();
  }

  /** Nothing tells whether the settings have come already; but the answer to a ping is behind them. */
  readonly #ask = (): void => {
    // RFC 9113 §3.4: the settings are the first that a server sends.
    this.#session.ping((error) => {
      if (error === null && waits.get(this.#session) === this) this.#check();
    });
  };

  join(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave: Outcome = (error) => {
        this.#waiting.delete(leave);
        signal.removeEventListener("abort", abort);
        if (this.#waiting.size === 0) this.#stop();
        if (error === undefined) resolve();
        else reject(error);
      };
      const abort = () => leave(signal.reason);
      this.#waiting.add(leave);
      signal.addEventListener("abort", abort, { once: true });
      if (signal.aborted) abort();
    });
  }

  #settle(error?: unknown): void {
    for (const leave of this.#waiting) leave(error);
  }

  #stop(): void {
    const session = this.#session;
    waits.delete(session);
    session.off("remoteSettings", this.#check);
    session.off("connect", this.#ask);
    session.off("error", this.#fail);
    session.off("close", this.#fail);
  }
}
