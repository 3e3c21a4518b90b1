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
import { abortable } from "../abortable.ts";
import { HandshakeError } from "../core/error.ts";
import type { RawHeaders } from "../core/header.ts";
import { InterimCount } from "../core/http1.ts";
import type { Address, Transport } from "../transport.ts";
import { tcpAddress } from "../transport_base.ts";
import { DuplexTransport } from "./node_duplex.ts";

// RFC 9113 §7
const REFUSED_STREAM = 7;
/** RFC 8441 §5 names it for what is the reset of a TCP connection. */
const CANCEL = 8;
const ENHANCE_YOUR_CALM = 11;

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

/**
 * How many bytes a stream is given before it has taken those before: the payload of one DATA frame
 * (RFC 9113 §4.2). Node counts what a stream has queued towards the `maxSessionMemory` of its session,
 * and never takes it off again when the stream is destroyed (nodejs/node `Http2Stream::Destroy`).
 */
const GIVEN_AT_ONCE = 16384;

/** One stream of a session as a {@linkcode Transport}. */
export class Http2Transport extends DuplexTransport<Http2Stream> implements Transport {
  readonly localAddress: Address | undefined;
  readonly remoteAddress: Address | undefined;
  readonly secure: boolean;

  /** @param stream a stream that nobody reads */
  constructor(stream: Http2Stream) {
    super(stream, GIVEN_AT_ONCE);
    // A session that is gone knows no more.
    const { socket, encrypted } = stream.session ?? {};
    this.localAddress = tcpAddress(socket?.localAddress, socket?.localPort);
    this.remoteAddress = remoteAddress(stream);
    this.secure = encrypted === true;
  }

  protected override reportEnd(): void {
    // Node also ends a stream that was reset.
    if (!this.#isReset) super.reportEnd();
  }

  protected override reportClose(): void {
    const isOver = this.isInputEnded || this.isDestroyed || !this.#isReset;
    super.reportClose(isOver ? undefined : this.#resetError());
  }

  protected override give(parts: readonly Uint8Array[]): void {
    super.give(parts);
    if (IS_BUN && this.bufferedAmount > 0) nudge(this.duplex.session);
  }

  get #isReset(): boolean {
    return this.duplex.aborted || Boolean(this.duplex.rstCode);
  }

  #resetError(): Error {
    return new Error(`The stream was reset with code ${this.duplex.rstCode ?? 0}`);
  }

  protected override cut(): void {
    const stream = this.duplex;
    if (stream.destroyed) return;
    // close() would end our side, so that a message that was cut short would look whole.
    stream._final = (done) => done();
    // close() sends the code; destroy() does not wait for bytes that are still to be sent.
    stream.close(CANCEL);
    stream.destroy();
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
 * @throws {HandshakeError} "connect-failed" if the session takes no more requests
 */
export function request(watch: SessionWatch, fields: RawHeaders): ClientHttp2Stream {
  watch.throwIfEnded();
  let stream: ClientHttp2Stream;
  try {
    stream = watch.session.request(headersOf(fields), { endStream: false });
  } catch (cause) {
    throw sessionClosed(cause);
  }
  stream.once("close", watch.join());
  return stream;
}

/**
 * Whether the server has refused a stream that ended without a response. REFUSED_STREAM says that it has
 * not looked at the request (RFC 9113 §8.7). Node's servers say ENHANCE_YOUR_CALM instead, for a moment
 * also after one of `maxConcurrentStreams` streams has ended.
 */
export function isRefused({ rstCode }: ClientHttp2Stream): boolean {
  return rstCode === REFUSED_STREAM || rstCode === ENHANCE_YOUR_CALM;
}

/**
 * The header fields of the final response; none if the stream ends without one. It rejects with a
 * HandshakeError after too many interim ones.
 */
export function responseOf(stream: ClientHttp2Stream): Promise<RawHeaders | undefined> {
  return new Promise((resolve, reject) => {
    const interim = new InterimCount();
    stream.on("headers", () => {
      try {
        interim.add();
      } catch (error) {
        reject(error);
      }
    });
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
 * @param watch the watch of the session
 * @param signal ends the wait
 * @throws {HandshakeError} "no-extended-connect" if the server does not take it, "connect-failed" if the
 * session ends before its settings come
 */
export async function remoteSettings(watch: SessionWatch, signal: AbortSignal): Promise<void> {
  const { session } = watch;
  watch.throwIfEnded();
  if (allowsConnect(session)) return;
  signal.throwIfAborted();
  let leave!: () => void;
  const answer = new Promise<void>((resolve, reject) => {
    leave = watch.join({
      onSettings: () => allowsConnect(session) ? resolve() : reject(noExtendedConnect()),
      onEnd: (error) => reject(sessionClosed(error)),
    });
  });
  watch.awaitSettings();
  await abortable(answer, signal).finally(leave);
}

function allowsConnect(session: ClientHttp2Session): boolean {
  const settings: ClientHttp2Session["remoteSettings"] | undefined = session.remoteSettings;
  return settings?.enableConnectProtocol === true;
}

/** What is told of a session. */
export interface SessionUser {
  /** The server's settings have come. */
  onSettings?(): void;
  /** The session has ended, or is about to. */
  onEnd?(error?: Error): void;
}

const watches = new WeakMap<ClientHttp2Session, SessionWatch>();

/**
 * The listeners of a client's session, one set for all that use it at the same time. While there are
 * any, an error of the session is theirs, and does not end the process for want of a listener.
 */
export class SessionWatch {
  /** The session. */
  readonly session: ClientHttp2Session;
  readonly #users = new Set<SessionUser>();
  #error: Error | undefined;
  #listening = false;
  #asked = false;

  /** The watch of a session. */
  static of(session: ClientHttp2Session): SessionWatch {
    let watch = watches.get(session);
    if (watch === undefined) watches.set(session, watch = new SessionWatch(session));
    return watch;
  }

  private constructor(session: ClientHttp2Session) {
    this.session = session;
  }

  /** Uses the session until the function that is returned is called. */
  join(user: SessionUser = {}): () => void {
    if (!this.#listening) this.#listen("on");
    this.#users.add(user);
    return () => {
      if (!this.#users.delete(user) || this.#users.size > 0) return;
      // The error of a session that is destroyed comes after the end of its streams.
      if (!this.session.destroyed) this.#listen("off");
    };
  }

  /** @throws {HandshakeError} "connect-failed" if the session takes no more streams */
  throwIfEnded(): void {
    if (this.session.closed || this.session.destroyed) throw sessionClosed(this.#error);
  }

  /** Has `onSettings` called once the server's settings have come. */
  awaitSettings(): void {
    if (!this.session.connecting) this.#ask();
  }

  #listen(method: "on" | "off"): void {
    this.#listening = method === "on";
    this.session[method]("error", this.#onError);
    this.session[method]("close", this.#onClose);
    this.session[method]("remoteSettings", this.#onSettings);
    this.session[method]("connect", this.#ask);
  }

  /** Nothing tells whether the settings have come already, but the answer to a ping comes after them. */
  readonly #ask = (): void => {
    if (this.#asked || this.session.closed || this.session.destroyed) return;
    this.#asked = true;
    // RFC 9113 §3.4: the settings are the first frame that a server sends.
    this.session.ping((error) => {
      this.#asked = false;
      if (error === null) this.#onSettings();
    });
  };

  readonly #onSettings = (): void => {
    if (this.session.destroyed) return;
    for (const user of this.#users) user.onSettings?.();
  };

  readonly #onError = (error: Error): void => {
    this.#error = error;
    this.#onClose();
  };

  readonly #onClose = (): void => {
    for (const user of this.#users) user.onEnd?.(this.#error);
  };
}
