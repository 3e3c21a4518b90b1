/**
 * The transforms of `streams.ts` wired with the protocol into a duplex of messages.
 *
 * A file of its own because it is no transform but what holds them together.
 *
 * @module
 */
import type { ByteDuplex } from "../byte_streams.ts";
import { closeInfoOf, CloseRecord } from "../connection/close_record.ts";
import { ControlRate } from "../connection/control_rate.ts";
import { CloseCode, type CloseInfo } from "../core/close.ts";
import { RemoteProtocolError, type WebSocketError, webSocketError } from "../core/error.ts";
import type { Role } from "../core/frame.ts";
import { FrameDecoder, type FrameDecoderOptions, type FramePiece } from "../core/frame_decoder.ts";
import { type Fragment, MAX_MESSAGE_SIZE, type Message } from "../core/message.ts";
import { type CloseEvent, type PongEvent, response } from "../core/event.ts";
import { bitsOf, type Extension } from "../core/extension.ts";
import { checkKnown, type OptionNames } from "../core/options.ts";
import { Protocol } from "../core/protocol.ts";
import { invalidState } from "../invalid_state.ts";
import {
  type BufferSource,
  checkNumber,
  checkStrategy,
  type ConnectionOptions,
} from "../options.ts";
import { handled, SEND_MARK } from "../connection/outbox.ts";
import { toMessage } from "../connection/outgoing.ts";
import { Receiver } from "../connection/receiver.ts";
import { Batch } from "./batch.ts";
import { PullStream } from "./pull_stream.ts";
import {
  ExtensionDecoderStream,
  ExtensionEncoderStream,
  FrameEncoderStream,
  MessageFragmenterStream,
} from "./transforms.ts";
import { deadline, nextTurn } from "../timers.ts";

/** How {@linkcode assemble} works. */
export interface AssembleOptions extends
  Pick<
    ConnectionOptions,
    | "maxMessageSize"
    | "maxFrameSize"
    | "maxControlFramesPerSecond"
    | "readableStrategy"
    | "closeTimeout"
  > {
  /** Which end this is. */
  role: Role;
  /**
   * The extensions that were agreed on, in that order; they are closed with the connection.
   * Default: none
   */
  extensions?: readonly Extension[];
}

const ASSEMBLE_OPTIONS: OptionNames<AssembleOptions> = {
  maxMessageSize: true,
  maxFrameSize: true,
  maxControlFramesPerSecond: true,
  readableStrategy: true,
  closeTimeout: true,
  role: true,
  extensions: true,
};

const NUMBERS = [
  "maxMessageSize",
  "maxFrameSize",
  "maxControlFramesPerSecond",
  "closeTimeout",
] as const;

/** A duplex of messages. */
export interface MessageDuplex {
  /** The messages that come. Bytes are the reader's: each message has a buffer of its own. */
  readonly readable: ReadableStream<Message>;
  /** The messages to send. */
  readonly writable: WritableStream<Message | BufferSource>;
  /** Settles as that of a `WebSocketConnection`. */
  readonly closed: Promise<Required<CloseInfo>>;
}

/**
 * Wires the transforms with a {@linkcode Protocol} into a duplex of messages, over a pair of byte streams
 * behind the opening handshake. Pings are answered, and the closing handshake is done, as by a
 * `WebSocketConnection`, which does the same several times as fast and has keepalive besides.
 *
 * @example
 * ```ts
 * import { assemble } from "@sluice/sluice/streams";
 *
 * const up = new TransformStream<Uint8Array, Uint8Array>();
 * const down = new TransformStream<Uint8Array, Uint8Array>();
 * const client = assemble({ readable: down.readable, writable: up.writable }, { role: "client" });
 * const server = assemble({ readable: up.readable, writable: down.writable }, { role: "server" });
 * server.readable.pipeTo(server.writable);
 * const writer = client.writable.getWriter();
 * await writer.write("Hello");
 * console.log((await client.readable.getReader().read()).value); // Hello
 * await writer.close();
 * ```
 *
 * @throws {TypeError} If the duplex is not a pair of byte streams, or one of them is locked; if an option
 * does not exist or has the wrong type.
 * @throws {RangeError} If a number is negative or NaN.
 */
export function assemble(duplex: ByteDuplex, options: AssembleOptions): MessageDuplex {
  checkKnown("assemble()", options, ASSEMBLE_OPTIONS);
  for (const name of NUMBERS) checkNumber(name, options[name]);
  checkStrategy(options.readableStrategy);
  checkDuplex(duplex);
  const { readable, writable, closed } = new Assembly(duplex, options);
  return { readable, writable, closed };
}

/** Streams that cannot be piped would carry nothing, and the duplex would never end. */
function checkDuplex(duplex: ByteDuplex): void {
  const { readable, writable } = (duplex ?? {}) as Partial<ByteDuplex>;
  if (!(readable instanceof ReadableStream && writable instanceof WritableStream)) {
    throw new TypeError("Expected a readable and a writable stream of bytes");
  }
  if (readable.locked || writable.locked) {
    throw new TypeError("Expected streams that are not locked");
  }
}

const ignore = () => {};

/**
 * Bytes to frames. Each chunk is copied first, because it may belong to somebody else: after that, the
 * parts of it that become messages need no further copy.
 */
function decoderOf(options: FrameDecoderOptions): PullStream<Uint8Array, FramePiece[]> {
  const decoder = new FrameDecoder({ ...options, ownsInput: true });
  decoder.gathers = options.rsvInUse === 0;
  const machine = {
    push(chunk: Uint8Array) {
      if (!(chunk instanceof Uint8Array)) {
        throw new TypeError(`Expected bytes, received ${typeof chunk}`);
      }
      decoder.push(new Uint8Array(chunk));
    },
    next: () => decoder.next(),
    end: () => decoder.end(),
  };
  return new PullStream(new Batch(machine, { size: ({ payload }) => payload.length }));
}

class Assembly implements MessageDuplex {
  readonly readable: ReadableStream<Message>;
  readonly writable: WritableStream<Message | BufferSource>;
  readonly closed: Promise<Required<CloseInfo>>;
  readonly #duplex: ByteDuplex;
  readonly #closeTimeout: number;
  readonly #maxFrameSize: number | undefined;
  readonly #extensions: readonly Extension[];
  readonly #protocol: Protocol;
  readonly #receiver: Receiver;
  readonly #controlRate: ControlRate;
  readonly #record = new CloseRecord();
  readonly #messages: WritableStreamDefaultWriter<Message>;
  /** The end of the outgoing pipe, where control frames come in between the frames of messages. */
  #bytes!: ReadableStreamDefaultController<Uint8Array>;
  /** The byte stream takes no more: it has failed, or was cut. */
  #outputGone = false;
  #roomForFrame = ignore;
  #owedPong: PongEvent | undefined;
  readonly #sent: Promise<void>;
  readonly #cut = new AbortController();
  #cancelCloseTimer = ignore;
  #writableController!: WritableStreamDefaultController;
  #writableClosing = false;
  #pendingWrites = 0;
  #error: WebSocketError | undefined;
  #settle!: { resolve(info: Required<CloseInfo>): void; reject(error: unknown): void };
  #finished = false;
  #wake = ignore;

  constructor(duplex: ByteDuplex, options: AssembleOptions) {
    const { role, maxMessageSize = MAX_MESSAGE_SIZE, closeTimeout = 10_000 } = options;
    const { extensions = [], maxFrameSize } = options;
    this.#duplex = duplex;
    this.#closeTimeout = closeTimeout;
    this.#maxFrameSize = maxFrameSize;
    this.#extensions = extensions;
    this.#protocol = new Protocol(role, { maxMessageSize });
    this.closed = handled(
      new Promise((resolve, reject) => this.#settle = { resolve, reject }),
    );
    this.#receiver = new Receiver(options.readableStrategy, {
      onTaken: () => this.#wake(),
      onMode: () => {},
      leave: (reason) => this.#startClose(closeInfoOf(reason, false)),
    });
    this.#controlRate = new ControlRate(options.maxControlFramesPerSecond);
    this.readable = this.#receiver.readable;

    const fragmenter = new MessageFragmenterStream();
    const bytes = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#bytes = controller;
      },
      pull: () => this.#onRoom(),
      cancel: () => {
        this.#outputGone = true;
        this.#roomForFrame();
        // What the input still has is read, unless it never ends.
        if (!this.#finished && !this.#cut.signal.aborted) this.#armCloseTimer();
      },
    }, { highWaterMark: SEND_MARK, size: (chunk) => chunk.length });
    this.#messages = fragmenter.writable.getWriter();
    handled(this.#messages.closed);
    handled(
      fragmenter.readable
        .pipeThrough(new ExtensionEncoderStream(extensions))
        .pipeThrough(new FrameEncoderStream({ role }))
        .pipeTo(this.#frameSink()),
    );
    this.#sent = handled(bytes.pipeTo(duplex.writable, { signal: this.#cut.signal }));
    this.writable = this.#makeWritable();
    this.#run().then(this.#settle.resolve, this.#settle.reject);
  }

  get #canSend(): boolean {
    const { state } = this.#protocol;
    return this.#error === undefined && (state === "open" || state === "remote-closing");
  }

  /** Where the frames of messages go; what waited behind a Close frame is not sent. */
  #frameSink(): WritableStream<Uint8Array> {
    return new WritableStream({
      write: (frame) => {
        if (!this.#canSend) return;
        if (this.#outputGone) throw this.#closedError();
        this.#bytes.enqueue(frame);
        if (this.#bytes.desiredSize! > 0) return;
        return new Promise<void>((resolve) => this.#roomForFrame = resolve);
      },
    });
  }

  #onRoom(): void {
    const pong = this.#owedPong;
    this.#owedPong = undefined;
    if (pong !== undefined) this.#control(pong);
    this.#roomForFrame();
  }

  #makeWritable(): WritableStream<Message | BufferSource> {
    return new WritableStream({
      start: (controller) => {
        this.#writableController = controller;
        controller.signal?.addEventListener(
          "abort",
          () => this.#startClose(closeInfoOf(controller.signal.reason, false)),
        );
      },
      write: (chunk) => this.#write(toMessage(chunk)),
      close: async () => {
        this.#writableClosing = true;
        this.#startClose({});
        if (!this.#finished || this.#error !== undefined) await this.closed;
      },
      abort: (reason) => this.#startClose(closeInfoOf(reason, false)),
    });
  }

  async #write(message: Message): Promise<void> {
    this.#pendingWrites++;
    try {
      if (!this.#canSend) throw this.#closedError();
      await this.#messages.write(typeof message === "string" ? message : new Uint8Array(message));
    } catch (error) {
      // A write that the end has cut off is not to reject before `closed`.
      if (!this.#canSend || this.#outputGone) await this.closed.catch(ignore);
      throw error;
    } finally {
      this.#pendingWrites--;
    }
  }

  /** Receives until the connection is at its end, and then ends it. */
  async #run(): Promise<Required<CloseInfo>> {
    const decoder = decoderOf({
      role: this.#protocol.role,
      maxFrameSize: this.#maxFrameSize,
      rsvInUse: bitsOf(this.#extensions),
    });
    const { signal } = this.#cut;
    // Should the decoder fail, the input is still needed to see its end.
    const piped = handled(
      this.#duplex.readable.pipeTo(decoder.writable, { preventCancel: true, signal }),
    );
    const batches = decoder.readable
      .pipeThrough(ExtensionDecoderStream.batched(this.#extensions))
      .getReader();
    try {
      const event = await this.#receive(batches);
      await this.#quiet();
      if (event === undefined) this.#lose();
      else this.#closeReceived(event);
    } catch (error) {
      await this.#quiet();
      if (error instanceof RemoteProtocolError && error.closeCode !== CloseCode.Abnormal) {
        this.#fail(error);
      } else {
        this.#lose(error);
      }
    }
    handled(batches.cancel());
    await piped.catch(ignore);
    return await this.#end();
  }

  /** Takes pieces until a Close frame, or the end of the input. */
  async #receive(
    batches: ReadableStreamDefaultReader<FramePiece[]>,
  ): Promise<CloseEvent | undefined> {
    for (;;) {
      const { done, value } = await batches.read();
      if (done) return undefined;
      for (const piece of value) {
        while (this.#receiver.full && this.#canSend) {
          await new Promise<void>((resolve) => this.#wake = resolve);
        }
        const event = this.#protocol.receivePiece(piece);
        if (event.type === "close") return event;
        if (event.type === "ping" || event.type === "pong") {
          this.#controlRate.count(this.#receiver.messagesReceived);
          if (event.type === "ping") this.#answer({ type: "pong", payload: event.payload });
        } else this.#deliver(event);
      }
    }
  }

  #deliver(fragment: Fragment): void {
    try {
      this.#receiver.deliver(fragment, !this.#canSend);
    } catch (cause) {
      throw new RemoteProtocolError("A callback threw", CloseCode.InternalError, { cause });
    }
  }

  #quiet(): Promise<void> {
    return new Promise((resolve) => this.#receiver.whenQuiet(resolve));
  }

  /** RFC 6455 §5.5.3: of several pings that wait for room to be answered, the last one is enough. */
  #answer(pong: PongEvent): void {
    if (this.#bytes.desiredSize! > 0) this.#control(pong);
    else this.#owedPong = pong;
  }

  #control(event: PongEvent | CloseEvent): void {
    // RFC 6455 §5.5.2: a ping is answered until the peer's Close frame has come.
    const answers = event.type === "pong" && this.#protocol.state === "local-closing";
    if (this.#error !== undefined || !(this.#canSend || answers)) return;
    const bytes = this.#protocol.send(event);
    if (!this.#outputGone) this.#bytes.enqueue(bytes);
  }

  #startClose(info: CloseInfo): void {
    if (!this.#canSend) return;
    const { closeCode = CloseCode.NoStatus, reason = "" } = info;
    this.#sendClose({ type: "close", closeCode, reason });
    this.#wake();
  }

  #sendClose(event: CloseEvent): void {
    this.#control(event);
    this.#record.note("sent", event);
    this.#armCloseTimer();
  }

  #armCloseTimer(): void {
    this.#cancelCloseTimer();
    if (this.#closeTimeout > 0) {
      this.#cancelCloseTimer = deadline(() => this.#cut.abort(), this.#closeTimeout);
    }
  }

  #closeReceived(event: CloseEvent): void {
    this.#record.note("received", event);
    if (!this.#canSend) return;
    const pending = this.#pendingWrites > 0;
    this.#sendClose(response(event) as CloseEvent);
    if (!pending) return;
    const { closeCode, reason } = event;
    const message = `The peer has closed while messages waited to be sent (${this.#record})`;
    this.#error = webSocketError(message, closeCode, reason);
    // Before the writes that it cuts off.
    this.#settle.reject(this.#error);
    handled(this.#messages.abort(this.#closedError()));
  }

  #fail(error: RemoteProtocolError): void {
    const { event } = error;
    if (this.#canSend && event?.type === "close") this.#sendClose(event);
    this.#error = webSocketError(error.message, error.closeCode, "", error.cause ?? error);
    this.#endStreams(this.#error);
  }

  #lose(cause?: unknown): void {
    const message = `The transport ended without a Close frame (${this.#record})`;
    this.#error = webSocketError(message, CloseCode.Abnormal, "", cause);
    this.#endStreams(this.#error);
  }

  /** RFC 6455 §7.1.1: the server ends the transport first, the client waits for it to do so. */
  async #end(): Promise<Required<CloseInfo>> {
    // An output that takes nothing must not hold up an end that no Close frame has begun.
    if (this.#error !== undefined) this.#armCloseTimer();
    const server = this.#protocol.role === "server" || this.#error !== undefined;
    if (server) await this.#endOutput();
    await this.#drainInput();
    if (!server) await this.#endOutput();
    this.#cancelCloseTimer();
    return await this.#finish();
  }

  async #endOutput(): Promise<void> {
    if (!this.#outputGone) this.#bytes.close();
    const { signal } = this.#cut;
    const cut = new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener("abort", () => resolve(), { once: true });
    });
    // An aborted pipe still waits for the write that is under way, which the peer may never let through.
    await Promise.race([this.#sent.catch(ignore), cut]);
  }

  async #drainInput(): Promise<void> {
    const reader = this.#duplex.readable.getReader();
    const { signal } = this.#cut;
    const cancel = () => handled(reader.cancel());
    if (signal.aborted) cancel();
    signal.addEventListener("abort", cancel);
    try {
      while (!(await reader.read()).done);
    } catch {
      // An input that fails has ended as well.
    }
    signal.removeEventListener("abort", cancel);
  }

  async #finish(): Promise<Required<CloseInfo>> {
    this.#finished = true;
    for (const extension of this.#extensions) extension.close();
    if (this.#error !== undefined) {
      this.#endStreams(this.#error);
      throw this.#error;
    }
    const { closeCode, reason } = this.#record.received;
    const message = `The connection was closed (${this.#record})`;
    this.#receiver.end(webSocketError(message, closeCode, reason), true);
    // A pipe from `readable` to `writable` needs a turn to close the latter.
    await new Promise<void>((resolve) => nextTurn(resolve));
    if (!this.#writableClosing) this.#writableController.error(this.#closedError());
    return { closeCode, reason };
  }

  #endStreams(error: WebSocketError): void {
    this.#settle.reject(error);
    handled(this.#messages.abort(error));
    if (!this.#writableClosing) this.#writableController.error(error);
    this.#receiver.end(error, false);
  }

  #closedError(): DOMException {
    return invalidState(
      `Expected an open connection, it is closing or closed (${this.#record})`,
      this.#error,
    );
  }
}
