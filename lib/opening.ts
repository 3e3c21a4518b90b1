/**
 * The I/O of the opening handshake, for client and server: it moves bytes from the transport into the
 * `Endpoint`, enforces the time limit, and makes the connection.
 */
import { onAbort } from "./abortable.ts";
import { WebSocketConnection } from "./connection/connection.ts";
import { type Link, protocolOptions } from "./connection/driver.ts";
import { bodyReader } from "./core/body.ts";
import { Endpoint, type EndpointOptions } from "./core/endpoint.ts";
import { HandshakeError, RemoteProtocolError, timedOut } from "./core/error.ts";
import type { EndpointEvent } from "./core/event.ts";
import type { Role } from "./core/frame.ts";
import type { ResponseHead } from "./core/http1.ts";
import { toHeaders } from "./http.ts";
import type { ConnectionOptions } from "./options.ts";
import type { Transport, TransportHandlers } from "./transport.ts";
import { takeFirst } from "./core/queue.ts";
import type { TextCodec } from "./core/utf8.ts";
import { Countdown, now } from "./timers.ts";

/** Number of bytes that a server may read ahead: while reading is paused, no reset is reported. */
export const READ_AHEAD = 65_536;
/** Number of bytes that each chunk counts in addition to its length. */
const CHUNK_OVERHEAD = 256;

/** Shared by all readers that nothing waits for. */
const NONE: (() => void)[] = [];

/** Shared by all readers that hold no chunk. */
const EMPTY: Uint8Array[] = [];

interface ReaderListener {
  /** Called with a chunk that has arrived, or if `take()` may return something else than before. */
  inputChanged(chunk?: Uint8Array): void;
}

/** Reads a transport chunk by chunk. */
export class TransportReader implements TransportHandlers {
  readonly transport: Transport;
  listener: ReaderListener | undefined;
  readonly #readAhead: number;
  #chunks = EMPTY;
  /** Number of bytes in `#chunks`. */
  #held = 0;
  #isHalfClosed = false;
  isClosed = false;
  #error: Error | undefined;
  #givenUp: { reason: unknown } | undefined;
  #waiting: (() => void)[] = NONE;
  #onGone: ((error: HandshakeError) => void) | undefined;

  /** @param readAhead Number of bytes that may be read before they are asked for. */
  constructor(transport: Transport, readAhead: number = 0) {
    this.transport = transport;
    this.#readAhead = readAhead;
    transport.handle(this);
  }

  data(chunk: Uint8Array): void {
    if (this.listener !== undefined) return this.listener.inputChanged(chunk);
    // An array that grows by push() reserves room for many items, but most readers hold one.
    if (this.#chunks.length === 0) this.#chunks = [chunk];
    else this.#chunks.push(chunk);
    this.#held += chunk.length + CHUNK_OVERHEAD;
    if (this.#held > this.#readAhead) this.transport.pause();
    this.#wake();
  }

  drain(): void {
    this.#wake();
  }

  end(): void {
    this.#isHalfClosed = true;
    this.#wake();
  }

  close(error?: Error): void {
    this.isClosed = true;
    this.#error = error;
    this.#onGone?.(this.#lost());
    this.#wake();
  }

  /** Calls back if the transport closes before it is handed over. */
  watch(onGone: (error: HandshakeError) => void): void {
    if (this.isClosed) return onGone(this.#lost());
    this.#onGone = onGone;
    if (this.#held <= this.#readAhead) this.transport.resume();
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
    while (!this.isClosed) await this.#wait();
  }

  /** Makes `take()` and `read()` throw the reason. */
  giveUp(reason: unknown): void {
    this.#givenUp = { reason };
    this.#wake();
  }

  /** Returns the next chunk, or null at the end of the input. Rejects if the transport failed. */
  async read(): Promise<Uint8Array | null> {
    for (;;) {
      const chunk = this.take();
      if (chunk !== undefined) return chunk;
      await this.#wait(true);
    }
  }

  /**
   * Returns the next chunk, null at the end of the input, or undefined if neither has arrived. Throws if
   * the transport failed.
   */
  take(): Uint8Array | null | undefined {
    if (this.#givenUp !== undefined) throw this.#givenUp.reason;
    if (this.#chunks.length > 0) {
      const chunk = takeFirst(this.#chunks)!;
      this.#held -= chunk.length + CHUNK_OVERHEAD;
      return chunk;
    }
    if (this.#error === undefined) return this.#isHalfClosed || this.isClosed ? null : undefined;
    throw new HandshakeError(
      `The transport failed during the handshake: ${this.#error.message}`,
      "connection-lost",
      { cause: this.#error },
    );
  }

  /** Writes the bytes, and waits until the platform has taken them. */
  async write(bytes: Uint8Array): Promise<void> {
    this.transport.write([bytes]);
    while (this.transport.bufferedAmount > 0 && !this.isClosed) await this.#wait();
  }

  /** Hands over the transport, the chunks that have not been read, and the end if it has been reached. */
  handOver(handlers: TransportHandlers): void {
    this.transport.handle(handlers);
    for (const chunk of this.#chunks) handlers.data(chunk);
    this.#chunks = EMPTY;
    if (this.#isHalfClosed) handlers.end();
    if (this.isClosed) handlers.close(this.#error);
  }

  /**
   * Waits until the transport is gone, and drops the chunks that arrive. Calls back when the peer ends
   * its side.
   */
  async dropInput(onInputEnd: () => void): Promise<void> {
    while (!this.#isHalfClosed && !this.isClosed) {
      this.#chunks = EMPTY;
      this.#held = 0;
      await this.#wait(true);
    }
    onInputEnd();
    await this.closed();
  }

  #wake(): void {
    this.listener?.inputChanged();
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = NONE;
    for (const resolve of waiting) resolve();
  }

  /** Waits until something happens. `reads` resumes reading. */
  #wait(reads = false): Promise<void> {
    return new Promise((resolve) => {
      if (this.#waiting === NONE) this.#waiting = [resolve];
      else this.#waiting.push(resolve);
      if (reads) this.transport.resume();
    });
  }
}

/** The options of the endpoint and of the connection, which have been checked. */
export interface OpeningInit extends Pick<EndpointOptions, "extensions" | "limits"> {
  requireProtocol?: boolean;
  options: Omit<ConnectionOptions, "signal">;
  /** The text codec of the platform. */
  textCodec: TextCodec | undefined;
  /** The options of the endpoint, if they are the same for all connections. */
  shared?: EndpointOptions | undefined;
}

/** Returns the options of an endpoint. Without a link, they have no callbacks. */
export function endpointOptions(init: OpeningInit, link?: Link): EndpointOptions {
  const { extensions = [], limits, requireProtocol, options, textCodec } = init;
  const isExtended = extensions.length > 0;
  return {
    ...protocolOptions(options, { textCodec, isExtended }, link),
    ...{ extensions, limits, requireProtocol },
  };
}

/** The endpoint of a handshake, and the connection that follows. */
export class Opening {
  readonly endpoint: Endpoint;
  readonly #init: OpeningInit;
  readonly #link: Link | undefined;

  constructor(role: Role, init: OpeningInit) {
    this.#init = init;
    this.#link = init.shared === undefined ? {} : undefined;
    this.endpoint = new Endpoint(role, init.shared ?? endpointOptions(init, this.#link), true);
  }

  /**
   * Returns the next event. Calls `onChunk` with each chunk before it is parsed.
   * @throws {HandshakeError} If the peer's head is malformed, or the connection was lost.
   */
  async next(
    reader: TransportReader,
    onChunk?: (chunk: Uint8Array | null) => void,
  ): Promise<EndpointEvent> {
    try {
      for (;;) {
        const event = this.endpoint.next();
        if (event !== undefined) return event;
        const chunk = await reader.read();
        onChunk?.(chunk);
        this.endpoint.receive(chunk);
      }
    } catch (error) {
      throw causeOf(error);
    }
  }

  async *body(reader: TransportReader): AsyncIterable<Uint8Array> {
    while (this.endpoint.state === "rejecting") {
      const event = await this.next(reader);
      if (event.type === "rejectData") yield event.data;
    }
  }

  connect(reader: TransportReader, secure: boolean, webRequest?: Request): WebSocketConnection {
    const { opened } = this.endpoint;
    const { transport } = reader;
    opened.machine.whole = true;
    opened.machine.allocate = transport.allocate;
    return new WebSocketConnection({
      ...opened,
      transport,
      options: this.#init.options,
      source: reader,
      link: this.#link,
      webRequest,
      secure,
    });
  }
}

/** Returns the HandshakeError of an endpoint's error, and any other error unchanged. */
export function causeOf(error: unknown): unknown {
  return error instanceof RemoteProtocolError ? error.cause : error;
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

/** Maximum size of the body of a refusal that is kept, in bytes. */
const MAX_BODY = 65_536;

/**
 * Reads the body of a refusal, up to 64 KiB. Returns an error with the response and its body. If
 * reading fails, the body errors after the bytes received.
 */
export async function readRefusal(
  { message, code }: HandshakeError,
  { status, statusText, headers: rawHeaders }: ResponseHead,
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  deadline: Deadline,
): Promise<HandshakeError> {
  const parts: Uint8Array[] = [];
  const refusal = (failure?: unknown) => {
    const body = streamOf(parts, failure);
    return new HandshakeError(message, code, {
      response: { status, statusText, headers: toHeaders(rawHeaders), rawHeaders, body },
    });
  };
  // If the time runs out now, the refusal is more useful than the timeout.
  deadline.onTimeout = refusal;
  let size = 0;
  try {
    for await (const piece of pieces) {
      parts.push(piece.slice(0, MAX_BODY - size));
      size += piece.length;
      if (size >= MAX_BODY) break;
    }
  } catch (error) {
    return refusal(error);
  }
  return refusal();
}

/** Returns the parts as a stream, which errors with `failure` if there is one. */
function streamOf(parts: Uint8Array[], failure: unknown): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const part of parts) if (part.length > 0) controller.enqueue(part);
    },
    // Fail only after the chunks have been read: an error drops chunks that are still in the queue.
    pull(controller) {
      if (failure === undefined) controller.close();
      else controller.error(failure);
    },
  }, { highWaterMark: 0 });
}

/** The time limit of a handshake, and the signal that ends it. */
export class Deadline {
  /** Makes the error of a handshake that runs out of time. By default, it is "timeout". */
  onTimeout: ((timeout: HandshakeError) => Error) | undefined;
  #passed: { reason: unknown } | undefined;
  #controller: AbortController | undefined;
  /** Called when the handshake is given up. */
  onPassed: ((reason: unknown) => void) | undefined;
  readonly #stopWatching: () => void;
  readonly #countdown: Countdown | undefined;

  constructor({ signal, openTimeout = 10_000 }: DeadlineOptions) {
    signal?.throwIfAborted();
    this.#stopWatching = onAbort(signal, (reason) => this.giveUp(reason));
    if (openTimeout > 0) {
      this.#countdown = new Countdown(() => this.#timeOut(openTimeout), openTimeout);
    }
  }

  /** Aborted when the handshake is given up. Created on demand, because few servers need it. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#passed !== undefined) this.#controller.abort(this.#passed.reason);
    }
    return this.#controller.signal;
  }

  /** Waits for the handshake, or rejects when it is given up. */
  race<T>(handshake: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.onPassed = reject;
      if (this.#passed !== undefined) reject(this.#passed.reason);
      handshake.then(resolve, reject);
    });
  }

  #timeOut(openTimeout: number): void {
    const timeout = timedOut(openTimeout);
    this.giveUp(this.onTimeout === undefined ? timeout : this.onTimeout(timeout));
  }

  giveUp(reason: unknown): void {
    this.#passed ??= { reason };
    this.#controller?.abort(reason);
    this.onPassed?.(reason);
  }

  stop(): void {
    this.#countdown?.cancel();
    this.#stopWatching();
  }
}

/** Handshakes that begin within this part of `openTimeout` share a timer. */
const SHARED_PART = 1 / 1000;

/** A handshake of a server. */
export interface Limited {
  giveUp(reason: unknown): void;
}

/** The time limit and the signal of handshakes that began at about the same time. */
export class SharedDeadline {
  /** Time until which further handshakes may join, by the clock of `now()`. */
  joinableUntil: number;
  readonly members: Set<Limited> = new Set();
  readonly #stopWatching: () => void;
  readonly #countdown: Countdown | undefined;

  constructor({ signal, openTimeout = 10_000 }: DeadlineOptions) {
    this.joinableUntil = openTimeout > 0 ? now() + openTimeout * SHARED_PART : Infinity;
    this.#stopWatching = onAbort(signal, (reason) => this.#giveUp(() => reason));
    if (openTimeout > 0) {
      this.#countdown = new Countdown(() => this.#giveUp(() => timedOut(openTimeout)), openTimeout);
    }
  }

  leave(member: Limited): void {
    if (!this.members.delete(member) || this.members.size > 0) return;
    this.joinableUntil = 0;
    this.#countdown?.cancel();
    this.#stopWatching();
  }

  #giveUp(reason: () => unknown): void {
    this.joinableUntil = 0;
    for (const member of this.members) member.giveUp(reason());
  }
}

/** The time limits of the handshakes of a server, and the signal that ends them. */
export class Deadlines {
  readonly #options: DeadlineOptions;
  #newest: SharedDeadline | undefined;

  constructor(options: DeadlineOptions) {
    this.#options = options;
  }

  /** Returns the deadline of a handshake, which must leave it. Throws if the signal is aborted. */
  start(handshake: Limited): SharedDeadline {
    this.#options.signal?.throwIfAborted();
    const newest = this.#newest;
    const deadline = newest !== undefined && now() < newest.joinableUntil
      ? newest
      : this.#newest = new SharedDeadline(this.#options);
    deadline.members.add(handshake);
    return deadline;
  }
}

type DeadlineOptions = Pick<ConnectionOptions, "signal" | "openTimeout">;

/** Runs a handshake within `openTimeout`, and until `signal` is aborted. */
export async function withDeadline<T>(
  options: DeadlineOptions,
  run: (deadline: Deadline) => Promise<T>,
): Promise<T> {
  const deadline = new Deadline(options);
  const stop = () => deadline.stop();
  try {
    // The deadline must not pass any more while the result is on its way to the caller.
    return await deadline.race(run(deadline).finally(stop));
  } finally {
    stop();
  }
}
