/** Publishes messages in the order in which they were given, and again after failures. */
import { abortable } from "../abortable.ts";
import { failure } from "../core/error.ts";
import { nextTurn } from "../timers.ts";

/** The messages of one topic that are not settled. */
interface Line {
  count: number;
  /** The number of the last message that the engine has taken, or may have taken. */
  last: number;
  /** The number of the last message that the engine has confirmed. */
  confirmed: number;
}

interface Call {
  /** Number of messages before this one. */
  readonly nth: number;
  readonly line: Line;
  readonly publish: (isLate: boolean) => Promise<unknown>;
  /** Settle the current attempt. */
  resolve: (answer: unknown) => void;
  reject: (error: unknown) => void;
  /** Resolves when the message that was sent is settled. */
  settled: Promise<void> | undefined;
  wasRefused: boolean;
  /** Whether a later message of the topic was taken, or may have been. */
  isLate: boolean;
}

/** What an {@linkcode Outbox} needs of its backplane. */
export interface OutboxHost {
  /** Whether messages can be sent now. */
  readonly canSend: boolean;
  /** Waits until messages can be sent. */
  ready(signal: AbortSignal): Promise<void>;
  /** Whether an error says that the engine has not taken the message. */
  isRefusal(error: unknown): boolean;
  /**
   * Lets messages wait until those that were sent are settled, and for a pause. Throws the error if the
   * message must not be sent again.
   */
  failed(error: unknown, signal: AbortSignal): void;
}

const { signal: NEVER } = new AbortController();

/**
 * The messages that the engine has not confirmed. After a failure, all of them are sent again in their order.
 * A message that is refused while a later one of its topic is taken is given up: it would arrive too late.
 */
export class Outbox {
  readonly #host: OutboxHost;
  #count = 0;
  readonly #lines = new Map<string, Line>();
  /** The messages that are to be sent, for the first time or again. */
  readonly #unsent = new Set<Call>();
  #isWaiting = false;
  readonly #sent = new Set<Call>();

  constructor(host: OutboxHost) {
    this.#host = host;
  }

  /**
   * Publishes a message until the engine takes it.
   *
   * @param publish Sends the message. If a later message of the topic was taken, `isLate` is true: then the
   * engine must refuse the message, unless it has stored it already.
   */
  async publish<T>(
    topic: string,
    signal: AbortSignal,
    publish: (isLate: boolean) => Promise<T>,
  ): Promise<T> {
    const line = this.#lines.get(topic) ?? { count: 0, last: -1, confirmed: -1 };
    this.#lines.set(topic, line);
    line.count++;
    const nth = this.#count++;
    const ignore = () => {};
    const call: Call = {
      nth,
      line,
      publish,
      resolve: ignore,
      reject: ignore,
      settled: undefined,
      wasRefused: false,
      isLate: false,
    };
    try {
      for (;;) {
        try {
          return await abortable(this.#attempt(call), signal) as T;
        } catch (error) {
          this.#unsent.delete(call);
          if (call.isLate && call.wasRefused) throw error;
          this.#host.failed(error, signal);
        }
      }
    } finally {
      line.count--;
      if (line.count === 0) this.#lines.delete(topic);
    }
  }

  /** Waits until the engine has answered the messages that were sent, or they have failed. */
  async settled(): Promise<void> {
    await Promise.all(Array.from(this.#sent, ({ settled }) => settled));
    // In the next turn, those that have failed wait to be sent again.
    await new Promise<void>((resolve) => void nextTurn(resolve));
  }

  #attempt(call: Call): Promise<unknown> {
    this.#unsent.add(call);
    void this.#sendSoon();
    return new Promise((resolve, reject) => {
      call.resolve = resolve;
      call.reject = reject;
    });
  }

  /** Sends the messages that wait, as soon as that is possible. */
  async #sendSoon(): Promise<void> {
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    try {
      do await this.#host.ready(NEVER); while (!this.#host.canSend);
      this.#send();
    } catch (error) {
      for (const { reject } of this.#unsent) reject(error);
      this.#unsent.clear();
    }
    this.#isWaiting = false;
  }

  /** Sends the messages in the order in which they were given. */
  #send(): void {
    const calls = Array.from(this.#unsent).sort((a, b) => a.nth - b.nth);
    this.#unsent.clear();
    for (const call of calls) {
      const { nth, line, wasRefused } = call;
      call.isLate = line.confirmed > nth || (wasRefused && line.last > nth);
    }
    for (const call of calls) {
      this.#sent.add(call);
      call.settled = this.#ask(call);
    }
  }

  async #ask(call: Call): Promise<void> {
    const { line, nth } = call;
    try {
      if (call.isLate && call.wasRefused) throw overtaken();
      // Later messages of the topic that were sent before are sent again too, unless they are confirmed.
      if (!call.isLate) line.last = Math.min(line.last, nth - 1);
      call.wasRefused = false;
      call.resolve(await call.publish(call.isLate));
      line.confirmed = Math.max(line.confirmed, nth);
    } catch (error) {
      call.wasRefused ||= this.#host.isRefusal(error);
      call.reject(call.isLate && call.wasRefused ? overtaken(error) : error);
    }
    if (!call.wasRefused) line.last = Math.max(line.last, nth);
    this.#sent.delete(call);
  }
}

function overtaken(cause?: unknown): Error {
  const message = "The engine has refused the message, but taken a later one of the topic";
  return failure(message, "backplane-failed", cause);
}
