/** Transports over streams of `node:http2`, and the header fields and settings of HTTP/2. */
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
import { failure, HandshakeError } from "../core/error.ts";
import type { RawHeaders } from "../core/header.ts";
import { checkInterim } from "../core/http1.ts";
import { type Address, tcpAddress, type Transport } from "../transport.ts";
import { DuplexTransport } from "./node.ts";

// Error codes (RFC 9113 §7)
const REFUSED_STREAM = 7;
/** RFC 8441 §5: CANCEL corresponds to a TCP reset. */
const CANCEL = 8;
const ENHANCE_YOUR_CALM = 11;

/**
 * Bun holds a stream's bytes back while another stream waits for its window, until a frame arrives
 * (oven-sh/bun#43422).
 */
const IS_BUN = process.versions.bun !== undefined;

const nudged = new WeakSet<Http2Session>();

/** Sends a ping, whose answer is a frame that makes Bun send again. */
function nudge(session: Http2Session | undefined): void {
  if (session === undefined || session.destroyed || nudged.has(session)) return;
  if (session.state.outboundQueueSize === 0) return;
  if (session.ping(() => nudged.delete(session))) nudged.add(session);
}

export function remoteAddress(stream: Http2Stream): Address | undefined {
  const { socket } = stream.session ?? {};
  return tcpAddress(socket?.remoteAddress, socket?.remotePort);
}

/**
 * Maximum number of bytes that a stream holds: the payload of one DATA frame (RFC 9113 §4.2). Node counts
 * these bytes towards the `maxSessionMemory` of the session, even after the stream was destroyed.
 */
const CAPACITY = 16384;

export class Http2Transport extends DuplexTransport<Http2Stream> implements Transport {
  readonly localAddress: Address | undefined;
  readonly remoteAddress: Address | undefined;
  readonly secure: boolean;

  /** @param stream A stream without other readers. */
  constructor(stream: Http2Stream) {
    super(stream, CAPACITY);
    // A session that has ended does not know the addresses.
    const { socket, encrypted } = stream.session ?? {};
    this.localAddress = tcpAddress(socket?.localAddress, socket?.localPort);
    this.remoteAddress = remoteAddress(stream);
    this.secure = encrypted === true;
  }

  protected override reportEnd(): void {
    // Node also emits 'end' for a stream that was reset.
    if (!this.#isReset) super.reportEnd();
  }

  protected override reportClose(): void {
    const isOver = this.isInputEnded || !this.#isReset;
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
    const message = `The stream was reset with code ${this.duplex.rstCode ?? 0}`;
    return failure(message, "connection-lost");
  }

  protected override cut(): void {
    const stream = this.duplex;
    if (stream.destroyed) return;
    // By default, close() ends this side first, so that a truncated message would look complete.
    stream._final = (done) => done();
    // close() sends the code; destroy() discards the bytes that wait.
    stream.close(CANCEL);
    stream.destroy();
  }
}

/** Returns the header fields as received. The platform has joined most repeated fields. */
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

export function respond(stream: ServerHttp2Stream, fields: RawHeaders): void {
  // The client may have left.
  if (!stream.destroyed && !stream.closed) stream.respond(headersOf(fields));
}

/** Sends a request with an open body. Throws a HandshakeError if the session accepts no more requests. */
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
 * Whether the server has refused a stream that ended without a response. RFC 9113 §8.7: REFUSED_STREAM
 * means that the request was not processed. Node's servers send ENHANCE_YOUR_CALM instead, and also
 * briefly after one of `maxConcurrentStreams` streams has ended.
 */
export function isRefused({ rstCode }: ClientHttp2Stream): boolean {
  return rstCode === REFUSED_STREAM || rstCode === ENHANCE_YOUR_CALM;
}

/** Resolves with the fields of the final response, or undefined if the stream ends without one. */
export function responseOf(stream: ClientHttp2Stream): Promise<RawHeaders | undefined> {
  return new Promise((resolve, reject) => {
    let interim = 0;
    stream.on("headers", () => {
      try {
        checkInterim(++interim);
      } catch (error) {
        reject(error);
      }
    });
    stream.once("response", (headers) => resolve(fieldsOf(headers)));
    stream.once("close", () => resolve(undefined));
  });
}

/** Refuses to serve on a runtime where a client can crash the process. */
export function checkServerRuntime(): void {
  if (process.versions.deno === undefined) return;
  throw new HandshakeError(
    "Servers of node:http2 are not supported on Deno, where a client can crash the process",
    "unsupported",
    { status: 501 },
  );
}

/** Checks that the server has announced the extended CONNECT to the client (RFC 8441 §3). */
export function checkLocalSettings(session: Http2Session | undefined): void {
  // Settings that the client has not acknowledged are missing from the local settings.
  if (session === undefined || session.pendingSettingsAck) return;
  if (session.localSettings.enableConnectProtocol !== true) throw noExtendedConnect(501);
}

function noExtendedConnect(status?: number): HandshakeError {
  return new HandshakeError(
    "The HTTP/2 server allows no WebSockets: its settings lack enableConnectProtocol",
    "no-extended-connect",
    { status },
  );
}

function sessionClosed(cause?: unknown): HandshakeError {
  const detail = cause instanceof Error ? `: ${cause.message}` : "";
  return new HandshakeError(`The HTTP/2 session is closed${detail}`, "connect-failed", {
    cause,
  });
}

/** Waits for the server's settings and checks that they allow the extended CONNECT (RFC 8441 §3). */
export async function remoteSettings(watch: SessionWatch, signal: AbortSignal): Promise<void> {
  watch.throwIfEnded();
  if (allowsConnect(watch.session)) return;
  signal.throwIfAborted();
  await abortable(watch.settings(), signal);
  if (!allowsConnect(watch.session)) throw noExtendedConnect();
}

function allowsConnect(session: ClientHttp2Session): boolean {
  const settings: ClientHttp2Session["remoteSettings"] | undefined = session.remoteSettings;
  return settings?.enableConnectProtocol === true;
}

const watches = new WeakMap<ClientHttp2Session, SessionWatch>();

/**
 * The listeners of a client's session, one set for all users. While the session has users, its errors are
 * reported to them. Without a listener, an error would end the process.
 */
export class SessionWatch {
  readonly session: ClientHttp2Session;
  #users = 0;
  #error: Error | undefined;
  #isListening = false;
  #hasAsked = false;
  /** Settles when the server's settings have arrived, or the session has ended. */
  #settings: { promise: Promise<void>; settle: (error?: HandshakeError) => void } | undefined;

  static of(session: ClientHttp2Session): SessionWatch {
    let watch = watches.get(session);
    if (watch === undefined) watches.set(session, watch = new SessionWatch(session));
    return watch;
  }

  private constructor(session: ClientHttp2Session) {
    this.session = session;
  }

  /** Uses the session until the returned function is called. */
  join(): () => void {
    this.#users++;
    if (!this.#isListening) this.#listen("on");
    let hasLeft = false;
    return () => {
      if (hasLeft) return;
      hasLeft = true;
      // The error of a destroyed session is emitted after the end of its streams.
      if (--this.#users === 0 && !this.session.destroyed) this.#listen("off");
    };
  }

  /** Throws a HandshakeError if the session accepts no more streams. */
  throwIfEnded(): void {
    if (this.session.closed || this.session.destroyed) throw sessionClosed(this.#error);
  }

  settings(): Promise<void> {
    if (this.#settings !== undefined) return this.#settings.promise;
    let settle!: (error?: HandshakeError) => void;
    const promise = new Promise<void>((resolve, reject) => {
      settle = (error) => error === undefined ? resolve() : reject(error);
    });
    this.#settings = { promise, settle };
    if (!this.session.connecting) this.#ask();
    return promise;
  }

  #listen(method: "on" | "off"): void {
    this.#isListening = method === "on";
    this.#settings = undefined;
    this.session[method]("error", this.#onError);
    this.session[method]("close", this.#onClose);
    this.session[method]("remoteSettings", this.#onSettings);
    this.session[method]("connect", this.#ask);
  }

  /** The answer to a ping comes after the settings, whose arrival the platform does not report. */
  readonly #ask = (): void => {
    if (this.#hasAsked || this.session.closed || this.session.destroyed) return;
    this.#hasAsked = true;
    // RFC 9113 §3.4: SETTINGS is the first frame that a server sends.
    this.session.ping((error) => {
      this.#hasAsked = false;
      if (error === null) this.#onSettings();
    });
  };

  readonly #onSettings = (): void => {
    if (!this.session.destroyed) this.#settle();
  };

  readonly #onError = (error: Error): void => {
    this.#error = error;
    this.#onClose();
  };

  readonly #onClose = (): void => this.#settle(sessionClosed(this.#error));

  #settle(error?: HandshakeError): void {
    this.#settings?.settle(error);
    this.#settings = undefined;
  }
}
