/** The messages of a topic as a stream, for code that is not a connection. */
import { isTooMuch, MESSAGE_OVERHEAD } from "../connection/sending.ts";
import { failure, invalidState } from "../core/error.ts";
import type { Message } from "../core/message.ts";
import { Queue } from "../core/queue.ts";
import type { Position } from "./backplane.ts";
import type { Channel, ChannelHost } from "./channel.ts";
import type { Delivery } from "./envelope.ts";
import { Listener } from "./listener.ts";

/** A message of {@linkcode Topics.messages}. */
export interface TopicMessage<T> {
  /** The name of the topic. */
  readonly topic: string;
  /** The message. Bytes belong to the reader. */
  readonly message: T;
  /** The place of the message. Undefined without history. */
  readonly position: Position | undefined;
}

export interface ReaderOptions<T> {
  readonly since: Position | undefined;
  readonly maxBufferedAmount: number;
  readonly slow: "error" | "drop-newest" | "drop-oldest";
  readonly decode: (message: Message) => Promise<T>;
}

export class Reader<T> extends Listener {
  readonly peer = undefined;
  readonly presence = undefined;
  readonly stream: ReadableStream<TopicMessage<T>>;
  readonly #host: ChannelHost;
  readonly #options: ReaderOptions<T>;
  readonly #leave: (reader: Reader<T>) => void;
  readonly #queue = new Queue<Delivery>();
  #controller!: ReadableStreamDefaultController<TopicMessage<T>>;
  #size = 0;
  /** Called when a message comes, and when one is taken. */
  #wake: (() => void) | undefined;
  #makeRoom: (() => void) | undefined;

  constructor(
    channel: Channel,
    host: ChannelHost,
    options: ReaderOptions<T>,
    leave: (reader: Reader<T>) => void,
  ) {
    super(channel, host, options.since);
    this.#host = host;
    this.#options = options;
    this.#leave = leave;
    this.stream = new ReadableStream<TopicMessage<T>>({
      start: (controller) => void (this.#controller = controller),
      pull: () => this.#pull(),
      cancel: () => leave(this),
    }, { highWaterMark: 0 });
    this.ready.catch((error) => this.#fail(error));
  }

  protected deliver(delivery: Delivery): void {
    const { slow, maxBufferedAmount } = this.#options;
    const length = delivery.message.length + MESSAGE_OVERHEAD;
    if (slow === "drop-oldest") {
      while (isTooMuch(this.#size, length, maxBufferedAmount)) this.#take();
    } else if (isTooMuch(this.#size, length, maxBufferedAmount)) {
      if (slow === "drop-newest") return;
      const message = "The reader is too slow: more than maxBufferedAmount bytes wait";
      return this.#fail(failure(message, "messages-missed"));
    }
    this.#push(delivery);
  }

  protected async deliverWithRoom(delivery: Delivery): Promise<void> {
    const length = delivery.message.length + MESSAGE_OVERHEAD;
    while (isTooMuch(this.#size, length, this.#options.maxBufferedAmount)) {
      await new Promise<void>((resolve) => this.#makeRoom = resolve);
    }
    this.#push(delivery);
  }

  #fail(error: unknown): void {
    if (this.hasEnded) return;
    this.#controller.error(error);
    this.#leave(this);
  }

  protected tellMissed(): void {}

  #push(delivery: Delivery): void {
    this.#queue.push(delivery);
    this.#size += delivery.message.length + MESSAGE_OVERHEAD;
    this.#wake?.();
  }

  #take(): Delivery | undefined {
    const delivery = this.#queue.shift();
    if (delivery === undefined) return undefined;
    this.#size -= delivery.message.length + MESSAGE_OVERHEAD;
    this.#makeRoom?.();
    return delivery;
  }

  async #pull(): Promise<void> {
    for (;;) {
      const delivery = this.#take();
      if (delivery === undefined) {
        if (this.hasEnded) return;
        await new Promise<void>((resolve) => this.#wake = resolve);
        continue;
      }
      const { topic, position, message } = delivery;
      try {
        // The bytes of a delivery are shared.
        const own = typeof message === "string" ? message : new Uint8Array(message);
        const value = await this.#options.decode(own);
        if (!this.hasEnded) this.#controller.enqueue({ topic, message: value, position });
        return;
      } catch (error) {
        this.#host.engine.report(error, topic);
      }
    }
  }

  /** Closes the stream, unless it was cancelled or has failed. */
  end(): void {
    this.stop(invalidState("The subscription has ended", "not-open"));
    try {
      this.#controller.close();
    } catch {
      // The stream has ended already.
    }
    this.#wake?.();
  }
}
