/**
 * Converts pairs of WHATWG byte streams to transports, and transports to pairs of streams.
 *
 * @module
 */
import { domError, failure, wrongType } from "./core/error.ts";
import { handled } from "./abortable.ts";
import type { Transport } from "./transport.ts";
import { BaseTransport } from "./transport_base.ts";

/** A pair of byte streams, such as a socket of Deno, a `TransformStream` or a `CompressionStream`. */
export interface ByteDuplex {
  /** The bytes that the peer sends. */
  readonly readable: ReadableStream<Uint8Array>;
  /** The bytes that the peer receives. */
  readonly writable: WritableStream<Uint8Array>;
}

/**
 * Makes a transport from a pair of byte streams. A transport is returned as it is.
 *
 * @throws {TypeError} If `duplex` is neither a transport nor a pair of streams.
 */
export function fromStreams(duplex: Transport | ByteDuplex): Transport {
  const { readable, writable, handle } = (duplex ?? {}) as Partial<Transport & ByteDuplex>;
  if (typeof handle === "function") return duplex as Transport;
  if (readable instanceof ReadableStream && writable instanceof WritableStream) {
    return new StreamTransport({ readable, writable });
  }
  throw wrongType("Expected a transport, or a readable and a writable stream of bytes");
}

/** Maximum size of a chunk that is written to a stream, in bytes. */
const LONGEST_PIECE = 1_572_864;

class StreamTransport extends BaseTransport {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #paused = false;
  #reading = false;

  constructor({ readable, writable }: ByteDuplex) {
    super();
    this.#reader = readable.getReader();
    this.#writer = writable.getWriter();
    handled(this.#reader.closed);
    handled(this.#writer.closed);
  }

  protected start(): void {
    // A sink may fail while nothing is written.
    this.#writer.closed.catch((error) => this.#failed(error));
    this.resume();
  }

  write(parts: readonly Uint8Array[]): void {
    if (this.phase !== "open") return this.drop(parts);
    for (const part of parts) {
      // Split long parts, so that `bufferedAmount` falls while a slow peer reads them.
      for (let at = 0; at < part.length; at += LONGEST_PIECE) {
        this.#write(part.subarray(at, at + LONGEST_PIECE));
      }
    }
  }

  #write(piece: Uint8Array): void {
    this.unsent += piece.length;
    // Copy the chunk: the sink may keep it, and the caller may change its bytes.
    this.#writer.write(new Uint8Array(piece)).then(
      () => this.reportSent(piece.length),
      (error) => this.#failed(error),
    );
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    if (!this.#reading && this.handlers !== undefined) this.#read();
  }

  async #read(): Promise<void> {
    this.#reading = true;
    try {
      while (!this.#paused && !this.isInputEnded && !this.isDestroyed) {
        const { done, value } = await this.#reader.read();
        if (done) this.reportEnd();
        else if (!this.isDestroyed) this.#give(value);
      }
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#reading = false;
    }
  }

  #give(chunk: unknown): void {
    if (!(chunk instanceof Uint8Array)) {
      throw wrongType(`The readable stream gave a ${typeof chunk} instead of a Uint8Array`);
    }
    // Copy the chunk: the handler unmasks its bytes in place, and the stream's source may still own them.
    this.handlers!.data(new Uint8Array(chunk));
  }

  protected finish(): void {
    this.#writer.close().then(() => this.reportFinished(), (error) => this.#failed(error));
  }

  protected cut(): void {
    const reason = this.error ??
      domError("AbortError", "The transport was destroyed", "terminated");
    handled(this.#reader.cancel(reason));
    handled(this.#writer.abort(reason));
    queueMicrotask(() => this.reportClose());
  }

  #failed(error: unknown): void {
    this.fail(error instanceof Error ? error : failure(String(error), "connection-lost"));
  }
}

/**
 * Makes a pair of byte streams from a transport. A write resolves when the platform has taken the bytes.
 * Closing `writable` ends this side, and `readable` closes when the peer ends its side.
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
      const reason = error ?? failure("The transport was closed", "connection-lost");
      if (!ended) input.error(reason);
      ended = true;
      output.error(reason);
      settle();
    },
  });
  transport.resume();
  return { readable, writable };
}
