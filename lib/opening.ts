/**
 * The I/O of the opening handshake, for client and server: it moves bytes from the transport into the
 * `Endpoint`, enforces the time limit, and makes the connection.
 *
 * @module
 */
import { onAbort } from "./abortable.ts";
import { WebSocketConnection } from "./connection/connection.ts";
import { type MachineHost, protocolOptions } from "./connection/driver.ts";
import { bodyReader } from "./core/body.ts";
import { Endpoint, type EndpointEvent, type EndpointOptions } from "./core/endpoint.ts";
import { HandshakeError, RemoteProtocolError } from "./core/error.ts";
import type { Role } from "./core/frame.ts";
import type { ResponseHead } from "./core/http1.ts";
import { RefusalBody, toHeaders } from "./http.ts";
import type { ConnectionOptions } from "./options.ts";
import type { Transport, TransportHandlers } from "./transport.ts";
import type { TextCodec } from "./core/utf8.ts";
import { Countdown } from "./timers.ts";

/** Maximum number of bytes to read ahead in order to notice a reset. */
const READ_AHEAD = 65_536;
/** Number of bytes that each chunk counts in addition to its length. */
const CHUNK_OVERHEAD = 256;

/** Reads a transport chunk by chunk. Reads ahead only while the transport is watched. */
export class TransportReader implements TransportHandlers {
  readonly transport: Transport;
  #chunks: Uint8Array[] = [];
  #isHalfClosed = false;
  /** Whether no more chunks can arrive. */
  #inputEnded = false;
  #closed = false;
  #error: Error | undefined;
  #waiting: (() => void)[] = [];
  #ahead = 0;
  #onGone: ((error: HandshakeError) => void) | undefined;

  constructor(transport: Transport) {
    this.transport = transport;
    transport.handle(this);
  }

  get isGone(): boolean {
    return this.#closed;
  }

  data(chunk: Uint8Array): void {
    this.#chunks.push(chunk);
    this.#ahead -= chunk.length + CHUNK_OVERHEAD;
    if (this.#ahead <= 0) this.transport.pause();
    this.#wake();
  }

  drain(): void {
    this.#wake();
  }

  end(): void {
    this.#inputEnded = this.#isHalfClosed = true;
    this.#wake();
  }

  close(error?: Error): void {
    this.#closed = this.#inputEnded = true;
    this.#error = error;
    this.#onGone?.(this.#lost());
    this.#wake();
  }

  /**
   * Calls back if the transport closes before it is handed over. Reads ahead up to `READ_AHEAD` bytes,
   * because a platform does not report a reset while reading is paused.
   */
  watch(onGone: (error: HandshakeError) => void): void {
    if (this.#closed) return onGone(this.#lost());
    this.#onGone = onGone;
    this.#ahead = READ_AHEAD;
    this.transport.resume();
  }

  #lost(): HandshakeError {
    const why = this.#error === undefined ? "ended" : `failed: ${this.#error.message}`;
    return new HandshakeError(
      `The client was lost before it got the response: its connection ${why}`,
      "connection-lost",
      { cause: this.#error },
    );
  }

  async closed(): Promise<void> {
    while (!this.#closed) await this.#woken();
  }

  /** Returns the next chunk, or null at the end of the input. Rejects if the transport failed. */
  async read(): Promise<Uint8Array | null> {
    while (this.#chunks.length === 0 && !this.#inputEnded) await this.#woken(true);
    const chunk = this.#chunks.shift();
    if (chunk !== undefined) return chunk;
    if (this.#error === undefined) return null;
    throw new HandshakeError(
      `The transport failed during the handshake: ${this.#error.message}`,
      "connection-lost",
      { cause: this.#error },
    );
  }

  /** Writes the bytes, and waits until the platform has taken them. */
  async write(bytes: Uint8Array): Promise<void> {
    this.transport.write([bytes]);
    while (this.transport.bufferedAmount > 0 && !this.#closed) await this.#woken();
  }

  /** Hands over the transport, the chunks that have not been read, and the end if it has been reached. */
  handOver(handlers: TransportHandlers): void {
    this.transport.handle(handlers);
    for (const chunk of this.#chunks) handlers.data(chunk);
    this.#chunks = [];
    if (this.#isHalfClosed) handlers.end();
    if (this.#closed) handlers.close(this.#error);
  }

  /**
   * Waits until the transport is gone, and drops the chunks that arrive. Calls back when the peer ends
   * its side.
   */
  async dropInput(onInputEnd: () => void): Promise<void> {
    while (!this.#inputEnded) {
      this.#chunks = [];
      await this.#woken(true);
    }
    onInputEnd();
    await this.closed();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** Waits until something happens. */
  #woken(reads = false): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      if (reads) this.transport.resume();
    });
  }
}

/** Options of the endpoint and of the connection, and the text codec of the platform. */
type OpeningInit =
  & Pick<EndpointOptions, "extensions" | "limits" | "requireProtocol">
  & { options: Omit<ConnectionOptions, "signal">; textCodec: TextCodec | undefined };

/**
 * The objects that the endpoint calls after the handshake. Holds nothing of the opening handshake, so
 * that its memory can be freed.
 */
interface Link {
  driver?: MachineHost;
  transport?: Transport;
}

export class Opening {
  readonly endpoint: Endpoint;
  readonly #init: OpeningInit;
  readonly #link: Link = {};

  constructor(role: Role, init: OpeningInit) {
    const { extensions = [], limits, requireProtocol, options, textCodec } = init;
    const link = this.#link;
    this.#init = init;
    this.endpoint = new Endpoint(role, {
      ...{ extensions, limits, requireProtocol },
      ...protocolOptions(options, {
        textCodec,
        isExtended: extensions.length > 0,
        allocate: (length) => link.transport?.allocate?.(length) ?? new Uint8Array(length),
      }, () => link.driver!),
    });
  }

  /**
   * Returns the next event. Calls `onChunk` with each chunk before it is parsed.
   *
   * @throws {HandshakeError} If the peer's head is malformed, or the connection was lost.
   */
  async next(
    reader: TransportReader,
    onChunk?: (chunk: Uint8Array | null) => void,
  ): Promise<EndpointEvent> {
    for (;;) {
      const event = this.#nextAtHand();
      if (event !== undefined) return event;
      const chunk = await reader.read();
      onChunk?.(chunk);
      this.endpoint.receive(chunk);
    }
  }

  #nextAtHand(): EndpointEvent | undefined {
    try {
      return this.endpoint.next();
    } catch (error) {
      throw error instanceof RemoteProtocolError ? error.cause : error;
    }
  }

  async *body(reader: TransportReader): AsyncIterable<Uint8Array> {
    while (this.endpoint.state === "rejecting") {
      const event = await this.next(reader);
      if (event.type === "rejectData") yield event.data;
    }
  }

  connect(
    reader: TransportReader,
    { secure, webRequest }: { secure: boolean; webRequest?: Request },
  ): WebSocketConnection {
    const { role, protocol, agreement, request, response } = this.endpoint;
    const { transport } = reader;
    protocol.whole = true;
    const { options, textCodec } = this.#init;
    const link = this.#link;
    link.transport = transport;
    return new WebSocketConnection({
      ...{ role, transport, options, textCodec, webRequest, secure },
      machine: protocol,
      agreement: agreement!,
      request: request!,
      response: response!,
      takeOver: (driver) => {
        link.driver = driver;
        reader.handOver(driver);
      },
    });
  }
}

/** Yields the body of a response whose head has been read. */
export async function* bodyOf(
  head: ResponseHead,
  trailing: Uint8Array,
  reader: TransportReader,
): AsyncIterable<Uint8Array> {
  const body = bodyReader(head);
  let chunk: Uint8Array | null = trailing;
  for (;;) {
    if (chunk === null) body.end();
    const data = body.push(chunk ?? new Uint8Array(0));
    if (data.length > 0) yield data;
    if (body.failure !== undefined) throw body.failure;
    if (body.finished) return;
    chunk = await reader.read();
  }
}

/** Sets the error of a handshake that runs out of time, instead of "timeout". */
export type OnTimeout = (failure: (timeout: HandshakeError) => Error) => void;

/** Reads the body of a refusal, and returns an error with the response and its body. */
export async function readRefusal(
  { message, code }: HandshakeError,
  head: ResponseHead,
  pieces: AsyncIterable<Uint8Array>,
  onTimeout: OnTimeout,
): Promise<HandshakeError> {
  const { status, statusText, headers } = head;
  const refusal = (body: ReadableStream<Uint8Array>) =>
    new HandshakeError(message, code, {
      response: { status, statusText, headers: toHeaders(headers), rawHeaders: headers, body },
    });
  const body = new RefusalBody();
  // If the time runs out now, the refusal is more useful than the timeout.
  onTimeout((timeout) => refusal(body.stream(timeout)));
  return refusal(await body.read(pieces));
}

export class Deadline {
  #passed: { reason: unknown } | undefined;
  #controller: AbortController | undefined;
  #failure: ((timeout: HandshakeError) => Error) | undefined;
  readonly #reject: (reason: unknown) => void;

  constructor(reject: (reason: unknown) => void) {
    this.#reject = reject;
  }

  /** Aborted when the handshake is given up. Created on demand, because few servers need it. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#passed !== undefined) this.#controller.abort(this.#passed.reason);
    }
    return this.#controller.signal;
  }

  readonly onTimeout: OnTimeout = (failure) => this.#failure = failure;

  throwIfPassed(): void {
    if (this.#passed !== undefined) throw this.#passed.reason;
  }

  timeOut(timeout: HandshakeError): void {
    this.giveUp(this.#failure === undefined ? timeout : this.#failure(timeout));
  }

  giveUp(reason: unknown): void {
    this.#passed ??= { reason };
    this.#controller?.abort(reason);
    this.#reject(reason);
  }
}

/** Runs a handshake within `openTimeout`, and until `signal` is aborted. */
export async function withDeadline<T>(
  { signal, openTimeout = 10_000 }: Pick<ConnectionOptions, "signal" | "openTimeout">,
  run: (deadline: Deadline) => Promise<T>,
): Promise<T> {
  if (signal?.aborted) throw signal.reason;
  let stopWatching: (() => void) | undefined;
  let countdown: Countdown | undefined;
  try {
    return await new Promise<T>((resolve, reject) => {
      const attempt = new Deadline(reject);
      stopWatching = onAbort(signal, (reason) => attempt.giveUp(reason));
      if (openTimeout > 0) {
        countdown = new Countdown(() => attempt.timeOut(timedOut(openTimeout)), openTimeout);
      }
      run(attempt).then(resolve, reject);
    });
  } finally {
    countdown?.cancel();
    stopWatching?.();
  }
}

function timedOut(openTimeout: number): HandshakeError {
  return new HandshakeError(
    `The opening handshake took longer than openTimeout (${openTimeout} ms)`,
    "timeout",
    { status: 408 },
  );
}
