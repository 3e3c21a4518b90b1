/**
 * The streams of a connection, and the pipe between two of them. It moves messages without the queues and
 * promises of the streams, and otherwise does what the Streams Standard says (ReadableStreamPipeTo).
 */
import { handled, onAbort, Readable } from "../abortable.ts";
import { wrongType } from "../core/error.ts";
import type { Message } from "../core/message.ts";
import type { BufferSource } from "../options.ts";

// The platforms' declarations do not all name these types.
type PipeOptions = NonNullable<Parameters<ReadableStream["pipeTo"]>[1]>;

/** A stream that is open, for its queue. */
export interface OpenStream {
  readonly controller: ReadableStreamDefaultController;
  /** Whether an item is being taken, so that the stream cannot end. */
  isTaking: boolean;
}

/** The queue that a readable stream takes from. */
interface Queue<T> {
  /** Called when the stream is made. */
  open(stream: OpenStream): void;
  /** Gives the next item to the stream. */
  pull<U>(stream: OpenStream, present: (item: T) => U): void | Promise<void>;
  /** Called when the stream was cancelled. */
  shut(): void;
  clear(): void;
}

/** What is told when a stream is cancelled. */
export interface StreamReader {
  leave(reason: unknown): void;
}

/** The strategy of a stream whose own queue stays empty. */
export const NO_QUEUE: { highWaterMark: number } = { highWaterMark: 0 };

/** The algorithms of a readable stream, as methods that all streams share. */
export class Source<T, U> implements OpenStream {
  controller!: ReadableStreamDefaultController<U>;
  isTaking = false;
  readonly #queue: Queue<T>;
  readonly #reader: StreamReader;
  readonly #present: (item: T) => U;

  constructor(queue: Queue<T>, reader: StreamReader, present: (item: T) => U) {
    this.#queue = queue;
    this.#reader = reader;
    this.#present = present;
  }

  start(controller: ReadableStreamDefaultController<U>): void {
    this.controller = controller;
    this.#queue.open(this);
  }

  pull(): void | Promise<void> {
    return this.#queue.pull(this, this.#present);
  }

  cancel(reason: unknown): void {
    this.#queue.shut();
    this.#reader.leave(reason);
    this.#queue.clear();
  }
}

/** The end of a source. */
interface End {
  readonly clean: boolean;
  readonly error: unknown;
}

/** The queue that a pipe takes from. */
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
export interface StreamSender {
  /** Sends a chunk, which is copied. Returns undefined if the next chunk may follow at once. */
  put(chunk: unknown): Promise<void> | undefined;
  /** Sends a message that nobody else has. Returns undefined if the next message may follow at once. */
  move(message: Message): Promise<void> | undefined;
}

/** The connection of a writable stream. */
export interface StreamHost {
  finish(): Promise<void>;
  leave(reason: unknown): void;
}

/** The algorithms of a writable stream, as methods that all streams share. */
export class Sink {
  readonly sender: StreamSender;
  readonly stream: WritableStream<Message | BufferSource>;
  readonly #host: StreamHost;
  #controller: WritableStreamDefaultController | undefined;
  #isWatching = false;
  /** Whether the writer has closed the stream. */
  isClosed = false;
  /** The pipe that gives to the stream. */
  pipe: Pipe | undefined;

  constructor(sender: StreamSender, host: StreamHost) {
    this.sender = sender;
    this.#host = host;
    this.stream = new WritableMessages(this);
  }

  start(controller: WritableStreamDefaultController): void {
    this.#controller = controller;
  }

  write(chunk: unknown): Promise<void> | undefined {
    const sent = this.sender.put(chunk);
    if (sent !== undefined) this.#watch();
    return sent;
  }

  close(): Promise<void> {
    this.isClosed = true;
    return this.#host.finish();
  }

  abort(reason: unknown): void {
    this.#host.leave(reason);
  }

  /** The stream calls `abort()` only after the current write, which may wait for the peer. */
  #watch(): void {
    if (this.#isWatching) return;
    this.#isWatching = true;
    onAbort(this.#controller!.signal, (reason) => this.#host.leave(reason));
  }

  /** Errors the stream, because nothing can be sent any more. */
  error(error: unknown): void {
    this.#controller!.error(error);
    const { pipe } = this;
    if (pipe !== undefined) queueMicrotask(() => pipe.cancel(error));
  }
}

/** Unlike an object, it has no options that a program has set on the prototype of all objects. */
const NO_OPTIONS: PipeOptions = Object.create(null);

// A program may have given a stream another method.
const { getWriter } = WritableStream.prototype;

/** The stream of the messages of a connection. */
export class ReadableMessages extends Readable<Message> {
  readonly #source: PipeSource;

  constructor(source: PipeSource, underlying: Source<Message, Message>) {
    super(underlying, NO_QUEUE);
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
      const read = options === NO_OPTIONS
        ? options
        : { preventAbort, preventCancel, preventClose, signal } as PipeOptions;
      const fallBack = () => super.pipeTo(destination, read);
      if (this.locked || destination.locked || !canWatch(signal)) return fallBack();
      const writer: WritableStreamDefaultWriter = getWriter.call(destination);
      const pipe = new Pipe([this.#source, sink], [super.getReader(), writer], read);
      pipe.beginLater(fallBack);
      return pipe.done;
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
  readonly #sink: Sink;

  constructor(sink: Sink) {
    super(sink);
    this.#sink = sink;
  }

  static sinkOf(stream: WritableStream): Sink | undefined {
    return Object(stream) === stream && #sink in stream ? stream.#sink : undefined;
  }
}

class Pipe {
  readonly done: Promise<void>;
  readonly #source: PipeSource;
  readonly #sink: Sink;
  readonly #reader: ReadableStreamDefaultReader;
  readonly #writer: WritableStreamDefaultWriter;
  readonly #options: PipeOptions;
  readonly #stopWatching: () => void;
  #settle!: (done: Promise<void>) => void;
  /** Whether a message that was taken may not have been sent yet. */
  #isMoving = false;
  /** What to do at the end, once no message is being moved. */
  #shutDown: (() => Promise<void>) | undefined;

  constructor(
    [source, sink]: readonly [PipeSource, Sink],
    [reader, writer]: readonly [ReadableStreamDefaultReader, WritableStreamDefaultWriter],
    options: PipeOptions,
  ) {
    this.#source = source;
    this.#sink = sink;
    this.#reader = reader;
    this.#writer = writer;
    this.#options = options;
    this.done = new Promise((resolve) => this.#settle = resolve);
    this.#stopWatching = onAbort(options.signal, (reason) => this.#abort(reason));
  }

  /** Begins when the chunks that were written before have been sent. */
  beginLater(fallBack: () => Promise<void>): void {
    const begin = () => this.#begin(fallBack);
    const { desiredSize } = this.#writer;
    // A promise of the writer would be kept as long as the writer. An errored one waits for nothing.
    if (desiredSize === 1 || desiredSize === null) return queueMicrotask(begin);
    this.#writer.closed.catch((error) => this.cancel(error));
    this.#writer.ready.then(begin, () => {});
    const checkSource = () => this.#checkSource();
    this.#reader.closed.then(checkSource, checkSource);
  }

  #checkSource(): void {
    const { over } = this.#source;
    if (over !== undefined) this.end(over);
  }

  #begin(fallBack: () => Promise<void>): void {
    if (this.#shutDown !== undefined) return;
    const isOpen = this.#writer.desiredSize === 1 && !this.#sink.isClosed;
    if (isOpen && this.#source.isIdle) {
      this.#sink.pipe = this;
      return this.#run();
    }
    // Node's pipe would take a waiting message, and reject a promise that nobody can handle.
    if (!isOpen && this.#source.over === undefined) return this.#giveUp();
    this.#stop(() => {
      this.#release();
      return fallBack();
    });
  }

  /** Ends the pipe, because the destination takes no messages. */
  #giveUp(): void {
    const { closed, desiredSize } = this.#writer;
    if (desiredSize === null) closed.catch((error) => this.cancel(error));
    else this.cancel(wrongType("Cannot pipe to a stream that is closed or closing"));
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
    const sent = this.#sink.sender.move(message);
    if (sent === undefined) return true;
    sent.then(() => this.#run(), (error) => {
      this.#sink.error(error);
      this.#rest();
    });
    return false;
  }

  #rest(): void {
    this.#isMoving = false;
    if (this.#shutDown === undefined) return;
    // Marked only now, because the promise that this makes would be kept as long as the pipe.
    handled(this.done);
    this.#settle(this.#finish(this.#shutDown));
  }

  async #finish(shutDown: () => Promise<void>): Promise<void> {
    try {
      await shutDown();
    } finally {
      this.#release();
    }
  }

  #release(): void {
    this.#writer.releaseLock();
    this.#reader.releaseLock();
  }

  /** Ends the pipe after the current message. The first call decides how. */
  #stop(shutDown: () => Promise<void>): void {
    if (this.#shutDown !== undefined) return;
    this.#shutDown = shutDown;
    this.#sink.pipe = undefined;
    this.#source.unwait(this);
    this.#stopWatching();
    if (!this.#isMoving) this.#rest();
  }

  /** Called at the end of the source. */
  end(end: End): void {
    this.#source.finish();
    const writer = this.#writer;
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

  /** Called when the destination has errored. */
  cancel(error: unknown): void {
    this.#interrupt(async () => {
      if (!this.#options.preventCancel) await this.#reader.cancel(error);
      throw error;
    });
  }

  #abort(reason: unknown): void {
    const { preventAbort, preventCancel } = this.#options;
    this.#interrupt(async () => {
      await Promise.all([
        preventAbort || this.#writer.abort(reason),
        preventCancel || this.#reader.cancel(reason),
      ]);
      throw reason;
    });
  }
}
