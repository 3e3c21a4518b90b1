/**
 * What both ends need during the opening handshake: a transport that is read chunk by chunk, and a
 * deadline.
 *
 * @module
 */
import { HandshakeError } from "./core/error.ts";
import type { ResponseHead } from "./core/http1.ts";
import { RefusalBody, toHeaders } from "./http.ts";
import type { ConnectionOptions } from "./options.ts";
import { handled } from "./outbox.ts";
import type { Transport, TransportHandlers } from "./transport.ts";
import { backgroundTimer } from "./turn.ts";

/** Reads a transport chunk by chunk, and never further than it is asked to. */
export class TransportReader {
  readonly transport: Transport;
  /** Resolves when the transport is gone. */
  readonly closed: Promise<void>;
  #chunks: Uint8Array[] = [];
  #inputEnded = false;
  #closed = false;
  #error: Error | undefined;
  #waiting = new Set<() => void>();

  constructor(transport: Transport) {
    this.transport = transport;
    let gone!: () => void;
    this.closed = new Promise((resolve) => gone = resolve);
    transport.handle({
      data: (chunk) => {
        this.#chunks.push(chunk);
        transport.pause();
        this.#wake();
      },
      drain: () => this.#wake?.(),
      end: () => {
        this.#inputEnded = true;
        this.#wake();
      },
      close: (error) => {
        this.#closed = true;
        this.#error = error;
        this.#wake();
        gone();
      },
    });
  }

  /** The next chunk, or null at the end of the input; rejects when the transport failed. */
  async read(): Promise<Uint8Array | null> {
    await this.#until(() => this.#chunks.length > 0 || this.#ended, true);
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
    await this.#until(() => this.transport.bufferedAmount === 0 || this.#closed, false);
  }

  /**
   * Hands the transport over, with all that has happened meanwhile: what came behind the handshake, and
   * its end if that was met.
   *
   * @param trailing what came behind the head in the same chunk
   */
  handOver(trailing: Uint8Array, handlers: TransportHandlers): void {
    this.transport.handle(handlers);
    for (const chunk of [trailing, ...this.#chunks]) if (chunk.length > 0) handlers.data(chunk);
    this.#chunks = [];
    if (this.#inputEnded) handlers.end();
    if (this.#closed) handlers.close(this.#error);
  }

  /**
   * Waits until the transport is gone. What still comes is dropped.
   *
   * @param onInputEnd called when the peer has ended its side
   */
  async drain(onInputEnd: () => void): Promise<void> {
    while (!this.#ended) {
      this.#chunks = [];
      await this.#until(() => this.#chunks.length > 0 || this.#ended, true);
    }
    onInputEnd();
    await this.closed;
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const resolve of waiting) resolve();
  }

  get #ended(): boolean {
    return this.#inputEnded || this.#closed;
  }

  async #until(condition: () => boolean, reading: boolean): Promise<void> {
    while (!condition()) {
      const woken = new Promise<void>((resolve) => this.#waiting.add(resolve));
      if (reading && !this.#ended) this.transport.resume();
      await woken;
    }
  }
}

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

/**
 * Runs a handshake within `openTimeout`, and until `signal` is aborted. It is told by the signal it is
 * given when to give up.
 */
export async function withDeadline<T>(
  { signal, openTimeout = 10_000 }: Pick<ConnectionOptions, "signal" | "openTimeout">,
  run: (signal: AbortSignal, onTimeout: OnTimeout) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const controller = new AbortController();
  const aborted = handled(
    new Promise<never>((_, reject) => {
      controller.signal.addEventListener("abort", () => reject(controller.signal.reason));
    }),
  );
  const abort = () => controller.abort(signal!.reason);
  signal?.addEventListener("abort", abort, { once: true });
  let failure: (timeout: HandshakeError) => Error = (timeout) => timeout;
  const cancelTimer = openTimeout > 0
    ? backgroundTimer(() => controller.abort(failure(timedOut(openTimeout))), openTimeout)
    : undefined;
  try {
    const running = run(controller.signal, (otherwise) => failure = otherwise);
    return await Promise.race([handled(running), aborted]);
  } finally {
    cancelTimer?.();
    signal?.removeEventListener("abort", abort);
  }
}

function timedOut(openTimeout: number): HandshakeError {
  return new HandshakeError(
    `Expected the opening handshake to be over within ${openTimeout} ms, it is not`,
    "timeout",
    { status: 408 },
  );
}
