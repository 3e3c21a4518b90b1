/**
 * The streams of a connection, and the pipe between two of them. It moves messages without the queues and
 * promises of the streams, and otherwise does what the Streams Standard says (ReadableStreamPipeTo).
 */
import { handled, onAbort } from "../abortable.ts";
import type { Message } from "../core/message.ts";
import type { BufferSource } from "../options.ts";

// The platforms' declarations do not all name these types.
type PipeOptions = NonNullable<Parameters<ReadableStream["pipeTo"]>[1]>;

/** The algorithms of a readable stream. */
export interface Underlying<T> {
  start(controller: ReadableStreamDefaultController<T>): void;
  pull(controller: ReadableStreamDefaultController<T>): void | Promise<void>;
  cancel(reason: unknown): void;
}

/** The algorithms of a writable stream. */
export interface UnderlyingWriter {
  start(controller: WritableStreamDefaultController): void;
  write(chunk: unknown): Promise<void>;
  close(): Promise<void>;
}

/** The end of a source. */
interface End {
  readonly clean: boolean;
  readonly error: unknown;
}

/** The queue that a readable stream takes from. */
export interface PipeSource {
  /** Whether the stream is open and has nothing in its own queue, and no read waits. */
  readonly isIdle: boolean;
  /** The end, if no message is left before it. */
  readonly over: End | undefined;
  take(): Message | undefined;
  /** Gives the next message to the waiter, or calls its `end()`. */
  wait(waiter: { give(message: Message): void; end(end: End): void }): void;
  unwait(waiter: object): void;
  /** Closes or errors the stream at its end. */
  finish(): void;
}

/** The sender that a writable stream gives to. */
export interface PipeSink {
  /** Whether the stream has been closed. */
  readonly isWriterClosed: boolean;
  /** Sends a message that nobody else has. Returns undefined if the next message may follow at once. */
  move(message: Message): Promise<void> | undefined;
  /** Errors the stream, because a message could not be sent. */
  breakStream(error: unknown): void;
}

/** A stream whose `pipeTo()` may be ignored: a rejection never counts as unhandled. */
export class Readable<T> extends ReadableStream<T> {
  override pipeTo(...args: Parameters<ReadableStream<T>["pipeTo"]>): Promise<void> {
    return handled(super.pipeTo(...args));
  }
}

/** Unlike an object, it has no options that a program has set on the prototype of all objects. */
const NO_OPTIONS: PipeOptions = Object.create(null);

// A program may have given a stream another method.
const { getWriter } = WritableStream.prototype;

/** The stream of the messages of a connection. */
export class ReadableMessages extends Readable<Message> {
  readonly #source: PipeSource;

  constructor(
    source: PipeSource,
    underlying: Underlying<Message>,
    strategy: QueuingStrategy<Message>,
  ) {
    super(underlying, strategy);
    this.#source = source;
  }

  /** The pipe of the platform checks unusual arguments, and pipes to streams of others. */
  override pipeTo(
    destination: WritableStream<Message>,
    options: PipeOptions = NO_OPTIONS,
  ): Promise<void> {
    const sink = WritableMessages.sinkOf(destination);
    if (sink === undefined || Object(options) !== options) {
      return super.pipeTo(destination, options);
    }
    try {
      // Web IDL: each option is read once, in this order.
      const { preventAbort, preventCancel, preventClose, signal } = options;
      const read = { preventAbort, preventCancel, preventClose, signal } as PipeOptions;
      const fallBack = () => super.pipeTo(destination, read);
      if (this.locked || destination.locked || !canWatch(signal)) return fallBack();
      const writer: WritableStreamDefaultWriter = getWriter.call(destination);
      const locks = { reader: super.getReader(), writer };
      return handled(new Pipe(this.#source, sink, locks, read, fallBack).done);
    } catch (error) {
      return handled(Promise.reject(error));
    }
  }
}

function canWatch(signal: AbortSignal | undefined): boolean {
  return signal === undefined || (signal instanceof AbortSignal && !signal.aborted);
}

/** The stream of the messages to send. */
export class WritableMessages extends WritableStream<Message | BufferSource> {
  readonly #sink: PipeSink;

  constructor(sink: PipeSink, underlying: UnderlyingWriter) {
    super(underlying);
    this.#sink = sink;
  }

  static sinkOf(stream: WritableStream): PipeSink | undefined {
    return Object(stream) === stream && #sink in stream ? stream.#sink : undefined;
  }
}

interface Locks {
  readonly reader: ReadableStreamDefaultReader;
  readonly writer: WritableStreamDefaultWriter;
}

class Pipe {
  readonly done: Promise<void>;
  readonly #source: PipeSource;
  readonly #sink: PipeSink;
  readonly #locks: Locks;
  readonly #options: PipeOptions;
  readonly #stopWatching: () => void;
  #settle!: (done: Promise<void>) => void;
  /** Whether a message that was taken may not have been sent yet. */
  #isMoving = false;
  /** What to do at the end, once no message is being moved. */
  #shutDown: (() => Promise<void>) | undefined;

  constructor(
    source: PipeSource,
    sink: PipeSink,
    locks: Locks,
    options: PipeOptions,
    fallBack: () => Promise<void>,
  ) {
    this.#source = source;
    this.#sink = sink;
    this.#locks = locks;
    this.#options = options;
    this.done = new Promise((resolve) => this.#settle = resolve);
    this.#stopWatching = onAbort(options.signal, (reason) => this.#abort(reason));
    const { writer } = locks;
    writer.closed.catch((error) => this.#cancel(error));
    // Chunks that were written before are sent first.
    writer.ready.then(() => this.#begin(fallBack), () => {});
  }

  #begin(fallBack: () => Promise<void>): void {
    if (this.#shutDown !== undefined) return;
    const isFresh = this.#locks.writer.desiredSize === 1 && !this.#sink.isWriterClosed;
    if (isFresh && this.#source.isIdle) return this.#run();
    this.#stop(() => {
      this.#release();
      return fallBack();
    });
  }

  give(message: Message): void {
    this.#isMoving = true;
    if (this.#move(message)) this.#run();
  }

  #run(): void {
    this.#isMoving = true;
    while (this.#shutDown === undefined) {
      const message = this.#source.take();
      if (message === undefined) {
        this.#isMoving = false;
        return this.#source.wait(this);
      }
      if (!this.#move(message)) return;
    }
    this.#rest();
  }

  /** Sends a message. Returns whether the next one may follow at once. */
  #move(message: Message): boolean {
    const sent = this.#sink.move(message);
    if (sent === undefined) return true;
    sent.then(() => this.#run(), (error) => {
      this.#sink.breakStream(error);
      this.#rest();
    });
    return false;
  }

  #rest(): void {
    this.#isMoving = false;
    if (this.#shutDown !== undefined) this.#settle(this.#finish(this.#shutDown));
  }

  async #finish(shutDown: () => Promise<void>): Promise<void> {
    try {
      await shutDown();
    } finally {
      this.#release();
    }
  }

  #release(): void {
    this.#locks.writer.releaseLock();
    this.#locks.reader.releaseLock();
  }

  /** Ends the pipe after the current message. The first call decides how. */
  #stop(shutDown: () => Promise<void>): void {
    if (this.#shutDown !== undefined) return;
    this.#shutDown = shutDown;
    this.#source.unwait(this);
    this.#stopWatching();
    if (!this.#isMoving) this.#rest();
  }

  /** Called at the end of the source. */
  end(end: End): void {
    this.#source.finish();
    const { writer } = this.#locks;
    const { preventAbort, preventClose } = this.#options;
    this.#stop(async () => {
      if (!end.clean) {
        if (!preventAbort) await writer.abort(end.error);
        throw end.error;
      }
      // The stream may have been errored meanwhile. Then its error counts.
      if (!preventClose) await (writer.desiredSize === null ? writer.closed : writer.close());
    });
  }

  /** Stops, unless the source has ended before while a message was being moved. */
  #interrupt(shutDown: () => Promise<void>): void {
    const { over } = this.#source;
    if (over === undefined) this.#stop(shutDown);
    else this.end(over);
  }

  #cancel(error: unknown): void {
    this.#interrupt(async () => {
      if (!this.#options.preventCancel) await this.#locks.reader.cancel(error);
      throw error;
    });
  }

  #abort(reason: unknown): void {
    const { reader, writer } = this.#locks;
    const { preventAbort, preventCancel } = this.#options;
    this.#interrupt(async () => {
      await Promise.all([
        preventAbort || writer.abort(reason),
        preventCancel || reader.cancel(reason),
      ]);
      throw reason;
    });
  }
}
