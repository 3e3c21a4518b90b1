/**
 * What both ends need during the opening handshake: a transport that is read chunk by chunk, and a
 * deadline.
 *
 * @module
 */
import { type Cancellation, onAbort } from "./abortable.ts";
import { HandshakeError } from "./core/error.ts";
import type { ResponseHead } from "./core/http1.ts";
import { RefusalBody, toHeaders } from "./http.ts";
import type { ConnectionOptions } from "./options.ts";
import type { Transport, TransportHandlers } from "./transport.ts";
import { deadline } from "./timers.ts";

/** Shared by all that are empty. */
const NONE: never[] = [];

/** Adds to a list. One that grows from nothing would take room for 17 at once. */
function added<T>(list: T[], item: T): T[] {
  if (list.length === 0) return [item];
  list.push(item);
  return list;
}

/** How many bytes are read before anybody asks for them, in order to notice a reset. */
const READ_AHEAD = 65_536;
/** How many bytes a chunk counts in addition to its own. */
const CHUNK_OVERHEAD = 256;

/** Reads a transport chunk by chunk. It reads no further than asked, except while it is watched. */
export class TransportReader implements TransportHandlers {
  readonly transport: Transport;
  #chunks: Uint8Array[] = NONE;
  #inputEnded = false;
  #closed = false;
  #error: Error | undefined;
  #waiting: (() => void)[] = NONE;
  /** How many more bytes may be read before anybody asks for them. */
  #ahead = 0;
  #onGone: ((error: HandshakeError) => void) | undefined;

  constructor(transport: Transport) {
    this.transport = transport;
    transport.handle(this);
  }

  /** Whether the transport is gone. */
  get isGone(): boolean {
    return this.#closed;
  }

  data(chunk: Uint8Array): void {
    this.#chunks = added(this.#chunks, chunk);
    this.#ahead -= chunk.length + CHUNK_OVERHEAD;
    if (this.#ahead <= 0) this.transport.pause();
    this.#wake();
  }

  drain(): void {
    this.#wake();
  }

  end(): void {
    this.#inputEnded = true;
    this.#wake();
  }

  close(error?: Error): void {
    this.#closed = true;
    this.#error = error;
    this.#onGone?.(this.#lost());
    this.#wake();
  }

  /**
   * Calls back if the transport closes before it is handed over. Reading goes on for this purpose, up to
   * `READ_AHEAD` bytes: a platform does not report a reset while reading is paused.
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
      `Expected the client to wait for the response, its connection ${why}`,
      "connection-lost",
      { cause: this.#error },
    );
  }

  /** Waits until the transport is gone. */
  async closed(): Promise<void> {
    while (!this.#closed) await this.#woken();
  }

  /** The next chunk, or null at the end of the input; rejects when the transport failed. */
  async read(): Promise<Uint8Array | null> {
    while (this.#chunks.length === 0 && !this.#ended) await this.#more();
    const chunk = this.#chunks.shift();
    if (chunk !== undefined) return chunk;
    if (this.#error === undefined) return null;
    throw new HandshakeError(
      `The transport failed during the handshake: ${this.#error.message}`,
      "connection-lost",
      { cause: this.#error },
    );
  }

  /** Writes, and waits while the transport is not ready for more. */
  async write(bytes: Uint8Array): Promise<void> {
    this.transport.write([bytes]);
    while (this.transport.bufferedAmount > 0 && !this.#closed) await this.#woken();
  }

  /**
   * Hands the transport over, with all that has happened meanwhile: what came behind the handshake, and
   * its end if that was met.
   *
   * @param trailing what came behind the head in the same chunk
   */
  handOver(trailing: Uint8Array, handlers: TransportHandlers): void {
    this.transport.handle(handlers);
    if (trailing.length > 0) handlers.data(trailing);
    for (const chunk of this.#chunks) handlers.data(chunk);
    this.#chunks = NONE;
    if (this.#inputEnded) handlers.end();
    if (this.#closed) handlers.close(this.#error);
  }

  /**
   * Waits until the transport is gone. What still comes is dropped.
   *
   * @param onInputEnd called when the peer has ended its side
   */
  async dropInput(onInputEnd: () => void): Promise<void> {
    while (!this.#ended) {
      this.#chunks = NONE;
      await this.#more();
    }
    onInputEnd();
    await this.closed();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = NONE;
    for (const resolve of waiting) resolve();
  }

  get #ended(): boolean {
    return this.#inputEnded || this.#closed;
  }

  #woken(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting = added(this.#waiting, resolve);
    });
  }

  #more(): Promise<void> {
    const woken = this.#woken();
    this.transport.resume();
    return woken;
  }
}

/** Options whose signal may be any such. */
export type Cancellable<T> = Omit<T, "signal"> & { signal?: Cancellation };

/** Says what a handshake that runs out of time has failed with by then, in place of "timeout". */
export type OnTimeout = (failure: (timeout: HandshakeError) => Error) => void;

/**
 * The error of a response that refuses, with the response and its body.
 *
 * @param error what is wrong with the response
 * @param trailing what came behind its head
 */
export async function readRefusal(
  { message, code }: HandshakeError,
  head: ResponseHead,
  trailing: Uint8Array,
  reader: TransportReader,
  onTimeout: OnTimeout,
): Promise<HandshakeError> {
  const { status, statusText, headers } = head;
  const refusal = (body: ReadableStream<Uint8Array>) =>
    new HandshakeError(message, code, {
      response: { status, statusText, headers: toHeaders(headers), rawHeaders: headers, body },
    });
  const body = new RefusalBody(head);
  // That it was refused matters more than that the server is slow to say why.
  onTimeout((timeout) => refusal(body.stream(timeout)));
  return refusal(await body.read(trailing, () => reader.read()));
}

/** When a handshake is given up. */
export class Deadline {
  #passed: { reason: unknown } | undefined;
  #controller: AbortController | undefined;
  #failure: ((timeout: HandshakeError) => Error) | undefined;
  readonly #reject: (reason: unknown) => void;

  /** @param reject called when it is given up, with the reason */
  constructor(reject: (reason: unknown) => void) {
    this.#reject = reject;
  }

  /** Aborted when it is given up. Made when first asked for: a server's handshake does without. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#passed !== undefined) this.#controller.abort(this.#passed.reason);
    }
    return this.#controller.signal;
  }

  /** Says what a handshake that runs out of time has failed with by then. */
  readonly onTimeout: OnTimeout = (failure) => this.#failure = failure;

  /** Throws the reason once it was given up. */
  throwIfPassed(): void {
    if (this.#passed !== undefined) throw this.#passed.reason;
  }

  /** The time is over. */
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
  { signal, openTimeout = 10_000 }: Cancellable<Pick<ConnectionOptions, "openTimeout">>,
  run: (deadline: Deadline) => Promise<T>,
): Promise<T> {
  if (signal?.aborted) throw signal.reason;
  let stopWatching: (() => void) | undefined;
  let cancelTimer: (() => void) | undefined;
  try {
    return await new Promise<T>((resolve, reject) => {
      const attempt = new Deadline(reject);
      stopWatching = onAbort(signal, (reason) => attempt.giveUp(reason));
      if (openTimeout > 0) {
        cancelTimer = deadline(() => attempt.timeOut(timedOut(openTimeout)), openTimeout);
      }
      run(attempt).then(resolve, reject);
    });
  } finally {
    cancelTimer?.();
    stopWatching?.();
  }
}

function timedOut(openTimeout: number): HandshakeError {
  return new HandshakeError(
    `Expected the opening handshake to be over within ${openTimeout} ms, it is not`,
    "timeout",
    { status: 408 },
  );
}
