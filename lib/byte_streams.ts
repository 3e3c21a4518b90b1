/**
 * Pairs of WHATWG byte streams as transports, and transports as such pairs.
 *
 * @module
 */
import { handled } from "./connection/outbox.ts";
import type { Transport, TransportHandlers } from "./transport.ts";

/** Two byte streams, as a socket of Deno, a `TransformStream` or a `CompressionStream` has them. */
export interface ByteDuplex {
  /** What the peer sends. */
  readonly readable: ReadableStream<Uint8Array>;
  /** What the peer receives. */
  readonly writable: WritableStream<Uint8Array>;
}

/** Whether this is a transport already. */
export function isTransport(duplex: Transport | ByteDuplex): duplex is Transport {
  return "handle" in duplex;
}

/**
 * A pair of byte streams as a transport.
 *
 * @throws {TypeError} for anything else
 */
export function fromStreams(duplex: Transport | ByteDuplex): Transport {
  const { readable, writable, handle } = (duplex ?? {}) as Partial<Transport & ByteDuplex>;
  const streams = readable instanceof ReadableStream && writable instanceof WritableStream;
  if (typeof handle !== "function" && !streams) {
    throw new TypeError("Expected a transport, or a readable and a writable stream of bytes");
  }
  return isTransport(duplex) ? duplex : new StreamTransport(duplex);
}

/** The most bytes that are written to a stream as one chunk: 1 MiB and its frame. */
const LONGEST_PIECE = 1_572_864;

class StreamTransport implements Transport {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #handlers: TransportHandlers | undefined;
  #paused = true;
  #reading = false;
  #inputEnded = false;
  #outputEnded = false;
  #closed = false;
  #error: Error | undefined;
  #bufferedAmount = 0;

  constructor({ readable, writable }: ByteDuplex) {
    this.#reader = readable.getReader();
    this.#writer = writable.getWriter();
    handled(this.#reader.closed);
    handled(this.#writer.closed);
  }

  get bufferedAmount(): number {
    return this.#bufferedAmount;
  }

  handle(handlers: TransportHandlers): void {
    const first = this.#handlers === undefined;
    this.#handlers = handlers;
    if (!first) return;
    if (this.#closed) {
      queueMicrotask(() => this.#handlers!.close(this.#error));
      return;
    }
    // A sink that fails by itself is a transport that is gone.
    this.#writer.closed.catch((error) => this.#close(error));
    this.resume();
  }

  write(parts: readonly Uint8Array[]): void {
    for (const part of parts) {
      // As if they had left, whoever sends on and on would, and the end not get its turn to be told.
      if (this.#outputEnded || this.#closed) this.#bufferedAmount += part.length;
      else this.#writeInPieces(part);
    }
  }

  /** A long part goes in pieces, so that it shows whether the peer reads. */
  #writeInPieces(part: Uint8Array): void {
    for (let at = 0; at < part.length; at += LONGEST_PIECE) {
      this.#write(part.subarray(at, at + LONGEST_PIECE));
    }
  }

  #write(part: Uint8Array): void {
    this.#bufferedAmount += part.length;
    // A stream may hand the chunk on and keep it; ours is used again.
    this.#writer.write(new Uint8Array(part)).then(() => {
      this.#bufferedAmount -= part.length;
      if (this.#bufferedAmount === 0 && !this.#closed) this.#handlers?.drain();
    }, (error) => this.#close(error));
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    if (!this.#reading && !this.#inputEnded && !this.#closed) this.#read();
  }

  async #read(): Promise<void> {
    this.#reading = true;
    try {
      while (!this.#paused && !this.#closed) {
        const { done, value } = await this.#reader.read();
        if (this.#closed || this.#inputEnded) return;
        if (done) return this.#endInput();
        if (!(value instanceof Uint8Array)) {
          throw new TypeError(`Expected bytes, received ${typeof value}`);
        }
        // What comes from a stream may belong to somebody else, and is about to be unmasked in place.
        this.#handlers!.data(new Uint8Array(value));
      }
    } catch (error) {
      this.#close(error);
    } finally {
      this.#reading = false;
    }
  }

  #endInput(): void {
    this.#inputEnded = true;
    this.#handlers!.end();
    if (this.#outputEnded) this.#close();
  }

  end(): void {
    if (this.#outputEnded || this.#closed) return;
    this.#outputEnded = true;
    this.#writer.close().then(() => {
      if (this.#inputEnded) this.#close();
    }, (error) => this.#close(error));
  }

  destroy(): void {
    if (this.#closed) return;
    // That we cancel the input is not the end that the peer makes.
    this.#inputEnded = this.#outputEnded = true;
    const reason = new DOMException("The transport was destroyed", "AbortError");
    handled(this.#reader.cancel(reason));
    handled(this.#writer.abort(reason));
    queueMicrotask(() => this.#close());
  }

  #close(error?: unknown): void {
    if (this.#closed) return;
    this.#closed = true;
    if (error !== undefined) {
      handled(this.#reader.cancel(error));
      handled(this.#writer.abort(error));
    }
    this.#error = error === undefined ? undefined : toError(error);
    this.#handlers?.close(this.#error);
  }
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/**
 * A transport as a pair of byte streams. The writable resolves a write when the transport has taken
 * it; closing it ends our side, and the readable closes when the peer ends its own.
 */
export function toStreams(transport: Transport): ByteDuplex {
  let input!: ReadableStreamDefaultController<Uint8Array>;
  let output!: WritableStreamDefaultController;
  let drained: (() => void) | undefined;
  let ended = false;
  const settle = () => {
    drained?.();
    drained = undefined;
  };
  const readable = new ReadableStream<Uint8Array>({
    start: (controller) => input = controller,
    pull: () => transport.resume(),
    cancel: () => {
      ended = true;
      transport.destroy();
    },
  }, { highWaterMark: 65536, size: (chunk) => chunk.length });
  const writable = new WritableStream<Uint8Array>({
    start: (controller) => output = controller,
    write: (chunk) => {
      transport.write([chunk]);
      if (transport.bufferedAmount > 0) return new Promise<void>((resolve) => drained = resolve);
    },
    close: () => transport.end(),
    abort: () => transport.destroy(),
  });
  transport.handle({
    data: (chunk) => {
      if (ended) return;
      input.enqueue(chunk);
      if (input.desiredSize! <= 0) transport.pause();
    },
    drain: settle,
    end: () => {
      if (!ended) input.close();
      ended = true;
    },
    close: (error) => {
      const reason = error ?? new Error("The transport was closed");
      if (!ended) input.error(reason);
      ended = true;
      output.error(reason);
      settle();
    },
  });
  transport.resume();
  return { readable, writable };
}
